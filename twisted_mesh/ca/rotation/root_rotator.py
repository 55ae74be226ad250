"""The rotation of the root as it is asked for: what a step waits for is looked up, and then it is done.

By itself it reminds in time that the next root is due, or takes the steps as soon as nothing stands against them.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta

from attrs import define, field, frozen
from cryptography import x509
from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.interfaces import IReactorTime

from pki.errors import ANY_ERROR, PkiError, Problem, Refused
from pki.issuing import root_conditions
from pki.issuing.ca_above import brought_problems
from pki.issuing.root_conditions import Followers, Resting, RootMode, Wait
from pki.issuing.root_line import Phase, RootLine, RootStep, fingerprint_of
from pki.issuing.rotation import reminder_pause
from pki.policy import policy
from pki.policy.policy import Action
from pki.policy.principal import Principal
from pki.spiffe import SpiffeId
from pki.svid.pin import Fingerprint
from pki.svid.x509svid import validity_of
from twisted_mesh.ca.acknowledgements import Acknowledged, Acknowledgements
from twisted_mesh.ca.authorities import CurrentAuthorities
from twisted_mesh.ca.rotation.root_history import RootHistory
from twisted_mesh.ca.rotation.root_steps import OURSELVES, RootSteps
from twisted_mesh.runtime.log import logger, reasons
from twisted_mesh.runtime.tasks import Ticker, spawn
from twisted_mesh.state.directory import StateError
from twisted_mesh.stores.interface import IStore
from twisted_mesh.stores.records import IssuedCertificate, Query, Status

_log = logger("ca")
#: Seconds between two looks at the clock, and between two attempts at a step that nobody has asked for.
TICK = 1.0
_AGAIN = 60.0
#: So many certificates that rest on the old root are counted, and so many holders are looked at.
_MOST_COUNTED, _PAGE = 2000, 500
_EXAMPLES = 5


class RootWaits(Refused):
    """A step of the root's rotation is not done yet: each problem says for what it waits."""


@frozen
class Done:
    """What has become of a step that was asked for."""

    is_done: bool
    """False where it was only to be looked at, or waits half-way; then it is asked for again."""
    waits: tuple[Wait, ...]
    """What it waits for, or what has been passed over; and what is only told."""


