"""The routes of federation: which trust domains are followed, and what administrators do with them."""

from http import HTTPStatus

from pki.errors import Problem
from pki.spiffe import TrustDomain
from pki.svid.federation import Relationship, apart, root_keys
from pki.svid.pin import Fingerprint
from pki.validity import rfc3339, spoken_duration
from twisted_mesh.api.federation_messages import (
    FederationEnded,
    FederationRow,
    FederationRows,
    NewFederation,
    RefreshFederation,
)
from twisted_mesh.ca.api.entries import reason_of
from twisted_mesh.ca.api.request import Call
from twisted_mesh.ca.api.response import Answer, json_answer, optional_time
from twisted_mesh.ca.federated import Federated, read_given
from twisted_mesh.ca.parts import CaParts


async def list_federations(ca: CaParts, call: Call) -> Answer:
    """Every trust domain that is federated with, by name."""
    federations = ca.federations
    unreadable = {str(name): why for name, why in federations.unreadable.items()}
    return json_answer(FederationRows([_row(ca, known) for known in federations], unreadable))


async def show_federation(ca: CaParts, call: Call) -> Answer:
    """One of them. Raises :class:`Unknown`, :class:`pki.spiffe.NotASpiffeId`."""
    return json_answer(_row(ca, ca.federations.find(call.rest)))


async def add_federation(ca: CaParts, call: Call) -> Answer:
    """Federate with another trust domain.

    Raises :class:`BadFederation`, :class:`BadBundle`, :class:`ForeignRoot`, :class:`Conflict`.
    """
    asked, federations = call.read(NewFederation), ca.federations
    relationship = Relationship.parse(
        asked.trust_domain,
        asked.url,
        asked.profile,
        asked.endpoint_id,
        asked.crl_url,
        own=ca.trust_domain,
        held=federations.held,
        has_bundle=asked.bundle is not None,
    )
    bundle = None
    if asked.bundle is not None:
        bundle = read_given(relationship.trust_domain, asked.bundle)
        # A file that was mixed up is said now, and not with the first look at what it has.
        _ = apart(bundle, root_keys(ca.bundle()), {})
    added = await federations.add(call.principal, relationship, bundle, reason_of(asked.reason))
    return json_answer(_row(ca, added), HTTPStatus.CREATED)


async def refresh_federation(ca: CaParts, call: Call) -> Answer:
    """Ask for its bundle now. Raises :class:`Unknown`, and what the question comes to where it fails."""
    asked = call.read(RefreshFederation)
    refreshed = await ca.federations.refresh(
        call.principal, call.rest, reason_of(asked.reason), accept_older=asked.accept_older
    )
    return json_answer(_row(ca, refreshed))


async def remove_federation(ca: CaParts, call: Call) -> Answer:
    """Federate with it no more. Raises :class:`Unknown`, :class:`pki.spiffe.NotASpiffeId`."""
    reason = reason_of(call.query.get("reason", ""))
    at = await ca.federations.remove(call.principal, call.rest, reason)
    trust_domain = TrustDomain.parse(call.rest)
    ended = FederationEnded(str(trust_domain), rfc3339(at), _entries(ca, trust_domain))
    return json_answer(ended)


def _row(ca: CaParts, known: Federated) -> FederationRow:
    following, relationship, now = known.following, known.relationship, ca.now()
    bundle, endpoint = following.bundle, relationship.endpoint_id
    problem = known.problem(now)
    problems = list(map(_told, following.problems))
    if problem is not None and not following.problems:
        problems.append(_told(problem))
    return FederationRow(
        trust_domain=str(relationship.trust_domain),
        url=relationship.url,
        profile=str(relationship.profile),
        endpoint_id=None if endpoint is None else str(endpoint),
        crl_url=relationship.crl_url,
        created_at=rfc3339(known.created_at),
        believed=known.is_believed,
        sequence=following.sequence,
        fetched_at=optional_time(following.fetched_at),
        age=None if (age := following.age(now)) is None else spoken_duration(age),
        next_at=optional_time(following.next_at),
        refresh_hint=following.hint,
        failures=following.failures,
        failed_since=optional_time(following.failed_since),
        problems=problems,
        passed_over=list(map(_told, following.passed_over)),
        roots=[] if bundle is None else [str(Fingerprint.of(root)) for root in bundle.roots],
        jwt_keys=[] if bundle is None else [key.kid for key in bundle.jwt_authorities],
        entries=_entries(ca, relationship.trust_domain),
    )


def _told(problem: Problem) -> str:
    return f"{problem.detail}; {problem.remedy}" if problem.remedy else problem.detail


def _entries(ca: CaParts, trust_domain: TrustDomain) -> list[str]:
    return [
        known.entry.id for known in ca.entries.all() if trust_domain in known.entry.federates_with
    ]
