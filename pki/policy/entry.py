"""Registration: which selectors buy which names, for how long, with which keys.

A certificate is bought by a registration entry and by nothing else. All selectors of an entry must
have been attested; what it buys is told by a template that cannot leave the entry's own subtree.
"""

from collections.abc import Callable, Collection, Sequence
from datetime import timedelta
from typing import TypeVar

import msgspec
from attrs import field, frozen
from attrs.validators import min_len

from pki.codes import Code
from pki.errors import Malformed, PkiError, Problem, Refused
from pki.keys import KeyAlgorithm
from pki.policy.id_template import CannotFill, IdTemplate
from pki.policy.selector import Selector, is_label
from pki.spiffe import SpiffeId, TrustDomain
from pki.svid.names import MOST_OF_COMMON_NAME, IPAddress, address, dns_name, is_common_name
from pki.validity import format_duration, parse_lifetime

#: The entry that lets services of the CA's own user in, while the CA listens on loopback only.
DEFAULT_ENTRY = "default"

_MAX = 64
#: Kinds of selectors that say nothing new when they are seen again.
_LASTING = ("token", "x509")
_LONGEST_COMMENT = 200
_LONGEST_HINT = 200

T = TypeVar("T")


class EntryMembers(msgspec.Struct, frozen=True, kw_only=True):
    """What an entry says, as people, files, the API and the record write it.

    :func:`read_entry` makes an entry of it, and :meth:`RegistrationEntry.members` is the way back. A struct
    that says more adds to this one.
    """

    selectors: list[str]
    """``unix:uid:1000``; at least one."""
    spiffe_id: str
    """An ID, or a template."""
    dns_names: list[str] = []
    ip_addresses: list[str] = []
    ttl: str | None = None
    """A lifetime: ``30m``."""
    max_ttl: str | None = None
    """A lifetime."""
    keys: list[str] = []
    """``ec-p256``"""
    comment: str = ""
    common_name: str | msgspec.UnsetType = msgspec.UNSET
    """What the subject has in place of the ID's last path segment; no other entry has it. Unset for none."""
    parent: str | msgspec.UnsetType = msgspec.UNSET
    """The ID of the agent, or alias, through which alone it counts. Unset for none: then it counts at the CA itself."""
    hint: str | msgspec.UnsetType = msgspec.UNSET
    """What a workload that has several IDs is told this one is for (SPIFFE Workload API). Unset for none."""
    federates_with: list[str] | msgspec.UnsetType = msgspec.UNSET
    """Other trust domains, whose bundles whoever it lets in is given. Unset for none."""
    reattest: bool | msgspec.UnsetType = msgspec.UNSET
    """True where an SVID alone renews nothing: evidence is wanted each time. Unset where it does."""

    def facts(self) -> dict[str, str]:
        """All of it that is not empty, lists joined, as the audit log has it."""
        said = {name: getattr(self, name) for name in EntryMembers.__struct_fields__}
        return {name: _fact(value) for name, value in said.items() if value}


def _fact(value: str | list[str] | bool) -> str:
    if isinstance(value, bool):
        return "true"
    return value if isinstance(value, str) else ", ".join(map(str, value))


class EntryDocument(EntryMembers, frozen=True):
    """The same with the entry's id, which comes first."""

    id: str
    agent: str | msgspec.UnsetType = msgspec.UNSET
    """The name of the agent whose own ID it buys, and which nobody can ask for by hand. Unset for any other."""
    banned: bool | msgspec.UnsetType = msgspec.UNSET
    """True where it says instead that this agent may not come again."""
    node: list[str] | msgspec.UnsetType = msgspec.UNSET
    """What the platform has proven of that agent's machine. Unset where it came by a token."""
    claim: str | msgspec.UnsetType = msgspec.UNSET
    """The claim by which it came. Unset where its evidence may be shown again."""
    agents: str | msgspec.UnsetType = msgspec.UNSET
    """What agents are called that it lets in by their platform, a fact in braces. Unset for any other."""
    alias: str | msgspec.UnsetType = msgspec.UNSET
    """The name by which it calls all agents of its selectors. Unset for any other."""

    def facts(self) -> dict[str, str]:
        """The same of the whole, but for the id."""
        said = super().facts()
        more = {"banned": "true"} if self.banned is True else {}
        node = {"node": ", ".join(self.node)} if self.node else {}
        claim = {"claim": self.claim} if self.claim else {}
        return {**said, **more, **node, **claim}


