"""The head of a request, read by one expression instead of line by line, where nothing in it is out of the ordinary."""

import re
from functools import cached_property, lru_cache

from attrs import field, frozen
from twisted.web.http_headers import Headers

#: Well below what Twisted takes, so that nothing is read here that it would refuse.
_MAX_HEAD, _MAX_HEADERS, _MAX_DIGITS = 8 * 1024, 100, 9
#: Callers who come again say the same again: a head of so many bytes is remembered.
_SHORT = 1024
_END = b"\r\n\r\n"
_HEAD = re.compile(
    rb"([A-Z]+) ([\x21-\x7e]+) HTTP/1\.1\r\n((?:[A-Za-z0-9-]+:[\t\x20-\x7e]*\r\n)*)\r\n"
)
#: A name or an address, perhaps a port; none at all is allowed (RFC 9110 section 7.2).
HOST = re.compile(rb"([\w.~%-]*|\[[\w.:%]+\])(:[0-9]*)?", re.ASCII)
#: What a request may say that has to be answered before it is whole, or in another protocol.
_INTERMEDIATE = {b"transfer-encoding", b"expect", b"upgrade", b"trailer", b"te"}


@frozen
class Head:
    """Of a request of HTTP/1.1 (RFC 9112) whose length is told by Content-Length alone."""

    method: bytes
    target: bytes
    headers: tuple[tuple[bytes, bytes], ...] = field(repr=False)
    """Names as they came, and values."""
    size: int
    """Its bytes, with the empty line."""
    length: int
    """Bytes of the body."""
    is_last: bool
    """Whether the caller wants the connection closed behind the answer."""

    @cached_property
    def shared(self) -> Headers:
        """The same, as Twisted has them: of all requests that begin so. Nobody changes them."""
        headers = Headers()
        for name, value in self.headers:
            headers.addRawHeader(name, value)
        return headers

    @cached_property
    def last(self) -> dict[bytes, bytes]:
        """The last of what is said under each name, in lower case."""
        return {name.lower(): value for name, value in self.headers}


def read_head(data: bytes, at: int = 0) -> Head | None:
    """The head that begins at ``at`` in ``data``.

    None where it is not whole or in any way out of the ordinary: then Twisted reads the request line by line, and
    this must never take what Twisted would not, or take it otherwise.
    """
    end = data.find(_END, at, at + _MAX_HEAD)
    if end < 0:
        return None
    head = data[at : end + 4]
    return _remembered(head) if len(head) <= _SHORT else _read(head)


def _read(head: bytes) -> Head | None:
    match = _HEAD.fullmatch(head)
    if match is None or match[2] == b"*":
        return None
    length: int | None = None
    is_last: bool | None = None
    host = None
    headers = []
    for line in match[3].split(b"\r\n")[:-1]:
        name, _, value = line.partition(b":")
        value = value.strip(b" \t")
        headers.append((name, value))
        match name.lower():
            case b"host":
                if host is not None or not HOST.fullmatch(value):
                    return None
                host = value
            case b"content-length":
                if length is not None or not value.isdigit() or len(value) > _MAX_DIGITS:
                    return None
                length = int(value)
            case b"connection":
                if is_last is not None or value.lower() not in (b"close", b"keep-alive"):
                    return None
                is_last = value.lower() == b"close"
            case other if other in _INTERMEDIATE:
                return None
    if host is None or len(headers) > _MAX_HEADERS:
        return None
    return Head(match[1], match[2], tuple(headers), len(head), length or 0, bool(is_last))


_remembered = lru_cache(maxsize=256)(_read)
