"""The trust store: what an endpoint believes now, and the one door by which that changes.

Whoever learns of something that changes it says so here: a feed, a CRL, an OCSP responder, a
federated domain's bundle, a configuration. What must hold in every case holds here: bundles are
replaced one trust domain at a time, what uses them is made ready before they count, and open
connections are judged again.
"""

import base64
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Protocol

from attrs import define, evolve, field
from cryptography import x509
from twisted.application.service import Service
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from pki.keys import key_id
from pki.spiffe import SpiffePattern, TrustDomain
from pki.svid.bundle import BundleSet, TrustBundle
from pki.svid.pin import Fingerprint
from pki.svid.revocation_set import Revocation
from pki.svid.spki_pin import PinSet, SpkiHash
from pki.svid.x509svid import extension, subject_of
from twisted_mesh.interfaces import Identity, IRevocationListener, TrustUpdate
from twisted_mesh.runtime.clock import Now
from twisted_mesh.runtime.tasks import Ticker
from twisted_mesh.trust.connections import ConnectionRegistry
from twisted_mesh.trust.freshness import Freshness
from twisted_mesh.trust.judge import Judge
from twisted_mesh.trust.pin_log import PinLog
from twisted_mesh.trust.reviewer import Reviewer
from twisted_mesh.trust.trust import Trust

if TYPE_CHECKING:
    from pki.ct.receipt import SctDemand
    from twisted_mesh.trust.peer_policy import PeerPolicy

#: Seconds between two looks at the clock: for peers whose certificates have ended, and for stale revocations.
TICK = 0.2


class BundleUser(Protocol):
    """Whoever has made something of the believed roots: TLS contexts, say."""

    def prepare(self, trust: Trust) -> Callable[[], None] | None:
        """Make it anew for ``trust``, and change nothing yet. Raises nothing that is expected.

        What is returned puts it to use; None is a veto: nothing changes then, unless that would keep a root
        that is revoked.
        """


def _listed(listeners: Sequence[IRevocationListener]) -> list[IRevocationListener]:
    return [*listeners]


