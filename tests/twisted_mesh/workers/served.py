"""mesh-server with two workers, and callers who see by its certificate which one has taken them."""

import json
import socket
import ssl
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from attrs import define, field
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.running import PATIENCE, Mesh, Running, free_port

#: Connections until both of two workers have taken one, with all but certainty.
MANY = 64


@define(eq=False)
class Served:
    """One that runs."""

    mesh: Mesh
    server: Running
    status: int
    identity: Path
    """The files of who calls."""
    port: int = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.port = int(self.server.wait_for(r"Starting mTLS server on \S*:(\d+)")[1])

    def call(self) -> ssl.SSLSocket:
        """A connection that has been let in, and kept."""
        context = ssl.create_default_context(cafile=str(self.identity / "svid_bundle.pem"))
        context.load_cert_chain(self.identity / "svid.pem", self.identity / "svid_key.pem")
        plain = socket.create_connection(("127.0.0.1", self.port), PATIENCE)
        with ExitStack() as stack:
            stack.enter_context(plain)
            found = stack.enter_context(context.wrap_socket(plain, server_hostname="localhost"))
            assert asked(found)
            stack.pop_all()
        return found

    def both(self, stack: ExitStack) -> dict[bytes, list[ssl.SSLSocket]]:
        """Connections to both workers, by the public key that each has shown."""
        found: dict[bytes, list[ssl.SSLSocket]] = {}
        for _ in range(MANY):
            caller = stack.enter_context(self.call())
            found.setdefault(key_of(leaf(caller)), []).append(caller)
            if len(found) == 2 and all(len(some) > 1 for some in found.values()):
                return found
        raise AssertionError(f"{len(found)} workers have taken {MANY} connections")

    def page(self, path: str) -> bytes:
        """A page of the status port."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.status}{path}") as answer:
            return bytes(answer.read())

    def workers(self) -> list[dict[str, Any]]:
        """What the status page says of them."""
        return list(json.loads(self.page("/status"))["workers"])

    def pids(self) -> list[int]:
        """Of the processes that there are."""
        return [worker["pid"] for worker in self.workers() if worker["pid"]]


def leaf(caller: ssl.SSLSocket) -> x509.Certificate:
    """What has answered."""
    return x509.load_der_x509_certificate(caller.getpeercert(binary_form=True) or b"")


def key_of(certificate: x509.Certificate) -> bytes:
    """Its public key."""
    return certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def asked(caller: ssl.SSLSocket) -> bool:
    """Whether a request is answered on that connection."""
    try:
        caller.sendall(b"GET /api/status HTTP/1.1\r\nHost: localhost\r\n\r\n")
        return caller.recv(4096).startswith(b"HTTP/1.1 200")
    except OSError:
        return False


@contextmanager
def served(mesh: Mesh, *options: str, workers: int = 2) -> Iterator[Served]:
    """One, with the identity of a caller that it lets in."""
    status = free_port()
    words = ("--listen", "127.0.0.1:0", "--workers", str(workers))
    server = mesh.twistd("mesh-server", *words, "--status", f"127.0.0.1:{status}", *options)
    try:
        server.wait_for(f"{workers} workers serve")
        server.wait_for(r"Ready to accept mTLS connections\.", count=workers)
        mesh.port = int(server.wait_for(r"Starting mTLS server on \S*:(\d+)")[1])
        yield Served(mesh, server, status, mesh.export())
    finally:
        server.stop()
