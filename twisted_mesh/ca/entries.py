"""Registration entries: which there are, which of them count, and who made or deleted them."""

import secrets
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime

from attrs import define, field

from pki.audit.log import Act, Entry
from pki.codes import Code
from pki.errors import Problem, discreet
from pki.policy.entry import DEFAULT_ENTRY, RegistrationEntry
from pki.policy.principal import Principal, administrator
from pki.policy.selector import Selector, spoken
from pki.spiffe import SpiffeId
from pki.svid.revocation_set import Reason
from twisted_mesh.ca.audit_log import AuditLog
from twisted_mesh.ca.registered import EntryInFile, EntryOfAgent, NameTaken, Registered, Source
from twisted_mesh.ca.through_agents import LettingIn, ThroughAgents
from twisted_mesh.runtime.clock import Now
from twisted_mesh.runtime.log import logger
from twisted_mesh.stores.commands import (
    CreateEntry,
    DeleteEntry,
    EndAgent,
    SettleDefaultEntry,
)
from twisted_mesh.stores.interface import IStore
from twisted_mesh.stores.records import (
    IssuedCertificate,
    StoredEntry,
    StoreError,
    Unknown,
)

_log = logger("ca")


@define(eq=False, repr=False)
class RegistrationEntries:
    """Keeps the entries in memory as well; the store has the last word, when what they buy is recorded."""

    store: IStore
    log: AuditLog
    now: Now
    filed: Sequence[RegistrationEntry] = ()
    """Those of ``--entries``."""
    is_exposed: bool = False
    """Whether the CA listens beyond loopback: then the default entry does not count."""
    _loaded: bool = field(default=False, init=False)
    _being_made: set[str] = field(factory=set, init=False)
    """Common names of entries that are on their way into the store."""
    _stored: dict[str, StoredEntry] = field(factory=dict, init=False)
    _honoured: dict[str, RegistrationEntry] = field(factory=dict, init=False)
    _by_selector: dict[Selector, list[RegistrationEntry]] = field(factory=dict, init=False)
    _through: ThroughAgents = field(factory=ThroughAgents, init=False)
    _letting_in: LettingIn = field(factory=LettingIn, init=False)
    _by_agent: dict[str, list[RegistrationEntry]] = field(factory=dict, init=False)
    _banned: set[str] = field(factory=set, init=False)
    """Agents that may not come again."""
    _watching: list[Callable[[], None]] = field(factory=list, init=False)

    async def load(self) -> None:
        """Read the entries of the store. Raises :class:`StoreError`."""
        self._stored = {stored.entry.id: stored for stored in await self.store.entries()}
        self._refuse_taken(self.filed)
        self._loaded = True
        self._index()

    async def settle_default(self, entry: RegistrationEntry | None) -> bool:
        """At the first start only: have that entry as the default one, or for good none. Whether this was it."""
        act = self.log.entry(
            Act.ADMINISTER,
            administrator("self"),
            f"entry {DEFAULT_ENTRY}",
            {"did": "declined"} if entry is None else {"did": "create-entry", **facts_of(entry)},
        )
        first = await self.store.apply(SettleDefaultEntry(entry, self.now(), act))
        await self.load()
        return first

    def all(self) -> list[Registered]:
        """Every entry: the default one, those of the file, those of the store, by id."""
        return sorted(self.by_age(), key=lambda known: (known.source, known.entry.id))

    def by_age(self) -> list[Registered]:
        """Those of the file as they stand there, then those of the store, the oldest first.

        A workload that has several IDs takes the first for its default.
        """
        filed = [Registered(entry, Source.FILE, True) for entry in self.filed]
        return filed + [self._registered(stored) for stored in self._stored.values()]

    def find(self, entry_id: str) -> Registered:
        """Raises :class:`Unknown`."""
        for known in self.all():
            if known.entry.id == entry_id:
                return known
        raise Unknown(
            f"there is no registration entry {discreet(entry_id, 80)!r}: see mesh-ctl entry list"
        )

    def is_known(self, entry_id: str) -> bool:
        """Whether there is an entry of that id, whether it counts or not."""
        return any(known.entry.id == entry_id for known in self.all())

    @property
    def is_effortless(self) -> bool:
        """Whether the default entry stands and counts."""
        return DEFAULT_ENTRY in self._stored and not self.is_exposed

    def is_filed(self, entry_id: str) -> bool:
        """Whether that entry is one of ``--entries``."""
        return any(entry.id == entry_id for entry in self.filed)

    def candidates(
        self, principal: Principal, only: str | None = None
    ) -> Iterable[RegistrationEntry]:
        """Those that count and could let ``principal`` in, or of these only one.

        :func:`pki.policy.policy.grant` looks at nothing else. Raises :class:`StoreError` until they are loaded.
        """
        if not self._loaded:
            raise StoreError("the CA is starting: ask again")
        found = {
            entry.id: entry
            for selector in principal.selectors
            for entry in self._by_selector.get(selector, ())
        }
        if principal.entry is not None and (kept := self.entry_of(principal.entry)):
            found[kept.id] = kept
        return [entry for entry in found.values() if only in (None, entry.id)]

    def entry_of(self, entry_id: str) -> RegistrationEntry | None:
        """The entry of that id, if there is one and it counts for whoever comes to the CA itself."""
        entry = self._honoured.get(entry_id)
        return entry if entry is not None and entry.parent is None else None

    def of_parent(self, agent_id: SpiffeId) -> tuple[RegistrationEntry, ...]:
        """Those that count through that agent, by age; the same tuple until one of them is another."""
        return self._through.of(agent_id, self.node_of(agent_id))

    def aliases_of(self, agent_id: SpiffeId) -> dict[SpiffeId, RegistrationEntry]:
        """What that agent is called besides, by what its platform has proven, and the entries that say so."""
        return self._through.aliases_of(self.node_of(agent_id))

    def node_of(self, agent_id: SpiffeId) -> frozenset[Selector]:
        """What the platform has proven of that agent; nothing where it came by a token, or is let in no more."""
        own = (self.entry_of(entry.id) for entry in self.of_agent(agent_id.name))
        return next((entry.node for entry in own if entry is not None), frozenset())

    def of_agent(self, name: str) -> tuple[RegistrationEntry, ...]:
        """What buys that agent its own ID, and what says that it may not come again."""
        return tuple(self._by_agent.get(name, ()))

    def is_banned(self, name: str) -> bool:
        """Whether the agent of that name may not come again."""
        return name in self._banned

    def watch(self, changed: Callable[[], None]) -> Callable[[], None]:
        """Have ``changed`` called after each change; what is returned ends that."""
        self._watching.append(changed)
        return lambda: self._watching.remove(changed)

    def lets_in(self, selectors: frozenset[Selector]) -> bool:
        """Whether somebody with these selectors is a workload of this CA at all."""
        return any(
            entry.is_met_by(selectors)
            for selector in selectors
            for entry in self._by_selector.get(selector, ())
        )

    async def create(
        self, principal: Principal, entry: RegistrationEntry, reason: str
    ) -> Registered:
        """Add an entry. Raises :class:`StoreError`, :class:`NameTaken`."""
        if other := self._owner(entry.common_name):
            raise NameTaken.by(entry, other)
        if entry.common_name:
            self._being_made.add(entry.common_name)
        try:
            return await self._create(principal, entry, reason)
        finally:
            self._being_made.discard(entry.common_name)

    async def _create(
        self, principal: Principal, entry: RegistrationEntry, reason: str
    ) -> Registered:
        act = self.creation(principal, entry, reason)
        stored = StoredEntry(entry, self.now())
        await self.store.apply(CreateEntry(entry, stored.created_at, act))
        self.took(stored)
        return self._registered(stored)

    async def delete(self, principal: Principal, entry_id: str, reason: str) -> datetime:
        """From now on it buys nothing, and its tokens neither; when.

        Raises :class:`Unknown`, :class:`EntryInFile`, :class:`EntryOfAgent`.
        """
        known = self.find(entry_id)
        if known.source is Source.FILE:
            raise EntryInFile(
                f"the entry {entry_id} is in the file of --entries: take it out there, and send the CA SIGHUP"
            )
        if known.entry.agent is not None:
            # By itself it would leave what the agent has obtained.
            name, cure = known.entry.agent, "unban" if known.entry.is_ban else "evict"
            raise EntryOfAgent(
                f"the entry {entry_id} is that of the agent {name}: mesh-ctl agent {cure} {name} takes it away"
            )
        return await self._delete(principal, known, reason)

    async def unban(self, principal: Principal, name: str, reason: str) -> bool:
        """Let that agent come again. Whether it was banned."""
        bans = [known for known in self.all() if known.entry.is_ban and known.entry.agent == name]
        for known in bans:
            await self._delete(principal, known, reason)
        return bool(bans)

    async def _delete(self, principal: Principal, known: Registered, reason: str) -> datetime:
        entry_id = known.entry.id
        act = self.deletion(principal, known.entry, reason)
        at = self.now()
        await self.store.apply(DeleteEntry(entry_id, at, act))
        self._stored.pop(entry_id, None)
        self._index()
        _log.info(
            "Registration entry deleted: {entry}\n  It bought: {spiffe_id}\n  By: {requester}",
            event="entry-deleted",
            entry=entry_id,
            spiffe_id=str(known.entry.spiffe_id),
            requester=str(principal),
        )
        return at

    async def end_agent(
        self, principal: Principal, agent: SpiffeId, reason: Reason, why: str, *, bans: bool
    ) -> tuple[IssuedCertificate, ...]:
        """Delete what buys that agent its ID, and revoke its certificates and all that it has obtained.

        ``bans``: it may not come again either. All of it is one step. What was revoked; whoever has to hear of
        that is not told. Raises :class:`StoreError`.
        """
        own = [entry for entry in self.of_agent(agent.name) if not entry.is_ban]
        made: StoredEntry | None = None
        if bans and not self.is_banned(agent.name):
            made = StoredEntry(
                RegistrationEntry.of_agent(new_entry_id(), agent, is_ban=True), self.now()
            )
        revoked = await self.store.apply(
            EndAgent(
                agent,
                self.now(),
                reason,
                tuple((entry.id, self.deletion(principal, entry, why)) for entry in own),
                self.log.entry(Act.REVOKE, principal, "", {"reason": str(reason)}),
                None if made is None else (made, self.creation(principal, made.entry, why)),
                None if bans else self._act(principal, "release-claim", "", why, {}),
            )
        )
        for entry in own:
            self._stored.pop(entry.id, None)
        if made is not None:
            self._stored[made.entry.id] = made
        self._index()
        return revoked

    def stored_of(self, name: str) -> StoredEntry | None:
        """The own entry of the agent of that name as the store has it; None where it has none, or only a ban."""
        own = (self._stored[entry.id] for entry in self.of_agent(name) if not entry.is_ban)
        return next(own, None)

    def took(self, stored: StoredEntry) -> None:
        """An entry has come to be in the store."""
        self._stored[stored.entry.id] = stored
        self._index()
        _log.info(
            "Registration entry made: {entry}\n  Selectors: {selectors}\n  It buys: {spiffe_id}",
            event="entry-created",
            entry=stored.entry.id,
            selectors=spoken(stored.entry.selectors),
            spiffe_id=str(stored.entry.spiffe_id),
        )

    def expose(self) -> None:
        """The CA listens beyond loopback: the default entry counts no more."""
        self.is_exposed = True
        self._index()

    async def replace_filed(self, filed: Sequence[RegistrationEntry]) -> str:
        """Have these be the entries of the file from now on; what has changed, in words.

        Raises :class:`StoreError`, :class:`NameTaken`.
        """
        self._refuse_taken(filed)
        old, new = ({entry.id: entry for entry in entries} for entries in (self.filed, filed))
        told = {
            "new": sorted(new.keys() - old.keys()),
            "gone": sorted(old.keys() - new.keys()),
            "changed": sorted(name for name in old.keys() & new.keys() if old[name] != new[name]),
        }
        facts = {what: ", ".join(names) for what, names in told.items() if names}
        if facts:
            act = {"did": "reread-entries"} | {what: text[:500] for what, text in facts.items()}
            await self.log.record(Act.ADMINISTER, "entries of the file", act)
            self.filed = filed
            self._index()
        return "; ".join(f"{what}: {names}" for what, names in facts.items())

    def _owner(self, common_name: str) -> str | None:
        """The entry that has a common name, or is just getting it."""
        if not common_name:
            return None
        if common_name in self._being_made:
            return "that is being made"
        return next((k.entry.id for k in self.all() if k.entry.common_name == common_name), None)

    def _refuse_taken(self, filed: Sequence[RegistrationEntry]) -> None:
        """Raises :class:`NameTaken` where one of ``filed`` has the common name of another, or of one in the store."""
        owners = {s.entry.common_name: s.entry.id for s in self._stored.values()}
        kept = {s.entry.alias: s.entry.id for s in self._stored.values()}
        for entry in filed:
            other = owners.setdefault(entry.common_name, entry.id)
            if entry.common_name and other != entry.id:
                raise NameTaken.by(entry, other)
            alias = kept.get(entry.alias)
            if entry.alias is not None and alias is not None:
                detail = f"the alias {entry.alias} is in the record already, as the entry {alias}"
                raise NameTaken([Problem(Code.MALFORMED, detail, subject="alias")])

    def creation(self, principal: Principal, entry: RegistrationEntry, reason: str) -> Entry:
        """The act by which an entry is made."""
        return self._act(principal, "create-entry", entry.id, reason, facts_of(entry))

    def deletion(self, principal: Principal, entry: RegistrationEntry, reason: str) -> Entry:
        """The act by which an entry is deleted."""
        return self._act(principal, "delete-entry", entry.id, reason, facts_of(entry))

    def _act(
        self, principal: Principal, did: str, entry_id: str, reason: str, facts: dict[str, str]
    ) -> Entry:
        told = {"did": did, **facts} | ({"reason": reason} if reason else {})
        return self.log.entry(Act.ADMINISTER, principal, f"entry {entry_id}", told)

    def _registered(self, stored: StoredEntry) -> Registered:
        entry = stored.entry
        is_default = entry.id == DEFAULT_ENTRY
        return Registered(
            entry,
            Source.DEFAULT if is_default else Source.STORE,
            not (is_default and self.is_exposed)
            and entry.agent not in self._banned
            and self._letting_in.lets_in(entry),
            stored.created_at,
        )

    def _index(self) -> None:
        kept = (known.entry for known in self._stored.values())
        self._letting_in.replace((*self.filed, *kept))
        agents: dict[str, list[RegistrationEntry]] = defaultdict(list)
        for stored in self._stored.values():
            if stored.entry.agent is not None:
                agents[stored.entry.agent].append(stored.entry)
        self._by_agent = dict(agents)
        self._banned = {name for name, own in agents.items() if any(e.is_ban for e in own)}
        index: dict[Selector, list[RegistrationEntry]] = defaultdict(list)
        honoured = [known.entry for known in self.by_age() if known.is_honoured]
        self._honoured = {entry.id: entry for entry in honoured if entry.alias is None}
        for entry in self._honoured.values():
            if entry.parent is None:
                # Under one of its selectors: whoever meets the entry has that one too.
                index[min(entry.selectors)].append(entry)
        self._by_selector = dict(index)
        self._through.replace(honoured)
        for changed in tuple(self._watching):
            changed()


def new_entry_id() -> str:
    """16 random digits of hex."""
    return secrets.token_hex(8)


def facts_of(entry: RegistrationEntry) -> dict[str, str]:
    """All that an entry says, for the audit log."""
    return entry.members().facts()