@frozen
class RegistrationEntry:
    """What a set of selectors buys."""

    id: str
    selectors: frozenset[Selector] = field(validator=min_len(1))
    """All of them must have been attested; without one it would let everybody in."""
    spiffe_id: IdTemplate
    dns_names: tuple[str, ...] = ()
    """Host names that may be carried besides those that everybody may."""
    ip_addresses: tuple[IPAddress, ...] = ()
    ttl: timedelta | None = None
    """What is given where nothing is asked; None for what the CA gives."""
    max_ttl: timedelta | None = None
    """The most that is given; None for the CA's own most."""
    keys: tuple[KeyAlgorithm, ...] = ()
    """The algorithms that a key may have; empty for all that the CA takes."""
    comment: str = ""
    common_name: str = ""
    """What the subject has; empty for the ID's last path segment, which many IDs may share."""
    parent: SpiffeId | None = None
    """The agent through which alone it counts, or the alias of many; None where it counts at the CA itself."""
    hint: str = ""
    """For a workload that has several IDs: what this one is for."""
    federates_with: tuple[TrustDomain, ...] = ()
    """Other trust domains, whose bundles whoever it lets in is given, each by itself."""
    is_ban: bool = False
    """Whether it says of an agent that it may not come again: then it buys nothing."""
    reattest: bool = False
    """Whether all of its selectors are wanted at each renewal too: its own certificate is no proof then."""
    node: frozenset[Selector] = frozenset()
    """Of an agent's own entry: what its platform has proven; none where it came by a token."""
    claim: str | None = None
    """Of an agent's own entry: the claim by which it came; None where its evidence may be shown again."""

    def is_met_by(self, selectors: Collection[Selector]) -> bool:
        """Whether all of its selectors are among ``selectors``."""
        return all(selector in selectors for selector in self.selectors)

    def missing(self, selectors: Collection[Selector]) -> tuple[Selector, ...]:
        """Those of its selectors that were not seen."""
        return tuple(sorted(s for s in self.selectors if s not in selectors))

    @property
    def agent(self) -> str | None:
        """The name of the agent whose own ID it buys; None for an entry of workloads."""
        return self.spiffe_id.agent

    @property
    def alias(self) -> str | None:
        """The name by which it calls all agents of its selectors, and buys nothing; None for any other entry."""
        return self.spiffe_id.alias

    @property
    def lets_agents_in(self) -> bool:
        """Whether agents get their first certificate by it, each with an own entry then."""
        return self.spiffe_id.agents is not None

    def admits(self, agent: SpiffeId, selectors: Collection[Selector]) -> bool:
        """Whether it lets an agent of that ID in, by what was proven of it."""
        if not (self.lets_agents_in and self.is_met_by(selectors) and is_label(agent.name)):
            return False
        try:
            return self.spiffe_id.fill(selectors).matches(agent)
        except CannotFill:
            return False

    @classmethod
    def of_agent(
        cls,
        entry_id: str,
        agent_id: SpiffeId,
        *,
        is_ban: bool = False,
        node: frozenset[Selector] = frozenset(),
        claim: str | None = None,
        reattest: bool = False,
    ) -> "RegistrationEntry":
        """What buys an agent its own ID: a join token that is made for it, and nothing else.

        ``is_ban``: what says that it may not come again. No token is made for that, nor for one that came by its
        platform, which has proven ``node``: what lets such agents in buys the first certificate, and this the others.
        """
        selectors = frozenset({Selector("token", entry_id)})
        bought = IdTemplate.of(agent_id)
        return cls(
            entry_id, selectors, bought, is_ban=is_ban, node=node, claim=claim, reattest=reattest
        )

    @property
    def is_of_token(self) -> bool:
        """Whether it was made together with a join token: nothing but a token of its own lets anybody in."""
        return self.selectors == {Selector("token", self.id)} and not self.is_ban

    def members(self) -> EntryDocument:
        """What it says, lists in their order and selectors sorted."""
        return EntryDocument(
            self.id,
            selectors=[str(selector) for selector in sorted(self.selectors)],
            spiffe_id=str(self.spiffe_id),
            dns_names=list(self.dns_names),
            ip_addresses=[str(address) for address in self.ip_addresses],
            ttl=None if self.ttl is None else format_duration(self.ttl),
            max_ttl=None if self.max_ttl is None else format_duration(self.max_ttl),
            keys=[str(algorithm) for algorithm in self.keys],
            comment=self.comment,
            common_name=self.common_name or msgspec.UNSET,
            parent=msgspec.UNSET if self.parent is None else str(self.parent),
            hint=self.hint or msgspec.UNSET,
            federates_with=[str(domain) for domain in self.federates_with] or msgspec.UNSET,
            reattest=self.reattest or msgspec.UNSET,
            agent=self.agent or msgspec.UNSET,
            banned=self.is_ban or msgspec.UNSET,
            node=[str(selector) for selector in sorted(self.node)] or msgspec.UNSET,
            claim=self.claim or msgspec.UNSET,
            agents=self.spiffe_id.agents or msgspec.UNSET,
            alias=self.alias or msgspec.UNSET,
        )

    @classmethod
    def of_members(cls, said: EntryDocument, trust_domain: TrustDomain) -> "RegistrationEntry":
        """The inverse of :meth:`members`, also for an agent's, which nobody can make by hand. Raises :class:`Malformed`
        and what :func:`read_entry` raises."""
        if said.agents:
            return read_entry(said.id, trust_domain, said, IdTemplate.of_agents)
        if said.alias:
            return read_entry(said.id, trust_domain, said, IdTemplate.of_alias)
        if not said.agent:
            return read_entry(said.id, trust_domain, said)
        return cls.of_agent(
            said.id,
            SpiffeId.parse(said.spiffe_id),
            is_ban=said.banned is True,
            node=frozenset(map(Selector.parse, said.node or ())),
            claim=said.claim or None,
            reattest=said.reattest is True,
        )

    def to_document(self) -> bytes:
        """Canonical JSON: sorted keys, no spaces, UTF-8. Lifetimes are in whole seconds."""
        return _encode(self.members())

    @classmethod
    def from_document(cls, document: bytes) -> "RegistrationEntry":
        """The inverse of :meth:`to_document`; its trust domain is that of its SPIFFE ID.

        Raises :class:`BadDocument` for whatever :meth:`to_document` would not have written, and what
        breaks a rule of :func:`read_entry`.
        """
        try:
            found = EntryDocument(**msgspec.structs.asdict(_decode(document)))
            authority = found.spiffe_id.removeprefix("spiffe://").partition("/")[0]
            entry = cls.of_members(found, TrustDomain.parse(authority))
            # A key twice, a name twice, a space: whatever is read is held against what we write.
            canonical = entry.to_document()
        except PkiError as error:
            raise BadDocument(f"this is no registration entry: {error}") from None
        except (ValueError, OverflowError, RecursionError, msgspec.DecodeError):
            raise BadDocument("this is no registration entry: it is damaged or not ours") from None
        if canonical != document:
            raise BadDocument("this registration entry is not written canonically: it was changed")
        return entry


