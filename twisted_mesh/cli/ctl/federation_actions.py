"""What ``mesh-ctl federation`` does: add, list, show, refresh, remove."""

from pathlib import Path

import msgspec
from attrs import frozen

from pki.errors import PkiError, printable
from pki.spiffe import SpiffeId, TrustDomain
from pki.svid.federation import Profile, Relationship
from twisted_mesh.api.admin_client import Administration
from twisted_mesh.api.federation_messages import FederationRow, NewFederation, RefreshFederation
from twisted_mesh.cli.ctl import output
from twisted_mesh.cli.ctl.options import confirmed
from twisted_mesh.cli.program import Unusable
from twisted_mesh.cli.status import DONE, REFUSED
from twisted_mesh.state.directory import read_file

_HEADINGS = (
    "TRUST DOMAIN",
    "BELIEVED",
    "SEQUENCE",
    "AGE",
    "ASKED AGAIN",
    "ENTRIES",
    "LAST FAILURE",
)
#: Bytes: it goes into one request. A root takes two thousand, and one of a post-quantum key 10,400 in PEM: four of
#: them fit; in the JSON of a SPIFFE bundle it takes 14,000.
_LARGEST_BUNDLE = 48 * 1024
#: Of no mesh: whether the CA itself has that name is for the CA to say.
_NOBODY = TrustDomain("own.invalid")


def understood(asked: NewFederation, bundle: str | None) -> NewFederation:
    """What the options ask for, with the content of the file ``bundle``. Raises :class:`Unusable`."""
    text = None
    if bundle is not None:
        data = read_file(Path(bundle), "--bundle", _LARGEST_BUNDLE)
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError:
            raise Unusable(
                f"--bundle {printable(bundle, 100)} is no text: give SPIFFE's JSON, or certificates in PEM"
            ) from None
    try:
        _demand_usable(asked, has_bundle=text is not None)
    except PkiError as error:
        raise Unusable(str(error)) from None
    return msgspec.structs.replace(asked, bundle=text)


def _demand_usable(asked: NewFederation, *, has_bundle: bool) -> None:
    """All but what only the CA knows: whose bundles it holds."""
    domain = TrustDomain.parse(asked.trust_domain)
    held = []
    if asked.endpoint_id is not None and Profile.parse(asked.profile) is Profile.HTTPS_SPIFFE:
        at = SpiffeId.parse(asked.endpoint_id).trust_domain
        held = [at] if at != domain else []
    Relationship.parse(
        asked.trust_domain,
        asked.url,
        asked.profile,
        asked.endpoint_id,
        asked.crl_url,
        own=_NOBODY,
        held=held,
        has_bundle=has_bundle,
    )


@frozen
class Adding:
    """``federation add``."""

    new: NewFederation
    as_json: bool

    async def __call__(self, administration: Administration) -> int:
        row = await administration.federate(self.new)
        _put(row, as_json=self.as_json)
        if not row.entries and not self.as_json:
            output.say(
                "no entry federates with it yet, so nobody is given its bundle: mesh-ctl entry create … "
                f"--federates-with {row.trust_domain}"
            )
        if row.crl_url is None and not self.as_json:
            output.say(
                "there is no --crl-url: whom its CA revokes is believed here until the certificate expires"
            )
        return DONE


@frozen
class Listing:
    """``federation list``."""

    as_json: bool

    async def __call__(self, administration: Administration) -> int:
        rows = await administration.federations()
        if self.as_json:
            output.put_json([msgspec.to_builtins(row) for row in rows.federations])
        elif rows.federations:
            output.put_table(_HEADINGS, map(_cells, rows.federations))
        else:
            output.say("no trust domain is federated with")
        for name, why in rows.unreadable.items():
            output.say(
                f"what is on record of {printable(name, 80)} cannot be used ({printable(why, 400)}): "
                f"mesh-ctl federation remove {printable(name, 80)}, and add it anew"
            )
        return REFUSED if rows.unreadable else DONE


@frozen
class Showing:
    """``federation show``."""

    trust_domain: str
    as_json: bool

    async def __call__(self, administration: Administration) -> int:
        _put(await administration.federation(self.trust_domain), as_json=self.as_json)
        return DONE


@frozen
class Refreshing:
    """``federation refresh``."""

    trust_domain: str
    accept_older: bool
    reason: str
    as_json: bool

    async def __call__(self, administration: Administration) -> int:
        how = RefreshFederation(self.accept_older, self.reason)
        row = await administration.refresh_federation(self.trust_domain, how)
        _put(row, as_json=self.as_json)
        return DONE


@frozen
class Removing:
    """``federation remove``."""

    trust_domain: str
    reason: str
    yes: bool
    as_json: bool

    async def __call__(self, administration: Administration) -> int:
        name = printable(self.trust_domain, 100)
        question = f"Believe nobody of {name} any more, and cut the connections that there are?"
        if not confirmed(question, yes=self.yes):
            output.say("nothing was removed")
            return REFUSED
        ended = await administration.end_federation(self.trust_domain, self.reason)
        if self.as_json:
            output.put_json(msgspec.to_builtins(ended))
            return DONE
        output.put(f"{ended.trust_domain} is not federated with any more, since {ended.ended_at}")
        if ended.entries:
            output.say(
                f"{', '.join(ended.entries)} still name it, which gives nobody anything until it is added again"
            )
        return DONE


def _put(row: FederationRow, *, as_json: bool) -> None:
    if as_json:
        output.put_json(msgspec.to_builtins(row))
        return
    facts: output.Facts = {
        "trust domain": row.trust_domain,
        "believed": "yes" if row.believed else "no",
        "bundle at": row.url,
        "profile": row.profile,
        "server": row.endpoint_id,
        "CRLs at": row.crl_url,
        "since": row.created_at,
        "sequence": "" if row.sequence is None else str(row.sequence),
        "fetched": row.fetched_at,
        "age": _age(row),
        "asked again": row.next_at,
        "refresh hint": "" if row.refresh_hint is None else f"{row.refresh_hint} s",
        "roots": row.roots,
        "JWT keys": row.jwt_keys,
        "passed over": row.passed_over,
        "failing since": row.failed_since,
        "last failure": row.problems,
        "entries": row.entries,
    }
    output.put_facts({name: value for name, value in facts.items() if value})


def _cells(row: FederationRow) -> tuple[str, ...]:
    return (
        row.trust_domain,
        "yes" if row.believed else "no",
        "" if row.sequence is None else str(row.sequence),
        _age(row),
        row.next_at or "now",
        str(len(row.entries)),
        row.problems[0] if row.problems else "",
    )


def _age(row: FederationRow) -> str:
    """How long ago its endpoint had what is held."""
    if row.fetched_at is None:
        return "" if row.sequence is None else "from a file"
    return row.age or ""
