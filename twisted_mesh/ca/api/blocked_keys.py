"""The routes of blocked keys: listed, blocked and let go by administrators."""

import re
from http import HTTPStatus

from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from pki.errors import HOSTILE_INPUT, Malformed
from pki.serial import serial_hex
from pki.validity import rfc3339
from twisted_mesh.api.blocked_key_messages import (
    BlockedKeyRow,
    BlockedKeyRows,
    KeyListRow,
    KeyUnblocked,
    NewBlockedKey,
)
from twisted_mesh.ca.api.entries import reason_of
from twisted_mesh.ca.api.request import Call
from twisted_mesh.ca.api.response import Answer, json_answer
from twisted_mesh.ca.blocked_authorities import demand_foreign
from twisted_mesh.ca.parts import CaParts
from twisted_mesh.stores.records import BlockedKey

_KEY_ID = re.compile(r"[0-9a-f]{64}", re.ASCII)


async def list_blocked(ca: CaParts, call: Call) -> Answer:
    """Every key that is blocked, the oldest first: :class:`BlockedKeyRows`."""
    lists = [KeyListRow(each.name, len(each)) for each in ca.blocked.lists]
    return json_answer(BlockedKeyRows([_row(known) for known in ca.blocked.all()], lists))


async def block(ca: CaParts, call: Call) -> Answer:
    """Block a key: :class:`BlockedKeyRow`. Done again, the answer is the same.

    Raises :class:`Malformed`, and :class:`Conflict` for a key of the CA's own.
    """
    asked = call.read(NewBlockedKey)
    if (asked.key is None) == (asked.public_key is None):
        raise Malformed("the body does not fit: it has either key or public_key")
    key = _read(asked.public_key) if asked.key is None else _digits(asked.key)
    demand_foreign(ca.current, key)
    blocked = await ca.blocked.block(call.principal, key, reason_of(asked.reason))
    return json_answer(_row(blocked), HTTPStatus.CREATED)


async def unblock(ca: CaParts, call: Call) -> Answer:
    """Let it go. Raises :class:`Unknown`, :class:`Conflict` for one that was compromised, :class:`Malformed`."""
    key = _digits(call.rest)
    await ca.blocked.unblock(call.principal, key, reason_of(call.query.get("reason", "")))
    return json_answer(KeyUnblocked(key))


def _row(known: BlockedKey) -> BlockedKeyRow:
    return BlockedKeyRow(
        known.spki,
        rfc3339(known.blocked_at),
        None if known.serial is None else serial_hex(known.serial),
        known.reason,
    )


def _digits(text: str) -> str:
    if not _KEY_ID.fullmatch(text):
        raise Malformed("a key is named by its SHA-256: 64 digits of hex, in lower case")
    return text


def _read(pem: str | None) -> PublicKeyTypes:
    try:
        return load_pem_public_key((pem or "").encode("ascii"))
    except HOSTILE_INPUT:
        raise Malformed("public_key is no public key in PEM") from None
