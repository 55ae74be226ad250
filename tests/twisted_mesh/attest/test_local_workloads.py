"""A process in a container is attested what its runtime says of that container, once, and never another's."""

from collections.abc import Callable, Iterator, Sequence

import pytest
from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.logger import LogEvent, capturedLogs

from pki.errors import PkiError
from pki.policy.policy import NoProof
from pki.policy.selector import Selector
from tests.pki.policy.kinds import own_kinds
from tests.twisted_mesh.attest.local_apis import ID, OTHER
from tests.twisted_mesh.attest.processes import (
    Caller,
    Transport,
    calling,
    only_linux,
    outcome,
    process_attestor,
)
from tests.twisted_mesh.workload.fake_issuer import Turning
from twisted_mesh.attest import local_workloads
from twisted_mesh.attest.container_cgroup import Container
from twisted_mesh.attest.container_source import Told
from twisted_mesh.attest.evidence import Attestation
from twisted_mesh.attest.handle import ProcessHandle
from twisted_mesh.attest.local_api import NotTold
from twisted_mesh.attest.local_workloads import (
    AT_ONCE,
    FORGOTTEN_FOR,
    PATIENCE,
    REMEMBERED_FOR,
    LocalWorkloads,
)
from twisted_mesh.attest.process import ProcessAttestor
from twisted_mesh.attest.registry import declare_kinds
from twisted_mesh.workload.caller import Callers

pytestmark = only_linux

PLACES = frozenset({("", f"/docker/{ID}")})
CONTAINER = Container(ID, places=PLACES)
FOO = Selector("docker:label", "com.example.name:foo")
WORD = Told(frozenset({FOO}), PLACES)
SEEN = Attestation("unix:uid:0", frozenset({Selector("unix:uid", "0")}), uid=0)


@pytest.fixture(autouse=True)
def _kinds() -> Iterator[None]:
    with own_kinds():
        declare_kinds()
        yield


@define(eq=False)
class Source:
    """Says what the test has it say."""

    says: Callable[[], Told | Deferred[Told | None] | None] = lambda: WORD
    asked: list[Container] = field(factory=list)
    where: str = "unix:/run/docker.sock"
    attempts: int = 3
    pause: float = 0.5
    is_meant: bool = True

    def speaks_of(self, container: Container) -> bool:
        return self.is_meant

    async def tell(self, container: Container) -> Told | None:
        self.asked.append(container)
        said = self.says()
        return await said if isinstance(said, Deferred) else said


@define(eq=False)
class Machine:
    """Processes that are where the test says."""

    place: Container | None = CONTAINER

    def container_of(self, cgroups: bytes) -> Container | None:
        assert cgroups
        return self.place


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    found = Machine()
    monkeypatch.setattr(local_workloads, "container_of", found.container_of)
    return found


@pytest.fixture
def caller() -> Iterator[Caller]:
    with calling() as found:
        yield found


def attested(workloads: LocalWorkloads, caller: Caller) -> frozenset[Selector]:
    return outcome(workloads.add(caller.connected, SEEN)).selectors


def complaints(events: Sequence[LogEvent]) -> list[LogEvent]:
    return [event for event in events if event.get("event") == "container-not-attested"]


def raising(error: Exception) -> Callable[[], None]:
    def call() -> None:
        raise error

    return call


def test_what_is_said_of_its_container_is_added(machine: Machine, caller: Caller) -> None:
    source = Source()
    assert attested(LocalWorkloads(Turning(), [source]), caller) == SEEN.selectors | {FOO}
    assert source.asked == [CONTAINER]


def test_a_process_in_no_container_has_nobody_asked(machine: Machine, caller: Caller) -> None:
    source = Source()
    machine.place = None
    workloads = LocalWorkloads(Turning(), [source])
    assert attested(workloads, caller) == SEEN.selectors
    assert not source.asked
    assert not workloads.lacks(caller.connected)


def test_all_who_may_speak_are_asked_and_nobody_else(machine: Machine, caller: Caller) -> None:
    bar = Selector("k8s:ns", "shop")
    sources = [Source(), Source(is_meant=False), Source(lambda: Told(frozenset({bar})))]
    assert attested(LocalWorkloads(Turning(), sources), caller) == SEEN.selectors | {FOO, bar}
    assert [len(source.asked) for source in sources] == [1, 0, 1]


def test_a_connection_has_it_asked_once_however_often_it_asks(
    machine: Machine, caller: Caller
) -> None:
    source, clock = Source(), Turning()
    workloads = LocalWorkloads(clock, [source])
    for _ in range(3):
        assert FOO in attested(workloads, caller)
        clock.advance(2 * REMEMBERED_FOR)
    assert len(source.asked) == 1


