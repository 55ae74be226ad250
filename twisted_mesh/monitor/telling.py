"""Who is told of alerts: the log, a command, a webhook; each of all of them, in their order, until it has been told."""

import random
from collections.abc import Callable, Sequence
from typing import Protocol

from attrs import define, field
from twisted.logger import Logger

from pki import renewal
from pki.errors import PkiError
from twisted_mesh.files.command import Command, Stop
from twisted_mesh.monitor.alert import Alert
from twisted_mesh.monitor.index import Index
from twisted_mesh.runtime.log import logger, reasons
from twisted_mesh.runtime.tasks import Defer

_log = logger("ct")
#: How many alerts the log is told of in one turn, and how often a command is run in one.
_LINES, _RUNS = 200, 20


class Sink(Protocol):
    """One way to tell."""

    @property
    def name(self) -> str:
        """For the log, metrics, and to remember by what it has told."""

    @property
    def at_once(self) -> int:
        """How many it is given at a time."""

    async def tell(self, alerts: Sequence[tuple[int, Alert]]) -> None:
        """Tell them, each with its number. Raises :class:`PkiError` where that did not succeed."""


@define(eq=False, repr=False)
class LogLines:
    """A line of the log for each."""

    log: Logger = _log
    name: str = field(default="log", init=False)
    at_once: int = field(default=_LINES, init=False)

    async def tell(self, alerts: Sequence[tuple[int, Alert]]) -> None:
        """Never fails."""
        for number, alert in alerts:
            facts = {f"alert_{name}": value for name, value in alert.facts.items()}
            self.log.warn(
                "{kind}: {detail}{where}",
                event="ct-alert",
                kind=str(alert.kind),
                detail=alert.detail,
                where=_where(alert),
                number=number,
                origin=alert.log,
                **facts,
            )


def _where(alert: Alert) -> str:
    serial = alert.facts.get("serial")
    known = (alert.log or "", f"serial {serial}" if serial else "")
    told = ", ".join(filter(None, known))
    return f" ({told})" if told else ""


@define(eq=False, repr=False)
class Commands:
    """A command is run for each, with what there is to tell in its environment; no shell sees any of it."""

    command: Command
    in_thread: Defer
    name: str = field(init=False)
    at_once: int = field(default=1, init=False)
    _stop: Stop = field(factory=Stop, init=False)

    def __attrs_post_init__(self) -> None:
        self.name = f"command {self.command.name}"

    async def tell(self, alerts: Sequence[tuple[int, Alert]]) -> None:
        """Run it to its end. Raises :class:`NotTold`."""
        for number, alert in alerts:
            facts = {**alert.environment, "MESH_ALERT_NUMBER": str(number)}
            await self.in_thread(self.command.run, facts, self._stop)

    def stop(self) -> None:
        """End the one that runs."""
        self._stop.set()


@define(eq=False)
class _Way:
    """A sink, and when it is tried again."""

    sink: Sink
    failures: int = 0
    again_at: float = 0.0
    problem: str = ""


@define(eq=False, repr=False)
class Teller:
    """Tells all sinks. One that fails does not hold up the others, and is tried again after longer and longer."""

    index: Index
    in_index: Defer
    """Calls a method of the index where it may be used."""
    sinks: Sequence[Sink]
    seconds: Callable[[], float]
    draw: random.Random = field(factory=random.SystemRandom)
    _ways: Sequence[_Way] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._ways = [_Way(sink) for sink in self.sinks]

    async def begin(self) -> None:
        """Each that is new is told of what comes from now on."""
        for way in self._ways:
            await self.in_index(self.index.untold, way.sink.name, 0)

    async def tell(self, *, now: bool = False) -> None:
        """Tell each of what it has not told, where it is due; or ``now``. Raises nothing that is expected."""
        for way in self._ways:
            if now or self.seconds() >= way.again_at:
                try:
                    await self._tell(way.sink)
                except PkiError as error:
                    self._failed(way, error)
                else:
                    way.failures, way.again_at, way.problem = 0, 0.0, ""

    async def _tell(self, sink: Sink) -> None:
        runs = _RUNS * max(sink.at_once, 1)
        while runs > 0:
            alerts = await self.in_index(self.index.untold, sink.name, sink.at_once)
            if not alerts:
                return
            await sink.tell(alerts)
            await self.in_index(self.index.told, sink.name, alerts[-1][0])
            runs -= len(alerts)

    def _failed(self, way: _Way, error: PkiError) -> None:
        pause = renewal.backoff(way.failures, self.draw).total_seconds()
        way.failures += 1
        way.again_at = self.seconds() + pause
        way.problem = reasons(error.problems)
        _log.warn(
            "{sink} was not told of alerts: {reasons}; trying again in {pause:.1f} s",
            event="alerts-untold",
            sink=way.sink.name,
            reasons=way.problem,
            pause=pause,
        )

    @property
    def failing(self) -> dict[str, str]:
        """Which sinks fail, and why."""
        return {way.sink.name: way.problem for way in self._ways if way.problem}
