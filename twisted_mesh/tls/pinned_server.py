"""TLS 1.3 for callers who are their key and nothing else, and who know the server in the same way."""

from collections.abc import Callable, Collection
from typing import Any
from weakref import WeakKeyDictionary

from attrs import define, field
from OpenSSL import SSL, crypto
from twisted.internet.interfaces import IOpenSSLContextFactory, IProtocolFactory, IReactorTime
from twisted.protocols.tls import TLSMemoryBIOFactory
from zope.interface import implementer

from pki.errors import ANY_ERROR, HOSTILE_INPUT
from pki.svid.spki_pin import SpkiHash
from twisted_mesh.runtime.log import logger
from twisted_mesh.tls.private_key import use_key
from twisted_mesh.tls.self_signed import SelfSigned

_log = logger("tls")
_HTTP11 = b"http/1.1"
#: Seen by clients in sessions alone, of which there are none; OpenSSL wants one where certificates are asked for.
_SESSION_ID = b"pinned"
#: By what key each connection has shaken hands, once one has asked.
_shown: "WeakKeyDictionary[Any, SpkiHash]" = WeakKeyDictionary()


@implementer(IOpenSSLContextFactory)
@define(eq=False, repr=False)
class PinnedCallers:
    """Those whose key is pinned. Their certificates are what TLS carries keys in, and say nothing else."""

    own: SelfSigned
    pins: Collection[SpkiHash]
    """They are looked at in each handshake and by :meth:`who`: another collection may take their place."""
    on_refusal: Callable[[SpkiHash | None], None]
    """Told of each caller that is refused, by its key; None where that cannot be read."""
    is_demanded: bool = True
    """Whether whoever shows no key is refused in the handshake. If not, :meth:`who` tells such callers apart, and a
    key that is not pinned is refused all the same."""
    _context: SSL.Context | None = field(default=None, init=False)

    @property
    def own_pin(self) -> SpkiHash:
        """What callers are to pin."""
        return self.own.pin

    def getContext(self) -> SSL.Context:
        """Twisted's."""
        if self._context is None:
            self._context = self._built()
        return self._context

    def who(self, transport: Any) -> SpkiHash | None:
        """The key that a caller has shown; None where it has shown none, or one that is not pinned (any more)."""
        found = key_shown(transport)
        return found if found in self.pins else None

    def _built(self) -> SSL.Context:
        context = SSL.Context(SSL.TLS_SERVER_METHOD)
        context.set_min_proto_version(SSL.TLS1_3_VERSION)
        context.set_max_proto_version(SSL.TLS1_3_VERSION)
        # A resumed session would skip the callback: each alone still resumes.
        context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
        context.set_options(SSL.OP_NO_TICKET | SSL.OP_NO_RENEGOTIATION | SSL.OP_NO_COMPRESSION)
        context.set_session_id(_SESSION_ID)
        context.use_certificate(self.own.certificate)
        use_key(context, self.own.key)
        context.check_privatekey()
        context.set_alpn_select_callback(
            lambda _, offered: _HTTP11 if _HTTP11 in offered else SSL.NO_OVERLAPPING_PROTOCOLS
        )
        demanded = SSL.VERIFY_FAIL_IF_NO_PEER_CERT if self.is_demanded else 0
        context.set_verify(SSL.VERIFY_PEER | demanded, self._verify)
        return context

    def _verify(
        self, connection: SSL.Connection, cert: crypto.X509, errno: int, depth: int, ok: int
    ) -> bool:
        """Whether the key is pinned, whatever OpenSSL thinks of dates and issuers.

        Nothing above the leaf proves anything: it is passed over, and the last call is about the leaf.
        """
        try:
            if depth:
                return True
            found = _spki_hash(cert)
            if found is not None and found in self.pins:
                return True
            self.on_refusal(found)
        except ANY_ERROR:
            _log.failure("the verify callback broke; the caller is refused", event="verify-broke")
        return False


def key_shown(transport: Any) -> SpkiHash | None:
    """By what key a caller has shaken hands, pinned or not; None where it has shown none."""
    found = _shown.get(transport)
    if found is None:
        shown = transport.getPeerCertificate()
        found = None if shown is None else _spki_hash(shown)
        if (
            found is not None
        ):  # before the handshake is done it is none, and afterwards it stays what it is
            _shown[transport] = found
    return found


def over_pinned_tls(
    callers: PinnedCallers, factory: IProtocolFactory, clock: IReactorTime
) -> IProtocolFactory:
    """``factory`` behind TLS. Its own deadlines and bounds hold from the first byte on."""
    wrapped = TLSMemoryBIOFactory(callers, False, factory, clock)
    wrapped.noisy = False
    return wrapped


def _spki_hash(cert: crypto.X509) -> SpkiHash | None:
    try:
        return SpkiHash.of(cert.to_cryptography())
    except HOSTILE_INPUT:
        return None
