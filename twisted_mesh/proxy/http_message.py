"""HTTP/1.1 messages as they pass the proxy (RFC 9112): read strictly, so that nobody behind reads them otherwise.

Whatever could be read in two ways is refused. What is passed on is written anew from what was read.
"""

import re
from collections.abc import Iterable

from attrs import define, field, frozen

from twisted_mesh.http.whole_head import HOST

#: A head has at most so many bytes.
MOST_HEAD = 64 * 1024
_MOST_HEADERS = 200
_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_REQUEST = re.compile(rb"(" + _TOKEN + rb") ([\x21-\x7e]+) HTTP/1\.([01])")
_STATUS = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9]{2})(?: ([\t\x20-\x7e\x80-\xff]*))?")
_ODD = re.compile(rb"[^a-z0-9]")
_FRAMING = (b"content-length", b"transfer-encoding")
_FRAMING_SIZES = tuple(map(len, _FRAMING))
_NAME = re.compile(_TOKEN)
#: What a value never has: control characters, of which a line's end is one.
_NO_VALUE = re.compile(rb"[^\t\x20-\x7e\x80-\xff]")
_LENGTH = re.compile(rb"[0-9]{1,18}")
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,8})\r\n")
#: The line before a chunk, and one of a trailer.
_MOST_LINE = 8 * 1024
#: Of one connection only (RFC 9110 section 7.6.1), or about how it is framed.
_HOP_BY_HOP = {
    *(b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"transfer-encoding"),
    *(b"upgrade", b"http2-settings", b"proxy-authenticate", b"proxy-authorization"),
}
#: What a message is understood by: whoever has it taken away wants it understood in two ways.
_NEVER_NOMINATED = {b"host", b"content-length", b"transfer-encoding", b"authorization", b"cookie"}
Header = tuple[bytes, bytes]


class BadMessage(Exception):
    """It could be read in two ways, or in none; the text says which rule it breaks."""


@frozen
class Framing:
    """Where a body ends (RFC 9112 section 6.3)."""

    length: int | None = 0
    """Its bytes; None where that is not said beforehand."""
    is_chunked: bool = False
    """Whether it says by itself where it ends; else, without a length, the end of the connection is its end."""


@frozen
class Head:
    """What both kinds of heads have."""

    version: int
    """1 for HTTP/1.1, 0 for HTTP/1.0."""
    headers: tuple[Header, ...]
    """Without those of this connection only."""
    framing: Framing
    is_last: bool
    """Whether its sender says that it is the last message on the connection."""


@frozen
class RequestHead(Head):
    """Of a request in origin form."""

    method: bytes
    target: bytes
    upgrade: bytes
    """To which protocol it wants to change; empty for none, or for one that is not passed on."""


@frozen
class ResponseHead(Head):
    """Of an answer."""

    status: int
    reason: bytes
    upgrade: bytes


def end_of_head(data: bytes, start: int = 0) -> int:
    """Where the head that begins at ``start`` ends, behind its empty line; 0 where that has not come.

    Raises :class:`BadMessage`.
    """
    at = data.find(b"\r\n\r\n", start, start + MOST_HEAD)
    if at >= 0:
        return at + 4
    if len(data) - start >= MOST_HEAD:
        raise BadMessage(f"a head has at most {MOST_HEAD} bytes")
    return 0


