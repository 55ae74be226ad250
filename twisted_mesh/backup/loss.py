"""What a backup lacks that had happened by then: told before anything is replaced, and in the audit log afterwards."""

from datetime import datetime

from attrs import frozen

from pki.audit.log import Checkpoint
from pki.serial import serial_hex
from pki.validity import rfc3339
from twisted_mesh.backup.archive import Manifest
from twisted_mesh.backup.record import Lost, Summary


@frozen
class Loss:
    """What is known to have happened after the backup was made."""

    lost: Lost | None
    """By the record that is here now; None where there is none that can be read."""
    why_not: str
    """Why not."""
    witnessed: Checkpoint | None
    """The largest log that anybody has seen of this CA, if it is larger than the backup's."""
    backup: Summary
    is_unreadable: bool = False
    """Whether there is a record here that says nothing: revocations in it cannot be carried over."""

    @property
    def acts(self) -> int:
        """How many acts of the audit log are missing in the backup, as far as is known."""
        present = self.lost.acts if self.lost is not None else 0
        seen = self.witnessed.size - self.backup.acts if self.witnessed is not None else 0
        return max(present, seen, 0)

    @property
    def is_known(self) -> bool:
        """Whether there is anything to compare with."""
        return self.lost is not None or self.witnessed is not None

    @property
    def is_none(self) -> bool:
        """Whether it is certain that nothing is lost."""
        return self.lost == Lost() and self.witnessed is None

    @property
    def is_up_to_date(self) -> bool:
        """Whether the record that is here is certain to have all that has happened since the backup."""
        if self.lost is None or not self.lost.is_successor:
            return False
        return self.witnessed is None or self.witnessed.size <= self.backup.acts + self.lost.acts

    @property
    def is_bearable(self) -> bool:
        """Whether nothing is known to be lost, and nothing that is here has to be guessed at."""
        lost = self.lost or Lost()
        known = self.acts or lost.certificates or not lost.is_same_log
        return not known and not self.is_unreadable

    def told(self, manifest: Manifest, by: str, now: datetime, store: str) -> dict[str, object]:
        """What the next epoch of the audit log is to begin with: what ``by`` restored, at ``now``, into ``store``."""
        last = self.witnessed or self.backup.checkpoint
        lost = self.lost or Lost()
        checkpoint = None
        if last is not None:
            checkpoint = {"origin": last.origin, "size": last.size, "root": last.root.hex()}
        return {
            "at": rfc3339(now),
            "by": by,
            "backup": {"created_at": manifest.created_at, "sha256": manifest.sha256},
            "store": {"before": self.backup.store, "now": store},
            "log": {
                "size": self.backup.acts,
                "known_size": self.backup.acts + self.acts,
                "checkpoint": checkpoint,
            },
            "lost": {
                "certificates": lost.certificates,
                "entries": self.acts,
                "known": self.is_known,
            },
            "carried_over": [serial_hex(serial) for serial in lost.revocations],
        }
