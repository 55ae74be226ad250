"""What ``mesh-ctl entry`` does: create, list, show and delete registration entries."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus

import msgspec
from attrs import frozen
from msgspec.structs import fields

from pki.errors import PkiError, Refused, printable
from pki.policy.entry import EntryMembers, RegistrationEntry, read_entry
from pki.spiffe import ALIASES, SpiffeId, TrustDomain
from twisted_mesh.api.admin_client import Administration
from twisted_mesh.api.messages import NewRegistration, Registration
from twisted_mesh.api.refusal import CaRefused
from twisted_mesh.attest.registry import declare_kinds
from twisted_mesh.cli.ctl import output
from twisted_mesh.cli.ctl.options import confirmed
from twisted_mesh.cli.program import Unusable
from twisted_mesh.cli.status import DONE, REFUSED

_HEADINGS = ("ENTRY", "SELECTORS", "BUYS", "KEPT IN", "COMMENT")
_THROUGH = "THROUGH"
#: The options of members that are not named like them.
_OPTIONS = {
    "selectors": "--selector",
    "dns_names": "--dns",
    "ip_addresses": "--ip",
    "keys": "--key",
}
#: What people read in place of a member's name.
_LABELS = {
    "id": "entry",
    "spiffe_id": "buys",
    "dns_names": "host names",
    "ip_addresses": "addresses",
    "ttl": "lifetime",
    "max_ttl": "at most",
    "common_name": "common name",
    "parent": "through",
    "federates_with": "federates with",
    "reattest": "attested anew",
}
_KEPT_IN = {"store": "record", "file": "file", "default": "record, by default"}
_NOT_HONOURED = "not honoured: the CA listens beyond loopback"
_OF_AGENT, _OF_BAN = "record, by mesh-ctl agent", "record, a ban by mesh-ctl agent"
#: More certificates are not looked through.
_MANY = 10_000


@contextmanager
def naming_options(others: Mapping[str, str] | None = None) -> Iterator[None]:
    """Whatever is refused inside is :class:`Unusable`, told by the options that said so; ``others`` differ."""
    options = {**_OPTIONS, **(others or {})}
    try:
        yield
    except Refused as error:
        told = (
            f"{options.get(p.subject) or _option(p.subject)}: {p.detail}" for p in error.problems
        )
        raise Unusable("; ".join(told)) from None
    except PkiError as error:
        raise Unusable(f"--spiffe-id: {error}") from None


def _option(member: str) -> str:
    return f"--{member.replace('_', '-')}"


def understood(usual_domain: str, options: Mapping[str, object]) -> NewRegistration:
    """What the options ask for, which are named like the members of :class:`NewRegistration`.

    Raises :class:`Unusable` with every option that cannot be used.
    """
    said = {name: value for name, value in options.items() if value is not None}
    new = msgspec.convert(said, NewRegistration)
    declare_kinds()
    with naming_options():
        read_entry("new", _trust_domain(new.spiffe_id, usual_domain), new)
    return new


def _trust_domain(spiffe_id: str, usual: str) -> TrustDomain:
    """The one that ``spiffe_id`` names: whether it is the CA's is for the CA to say."""
    try:
        return TrustDomain.parse(spiffe_id.removeprefix("spiffe://").partition("/")[0])
    except PkiError:
        return TrustDomain.parse(usual)


def entry_of(row: Registration, trust_domain: TrustDomain) -> RegistrationEntry:
    """What the API tells, as what it means. Raises :class:`Refused`."""
    declare_kinds()
    return RegistrationEntry.of_members(row, trust_domain)


def creating_command(entry: RegistrationEntry) -> list[str]:
    """The words that make such an entry."""
    words = ["mesh-ctl", "entry", "create"]
    if entry.parent is not None:
        words += ["--parent", str(entry.parent)]
    for selector in sorted(entry.selectors):
        words += ["--selector", str(selector)]
    words += ["--spiffe-id", str(entry.spiffe_id)]
    words += _names("--dns", entry.dns_names) + _names("--ip", entry.ip_addresses)
    words += _names("--federates-with", entry.federates_with)
    return [*words, "--reattest"] if entry.reattest else words


def _names(option: str, values: Iterable[object]) -> list[str]:
    return [word for value in values for word in (option, str(value))]


@frozen
class Creating:
    """``entry create``."""

    new: NewRegistration
    as_json: bool

    async def __call__(self, administration: Administration) -> int:
        row = await administration.register(self.new)
        put_entry(row, as_json=self.as_json)
        if row.parent:
            await _tell_of_parent(administration, SpiffeId.parse(row.parent))
        if row.federates_with:
            await _tell_of_federations(administration, row.federates_with)
        return DONE


async def _tell_of_federations(administration: Administration, wanted: Iterable[str]) -> None:
    """Say so where the CA federates with one of these not yet."""
    rows = (await administration.federations()).federations
    known = {row.trust_domain for row in rows}
    for name in wanted:
        if name not in known:
            output.say(
                f"the CA does not federate with {name} yet, so nobody is given its bundle: "
                f"mesh-ctl federation add {name}"
            )


