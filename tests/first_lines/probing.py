"""Servers that cannot be looked at: what ``pki-inspect probe`` says of them, and ``lint`` of files."""

import socket
from collections.abc import Callable
from pathlib import Path

from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
)

from tests.authorities import key
from tests.first_lines.files import LEAF, said_by
from tests.first_lines.row import FirstLine
from tests.looked_at import served
from tests.running import free_port
from twisted_mesh.cli import inspect


def probing(*options: str) -> Callable[[Path], str]:
    """Where nobody listens."""
    return lambda home: said_by(inspect.main, "probe", f"localhost:{free_port()}", *options)


def answering(answer: bytes, *options: str) -> Callable[[Path], str]:
    """A server that answers so, whatever it is told."""

    def handle(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(answer)
        connection.shutdown(socket.SHUT_WR)

    def say(home: Path) -> str:
        with served(handle) as port:
            return said_by(inspect.main, "probe", f"localhost:{port}", *options)

    return say


def probe(*words: str) -> Callable[[Path], str]:
    return lambda home: said_by(inspect.main, "probe", *words)


def of_files(command: str, *names: str) -> Callable[[Path], str]:
    """A command of ``pki-inspect`` about files of ours."""

    def say(home: Path) -> str:
        closed = BestAvailableEncryption(b"correct horse")
        held = {
            "leaf.pem": LEAF,
            "key.pem": key(9).to_pem(),
            "closed.pem": key(9).private_key.private_bytes(
                Encoding.PEM, PrivateFormat.PKCS8, closed
            ),
            "damaged.pem": LEAF.replace(b"M", b"N"),
        }
        for name in names:
            (home / name).write_bytes(held[name])
        return said_by(inspect.main, command, *(str(home / name) for name in names))

    return say


ROWS = (
    FirstLine(
        "nobody listens where it is to look",
        "inspector",
        r"no server answers at localhost:\d+: nobody listens there",
        "start it, or check address and port",
        probing(),
    ),
    FirstLine(
        "plain HTTP where it is to look",
        "inspector",
        r"localhost:\d+: what answers there does not speak TLS",
        r"check the port, and what is to be spoken there \(--starttls\)",
        answering(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
    ),
    FirstLine(
        "a PostgreSQL without TLS",
        "inspector",
        r"localhost:\d+: PostgreSQL answers there without TLS \(ssl = off\)",
        "check the port",
        answering(b"N", "--starttls", "postgres"),
    ),
    FirstLine(
        "who hangs up on it",
        "inspector",
        r"localhost:\d+ took the connection and closed it",
        "its log has the reason",
        answering(b""),
    ),
    FirstLine(
        "no port to look at",
        "inspector",
        "'localhost' names no port",
        "write HOST:PORT, like localhost:9443",
        probe("localhost"),
    ),
    FirstLine(
        "no identity to present",
        "inspector",
        r"--svid \S*nowhere/svid\.pem cannot be read|/nowhere/svid\.pem",
        r"No such file|cannot be read",
        probe("localhost:1", "--svid", "/nowhere"),
    ),
    FirstLine(
        "an encrypted key to match",
        "inspector",
        r"/closed\.pem: the private key is encrypted, so that nothing can be told of it",
        r"give its public half \(openssl pkey -in FILE -pubout\)",
        of_files("match", "leaf.pem", "closed.pem"),
        never="passphrase is missing",
    ),
    FirstLine(
        "one thing to match",
        "inspector",
        r"/leaf\.pem holds a certificate alone",
        "name what it is to be compared with too",
        of_files("match", "leaf.pem"),
    ),
    FirstLine(
        "a key that is to be renewed",
        "inspector",
        r"/key\.pem: it holds no certificate, but private key",
        "give a certificate in PEM or DER",
        of_files("needs-renewal", "key.pem"),
    ),
    FirstLine(
        "a damaged certificate to pin by",
        "inspector",
        r"/damaged\.pem: ",
        "copy|fetch or issue it anew",
        of_files("fingerprint", "damaged.pem"),
    ),
)
