"""The SVIDs of this machine's processes: made when somebody follows them, kept fresh, in memory only.

One key and one certificate for each entry and ID, shared by all processes that the same entry lets in. That is
as safe as one for each: every one of them may have a certificate of that ID whenever it asks, and nobody who meets
them can tell them apart by it. What it saves is a signature, and a line of the audit log, for each replica.
"""

import random
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime

from attrs import define, field
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime

from pki import renewal
from pki.codes import Code
from pki.errors import PkiError
from pki.keys import KeyAlgorithm
from pki.policy.selector import Selector
from pki.renewal import Action, RenewalPlan
from pki.spiffe import SpiffeId
from pki.svid.x509svid import X509Svid
from pki.validity import rfc3339
from twisted_mesh.runtime.clock import Now
from twisted_mesh.runtime.log import logger, reasons
from twisted_mesh.runtime.tasks import spawn
from twisted_mesh.runtime.turns import Turns
from twisted_mesh.workload import meters
from twisted_mesh.workload.interface import IWorkloadIssuer
from twisted_mesh.workload.rights import Bought

_log = logger("workload")

#: Seconds for which an SVID that nobody follows is kept, for who comes again.
KEPT_FOR = 300.0
#: Certificates that are asked for at once.
AT_ONCE = 16
#: After so many failures in a row a warning is repeated once, and then no more.
_KEEPS_FAILING = 5


class Mistaken(PkiError):
    """The CA has certified something else than was asked for."""

    code = Code.INTERNAL


class Ended(PkiError):
    """It was not renewed in time."""

    code = Code.EXPIRED


@define(eq=False)
class Held:
    """One identity, from when it is first wanted."""

    bought: Bought
    selectors: frozenset[Selector]
    """Of the process that wanted it last: what the CA is told."""
    followers: set[Callable[[], None]] = field(factory=set)
    """Who is told that it has changed."""
    svid: X509Svid | None = None
    problem: PkiError | None = None
    """Why the last attempt failed; None after one that did not."""
    idle_since: float = 0.0
    """By a clock that does not jump; counts while nobody follows."""
    plan: RenewalPlan | None = field(default=None, init=False)
    is_revoked: bool = field(default=False, init=False)
    failures: int = field(default=0, init=False)
    retry_at: float = field(default=0.0, init=False)
    asking: Deferred[None] | None = field(default=None, init=False)
    """The attempt that is under way."""

    @property
    def is_settled(self) -> bool:
        """Whether it is known if there is an SVID."""
        return self.svid is not None or self.problem is not None


