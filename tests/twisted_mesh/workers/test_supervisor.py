"""Who ends is replaced, later and later where that is of no use; who gives no sign of life is ended."""

import socket
from collections.abc import Sequence
from typing import Any

import pytest
from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessDone, ProcessTerminated
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from tests.twisted_mesh.recording import RecordingLog
from twisted_mesh.workers import process as process_module
from twisted_mesh.workers.channel import Frames, framed
from twisted_mesh.workers.messages import (
    CHANNEL,
    MOST_TO_PARENT,
    MOST_TO_WORKER,
    Alive,
    Answered,
    Asked,
    Assignment,
    Listening,
    Told,
)
from twisted_mesh.workers.process import SETTLED, STARTING, WorkerFailed
from twisted_mesh.workers.supervisor import (
    FIRST_PAUSE,
    GRACE,
    LONGEST_PAUSE,
    SILENT,
    Supervisor,
)

KILLED = ProcessTerminated(None, 9, 9)


class Transport(StringTransport):
    def abortConnection(self) -> None:
        self.aborting = True


@define(eq=False)
class Spawned:
    """One process."""

    pid: int
    output: Any
    command: Sequence[str]
    env: dict[str, str]
    inherited: dict[int, Any]
    channel: Any = None

    def say(self, message: Any) -> None:
        self.channel.dataReceived(framed(message, MOST_TO_PARENT))

    @property
    def heard(self) -> list[bytes]:
        return Frames(MOST_TO_WORKER).feed(self.channel.transport.value())

    def end(self, how: Any = KILLED) -> None:
        self.output.processEnded(Failure(how))


class Reactor(Clock):
    """Starts processes that there are none of."""

    def __init__(self) -> None:
        super().__init__()
        self.spawned: list[Spawned] = []
        self.refusal: OSError | None = None

    def spawnProcess(self, output: Any, *told: Any, childFDs: Any) -> Spawned:
        _, command, env, _ = told
        if self.refusal is not None:
            raise self.refusal
        found = Spawned(100 + len(self.spawned), output, command, env, childFDs)
        self.spawned.append(found)
        return found

    def adoptStreamConnection(self, number: int, family: int, factory: Any) -> None:
        channel = factory.buildProtocol(None)
        channel.makeConnection(Transport())
        self.spawned[-1].channel = channel


@define(eq=False)
class Rig:
    reactor: Reactor = field(factory=Reactor)
    log: Any = field(factory=RecordingLog)
    killed: list[int] = field(factory=list)
    lines: list[str] = field(factory=list)
    waiting: "Deferred[None]" = field(factory=Deferred)
    """What the CA's answers wait for that may."""
    supervisor: Supervisor = field(init=False)
    starting: "Deferred[None]" = field(init=False)

    def __attrs_post_init__(self) -> None:
        async def answer(worker: int, asked: Asked) -> Answered:
            if asked.wait:
                await self.waiting
            return Answered(asked.number, 200, f"to {worker}".encode())

        self.supervisor = Supervisor(
            self.reactor,  # type: ignore[arg-type]
            2,
            lambda: [socket.socket()],
            lambda number, sockets: Assignment(
                "mesh-server", number, 2, 1, [], {}, sockets, "unix:/ca"
            ),
            answer,
            self.lines.append,
            10.0,
            self.log,
        )
        self.starting = Deferred.fromCoroutine(self.supervisor.start())

    def serve(self) -> "Rig":
        for spawned in self.reactor.spawned:
            spawned.say(Listening())
        assert self.starting.called
        return self


@pytest.fixture
def rig(monkeypatch: pytest.MonkeyPatch) -> Rig:
    monkeypatch.setenv("NOTIFY_SOCKET", "/run/notify")
    found = Rig()
    monkeypatch.setattr(process_module.os, "kill", lambda pid, number: found.killed.append(pid))
    return found


def test_each_is_told_what_it_is_and_inherits_what_it_serves(rig: Rig) -> None:
    first, second = rig.reactor.spawned
    assert sorted(first.inherited) == [0, 1, 2, CHANNEL, CHANNEL + 1]
    assert "NOTIFY_SOCKET" not in first.env
    assert list(first.command[-2:]) == ["mesh-server", "1"]
    assert b'"kind":"assignment"' in second.heard[0] and b'"number":2' in second.heard[0]
    assert not rig.starting.called
    rig.serve()


