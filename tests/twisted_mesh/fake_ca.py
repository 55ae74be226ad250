"""A CA over real TLS in the test's own hands: it notes who asks for what, and answers as it is told."""

import asyncio
import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from attrs import define, field, frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IProtocolFactory, IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Cooperator
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure
from twisted.web.client import FileBodyProducer
from zope.interface import implementer

from pki.issuing.csr import load_csr
from pki.ocsp.request import OcspRequest
from pki.ocsp.sign import Responder
from pki.spiffe import SpiffeId
from pki.svid.x509svid import X509Svid, certificates_pem
from tests.answers import respond
from tests.authorities import Mesh
from tests.twisted_mesh.tls.wires import TODAY, Conversation, End, Wire, good_svid, home, in_memory
from twisted_mesh.api import client as ca_client_module
from twisted_mesh.api.trust_news import WHOLE_BUNDLE
from twisted_mesh.tls.contexts import Role

#: What a request is answered with; None hangs up.
Answer = tuple[int, Any] | None
HUNG_UP: Answer = None


def refused(status: int, code: str) -> Answer:
    return status, {"status": status, "code": code, "detail": "the CA says no"}


@frozen
class Asked:
    """One request, and who made it."""

    line: str
    headers: dict[str, str]
    body: Any
    caller: str
    """Empty where no certificate was shown."""


class _Wire(Wire):
    def setTcpNoDelay(self, enabled: bool) -> None:
        """There is no delay here."""


class _Server(Protocol):
    """One request on one connection."""

    transport: Any

    def __init__(self, ca: "FakeCa") -> None:
        self.ca = ca
        self.heard = b""

    def dataReceived(self, data: bytes) -> None:
        self.heard += data
        head, end, body = self.heard.partition(b"\r\n\r\n")
        first, *lines = head.decode("ascii").split("\r\n")
        headers = {n.lower(): v for n, v in (line.split(": ", 1) for line in lines if end)}
        if not end or len(body) < int(headers.get("content-length", "0")):
            return
        peer = self.transport.peer
        caller = str(peer.spiffe_id) if peer else ""
        is_json = headers.get("content-type") == "application/json"
        said = json.loads(body) if is_json else body or None
        asked = Asked(first.rpartition(" ")[0], headers, said, caller)
        self.ca.asked.append(asked)
        answer = self.ca.answer(asked)
        if answer is not None:
            status, document = answer
            text = document if isinstance(document, bytes) else json.dumps(document).encode()
            self.transport.write(
                b"HTTP/1.1 %d Words\r\nContent-Length: %d\r\n\r\n" % (status, len(text)) + text
            )
        self.transport.loseConnection()


@define(eq=False)
class FakeCa:
    """Signs what it is asked for, but for what ``next_answers`` says."""

    of: Mesh = field(factory=home)
    svid: X509Svid = field(factory=lambda: good_svid(None, "mesh", "ca"))
    reactor: Any = field(factory=MemoryReactorClock)
    next_answers: list[Answer] = field(factory=list)
    responder: Responder | None = None
    """What answers OCSP requests; None where the CA does not speak OCSP."""
    asked: list[Asked] = field(factory=list)
    connections: list[tuple[Wire, Wire]] = field(factory=list)
    end: End = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.end = End(True, self.svid)
        self.end.contexts.role = Role(serves=True, demands_certificate=False, sends_root=True)
        self.end.contexts.replace(self.svid, self.of.bundles.all_roots)

    @property
    def signing(self) -> list[Asked]:
        return [asked for asked in self.asked if asked.line == "POST /api/v1/sign"]

    def answer(self, asked: Asked) -> Answer:
        if asked.line == f"GET {WHOLE_BUNDLE}":
            return 200, self.of.bundle.to_jwks_object()
        if asked.line.startswith("GET /api/v1/trust"):
            empty: list[Any] = []
            return 200, {"store": "s", "generation": 1, "bundles": {}, "revocations": empty}
        if asked.line == "POST /api/v1/ocsp":
            return self._about(asked.body)
        if self.next_answers:
            return self.next_answers.pop(0)
        key: Any = load_csr(asked.body["csr"].encode()).public_key()
        issuing = self.of.issuing
        spiffe_id = SpiffeId.parse(asked.body["requested_id"])
        draft = issuing.draft(key, spiffe_id, TODAY, timedelta(hours=1))
        leaf = asyncio.run(issuing.sign(draft))
        chain = [certificates_pem([cert]).decode() for cert in issuing.intermediates]
        return 201, {"certificate": certificates_pem([leaf]).decode(), "chain": chain}

    def _about(self, request: bytes) -> Answer:
        if self.responder is None:
            return refused(404, "not-found")
        return 200, respond(OcspRequest.parse(request), self.responder, TODAY)

    def connect(self, factory: IProtocolFactory) -> "Deferred[Any]":
        """A caller: its factory of TLS connections."""
        served = Factory.forProtocol(lambda: _Server(self))  # type: ignore[arg-type]
        server = in_memory(served, self.end.security).buildProtocol(None)
        client: Any = factory.buildProtocol(None)
        wires = _Wire(), _Wire()
        self.connections.append(wires)
        for protocol, wire in zip((client, server), wires, strict=True):
            wire.protocol = protocol
            protocol.makeConnection(wire)
        return Deferred()

    def until_done(self, coroutine: Any) -> Any:
        """What ``coroutine`` comes to, while all that is said is carried to and fro."""
        outcome: list[Any] = []
        Deferred.fromCoroutine(coroutine).addBoth(outcome.append)
        for _ in range(100):
            for clock in (self.reactor, self.end.clock):
                clock.advance(0)
            for one, other in self.connections:
                Conversation._carry(one, other)
                Conversation._carry(other, one)
        if not outcome:
            self.reactor.pump([1] * 30)
        (found,) = outcome
        if isinstance(found, Failure):
            found.raiseException()
        return found


@implementer(IStreamClientEndpoint)
@frozen
class _Endpoint:
    ca: FakeCa

    def connect(self, factory: IProtocolFactory) -> "Deferred[Any]":
        return self.ca.connect(factory)


class _Now:
    """A call that has been made."""

    def __init__(self, call: Callable[[], None]) -> None:
        call()

    def cancel(self) -> None:
        """There is nothing left to cancel."""


def reach(monkeypatch: pytest.MonkeyPatch, ca: FakeCa) -> None:
    """Have every TCP connection of a CA's client end at ``ca``."""
    monkeypatch.setattr(ca_client_module, "HostEndpoint", lambda *_: _Endpoint(ca))
    # It would wait for turns of the global reactor.
    monkeypatch.setattr(
        ca_client_module,
        "FileBodyProducer",
        lambda file: FileBodyProducer(file, Cooperator(scheduler=_Now)),  # type: ignore[arg-type]
    )
