"""The identities of one machine's processes: who may have which, and everybody told of each change of his."""

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from datetime import timedelta

from attrs import define, field
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from pki.codes import Code
from pki.errors import PkiError
from pki.spiffe import SpiffeId
from twisted_mesh.attest.handle import NoDescriptors
from twisted_mesh.limits.rate_limit import Busy, Rate, TokenBuckets
from twisted_mesh.runtime.clock import Now, wall_clock
from twisted_mesh.runtime.log import codes, logger
from twisted_mesh.runtime.tasks import Ticker
from twisted_mesh.workload import meters
from twisted_mesh.workload.caller import Caller, CallerGone, Callers
from twisted_mesh.workload.held_svids import Held, HeldSvids
from twisted_mesh.workload.held_tokens import HeldTokens
from twisted_mesh.workload.interface import (
    ICaller,
    IFollowing,
    IWorkloadIssuer,
    IWorkloads,
    JwtSvid,
    Refusal,
    Snapshot,
    Sources,
    WorkloadSvid,
)
from twisted_mesh.workload.rights import Bought, Rights

_log = logger("workload")

#: Streams that one process may have open, and all processes of one user together.
MOST_OF_PROCESS, MOST_OF_USER = 64, 8192
#: Seconds between two looks at what is due, and at whether callers are still the programs that they were.
_TICK, _LOOK_AT_CALLERS = 0.5, 5.0
#: Refusals of one user's processes that are logged for everybody to see: any process may ask in a loop.
_LOGGED = Rate(1, 60)


class NothingSigned(PkiError):
    """There is an entry, and no certificate now."""

    code = Code.UNREACHABLE


class AgentOut(PkiError):
    """Whoever serves workloads here may do so no more."""

    code = Code.NOT_AUTHORIZED


@implementer(IFollowing)
@define(eq=False)
class Following:
    """One stream of a caller."""

    workloads: "Workloads"
    caller: Caller
    told: Callable[[Snapshot], None]
    held: list[Held] = field(factory=list, init=False)
    refresh: Callable[[], None] = field(init=False)
    """Tells it what is new, if anything is; one object, by which others know it."""
    last: tuple[object, ...] | None = field(default=None, init=False)
    is_over: bool = field(default=False, init=False)
    is_late: bool = field(default=False, init=False)
    """Whether it was not told something, as nobody could tell whether its process is there."""
    unwatch: Callable[[], None] = field(default=lambda: None, init=False)

    def __attrs_post_init__(self) -> None:
        self.refresh = lambda: self.workloads.refresh(self)

    def stop(self) -> None:
        """Tell no more. May be said again."""
        if not self.is_over:
            self.is_over = True
            self.workloads.left(self)


