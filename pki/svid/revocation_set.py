"""Revocation: what a verifier asks "is it revoked?", and the reasons there are.

A set may hold a million certificates and grow by one of them a thousand times a second. So its
entries are packed into integers in plain dicts, which the garbage collector never walks, and a set
and those that were merged out of it share them.
"""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Self

from attrs import define, field, frozen
from cryptography.x509 import ReasonFlags

from pki.codes import Code
from pki.errors import Malformed, Problem
from pki.serial import serial_pairs
from pki.validity import rfc3339


class Reason(StrEnum):
    """Why a certificate is revoked (RFC 5280 section 5.3.1).

    :data:`GIVEN_REASONS` are those that our CA gives. The others stand in other CAs' CRLs and
    answers, and whatever is listed there counts as revoked: what is on hold, and what a complete
    CRL says should be removed, too.
    """

    UNSPECIFIED = "unspecified"
    KEY_COMPROMISE = "keyCompromise"
    CA_COMPROMISE = "cACompromise"
    AFFILIATION_CHANGED = "affiliationChanged"
    SUPERSEDED = "superseded"
    CESSATION_OF_OPERATION = "cessationOfOperation"
    CERTIFICATE_HOLD = "certificateHold"
    REMOVE_FROM_CRL = "removeFromCRL"
    PRIVILEGE_WITHDRAWN = "privilegeWithdrawn"
    AA_COMPROMISE = "aACompromise"

    @property
    def number(self) -> int:
        """The value of CRLReason."""
        return _NUMBERS[self]

    @property
    def flag(self) -> ReasonFlags:
        """What cryptography calls it."""
        return ReasonFlags(self.value)

    @classmethod
    def of(cls, flag: ReasonFlags) -> Self:
        """By what cryptography calls it; :attr:`flag` is the way back."""
        return cls(flag.value)

    @classmethod
    def numbered(cls, number: int) -> "Reason":
        """By the value of CRLReason. Raises :class:`Malformed` for one that RFC 5280 does not know."""
        reason = _REASONS.get(number)
        if reason is None:
            raise Malformed(f"there is no reason for revocation with the number {number}")
        return reason


#: Those that can be given to a certificate of ours.
GIVEN_REASONS = (
    Reason.UNSPECIFIED,
    Reason.KEY_COMPROMISE,
    Reason.CA_COMPROMISE,
    Reason.AFFILIATION_CHANGED,
    Reason.SUPERSEDED,
    Reason.CESSATION_OF_OPERATION,
    Reason.PRIVILEGE_WITHDRAWN,
)
#: CRLReason has no 7.
_NUMBERS = dict(zip(Reason, (0, 1, 2, 3, 4, 5, 6, 8, 9, 10), strict=True))
_REASONS = {number: reason for reason, number in _NUMBERS.items()}


@frozen
class Revocation:
    """One certificate that is no longer believed."""

    issuer: str
    """The issuer's :func:`pki.keys.key_id`: a serial alone names nothing."""
    serial: int
    revoked_at: datetime
    reason: Reason
    expires_at: datetime
    """When the certificate would have ended; after that nobody needs to know."""

    def problem(self, subject: str, *, is_issuer: bool = False) -> Problem:
        """What is wrong with the certificate, whose subject that is: the one that is judged, or one above it."""
        serial = f"serial {serial_pairs(self.serial)}"
        what = f"its issuer {subject}, {serial}," if is_issuer else serial
        return Problem(
            Code.REVOKED,
            f"{what} was revoked at {rfc3339(self.revoked_at)} ({self.reason})",
            "request a new certificate, which another issuer signs"
            if is_issuer
            else "request a new certificate, if you still may",
            "RFC 5280 section 6.3",
            subject,
        )


#: Sets of up to so many entries forget whatever has expired each time that they are merged.
_SMALL = 1024
#: Larger ones do once in so long: it takes a third of a second a million.
_SWEEP_EVERY = timedelta(hours=1)

_BEGINNING = datetime(1, 1, 1, tzinfo=UTC)
_NEVER = datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

# A packed entry, from the lowest bit: the reason's number, when it was revoked, when the certificate
# ends (both in microseconds since the year 1), and the entry's position in its ledger.
_REASON_BITS, _TIME_BITS = 4, 59
_REASON, _TIME = (1 << _REASON_BITS) - 1, (1 << _TIME_BITS) - 1
_END_AT = _REASON_BITS + _TIME_BITS
_POSITION_AT = _END_AT + _TIME_BITS
_FACTS = (1 << _POSITION_AT) - 1


