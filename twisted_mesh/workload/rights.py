"""Which entries a process of certain selectors is let in by, and what is said to one that is let in by none."""

import shlex
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from attrs import define, field, frozen

from pki.codes import Code
from pki.errors import PkiError, Problem, Refused
from pki.policy.candidates import candidates
from pki.policy.entry import RegistrationEntry
from pki.policy.selector import Selector, spoken
from pki.spiffe import SpiffeId
from twisted_mesh.workload.stated import foremost

#: So many selectors are written into a refusal, and into its command.
_MOST_SHOWN = 16


class NoIdentity(Refused):
    """No entry lets this process in."""

    code = Code.NOT_AUTHORIZED


@frozen
class Bought:
    """One identity that an entry lets a process have."""

    entry: RegistrationEntry
    spiffe_id: SpiffeId

    @property
    def key(self) -> tuple[str, SpiffeId]:
        """The same for all processes that share it."""
        return self.entry.id, self.spiffe_id


@define(eq=False)
class Rights:
    """The entries of one moment, and what each set of selectors gets by them: looked up once for each set."""

    entries: Sequence[RegistrationEntry]
    agent: str | None = None
    """Whose they are; None where they are the CA's own."""
    _by_selector: dict[Selector, list[int]] = field(init=False)
    """Each entry under the one of its selectors that the fewest entries have, by its place."""
    _bought: dict[frozenset[Selector], tuple[Bought, ...]] = field(factory=dict, init=False)
    _refused: dict[frozenset[Selector], NoIdentity] = field(factory=dict, init=False)

    def __attrs_post_init__(self) -> None:
        counts = Counter(selector for entry in self.entries for selector in entry.selectors)
        self._by_selector = defaultdict(list)
        for place, entry in enumerate(self.entries):
            rarest = min(entry.selectors, key=lambda selector: (counts[selector], selector))
            self._by_selector[rarest].append(place)

    def of(self, selectors: frozenset[Selector]) -> tuple[Bought, ...]:
        """What a process of these has, in the order of the entries."""
        known = self._bought.get(selectors)
        if known is None:
            places = sorted(p for s in selectors for p in self._by_selector.get(s, ()))
            known = self._bought[selectors] = tuple(self._met(places, selectors))
        return known

    def refusal(self, selectors: frozenset[Selector]) -> NoIdentity:
        """Why it has none: what was seen, which entry came nearest, and where more is to be found."""
        known = self._refused.get(selectors)
        if known is None:
            known = self._refused[selectors] = self._explained(selectors)
        return known

    def _met(self, places: Iterable[int], selectors: frozenset[Selector]) -> Iterable[Bought]:
        for place in places:
            entry = self.entries[place]
            if entry.is_met_by(selectors) and (spiffe_id := _one_id(entry, selectors)):
                yield Bought(entry, spiffe_id)

    def _explained(self, selectors: frozenset[Selector]) -> NoIdentity:
        near = candidates(self.entries, None, selectors)
        shown = foremost(selectors, (), _MOST_SHOWN)
        seen = spoken(shown)
        if len(shown) < len(selectors):
            seen += f" and {len(selectors) - len(shown)} groups more"
        if not near:
            told = "there is no entry at all for the workloads of this machine"
        else:
            nearest = near[0]
            lacks = [f"wants {spoken(nearest.missing)} too"] if nearest.missing else []
            lacks += [shortfall.detail for shortfall in nearest.shortfalls]
            if not lacks:
                lacks = [f"buys {nearest.entry.spiffe_id}, which is no single ID"]
            told = f"the entry {nearest.entry.id} comes nearest: it {' and '.join(lacks)}"
        return NoIdentity(
            [
                Problem(
                    Code.NOT_AUTHORIZED,
                    f"no identity issued: no registration entry lets this process in; seen: {seen}; {told}",
                    f"an administrator sees more with: {why_command(selectors, self.agent)}",
                )
            ]
        )


def why_command(selectors: Iterable[Selector], agent: str | None) -> str:
    """The ``mesh-ctl why`` that explains it on the CA's machine, which may be another one."""
    shown = sorted(foremost(selectors, (), _MOST_SHOWN))
    words = [word for selector in shown for word in ("--selector", str(selector))]
    of = [] if agent is None else ["--agent", agent]
    return shlex.join(["mesh-ctl", "why", *of, *words])


def _one_id(entry: RegistrationEntry, selectors: frozenset[Selector]) -> SpiffeId | None:
    """The ID that it buys; None for a pattern of many: nobody here says which of them is meant."""
    try:
        bought = entry.spiffe_id.fill(selectors)
        return SpiffeId.parse(str(bought))
    except PkiError:
        return None
