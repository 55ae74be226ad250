"""Which entries count through which agents: by an agent's own ID, and by the aliases of what its platform proves."""

from collections import defaultdict
from collections.abc import Iterable
from itertools import chain

from attrs import define, field

from pki.policy.entry import RegistrationEntry
from pki.policy.selector import Selector
from pki.spiffe import SpiffeId

Entries = tuple[RegistrationEntry, ...]
#: Of so many agents it is remembered.
_MOST = 100_000


@define(eq=False, repr=False)
class ThroughAgents:
    """The entries that have a parent, by age. While those of an agent are the same, so is the tuple."""

    _by_parent: dict[SpiffeId, Entries] = field(factory=dict, init=False)
    _aliases: dict[SpiffeId, RegistrationEntry] = field(factory=dict, init=False)
    _joined: dict[SpiffeId, tuple[tuple[Entries, ...], Entries]] = field(factory=dict, init=False)
    """Of agents that have entries of several parents: of which, and all of them."""
    _ages: dict[str, int] = field(factory=dict, init=False)

    def replace(self, honoured: Iterable[RegistrationEntry]) -> None:
        """Have these count, the oldest first; those without a parent are passed over."""
        children: dict[SpiffeId, list[RegistrationEntry]] = defaultdict(list)
        self._aliases, self._ages = {}, {}
        for age, entry in enumerate(honoured):
            if entry.alias is not None:
                self._aliases[SpiffeId.parse(str(entry.spiffe_id))] = entry
            elif entry.parent is not None:
                children[entry.parent].append(entry)
                self._ages[entry.id] = age
        before, self._by_parent = self._by_parent, {}
        for parent, found in children.items():
            new, old = tuple(found), before.get(parent)
            self._by_parent[parent] = old if old is not None and old == new else new

    def aliases_of(self, node: frozenset[Selector]) -> dict[SpiffeId, RegistrationEntry]:
        """What an agent is called besides of which that was proven, and the entry that says so."""
        if not node:
            return {}
        return {name: entry for name, entry in self._aliases.items() if entry.is_met_by(node)}

    def of(self, agent: SpiffeId, node: frozenset[Selector]) -> Entries:
        """Those of an agent of which that was proven, by age."""
        parents = (agent, *self.aliases_of(node))
        parts = tuple(found for parent in parents if (found := self._by_parent.get(parent)))
        if len(parts) < 2:
            self._joined.pop(agent, None)
            return parts[0] if parts else ()
        of, joined = self._joined.get(agent, ((), ()))
        if len(of) != len(parts) or any(a is not b for a, b in zip(of, parts, strict=True)):
            joined = tuple(sorted(chain(*parts), key=lambda entry: self._ages[entry.id]))
            self._joined[agent] = parts, joined
        return joined


@define(eq=False, repr=False)
class LettingIn:
    """What lets agents in by their platform, held against what was proven of each when it came."""

    _entries: Entries = field(default=(), init=False)
    _known: dict[RegistrationEntry, bool] = field(factory=dict, init=False)
    """By the agents' own entries."""

    def replace(self, entries: Iterable[RegistrationEntry]) -> None:
        """Have those of these count that let agents in."""
        letting_in = tuple(entry for entry in entries if entry.lets_agents_in)
        if letting_in != self._entries or len(self._known) > _MOST:
            self._entries, self._known = letting_in, {}

    def lets_in(self, entry: RegistrationEntry) -> bool:
        """Whether an agent with that own entry would be let in still; any other entry asks nothing of that."""
        if not entry.node:
            return True
        known = self._known.get(entry)
        if known is None:
            agent = SpiffeId.parse(str(entry.spiffe_id))
            known = any(allowing.admits(agent, entry.node) for allowing in self._entries)
            self._known[entry] = known
        return known
