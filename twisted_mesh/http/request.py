"""A request with a capped body, and its answer, which is sent whole."""

import re
from collections.abc import Mapping
from functools import lru_cache
from http import HTTPStatus
from time import time
from typing import Any
from urllib.parse import unquote_to_bytes as unquote

from twisted.internet.interfaces import IPushProducer
from twisted.python.failure import Failure
from twisted.web import server
from twisted.web.http import NOT_MODIFIED, RESPONSES, datetimeToString
from twisted.web.http_headers import Headers
from zope.interface import implementer

from pki.errors import ANY_ERROR, Problem
from twisted_mesh.http.json import problem_body

#: A name or an address, perhaps a port; none at all is allowed (RFC 9110 section 7.2).
_HOST = re.compile(rb"([\w.~%-]*|\[[\w.:%]+\])(:[0-9]*)?", re.ASCII)
#: Bodies are sent in pieces of so many bytes.
_PIECE = 64 * 1024


class BoundedRequest(server.Request):
    """A request whose body is capped while it arrives, chunked or not."""

    channel: Any
    """A :class:`~twisted_mesh.http.server.BoundedChannel`."""
    is_gone = False
    """Whether the connection was lost before the answer."""
    _received = 0

    def process(self) -> None:
        """Straight to a resource that is the site's only one; the detour is for trees of them."""
        root = self.channel.site.resource
        if not root.isLeaf or self.path == b"*":
            super().process()
            return
        self.site = self.channel.site
        self.prepath, self.postpath = [], [*map(unquote, self.path[1:].split(b"/"))]
        try:
            self.render(root)
        except ANY_ERROR:
            self.processingFailed(Failure())

    def connectionLost(self, reason: Failure) -> None:
        """The caller has gone: what is written from now on goes nowhere."""
        self.is_gone = True
        super().connectionLost(reason)

    def write(self, data: bytes) -> None:
        """For Twisted's own answers; ours are written by :meth:`respond`."""
        if not self.startedWriting:
            self.setHeader(b"server", server.version)
            self.setHeader(b"date", _date(int(time())))
        super().write(data)

    def close_after(self) -> None:
        """Let this answer be the last one on the connection."""
        self.setHeader(b"connection", b"close")
        self.channel.persistent = False

    def respond(self, status: int, body: bytes, content_type: str) -> None:
        """Send one whole answer in one piece, and be done."""
        lines = [
            b"%s %d %s" % (self.clientproto, status, _phrase(status)),
            b"Server: " + server.version,
            b"Date: " + _date(int(time())),
        ]
        for name, values in self.responseHeaders.getAllRawHeaders():
            lines += [b"%s: %s" % (name, value) for value in values]
        if not self.responseHeaders.hasHeader(b"cache-control"):
            lines.append(b"Cache-Control: no-store")
        if status != NOT_MODIFIED:  # which is about what the caller has
            lines.append(b"Content-Type: " + content_type.encode("ascii"))
            lines.append(b"Content-Length: %d" % len(body))
        lines.append(b"\r\n")
        self.code = status
        self.startedWriting = 1
        head = b"\r\n".join(lines)
        if self.method == b"HEAD" or status == NOT_MODIFIED:
            self.channel.write(head)
        elif len(body) <= _PIECE:
            self.channel.write(head + body)
        else:
            self.channel.write(head)
            self.channel.begin_to_send(len(body))
            pieces = _Pieces(self, body)
            self.registerProducer(pieces, True)
            pieces.resumeProducing()
            return
        self.finish()

    def handleContentChunk(self, data: bytes) -> None:
        """Take a part of the body; with one byte more than the limit the answer is 413."""
        self._received += len(data)
        if self.channel.refused:
            return
        if self._received > self.channel.limits.body_bytes:
            self.channel.refuse_body()
        else:
            super().handleContentChunk(data)


@implementer(IPushProducer)
class _Pieces:
    """A long body on its way, in pieces: its callers share it, however slowly they read."""

    def __init__(self, request: BoundedRequest, body: bytes) -> None:
        self._request: BoundedRequest | None = request
        self._left = memoryview(body)
        self._is_paused = False

    def resumeProducing(self) -> None:
        self._is_paused = False
        while (request := self._request) is not None and not self._is_paused:
            if request.is_gone:
                return
            piece, self._left = self._left[:_PIECE], self._left[_PIECE:]
            request.channel.write(bytes(piece))
            if not self._left:
                self._request = None
                request.unregisterProducer()
                request.finish()

    def pauseProducing(self) -> None:
        self._is_paused = True

    def stopProducing(self) -> None:
        """The connection is gone."""
        self._request = None


def answer(
    request: BoundedRequest,
    status: int,
    body: bytes,
    content_type: str = "application/json",
    headers: Mapping[str, str] | None = None,
) -> None:
    """Send one whole answer."""
    for name, value in (headers or {}).items():
        request.setHeader(name.encode(), value.encode())
    request.respond(status, body, content_type)


def no_longer_accepted(problem: Problem) -> bytes:
    """What a caller reads on a connection that was opened while its certificate was still good."""
    detail = (
        "the certificate of this connection is no longer accepted here: connect with a good one"
    )
    return problem_body(403, problem.code, detail)


def names_one_host(version: bytes, headers: Headers) -> bool:
    """Whether HTTP/1.1 says its host exactly once, and nobody says another thing (RFC 9112 section 3.2)."""
    hosts = headers.getRawHeaders(b"host", ())
    if len(hosts) != 1:
        return not hosts and version != b"HTTP/1.1"
    return _HOST.fullmatch(hosts[0]) is not None


@lru_cache(maxsize=64)
def _phrase(status: int) -> bytes:
    """What a status is called; Twisted does not know all of them."""
    known = RESPONSES.get(status)
    return HTTPStatus(status).phrase.encode("ascii") if known is None else bytes(known)


@lru_cache(maxsize=4)
def _date(moment: int) -> bytes:
    """A POSIX time as HTTP writes it (RFC 9110 section 5.6.7)."""
    date: bytes = datetimeToString(moment)
    return date
