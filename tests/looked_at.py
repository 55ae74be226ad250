"""TLS servers in a thread, for programs that block while they look at them."""

import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from OpenSSL import SSL

from tests.running import PATIENCE
from twisted_mesh.testing import Member

Handler = Callable[[socket.socket], None]


@contextmanager
def served(handler: Handler) -> Iterator[int]:
    """Its port: each connection is given to ``handler``, one after the other."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                with connection, suppress(OSError, SSL.Error):
                    connection.settimeout(PATIENCE)
                    handler(connection)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield listening.getsockname()[1]
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join(PATIENCE)


def shaken(tls: SSL.Connection, connection: socket.socket) -> None:
    """Shake hands over ``connection`` by hand, as our endpoints do: ``tls`` has memory for its wire."""

    def flush() -> None:
        with suppress(SSL.WantReadError):
            while True:
                connection.sendall(tls.bio_read(65536))

    while True:
        try:
            tls.do_handshake()
            flush()
            return
        except SSL.WantReadError:
            flush()
            data = connection.recv(65536)
            if not data:
                raise OSError("gone") from None
            tls.bio_write(data)
        except SSL.Error:
            flush()
            # Whoever closes with something unread resets, and takes the alert along.
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(65536):
                pass
            raise


def until_goodbye(tls: SSL.Connection, connection: socket.socket) -> None:
    """Wait for the other side's, and say ours."""
    while True:
        try:
            if not tls.recv(65536):
                return
        except SSL.WantReadError:
            data = connection.recv(65536)
            if not data:
                return
            tls.bio_write(data)
        except SSL.ZeroReturnError:
            tls.shutdown()
            connection.sendall(tls.bio_read(65536))
            return


def endpoint(member: Member) -> Handler:
    """An endpoint of the mesh."""

    def handle(connection: socket.socket) -> None:
        tls = member.connection(serves=True)
        shaken(tls, connection)
        until_goodbye(tls, connection)

    return handle


def plain_server(
    chain: Sequence[x509.Certificate],
    key: ec.EllipticCurvePrivateKey,
    *,
    change: Callable[[SSL.Context], object] = lambda context: None,
    begin: Handler = lambda connection: None,
    end: Callable[[SSL.Connection, socket.socket], None] = until_goodbye,
) -> Handler:
    """A server of anybody's: ``change`` alters its context, ``begin`` speaks before TLS, ``end`` after it has begun."""

    def handle(connection: socket.socket) -> None:
        context = SSL.Context(SSL.TLS_SERVER_METHOD)
        context.set_mode(0x08)  # what it sends is what it is told to
        context.use_certificate(chain[0])
        for certificate in chain[1:]:
            context.add_extra_chain_cert(certificate)
        context.use_privatekey(key)
        change(context)
        begin(connection)
        tls = SSL.Connection(context, None)
        tls.set_accept_state()
        shaken(tls, connection)
        end(tls, connection)

    return handle


def asking(named: Path | None = None) -> Callable[[SSL.Context], None]:
    """Has a server ask for a certificate, name the CAs in a file, and take whatever comes, or nothing."""

    def change(context: SSL.Context) -> None:
        context.set_verify(SSL.VERIFY_PEER, lambda *_: True)
        if named is not None:
            context.load_client_ca(bytes(named))

    return change


def written(member: Member, directory: Path) -> Path:
    """The directory with its identity, as mesh-client --export leaves one."""
    member.write(directory)
    return directory
