"""The issuing CA's life: asks :mod:`pki.issuing.rotation` what is due, has it recorded, and does it.

A step that fails, or that cannot be recorded, leaves everything as it was; it is tried again later.
"""

import random
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import TypeVar

from attrs import define, field
from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.interfaces import IReactorTime

from pki import renewal
from pki.codes import Code
from pki.errors import PkiError, Problem, printable
from pki.issuing import rotation
from pki.issuing.authority import Authority
from pki.issuing.root_line import Phase
from pki.issuing.rotation import Step, Term
from pki.keys import KeptKey
from pki.policy import policy
from pki.policy.policy import Action
from pki.policy.principal import Principal
from pki.svid.pin_conflict import BrokenPin
from pki.validity import spoken_duration
from twisted_mesh.ca.authorities import Authorities
from twisted_mesh.ca.rotation.certification import Certification, Installed, Requested
from twisted_mesh.ca.rotation.pinned_paths import PinnedPaths, named
from twisted_mesh.ca.rotation.root_keys import Detached, RootKeys
from twisted_mesh.ca.rotation.root_steps import RootSteps
from twisted_mesh.ca.rotation.steps import RotationSteps
from twisted_mesh.runtime.log import logger, reasons
from twisted_mesh.runtime.tasks import Ticker, spawn
from twisted_mesh.stores.records import Conflict

T = TypeVar("T")

_log = logger("ca")
#: Seconds between two looks at the clock.
TICK = 1.0
#: Steps that can be due at once are few; a bug must not make an endless row of CAs.
_MOST_STEPS = 4
#: Seconds between two looks at the pins that endpoints have told of.
_LOOK_AT_PINS = 60.0
#: Seconds for which what was found then is taken to be so.
_STAYS = 5.0


class RotationBroke(PkiError):
    """A step met a bug of ours; what there was goes on."""

    code = Code.INTERNAL


