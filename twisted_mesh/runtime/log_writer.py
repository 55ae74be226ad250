"""Lines of the log, written on a thread of their own: whoever reads them slowly, or not at all, holds up nobody.

A pipe that is not read fills up, and a disk may hang. Lines wait in memory then, up to a bound; what does not fit
is counted, and the count stands in the log where the lines would have stood.

Whoever logs puts a line down and goes on: no lock, no call of the system. The thread fetches what was put down, the
lines of one or of many turns of the reactor together, so a turn of a thousand lines costs one write.
"""

import errno
import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

from attrs import define, field

#: Bytes that may wait to be written.
MOST = 8 * 1024 * 1024
#: Bytes that are written at once.
_BATCH = 256 * 1024
#: Seconds from the first line of a batch until it is written: what comes meanwhile goes with it. To wake the thread for
#: each line would cost whoever logs more than the line.
_PAUSE = 0.01
#: Lines that may be put down before whoever logs looks whether there is room for them.
_PUT_DOWN = 64
#: Seconds that the end of the process may wait for what is not yet written.
AT_THE_END = 2.0


class Output(Protocol):
    """Where the lines go."""

    def ready(self) -> int:
        """The descriptor to write to."""

    def reopen(self) -> None:
        """Go on in whatever has its name now. Raises :class:`OSError`, and goes on where it was."""


@define
class Descriptor:
    """An open descriptor, as standard output is."""

    number: int

    def ready(self) -> int:
        """It does not change."""
        return self.number

    def reopen(self) -> None:
        """It has no name."""


@define(eq=False, repr=False)
class Lost:
    """Lines that are missing in one place."""

    lines: int
    reason: str
    since: float
    """POSIX time."""


@define(eq=False, repr=False)
class _Reopen:
    """Stands in the queue where the next file begins."""

    told: Callable[[OSError | None], str]


