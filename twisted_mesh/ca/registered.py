"""A registration entry as the CA has it, and why one is not taken or changed."""

from datetime import datetime
from enum import StrEnum

from attrs import frozen

from pki.codes import Code
from pki.errors import PkiError, Problem, Refused, discreet
from pki.policy.entry import RegistrationEntry


class Source(StrEnum):
    """Where an entry is kept."""

    STORE = "store"
    FILE = "file"
    DEFAULT = "default"
    """Made by the CA itself, for services of its own user; in the store like the others."""


class NameTaken(Refused):
    """Another entry has the common name already."""

    @classmethod
    def by(cls, entry: RegistrationEntry, other: str) -> "NameTaken":
        """``entry`` wants the name of the entry ``other``."""
        detail = f"{discreet(entry.common_name, 80)!r} is the common name of the entry {other} already: take another"
        return cls([Problem(Code.MALFORMED, detail, subject="common_name")])


class EntryInFile(PkiError):
    """An entry of ``--entries`` is changed there, and not through the API."""

    code = Code.ENTRY_IN_FILE


class EntryOfAgent(PkiError):
    """An agent's own entry ends with the agent, and its ban by being taken back."""

    code = Code.CONFLICT


@frozen
class Registered:
    """An entry, where it is kept, and whether it counts now."""

    entry: RegistrationEntry
    source: Source
    is_honoured: bool
    created_at: datetime | None = None
