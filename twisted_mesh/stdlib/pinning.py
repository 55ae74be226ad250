"""What is said of an identity's pins: in the log, and to the CA whose keys they are; and of receipts demanded."""

import secrets
import time
from datetime import datetime

from attrs import define, field

from pki.errors import PkiError
from pki.svid.chain import Verdict
from pki.svid.spki_pin import PinSet
from twisted_mesh.runtime.clock import Now
from twisted_mesh.stdlib.log import log, passed_on
from twisted_mesh.stdlib.source import BlockingSource
from twisted_mesh.trust.pin_log import PinLog
from twisted_mesh.trust.trust import Trust

#: Seconds until the CA is told again, where it did not take them.
NOT_TAKEN = 60.0


@define(eq=False, repr=False)
class Pinning:
    """Of one process: a child that it forks tells of its own."""

    source: BlockingSource
    now: Now
    _instance: str = field(factory=lambda: secrets.token_hex(8), init=False)
    _tell_at: float = field(default=0.0, init=False)
    _log: PinLog = field(factory=lambda: PinLog(passed_on), init=False)

    def begin(self, pins: PinSet) -> None:
        """These are the pins. Whom a context lets in is not known yet."""
        self._log.begin(pins, [rule.pattern for rule in pins.rules], self.now())

    def renew_after_fork(self) -> None:
        """Be another than the parent."""
        self._instance, self._tell_at = secrets.token_hex(8), 0.0

    def see(self, pins: PinSet, verdict: Verdict, now: datetime) -> None:
        """See :class:`PinLog`."""
        self._log.see(pins, verdict, now)

    def look(self, trust: Trust) -> None:
        """At the clock, at what was withdrawn and at what is announced."""
        self._log.look(trust.pins, self.now())
        self._log.lost(trust.pins)
        self._log.announced(trust.pins, trust.bundles)

    def tell(self, trust: Trust) -> None:
        """Tell the CA what is demanded of peers, as often as it wants to hear that."""
        started = time.monotonic()
        if not (trust.pins or trust.demand) or started < self._tell_at:
            return
        self._tell_at = started + NOT_TAKEN
        try:
            self._tell_at = started + self.source.tell_demands(self._instance, trust)
        except PkiError as error:
            log.debug("The CA is not told what is demanded of peers: %s", error)