@implementer(IRevocationListener)
@define(eq=False, repr=False, slots=False)
class TrustStore(Service):
    """What is believed, who is connected by it, and who wants to know.

    While it runs it watches the clock: whoever rests on a certificate that has ended is judged again.
    """

    judge: Judge
    registry: ConnectionRegistry
    clock: IReactorTime
    now: Now
    log: Logger
    listeners: list[IRevocationListener] = field(factory=list, converter=_listed)
    """They hear what is revoked, each thing once, after it is believed."""
    users: list[BundleUser] = field(factory=list, init=False)
    _reviewer: Reviewer = field(init=False)
    """The only one that changes what the judge believes."""
    _federated: set[TrustDomain] = field(factory=set, init=False)
    """Those whose bundle came by :meth:`believe_bundle`: no source takes it away by leaving it out."""
    _withdrawn: frozenset[str] = field(default=frozenset(), init=False)
    """Pins that were withdrawn when it was last said which: for pins that are still to come."""
    _withdrawn_logs: frozenset[str] = field(default=frozenset(), init=False)
    """All logs that ever were: a list that is read again does not bring one back."""
    _pin_log: PinLog = field(init=False)
    _ticker: Ticker = field(init=False)
    _asked_at: float = field(default=0.0, init=False)
    """When those who are connected are judged again by a policy that reads the time, on the clock."""

    def __attrs_post_init__(self) -> None:
        self._reviewer = Reviewer(self.judge, self.registry, self.clock, self.log, self.now)
        self._pin_log = PinLog(self.log)
        self.judge.pin_watch = self._pin_log.see
        self._ticker = Ticker(self.clock, TICK, self._look_at_the_clock, "the review", self.log)

    def startService(self) -> None:
        """Watch the clock from now on."""
        super().startService()
        self._pin_log.begin(self.trust.pins, self.trust.allow, self.now())
        self._tell_demand()
        self._ticker.start()

    def stopService(self) -> None:
        """Watch it no more; what is believed stays."""
        super().stopService()
        self._ticker.stop()

    @property
    def trust(self) -> Trust:
        """What is believed now; immutable, and another object whenever that changes."""
        return self.judge.trust

    @property
    def freshness(self) -> Freshness:
        """How old what is known of revocations is."""
        return self.judge.freshness

    def revoked(self, revocations: Sequence[Revocation]) -> None:
        """Believe these revoked from now on, and cut whoever is connected by them."""
        trust = self.trust
        merged = trust.revocations.merged(revocations, self.now())
        if revocations and merged is not trust.revocations:
            self._reviewer.believe(evolve(trust, revocations=merged), revocations)
            for listener in self.listeners:
                listener.revoked(revocations)

    def allow(self, patterns: Sequence[SpiffePattern]) -> None:
        """Let these in from now on and nobody else, and cut whoever is connected and no longer may."""
        self._reviewer.believe(evolve(self.trust, allow=tuple(patterns)))

    def pin(self, pins: PinSet) -> None:
        """Hold peers to these pins from now on and no others, and judge those again whom they are about.

        What was withdrawn stays so.
        """
        withdrawn = self.trust.pins.withdrawn.union(map(SpkiHash.parse, self._withdrawn))
        narrowed = pins.narrowed(withdrawn)
        self._pin_log.begin(narrowed, self.trust.allow, self.now())
        self._pin_log.announced(narrowed, self.trust.bundles)
        self._reviewer.believe(evolve(self.trust, pins=narrowed))

    def require_scts(self, demand: "SctDemand | None") -> None:
        """Demand these receipts of peers from now on, and judge everybody again. What was withdrawn stays so."""
        if demand is not None:
            demand = demand.narrowed(_log_ids(self._withdrawn_logs))
        if demand == self.trust.demand:
            return
        self._reviewer.believe(evolve(self.trust, demand=demand))
        self._tell_demand()

    def follow_receipts(self, saw: Callable[[Sequence[x509.Certificate]], None]) -> None:
        """Tell ``saw`` of each path, leaf first, by which a peer is let in that has shown the receipts demanded."""
        self.judge.sct_watch = lambda _, verdict: saw(verdict.path)

    def withdraw_logs(self, logs: frozenset[str]) -> None:
        """Count no receipt of these logs any more, by their ids in base64: nothing ever brings one back."""
        if logs <= self._withdrawn_logs:
            return
        self._withdrawn_logs |= logs
        before = self.trust.demand
        if before is None:
            return
        now = before.narrowed(_log_ids(logs))
        if now is not before:
            from twisted_mesh.trust import sct_log

            self._reviewer.believe(evolve(self.trust, demand=now))
            sct_log.narrowed(before, now, self.log)

    def _tell_demand(self) -> None:
        if self.trust.demand is not None:
            from twisted_mesh.trust import sct_log

            sct_log.begin(self.trust.demand, self.log)

    def govern(self, policy: "PeerPolicy") -> None:
        """Have this policy asked from now on, and cut whoever is connected and whom it does not allow."""
        self._reviewer.believe(evolve(self.trust, policy=policy))

    def withdraw(self, pins: frozenset[str]) -> None:
        """Rely on none of these any more, as ``sha256/BASE64``: nothing ever widens pins again."""
        if pins == self._withdrawn:
            return
        self._withdrawn = pins
        narrowed = self.trust.pins.narrowed(map(SpkiHash.parse, pins))
        if narrowed is not self.trust.pins:
            self._reviewer.believe(evolve(self.trust, pins=narrowed))
            self._pin_log.lost(narrowed)

    def review(self) -> None:
        """Judge everybody again: what a listener demands of its peers besides has changed."""
        self._reviewer.review()

    def believe_bundle(self, bundle: TrustBundle) -> bool:
        """Believe it in place of what was believed of its trust domain; whether it is believed now.

        It stays until it is replaced or forgotten, whatever a source says of other trust domains.
        """
        is_believed = self._believe_bundles(self.trust.bundles.with_bundle(bundle))
        if is_believed:
            self._federated.add(bundle.trust_domain)
        return is_believed

    def forget(self, trust_domain: TrustDomain) -> bool:
        """Believe nobody of that trust domain any more; whether that is so now."""
        is_forgotten = self._believe_bundles(self.trust.bundles.without(trust_domain))
        if is_forgotten:
            self._federated.discard(trust_domain)
        return is_forgotten

    def update(self, update: TrustUpdate) -> bool:
        """Believe what a source says; whether that changed anything."""
        if update.issuers is not None:
            # Before the bundles: who rests on a root that goes may rest on another one by these.
            knowing = self.trust.with_beside(update.issuers.values(), update.bundles)
            if knowing is not self.trust:
                self._reviewer.believe(knowing)
        before = self.trust
        self.revoked(update.revocations)
        self.withdraw(update.withdrawn_pins)
        self.withdraw_logs(update.withdrawn_logs)
        if update.bundles is not None:
            _ = self._believe_bundles(self.merged(update.bundles))
        return self.trust is not before

    def merged(self, bundles: BundleSet) -> BundleSet:
        """What is believed if that is all a source has to say: its bundles, and those from elsewhere."""
        merged = self.trust.bundles
        for trust_domain in merged.bundles.keys() - bundles.bundles.keys() - self._federated:
            merged = merged.without(trust_domain)
        return _joined(merged, bundles)

    def trust_with(self, identity: Identity, told: BundleSet | None) -> Trust:
        """What is to be believed with an identity: its bundles, and the issuing CA above it.

        ``told`` is what its source has said since it was asked for the identity: that is the newer, and nobody says it
        again. A source that takes away every root of our own trust domain is not heard.
        """
        before, ours = (
            self.trust,
            None if told is None else told.get(identity.svid.spiffe_id.trust_domain),
        )
        if told is not None and ours is not None and ours.roots:
            bundles = self.merged(told)
        elif identity.is_of_all:
            bundles = self.merged(identity.bundles)
        else:
            bundles = _joined(before.bundles, identity.bundles)
        issuers = (
            extension(cert, x509.SubjectKeyIdentifier) for cert in identity.svid.intermediates
        )
        # Those from before too: peers have leaves of the last issuing CA for a while.
        known = before.known_issuers | {found.digest for found in issuers if found is not None}
        return evolve(before, bundles=bundles, known_issuers=known)

    def believe(self, trust: Trust, by: BundleUser) -> None:
        """Believe ``trust`` from now on, for which ``by`` is ready.

        What other users cannot make anew stays as it is: OpenSSL's roots, which are the second veto.
        """
        others = [user.prepare(trust) for user in self.users if user is not by]
        self._switch(trust, [switch for switch in others if switch is not None])

    def _believe_bundles(self, bundles: BundleSet) -> bool:
        """Believe them if whoever uses them can; whether they are what is believed now.

        Where that is not so of one trust domain, it keeps no other from being replaced or forgotten.
        """
        if self._believe_at_once(bundles):
            return True
        before = self.trust.bundles
        domains = before.bundles.keys() | bundles.bundles.keys()
        others = [at for at in sorted(domains) if before.get(at) != bundles.get(at)]
        for trust_domain in others if len(others) > 1 else ():
            bundle, now = bundles.get(trust_domain), self.trust.bundles
            one = now.without(trust_domain) if bundle is None else now.with_bundle(bundle)
            _ = self._believe_at_once(one)
        return bundles == self.trust.bundles

    def _believe_at_once(self, bundles: BundleSet) -> bool:
        """Believe all of them or change nothing; which of both."""
        if bundles == self.trust.bundles:
            return True
        trust = evolve(self.trust, bundles=bundles)
        switches = [user.prepare(trust) for user in self.users]
        if None in switches and not self._ends_a_revoked_root(bundles):
            return False
        self._switch(trust, [switch for switch in switches if switch is not None])
        return True

    def _ends_a_revoked_root(self, bundles: BundleSet) -> bool:
        """Whether a root is believed now and not by ``bundles`` which is revoked: nobody's veto keeps that."""
        kept = set(bundles.all_roots)
        revocations = self.trust.revocations
        return any(
            revocations.find(key_id(root.public_key()), root.serial_number)
            for root in self.trust.bundles.all_roots
            if root not in kept
        )

    def _switch(self, trust: Trust, switches: Sequence[Callable[[], None]]) -> None:
        for switch in switches:
            switch()
        self._tell_roots(self.trust.bundles, trust.bundles)
        self._reviewer.believe(trust)
        self._pin_log.announced(trust.pins, trust.bundles)

    def _tell_roots(self, before: BundleSet, after: BundleSet) -> None:
        """Say which roots come and go, of trust domains that were believed already."""
        for bundle in after:
            known = before.get(bundle.trust_domain)
            if known is None or not known.roots:
                continue
            for root in set(bundle.roots) - set(known.roots):
                self.log.info(
                    "Another root of {trust_domain} is believed from now on: {subject} ({root})",
                    event="root-believed",
                    **_facts(bundle.trust_domain, root),
                )
            for root in set(known.roots) - set(bundle.roots):
                self.log.info(
                    "A root of {trust_domain} is believed no more: {subject} ({root})",
                    event="root-gone",
                    **_facts(bundle.trust_domain, root),
                )

    def _look_at_the_clock(self) -> None:
        now = self.now()
        self._pin_log.look(self.trust.pins, now)
        self._reviewer.look_at_the_clock(now)
        policy = self.trust.policy
        if policy is not None and policy.reads_time and self.clock.seconds() >= self._asked_at:
            self._asked_at = self.clock.seconds() + policy.lasts.total_seconds()
            self.review()


def _log_ids(texts: Iterable[str]) -> frozenset[bytes]:
    return frozenset(map(base64.b64decode, texts))


def _joined(before: BundleSet, bundles: BundleSet) -> BundleSet:
    for bundle in bundles:
        before = before.with_bundle(bundle)
    return before


def _facts(trust_domain: TrustDomain, root: x509.Certificate) -> dict[str, str]:
    return {
        "trust_domain": str(trust_domain),
        "subject": subject_of(root),
        "root": str(Fingerprint.of(root)),
    }
