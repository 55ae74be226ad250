"""The certificate manager: keeps an identity fresh, and what is believed with it.

Its LoopingCall asks a pure function what to do. A renewal makes a new key, obtains a certificate,
judges it as a peer would, builds whole new contexts and swaps them in; whatever fails on the way
leaves the old ones serving. Open connections live on for as long as their peers would be let in.
"""

import random
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Any

from attrs import define, evolve, field
from cryptography import x509
from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from pki import renewal
from pki.errors import PkiError, Refused, printable
from pki.keys import KeyAlgorithm
from pki.renewal import Action, RenewalPlan
from pki.serial import serial_pairs
from pki.spiffe import SpiffePattern
from pki.svid.bundle import BundleSet
from pki.svid.chain import Verdict
from pki.svid.revocation_set import Revocation
from pki.svid.x509svid import Purpose, X509Svid, extension, subject_of
from pki.validity import spoken_duration, spoken_time
from twisted_mesh.revocation.feed import Feed
from twisted_mesh.runtime.clock import Now
from twisted_mesh.runtime.log import codes, reasons
from twisted_mesh.runtime.tasks import spawn
from twisted_mesh.tls.contexts import ContextFactory
from twisted_mesh.trust.connections import ConnectionRegistry
from twisted_mesh.trust.judge import Judge, Trust
from twisted_mesh.trust.reviewer import Reviewer
from twisted_mesh.trust.source import Identity, News

#: Seconds between two looks at the certificate's plan.
TICK = 0.2
#: After so many failures in a row the pauses between attempts have reached their longest.
_LONG_TROUBLE = 7


class OwnCertificateRefused(Refused):
    """The CA gave us a certificate that our own peers would refuse."""


class RenewalBroke(PkiError):
    """A renewal met a bug of ours; the old certificate goes on serving."""

    code = "internal"