@define(eq=False, repr=False, slots=False)
class Rotator(Service):
    """Sees to it that there is always an issuing CA with enough life left."""

    rotation_steps: RotationSteps
    clock: IReactorTime
    draw: random.Random = field(factory=random.SystemRandom)
    farewell: Callable[[KeptKey], Awaitable[None]] | None = None
    """What is still to be done with a root's key before it goes."""
    root_steps: RootSteps | None = None
    """What the rotation of the root has left to be finished; None where there is no such thing."""
    pinned: PinnedPaths | None = None
    """Whose pins a successor would break; None where nobody tells of any."""
    _besides: list[Callable[[], Awaitable[None]]] = field(factory=list, init=False)
    """What else is to be finished that was cut short."""
    certification: Certification | None = None
    """Has issuing CAs certified by roots elsewhere; None where there is no such thing."""
    last_problem: PkiError | None = field(default=None, init=False)
    _failures: int = field(default=0, init=False)
    _retry_at: float = field(default=0.0, init=False)
    """By :attr:`clock`, like all moments below: it does not jump."""
    _remind_at: float | None = field(default=None, init=False)
    _look_at_pins_at: float = field(default=0.0, init=False)
    _broken: Sequence[BrokenPin] = field(default=(), init=False)
    _broken_until: float = field(default=0.0, init=False)
    _seen_ended: dict[int, float] = field(factory=dict, init=False)
    """When a generation was first seen as ended."""
    _working: "Deferred[None] | None" = field(default=None, init=False)
    lock: DeferredLock = field(factory=DeferredLock, init=False)
    """Held while anything is done to issuing CAs or roots."""
    root_keys: RootKeys = field(init=False)
    _ticker: Ticker = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.root_keys = RootKeys(self.rotation_steps, self.farewell)
        self._ticker = Ticker(self.clock, TICK, self._tick, "the succession", _log)

    def startService(self) -> None:
        """Look at once what is due, and each second from then on."""
        super().startService()
        self._ticker.start()

    def stopService(self) -> "Deferred[None] | None":
        """Look no more; fires once a step that is under way is done."""
        super().stopService()
        self._ticker.stop()
        return self._working  # half a step is no harm, but nobody else may own the files meanwhile

    def retry_now(self) -> None:
        """What has failed may go well now: do not wait for its turn."""
        self._retry_at = 0.0

    # What is asked by others.

    @property
    def authorities(self) -> Authorities:
        """Those of the moment."""
        return self.rotation_steps.authorities

    def waiting(self) -> Problem | None:
        """What is due and cannot be done, because the root's key is away."""
        away = self.rotation_steps.keys_away()
        if not away or self.next_step() is not Step.PREPARE:
            return None
        left = self.authorities.line.active.ends_at - self.rotation_steps.now()
        remedy = self.rotation_steps.how_to_certify(away)
        if self.authorities.line.is_revoked:
            return Problem(
                Code.ISSUER_REVOKED,
                f"{self.authorities.issuing.name} is revoked, and the root's key is not here to make another: no "
                "certificate can be issued",
                remedy,
                subject=self.authorities.issuing.name,
            )
        how_long = (
            f"certificates can be issued for {spoken_duration(left)} more"
            if left > timedelta()
            else "no certificate can be issued any more"
        )
        return Problem(
            Code.SUCCESSION_WAITS,
            f"a new issuing CA is due and the root's key is not here: {how_long}",
            remedy,
            subject=self.authorities.issuing.name,
        )

    def trouble(self) -> Problem | None:
        """What keeps the succession: :meth:`waiting`, what has failed and is tried again, or pins."""
        waits = self.waiting()
        if waits is not None or self.last_problem is None:
            return waits or self._pinned()
        failed = self.last_problem.problems[0]
        return Problem(
            Code.UNHEALTHY_ISSUER,
            f"the succession of the issuing CA has to wait: {failed.detail}",
            failed.remedy or "it is tried again by itself",
        )

    def next_step(self) -> Step:
        """What is due now. A successor that would break pins waits, as long as nobody's certificate is cut short."""
        steps = self.rotation_steps
        step = steps.next_step()
        if step is not Step.ACTIVATE or not self._breaks():
            return step
        can_wait = rotation.can_wait(self.authorities.line, steps.rules, steps.now())
        return Step.WAIT if can_wait else step

    def _breaks(self) -> Sequence[BrokenPin]:
        """Whose pins the successor would break, as of a moment ago: it is asked each second while it waits."""
        now = self.clock.seconds()
        if self.pinned is not None and now >= self._broken_until:
            self._broken, self._broken_until = self.pinned.of_successor(), now + _STAYS
        return self._broken

    def _pinned(self) -> Problem | None:
        """Pins that are broken, or that a successor which is due waits for."""
        if self.pinned is None:
            return None
        is_due = self.rotation_steps.next_step() is Step.ACTIVATE
        last = self.authorities.line.active.ends_at - self.rotation_steps.rules.longest_leaf
        return self.pinned.problem(last - self.rotation_steps.now() if is_due else None)

    # What is done.

    async def attend(self) -> None:
        """Do all that is due now. What fails is told, and tried again later; one part does not keep up another."""
        await self.lock.acquire()
        try:
            parts = (
                self.root_keys.attach,
                self._heal,
                self._do_steps,
                self._forget_ended,
                self.rotation_steps.forget_revoked,
                *self._besides,
            )
            failures = [failure for part in parts if (failure := await _failure_of(part))]
        finally:
            self.lock.release()
        if failures:
            self._put_off(failures[0])
        else:
            self._failures, self._retry_at, self.last_problem = 0, 0.0, None

    async def detach_root(self, principal: Principal, sha256: str) -> Detached:
        """:meth:`RootKeys.detach`, when nothing else is being done. Raises refusals besides."""
        policy.permit(principal, Action.DETACH_ROOT)
        evidence = principal.evidence
        return await self.alone(lambda: self.root_keys.detach(sha256, evidence))

    async def rotate_now(self, principal: Principal) -> Authority:
        """Have a new issuing CA issue at once, its key made as the options say; the one before is retired.

        Raises refusals, :class:`RootKeyAway`, :class:`Conflict`, and what making and keeping it raise.
        """
        policy.permit(principal, Action.ROTATE_ISSUING)
        return await self.alone(self._rotate)

    async def _rotate(self) -> Authority:
        steps, line = self.rotation_steps, self.authorities.root_line
        if line.phase is not Phase.SETTLED:
            raise Conflict(
                f"the root is being rotated ({line.phase}), and its steps make the next issuing CA: see mesh-ctl ca "
                "root status"
            )
        prepared = self.authorities.prepared
        if prepared is None or not steps.is_as_wanted(prepared):
            await steps.prepare()
            prepared = self.authorities.prepared
        if prepared is None:
            raise AssertionError("what was prepared is not there")
        self._broken_until = 0.0
        if broken := self._breaks():
            raise Conflict(
                f"the next issuing CA is prepared, and pins are enforced that its key is not among: {named(broken)}. "
                "It takes over by itself when that is due; have the pins updated, and ask again"
            )
        await steps.activate(prepared)
        return prepared

    def finish_too(self, work: Callable[[], Awaitable[None]]) -> None:
        """Have ``work`` done whenever all else is, nothing else meanwhile: it finishes what was cut short."""
        self._besides.append(work)

    async def alone(self, work: Callable[[], Awaitable[T]]) -> T:
        """What ``work`` comes to, while nothing else is done to the succession."""
        await self.lock.acquire()
        try:
            return await work()
        finally:
            self.lock.release()

    async def request_certification(self, principal: Principal, *, anew: bool = False) -> Requested:
        """:meth:`Certification.request`, when nothing else is being done. Raises refusals besides."""
        policy.permit(principal, Action.CERTIFY_ISSUING)
        certifying = self._certifying
        return await self.alone(lambda: certifying.request(principal.evidence, anew=anew))

    async def install(
        self,
        principal: Principal,
        certificates: bytes,
        crls: Sequence[bytes],
        *,
        dry_run: bool = False,
    ) -> Installed:
        """:meth:`Certification.install`, when nothing else is being done. Raises refusals besides."""
        policy.permit(principal, Action.CERTIFY_ISSUING)
        certifying = self._certifying
        return await self.alone(
            lambda: certifying.install(certificates, crls, principal.evidence, dry_run=dry_run)
        )

    @property
    def _certifying(self) -> Certification:
        if self.certification is None:
            raise Conflict("this CA has no issuing CA certified elsewhere")
        return self.certification

    # The loop.

    def _tick(self) -> None:
        self._remind()
        self._remind_of_pins()
        idle = self._working is None or self._working.called
        if idle and self.clock.seconds() >= self._retry_at and self._is_due():
            self._working = spawn(self.attend(), "succession", _log)

    def _is_due(self) -> bool:
        step = self.next_step()
        doable = step is not Step.WAIT and not (
            step is Step.PREPARE and self.rotation_steps.keys_away()
        )
        found = self.root_keys.is_attachable() or doable or bool(self._forgettable())
        found = found or self.authorities.is_parting
        roots = self.root_steps
        return found or (roots is not None and roots.is_due())

    def _tell_of_broken(self) -> None:
        if broken := self._breaks():
            _log.error(
                "The next issuing CA issues from now on, though pins are enforced that its key is not among: {whose}. "
                "Without it nothing could be issued in full length any more",
                event="rotation-breaks-pins",
                whose=named(broken),
            )

    def _remind_of_pins(self) -> None:
        now = self.clock.seconds()
        if now < self._look_at_pins_at:
            return
        found = self._pinned()
        left = self.authorities.line.active.ends_at - self.rotation_steps.now()
        pause = _LOOK_AT_PINS if found is None else rotation.reminder_pause(left).total_seconds()
        self._look_at_pins_at = now + pause
        if found is not None:
            _log.warn(
                "{reasons}",
                event="rotation-waits-for-pins",
                codes=found.code,
                reasons=reasons([found]),
            )

    def _remind(self) -> None:
        waits = self.waiting()
        if waits is None:
            self._remind_at = None
            return
        if self._remind_at is not None and self.clock.seconds() < self._remind_at:
            return
        left = self.authorities.line.active.ends_at - self.rotation_steps.now()
        self._remind_at = self.clock.seconds() + rotation.reminder_pause(left).total_seconds()
        _log.warn(
            "{reasons}",
            event="succession-waits",
            codes=waits.code,
            reasons=reasons([waits]),
            seconds_left=int(left.total_seconds()),
        )

    async def _heal(self) -> None:
        if self.root_steps is not None:
            await self.root_steps.heal()

    async def _do_steps(self) -> None:
        for _ in range(_MOST_STEPS):
            step, authorities = self.next_step(), self.authorities
            if step is Step.ACTIVATE and authorities.prepared is not None:
                self._tell_of_broken()
                await self.rotation_steps.activate(authorities.prepared)
            elif step is Step.RESUME:
                await self.rotation_steps.resume()
            elif step is Step.PREPARE and not self.rotation_steps.keys_away():
                await self.rotation_steps.prepare()
            else:
                return  # nothing is due, or _remind says what waits

    def _forgettable(self) -> list[Authority]:
        now, steady = self.rotation_steps.now(), self.clock.seconds()
        found = []
        for retired in self.authorities.retired:
            term = Term.of(retired.certificate)
            if now <= term.ends_at:
                self._seen_ended.pop(term.generation, None)
                continue
            since = steady - self._seen_ended.setdefault(term.generation, steady)
            if rotation.can_be_forgotten(term, now, timedelta(seconds=since)):
                found.append(retired)
        return found

    async def _forget_ended(self) -> None:
        for retired in self._forgettable():
            await self.rotation_steps.forget(retired)

    def _put_off(self, error: PkiError) -> None:
        news = self.last_problem is None or str(self.last_problem) != str(error)
        self.last_problem = error
        ends_at = self.authorities.issuing.certificate.not_valid_after_utc
        left = ends_at - self.rotation_steps.now()
        pause = renewal.backoff(self._failures, self.draw, left).total_seconds()
        self._failures += 1
        self._retry_at = self.clock.seconds() + pause
        (_log.warn if news else _log.debug)(
            "The succession of the issuing CA has to wait: {reasons}; trying again in {pause:.1f} s",
            event="succession-failed",
            reasons=reasons(error.problems),
            pause=pause,
        )


async def _failure_of(part: Callable[[], Awaitable[object]]) -> PkiError | None:
    try:
        await part()
    except PkiError as error:
        return error
    except Exception as error:
        _log.failure("the succession broke", event="succession-broke")
        return RotationBroke(f"{type(error).__name__}: {printable(str(error))}")
    return None
