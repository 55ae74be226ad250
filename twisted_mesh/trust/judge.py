"""What is believed now: an immutable :class:`Trust`, swapped whole, and the judge that asks it."""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Sequence
from datetime import datetime
from hashlib import sha256
from typing import TYPE_CHECKING, TypeVar

from attrs import define, evolve, field, frozen
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.hashes import SHA256

from pki.codes import Code
from pki.errors import HOSTILE_INPUT, Malformed, Problem, Refused
from pki.ocsp.response import read_answer
from pki.spiffe import SpiffeId, SpiffePattern
from pki.svid.bundle import BundleSet, TrustBundle
from pki.svid.chain import Verdict, judge
from pki.svid.pin import RootPin
from pki.svid.revocation_set import Revocation, RevocationSet
from pki.svid.spki_pin import PinSet
from pki.svid.x509svid import Purpose, X509Svid, subject_of
from twisted_mesh.trust.connections import Peer
from twisted_mesh.trust.freshness import Freshness
from twisted_mesh.trust.judgement import Judgement, span

if TYPE_CHECKING:  # most have no policy, and load nothing of it
    from twisted_mesh.trust.peer_policy import PeerPolicy

K = TypeVar("K", bound=Hashable)

_CACHED_VERDICTS = 4096
_CACHED_REFUSALS = 4096
#: Bytes of the longest chain whose refusal is remembered: strangers choose what they send, and all is kept in memory.
_LONGEST_REFUSED = 8192
_CACHED_ANSWERS = 1024
_UNREADABLE = Problem(
    Code.MALFORMED,
    "a presented certificate cannot be decoded",
    "issue it anew",
    "RFC 5280 section 4.1",
)
_UNREADABLE_CHAIN = Verdict(None, (), (_UNREADABLE,))


@frozen
class Trust:
    """Everything a verdict depends on but the clock."""

    bundles: BundleSet = field(factory=BundleSet)
    revocations: RevocationSet = field(factory=RevocationSet)
    allow: tuple[SpiffePattern, ...] = ()
    """Which peers may connect; one match is enough."""
    known_issuers: frozenset[bytes] = frozenset()
    """Subject key identifiers of the issuing CAs that are known to be ours."""
    beside: tuple[x509.Certificate, ...] = ()
    """Certificates of our issuing CAs, as they are to be served now: where the one that a peer has sent leads to a
    root that is believed no more, another one of the same key may lead to one that is."""
    pins: PinSet = field(factory=PinSet)
    """By which CA keys some peers must be vouched for besides."""
    policy: "PeerPolicy | None" = None
    """What must allow a peer besides, once nothing else is found against it."""
    generation: int = 0

    def with_beside(
        self, paths: Iterable[Sequence[x509.Certificate]], coming: BundleSet | None = None
    ) -> "Trust":
        """With what is to be served above leaves at hand, where one root follows another; the same object for the same.

        ``coming`` are the bundles that are to be believed next. While each trust domain has one root, all that could
        be mended is a peer that sends no issuer, and that has to be told so. What is self-issued would be a root to
        OpenSSL, and is none here.
        """
        told = dict.fromkeys(cert for path in paths for cert in path if cert.issuer != cert.subject)
        if not self._follow_one_another(coming):
            told = dict.fromkeys(cert for cert in told if cert in self.beside)
        beside = tuple(told)
        return self if beside == self.beside else evolve(self, beside=beside)

    def _follow_one_another(self, coming: BundleSet | None) -> bool:
        """Whether a trust domain has several roots, now or one after the other."""
        for bundle in (*self.bundles, *(coming or ())):
            later = None if coming is None else coming.get(bundle.trust_domain)
            if len({*bundle.roots, *(later.roots if later is not None else ())}) > 1:
                return True
        return False

    @property
    def at_hand(self) -> tuple[x509.Certificate, ...]:
        """What OpenSSL is to hold: the roots of all trust domains, and what paths to them may be built of.

        The latter are no anchors, as OpenSSL believes partial chains only where it is told to.
        """
        return (*self.bundles.all_roots, *self.beside)

    def judge(
        self, presented: Sequence[x509.Certificate], now: datetime, purpose: Purpose
    ) -> Verdict:
        """The verdict on a chain, leaf first: :func:`pki.svid.chain.judge`, and whether the peer is allowed.

        And whether it breaks pins, where they are enforced.
        """
        verdict = judge(
            presented,
            self.bundles,
            self.revocations,
            now=now,
            purpose=purpose,
            known_issuers=self.known_issuers,
            beside=self.beside,
        )
        refusal = self._not_allowed(verdict, purpose)
        refusals: tuple[Problem, ...] = () if refusal is None else (refusal,)
        if self.pins.enforced_at(now):
            refusals += self._unpinned(verdict)
        if self.policy is not None and verdict.ok and not refusals:
            denial = self.policy.objection(verdict, purpose, now)
            refusals = () if denial is None else (denial,)
        return evolve(verdict, problems=(*verdict.problems, *refusals)) if refusals else verdict

    def _unpinned(self, verdict: Verdict) -> tuple[Problem, ...]:
        """Of a path to a root. Where a certificate of it is revoked, that is said and nothing of pins."""
        spiffe_id, path = verdict.spiffe_id, verdict.path
        bundle = spiffe_id and self.bundles.get(spiffe_id.trust_domain)
        if not bundle or not spiffe_id or path[-1] not in bundle.roots:
            return ()
        if any(problem.code is Code.REVOKED for problem in verdict.problems):
            return ()
        return self.pins.problems(spiffe_id, path)

    def judge_ours(
        self, svid: X509Svid, now: datetime, chain: Sequence[x509.Certificate] | None = None
    ) -> Verdict:
        """What a peer that believes the same would say of ``svid``, or of its leaf in another ``chain``.

        Our pins and our policy are for others; and what we have at hand besides, others may lack: the path has to
        stand as it is sent.
        """
        ourselves = (SpiffePattern.parse(str(svid.spiffe_id)),)
        whoever = evolve(self, allow=ourselves, beside=(), pins=PinSet(), policy=None)
        return whoever.judge(svid.chain if chain is None else chain, now, Purpose.ANY)

    def _not_allowed(self, verdict: Verdict, purpose: Purpose) -> Problem | None:
        spiffe_id = verdict.spiffe_id
        if spiffe_id is None or any(pattern.matches(spiffe_id) for pattern in self.allow):
            return None
        allowed = ", ".join(map(str, self.allow)) or "nobody"
        return Problem(
            Code.NOT_AUTHORIZED,
            f"{spiffe_id} is not among those that may: {allowed}",
            self._how_to_allow(spiffe_id, purpose),
            "--allow, --server-id",
            str(spiffe_id),
        )

    def _how_to_allow(self, spiffe_id: SpiffeId, purpose: Purpose) -> str:
        """What to change, and on which side. ``purpose`` tells whether we have called it, or it us."""
        if purpose is not Purpose.SERVER:
            return f"to let it in, add --allow {spiffe_id} here; else have it call as one of these (--spiffe-id)"
        if len(self.allow) == 1 and str(self.allow[0]).endswith("/mesh/ca"):
            if spiffe_id.path == "/mesh/ca":
                return f"that is the CA of {spiffe_id.trust_domain}: check --ca-url, and our trust domain"
            return "that is a service and not the CA: check the port in --ca-url"
        return f"to accept it, call with --server-id {spiffe_id}; else check --server, which leads to another service"


