"""What is said of pins: what they do and until when, whom they would refuse, and when nothing is left to move to.

Each thing is said once for a peer and reason, not for each certificate that it comes with.
"""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

from attrs import define, field
from twisted.logger import Logger

from pki.errors import Problem
from pki.spiffe import SpiffePattern
from pki.svid.bundle import BundleSet
from pki.svid.chain import Verdict
from pki.svid.pin_conflict import must_move
from pki.svid.spki_pin import PinMode, PinRule, PinSet
from pki.validity import rfc3339, spoken_duration
from twisted_mesh.runtime.log import codes, reasons

#: So many peers and reasons are remembered.
_MOST = 4096
#: The end of enforced pins is said beforehand, from so long before it, and so often.
_AHEAD, _OFTEN = timedelta(days=14), timedelta(days=1)


@define(eq=False, repr=False)
class PinMemory:
    """What was told of already."""

    _told: OrderedDict[object, None] = field(factory=OrderedDict, init=False)

    def forget(self) -> None:
        """Tell of all of it anew."""
        self._told.clear()

    def is_new(self, thing: object) -> bool:
        """Whether it is to be told; it is told from now on."""
        if thing in self._told:
            self._told.move_to_end(thing)
            return False
        self._told[thing] = None
        if len(self._told) > _MOST:
            self._told.popitem(last=False)
        return True

    def broken(self, pins: PinSet, verdict: Verdict, now: datetime) -> tuple[Problem, ...]:
        """What a peer that is let in all the same breaks of pins that are only reported, where that is new."""
        if verdict.spiffe_id is None or pins.enforced_at(now):
            return ()
        found = pins.problems(verdict.spiffe_id, verdict.path)
        return tuple(problem for problem in found if self.is_new(problem))

    def without_backup(self, pins: PinSet, verdict: Verdict) -> Iterator[PinRule]:
        """Rules for that peer of which no pin is left once its path ends, where that is new."""
        spiffe_id = verdict.spiffe_id
        for rule in pins.without_backup(verdict.path):
            if spiffe_id is not None and rule.pattern.matches(spiffe_id) and self.is_new(rule):
                yield rule


@define(eq=False, repr=False)
class PinLog:
    """Says it in the log, where each event is counted too."""

    log: Logger
    _memory: PinMemory = field(factory=PinMemory, init=False)
    _was_enforced: bool = field(default=False, init=False)
    _remind_at: datetime | None = field(default=None, init=False)

    def begin(self, pins: PinSet, allow: Sequence[SpiffePattern], now: datetime) -> None:
        """These are the pins from now on, and those peers may be: at the start, and when they were read again."""
        self._memory.forget()
        self._remind_at = None
        self._was_enforced = pins.enforced_at(now)
        if not pins:
            return
        rules = [str(rule.pattern) for rule in pins.rules]
        if self._was_enforced and pins.until is not None:
            self.log.info(
                "Peers are held to {count} pins of CA keys until {until}: {patterns}",
                event="pins-enforced",
                count=len(rules),
                until=rfc3339(pins.until),
                patterns=", ".join(rules),
            )
        elif pins.mode is PinMode.ENFORCE:
            self._expired(pins)
        else:
            self.log.warn(
                "Pins of CA keys are only reported (--peer-pin-mode report): who breaks them is let in. They are "
                "for {patterns}",
                event="pins-report-only",
                patterns=", ".join(rules),
            )
        for rule in pins.rules:
            if not any(rule.pattern.overlaps(pattern) for pattern in allow):
                self.log.warn(
                    "The pins for {pattern} are for nobody: no such peer may connect or answer here, whatever vouches "
                    "for it",
                    event="pins-for-nobody",
                    pattern=str(rule.pattern),
                )
        self.lost(pins)

    def look(self, pins: PinSet, now: datetime) -> None:
        """At the clock: whether pins have begun to be reported only, or will soon."""
        was, self._was_enforced = self._was_enforced, pins.enforced_at(now)
        if was and not self._was_enforced and pins.mode is PinMode.ENFORCE:
            self._expired(pins)
        if not self._was_enforced or pins.until is None or now < pins.until - _AHEAD:
            return
        if self._remind_at is None or now >= self._remind_at:
            self._remind_at = now + _OFTEN
            self.log.warn(
                "Pins of CA keys end in {left}, and are only reported from {until} on: compare them with "
                "what the CA announces, and give them another end (--peer-pin-until)",
                event="pins-end-soon",
                left=spoken_duration(pins.until - now),
                until=rfc3339(pins.until),
            )

    def _expired(self, pins: PinSet) -> None:
        self.log.error(
            "Pins of CA keys have ended at {until}, and are only reported from now on: compare them with what the CA "
            "announces, and give them another end (--peer-pin-until)",
            event="pins-expired",
            until="" if pins.until is None else rfc3339(pins.until),
        )

    def lost(self, pins: PinSet) -> None:
        """Say of which rules every pin is withdrawn."""
        for rule in pins.lost:
            if self._memory.is_new(("lost", rule)):
                self.log.error(
                    "Every pin for {pattern} was withdrawn by its CA, which does not use these keys any more: nobody "
                    "can meet that rule. Pin the keys that count now, or put --peer-pin-mode to report meanwhile",
                    event="pins-withdrawn",
                    pattern=str(rule.pattern),
                    pins=", ".join(map(str, rule.hashes)),
                )

    def announced(self, pins: PinSet, bundles: BundleSet) -> None:
        """Say which rules the keys break that a CA will go over to, while there is time."""
        for bundle in bundles if pins else ():
            for rule in must_move(pins, bundle) if bundle.next_keys else ():
                if self._memory.is_new((rule, bundle.next_keys)):
                    self.log.warn(
                        "The CA of {trust_domain} will go over to other keys, {keys}, and a pin for {pattern} is not "
                        "among those that will be served then: pin one of them besides, before it does",
                        event="pins-must-move",
                        trust_domain=str(bundle.trust_domain),
                        keys=", ".join(bundle.next_keys),
                        pattern=str(rule.pattern),
                    )

    def see(self, pins: PinSet, verdict: Verdict, now: datetime) -> None:
        """A peer is good otherwise; what its path says of the pins."""
        if problems := self._memory.broken(pins, verdict, now):
            self.log.warn(
                "{peer} is let in, and would be refused if pins were enforced: {reasons}",
                event="pin-mismatch-reported",
                peer=str(verdict.spiffe_id),
                codes=codes(problems),
                reasons=reasons(problems),
            )
        for rule in self._memory.without_backup(pins, verdict):
            self.log.warn(
                "Every pin for {pattern} is of a CA key that is in use now, and none of one to move to: when these "
                "keys end nobody is left. Pin a key besides that mesh-ctl ca root status announces",
                event="pins-without-backup",
                pattern=str(rule.pattern),
            )
