"""Where an identity comes from, by blocking calls: a certificate for a key that is made here, and what is revoked."""

import secrets
from collections.abc import Callable, Sequence
from datetime import timedelta

from attrs import define, field
from cryptography import x509
from msgspec import UNSET

from pki.codes import Code
from pki.errors import Malformed, PkiError
from pki.issuing.csr import build_csr
from pki.keys import KeyAlgorithm, MemoryKey
from pki.policy.join_token import JoinToken
from pki.spiffe import SpiffeId
from pki.svid.bundle import BadBundle, BundleSet, TrustBundle
from pki.svid.names import IPAddress
from pki.svid.x509svid import X509Svid, load_certificates
from pki.validity import format_duration, parse_duration
from twisted_mesh.api.attestation_messages import (
    CHALLENGE,
    AttestationMember,
    Challenge,
    ChallengeRequest,
)
from twisted_mesh.api.body import read_shape
from twisted_mesh.api.messages import (
    ConnectionsReport,
    ReportTaken,
    SignAnswer,
    SignRequest,
    held_pins,
    required_scts,
)
from twisted_mesh.api.refusal import CaRefused
from twisted_mesh.api.trust_news import WHOLE_BUNDLE, TrustNews, read_bundle, read_news
from twisted_mesh.api.trust_question import Belief, TrustQuestion
from twisted_mesh.evidence.data import AttestationData
from twisted_mesh.identity.proving import Proving, wants_evidence
from twisted_mesh.identity.saved_svid import SavedSvid
from twisted_mesh.interfaces import Identity
from twisted_mesh.runtime.clock import Now
from twisted_mesh.stdlib.ca_connection import CaConnection
from twisted_mesh.trust.judge import Judge
from twisted_mesh.trust.pinned_judge import PinnedJudge
from twisted_mesh.trust.trust import Trust

_UNPROCESSABLE, _CONFLICT = 422, 409
#: By these the CA says that what we showed is no proof to it.
_NO_PROOF = (401, 403)
#: Refusals of the CA that may be others a moment later.
_PASSING = (408, 425, 429)


@define(eq=False)
class _Question:
    """What the CA is being asked, until it has answered: asked again, it is the same certificate."""

    key: MemoryKey = field(repr=False)
    csr: bytes
    idempotency_key: str = field(factory=lambda: secrets.token_hex(16))


