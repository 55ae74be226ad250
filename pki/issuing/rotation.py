"""Rotation of issuing CAs: what is to be done with the issuing CAs now, and the proof that one of them can issue.

A new generation is prepared at half of the active one's life, and activated while what the active
one has left is still more than any leaf could want, so that no leaf is cut short by its issuer.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from enum import Enum, auto

from attrs import frozen
from cryptography import x509

from pki.codes import Code
from pki.ct.precertificate import POISON_OID
from pki.errors import PkiError, Problem, Refused
from pki.issuing.authority import Authority
from pki.issuing.profile import BACKDATE, generation_of
from pki.keys import KeyAlgorithm, MemoryKey
from pki.svid.bundle import BundleSet, TrustBundle
from pki.svid.chain import judge
from pki.svid.revocation_set import RevocationSet
from pki.svid.x509svid import Purpose, validity_of
from pki.validity import Validity

#: An issuing CA lives at least so many times as long as the longest leaf: half of its life passes
#: before there is a successor, and twice a leaf's life is wanted after that.
LEAST_LIVES = 4
#: How long an ended one must have been seen as ended before its key is deleted: the clock may be wrong.
_CERTAIN = timedelta(hours=1)
_PROOF_LIFETIME = timedelta(minutes=1)
_DAY, _HOUR = timedelta(days=1), timedelta(hours=1)


class ProofFailed(Refused):
    """A new issuing CA made a certificate that peers would refuse: it is not put to use."""

    code = Code.PROOF_FAILED


class Step(Enum):
    """What may be due in the life of an issuing CA."""

    WAIT = auto()
    PREPARE = auto()
    """Make the next generation."""
    ACTIVATE = auto()
    """The prepared one issues from now on."""
    RESUME = auto()
    """The active one is not valid yet and a retired one is: the clock was ahead, and is right again."""


@frozen
class Term:
    """One issuing CA as far as its time is concerned."""

    generation: int
    validity: Validity

    @classmethod
    def of(cls, certificate: x509.Certificate) -> "Term":
        """The term of a CA by its certificate."""
        return cls(generation_of(certificate.subject), validity_of(certificate))

    @property
    def ends_at(self) -> datetime:
        """After that it issues nothing."""
        return self.validity.not_after

    @property
    def issued_at(self) -> datetime:
        """When it was made: its certificate begins a little before that."""
        return min(self.validity.not_before + BACKDATE, self.ends_at)

    @property
    def life(self) -> timedelta:
        """Counted from its issue, backdating not included."""
        return self.ends_at - self.issued_at

    @property
    def prepare_at(self) -> datetime:
        """When its successor is to be made: half of its life."""
        return self.issued_at + self.life / 2

    def activate_at(self, longest_leaf: timedelta) -> datetime:
        """When its successor takes over; never before :attr:`prepare_at`."""
        overlap = max(self.life / 6, 2 * longest_leaf)
        return self.ends_at - min(overlap, self.life / 2)


@frozen
class Rules:
    """What the operator has said about lives, and the root's own end."""

    longest_leaf: timedelta
    life: timedelta
    """Of the issuing CAs that are made from now on."""
    root_ends_at: datetime


@frozen
class Line:
    """The issuing CAs there are."""

    active: Term
    prepared: Term | None = None
    retired: tuple[Term, ...] = ()
    is_revoked: bool = False
    """Whether the active one is to sign nothing any more: another is wanted at once."""


def next_step(line: Line, rules: Rules, now: datetime) -> Step:
    """What is to be done now. After it was done, ask again: several steps may be due."""
    active, prepared = line.active, line.prepared
    if line.is_revoked:
        is_ready = prepared is not None and prepared.validity.contains(now)
        return Step.ACTIVATE if is_ready else Step.PREPARE
    if now < active.validity.not_before:
        return Step.RESUME if resumable(line.retired, now) is not None else Step.WAIT
    activate_at = active.activate_at(rules.longest_leaf)
    if prepared is not None and prepared.ends_at > max(active.ends_at, now):
        if now >= activate_at and prepared.validity.contains(now):
            return Step.ACTIVATE
        if prepared.validity.not_before <= max(now, activate_at):
            return Step.WAIT
    if now >= active.prepare_at and _outlives(active, rules, now):
        return Step.PREPARE
    return Step.WAIT


def can_wait(line: Line, rules: Rules, now: datetime) -> bool:
    """Whether a successor that is due may be put off still: until a leaf would be cut short by its issuer."""
    return now < line.active.ends_at - rules.longest_leaf


def is_worth_preparing(line: Line, rules: Rules, now: datetime) -> bool:
    """Whether a successor made now, before it is due, would put off the next need of the root's key."""
    if line.prepared is not None and line.prepared.ends_at > max(line.active.ends_at, now):
        return False
    quarter = line.active.issued_at + line.active.life / 4
    return now >= quarter and _outlives(line.active, rules, now)


def _outlives(active: Term, rules: Rules, now: datetime) -> bool:
    """Whether one made now would end later. At the root's own end none would, however many were made."""
    return min(now + rules.life, rules.root_ends_at) > max(active.ends_at, now)


def resumable(retired: Sequence[Term], now: datetime) -> Term | None:
    """The newest of the retired that is valid now."""
    valid = (term for term in retired if term.validity.contains(now))
    return max(valid, key=lambda term: term.generation, default=None)


def can_be_forgotten(term: Term, now: datetime, seen_ended: timedelta) -> bool:
    """Whether a retired CA's key may be deleted.

    ``seen_ended`` is for how long, on a clock that does not jump, it has been seen as ended. A wall
    clock that is wrong for a while must not cost a key that is still needed.
    """
    return now > term.ends_at and seen_ended >= min(_CERTAIN, term.life / 6)


def reminder_pause(left: timedelta) -> timedelta:
    """How long after a reminder that the root's key is wanted the next one follows."""
    return _HOUR if left <= 7 * _DAY else _DAY


async def prove(candidate: Authority, bundle: TrustBundle, now: datetime) -> None:
    """Have ``candidate`` issue a certificate for nobody, and judge it as a peer would.

    Raises :class:`ProofFailed`, and what drafting and signing raise.
    """
    nobody = MemoryKey.generate(KeyAlgorithm.EC_P256)
    draft = candidate.draft(
        nobody.public_key,
        bundle.trust_domain.member("mesh", "proof"),
        now,
        min(_PROOF_LIFETIME, candidate.workload.lifetime),
    )
    try:
        # Nobody believes one, it proves as much of the key, and a signer may sign no certificate without SCTs.
        made = await candidate.sign(draft.precertificate())
    except PkiError:
        made = await candidate.sign(draft)
    chain = (made, *candidate.intermediates)
    verdict = judge(chain, BundleSet.of(bundle), RevocationSet(), now=now, purpose=Purpose.ANY)
    problems = [problem for problem in verdict.problems if not _is_poison(problem)]
    if problems:
        raise ProofFailed(problems)


def _is_poison(problem: Problem) -> bool:
    """Whether it is what is to be said of a precertificate."""
    return problem.code is Code.UNKNOWN_EXTENSION and POISON_OID in problem.detail
