"""An identity is a fresh key with a certificate for it, and the key stays where it was made."""

import json
from collections.abc import Sequence
from datetime import timedelta
from ipaddress import ip_address
from typing import Any

import pytest
from attrs import define, field
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from twisted.internet.defer import Deferred, succeed
from zope.interface import implementer
from zope.interface.verify import verifyObject

from pki.audit.log import Checkpoint, LogKey
from pki.codes import Code
from pki.errors import Malformed, Problem
from pki.issuing.csr import IssuanceRequest, load_csr
from pki.keys import KeyAlgorithm, MemoryKey
from pki.policy.join_token import JoinToken
from pki.spiffe import SpiffeId, TrustDomain
from pki.svid.bundle import BundleSet, TrustBundle
from pki.svid.revocation_set import Reason, Revocation
from pki.svid.x509svid import X509Svid
from tests.authorities import BACKEND, HOUR, MESH, NOW, Mesh, key, mesh
from tests.twisted_mesh.ca.rigs import ca_rig, result_of
from tests.twisted_mesh.recording import RecordingLog
from twisted_mesh.api.refusal import CaRefused
from twisted_mesh.api.trust_news import TrustNews
from twisted_mesh.api.trust_question import Belief, TrustQuestion
from twisted_mesh.evidence.interface import AttestationData, IProver, NoEvidence
from twisted_mesh.http.address import CaAddress
from twisted_mesh.identity import own_source
from twisted_mesh.identity.own_source import OwnSource, new_key
from twisted_mesh.identity.proving import Proving
from twisted_mesh.identity.sources import CaSource
from twisted_mesh.interfaces import ISource, TrustUpdate
from twisted_mesh.tls.alerts import Unreachable
from twisted_mesh.trust.log_witness import LogStatement

P256 = KeyAlgorithm.EC_P256


@define(eq=False)
class Client:
    """A CA's client that notes what it is asked."""

    ca: Mesh = field(factory=mesh)
    address: CaAddress = CaAddress("unix", "/run/ca.sock")  # noqa: RUF009 - it is frozen
    asked: list[Any] = field(factory=list)
    idempotency_keys: list[str] = field(factory=list)
    security: Any = None
    tokens: list[JoinToken | None] = field(factory=list)
    certify: MemoryKey | None = None
    news: list[TrustNews] = field(factory=list)
    away: Exception | None = None
    presented: list[X509Svid | None] = field(factory=list)

    waits: list[int] = field(factory=list)
    questions: list[TrustQuestion] = field(factory=list)
    waiting: "Deferred[TrustNews] | None" = None
    hung_up: int = 0
    shown: list[str | None] = field(factory=list)
    """Evidence."""
    refusals: list[CaRefused | None] = field(factory=list)
    """What becomes of the first requests."""
    challenges: int = 0

    async def challenge(self, kind: str) -> str:
        self.challenges += 1
        return f"{kind}-{self.challenges}"

    async def defer(self, function: Any, *words: Any) -> Any:
        return function(*words)

    def hang_up(self) -> None:
        self.hung_up += 1

    def present(self, svid: X509Svid | None) -> None:
        self.presented.append(svid)

    async def sign(  # noqa: PLR0917 - as the client has it
        self,
        csr: bytes,
        spiffe_id: SpiffeId,
        ttl: timedelta | None,
        idempotency_key: str,
        token: JoinToken | None,
        evidence: AttestationData | None = None,
    ) -> Sequence[x509.Certificate]:
        self.asked.append((csr, spiffe_id, ttl))
        self.idempotency_keys.append(idempotency_key)
        self.tokens.append(token)
        self.shown.append(None if evidence is None else evidence.data.decode())
        if self.refusals and (refusal := self.refusals.pop(0)) is not None:
            raise refusal
        if self.away:
            raise self.away
        public_key: Any = self.certify.public_key if self.certify else load_csr(csr).public_key()
        draft = self.ca.issuing.draft(public_key, spiffe_id, NOW, HOUR)
        return (await self.ca.issuing.sign(draft), *self.ca.issuing.intermediates)

    def compared_clocks(self) -> str:
        return "the CA's clock agrees with ours"

    async def bundle(self, trust_domain: TrustDomain) -> TrustBundle:
        self.asked.append(trust_domain)
        return self.ca.bundle

    async def trust(self, question: TrustQuestion) -> TrustNews:
        self.asked.append((question.after, question.store))
        self.questions.append(question)
        self.waits.append(question.wait)
        if self.waiting is not None:
            return await self.waiting
        return self.news.pop(0)


