"""Bundle endpoints at real sockets, in the test's own hands: they prove what they are told to, and answer anything."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import cache
from ipaddress import ip_address
from typing import Any

from attrs import define, field, frozen
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from OpenSSL import SSL
from twisted.internet.address import IPv4Address
from twisted.internet.interfaces import IHostnameResolver, IOpenSSLContextFactory
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from zope.interface import implementer

from pki.keys import MemoryKey
from pki.svid.x509svid import X509Svid
from tests.authorities import key
from tests.twisted_mesh.grpc.sockets import own_reactor, run, turn_until

#: What is answered to a path: bytes and then the end, or what has the connection itself.
Answering = Callable[[str], "bytes | Callable[[Any], object]"]


def ok(body: bytes, media_type: str = "application/json", **headers: str) -> bytes:
    return answer(200, body, **{"content_type": media_type, **headers})


def answer(status: int, body: bytes = b"", **headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status} Words", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def redirect(location: str, status: int = 302) -> bytes:
    return answer(status, b"elsewhere", location=location)


@implementer(IHostnameResolver)
class _LocalNames:
    """Every name is this machine's: the test's reactor has no threads to ask on."""

    def resolveHostName(
        self, receiver: Any, name: str, portNumber: int = 0, *_: Any, **__: Any
    ) -> Any:
        receiver.resolutionBegan(self)
        receiver.addressResolved(IPv4Address("TCP", "127.0.0.1", portNumber))
        receiver.resolutionComplete()
        return self


@cache
def reactor() -> Any:
    """The test's own, which knows names."""
    found = own_reactor()
    found.installNameResolver(_LocalNames())
    return found


@implementer(IOpenSSLContextFactory)
@frozen
class Shown:
    """A context that presents these, and asks nobody for a certificate."""

    chain: Sequence[x509.Certificate]
    key: MemoryKey
    newest: int = SSL.TLS1_3_VERSION
    groups: str = ""
    """By which keys are exchanged; empty for all that OpenSSL has."""

    def getContext(self) -> SSL.Context:
        context = SSL.Context(SSL.TLS_SERVER_METHOD)
        if self.groups:
            assert SSL._lib.SSL_CTX_set1_curves_list(context._context, self.groups.encode()) == 1  # type: ignore[attr-defined]
        context.set_max_proto_version(self.newest)
        context.use_certificate(self.chain[0])
        for certificate in self.chain[1:]:
            context.add_extra_chain_cert(certificate)
        context.use_privatekey(self.key.private_key)
        return context


def svid(shown: X509Svid, newest: int = SSL.TLS1_3_VERSION) -> Shown:
    return Shown(shown.chain, shown.key, newest)


@define(eq=False)
class Endpoint:
    """What listens, and what it was asked."""

    answers: Answering
    asked: list[bytes] = field(factory=list)
    """Each request's head."""
    open: int = 0
    most_open: int = 0
    port: int = 0

    def url(self, path: str = "/bundle", host: str = "localhost") -> str:
        return f"https://{host}:{self.port}{path}"


class _Asked(Protocol):
    transport: Any

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.heard = b""

    def connectionMade(self) -> None:
        self.endpoint.open += 1
        self.endpoint.most_open = max(self.endpoint.most_open, self.endpoint.open)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.endpoint.open -= 1

    def dataReceived(self, data: bytes) -> None:
        self.heard += data
        if b"\r\n\r\n" not in self.heard:
            return
        head, _, self.heard = self.heard.partition(b"\r\n\r\n")
        self.endpoint.asked.append(head)
        said = self.endpoint.answers(head.split()[1].decode())
        if isinstance(said, bytes):
            self.transport.write(said)
            self.transport.loseConnection()
        else:
            said(self.transport)


@contextmanager
def serving(answers: Answering | bytes, shown: Any) -> Iterator[Endpoint]:
    """An endpoint on this machine that shows that :class:`Shown`; without one it speaks no TLS."""
    fixed = answers
    endpoint = Endpoint((lambda _: fixed) if isinstance(fixed, bytes) else fixed)
    factory: Any = Factory.forProtocol(lambda: _Asked(endpoint))
    factory.noisy = False
    if shown is not None:
        factory = TLSMemoryBIOFactory(shown, False, factory, own_reactor())
        factory.noisy = False
    port = own_reactor().listenTCP(0, factory, interface="127.0.0.1")
    endpoint.port = port.getHost().port
    try:
        yield endpoint
    finally:
        run(_closed(port))
        turn_until(lambda: not endpoint.open)


async def _closed(port: Any) -> None:
    await port.stopListening()


@cache
def web_root(name: str = "web CA") -> tuple[x509.Certificate, MemoryKey]:
    """A CA of the web, as far as a test believes it."""
    return _certificate(name, None, ()), key(name)


def web_certificate(
    *hosts: str, issuer: str = "web CA", since: datetime | None = None, days: int = 1
) -> Shown:
    """A server's, for those names, of that CA."""
    made = _certificate("web server", issuer, hosts, since, days)
    return Shown((made,), key("web server"))


def _certificate(
    name: str,
    issuer: str | None,
    hosts: Sequence[str],
    since: datetime | None = None,
    days: int = 1,
) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    begins = since or datetime.now(UTC) - timedelta(hours=1)
    signer = key(issuer or name)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(web_root(issuer)[0].subject if issuer else subject)
        .public_key(key(name).public_key)  # type: ignore[arg-type]
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(begins + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
    )
    if hosts:
        names = x509.SubjectAlternativeName([_host(host) for host in hosts])
        builder = builder.add_extension(names, critical=False)
    return builder.sign(signer.private_key, hashes.SHA256())  # type: ignore[arg-type]


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host)
