"""What Prometheus reads of a process: what is measured where it happens, and what is looked up when it asks.

Names are by Prometheus' convention: ``_total`` for what is counted, ``_seconds`` for durations, and
``_timestamp_seconds`` for moments, so that an alert says for itself how long before it. A label has
few values, known beforehand, and none that a caller can choose.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Generic, TypeVar

from attrs import define, frozen
from prometheus_client import REGISTRY, Counter, Histogram, disable_created_metrics
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

T = TypeVar("T")

_HANDSHAKES = Histogram(
    "mesh_handshake_seconds",
    "From TCP to a peer that is let in, or is not: the network's time and the peer's too.",
    ["outcome"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
#: A handshake that ended so took that many seconds.
ACCEPTED: Callable[[float], None] = _HANDSHAKES.labels("accepted").observe
REFUSED: Callable[[float], None] = _HANDSHAKES.labels("refused").observe

#: The groups that keys are exchanged by, and ``other`` for all the rest.
GROUPS = (
    *("X25519MLKEM768", "SecP256r1MLKEM768", "SecP384r1MLKEM1024"),
    *("x25519", "secp256r1", "secp384r1", "secp521r1", "x448", "other"),
)
_EXCHANGES = Counter(
    "mesh_handshakes",
    "Handshakes whose peer was let in, by the group that keys were exchanged by.",
    ["group"],
)
_EXCHANGED: Mapping[str, Callable[[], None]] = {
    name.lower(): _EXCHANGES.labels(name).inc for name in GROUPS
}


def exchanged(group: str) -> None:
    """A peer was let in, with whom keys were exchanged by that group, as OpenSSL spells it."""
    _EXCHANGED.get(group.lower(), _EXCHANGED["other"])()


_CUTS = Histogram(
    "mesh_revocation_cut_seconds",
    "From the moment of a revocation, in whole seconds of the CA's clock, to an open connection's end because of it.",
    buckets=(0.1, 0.25, 0.5, 1, 1.5, 2, 3, 5, 10, 30, 60, 300, 3600),
)

#: Attempts to write what a program remembers that have failed.
MEMORY_FAILURES = Counter(
    "mesh_memory_write_failures", "Attempts to write a memory that have failed.", ["memory"]
)


def cut(revoked_at: datetime, now: datetime) -> None:
    """An open connection is closed because of a revocation."""
    _CUTS.observe(max(0.0, (now - revoked_at).total_seconds()))


@frozen
class Reading(Generic[T]):
    """One metric that is looked up."""

    name: str
    """As it is shown."""
    text: str
    read: Callable[[T], float | Mapping[str, float]]
    """The value; with a label, the value for each of the label's."""
    label: str = ""
    is_counter: bool = False

    def family(self, of: T) -> Metric:
        """It, as it is now."""
        family: Any
        kind = CounterMetricFamily if self.is_counter else GaugeMetricFamily
        family = kind(self.name, self.text, labels=[self.label] if self.label else [])
        value = self.read(of)
        if isinstance(value, Mapping):
            for name, one in value.items():
                family.add_metric([name], one)
        else:
            family.add_metric([], value)
        found: Metric = family
        return found


@define(eq=False, repr=False)
class Readings(Collector, Generic[T]):
    """What is looked up of one object, and besides it what else belongs to its program alone."""

    of: T
    readings: Sequence[Reading[T]]
    others: Sequence[Collector] = ()

    def collect(self) -> Iterator[Metric]:
        """All of it, as it is now."""
        for reading in self.readings:
            yield reading.family(self.of)
        for other in self.others:
            yield from other.collect()

    def describe(self) -> Iterator[Metric]:
        """Nothing: a registry that is told nothing does not look all of it up beforehand."""
        return iter(())


def begin() -> None:
    """Have this process, which is one of our programs, show no second series beside each counter.

    It would say since when is counted, and nobody asks. In somebody else's process that is theirs to say.
    """
    disable_created_metrics()


_shown: dict[str, Collector] = {}


def show(what: str, collector: Collector) -> None:
    """Have ``/metrics`` show it from now on, in the place of what was shown as ``what`` before."""
    before = _shown.pop(what, None)
    if before is not None:
        REGISTRY.unregister(before)
    REGISTRY.register(collector)
    _shown[what] = collector
