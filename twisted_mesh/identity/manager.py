"""The certificate manager: keeps an identity fresh, from one certificate to the next.

It asks a pure function, again and again, what to do. A renewal makes a new key, obtains a certificate,
judges it as a peer would, builds whole new contexts and swaps them in; whatever fails on the way
leaves the old ones serving. What is believed is another object's: :mod:`twisted_mesh.trust.store`.
"""

import random
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime

from attrs import define, evolve, field
from cryptography import x509
from OpenSSL import SSL
from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from pki import renewal
from pki.codes import Code
from pki.errors import ANY_ERROR, PkiError, Refused, printable
from pki.keys import KeyAlgorithm
from pki.renewal import Action, RenewalPlan
from pki.svid.bundle import BundleSet
from pki.svid.revocation_set import Revocation
from pki.svid.told_path import ToldPaths
from pki.svid.x509svid import X509Svid
from twisted_mesh.identity.own_path import OwnPath
from twisted_mesh.identity.rotation_log import RotationLog
from twisted_mesh.interfaces import Identity, IRevocationListener, ISource, TrustUpdate
from twisted_mesh.revocation.feed import Feed
from twisted_mesh.runtime.clock import Now
from twisted_mesh.runtime.tasks import Ticker, spawn
from twisted_mesh.tls.alerts import with_clocks
from twisted_mesh.tls.contexts import ContextFactory
from twisted_mesh.tls.rehearsal import CannotShakeHands, rehearse, words_of
from twisted_mesh.trust.store import TICK, TrustStore
from twisted_mesh.trust.trust import Trust

#: After so many failures in a row the pauses between attempts have reached their longest.
_LONG_TROUBLE = 7

#: Seconds within which those ask for another certificate, each at a moment of its own, whose issuer is revoked: they
#: are all that it has issued for, and serve nobody meanwhile.
SPREAD = 2.0

#: Awaited before an identity is used. It bounds its time and raises nothing.
Preparation = Callable[[Identity], Awaitable[None]]


class OwnCertificateRefused(Refused):
    """The CA gave us a certificate that our own peers would refuse."""


class RenewalBroke(PkiError):
    """A renewal met a bug of ours; the old certificate goes on serving."""

    code = Code.INTERNAL


