"""Claims in their table: each buys one certificate for one key, with its intent, and is given back with it."""

from attrs import evolve
from sqlalchemy import (
    Connection,
    RowMapping,
    bindparam,
    delete,
    func,
    literal,
    select,
    update,
)

from pki.audit.log import Entry
from pki.errors import printable
from pki.spiffe import SpiffeId
from twisted_mesh.stores import entries, log
from twisted_mesh.stores.commands import Claim, RecordIntent, ReleaseClaim
from twisted_mesh.stores.records import AlreadyAttested, Conflict, Unknown, UsedClaim
from twisted_mesh.stores.schema import certificates, claims, microseconds, serial_text, time_of

_c = claims.c
_ONE = select(claims).where(_c.claim == bindparam("claim_"))
_PAGE = (
    select(claims)
    .where(_c.claim > bindparam("after_"))
    .order_by(_c.claim)
    .limit(bindparam("limit_"))
)
_COLUMNS = "claims (claim, key, spiffe_id, serial, was, at, until)"


def find(connection: Connection, claim: str) -> UsedClaim | None:
    """Who has used it; None where nobody has."""
    row = connection.execute(_ONE, {"claim_": claim}).mappings().first()
    return None if row is None else _used(row)


def page(connection: Connection, after: str, limit: int) -> tuple[UsedClaim, ...]:
    """By their text, the first one after that text first."""
    rows = connection.execute(_PAGE, {"after_": after, "limit_": limit}).mappings().all()
    return tuple(map(_used, rows))


def use(connection: Connection, command: RecordIntent, claim: Claim) -> None:
    """One winner whatever else goes on. Raises :class:`AlreadyAttested`, and :class:`Conflict` for the same key."""
    bought, at = command.certificate, microseconds(command.at or command.entry.at)
    serial, until = serial_text(bought.serial), _maybe_microseconds(claim)
    row = (claim.text, bought.key, str(bought.spiffe_id), serial, None, at, until)
    if entries.insert_once(connection, _COLUMNS, "claim", row):
        return
    if claim.replaces is not None:
        before = serial_text(claim.replaces)
        told = {"key": bought.key, "spiffe_id": str(bought.spiffe_id), "serial": serial, "at": at}
        moved = (
            update(claims)
            .where(_c.claim == claim.text, _c.serial == before)
            .values(was=before, until=until, **told)
        )
        if connection.execute(moved).rowcount:
            return
    used = find(connection, claim.text)
    if used is not None and used.key == bought.key:
        raise Conflict("this key is just getting a certificate by this claim: ask again")
    raise AlreadyAttested.by(claim.text, used)


def give_back(connection: Connection, serial: str) -> None:
    """Whoever got nothing has used nothing: the claim is free again, or its holder's before."""
    key = select(certificates.c.key).where(certificates.c.serial == _c.was).scalar_subquery()
    connection.execute(
        update(claims)
        .where(_c.serial == serial, _c.was.is_not(None))
        .values(serial=_c.was, key=func.coalesce(key, _c.key), was=literal(None))
    )
    connection.execute(delete(claims).where(_c.serial == serial))


def release(connection: Connection, command: ReleaseClaim) -> None:
    """It may be used again, which is an act. Raises :class:`Unknown`."""
    if not connection.execute(delete(claims).where(_c.claim == command.claim)).rowcount:
        raise Unknown(
            f"nobody has used the claim {printable(command.claim, 200)}: compare it with mesh-ctl agent claims"
        )
    log.record(connection, command.act)


def release_all_of(connection: Connection, agent: SpiffeId, act: Entry) -> None:
    """Those that have bought that agent its ID may be used again; ``act`` is what the acts are like."""
    gone = delete(claims).where(_c.spiffe_id == str(agent)).returning(_c.claim)
    for claim in sorted(connection.execute(gone).scalars()):
        log.record(connection, evolve(act, object=f"claim {claim}"))


def prune(connection: Connection, before: int, limit: int) -> int:
    """Forget those that nobody can show any more; how many."""
    over = select(_c.claim).where(_c.until < before).order_by(_c.until).limit(limit)
    return connection.execute(delete(claims).where(_c.claim.in_(over))).rowcount


def _maybe_microseconds(claim: Claim) -> int | None:
    return None if claim.until is None else microseconds(claim.until)


def _used(row: RowMapping) -> UsedClaim:
    return UsedClaim(
        row["claim"],
        row["key"],
        SpiffeId.parse(row["spiffe_id"]),
        int(row["serial"], 16),
        time_of(row["at"]),
        None if row["until"] is None else time_of(row["until"]),
    )
