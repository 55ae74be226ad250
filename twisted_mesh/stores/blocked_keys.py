"""Blocked keys in their table: those of certificates that were revoked as compromised, and administrators' own."""

import re
from collections.abc import Sequence

from cryptography import x509
from sqlalchemy import Connection, bindparam, delete, insert, select, update

from pki.errors import HOSTILE_INPUT
from pki.keys import number_digest
from pki.svid.revocation_set import Reason
from twisted_mesh.stores import log
from twisted_mesh.stores.commands import BlockKey, UnblockKey
from twisted_mesh.stores.records import BlockedKey, Conflict, KeyBlocked, StoreError, Unknown
from twisted_mesh.stores.schema import (
    blocked_keys,
    bodies,
    certificates,
    microseconds,
    serial_text,
    time_of,
)

_b, _c = blocked_keys.c, certificates.c
_ONE = select(_b.serial).where(_b.spki == bindparam("spki_"))
_ALL = select(blocked_keys).order_by(_b.blocked_at, _b.spki)
_KEY_ID = re.compile(r"[0-9a-f]{64}", re.ASCII)
#: So many are looked up by one statement.
_STEP = 500


def everything(connection: Connection) -> tuple[BlockedKey, ...]:
    """All of them, the oldest first. Raises :class:`StoreError` where one cannot be read."""
    try:
        return tuple(
            BlockedKey(
                _digits(row.spki),
                time_of(row.blocked_at),
                row.number,
                None if row.serial is None else int(row.serial, 16),
                str(row.reason),
            )
            for row in connection.execute(_ALL).all()
        )
    except (TypeError, ValueError, OverflowError):
        raise StoreError(
            "a blocked key in the store cannot be read: restore the last backup"
        ) from None


def block(connection: Connection, command: BlockKey) -> BlockedKey:
    """The one that stands."""
    key = command.key
    if connection.execute(_ONE, {"spki_": key.spki}).first() is None:
        connection.execute(insert(blocked_keys), _row(key))
        log.record(connection, command.act)
    return next(known for known in everything(connection) if known.spki == key.spki)


def unblock(connection: Connection, command: UnblockKey) -> None:
    """Raises :class:`Unknown` and :class:`Conflict`."""
    known = connection.execute(_ONE, {"spki_": command.spki}).first()
    if known is None:
        raise Unknown("this key is not blocked: see mesh-ctl key list")
    if known.serial is not None:
        raise Conflict(
            "this key was compromised, by the revocation of its certificate: that is for good; make a new key"
        )
    connection.execute(delete(blocked_keys).where(_b.spki == command.spki))
    log.record(connection, command.act)


def demand_unblocked(connection: Connection, spki: str) -> None:
    """Raises :class:`KeyBlocked`."""
    if connection.execute(_ONE, {"spki_": spki}).first() is not None:
        raise KeyBlocked(
            "the key has been blocked meanwhile: make a new one (mesh-ctl key list tells why)"
        )


def block_compromised(connection: Connection, numbers: Sequence[int]) -> None:
    """Block the keys of those certificates, by their numbers, which are revoked as compromised."""
    for start in range(0, len(numbers), _STEP):
        those = _c.id.in_(numbers[start : start + _STEP])
        joined = certificates.outerjoin(bodies, bodies.c.certificate == _c.id)
        columns = (_c.key, _c.serial, _c.revoked_at, bodies.c.der)
        rows = connection.execute(
            select(*columns).select_from(joined).where(those).order_by(_c.id)
        ).all()
        for row in rows:
            if _KEY_ID.fullmatch(str(row.key)):  # an older version has kept damaged ones without
                _block_one(connection, row.key, row.serial, row.revoked_at, _number(row.der))


def compromised(connection: Connection) -> Sequence[int]:
    """The numbers of the certificates that are revoked as compromised."""
    return (
        connection.execute(
            select(_c.id).where(_c.revoked_at.is_not(None), _c.reason == str(Reason.KEY_COMPROMISE))
        )
        .scalars()
        .all()
    )


def _block_one(connection: Connection, spki: str, serial: str, at: int, number: str | None) -> None:
    known = connection.execute(_ONE, {"spki_": spki}).first()
    if known is None:
        row = {"spki": spki, "number": number, "blocked_at": at, "serial": serial, "reason": ""}
        connection.execute(insert(blocked_keys), row)
    elif known.serial is None:  # what an administrator has blocked stays so for good
        connection.execute(update(blocked_keys).where(_b.spki == spki).values(serial=serial))


def _number(der: bytes | None) -> str | None:
    """What its key shares with others of the same private half; None where no certificate is kept."""
    try:
        digest = number_digest(x509.load_der_x509_certificate(der or b"").public_key())
    except HOSTILE_INPUT:
        return None
    return None if digest is None else digest.hex()


def _row(key: BlockedKey) -> dict[str, str | int | None]:
    return {
        "spki": key.spki,
        "number": key.number,
        "blocked_at": microseconds(key.blocked_at),
        "serial": None if key.serial is None else serial_text(key.serial),
        "reason": key.reason,
    }


def _digits(text: object) -> str:
    if not isinstance(text, str) or not _KEY_ID.fullmatch(text):
        raise ValueError
    return text