async def _tell_of_parent(administration: Administration, parent: SpiffeId) -> None:
    """Say so where the agent that an entry is for is banned, or not known: its name may be another."""
    name = parent.name
    if parent.alias is not None:
        rows = (await administration.registrations()).entries
        if not any(row.spiffe_id == str(parent) for row in rows):
            output.say(
                f"there is no alias {name} yet: mesh-ctl agent alias {name} says whom it stands for"
            )
        return
    try:
        status = (await administration.agent(name)).status
    except CaRefused as error:
        if error.status != HTTPStatus.NOT_FOUND:
            raise
        output.say(
            f"there is no agent {name} yet: mesh-ctl agent token create {name} lets it join, and mesh-ctl agent list "
            "lists those that there are"
        )
    else:
        if status == "banned":
            output.say(
                f"the agent {name} is banned: mesh-ctl agent unban {name} lets it come again"
            )


@frozen
class Listing:
    """``entry list``."""

    as_json: bool

    async def __call__(self, administration: Administration) -> int:
        rows = (await administration.registrations()).entries
        if self.as_json:
            output.put_json([msgspec.to_builtins(row) for row in rows])
        elif rows:
            has_parents = any(row.parent for row in rows)
            headings = (*_HEADINGS, _THROUGH) if has_parents else _HEADINGS
            output.put_table(headings, (_cells(row)[: len(headings)] for row in rows))
        else:
            output.say("there are no entries: nobody gets a certificate")
        return DONE


def _cells(row: Registration) -> tuple[str, ...]:
    parent = row.parent.rpartition("/")[2] if row.parent else ""
    return row.id, ", ".join(row.selectors), row.spiffe_id, _kept_in(row), row.comment, parent


def _kept_in(row: Registration) -> str:
    if row.agent:
        return _OF_BAN if row.banned else _OF_AGENT
    kept = _KEPT_IN.get(row.source, row.source)
    return kept if row.honoured else f"{kept} ({_NOT_HONOURED})"


@frozen
class Showing:
    """``entry show``."""

    entry: str
    as_json: bool

    async def __call__(self, administration: Administration) -> int:
        put_entry(await administration.registration(self.entry), as_json=self.as_json)
        return DONE


def put_entry(row: Registration, *, as_json: bool) -> None:
    """An entry, for people or as JSON."""
    if as_json:
        output.put_json(msgspec.to_builtins(row))
        return
    said = {member.name: getattr(row, member.name) for member in fields(EntryMembers)}
    facts: output.Facts = {
        _LABELS["id"]: row.id,
        # Nobody is given an alias: others are called by it.
        **({"stands for agents as": said.pop("spiffe_id")} if is_alias(row) else {}),
        **{
            _LABELS.get(name, name): "yes" if value is True else value
            for name, value in said.items()
        },
        "kept in": _kept_in(row) if row.agent else _KEPT_IN.get(row.source, row.source),
        "made": row.created_at,
        "honoured": ""
        if row.honoured or row.agent
        else _NOT_HONOURED.replace("not honoured", "no"),
    }
    output.put_facts({name: value for name, value in facts.items() if value})


def is_alias(row: Registration) -> bool:
    """Whether it names a group of agents, and buys nothing."""
    return "/" + "/".join(ALIASES) + "/" in row.spiffe_id


@frozen
class Bought:
    """What depends on an entry."""

    certificates: int
    """Still valid."""
    tokens: int
    """Still live."""
    is_partial: bool = False
    """Whether there may be more certificates."""

    def __str__(self) -> str:
        some = "at least " if self.is_partial else ""
        told = f"{some}{output.counted(self.certificates, 'valid certificate')} bought by it"
        if self.tokens:
            told += f", {output.counted(self.tokens, 'live token')}"
        return told


@frozen
class Deleting:
    """``entry delete``."""

    entry: str
    reason: str
    yes: bool
    as_json: bool

    async def __call__(self, administration: Administration) -> int:
        row = await administration.registration(self.entry)
        bought = await _bought(administration, row)
        question = (
            f"Delete the entry {printable(row.id, 80)}, by which {printable(', '.join(row.selectors), 400)} may have "
            f"{printable(row.spiffe_id, 400)} ({bought})?"
        )
        if row.source != "file" and not confirmed(question, yes=self.yes):
            output.say("nothing was deleted")
            return REFUSED
        deleted = await administration.delete_registration(self.entry, self.reason)
        if self.as_json:
            told = {"certificates": bought.certificates, "tokens": bought.tokens}
            output.put_json({**msgspec.to_builtins(deleted), **told})
            return DONE
        output.put(f"entry {printable(deleted.id, 80)} deleted at {deleted.deleted_at}; {bought}")
        if bought.certificates:
            output.say(
                "these certificates stay good until they expire and are not renewed: mesh-ctl cert revoke ends them now"
            )
        return DONE


async def _bought(administration: Administration, row: Registration) -> Bought:
    filters = {"status": "valid", "spiffe_id": _subtree(row.spiffe_id)}
    certificates, is_partial = 0, False
    async for page in administration.pages(filters, _MANY):
        certificates += sum(found.entry == row.id for found in page.certificates)
        is_partial = page.next is not None
    tokens = await administration.tokens()
    live = sum(token.entry == row.id and token.status == "live" for token in tokens)
    return Bought(certificates, live, is_partial)


def _subtree(template: str) -> str:
    """The narrowest filter of the API that finds all that a template buys."""
    segments = template.split("/")
    open_ = [place for place, segment in enumerate(segments) if "{" in segment or "*" in segment]
    return "/".join([*segments[: open_[0]], "**"]) if open_ else template
