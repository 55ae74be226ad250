"""The line of roots: which root chains lead to, which one follows it, and what may be done with them now.

Two roots may be believed at a time, and chains lead to exactly one of them. For the overlap both certify the keys of
the issuing CAs; they never certify each other: a root that is certified by another one (path length 1 forbids it) would
bring a stolen key back to life.
"""

from collections.abc import Iterable
from datetime import datetime
from enum import StrEnum

from attrs import evolve, frozen
from cryptography import x509

from pki.codes import Code
from pki.errors import PkiError
from pki.issuing.profile import generation_of
from pki.keys import key_id, spki_der, spki_pin
from pki.svid.path import issued_by
from pki.svid.pin import Fingerprint
from pki.svid.x509svid import subject_of

#: So many roots that were believed once are remembered.
MOST_REMEMBERED = 64


class Phase(StrEnum):
    """How far the rotation of a root has come."""

    SETTLED = "settled"
    """There is one root."""
    PREPARED = "prepared"
    """The next one is in the bundles, and nothing rests on it."""
    ACTIVATED = "activated"
    """Both certify the key that issues; chains lead to the old one."""
    SWITCHED = "switched"
    """The same, and chains lead to the new one."""


class RootStep(StrEnum):
    """What an operator may ask for."""

    PREPARE = "prepare"
    ACTIVATE = "activate"
    RETIRE = "retire"
    REVERT = "revert"


_ALLOWED = {
    Phase.SETTLED: frozenset({RootStep.PREPARE}),
    Phase.PREPARED: frozenset({RootStep.ACTIVATE, RootStep.REVERT}),
    Phase.ACTIVATED: frozenset({RootStep.RETIRE, RootStep.REVERT}),
    Phase.SWITCHED: frozenset({RootStep.RETIRE, RootStep.REVERT}),
}


class OutOfTurn(PkiError):
    """The step is none that follows from where the rotation is."""

    code = Code.ROOT_OUT_OF_TURN


class HowItEnded(StrEnum):
    """Why a root is believed no more."""

    RETIRED = "retired"
    REVERTED = "reverted"
    """It was never relied on, or not any more: its rotation was taken back."""
    DISTRUSTED = "distrusted"


@frozen
class FormerRoot:
    """A root that was believed once. Its key is deleted, as far as it was ours to delete."""

    fingerprint: str
    """``sha256:HEX``, of its certificate."""
    key_id: str
    pin: str
    """``sha256/BASE64``, of its key."""
    subject: str
    generation: int
    at: datetime
    how: HowItEnded


