"""A client of the CA's API for a program that does one thing and ends: it blocks, and has no reactor.

What it asks, demands and says is what :class:`~twisted_mesh.api.client.CaClient` does. Its coroutines never wait for
anything but the kernel, so that :func:`result_of` runs them. Twisted is loaded for TLS, and to put an error into words;
its reactor is not.
"""

import contextlib
import errno
import os
import select
import socket
import threading
import time
from collections.abc import Awaitable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn, Protocol, TypeVar

import msgspec
from attrs import define, field
from cryptography import x509

from pki.errors import PkiError
from pki.svid.x509svid import load_certificates
from twisted_mesh.api.body import encoded, read_shape
from twisted_mesh.api.ca_user import CaUser
from twisted_mesh.api.refusal import CaRefused, told_problems
from twisted_mesh.http.address import CaAddress
from twisted_mesh.http.answer_reader import Answer, NotHttp
from twisted_mesh.runtime.wire import Attempt, Cut, PlainWire, Wire

T = TypeVar("T")

_MAX_ANSWER = 32 * 1024 * 1024
#: Seconds between two attempts at a unix socket of which the backlog is full.
_BACKLOG = 0.01


class Unresolved(Exception):
    """No name server knows the host."""


class Secures(Protocol):
    """Makes TLS of a connection to a CA at ``https``."""

    def secured(self, wire: PlainWire) -> Wire:
        """Once each has proven who it is. Raises :class:`PkiError` where the other side is not the CA."""

    def refused_beforehand(self) -> PkiError | None:
        """Why it is no use to show our certificate to anybody."""

    def explained(self, error: BaseException) -> BaseException:
        """What ended a connection, by what we know of our own certificate."""


@define(eq=False, repr=False)
class BlockingCaClient:
    """Asks one CA, one thing at a time. Whatever goes wrong is a :class:`PkiError`, as it is of ``CaClient``."""

    address: CaAddress
    timeout: float
    """Seconds for one request, connecting included."""
    ca_user: CaUser = field(factory=CaUser)
    security: Secures | None = None
    """For ``https``."""
    _date: str = field(default="", init=False)

    @property
    def date(self) -> datetime | None:
        """The CA's clock, as it was in its last answer (RFC 9110 section 6.6.1)."""
        from email.utils import parsedate_to_datetime

        try:
            return parsedate_to_datetime(self._date).astimezone(UTC)
        except (ValueError, TypeError, OverflowError):
            return None

    async def pause(self, seconds: float) -> None:
        """Let some time go by."""
        time.sleep(seconds)

    async def roots(self) -> tuple[x509.Certificate, ...]:
        """The roots of the CA's trust domain."""
        return load_certificates(self._send("GET", "/api/v1/ca", None), "the CA's answer")

    async def ask(self, method: str, path: str, body: msgspec.Struct | None, shape: type[T]) -> T:
        """What one route answers to ``body``, as a ``shape``. Raises :class:`Malformed` for an answer that is none."""
        return read_shape(str(self.address), shape, self._send(method, path, body))

    def _send(self, method: str, path: str, body: msgspec.Struct | None) -> bytes:
        attempt = Attempt(time.monotonic() + self.timeout)
        try:
            answer = self._exchange(attempt, self._request(method, path, body))
        except PkiError:
            raise
        except Exception as error:
            self._fail(error, attempt)
        content = bytes(answer.body)
        if answer.status >= 400:
            raise CaRefused(answer.status, told_problems(answer.status, content))
        return content

    def _request(self, method: str, path: str, body: msgspec.Struct | None) -> bytes:
        host = self.address.host or "localhost"
        host = f"[{host}]" if ":" in host else host
        port = f":{self.address.port}" if self.address.port else ""
        lines = [f"{method} {path} HTTP/1.1", f"Host: {host}{port}", "Connection: close"]
        data = b""
        if body is not None:
            kind, data = encoded(body)
            lines += [f"Content-Type: {kind}", f"Content-Length: {len(data)}"]
        return "\r\n".join((*lines, "", "")).encode("ascii") + data

    def _exchange(self, attempt: Attempt, request: bytes) -> Answer:
        answer = Answer(_MAX_ANSWER, str(self.address))
        wire = self._connected(attempt)
        try:
            # Whoever refuses us may have said so, and closed, before all of this is sent.
            unsent: OSError | None = None
            try:
                wire.send(request)
            except TimeoutError:
                raise
            except OSError as error:
                unsent = error
            while not answer.is_whole:
                try:
                    data = wire.receive()
                except ConnectionError:
                    raise (unsent or Cut()) from None
                if data:
                    answer.feed(data)
                else:
                    answer.end()
        finally:
            wire.close()
        self._date = answer.headers.get("date", "")
        return answer

    def _connected(self, attempt: Attempt) -> Wire:
        if self.address.scheme == "unix":
            return PlainWire(self._connected_here(attempt), attempt)
        if self.security is None:
            return PlainWire(_connected_to(self.address, attempt), attempt)
        if (ours := self.security.refused_beforehand()) is not None:
            raise ours
        plain = PlainWire(_connected_to(self.address, attempt), attempt)
        try:
            return self.security.secured(plain)
        except BaseException:
            plain.close()
            raise

    def _connected_here(self, attempt: Attempt) -> socket.socket:
        path = Path(self.address.path)
        may_be = self.ca_user.at(path.parent)
        local = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            while True:
                local.settimeout(attempt.left)
                try:
                    local.connect(os.fsencode(path))
                    break
                except BlockingIOError:  # its backlog is full
                    time.sleep(_BACKLOG)
            self.ca_user.look(local, path, may_be)
        except BaseException:
            local.close()
            raise
        attempt.is_connected = True
        return local

    def _fail(self, error: Exception, attempt: Attempt) -> NoReturn:
        """Raise ``error`` in the words of :func:`twisted_mesh.tls.alerts.as_error`, which knows Twisted's errors."""
        from twisted.internet import error as errors
        from twisted.python.failure import Failure
        from twisted.web.client import ResponseFailed

        from twisted_mesh.api.ca_reach import reach_of
        from twisted_mesh.tls.alerts import as_error

        told: BaseException = error if self.security is None else self.security.explained(error)
        if isinstance(error, NotHttp):
            told = ResponseFailed([Failure(error)])
        elif isinstance(error, Cut | ConnectionResetError | BrokenPipeError):
            told = errors.ConnectionDone() if isinstance(error, Cut) else errors.ConnectionLost()
        elif isinstance(error, TimeoutError):
            told = errors.TimeoutError()
        elif isinstance(error, Unresolved):
            told = errors.DNSLookupError()
        elif isinstance(error, OSError):
            told = errors.getConnectError((error.errno or 0, error.strerror or str(error)))
        reach = reach_of(self.address, self.timeout)
        reach.is_connected, reach.heard = attempt.is_connected, attempt.heard
        raise as_error(told, reach) from None


