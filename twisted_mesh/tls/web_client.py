"""TLS to servers that are no members of the mesh: judged by the web's CAs and the host's name, TLS 1.2 and up.

For federated bundles by ``https_web`` (SPIFFE Federation section 5.2.1.4), and for logs. We show no certificate, or one
that only carries a key which is pinned there. What keeps a web CA's certificate from being believed is OpenSSL's to
say, and never waived; the host name is ours (RFC 9525).
"""

from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

from attrs import define, field
from cryptography import x509
from OpenSSL import SSL, crypto
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IOpenSSLClientConnectionCreator,
    IProtocol,
    IProtocolFactory,
    IReactorTime,
    IStreamClientEndpoint,
)
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from zope.interface import implementer

from pki.errors import ANY_ERROR, Problem
from twisted_mesh.runtime.log import logger
from twisted_mesh.tls import groups
from twisted_mesh.tls.hostname import hostname_problem
from twisted_mesh.tls.private_key import use_key
from twisted_mesh.tls.self_signed import SelfSigned
from twisted_mesh.tls.verify import openssl_problem

_log = logger("tls")
#: Seconds after which the machine's CAs are read again: an update may have taken one away.
_READ_AGAIN = 3600.0


@define(eq=False)
class WebTrust:
    """The CAs that the web is believed by, as OpenSSL holds them."""

    clock: IReactorTime
    roots: Sequence[x509.Certificate] | None = None
    """None for those that this machine believes."""
    requires_pq: bool = False
    """Whether keys are exchanged by hybrid groups alone, and so by TLS 1.3."""
    own: SelfSigned | None = None
    """What we show where we are asked for a certificate."""
    _context: SSL.Context | None = field(default=None, init=False)
    _built_at: float = field(default=0.0, init=False)
    _visits: "WeakKeyDictionary[SSL.Connection, WebVisit]" = field(
        factory=WeakKeyDictionary, init=False
    )

    def connection(self, visit: "WebVisit") -> SSL.Connection:
        """A new one, which verifies the server for ``visit``."""
        now = self.clock.seconds()
        if self._context is None or not self._built_at <= now < self._built_at + _READ_AGAIN:
            self._context, self._built_at = self._built(), now
        connection = SSL.Connection(self._context, None)
        self._visits[connection] = visit
        return connection

    def _built(self) -> SSL.Context:
        context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        context.set_min_proto_version(SSL.TLS1_2_VERSION)
        if self.requires_pq:
            groups.insist(context)
            context.set_min_proto_version(SSL.TLS1_3_VERSION)
        context.set_options(SSL.OP_NO_RENEGOTIATION | SSL.OP_NO_COMPRESSION | SSL.OP_NO_TICKET)
        context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
        # TLS 1.2 with forward secrecy and authenticated encryption only (RFC 9325 section 4.2).
        context.set_cipher_list(b"ECDHE+AESGCM:ECDHE+CHACHA20")
        context.set_alpn_protos([b"http/1.1"])
        if self.own is not None:
            context.use_certificate(self.own.certificate)
            use_key(context, self.own.key)
        if self.roots is None:
            context.set_default_verify_paths()
        elif (store := context.get_cert_store()) is not None:
            for root in self.roots:
                store.add_cert(crypto.X509.from_cryptography(root))
        context.set_verify(SSL.VERIFY_PEER, self._verify)
        return context

    def _verify(
        self, connection: SSL.Connection, cert: crypto.X509, errno: int, depth: int, ok: int
    ) -> bool:
        try:
            visit = self._visits[connection]
            if self.requires_pq and (classical := groups.objection(connection)) is not None:
                visit.problem = classical
                return False
            if not ok:
                visit.problem = openssl_problem(errno)
            elif depth == 0:
                visit.problem = hostname_problem(cert.to_cryptography(), visit.host)
            return bool(ok) and visit.problem is None
        except ANY_ERROR:
            _log.failure("the verify callback broke; the server is refused", event="verify-broke")
            return False


@implementer(IOpenSSLClientConnectionCreator)
@define(eq=False)
class WebVisit:
    """One connection to a server of the web."""

    trust: WebTrust
    host: str
    """What its certificate must be for: a DNS name or an IP address."""
    server_name: str | None
    """For SNI; None for an IP address."""
    problem: Problem | None = field(default=None, init=False)
    """Why its certificate was refused."""

    def clientConnectionForTLS(self, protocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        """Twisted's: what is to shake hands."""
        connection = self.trust.connection(self)
        if self.server_name is not None:
            connection.set_tlsext_host_name(self.server_name.encode("ascii"))
        return connection


@implementer(IStreamClientEndpoint)
@define(eq=False)
class WebClientEndpoint:
    """Connects by ``endpoint``, and speaks TLS there.

    Nothing is sent before the server is verified. That it was refused shows when the connection is lost; :attr:`visit`
    has the reason.
    """

    endpoint: IStreamClientEndpoint
    visit: WebVisit
    clock: IReactorTime

    def connect(self, factory: IProtocolFactory) -> "Deferred[IProtocol]":
        """See :class:`IStreamClientEndpoint`. Fires once TCP is connected."""
        wrapped = TLSMemoryBIOFactory(self.visit, True, factory, self.clock)
        wrapped.noisy = False
        connecting: Deferred[Any] = self.endpoint.connect(wrapped)
        return connecting.addCallback(lambda tls: tls.wrappedProtocol)
