"""A peer whose TLS and whose socket are the test's: it says goodbye, hangs up, resets and reads when it is told to."""

import socket
import struct
from contextlib import suppress

from OpenSSL import SSL

from pki.svid.x509svid import X509Svid
from tests.twisted_mesh.tls.wires import good_svid


def context_of(svid: X509Svid, *, serves: bool, groups: str = "") -> SSL.Context:
    """TLS 1.3 that presents ``svid`` and believes anybody; by ``groups``, if not by all that OpenSSL has."""
    context = SSL.Context(SSL.TLS_SERVER_METHOD if serves else SSL.TLS_CLIENT_METHOD)
    context.set_min_proto_version(SSL.TLS1_3_VERSION)
    context.use_certificate(svid.leaf)
    for certificate in svid.intermediates:
        context.add_extra_chain_cert(certificate)
    context.use_privatekey(svid.key.private_key)
    # A server of the mesh wants a certificate, and so does one by hand.
    context.set_verify(SSL.VERIFY_PEER, lambda *_: True)
    if groups:
        assert SSL._lib.SSL_CTX_set1_curves_list(context._context, groups.encode()) == 1  # type: ignore[attr-defined]
    if serves:
        context.set_session_id(b"by hand")
    return context


class ByHand:
    """On a socket that never blocks. :meth:`step` carries what there is to carry, both ways."""

    def __init__(
        self,
        wire: socket.socket,
        *,
        serves: bool = False,
        svid: X509Svid | None = None,
        receive_buffer: int = 0,
        groups: str = "",
    ) -> None:
        self.wire = wire
        if receive_buffer:
            wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        if wire.family != socket.AF_UNIX:
            wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        wire.setblocking(False)
        context = context_of(svid or good_svid(), serves=serves, groups=groups)
        self.tls = SSL.Connection(context, None)
        (self.tls.set_accept_state if serves else self.tls.set_connect_state)()
        self.is_secured = False
        self.heard = bytearray()
        self.has_goodbye = False
        """Whether the other side has said that it says no more."""
        self.refusal: SSL.Error | None = None
        """What is wrong with what it said, or the alert that it sent."""
        self.end: str = ""
        """How the socket ended: ``closed`` or ``reset``."""
        self.reads = True
        """Whether it takes anything from the socket."""
        self.pace = 0
        """How many bytes go to the socket in a step, if not all."""
        self.sent = 0
        self._waiting = memoryview(b"")
        self._wants_handshake = False

    @property
    def unsent(self) -> int:
        """Bytes that the socket has not taken."""
        return len(self._waiting)

    # what a test wants

    def shake_hands(self) -> None:
        self._wants_handshake = True
        self.step()

    def say(self, data: bytes) -> None:
        """In TLS. Records are of 16 KiB at most."""
        view = memoryview(data)
        while view:
            view = view[self.tls.send(view[: 16 * 1024]) :]
        self.step()

    def goodbye(self) -> None:
        """Say no more: close_notify."""
        self.tls.shutdown()
        self.step()

    def put(self, data: bytes) -> None:
        """Straight onto the wire."""
        self._waiting = memoryview(b"".join((self._waiting, data)))
        self.step()

    def take(self) -> bytes:
        """What would go onto the wire, kept from it."""
        made, waiting = [bytes(self._waiting)], True
        self._waiting = memoryview(b"")
        while waiting:
            try:
                made.append(self.tls.bio_read(1 << 20))
            except SSL.WantReadError:
                waiting = False
        return b"".join(made)

    def hang_up(self) -> None:
        """End of file for the other side, without a goodbye."""
        self.wire.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Close with a RST where there is such a thing."""
        if self.wire.family != socket.AF_UNIX:
            self.wire.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def close(self) -> None:
        self.wire.close()

    # the wire

    def step(self) -> None:
        """Send and receive what can be now."""
        if self.wire.fileno() < 0:
            return
        if self._wants_handshake and not self.is_secured:
            self._shake()
        self._send()
        if self.reads and not self.end:
            self._receive()
            if self._wants_handshake and not self.is_secured:
                self._shake()
            if self.is_secured:
                self._read()
            self._send()

    def _shake(self) -> None:
        try:
            self.tls.do_handshake()
        except SSL.WantReadError:
            return
        except SSL.Error as problem:
            self.refusal = self.refusal or problem
            return
        self.is_secured = True

    def _send(self) -> None:
        if not self._waiting:
            with suppress(SSL.WantReadError):
                self._waiting = memoryview(self.tls.bio_read(1 << 20))
        try:
            while self._waiting:
                taken = self.wire.send(self._waiting[: self.pace or None])
                self.sent += taken
                self._waiting = self._waiting[taken:]
                if self.pace:
                    return
                if not self._waiting:
                    with suppress(SSL.WantReadError):
                        self._waiting = memoryview(self.tls.bio_read(1 << 20))
        except BlockingIOError:
            pass
        except OSError:
            self._waiting = memoryview(b"")  # how it ended, reading tells

    def _receive(self) -> None:
        for _ in range(16):
            try:
                data = self.wire.recv(64 * 1024)
            except BlockingIOError:
                return
            except OSError:
                self.end = "reset"
                return
            if not data:
                self.end = "closed"
                return
            self.tls.bio_write(data)

    def _read(self) -> None:
        try:
            while True:
                self.heard += self.tls.recv(16 * 1024)
        except SSL.WantReadError:
            pass
        except SSL.ZeroReturnError:
            self.has_goodbye = True
        except SSL.Error as problem:
            self.refusal = self.refusal or problem
