"""Follows federated trust domains: asks each at its time, and keeps the last good bundle when one fails."""

import random
from collections.abc import Callable, Iterator
from datetime import datetime

from attrs import define, field
from twisted.application.service import Service
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from pki.spiffe import TrustDomain
from pki.svid.bundle import BundleSet, TrustBundle
from pki.svid.federation import Relationship
from pki.svid.refresh import Refresh
from twisted_mesh.federation.fetcher import BundleFetcher
from twisted_mesh.federation.following import Following
from twisted_mesh.runtime.clock import Now


@define(eq=False, repr=False, slots=False)
class Follower(Service):
    """Follows many trust domains. What it learns it tells; it keeps nothing on disk."""

    fetcher: BundleFetcher
    own: Callable[[], TrustBundle]
    """Our own bundle of the moment."""
    clock: IReactorTime
    now: Now
    log: Logger
    on_bundle: Callable[[TrustDomain, TrustBundle | None], object]
    """Hears what is to be believed of a trust domain from now on, whenever that is another than before; None once
    what is held has grown too old."""
    on_state: Callable[[Following], object] = lambda _: None
    """Hears how a trust domain stands after each attempt, so that it can be kept over a restart."""
    refresh: Refresh = field(factory=Refresh)
    at_once: int = 8
    """Questions under way at most."""
    draw: random.Random = field(factory=random.SystemRandom)

    def follow(
        self,
        relationship: Relationship,
        held: TrustBundle | None = None,
        fetched_at: datetime | None = None,
    ) -> None:
        """Follow it from now on, in place of what was said of that trust domain before.

        ``held`` is what was told last, or what an administrator has given; ``fetched_at`` when its server had it.
        """
        raise NotImplementedError

    def forget(self, trust_domain: TrustDomain) -> bool:
        """Follow it no more; whether it was followed. :attr:`on_bundle` is not told."""
        raise NotImplementedError

    async def refresh_now(
        self, trust_domain: TrustDomain, *, accept_older: bool = False
    ) -> Following:
        """Ask now, and have it believed; how it stands then. Raises :class:`PkiError` where that fails."""
        raise NotImplementedError

    def following(self, trust_domain: TrustDomain) -> Following | None:
        """How it stands; None where it is not followed."""
        raise NotImplementedError

    def __iter__(self) -> Iterator[Following]:
        """How each stands, by name."""
        raise NotImplementedError

    @property
    def believed(self) -> BundleSet:
        """What is to be believed of those that are followed: without what is too old."""
        raise NotImplementedError
