"""The routes of the audit log: its checkpoints, its entries, and proofs of both."""

from msgspec import UNSET, UnsetType

from pki.validity import format_duration, rfc3339
from twisted_mesh.api.log_messages import (
    Checkpoints,
    LogEntries,
    LogEntry,
    LogHead,
    Proof,
    RecordFederation,
    RecordOddity,
    RecordRow,
    RecordRows,
)
from twisted_mesh.ca.api.request import Call
from twisted_mesh.ca.api.response import Answer, json_answer, optional_time
from twisted_mesh.ca.federated import facts_on_record
from twisted_mesh.ca.federation_history import digest_of
from twisted_mesh.ca.parts import CaParts
from twisted_mesh.stores.records import ExaminedCertificate, StoredFederation, StoreError


async def checkpoint(ca: CaParts, call: Call) -> Answer:
    """The newest checkpoint; one is signed now where there is none yet."""
    log = ca.log
    signed = log.latest or await log.extend()
    note = signed.note if signed else None
    kept = UNSET if log.keep_acts is None else format_duration(log.keep_acts)
    return json_answer(LogHead(str(log.key.verifier), note, kept))


async def checkpoints(ca: CaParts, call: Call) -> Answer:
    """Checkpoints from a size on."""
    start, limit = call.page()
    found = await ca.store.checkpoints(start, limit + 1)
    following = found[limit][0] if len(found) > limit else None
    notes = [note for _, note in found[:limit]]
    return json_answer(Checkpoints(notes, following))


async def entries(ca: CaParts, call: Call) -> Answer:
    """Entries from a position on, as far as the tree reaches."""
    start, limit = call.page()
    listed, size = await ca.store.log_entries(start, limit)
    following = start + len(listed)
    found = [
        LogEntry(
            logged.position,
            logged.leaf.hex(),
            None if logged.entry is None else logged.entry.decode(),
        )
        for logged in listed
    ]
    return json_answer(LogEntries(found, size, following if listed and following < size else None))


async def record(ca: CaParts, call: Call) -> Answer:
    """Certificates as they stand in their table, from a row on; with the first, what else is odd about the record."""
    start, limit = call.page()
    page = await ca.store.examine(start, limit)
    oddities: list[RecordOddity] = []
    lost: list[int] = []
    acts = 0
    federations: list[RecordFederation] | UnsetType = UNSET
    if not start:
        found = await ca.store.oddities()
        oddities = [RecordOddity(oddity.table, oddity.name, oddity.detail) for oddity in found]
        lost = list(await ca.log.lost_checkpoints())
        acts, _ = await ca.store.last_act()
        try:
            federations = list(map(_record_federation, await ca.store.federations()))
        except StoreError as error:
            oddities.append(RecordOddity("federation", "", str(error)))
    rows = [_record_row(examined) for examined in page.certificates]
    return json_answer(RecordRows(rows, page.next, oddities, acts, lost, federations))


def _record_federation(stored: StoredFederation) -> RecordFederation:
    digest = None if stored.bundle is None else digest_of(stored.bundle)
    return RecordFederation(
        str(stored.trust_domain), rfc3339(stored.created_at), facts_on_record(stored), digest
    )


def _record_row(examined: ExaminedCertificate) -> RecordRow:
    known, oddities = examined.certificate, list(examined.oddities)
    if known is None:
        return RecordRow(examined.name, oddities, is_readable=False)
    return RecordRow(
        examined.name,
        oddities,
        spiffe_id=str(known.spiffe_id),
        issued_at=rfc3339(known.issued_at),
        expires_at=rfc3339(known.expires_at),
        requester=known.requester,
        revoked_at=optional_time(known.revoked_at),
        reason=str(known.reason) if known.reason else None,
        issuer=known.issuer,
        entry=known.entry,
        claim=known.claim or UNSET,
        tbs=examined.tbs,
        position=examined.position,
        is_without_body=examined.is_without_body,
    )


async def proof(ca: CaParts, call: Call) -> Answer:
    """Of an entry's place (``position``, ``size``), or that one tree extends another (``from``, ``to``)."""
    store = ca.store
    size = (await store.log_head()).size
    if "position" in call.query:
        of = call.number("size", size, 1, size)
        position = call.number("position", 0, 0, of - 1)
        (logged,), _ = await store.log_entries(position, 1)
        hashes = await store.inclusion_proof(position, of)
        found = Proof([h.hex() for h in hashes], logged.leaf.hex(), of)
    else:
        to = call.number("to", size, 0, size)
        since = call.number("from", 0, 0, to)
        hashes = await store.consistency_proof(since, to) if since else ()
        found = Proof([h.hex() for h in hashes], size=to)
    return json_answer(found)