def read_request(head: bytes) -> RequestHead:
    """A whole head, with its empty line. Raises :class:`BadMessage`."""
    first, headers = _lines(head)
    found = _REQUEST.fullmatch(first)
    if found is None:
        raise BadMessage("the request line is not METHOD TARGET HTTP/1.1")
    method, target, version = found[1], found[2], int(found[3])
    if not target.startswith(b"/") and (method, target) != (b"OPTIONS", b"*"):
        raise BadMessage("the target is no path")
    if method == b"CONNECT":
        raise BadMessage("CONNECT is not passed on")
    hosts = _all(headers, b"host")
    if len(hosts) > 1 or (version and not hosts) or any(not HOST.fullmatch(one) for one in hosts):
        raise BadMessage("Host is said once, and is a name or an address")
    tokens = _tokens(headers, b"connection")
    if tokens & _NEVER_NOMINATED:
        raise BadMessage("Connection names what the message is understood by")
    framing = _framing(headers, version, Framing())
    wanted = [one.lower() for one in _all(headers, b"upgrade")]
    changes = b"upgrade" in tokens and wanted == [b"websocket"] and version == 1
    if changes and framing != Framing():
        raise BadMessage("who changes the protocol sends no body")
    expected = [one.lower() for one in _all(headers, b"expect")]
    if expected not in ([], [b"100-continue"]):
        raise BadMessage("nothing but 100-continue can be expected")
    is_last = b"close" in tokens or version == 0
    kept = _kept(headers, tokens)
    return RequestHead(
        version, kept, framing, is_last, method, target, wanted[0] if changes else b""
    )


def read_response(head: bytes, request_method: bytes) -> ResponseHead:
    """A whole head of the answer to a request by that method. Raises :class:`BadMessage`."""
    first, headers = _lines(head)
    found = _STATUS.fullmatch(first)
    if found is None:
        raise BadMessage("the status line is not HTTP/1.1 STATUS REASON")
    version, status = int(found[1]), int(found[2])
    tokens = _tokens(headers, b"connection")
    framing = _framing(headers, version, Framing(None))
    if request_method == b"HEAD" or status < 200 or status in (204, 304):
        framing = Framing()
    upgrade = _all(headers, b"upgrade")
    is_last = b"close" in tokens or (version == 0 and b"keep-alive" not in tokens)
    reason = found[3] or b""
    # Where there is never a body there is no length to be told (RFC 9110 section 8.6).
    kept = _kept(
        headers, tokens | ({b"content-length"} if status < 200 or status == 204 else set())
    )
    return ResponseHead(
        version, kept, framing, is_last, status, reason, upgrade[0] if upgrade else b""
    )


def _lines(head: bytes) -> tuple[bytes, list[Header]]:
    lines = head.removesuffix(b"\r\n\r\n").split(b"\r\n")
    if len(lines) > _MOST_HEADERS:
        raise BadMessage(f"a head has at most {_MOST_HEADERS} headers")
    headers = []
    for line in lines[1:]:
        header = _header(line)
        if header is None:
            raise BadMessage("a header is not NAME: VALUE in one line")
        name = header[0].lower()
        if len(name) in _FRAMING_SIZES and name not in _FRAMING and as_variable(name) in _FRAMING:
            raise BadMessage("a header is spelt so that some would take its length from it")
        headers.append(header)
    return lines[0], headers


def _header(line: bytes) -> Header | None:
    """Name and value, with nothing around either; None where that is not what ``line`` is."""
    name, colon, value = line.partition(b":")
    # In steps of which none looks at a byte twice: one expression for all would try each way to share out the blanks.
    if not colon or not _NAME.fullmatch(name) or _NO_VALUE.search(value):
        return None
    return name, value.strip(b" \t")


def as_variable(name: bytes) -> bytes:
    """A header's ``name`` as programs know it that read it as a variable's: ``-``, ``_`` and ``.`` are the same."""
    return _ODD.sub(b"-", name.lower())


def _all(headers: Iterable[Header], name: bytes) -> list[bytes]:
    return [value for known, value in headers if known.lower() == name]


def _tokens(headers: Iterable[Header], name: bytes) -> set[bytes]:
    return {
        token.strip(b" \t").lower() for value in _all(headers, name) for token in value.split(b",")
    } - {b""}