@define(eq=False, repr=False)
class LogWriter:
    """Does what :meth:`write` and :meth:`reopen` ask for, in that order, while whoever asks goes on.

    Nothing is written before :meth:`start` or :meth:`flush`: a daemon forks after its first lines, and a thread does
    not live through that.
    """

    output: Output
    told: Callable[[Lost], str]
    """The line that says what is lost."""
    count: Callable[[int], None] = lambda lines: None
    """Hears how many lines are lost, from any thread."""
    encoding: str = "utf-8"
    most: int = MOST
    _fresh: deque[str] = field(factory=deque, init=False)
    """Lines as they were put down, by any thread; only who holds the lock takes them away."""
    _is_collecting: bool = field(default=False, init=False)
    _is_waiting: bool = field(default=False, init=False)
    """Whether the thread has nothing to do, and is to be woken."""
    _queue: deque[bytes | Lost | _Reopen] = field(factory=deque, init=False)
    _held: int = field(default=0, init=False)
    """Bytes in the queue and in the hand of the thread."""
    _gap: Lost | None = field(default=None, init=False)
    """While there is no room: the last of the queue."""
    _unwritten: Lost | None = field(default=None, init=False)
    """What could not be written, and was not told yet."""
    _torn: bool = field(default=False, init=False)
    """Whether what was written last ends within a line."""
    _busy: bool = field(default=False, init=False)
    _hurries: bool = field(default=False, init=False)
    """Whether somebody waits until all is written."""
    _thread: threading.Thread | None = field(default=None, init=False)
    # Of a lock that the same thread may take again: a signal's handler may log while it is held.
    _changed: threading.Condition = field(factory=threading.Condition, init=False)

    def write(self, text: str) -> None:
        """Lines, each with its end."""
        self._fresh.append(text)
        # In that order: the thread says that it waits, and then looks whether there is something.
        if self._is_waiting or self._gap is not None or len(self._fresh) >= _PUT_DOWN:
            with self._changed:
                self._collect()
                self._wake()

    def _wake(self) -> None:
        if self._is_waiting:
            self._is_waiting = False
            self._changed.notify_all()

    def _collect(self) -> None:
        """Take in what was put down, in its order. Of whoever holds the lock."""
        if self._is_collecting:
            return  # a signal's handler logs, and has interrupted this: what it put down is taken in too
        self._is_collecting = True
        try:
            while self._fresh:
                texts = []
                while self._fresh:
                    texts.append(self._fresh.popleft())
                data = self._encoded("".join(texts))
                if self._has_room(len(data)):
                    self._queue.append(data)
                    self._held += len(data)
                else:
                    for text in texts:
                        self._take(self._encoded(text))
        finally:
            self._is_collecting = False

    def _has_room(self, size: int) -> bool:
        if self._gap is not None and self._held <= self.most // 2:
            self._gap = None
        return self._gap is None and self._held + size <= self.most

    def _take(self, data: bytes) -> None:
        if self._has_room(len(data)):
            self._queue.append(data)
            self._held += len(data)
            return
        if self._gap is None:
            self._gap = Lost(0, "whoever reads the log has not kept up", time.time())
            self._queue.append(self._gap)
        lines = data.count(b"\n")
        self._gap.lines += lines
        self.count(lines)

    def flush(self) -> None:
        """For whoever takes this for a file: it is written soon."""

    def reopen(self, told: Callable[[OSError | None], str]) -> None:
        """From here on it goes to whatever has the file's name; ``told`` makes the line that says how that went."""
        with self._changed:
            self._collect()
            self._queue.append(_Reopen(told))
            self._wake()

    def start(self) -> None:
        """Begin to write, on a thread: no fork may follow. May be said again."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="log", daemon=True)
            self._thread.start()

    def finish(self, seconds: float = AT_THE_END) -> bool:
        """Wait until all is written, and no longer than that; whether it is."""
        deadline = time.monotonic() + seconds
        if self._thread is None:
            return self._finish_here(deadline)
        with self._changed:
            self._collect()
            self._hurries = True
            self._changed.notify_all()
            is_done = self._changed.wait_for(self._is_idle, seconds)
            self._hurries = False
            return is_done

    def _is_idle(self) -> bool:
        return not self._queue and not self._fresh and not self._busy

    def _work(self) -> None:
        while True:
            with self._changed:
                self._busy = False
                self._changed.notify_all()
                self._wait_for_lines()
                self._busy = True
                # What comes meanwhile is written together, and has woken nobody.
                if not self._hurries:
                    self._changed.wait(_PAUSE)
                self._collect()
            self._step(self._put)

    def _wait_for_lines(self) -> None:
        self._collect()
        while not self._queue:
            self._is_waiting = True
            if not self._fresh:
                self._changed.wait()
            self._is_waiting = False
            self._collect()

    def _finish_here(self, deadline: float) -> bool:
        """Without the thread, in pieces that a pipe takes or does not take."""

        def put(data: bytes) -> None:
            descriptor = self.output.ready()
            at = 0
            while at < len(data):
                if not can_write(descriptor, deadline - time.monotonic()):
                    raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
                at += os.write(descriptor, data[at : at + select.PIPE_BUF])

        self._collect()
        while self._queue:
            self._step(put)
            if self._unwritten is not None and time.monotonic() >= deadline:
                return False
        return True

    def _step(self, put: Callable[[bytes], None]) -> None:
        """Take what stands first in the queue, as much as belongs together, and have it written."""
        parts: list[bytes] = []
        size = 0
        with self._changed:
            first = self._queue.popleft()
            if first is self._gap:
                self._gap = None
            while isinstance(first, bytes):
                parts.append(first)
                size += len(first)
                if size >= _BATCH or not self._queue or not isinstance(self._queue[0], bytes):
                    break
                first = self._queue.popleft()
        if isinstance(first, Lost):
            self._attempt(put, self._encoded(self.told(first)))
        elif isinstance(first, _Reopen):
            self._attempt(put, self._encoded(first.told(self._failure_to_reopen())))
        else:
            self._attempt(put, b"".join(parts))
            with self._changed:
                self._held -= size

    def _failure_to_reopen(self) -> OSError | None:
        try:
            self.output.reopen()
        except OSError as error:
            return error
        return None

    def _encoded(self, text: str) -> bytes:
        return text.encode(self.encoding, "backslashreplace")

    def _attempt(self, put: Callable[[bytes], None], data: bytes) -> None:
        if not data:
            return
        whole = data
        if self._unwritten is not None:
            whole = self._encoded(self.told(self._unwritten)) + data
        if self._torn:
            whole = b"\n" + whole
        try:
            put(whole)
        except OSError as error:
            lines = data.count(b"\n")
            self.count(lines)
            if self._unwritten is None:
                self._unwritten = Lost(0, error.strerror or "an error without a name", time.time())
            self._unwritten.lines += lines
        else:
            self._unwritten, self._torn = None, False

    def _put(self, data: bytes) -> None:
        descriptor = self.output.ready()
        rest = memoryview(data)
        try:
            while rest:
                try:
                    rest = rest[os.write(descriptor, rest) :]
                except BlockingIOError:  # a terminal or a pipe that somebody else has made so
                    can_write(descriptor, 1.0)
        except OSError:
            written = len(data) - len(rest)
            self._torn = written > 0 and data[written - 1 : written] != b"\n"
            raise


def can_write(descriptor: int, seconds: float) -> bool:
    """Whether it can be written to within so many seconds."""
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    return bool(poll.poll(max(0.0, seconds) * 1000))
