"""The entries of a CRL in DER: which serials are revoked, since when and why (RFC 5280 section 5.3).

A CRL may have a million of them, so they are read with one look-up each where entries repeat what
earlier ones say. cryptography takes four times as long.
"""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta

from attrs import define, field

from pki.codes import Code
from pki.der import (
    ENUMERATED,
    OCTET_STRING,
    SEQUENCE,
    element,
    elements,
    inside,
    integer,
    oid_text,
    parse_time,
    time,
)
from pki.errors import Malformed
from pki.svid.revocation_set import Reason, Revocation

_REASON_CODE = bytes.fromhex("0603551d15")
_REASON_CODE_ID = "2.5.29.21"
#: Extensions that change nothing about what is revoked: invalidityDate.
_HARMLESS = {"2.5.29.24"}
#: How many different days and extensions are remembered.
_REMEMBERED = 4096
#: How long ``100000Z`` is.
_TIME_OF_DAY = 7

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SECOND = timedelta(seconds=1)
#: The end of the year 9999.
_LAST = (datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC) - _EPOCH) // _SECOND
_REASON_BITS = 4

#: When and why, in one number, which the garbage collector need not look at: a million take 100 MB.
Facts = int


class UnknownEntry(Malformed):
    """An entry has a critical extension that nobody here understands: the CRL must not be used."""

    code = Code.UNKNOWN_EXTENSION


def encode_entries(revocations: Iterable[Revocation]) -> bytes:
    """The content of ``revokedCertificates``: by serial, the first word on each; whole seconds."""
    first: dict[int, Revocation] = {}
    for revocation in revocations:
        first.setdefault(revocation.serial, revocation)
    return b"".join([_encoded(first[serial]) for serial in sorted(first)])


def _encoded(revocation: Revocation) -> bytes:
    told = integer(revocation.serial) + time(revocation.revoked_at)
    return element(SEQUENCE, told + _EXTENSIONS[revocation.reason])


def _extensions(reason: Reason) -> bytes:
    """A reason code, which is left out for ``unspecified`` (section 5.3.1)."""
    if reason is Reason.UNSPECIFIED:
        return b""
    code = element(OCTET_STRING, element(ENUMERATED, bytes((reason.number,))))
    return element(SEQUENCE, element(SEQUENCE, _REASON_CODE + code))


_EXTENSIONS = {reason: _extensions(reason) for reason in Reason}


def decode_entries(der: bytes) -> dict[int, Facts]:
    """The facts by serial, out of the content of ``revokedCertificates``; the first word on each.

    For DER that cryptography has parsed; other bytes give what they give, or :class:`Malformed`.
    :class:`UnknownEntry` is for what must be understood and is not.
    """
    found: dict[int, Facts] = {}
    reader = _Reader()
    begin, at, end = 0, 0, len(der)
    try:
        while at < end:
            begin = at
            start, at = inside(der, at)
            head, stop = inside(der, start)
            serial = int.from_bytes(der[head:stop], "big", signed=True)
            if serial not in found:
                found[serial] = reader.facts(der, stop, at)
    except (ValueError, IndexError, OverflowError):
        raise Malformed(f"{_entry_at(der, begin)} is damaged or cut short") from None
    except UnknownEntry as error:
        raise UnknownEntry(f"{_entry_at(der, begin)} {error}") from None
    except Malformed as error:
        raise Malformed(f"{_entry_at(der, begin)} cannot be relied on: {error}") from None
    if at != end:
        raise Malformed(f"{_entry_at(der, begin)} is damaged or cut short")
    return found


def _entry_at(der: bytes, begin: int) -> str:
    """Which entry it is that begins there, counted from 1; for the few lists that have a bad one."""
    number, at = 1, 0
    while at < begin:
        _, at = inside(der, at)
        number += 1
    return f"entry {number} of the CRL"


@define(eq=False, repr=False)
class _Reader:
    """Remembers days and extensions: entries have few different ones."""

    days: dict[bytes, int] = field(factory=dict)
    reasons: dict[bytes, int] = field(factory=dict)

    def facts(self, der: bytes, at: int, end: int) -> Facts:
        """Out of what comes after the serial: a date, and perhaps extensions."""
        start, stop = inside(der, at)
        if len(self.days) + len(self.reasons) > _REMEMBERED:
            self.days.clear()
            self.reasons.clear()
        midnight = stop - _TIME_OF_DAY
        day = der[at:midnight]
        since = self.days.get(day)
        if since is None:
            date = parse_time(der[at], der[start:midnight] + b"000000Z")
            since = self.days[day] = (date - _EPOCH) // _SECOND
        clock = int(der[midnight : stop - 1])
        seconds = since + clock // 10000 * 3600 + clock // 100 % 100 * 60 + clock % 100
        if seconds > _LAST:
            raise OverflowError
        rest = der[stop:end]
        reason = self.reasons.get(rest)
        if reason is None:
            reason = self.reasons[rest] = _reason_in(rest)
        return seconds << _REASON_BITS | reason


def _reason_in(rest: bytes) -> int:
    reason = Reason.UNSPECIFIED
    for listed in elements(rest):
        for extension in elements(listed.content):
            oid, *critical, value = elements(extension.content)
            name = oid_text(oid.content)
            if name == _REASON_CODE_ID:
                (code,) = elements(value.content)
                reason = Reason.numbered(int.from_bytes(code.content, "big"))
            elif critical and name not in _HARMLESS:
                raise UnknownEntry(
                    f"has the critical extension {name}, which is not understood here"
                )
    return reason.number


def revocations(
    entries: Iterable[tuple[int, Facts]], issuer: str, expires_at: datetime
) -> Iterator[Revocation]:
    """The entries of ``issuer``'s CRL, whose certificates end by ``expires_at``."""
    for serial, facts in entries:
        reason = Reason.numbered(facts & (1 << _REASON_BITS) - 1)
        revoked_at = _EPOCH + timedelta(seconds=facts >> _REASON_BITS)
        yield Revocation(issuer, serial, revoked_at, reason, expires_at)
