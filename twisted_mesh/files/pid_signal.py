"""``--on-update-signal``: the process whose number a file has is told that files are new, and never another.

A PID file outlives its process, and numbers are given again. So the process is held by a descriptor that
stands for it alone (pidfd_open(2)) while it is looked at, and must have been there when the file was written.
"""

import os
import re
import select
import signal
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

from attrs import field, frozen

from pki.errors import Malformed, discreet, printable
from twisted_mesh.files.command import NotTold
from twisted_mesh.state.reading import named, why_not
from twisted_mesh.state.way import open_with_links

_WORD = re.compile(r"(?:SIG)?([A-Z0-9]+):(.+)", re.DOTALL)
_NEVER = ("KILL", "STOP")
_PID = re.compile(rb"[1-9][0-9]{0,9}", re.ASCII)
#: In /proc/PID/status: the real and the effective user. The owner of /proc/PID may be root for another reason.
_UID = re.compile(rb"^Uid:\s+(\d+)\s+(\d+)", re.MULTILINE)
#: A first line, and what PostgreSQL writes below it.
_LARGEST = 4096
#: A process may have been started so many seconds after the file was written, as far as clocks tell: the kernel
#: counts in hundredths, and some services write the file as they fork.
_SLACK = 1.0
_START_TIME, _STATE = 19, 0
"""Of the words after the name in /proc/PID/stat (proc_pid_stat(5))."""


def _boot_time() -> float:
    """What the wall clock would have said when the machine was started."""
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)


@frozen
class PidFileSignal:
    """A signal, and the file that says to whom."""

    number: signal.Signals
    path: Path
    boot_time: Callable[[], float] = field(default=_boot_time, eq=False)

    @classmethod
    def parse(cls, text: str) -> Self:
        """``HUP:/run/nginx.pid``. Raises :class:`Malformed`."""
        found = _WORD.fullmatch(text)
        if found is None:
            raise Malformed(
                f"--on-update-signal {discreet(text, 200)!r} is no SIGNAL:PIDFILE, like HUP:/run/nginx.pid"
            )
        word, path = found.groups()
        number = getattr(signal.Signals, f"SIG{word}", None)
        if number is None or word in _NEVER:
            raise Malformed(
                f"--on-update-signal: {discreet(word, 20)} is no signal that a service can heed: HUP, USR1, USR2, …"
            )
        if not hasattr(signal, "pidfd_send_signal"):
            raise Malformed(
                "--on-update-signal needs Linux, whose kernel can hold on to one process: use --on-update"
            )
        return cls(number, Path(path))

    def send(self) -> str:
        """Tell the process; who that was, for the log. Raises :class:`NotTold`."""
        pid, written, owners = self._read()
        try:
            process = os.pidfd_open(pid)
        except OSError:
            raise NotTold(f"{self._who(pid)} is not running: start its service") from None
        try:
            program = self._look_at(pid, written, owners)
            # Only if it has not ended by now was all that its own.
            poll = select.poll()
            poll.register(process, select.POLLIN)
            if poll.poll(0):
                raise NotTold(f"{self._who(pid)} has ended: start its service")
            signal.pidfd_send_signal(process, self.number)
        except ProcessLookupError:
            raise NotTold(f"{self._who(pid)} has ended: start its service") from None
        except PermissionError:
            raise NotTold(
                f"{self._who(pid)} may not be signalled by us: run mesh-agent as its user, or as root"
            ) from None
        finally:
            os.close(process)
        return f"PID {pid} ({program})"

    def _who(self, pid: int) -> str:
        return f"PID {pid} of {named(self.path)}"

    def _read(self) -> tuple[int, float, frozenset[int]]:
        """The number, when the file was written, and the users whose word it is: the file's, and each link's to it."""
        try:
            descriptor, owners = open_with_links(self.path)
        except OSError as error:
            why = why_not(self.path, error)
            raise NotTold(
                f"{named(self.path)} cannot be read ({why}): start the service that writes it, or correct its name"
            ) from None
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                raise NotTold(f"{named(self.path)} is no file")
            above = self.path.resolve().parent.stat()
            loose = above.st_mode & stat.S_IWOTH and not above.st_mode & stat.S_ISVTX
            if found.st_mode & stat.S_IWOTH or loose:
                raise NotTold(
                    f"{named(self.path)} can be changed by everybody, who could have any process signalled: chmod o-w "
                    "it and its directory"
                )
            line, _, _ = os.read(descriptor, _LARGEST).partition(b"\n")
        except OSError as error:
            raise NotTold(f"{named(self.path)} cannot be read ({error.strerror})") from None
        finally:
            os.close(descriptor)
        text = line.strip()
        if not _PID.fullmatch(text) or int(text) in (1, os.getpid()) or int(text) >= 2**31:
            raise NotTold(
                f"{named(self.path)} holds no PID of a service but {discreet(text.decode('ascii', 'replace'), 40)!r}"
            )
        return int(text), found.st_mtime, owners | {found.st_uid}

    def _look_at(self, pid: int, written: float, owners: frozenset[int]) -> str:
        """The program that runs under that number. Raises :class:`NotTold` where it is not who was meant."""
        home = Path("/proc") / str(pid)
        try:
            words = (home / "stat").read_bytes().rpartition(b")")[2].split()
            users = _UID.search((home / "status").read_bytes())
        except OSError:
            raise NotTold(f"{self._who(pid)} has ended: start its service") from None
        if words[_STATE] == b"Z":
            raise NotTold(f"{self._who(pid)} has ended: start its service")
        started = self.boot_time() + int(words[_START_TIME]) / os.sysconf("SC_CLK_TCK")
        if started > written + _SLACK:
            raise NotTold(
                f"{self._who(pid)} is another process by now, started {started - written:.0f} s after that file was "
                "written, and is not signalled: start the service, which writes it anew"
            )
        if owners - {0, os.geteuid(), *map(int, users.groups() if users else ())}:
            raise NotTold(
                f"{named(self.path)}, or a link on the way to it, belongs to another user than PID {pid}, and to "
                "neither root nor us: it is not signalled"
            )
        try:
            return printable(os.readlink(home / "exe"), 200)
        except OSError:
            return "a program that the kernel does not show"
