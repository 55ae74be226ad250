"""A parent has certified what its workers may have, and nothing else; and no key is in what they say to each other."""

import asyncio
import base64
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from attrs import define, field
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from msgspec import UNSET
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from pki.codes import Code
from pki.errors import Problem
from pki.issuing.csr import build_csr, load_csr
from pki.keys import KeyAlgorithm, MemoryKey
from pki.spiffe import SpiffeId
from pki.svid.x509svid import certificates_pem
from tests.authorities import BACKEND, HOUR, NOW, Mesh, mesh
from tests.twisted_mesh.recording import RecordingLog
from twisted_mesh.api.attestation_messages import AttestationMember
from twisted_mesh.api.messages import ConnectionsReport, SignRequest
from twisted_mesh.api.refusal import CaRefused
from twisted_mesh.api.trust_news import WHOLE_BUNDLE
from twisted_mesh.api.trust_question import Belief, TrustQuestion
from twisted_mesh.evidence.data import AttestationData
from twisted_mesh.http.address import CaAddress
from twisted_mesh.identity.proving import Proving
from twisted_mesh.identity.sources import CaSource
from twisted_mesh.workers.channel import framed
from twisted_mesh.workers.messages import MOST_TO_PARENT, MOST_TO_WORKER, Answered, Asked
from twisted_mesh.workers.relay import MOST_OPEN, Relay
from twisted_mesh.workers.relayed_client import ParentAway, RelayedClient


@define(eq=False)
class Manager:
    """Of the parent's certificate."""

    seconds_left: float = 60.0


@define(eq=False)
class Client:
    """The parent's, with a CA behind it."""

    ca: Mesh = field(factory=mesh)
    asked: list[Any] = field(factory=list)
    refusal: CaRefused | None = None
    answer: bytes = b"{}"
    address: CaAddress = CaAddress("unix", "/run/ca.sock")  # noqa: RUF009 - it is frozen

    async def challenge(self, kind: str) -> str:
        return "c0ffee"

    async def defer(self, function: Any, *words: Any) -> Any:
        return function(*words)

    def compared_clocks(self) -> str:
        return "the CA's clock is 3 s ahead"

    async def send(
        self, method: str, path: str, body: Any = None, more: Any = None, *, wait: int = 0
    ) -> bytes:
        self.asked.append((method, path, body, more, wait))
        if self.refusal is not None and getattr(body, "attestation", UNSET) is UNSET:
            raise self.refusal
        if path == WHOLE_BUNDLE:
            return msgspec.json.encode(self.ca.bundle.to_jwks_object())
        if path != "/api/v1/sign":
            return self.answer
        key: Any = load_csr(body.csr.encode()).public_key()
        issuing = self.ca.issuing
        leaf = await issuing.sign(issuing.draft(key, SpiffeId.parse(body.requested_id), NOW, HOUR))
        chain = [certificates_pem([cert]).decode() for cert in issuing.intermediates]
        return msgspec.json.encode(
            {"certificate": certificates_pem([leaf]).decode(), "chain": chain}
        )


def relay(
    client: Client | None = None, left: float = 60.0, proving: Proving | None = None
) -> Relay:
    return Relay(client or Client(), BACKEND, Manager(left), proving)  # type: ignore[arg-type]


def signing(**more: Any) -> bytes:
    members = {"csr": "x", "requested_id": str(BACKEND), **more}
    return msgspec.json.encode(SignRequest(**members))


@define(eq=False)
class Prover:
    kind = "drill"
    where = "the drill"
    wants_challenge = True
    keys: list[bytes] = field(factory=list)

    def prove(self, challenge: str | None, key: bytes, trust_domain: str) -> AttestationData:
        self.keys.append(key)
        return AttestationData(self.kind, msgspec.json.encode([challenge, trust_domain]))


REATTEST = CaRefused(403, [Problem(Code.REATTEST_REQUIRED, "no")])


def test_where_the_ca_wants_evidence_for_a_workers_key_the_parent_shows_it() -> None:
    prover = Prover()
    client = Client(refusal=REATTEST)
    key = MemoryKey.generate(KeyAlgorithm.EC_P256)
    csr = build_csr(key, BACKEND).decode()
    answer = answered(
        relay(client, proving=Proving(prover)),  # type: ignore[arg-type]
        Asked(1, "POST", "/api/v1/sign", signing(csr=csr), "once"),
    )
    assert answer.status == 200
    spki = key.public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert prover.keys == [spki]
    first, second = client.asked
    assert first[2].attestation is UNSET
    assert second[2].attestation == AttestationMember("drill", ["c0ffee", "mesh.local"])
    assert first[3] == second[3] == {"idempotency-key": "once"}
    assert b"c0ffee" not in msgspec.msgpack.encode(answer)


