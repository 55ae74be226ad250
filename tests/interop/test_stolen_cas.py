"""The key of a CA is stolen: who got in by it is out everywhere, and everybody else is back, without a person."""

import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import timedelta
from pathlib import Path

import pytest
from attrs import define, field
from cryptography import x509

from pki.issuing.authority import Authority
from pki.issuing.profile import ISSUING
from pki.keys import MemoryKey, key_id
from pki.spiffe import TrustDomain
from pki.svid.x509svid import certificates_pem
from tests.authorities import key
from tests.recipes.workloads import Node, node
from tests.running import PATIENCE, until
from twisted_mesh import stdlib
from twisted_mesh.testing import forge

HOME = TrustDomain("mesh.local")
SMALL = "tests/twisted_mesh/taps/test_revoked_issuing.py::"
EVERYBODY = "spiffe://mesh.local/**"


@define(eq=False)
class Thief:
    """Whoever has a certificate of any name, by a stolen key."""

    files: Path
    open: dict[str, ssl.SSLSocket] = field(factory=dict)

    @classmethod
    def by(cls, directory: Path, issuer: Authority, above: tuple[x509.Certificate, ...]) -> "Thief":
        own, like = key("the thief's"), issuer.certificate
        start = max(cert.not_valid_before_utc for cert in above)
        leaf = forge(
            issuer,
            subject_key=own,
            trust_domain=HOME,
            uris=["spiffe://mesh.local/service/anybody"],
            start=start,
            end=min(like.not_valid_after_utc, start + timedelta(hours=2)),
        )
        path = directory / "thief.pem"
        path.write_bytes(own.to_pem() + certificates_pem([leaf, *above]))
        return cls(path)

    def call(self, port: int) -> ssl.SSLSocket:
        """A connection that is let in. Raises :class:`OSError` where it is not."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.load_cert_chain(self.files)
        plain = socket.create_connection(("127.0.0.1", port), PATIENCE)
        connection = context.wrap_socket(plain)
        try:
            connection.sendall(b"GET /api/status HTTP/1.1\r\nHost: localhost\r\n\r\n")
            if not connection.recv(65536):
                raise ConnectionResetError("it hung up")
        except OSError:
            connection.close()
            raise
        return connection

    def is_let_in(self, port: int) -> bool:
        with suppress(OSError), self.call(port):
            return True
        return False

    def is_cut(self, name: str) -> bool:
        """Whether the connection that was open is no more."""
        connection = self.open[name]
        connection.settimeout(0.2)
        try:
            connection.sendall(b"GET /api/status HTTP/1.1\r\nHost: localhost\r\n\r\n")
            return not connection.recv(65536)
        except TimeoutError:
            return False
        except OSError:
            return True


def issuer_shown(port: int) -> str:
    """The key id of the CA whose certificate a service sends along with its own."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (
        suppress(OSError),
        socket.create_connection(("127.0.0.1", port), PATIENCE) as plain,
        context.wrap_socket(plain) as connection,
    ):
        shown = connection.getpeercert(binary_form=True)
        leaf = x509.load_der_x509_certificate(shown or b"")
        aki = leaf.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
        return (aki.key_identifier or b"").hex()
    return ""


