"""A conversation over TCP without a reactor, with one deadline for all of it: for programs that only look."""

import select
import socket
import time
from collections.abc import Callable
from typing import TypeVar

from attrs import define, field, frozen
from OpenSSL import SSL

from pki.codes import Code
from pki.errors import Malformed, PkiError, Problem, discreet

_T = TypeVar("_T")
_MOST_LINES = 200
_LONGEST_LINE = 4096
#: Seconds: what poll() takes is an int of milliseconds.
_LONGEST_WAIT = 86400.0


class Failed(PkiError):
    """The other side could not be reached, or talked to; :attr:`problem` says why."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.detail)
        self.problem = problem

    @property
    def problems(self) -> tuple[Problem, ...]:
        """The one."""
        return (self.problem,)


@frozen
class Target:
    """Where somebody listens. ``str(Target.parse(x))`` is ``x``."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> "Target":
        """``HOST:PORT``, ``[::1]:PORT``, or an https URL. Raises :class:`Malformed`."""
        plain = text.strip()
        default = ""
        if plain.lower().startswith("https://"):
            plain, default = plain[8:].partition("/")[0], "443"
        host, colon, port = plain.rpartition(":")
        if not colon or plain.endswith("]"):
            host, port = plain, default
        if host.startswith("[") and host.endswith("]"):
            host = host[1:-1]
        elif ":" in host:
            raise Malformed(
                f"{discreet(text, 120)!r}: write an IPv6 address in brackets: [::1]:9443"
            )
        if not (port.isascii() and port.isdigit() and 0 < int(port[:6]) < 65536):
            raise Malformed(
                f"{discreet(text, 120)!r} names no port: write HOST:PORT, like localhost:9443"
            )
        if not host.isprintable() or any(character in host for character in " /@"):
            raise Malformed(
                f"{discreet(text, 120)!r} is no HOST:PORT: write it like localhost:9443"
            )
        return cls(host or "localhost", int(port))

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


@define(eq=False)
class Conversation:
    """One connection, plain at first."""

    target: Target
    seconds: float
    """How long all of it may take."""
    clock: Callable[[], float] = time.monotonic
    _socket: socket.socket = field(init=False)
    _end: float = field(init=False)
    peer: str = field(default="", init=False)
    """The address that was reached."""

    def __attrs_post_init__(self) -> None:
        self._end = self.clock() + self.seconds

    @property
    def left(self) -> float:
        """Seconds until the deadline."""
        return max(0.0, self._end - self.clock())

    def connect(self) -> None:
        """Reach it. Raises :class:`Failed`."""
        try:
            found = socket.getaddrinfo(self.target.host, self.target.port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            raise self._unreachable(
                f"the name {discreet(self.target.host, 100)} cannot be looked up",
                "check how it is spelt, and this machine's name servers",
            ) from None
        error: OSError | None = None
        for number, (family, kind, protocol, _, address) in enumerate(found, 1):
            try:
                made = socket.socket(family, kind, protocol)
            except OSError as unmade:
                error = unmade
                continue
            try:
                made.settimeout(max(0.01, self.left / (len(found) - number + 1)))
                made.connect(address)
            except OSError as refused:
                made.close()
                error = refused
                continue
            made.setblocking(False)
            self._socket = made
            self.peer = str(address[0])
            return
        if isinstance(error, TimeoutError):
            raise self._silent()
        if isinstance(error, ConnectionRefusedError):
            raise self._unreachable("nobody listens there", "start it, or check address and port")
        why = (error and error.strerror) or "there is no address"
        raise self._unreachable(why, "check the address and the network")

    def close(self) -> None:
        """End it, if it was begun. Never raises."""
        if hasattr(self, "_socket"):
            self._socket.close()

    def attached(self, context: SSL.Context) -> SSL.Connection:
        """TLS over the same connection, not begun yet."""
        return SSL.Connection(context, self._socket)

    def perform(self, act: Callable[[], _T], until: float | None = None) -> _T | None:
        """What ``act`` on the TLS connection comes to; None where that takes longer than the deadline, or ``until``.

        Raises what ``act`` raises but for its wish to wait.
        """
        end = self._end if until is None else min(until, self._end)
        while True:
            try:
                return act()
            except SSL.WantReadError:
                ready = self._wait(select.POLLIN, end)
            except SSL.WantWriteError:
                ready = self._wait(select.POLLOUT, end)
            if not ready:
                return None

    def send(self, data: bytes) -> None:
        """In plain. Raises :class:`Failed`."""
        while data:
            try:
                data = data[self._socket.send(data) :]
            except BlockingIOError:
                if not self._wait(select.POLLOUT, self._end):
                    raise self._silent() from None
            except OSError:
                raise self.gone() from None

    def receive(self, most: int) -> bytes:
        """In plain: at least one byte, at most so many. Raises :class:`Failed`."""
        while True:
            try:
                data = self._socket.recv(most)
            except BlockingIOError:
                if not self._wait(select.POLLIN, self._end):
                    raise self._silent() from None
                continue
            except OSError:
                raise self.gone() from None
            if not data:
                raise self.gone()
            return data

    def exactly(self, count: int) -> bytes:
        """So many bytes, and none of what follows. Raises :class:`Failed`."""
        data = b""
        while len(data) < count:
            data += self.receive(count - len(data))
        return data

    def line(self) -> bytes:
        """Up to a line's end, and none of what follows. Raises :class:`Failed`."""
        data = b""
        while not data.endswith(b"\n"):
            data += self.receive(1)
            if len(data) > _LONGEST_LINE:
                raise self.not_spoken("a line of its answer has no end")
        return data

    def reply(self) -> bytes:
        """The lines of an SMTP reply: the last has a space after its code. Raises :class:`Failed`."""
        lines: list[bytes] = []
        while len(lines) < _MOST_LINES:
            lines.append(self.line())
            if lines[-1][3:4] != b"-":
                return b"".join(lines)
        raise self.not_spoken("its answer has no end")

    def not_spoken(self, detail: str) -> Failed:
        """For a peer that does not speak as it should before TLS."""
        remedy = "check the port, and what is to be spoken there (--starttls)"
        return Failed(Problem(Code.NOT_TLS, f"{self.target}: {detail}", remedy))

    def gone(self) -> Failed:
        """For a peer that has hung up."""
        detail = f"{self.target} took the connection and closed it"
        remedy = "it runs, or something before it does: its log has the reason"
        return Failed(Problem(Code.INTERRUPTED, detail, remedy))

    def silent(self, what: str) -> Failed:
        """For a peer that says nothing more in ``what``."""
        detail = f"{self.target} does not answer {what} within {self.seconds:g} s"
        remedy = "check the port, or give it more time (--timeout)"
        return Failed(Problem(Code.UNREACHABLE, detail, remedy))

    def _silent(self) -> Failed:
        return self.silent("at all" if not self.peer else "before TLS")

    def _unreachable(self, why: str, remedy: str) -> Failed:
        return Failed(
            Problem(Code.UNREACHABLE, f"no server answers at {self.target}: {why}", remedy)
        )

    def _wait(self, events: int, end: float) -> bool:
        poll = select.poll()
        poll.register(self._socket, events)
        left = end - self.clock()
        return left > 0 and bool(poll.poll(min(left, _LONGEST_WAIT) * 1000))
