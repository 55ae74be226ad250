"""Real sockets, a flood of them: whoever proves who it is gets in, and nothing of the flood is kept."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.flooding import KINDS, flooding, resident
from tests.twisted_mesh.tls.crowd import Server, serving

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="looks into /proc"),
]

MOST = 200


@pytest.fixture(params=["socket", pytest.param("twisted", marks=pytest.mark.interop)])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    with serving(tmp_path, MOST, request.param) as running:
        yield running


@pytest.mark.parametrize("kind", KINDS)
def test_an_honest_peer_gets_in_while_a_flood_proves_nothing(
    kind: str, server: Server, record_property: Callable[[str, object], None]
) -> None:
    server.settled()
    before = server.counted["descriptors"]
    memory = resident(server.process.pid)
    waits, hung_up, most_open, most_besides = [], 0, 0, 0
    with flooding(server.port, kind, MOST):
        ends = time.monotonic() + 3
        while time.monotonic() < ends:
            try:
                status, seconds = server.ask()
            except OSError:  # its whole handshake took longer than so many others took to come
                hung_up += 1
                continue
            assert status == 200
            waits.append(seconds)
            counted = server.counted
            most_open = max(most_open, counted["open"])
            most_besides = max(most_besides, counted["descriptors"] - before - counted["open"])
    counted = server.settled()
    grown = resident(server.process.pid) - memory
    record_property(f"longest wait of an honest peer in a flood of {kind}", max(waits))
    record_property("longest growth by a flood, in MB", grown)
    assert hung_up <= len(waits) / 10
    assert sorted(waits)[len(waits) * 9 // 10] < 1.0
    assert most_open <= MOST // 2 + 64 + 2
    assert most_besides <= 2, "one for each connection, and nothing that is kept"
    assert counted["open"] == counted["unproven"] == 0
    assert counted["descriptors"] <= before
    assert grown < 32


def test_strangers_without_end_cost_memory_once(server: Server) -> None:
    """Whole requests without a certificate, each on a connection of its own and many on one."""
    server.ask(proves=False)
    before = resident(server.process.pid)
    answered = [server.ask(proves=False, times=20)[0] for _ in range(20)]
    # A hundred requests are let through, then one a second: which of them is chance.
    assert answered[:4] == [200] * 4 and answered[6:].count(429) >= 12
    assert server.ask()[0] == 200, "who proves who it is does not pay for strangers of its address"
    assert server.settled()["open"] == 0
    assert resident(server.process.pid) - before < 8
