"""The signer's own log: a line for all that may have been signed, each bound to the one before by a hash.

A line is on the disk before its signature is made, so that there is no signature without one. It may say more than was
signed, where the process ended in between; never less.
"""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO

import msgspec
from attrs import define, field, frozen

from pki.errors import Malformed
from twisted_mesh.signer.errors import SignerStateError
from twisted_mesh.state.directory import sync_directory

#: What the first line is bound to.
BEGINNING = "0" * 64
_LONGEST = 64 * 1024
_encode = msgspec.json.Encoder(order="sorted").encode


class Line(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One line, as canonical JSON."""

    seq: int
    at: str
    batch: int
    """What is remembered of the lines of one batch was committed together, or is not and nothing of it was signed."""
    event: str
    """``sign``, ``refuse``, ``key``, ``approve``, ``adopt`` or ``start``."""
    key: str
    kind: str
    """What was to be signed."""
    sha256: str
    """Of that, in hex."""
    by: str
    """Who asked: ``uid:1000``, ``pin:sha256/…``, ``person:uid:0``."""
    facts: dict[str, str | int]
    before: str
    """The SHA-256 of the line before, without its end."""

    def to_bytes(self) -> bytes:
        """Without its end."""
        return _encode(self)


_decode = msgspec.json.Decoder(Line).decode


@frozen
class Said:
    """What a line says, before it has its place."""

    at: str
    event: str
    key: str = ""
    kind: str = ""
    sha256: str = ""
    by: str = ""
    facts: Mapping[str, str | int] = field(factory=dict)


@frozen
class End:
    """Where a log ends."""

    seq: int = 0
    digest: str = BEGINNING
    batch: int = 0
    size: int = 0
    """In bytes."""

    def followed_by(self, line: Line, data: bytes) -> "End":
        """With one more line, which is ``data`` without its end."""
        return End(line.seq, sha256(data).hexdigest(), line.batch, self.size + len(data) + 1)


class DamagedLog(Malformed):
    """A line that is not what was written, or not where."""


def parse_line(data: bytes) -> Line:
    """Raises :class:`DamagedLog` for whatever :meth:`Line.to_bytes` would not have written."""
    try:
        line = _decode(data)
    except (ValueError, RecursionError, msgspec.DecodeError):
        raise DamagedLog("it is no line of a signer's log") from None
    if line.to_bytes() != data:
        raise DamagedLog("it is not written as this program writes it")
    return line


def verified(lines: Iterable[bytes], end: End = End()) -> Iterator[tuple[Line, End]]:
    """Each line, and where the log ends with it. Raises :class:`DamagedLog`, which says at which line."""
    for number, data in enumerate(lines, end.seq + 1):
        try:
            line = parse_line(data)
            if line.seq != number:
                raise DamagedLog(f"it says that it is line {line.seq}")
            if line.before != end.digest:
                raise DamagedLog("it does not follow the line before: one was changed or taken out")
            if not end.batch <= line.batch <= end.batch + 1:
                raise DamagedLog("it is of a batch that does not follow the one before")
        except DamagedLog as error:
            raise DamagedLog(f"line {number}: {error}") from None
        end = end.followed_by(line, data)
        yield line, end


def lines_of(file: BinaryIO) -> Iterator[bytes]:
    """The lines of a file that are whole, without their ends."""
    while data := file.readline(_LONGEST + 1):
        if not data.endswith(b"\n"):
            if len(data) > _LONGEST:
                raise DamagedLog("a line is too long")
            return
        yield data[:-1]


def _ends_so(file: BinaryIO, end: End) -> bool:
    """Whether a file has that line there."""
    if end == End():
        return True
    begin = max(0, end.size - _LONGEST - 2)
    file.seek(begin)
    tail = file.read(end.size - begin)
    lines = tail.rsplit(b"\n", 2)
    return (
        len(tail) == end.size - begin
        and not lines[-1]
        and sha256(lines[-2]).hexdigest() == end.digest
    )


@define(eq=False)
class SigningLog:
    """The log of one signer, open to be added to. Used in one thread at a time."""

    path: Path
    end: End = field(factory=End, init=False)
    _file: BinaryIO | None = field(default=None, init=False)
    _is_broken: bool = field(default=False, init=False)

    def open(self, known: End) -> None:
        """Hold it against what the record knows of its end: ``mesh-signer log verify`` reads all that is before that.

        What goes on for one batch after that was written and never signed: the process ended in between. A torn last
        line is cut off. Raises :class:`SignerStateError`.
        """
        try:
            self._read(known)
        except DamagedLog as error:
            self.close()
            raise SignerStateError(f"{self.path}, {error}: bring it back from a backup") from None
        except OSError as error:
            self.close()
            raise SignerStateError(f"{self.path} cannot be used ({error.strerror})") from None
        except SignerStateError:
            self.close()
            raise

    def _read(self, known: End) -> None:
        descriptor = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._file = os.fdopen(descriptor, "r+b", buffering=0)
        sync_directory(self.path.parent)
        self.end = known
        with self.path.open("rb") as reading:
            if not _ends_so(reading, known):
                raise SignerStateError(
                    f"{self.path} does not hold line {known.seq}, which the record remembers: it was cut or replaced. "
                    "Bring back the one that belongs to this record"
                )
            reading.seek(known.size)
            for line, end in verified(lines_of(reading), known):
                if line.batch > known.batch + 1:
                    raise SignerStateError(
                        f"{self.path} goes on for more than one batch after what the record remembers: the record was "
                        "put back by an older one, and would let a list shrink. Bring back the one that belongs to "
                        "this log"
                    )
                self.end = end
        os.ftruncate(self._file.fileno(), self.end.size)

    def append(self, said: Sequence[Said], batch: int) -> None:
        """Write a batch, and have it on the disk. Raises :class:`SignerStateError`: then nothing of it is there."""
        file = self._file
        if file is None or self._is_broken:
            raise SignerStateError(
                f"{self.path} could not be written, and what is on the disk is not known: start the signer again"
            )
        end, written = self.end, bytearray()
        for one in said:
            line = Line(
                end.seq + 1,
                one.at,
                batch,
                one.event,
                one.key,
                one.kind,
                one.sha256,
                one.by,
                dict(one.facts),
                end.digest,
            )
            data = line.to_bytes()
            if len(data) > _LONGEST:
                raise SignerStateError("a line of the signer's log would be too long")
            written += data + b"\n"
            end = end.followed_by(line, data)
        size = self.end.size
        try:
            view = memoryview(bytes(written))
            while view:
                view = view[os.write(file.fileno(), view) :]
            os.fdatasync(file.fileno())
        except OSError as error:
            self._take_back(file, size)
            raise SignerStateError(
                f"{self.path} cannot be written ({error.strerror}): nothing was signed; free some space"
            ) from None
        self.end = end

    def close(self) -> None:
        """May be said again."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _take_back(self, file: BinaryIO, size: int) -> None:
        try:
            os.ftruncate(file.fileno(), size)
            os.fdatasync(file.fileno())
        except OSError:
            self._is_broken = True