def result_of(work: Awaitable[T]) -> T:
    """What a coroutine comes to that asks a :class:`BlockingCaClient`, and nobody who has to be waited for."""
    steps = work.__await__()
    try:
        next(steps)
    except StopIteration as done:
        result: T = done.value
        return result
    raise RuntimeError("there is no reactor here to wait on")


def _connected_to(address: CaAddress, attempt: Attempt) -> socket.socket:
    """A connection to the first that takes one, of all the addresses that the host has."""
    found = _addresses(address, attempt)
    first: OSError | None = None
    for number, (family, kind, protocol, _, at) in enumerate(found, 1):
        try:
            sock = socket.socket(family, kind, protocol)
        except OSError as error:
            first = first or error
            continue
        try:
            # So that one that is silent leaves time for the others.
            sock.settimeout(attempt.left / (len(found) - number + 1))
            sock.connect(at)
        except OSError as error:
            sock.close()
            first = first or error
            continue
        except BaseException:
            sock.close()
            raise
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        attempt.is_connected = True
        return sock
    raise first or Unresolved()


def _addresses(address: CaAddress, attempt: Attempt) -> list[Any]:
    """By the resolver, which cannot be told how long it may take: on a thread that is not waited for any longer."""
    with contextlib.suppress(OSError, UnicodeError):
        flags = socket.AI_NUMERICHOST  # an address is none's to be asked for
        return [
            *socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=flags)
        ]
    outcome: list[Any] = []
    heard, tell = os.pipe()

    def look() -> None:
        try:
            outcome.append(socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM))
        except (OSError, UnicodeError) as error:
            outcome.append(_lack_of_descriptors() or error)
        os.close(tell)

    try:
        threading.Thread(target=look, daemon=True).start()
        ready, _, _ = select.select([heard], [], [], attempt.left)
    finally:
        os.close(heard)
    if not ready:
        raise TimeoutError
    if isinstance(outcome[0], OSError) and outcome[0].errno in (errno.EMFILE, errno.ENFILE):
        raise outcome[0]
    if isinstance(outcome[0], Exception):
        raise Unresolved from None
    found: list[Any] = outcome[0]
    return found


def _lack_of_descriptors() -> OSError | None:
    """Which the resolver takes for a name that nobody has."""
    try:
        os.close(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
    except OSError as error:
        return error
    return None
