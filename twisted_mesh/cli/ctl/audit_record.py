"""The CA's record, as it shows it to administrators, against its audit log."""

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import closing
from datetime import datetime, timedelta
from http import HTTPStatus
from typing import IO

import msgspec
from attrs import evolve, frozen
from msgspec import UNSET

from pki.audit.auditor import Finding
from pki.audit.log import Checkpoint
from pki.audit.record_check import RecordCheck
from pki.audit.recorded import (
    Difference,
    RecordedBlock,
    RecordedCertificate,
    RecordedClaim,
    RecordedEntry,
    RecordedFederation,
    RecordedToken,
)
from pki.codes import Code
from pki.errors import printable
from pki.serial import parse_serial
from pki.validity import parse_rfc3339, rfc3339
from twisted_mesh.api.admin_client import Administration
from twisted_mesh.api.log_messages import RecordRow, RecordRows
from twisted_mesh.api.log_transcript import Transcript
from twisted_mesh.api.messages import Registration, TokenRow
from twisted_mesh.api.refusal import CaRefused
from twisted_mesh.cli.ctl import audit_transcript

#: By how much clocks may differ.
_SLACK = timedelta(minutes=10)
#: Seconds until whatever is recorded now is in the log that is signed.
_SETTLING = 3.0
#: What is said of a row that the log does not tell of.
_UNTOLD = (Code.RECORD_UNKNOWN, Code.RECORD_REVOKED)


@frozen
class Compared:
    """What of a record was compared with the log."""

    differences: tuple[Difference, ...] = ()
    judged: int = 0
    unjudged: int = 0
    """What the log does not tell of any more."""
    acts: int = 0
    """How many were recorded, in the log that is signed or not yet."""
    signed: int = 0
    """How many of them the log had that was compared."""
    unsigned: int = 0
    """How many should be signed by now, and are not: what only they say was not compared."""
    cut: int = 0
    """How many checkpoints of the last time are gone together with the text of the acts before them."""


async def compared(
    administration: Administration, transcript: IO[bytes], now: datetime
) -> Compared:
    """Every row that the CA shows against its log, which was fetched before into ``transcript``.

    The CA goes on meanwhile. So what differs is looked at again a moment later, and is told only if it still does.
    """
    first = await _compared(administration, transcript, now)
    if not first.differences:
        return first
    await administration.client.pause(_SETTLING)
    with await audit_transcript.fetched(administration) as file:
        second = await _compared(administration, file, now)
    known = {(found.code, found.kind, found.name) for found in first.differences}
    unsigned = max(0, first.acts - second.signed)
    untold = _UNTOLD if unsigned else ()
    return evolve(
        second,
        differences=tuple(
            found
            for found in second.differences
            if (found.code, found.kind, found.name) in known and found.code not in untold
        ),
        unsigned=unsigned,
    )


async def _compared(
    administration: Administration, transcript: IO[bytes], now: datetime
) -> Compared:
    with audit_transcript.telling_scratch(), closing(RecordCheck(now)) as check:
        transcript.seek(0)
        read = Transcript.open(transcript)
        for row in read.rows():
            check.act(row)
        pages: list[RecordRows] = []
        found = [difference async for difference in _differences(administration, check, pages)]
        first = pages[0]
        kept = [size for size in first.lost_checkpoints if size > read.pruned]
        return Compared(
            (*found, *_lost(kept)),
            check.judged,
            check.unjudged,
            first.acts,
            read.size,
            cut=len(first.lost_checkpoints) - len(kept),
        )


async def _differences(
    administration: Administration, check: RecordCheck, pages: list[RecordRows]
) -> AsyncIterator[Difference]:
    async for revocations in administration.revocations():
        for revocation in revocations:
            check.revocation(parse_serial(revocation.serial), revocation.issuer)
    check.knows_feed()
    async for page in administration.record():
        pages.append(msgspec.structs.replace(page, certificates=[]))
        for difference in (*_of_the_whole(page), *of_federations(check, page)):
            yield difference
        for certificate in page.certificates:
            for difference in _of_certificate(check, certificate):
                yield difference
    for registration in (await administration.registrations()).entries:
        if registration.source != "file":  # which is no part of the record
            for difference in check.entry(_entry(registration)):
                yield difference
    for token in await administration.tokens():
        for difference in check.token(_token(token)):
            yield difference
    async for claim in _claims(administration):
        for difference in check.claim(claim):
            yield difference
    async for block in _blocks(administration):
        for difference in check.block(block):
            yield difference
    for difference in check.missing():
        yield difference


async def _claims(administration: Administration) -> AsyncIterator[RecordedClaim]:
    """Those that were used. A CA of before there were claims shows none; if its log tells of some, they are missed."""
    try:
        async for claims in administration.claims():
            for claim in claims:
                yield RecordedClaim(
                    claim.claim, parse_serial(claim.serial), parse_rfc3339(claim.used_at)
                )
    except CaRefused as error:
        if error.status != HTTPStatus.NOT_FOUND:
            raise