@define(eq=False, repr=False, slots=False)
class RootRotator(Service):
    """Has the steps of :class:`RootSteps` done when they are in order, or forced."""

    root_steps: RootSteps
    current: CurrentAuthorities
    store: IStore
    now: Callable[[], datetime]
    clock: IReactorTime
    lock: DeferredLock
    """Held while anything is done to issuing CAs or roots."""
    mode: RootMode = RootMode.REMIND
    longest_wait: timedelta = timedelta(seconds=60)
    """For how long an endpoint's question may wait."""
    acknowledgements: Acknowledgements | None = None
    """Who has told what it believes and serves; None where nobody is heard."""
    domains: Callable[[], Sequence[str]] = lambda: ()
    """The trust domains that fetch our bundle."""
    broken_pins: Callable[[Sequence[str]], Sequence[str]] = lambda pins: ()
    """Who enforces pins that none of ``pins`` is among."""
    up_since: datetime | None = field(default=None, init=False)
    _remind_at: float | None = field(default=None, init=False)
    _again_at: float = field(default=0.0, init=False)
    _last_failure: str = field(default="", init=False)
    _working: "Deferred[None] | None" = field(default=None, init=False)
    _ticker: Ticker = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._ticker = Ticker(self.clock, TICK, self._tick, "the root's rotation", _log)

    def startService(self) -> None:
        """From now on endpoints are heard; look each second what is due."""
        super().startService()
        self.up_since = self.now()
        self._ticker.start()

    def stopService(self) -> "Deferred[None] | None":
        """Look no more; fires once a step that is under way is done."""
        super().stopService()
        self._ticker.stop()
        return self._working

    def retry_now(self) -> None:
        """What has failed may go well now: do not wait for its turn."""
        self._again_at = 0.0

    @property
    def line(self) -> RootLine:
        """The roots of the moment."""
        return self.current.current.root_line

    def standing(self) -> Wait | None:
        """What is to be told of the roots by themselves."""
        root = validity_of(self.line.served)
        life = self.root_steps.rotation_steps.life
        return root_conditions.standing(self.line, root, self.now(), life)

    def trouble(self) -> Problem | None:
        """The same, for whoever asks how the CA is."""
        found = self.standing()
        return found.problem if found is not None else None

    def next_step_at(self) -> datetime | None:
        """When the next step is due, as far as the clock decides it."""
        if self.line.phase is Phase.SETTLED:
            life = self.root_steps.rotation_steps.life
            return root_conditions.due_at(validity_of(self.line.served), life)
        return root_conditions.polled_until(self.line, self._hint)

    async def waits(self, step: RootStep) -> tuple[Wait, ...]:
        """What stands against a step now. Raises StoreError."""
        line = self.line
        if step not in (RootStep.ACTIVATE, RootStep.RETIRE):
            return ()
        return root_conditions.waits(
            step,
            line,
            await self._followers(step),
            self.now(),
            refresh_hint=self._hint,
            longest_wait=self.longest_wait,
        )

    async def do(
        self,
        principal: Principal,
        step: RootStep,
        *,
        force: bool = False,
        dry_run: bool = False,
        reason: str = "",
        root: x509.Certificate | None = None,
    ) -> Done:
        """Do a step, or say what it waits for. ``root`` is what is prepared where it was made elsewhere.

        Raises refusals, :class:`RootWaits`, :class:`OutOfTurn`, and whatever keeps a step from being recorded or kept.
        """
        policy.permit(principal, Action.CHANGE_ROOTS)
        await self.lock.acquire()
        try:
            self.line.demand(step)
            if root is not None:
                self._refuse_unfit(root)
            found = await self.waits(step)
            if dry_run:
                return Done(False, found)
            return await self._do(
                principal.evidence, step, found, reason, is_forced=force, root=root
            )
        finally:
            self.lock.release()

    async def hold_against(self, acts: Iterable[bytes]) -> None:
        """Hold the roots against what the audit log says has become of them: ``acts`` are its entries about CAs.

        The last step is done again where it was recorded and cut short. Raises :class:`StateError` for a root that
        had gone before that: somebody has put an earlier document back.
        """
        history, line = RootHistory.of(acts), self.line
        held = {fingerprint_of(root) for root in line.roots}
        if history.leaving in held:
            if line.phase is Phase.SWITCHED and history.leaving == fingerprint_of(line.old):
                await self.root_steps.retire(reason="the audit log says so")
                return
            if line.phase is Phase.PREPARED and history.leaving != fingerprint_of(line.old):
                await self.root_steps.revert(reason="the audit log says so")
                return
        if back := held & (history.gone | {history.leaving}):
            raise StateError(
                f"{self.root_steps.rotation_steps.state.roots} has the root {min(back)}, and the audit log says that "
                "it was taken out: somebody has put an earlier file back; restore the present one from a backup"
            )

    async def take_note_of_restore(self) -> None:
        """Number the bundle past whatever was published before the restore. Raises what keeping that raises."""
        steps = self.root_steps.rotation_steps
        await steps.keep_line(self.line.restored(self.now()))

    # What is done.

    async def _do(
        self,
        by: str,
        step: RootStep,
        found: tuple[Wait, ...],
        reason: str,
        *,
        is_forced: bool,
        root: x509.Certificate | None = None,
    ) -> Done:
        against = root_conditions.blocking(found)
        if against and not is_forced:
            raise RootWaits(against)
        if against:
            passed = " ".join(sorted({problem.code for problem in against}))
            reason = f"{reason} (forced over {passed})".strip()
        steps = self.root_steps
        match step:
            case RootStep.PREPARE:
                await steps.prepare(by, reason, root)
            case RootStep.ACTIVATE:
                await steps.activate(by, reason)
            case RootStep.REVERT:
                await steps.revert(by, reason)
            case RootStep.RETIRE:
                return await self._retire(by, found, reason, is_forced=is_forced)
        return Done(True, found)

    async def _retire(
        self, by: str, found: tuple[Wait, ...], reason: str, *, is_forced: bool
    ) -> Done:
        """First chains lead to the new root; once everybody who tells serves these, the old one goes."""
        if self.line.phase is Phase.ACTIVATED:
            await self.root_steps.switch(by, reason)
            found = await self.waits(RootStep.RETIRE)
            if root_conditions.blocking(found) and not is_forced:
                return Done(False, found)
        await self.root_steps.retire(by, reason)
        return Done(True, found)

    def _refuse_unfit(self, root: x509.Certificate) -> None:
        problems = brought_problems(root, self.line, self.current.trust_domain, self.now())
        if problems:
            raise Refused(problems)

    # What is known.

    @property
    def _hint(self) -> int:
        return self.current.bundle().refresh_hint or 0

    async def _followers(self, step: RootStep) -> Followers:
        line, heard = self.line, self.acknowledgements
        resting = await self._resting() if step is RootStep.RETIRE else ()
        lagging: tuple[str, ...] = ()
        not_serving: tuple[str, ...] = ()
        spoken: Counter[str] = Counter()
        if heard is not None:
            lagging = _named(heard.lagging(self.current.bundle().sequence))
            spoken = Counter(one.who for one in heard.known())
        if heard is not None and line.phase is Phase.SWITCHED:
            not_serving = _named(heard.not_serving(Fingerprint.of(line.served)))
        if heard is not None and not heard.is_whole:
            lagging = (*lagging, "others, for whose words there was no room")
        return Followers(
            lagging,
            not_serving,
            await self._silent(spoken),
            tuple(self.domains()),
            tuple(self.broken_pins(self.current.current.next_pins)),
            resting,
            self.up_since,
        )

    async def _resting(self) -> tuple[Resting, ...]:
        """What is valid and was issued by those that the new root has not certified."""
        authorities, new = self.current.current, self.line.new
        found = []
        for issuing in authorities.every_issuing:
            if new is None or authorities.rests_on(issuing, new):
                continue
            rows, is_more = await self._valid(issuing.key_id)
            # The CA's own is renewed as soon as another issues, and those of responders go with their issuer.
            rows = [row for row in rows if row.spiffe_id not in self._ours]
            if rows:
                names = dict.fromkeys(str(row.spiffe_id) for row in rows)
                last = max(row.expires_at for row in rows)
                examples = tuple(names)[:_EXAMPLES]
                found.append(Resting(issuing.key_id, len(rows), is_more, last, examples))
        return tuple(found)

    async def _silent(self, heard: Counter[str]) -> tuple[str, ...]:
        """Who holds what is valid, and has told nothing.

        Of callers of the socket it is known who they are and not which ID each serves under: where as many of one
        user's tell as there are IDs that it has asked for, all of these do.
        """
        rows, _ = await self._valid(None)
        # What rests on a root that is gone, or on a CA that is revoked, serves nobody any more.
        believed = {issuing.key_id for issuing in self.current.current.in_use}
        rows = [row for row in rows if row.issuer in believed and row.spiffe_id not in self._ours]
        names = dict.fromkeys(str(row.spiffe_id) for row in rows)
        silent = {name for name in names if not heard[f"x509:{name}"]}
        asked_by: dict[str, set[str]] = {}
        for row in rows:
            if str(row.spiffe_id) in silent:
                asked_by.setdefault(row.requester, set()).add(str(row.spiffe_id))
        for requester, asked_for in asked_by.items():
            if heard[requester] >= len(asked_for):
                silent -= asked_for
        return tuple(name for name in names if name in silent)

    @property
    def _ours(self) -> tuple[SpiffeId, ...]:
        """Of the CA itself."""
        trust_domain = self.current.trust_domain
        return tuple(trust_domain.member("mesh", name) for name in ("ca", "ocsp-responder"))

    async def _valid(self, issuer: str | None) -> tuple[list[IssuedCertificate], bool]:
        """Valid certificates, and whether there are more than were looked at."""
        found: list[IssuedCertificate] = []
        cursor: str | None = None
        while len(found) < _MOST_COUNTED:
            query = Query(
                self.now(), status=Status.VALID, issuer=issuer, limit=_PAGE, cursor=cursor
            )
            page = await self.store.list(query)
            found += page.certificates
            cursor = page.next
            if cursor is None:
                return found, False
        return found, True

    # The loop.

    def _tick(self) -> None:
        self._remind()
        idle = self._working is None or self._working.called
        if self.mode is RootMode.AUTO and idle and self.clock.seconds() >= self._again_at:
            self._again_at = self.clock.seconds() + _AGAIN
            self._working = spawn(self.attend(), "the root's rotation", _log)

    def _remind(self) -> None:
        found = self.standing()
        if found is None:
            self._remind_at = None
            return
        if self._remind_at is not None and self.clock.seconds() < self._remind_at:
            return
        left = self.line.served.not_valid_after_utc - self.now()
        self._remind_at = self.clock.seconds() + reminder_pause(left).total_seconds()
        _log.warn(
            "{reasons}",
            event="root-waits",
            codes=found.problem.code,
            reasons=reasons([found.problem]),
            seconds_left=int(left.total_seconds()),
        )

    async def attend(self) -> None:
        """Take the next step, if it is due and nothing stands against it. What fails is told, and tried again."""
        await self.lock.acquire()
        try:
            line = self.line
            step = root_conditions.next_step(line)
            if line.phase is Phase.SETTLED and self.standing() is None:
                return
            found = await self.waits(step)
            if not root_conditions.blocking(found):
                await self._do(OURSELVES, step, found, "", is_forced=False)
            self._last_failure = ""
        except PkiError as error:
            news, self._last_failure = str(error) != self._last_failure, str(error)
            (_log.warn if news else _log.debug)(
                "The rotation of the root has to wait: {reasons}",
                event="root-failed",
                reasons=reasons(error.problems),
            )
        except ANY_ERROR:
            _log.failure("the rotation of the root broke", event="root-broke")
        finally:
            self.lock.release()


def _named(found: Sequence[Acknowledged]) -> tuple[str, ...]:
    """Each once, whatever the number of its instances."""
    return tuple(dict.fromkeys(one.who for one in found))