@define(eq=False)
class HeldSvids:
    """All of them."""

    issuer: IWorkloadIssuer
    clock: IReactorTime
    now: Now
    rotate_at: float = 0.5
    algorithm: KeyAlgorithm = KeyAlgorithm.EC_P256
    draw: random.Random = field(factory=random.SystemRandom)
    _held: dict[tuple[str, SpiffeId], Held] = field(factory=dict, init=False)
    _turns: Turns = field(factory=lambda: Turns(AT_ONCE), init=False)

    def __len__(self) -> int:
        return len(self._held)

    def __iter__(self) -> Iterator[Held]:
        return iter(tuple(self._held.values()))

    def has(self, held: Held) -> bool:
        """Whether it is one that counts still."""
        return self._held.get(held.bought.key) is held

    def follow(
        self, bought: Bought, selectors: frozenset[Selector], follower: Callable[[], None]
    ) -> Held:
        """Have it, and tell ``follower`` of each change from now on; it is asked for if it is not there."""
        held = self._held.get(bought.key)
        if held is None:
            held = self._held[bought.key] = Held(bought, selectors)
        held.selectors = selectors
        held.followers.add(follower)
        self._look_at(held)
        return held

    def unfollow(self, held: Held, follower: Callable[[], None]) -> None:
        """Tell it no more. Without any follower the SVID is renewed no more, and after a while forgotten."""
        held.followers.discard(follower)
        held.idle_since = self.clock.seconds()

    def keep(self, entries: Mapping[str, object]) -> None:
        """Forget at once what was bought by any other entry than these (by id): keys, certificates, attempts."""
        for held in self:
            if held.bought.entry.id not in entries:
                self._forget(held)

    def changed(self, bought: Bought) -> None:
        """The entry says something else now: what it buys is asked for anew, and until then the old one counts."""
        held = self._held.get(bought.key)
        if held is not None and held.bought.entry != bought.entry:
            is_other = _purchase(held.bought) != _purchase(bought)
            held.bought = bought
            if is_other:
                self.renew(held)

    def renew(self, held: Held) -> None:
        """Ask for another at the next look, whatever is left of this one's life."""
        if held.plan is not None:
            held.plan = RenewalPlan(self.now(), held.plan.expires_at)
        held.retry_at = 0.0

    def move(self) -> None:
        """Other paths are to be served: whoever follows is told the same certificates by those, at once."""
        for held in self:
            if held.svid is None:
                continue
            moved = self.issuer.as_served(held.svid)
            if moved is not held.svid:
                held.svid = moved
                _log.info(
                    "The SVID of {spiffe_id} is handed out by another way to a root",
                    event="workload-svid-moved",
                    spiffe_id=str(moved.spiffe_id),
                    serial=f"{moved.leaf.serial_number:x}",
                )
                _tell(held)

    def review(self) -> None:
        """Something was revoked: what of it is held is replaced at once, or else withdrawn."""
        for held in self:
            if held.svid is not None and not held.is_revoked and self.issuer.is_revoked(held.svid):
                held.is_revoked = True
                _log.warn(
                    "The SVID of {spiffe_id}, or what it rests on, was revoked: asking for another",
                    event="workload-svid-revoked",
                    spiffe_id=str(held.svid.spiffe_id),
                    serial=f"{held.svid.leaf.serial_number:x}",
                )
                self.renew(held)
                self._look_at(held)

    def retry(self) -> None:
        """What has failed may succeed now: ask again."""
        for held in self:
            if held.problem is not None:
                held.retry_at = 0.0
                self._look_at(held)

    def look(self) -> None:
        """Renew what is due, withdraw what has ended, forget what nobody wants: to be called again and again."""
        for held in self:
            self._look_at(held)

    def forget_all(self) -> None:
        """Have nothing any more."""
        for held in self:
            self._forget(held)

    def _look_at(self, held: Held) -> None:
        action = renewal.next_action(held.plan, self.now())
        if action is Action.EXPIRED and held.svid is not None:
            ended, held.svid, held.plan = held.svid, None, None
            held.problem = held.problem or Ended(
                f"the last SVID of {ended.spiffe_id} ended at {rfc3339(ended.validity.not_after)}, and there is "
                "no other yet"
            )
            _log.warn(
                "The SVID of {spiffe_id} has ended before there was another: it is handed out no more",
                event="workload-svid-expired",
                spiffe_id=str(ended.spiffe_id),
            )
            _tell(held)
        if held.followers:
            is_due = action is not Action.WAIT and self.clock.seconds() >= held.retry_at
            if is_due and held.asking is None:
                held.asking = Deferred()  # taken; replaced by what can be cancelled
                held.asking = spawn(self._ask(held), "the certificate of a workload", _log)
                if held.asking.called:
                    held.asking = None
        elif (
            held.svid is None
            or held.is_revoked
            or self.clock.seconds() - held.idle_since >= KEPT_FOR
        ):
            self._forget(held)

    async def _ask(self, held: Held) -> None:
        await self._turns.acquire()
        try:
            if self._is_wanted(held):
                await self._renew(held)
        finally:
            self._turns.release()
            held.asking = None
        if self._is_wanted(held):
            _tell(held)

    def _is_wanted(self, held: Held) -> bool:
        return bool(held.followers) and self.has(held)

    async def _renew(self, held: Held) -> None:
        bought, issued_at, since = held.bought, self.now(), self.clock.seconds()
        algorithms = bought.entry.keys
        algorithm = (
            self.algorithm if not algorithms or self.algorithm in algorithms else algorithms[0]
        )
        try:
            svid = await self.issuer.issue(bought.entry, held.selectors, algorithm)
            if svid.spiffe_id != bought.spiffe_id:
                raise Mistaken(
                    f"the CA has certified {svid.spiffe_id}, not {bought.spiffe_id}: this is a case to report"
                )
            # What is told may be newer than the answer that this came in.
            svid = self.issuer.as_served(svid)
        except CancelledError:
            raise
        except PkiError as error:
            self._failed(held, error)
        except Exception:
            _log.failure("the certificate of a workload could not be made", event="workload-broke")
            self._failed(held, Mistaken("there is a fault in the agent: its log has more"))
        else:
            self._obtained(held, svid, issued_at, self.clock.seconds() - since)

    def _obtained(self, held: Held, svid: X509Svid, issued_at: datetime, seconds: float) -> None:
        is_first = held.svid is None
        held.svid, held.problem, held.failures, held.is_revoked = svid, None, 0, False
        ends = svid.validity.not_after
        held.plan = renewal.plan(issued_at, ends, self.rotate_at, self.draw)
        held.retry_at = 0.0
        meters.ISSUED.labels("x509").inc()
        meters.ISSUE_SECONDS.observe(seconds)
        _log.info(
            "SVID {kind} for {spiffe_id} by the entry {entry}",
            event="workload-svid-issued",
            kind="made" if is_first else "rotated",
            spiffe_id=str(svid.spiffe_id),
            entry=held.bought.entry.id,
            serial=f"{svid.leaf.serial_number:x}",
        )

    def _failed(self, held: Held, error: PkiError) -> None:
        left = None if held.svid is None else held.svid.validity.not_after - self.now()
        pause = renewal.backoff(held.failures, self.draw, left).total_seconds()
        held.failures += 1
        held.retry_at = self.clock.seconds() + pause
        is_loud = held.problem is None or held.failures == _KEEPS_FAILING
        held.problem = error
        if held.is_revoked:
            held.svid = held.plan = None
        meters.FAILURES.labels("x509").inc()
        (_log.warn if is_loud else _log.debug)(
            "No SVID for {spiffe_id} by the entry {entry}: {reasons}; trying again in {pause:.1f} s",
            event="workload-svid-failed",
            spiffe_id=str(held.bought.spiffe_id),
            entry=held.bought.entry.id,
            reasons=reasons(error.problems),
            pause=pause,
        )

    def _forget(self, held: Held) -> None:
        self._held.pop(held.bought.key, None)
        asking, held.asking = held.asking, None
        held.svid = held.plan = None
        if asking is not None and not asking.called:
            asking.cancel()


def _tell(held: Held) -> None:
    for follower in tuple(held.followers):
        follower()


def _purchase(bought: Bought) -> tuple[object, ...]:
    """All of an entry that shows in a certificate."""
    entry = bought.entry
    return (
        bought.spiffe_id,
        entry.dns_names,
        entry.ip_addresses,
        entry.ttl,
        entry.max_ttl,
        entry.keys,
        entry.common_name,
    )
