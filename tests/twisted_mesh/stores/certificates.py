"""Certificates to keep: records that look like those of the CA, and the commands that record them."""

from datetime import UTC, datetime, timedelta
from typing import Any

from attrs import evolve

from pki.audit.log import Act, Entry
from pki.spiffe import SpiffeId
from pki.svid.revocation_set import Reason
from tests.twisted_mesh.support import ThreadCalls
from twisted_mesh.stores.commands import (
    Admission,
    Claim,
    Command,
    ExtendLog,
    RecordCertificate,
    RecordIntent,
    RecordIssue,
    ReleaseClaim,
    Revoke,
    RevokeAll,
    WriteOff,
)
from twisted_mesh.stores.records import IssuedCertificate
from twisted_mesh.stores.sql import SqlStore

ISSUER = "ab" * 32
OTHER_ISSUER = "cd" * 32
KEY = "01" * 32
OTHER_KEY = "02" * 32
DIGEST = b"\x05" * 32
NOW = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)
HOUR = timedelta(hours=1)
LATER = NOW + timedelta(minutes=5)
API = SpiffeId.parse("spiffe://mesh.local/service/api")
WEB = SpiffeId.parse("spiffe://mesh.local/service/web")


def issued(serial: int, **changes: Any) -> IssuedCertificate:
    """Issued at ``NOW``, an hour to live, and only intended so far."""
    facts: dict[str, Any] = {
        "issuer": ISSUER,
        "serial": serial,
        "spiffe_id": API,
        "subject": "CN=api",
        "key": KEY,
        "issued_at": NOW,
        "expires_at": NOW + HOUR,
        "requester": "unix:uid:1000",
    }
    return IssuedCertificate(**facts | changes)


def signed(serial: int, **changes: Any) -> IssuedCertificate:
    """The same with its certificate."""
    return evolve(issued(serial, is_pending=False, der=der(serial)), **changes)


def der(serial: int) -> bytes:
    return b"0\x82" + serial.to_bytes(20, "big") * 30


def entry(act: Act, serial: int = 0, at: datetime = NOW) -> Entry:
    return Entry(at, act, "unix:uid:1000", f"{serial:x}", {})


def intent(
    serial: int,
    *,
    renews: int | None = None,
    request_key: str | None = None,
    requires: str | None = None,
    token: bytes | None = None,
    at: datetime | None = None,
    claim: Claim | None = None,
    admits: Admission | None = None,
    rests_on: tuple[str, ...] = (),
    **changes: Any,
) -> RecordIntent:
    act = Act.ISSUE if renews is None else Act.RENEW
    if claim is not None:
        changes.setdefault("claim", claim.text)
    certificate = issued(serial, **changes)
    told = entry(act, serial)
    return RecordIntent(
        certificate,
        DIGEST,
        told,
        renews,
        request_key,
        requires,
        token,
        at,
        claim,
        admits,
        rests_on,
    )


def issue(serial: int, **facts: Any) -> RecordIssue:
    """By a key in memory: what :func:`intent` intends, with its certificate."""
    return RecordIssue(intent(serial, **facts), der(serial))


def revoke(serial: int, **changes: Any) -> Revoke:
    command = Revoke(serial, NOW, Reason.SUPERSEDED, entry(Act.REVOKE, serial))
    return evolve(command, **changes)


def revoke_all(*serials: int, **changes: Any) -> RevokeAll:
    acts = tuple((serial, entry(Act.REVOKE, serial)) for serial in serials)
    return evolve(RevokeAll(acts, NOW, Reason.SUPERSEDED), **changes)


def write_off(number: int, **changes: Any) -> WriteOff:
    return evolve(WriteOff(number, NOW, entry(Act.WRITE_OFF, number)), **changes)


def release_claim(claim: str, **changes: Any) -> ReleaseClaim:
    command = ReleaseClaim(
        claim, NOW, Reason.CESSATION_OF_OPERATION, entry(Act.ADMINISTER, 9), entry(Act.REVOKE)
    )
    return evolve(command, **changes)


def record(store: SqlStore, calls: ThreadCalls, *certificates: IssuedCertificate) -> list[int]:
    """Have ``store`` record them, with their certificates where they have one; the intents' numbers."""
    numbers = []
    for certificate in certificates:
        command = RecordIntent(certificate, DIGEST, entry(Act.ISSUE, certificate.serial))
        numbers.append(calls.result(store.apply(command)))
        if certificate.der is not None:
            calls.result(store.apply(RecordCertificate(numbers[-1], certificate.der)))
    return numbers


def outcome(store: SqlStore, calls: ThreadCalls, command: Command, others: list[Command]) -> Any:
    """Of ``command``, told in the middle of ``others``; these all succeed."""
    middle = len(others) // 2
    told = [store.apply(c) for c in [*others[:middle], command, *others[middle:]]]
    result = calls.outcome(told.pop(middle))
    for other in told:
        calls.result(other)
    return result


def tell(store: SqlStore, calls: ThreadCalls, *commands: Command) -> list[Any]:
    """What each of ``commands``, told at once, comes to; its own error included."""
    return [calls.outcome(answer) for answer in [store.apply(command) for command in commands]]


def names(outcomes: list[Any]) -> list[str]:
    """Of the types of ``outcomes``."""
    return [type(outcome).__name__ for outcome in outcomes]


def acts(store: SqlStore, calls: ThreadCalls) -> list[tuple[Act, str]]:
    """What the audit log tells, and of what."""
    head = calls.result(store.apply(ExtendLog()))
    entries, size = calls.result(store.log_entries(0, 1000))
    assert size == head.size == len(entries)
    told = [Entry.parse(logged.entry) for logged in entries]
    return [(found.act, found.object) for found in told]
