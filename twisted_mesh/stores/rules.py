"""What one command does to the tables, and what must hold for it."""

from sqlalchemy import (
    ColumnElement,
    Connection,
    RowMapping,
    bindparam,
    delete,
    insert,
    or_,
    select,
    update,
)

from pki.audit.log import Entry
from pki.errors import printable
from pki.serial import serial_pairs
from pki.svid.revocation_set import Reason
from twisted_mesh.stores import agents, blocked_keys, bulk, claims, entries, federation, log, tokens
from twisted_mesh.stores.commands import (
    BlockKey,
    Command,
    CreateEntry,
    CreateToken,
    DeleteEntry,
    EndAgent,
    EndFederation,
    ExtendLog,
    Federate,
    KeepBundle,
    Outcome,
    Probe,
    Prune,
    RecordAct,
    RecordCertificate,
    RecordIntent,
    RecordIssue,
    ReleaseClaim,
    Revoke,
    RevokeAll,
    RevokeToken,
    SaveCheckpoint,
    SettleDefaultEntry,
    TakeCrlNumber,
    UnblockKey,
    WriteOff,
)
from twisted_mesh.stores.reading import ROW
from twisted_mesh.stores.records import (
    Conflict,
    EntryGone,
    IssuedCertificate,
    Revoked,
    StoreError,
    Unknown,
)
from twisted_mesh.stores.schema import (
    certificate_of,
    certificates,
    crls,
    feed,
    intents,
    meta,
    microseconds,
    next_numbers,
    serial_text,
)

_c = certificates.c

_REVOKE = (
    update(certificates)
    .where(_c.id == bindparam("id_"))
    .values(revoked_at=bindparam("at_"), reason=bindparam("reason_"))
)
#: A request that is repeated from now on buys a certificate of its own.
_FREE = update(certificates).where(_c.id == bindparam("id_")).values(request_key=None)


def apply(connection: Connection, command: Command) -> Outcome:
    """Raises :class:`StoreError`, by then having changed who knows what: the caller rolls back."""
    match command:
        case RecordIntent():
            return _record_intent(connection, command)
        case RecordIssue():
            _demand_right(connection, command.intent)
            bulk.record_issues(connection, [command])
        case WriteOff():
            return _write_off(connection, command)
        case Revoke():
            return _revoke(connection, command)
        case RevokeAll():
            return bulk.revoke_all(connection, command)
        case EndAgent():
            return agents.end(connection, command)
        case ReleaseClaim():
            return agents.release(connection, command)
        case ExtendLog():
            return log.extend(connection)
        case Prune():
            return _prune(connection, command)
        case SettleDefaultEntry():
            return entries.settle_default(connection, command)
        case RevokeToken():
            return tokens.revoke(connection, command)
        case TakeCrlNumber():
            return _take_crl_number(connection, command)
        case CreateEntry():
            entries.create(connection, command)
        case DeleteEntry():
            entries.remove(connection, command)
        case Federate():
            federation.begin(connection, command)
        case KeepBundle():
            federation.keep(connection, command)
        case EndFederation():
            federation.end(connection, command)
        case BlockKey():
            return blocked_keys.block(connection, command)
        case UnblockKey():
            blocked_keys.unblock(connection, command)
        case CreateToken():
            tokens.create(connection, command)
        case RecordCertificate():
            _record_certificate(connection, command)
        case RecordAct():
            log.record(connection, command.entry)
        case SaveCheckpoint():
            log.keep(connection, command.size, microseconds(command.at), command.note)
        case Probe():
            _probe(connection, command)
    return None


def _record_intent(connection: Connection, command: RecordIntent) -> int:
    _demand_right(connection, command)
    return bulk.record_intents(connection, [command])[0]


def _demand_right(connection: Connection, command: RecordIntent) -> None:
    """See that what is bought may be, and use up what buys it."""
    serial, request_key, renews = command.certificate.serial, command.request_key, command.renews
    if _known(connection, _c.serial == serial_text(serial)):
        raise Conflict(f"serial {serial_pairs(serial)} has been given out already: draw another")
    if request_key is not None and _known(connection, _c.request_key == request_key):
        raise Conflict("this request has been recorded already: ask for its certificate again")
    if renews is not None:
        presented = _known(connection, _c.serial == serial_text(renews))
        if presented is not None and presented["revoked_at"] is not None:
            raise Revoked(
                f"the certificate that was presented, {serial_pairs(renews)}, has been revoked meanwhile: "
                "ask for a new one"
            )
    blocked_keys.demand_unblocked(connection, command.certificate.key)
    if command.admits is not None:
        agents.admit(connection, command.admits)
    required = (
        command.rests_on if command.requires is None else (command.requires, *command.rests_on)
    )
    for entry in required:
        if not entries.is_there(connection, entry):
            raise EntryGone(
                f"the registration entry {printable(entry, 60)} is not there any more: have an administrator "
                "make one (mesh-ctl entry create)"
            )
    if command.claim is not None:
        claims.use(connection, command, command.claim)
    if command.token is not None:
        tokens.spend(connection, command, command.token)