def test_a_parent_without_evidence_says_what_the_ca_says() -> None:
    answer = answered(relay(Client(refusal=REATTEST)), Asked(1, "POST", "/api/v1/sign", signing()))
    assert (answer.status, answer.problems[0].code) == (403, Code.REATTEST_REQUIRED)


@pytest.mark.parametrize("csr", ["x", "", "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n"])
def test_no_evidence_is_fetched_for_what_is_no_request(csr: str) -> None:
    prover = Prover()
    found = relay(Client(refusal=REATTEST), proving=Proving(prover))  # type: ignore[arg-type]
    answer = answered(found, Asked(1, "POST", "/api/v1/sign", signing(csr=csr)))
    assert answer.status != 200 and answer.problems
    assert prover.keys == []


def answered(found: Relay, asked: Asked) -> Answered:
    return asyncio.run(found.answer(1, asked))


@pytest.mark.parametrize(
    "asked",
    [
        Asked(1, "POST", "/api/v1/revoke", b'{"serial":"1"}'),
        Asked(1, "GET", "/api/v1/certificates"),
        Asked(1, "GET", "/api/v1/sign"),
        Asked(1, "POST", "/api/v1/sign?x=1", signing()),
        Asked(1, "POST", "/api/v1/sign/", signing()),
        Asked(1, "POST", "http://elsewhere/api/v1/sign", signing()),
        Asked(1, "POST", "//elsewhere/api/v1/sign", signing()),
        Asked(1, "POST", "/api/v1/sign", b"{"),
        Asked(1, "POST", "/api/v1/sign"),
        Asked(1, "POST", "/api/v1/sign", signing(requested_id="spiffe://mesh.local/admin/x")),
        Asked(1, "POST", "/api/v1/sign", signing(requested_id=f"{BACKEND}/more")),
        Asked(1, "POST", "/api/v1/sign", signing(token="abc")),
        Asked(1, "POST", "/api/v1/sign", signing(attestation=AttestationMember("k8s", "x"))),
        Asked(1, "GET", WHOLE_BUNDLE, b"{}"),
        Asked(1, "GET", "/api/v1/bundle"),
        Asked(1, "GET", "/api/v1/bundle?x=1"),
        Asked(1, "GET", "/api/v1/trust?after=1&after=2"),
        Asked(1, "GET", "/api/v1/trust?after=1&as=admin"),
        Asked(1, "GET", "/api/v1/trust?after=1\r\nX: y"),
        Asked(1, "GET", "/api/v1/trust?after=1", wait=3600),
        Asked(1, "GET", "/api/v1/trust?after=1", wait=-1),
        Asked(1, "POST", "/api/v1/ocsp"),
        Asked(1, "POST", "/api/v1/connections", b"[]"),
        Asked(1, "", ""),
        Asked(1, "GET", "http://[/"),
    ],
    ids=lambda asked: f"{asked.method} {asked.path}"[:40],
)
def test_what_a_worker_does_not_need_is_not_asked_for_it(asked: Asked) -> None:
    client = Client()
    found = answered(relay(client), asked)
    assert client.asked == []
    assert (found.number, found.status, found.body) == (1, 0, b"")
    assert found.problems


def test_what_it_needs_is_asked() -> None:
    client = Client()
    found = relay(client)
    report = ConnectionsReport("abc", {})
    for asked in (
        Asked(1, "GET", WHOLE_BUNDLE),
        Asked(2, "GET", "/api/v1/crls"),
        Asked(3, "GET", "/api/v1/trust?after=1&log=0&store=a%2Fb&wait=45s", wait=45),
        Asked(4, "POST", "/api/v1/ocsp", b"\x30\x00"),
        Asked(5, "POST", "/api/v1/connections", msgspec.json.encode(report)),
    ):
        assert answered(found, asked).status == 200
    assert client.asked == [
        ("GET", WHOLE_BUNDLE, None, None, 0),
        ("GET", "/api/v1/crls", None, None, 0),
        ("GET", "/api/v1/trust?after=1&log=0&store=a%2Fb&wait=45s", None, None, 45),
        ("POST", "/api/v1/ocsp", b"\x30\x00", None, 0),
        ("POST", "/api/v1/connections", report, None, 0),
    ]


@pytest.mark.parametrize("left", [0.0, -1.0])
def test_a_parent_whose_own_certificate_has_ended_vouches_for_nobody(left: float) -> None:
    client = Client()
    found = answered(relay(client, left), Asked(1, "POST", "/api/v1/sign", signing()))
    assert client.asked == []
    assert found.problems[0].code == Code.NO_IDENTITY


def test_a_refusal_comes_as_it_is() -> None:
    problem = Problem(Code.NOT_AUTHORIZED, "no", "ask")
    client = Client(refusal=CaRefused(403, [problem]))
    found = answered(relay(client), Asked(1, "GET", "/api/v1/crls"))
    assert (found.status, found.problems) == (403, [problem])


