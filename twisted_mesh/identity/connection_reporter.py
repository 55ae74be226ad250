"""Tells the CA what depends on it: how many open connections on each certificate, pins, and receipts demanded.

So the reach of a revocation, and whom another key or fewer receipts would shut out, can be seen before.
"""

from collections.abc import Callable, Sequence
from heapq import nlargest
from typing import TYPE_CHECKING, Self

from attrs import define, field
from msgspec import UNSET
from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from pki.errors import PkiError
from pki.serial import serial_hex
from pki.svid.spki_pin import PinSet
from pki.validity import parse_duration
from twisted_mesh.api.client import CaClient
from twisted_mesh.api.messages import ConnectionsReport, ReportTaken, held_pins, required_scts
from twisted_mesh.api.refusal import CaRefused, must_renew_first
from twisted_mesh.api.trust_question import new_instance
from twisted_mesh.runtime.tasks import Ticker, spawn
from twisted_mesh.trust.connections import ConnectionRegistry

if TYPE_CHECKING:  # loaded where receipts are demanded
    from pki.ct.receipt import SctDemand
    from twisted_mesh.identity.agent import Agent

#: Seconds between two looks at the registry: the first connections are told that soon.
TICK = 1.0
#: Seconds until the next report where the CA has not said when it wants it.
PACE = 10.0
#: Seconds of silence after the CA has refused one.
_REFUSED = 300.0
#: So many certificates at most, those with the most connections, and so many to a request.
_MOST, _AT_ONCE = 10_000, 1000

_Row = tuple[tuple[str, int], int]


@define(eq=False, repr=False, slots=False)
class ConnectionReporter(Service):
    """Reports while anybody is connected, at the pace that the CA asks for; that nobody is, once. Demands, always.

    The CA shows it to administrators and believes nothing of it. A CA that is away is not waited for:
    the next report says it all.
    """

    client: CaClient
    registry: ConnectionRegistry
    clock: IReactorTime
    log: Logger
    instance: str = field(factory=new_instance)
    """Tells us from others who prove the same."""
    pins: Callable[[], PinSet] = PinSet
    """Those of the moment."""
    demand: "Callable[[], SctDemand | None]" = lambda: None
    """Of receipts, likewise."""
    _due_at: float = field(default=0.0, init=False)
    _pause_until: float = field(default=0.0, init=False)
    _has_reported: bool = field(default=False, init=False)
    """Whether the CA knows of connections, pins or demands of ours."""
    _told_pins: PinSet = field(factory=PinSet, init=False)
    _told_demand: "SctDemand | None" = field(default=None, init=False)
    _reporting: "Deferred[None] | None" = field(default=None, init=False)
    _ticker: Ticker = field(init=False)

    @classmethod
    def of(cls, agent: "Agent", client: CaClient) -> Self:
        """Of whom an agent meets, and of the pins and receipts by which they have to be proven."""
        store = agent.trust_store
        return cls(
            client,
            store.registry,
            agent.reactor,
            agent.log,
            agent.instance,
            lambda: store.trust.pins,
            lambda: store.trust.demand,
        )

    def __attrs_post_init__(self) -> None:
        self._ticker = Ticker(self.clock, TICK, self._look, "the reports", self.log)

    def startService(self) -> None:
        """Look at the registry each second from now on."""
        super().startService()
        self._ticker.start(now=False)

    def stopService(self) -> None:
        """Report no more, and call off what is being sent."""
        super().stopService()
        self._ticker.stop()
        if self._reporting is not None:
            self._reporting.cancel()

    def _look(self) -> None:
        now = self.clock.seconds()
        if now < self._pause_until or not (self._reporting is None or self._reporting.called):
            return
        is_due = now >= self._due_at if self._has_reported else self.registry.credential_count > 0
        is_new = self.pins() != self._told_pins or self.demand() != self._told_demand
        if is_due or is_new:
            self._reporting = spawn(self._report(), "telling the CA of connections", self.log)

    async def _report(self) -> None:
        rows = list(self.registry.counts())
        if len(rows) > _MOST:
            rows = nlargest(_MOST, rows, key=lambda row: row[1])
        pace, pins, demand = PACE, self.pins(), self.demand()
        try:
            for start in range(0, max(len(rows), 1), _AT_ONCE):
                chunk = rows[start : start + _AT_ONCE]
                is_first = start == 0
                body = ConnectionsReport(
                    self.instance,
                    _rows(chunk),
                    not is_first,
                    held_pins(pins) if pins and is_first else UNSET,
                    required_scts(demand) if demand and is_first else UNSET,
                )
                pace = await self._send(body)
        except CaRefused as error:
            pause = PACE if must_renew_first(error) else _REFUSED
            self._pause_until = self.clock.seconds() + pause
            self.log.debug("The CA takes no report of connections: {error}", error=str(error))
            return
        except PkiError:
            self._pause_until = self.clock.seconds() + PACE
            return
        self._told_pins, self._told_demand = pins, demand
        self._has_reported = bool(rows or pins or demand)
        self._due_at = self.clock.seconds() + pace

    async def _send(self, body: ConnectionsReport) -> float:
        """Seconds until the CA wants the next."""
        answer = await self.client.ask("POST", "/api/v1/connections", body, ReportTaken)
        return max(PACE, parse_duration(answer.again_after).total_seconds())


def _rows(rows: Sequence[_Row]) -> dict[str, dict[str, int]]:
    told: dict[str, dict[str, int]] = {}
    for (issuer, serial), count in rows:
        told.setdefault(issuer, {})[serial_hex(serial)] = count
    return told
