"""A signer in the test's own hands, at real sockets: it speaks the protocol, and does whatever a test tells it."""

import base64
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from attrs import define, field
from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLContextFactory
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from zope.interface import implementer

from pki.keys import KeyAlgorithm, MemoryKey, spki_der
from tests.authorities import key
from tests.twisted_mesh.grpc.sockets import own_reactor, run, turn_until
from tests.twisted_mesh.tls.test_groups import tell
from twisted_mesh.runtime.clock import wall_clock
from twisted_mesh.signer.address import SignerAddress
from twisted_mesh.signer.client import SignerClient
from twisted_mesh.signer.client_key import signer_tls
from twisted_mesh.tls.self_signed import SelfSigned, pin_of

#: What happens to a request in place of an answer.
Fault = Callable[["Stub", Any, str, dict[str, Any]], bytes | None]


def answer(status: int, body: object = None, **headers: str) -> bytes:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"HTTP/1.1 {status} Words", f"Content-Length: {len(data)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + data


def refusal(status: int, code: str, detail: str, remedy: str = "", rule: str = "") -> bytes:
    return answer(status, {"code": code, "detail": detail, "remedy": remedy, "rule": rule})


@define(eq=False)
class Stub:
    """What it holds, what it was asked, and what is wrong with it."""

    keys: dict[str, MemoryKey] = field(factory=dict)
    asked: list[tuple[str, dict[str, Any]]] = field(factory=list)
    connections: list[Any] = field(factory=list)
    opened: int = 0
    fault: Fault | None = None

    def hold(self, name: str, algorithm: KeyAlgorithm = KeyAlgorithm.EC_P256) -> MemoryKey:
        found = self.keys[name] = key(f"signer's {name}", algorithm)
        return found

    def respond(self, transport: Any, path: str, body: dict[str, Any]) -> bytes | None:
        self.asked.append((path, body))
        if self.fault is not None:
            return self.fault(self, transport, path, body)
        return self.good(path, body)

    def good(self, path: str, body: dict[str, Any]) -> bytes:
        if path == "GET /v1/keys":
            return answer(200, {"keys": [self._shown(name) for name in self.keys]})
        if path == "POST /v1/keys":
            name = f"{body['label'].replace(' ', '-')}-{len(self.keys)}"
            self.hold(name, KeyAlgorithm(body["algorithm"]))
            return answer(201, self._shown(name))
        if body.get("key") not in self.keys:
            return refusal(404, "key-store-refused", "no such key", "look at GET /v1/keys")
        if path == "POST /v1/sign":
            made = run_now(self.keys[body["key"]].sign(base64.b64decode(body["data"])))
            return answer(200, {"signature": base64.b64encode(made).decode()})
        if path == "POST /v1/whereabouts":
            return answer(200, {"key": body["key"], "store": "files", "is_extractable": False})
        return refusal(404, "malformed", "no such question")

    def _shown(self, name: str) -> dict[str, str]:
        held = self.keys[name]
        return {
            "name": name,
            "algorithm": held.algorithm,
            "public_key": base64.b64encode(spki_der(held.public_key)).decode(),
            "purpose": "root" if "root" in name else "issuing",
            "label": name,
            "store": "files",
        }

    def drop(self) -> None:
        """Every connection, as a process does that is killed."""
        for connection in tuple(self.connections):
            connection.transport.abortConnection()


def run_now(work: Any) -> bytes:
    """What a coroutine comes to that waits for nothing."""
    try:
        work.send(None)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]
    raise AssertionError("it waits")


class _Served(Protocol):
    transport: Any

    def __init__(self, stub: Stub) -> None:
        self.stub, self.heard = stub, b""

    def connectionMade(self) -> None:
        self.stub.opened += 1
        self.stub.connections.append(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.stub.connections.remove(self)

    def dataReceived(self, data: bytes) -> None:
        self.heard += data
        head, end, body = self.heard.partition(b"\r\n\r\n")
        lines = head.decode().split("\r\n")
        sizes = [int(line.split(":")[1]) for line in lines if line.startswith("Content-Length")]
        if not end or len(body) < sum(sizes):
            return
        self.heard = b""
        path = lines[0].rpartition(" ")[0]
        said = self.stub.respond(self.transport, path, json.loads(body or b"{}"))
        if said is not None:
            self.transport.write(said)


@implementer(IOpenSSLContextFactory)
@define(eq=False)
class _Shown:
    name: str
    accepts: Callable[[Any], bool]
    groups: str = ""

    def getContext(self) -> SSL.Context:
        context = SSL.Context(SSL.TLS_SERVER_METHOD)
        context.use_certificate(SelfSigned.of(key(self.name), "signer", wall_clock()).certificate)
        context.use_privatekey(key(self.name).private_key)
        if self.groups:
            tell(context, self.groups)
        context.set_verify(
            SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT,
            lambda _conn, cert, _errno, _depth, _ok: self.accepts(cert.to_cryptography()),
        )
        return context


def factory(stub: Stub) -> Any:
    found = Factory.forProtocol(lambda: _Served(stub))
    found.noisy = False
    return found


@contextmanager
def listening(stub: Stub, path: Path) -> Iterator[None]:
    """At a unix socket, for as long as that lasts."""
    port = own_reactor().listenUNIX(str(path), factory(stub))
    try:
        yield
    finally:
        run(_closed(port))
        stub.drop()
        turn_until(lambda: not stub.connections)


@contextmanager
def at_socket(stub: Stub | None = None) -> Iterator[tuple[Stub, SignerClient]]:
    stub = stub or Stub()
    with TemporaryDirectory() as directory:
        path = Path(directory, "s")
        client = SignerClient(own_reactor(), SignerAddress(path=str(path)), timeout=2.0)
        with listening(stub, path):
            yield stub, client
            client.hang_up()


@cache
def ours() -> SelfSigned:
    """A CA's client key."""
    return SelfSigned.of(key("the CA's own"), "CA", wall_clock())


@contextmanager
def over_tls(
    stub: Stub,
    name: str = "the signer's own",
    accepts: Callable[[Any], bool] = lambda _: True,
    groups: str = "",
) -> Iterator[int]:
    """At a port, where it shows the key of that name."""
    served = TLSMemoryBIOFactory(_Shown(name, accepts, groups), False, factory(stub), own_reactor())
    served.noisy = False
    port = own_reactor().listenTCP(0, served, interface="127.0.0.1")
    try:
        yield port.getHost().port
    finally:
        run(_closed(port))
        stub.drop()
        turn_until(lambda: not stub.connections)


class _Greeter(Protocol):
    transport: Any

    def __init__(self, first: bytes) -> None:
        self.first = first

    def connectionMade(self) -> None:
        self.transport.write(self.first)
        self.transport.loseConnection()


@contextmanager
def speaking(first: bytes) -> Iterator[int]:
    """A port where somebody speaks first, and something else."""
    greeters: Any = Factory.forProtocol(lambda: _Greeter(first))
    greeters.noisy = False
    port = own_reactor().listenTCP(0, greeters, interface="127.0.0.1")
    try:
        yield port.getHost().port
    finally:
        run(_closed(port))


def tls_client(port: int, *pinned: str, requires_pq: bool = False) -> SignerClient:
    pins = tuple(pin_of(key(name)) for name in pinned)
    address = SignerAddress(host="127.0.0.1", port=port, pins=pins)
    return SignerClient(
        own_reactor(),
        address,
        signer_tls(ours(), pins, requires_pq=requires_pq),
        timeout=2.0,
    )


async def _closed(port: Any) -> None:
    await port.stopListening()