def test_connections_from_one_container_have_it_asked_once_in_a_while(
    machine: Machine, caller: Caller
) -> None:
    source, clock = Source(), Turning()
    workloads = LocalWorkloads(clock, [source])
    with calling() as another, calling() as third:
        attested(workloads, caller)
        clock.advance(REMEMBERED_FOR - 0.1)
        assert FOO in attested(workloads, another)
        assert len(source.asked) == 1
        clock.advance(0.1)
        assert FOO in attested(workloads, third)
        assert len(source.asked) == 2


def test_a_place_that_is_not_the_containers_is_believed_nothing_and_told_once(
    machine: Machine, caller: Caller
) -> None:
    """Whoever has a unit to himself makes a cgroup there that is called like another's container."""
    machine.place = Container(ID, is_in_unit=True, places=frozenset({("", f"/evil.service/{ID}")}))
    workloads = LocalWorkloads(Turning(), [Source()])
    with capturedLogs() as events:
        for _ in range(3):
            assert attested(workloads, caller) == SEEN.selectors
    (event,) = complaints(events)
    assert "first process is elsewhere" in event["why"]


def test_a_source_that_is_away_leaves_out_its_own_and_the_log_has_it_once(
    machine: Machine, caller: Caller
) -> None:
    away, clock = Source(raising(NotTold("nobody is there"))), Turning()
    there = Source(lambda: Told(frozenset({FOO})), where="the kubelet")
    workloads = LocalWorkloads(clock, [away, there])
    with capturedLogs() as events:
        for _ in range(5):
            with calling() as another:
                assert FOO in attested(workloads, another)
            clock.advance(REMEMBERED_FOR)
    (event,) = complaints(events)
    assert (event["why"], event["container"]) == ("nobody is there", ID)
    assert len(away.asked) == 5


def test_after_it_was_well_again_the_log_has_the_next_trouble_too(
    machine: Machine, caller: Caller
) -> None:
    words: list[Exception | None] = [NotTold("away"), None, NotTold("away")]

    def say() -> Told:
        word = words.pop(0)
        if word is not None:
            raise word
        return WORD

    clock = Turning()
    workloads = LocalWorkloads(clock, [Source(say)])
    with capturedLogs() as events:
        for _ in range(3):
            with calling() as another:
                attested(workloads, another)
            clock.advance(REMEMBERED_FOR)
    assert [event["why"] for event in complaints(events)].count("away") == 2


def test_who_is_asked_no_more_is_not_believed_any_more(machine: Machine, caller: Caller) -> None:
    workloads = LocalWorkloads(Turning(), [Source()])
    assert attested(workloads, caller) > SEEN.selectors
    workloads.replace([Source(lambda: None, attempts=1)])
    assert attested(workloads, caller) == SEEN.selectors
    before: Deferred[Told | None] = Deferred()
    workloads.replace([Source(lambda: before)])
    _ = Deferred.fromCoroutine(workloads.add(caller.connected, SEEN))
    workloads.replace([Source(lambda: None, attempts=1)])
    before.callback(WORD)
    with calling() as other:
        assert attested(workloads, other) == SEEN.selectors


def test_one_that_is_slow_is_not_waited_for_for_ever(machine: Machine, caller: Caller) -> None:
    clock, late = Turning(), Deferred[Told | None]()
    workloads = LocalWorkloads(clock, [Source(lambda: late)])
    answers: list[Attestation] = []
    Deferred.fromCoroutine(workloads.add(caller.connected, SEEN)).addCallback(answers.append)
    clock.advance(PATIENCE - 0.1)
    assert not answers
    clock.advance(0.1)
    assert answers == [SEEN]
    assert workloads.lacks(caller.connected)
    late.callback(WORD)
    assert FOO in attested(workloads, caller)
    assert not workloads.lacks(caller.connected)


def test_one_that_is_not_listed_yet_is_looked_for_again_in_a_moment(
    machine: Machine, caller: Caller
) -> None:
    words = [None, None, WORD]
    clock, source = Turning(), Source(lambda: words.pop(0))
    answers: list[Attestation] = []
    workloads = LocalWorkloads(clock, [source])
    Deferred.fromCoroutine(workloads.add(caller.connected, SEEN)).addCallback(answers.append)
    assert not answers
    clock.advance(source.pause)
    clock.advance(source.pause)
    assert FOO in answers[0].selectors


def test_one_that_is_never_listed_is_given_up_and_the_log_has_it_once(
    machine: Machine, caller: Caller
) -> None:
    clock, source = Turning(), Source(lambda: None)
    workloads = LocalWorkloads(clock, [source])
    answers: list[Attestation] = []
    with capturedLogs() as events:
        for _ in range(4):
            Deferred.fromCoroutine(workloads.add(caller.connected, SEEN)).addCallback(
                answers.append
            )
            clock.pump([source.pause] * (source.attempts - 1))
            # Who asks again at once is told at once.
            assert attested(workloads, caller) == SEEN.selectors
            clock.advance(FORGOTTEN_FOR)
    assert answers == [SEEN] * 4
    assert len(source.asked) == 4 * source.attempts
    (event,) = complaints(events)
    assert "nobody who may speak of it" in event["why"]


