"""Join tokens in their table: kept as a digest, spent once and with the intent that they buy, given back with it."""

import hmac

from sqlalchemy import Connection, RowMapping, Text, bindparam, delete, func, insert, select, update

from pki.errors import discreet
from pki.policy.join_token import token_id
from pki.validity import rfc3339
from twisted_mesh.stores import entries, log
from twisted_mesh.stores.commands import CreateToken, RecordIntent, RevokeToken
from twisted_mesh.stores.records import (
    Conflict,
    EntryGone,
    IssuedToken,
    TokenDead,
    TokenSpent,
    TokenStatus,
    Unknown,
)
from twisted_mesh.stores.schema import microseconds, serial_text, time_of, tokens

_t = tokens.c
_ALL = select(tokens).order_by(_t.created_at.desc(), _t.id)
_ONE = select(tokens).where(_t.id == bindparam("id_"))
_SPEND = (
    update(tokens)
    .where(
        _t.id == bindparam("id_"),
        _t.digest == bindparam("digest_"),
        _t.entry == func.coalesce(bindparam("entry_", type_=Text), _t.entry),
        _t.spent_at.is_(None),
        _t.revoked_at.is_(None),
        _t.expires_at >= bindparam("at_"),
    )
    .values(spent_at=bindparam("at_"), request=bindparam("request_"), serial=bindparam("serial_"))
)


def everything(connection: Connection) -> tuple[IssuedToken, ...]:
    """All of them, the newest first."""
    return tuple(_token(row) for row in connection.execute(_ALL).mappings().all())


def find(connection: Connection, digest: bytes) -> IssuedToken | None:
    """Looked for by what of it is no secret, and then compared in a time that tells nothing."""
    found = _by_id(connection, token_id(digest))
    return found if found is not None and hmac.compare_digest(found.digest, digest) else None


def create(connection: Connection, command: CreateToken) -> None:
    """Keep a new token, and the entry that is made for it if there is one.

    Raises :class:`Conflict` where either is there already, :class:`Unknown` where its entry is not.
    """
    token, made = command.token, command.new_entry
    if made is not None and not entries.insert(connection, made):
        raise entries.taken(made.entry.id)
    if not entries.is_there(connection, token.entry):
        raise entries.gone(token.entry)
    if _by_id(connection, token.id) is not None:
        raise Conflict(f"there is a token {token.id} already: draw another")
    connection.execute(insert(tokens), _row(token))
    log.record(connection, command.act)


def revoke(connection: Connection, command: RevokeToken) -> IssuedToken:
    """The token as it stands then; revoked before is no error, and no second act. Raises :class:`Unknown`."""
    changed = connection.execute(
        update(tokens)
        .where(_t.id == command.id, _t.revoked_at.is_(None))
        .values(revoked_at=microseconds(command.at))
    )
    token = _by_id(connection, command.id)
    if token is None:
        raise Unknown(
            f"there is no token {discreet(command.id, 60)}: compare its id with the list of tokens"
        )
    if changed.rowcount:
        log.record(connection, command.act)
    return token


def spend(connection: Connection, command: RecordIntent, digest: bytes) -> None:
    """One winner whatever else goes on: who finds the row unspent has it written before anybody else looks.

    Raises :class:`TokenSpent`, :class:`TokenDead` and :class:`EntryGone`.
    """
    at = command.entry.at if command.at is None else command.at
    spent = {
        "id_": token_id(digest),
        "digest_": digest,
        "entry_": command.requires,
        "at_": microseconds(at),
        "request_": command.request_key,
        "serial_": serial_text(command.certificate.serial),
    }
    if connection.execute(_SPEND, spent).rowcount:
        return
    # Only to say why: nothing is decided by it.
    token = find(connection, digest)
    if token is None:
        raise TokenDead(
            "nobody here knows this join token: it was made by another CA, deleted with its entry, or forgotten once "
            "it had expired; have an administrator make one (mesh-ctl token create)"
        )
    status = token.status(at)
    if status is TokenStatus.SPENT:
        raise TokenSpent(
            f"the join token {token.id} has been used for another request: each buys one certificate"
        )
    if status is TokenStatus.LIVE:
        raise EntryGone(f"the join token {token.id} is bound to another registration entry")
    ended = token.expires_at if token.revoked_at is None else token.revoked_at
    happened = "expired" if status is TokenStatus.EXPIRED else "was revoked"
    raise TokenDead(
        f"the join token {token.id} {happened} at {rfc3339(ended)}: have an administrator make another "
        "(mesh-ctl token create)"
    )


def give_back(connection: Connection, serial: str) -> None:
    """The token that was spent on that serial, if any, can be spent again within its life."""
    unspent = {"spent_at": None, "request": None, "serial": None}
    connection.execute(update(tokens).where(_t.serial == serial).values(unspent))


def prune(connection: Connection, before: int, limit: int) -> list[str]:
    """Forget those that expired before a time; for each of them the entry that it was bound to."""
    expired = select(_t.id).where(_t.expires_at < before).order_by(_t.expires_at).limit(limit)
    gone = connection.execute(delete(tokens).where(_t.id.in_(expired)).returning(_t.entry))
    return list(gone.scalars())


def _by_id(connection: Connection, name: str) -> IssuedToken | None:
    row = connection.execute(_ONE, {"id_": name}).mappings().first()
    return None if row is None else _token(row)


def _row(token: IssuedToken) -> dict[str, int | str | bytes | None]:
    return {
        "id": token.id,
        "digest": token.digest,
        "entry": token.entry,
        "key": token.key,
        "created_at": microseconds(token.created_at),
        "expires_at": microseconds(token.expires_at),
    }


def _token(row: RowMapping) -> IssuedToken:
    return IssuedToken(
        digest=bytes(row["digest"]),
        entry=row["entry"],
        expires_at=time_of(row["expires_at"]),
        created_at=time_of(row["created_at"]),
        key=row["key"],
        revoked_at=None if row["revoked_at"] is None else time_of(row["revoked_at"]),
        spent_at=None if row["spent_at"] is None else time_of(row["spent_at"]),
        serial=None if row["serial"] is None else int(row["serial"], 16),
        request=row["request"],
    )