@frozen
class RootLine:
    """The roots there are. Replaced whole, by one of the methods that are named for a step."""

    old: x509.Certificate
    """The only one, or the one before :attr:`new`."""
    new: x509.Certificate | None = None
    phase: Phase = Phase.SETTLED
    sequence: int = 0
    """The roots' part of the bundle's sequence number: grows with each change of the set of roots."""
    since: datetime | None = None
    """When the phase began; None for a CA whose root was never rotated."""
    both: tuple[x509.Certificate, ...] = ()
    """The certificates of the issuing CAs that the new root has certified, by either root."""
    replaced: str = ""
    """The key id of the issuing CA that issued before the rotation was activated."""
    announced: str = ""
    """The pin of the next issuing CA's key, which is drawn and not certified yet."""
    former: tuple[FormerRoot, ...] = ()
    """The latest first."""
    between: tuple[x509.Certificate, ...] = ()
    """CAs of somebody else's that stand between an issuing CA of ours and their root."""

    @property
    def served(self) -> x509.Certificate:
        """The root that chains lead to, and that whoever joins compares with."""
        return self.new if self.phase is Phase.SWITCHED and self.new is not None else self.old

    @property
    def other(self) -> x509.Certificate | None:
        """The one that is believed besides."""
        return self.old if self.phase is Phase.SWITCHED else self.new

    @property
    def roots(self) -> tuple[x509.Certificate, ...]:
        """All that are believed, the served one first."""
        return (self.served, *((self.other,) if self.other is not None else ()))

    @property
    def certifying(self) -> tuple[x509.Certificate, ...]:
        """Those that are to certify an issuing CA that is made now, the served one first."""
        return self.roots if self.phase in (Phase.ACTIVATED, Phase.SWITCHED) else (self.served,)

    @property
    def next_generation(self) -> int:
        """Of the root that comes next: no number is used twice."""
        known = [generation_of(root.subject) for root in self.roots]
        return 1 + max(*known, *(root.generation for root in self.former), 1)

    def root_of(self, certificate: x509.Certificate) -> x509.Certificate | None:
        """The root that an issuing CA's certificate leads to; None for none of ours."""
        return path[-1] if (path := self.path_of(certificate)) else None

    def chain_of(self, certificate: x509.Certificate) -> tuple[x509.Certificate, ...]:
        """What is served above the leaves of an issuing CA: its certificate, what stands above it, and no root."""
        return self.path_of(certificate)[:-1] or (certificate,)

    def path_of(self, certificate: x509.Certificate) -> tuple[x509.Certificate, ...]:
        """From an issuing CA's certificate up to its root, which is the last; empty for none of ours."""
        path: tuple[x509.Certificate, ...] = (certificate,)
        while (root := _signer(path[-1], self.roots)) is None:
            above = _signer(path[-1], [one for one in self.between if one not in path])
            if above is None:
                return ()
            path = (*path, above)
        return (*path, root)

    def certificates_of(self, spki: bytes) -> tuple[x509.Certificate, ...]:
        """Those of an issuing CA's key that are in :attr:`both`."""
        return tuple(one for one in self.both if spki_der(one.public_key()) == spki)

    def demand(self, step: RootStep) -> None:
        """Raises :class:`OutOfTurn` where that step does not follow now."""
        if step in _ALLOWED[self.phase]:
            return
        allowed = " or ".join(sorted(_ALLOWED[self.phase]))
        raise OutOfTurn(
            f"the rotation of the root is {self.phase}, and {step} does not follow: what can be done now is {allowed} "
            "(mesh-ctl ca root status)"
        )

    # What each step makes of it.

    def prepared(self, new: x509.Certificate, now: datetime, announced: str = "") -> "RootLine":
        """The new root is published."""
        return evolve(
            self,
            new=new,
            phase=Phase.PREPARED,
            since=now,
            sequence=self._next(now),
            announced=announced,
        )

    def announcing(self, pin: str, now: datetime) -> "RootLine":
        """With the pin of another key that issues next."""
        return evolve(self, announced=pin, sequence=self._next(now))

    def activated(
        self, both: tuple[x509.Certificate, ...], replaced: str, now: datetime
    ) -> "RootLine":
        """Both roots certify what issues."""
        return evolve(
            self, phase=Phase.ACTIVATED, since=now, both=both, replaced=replaced, announced=""
        )

    def certified(self, certificates: Iterable[x509.Certificate]) -> "RootLine":
        """With another issuing CA, or another certificate of one, that the new root has certified."""
        fresh = tuple(certificates)
        slots = {(key_id(one.public_key()), one.issuer) for one in fresh}
        kept = [one for one in self.both if (key_id(one.public_key()), one.issuer) not in slots]
        return evolve(self, both=(*kept, *fresh))

    def with_between(self, certificates: Iterable[x509.Certificate]) -> "RootLine":
        """With more CAs of somebody else's below their root."""
        return evolve(self, between=tuple(dict.fromkeys((*self.between, *certificates))))

    def switched(self, now: datetime) -> "RootLine":
        """Chains lead to the new root."""
        return evolve(self, phase=Phase.SWITCHED, since=now, announced="")

    def retired(self, now: datetime, how: HowItEnded = HowItEnded.RETIRED) -> "RootLine":
        """The new root is the only one."""
        if self.new is None:
            raise AssertionError("there is no root that could follow")
        return RootLine(
            self.new,
            phase=Phase.SETTLED,
            since=now,
            sequence=self._next(now),
            former=self._remembering(self.old, now, how),
            between=self.between,
        )

    def reverted(self, now: datetime, how: HowItEnded = HowItEnded.REVERTED) -> "RootLine":
        """One step back."""
        if self.phase is Phase.SWITCHED:
            return evolve(self, phase=Phase.ACTIVATED, since=now)
        if self.phase is Phase.ACTIVATED:
            # What was replaced is remembered: it issues again, as far as it can.
            return evolve(self, phase=Phase.PREPARED, since=now, both=())
        if self.new is None:
            raise AssertionError("there is nothing to take back")
        return RootLine(
            self.old,
            phase=Phase.SETTLED,
            since=now,
            sequence=self._next(now),
            former=self._remembering(self.new, now, how),
            between=self.between,
        )

    def restored(self, now: datetime) -> "RootLine":
        """The same after a restore: its sequence number is past whatever was published before that."""
        return evolve(self, sequence=self._next(now), since=self.since or now)

    def _next(self, now: datetime) -> int:
        return max(self.sequence + 1, int(now.timestamp()))

    def _remembering(
        self, root: x509.Certificate, now: datetime, how: HowItEnded
    ) -> tuple[FormerRoot, ...]:
        key = root.public_key()
        ended = FormerRoot(
            fingerprint_of(root),
            key_id(key),
            spki_pin(key),
            subject_of(root),
            generation_of(root.subject),
            now,
            how,
        )
        return (ended, *self.former)[:MOST_REMEMBERED]


def _signer(
    certificate: x509.Certificate, candidates: Iterable[x509.Certificate]
) -> x509.Certificate | None:
    """Whoever of the candidates has signed a certificate."""
    return next((one for one in candidates if issued_by(certificate, one)), None)


def fingerprint_of(certificate: x509.Certificate) -> str:
    """What a caller pins a root by: :class:`pki.svid.pin.Fingerprint` as text, ``sha256:HEX``."""
    return str(Fingerprint.of(certificate))
