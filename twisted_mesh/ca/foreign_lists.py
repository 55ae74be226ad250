"""The lists of another trust domain as they are read: with the certificates of its issuing CAs, which no bundle has."""

from collections.abc import Callable, Sequence
from datetime import datetime

from attrs import define
from cryptography import x509
from twisted.internet.threads import deferToThread

from pki.der import blocks
from pki.errors import HOSTILE_INPUT, PkiError
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
            return _WithIssuers(found, roots, watch.know, self.now, defer)

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

    async def fetch(self) -> bytes | None:
        """All of it; None where it has not changed. Raises :class:`PkiError`."""
        data = await self.content.fetch()
        if data is not None:
            self.learn(await self.defer(issuers_in, data, self.roots(), self.now()))
        return data

    def forget(self) -> None:
        """Have it all the next time."""
        self.content.forget()


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
