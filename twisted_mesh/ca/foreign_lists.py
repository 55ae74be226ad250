"""The lists of another trust domain as they are read: with the certificates of its issuing CAs, which no bundle has."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from hashlib import sha256
from pathlib import Path

from attrs import define, field
from cryptography import x509
from twisted.internet.threads import deferToThread

from pki.der import blocks
from pki.errors import HOSTILE_INPUT, PkiError
from pki.ocsp.evidence import lists_from
from pki.pem import is_pem
from pki.svid.path import issued_by
from pki.svid.revocation_set import Revocation, RevocationSet
from pki.svid.x509svid import extension, validity_of
from twisted_mesh.http.fetch import Fetcher
from twisted_mesh.interfaces import IReactor
from twisted_mesh.revocation.crl_numbers import SeenCrlNumbers
from twisted_mesh.revocation.crl_source import Content, CrlSource, content_of
from twisted_mesh.revocation.crl_watch import CrlWatch
from twisted_mesh.runtime.clock import Now
from twisted_mesh.runtime.log import logger
from twisted_mesh.runtime.tasks import Defer
from twisted_mesh.state.directory import write_whole
from twisted_mesh.state.private import make_private_in_state, read_private

_log = logger("federation")

#: Bytes of a list, with the certificates that come along with it.
LARGEST_LISTS = 2 * 1024 * 1024
#: Seconds for one question for a list.
_TIMEOUT = 60.0
#: Issuing CAs that may have lists at one URL.
_MOST_ISSUERS = 64


@define(eq=False, repr=False)
class ListWatches:
    """Makes what follows the lists of one trust domain; see :class:`twisted_mesh.ca.foreign_crls.MakeWatch`."""

    reactor: IReactor
    now: Now
    numbers: SeenCrlNumbers
    directory: Path | None = None
    """Where the last good lists are kept for the next start; None for a CA that keeps nothing."""
    defer: Defer = deferToThread

    def watch_of(
        self,
        url: str,
        revoke: Callable[[Sequence[Revocation]], None],
        known: Callable[[], RevocationSet],
        roots: Callable[[], Sequence[x509.Certificate]],
    ) -> CrlWatch:
        """It begins to follow once it is told to."""

        def content(source: CrlSource, fetcher: Fetcher, defer: Defer) -> Content:
            found = content_of(source, fetcher, defer, LARGEST_LISTS)
            kept = None if self.directory is None else self.directory / f"{_digest(url)}.pem"
            return _WithIssuers(found, roots, watch.know, self.now, defer, kept)

        watch = CrlWatch(
            [CrlSource.parse(url)],
            (),
            Fetcher(self.reactor, _TIMEOUT),
            self.reactor,
            self.now,
            _log,
            revoke,
            known,
            self.numbers,
            self.defer,
            content_of=content,
        )
        return watch


@define(eq=False, repr=False)
class _WithIssuers:
    """Lists that come with the certificates of their issuing CAs."""

    content: Content
    roots: Callable[[], Sequence[x509.Certificate]]
    learn: Callable[[Sequence[x509.Certificate]], None]
    now: Now
    defer: Defer
    kept: Path | None = None
    """The last good ones, for a start at which nobody answers."""
    _is_first: bool = field(default=True, init=False)

    async def fetch(self) -> bytes | None:
        """All of it; None where it has not changed. Raises :class:`PkiError`."""
        is_first, self._is_first = self._is_first, False
        try:
            data = await self.content.fetch()
        except PkiError:
            data = await self.defer(_recalled, self.kept) if is_first else None
            if data is None:
                raise
        if data is not None:
            self.learn(await self.defer(_taken, data, self.roots(), self.now(), self.kept))
        return data

    def forget(self) -> None:
        """Have it all the next time."""
        self.content.forget()


def _taken(
    data: bytes, roots: Sequence[x509.Certificate], now: datetime, kept: Path | None
) -> tuple[x509.Certificate, ...]:
    """The issuers in it; kept for the next start where its lists are good. What cannot be kept is done without."""
    issuers = issuers_in(data, roots, now)
    if kept is not None:
        with suppress(PkiError, OSError):
            lists_from(data, (*issuers, *roots), now, seen={}, known=RevocationSet())
            make_private_in_state(kept.parent)
            write_whole(kept, data, 0o600)
    return issuers


def _recalled(kept: Path | None) -> bytes | None:
    """What was kept; None where nothing was, or it cannot be used."""
    if kept is None or not kept.exists():
        return None
    with suppress(PkiError, OSError):
        return read_private(kept)
    return None


def _digest(url: str) -> str:
    return sha256(url.encode()).hexdigest()[:16]


def issuers_in(
    data: bytes, roots: Sequence[x509.Certificate], now: datetime
) -> tuple[x509.Certificate, ...]:
    """The issuing CAs whose certificates stand in a PEM file, as far as one of ``roots`` has certified them.

    Whatever else is in it is passed over.
    """
    if not is_pem(data):
        return ()
    try:
        ders = [block.der for block in blocks(data) if block.label == "CERTIFICATE"]
    except PkiError:
        return ()
    found = []
    for der in ders[:_MOST_ISSUERS]:
        try:
            cert = x509.load_der_x509_certificate(der)
            constraints = extension(cert, x509.BasicConstraints)
            is_ca = constraints is not None and constraints.ca
            if is_ca and validity_of(cert).contains(now) and any(issued_by(cert, r) for r in roots):
                found.append(cert)
        except HOSTILE_INPUT:
            continue
    return tuple(found)
