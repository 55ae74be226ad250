"""TLS 1.3 to a signer, where each side is its key and nothing else: no names, no dates, no authority.

Both know the other by the SHA-256 of its SubjectPublicKeyInfo; the certificates are what TLS carries keys in (as raw
public keys would be, RFC 7250). Their dates mean nothing here: whoever is not to be believed any more is unpinned.
"""

from collections.abc import Collection
from datetime import UTC, datetime, timedelta
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

from pki.codes import Code
from pki.errors import ANY_ERROR, Problem
from pki.keys import MemoryKey, spki_der
from pki.svid.spki_pin import SpkiHash
from twisted_mesh.runtime.log import logger
from twisted_mesh.tls import groups
from twisted_mesh.tls.private_key import use_key

_log = logger("signer")
#: What has no end of its own (RFC 5280 section 4.1.2.5).
_NO_END = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
_EARLIER = timedelta(days=1)


def self_signed(key: MemoryKey, name: str, now: datetime) -> x509.Certificate:
    """A certificate for a key that is known by its pin: the name is for people."""
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _EARLIER)
        .not_valid_after(_NO_END)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    )
    return builder.sign(key.private_key, key.algorithm.hash)


def pin_of(key: MemoryKey) -> SpkiHash:
    """By what the other side knows the key."""
    return SpkiHash.of_spki(spki_der(key.public_key))


@define(eq=False, repr=False)
class PinnedTls:
    """What a client shows, and the keys of which the server must have one."""

    key: MemoryKey
    certificate: x509.Certificate
    pins: Collection[SpkiHash]
    requires_pq: bool = False
    """Whether keys are exchanged by hybrid groups alone."""
    _context: SSL.Context | None = field(default=None, init=False)
    _visits: "WeakKeyDictionary[SSL.Connection, PinnedVisit]" = field(
        factory=WeakKeyDictionary, init=False
    )

    @property
    def own_pin(self) -> SpkiHash:
        """What the signer is to be told of us."""
        return pin_of(self.key)

    def connection(self, visit: "PinnedVisit") -> SSL.Connection:
        """A new one, which finds out for ``visit`` who is there."""
        if self._context is None:
            self._context = self._built()
        connection = SSL.Connection(self._context, None)
        self._visits[connection] = visit
        return connection

    def _built(self) -> SSL.Context:
        context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        context.set_min_proto_version(SSL.TLS1_3_VERSION)
        context.set_max_proto_version(SSL.TLS1_3_VERSION)
        if self.requires_pq:
            groups.insist(context)
        # A resumed session would skip the callback: each alone still resumes.
        context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
        context.set_options(SSL.OP_NO_TICKET)
        context.set_alpn_protos([b"http/1.1"])
        context.use_certificate(self.certificate)
        use_key(context, self.key)
        context.check_privatekey()
        context.set_verify(SSL.VERIFY_PEER, self._verify)
        return context

    def _verify(
        self, connection: SSL.Connection, cert: crypto.X509, errno: int, depth: int, ok: int
    ) -> bool:
        """Whether the certificate's key is pinned, whatever OpenSSL thinks of the rest.

        What stands above it proves nothing here, and is passed over: the last call is about the leaf.
        """
        try:
            visit = self._visits[connection]
            if self.requires_pq and (classical := groups.objection(connection)) is not None:
                visit.problem = classical
                return False
            if depth:
                return True
            found = SpkiHash.of(cert.to_cryptography())
            visit.problem = None if found in self.pins else _other_key(found)
            return visit.problem is None
        except ANY_ERROR:
            _log.failure("the verify callback broke; the signer is refused", event="verify-broke")
            return False


def _other_key(found: SpkiHash) -> Problem:
    return Problem(
        Code.WRONG_FINGERPRINT,
        f"what answers there has the key {found}, which is not pinned",
        "compare with what the signer prints when it starts: where it has another key now, put that in pin=; else "
        "somebody else answers",
        "signer:https pins",
    )


@implementer(IOpenSSLClientConnectionCreator)
@define(eq=False)
class PinnedVisit:
    """One connection to a signer."""

    tls: PinnedTls
    problem: Problem | None = field(default=None, init=False)
    """Why what is there was refused."""

    def clientConnectionForTLS(self, protocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        """Twisted's: what is to shake hands."""
        return self.tls.connection(self)


@implementer(IStreamClientEndpoint)
@define(eq=False)
class PinnedEndpoint:
    """Connects by ``endpoint``, and speaks TLS there. Nothing is sent before the other side has shown a pinned key."""

    endpoint: IStreamClientEndpoint
    visit: PinnedVisit
    clock: IReactorTime

    def connect(self, factory: IProtocolFactory) -> "Deferred[IProtocol]":
        """See :class:`IStreamClientEndpoint`. Fires once TCP is connected."""
        wrapped = TLSMemoryBIOFactory(self.visit, True, factory, self.clock)
        wrapped.noisy = False
        connecting: Deferred[Any] = self.endpoint.connect(wrapped)
        return connecting.addCallback(lambda tls: tls.wrappedProtocol)
