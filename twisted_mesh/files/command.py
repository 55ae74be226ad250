"""A command that is run once there is something to tell, within a time, and with as much of its output as helps.

Everything here blocks and is meant for a thread.
"""

import os
import select
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Self

from attrs import define, field, frozen

from pki.codes import Code
from pki.errors import Malformed, PkiError, discreet, printable

#: Seconds that a command may take.
PATIENCE = 30.0
#: Seconds between asking a command to end and ending it.
_GRACE = 1.0
#: So much of the end of its output is kept, in bytes; the rest is read and forgotten.
_KEPT = 2048
_CHUNK, _AT_ONCE = 65536, 16
#: Seconds between two looks where the kernel does not say that a process has ended.
_LOOK = 0.05


class NotTold(PkiError):
    """Whoever uses the files has not been told that they are new."""

    code = Code.FILES_BEHIND


class Stop:
    """Ends a command that is running, from another thread; once said it stays so."""

    def __init__(self) -> None:
        self.reader, self._writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

    def set(self) -> None:
        """No command goes on, and none begins. May be said again."""
        if self._writer >= 0:
            os.close(self._writer)  # from now on there is something to read: the end
            self._writer = -1

    def close(self) -> None:
        """Give the descriptors back, once nothing runs any more."""
        self.set()
        if self.reader >= 0:
            os.close(self.reader)
            self.reader = -1


@frozen
class Command:
    """A program with its arguments, as a shell would split them; no shell looks at them."""

    words: tuple[str, ...]
    timeout: float = PATIENCE

    @classmethod
    def parse(cls, text: str, timeout: float = PATIENCE, option: str = "--on-update") -> Self:
        """Raises :class:`Malformed`, also where there is no such program."""
        try:
            words = tuple(shlex.split(text))
        except ValueError as error:
            raise Malformed(
                f"{option}: {discreet(text, 200)!r} cannot be split into words ({str(error).lower()})"
            ) from None
        if not words or "\0" in text:
            raise Malformed(f"{option} names no program")
        if shutil.which(words[0]) is None:
            raise Malformed(
                f"{option}: there is no program {discreet(words[0], 200)!r} in PATH that we may run; for what a "
                "shell is to understand write sh -c '…'"
            )
        return cls(words, timeout)

    @property
    def name(self) -> str:
        """For the log: the program; its arguments may be nobody's business."""
        return printable(self.words[0], 200)

    def run(self, facts: Mapping[str, str], stop: Stop) -> None:
        """Run it to its end, with ``facts`` in its environment. Raises :class:`NotTold`.

        It has no input, and a session of its own. Where it takes too long, or ``stop`` is set, it is ended
        together with its process group. What it leaves running when it ends by itself stays.
        """
        try:
            process = subprocess.Popen(  # noqa: S603 - the operator's own
                self.words,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env={**os.environ, **facts},
                start_new_session=True,
            )
        except OSError as error:
            raise NotTold(f"{self.name} could not be run ({error.strerror}): look at it") from None
        running = _Running(process, stop.reader)
        try:
            ended = running.wait(time.monotonic() + self.timeout)
        finally:
            running.close()
        status = process.returncode
        if not ended:
            why = f"took over {self.timeout:g} s" if running.was_late else "was still running"
            raise NotTold(f"{self.name} {why} and was ended{running.said}")
        if status < 0:
            raise NotTold(f"{self.name} was ended by {_signal_name(-status)}{running.said}")
        if status:
            raise NotTold(f"{self.name} ended with status {status}{running.said}")


@define(eq=False)
class _Running:
    """A command's process until it has ended."""

    process: subprocess.Popen[bytes]
    stop: int
    was_late: bool = False
    _tail: bytes = field(default=b"", init=False)
    _count: int = field(default=0, init=False)
    _out: int = field(init=False)
    _ended: int | None = field(init=False)
    """Readable once it has ended."""

    def __attrs_post_init__(self) -> None:
        out = self.process.stdout
        if out is None:
            raise AssertionError("it was started without a pipe")
        self._out = out.fileno()
        os.set_blocking(self._out, False)
        self._ended = None
        if hasattr(os, "pidfd_open"):
            with suppress(OSError):
                self._ended = os.pidfd_open(self.process.pid)

    @property
    def said(self) -> str:
        """The last line that it has printed, for a sentence; empty where it has printed nothing."""
        lines = self._tail.decode("utf-8", "replace").strip().splitlines()
        if not lines:
            return ""
        more = f" (of {self._count} bytes)" if self._count > _KEPT else ""
        return f": {printable(lines[-1].strip(), 400)}{more}"

    def wait(self, deadline: float) -> bool:
        """Whether it has ended by itself before that; else it is ended. It is waited for in any case."""
        poll = select.poll()
        for descriptor in (self._out, self.stop, self._ended):
            if descriptor is not None:
                poll.register(descriptor, select.POLLIN)
        while True:
            if self._has_ended():
                self._read()
                self.process.wait()
                return True
            left = deadline - time.monotonic()
            if left <= 0:
                self.was_late = True
                break
            pause = left if self._ended is not None else min(left, _LOOK)
            ready = {descriptor for descriptor, _ in poll.poll(max(1.0, pause * 1000))}
            if self._out in ready and not self._read():
                poll.unregister(self._out)
            if self.stop in ready and not self._has_ended():
                break
        self._end()
        return False

    def close(self) -> None:
        """Whatever became of it, nothing of it is left here, and it is no zombie."""
        if self.process.returncode is None:
            self._end()
        if self.process.stdout is not None:
            self.process.stdout.close()
        if self._ended is not None:
            os.close(self._ended)

    def _has_ended(self) -> bool:
        """Its number is not given to another process before it has been waited for, which this does not do."""
        found = os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        return found is not None

    def _read(self) -> bool:
        """Read what is there, if it is not without end; whether there may be more later."""
        for _ in range(_AT_ONCE):
            try:
                data = os.read(self._out, _CHUNK)
            except BlockingIOError:
                break
            if not data:
                return False
            self._count += len(data)
            self._tail = (self._tail + data)[-_KEPT:]
        return True

    def _end(self) -> None:
        """Its whole group: asked, then made to. The group has its number until it is waited for."""
        group = self.process.pid
        with suppress(ProcessLookupError):
            os.killpg(group, signal.SIGTERM)
        until = time.monotonic() + _GRACE
        poll = select.poll()
        if self._ended is not None:
            poll.register(self._ended, select.POLLIN)
        while not self._has_ended() and (left := until - time.monotonic()) > 0:
            poll.poll(max(1.0, 1000 * (left if self._ended is not None else min(left, _LOOK))))
        with suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)
        self.process.wait()
        self._read()


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
