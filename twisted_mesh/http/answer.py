"""An answer, which is sent whole: its head, and a long body in pieces."""

from functools import lru_cache
from http import HTTPStatus
from time import time
from typing import Any

from twisted.internet.interfaces import IPushProducer
from twisted.web import server
from twisted.web.http import NOT_MODIFIED, RESPONSES, datetimeToString
from twisted.web.http_headers import Headers
from zope.interface import implementer

#: What is said before the last answer on a connection. Not to be changed.
THE_LAST = Headers({b"connection": [b"close"]})
#: Bodies are sent in pieces of so many bytes.
PIECE = 64 * 1024


def answer_head(
    version: bytes, status: int, headers: Headers | None, content_type: str, size: int
) -> bytes:
    """All that comes before a body of ``size`` bytes; ``headers`` are besides what is always said."""
    moment = int(time())
    if headers is None or headers is THE_LAST:
        return _plain_head(version, status, headers is None, content_type, size, moment)
    return _head(version, status, headers, content_type, size, moment)


def _head(  # noqa: PLR0917
    version: bytes,
    status: int,
    headers: Headers | None,
    content_type: str,
    size: int,
    moment: int,
) -> bytes:
    lines = [
        b"%s %d %s" % (version, status, _phrase(status)),
        b"Server: " + server.version,
        b"Date: " + date_of(moment),
    ]
    if headers is not None:
        for name, values in headers.getAllRawHeaders():
            lines += [b"%s: %s" % (name, value) for value in values]
    if headers is None or not headers.hasHeader(b"cache-control"):
        lines.append(b"Cache-Control: no-store")
    if status != NOT_MODIFIED:  # which is about what the caller has
        lines.append(b"Content-Type: " + content_type.encode("ascii"))
        lines.append(b"Content-Length: %d" % size)
    lines.append(b"\r\n")
    return b"\r\n".join(lines)


@lru_cache(maxsize=64)
def _plain_head(  # noqa: PLR0917
    version: bytes, status: int, goes_on: bool, content_type: str, size: int, moment: int
) -> bytes:
    """The same answers go out many times a second."""
    return _head(version, status, None if goes_on else THE_LAST, content_type, size, moment)


def respond(
    request: Any, headers: Headers | None, status: int, body: bytes, content_type: str
) -> None:
    """Send one whole answer to ``request``, in one piece unless it is long, and be done."""
    channel = request.channel
    head = answer_head(request.clientproto, status, headers, content_type, len(body))
    if request.method == b"HEAD" or status == NOT_MODIFIED:
        channel.write(head)
    elif len(body) <= PIECE:
        channel.write(head + body)
    else:
        channel.write(head)
        channel.begin_to_send(len(body))
        pieces = Pieces(request, body)
        request.registerProducer(pieces, True)
        pieces.resumeProducing()
        return
    request.finish()


@implementer(IPushProducer)
class Pieces:
    """A long body on its way, in pieces: its callers share it, however slowly they read."""

    def __init__(self, request: Any, body: bytes) -> None:
        self._request: Any = request
        self._left = memoryview(body)
        self._is_paused = False

    def resumeProducing(self) -> None:
        """Send more, as long as nobody says that it is enough."""
        self._is_paused = False
        while (request := self._request) is not None and not self._is_paused:
            if request.is_gone:
                return
            piece, self._left = self._left[:PIECE], self._left[PIECE:]
            request.channel.write(bytes(piece))
            if not self._left:
                self._request = None
                request.unregisterProducer()
                request.finish()

    def pauseProducing(self) -> None:
        """It is enough for now."""
        self._is_paused = True

    def stopProducing(self) -> None:
        """The connection is gone."""
        self._request = None


@lru_cache(maxsize=64)
def _phrase(status: int) -> bytes:
    """What a status is called; Twisted does not know all of them."""
    known = RESPONSES.get(status)
    return HTTPStatus(status).phrase.encode("ascii") if known is None else bytes(known)


@lru_cache(maxsize=4)
def date_of(moment: int) -> bytes:
    """A POSIX time as HTTP writes it (RFC 9110 section 5.6.7)."""
    date: bytes = datetimeToString(moment)
    return date