def _unwatched(pins: PinSet, verdict: Verdict, now: datetime) -> None:
    """Nobody wants to know."""


@frozen
class _OnOurs:
    """That our own chain is good, and by what it was judged."""

    trust: Trust
    told: RevocationSet
    chain: Sequence[x509.Certificate]
    verdict: Verdict

    def is_of(self, trust: Trust, told: RevocationSet, chain: Sequence[x509.Certificate]) -> bool:
        return self.trust is trust and self.told is told and self.chain == chain


@define(eq=False, repr=False)
class Judge:
    """Judges peers by the trust of the moment, and remembers verdicts by the chain's DER.

    Refusals too, as long as their reason holds: else whoever is refused and comes back at once would cost more
    than whoever is let in.

    Whoever changes what is believed swaps :attr:`trust`; that forgets every verdict, and ends every judgement that
    somebody holds. What else a verdict depends on, the clock and how fresh revocations are, is looked at each time.
    """

    _now: Callable[[], datetime]
    _trust: Trust = field(factory=Trust)
    freshness: Freshness = field(factory=Freshness)
    """Of the revocations that are believed: once they are too old nobody may be let in."""
    changes: int = field(default=0, init=False)
    """How often trust was swapped."""
    _verdicts: OrderedDict[tuple[tuple[bytes, ...], Purpose], Judgement] = field(
        factory=OrderedDict, init=False
    )
    """The good ones, by the certificates in DER."""
    _refusals: OrderedDict[tuple[bytes, Purpose], Judgement] = field(
        factory=OrderedDict, init=False
    )
    """By the chain's SHA-256."""
    _answers: OrderedDict[tuple[bytes, bytes], datetime] = field(factory=OrderedDict, init=False)
    """OCSP answers by which a certificate is good, and until when."""
    told_by: "Judge | None" = field(default=None, init=False)
    """Another judge of this program, who hears of revocations where this one does not: of our own, say."""
    pin_watch: Callable[[PinSet, Verdict, datetime], None] = field(default=_unwatched, init=False)
    """Is told of each good verdict on a peer that there are pins for, once and not again while it is remembered."""
    _of_ours: "_OnOurs | None" = field(default=None, init=False)

    @property
    def trust(self) -> Trust:
        """What is believed now."""
        return self._trust

    @trust.setter
    def trust(self, trust: Trust) -> None:
        """Believe it, and forget every verdict. For the reviewer alone: who sets it passes open connections by."""
        self._trust = trust
        self.changes += 1
        self._verdicts.clear()
        self._refusals.clear()

    @property
    def pin(self) -> RootPin | None:
        """The root that is known by its fingerprint only; None where nothing is believed unseen."""
        return None

    def only_renews(self, peer: Peer) -> bool:
        """Whether a peer that is let in may have its certificate renewed, and nothing else. Nobody, but at a CA."""
        return False

    def forgiven_roots(self) -> Sequence[x509.Certificate]:
        """Roots that nobody believes, and OpenSSL is to let pass for :meth:`only_renews`."""
        return ()

    @property
    def now(self) -> datetime:
        """By the clock that everything is judged by."""
        return self._now()

    def recall(self, bundle: TrustBundle | None, revoked: Sequence[Revocation]) -> None:
        """Believe ``bundle`` where there is one, and ``revoked`` in any case, as an earlier life has come to.

        Before anybody is met. What was given to begin with, by a fingerprint too, is followed no more where there is
        a bundle.
        """
        trust = self._trust
        self.trust = evolve(
            trust,
            bundles=trust.bundles if bundle is None else BundleSet.of(bundle),
            revocations=trust.revocations.merged(revoked, self.now),
            generation=trust.generation + 1,
        )

    def on_ours(self, chain: Sequence[x509.Certificate]) -> Verdict:
        """What another side that knows what we know would say of our own chain, leaf first; not whether we may."""
        now = self._now()
        trust, told = self._trust, (self.told_by or self).trust.revocations
        known = self._of_ours
        if known is not None and known.is_of(trust, told, chain) and known.verdict.holds_at(now):
            return known.verdict
        verdict = judge(
            chain,
            trust.bundles,
            told,
            now=now,
            purpose=Purpose.ANY,
            known_issuers=trust.known_issuers,
        )
        self._of_ours = _OnOurs(trust, told, chain, verdict) if verdict.ok else None
        return verdict

    def verdict(self, presented: Sequence[x509.Certificate], purpose: Purpose) -> Verdict:
        """The verdict on a chain, leaf first."""
        return self.verdict_on_der(
            [cert.public_bytes(serialization.Encoding.DER) for cert in presented], purpose
        )

    def verdict_on_der(self, presented: Sequence[bytes], purpose: Purpose) -> Verdict:
        """The same, of certificates in DER, which are parsed only if they have not been seen before."""
        return self.judgement(presented, purpose).verdict

    def judgement(self, presented: Sequence[bytes], purpose: Purpose) -> Judgement:
        """The same, to be held against :meth:`still_holds` later."""
        return self._unless_stale(self._lasting(tuple(presented), purpose))

    def still_holds(self, judgement: Judgement) -> bool:
        """Whether it was good, and would be given again now. Nothing is judged for that: it is asked for each request.

        It need not be said of every good one; of one that would not be given again it must not be said.
        """
        return (
            judgement.changes == self.changes
            and judgement.since <= self._now() <= judgement.until
            and judgement.verdict.ok
            and not self.freshness.refuses
        )

    def _unless_stale(self, judgement: Judgement) -> Judgement:
        if self.freshness.refuses:
            verdict = judgement.verdict
            problems = (*verdict.problems, self.freshness.problem())
            return evolve(judgement, verdict=evolve(verdict, problems=problems))
        return judgement

    def _lasting(self, presented: tuple[bytes, ...], purpose: Purpose) -> Judgement:
        """What holds until trust is swapped, or one of the certificates begins or ends."""
        now = self._now()
        # The whole chain: the verdict on a leaf that came without its issuers is another one.
        key = (presented, purpose)
        known = self._verdicts.get(key)
        if known is not None and known.holds_at(now):
            self._verdicts.move_to_end(key)
            return known
        digest = (_digest(presented), purpose)
        refusal = self._refusals.get(digest)
        if refusal is not None and refusal.holds_at(now):
            self._refusals.move_to_end(digest)
            return refusal
        chain = _loaded(presented)
        if chain is None:  # to be read again each time, which is soon done
            return Judgement(_UNREADABLE_CHAIN, (), self.changes, now, now)
        judgement = self._judged(self._trust, presented, chain, now, purpose)
        if judgement.verdict.ok:
            _keep(self._verdicts, key, judgement, _CACHED_VERDICTS)
        else:
            self._verdicts.pop(key, None)
            if judgement.holds_at(now) and 0 < sum(map(len, presented)) <= _LONGEST_REFUSED:
                _keep(self._refusals, digest, judgement, _CACHED_REFUSALS)
        return judgement

    def _judged(
        self,
        trust: Trust,
        presented: tuple[bytes, ...],
        chain: Sequence[x509.Certificate],
        now: datetime,
        purpose: Purpose,
    ) -> Judgement:
        """By ``trust``, with nothing remembered."""
        verdict = trust.judge(chain, now, purpose)
        try:
            since, until = span(verdict, (*chain, *trust.at_hand), now, trust.pins.until)
        except HOSTILE_INPUT:
            since, until = (
                now,
                now - datetime.resolution,
            )  # its dates are none: it holds at no moment
        if trust.policy and (ends := trust.policy.until(verdict, purpose, now)):
            since, until = now, min(until, ends)
        if trust.pins and verdict.ok:
            self.pin_watch(trust.pins, verdict, now)
        return Judgement(verdict, presented if verdict.ok else (), self.changes, since, until)

    def objections(
        self, answer: bytes, cert: x509.Certificate, issuer: x509.Certificate
    ) -> Sequence[Problem]:
        """Every reason why that OCSP answer does not show that ``cert``, which ``issuer`` has issued, is good."""
        now = self._now()
        # Whichever certificate it is of that issuer, its key is the one that has signed ``cert``.
        key = (sha256(answer).digest(), cert.fingerprint(SHA256()))
        until = self._answers.get(key)
        if until is not None and now <= until:
            self._answers.move_to_end(key)
            return ()
        try:
            read = read_answer(answer, cert, issuer, now=now)
        except (Malformed, Refused) as error:
            return error.problems
        if read.revocation is not None:
            return (read.revocation.problem(subject_of(cert)),)
        self._answers[key] = read.next_update
        if len(self._answers) > _CACHED_ANSWERS:
            self._answers.popitem(last=False)
        return ()