@implementer(IRevocationListener)
@define(eq=False, repr=False, slots=False)
class CertificateManager(Service):
    """Owns one identity: where it comes from, when it is renewed, and the contexts that present it."""

    source: ISource
    trust_store: TrustStore
    """Of which it is a user: what it has made of the roots is made anew whenever they change."""
    contexts: Sequence[ContextFactory]
    clock: IReactorTime
    now: Now
    log: Logger
    algorithm: KeyAlgorithm = KeyAlgorithm.EC_P256
    rotate_at: float = 0.5
    """The share of a certificate's life after which it is renewed."""
    feed: Feed | None = None
    """What the same source says of revocations: filled before an identity is used, and asked under it."""
    preparations: Sequence[Preparation] = ()
    """Each in its turn, once the feed is filled."""
    draw: random.Random = field(factory=random.SystemRandom)
    retries: Callable[[PkiError, float], bool] = lambda error, pause: True
    """Whether there will be another attempt after that error, in so many seconds: else nobody says so."""
    announce: bool = True
    """Whether the log tells of certificates that come as they should."""
    giver: str = "the CA"
    """What the source is, for people."""
    on_change: Callable[[X509Svid, Trust], object] = lambda svid, trust: None
    """Called once we serve by another path, or once something else is believed."""
    svid: X509Svid | None = field(default=None, init=False)
    last_problem: PkiError | None = field(default=None, init=False)
    """Why there is no fresh certificate; None while there is one."""
    rotations: int = field(default=0, init=False)
    _plan: RenewalPlan | None = field(default=None, init=False)
    _failures: int = field(default=0, init=False)
    """Attempts in a row that brought no certificate."""
    _retry_at: float = field(default=0.0, init=False)
    """By :attr:`clock`, which does not jump: a wall clock put back must not put off a renewal."""
    _withdrawn: bool = field(default=False, init=False)
    _path: OwnPath = field(init=False)
    _looked_at: tuple[object, ...] = field(default=(), init=False)
    """With what our path was looked at last."""
    _told: BundleSet | None = field(default=None, init=False)
    """Whom the source says is to be believed, as far as it has said so since it was asked for what it is asked for."""
    _is_following: bool = field(default=False, init=False)
    """Whether what a source says is being believed, all of which may be needed to serve on."""
    _believe: Callable[[TrustUpdate], bool] = field(init=False)
    _is_pushed: bool = field(default=False, init=False)
    """Whether the source has said by itself that there is another certificate."""
    _renewing: "Deferred[None] | None" = field(default=None, init=False)
    _waiting: "list[Deferred[X509Svid]]" = field(factory=list, init=False)
    _ticker: Ticker = field(init=False)
    _rotation_log: RotationLog = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._rotation_log = RotationLog(
            self.log, self.now, self.source.where, self.announce, self.giver
        )
        self._ticker = Ticker(self.clock, TICK, self._look, "the rotation", self.log)
        self.trust_store.users.append(self)
        self.trust_store.listeners.append(self)
        self._path = OwnPath(self.now)
        self._believe = self.trust_store.update
        if self.feed is not None:
            self._believe, self.feed.believe = self.feed.believe, self.follow
            self.feed.recovery_listeners.append(self._retry_if_withdrawn)

    def startService(self) -> None:
        """Obtain the first certificate, and look after it from now on."""
        super().startService()
        self._ticker.start()

    def stopService(self) -> None:
        """Renew no more, and call off a renewal that is under way."""
        super().stopService()
        self._ticker.stop()
        if self._renewing is not None:
            self._renewing.cancel()

    def ready(self) -> "Deferred[X509Svid]":
        """Fires with the first certificate; at once if there is one."""
        waiting: Deferred[X509Svid] = Deferred()
        if self.svid is not None:
            waiting.callback(self.svid)
        else:
            self._waiting.append(waiting)
        return waiting

    @property
    def seconds_left(self) -> float:
        """How long our certificate is still valid; negative once it is not."""
        if self.svid is None:
            return 0.0
        return (self.svid.validity.not_after - self.now()).total_seconds()

    @property
    def next_rotation(self) -> datetime | None:
        """When the certificate is renewed; None while there is none."""
        return self._plan.renew_at if self._plan else None

    def renew_now(self) -> None:
        """Have another certificate at the next tick, whatever is left of this one's life."""
        if self._plan is not None:
            self._plan = evolve(self._plan, renew_at=self.now())

    def retry_now(self) -> None:
        """Ask again at the next tick: what kept the source from answering is over."""
        self._retry_at = 0.0

    def take_fresh(self) -> None:
        """The source has another certificate, or answers again: ask it at the next tick."""
        self._is_pushed = True
        self.renew_now()
        self.retry_now()

    def give_up(self, error: PkiError) -> None:
        """Our certificate is to be used no more, though it has not ended: refuse new work until there is another."""
        if self.svid is None or self._withdrawn:
            return
        self._withdraw(error)
        self.renew_now()

    @property
    def told_paths(self) -> ToldPaths:
        """What the source says is to be served above whose leaves; another object once it says it anew."""
        return self._path.told

    @property
    def top(self) -> x509.Certificate | None:
        """The root that our certificate leads to by the path that peers are shown; None while they are shown none."""
        if self.svid is None or self._withdrawn:
            return None
        verdict = self._path.judged(self.svid, self.trust_store.trust)
        return verdict.path[-1] if verdict.ok else None

    def follow(self, update: TrustUpdate) -> bool:
        """Have what the source says believed, and serve by the path that it tells; whether anything changed."""
        if update.issuers is not None and update.issuers != self._path.told:
            self._path.told = update.issuers
        if update.bundles is not None:
            self._told = update.bundles
        self._is_following = True
        try:
            is_new = self._believe(update)
        finally:
            self._is_following = False
        is_new = self._mind_our_path() or is_new
        if is_new and self.svid is not None:
            self.on_change(self.svid, self.trust_store.trust)
        return is_new

    def revoked(self, revocations: Sequence[Revocation]) -> None:
        """Where an issuer of ours is among them, or our root: serve by it no more, and ask for another soon.

        A leaf of ours that is revoked is for whoever revoked it: it is used for as long as others take it.
        """
        if not self._is_following:
            _ = self._mind_our_path()

    def _mind_our_path(self) -> bool:
        """Serve by the path that is told, and by none that is revoked; whether it is another one now."""
        before, trust = self.svid, self.trust_store.trust
        looked_at = before, trust, self._path.told
        if before is None or self._withdrawn or looked_at == self._looked_at:
            return False
        self._looked_at = looked_at
        moved, problem = self._path.of(before, trust)
        try:
            if problem is not None:
                raise problem
            if moved is not before:
                self._built(moved, trust, rehearsed=True)()
        except PkiError as error:
            if self._path.refuse(before):
                self._rotation_log.path_refused(before, error)
        if problems := self._path.cut_off(self.svid or before, trust):
            self.give_up(Refused(problems))
            self._retry_at = self.clock.seconds() + self.draw.uniform(0, SPREAD)
        return self.svid is not before

    def prepare(self, trust: Trust) -> Callable[[], None] | None:
        """Be ready for ``trust``: contexts that let OpenSSL believe its roots; what is returned swaps them in.

        None where our own certificate would be none under it: another is asked for first, unless there is
        no root of our trust domain in it, under which none could be good.
        """
        if self.svid is None:
            return _nothing
        ours = trust.bundles.get(self.svid.spiffe_id.trust_domain)
        if ours is None or not ours.roots:
            return None
        if self._withdrawn:
            return _nothing
        svid, _ = self._path.of(self.svid, trust)
        if not self._path.judged(svid, trust).ok:
            self.renew_now()
            return None
        return self._built(svid, trust)

    def _built(
        self, svid: X509Svid, trust: Trust, *, rehearsed: bool = False
    ) -> Callable[[], None]:
        """Contexts for these, all of them, or ``SSL.Error``; what is returned swaps them in.

        ``rehearsed``: each has shaken hands with ourselves. Raises :class:`CannotShakeHands`.
        """
        try:
            contexts = [factory.build(svid, trust.at_hand) for factory in self.contexts]
        except SSL.Error as error:
            if rehearsed:
                raise CannotShakeHands(words_of(error)) from None
            raise
        if rehearsed:
            for factory, context in zip(self.contexts, contexts, strict=True):
                rehearse(context, factory.role, svid)

        def swap() -> None:
            for factory, context in zip(self.contexts, contexts, strict=True):
                factory.use(context, svid)
            if self.svid is not None and svid is not self.svid and svid.leaf == self.svid.leaf:
                self.svid = svid
                self._rotation_log.path_switched(self._path.judged(svid, trust).path)

        return swap

    def _retry_if_withdrawn(self) -> None:
        """Who serves nobody does not wait any longer once the CA answers again."""
        if self._withdrawn:
            self.retry_now()

    def _look(self) -> None:
        """Ask what is to be done now, and begin it."""
        now = self.now()
        action = renewal.next_action(self._plan, now)
        if action is Action.EXPIRED and self.svid is not None and not self._withdrawn:
            self._withdraw()
        if (
            action is not Action.WAIT
            and _idle(self._renewing)
            and self.clock.seconds() >= self._retry_at
        ):
            self._renewing = spawn(self._renew(), "renewal", self.log)

    def _withdraw(self, error: PkiError | None = None) -> None:
        """Our certificate has expired and the CA gave us no other, or it was taken away: refuse new work, loudly."""
        self._withdrawn = True
        if self.feed is not None:
            self.feed.freshness.lapse()
        for factory in self.contexts:
            factory.withdraw()
        if error is None:
            self._rotation_log.expired()
        else:
            self._rotation_log.taken_away(error)

    async def _renew(self) -> None:
        if self.svid is not None and not self._failures:
            # Who was withdrawn asks since another issues by now.
            self._rotation_log.triggered(
                None if self._is_pushed or self._withdrawn else self.rotate_at
            )
        self._is_pushed, self._told = False, None
        try:
            identity = await self.source.obtain(self.algorithm)
            # Before the first handshake under this identity: who is revoked already is not let in.
            if self.feed is not None:
                await self.feed.fill()
            for prepare in self.preparations:
                await prepare(identity)
            self._adopt(identity)
        except CancelledError:
            raise  # we are being stopped
        except PkiError as error:
            self._put_off(error)
        except ANY_ERROR as error:
            self.log.failure("the renewal broke", event="renewal-broke")
            self._put_off(RenewalBroke(f"{type(error).__name__}: {printable(str(error))}"))

    def _adopt(self, identity: Identity) -> None:
        """Judge our own certificate as a peer would, then swap it in. All of it, or nothing."""
        first = self.svid is None
        # What is told may be newer than the answer in which it came.
        trust = self.trust_store.trust_with(identity, self._told)
        svid, _ = self._path.of(identity.svid, trust)
        verdict = self._path.judged(svid, trust)
        if not verdict.ok:
            raise with_clocks(OwnCertificateRefused(verdict.problems), identity.clocks)
        swap = self._built(svid, trust, rehearsed=True)
        self._rotation_log.issued(svid, first=first)
        swap()
        self.trust_store.believe(trust, by=self)
        self.svid = svid
        self._plan = renewal.plan(
            identity.issued_at, svid.validity.not_after, self.rotate_at, self.draw
        )
        if self._withdrawn or (self._failures and not first):
            self._rotation_log.recovered()
        self._withdrawn, self._failures, self._retry_at, self.last_problem = False, 0, 0.0, None
        if not first:
            self.rotations += 1
            self._rotation_log.complete(svid, len(self.trust_store.registry), self._plan.renew_at)
        if self.feed is not None:
            self.feed.renew()
            self.feed.start()
        self.on_change(svid, trust)
        waiting, self._waiting = self._waiting, []
        for deferred in waiting:
            deferred.callback(svid)

    def _put_off(self, error: PkiError) -> None:
        """Try again after a pause, which is longer each time, and shorter where little of a life is left."""
        is_other = self.last_problem is None or str(self.last_problem) != str(error)
        self.last_problem = error
        left = self.svid.validity.not_after - self.now() if self.svid else None
        pause = renewal.backoff(self._failures, self.draw, left)
        self._failures += 1
        self._retry_at = self.clock.seconds() + pause.total_seconds()
        # The same trouble is logged again only once the pauses are long.
        is_loud = is_other or self._failures > _LONG_TROUBLE
        is_loud = is_loud and self.retries(error, pause.total_seconds())
        self._rotation_log.failed(error, pause, left, is_loud=is_loud)


def _nothing() -> None:
    """No context is in use: the next ones are built from what is believed then."""


def _idle(task: "Deferred[None] | None") -> bool:
    return task is None or task.called
