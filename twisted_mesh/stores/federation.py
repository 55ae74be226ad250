"""Federated trust domains in their table: begun, kept up to date, ended."""

from sqlalchemy import Connection, bindparam, delete, insert, select, type_coerce, update
from sqlalchemy.types import NullType

from pki.errors import PkiError, printable
from pki.spiffe import TrustDomain
from twisted_mesh.stores import log
from twisted_mesh.stores.commands import EndFederation, Federate, KeepBundle
from twisted_mesh.stores.records import Conflict, StoredFederation, StoreError, Unknown
from twisted_mesh.stores.schema import federation, microseconds, time_of

_f = federation.c
# As they are, also where something else than bytes was put there.
_ALL = select(
    _f.trust_domain,
    _f.created_at,
    type_coerce(_f.relationship, NullType()).label("relationship"),
    _f.sequence,
    type_coerce(_f.bundle, NullType()).label("bundle"),
    _f.fetched_at,
).order_by(_f.trust_domain)
_SEQUENCE = select(_f.sequence).where(_f.trust_domain == bindparam("name_"))


def everything(connection: Connection) -> tuple[StoredFederation, ...]:
    """All of them, by name. Raises :class:`StoreError` that names the first that cannot be read."""
    found = []
    for row in connection.execute(_ALL).all():
        try:
            found.append(
                StoredFederation(
                    TrustDomain.parse(row.trust_domain),
                    _bytes(row.relationship),
                    time_of(row.created_at),
                    None if row.bundle is None else _bytes(row.bundle),
                    row.sequence,
                    None if row.fetched_at is None else time_of(row.fetched_at),
                )
            )
        except (PkiError, TypeError, OverflowError, AttributeError):
            name = printable(str(row.trust_domain), 60)
            raise StoreError(
                f"the federated trust domain {name} in the store cannot be read: remove it (mesh-ctl federation remove "
                f"{name}) and add it anew, or restore the last backup"
            ) from None
    return tuple(found)


def begin(connection: Connection, command: Federate) -> None:
    """Raises :class:`Conflict` where it is federated with already."""
    new = command.federation
    name = str(new.trust_domain)
    if _sequence(connection, name) is not None:
        raise Conflict(
            f"the trust domain {name} is federated with already: remove that first (mesh-ctl federation remove {name})"
        )
    row = {
        "trust_domain": name,
        "created_at": microseconds(new.created_at),
        "relationship": new.relationship,
        "sequence": new.sequence,
        "bundle": new.bundle,
        "fetched_at": None if new.fetched_at is None else microseconds(new.fetched_at),
    }
    connection.execute(insert(federation), row)
    log.record(connection, command.act)


def keep(connection: Connection, command: KeepBundle) -> None:
    """Raises :class:`Unknown`, and :class:`Conflict` for a sequence that goes back."""
    name = str(command.trust_domain)
    held = _sequence(connection, name)
    if held is None:
        raise gone(command.trust_domain)
    if command.sequence < held and not command.accepts_older:
        raise Conflict(
            f"the bundle of {name} has the sequence {command.sequence}, and {held} was seen already: if that trust "
            f"domain was restored from a backup, mesh-ctl federation refresh {name} --accept-older"
        )
    kept = {
        "bundle": command.bundle,
        "sequence": command.sequence,
        "fetched_at": microseconds(command.fetched_at),
    }
    connection.execute(update(federation).where(_f.trust_domain == name).values(kept))
    if command.act is not None:
        log.record(connection, command.act)


def end(connection: Connection, command: EndFederation) -> None:
    """Raises :class:`Unknown` where it is not federated with."""
    name = str(command.trust_domain)
    if not connection.execute(delete(federation).where(_f.trust_domain == name)).rowcount:
        raise gone(command.trust_domain)
    log.record(connection, command.act)


def gone(trust_domain: TrustDomain) -> Unknown:
    """What whoever names a trust domain hears that is not federated with."""
    return Unknown(
        f"the trust domain {trust_domain} is not federated with: see mesh-ctl federation list"
    )


def _sequence(connection: Connection, name: str) -> int | None:
    return connection.execute(_SEQUENCE, {"name_": name}).scalar()


def _bytes(value: object) -> bytes:
    if not isinstance(value, bytes):
        raise TypeError
    return value
