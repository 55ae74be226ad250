"""Both ends of a socket in a test's own hands: raw callers, a recorder, servers that are not what they claim."""

import select
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from attrs import define, field

from tests.interop.house import Identity
from tests.running import PATIENCE

#: Seconds between two looks at whether a helper thread shall end.
_LOOK = 0.1


def talk(port: int, sent: bytes, *, hang_up: bool = True) -> bytes:
    """Send bytes as they are; all that comes back until the other side closes."""
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as wire:
        with suppress(OSError):  # it may hang up before it has heard all
            wire.sendall(sent)
            if hang_up:
                wire.shutdown(socket.SHUT_WR)
        return _read_all(wire)


def client_context(root: Any, identity: Identity | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(root))
    if identity is not None:
        context.load_cert_chain(identity.cert, identity.key)
    return context


@contextmanager
def tls(port: int, root: Any, identity: Identity | None = None) -> Iterator[ssl.SSLSocket]:
    """A TLS connection of Python's own, kept open as long as the test likes."""
    with (
        socket.create_connection(("127.0.0.1", port), PATIENCE) as wire,
        client_context(root, identity).wrap_socket(wire, server_hostname="localhost") as secured,
    ):
        yield secured


def _read_all(wire: socket.socket) -> bytes:
    found = b""
    with suppress(OSError):
        while more := wire.recv(65536):
            found += more
    return found


@define(eq=False)
class Listener:
    """A loopback port with a thread that treats each caller in its own way, one after another."""

    port: int = 0
    callers: int = 0
    heard: bytearray = field(factory=bytearray)
    """What a caller sent to the application, whatever this listener passed for."""
    complaints: list[str] = field(factory=list)
    """How handshakes and reads failed."""
    came: threading.Condition = field(factory=threading.Condition)
    """Told of each caller."""
    _stop: threading.Event = field(factory=threading.Event)

    def wait_for(self, callers: int) -> None:
        """Until so many have called."""
        with self.came:
            assert self.came.wait_for(lambda: self.callers >= callers, PATIENCE)

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}"

    def stopped(self) -> bool:
        return self._stop.is_set()


Treatment = Callable[[socket.socket, Listener], None]


@contextmanager
def listening(treat: Treatment) -> Iterator[Listener]:
    """A port of ours on which ``treat`` meets every caller."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(_LOOK)
        listener = Listener(server.getsockname()[1])

        def serve() -> None:
            while not listener.stopped():
                try:
                    caller, _ = server.accept()
                except TimeoutError:
                    continue
                with listener.came:
                    listener.callers += 1
                    listener.came.notify_all()
                with caller:
                    caller.settimeout(PATIENCE)
                    try:
                        treat(caller, listener)
                    except OSError as error:  # ssl's errors are OSErrors too
                        listener.complaints.append(str(error))

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield listener
        finally:
            listener._stop.set()
            thread.join(PATIENCE)
            assert not thread.is_alive()


def impostor(identity: Identity, answer: bytes = b"") -> Treatment:
    """Shakes hands as ``identity``, asks nobody who they are, and keeps what it is told."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(identity.cert, identity.key)

    def treat(caller: socket.socket, listener: Listener) -> None:
        with context.wrap_socket(caller, server_side=True) as secured:
            listener.heard += secured.recv(65536)
            if answer:
                secured.sendall(answer)
                secured.unwrap()

    return treat


def silence(caller: socket.socket, listener: Listener) -> None:
    """A black hole: takes the call, and never says a word."""
    while not listener.stopped() and not select.select([caller], [], [], _LOOK)[0]:
        pass
    _read_while(caller, listener)


def _read_while(caller: socket.socket, listener: Listener) -> None:
    while not listener.stopped():
        if select.select([caller], [], [], _LOOK)[0] and not caller.recv(65536):
            return


def plain(answer: bytes) -> Treatment:
    """Says its line in plaintext, as soon as it is called."""

    def treat(caller: socket.socket, listener: Listener) -> None:
        listener.heard += caller.recv(65536)
        caller.sendall(answer)

    return treat


def recorder(target: int) -> Treatment:
    """Passes everything on to a port, and keeps what the caller sent."""

    def treat(caller: socket.socket, listener: Listener) -> None:
        with socket.create_connection(("127.0.0.1", target), PATIENCE) as onward:
            while not listener.stopped():
                ready, _, _ = select.select([caller, onward], [], [], _LOOK)
                for side in ready:
                    chunk = side.recv(65536)
                    if not chunk:
                        return
                    if side is caller:
                        listener.heard += chunk
                    (onward if side is caller else caller).sendall(chunk)

    return treat


def middle(target: int, identity: Identity, root: Any) -> Treatment:
    """A man in the middle with a certificate of his own for both sides."""
    facing_client = impostor(identity)
    facing_server = client_context(root, identity)

    def treat(caller: socket.socket, listener: Listener) -> None:
        with socket.create_connection(("127.0.0.1", target), PATIENCE) as onward:
            try:
                with facing_server.wrap_socket(onward, server_hostname="localhost") as secured:
                    secured.sendall(b"GET /api/status HTTP/1.1\r\nHost: localhost\r\n\r\n")
                    listener.heard += secured.recv(65536)
            except OSError as error:
                listener.complaints.append(f"server: {error}")
        try:
            facing_client(caller, listener)
        except OSError as error:
            listener.complaints.append(f"client: {error}")

    return treat
