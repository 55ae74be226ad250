"""How often an agent asks its CA for entries."""

from types import SimpleNamespace
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from twisted_mesh.api.messages import AgentEntries
from twisted_mesh.workload.agent_issuer import AgentIssuer


def test_a_ca_that_cannot_have_it_wait_is_not_asked_again_at_once() -> None:
    clock = Clock()
    asked: list[tuple[float, int]] = []

    async def ready() -> None:
        pass

    async def entries(after: str, wait: int) -> AgentEntries:
        asked.append((clock.seconds(), wait))
        return AgentEntries("the same", [])

    identity: Any = SimpleNamespace(ca=SimpleNamespace(crls=None), ready=ready)
    issuer: Any = AgentIssuer(identity, clock)
    issuer.client = SimpleNamespace(entries=entries)
    issuer._settle = lambda: None
    issuer.running = 1
    asking = Deferred.fromCoroutine(issuer._follow_entries())
    clock.pump([0.01] * 300)
    issuer.running = 0
    clock.advance(5)
    assert asking.called
    first, second, *more = asked
    assert (first[1], second[1]) == (0, 45)
    assert second[0] < 0.1
    assert len(more) == 2
