"""Contestants, measured in turn: the same load against each in every round, and medians of the rounds."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from attrs import define, field

from tests.bench import load
from tests.bench.tables import Value, median

#: The share of a core from which on a contestant can be said to have been the bottleneck.
_FULL = 0.8


class Measured(Protocol):
    """What does the work: a process, or several together."""

    def cpu_seconds(self) -> float | None:
        """Processor time so far; None where that cannot be told."""


@define(eq=False)
class Contestant:
    name: str
    service: Measured
    job: Mapping[str, Any]
    work: Callable[[Mapping[str, Any]], Mapping[str, Any]] = load.work
    """Does the job, and tells what came of it."""
    _rates: list[float] = field(factory=list, init=False)
    _costs: list[float] = field(factory=list, init=False)
    _shares: list[float] = field(factory=list, init=False)
    _told: list[Mapping[str, Any]] = field(factory=list, init=False)
    failures: int = field(default=0, init=False)

    def measure(self, seconds: float) -> None:
        before = self.service.cpu_seconds()
        told = self.work({**self.job, "seconds": seconds})
        after = self.service.cpu_seconds()
        self.failures += sum(told["failures"].values())
        if not told["done"]:
            raise AssertionError(f"{self.name} did nothing: {told}")
        self._told.append(told)
        self._rates.append(told["done"] / told["seconds"])
        if before is not None and after is not None:
            self._costs.append((after - before) / told["done"])
            self._shares.append((after - before) / told["seconds"])

    def told(self, what: str) -> float | None:
        """The median of what the load tells besides."""
        values = [told[what] for told in self._told if told.get(what) is not None]
        return median(values) if values else None

    @property
    def share(self) -> float | None:
        """Of its core that it had."""
        return median(self._shares) if self._shares else None

    def row(self, operation: str) -> dict[str, Value]:
        """``operation/s of a core`` is what its processor time allows, however busy the machine was."""
        cost = median(self._costs) if self._costs else None
        return {
            "": self.name,
            f"{operation}/s": round(median(self._rates)),
            "CPU us each": round(cost * 1e6) if cost else None,
            f"{operation}/s of one core": round(1 / cost) if cost else None,
            "core used": f"{self.share:.0%}" if self.share else None,
            "failures": self.failures,
        }


def compete(
    contestants: Sequence[Contestant], rounds: int, seconds: float, say: Callable[[str], None]
) -> None:
    """One short unmeasured turn each, then the rounds; the order is turned in every other one."""
    for contestant in contestants:
        contestant.work({**contestant.job, "seconds": 0.3})
    for number in range(rounds):
        order = contestants if number % 2 == 0 else tuple(reversed(contestants))
        for contestant in order:
            contestant.measure(seconds)
        say(f"round {number + 1} of {rounds} done")


def busy(contestants: Sequence[Contestant]) -> tuple[str, ...]:
    """A warning, where something else wanted the cores: then only CPU times compare, and roughly."""
    idle = [c.name for c in contestants if c.share is not None and c.share < _FULL]
    if not idle:
        return ()
    return (
        f"The core was not used up by {', '.join(idle)}: the machine is busy or the load is too light, "
        "so compare CPU times, not rates, and repeat it on a quiet machine.",
    )