@define(eq=False)
class Rig:
    client: Client = field(factory=Client)
    log: RecordingLog = field(factory=RecordingLog)

    def source(self, **options: Any) -> CaSource:
        client: Any = self.client
        return CaSource(client, BACKEND, lambda: NOW, self.log, **options)


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_both_sources_are_sources(rig: Rig) -> None:
    assert verifyObject(ISource, rig.source())
    assert verifyObject(ISource, OwnSource(lambda key: key, BundleSet, lambda: NOW))


def test_an_identity_is_a_certificate_for_a_key_of_ones_own(rig: Rig) -> None:
    identity = result_of(rig.source().obtain(P256))
    assert identity.svid.spiffe_id == BACKEND
    assert identity.svid.leaf.public_key() == identity.svid.key.public_key
    assert identity.bundles.get(MESH) == mesh().bundle
    assert identity.issued_at == NOW


def test_each_identity_has_a_key_of_its_own(rig: Rig) -> None:
    source = rig.source()
    keys = {
        result_of(source.obtain(P256)).svid.key.public_key.public_bytes(
            Encoding.PEM, PublicFormat.SubjectPublicKeyInfo
        )
        for _ in range(3)
    }
    assert len(keys) == 3


def test_the_csr_asks_for_what_the_options_say(rig: Rig) -> None:
    names = {"dns_names": ["localhost"], "ip_addresses": [ip_address("127.0.0.1")]}
    result_of(rig.source(ttl=timedelta(minutes=5), **names).obtain(P256))
    (csr, spiffe_id, ttl), bundle_of = rig.client.asked
    request = IssuanceRequest.parse(csr, str(BACKEND), trust_domain=MESH)
    assert request.dns_names == ("localhost",)
    assert request.ip_addresses == (ip_address("127.0.0.1"),)
    assert (spiffe_id, ttl, bundle_of) == (BACKEND, timedelta(minutes=5), MESH)


def test_no_key_leaves_in_the_request_or_the_log(rig: Rig) -> None:
    identity = result_of(rig.source().obtain(P256))
    secret = identity.svid.key.to_pem().splitlines()[1]
    assert secret not in rig.client.asked[0][0]
    assert secret.decode() not in rig.log.all_text()
    assert "PRIVATE" not in repr(identity) + str(rig.log.events)


def test_a_certificate_for_another_key_is_no_identity(rig: Rig) -> None:
    rig.client.certify = key("somebody else's")
    with pytest.raises(Malformed, match="issued for another key"):
        result_of(rig.source().obtain(P256))


# Evidence of the platform.


@implementer(IProver)
@define(eq=False)
class Prover:
    wants_challenge: bool = False
    fails: bool = False
    keys: list[bytes] = field(factory=list)
    kind = "drill"
    where = "the drill"

    def prove(self, challenge: str | None, key: bytes, trust_domain: str) -> AttestationData:
        if self.fails:
            raise NoEvidence("there is none at the drill")
        self.keys.append(key)
        return AttestationData(self.kind, json.dumps([challenge, trust_domain]).encode())


def refused(status: int, code: Code) -> CaRefused:
    return CaRefused(status, [Problem(code, "no")])


REATTEST = refused(403, Code.REATTEST_REQUIRED)


def test_the_first_certificate_is_bought_by_evidence_and_the_next_by_that(rig: Rig) -> None:
    prover = Prover()
    source = rig.source(proving=Proving(prover))
    first = result_of(source.obtain(P256))
    result_of(source.obtain(P256))
    assert rig.client.shown == ['[null, "mesh.local"]', None]
    assert rig.client.tokens == [None, None]
    spki = first.svid.key.public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert prover.keys == [spki]
    assert rig.client.challenges == 0


