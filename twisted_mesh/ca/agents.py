"""The CA's agents: who may be one, what its entries are, and how it ends.

An agent is a registration entry that its join token buys, and that no other can be made like; a ban is an entry of
the same agent that buys nothing. So both are recorded, vouched for and restored as entries are.
"""

import hashlib
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

import msgspec
from attrs import define, field, frozen

from pki.audit.log import Act
from pki.codes import Code
from pki.errors import Malformed, PkiError, discreet
from pki.policy.entry import EntryMembers, RegistrationEntry, read_entry
from pki.policy.id_template import IdTemplate
from pki.policy.policy import Action, Forbidden, demand_through, permit
from pki.policy.principal import Principal
from pki.policy.selector import Selector, is_label
from pki.spiffe import AGENTS, ALIASES, SpiffeId, TrustDomain
from pki.svid.revocation_set import Reason
from twisted_mesh.ca.admissions import alias_id, demand_of_platform
from twisted_mesh.ca.entries import RegistrationEntries, new_entry_id
from twisted_mesh.ca.join_tokens import JoinTokens, Made
from twisted_mesh.ca.registered import Registered
from twisted_mesh.ca.service import CertificateAuthority
from twisted_mesh.runtime.clock import Now
from twisted_mesh.runtime.log import logger
from twisted_mesh.stores.commands import ReleaseClaim
from twisted_mesh.stores.interface import IStore
from twisted_mesh.stores.records import Conflict, IssuedCertificate, Query, Status, Unknown

_log = logger("ca")


class AgentBanned(PkiError):
    """The agent may not come again until it is let."""

    code = Code.CONFLICT


class AgentByPlatform(PkiError):
    """No token is made for an agent that its platform proves."""

    code = Code.NOT_BY_TOKEN


@frozen
class KnownAgent:
    """An agent, and how it stands."""

    name: str
    spiffe_id: SpiffeId
    created_at: datetime | None
    is_banned: bool
    entries: int
    certificate: IssuedCertificate | None
    """The latest of its own that is good."""
    last_seen: datetime | None
    """When it asked for its entries the last time; None where it has not since the start."""
    node: frozenset[Selector] = frozenset()
    """What its platform has proven."""
    claim: str | None = None
    """What it has used up to come."""
    aliases: tuple[SpiffeId, ...] = ()
    """What it is called besides."""


@frozen
class Ended:
    """What became of an agent, or of a claim."""

    agent: SpiffeId | None
    """None where a workload had used the claim."""
    revoked: tuple[IssuedCertificate, ...]
    """Its own certificates, and all that it had obtained for workloads."""


@frozen
class GroupOfAgents:
    """Agents by what their platform proves."""

    name: str
    """What they are called: each by a name with a fact in braces, or all of them by one alias."""
    selectors: Sequence[str]
    comment: str = ""
    reattest: bool = False
    """Whether each of them proves its machine at every renewal."""


