"""The workers of one parent: started, heard, replaced when they end, and stopped with it.

A worker is a process of its own from its first instruction on, and no copy of the parent: what the parent has in its
memory, its key above all, is not in there.
"""

import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import Factory, ProcessProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from pki.codes import Code
from pki.errors import Malformed, PkiError, printable
from twisted_mesh.interfaces import IReactor
from twisted_mesh.runtime.tasks import Ticker, spawn, within
from twisted_mesh.workers.channel import Channel
from twisted_mesh.workers.messages import (
    CHANNEL,
    MOST_TO_PARENT,
    MOST_TO_WORKER,
    SIGN_OF_LIFE,
    Answered,
    Asked,
    Assignment,
    FromWorker,
    Listening,
    Question,
    Reread,
    Stop,
    Told,
)

#: The module that a worker runs.
MODULE = "twisted_mesh.taps.worker"
#: Seconds without a sign of life until a worker is killed: it takes connections, and serves none.
SILENT = 30.0
#: Seconds that it has besides, until its first: it imports what it needs.
STARTING = 60.0
#: Seconds until one that has ended is replaced: at once, where it had served for a while, else later each time.
FIRST_PAUSE, LONGEST_PAUSE, SETTLED = 0.5, 30.0, 10.0
#: Seconds that a worker has to answer a question of ours, and to end once its time to drain is over.
PATIENCE, GRACE = 2.0, 10.0
_LONGEST_LINE = 4000
#: What is the parent's alone: the service manager speaks to one process, and sockets are handed on one by one.
_NOT_HANDED_ON = (
    *("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"),
    *("LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"),
)


class WorkerFailed(PkiError):
    """A worker has ended before it served."""

    code = Code.START