def _record_certificate(connection: Connection, command: RecordCertificate) -> None:
    try:
        bulk.record_certificates(connection, [command])
    except bulk.NotAtOnce:
        raise _not_open() from None


def _write_off(connection: Connection, command: WriteOff) -> IssuedCertificate:
    closed = delete(intents).where(intents.c.certificate == command.intent)
    if connection.execute(closed).rowcount != 1:
        raise _not_open()
    connection.execute(_FREE, {"id_": command.intent})
    at, reason = microseconds(command.at), Reason.UNSPECIFIED
    gone = _mark_revoked(connection, command.intent, at, reason, command.entry)
    tokens.give_back(connection, serial_text(gone.serial))
    claims.give_back(connection, serial_text(gone.serial))
    return gone


def _not_open() -> Unknown:
    return Unknown("this intent is not open: it was written off, or has its certificate")


def _revoke(connection: Connection, command: Revoke) -> IssuedCertificate:
    row = _known(connection, _c.serial == serial_text(command.serial))
    if row is None or command.issuer not in (None, row["issuer"]):
        raise Unknown(
            f"no certificate with serial {serial_pairs(command.serial)} was issued here: "
            "compare the serial with the list of certificates"
        )
    if row["revoked_at"] is not None:
        return certificate_of(row)
    at = microseconds(command.at)
    return _mark_revoked(connection, row["id"], at, command.reason, command.entry)


def _mark_revoked(
    connection: Connection, number: int, at: int, reason: Reason, entry: Entry
) -> IssuedCertificate:
    """The first revocation stays; the entry is written anyway."""
    row = _numbered(connection, number)
    if row["revoked_at"] is None:
        connection.execute(_REVOKE, {"id_": number, "at_": at, "reason_": reason})
        (position,) = next_numbers(connection, feed=1)
        connection.execute(insert(feed), {"position": position, "certificate": number})
        if reason is Reason.KEY_COMPROMISE:
            blocked_keys.block_compromised(connection, [number])
        row = _numbered(connection, number)
    log.record(connection, entry)
    return certificate_of(row)


def _prune(connection: Connection, command: Prune) -> int:
    is_over = _c.expires_at < microseconds(command.expired_before)
    if command.revoked_before is not None:
        unlisted = _c.expires_at < microseconds(command.revoked_before)
        is_over &= or_(_c.revoked_at.is_(None), unlisted)
    expired = (
        select(_c.id)
        .where(is_over, _c.id.not_in(select(intents.c.certificate)))
        .order_by(_c.expires_at)
        .limit(command.limit)
    )
    forgotten = delete(certificates).where(_c.id.in_(expired)).returning(_c.entry)
    bought_by = list(connection.execute(forgotten).scalars())
    before = microseconds(command.expired_before)
    bound_to = tokens.prune(connection, before, command.limit)
    over = claims.prune(connection, before, command.limit)
    orphans = {entry for entry in (*bought_by, *bound_to) if entry is not None}
    gone = len(bought_by) + len(bound_to) + over + entries.forget_orphans(connection, orphans)
    return gone + log.prune(connection, microseconds(command.acts_before), command.limit)


def _take_crl_number(connection: Connection, command: TakeCrlNumber) -> int:
    whose = crls.c.issuer == command.issuer
    served = None if command.served is None else microseconds(command.served)
    last = connection.execute(select(crls.c.number).where(whose)).scalar()
    if last is None:
        row = {"issuer": command.issuer, "number": command.least, "served": served}
        connection.execute(insert(crls), row)
        return command.least
    number: int = max(last + 1, command.least)
    values = {"number": number} if served is None else {"number": number, "served": served}
    connection.execute(update(crls).where(whose).values(values))
    return number


def _probe(connection: Connection, command: Probe) -> None:
    connection.execute(delete(meta).where(meta.c.name == "probe"))
    value = str(microseconds(command.at))
    connection.execute(insert(meta), {"name": "probe", "value": value})
    if connection.execute(select(meta.c.value).where(meta.c.name == "probe")).scalar() != value:
        raise StoreError(
            "the store does not give back what was written to it: look into the disk's health"
        )


def _known(connection: Connection, condition: ColumnElement[bool]) -> RowMapping | None:
    return connection.execute(ROW.where(condition)).mappings().first()


def _numbered(connection: Connection, number: int) -> RowMapping:
    """The row of a certificate that is known to be there."""
    return connection.execute(ROW.where(_c.id == number)).mappings().one()