class BadDocument(Malformed):
    """These bytes are no registration entry."""

    code = Code.BAD_REGISTRATION


#: A document leaves nothing out but what came to be later, and says nothing else.
_Whole = msgspec.defstruct(
    "_Whole",
    [
        (member.name, member.type)
        if member.default is not msgspec.UNSET
        else (member.name, member.type, msgspec.UNSET)
        for member in msgspec.structs.fields(EntryDocument)
    ],
    forbid_unknown_fields=True,
    kw_only=True,
)
_encode = msgspec.json.Encoder(order="sorted").encode
_decode = msgspec.json.Decoder(_Whole).decode


def read_entry(
    entry_id: str,
    trust_domain: TrustDomain,
    said: EntryMembers,
    template_of: Callable[[str, TrustDomain], IdTemplate] = IdTemplate.parse,
) -> RegistrationEntry:
    """What ``said`` means: the entry of that id. Raises :class:`Refused` with every rule that it breaks.

    ``template_of`` reads its ID: whoever writes entries of workloads can name nothing of the mesh itself.
    Names, addresses and algorithms that are said twice are taken once.
    """
    problems: list[Problem] = []

    def each(name: str, texts: Sequence[str], read: Callable[[str], T]) -> list[T]:
        if len(texts) > _MAX:
            problems.append(_problem(name, f"there are at most {_MAX} of them, here {len(texts)}"))
        found = []
        for text in texts[:_MAX]:
            try:
                found.append(read(text))
            except PkiError as error:
                problems.append(_problem(name, str(error), error.code))
        return found

    if not said.selectors:
        problems.append(_problem("selectors", "without a selector it would let everybody in"))
    seen = each("selectors", said.selectors, Selector.parse)
    template = each("spiffe_id", [said.spiffe_id], lambda text: template_of(text, trust_domain))
    names = each("dns_names", said.dns_names, dns_name)
    addresses = each("ip_addresses", said.ip_addresses, address)
    life = each("ttl", [said.ttl] if said.ttl is not None else [], parse_lifetime)
    longest = each("max_ttl", [said.max_ttl] if said.max_ttl is not None else [], parse_lifetime)
    if life and longest and life > longest:
        problems.append(_problem("ttl", f"{said.ttl} is more than max_ttl, {said.max_ttl}"))
    algorithms = each("keys", said.keys, _algorithm)
    if len(said.comment) > _LONGEST_COMMENT or not said.comment.isprintable():
        problems.append(
            _problem("comment", f"it is one line of at most {_LONGEST_COMMENT} characters")
        )
    common_name = said.common_name or ""
    if common_name and not is_common_name(common_name):
        rule = (
            f"it is 1 to {MOST_OF_COMMON_NAME} letters, digits, spaces and . _ @ : / -, "
            "a letter or digit first and last"
        )
        problems.append(_problem("common_name", rule))
    if common_name and template and not template[0].is_literal:
        rule = (
            "it is for an entry that buys one ID: many IDs with one name cannot be told apart by it"
        )
        problems.append(_problem("common_name", rule))
    parents = each("parent", [said.parent] if said.parent else [], SpiffeId.parse)
    for parent in parents:
        is_one = parent.agent is not None or parent.alias is not None
        if not is_one or parent.trust_domain != trust_domain:
            rule = (
                f"it is the ID of an agent, spiffe://{trust_domain}/mesh/agent/NAME, or of an alias, "
                f"spiffe://{trust_domain}/mesh/alias/NAME"
            )
            problems.append(_problem("parent", rule))
    hint = said.hint or ""
    if len(hint) > _LONGEST_HINT or not hint.isprintable():
        problems.append(_problem("hint", f"it is one line of at most {_LONGEST_HINT} characters"))
    others = each("federates_with", said.federates_with or [], TrustDomain.parse)
    if trust_domain in others:
        rule = f"it names other trust domains: whoever has an ID of {trust_domain} believes that one anyway"
        problems.append(_problem("federates_with", rule))
    if said.reattest is True and seen and all(one.kind in _LASTING for one in seen):
        rule = "it is for what a platform attests: of a join token or a certificate there is nothing to be seen anew"
        problems.append(_problem("reattest", rule))
    if problems:
        raise Refused(problems)
    return RegistrationEntry(
        entry_id,
        frozenset(seen),
        template[0],
        tuple(dict.fromkeys(names)),
        tuple(dict.fromkeys(addresses)),
        life[0] if life else None,
        longest[0] if longest else None,
        tuple(dict.fromkeys(algorithms)),
        said.comment,
        common_name,
        parents[0] if parents else None,
        hint,
        tuple(sorted(set(others))),
        reattest=said.reattest is True,
    )


def _algorithm(text: str) -> KeyAlgorithm:
    return KeyAlgorithm.parse(text)


def _problem(name: str, detail: str, code: Code = Code.MALFORMED) -> Problem:
    return Problem(code=code, detail=detail, subject=name)
