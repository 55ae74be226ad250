"""Where CRLs come from: files that are looked at, and URLs that are asked, again and again."""

import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote

from attrs import define, field, frozen
from cryptography import x509

from pki.crl.crl import MAX_CRL_SIZE
from pki.errors import Malformed, discreet, printable
from pki.svid.x509svid import load_certificates
from twisted_mesh.http.fetch import Download, Fetcher, HttpUrl
from twisted_mesh.runtime.tasks import Defer
from twisted_mesh.state.directory import StateError, read_file
from twisted_mesh.state.reading import why_not


@frozen
class CrlSource:
    """``--crl``: a file, or an ``http:`` URL."""

    text: str
    path: Path | None = None
    url: HttpUrl | None = None

    @classmethod
    def parse(cls, text: str) -> "CrlSource":
        """Raises :class:`Malformed`."""
        scheme, colon, name = text.partition(":")
        if scheme.lower() in ("http", "https") and colon:
            return cls(text, url=HttpUrl.parse(text, "--crl"))
        if scheme.lower() == "file" and colon:
            name = _file_name(name, text)
        elif "://" in text:
            raise Malformed(
                f"--crl {discreet(text, 100)} is neither a file nor an http: or file: URL"
            )
        else:
            name = text
        if not name or "\0" in name:
            raise Malformed(f"--crl {discreet(text, 100)!r} names no file")
        return cls(text, path=Path(name))

    def __str__(self) -> str:
        return printable(self.text, 200)


def _file_name(rest: str, text: str) -> str:
    """The path in a ``file:`` URL (RFC 8089): one of this machine."""
    if rest.startswith("//"):
        host, slash, path = rest[2:].partition("/")
        if host not in ("", "localhost"):
            raise Malformed(f"--crl {printable(text, 100)} is a file of another machine")
        rest = slash + path
    return unquote(rest)


def crl_issuers(files: Iterable[str]) -> tuple[x509.Certificate, ...]:
    """``--crl-issuer``: CAs whose CRLs may come. Raises :class:`pki.errors.PkiError`."""
    return tuple(
        certificate
        for name in files
        for certificate in load_certificates(
            read_file(Path(name), "--crl-issuer"), f"--crl-issuer {printable(name, 200)}"
        )
    )


class Content(Protocol):
    """What a source of CRLs has to say."""

    async def fetch(self) -> bytes | None:
        """All of it; None if it is what came the last time. Raises :class:`pki.errors.PkiError`."""

    def forget(self) -> None:
        """Have it all the next time, whether it has changed or not."""


@define(eq=False, repr=False)
class FileContent:
    """A file, read on a thread when it is another one than before."""

    path: Path
    defer: Defer
    _stamp: tuple[int, ...] | None = field(default=None, init=False)

    async def fetch(self) -> bytes | None:
        """All of it; None while it is the same file. Raises :class:`StateError`."""
        self._stamp, data = await self.defer(_read, self.path, self._stamp)
        return data

    def forget(self) -> None:
        """Read it the next time, whether it is another one or not."""
        self._stamp = None


def _read(path: Path, before: tuple[int, ...] | None) -> tuple[tuple[int, ...], bytes | None]:
    try:
        if before is not None and _stamp(path.stat()) == before:
            return before, None
        # A pipe without a writer would hold the thread for ever.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise StateError(f"--crl {path} is no file that can be read again and again")
            return _stamp(found), file.read(MAX_CRL_SIZE + 1)
    except OSError as error:
        raise StateError(f"--crl {path} cannot be read ({why_not(path, error)})") from None


def _stamp(found: os.stat_result) -> tuple[int, ...]:
    return found.st_mtime_ns, found.st_size, found.st_ino, found.st_dev


def content_of(
    source: CrlSource, fetcher: Fetcher, defer: Defer, limit: int = MAX_CRL_SIZE
) -> Content:
    """What ``source`` has to say: ``fetcher`` asks URLs, for ``limit`` bytes, and files are read by ``defer``."""
    if source.url is not None:
        return Download(fetcher, source.url, limit)
    return FileContent(source.path or Path(), defer)
