"""Revocation across trust domains: the CRLs of those that are federated with, each from the URL that was configured.

Never from one that a certificate names. Where a URL is configured, nobody of that trust domain is believed while it is
not known whom its CA has revoked: no list was read yet, or the last one is stale.
"""

from collections.abc import Callable, Collection, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Protocol

from attrs import define, evolve, field
from cryptography import x509
from twisted.application.service import Service
from twisted.internet.interfaces import IReactorTime

from pki.codes import Code
from pki.errors import Problem
from pki.spiffe import TrustDomain
from pki.svid.bundle import TrustBundle
from pki.svid.federation import Relationship
from pki.svid.revocation_set import Revocation, RevocationSet
from twisted_mesh.runtime.clock import Now
from twisted_mesh.runtime.log import logger
from twisted_mesh.runtime.tasks import Ticker

if TYPE_CHECKING:
    from twisted_mesh.revocation.crl_watch import CrlWatch

_log = logger("federation")

#: Revocations of one trust domain that are told on: each endpoint that federates with it remembers them all.
MOST_REVOKED = 10_000
#: Seconds between two looks whether a list has grown stale.
_TICK = 1.0


class MakeWatch(Protocol):
    """:func:`twisted_mesh.ca.foreign_lists.watch_of`, which loads much that most CAs never need."""

    def __call__(
        self,
        url: str,
        revoke: Callable[[Sequence[Revocation]], None],
        known: Callable[[], RevocationSet],
        roots: Callable[[], Sequence[x509.Certificate]],
    ) -> "CrlWatch":
        """What follows the lists at that URL, of CAs that one of ``roots`` has certified, and tells ``revoke``."""


@define(eq=False, repr=False)
class _Followed:
    """The lists of one trust domain."""

    url: str
    watch: "CrlWatch"
    roots: tuple[x509.Certificate, ...]
    revoked: RevocationSet = field(factory=RevocationSet)
    issuers: set[str] = field(factory=set)
    """Whose lists these are."""
    told: tuple[Revocation, ...] | None = None
    """The same in a row; None until somebody asks."""
    was_in_doubt: bool = True

    @property
    def is_too_long(self) -> bool:
        return len(self.revoked) > MOST_REVOKED


@define(eq=False, repr=False, slots=False)
class ForeignCrls(Service):
    """Follows them while it runs."""

    make_watch: MakeWatch
    clock: IReactorTime
    now: Now
    _watching: list[Callable[[], None]] = field(factory=list, init=False)
    _followed: dict[TrustDomain, _Followed] = field(factory=dict, init=False)
    _ticker: Ticker = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._ticker = Ticker(self.clock, _TICK, self._look, "the CRLs of others", _log)

    def watch(self, changed: Callable[[], None]) -> None:
        """Have ``changed`` called when others are revoked, and when it is known again, or no more, who is."""
        self._watching.append(changed)

    def startService(self) -> None:
        """Read them from now on."""
        super().startService()
        self._ticker.start()
        for followed in self._followed.values():
            followed.watch.begin(followed.roots)

    def stopService(self) -> None:
        """Read them no more."""
        super().stopService()
        self._ticker.stop()
        for followed in self._followed.values():
            followed.watch.stop()

    async def ready(self) -> None:
        """Wait until all lists have been looked at once, and not for long: who is believed is not to flicker."""
        for followed in tuple(self._followed.values()):
            await followed.watch.first_looks()

    def follow(self, relationship: Relationship, bundle: TrustBundle | None) -> None:
        """Read the lists of that trust domain, whose roots are those of ``bundle``; none where no URL is configured."""
        url, roots = relationship.crl_url, () if bundle is None else bundle.roots
        known = self._followed.get(relationship.trust_domain)
        if known is not None and known.url != url:
            self.forget(relationship.trust_domain)
            known = None
        if url is None:
            return
        if known is None:
            known = self._begun(url, roots)
            self._followed[relationship.trust_domain] = known
        known.roots = roots
        if self.running:
            known.watch.begin(roots)

    async def look_now(self, trust_domain: TrustDomain) -> None:
        """Read its lists at once; what comes of it :meth:`problem` says."""
        followed = self._followed.get(trust_domain)
        if followed is not None:
            await followed.watch.look_now()

    def forget(self, trust_domain: TrustDomain) -> None:
        """Read its lists no more."""
        followed = self._followed.pop(trust_domain, None)
        if followed is not None:
            followed.watch.stop()

    def problem(self, trust_domain: TrustDomain) -> Problem | None:
        """Why it is not known whom the CA of that trust domain has revoked; None where it is, or no list is to say."""
        followed = self._followed.get(trust_domain)
        if followed is None:
            return None
        doubt = followed.watch.doubt()
        if doubt is not None:
            remedy = (
                f"see that {followed.url} has it; nobody of {trust_domain} is believed until then"
            )
            return evolve(doubt, remedy=remedy)
        if followed.is_too_long:
            return Problem(
                Code.TOO_LARGE,
                f"the CRL of {trust_domain} lists {len(followed.revoked)}, more than the {MOST_REVOKED} that are told "
                "on",
                f"federate without --crl-url, or have {trust_domain} issue certificates that live for less",
            )
        return None

    def revocations(self, trust_domains: Collection[TrustDomain]) -> tuple[Revocation, ...]:
        """What the CAs of these have revoked, as far as a list is to say."""
        found: list[Revocation] = []
        for trust_domain in sorted(trust_domains):
            followed = self._followed.get(trust_domain)
            if followed is not None and not followed.is_too_long:
                if followed.told is None:
                    revoked = (followed.revoked.of(issuer) for issuer in sorted(followed.issuers))
                    followed.told = tuple(chain.from_iterable(revoked))
                found += followed.told
        return tuple(found)

    def all_revocations(self) -> tuple[Revocation, ...]:
        """What all of them have revoked, as far as a list is to say."""
        return self.revocations(self._followed.keys())

    def _begun(self, url: str, roots: tuple[x509.Certificate, ...]) -> _Followed:
        def revoke(news: Sequence[Revocation]) -> None:
            followed.revoked = followed.revoked.merged(news, self.now())
            followed.issuers.update(revocation.issuer for revocation in news)
            followed.told = None
            if news:
                self._changed()

        watch = self.make_watch(
            url, revoke, known=lambda: followed.revoked, roots=lambda: followed.roots
        )
        followed = _Followed(url, watch, roots)
        return followed

    def _changed(self) -> None:
        for changed in self._watching:
            changed()

    def _look(self) -> None:
        """A list grows stale without anybody telling us, and what it lists ends."""
        is_other = False
        for trust_domain, followed in self._followed.items():
            in_doubt = self.problem(trust_domain) is not None
            is_other |= in_doubt != followed.was_in_doubt
            followed.was_in_doubt = in_doubt
        if is_other:
            self._changed()