def test_a_challenge_is_asked_for_where_the_prover_wants_one(rig: Rig) -> None:
    result_of(rig.source(proving=Proving(Prover(True))).obtain(P256))
    assert rig.client.shown == ['["drill-1", "mesh.local"]']


@pytest.mark.parametrize("wants", [True, False])
def test_a_challenge_that_the_ca_does_not_know_is_asked_for_once_more_and_no_more(
    wants: bool, rig: Rig
) -> None:
    rig.client.refusals = [refused(401, Code.NO_PROOF)] * 3
    with pytest.raises(CaRefused):
        result_of(rig.source(proving=Proving(Prover(wants))).obtain(P256))
    assert len(rig.client.shown) == (2 if wants else 1)
    assert rig.client.challenges == (2 if wants else 0)
    rig.client.refusals, rig.client.challenges = [refused(401, Code.BAD_EVIDENCE)], 0
    with pytest.raises(CaRefused):
        result_of(rig.source(proving=Proving(Prover(wants))).obtain(P256))
    assert rig.client.challenges == int(wants), "forged once is forged twice"


def test_where_the_entry_wants_it_the_evidence_is_shown_beside_the_certificate(rig: Rig) -> None:
    source = rig.source(proving=Proving(Prover()))
    identity = result_of(source.obtain(P256))
    rig.client.refusals = [REATTEST]
    result_of(source.obtain(P256))
    assert [bool(shown) for shown in rig.client.shown] == [True, False, True]
    assert rig.client.presented[-2] is identity.svid, "it is shown still"


@pytest.mark.parametrize("options", [{}, {"proving": None}])
def test_without_evidence_a_ca_that_wants_it_is_told_of(options: Any, rig: Rig) -> None:
    source = rig.source(**options)
    result_of(source.obtain(P256))
    rig.client.refusals = [REATTEST]
    with pytest.raises(CaRefused, match="reattest-required"):
        result_of(source.obtain(P256))


def test_a_certificate_that_is_disowned_makes_room_for_evidence(rig: Rig) -> None:
    source = rig.source(proving=Proving(Prover()))
    result_of(source.obtain(P256))
    rig.client.refusals = [refused(401, Code.REVOKED)]
    result_of(source.obtain(P256))
    assert [bool(shown) for shown in rig.client.shown] == [True, False, True]
    assert "joining anew, by the drill" in rig.log.text("joining-anew")


def test_a_platform_that_gives_none_is_asked_again_and_nothing_was_sent(rig: Rig) -> None:
    prover = Prover(fails=True)
    source = rig.source(proving=Proving(prover))
    with pytest.raises(NoEvidence):
        result_of(source.obtain(P256))
    assert rig.client.shown == []
    prover.fails = False
    assert result_of(source.obtain(P256)).svid.spiffe_id == BACKEND


def test_over_plain_http_nothing_is_even_fetched(rig: Rig) -> None:
    rig.client.address = CaAddress.parse("http://localhost:8080")
    prover = Prover(True)
    with pytest.raises(Malformed, match="and never at http://localhost:8080"):
        result_of(rig.source(proving=Proving(prover)).obtain(P256))
    assert (prover.keys, rig.client.challenges, rig.client.shown) == ([], 0, [])


def test_a_token_and_evidence_exclude_each_other() -> None:
    with pytest.raises(Malformed, match="--attest and a join token exclude each other"):
        Proving.parse("k8s", has_token=True)
    assert Proving.parse(None, has_token=True) is None


@pytest.mark.parametrize("text", ["", "nobody", "K8S", "nobody:file", ":file", "k8s:", "\n"])
def test_a_kind_that_there_is_not_is_told_with_those_that_there_are(text: str) -> None:
    with pytest.raises(Malformed, match=r"^--attest") as error:
        Proving.parse(text, has_token=False)
    assert str(error.value).isprintable()


