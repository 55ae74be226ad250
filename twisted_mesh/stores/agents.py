"""How an agent ends: its entries, its certificates and all that it has obtained go in one transaction."""

from collections.abc import Iterator

from attrs import evolve
from sqlalchemy import Connection, delete, select

from pki.audit.log import Entry
from pki.serial import serial_hex
from twisted_mesh.stores import bulk, entries, log
from twisted_mesh.stores.commands import EndAgent, RevokeAll
from twisted_mesh.stores.records import IssuedCertificate
from twisted_mesh.stores.schema import certificates, microseconds, of_agent
from twisted_mesh.stores.schema import entries as table

_c = certificates.c
#: So many are revoked by one statement.
_STEP = 1000


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
    due = tuple(_due(connection, command))
    revoked: list[IssuedCertificate] = []
    for start in range(0, len(due), _STEP):
        step = RevokeAll(due[start : start + _STEP], command.at, command.reason)
        revoked += bulk.revoke_all(connection, step)
    return tuple(revoked)


def _due(connection: Connection, command: EndAgent) -> Iterator[tuple[int, Entry]]:
    """What lives of the agent's own certificates and of those that it has obtained, each with the act that ends it."""
    living = _c.revoked_at.is_(None) & (_c.expires_at >= microseconds(command.at))
    rows = connection.execute(
        select(_c.serial, _c.spiffe_id).where(living, of_agent(command.agent)).order_by(_c.id)
    ).all()
    for row in rows:
        serial = int(row.serial, 16)
        facts = {**command.revocation.facts, "spiffe_id": row.spiffe_id}
        yield serial, evolve(command.revocation, object=serial_hex(serial), facts=facts)
