"""An answer in HTTP/1.1 (RFC 9112), taken from bytes as they come: whole, and not too long. Opens no socket."""

import re

from attrs import define, field

from pki.codes import Code
from pki.errors import PkiError
from twisted_mesh.runtime.wire import Cut

#: Bytes of a head, with the interim answers before it (RFC 9110 section 15.2).
LARGEST_HEAD = 64 * 1024
_LONGEST_LINE = 16 * 1024
_HEAD_ENDS = re.compile(rb"\r?\n\r?\n")
_STATUS = re.compile(rb"HTTP/[0-9]{1,3}\.[0-9]{1,3} ([0-9]{3})(?: .*)?", re.DOTALL)
_SIZE = re.compile(rb"([0-9a-fA-F]{1,16})[ \t]*(?:;.*)?", re.DOTALL)
_LENGTH = re.compile(rb"[0-9]+")
#: Of a length: what has more is longer than anything.
_DIGITS = 18
_WITHOUT_BODY = (204, 304)


class AnswerTooLong(PkiError):
    """What is answered is more than is taken."""

    code = Code.NOT_SERVED


class NotHttp(Exception):
    """What comes is no answer."""


@define(eq=False)
class Answer:
    """One answer to one request; nothing may follow it. Raises :class:`NotHttp` for what is none."""

    limit: int
    """Bytes of a body."""
    address: str
    """Whose answer it is, for people."""
    status: int = field(default=0, init=False)
    headers: dict[str, str] = field(factory=dict, init=False)
    """By their names in lower case: of several the last."""
    body: bytearray = field(factory=bytearray, init=False)
    is_whole: bool = field(default=False, init=False)
    _heard: bytearray = field(factory=bytearray, init=False)
    """What is not understood yet."""
    _before: int = field(default=0, init=False)
    """Bytes of interim answers."""
    _left: int | None = field(default=None, init=False)
    """Of the body, or of the present chunk; None where the body goes on to the end."""
    _is_chunked: bool = field(default=False, init=False)
    _is_last: bool = field(default=False, init=False)
    """Whether the last chunk was there, and what is left is its trailer."""

    def feed(self, data: bytes) -> bool:
        """Whether it is whole. Raises :class:`AnswerTooLong` too, as soon as that is known."""
        self._heard += data
        while not self.status:
            if not self._read_head():
                return False
        if not self.is_whole:
            if self._is_chunked:
                self._read_chunks()
            else:
                self._read_plain()
        return self.is_whole

    @property
    def is_followed(self) -> bool:
        """Whether more came than the answer, so that what comes next on that connection would answer nothing."""
        return self.is_whole and bool(self._heard)

    def end(self) -> None:
        """Nothing more comes. Raises :class:`Cut` where it should."""
        if self.status and not self._is_chunked and self._left is None:
            self.is_whole = True
        if not self.is_whole:
            raise Cut

    def _read_head(self) -> bool:
        found = _HEAD_ENDS.search(self._heard)
        size = found.start() if found else len(self._heard)
        if self._before + size > LARGEST_HEAD:
            raise NotHttp
        if found is None:
            self._refuse_nonsense()
            return False
        first, *lines = bytes(self._heard[: found.start()]).split(b"\n")
        status = _status(first.removesuffix(b"\r"))
        if 100 <= status < 200:
            self._before += found.end()
            del self._heard[: found.end()]
            return True
        headers = _headers(lines)
        del self._heard[: found.end()]
        self.headers = {name: values[-1] for name, values in headers.items()}
        self.status = status
        self._expect_body(headers)
        return True

    def _refuse_nonsense(self) -> None:
        """What begins with no status line need not be waited for to its end."""
        first, newline, _ = bytes(self._heard[: _LONGEST_LINE + 1]).partition(b"\n")
        if newline:
            _status(first.removesuffix(b"\r"))
        elif len(first) > _LONGEST_LINE:
            raise NotHttp

    def _expect_body(self, headers: dict[str, list[str]]) -> None:
        if self.status in _WITHOUT_BODY:
            self.is_whole = True
            return
        codings, lengths = headers.get("transfer-encoding"), headers.get("content-length")
        if codings is not None:
            if [coding.lower() for coding in codings] != ["chunked"]:
                raise NotHttp
            self._is_chunked, self._left = True, 0
        elif lengths is not None:
            if len(lengths) > 1 or not _LENGTH.fullmatch(lengths[0].encode("latin-1")):
                raise NotHttp
            if len(lengths[0]) > _DIGITS or int(lengths[0]) > self.limit:
                raise self._too_long()
            self._left = int(lengths[0])
            self.is_whole = not self._left

    def _read_plain(self) -> None:
        if self._left is None:
            self._take(len(self._heard))
            return
        taken = min(self._left, len(self._heard))
        self._take(taken)
        self._left -= taken
        self.is_whole = not self._left

    def _read_chunks(self) -> None:
        while True:
            if self._left:
                # With the CRLF behind it (RFC 9112 section 7.1).
                taken = min(self._left - 2, len(self._heard))
                self._take(max(0, taken))
                self._left -= max(0, taken)
                if self._left > 2 or len(self._heard) < 2:
                    return
                if self._heard[:2] != b"\r\n":
                    raise NotHttp
                del self._heard[:2]
                self._left = 0
            line = self._line()
            if line is None:
                return
            if self._is_last:
                if not line:
                    self.is_whole = True
                    return
                continue
            size = _SIZE.fullmatch(line)
            if size is None:
                raise NotHttp
            length = int(size[1], 16)
            if not length:
                self._is_last = True
            else:
                self._left = length + 2

    def _line(self) -> bytes | None:
        end = self._heard.find(b"\r\n")
        if end > _LONGEST_LINE or (end < 0 and len(self._heard) > _LONGEST_LINE):
            raise NotHttp
        if end < 0:
            return None
        line = bytes(self._heard[:end])
        del self._heard[: end + 2]
        return line

    def _take(self, count: int) -> None:
        if len(self.body) + count > self.limit:
            raise self._too_long()
        self.body += self._heard[:count]
        del self._heard[:count]

    def _too_long(self) -> AnswerTooLong:
        return AnswerTooLong(f"{self.address} answers with more than {self.limit} bytes")


def _status(line: bytes) -> int:
    found = _STATUS.fullmatch(line)
    if found is None or len(line) > _LONGEST_LINE:
        raise NotHttp
    return int(found[1])


def _headers(lines: list[bytes]) -> dict[str, list[str]]:
    joined: list[bytes] = []
    for line in lines:
        if len(line) > _LONGEST_LINE:
            raise NotHttp
        if line[:1] in {b" ", b"\t"}:
            if not joined:
                raise NotHttp
            joined[-1] += line.removesuffix(b"\r")
        else:
            joined.append(line.removesuffix(b"\r"))
    headers: dict[str, list[str]] = {}
    for line in joined:
        name, colon, value = line.partition(b":")
        if not colon:
            raise NotHttp
        text = value.decode("latin-1").strip()
        headers.setdefault(name.decode("latin-1").lower(), []).append(text)
    return headers