def _framing(headers: Iterable[Header], version: int, without: Framing) -> Framing:
    lengths, codings = _all(headers, b"content-length"), _all(headers, b"transfer-encoding")
    if codings:
        if lengths:
            raise BadMessage("Content-Length and Transfer-Encoding do not go together")
        if version == 0 or [one.lower() for one in codings] != [b"chunked"]:
            raise BadMessage("Transfer-Encoding is chunked and nothing else, in HTTP/1.1")
        return Framing(None, is_chunked=True)
    if not lengths:
        return without
    if len(lengths) != 1 or not _LENGTH.fullmatch(lengths[0]):
        raise BadMessage("Content-Length is said once, in digits")
    return Framing(int(lengths[0]))


def _kept(headers: Iterable[Header], tokens: set[bytes]) -> tuple[Header, ...]:
    """Those that are for the next one too; of the length one speaks anew."""
    dropped = _HOP_BY_HOP | tokens
    return tuple((name, value) for name, value in headers if name.lower() not in dropped)


def written(first: bytes, headers: Iterable[Header]) -> bytes:
    """A head of these."""
    lines = [first, *(b"%s: %s" % header for header in headers), b"", b""]
    return b"\r\n".join(lines)


@define
class Body:
    """A body as it comes, and as it is passed on: chunks are framed anew, and trailers left out."""

    framing: Framing
    keeps_chunks: bool = True
    """Whether chunks are passed on as such; else only what is in them."""
    is_over: bool = field(default=False, init=False)
    _left: int = field(default=0, init=False)
    """Bytes of the present chunk, or of the body."""
    _held: bytes = field(default=b"", init=False)
    """The beginning of a line."""
    _in_trailer: bool = field(default=False, init=False)
    _needs_end: bool = field(default=False, init=False)
    """Whether the line's end behind a chunk is still to come."""

    def __attrs_post_init__(self) -> None:
        self._left = self.framing.length or 0
        self.is_over = self.framing.length == 0

    def take(self, data: bytes) -> tuple[bytes, bytes]:
        """What is passed on of ``data``, and what of it is behind the body. Raises :class:`BadMessage`."""
        if self.is_over:
            return b"", data
        if self.framing.is_chunked:
            return self._take_chunks(data)
        if self.framing.length is None:
            return data, b""
        mine, rest = (
            (data, b"") if len(data) <= self._left else (data[: self._left], data[self._left :])
        )
        self._left -= len(mine)
        self.is_over = not self._left
        return mine, rest

    def _take_chunks(self, data: bytes) -> tuple[bytes, bytes]:
        data, self._held = self._held + data, b""
        made = []
        at = 0
        while at < len(data) and not self.is_over:
            if self._left:
                piece = data[at : at + self._left]
                at += len(piece)
                self._left -= len(piece)
                self._needs_end = not self._left
                made.append(piece)
                continue
            end = data.find(b"\r\n", at, at + _MOST_LINE)
            if end < 0:
                self._held = data[at:]
                if len(self._held) >= _MOST_LINE or b"\n" in self._held:
                    raise BadMessage("a line of a chunked body does not end")
                break
            line = data[at : end + 2]
            at = end + 2
            self._take_line(line)
        passed = b"".join(made)
        if self.keeps_chunks:
            last = b"0\r\n\r\n" if self.is_over else b""
            passed = (b"%x\r\n%s\r\n%s" % (len(passed), passed, last)) if passed else last
        return passed, data[at:] if self.is_over else b""

    def _take_line(self, line: bytes) -> None:
        if self._needs_end:
            if line != b"\r\n":
                raise BadMessage("a chunk is longer than it says")
            self._needs_end = False
        elif self._in_trailer:
            if line == b"\r\n":
                self.is_over = True
            elif _header(line[:-2]) is None:
                raise BadMessage("a trailer is not NAME: VALUE in one line")
        else:
            found = _CHUNK.fullmatch(line)
            if found is None:
                raise BadMessage("a chunk's size is hexadecimal digits and nothing else")
            self._left = int(found[1], 16)
            self._in_trailer = not self._left
