"""Threads that wait for a token, a session each, so that the reactor does not.

The binding lets go of the interpreter while a module works: a slow one holds up its own thread alone. What hangs in a
module cannot be called back. Whoever waits is told so in time, the thread is counted out until it returns, and once
all of them hang nobody waits any more.
"""

import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

from attrs import define, field
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IDelayedCall
from twisted.python.failure import Failure

from pki.errors import ANY_ERROR
from twisted_mesh.interfaces import IReactor
from twisted_mesh.keystores.errors import KeyStoreAway
from twisted_mesh.pkcs11.access import Access, NoSession, Seat, Work
from twisted_mesh.runtime.log import logger

T = TypeVar("T")
_log = logger("keys")

#: Threads, and so sessions, where the URI does not say how many.
SESSIONS = 4
#: What may wait for a thread: more is turned away at once.
_MOST_WAITING = 1024
#: Seconds that the end waits for what is in progress.
_AT_THE_END = 2.0


@define(eq=False, repr=False)
class _Job(Generic[T]):
    work: Work[T]
    at_once: bool
    done: "Deferred[T]" = field(factory=Deferred)
    has_begun: bool = False
    is_given_up: bool = False
    clock: IDelayedCall | None = None


@define(eq=False, repr=False)
class SessionPool:
    """So many threads, from :meth:`start` to :meth:`stop`."""

    access: Access
    reactor: IReactor
    size: int = SESSIONS
    _jobs: "SimpleQueue[_Job[Any] | None]" = field(factory=SimpleQueue, init=False)
    _threads: int = field(default=0, init=False)
    _waiting: set[_Job[Any]] = field(factory=set, init=False)
    _hanging: set[_Job[Any]] = field(factory=set, init=False)
    """Given up by who has asked, and still in progress."""
    _ended: "list[Deferred[None]]" = field(factory=list, init=False)
    _is_open: bool = field(default=False, init=False)

    def start(self) -> None:
        """Begin the threads. Nothing is opened until there is something to do."""
        self._is_open = True
        self._jobs = SimpleQueue()
        self._hanging.clear()
        self._threads = 0
        for number in range(self.size):
            ended: Deferred[None] = Deferred()
            self._ended.append(ended)
            self._threads += 1
            threading.Thread(
                target=self._serve, args=(self._jobs, ended), name=f"token-{number}", daemon=True
            ).start()

    def run(
        self, work: Work[T], seconds: float, what: str, *, at_once: bool = False
    ) -> "Deferred[T]":
        """What ``work`` gives on a thread. Fails by :class:`KeyStoreAway` after so many seconds, waiting included."""
        if not self._is_open:
            return _failed("the key's token is not open: this program is about to end, or begins")
        if len(self._hanging) >= self._threads:
            return _failed(
                f"the key's token does not answer: {len(self._hanging)} calls hang in its module; see whether it works"
            )
        if len(self._waiting) >= _MOST_WAITING:
            return _failed(
                f"{len(self._waiting)} others wait for the key's token: it signs slower than is asked of it"
            )
        job = _Job(work, at_once)
        job.clock = self.reactor.callLater(seconds, self._give_up, job, what, seconds)
        self._waiting.add(job)
        self._jobs.put(job)
        return job.done

    @property
    def threads(self) -> int:
        """How many there are: a token may have fewer sessions than were asked for."""
        return self._threads

    @property
    def hanging(self) -> int:
        """How many of them are in calls that nobody waits for any more."""
        return len(self._hanging)

    async def stop(self) -> None:
        """End the threads; those that hang are left behind."""
        if not self._is_open:
            return
        self._is_open = False
        for _ in range(self.size):
            self._jobs.put(None)
        for job in list(self._waiting):
            self._give_up(job, "", 0.0)
        all_ended = DeferredList(self._ended, consumeErrors=True)
        _ = all_ended.addTimeout(_AT_THE_END, self.reactor)
        try:
            await all_ended
        except ANY_ERROR:
            _log.warn(
                "{count} calls hang in the PKCS #11 module {module}: they are left behind",
                event="token-hangs",
                count=len(self._hanging),
                module=self.access.module.path,
            )
        self._ended.clear()

    # On the reactor.

    def _give_up(self, job: _Job[Any], what: str, seconds: float) -> None:
        self._waiting.discard(job)
        job.is_given_up = True
        if job.clock is not None and job.clock.active():
            job.clock.cancel()
        if job.has_begun:
            self._hanging.add(job)
            words = f"has not answered within {seconds:g} s"
        else:
            words = f"was busy with others for {seconds:g} s"
        if not what:
            words = "is being closed"
        job.done.errback(
            Failure(
                KeyStoreAway(
                    f"the key's token {words}{f' ({what})' * bool(what)}: see whether it works, and how fast it is"
                )
            )
        )

    def _end(self, job: _Job[Any], outcome: Any) -> None:
        self._hanging.discard(job)
        if job.is_given_up:
            return
        self._waiting.discard(job)
        if job.clock is not None:
            job.clock.cancel()
        job.done.callback(outcome)

    def _thread_ended(self, ended: "Deferred[None]") -> None:
        self._threads -= 1
        if not ended.called:
            ended.callback(None)

    def _shrunk(self) -> None:
        _log.warn(
            "The token has no more sessions than {count}: as many signatures are made at a time",
            event="token-sessions",
            count=self._threads - 1,
        )

    # On the threads.

    def _serve(self, jobs: "SimpleQueue[_Job[Any] | None]", ended: "Deferred[None]") -> None:
        seat = Seat()
        while (job := jobs.get()) is not None:
            if job.is_given_up:
                continue
            job.has_begun = True
            try:
                outcome: Any = self.access.perform(seat, job.work, at_once=job.at_once)
            except NoSession:
                job.has_begun = False
                jobs.put(job)
                self._call(self._shrunk)
                break
            except ANY_ERROR:
                outcome = Failure()
            self._call(self._end, job, outcome)
        try:
            self.access.close(seat)
        except ANY_ERROR:
            seat.drop()
        self._call(self._thread_ended, ended)

    def _call(self, function: Callable[..., None], *arguments: Any) -> None:
        self.reactor.callFromThread(function, *arguments)


def _failed(words: str) -> "Deferred[Any]":
    failed: Deferred[Any] = Deferred()
    failed.errback(Failure(KeyStoreAway(words)))
    return failed