def test_what_the_ca_refuses_is_refused(rig: Rig) -> None:
    rig.client.away = CaRefused(403, [Problem("not-authorized", "no")])
    with pytest.raises(CaRefused):
        result_of(rig.source().obtain(P256))


def test_a_ca_that_did_not_answer_is_asked_again_with_the_same_csr(rig: Rig) -> None:
    source = rig.source()
    rig.client.away = Unreachable(Problem("unreachable", "nobody there"))
    for _ in range(2):
        with pytest.raises(Unreachable):
            result_of(source.obtain(P256))
    rig.client.away = None
    identity = result_of(source.obtain(P256))
    first, second, third, _ = rig.client.asked
    assert first == second == third
    assert load_csr(first[0]).public_key() == identity.svid.key.public_key
    result_of(source.obtain(P256))
    assert rig.client.asked[4][0] != first[0]
    keys = rig.client.idempotency_keys
    assert keys[0] == keys[1] == keys[2] != keys[3]


def test_what_it_has_it_presents_to_the_ca_until_that_ends(rig: Rig) -> None:
    time = [NOW]
    client: Any = rig.client
    source = CaSource(client, BACKEND, lambda: time[0], rig.log)
    first = result_of(source.obtain(P256)).svid
    time[0] = first.validity.not_after
    second = result_of(source.obtain(P256)).svid
    assert rig.client.presented == [None, first, first, second]
    time[0] += timedelta(seconds=1)
    rig.client.presented.clear()
    result_of(source.obtain(P256))
    assert rig.client.presented[0] is None


def test_one_whose_certificate_has_ended_says_so_before_that_it_has_no_proof(rig: Rig) -> None:
    time = [NOW]
    client: Any = rig.client
    client.security = object()  # it is asked over TLS
    source = CaSource(client, BACKEND, lambda: time[0], rig.log)
    result_of(source.obtain(P256))
    time[0] += 2 * HOUR
    rig.client.away = CaRefused(401, [Problem("no-proof", "no certificate was shown")])
    with pytest.raises(CaRefused) as refused:
        result_of(source.obtain(P256))
    assert refused.value.status == 401
    first, second = refused.value.problems
    assert (first.code, second.code) == ("expired", "no-proof")
    assert first.detail.startswith(
        f"our own certificate, that of {BACKEND}, is not shown to the CA: the certificate expired at "
    )
    assert first.detail.endswith("; the CA's clock agrees with ours")
    assert "new join token" in first.remedy


def test_the_log_tells_the_steps_in_the_guides_words(rig: Rig) -> None:
    result_of(rig.source().obtain(P256))
    assert rig.log.all_text().splitlines() == [
        "Generating service key pair (ECDSA P-256)...",
        f"Creating CSR for identity: {BACKEND}",
        "Requesting certificate from CA at unix:/run/ca.sock...",
    ]
    rig.client.address = CaAddress.parse("https://ca:8443")
    result_of(rig.source().obtain(P256))
    assert "from CA at https://ca:8443/api/v1/sign..." in rig.log.all_text()


@pytest.mark.parametrize(
    ("algorithm", "on_a_thread"),
    [(KeyAlgorithm.RSA_2048, True), (P256, False), (KeyAlgorithm.ED25519, False)],
)
def test_only_keys_that_take_long_are_made_on_a_thread(
    algorithm: KeyAlgorithm, on_a_thread: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Any] = []

    def defer_to_thread(make: Any, kind: KeyAlgorithm) -> "Deferred[Any]":
        made.append(kind)
        return succeed(make(kind))

    monkeypatch.setattr(own_source, "deferToThread", defer_to_thread)
    assert result_of(new_key(algorithm)).algorithm is algorithm
    assert bool(made) is on_a_thread


def revocation(serial: int) -> Revocation:
    return Revocation("ab", serial, NOW, Reason.UNSPECIFIED, NOW + HOUR)