def _keep(remembered: OrderedDict[K, Judgement], key: K, judgement: Judgement, most: int) -> None:
    """As the last that was asked for; the one that was not asked for longest goes."""
    remembered[key] = judgement
    remembered.move_to_end(key)
    if len(remembered) > most:
        remembered.popitem(last=False)


def _digest(presented: Sequence[bytes]) -> bytes:
    """Of certificates and of where each of them ends."""
    ends = b"".join(b"%d," % len(der) for der in presented)
    return sha256(b"".join((ends, *presented))).digest()


def _loaded(presented: Sequence[bytes]) -> list[x509.Certificate] | None:
    """Certificates of what is in DER; None where one cannot be decoded."""
    try:
        return [x509.load_der_x509_certificate(der) for der in presented]
    except HOSTILE_INPUT:
        return None


@define(eq=False, repr=False)
class PinnedJudge(Judge):
    """A judge that knows one root by its fingerprint, until it has met it.

    The root comes in the handshake itself. OpenSSL, which does not hold it, objects to that and to
    nothing else; the verdict that counts is ours, with that root as the only one that is believed.
    Once it was met, the root is believed like any other and nothing is waived any more.
    """

    _pin: RootPin | None = field(default=None, kw_only=True)

    @property
    def pin(self) -> RootPin | None:
        """The root that has not been met yet."""
        return self._pin

    def recall(self, bundle: TrustBundle | None, revoked: Sequence[Revocation]) -> None:
        """See :meth:`Judge.recall`."""
        super().recall(bundle, revoked)
        if bundle is not None:
            self._pin = None

    def judgement(self, presented: Sequence[bytes], purpose: Purpose) -> Judgement:
        """The verdict on a chain in DER; the first good one has its root believed from then on."""
        if self._pin is None or not presented:
            return super().judgement(presented, purpose)
        now = self._now()
        try:
            bundle = self._pin.bundle(presented[-1])
        except Refused as error:
            return Judgement(Verdict(None, (), error.problems), (), self.changes, now, now)
        trust = self.trust
        met = evolve(trust, bundles=BundleSet.of(bundle), generation=trust.generation + 1)
        chain = _loaded(presented)
        if chain is None:
            return Judgement(_UNREADABLE_CHAIN, (), self.changes, now, now)
        judgement = self._unless_stale(self._judged(met, tuple(presented), chain, now, purpose))
        if judgement.verdict.ok:
            self._pin = None
            # Past the reviewer, which nobody needs here: without a root nobody can be connected yet.
            self.trust = met
            judgement = evolve(judgement, changes=self.changes)
        return judgement
