"""Who may call a signer: users of this machine over its socket, and pinned keys over TLS 1.3. No names anywhere."""

from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from typing import Any

from attrs import define, field
from cryptography import x509
from OpenSSL import SSL, crypto
from twisted.internet.interfaces import (
    IOpenSSLContextFactory,
    IProtocolFactory,
    IReactorTime,
    ITransport,
)
from twisted.protocols.tls import TLSMemoryBIOFactory
from zope.interface import implementer

from pki.errors import ANY_ERROR, HOSTILE_INPUT, PkiError
from pki.keys import MemoryKey, spki_der
from pki.svid.spki_pin import SpkiHash
from twisted_mesh.attest.credentials import peer_uid
from twisted_mesh.runtime.log import logger
from twisted_mesh.signer.errors import ForeignCaller
from twisted_mesh.tls.private_key import use_key

_log = logger("signer")
_HTTP11 = b"http/1.1"
#: What has no end of its own (RFC 5280 section 4.1.2.5).
_NO_END = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
_EARLIER = timedelta(days=1)
_NAME = "mesh-signer"


@define(eq=False)
class LocalCallers:
    """The users of this machine that may call, by what the kernel recorded when they connected."""

    uids: Collection[int]

    def who(self, transport: Any) -> str:
        """``uid:1000``. Raises :class:`ForeignCaller` for others."""
        uid = peer_uid(transport.getHandle())
        if uid not in self.uids:
            raise ForeignCaller(
                f"uid {uid} may not call this signer: start it with --allow-uid {uid}, if that is the CA's user"
            )
        return f"uid:{uid}"

    def key(self, transport: ITransport) -> tuple[str, bool]:
        """By what its connections are counted, and whether that may call at all."""
        try:
            return self.who(transport), True
        except PkiError:
            return "others", False


@implementer(IOpenSSLContextFactory)
@define(eq=False, repr=False)
class PinnedCallers:
    """Those whose key is pinned, over TLS. Their certificates are what TLS carries keys in, and say nothing else."""

    key: MemoryKey = field(repr=False)
    pins: Collection[SpkiHash]
    now: datetime
    _context: SSL.Context | None = field(default=None, init=False)

    @property
    def own_pin(self) -> SpkiHash:
        """What callers are to pin."""
        return SpkiHash.of_spki(spki_der(self.key.public_key))

    def getContext(self) -> SSL.Context:
        """Twisted's."""
        if self._context is None:
            self._context = self._built()
        return self._context

    def who(self, transport: Any) -> str:
        """``pin:sha256/…``. Raises :class:`ForeignCaller`, were the handshake to have let somebody else in."""
        shown = transport.getPeerCertificate()
        found = None if shown is None else SpkiHash.of(shown.to_cryptography())
        if found not in self.pins:
            raise ForeignCaller(f"the key {found or 'that was not shown'} may not call this signer")
        return f"pin:{found}"

    def _built(self) -> SSL.Context:
        context = SSL.Context(SSL.TLS_SERVER_METHOD)
        context.set_min_proto_version(SSL.TLS1_3_VERSION)
        context.set_max_proto_version(SSL.TLS1_3_VERSION)
        # A resumed session would skip the callback: each alone still resumes.
        context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
        context.set_options(SSL.OP_NO_TICKET | SSL.OP_NO_RENEGOTIATION | SSL.OP_NO_COMPRESSION)
        context.set_session_id(b"mesh-signer")
        context.use_certificate(_self_signed(self.key, self.now))
        use_key(context, self.key)
        context.check_privatekey()
        context.set_alpn_select_callback(
            lambda _, offered: _HTTP11 if _HTTP11 in offered else SSL.NO_OVERLAPPING_PROTOCOLS
        )
        demanded = SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT
        context.set_verify(demanded, self._verify)
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
            found = SpkiHash.of(cert.to_cryptography())
            if found in self.pins:
                return True
            _log.warn(
                "A caller with the key {pin} was refused: it is not pinned (--client-pin)",
                event="signer-caller-refused",
                pin=str(found),
            )
        except HOSTILE_INPUT:
            _log.warn(
                "A caller whose certificate cannot be read was refused",
                event="signer-caller-refused",
            )
        except ANY_ERROR:
            _log.failure("the verify callback broke; the caller is refused", event="verify-broke")
        return False


def over_pinned_tls(
    callers: PinnedCallers, factory: IProtocolFactory, clock: IReactorTime
) -> IProtocolFactory:
    """``factory`` behind TLS. Its own deadlines and bounds hold from the first byte on."""
    wrapped = TLSMemoryBIOFactory(callers, False, factory, clock)
    wrapped.noisy = False
    return wrapped


def _self_signed(key: MemoryKey, now: datetime) -> x509.Certificate:
    """A certificate for a key that is known by its pin: the name is for people."""
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, _NAME)])
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