@define(eq=False)
class Worker:
    """One place for a worker, and the process that has it now."""

    number: int
    supervisor: "Supervisor"
    pid: int = field(default=0, init=False)
    """0 while there is none."""
    is_listening: bool = field(default=False, init=False)
    restarts: int = field(default=0, init=False)
    failures: int = field(default=0, init=False)
    """Lives in a row that ended before they had settled."""
    since: float = field(default=0.0, init=False)
    """By the reactor's clock, when the process was started."""
    heard_at: float = field(default=0.0, init=False)
    sentence: str = field(default="", init=False)
    """What it last said on its standard error."""
    channel: Channel[FromWorker] = field(init=False)
    _timer: IDelayedCall | None = field(default=None, init=False)
    _gone: "list[Deferred[None]]" = field(factory=list, init=False)
    _questions: "dict[int, Deferred[Told]]" = field(factory=dict, init=False)
    _asked: int = field(default=0, init=False)

    def start(self) -> None:
        """Start a process for it. Raises :class:`PkiError` where there can be none."""
        owner = self.supervisor
        handed: list[socket.socket] = []
        try:
            handed += socket.socketpair()
            ours, theirs = handed
            sockets = owner.sockets()
            handed += sockets
            # Nothing is ever written to its standard input.
            inherited: dict[int, Any] = {0: "w", 1: "r", 2: "r", CHANNEL: theirs.fileno()}
            for at, listening in enumerate(sockets, CHANNEL + 1):
                inherited[at] = listening.fileno()
            assignment = owner.assignment(self.number, len(sockets))
            # The last two are for whoever looks at the list of processes.
            told = [assignment.program, str(self.number)]
            command = [sys.executable, "-P", "-m", MODULE, *told]
            reactor: Any = owner.reactor
            process = reactor.spawnProcess(
                _Output(self),
                command[0],
                command,
                owner.environ,
                owner.directory,
                childFDs=inherited,
            )
            self.pid = pid = process.pid
            self.channel = Channel(
                FromWorker,
                MOST_TO_PARENT,
                MOST_TO_WORKER,
                self._hear,
                lambda: self._unheard(pid),
                owner.log,
            )
            _connect(owner.reactor, ours, self.channel)
            self.channel.say(assignment)
        except OSError as error:
            raise WorkerFailed(
                f"worker {self.number} cannot be started ({error.strerror})"
            ) from None
        finally:
            for one in handed:
                one.close()
        self.since = owner.reactor.seconds()
        self.heard_at = self.since + STARTING
        self.is_listening, self.sentence = False, ""

    def kill(self) -> None:
        """End the process at once, if there is one."""
        if self.pid:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    async def gone(self) -> None:
        """Return once there is no process."""
        if self.pid:
            waiting: Deferred[None] = Deferred()
            self._gone.append(waiting)
            await waiting

    async def ask(self, path: str) -> Told:
        """A page of it. Raises :class:`twisted.internet.error.TimeoutError` and :class:`WorkerFailed`."""
        self._asked = number = self._asked + 1
        waiting: Deferred[Told] = Deferred()
        self._questions[number] = waiting
        try:
            self.channel.say(Question(number, path))
            return await within(self.supervisor.reactor, PATIENCE, waiting)
        finally:
            self._questions.pop(number, None)

    def _hear(self, message: FromWorker) -> None:
        self.heard_at = self.supervisor.reactor.seconds()
        if isinstance(message, Asked):
            _ = spawn(
                self._relay(message, self.channel), "asking for a worker", self.supervisor.log
            )
        elif isinstance(message, Told):
            waiting = self._questions.pop(message.number, None)
            if waiting is not None and not waiting.called:
                waiting.callback(message)
        elif isinstance(message, Listening):
            self.is_listening = True
            self.supervisor.listens(self)

    async def _relay(self, asked: Asked, channel: Channel[FromWorker]) -> None:
        answer = await self.supervisor.answer(self.number, asked)
        # The one that asked; its place may be another's by now.
        try:
            channel.say(answer)
        except Malformed as error:
            channel.say(Answered(asked.number, 0, problems=[*error.problems]))

    def _unheard(self, pid: int) -> None:
        """The channel is closed: it ends now, or is made to, since it must not go on without a parent."""

        def end() -> None:
            if self.pid == pid:
                self.kill()

        if self.pid == pid:
            self.supervisor.reactor.callLater(PATIENCE, end)

    def say(self, line: str) -> None:
        """What it says on its standard error, where its log is not."""
        self.sentence = printable(line, _LONGEST_LINE)
        self.supervisor.log.warn(
            "Worker {worker} says: {line}",
            event="worker-said",
            worker=self.number,
            line=self.sentence,
        )

    def ended(self, failure: Failure) -> None:
        """Its process is gone."""
        died, self.pid = self.pid, 0
        lived = self.supervisor.reactor.seconds() - self.since
        was_listening, self.is_listening = self.is_listening, False
        self.channel.close()
        questions, self._questions = self._questions, {}
        for question in questions.values():
            if not question.called:
                question.errback(WorkerFailed(f"worker {self.number} has ended"))
        gone, self._gone = self._gone, []
        for waiting in gone:
            waiting.callback(None)
        settled = was_listening and lived >= SETTLED
        self.failures = 0 if settled else self.failures + 1
        self.supervisor.ended(self, died, _how(failure.value))

    def again(self, pause: float) -> None:
        """Start another process for it after so many seconds."""
        self._timer = self.supervisor.reactor.callLater(pause, self._again)

    def _again(self) -> None:
        self._timer = None
        self.restarts += 1
        try:
            self.start()
        except PkiError as error:
            self.failures += 1
            self.supervisor.not_started(self, error)

    def give_up(self) -> None:
        """Start none any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


@define(eq=False)
class Supervisor:
    """Has so many workers, whatever becomes of one."""

    reactor: IReactor
    count: int
    sockets: Callable[[], Sequence[socket.socket]]
    """The listening sockets of one more worker; whoever asks closes them. Raises OSError."""
    assignment: Callable[[int, int], Assignment]
    """What a worker of that number, who has so many sockets, is told first."""
    answer: "Callable[[int, Asked], Any]"
    """Awaited: what the CA says to a worker's question."""
    pass_on: Callable[[str], object]
    """Lines of a worker's log, each with its end."""
    drain: float
    """Seconds that a worker has to finish what is under way."""
    log: Logger
    directory: str | None = None
    """Where workers are started; None for where the parent is."""
    workers: Sequence[Worker] = field(init=False)
    is_stopping: bool = field(default=False, init=False)
    environ: Mapping[str, str] = field(init=False)
    _serving: "Deferred[None]" = field(factory=Deferred, init=False)
    _looks: Ticker = field(init=False)
    _looked_at: float = field(default=0.0, init=False)

    def __attrs_post_init__(self) -> None:
        self.workers = [Worker(number, self) for number in range(1, self.count + 1)]
        self.environ = {
            name: value for name, value in os.environ.items() if name not in _NOT_HANDED_ON
        }
        self._looks = Ticker(self.reactor, SIGN_OF_LIFE, self.look, "the workers", self.log)

    async def start(self) -> None:
        """Start all; returns once each has listened. Raises :class:`WorkerFailed` where one ends before that."""
        self._looked_at = self.reactor.seconds()
        for worker in self.workers:
            worker.start()
        self._looks.start(now=False)
        await self._serving

    def listens(self, worker: Worker) -> None:
        """It takes connections."""
        if worker.restarts:
            self.log.info(
                "Worker {worker} serves again, as process {pid}",
                event="worker-back",
                worker=worker.number,
                pid=worker.pid,
            )
        if not self._serving.called and all(one.is_listening for one in self.workers):
            self._serving.callback(None)

    def ended(self, worker: Worker, pid: int, how: str) -> None:
        """Its process is gone: replace it, or give up where none has ever served."""
        if self.is_stopping:
            return
        if not self._serving.called:
            why = worker.sentence.partition(": ")[2] or how
            self._serving.errback(WorkerFailed(f"worker {worker.number} did not start: {why}"))
            return
        pause = self._pause(worker)
        self.log.error(
            "Worker {worker} (process {pid}) has ended ({how}): its connections are lost, the others serve on. Another "
            "is started in {pause} s",
            event="worker-died",
            worker=worker.number,
            pid=pid,
            how=how,
            pause=pause,
        )
        worker.again(pause)

    def not_started(self, worker: Worker, error: PkiError) -> None:
        """There was no process to be had."""
        pause = self._pause(worker)
        self.log.error(
            "{error}: it is tried again in {pause} s",
            event="worker-died",
            worker=worker.number,
            error=str(error),
            pause=pause,
        )
        worker.again(pause)

    @staticmethod
    def _pause(worker: Worker) -> float:
        if not worker.failures:
            return 0.0
        return min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(worker.failures - 1, 16))

    def look(self) -> None:
        """Kill whoever gives no sign of life: connections wait for it in vain."""
        now, before = self.reactor.seconds(), self._looked_at
        self._looked_at = now
        if now - before > SILENT / 2:
            return  # it was this process that stood still: what they have said meanwhile is still to be read
        for worker in self.workers:
            if worker.pid and now - worker.heard_at > SILENT:
                self.log.error(
                    "Worker {worker} (process {pid}) has given no sign of life for {seconds} s: it is killed",
                    event="worker-silent",
                    worker=worker.number,
                    pid=worker.pid,
                    seconds=int(now - worker.heard_at),
                )
                worker.kill()

    def reread(self, texts: Mapping[str, bytes], level: str) -> None:
        """Have all take up what was read again."""
        for worker in self.workers:
            if worker.pid:
                worker.channel.say(Reread(dict(texts), level))

    def hurry(self) -> None:
        """Have all cut what is under way."""
        for worker in self.workers:
            if worker.pid:
                worker.channel.say(Stop(at_once=True))

    async def stop(self) -> None:
        """Have all stop gracefully; who takes longer than it may is killed. Returns once none is left."""
        self.is_stopping = True
        self._looks.stop()
        for worker in self.workers:
            worker.give_up()
            if worker.pid:
                worker.channel.say(Stop())
        late = self.reactor.callLater(self.drain + GRACE, self._kill)
        for worker in self.workers:
            await worker.gone()
        if late.active():
            late.cancel()

    def _kill(self) -> None:
        for worker in self.workers:
            if worker.pid:
                self.log.error(
                    "Worker {worker} (process {pid}) does not end: it is killed",
                    event="worker-silent",
                    worker=worker.number,
                    pid=worker.pid,
                )
                worker.kill()


