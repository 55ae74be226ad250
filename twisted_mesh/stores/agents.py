"""How an agent is let in by its platform, and how it ends, or what a claim has bought: each in one transaction."""

from collections.abc import Iterator

from attrs import evolve
from sqlalchemy import ColumnElement, Connection, delete, select

from pki.audit.log import Entry
from pki.serial import serial_hex
from pki.svid.revocation_set import Reason
from twisted_mesh.stores import bulk, claims, entries, log
from twisted_mesh.stores.commands import Admission, EndAgent, ReleaseClaim, RevokeAll
from twisted_mesh.stores.records import Conflict, IssuedCertificate
from twisted_mesh.stores.schema import certificates, microseconds, of_agent
from twisted_mesh.stores.schema import entries as table

_c = certificates.c
#: So many are revoked by one statement.
_STEP = 1000


def admit(connection: Connection, admission: Admission) -> None:
    """Raises :class:`Conflict` where the agent's own entry is another by now: whoever decided must decide anew."""
    before, entry = admission.replaces, admission.entry
    if before is not None and admission.removal is not None:
        is_same = (table.c.id == before.entry.id) & (table.c.document == before.entry.to_document())
        if not connection.execute(delete(table).where(is_same)).rowcount:
            raise _another(entry.entry.agent)
        log.record(connection, admission.removal)
    if not entries.insert(connection, entry):
        raise _another(entry.entry.agent)
    log.record(connection, admission.act)


def _another(name: str | None) -> Conflict:
    return Conflict(f"the agent {name} has been let in, or ended, at this moment: ask again")


def end(connection: Connection, command: EndAgent) -> tuple[IssuedCertificate, ...]:
    """What was revoked by it. Done again, it revokes nothing more."""
    for entry_id, act in command.deletions:
        if connection.execute(delete(table).where(table.c.id == entry_id)).rowcount:
            log.record(connection, act)
    if command.ban is not None:
        stored, act = command.ban
        if not entries.insert(connection, stored):
            raise entries.taken(stored.entry.id)
        log.record(connection, act)
    if command.release is not None:
        claims.release_all_of(connection, command.agent, command.release)
    return _revoke(connection, command, of_agent(command.agent))


def release(connection: Connection, command: ReleaseClaim) -> tuple[IssuedCertificate, ...]:
    """What was revoked by it. Raises :class:`Unknown`."""
    claims.release(connection, command)
    return _revoke(connection, command, _c.claim == command.claim)


def _revoke(
    connection: Connection, command: EndAgent | ReleaseClaim, those: ColumnElement[bool]
) -> tuple[IssuedCertificate, ...]:
    due = tuple(_due(connection, command, those))
    revoked: list[IssuedCertificate] = []
    for start in range(0, len(due), _STEP):
        step = RevokeAll(due[start : start + _STEP], command.at, command.reason)
        revoked += bulk.revoke_all(connection, step)
    return tuple(revoked)


def _due(
    connection: Connection, command: EndAgent | ReleaseClaim, those: ColumnElement[bool]
) -> Iterator[tuple[int, Entry]]:
    """What lives of ``those`` certificates, each with the act that ends it."""
    living = _c.revoked_at.is_(None) & (_c.expires_at >= microseconds(command.at))
    rows = connection.execute(
        select(_c.serial, _c.spiffe_id, _c.key).where(living, those).order_by(_c.id)
    ).all()
    for row in rows:
        serial = int(row.serial, 16)
        facts = {**command.revocation.facts, "spiffe_id": row.spiffe_id}
        if command.reason is Reason.KEY_COMPROMISE:
            facts["key"] = row.key
        yield serial, evolve(command.revocation, object=serial_hex(serial), facts=facts)