@define(eq=False, repr=False)
class Agents:
    """What agents may do, and what administrators do with them."""

    entries: RegistrationEntries
    tokens: JoinTokens
    certificates: CertificateAuthority
    store: IStore
    now: Now
    _seen: dict[str, datetime] = field(factory=dict, init=False)
    _versions: dict[str, tuple[tuple[RegistrationEntry, ...], str]] = field(
        factory=dict, init=False
    )
    """Of each agent's entries, by these."""

    # for agents

    def demand_known(self, principal: Principal) -> SpiffeId:
        """The agent that ``principal`` is, as long as it is one. Raises :class:`NoProof`, :class:`Forbidden`."""
        permit(principal, Action.SERVE_WORKLOADS)
        agent = principal.spiffe_id
        if agent is None or self.entries.is_banned(agent.name):
            raise Forbidden("agents-only", f"{principal} is banned (mesh-ctl agent list)")
        own = self.entries.of_agent(agent.name)
        if not own:
            raise Forbidden(
                "agents-only",
                f"{principal} is no agent any more: it was evicted (mesh-ctl agent list)",
            )
        if not any(self.entries.entry_of(entry.id) for entry in own):
            raise Forbidden(
                "agents-only",
                f"{principal} is let in no more: no entry lets agents in any more by what its platform has proven "
                "(mesh-ctl agent allow)",
            )
        return agent

    def entries_of(self, principal: Principal) -> tuple[str, Sequence[RegistrationEntry]]:
        """The version of an agent's entries, which is another where one of them is, and these."""
        agent = self.demand_known(principal)
        self._seen[agent.name] = self.now()
        found = self.entries.of_parent(agent)
        known, version = self._versions.get(agent.name, (None, ""))
        if known is not found:
            digest = hashlib.sha256(b"\n".join(entry.to_document() for entry in found))
            version = digest.hexdigest()[:32]
            self._versions[agent.name] = found, version
        return version, found

    def bought_by(
        self, principal: Principal, entry_id: str, stated: frozenset[Selector]
    ) -> RegistrationEntry:
        """The entry of that id, if it is one of the agent's and counts for a workload of these selectors.

        Raises :class:`NoProof`, :class:`Forbidden`.
        """
        agent = self.demand_known(principal)
        for entry in self.entries.of_parent(agent):
            if entry.id == entry_id:
                demand_through(principal, entry, stated, self.entries.aliases_of(agent))
                return entry
        raise Forbidden(
            "own-entries-only",
            f"{principal} has no registration entry {discreet(entry_id, 60)!r}: it is another's, or gone",
        )

    # for administrators

    def id_of(self, name: str) -> SpiffeId:
        """The ID of the agent of that name. Raises :class:`Malformed`."""
        if not is_label(name):
            raise Malformed(
                f"{discreet(name, 80)!r} is no name of an agent: write 1 to 64 lower-case letters, digits, dots, "
                "dashes and underscores, a letter or digit first"
            )
        return self.certificates.authorities.trust_domain.member(*AGENTS, name)

    async def create_token(
        self, principal: Principal, name: str, life: timedelta, *, key: str | None, reason: str
    ) -> Made:
        """A join token for the agent of that name, which is made known by it.

        Raises :class:`AgentBanned`, :class:`Malformed`, :class:`StoreError`.
        """
        agent = self.id_of(name)
        known = self.entries.of_agent(name)
        if self.entries.is_banned(name):
            raise AgentBanned(
                f"the agent {name} is banned: take that back first (mesh-ctl agent unban {name})"
            )
        if any(own.node for own in known):
            raise AgentByPlatform(
                f"the agent {name} has come by its platform, and needs no token: mesh-ctl agent evict {name} ends it"
            )
        entry = known[0] if known else RegistrationEntry.of_agent(new_entry_id(), agent)
        return await self.tokens.create(principal, entry, life, key=key, reason=reason)

    async def all(self) -> list[KnownAgent]:
        """Every agent that is known, or banned, by name."""
        names = {known.entry.agent for known in self.entries.all()} - {None}
        return [await self.find(name) for name in sorted(filter(None, names))]

    async def find(self, name: str) -> KnownAgent:
        """Raises :class:`Unknown`, :class:`Malformed`."""
        agent = self.id_of(name)
        known = [known for known in self.entries.all() if known.entry.agent == name]
        if not known:
            raise Unknown(f"there is no agent {name}: see mesh-ctl agent list")
        page = await self.store.list(
            Query(self.now(), spiffe_id=agent, status=Status.VALID, limit=1)
        )
        times = [one.created_at for one in known if one.created_at is not None]
        return KnownAgent(
            name,
            agent,
            min(times, default=None),
            self.entries.is_banned(name),
            len(self.entries.of_parent(agent)),
            next(iter(page.certificates), None),
            self._seen.get(name),
            next((one.entry.node for one in known if one.entry.node), frozenset()),
            next((one.entry.claim for one in known if one.entry.claim), None),
            tuple(sorted(self.entries.aliases_of(agent))),
        )

    async def allow(self, principal: Principal, new: GroupOfAgents, reason: str) -> Registered:
        """Let agents in by their platform, under names of that kind. Raises :class:`Refused`, :class:`StoreError`."""
        name = self._named(AGENTS, new.name)
        entry = self._group(new_entry_id(), new, name, IdTemplate.of_agents)
        return await self.entries.create(principal, entry, reason)

    async def name_alias(self, principal: Principal, new: GroupOfAgents, reason: str) -> Registered:
        """Call all agents of these selectors by one name. Raises :class:`Refused`, :class:`Conflict`."""
        name = self._named(ALIASES, new.name)
        entry = self._group(alias_id(new.name), new, name, IdTemplate.of_alias)
        if any(str(known.entry.spiffe_id) == name for known in self.entries.all()):
            raise Conflict(
                f"there is an alias {new.name} already: mesh-ctl entry delete takes it away, or choose another name"
            )
        return await self.entries.create(principal, entry, reason)

    def _named(self, below: Sequence[str], name: str) -> str:
        return f"{self.certificates.authorities.trust_domain.member(*below)}/{name}"

    def _group(
        self,
        entry_id: str,
        new: GroupOfAgents,
        name: str,
        template_of: Callable[[str, TrustDomain], IdTemplate],
    ) -> RegistrationEntry:
        said = EntryMembers(
            selectors=list(new.selectors),
            spiffe_id=name,
            comment=new.comment,
            reattest=new.reattest or msgspec.UNSET,
        )
        domain = self.certificates.authorities.trust_domain
        return demand_of_platform(read_entry(entry_id, domain, said, template_of))

    async def evict(
        self,
        principal: Principal,
        name: str,
        why: str,
        reason: Reason = Reason.CESSATION_OF_OPERATION,
    ) -> Ended:
        """End an agent and all that it has obtained; with a new token it may come again.

        What it has obtained by entries that are gone by now, too. Raises :class:`Unknown`, :class:`Malformed`,
        and :class:`NotPublished` where all of it is revoked and there can be no CRL now.
        """
        agent = self.id_of(name)
        if not self.entries.of_agent(name):
            raise Unknown(f"there is no agent {name}: see mesh-ctl agent list")
        return await self._end(principal, agent, reason, why, bans=False)

    async def evict_claim(
        self, principal: Principal, claim: str, why: str, reason: Reason
    ) -> Ended:
        """Let a claim be used again, and revoke all that descends from it; its agent is evicted.

        Raises :class:`Unknown`, and :class:`NotPublished` where all of it is revoked and there can be no CRL now.
        """
        used = await self.store.find_claim(claim)
        if used is not None and used.spiffe_id.agent is not None:
            return await self._end(principal, used.spiffe_id, reason, why, bans=False)
        log, facts = self.entries.log, {"did": "release-claim"} | ({"reason": why} if why else {})
        act = log.entry(Act.ADMINISTER, principal, f"claim {claim}", facts)
        revocation = log.entry(Act.REVOKE, principal, "", {"reason": str(reason)})
        released = ReleaseClaim(claim, self.now(), reason, act, revocation)
        revoked = await self.store.apply(released)
        _log.warn(
            "Claim released: {claim}\n  Certificates revoked: {count}\n  By: {requester}",
            event="claim-released",
            claim=claim,
            count=len(revoked),
            requester=str(principal),
        )
        await self.certificates.tell_revoked(revoked)
        return Ended(None, revoked)

    async def ban(
        self, principal: Principal, name: str, why: str, reason: Reason = Reason.KEY_COMPROMISE
    ) -> Ended:
        """The same, and it may not come again. An agent that nobody knows is banned too."""
        return await self._end(principal, self.id_of(name), reason, why, bans=True)

    async def unban(self, principal: Principal, name: str, why: str) -> Ended:
        """It may come again, with a new token. Raises :class:`Unknown` where it was not banned."""
        agent = self.id_of(name)
        if not await self.entries.unban(principal, name, why):
            raise Unknown(f"the agent {name} is not banned: see mesh-ctl agent list")
        return Ended(agent, ())

    async def _end(
        self, principal: Principal, agent: SpiffeId, reason: Reason, why: str, *, bans: bool
    ) -> Ended:
        """Nothing can be obtained by it once that is on record, and what it has obtained is revoked by then."""
        revoked = await self.entries.end_agent(principal, agent, reason, why, bans=bans)
        _log.warn(
            "Agent {done}: {agent}\n  Certificates revoked: {count}\n  By: {requester}",
            event="agent-ended",
            done="banned" if bans else "evicted",
            agent=agent.name,
            count=len(revoked),
            requester=str(principal),
        )
        await self.certificates.tell_revoked(revoked)
        return Ended(agent, revoked)
