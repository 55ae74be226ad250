"""The archive: a tar of plain files, the first of which says what the others must be.

It is read as if a stranger had written it: only regular files, only names that a CA has, no more bytes
than the archive itself has, and each file's SHA-256 is compared.
"""

import hashlib
import os
import re
import stat
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import IO

import msgspec
from attrs import define, frozen

from pki.codes import Code
from pki.errors import PkiError, discreet
from pki.validity import parse_rfc3339
from twisted_mesh.state.directory import StateError, writing_whole

FORMAT = 4
#: In those of the first format there is no CRL, in those of the second no signature, in those of the third one root.
_READABLE = (1, 2, 3, 4)
_SIGNED_FROM = 3
DATABASE = "ca/mesh.db"
ROOT = "ca/root.crt"
ISSUING = "ca/issuing.crt"
ISSUING_KEY = "ca/private/issuing.key"
ROOTS = "ca/roots.json"
REVOKED = "ca/revoked-authorities.json"
BETWEEN = "ca/between.crt"
#: Of each root.
ROOT_CRL = re.compile(r"ca/root(?:-(?:0|[1-9][0-9]{0,8}))?\.crl", re.ASCII)
ROOT_KEY = re.compile(r"ca/private/(root(?:-[1-9][0-9]{0,8})?)\.key", re.ASCII)
_MANIFEST = "manifest.json"
_SIGNATURE = "manifest.sig"
NAME = re.compile(
    r"ca/(?:[a-z0-9][a-z0-9-]{0,60}\.crt|root(?:-(?:0|[1-9][0-9]{0,8}))?\.crl|roots\.json|revoked-authorities\.json"
    r"|private/[a-z0-9][a-z0-9-]{0,60}\.key|mesh\.db)",
    re.ASCII,
)
#: People are shown these: nothing else than what we write is in them.
_VERSION = re.compile(r"[0-9A-Za-z.+-]{1,60}", re.ASCII)
_DIGEST = re.compile(r"[0-9a-f]{64}", re.ASCII)
_LARGEST_MANIFEST = 1024 * 1024
#: Of everything but the database. A root of a post-quantum key takes 10 KiB in PEM, and there may be a line of them.
_LARGEST_FILE = 256 * 1024
_CHUNK = 1024 * 1024


class BadBackup(PkiError):
    """The file is no backup of a CA, or a damaged one."""

    code = Code.BAD_BACKUP


class _Format(msgspec.Struct):
    format: int