@define(eq=False, slots=False)
class _Output(ProcessProtocol):
    """What a worker writes: its log, and what Python says when all else fails."""

    worker: Worker
    _log: bytes = field(default=b"", init=False)
    _errors: bytes = field(default=b"", init=False)

    def outReceived(self, data: bytes) -> None:
        """Whole lines of its log are ours."""
        lines, _, self._log = (self._log + data).rpartition(b"\n")
        if lines:
            self.worker.supervisor.pass_on(lines.decode("utf-8", "backslashreplace") + "\n")

    def errReceived(self, data: bytes) -> None:
        """See :meth:`Worker.say`."""
        *lines, rest = (self._errors + data).split(b"\n")
        self._errors = rest[-_LONGEST_LINE:]
        for line in filter(None, lines):
            self.worker.say(line.decode("utf-8", "backslashreplace"))

    def processEnded(self, reason: Failure) -> None:
        """It is gone, and has said all."""
        if self._errors:
            self.errReceived(b"\n")
        self.worker.ended(reason)


def _connect(reactor: Any, ours: socket.socket, channel: Channel[FromWorker]) -> None:
    """Have ``channel`` speak on a copy of that socket."""
    ours.setblocking(False)
    reactor.adoptStreamConnection(
        ours.fileno(), socket.AF_UNIX, Factory.forProtocol(lambda: channel)
    )


def _how(ended: BaseException | None) -> str:
    number, status = getattr(ended, "signal", None), getattr(ended, "exitCode", None)
    if number is not None:
        return f"by {signal.Signals(number).name}"
    return f"with status {status}"
