"""How often an agent asks its CA for entries, and what it states of workloads."""

from types import SimpleNamespace
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from pki.keys import KeyAlgorithm
from pki.policy.selector import Selector
from tests.twisted_mesh.workload.fake_issuer import entry
from twisted_mesh.api.agent_messages import MOST_SELECTORS, AgentEntries
from twisted_mesh.attest.registry import declare_kinds
from twisted_mesh.workload.agent_issuer import AgentIssuer
from twisted_mesh.workload.stated import stated


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


def test_of_a_process_of_very_many_groups_what_counts_is_stated() -> None:
    """The CA takes so many selectors and no more; a directory may put a user into hundreds of groups."""
    declare_kinds()
    user = {Selector("unix:uid", "7"), Selector("unix:user", "web")}
    groups = {Selector("unix:gid", str(number)) for number in range(1000, 1300)}
    wanted = entry("web", "unix:gid:1250", "unix:uid:7")
    found = stated(wanted, user | groups)
    assert len(found) == MOST_SELECTORS
    assert found >= user | set(wanted.selectors)
    assert found <= user | groups
    assert stated(wanted, user) == user


def test_no_more_of_it_is_asked_with() -> None:
    asked: list[int] = []

    class Client:
        async def jwt(self, entry_id: str, selectors: frozenset[Selector], *_: object) -> None:
            asked.append(len(selectors))
            raise RuntimeError

        async def sign(self, csr: bytes, spiffe_id: object, entry_id: str, seen: Any) -> None:
            asked.append(len(seen))
            raise RuntimeError

    declare_kinds()
    identity: Any = SimpleNamespace(ca=SimpleNamespace(crls=None))
    issuer: Any = AgentIssuer(identity, Clock())
    issuer.client = Client()
    groups = frozenset(Selector("unix:gid", str(number)) for number in range(1000))
    web = entry("web", "unix:gid:999")
    for asking in (
        issuer.issue_jwt(web, groups, ["db"], None),
        issuer.issue(web, groups, KeyAlgorithm.EC_P256),
    ):
        Deferred.fromCoroutine(asking).addErrback(lambda failure: failure.trap(RuntimeError))
    assert asked == [MOST_SELECTORS] * 2
