"""A trust domain that is federated with: how it stands, how it is kept on record, what is given along with it."""

from datetime import datetime, timedelta

import msgspec
from attrs import evolve, frozen

from pki.codes import Code
from pki.errors import Problem
from pki.spiffe import TrustDomain
from pki.svid.bundle import BadBundle, TrustBundle
from pki.svid.federated_document import FederatedDocument
from pki.svid.federation import BadFederation, Profile, Relationship
from pki.validity import rfc3339, spoken_duration
from twisted_mesh.federation.following import Following
from twisted_mesh.stores.records import StoredFederation

#: Bytes of a bundle that an administrator brings.
LARGEST_BUNDLE = 64 * 1024
#: Failures in a row from which on an operator should look.
_FAILS_FOR_LONG = 3


class _Document(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A relationship in the record."""

    url: str
    profile: str
    endpoint_id: str | None
    crl_url: str | None


_encode = msgspec.json.Encoder(order="sorted").encode
_decode = msgspec.json.Decoder(_Document).decode


@frozen
class Federated:
    """A trust domain that is federated with, as it stands."""

    following: Following
    created_at: datetime
    is_believed: bool
    """Whether its bundle is handed out: there is one, it is not too old, and its CRL says who is revoked."""
    crl_problem: Problem | None = None
    """Why it is not known whom of it its CA has revoked, where a CRL is to say so: then it is not believed."""

    @property
    def relationship(self) -> Relationship:
        """What an administrator has said of it."""
        return self.following.relationship

    @property
    def trust_domain(self) -> TrustDomain:
        """Its name."""
        return self.following.relationship.trust_domain

    def problem(self, now: datetime) -> Problem | None:
        """What an operator should look at: nobody there is believed, or its endpoint has failed for some while."""
        name, following = self.trust_domain, self.following
        why = "; ".join(problem.detail for problem in following.problems)
        look = f"mesh-ctl federation show {name}, and ask its operator"
        if self.crl_problem is not None:
            return evolve(self.crl_problem, detail=f"{name}: {self.crl_problem.detail}")
        if following.bundle is None:
            detail = f"{name}: there is no bundle yet{': ' + why if why else ''}"
        elif following.is_too_old(now):
            age = spoken_duration(following.age(now) or timedelta())
            detail = f"{name}: its bundle is {age} old, and is not handed out any more: {why}"
        elif following.failures >= _FAILS_FOR_LONG and following.failed_since is not None:
            detail = (
                f"{name}: its endpoint has failed since {rfc3339(following.failed_since)}: {why}"
            )
        elif not following.bundle.roots:
            detail = f"{name}: it has published no root, so nobody there is believed"
        else:
            return None
        return Problem(Code.UNHEALTHY_FEDERATION, detail, look)


def read_given(trust_domain: TrustDomain, text: str) -> TrustBundle:
    """The bundle that an administrator brings: SPIFFE's JSON, or roots in PEM. Raises :class:`BadBundle`, and what
    reading PEM raises."""
    data = text.encode("utf-8", "replace")
    if len(data) > LARGEST_BUNDLE:
        raise BadBundle(f"a bundle has at most {LARGEST_BUNDLE} bytes here, this one {len(data)}")
    if text.lstrip().startswith("{"):
        bundle = FederatedDocument.parse(trust_domain, data).bundle
    else:
        bundle = TrustBundle.from_pem(trust_domain, data, "the bundle")
    if not bundle.roots:
        raise BadBundle(f"the bundle of {trust_domain} has no root: nobody there would be believed")
    return bundle


def relationship_of(
    stored: StoredFederation, own: TrustDomain, held: set[TrustDomain]
) -> Relationship:
    """Raises :class:`Malformed` for what :func:`_document` would not have written, or is not allowed any more."""
    try:
        said = _decode(stored.relationship)
    except (msgspec.DecodeError, RecursionError):
        raise BadFederation("it is damaged, or was not written by this program") from None
    return Relationship.parse(
        str(stored.trust_domain),
        said.url,
        said.profile,
        said.endpoint_id,
        said.crl_url,
        own=own,
        held=held,
        has_bundle=stored.bundle is not None
        and Profile.parse(said.profile) is Profile.HTTPS_SPIFFE,
    )


def facts_on_record(stored: StoredFederation) -> dict[str, str]:
    """How it is had by its row, be it allowed or not, as the act of its beginning tells that; none of a damaged row."""
    try:
        said = msgspec.to_builtins(_decode(stored.relationship))
    except (msgspec.DecodeError, RecursionError):
        return {}
    return {member: str(told) for member, told in said.items() if told}


def document_of(relationship: Relationship) -> bytes:
    endpoint = relationship.endpoint_id
    return _encode(
        _Document(
            relationship.url,
            str(relationship.profile),
            None if endpoint is None else str(endpoint),
            relationship.crl_url,
        )
    )
