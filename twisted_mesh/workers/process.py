"""One worker of a service: a process that is started, heard, asked and ended.

It is a process of its own from its first instruction on, and no copy of the parent: what the parent has in its
memory, its key above all, is not in there.
"""

import errno
import os
import signal
import socket
import sys
from collections.abc import Awaitable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Protocol, cast

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import Factory, ProcessProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from pki.codes import Code
from pki.errors import Malformed, PkiError, printable
from twisted_mesh import __file__ as _package
from twisted_mesh.interfaces import IReactor
from twisted_mesh.runtime.tasks import spawn, within
from twisted_mesh.workers.channel import Channel
from twisted_mesh.workers.messages import (
    CHANNEL,
    MOST_TO_PARENT,
    MOST_TO_WORKER,
    Answered,
    Asked,
    Assignment,
    FromWorker,
    Listening,
    Question,
    Told,
)

#: What a worker runs: nothing of the current directory, and our packages from where the parent has them.
_PROGRAM = (
    f"import sys; sys.path.append({os.path.dirname(os.path.dirname(_package))!r}); "
    "from twisted_mesh.taps.worker import main; sys.exit(main())"
)
#: Seconds that a worker has until its first sign of life, besides those between two: it imports what it needs.
STARTING = 60.0
#: Seconds that it must have served for to be replaced at once when it ends.
SETTLED = 10.0
#: Seconds that it has to answer a question of ours, and to end once it is not heard any more.
PATIENCE = 2.0
_NOT_RUN = f": this user must be able to run {printable(sys.executable, 300)}"
_CURES = {
    errno.EBADF: (
        ": this process has inherited a descriptor whose number is above its own limit: raise that (ulimit -n, or "
        "LimitNOFILE=)"
    ),
    errno.EACCES: _NOT_RUN,
    errno.ENOENT: _NOT_RUN,
    errno.EMFILE: ": raise the limit of descriptors (ulimit -n, or LimitNOFILE=)",
    errno.EAGAIN: ": raise the limit of processes (ulimit -u, or TasksMax=)",
}
#: How one ends that was told to.
FINISHED = "with status 0"
_LONGEST_LINE = 4000
#: Bytes that wait for the end of their line.
_LONGEST_TEAR = 1024 * 1024


class WorkerFailed(PkiError):
    """A worker has ended before it served."""

    code = Code.START


class IOwner(Protocol):
    """Whose worker it is."""

    reactor: IReactor
    log: Logger
    environ: Mapping[str, str]
    directory: str | None

    def sockets(self) -> Sequence[socket.socket]:
        """The listening sockets of one more worker; whoever asks closes them. Raises :class:`OSError`."""

    def assignment(self, number: int, sockets: int, /) -> Assignment:
        """What a worker of that number, who has so many sockets, is told first."""

    def answer(self, number: int, asked: Asked, /) -> Awaitable[Answered]:
        """What the CA says to its question."""

    def pass_on(self, lines: str, /) -> object:
        """Lines of its log, each with its end."""

    def listens(self, worker: "Worker") -> None:
        """It takes connections."""

    def ended(self, worker: "Worker", pid: int, how: str) -> None:
        """Its process is gone."""

    def not_started(self, worker: "Worker", error: PkiError) -> None:
        """There was no process to be had."""


