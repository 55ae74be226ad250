"""The keys that sign JWT-SVIDs: made, published, put to use, retired, forgotten. Each step is recorded first."""

import random
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

from attrs import define, evolve, field
from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.interfaces import IReactorTime
from twisted.internet.threads import deferToThread

from pki import renewal
from pki.audit.log import Act
from pki.codes import Code
from pki.errors import PkiError, printable
from pki.jwt_svid import rotation
from pki.jwt_svid.algorithms import alg_of
from pki.jwt_svid.jwks import JwtAuthority
from pki.jwt_svid.rotation import KeyTerm, Line, Rules, Step
from pki.keys import MemoryKey, PublicKey
from pki.policy import policy
from pki.policy.policy import Action
from pki.policy.principal import Principal, administrator
from pki.validity import rfc3339
from twisted_mesh.ca.audit_log import AuditLog
from twisted_mesh.ca.authorities import CurrentAuthorities
from twisted_mesh.ca.jwt_files import JwtFiles
from twisted_mesh.ca.published_trust import JwtPublished
from twisted_mesh.runtime.clock import Now
from twisted_mesh.runtime.log import logger, reasons
from twisted_mesh.runtime.tasks import Ticker, spawn
from twisted_mesh.stores.records import Unknown

_log = logger("ca")
_OURSELVES = administrator("self")
#: Seconds between two looks at the clock.
TICK = 1.0
#: Steps that can be due at once are few; a bug must not make an endless row of keys.
_MOST_STEPS = 4


class UnknownJwtKey(Unknown):
    """There is no JWT key of that name."""

    code = Code.JWT_UNKNOWN_KEY


class JwtKeysBroke(PkiError):
    """A step met a bug of ours, or there is no key at all; what there was goes on."""

    code = Code.INTERNAL