@define(eq=False, repr=False)
class _Ledger:
    """Entries that generations of a set share. Each generation sees the first so many of them."""

    swept_at: datetime = _BEGINNING
    size: int = 0
    earliest: datetime = _NEVER
    """When the first of the certificates ends."""
    packed: dict[str, dict[int, int]] = field(factory=dict)

    def add(self, revocation: Revocation) -> None:
        serials = self.packed.setdefault(revocation.issuer, {})
        if revocation.serial in serials:
            return
        serials[revocation.serial] = (
            self.size << _POSITION_AT
            | (revocation.expires_at - _BEGINNING) // _MICROSECOND << _END_AT
            | (revocation.revoked_at - _BEGINNING) // _MICROSECOND << _REASON_BITS
            | _NUMBERS[revocation.reason]
        )
        self.size += 1
        self.earliest = min(self.earliest, revocation.expires_at)

    def is_due(self, now: datetime) -> bool:
        """Whether it is worth while to forget what has expired."""
        return self.earliest < now and (
            self.size <= _SMALL or not timedelta(0) <= now - self.swept_at < _SWEEP_EVERY
        )

    def swept(self, size: int, now: datetime) -> "_Ledger":
        """Of the first ``size`` entries those that have not expired, anew."""
        swept = _Ledger(now)
        limit = size << _POSITION_AT
        oldest = max(0, (now - _BEGINNING) // _MICROSECOND)
        earliest = _TIME
        position = 0
        for issuer, serials in self.packed.items():
            kept = {}
            for serial, packed in serials.items():
                end = packed >> _END_AT & _TIME
                if packed < limit and end >= oldest:
                    kept[serial] = position << _POSITION_AT | packed & _FACTS
                    position += 1
                    earliest = min(end, earliest)
            if kept:
                swept.packed[issuer] = kept
        swept.size = position
        if position:
            swept.earliest = _BEGINNING + earliest * _MICROSECOND
        return swept


@frozen(eq=False, repr=False)
class RevocationSet:
    """What is revoked, by issuer and serial. Immutable; :meth:`merged` makes a larger one.

    A million entries take 140 MB; ``find``, ``len`` and merging one more take about a microsecond
    each. Any thread may ask, one merges.
    """

    _ledger: _Ledger = field(factory=_Ledger, repr=False)
    _size: int = 0

    def find(self, issuer: str, serial: int) -> Revocation | None:
        """How the certificate of ``issuer`` with that serial was revoked; None where it was not."""
        serials = self._ledger.packed.get(issuer)
        packed = serials.get(serial) if serials else None
        if packed is None or packed >> _POSITION_AT >= self._size:
            return None
        return _unpacked(issuer, serial, packed)

    def of(self, issuer: str) -> Iterator[Revocation]:
        """All of one issuer's, for its CRL; in no particular order."""
        serials = self._ledger.packed.get(issuer, {})
        for serial in list(serials):  # later generations may add to it meanwhile
            if serials[serial] >> _POSITION_AT < self._size:
                yield _unpacked(issuer, serial, serials[serial])

    def __len__(self) -> int:
        return self._size

    def merged(self, news: Iterable[Revocation], now: datetime) -> Self:
        """With ``news`` that have not expired before ``now``. What is revoked never comes back sooner.

        What is held already and has expired is forgotten too: at once by a small set, within the
        hour by a large one. Costs what ``news`` cost, unless this set was merged with others before.
        """
        ledger = self._ledger
        if ledger.size != self._size or ledger.is_due(now):
            ledger = ledger.swept(self._size, now)
        for revocation in news:
            if revocation.expires_at >= now:
                ledger.add(revocation)
        if ledger is self._ledger and ledger.size == self._size:
            return self
        return type(self)(ledger, ledger.size)


def _unpacked(issuer: str, serial: int, packed: int) -> Revocation:
    return Revocation(
        issuer,
        serial,
        _BEGINNING + timedelta(microseconds=packed >> _REASON_BITS & _TIME),
        _REASONS[packed & _REASON],
        _BEGINNING + timedelta(microseconds=packed >> _END_AT & _TIME),
    )
