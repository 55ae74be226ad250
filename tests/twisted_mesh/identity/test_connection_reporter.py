"""An endpoint's reports: when they are sent, what is in them, and what a CA that is away or refuses changes."""

import base64
from collections.abc import Iterator
from typing import Any

import pytest
from attrs import define, field
from msgspec import UNSET
from msgspec.structs import replace as evolve
from twisted.internet.task import Clock
from twisted.logger import Logger

from pki.ct.receipt import SctDemand
from pki.errors import Problem
from pki.svid.spki_pin import PinSet
from twisted_mesh.api.messages import ConnectionsReport, HeldPins
from twisted_mesh.api.refusal import CaRefused
from twisted_mesh.identity import connection_reporter
from twisted_mesh.identity.connection_reporter import ConnectionReporter
from twisted_mesh.testing import MemoryLog, list_of
from twisted_mesh.tls.alerts import Unreachable

A, B = "aa" * 32, "bb" * 32
RULE = f"spiffe://mesh.local/**=sha256/{'A' * 43}=,sha256/{'E' * 43}="
PINS = PinSet.told([RULE], "report", None)


@define
class Registry:
    rows: dict[tuple[str, int], int] = field(factory=dict)

    @property
    def credential_count(self) -> int:
        return len(self.rows)

    def counts(self) -> Iterator[Any]:
        yield from self.rows.items()


@define
class Client:
    again_after: str = "10s"
    told: list[Any] = field(factory=list)
    error: Exception | None = None

    async def ask(self, method: str, path: str, body: Any, shape: type[Any]) -> Any:
        assert (method, path) == ("POST", "/api/v1/connections")
        self.told.append(body)
        if self.error is not None:
            raise self.error
        return shape(self.again_after)


@define
class Rig:
    clock: Clock = field(factory=Clock)
    client: Client = field(factory=Client)
    registry: Registry = field(factory=Registry)
    pins: PinSet = field(factory=PinSet)
    demand: SctDemand | None = None
    service: ConnectionReporter = field(init=False)

    def __attrs_post_init__(self) -> None:
        client: Any = self.client
        registry: Any = self.registry
        self.service = ConnectionReporter(
            client,
            registry,
            self.clock,
            Logger(),
            "i1",
            lambda: self.pins,
            lambda: self.demand,
        )
        self.service.startService()

    def wait(self, seconds: int) -> list[Any]:
        """What is told meanwhile."""
        before = len(self.client.told)
        self.clock.pump([1.0] * seconds)
        return self.client.told[before:]


@pytest.fixture
def rig() -> Rig:
    return Rig()


def report(connections: dict[str, dict[str, int]], *, goes_on: bool = False) -> ConnectionsReport:
    return ConnectionsReport("i1", connections, goes_on)


def test_nobody_connected_is_not_told(rig: Rig) -> None:
    assert rig.wait(100) == []


def test_the_first_connections_are_told_at_once_and_then_at_the_pace(rig: Rig) -> None:
    rig.registry.rows = {(A, 0x2A): 2, (B, 1): 1, (A, 3): 1}
    assert rig.wait(1) == [report({A: {"2a": 2, "03": 1}, B: {"01": 1}})]
    assert rig.wait(9) == []
    assert len(rig.wait(1)) == 1
    rig.registry.rows = {}
    assert rig.wait(10) == [report({})], "that nobody is, once"
    assert rig.wait(100) == []


def test_the_ca_may_slow_it_down_and_not_speed_it_up(rig: Rig) -> None:
    rig.registry.rows = {(A, 1): 1}
    rig.client.again_after = "60s"
    assert len(rig.wait(60)) == 1
    rig.client.again_after = "1s"
    assert len(rig.wait(21)) == 3


def test_many_rows_go_in_several_requests_and_the_busiest_are_told(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_reporter, "_MOST", 5)
    monkeypatch.setattr(connection_reporter, "_AT_ONCE", 2)
    rig.registry.rows = {(A, n): n for n in range(1, 10)}
    assert rig.wait(1) == [
        report({A: {"09": 9, "08": 8}}),
        report({A: {"07": 7, "06": 6}}, goes_on=True),
        report({A: {"05": 5}}, goes_on=True),
    ]


def test_a_ca_that_refuses_is_left_alone_for_minutes(rig: Rig) -> None:
    rig.registry.rows = {(A, 1): 1}
    rig.client.error = CaRefused(404, [Problem("not-found", "there is nothing at this path")])
    assert len(rig.wait(300)) == 1
    rig.client.error = None
    assert len(rig.wait(1)) == 1


def test_a_ca_that_is_away_is_told_once_it_is_back(rig: Rig) -> None:
    rig.registry.rows = {(A, 1): 1}
    rig.client.error = Unreachable(Problem("unreachable", "nobody listens"))
    assert len(rig.wait(25)) == 3
    rig.client.error = None
    assert len(rig.wait(10)) == 1


def test_pins_are_told_while_nobody_is_connected_and_at_once_when_they_change(rig: Rig) -> None:
    rig.pins = PINS
    told = HeldPins([RULE], "report")
    assert rig.wait(1) == [evolve(report({}), pins=told)]
    assert rig.wait(9) == []
    assert rig.wait(1) == [evolve(report({}), pins=told)], "and again at the pace"
    rig.pins = PinSet.told([RULE], "enforce", "2026-12-01T00:00:00Z")
    (again,) = rig.wait(1)
    assert again.pins == HeldPins([RULE], "enforce", "2026-12-01T00:00:00Z")
    rig.pins = PinSet()
    assert rig.wait(1) == [report({})], "that there are none, once"
    assert rig.wait(100) == []


def test_of_several_requests_the_first_has_the_pins(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_reporter, "_AT_ONCE", 1)
    rig.pins = PINS
    rig.registry.rows = {(A, 1): 2, (A, 2): 1}
    assert [one.pins is UNSET for one in rig.wait(1)] == [False, True]


def test_pins_that_change_do_not_hurry_a_ca_that_refuses(rig: Rig) -> None:
    rig.pins = PINS
    rig.client.error = CaRefused(404, [Problem("not-found", "there is nothing at this path")])
    assert len(rig.wait(300)) == 1


def test_it_stops_with_its_service(rig: Rig) -> None:
    rig.registry.rows = {(A, 1): 1}
    rig.service.stopService()
    assert rig.wait(20) == []
    assert not rig.clock.getDelayedCalls()


def test_receipts_that_are_demanded_are_told_though_nobody_is_connected(rig: Rig) -> None:
    log = MemoryLog("one")
    rig.demand = SctDemand(1, list_of([log]))
    (told,) = rig.wait(2)
    ids = [base64.b64encode(log.log.log_id).decode()]
    assert (told.require_sct.required, told.require_sct.logs) == (1, ids)
    (again,) = rig.wait(10)
    assert again.require_sct == told.require_sct, "so that the CA goes on knowing of it"
    rig.demand = None
    (none,) = rig.wait(2)
    assert none.require_sct is UNSET
    assert rig.wait(30) == []
