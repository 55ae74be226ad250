"""Stapling: a server's certificate comes with its CA's word that it is not revoked (RFC 6066 section 8).

Both ends of it, as OpenSSL calls them. In TLS 1.3 a client's verify callback comes first, and the
one for the staple only if that found nothing wrong; it comes in any case, with ``b""`` where nothing
is stapled, and also where what is stapled is no OCSP response at all: OpenSSL 4 drops that.
"""

from datetime import datetime

from attrs import define, field, frozen
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from OpenSSL import SSL

from pki.codes import Code
from pki.errors import ANY_ERROR, Problem
from twisted_mesh.runtime.clock import Now
from twisted_mesh.runtime.log import logger
from twisted_mesh.tls import verify

_log = logger("tls")
_BROKEN = Problem(
    Code.INTERNAL,
    "what the server stapled could not be judged",
    "the log has a traceback: report it",
)


@frozen
class _Staple:
    answer: bytes
    until: datetime


@define(eq=False)
class Staples:
    """The CA's answers about our own certificates, each until it is stale."""

    now: Now
    _held: dict[bytes, _Staple] = field(factory=dict, init=False)

    def hold(self, leaf: x509.Certificate, answer: bytes, until: datetime) -> None:
        """Staple this to ``leaf`` until then. Those that are stale are forgotten."""
        now = self.now()
        self._held[_key(leaf)] = _Staple(answer, until)
        self._held = {key: staple for key, staple in self._held.items() if staple.until >= now}

    def of(self, leaf: x509.Certificate) -> bytes:
        """What is stapled to ``leaf`` now; empty where there is nothing."""
        return self.of_key(_key(leaf))

    def of_key(self, key: bytes) -> bytes:
        """The same, by what :func:`_key` says of the certificate."""
        staple = self._held.get(key)
        return staple.answer if staple is not None and staple.until >= self.now() else b""


def _key(leaf: x509.Certificate) -> bytes:
    return leaf.fingerprint(SHA256())


def offer(context: SSL.Context, staples: Staples, leaf: x509.Certificate) -> None:
    """Have a server's ``context``, which presents ``leaf``, staple what there is to it."""

    key = _key(leaf)

    def callback(connection: SSL.Connection, data: None) -> bytes:
        try:
            return staples.of_key(key)
        except ANY_ERROR:  # no staple is better than no service; a client may insist on one
            _log.failure("a staple could not be found", event="staple-broke")
            return b""

    context.set_ocsp_server_callback(callback)


def expect(context: SSL.Context) -> None:
    """Have every connection of a client's ``context`` judge what the server staples.

    Those that are to ask for it say so by ``request_ocsp``.
    """

    def callback(connection: SSL.Connection, answer: bytes, data: None) -> bool:
        # What this raises, pyOpenSSL would keep and raise at some other connection.
        try:
            return verify.handshake_of(connection).judge_staple(answer)
        except ANY_ERROR:
            _log.failure("a staple could not be judged; the peer is refused", event="verify-broke")
            verify.refuse(connection, _BROKEN)
            return False

    context.set_ocsp_client_callback(callback)
