"""Whoever asks what is believed now about a peer's chain, and remembers the answers."""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
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
from pki.svid.bundle import BundleSet, TrustBundle
from pki.svid.chain import Verdict, judge
from pki.svid.pin import RootPin
from pki.svid.revocation_set import Revocation, RevocationSet
from pki.svid.spki_pin import PinSet
from pki.svid.x509svid import Purpose, subject_of
from twisted_mesh.trust.connections import Peer
from twisted_mesh.trust.freshness import Freshness
from twisted_mesh.trust.judgement import Judgement, span
from twisted_mesh.trust.trust import Trust

if TYPE_CHECKING:  # loaded where receipts are demanded
    from pki.ct.receipt import SctDemand

K = TypeVar("K", bound=Hashable)

_CACHED_VERDICTS = 4096
_CACHED_REFUSALS = 2048
#: Bytes of the longest chain whose refusal is remembered: strangers choose what they send, and all is kept in memory,
#: 48 MiB at the most. A chain whose three keys are post-quantum has up to 23 kB.
_LONGEST_REFUSED = 24 * 1024
_CACHED_ANSWERS = 1024
_UNREADABLE = Problem(
    Code.MALFORMED,
    "a presented certificate cannot be decoded",
    "issue it anew",
    "RFC 5280 section 4.1",
)
UNREADABLE_CHAIN = Verdict(None, (), (_UNREADABLE,))


def _unwatched(pins: PinSet, verdict: Verdict, now: datetime) -> None:
    """Nobody wants to know."""


def _not_followed(demand: "SctDemand", verdict: Verdict) -> None:
    """Nobody looks whether logs have what they gave receipts for."""


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
    sct_watch: "Callable[[SctDemand, Verdict], None]" = field(default=_not_followed, init=False)
    """Is told of each good verdict on a peer that has shown the receipts demanded, as :attr:`pin_watch` is."""
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
        chain = loaded(presented)
        if chain is None:  # to be read again each time, which is soon done
            return Judgement(UNREADABLE_CHAIN, (), self.changes, now, now)
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
            since, until = span(verdict, (*chain, *trust.at_hand), now, trust.turns(verdict))
        except HOSTILE_INPUT:
            since, until = (
                now,
                now - datetime.resolution,
            )  # its dates are none: it holds at no moment
        if trust.policy and (ends := trust.policy.until(verdict, purpose, now)):
            since, until = now, min(until, ends)
        if trust.pins and verdict.ok:
            self.pin_watch(trust.pins, verdict, now)
        if trust.demand and verdict.ok:
            self.sct_watch(trust.demand, verdict)
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


def loaded(presented: Sequence[bytes]) -> list[x509.Certificate] | None:
    """Certificates of what is in DER; None where one cannot be decoded."""
    try:
        return [x509.load_der_x509_certificate(der) for der in presented]
    except HOSTILE_INPUT:
        return None