def test_an_answer_that_is_too_long_for_a_worker_is_told() -> None:
    client = Client(answer=bytes(MOST_TO_WORKER * 3 // 4))
    found = answered(relay(client), Asked(1, "GET", "/api/v1/crls"))
    assert (found.status, found.body) == (0, b"")
    assert "too long" in found.problems[0].detail
    assert framed(Answered(1, 200, bytes(MOST_TO_WORKER // 4 * 3 - 64 * 1024)), MOST_TO_WORKER)


def test_a_worker_has_so_many_questions_open_and_no_more() -> None:
    found = relay()
    found._open[1] = MOST_OPEN
    assert answered(found, Asked(1, "GET", "/api/v1/crls")).problems
    assert asyncio.run(found.answer(2, Asked(1, "GET", "/api/v1/crls"))).status == 200
    assert found._open == {1: MOST_OPEN, 2: 0}


@define(eq=False)
class Wire:
    """Between a worker's client and its parent: it keeps all that is said."""

    relay: Relay
    clock: Clock = field(factory=Clock)
    said: list[bytes] = field(factory=list)
    client: RelayedClient = field(init=False)
    is_cut: bool = False

    def __attrs_post_init__(self) -> None:
        address = CaAddress.parse("https://ca.example:8443")
        self.client = RelayedClient(self.clock, address, say=self.say)

    def say(self, asked: Asked) -> None:
        self.said.append(framed(asked, MOST_TO_PARENT))
        if not self.is_cut:
            answer = asyncio.run(self.relay.answer(1, asked))
            self.said.append(framed(answer, MOST_TO_WORKER))
            self.clock.callLater(0, self.client.answered, answer)

    def done(self, coroutine: Any, seconds: float = 0.0) -> Any:
        waiting = Deferred.fromCoroutine(coroutine)
        for _ in range(20):
            self.clock.advance(seconds)
        outcome: list[Any] = []
        waiting.addBoth(outcome.append)
        (result,) = outcome
        if isinstance(result, Failure):
            result.raiseException()
        return result


def test_keys_stay_where_they_are_made() -> None:
    wire = Wire(relay())
    keys = []
    for _ in range(3):
        source = CaSource(wire.client, BACKEND, lambda: NOW, RecordingLog(), ttl=timedelta(hours=1))
        identity = wire.done(source.obtain(KeyAlgorithm.EC_P256))
        assert identity.svid.spiffe_id == BACKEND
        assert identity.clocks == "the CA's clock is 3 s ahead"
        keys.append(identity.svid.key)
    assert len({key.public_key.public_numbers() for key in keys}) == 3
    said = b"".join(wire.said)
    assert b"CERTIFICATE REQUEST" in base64.b64decode(msgspec.json.decode(wire.said[0][4:])["body"])
    for message in wire.said:
        body = msgspec.json.decode(message[4:]).get("body", "")
        said += base64.b64decode(body or "")
    assert b"PRIVATE" not in said
    for key in keys:
        private: Any = key.private_key
        scalar = private.private_numbers().private_value.to_bytes(32, "big")
        forms = [scalar, scalar[::-1]]
        for encoding in (Encoding.DER, Encoding.PEM):
            for shape in (PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL):
                forms.append(private.private_bytes(encoding, shape, NoEncryption()))
        for form in forms:
            for written in (form, form.hex().encode(), base64.b64encode(form)):
                assert written not in said


def test_a_parent_that_does_not_answer_is_not_waited_for_for_ever() -> None:
    wire = Wire(relay(), is_cut=True)
    with pytest.raises(ParentAway, match="has not answered in time"):
        wire.done(wire.client.crls(), 5.0)
    assert not wire.client._asked
    wire.client.answered(Answered(1, 200))


def test_a_refusal_is_the_cas() -> None:
    wire = Wire(relay(Client(refusal=CaRefused(409, [Problem(Code.EXPIRED, "no")]))))
    with pytest.raises(CaRefused) as told:
        wire.done(wire.client.crls())
    assert told.value.status == 409


def test_where_there_was_no_answer_a_worker_hears_why() -> None:
    wire = Wire(relay(left=0))
    with pytest.raises(ParentAway, match="vouches for no worker"):
        wire.done(wire.client.sign(b"csr", BACKEND))


def test_all_that_an_endpoint_asks_for_news_by_is_asked_for_a_worker() -> None:
    belief = Belief("a" * 64, 2**62, f"sha256:{'ab' * 32}")
    question = TrustQuestion(2**62, "s" * 64, "e" * 64, 2**62, 45, belief)
    client = Client()
    found = answered(relay(client), Asked(1, "GET", question.path, wait=45))
    assert found.status == 200
    assert client.asked == [("GET", question.path, None, None, 45)]
