"""What the CA does by itself: resolves what was cut short, replaces OCSP delegates, forgets what is long over.

At its start it takes note of a restore, if there was one.
"""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import msgspec
from attrs import define, field
from twisted.internet.interfaces import IReactorTime

from pki.audit.log import Act
from pki.errors import PkiError
from twisted_mesh.ca.audit_log import AuditLog
from twisted_mesh.ca.issuance import WriteOffs
from twisted_mesh.ca.revocation.crl_publisher import CrlPublisher
from twisted_mesh.ca.revocation.ocsp_responder import OcspResponder
from twisted_mesh.runtime.clock import Now
from twisted_mesh.runtime.log import logger
from twisted_mesh.runtime.tasks import Ticker, spawn
from twisted_mesh.state.directory import StateDirectory, StateError, read_file
from twisted_mesh.state.key_files import remove_file
from twisted_mesh.stores.commands import Prune
from twisted_mesh.stores.interface import IStore

_log = logger("ca")
#: Seconds between two looks.
TICK = 5.0
#: Seconds between two prunings.
_PRUNING = 3600.0
#: Seconds by which the wall clock may move between two looks.
_STEP = 60.0


@define(eq=False, repr=False)
class Housekeeping:
    """A loop beside the CA; whatever goes wrong is tried again at the next turn."""

    store: IStore
    write_offs: WriteOffs
    responder: OcspResponder
    publisher: CrlPublisher
    now: Now
    clock: IReactorTime
    keep_expired: timedelta
    """How long after its end a certificate stays in the record."""
    keep_acts: timedelta
    """How long the text of an act stays in the audit log; its hash stays for good."""
    _prune_at: float = field(default=0.0, init=False)
    _offset: float | None = field(default=None, init=False)
    """Wall clock less steady clock, at the last look."""
    _ticker: Ticker = field(init=False)
    _busy: bool = field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        self._ticker = Ticker(self.clock, TICK, self._tick, "housekeeping", _log)

    def start(self) -> None:
        """Look every few seconds from now on."""
        self._ticker.start(now=False)

    def stop(self) -> None:
        """Look no more. May be said more than once."""
        self._ticker.stop()

    def _tick(self) -> None:
        if not self._busy:
            self._busy = True
            _ = spawn(self.look(), "housekeeping", _log)

    async def look(self) -> None:
        """One turn. Raises nothing of :class:`PkiError`: what fails is tried again at the next."""
        try:
            await self.write_offs.resolve()
            await self.responder.attend()
            self._mistrust_clock()
            if self.clock.seconds() >= self._prune_at:
                await self.prune()
                self._prune_at = self.clock.seconds() + _PRUNING
        except PkiError as error:
            _log.debug("housekeeping has to wait: {error}", error=str(error))
        finally:
            self._busy = False

    def _mistrust_clock(self) -> None:
        """Put off pruning where the time is new: what a wrong clock forgets, nobody could list or revoke any more."""
        steady = self.clock.seconds()
        offset = self.now().timestamp() - steady
        if self._offset is None or abs(offset - self._offset) > _STEP:
            self._prune_at = steady + _PRUNING
        self._offset = offset

    async def prune(self) -> int:
        """Forget what is long over, a little at a time: others wait no longer than for that.

        Raises :class:`StoreError`.
        """
        now, forgotten = self.now(), 0
        command = Prune(
            now - self.keep_expired,
            now - self.keep_acts,
            revoked_before=self.publisher.forgettable_before(),
        )
        while gone := await self.store.apply(command):
            forgotten += gone
        if forgotten:
            _log.info(
                "{forgotten} rows of the record were over for long, and are forgotten",
                event="record-pruned",
                forgotten=forgotten,
            )
        return forgotten


async def take_note_of_restore(state: StateDirectory, log: AuditLog, trust_domain: str) -> None:
    """Record what ``mesh-ctl backup restore`` has left word of, if it has, and remove its note.

    The audit log goes on with what is known to be lost. Raises :class:`StateError`, and :class:`StoreError`.
    """
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
