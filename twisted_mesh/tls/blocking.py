"""TLS to a server without a reactor: by the same context, callback and judge as :mod:`twisted_mesh.tls.connection`."""

from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from attrs import define, field
from OpenSSL import SSL
from twisted.python.failure import Failure

from pki.errors import PkiError
from pki.svid.x509svid import Purpose, X509Svid
from twisted_mesh.runtime.wire import Cut, PlainWire
from twisted_mesh.tls import verify
from twisted_mesh.tls.alerts import PeerRefused
from twisted_mesh.tls.contexts import Role
from twisted_mesh.tls.own_chain import explained, refused_beforehand
from twisted_mesh.tls.security import Security
from twisted_mesh.tls.verify import Handshake

T = TypeVar("T")
#: The most that one record holds.
_RECORD = 16 * 1024


@define(eq=False)
class BlockingTls:
    """Secures connections to one server, one after the other."""

    security: Security
    server_name: str | None
    """For SNI: the host name; None for an IP address."""
    _generation: int = field(default=0, init=False)
    """Of the trust whose roots are in the context of the moment."""

    def present(self, svid: X509Svid | None, origin: str) -> None:
        """Prove ourselves by ``svid``, which was read at ``origin``, and have OpenSSL hold what is believed now."""
        trust = self.security.judge.trust
        self.security.contexts.replace(svid, trust.at_hand)
        self.security.contexts.origin, self._generation = origin, trust.generation

    def secured(self, wire: PlainWire) -> "_TlsWire":
        """Once each has proven who it is. Raises :class:`PeerRefused`, and ``SSL.Error`` where there is no TLS."""
        contexts = self.security.contexts
        if self._generation != self.security.judge.trust.generation:
            # The root was met: from now on OpenSSL holds it too.
            self.present(contexts.shown, contexts.origin)
        current = contexts.current()
        if current is None:
            raise RuntimeError("there is no context")
        connection = SSL.Connection(current[0], None)
        handshake = Handshake(
            self.security.judge,
            Purpose.SERVER,
            (),
            self.security.requires_staple,
            requires_pq=contexts.role.requires_pq,
        )
        verify.begin(connection, handshake)
        connection.set_connect_state()
        if self.server_name:
            connection.set_tlsext_host_name(self.server_name.encode("ascii"))
        connection.request_ocsp()
        secured = _TlsWire(wire, connection)
        try:
            secured.shake_hands()
        except Exception:
            if handshake.problems:
                raise PeerRefused(handshake.problems) from None
            raise
        _admit(connection, handshake, contexts.role)
        return secured

    def refused_beforehand(self) -> PkiError | None:
        """Why it is no use to show our certificate to anybody."""
        return refused_beforehand(self.security)

    def explained(self, error: BaseException) -> BaseException:
        """What ended a connection, by what we find in our own chain."""
        return explained(Failure(error), self.security).value or error


def _admit(connection: SSL.Connection, handshake: Handshake, role: Role) -> None:
    """Go on with a peer that was accepted; raises for any other. As ``MeshConnection`` does it."""
    if role.requires_pq and handshake.is_classical(connection):
        raise PeerRefused(handshake.problems)
    handshake.renew()
    if not handshake.accepted:
        if handshake.problems:
            raise PeerRefused(handshake.problems)
        raise RuntimeError("the handshake ended without a verdict on the peer")
    if (crowd := verify.refuse_crowd(connection)) is not None:
        raise PeerRefused((crowd,))
    if handshake.requires_staple and not handshake.is_stapled:
        raise RuntimeError("the handshake ended without a verdict on the staple")


@define(eq=False)
class _TlsWire:
    """TLS over a socket: see :class:`twisted_mesh.runtime.wire.Wire`."""

    plain: PlainWire
    connection: SSL.Connection

    def shake_hands(self) -> None:
        """Raises ``SSL.Error``, :class:`Cut`, ``OSError``."""
        self._done(self.connection.do_handshake)

    def send(self, data: bytes) -> None:
        """See :class:`Wire`."""
        rest = memoryview(data)
        while rest:
            piece = rest[:_RECORD]
            rest = rest[self._done(lambda piece=piece: self.connection.send(piece)) :]  # type: ignore[misc]

    def receive(self) -> bytes:
        """See :class:`Wire`. An end without TLS's own goodbye is :class:`Cut`."""
        try:
            return self._done(lambda: self.connection.recv(_RECORD))
        except SSL.ZeroReturnError:
            return b""

    def close(self) -> None:
        """Say goodbye, as far as the socket takes it at once."""
        with suppress(SSL.Error, OSError):
            self.connection.shutdown()
            self._flush()
        self.plain.close()

    def _done(self, act: Callable[[], T]) -> T:
        while True:
            try:
                done = act()
            except SSL.WantReadError:
                self._flush()
                data = self.plain.receive()
                if not data:
                    raise Cut from None
                self.connection.bio_write(data)
            except SSL.Error:
                with suppress(OSError):
                    self._flush()  # the alert with our reason
                raise
            else:
                self._flush()
                return done

    def _flush(self) -> None:
        while True:
            try:
                records = self.connection.bio_read(4 * _RECORD)
            except SSL.WantReadError:
                return
            self.plain.send(records)
