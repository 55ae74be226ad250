"""What a program remembers in files, and what becomes of it where a file cannot be written.

A program goes on without most of what it remembers, until it is restarted; then it knows less than it
should. So a write that fails is a warning at once, a number in ``/metrics`` and a line in
``/readyz``, and is tried again until it succeeds.
"""

import errno
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from os import strerror
from pathlib import Path
from typing import Any

from attrs import define, field
from twisted.application.service import Service
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from pki.codes import Code
from pki.errors import Problem
from twisted_mesh.runtime.log import logger
from twisted_mesh.runtime.meters import MEMORY_FAILURES, Reading
from twisted_mesh.runtime.tasks import Ticker
from twisted_mesh.state.directory import StateError

_log = logger("state")
#: Seconds until what could not be written is tried again.
AGAIN = 2.0
_CURES = {
    errno.ENOSPC: "free some space there",
    errno.EDQUOT: "free some space there, or raise the user's quota",
    errno.EROFS: "mount it so that it can be written",
    errno.EACCES: "give it to the user that this runs as (chown), with leave to write (chmod u+w)",
    errno.EPERM: "give it to the user that this runs as (chown), with leave to write (chmod u+w)",
    errno.ENOENT: "make its directory again",
    errno.EEXIST: "move what is there out of the way: a directory is needed",
    errno.ENOTDIR: "move what is there out of the way: a directory is needed",
}
_CURE = "look at that file and at its directory"


@define(eq=False, repr=False)
class Memory:
    """One file, or one directory of files, that something is remembered in."""

    name: str
    """In metrics and in /readyz."""
    path: Path | None
    """None keeps it in the process only, and is never a failure."""
    loss: str
    """A sentence for the log: what it means that it cannot be written."""
    event: str
    """The log's name for that."""
    again: Callable[[], object] = lambda: None
    """Tries once more. Raises nothing that is expected."""
    is_needed: bool = False
    """Whether the program is not ready without it."""
    log: Logger = _log
    problem: Problem | None = field(default=None, init=False)
    """Why it is not written; None while it is."""
    _is_attended: bool = field(default=False, init=False)
    """Whether somebody tries again."""

    def __attrs_post_init__(self) -> None:
        MEMORY_FAILURES.labels(self.name)

    def attend(self) -> None:
        """Somebody will try again what cannot be written."""
        self._is_attended = True

    @contextmanager
    def writing(self, loss: str = "") -> Iterator[None]:
        """Go on after the block, whether or not the files can be written in it; ``loss`` as :attr:`loss`."""
        try:
            with self.watched(loss):
                yield
        except (OSError, StateError):
            pass

    @contextmanager
    def watched(self, loss: str = "") -> Iterator[None]:
        """Take note of how the block's writing ends, and raise what it raises."""
        try:
            yield
        except (OSError, StateError) as error:
            self._failed(error, loss or self.loss)
            raise
        self._kept()

    def _failed(self, error: OSError | StateError, loss: str) -> None:
        MEMORY_FAILURES.labels(self.name).inc()
        told = self.problem is not None and self.problem.detail
        self.problem = problem = _problem_of(error, self.path)
        again = ". It is tried again by itself" if self._is_attended else ""
        if told != problem.detail:
            self.log.warn(
                "{loss}: {error}",
                event=self.event,
                loss=loss,
                error=": ".join(filter(None, (problem.detail, problem.remedy))) + again,
                memory=self.name,
                path=str(self.path),
            )

    def _kept(self) -> None:
        if self.problem is not None:
            self.problem = None
            self.log.info(
                "{path} can be written again, and is up to date",
                event="memory-kept-again",
                memory=self.name,
                path=str(self.path),
            )


@define(eq=False, repr=False, slots=False)
class Memories(Service):
    """All that one program remembers. While it runs, what could not be written is tried again."""

    clock: IReactorTime
    memories: Sequence[Memory]
    _ticker: Ticker = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._ticker = Ticker(self.clock, AGAIN, self.retry, "keeping what is remembered", _log)
        for memory in self.memories:
            memory.attend()

    def startService(self) -> None:
        """Try again from now on."""
        super().startService()
        self._ticker.start(now=False)

    def stopService(self) -> None:
        """Try no more."""
        super().stopService()
        self._ticker.stop()

    def retry(self) -> None:
        """Try each once more that could not be written."""
        for memory in self.unwritten:
            memory.again()

    @property
    def unwritten(self) -> list[Memory]:
        """Those whose last write has failed."""
        return [memory for memory in self.memories if memory.problem is not None]


def cure_of(number: int) -> str:
    """What to do where a file cannot be written, by the kernel's number for why."""
    return _CURES.get(number, _CURE)


def unwritten(memories: Sequence[Memory]) -> dict[str, float]:
    """By name: 1 for each whose last write has failed, else 0."""
    return {memory.name: float(memory.problem is not None) for memory in memories}


def reading_of(memories: Sequence[Memory]) -> Reading[Any]:
    """What Prometheus reads of them."""
    return Reading(
        "mesh_memory_unwritten",
        "1 while what is remembered in a file could not be written the last time.",
        lambda _: unwritten(memories),
        "memory",
    )


def _problem_of(error: OSError | StateError, path: Path | None) -> Problem:
    if isinstance(error, StateError):
        found = error.problems[0]
        return Problem(Code.UNHEALTHY_MEMORIES, found.detail, found.remedy)
    number = error.errno or 0
    reason = error.strerror or strerror(number)
    return Problem(
        Code.UNHEALTHY_MEMORIES,
        f"{error.filename or path} cannot be written ({reason})",
        cure_of(number),
    )
