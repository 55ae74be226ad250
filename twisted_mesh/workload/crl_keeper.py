"""The CRLs beside a trust domain's bundle: of its root and of all its issuing CAs, or none at all.

Given any CRL, whoever checks by them (Envoy, OpenSSL with ``CRL_CHECK_ALL``) wants a fresh one of each issuer of a
chain. So where one is missing, cannot be believed or has ended there are none: peers are then judged without, and
the life of a certificate is what remains, until the CA answers again.
"""

import random
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime

from attrs import define, field
from cryptography import x509
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.threads import deferToThread

from pki import renewal
from pki.errors import PkiError
from pki.svid.bundle import TrustBundle
from pki.svid.revocation_set import RevocationSet
from pki.svid.x509svid import X509Svid
from twisted_mesh.api.messages import PublishedCrls
from twisted_mesh.revocation.crl_set import CrlSet, read_crls
from twisted_mesh.runtime.clock import Now
from twisted_mesh.runtime.log import logger, reasons
from twisted_mesh.runtime.tasks import Defer, spawn

_log = logger("workload")

#: Seconds after which they are fetched at the latest, and the share of what they have left after which they are.
_LONGEST, _SHARE = 3600.0, 2 / 3
#: Seconds until the next question where something revoked is not on a list yet: the CA makes one in a moment.
_BEHIND = 0.3
#: So many questions for the first list of a CA that was just made; it may never have one, if its key has gone.
_MOMENTS = 10


@define(eq=False)
class CrlKeeper:
    """Fetches them anew whenever something is revoked, a CA is new, or their end comes near."""

    fetch: Callable[[], Awaitable[PublishedCrls]]
    changed: Callable[[], None]
    clock: IReactorTime
    now: Now
    defer: Defer = deferToThread
    draw: random.Random = field(factory=random.SystemRandom)
    _found: CrlSet | None = field(default=None, init=False)
    _lists: tuple[bytes, ...] = field(default=(), init=False)
    _fetched_for: tuple[RevocationSet, tuple[object, ...]] | None = field(default=None, init=False)
    _again_at: float = field(default=0.0, init=False)
    _failures: int = field(default=0, init=False)
    _missing: int = field(default=0, init=False)
    """So many times in a row there was no list of a CA that is known."""
    _fetching: "Deferred[None] | None" = field(default=None, init=False)

    @property
    def lists(self) -> Sequence[bytes]:
        """In DER; none where there is not one of each, or one has ended."""
        return self._lists

    def look(
        self,
        svid: X509Svid,
        bundle: TrustBundle,
        revocations: RevocationSet,
        beside: Sequence[x509.Certificate] = (),
    ) -> None:
        """See whether they are to be fetched, or have ended; to be called again and again.

        ``svid`` is one of that trust domain: the CAs of its chain must have a list each. Those of ``beside`` should,
        before the first certificate of theirs is met.
        """
        if self._found is not None and self.now() >= self._found.next_update:
            self._found = None
            self._set(())
            _log.warn(
                "A CRL of {trust_domain} has ended before there was another: workloads are told none",
                event="workload-crls-ended",
                trust_domain=str(bundle.trust_domain),
            )
        known = revocations, (*svid.intermediates, *bundle.roots, *beside)
        seconds = self.clock.seconds()
        is_new = self._fetched_for is None or (
            self._fetched_for[0] is not known[0] or self._fetched_for[1] != known[1]
        )
        is_due = seconds >= self._again_at or (is_new and not self._failures)
        if is_due and (self._fetching is None or self._fetching.called):
            self._fetched_for = known
            self._fetching = spawn(
                self._fetch(svid, bundle, revocations, beside), "the CRLs of workloads", _log
            )

    def stop(self) -> None:
        """Fetch no more."""
        if self._fetching is not None:
            self._fetching.cancel()

    async def _fetch(
        self,
        svid: X509Svid,
        bundle: TrustBundle,
        revocations: RevocationSet,
        beside: Sequence[x509.Certificate],
    ) -> None:
        now = self.now()
        try:
            answer = await self.fetch()
            found: CrlSet = await self.defer(read_crls, answer, bundle, svid, now, self._found)
        except CancelledError:
            raise
        except PkiError as error:
            pause = renewal.backoff(self._failures, self.draw).total_seconds()
            self._failures += 1
            self._again_at = self.clock.seconds() + pause
            (_log.warn if self._failures == 1 else _log.debug)(
                "The CRLs for workloads are not up to date: {reasons}; trying again in {pause:.1f} s",
                event="workload-crls-failed",
                reasons=reasons(error.problems),
                pause=pause,
            )
            return
        self._failures, self._found = 0, found
        is_missing = found.misses(beside) and self._missing < _MOMENTS
        self._missing = self._missing + 1 if is_missing else 0
        pause = _BEHIND if is_missing else self._pause(found, revocations, now)
        self._again_at = self.clock.seconds() + pause
        self._set(tuple(one.der for one in found.lists))

    def _pause(self, found: CrlSet, revocations: RevocationSet, now: datetime) -> float:
        if found.lacks(revocations, now):
            return _BEHIND
        left = max(0.0, (found.next_update - now).total_seconds())
        return min(_LONGEST, left * _SHARE) * (0.9 + self.draw.random() / 10)

    def _set(self, lists: tuple[bytes, ...]) -> None:
        if lists != self._lists:
            self._lists = lists
            self.changed()