@define(eq=False)
class BlockingSource:
    """An identity from a CA by its API. The key is made here and never leaves."""

    ca: CaConnection
    spiffe_id: SpiffeId
    now: Now
    algorithm: KeyAlgorithm = KeyAlgorithm.EC_P256
    dns_names: Sequence[str] = ()
    ip_addresses: Sequence[IPAddress] = ()
    ttl: timedelta | None = None
    token: JoinToken | None = field(default=None, repr=False)
    """What buys the first certificate; forgotten once there is one."""
    kept: SavedSvid = field(factory=lambda: SavedSvid(None))
    """For the next life."""
    belief: Callable[[], Belief | None] = lambda: None
    """What is believed and served now, to be told to the CA."""
    proving: Proving | None = None
    """What shows the CA evidence of the platform, in place of a token."""
    _asking: _Question | None = field(default=None, init=False, repr=False)
    _svid: X509Svid | None = field(default=None, init=False)
    _store: str = field(default="", init=False)
    _position: int = field(default=0, init=False)
    _edition: str = field(default="", init=False)

    def recall(self) -> None:
        """Take up the identity of an earlier life, to show it to the CA until there is a fresh one."""
        if self.ca.keeps_identity:
            trust = Trust(bundles=self.ca.bundles)
            pin = self.ca.pin
            judge = Judge(self.now, trust) if pin is None else PinnedJudge(self.now, trust, pin=pin)
            self._svid = self.kept.recall(self.spiffe_id, judge, self.now())
            self.ca.recall(judge.trust, judge.pin)

    def renew_after_fork(self) -> None:
        """Belong to a process of its own: a key that the parent is asking a certificate for is the parent's."""
        self._asking = None
        self.ca.renew_after_fork()

    def obtain(self) -> Identity:
        """A fresh key and its certificate. A question that got no answer is asked again as it was, key and all."""
        asking = self._asking = self._asking or self._question()
        issued_at = self.now()
        try:
            chain = self._certified(asking)
            bundle = self._bundle()
            svid = X509Svid.assemble(chain, asking.key)
        except PkiError as error:
            if self._is_hopeless(error):
                self._asking = None  # with this key and CSR it would never be otherwise
            raise
        self._asking, self._svid, self.token = None, svid, None
        self._present()
        self.kept.keep(svid, bundle)
        return Identity(svid, BundleSet.of(bundle), issued_at, is_of_all=False)

    def serve(self, svid: X509Svid, trust: Trust) -> None:
        """That is shown and believed now: by the CA too, and it is kept for the next life."""
        self._svid = svid
        self.ca.believe(trust)
        self._present()
        bundle = trust.bundles.get(self.spiffe_id.trust_domain)
        if bundle is not None and bundle.roots:
            self.kept.keep(svid, bundle, trust.revocations)

    def news(self, wait: int = 0) -> TrustNews:
        """What was revoked since the last answer; the CA may wait for so many seconds until there is something."""
        asked = TrustQuestion(
            self._position, self._store, self._edition, wait=wait, belief=self.belief()
        )
        try:
            told = read_news(str(self.ca.address), self.ca.send("GET", asked.path, wait=wait))
        except PkiError as error:
            self._heed(error)
            raise
        self._store, self._position, self._edition = told.store, told.position, told.edition
        return told

    def tell_demands(self, instance: str, trust: Trust) -> float:
        """Tell the CA which pins we have and which receipts we demand; in how many seconds it is to hear it again."""
        told = ConnectionsReport(
            instance,
            {},
            pins=held_pins(trust.pins) if trust.pins else UNSET,
            require_sct=required_scts(trust.demand) if trust.demand else UNSET,
        )
        content = self.ca.send("POST", "/api/v1/connections", told)
        taken = read_shape(str(self.ca.address), ReportTaken, content)
        return parse_duration(taken.again_after).total_seconds()

    def _question(self) -> _Question:
        key = MemoryKey.generate(self.algorithm)
        return _Question(key, build_csr(key, self.spiffe_id, self.dns_names, self.ip_addresses))

    def _certified(self, asking: _Question) -> Sequence[x509.Certificate]:
        """The certificate, by the proof that we have: our SVID, else the join token or evidence of the platform."""
        if self._present():
            try:
                return self._sign(asking)
            except PkiError as error:
                self._heed(error)
                if self.proving is not None and wants_evidence(error):
                    return self._attested(asking, self.proving)
                if (self.token is None and self.proving is None) or not _disowns(error):
                    raise
                self._svid = None
                self._present()
        if self.proving is not None:
            return self._attested(asking, self.proving)
        return self._sign(asking, self.token)

    def _attested(self, asking: _Question, proving: Proving) -> Sequence[x509.Certificate]:
        """The same by fresh evidence; whose challenge the CA does not know any more is fetched once more."""
        try:
            return self._sign(asking, evidence=self._evidence(asking, proving))
        except CaRefused as error:
            if not proving.may_ask_again(error):
                raise
        return self._sign(asking, evidence=self._evidence(asking, proving))

    def _evidence(self, asking: _Question, proving: Proving) -> AttestationData:
        prover, challenge = proving.prover, None
        proving.demand_judged(self.ca.address)
        if prover.wants_challenge:
            content = self.ca.send("POST", CHALLENGE, ChallengeRequest(prover.kind))
            challenge = read_shape(str(self.ca.address), Challenge, content).challenge
        return proving.fetch(challenge, asking.key.public_key, self.spiffe_id.trust_domain)

    def _sign(
        self,
        asking: _Question,
        token: JoinToken | None = None,
        evidence: AttestationData | None = None,
    ) -> Sequence[x509.Certificate]:
        asked = SignRequest(
            asking.csr.decode("ascii"),
            str(self.spiffe_id),
            None if self.ttl is None else format_duration(self.ttl),
            None if token is None else token.text,
            UNSET if evidence is None else AttestationMember.of(evidence),
        )
        headers = {"idempotency-key": asking.idempotency_key}
        content = self.ca.send("POST", "/api/v1/sign", asked, headers)
        answer = read_shape(str(self.ca.address), SignAnswer, content)
        pem = "".join((answer.certificate, *answer.chain)).encode()
        return load_certificates(pem, "the CA's answer")

    def _bundle(self) -> TrustBundle:
        content = self.ca.send("GET", WHOLE_BUNDLE)
        bundle = read_bundle(str(self.ca.address), self.spiffe_id.trust_domain, content)
        if not bundle.roots:
            raise BadBundle(f"the CA at {self.ca.address} sent a bundle without a usable root")
        return bundle

    def _present(self) -> bool:
        """Prove ourselves to the CA by the SVID that we have, as long as it is valid; whether there is one."""
        valid = self._svid is not None and self._svid.validity.contains(self.now())
        self.ca.present(self._svid if valid else None)
        return valid

    def _is_hopeless(self, error: PkiError) -> bool:
        status = getattr(error, "status", None)
        if self.token is not None and status != _UNPROCESSABLE:
            return False  # it may be spent on this very CSR, and buys nothing with another
        return isinstance(error, Malformed) or status in (_UNPROCESSABLE, _CONFLICT)

    def _heed(self, error: PkiError) -> None:
        """What is revoked is not kept for the next life."""
        if any(problem.code == Code.REVOKED for problem in error.problems):
            self.kept.forget()


def _disowns(error: PkiError) -> bool:
    """Whether the CA says that the certificate that we showed is no proof to it."""
    return isinstance(error, CaRefused) and error.status in _NO_PROOF


def passes(error: PkiError) -> bool:
    """Whether the same question may be answered a moment later."""
    if isinstance(error, CaRefused):
        return error.status in _PASSING or error.status >= 500
    return all(problem.code == Code.UNREACHABLE for problem in error.problems)