class Member(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file of the archive."""

    name: str
    size: int
    sha256: str


class Signature(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Beside the manifest: what the CA says of it, see :mod:`twisted_mesh.ca.saved_state`."""

    log_key: str
    """What verifies the CA's audit log (C2SP signed-note); empty where there is none. It is signed along."""
    signature: str
    """The issuing CA's, in base64."""


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What an archive holds, and of which CA."""

    format: int
    created_at: str
    version: str
    """Of the program that made it."""
    root: str
    """SHA-256 of the root's certificate."""
    store: str
    """The id of the record."""
    certificates: int
    revoked: int
    checkpoint: str | None
    """The audit log's latest checkpoint, a signed note."""
    log_size: int
    encrypted: list[str]
    """Those of the keys that are encrypted."""
    members: list[Member]
    elsewhere: list[str] = []
    """Those of the key files that only say where their key is; none in archives of earlier versions."""

    @property
    def keys(self) -> list[str]:
        """The names of the key files."""
        return [m.name for m in self.members if m.name.endswith(".key")]

    @property
    def plain_keys(self) -> list[str]:
        """Those of the key files that are not encrypted."""
        return [n for n in self.keys if n not in self.encrypted and n not in self.elsewhere]

    @property
    def sha256(self) -> str:
        """Identifies the archive: the manifest has the digest of all the rest."""
        return hashlib.sha256(self.to_bytes()).hexdigest()

    @property
    def digest(self) -> str:
        """What is signed. A manifest that is written otherwise than :meth:`to_bytes` does is no signed one."""
        return self.sha256

    def to_bytes(self) -> bytes:
        """As it is in the archive."""
        return msgspec.json.encode(self)


@frozen
class Source:
    """A file that goes into an archive: from memory, or a large one from the disk."""

    member: Member
    content: bytes | Path

    @classmethod
    def of_bytes(cls, name: str, data: bytes) -> "Source":
        """A file whose content is in memory."""
        return cls(Member(name, len(data), hashlib.sha256(data).hexdigest()), data)

    def open(self) -> IO[bytes]:
        """Its bytes, from the first one on."""
        if isinstance(self.content, Path):
            return self.content.open("rb")
        return BytesIO(self.content)

    @classmethod
    def of_file(cls, name: str, path: Path) -> "Source":
        """A file on the disk, read once for its digest. Raises :class:`OSError`."""
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return cls(Member(name, path.stat().st_size, digest), path)


def write(
    path: Path,
    manifest: Manifest,
    sources: Mapping[str, Source],
    mtime: int,
    signature: Signature | None = None,
) -> None:
    """Write the archive whole, for its owner alone. Raises :class:`StateError`."""
    heads = [Source.of_bytes(_MANIFEST, manifest.to_bytes())]
    if signature is not None:
        heads.append(Source.of_bytes(_SIGNATURE, msgspec.json.encode(signature)))
    with (
        writing_whole(path, 0o600) as file,
        tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT) as tar,
    ):
        for source in (*heads, *(sources[member.name] for member in manifest.members)):
            header = tarfile.TarInfo(source.member.name)
            header.size, header.mtime, header.mode = source.member.size, mtime, 0o600
            with source.open() as content:
                tar.addfile(header, content)


@define(eq=False)
class Archive:
    """An archive that is being read: its manifest at once, the rest in one pass."""

    path: Path
    manifest: Manifest
    signature: Signature | None
    """What it is signed by; None where it is not, as none was before the third format."""
    _file: IO[bytes]

    @classmethod
    def open(cls, path: Path) -> "Archive":
        """Raises :class:`BadBackup`, and :class:`StateError` for a file that cannot be read."""
        try:
            # Not to be kept waiting by a pipe that somebody has put in its place.
            file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
        except OSError as error:
            raise StateError(f"the backup {path} cannot be read ({error.strerror})") from None
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            file.close()
            raise StateError(f"the backup {path} is no regular file: name the archive itself")
        try:
            with _telling(path):
                manifest, data = _manifest(file)
                signature = _signature(file, manifest, data)
                return cls(path, manifest, signature, file)
        except BaseException:
            file.close()
            raise

    def read(self, directory: Path | None = None) -> dict[str, bytes]:
        """Compare every file with the manifest, and write it below ``directory``, if there is one.

        The certificates that a signature is held against are given back.

        Raises :class:`BadBackup`, and :class:`StateError` where ``directory`` cannot be written.
        """
        chain = {}
        with _telling(self.path):
            for member in self.manifest.members:
                header = _header(self._file)
                if header is None or (header.name, header.size) != (member.name, member.size):
                    raise BadBackup(f"{member.name} is not where the manifest has it")
                data = _copy(self._file, member, directory)
                if member.name in (ROOT, ISSUING):
                    chain[member.name] = data
            if _header(self._file) is not None:
                raise BadBackup("it holds more than its manifest says")
        return chain

    def close(self) -> None:
        """Close the file; what was read from it stays."""
        self._file.close()


@contextmanager
def _telling(path: Path) -> Iterator[None]:
    try:
        yield
    except BadBackup as error:
        raise BadBackup(
            f"{path} is no backup of a CA, or a damaged one ({error}): use another one"
        ) from None
    except OSError as error:
        raise StateError(f"the backup {path} cannot be read ({error.strerror})") from None