@define(eq=False, slots=False)
class CertificateManager(Service):
    """Owns one identity: its source, its contexts, its judge."""

    source: Any
    """An :class:`ISource`."""
    judge: Judge
    contexts: Sequence[ContextFactory]
    clock: IReactorTime
    now: Now
    log: Logger
    algorithm: KeyAlgorithm = KeyAlgorithm.EC_P256
    rotate_at: float = 0.5
    registry: ConnectionRegistry = field(factory=ConnectionRegistry)
    draw: random.Random = field(factory=random.SystemRandom)
    announce: bool = True
    """Whether certificates are told to people, in the words of the log."""
    preparations: list[Callable[[Identity], Awaitable[None]]] = field(factory=list)
    """Awaited before an identity is used, each one in its turn. They bound their time and raise nothing."""
    on_revocation: list[Callable[[Sequence[Revocation]], object]] = field(factory=list)
    """Called with what is believed to be revoked from now on."""
    reviewer: Reviewer = field(init=False)
    """The only one that changes what is believed."""
    feed: Feed = field(init=False)
    """Brings what is revoked."""
    svid: X509Svid | None = field(default=None, init=False)
    last_problem: PkiError | None = field(default=None, init=False)
    rotations: int = field(default=0, init=False)
    _plan: RenewalPlan | None = field(default=None, init=False)
    _failures: int = field(default=0, init=False)
    _retry_at: float = field(default=0.0, init=False)
    """By :attr:`clock`, which does not jump: a wall clock put back must not put off a renewal."""
    _withdrawn: bool = field(default=False, init=False)
    _renewing: "Deferred[None] | None" = field(default=None, init=False)
    _waiting: "list[Deferred[X509Svid]]" = field(factory=list, init=False)
    _loop: LoopingCall | None = field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        self.reviewer = Reviewer(self.judge, self.registry, self.clock, self.log)
        freshness = self.judge.freshness
        if freshness.seconds is None:
            freshness.seconds = self.clock.seconds
        self.feed = Feed(
            self.source,
            self._believe,
            freshness,
            self.clock,
            self.now,
            self.log,
            self.draw,
            self._heard_again,
        )

    def startService(self) -> None:
        super().startService()
        self._loop = LoopingCall(self._tick)
        self._loop.clock = self.clock
        _ = self._loop.start(TICK, now=True)

    def stopService(self) -> None:
        super().stopService()
        if self._loop is not None and self._loop.running:
            self._loop.stop()
        self.feed.stop()
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

    def revoke(self, revocations: Sequence[Revocation]) -> None:
        """Believe these revoked from now on, and cut whoever is connected by them."""
        trust = self.judge.trust
        merged = trust.revocations.merged(revocations, self.now())
        if revocations and merged is not trust.revocations:
            self.reviewer.believe(evolve(trust, revocations=merged), revocations)
            for call in self.on_revocation:
                call(revocations)

    def renew_now(self) -> None:
        """Have another certificate at the next tick, whatever is left of this one's life."""
        if self._plan is not None:
            self._plan = evolve(self._plan, renew_at=self.now())

    def allow(self, patterns: Sequence[SpiffePattern]) -> None:
        """Let these in from now on and nobody else, and cut whoever is connected and no longer may."""
        self.reviewer.believe(evolve(self.judge.trust, allow=tuple(patterns)))

    def _tick(self) -> None:
        for look in (self._look_at_peers, self._look):
            try:
                look()
            except Exception:  # a LoopingCall that fails once never runs again
                self.log.failure("a tick of the rotation broke", event="tick-broke")

    def _believe(self, news: News) -> bool:
        """Whether it is another trust then."""
        before = self.judge.trust
        self.revoke(news.revocations)
        if news.bundles is not None and self.svid is not None:
            self._believe_bundles(news.bundles, self.svid)
        return self.judge.trust is not before

    def _believe_bundles(self, bundles: BundleSet, svid: X509Svid) -> None:
        """Roots have come or gone. Without one for our own certificate it is time for another."""
        trust = evolve(self.judge.trust, bundles=bundles)
        ours = bundles.get(svid.spiffe_id.trust_domain)
        if bundles == self.judge.trust.bundles or self._withdrawn or not (ours and ours.roots):
            return
        if not self._judge_ourselves(trust, svid).ok:
            if self._plan is not None:
                self._plan = evolve(self._plan, renew_at=self.now())
            return
        contexts = [factory.build(svid, bundles.all_roots) for factory in self.contexts]
        for factory, context in zip(self.contexts, contexts, strict=True):
            factory.use(context)
        self.reviewer.believe(trust)

    def _judge_ourselves(self, trust: Trust, svid: X509Svid) -> Verdict:
        """As a peer would."""
        ourselves = evolve(trust, allow=(SpiffePattern.parse(str(svid.spiffe_id)),))
        return ourselves.judge(svid.chain, self.now(), Purpose.ANY)

    def _heard_again(self) -> None:
        if self._withdrawn:
            self._retry_at = 0.0  # who serves nobody does not wait any longer

    def _look_at_peers(self) -> None:
        self.feed.look_at_the_clock()
        self.reviewer.look_at_the_clock(self.now())

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

    def _withdraw(self) -> None:
        """Our certificate has expired and the CA gave us no other: refuse new work, loudly."""
        self._withdrawn = True
        self.judge.freshness.lapse()
        for factory in self.contexts:
            factory.withdraw()
        self.log.error(
            "Our certificate has expired and could not be renewed: new connections are refused until the CA at {ca} "
            "answers again",
            event="identity-expired",
            ca=self.source.where,
        )

    async def _renew(self) -> None:
        first = self.svid is None
        if not first and self.announce and not self._failures:
            self.log.info(
                "Certificate rotation triggered ({share:.0%} lifetime reached)",
                event="rotation-triggered",
                share=self.rotate_at,
            )
        try:
            identity = await self.source.obtain(self.algorithm)
            # Before the first handshake under this identity: who is revoked already is not let in.
            await self.feed.fill()
            for prepare in self.preparations:
                await prepare(identity)
            self._adopt(identity)
        except CancelledError:
            raise  # we are being stopped
        except PkiError as error:
            self._put_off(error)
        except Exception as error:
            self.log.failure("the renewal broke", event="renewal-broke")
            self._put_off(RenewalBroke(f"{type(error).__name__}: {printable(str(error))}"))

    def _adopt(self, identity: Identity) -> None:
        """Judge our own certificate as a peer would, then swap it in. All of it, or nothing."""
        svid, trust = identity.svid, self.judge.trust
        issuers = (extension(cert, x509.SubjectKeyIdentifier) for cert in svid.intermediates)
        trust = evolve(
            trust,
            bundles=identity.bundles,
            # Those from before too: peers have leaves of the last issuing CA for a while.
            known_issuers=trust.known_issuers
            | {found.digest for found in issuers if found is not None},
        )
        verdict = self._judge_ourselves(trust, svid)
        if not verdict.ok:
            raise OwnCertificateRefused(verdict.problems)
        contexts = [factory.build(svid, identity.bundles.all_roots) for factory in self.contexts]
        first = self.svid is None
        if self.announce:
            self._tell(svid, identity, first=first)
        if not first and self.announce:
            self.log.info("Hot-swapping certificate...", event="hot-swap")
        for factory, context in zip(self.contexts, contexts, strict=True):
            factory.use(context)
        self.reviewer.believe(trust)
        self.svid = svid
        self._plan = renewal.plan(
            identity.issued_at, svid.validity.not_after, self.rotate_at, self.draw
        )
        if self._withdrawn or (self._failures and not first):
            self.log.info(
                "The CA at {ca} answers again: the certificate is fresh, and new connections are accepted",
                event="identity-recovered",
                ca=self.source.where,
            )
        self._withdrawn, self._failures, self._retry_at, self.last_problem = False, 0, 0.0, None
        if not first:
            self.rotations += 1
            if self.announce:
                self.log.info(
                    "Active connections: {connections} (will use new cert for new connections)\n"
                    "Certificate rotation complete.\n"
                    "Next rotation: {next_rotation}",
                    event="rotation-complete",
                    connections=len(self.registry),
                    serial=serial_pairs(svid.leaf.serial_number),
                    next_rotation=spoken_time(self._plan.renew_at),
                )
        self.feed.renew()
        self.feed.start()
        waiting, self._waiting = self._waiting, []
        for deferred in waiting:
            deferred.callback(svid)

    @property
    def next_rotation(self) -> datetime | None:
        return self._plan.renew_at if self._plan else None

    def _tell(self, svid: X509Svid, identity: Identity, *, first: bool) -> None:
        validity = svid.validity
        self.log.info(
            "{title}:\n  Serial: {serial}\n  Issuer: {issuer}\n  Subject: {subject}\n  SAN URI: {spiffe_id}\n"
            "  Valid: {not_before} to {not_after}\n  Expires in: {expires_in}",
            event="certificate-issued",
            title="Certificate issued" if first else "New certificate issued",
            serial=serial_pairs(svid.leaf.serial_number),
            issuer=svid.leaf.issuer.rfc4514_string(),
            subject=subject_of(svid.leaf),
            spiffe_id=str(svid.spiffe_id),
            not_before=spoken_time(validity.not_before),
            not_after=spoken_time(validity.not_after),
            expires_in=spoken_duration(validity.not_after - self.now()),
        )

    def _put_off(self, error: PkiError) -> None:
        news = self.last_problem is None or str(self.last_problem) != str(error)
        self.last_problem = error
        left = self.svid.validity.not_after - self.now() if self.svid else None
        pause = renewal.backoff(self._failures, self.draw, left)
        self._failures += 1
        self._retry_at = self.clock.seconds() + pause.total_seconds()
        # The same trouble is told again only once the pauses are long.
        tell = self.log.warn if news or self._failures > _LONG_TROUBLE else self.log.debug
        tell(
            "No certificate from the CA at {ca}: {reasons}; trying again in {pause:.1f} s{meanwhile}",
            event="renewal-failed",
            ca=self.source.where,
            codes=codes(error.problems),
            reasons=reasons(error.problems),
            pause=pause.total_seconds(),
            meanwhile=""
            if left is None or left.total_seconds() <= 0
            else f" (ours is good for {spoken_duration(left)} more)",
        )


def _idle(task: "Deferred[None] | None") -> bool:
    return task is None or task.called
