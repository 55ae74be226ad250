"""What the CA does by itself: resolves what was cut short, replaces OCSP delegates, forgets what is long over."""

from datetime import timedelta
from typing import Any

from attrs import define, field
from twisted.internet.task import LoopingCall

from pki.errors import PkiError
from twisted_mesh.ca.service import CertificateAuthority
from twisted_mesh.runtime.log import logger
from twisted_mesh.runtime.tasks import spawn
from twisted_mesh.stores.commands import Prune

_log = logger("ca")
#: Seconds between two looks.
TICK = 5.0
#: Seconds between two prunings.
_PRUNING = 3600.0
#: Seconds by which the wall clock may move between two looks.
_STEP = 60.0


@define(eq=False)
class Housekeeping:
    """A loop beside the CA; whatever goes wrong is tried again at the next turn."""

    ca: CertificateAuthority
    clock: Any
    keep_expired: timedelta
    """How long after its end a certificate stays in the record."""
    keep_acts: timedelta
    """How long the text of an act stays in the audit log; its hash stays for good."""
    _prune_at: float = field(default=0.0, init=False)
    _offset: float | None = field(default=None, init=False)
    """Wall clock less steady clock, at the last look."""
    _loop: LoopingCall | None = field(default=None, init=False)
    _busy: bool = field(default=False, init=False)

    def start(self) -> None:
        self._loop = LoopingCall(self._tick)
        self._loop.clock = self.clock
        _ = self._loop.start(TICK, now=False)

    def stop(self) -> None:
        if self._loop is not None and self._loop.running:
            self._loop.stop()

    def _tick(self) -> None:
        if not self._busy:
            self._busy = True
            _ = spawn(self.look(), "housekeeping", _log)

    async def look(self) -> None:
        """One turn."""
        try:
            await self.ca.write_off()
            await self.ca.responder.attend()
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
        offset = self.ca.now().timestamp() - steady
        if self._offset is None or abs(offset - self._offset) > _STEP:
            self._prune_at = steady + _PRUNING
        self._offset = offset

    async def prune(self) -> int:
        """Forget what is long over, a little at a time: others wait no longer than for that."""
        now, forgotten = self.ca.now(), 0
        command = Prune(
            now - self.keep_expired,
            now - self.keep_acts,
            revoked_before=self.ca.publisher.forgettable_before(),
        )
        while gone := await self.ca.store.apply(command):
            forgotten += gone
        if forgotten:
            _log.info(
                "{forgotten} rows of the record were over for long, and are forgotten",
                event="record-pruned",
                forgotten=forgotten,
            )
        return forgotten
