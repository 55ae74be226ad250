"""TLS for whoever is no member of the mesh: a certificate of a web CA, TLS 1.2 and up, and no client certificate.

It is for documents that are public and have to come from us, as a cloud fetches them. Nothing that is said on such a
connection proves who said it.
"""

import os
import stat
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from attrs import define, field
from cryptography import x509
from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLContextFactory, IProtocolFactory, IReactorTime
from twisted.protocols.tls import TLSMemoryBIOFactory
from zope.interface import implementer

from pki.errors import HOSTILE_INPUT, PkiError
from pki.keys import MemoryKey
from pki.svid.x509svid import X509Svid, is_certified, load_certificates, subject_of, validity_of
from pki.validity import rfc3339
from twisted_mesh.state.directory import StateError, read_file
from twisted_mesh.tls import groups
from twisted_mesh.tls.contexts import ContextFactory
from twisted_mesh.tls.private_key import use_key

_HTTP11 = b"http/1.1"
_READ_BY_ALL = stat.S_IROTH | stat.S_IWOTH


class BadWebCertificate(StateError):
    """The files are no certificate and key that a web server could show."""


@implementer(IOpenSSLContextFactory)
@define(eq=False)
class WebCertificate:
    """A certificate and its key, from files that another program keeps fresh."""

    certificate: Path
    key: Path
    option: str = "--oidc"
    """What it is for."""
    requires_pq: bool = False
    """Whether keys are exchanged by hybrid groups alone, and so by TLS 1.3."""
    _context: SSL.Context | None = field(default=None, init=False)
    _read: bytes = field(default=b"", init=False)

    def load(self, now: datetime) -> str:
        """Read both files; what has changed by that, or nothing. Raises :class:`StateError`: then nothing has."""
        chain = read_file(self.certificate, f"{self.option}-cert")
        pem = read_file(self.key, f"{self.option}-key")
        if os.stat(self.key).st_mode & _READ_BY_ALL:
            raise BadWebCertificate(f"{self.key} can be read by everybody: chmod o-rwx {self.key}")
        if chain + pem == self._read:
            return ""
        try:
            found = load_certificates(chain, str(self.certificate))
            key = MemoryKey.from_pem(pem)
            fits = is_certified(key, found[0])
            context = _context(found, key, self.requires_pq) if fits else None
        except _UNUSABLE as error:
            said = str(error) if isinstance(error, PkiError) else "OpenSSL does not take them"
            raise BadWebCertificate(
                f"{self.option}-cert {self.certificate} and {self.option}-key {self.key} cannot be used: {said}"
            ) from None
        if context is None:
            raise BadWebCertificate(
                f"{self.key} is not the key of the first certificate in {self.certificate}: name a pair, the server's "
                "own certificate first"
            )
        validity = validity_of(found[0])
        if not validity.contains(now):
            raise BadWebCertificate(
                f"the certificate in {self.certificate} is good from {rfc3339(validity.not_before)} to "
                f"{rfc3339(validity.not_after)}, and here it is {rfc3339(now)}: get a fresh one"
            )
        self._context, self._read = context, chain + pem
        return f"{subject_of(found[0])}, good until {rfc3339(validity.not_after)}"

    def getContext(self) -> SSL.Context:
        """Twisted's: the context of the moment."""
        if self._context is None:
            raise AssertionError("it is loaded before anybody connects")
        return self._context


@implementer(IOpenSSLContextFactory)
@define(eq=False)
class ShownSvid:
    """An endpoint's own SVID for whoever comes: nobody is asked for a certificate.

    SPIFFE Federation section 5.2.2 wants it so of a bundle endpoint. Before there is an SVID, and while it is
    withdrawn, nobody gets through the handshake.
    """

    contexts: ContextFactory
    """Whose SVID it is; and whether hybrid groups are required."""
    _of: X509Svid | None = field(default=None, init=False)
    _context: SSL.Context | None = field(default=None, init=False)

    def getContext(self) -> SSL.Context:
        """Twisted's: the context of the moment."""
        shown = self.contexts.shown if self.contexts.current() is not None else None
        if self._context is None or shown is not self._of:
            self._of = shown
            requires_pq = self.contexts.role.requires_pq
            self._context = (
                _nobody(requires_pq)
                if shown is None
                else _context(shown.chain, shown.key, requires_pq)
            )
        return self._context


def _context(chain: Sequence[x509.Certificate], key: MemoryKey, requires_pq: bool) -> SSL.Context:
    context = _nobody(requires_pq)
    context.use_certificate(chain[0])
    for certificate in chain[1:]:
        context.add_extra_chain_cert(certificate)
    use_key(context, key)
    context.check_privatekey()
    return context


def _nobody(requires_pq: bool) -> SSL.Context:
    """Without a certificate, which is shown to nobody. Raises :class:`~twisted_mesh.tls.groups.NoHybridGroup`."""
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.set_min_proto_version(SSL.TLS1_2_VERSION)
    if requires_pq:
        # Whoever comes shows no certificate, so that no callback looks which group it was.
        groups.insist(context, is_only_lock=True)
        context.set_min_proto_version(SSL.TLS1_3_VERSION)
    context.set_options(SSL.OP_NO_RENEGOTIATION | SSL.OP_NO_COMPRESSION | SSL.OP_NO_TICKET)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    # TLS 1.2 with forward secrecy and authenticated encryption only (RFC 9325 section 4.2).
    context.set_cipher_list(b"ECDHE+AESGCM:ECDHE+CHACHA20")
    context.set_alpn_select_callback(
        lambda _, offered: _HTTP11 if _HTTP11 in offered else SSL.NO_OVERLAPPING_PROTOCOLS
    )
    return context


#: What loading may raise.
_UNUSABLE: tuple[type[BaseException], ...] = (PkiError, SSL.Error, *HOSTILE_INPUT)


def over_web_tls(
    certificate: WebCertificate | ShownSvid, factory: IProtocolFactory, clock: IReactorTime
) -> IProtocolFactory:
    """``factory`` behind TLS with ``certificate``. Its own deadlines and bounds hold from the first byte on."""
    return TLSMemoryBIOFactory(certificate, False, factory, clock)
