"""Strangers that cost as much as they can, on real sockets: whoever is honest is served as if they were not there."""

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from attrs import define, field

from tests.hostile import KINDS, attacked
from tests.twisted_mesh.tls.crowd import Server, serving

#: As many as an attacker needed to stop an endpoint.
STRANGERS = 24
#: Honest p99 beside them, in times of that without them; whatever is below this many seconds is no matter. The
#: strangers' own work takes one of two cores, and both ends of every connection are on this machine.
RATIO, NO_MATTER = 12.0, 1.0
#: Where strangers are is 127.0.0.1. Linux has all of 127.0.0.0/8.
ELSEWHERE = "127.0.0.2"

pytestmark = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs Linux's loopback")


_SIBLING = "tests/twisted_mesh/tls/test_strangers.py::test_strangers_of_all_kinds_starve_nobody"


@pytest.fixture(params=["socket", pytest.param("twisted", marks=pytest.mark.interop(_SIBLING))])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    with serving(tmp_path, 200, request.param) as running:
        yield running


@define(eq=False)
class Honest:
    """Who proves who it is, on a new connection for each request."""

    server: Server
    host: str
    waits: list[float] = field(factory=list)

    def asks_for(self, seconds: float, least: int) -> float:
        """Ask one after another for so long, and at least so often; the 99th percentile of the seconds."""
        self.waits.clear()
        ends = time.monotonic() + seconds
        while time.monotonic() < ends or len(self.waits) < least:
            status, waited = self.server.ask(source=self.host)
            assert status == 200
            self.waits.append(waited)
        return sorted(self.waits)[len(self.waits) * 99 // 100]


def held(
    server: Server, kind: str, directory: Path, seconds: float, seed: int
) -> tuple[str, float]:
    """What to record: the figure that was asserted."""
    honest = Honest(server, ELSEWHERE)
    before = honest.asks_for(seconds / 4, 20)
    with attacked(server.port, kind, directory, most=STRANGERS, seed=seed) as opened:
        beside = honest.asks_for(seconds, 20)
    assert opened[0] >= STRANGERS
    assert beside <= max(RATIO * before, NO_MATTER), (before, beside)
    return f"longest wait of an honest peer beside strangers of {kind}: p99", beside


def test_strangers_of_all_kinds_starve_nobody(
    server: Server, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    record_property(*held(server, "mixed", tmp_path, 2.0, seed=1))


@pytest.mark.interop(
    "tests/twisted_mesh/tls/test_strangers.py::test_strangers_of_all_kinds_starve_nobody"
)
@pytest.mark.parametrize("kind", KINDS)
def test_strangers_of_each_kind_starve_nobody(
    kind: str, server: Server, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    record_property(*held(server, kind, tmp_path, 6.0, seed=2))


@pytest.mark.interop(
    "tests/twisted_mesh/limits/test_handshake_budget.py::test_an_honest_peer_behind_an_attackers_address_gets_its_turn"
)
def test_an_honest_peer_behind_the_strangers_address_gets_in(
    server: Server, tmp_path: Path
) -> None:
    """It waits for its turn among those who keep failing, and for no longer than a handshake may take."""
    with attacked(server.port, "chain", tmp_path, most=STRANGERS):
        Honest(server, ELSEWHERE).asks_for(2.0, 1)
        status, waited = asked_again(server)
    assert (status, waited < 10.0) == (200, True)


def asked_again(server: Server, attempts: int = 5) -> tuple[int, float]:
    """On a slow machine those who have left are noticed late, and one of the address may have to make room for them."""
    for _ in range(attempts - 1):
        with suppress(ConnectionResetError):
            return server.ask(source="127.0.0.1")
    return server.ask(source="127.0.0.1")


@pytest.mark.soak
@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(seed, marks=pytest.mark.endurance) for seed in range(1, 3))]
)
def test_strangers_who_do_not_give_up_starve_nobody(
    server: Server, seed: int, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    record_property(*held(server, "mixed", tmp_path, 20.0, seed))
