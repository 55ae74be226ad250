"""TLS 1.3 to a server that is its key and nothing else: no names, no dates, no authority.

It is known by the SHA-256 of its SubjectPublicKeyInfo, and knows us in the same way, where we show a key at all.
"""

from collections.abc import Collection
from typing import Any
from weakref import WeakKeyDictionary

from attrs import define, field
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
from pki.svid.spki_pin import SpkiHash
from twisted_mesh.runtime.log import logger
from twisted_mesh.tls import groups
from twisted_mesh.tls.private_key import use_key
from twisted_mesh.tls.self_signed import SelfSigned

_log = logger("tls")


@define(eq=False, repr=False)
class PinnedTls:
    """What a client shows, and the keys of which the server must have one."""

    own: SelfSigned | None
    """None shows nothing, to a server that is open to everybody."""
    pins: Collection[SpkiHash]
    """They are looked at in each handshake: another collection may take their place."""
    rule: str
    """Where the pins are written down, as errors name it."""
    remedy: str
    """What to do where something else answers."""
    requires_pq: bool = False
    """Whether keys are exchanged by hybrid groups alone."""
    _context: SSL.Context | None = field(default=None, init=False)
    _visits: "WeakKeyDictionary[SSL.Connection, PinnedVisit]" = field(
        factory=WeakKeyDictionary, init=False
    )

    @property
    def own_pin(self) -> SpkiHash | None:
        """What the server is to be told of us; None where we show nothing."""
        return None if self.own is None else self.own.pin

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
        if self.own is not None:
            context.use_certificate(self.own.certificate)
            use_key(context, self.own.key)
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
            visit.problem = None if found in self.pins else self._other_key(found)
            return visit.problem is None
        except ANY_ERROR:
            _log.failure("the verify callback broke; the server is refused", event="verify-broke")
            return False

    def _other_key(self, found: SpkiHash) -> Problem:
        return Problem(
            Code.WRONG_FINGERPRINT,
            f"what answers there has the key {found}, which is not pinned",
            self.remedy,
            self.rule,
        )


@implementer(IOpenSSLClientConnectionCreator)
@define(eq=False)
class PinnedVisit:
    """One connection to such a server."""

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
