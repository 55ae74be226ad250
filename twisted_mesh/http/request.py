"""A request: what a resource of ours uses of it, and the one that Twisted reads, with a capped body."""

from collections.abc import Mapping
from time import time
from typing import Any, Protocol
from urllib.parse import unquote_to_bytes as unquote

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.web import server
from twisted.web.http_headers import Headers

from pki.codes import Code
from pki.errors import ANY_ERROR, Problem
from twisted_mesh.http.answer import date_of, respond
from twisted_mesh.http.json import problem_body
from twisted_mesh.http.whole_head import HOST
from twisted_mesh.runtime.log import logger

_log = logger("http")


class SiteRequest(Protocol):
    """What a resource of ours may use of a request, whoever has read it."""

    method: bytes
    path: bytes
    """Still percent-encoded."""
    is_gone: bool
    """Whether the connection was lost before the answer."""

    @property
    def args(self) -> dict[bytes, list[bytes]]:
        """The parameters, each with its values."""

    @property
    def channel(self) -> Any:
        """The connection; its ``transport`` knows who calls."""

    @property
    def body(self) -> bytes:
        """All of it."""

    @property
    def requestHeaders(self) -> Headers:
        """All that is said before the body."""

    def getHeader(self, name: bytes) -> bytes | None:
        """The last of what is said under ``name``, which is in lower case."""

    def setHeader(self, name: bytes, value: bytes) -> None:
        """Say it before the answer."""

    def close_after(self) -> None:
        """Let the answer be the last one on the connection."""

    def respond(self, status: int, body: bytes, content_type: str) -> None:
        """Send one whole answer, and be done."""

    def notifyFinish(self) -> "Deferred[None]":
        """Fires with the answer; fails where the connection is lost before it."""


class BoundedRequest(server.Request):
    """A request whose body is capped while it arrives, chunked or not."""

    channel: Any
    """A :class:`~twisted_mesh.http.channel.BoundedChannel`."""
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
            self.setHeader(b"date", date_of(int(time())))
        super().write(data)

    def close_after(self) -> None:
        """Let this answer be the last one on the connection."""
        self.setHeader(b"connection", b"close")
        self.channel.persistent = False

    def respond(self, status: int, body: bytes, content_type: str) -> None:
        """Send one whole answer in one piece, and be done."""
        self.code = status
        self.startedWriting = 1
        respond(self, self.responseHeaders, status, body, content_type)

    @property
    def body(self) -> bytes:
        """All of it."""
        content: Any = self.content
        if content is None:
            return b""
        content.seek(0)
        whole: bytes = content.read()
        return whole

    def processingFailed(self, reason: Failure) -> Failure:
        """A resource broke."""
        broken(self, reason)
        return reason

    def handleContentChunk(self, data: bytes) -> None:
        """Take a part of the body; with one byte more than the limit the answer is 413."""
        self._received += len(data)
        if self.channel.refused:
            return
        if self._received > self.channel.limits.body_bytes:
            self.channel.refuse_body()
        else:
            super().handleContentChunk(data)


def answer(
    request: SiteRequest,
    status: int,
    body: bytes,
    content_type: str = "application/json",
    headers: Mapping[str, str] | None = None,
) -> None:
    """Send one whole answer."""
    for name, value in (headers or {}).items():
        request.setHeader(name.encode(), value.encode())
    request.respond(status, body, content_type)


def broken(request: SiteRequest, reason: Failure | None = None) -> None:
    """A resource has met a bug of its own: it is logged, and the caller told so much."""
    _log.failure("a request could not be answered", reason, event="request-broke")
    if not request.is_gone:
        body = problem_body(500, Code.INTERNAL, "a bug was met; the log has the details")
        answer(request, 500, body, "application/problem+json")


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
    return HOST.fullmatch(hosts[0]) is not None
