"""Asks the metadata service of a platform, which each machine of it has at an address of its own, over plain HTTP.

Within one deadline, no more of an answer than is expected, and nobody else: no redirection is followed, no proxy asked.
"""

import os
import socket
import time
from collections.abc import Mapping
from typing import Self

from attrs import field, frozen

from pki.errors import Malformed, PkiError, discreet
from twisted_mesh.evidence.interface import NoEvidence
from twisted_mesh.http.address import split_url
from twisted_mesh.http.answer_reader import Answer, NotHttp
from twisted_mesh.runtime.wire import Attempt, Cut, PlainWire

_LARGEST = 64 * 1024
_OK, _REDIRECTIONS = 200, range(300, 400)


@frozen
class Metadata:
    """A metadata service. It blocks. Whatever goes wrong is :class:`NoEvidence`, and names the place."""

    host: str
    port: int
    deadline: float = field(default=5.0, kw_only=True)
    """Seconds for one request, connecting included."""

    @classmethod
    def named(cls, variable: str, usual: str) -> Self:
        """The one at the URL in that environment variable, or at the ``usual`` one. Raises :class:`Malformed`."""
        text = os.environ.get(variable) or usual
        url = split_url(text.rstrip("/"), {"http": 80})
        if url is None:
            raise Malformed(
                f"{variable}={discreet(text, 100)!r} is no address of a metadata service: write http://HOST or "
                "http://HOST:PORT"
            )
        _, host, port = url
        return cls(host, port)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> bytes:
        """What is at ``path``, which begins with a slash."""
        return self._ask("GET", path, headers or {})

    def put(self, path: str, headers: Mapping[str, str] | None = None) -> bytes:
        """What is answered to a PUT without content."""
        return self._ask("PUT", path, {"Content-Length": "0", **(headers or {})})

    def _ask(self, method: str, path: str, headers: Mapping[str, str]) -> bytes:
        shown = f"{method} {self}{discreet(path.partition('?')[0], 100)}"
        answer = Answer(_LARGEST, str(self))
        try:
            self._exchange(answer, self._request(method, path, headers))
        except TimeoutError:
            raise NoEvidence(
                f"{shown}: no answer within {self.deadline:g} s: is this machine of that platform, and may this "
                "process reach its metadata service?"
            ) from None
        except PkiError as error:
            raise NoEvidence(f"{shown}: {error}") from None
        except OSError as error:
            raise NoEvidence(
                f"{shown}: {error.strerror or type(error).__name__}: is this machine of that platform?"
            ) from None
        except (NotHttp, Cut):
            raise NoEvidence(f"{shown}: what is answered is no whole answer in HTTP") from None
        if answer.status in _REDIRECTIONS:
            raise NoEvidence(f"{shown}: it answers {answer.status}, and nothing is followed")
        if answer.status != _OK:
            raise NoEvidence(f"{shown}: it answers {answer.status}")
        return bytes(answer.body)

    def _request(self, method: str, path: str, headers: Mapping[str, str]) -> bytes:
        _, _, host = str(self).partition("://")
        lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", "Connection: close"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        if not all(line.isascii() and line.isprintable() for line in lines):
            raise Malformed("a header that is to be sent has characters that none may have")
        return "\r\n".join((*lines, "", "")).encode("ascii")

    def _exchange(self, answer: Answer, request: bytes) -> None:
        attempt = Attempt(time.monotonic() + self.deadline)
        wire = PlainWire(self._connected(attempt), attempt)
        try:
            wire.send(request)
            while not answer.is_whole:
                data = wire.receive()
                if data:
                    answer.feed(data)
                else:
                    answer.end()
        finally:
            wire.close()

    def _connected(self, attempt: Attempt) -> socket.socket:
        return socket.create_connection((self.host, self.port), timeout=attempt.left)