@implementer(IWorkloads)
@define(eq=False)
class Workloads:
    """Serves what ``issuer`` signs, between :meth:`start` and :meth:`stop`."""

    issuer: IWorkloadIssuer
    callers: Callers
    clock: IReactorTime
    now: Now = wall_clock
    rotate_at: float = 0.5
    most_of_process: int = MOST_OF_PROCESS
    most_of_user: int = MOST_OF_USER
    token_ttl: timedelta | None = None
    """How long tokens live; None for what the issuer gives."""
    svids: HeldSvids = field(init=False)
    tokens: HeldTokens = field(init=False)
    _sources: Sources = field(init=False)
    _rights: Rights = field(init=False)
    _following: dict[Following, None] = field(factory=dict, init=False)
    """All that are open, the oldest first."""
    _of_process: Counter[Hashable] = field(factory=Counter, init=False)
    _of_user: Counter[Hashable] = field(factory=Counter, init=False)
    _logged: TokenBuckets = field(init=False)
    _unwatch: Callable[[], None] = field(default=lambda: None, init=False)
    _tickers: list[Ticker] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.svids = HeldSvids(self.issuer, self.clock, self.now, self.rotate_at)
        self.tokens = HeldTokens(self.issuer, self.clock, self.now)
        self._logged = TokenBuckets(_LOGGED, self.clock.seconds)
        self._sources = self.issuer.sources()
        self._rights = Rights(self._sources.entries, self.issuer.agent)
        self._tickers = [
            Ticker(self.clock, _TICK, self.svids.look, "the workloads' SVIDs", _log),
            Ticker(self.clock, _LOOK_AT_CALLERS, self._look_at_callers, "the workloads", _log),
        ]

    def start(self) -> None:
        """Follow the issuer, and the clock."""
        self._unwatch = self.issuer.watch(self.heard)
        for ticker in self._tickers:
            ticker.start(now=False)
        self.heard()

    def stop(self) -> None:
        """Tell nobody any more, and forget all keys."""
        self._unwatch()
        for ticker in self._tickers:
            ticker.stop()
        for following in tuple(self._following):
            following.stop()
        self.svids.forget_all()
        self.tokens.forget_all()

    @property
    def streams(self) -> int:
        """How many are open."""
        return len(self._following)

    @property
    def sources(self) -> Sources:
        """What the issuer has said last."""
        return self._sources

    async def caller(self, connected: object) -> ICaller:
        """Attest who is at the other end of ``connected``. Raises :class:`PkiError`."""
        return await self.callers.of(connected)

    def follow(self, caller: ICaller, told: Callable[[Snapshot], None]) -> IFollowing:
        """Tell of what is there for ``caller``, and of each change."""
        if not isinstance(caller, Caller):
            raise TypeError("only those can be followed whom we have attested")
        following = Following(self, caller, told)
        refusal = self._no_room(caller)
        if refusal is not None:
            following.is_over = True
            self._turn_away(following, refusal)
            return following
        self._following[following] = None
        self._of_process[process_of(caller)] += 1
        self._of_user[caller.uid] += 1
        try:
            following.unwatch = caller.watch(following.refresh)
        except NoDescriptors as error:
            following.stop()
            self._turn_away(following, error)
        else:
            self.refresh(following)
        return following

    async def jwt_svids(
        self, caller: ICaller, audience: Sequence[str], spiffe_id: SpiffeId | None
    ) -> Sequence[JwtSvid]:
        """A token for each identity of ``caller``, or for that one. Raises :class:`PkiError`."""
        if caller.has_gone():
            raise _gone()
        self._demand_rights(caller, ())
        found = self._rights.of(caller.selectors)
        bought = [one for one in found if spiffe_id in (None, one.spiffe_id)]
        if not bought:
            raise self._refusal(caller).problem
        tokens = [
            await self.tokens.get(one, caller.selectors, audience, self.token_ttl) for one in bought
        ]
        if caller.has_gone():
            raise _gone()
        self._demand_rights(caller, bought)
        return tokens

    def _demand_rights(self, caller: ICaller, bought: Sequence[Bought]) -> None:
        """Nobody can revoke a token: who loses the right while it is made does not get it. Raises :class:`PkiError`."""
        sources = self._sources
        if sources.is_over:
            raise sources.problem or AgentOut("this agent may serve no workloads any more")
        has = {one.key for one in self._rights.of(caller.selectors)}
        if not has.issuperset(one.key for one in bought):
            raise self._refusal(caller).problem

    def heard(self) -> None:
        """The issuer has something new."""
        before, sources = self._sources, self.issuer.sources()
        self._sources = sources
        if sources.entries is not before.entries:
            self._rights = Rights(sources.entries, self.issuer.agent)
        if sources.is_over:
            self.svids.forget_all()
            self.tokens.forget_all()
        else:
            self.svids.keep({entry.id: None for entry in sources.entries})
            self.tokens.keep({entry.id: None for entry in sources.entries})
        if sources.paths is not before.paths:
            self.svids.move()
        if any(
            getattr(sources, what) is not getattr(before, what)
            for what in ("revocations", "paths", "bundles")
        ):
            self.svids.review()
        if before.problem is not None and sources.problem is None:
            self.svids.retry()
        for following in tuple(self._following):
            self.refresh(following)

    def refresh(self, following: Following) -> None:
        """Tell it what is there for it now, if it is something else than it was told, and if that is known."""
        if following.is_over:
            return
        try:
            snapshot = self._snapshot(following)
            following.is_late = False
        except NoDescriptors:
            following.is_late = True
            return
        if snapshot is None:
            return
        mark = _mark(snapshot)
        if mark != following.last:
            following.last = mark
            self._tell(following, snapshot)

    def left(self, following: Following) -> None:
        """It is over."""
        if following not in self._following:
            return
        del self._following[following]
        _less(self._of_process, process_of(following.caller))
        _less(self._of_user, following.caller.uid)
        following.unwatch()
        for held in following.held:
            self.svids.unfollow(held, following.refresh)
        following.held = []

    def _snapshot(self, following: Following) -> Snapshot | None:
        """What it may have; None where it is not known yet."""
        caller, sources = following.caller, self._sources
        if caller.has_gone():
            return Snapshot(None, (), Refusal(_gone(), is_final=True))
        if sources.is_over:
            problem = sources.problem or AgentOut("this agent may serve no workloads any more")
            self._hold(following, ())
            return Snapshot(None, (), Refusal(problem, is_final=True))
        bought = self._rights.of(caller.selectors)
        self._hold(following, bought)
        if sources.bundles is None:
            if sources.problem is None:
                return None
            return Snapshot(None, (), Refusal(sources.problem, is_final=False))
        # Of other trust domains those with which an entry of the caller's federates, and no others.
        others = {domain for one in bought for domain in one.entry.federates_with}
        bundles = sources.bundles.only(others)
        if not following.held:
            return Snapshot(bundles, (), self._refusal(caller))
        good = [_identity(held) for held in following.held if held.svid is not None]
        is_waiting = not all(held.is_settled for held in following.held)
        # The first answer is whole. Without the CA there is nothing to wait for.
        if is_waiting and not sources.problem and not (good and following.last):
            return None
        if good:
            return Snapshot(bundles, good)
        return Snapshot(bundles, (), Refusal(self._unsigned(following), is_final=False))

    def _hold(self, following: Following, bought: Sequence[Bought]) -> None:
        """Have it follow exactly the SVIDs of these."""
        for one in bought:
            self.svids.changed(one)
        former = following.held
        if [held.bought.key for held in former] == [one.key for one in bought] and all(
            map(self.svids.has, former)
        ):
            return
        following.held = [
            self.svids.follow(one, following.caller.selectors, following.refresh) for one in bought
        ]
        for held in former:
            if held not in following.held:
                self.svids.unfollow(held, following.refresh)

    def _unsigned(self, following: Following) -> PkiError:
        problems = [self._sources.problem, *(held.problem for held in following.held)]
        why = "; ".join(dict.fromkeys(str(problem) for problem in problems if problem is not None))
        names = " and ".join(str(held.bought.spiffe_id) for held in following.held)
        return NothingSigned(f"{names} is this process's, and cannot be signed just now: {why}")

    def _refusal(self, caller: ICaller) -> Refusal:
        """For who meets no entry. While the entries may be old ones it is not final."""
        sources = self._sources
        refused = self._rights.refusal(caller.selectors)
        if sources.problem is None:
            return Refusal(refused, is_final=True)
        return Refusal(
            NothingSigned(
                f"nothing can be told for certain just now: {sources.problem}; by what was known last: {refused}"
            ),
            is_final=False,
        )

    def _turn_away(self, following: Following, why: PkiError) -> None:
        self._tell(following, Snapshot(None, (), Refusal(why, is_final=False, is_last=True)))

    def _tell(self, following: Following, snapshot: Snapshot) -> None:
        refusal = snapshot.refusal
        if refusal is not None:
            meters.REFUSALS.labels("yes" if refusal.is_final else "no").inc()
            is_flood = self._logged.take(str(following.caller.uid)) > 0
            (_log.debug if is_flood else _log.info)(
                "PID {pid} of user {uid} has nothing: {why}",
                event="workload-refused",
                pid=following.caller.pid,
                uid=following.caller.uid,
                codes=codes(refusal.problem.problems),
                why=str(refusal.problem),
                final=refusal.is_final,
            )
        else:
            meters.PUSHED.inc()
        following.told(snapshot)

    def _no_room(self, caller: Caller) -> PkiError | None:
        if self._of_process[process_of(caller)] >= self.most_of_process:
            return Busy(
                f"this process has {self.most_of_process} streams open: one of each kind is enough, end the others",
                1,
            )
        if self._of_user[caller.uid] >= self.most_of_user:
            return Busy(
                f"the processes of user {caller.uid} have {self.most_of_user} streams open together: end some",
                1,
            )
        return None

    def _look_at_callers(self) -> None:
        for following in tuple(self._following):
            try:
                is_due = following.is_late or following.caller.has_gone()
            except NoDescriptors:
                return
            if is_due:
                self.refresh(following)


def _identity(held: Held) -> WorkloadSvid:
    if held.svid is None:
        raise AssertionError("it was looked at")
    entry = held.bought.entry
    return WorkloadSvid(held.svid, entry, entry.hint)


def _gone() -> CallerGone:
    return CallerGone(
        "the process that connected has exited, or has become another program: connect anew, from the process that "
        "is to have the identity"
    )


def process_of(caller: Caller) -> Hashable:
    """A process of a namespace that we cannot look into has no PID here: then each connection counts by itself."""
    return caller.pid or id(caller)


def _less(counts: "Counter[Hashable]", key: Hashable) -> None:
    counts[key] -= 1
    if counts[key] <= 0:
        del counts[key]


def _mark(snapshot: Snapshot) -> tuple[object, ...]:
    """Equal for two that say the same."""
    refusal = snapshot.refusal
    svids = tuple((one.svid.chain, one.hint) for one in snapshot.svids)
    why = None if refusal is None else (refusal.is_final, str(refusal.problem))
    return snapshot.bundles, svids, why