def test_a_worker_that_fails_before_all_serve_ends_the_start(rig: Rig) -> None:
    rig.reactor.spawned[0].say(Listening())
    rig.reactor.spawned[1].output.errReceived(b"mesh-server: the port is ta")
    rig.reactor.spawned[1].output.errReceived(b"ken\n")
    rig.reactor.spawned[1].end(ProcessTerminated(1))
    outcome: list[Any] = []
    rig.starting.addErrback(outcome.append)
    assert outcome[0].check(WorkerFailed)
    assert outcome[0].getErrorMessage() == "worker 2 did not start: the port is taken"


def test_one_that_had_served_for_a_while_is_replaced_at_once(rig: Rig) -> None:
    rig.serve()
    rig.reactor.advance(SETTLED)
    rig.reactor.spawned[0].end()
    assert rig.log.count("worker-died") == 1
    assert rig.log.events[-1]["when"] == "at once"
    rig.reactor.advance(0)
    assert len(rig.reactor.spawned) == 3
    rig.reactor.spawned[2].say(Listening())
    assert rig.log.count("worker-back") == 1
    assert rig.supervisor.workers[0].restarts == 1


@pytest.mark.parametrize(
    "ended, lost",
    [
        (ProcessDone(0), "it was told to, and has finished"),
        (ProcessTerminated(1), "its connections are lost"),
    ],
)
def test_it_is_said_what_is_lost_by_an_end(rig: Rig, ended: Exception, lost: str) -> None:
    rig.serve()
    rig.reactor.spawned[0].end(ended)
    assert rig.log.events[-1]["lost"] == lost
    assert rig.log.events[-1]["when"] == f"in {FIRST_PAUSE} s"


def test_a_descriptor_above_the_limit_has_its_cure(rig: Rig) -> None:
    rig.serve()
    rig.reactor.refusal = OSError(9, "Bad file descriptor")
    rig.reactor.spawned[0].end()
    rig.reactor.advance(FIRST_PAUSE)
    assert "(Bad file descriptor): this process has inherited" in rig.log.events[-1]["error"]


def test_one_that_ends_again_and_again_is_put_off(rig: Rig) -> None:
    rig.serve()
    pauses = []
    for _ in range(9):
        rig.reactor.spawned[-1].end()
        before, count = rig.reactor.seconds(), len(rig.reactor.spawned)
        while len(rig.reactor.spawned) == count:
            rig.reactor.advance(0.25)
        pauses.append(rig.reactor.seconds() - before)
    assert pauses[:3] == [FIRST_PAUSE, 2 * FIRST_PAUSE, 4 * FIRST_PAUSE]
    assert pauses[-1] == LONGEST_PAUSE


def test_where_no_process_can_be_had_it_is_tried_again(rig: Rig) -> None:
    rig.serve()
    rig.reactor.refusal = OSError(11, "Resource temporarily unavailable")
    rig.reactor.spawned[0].end()
    rig.reactor.advance(FIRST_PAUSE)
    assert rig.log.count("worker-died") == 2
    assert (
        "cannot be started (Resource temporarily unavailable): raise the limit of processes"
        in (rig.log.events[-1]["error"])
    )
    rig.reactor.refusal = None
    rig.reactor.advance(2 * FIRST_PAUSE)
    assert len(rig.reactor.spawned) == 3


def pass_time(rig: Rig, seconds: float, alive: Sequence[Spawned]) -> None:
    for _ in range(int(seconds)):
        rig.reactor.advance(1)
        for spawned in alive:
            spawned.say(Alive())


def test_one_that_gives_no_sign_of_life_is_killed(rig: Rig) -> None:
    first, second = rig.serve().reactor.spawned
    pass_time(rig, SILENT, [first])
    assert rig.killed == []
    pass_time(rig, 4, [first])
    assert set(rig.killed) == {second.pid}
    assert rig.log.count("worker-silent") >= 1


def test_one_that_starts_has_some_time_more(rig: Rig) -> None:
    pass_time(rig, STARTING + SILENT, [])
    assert rig.killed == []
    pass_time(rig, 4, [])
    assert rig.killed


