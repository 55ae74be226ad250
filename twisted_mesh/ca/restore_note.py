"""A CA that was restored from a backup: its audit log goes on with what is known to be lost."""

from collections.abc import Mapping
from typing import Any

import msgspec

from pki.audit.log import Act
from twisted_mesh.ca.audit_log import AuditLog
from twisted_mesh.runtime.log import logger
from twisted_mesh.state.directory import StateDirectory, StateError, read_file
from twisted_mesh.state.key_files import remove_file

_log = logger("ca")


async def take_note_of_restore(state: StateDirectory, log: AuditLog, trust_domain: str) -> None:
    """Record what ``mesh-ctl backup restore`` has left word of, if it has. Raises :class:`StateError`."""
    path = state.restored
    if not path.exists():
        return
    try:
        told = msgspec.json.decode(read_file(path, "the note of a restore"), type=dict[str, Any])
    except msgspec.DecodeError:
        raise StateError(f"{path} is damaged: restore the backup again, or remove it") from None
    facts = _facts(told)
    await log.record(Act.RESTORE, trust_domain, facts)
    remove_file(path)
    _log.warn(
        "This CA was restored from a backup of {created_at}: its audit log begins anew, and witnesses of the one "
        "before will say so",
        event="restored",
        created_at=facts.get("backup.created_at", "?"),
    )


def _facts(told: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """What a JSON object says, each value under its dotted path."""
    found: dict[str, str] = {}
    for name, value in told.items():
        if isinstance(value, dict):
            found |= _facts(value, f"{prefix}{name}.")
        elif isinstance(value, list):
            found[f"{prefix}{name}"] = " ".join(map(str, value))
        elif value is not None:
            found[f"{prefix}{name}"] = str(value)
    return found