@contextmanager
def answering(serve: Callable[[socket.socket], None]) -> Iterator[int]:
    """A thread for each who connects."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            with suppress(OSError):
                while True:
                    plain, _ = listener.accept()
                    threading.Thread(target=serve, args=(plain,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


def hello(plain: socket.socket) -> None:
    with plain, suppress(OSError):
        while plain.recv(65536):
            plain.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")


@define(eq=False)
class Estate:
    """Services of every kind, by name; where each of them listens."""

    machine: Node
    home: Path
    stack: ExitStack
    ports: dict[str, int] = field(factory=dict)

    def joining(self, name: str) -> tuple[str, ...]:
        """The options of somebody who joins over TLS, and keeps a state of its own."""
        running = self.machine.mesh
        made = running.ctl(
            *("token", "create", "--spiffe-id", f"spiffe://mesh.local/service/{name}"),
            *("--format", "json"),
        )
        token = self.home / f"{name}.token"
        token.touch(mode=0o600)
        token.write_text(json.loads(made.stdout)["token"])
        return (
            *("--spiffe-id", f"spiffe://mesh.local/service/{name}", "--allow", EVERYBODY),
            *("--ca-url", f"https://localhost:{running.ca_port}", "--ca-file", str(running.root)),
            *("--join-token-file", str(token), "--state-dir", str(self.home / name)),
        )

    def settle(self) -> None:
        running = self.machine.mesh
        running.start_server(*self.joining("web"))
        self.ports["mesh-server"] = running.port
        ours = self.machine.entry("shop")
        running.start_server(
            *("--source", self.machine.source, "--spiffe-id", ours, "--allow", EVERYBODY)
        )
        self.ports["mesh-server on the Workload API"] = running.port
        target = self.stack.enter_context(answering(hello))
        _, self.ports["mesh-proxy"] = running.start_proxy(
            "server", f"127.0.0.1:{target}", *self.joining("proxied")
        )
        made = running.ctl(
            *("token", "create", "--spiffe-id", "spiffe://mesh.local/service/threads"),
            *("--format", "json"),
        )
        joined = self.stack.enter_context(
            stdlib.join(
                "spiffe://mesh.local/service/threads",
                ca_url=f"https://localhost:{running.ca_port}",
                ca_file=running.root,
                join_token=json.loads(made.stdout)["token"],
                state_dir=self.home / "threads",
            )
        )
        context = joined.server_context(allow=[EVERYBODY])

        def serve(plain: socket.socket) -> None:
            with suppress(OSError), plain, context.wrap_socket(plain, server_side=True) as wrapped:
                while wrapped.recv(65536):
                    wrapped.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

        self.ports["a program on ssl"] = self.stack.enter_context(answering(serve))


@pytest.fixture
def estate(tmp_path: Path) -> Iterator[Estate]:
    with node() as machine, ExitStack() as stack:
        made = Estate(machine, tmp_path, stack)
        made.settle()
        yield made


@pytest.mark.interop(SMALL + "test_whose_certificate_is_on_record_may_renew_it_and_read_trust")
@pytest.mark.parametrize("what", ["issuing", "root"])
def test_a_stolen_ca_is_out_and_everybody_else_is_back(estate: Estate, what: str) -> None:
    running = estate.machine.mesh
    ca = running.state / "ca"
    stolen = MemoryKey.from_known_pem((ca / f"private/{what}.key").read_bytes())
    certificate = x509.load_pem_x509_certificate((ca / f"{what}.crt").read_bytes())
    authority = Authority(certificate, stolen, (certificate,))
    if what == "root":
        own = key("an issuing CA of the thief's")
        made = forge(
            authority,
            ISSUING,
            subject_key=own,
            trust_domain=HOME,
            start=certificate.not_valid_before_utc,
            end=certificate.not_valid_after_utc,
        )
        authority = Authority(made, own, (made,))
    thief = Thief.by(estate.home, authority, (authority.certificate,))
    before = {name: issuer_shown(port) for name, port in estate.ports.items()}
    for name, port in estate.ports.items():
        thief.open[name] = estate.stack.enter_context(thief.call(port))
    words = (
        ("ca", "revoke-issuing", key_id(certificate.public_key()))
        if what == "issuing"
        else ("ca", "root", "distrust", running.fingerprint)
    )
    done = running.ctl(*words, "--yes", "--format", "json")
    assert done.returncode == 0, done.stderr
    for name, port in estate.ports.items():
        until(lambda name=name: thief.is_cut(name), lambda name=name: name)  # type: ignore[misc]
        assert not thief.is_let_in(port), name
    for name, port in estate.ports.items():
        until(
            lambda port=port, name=name: issuer_shown(port) not in ("", before[name]),  # type: ignore[misc]
            lambda name=name: name,  # type: ignore[misc]
        )
        assert not thief.is_let_in(port), name
    # Who joins, calls, and is served as ever.
    running.port = estate.ports["mesh-server"]
    called = running.client("--server-id", "spiffe://mesh.local/service/web")
    assert called.returncode == 0, called.stderr
