"""The workers of one parent: started together, replaced when they end, and stopped with it."""

import os
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from pki.errors import PkiError
from twisted_mesh.interfaces import IReactor
from twisted_mesh.runtime.tasks import Ticker
from twisted_mesh.workers.messages import SIGN_OF_LIFE, Answered, Asked, Assignment, Reread, Stop
from twisted_mesh.workers.process import FINISHED, Worker, WorkerFailed

#: Seconds without a sign of life until a worker is killed: it takes connections, and serves none.
SILENT = 30.0
#: Seconds until one that had not served for long is replaced: at first, and at most.
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
#: Seconds that a worker has to end, once its time to drain is over.
GRACE = 10.0
#: What is the parent's alone: the service manager speaks to one process, and sockets are handed on one by one.
_NOT_HANDED_ON = (
    *("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"),
    *("LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"),
)


@define(eq=False)
class Supervisor:
    """Has so many workers, whatever becomes of one."""

    reactor: IReactor
    count: int
    sockets: Callable[[], Sequence[socket.socket]]
    """The listening sockets of one more worker; whoever asks closes them. Raises OSError."""
    assignment: Callable[[int, int], Assignment]
    """What a worker of that number, who has so many sockets, is told first."""
    answer: Callable[[int, Asked], Awaitable[Answered]]
    """What the CA says to a worker's question."""
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
            "Worker {worker} (process {pid}) has ended ({how}): {lost}, the others serve on. Another is started {when}",
            event="worker-died",
            worker=worker.number,
            pid=pid,
            how=how,
            lost="it was told to, and has finished"
            if how == FINISHED
            else "its connections are lost",
            pause=pause,
            when=f"in {pause} s" if pause else "at once",
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