async def _blocks(administration: Administration) -> AsyncIterator[RecordedBlock]:
    """Keys that are blocked; a CA of before there were any shows none."""
    try:
        for row in (await administration.blocked_keys()).keys:
            serial = None if row.serial is None else parse_serial(row.serial)
            yield RecordedBlock(row.key, parse_rfc3339(row.blocked_at), serial)
    except CaRefused as error:
        if error.status != HTTPStatus.NOT_FOUND:
            raise


def _of_the_whole(page: RecordRows) -> Iterator[Difference]:
    """What is odd about more than a certificate; on the first page."""
    for oddity in page.oddities:
        detail = f"{oddity.table} {printable(oddity.name, 80)}: {printable(oddity.detail, 200)}"
        yield Difference(Code.RECORD_CHANGED, oddity.table, oddity.name, detail)


def of_federations(check: RecordCheck, page: RecordRows) -> Iterator[Difference]:
    """What is odd about whom is federated with; a CA of before this was looked at shows none."""
    if page.federations is UNSET:
        return
    for row in page.federations:
        at = parse_rfc3339(row.created_at)
        yield from check.federation(RecordedFederation(row.trust_domain, row.facts, at, row.bundle))
    check.knows_federations()


def _lost(sizes: Sequence[int]) -> Iterator[Difference]:
    """Checkpoints that are gone although the text of the acts before them is kept: no pruning does that."""
    if sizes:
        first, last = min(sizes), max(sizes)
        yield Difference(
            Code.RECORD_MISSING,
            "checkpoint",
            str(first),
            f"{len(sizes)} of the checkpoints that were signed last, of {first} to {last} entries, are "
            "not on record, and the CA remembers them beside it: somebody has deleted them",
            first,
        )


def _of_certificate(check: RecordCheck, row: RecordRow) -> Iterator[Difference]:
    for oddity in row.oddities:
        detail = f"the certificate {printable(row.serial, 80)} {printable(oddity, 300)}"
        yield Difference(Code.RECORD_CHANGED, "certificate", row.serial, detail)
    if row.is_readable:
        yield from check.certificate(_certificate(row))


def _certificate(row: RecordRow) -> RecordedCertificate:
    return RecordedCertificate(
        parse_serial(row.serial),
        row.spiffe_id,
        parse_rfc3339(row.issued_at),
        parse_rfc3339(row.expires_at),
        _time(row.revoked_at),
        row.reason,
        row.entry,
        row.tbs,
        row.issuer,
        row.requester,
        row.position,
        row.is_without_body,
        row.claim or None,
    )


def _entry(row: Registration) -> RecordedEntry:
    return RecordedEntry(row.id, row.facts(), _time(row.created_at))


def _token(row: TokenRow) -> RecordedToken:
    return RecordedToken(
        row.id,
        row.entry,
        parse_rfc3339(row.expires_at),
        parse_rfc3339(row.created_at),
        row.key,
        _time(row.revoked_at),
        _time(row.spent_at),
        None if row.serial is None else parse_serial(row.serial),
    )


def _time(text: str | None) -> datetime | None:
    return None if text is None else parse_rfc3339(text)


async def refused(administration: Administration) -> list[Finding]:
    """What the CA itself says against its log: then it shows what it signed last, and no more."""
    checks = (await administration.health()).checks
    return [
        Finding(Code.UNHEALTHY_AUDIT, 0, 1, f"the CA says: {check.detail}")
        for check in checks
        if check.name == "audit" and check.status == "fail"
    ]


def undecided(found: Compared) -> Iterator[Finding]:
    """That the CA has not signed for a while what it has done; that text and checkpoints are gone together."""
    if found.cut:
        yield Finding(
            Code.LOG_CUT,
            0,
            1,
            f"{found.cut} of the checkpoints that were signed last are gone with the text of the acts before them: "
            "somebody has deleted both, or --keep-audit was shorter once; what was said there is not judged",
            is_breach=False,
        )
    if found.unsigned:
        yield Finding(
            Code.UNHEALTHY_AUDIT,
            found.signed,
            found.signed + found.unsigned,
            f"{found.unsigned:,} acts are recorded, and the CA has not signed them for some seconds: what only they "
            "tell is not judged (mesh-ctl doctor says what is wrong)",
        )


def young_and_gone(
    signed: Sequence[Checkpoint], pruned: int, oldest: datetime
) -> Iterator[Finding]:
    """That text is gone of which a checkpoint shows that it is not old enough to be pruned."""
    before = [c for c in signed if c.size < pruned and c.at > oldest + _SLACK]
    if before:
        first = min(before, key=lambda checkpoint: checkpoint.size)
        yield Finding(
            Code.LOG_CUT,
            first.size,
            pruned,
            f"the text of entries {first.size} to {pruned - 1} is gone, which are from after {rfc3339(first.at)}: "
            "somebody has deleted it, or --keep-audit was shorter once; what it said is not judged",
            is_breach=False,
        )