def test_where_the_parent_stood_still_nobody_is_killed_for_it(rig: Rig) -> None:
    rig.serve()
    rig.reactor.advance(10 * SILENT)
    assert rig.killed == []


def test_a_question_is_answered_to_who_asked(rig: Rig) -> None:
    first, _ = rig.serve().reactor.spawned
    first.say(Asked(7, "GET", "/api/v1/crls"))
    assert b'"number":7' in first.heard[-1] and b"dG8gMQ==" in first.heard[-1]


def test_a_page_is_waited_for_so_long_and_no_longer(rig: Rig) -> None:
    rig.serve()
    worker = rig.supervisor.workers[0]
    outcome: list[Any] = []
    asked = Deferred.fromCoroutine(worker.ask("/readyz"))
    asked.addBoth(outcome.append)
    rig.reactor.spawned[0].say(Told(1, 200, b"page"))
    assert outcome == [Told(1, 200, b"page")]
    for end in (lambda: rig.reactor.advance(5), rig.reactor.spawned[0].end):
        late = Deferred.fromCoroutine(worker.ask("/readyz"))
        late.addBoth(outcome.append)
        end()
        assert isinstance(outcome.pop(), Failure)


def test_one_that_is_unheard_of_is_ended(rig: Rig) -> None:
    first, _ = rig.serve().reactor.spawned
    first.channel.connectionLost()
    assert rig.killed == []
    rig.reactor.advance(5)
    assert rig.killed == [first.pid]


def test_all_stop_and_who_does_not_is_killed(rig: Rig) -> None:
    first, second = rig.serve().reactor.spawned
    stopping = Deferred.fromCoroutine(rig.supervisor.stop())
    assert first.heard[-1] == b'{"kind":"stop"}'
    rig.supervisor.hurry()
    assert first.heard[-1] == b'{"kind":"stop","at_once":true}'
    first.end(ProcessDone(0))
    rig.reactor.advance(10 + GRACE)
    assert rig.killed == [second.pid]
    assert not stopping.called
    second.end()
    assert stopping.called
    rig.reactor.advance(LONGEST_PAUSE)
    assert len(rig.reactor.spawned) == 2


def test_whole_lines_of_a_log_are_passed_on(rig: Rig) -> None:
    output = rig.reactor.spawned[0].output
    output.outReceived(b"one\ntw")
    output.outReceived(b"o\nthree\n")
    assert rig.lines == ["one\n", "two\nthree\n"]


def test_a_line_without_an_end_is_passed_on_in_pieces_and_at_the_end(rig: Rig) -> None:
    output = rig.serve().reactor.spawned[0].output
    for _ in range(3):
        output.outReceived(b"x" * 500_000)
    assert [len(line) for line in rig.lines] == [1_500_001]
    output.outReceived(b"last")
    rig.reactor.spawned[0].end()
    assert rig.lines[-1] == "last\n"


def test_one_whose_channel_cannot_be_had_is_nobodys(rig: Rig) -> None:
    rig.serve()

    def refuse(*told: Any) -> None:
        raise OSError(24, "Too many open files")

    usual = rig.reactor.adoptStreamConnection
    rig.reactor.adoptStreamConnection = refuse  # type: ignore[method-assign]
    rig.reactor.spawned[0].end()
    rig.reactor.advance(FIRST_PAUSE)
    rig.reactor.adoptStreamConnection = usual  # type: ignore[method-assign]
    rig.reactor.advance(2 * FIRST_PAUSE)
    nobodys, its = rig.reactor.spawned[2:]
    nobodys.end()
    assert rig.supervisor.workers[0].pid == its.pid


def test_what_a_dead_worker_has_asked_is_asked_no_more(rig: Rig) -> None:
    first, _ = rig.serve().reactor.spawned
    cancelled: list[Any] = []
    rig.waiting.addErrback(cancelled.append)
    first.say(Asked(7, "GET", "/api/v1/trust?after=1", wait=45))
    assert len(first.heard) == 1 and not cancelled
    first.end()
    assert len(cancelled) == 1
    assert not rig.supervisor.workers[0]._relaying