@define(eq=False)
class Worker:
    """One place for a worker, and the process that has it now."""

    number: int
    owner: IOwner
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
    _output: "_Output | None" = field(default=None, init=False)
    _timer: IDelayedCall | None = field(default=None, init=False)
    _gone: "list[Deferred[None]]" = field(factory=list, init=False)
    _questions: "dict[int, Deferred[Told]]" = field(factory=dict, init=False)
    _asked: int = field(default=0, init=False)
    _relaying: "set[Deferred[None]]" = field(factory=set, init=False)
    """Its questions to the CA that are open."""

    def start(self) -> None:
        """Start a process for it. Raises :class:`PkiError` where there can be none."""
        self.is_listening, self.sentence = False, ""
        handed: list[socket.socket] = []
        try:
            handed += socket.socketpair()
            handed += self.owner.sockets()
            self._spawn(*handed)
        except OSError as error:
            # One that runs already loses its channel by this, and ends: it is nobody's.
            self.pid, self._output = 0, None
            cure = _CURES.get(error.errno or 0, "")
            raise WorkerFailed(
                f"worker {self.number} cannot be started ({error.strerror}){cure}"
            ) from None
        finally:
            for one in handed:
                one.close()
        self.since = self.owner.reactor.seconds()
        self.heard_at = self.since + STARTING

    def _spawn(self, ours: socket.socket, *inherited: socket.socket) -> None:
        """Start the process, with the other end of the channel first of what it inherits. Raises :class:`OSError`."""
        owner, reactor = self.owner, cast(Any, self.owner.reactor)
        assignment = owner.assignment(self.number, len(inherited) - 1)
        # The last two are for whoever looks at the list of processes.
        told = [assignment.program, str(self.number)]
        command = [sys.executable, "-P", "-c", _PROGRAM, *told]
        # Nothing is ever written to its standard input.
        descriptors: dict[int, Any] = {0: "w", 1: "r", 2: "r"}
        descriptors |= {at: one.fileno() for at, one in enumerate(inherited, CHANNEL)}
        self._output = output = _Output(self)
        process = reactor.spawnProcess(
            output, command[0], command, owner.environ, owner.directory, childFDs=descriptors
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
        _connect(reactor, ours, self.channel)
        self.channel.say(assignment)

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
            return await within(self.owner.reactor, PATIENCE, waiting)
        finally:
            self._questions.pop(number, None)

    def _hear(self, message: FromWorker) -> None:
        self.heard_at = self.owner.reactor.seconds()
        if isinstance(message, Asked):
            relaying = spawn(
                self._relay(message, self.channel), "asking for a worker", self.owner.log
            )
            self._relaying.add(relaying)
            _ = relaying.addBoth(lambda _: self._relaying.discard(relaying))
        elif isinstance(message, Told):
            waiting = self._questions.pop(message.number, None)
            if waiting is not None and not waiting.called:
                waiting.callback(message)
        elif isinstance(message, Listening):
            self.is_listening = True
            self.owner.listens(self)

    async def _relay(self, asked: Asked, channel: Channel[FromWorker]) -> None:
        answer = await self.owner.answer(self.number, asked)
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
            self.owner.reactor.callLater(PATIENCE, end)

    def say(self, line: str) -> None:
        """What it says on its standard error, where its log is not."""
        self.sentence = printable(line, _LONGEST_LINE)
        self.owner.log.warn(
            "Worker {worker} says: {line}",
            event="worker-said",
            worker=self.number,
            line=self.sentence,
        )

    def ended(self, output: "_Output", failure: Failure) -> None:
        """Its process is gone."""
        if output is not self._output:
            return
        died, self.pid = self.pid, 0
        lived = self.owner.reactor.seconds() - self.since
        was_listening, self.is_listening = self.is_listening, False
        self.channel.close()
        relaying, self._relaying = self._relaying, set()
        for one in relaying:
            one.cancel()  # nobody waits for that answer any more
        questions, self._questions = self._questions, {}
        for question in questions.values():
            if not question.called:
                question.errback(WorkerFailed(f"worker {self.number} has ended"))
        gone, self._gone = self._gone, []
        for waiting in gone:
            waiting.callback(None)
        settled = was_listening and lived >= SETTLED
        self.failures = 0 if settled else self.failures + 1
        self.owner.ended(self, died, _how(failure.value))

    def again(self, pause: float) -> None:
        """Start another process for it after so many seconds."""
        self._timer = self.owner.reactor.callLater(pause, self._again)

    def _again(self) -> None:
        self._timer = None
        self.restarts += 1
        try:
            self.start()
        except PkiError as error:
            self.failures += 1
            self.owner.not_started(self, error)

    def give_up(self) -> None:
        """Start none any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


@define(eq=False, slots=False)
class _Output(ProcessProtocol):
    """What a worker writes: its log, and what Python says when all else fails."""

    worker: Worker
    _log: bytes = field(default=b"", init=False)
    _errors: bytes = field(default=b"", init=False)

    def outReceived(self, data: bytes) -> None:
        """Whole lines of its log are ours."""
        lines, _, self._log = (self._log + data).rpartition(b"\n")
        if len(self._log) > _LONGEST_TEAR:
            lines, self._log = b"\n".join(filter(None, (lines, self._log))), b""
        if lines:
            self.worker.owner.pass_on(lines.decode("utf-8", "backslashreplace") + "\n")

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
        if self._log:
            self.outReceived(b"\n")
        self.worker.ended(self, reason)


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