@define(eq=False, repr=False, slots=False)
class JwtKeys(Service):
    """Sees to it that there is always a key that signs, and that it was published before."""

    current: CurrentAuthorities
    """What publishes them."""
    files: JwtFiles
    log: AuditLog
    rules: Rules
    now: Now
    clock: IReactorTime
    aside: Callable[..., Awaitable[Any]] = deferToThread
    """Runs what writes files or makes keys, off the reactor."""
    draw: random.Random = field(factory=random.SystemRandom)
    line: Line = field(factory=Line, init=False)
    last_problem: PkiError | None = field(default=None, init=False)
    _private: dict[str, MemoryKey] = field(factory=dict, init=False, repr=False)
    _seen_ended: dict[str, float] = field(factory=dict, init=False)
    """By :attr:`clock`, which does not jump."""
    _failures: int = field(default=0, init=False)
    _retry_at: float = field(default=0.0, init=False)
    _working: "Deferred[None] | None" = field(default=None, init=False)
    _lock: DeferredLock = field(factory=DeferredLock, init=False)
    _ticker: Ticker = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._ticker = Ticker(self.clock, TICK, self._tick, "the JWT keys", _log)

    def load(self) -> None:
        """Take up the keys of earlier lives. Raises :class:`StateError`."""
        kept, private = self.files.load()
        line = kept
        for key in kept.keys:
            if key.retired_at is not None and key.retired_at > self.now():
                # The clock was ahead then: it is not to be published until that day.
                line = line.with_key(evolve(key, retired_at=self.now()), self.now())
            if key.state is not rotation.KeyState.RETIRED and key.kid not in private:
                # Its tokens are good to their end, where it has signed any.
                line = (
                    line.without(key.kid, self.now())
                    if key.active_at is None
                    else line.with_key(evolve(key, retired_at=self.now()), self.now())
                )
        # A token may live for longer than it might when the key was put to use: that must be on disk before one does.
        line = line.allowing(self.rules.longest)
        self._private = dict(private)
        if line != kept:  # a full disk keeps no CA from starting
            self.files.save(line)
        self._adopt(line)

    def startService(self) -> None:
        """Look each second what is due."""
        super().startService()
        self._ticker.start()

    def stopService(self) -> "Deferred[None] | None":
        """Look no more; fires once a step that is under way is done."""
        super().stopService()
        self._ticker.stop()
        return self._working

    @property
    def signer(self) -> MemoryKey:
        """The key that signs now. Raises :class:`PkiError` where there is none yet."""
        active = self.line.active
        if active is None:
            raise self.last_problem or JwtKeysBroke("no JWT key could be made yet: try again later")
        return self._private[active.kid]

    def planned(self, key: KeyTerm) -> datetime | None:
        """When it comes to its next state; None for one that waits for a successor."""
        match key.state:
            case rotation.KeyState.PREPARED:
                return rotation.activate_at(self.line, key, self.rules)
            case rotation.KeyState.ACTIVE:
                following = self.line.prepared
                if following is not None:
                    return rotation.activate_at(self.line, following, self.rules)
                return None if key.active_at is None else key.active_at + self.rules.life
        return key.forget_at

    async def attend(self) -> None:
        """Do all that is due now. What fails is told, and tried again later."""
        await self._lock.acquire()
        try:
            await self._do_steps()
            for key in self._forgettable():
                await self._drop(key, "forgotten", _OURSELVES)
        except PkiError as error:
            self._put_off(error)
        except Exception as error:
            _log.failure("the rotation of JWT keys broke", event="jwt-rotation-broke")
            self._put_off(JwtKeysBroke(f"{type(error).__name__}: {printable(str(error))}"))
        else:
            self._failures, self._retry_at, self.last_problem = 0, 0.0, None
        finally:
            self._lock.release()

    async def rotate(
        self, principal: Principal, *, at_once: bool = False, reason: str = ""
    ) -> None:
        """Have another key sign: once it has been published for long enough, or at once.

        Raises refusals, and whatever keeps a step from being recorded or a file from being written.
        """
        policy.permit(principal, Action.CHANGE_JWT_KEYS)
        await self._lock.acquire()
        try:
            prepared = self.line.prepared
            if prepared is None or prepared.algorithm is not self.rules.algorithm:
                prepared = await self._prepare(principal, reason)
            if at_once:
                await self._activate(prepared, principal, reason)
            elif not prepared.is_hurried:
                hurried = evolve(prepared, is_hurried=True)
                await self._take(
                    self.line.with_key(hurried, self.now()), hurried, "hurried", principal, reason
                )
        finally:
            self._lock.release()

    async def retire(self, principal: Principal, kid: str, reason: str = "") -> KeyTerm:
        """Take a key out of the bundle now, whatever tokens of it are out; another signs where it did.

        Raises as :meth:`rotate`, and :class:`UnknownJwtKey`.
        """
        policy.permit(principal, Action.CHANGE_JWT_KEYS)
        await self._lock.acquire()
        try:
            found = self.line.find(kid)
            if found is None:
                raise UnknownJwtKey(f"no JWT key is called {kid}: mesh-ctl jwt list shows them")
            if found.state is rotation.KeyState.ACTIVE:
                following = self.line.prepared or await self._prepare(principal, reason)
                await self._activate(following, principal, reason)
            await self._drop(found, "withdrawn", principal, reason)
            return found
        finally:
            self._lock.release()

    # The steps, for whoever has the lock.

    async def _do_steps(self) -> None:
        for _ in range(_MOST_STEPS):
            step, prepared = (
                rotation.next_step(self.line, self.rules, self.now()),
                self.line.prepared,
            )
            if step is Step.PREPARE:
                await self._prepare(_OURSELVES)
            elif step is Step.ACTIVATE and prepared is not None:
                await self._activate(prepared, _OURSELVES)
            elif step is Step.DROP and prepared is not None:
                await self._drop(prepared, "dropped", _OURSELVES)
            else:
                return

    async def _prepare(self, by: Principal, reason: str = "") -> KeyTerm:
        algorithm = self.rules.algorithm
        private: MemoryKey = await self.aside(MemoryKey.generate, algorithm)
        made = KeyTerm(_authority(private.public_key), algorithm, self.now())
        # On disk before anybody can have heard of it.
        await self.aside(self.files.keep, made.kid, private)
        self._private[made.kid] = private
        await self._take(self.line.with_key(made, self.now()), made, "prepared", by, reason)
        return made

    async def _activate(self, prepared: KeyTerm, by: Principal, reason: str = "") -> None:
        before = self.line.active
        line = self.line.activated(prepared.kid, self.rules, self.now())
        await self._take(line, prepared, "activated", by, reason)
        if before is not None:
            await self._delete_private(before.kid)

    async def _drop(self, key: KeyTerm, step: str, by: Principal, reason: str = "") -> None:
        await self._take(self.line.without(key.kid, self.now()), key, step, by, reason)
        self._seen_ended.pop(key.kid, None)
        await self._delete_private(key.kid)

    async def _take(self, line: Line, key: KeyTerm, step: str, by: Principal, reason: str) -> None:
        """Record a step, have it on disk, and publish what it changes; in this order."""
        facts = _facts(key, step, reason)
        await self.log.record(Act.ROTATE, key.kid, facts, by)
        await self.aside(self.files.save, line)
        self._adopt(line)
        _log.info(
            "JWT key {step}: {kid} ({alg})",
            event="jwt-key",
            step=step,
            kid=key.kid,
            alg=facts["alg"],
            by=by.evidence,
        )

    async def _delete_private(self, kid: str) -> None:
        self._private.pop(kid, None)
        await self.aside(self.files.remove, kid)

    def _adopt(self, line: Line) -> None:
        changed = line.authorities != self.line.authorities or line.sequence != self.line.sequence
        self.line = line
        if changed:
            self.current.publish_jwt(JwtPublished(line.authorities, line.sequence))

    # The loop.

    def _tick(self) -> None:
        idle = self._working is None or self._working.called
        if idle and self.clock.seconds() >= self._retry_at and self._is_due():
            self._working = spawn(self.attend(), "the rotation of JWT keys", _log)

    def _is_due(self) -> bool:
        step = rotation.next_step(self.line, self.rules, self.now())
        return step is not Step.WAIT or bool(self._forgettable())

    def _forgettable(self) -> list[KeyTerm]:
        now, steady, found = self.now(), self.clock.seconds(), []
        for key in self.line.retired:
            if key.forget_at is None or now < key.forget_at:
                self._seen_ended.pop(key.kid, None)
                continue
            since = steady - self._seen_ended.setdefault(key.kid, steady)
            if rotation.can_be_forgotten(key, now, timedelta(seconds=since)):
                found.append(key)
        return found

    def _put_off(self, error: PkiError) -> None:
        news = self.last_problem is None or str(self.last_problem) != str(error)
        self.last_problem = error
        pause = renewal.backoff(self._failures, self.draw, self.rules.life).total_seconds()
        self._failures += 1
        self._retry_at = self.clock.seconds() + pause
        (_log.warn if news else _log.debug)(
            "The rotation of JWT keys has to wait: {reasons}; trying again in {pause:.1f} s",
            event="jwt-rotation-failed",
            reasons=reasons(error.problems),
            pause=pause,
        )


def _authority(key: PublicKey) -> JwtAuthority:
    return JwtAuthority.of(key)  # type: ignore[arg-type]


def _facts(key: KeyTerm, step: str, reason: str) -> Mapping[str, str]:
    """What the record says of a step."""
    facts = {
        "step": f"jwt-{step}",
        "alg": alg_of(key.algorithm) or str(key.algorithm),
        "published_at": rfc3339(key.published_at),
    }
    if reason:
        facts["reason"] = reason
    return facts