def test_revocations_are_asked_for_from_where_the_last_answer_ended(rig: Rig) -> None:
    source = rig.source()
    rig.client.news = [
        TrustNews("one", 5, BundleSet(), (revocation(1),)),
        TrustNews("one", 5, BundleSet(), ()),
        TrustNews("two", 2, BundleSet(), (revocation(1), revocation(2))),
        TrustNews("two", 2, BundleSet(), ()),
    ]
    found = [[r.serial for r in result_of(source.revocations()).revocations] for _ in range(4)]
    assert found == [[1], [], [1, 2], []]
    assert rig.client.asked == [(0, ""), (5, "one"), (5, "one"), (2, "two")]


def test_an_answer_that_does_not_come_does_not_move_the_position(rig: Rig) -> None:
    source = rig.source()
    with pytest.raises(IndexError):
        result_of(source.revocations())
    rig.client.news = [TrustNews("one", 5, BundleSet(), ())]
    result_of(source.revocations())
    assert rig.client.asked == [(0, ""), (0, "")]


def test_a_source_says_all_that_the_ca_said(rig: Rig) -> None:
    bundles = BundleSet.of(rig.client.ca.bundle)
    issuers, pins = {"k": rig.client.ca.issuing.intermediates}, frozenset({"p"})
    rig.client.news = [
        TrustNews("one", 5, bundles, (revocation(1),), None, True, 3.5, issuers, pins)
    ]
    assert result_of(rig.source().revocations(25)) == TrustUpdate(
        (revocation(1),), True, 3.5, bundles, issuers, pins
    )
    assert rig.client.waits == [25]


def test_it_is_asked_with_what_was_told_last_and_with_what_is_believed(rig: Rig) -> None:
    source = rig.source()
    rig.client.news = [TrustNews("one", 5, BundleSet(), (), edition="e1")] * 2
    result_of(source.revocations())
    source.belief = lambda: Belief("me", 7, "sha256:ab")
    result_of(source.revocations())
    first, second = rig.client.questions
    assert (first.edition, first.belief) == ("", None)
    assert (second.edition, second.belief) == ("e1", Belief("me", 7, "sha256:ab"))


def test_what_an_overtaken_answer_says_of_the_log_is_not_held_against_the_ca(rig: Rig) -> None:
    """While one question waits for news another is answered: its proof leads on from less than was seen since."""
    log = LogKey.generate("mesh.local/audit/test")

    def at(size: int) -> TrustNews:
        note = result_of(log.sign(Checkpoint(log.name, size, bytes([size] * 32), NOW)))
        told = LogStatement(str(log.verifier), note, ())
        return TrustNews("one", 5, BundleSet(), (), told)

    source = rig.source()
    rig.client.waiting = waiting = Deferred()
    standing = Deferred.fromCoroutine(source.revocations(25))
    rig.client.waiting = None
    rig.client.news = [at(3)]
    result_of(source.revocations())
    assert source.witness.size == 3
    waiting.callback(at(5))
    assert standing.called
    assert (source.witness.size, source.witness.problem) == (3, None)
    rig.client.news = [at(5)]
    result_of(source.revocations())
    assert source.witness.problem is not None, "this one had to prove it"


def test_a_page_that_leads_nowhere_is_the_last(rig: Rig) -> None:
    source = rig.source()
    rig.client.news = [TrustNews("one", 5, BundleSet(), (), None, True)] * 2
    assert [result_of(source.revocations()).more for _ in range(2)] == [True, False]


def test_under_a_fresh_identity_no_connection_of_the_last_one_is_kept(rig: Rig) -> None:
    rig.source().renewed()
    assert rig.client.hung_up == 1


def test_the_ca_issues_to_itself() -> None:
    with ca_rig() as rig:
        source = OwnSource(rig.ca.own.issue_tls, rig.ca.bundles, lambda: NOW)
        identity = result_of(source.obtain(P256))
        assert str(identity.svid.spiffe_id) == "spiffe://mesh.local/mesh/ca"
        assert identity.bundles.get(MESH) == rig.ca.bundle()
        assert source.where == "itself"
        assert result_of(source.revocations()) == TrustUpdate()
