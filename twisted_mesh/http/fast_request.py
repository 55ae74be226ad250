"""Requests that arrive in one piece, read by one expression instead of line by line."""

import re

from attrs import frozen

#: Well below what Twisted takes, so that nothing is read here that it would refuse.
_MAX_HEAD, _MAX_HEADERS, _MAX_DIGITS = 8 * 1024, 100, 9
#: What Twisted's channel keeps of a request between its lines, by the methods that use it: all of that is handed
#: over at once. Most of these names are its own affair, and may change with any release.
_HANDED_OVER = {
    "lineReceived": {"requests", "requestFactory", "persistent", "_command", "_path", "_version"},
    "headerReceived": {"requests", "requestHeaders", "addRawHeader"},
    "allHeadersReceived": {"requests", "length", "gotLength", "_version"},
    "allContentReceived": {"requests", "length", "_command", "_path", "_version"},
    "dataReceived": {"_buffer", "_busyReceiving"},
}
_HEAD = re.compile(
    rb"([A-Z]+) ([\x21-\x7e]+) HTTP/1\.1\r\n((?:[A-Za-z0-9-]+:[\t\x20-\x7e]*\r\n)*)\r\n"
)


def can_be_handed_over(channel: type, lines: type) -> bool:
    """Whether a whole request can be given to a channel of Twisted's, which reads by ``lines``.

    False where a name has changed: then all is read line by line, which is slower and nothing else.
    """
    for method, names in _HANDED_OVER.items():
        owner = lines if method == "dataReceived" else channel
        code = getattr(getattr(owner, method, None), "__code__", None)
        if code is None or not names <= {*code.co_names}:
            return False
    return True


@frozen
class FastRequest:
    """A request of HTTP/1.1 (RFC 9112) whose length is told by Content-Length alone."""

    method: bytes
    target: bytes
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes


def read_fast(data: bytes) -> FastRequest | None:
    """The request that ``data`` is.

    None where it is less than one, more than one, or in any way out of the ordinary: then Twisted
    reads it line by line, and this must never take what Twisted would not, or take it otherwise.
    """
    match = _HEAD.match(data, 0, _MAX_HEAD)
    if match is None:
        return None
    length = 0
    has_length = False
    headers = []
    for line in match[3].splitlines():
        name, _, value = line.partition(b":")
        value = value.strip(b" \t")
        headers.append((name, value))
        match name.lower():
            case b"content-length":
                if has_length or not value.isdigit() or len(value) > _MAX_DIGITS:
                    return None
                length, has_length = int(value), True
            case b"transfer-encoding":
                return None
    body = data[match.end() :]
    if len(body) != length or len(headers) > _MAX_HEADERS:
        return None
    return FastRequest(match[1], match[2], tuple(headers), body)
