"""A program behind the proxy that knows nothing of the mesh, and what it is asked to do with each connection."""

import hashlib
import socket
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from attrs import define, field

from tests.running import PATIENCE

Serve = Callable[[socket.socket], None]


def echo(connection: socket.socket) -> None:
    """Say what is said; once all is said, so is that."""
    while data := connection.recv(65536):
        connection.sendall(data)


def digest(connection: socket.socket) -> None:
    """Take all, and answer with its length and SHA-256 then."""
    count, seen = 0, hashlib.sha256()
    while data := connection.recv(65536):
        count += len(data)
        seen.update(data)
    connection.sendall(f"{count} {seen.hexdigest()}".encode())


def source(size: int) -> Serve:
    """Says so many bytes once the other side has said all."""

    def serve(connection: socket.socket) -> None:
        while connection.recv(65536):
            pass
        connection.sendall(b"x" * size)

    return serve


def reset(connection: socket.socket) -> None:
    """Hear something, and break off by a reset."""
    connection.recv(1)
    break_off(connection)


def hold(connection: socket.socket) -> None:
    """Read nothing and say nothing, for as long as the backend runs."""
    threading.Event().wait(PATIENCE)


def break_off(connection: socket.socket) -> None:
    """Close by a reset."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


@define(eq=False)
class Backend:
    """Listens on loopback, or at a unix socket, and serves each connection on a thread of its own."""

    serve: Serve = echo
    path: Path | None = None
    port: int = 0
    seen: list[socket.socket] = field(factory=list, init=False)
    """Every connection there was."""
    _listening: socket.socket | None = field(default=None, init=False)

    def start(self) -> "Backend":
        """Listen; on the same port, where it did before."""
        if self.path is not None:
            self._listening = socket.socket(socket.AF_UNIX)
            self._listening.bind(str(self.path))
            self._listening.listen(128)
        else:
            self._listening = socket.create_server(("127.0.0.1", self.port), backlog=128)
            self.port = self._listening.getsockname()[1]
        threading.Thread(target=self._accept, args=(self._listening,), daemon=True).start()
        return self

    def stop(self) -> None:
        """Listen no more, and break every connection off."""
        if self._listening is not None:
            # Closing alone leaves a thread in accept, which takes one more.
            with suppress(OSError):
                self._listening.shutdown(socket.SHUT_RDWR)
            self._listening.close()
        for connection in self.seen:
            with suppress(OSError):
                break_off(connection)
        if self.path is not None:
            self.path.unlink(missing_ok=True)

    @property
    def target(self) -> str:
        """As ``--target`` wants it."""
        return f"unix:{self.path}" if self.path is not None else f"127.0.0.1:{self.port}"

    def __enter__(self) -> "Backend":
        return self.start()

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def _accept(self, listening: socket.socket) -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            self.seen.append(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with suppress(OSError):
            self.serve(connection)
            connection.shutdown(socket.SHUT_WR)
            connection.close()