def _header(file: IO[bytes]) -> tarfile.TarInfo | None:
    """The next file's header; None at the end. Only plain files: no links, no devices, nothing sparse."""
    block = file.read(tarfile.BLOCKSIZE)
    if block == bytes(tarfile.BLOCKSIZE):
        return None
    try:
        header = tarfile.TarInfo.frombuf(block, "ascii", "strict")
    except (tarfile.HeaderError, ValueError, OverflowError):
        raise BadBackup("it is no tar archive, or is cut short") from None
    if header.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or header.size < 0:
        raise BadBackup(f"{discreet(header.name, 60)!r} is something else than a plain file")
    return header


def _signature(file: IO[bytes], manifest: Manifest, data: bytes) -> Signature | None:
    """The next file, if it is a signature; else the archive is not signed."""
    if manifest.format < _SIGNED_FROM:
        return None
    start = file.tell()
    header = _header(file)
    if header is None or header.name != _SIGNATURE:
        file.seek(start)
        return None
    if header.size > _LARGEST_FILE:
        raise BadBackup("its signature is larger than it can be")
    try:
        signature = msgspec.json.decode(b"".join(_content(file, header.size)), type=Signature)
    except (msgspec.DecodeError, msgspec.ValidationError, RecursionError, ValueError):
        raise BadBackup("its signature is damaged") from None
    if data != manifest.to_bytes():
        raise BadBackup("its manifest is not written as it was signed")
    return signature


def _manifest(file: IO[bytes]) -> tuple[Manifest, bytes]:
    header = _header(file)
    if header is None or header.name != _MANIFEST or header.size > _LARGEST_MANIFEST:
        raise BadBackup("its first file is not the manifest")
    data = b"".join(_content(file, header.size))
    try:
        format_ = msgspec.json.decode(data, type=_Format).format
        if format_ not in _READABLE:
            raise BadBackup(f"it is of format {format_}, and this program reads {FORMAT}")
        manifest = msgspec.json.decode(data, type=Manifest)
    except (msgspec.DecodeError, msgspec.ValidationError, RecursionError, ValueError):
        raise BadBackup("its manifest is damaged") from None
    _demand_sound(manifest, os.fstat(file.fileno()).st_size)
    return manifest, data


def _demand_sound(manifest: Manifest, room: int) -> None:
    try:
        parse_rfc3339(manifest.created_at)
    except PkiError:
        raise BadBackup("its manifest does not say when it was made") from None
    if not (_VERSION.fullmatch(manifest.version) and _DIGEST.fullmatch(manifest.root)):
        raise BadBackup("its manifest does not say by which version it was made, or of which root")
    names = [member.name for member in manifest.members]
    for name in names:
        if not NAME.fullmatch(name):
            raise BadBackup(f"{discreet(name, 60)!r} is no file of a CA")
    if len(set(names)) != len(names) or not {ROOT, DATABASE} <= set(names):
        raise BadBackup("its manifest has a file twice, or lacks the root or the record")
    for member in manifest.members:
        most = room if member.name == DATABASE else _LARGEST_FILE
        if not 0 <= member.size <= most:
            raise BadBackup(f"{member.name} is larger than it can be")


def _content(file: IO[bytes], size: int) -> Iterator[bytes]:
    """So many bytes, and what pads them to whole blocks."""
    left = size
    while left:
        chunk = file.read(min(left, _CHUNK))
        if not chunk:
            raise BadBackup("it is cut short")
        left -= len(chunk)
        yield chunk
    file.read(-size % tarfile.BLOCKSIZE)


def _copy(file: IO[bytes], member: Member, directory: Path | None) -> bytes:
    """The file's content, unless it is the database, which may be large."""
    digest, kept = hashlib.sha256(), bytearray()

    def content() -> Iterator[bytes]:
        for chunk in _content(file, member.size):
            digest.update(chunk)
            if member.name != DATABASE:
                kept.extend(chunk)
            yield chunk

    if directory is None:
        for _ in content():
            pass
    else:
        path = directory / member.name
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with writing_whole(path, 0o600) as target:
            target.writelines(content())
    if digest.hexdigest() != member.sha256:
        raise BadBackup(f"{member.name} is not what was saved")
    return bytes(kept)