def test_of_many_containers_a_few_are_asked_about_together_and_who_waits_takes_no_turn(
    machine: Machine,
) -> None:
    clock, waiting = Turning(), [Deferred[Told | None]() for _ in range(3 * AT_ONCE)]
    answers = iter(waiting)
    source = Source(lambda: next(answers))
    workloads = LocalWorkloads(clock, [source])
    with calling() as caller:
        for number in range(2 * AT_ONCE):
            machine.place = Container(f"{number:064}")
            Deferred.fromCoroutine(workloads._told(machine.place)).addErrback(lambda _: None)
        assert len(source.asked) == AT_ONCE
        for one in waiting[:AT_ONCE]:
            one.callback(None)
        # They wait for their next attempt, and others have their turn.
        assert len(source.asked) == 2 * AT_ONCE
        del caller


def test_a_process_that_exits_meanwhile_is_refused(machine: Machine, caller: Caller) -> None:
    source = Source(lambda: (caller.exit(), WORD)[1])
    with pytest.raises(NoProof, match="has exited"):
        attested(LocalWorkloads(Turning(), [source]), caller)


def test_a_process_that_has_gone_elsewhere_meanwhile_is_attested_nothing(
    machine: Machine, caller: Caller
) -> None:
    def move() -> Told:
        machine.place = Container(OTHER)
        return WORD

    assert attested(LocalWorkloads(Turning(), [Source(move)]), caller) == SEEN.selectors


def test_a_connection_whose_process_is_moved_is_not_told_of_where_it_was(
    machine: Machine, caller: Caller
) -> None:
    workloads = LocalWorkloads(Turning(), [Source()])
    assert FOO in attested(workloads, caller)
    machine.place = Container(OTHER, places=frozenset({("", f"/docker/{OTHER}")}))
    assert FOO not in attested(workloads, caller)


def test_where_the_kernel_hands_out_no_handles_nothing_is_attested(
    machine: Machine, caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ProcessHandle, "of_peer", lambda *_: None)
    source = Source()
    assert attested(LocalWorkloads(Turning(), [source]), caller) == SEEN.selectors
    assert not source.asked


def test_an_attestor_of_processes_asks_where_it_has_whom(machine: Machine, caller: Caller) -> None:
    alone = process_attestor()
    asking = ProcessAttestor(alone.names, LocalWorkloads(Turning(), [Source()]))
    plain, more = (outcome(one.attest(caller.evidence)) for one in (alone, asking))
    assert plain is not None
    assert more is not None
    assert more.selectors == plain.selectors | {FOO}
    assert {selector.kind for selector in more.selectors} <= {k.name for k in asking.kinds}


def test_a_caller_of_the_workload_socket_is_told_of_later_where_its_pod_is_listed_late(
    machine: Machine, caller: Caller
) -> None:
    words: list[Told | None] = [None] * 3
    clock, source = Turning(), Source(lambda: words.pop(0) if words else WORD)
    callers = Callers(process_attestor(), clock, LocalWorkloads(clock, [source]))
    found: list[object] = []
    Deferred.fromCoroutine(callers.of(Transport(caller.connected))).addCallback(found.append)
    clock.pump([source.pause] * 3)
    known = outcome(callers.of(Transport(caller.connected)))
    assert found == [known]
    assert FOO not in known.selectors
    looked: list[bool] = []
    stop = known.watch(lambda: looked.append(FOO in known.selectors))
    clock.advance(2)
    assert looked == [True]
    stop()
    assert not clock.getDelayedCalls()


@pytest.mark.parametrize("end", ["exit", "close"])
def test_nobody_looks_again_for_one_that_has_gone(
    machine: Machine, caller: Caller, end: str
) -> None:
    clock, source = Turning(), Source(lambda: None, attempts=1)
    callers = Callers(process_attestor(), clock, LocalWorkloads(clock, [source]))
    outcome(callers.of(Transport(caller.connected)))
    assert len(source.asked) == 1
    if end == "exit":
        caller.exit()
    else:
        caller.connected.close()
    clock.advance(2)
    assert not clock.getDelayedCalls()
    assert len(source.asked) == 1


def test_it_is_looked_again_so_often_and_no_more(machine: Machine, caller: Caller) -> None:
    clock, source = Turning(), Source(raising(PkiError("away")), attempts=1)
    callers = Callers(process_attestor(), clock, LocalWorkloads(clock, [source]))
    outcome(callers.of(Transport(caller.connected)))
    clock.pump([100.0] * 20)
    assert len(source.asked) == 7
    assert not clock.getDelayedCalls()
