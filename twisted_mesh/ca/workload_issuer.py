"""The CA as the issuer for the workloads of its own machine: what entries without a parent buy them."""

from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import partial

from attrs import define, evolve, field
from twisted.application.service import Service
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from pki.codes import Code
from pki.errors import PkiError
from pki.issuing.csr import build_csr
from pki.keys import KeyAlgorithm, MemoryKey, key_id
from pki.policy.entry import RegistrationEntry
from pki.policy.policy import Forbidden
from pki.policy.principal import Principal, anonymous
from pki.policy.selector import Selector, values_of
from pki.spiffe import SpiffeId, TrustDomain
from pki.svid.bundle import BundleSet
from pki.svid.revocation_set import RevocationSet
from pki.svid.x509svid import X509Svid
from twisted_mesh.ca.parts import CaParts
from twisted_mesh.ca.policy.source import WORKLOADS
from twisted_mesh.ca.published_trust import Published
from twisted_mesh.identity.own_source import new_key
from twisted_mesh.runtime.log import logger
from twisted_mesh.runtime.tasks import Ticker
from twisted_mesh.runtime.watchers import Watchers
from twisted_mesh.trust.trust import Trust
from twisted_mesh.workload.interface import Bundles, IWorkloadIssuer, JwtSvid, Sources
from twisted_mesh.workload.names import names_of
from twisted_mesh.workload.standing import IssuersStanding, as_served

_log = logger("workload")

#: Seconds between two looks at the bundle and the CRLs.
_TICK = 0.2


class SignsNoTokens(PkiError):
    """This CA keeps no keys for JWT-SVIDs."""

    code = Code.CONFLICT


@implementer(IWorkloadIssuer)
@define(eq=False, repr=False, slots=False)
class CaWorkloadIssuer(Service):
    """Signs by the same steps as for whoever comes to the CA's socket: permitted, recorded, signed."""

    ca: CaParts
    revocations: Callable[[], RevocationSet]
    """All that is known; another one with each."""
    clock: IReactorTime
    agent: str | None = None
    _sources: Sources = field(init=False)
    _bundles: BundleSet | None = field(default=None, init=False)
    _lists: tuple[bytes, ...] = field(default=(), init=False)
    _told: tuple[Published, Trust] | None = field(default=None, init=False)
    _standing: IssuersStanding = field(factory=IssuersStanding, init=False)
    _watchers: Watchers = field(factory=Watchers, init=False)
    _unwatch: Callable[[], None] = field(default=lambda: None, init=False)
    _ticker: Ticker = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._sources = Sources(self._entries())
        self._ticker = Ticker(self.clock, _TICK, self._look, "the CA's workloads", _log)

    @property
    def trust_domain(self) -> TrustDomain:
        """The CA's own."""
        return self.ca.trust_domain

    def startService(self) -> None:
        """Tell of entries, bundles and CRLs from now on."""
        super().startService()
        self._unwatch = self.ca.entries.watch(self._entries_changed)
        self._entries_changed()
        self._ticker.start()

    def stopService(self) -> None:
        """Tell no more."""
        super().stopService()
        self._unwatch()
        self._ticker.stop()

    def sources(self) -> Sources:
        """Those of this moment."""
        return self._sources

    def watch(self, changed: Callable[[], None]) -> Callable[[], None]:
        """Have ``changed`` called after each change."""
        return self._watchers.add(changed)

    def is_revoked(self, svid: X509Svid) -> bool:
        """Whether it is on record as that."""
        issuers = svid.intermediates[:1] or (self.ca.authorities.root,)
        serial = svid.leaf.serial_number
        return any(
            self.ca.publisher.find(key_id(issuer.public_key()), serial) is not None
            for issuer in issuers
        ) or self._standing.is_cut_off(svid, self._trust(), self.ca.now())

    def as_served(self, svid: X509Svid) -> X509Svid:
        """By the path that is told to everybody."""
        told = self.ca.published.issuers
        return as_served(svid, told, self._trust(), self.ca.now(), _log)

    def _trust(self) -> Trust:
        """What all are told to believe of CAs."""
        published = self.ca.published
        if self._told is None or self._told[0] is not published:
            revoked = RevocationSet().merged(published.revoked_authorities, self.ca.now())
            self._told = published, Trust(published.bundles, revoked)
        return self._told[1]

    async def issue(
        self, entry: RegistrationEntry, selectors: frozenset[Selector], algorithm: KeyAlgorithm
    ) -> X509Svid:
        """A fresh key and its certificate. Raises :class:`PkiError`."""
        key: MemoryKey = await new_key(algorithm)
        spiffe_id = SpiffeId.parse(str(entry.spiffe_id.fill(selectors)))
        csr = build_csr(key, spiffe_id, *names_of(entry))
        issued = await self.ca.certificates.sign_by(
            _principal(selectors), entry, csr, str(spiffe_id), WORKLOADS
        )
        return X509Svid.assemble(issued.chain, key)

    async def issue_jwt(
        self,
        entry: RegistrationEntry,
        selectors: frozenset[Selector],
        audience: Sequence[str],
        ttl: timedelta | None,
    ) -> JwtSvid:
        """A token. Raises :class:`PkiError`."""
        if self.ca.jwt is None:
            raise SignsNoTokens("this CA signs no JWT-SVIDs: it keeps no keys in files")
        look_again = partial(self._demand_there, entry)
        made = await self.ca.jwt.issue(
            *(_principal(selectors), entry, selectors, audience, ttl, WORKLOADS),
            look_again=look_again,
        )
        look_again()  # nobody can revoke it
        return evolve(made, hint=entry.hint)

    def _demand_there(self, entry: RegistrationEntry) -> None:
        if self.ca.entries.entry_of(entry.id) is None:
            raise Forbidden("no-entry", f"the entry {entry.id} is gone, or does not count any more")

    def _entries(self) -> Sequence[RegistrationEntry]:
        """Those that count for whoever comes to the CA itself; the oldest first, those of the file before them."""
        return tuple(
            known.entry
            for known in self.ca.entries.by_age()
            if known.is_honoured
            and known.entry.parent is None
            and known.entry.agent is None
            and not known.entry.is_of_token
        )

    def _entries_changed(self) -> None:
        found = self._entries()
        if found != self._sources.entries:
            self._say(evolve(self._sources, entries=found))

    def _look(self) -> None:
        if (published := self.ca.published) is not self._sources.paths:
            self._say(evolve(self._sources, paths=published))
        if (revocations := self.revocations()) is not self._sources.revocations:
            self._say(evolve(self._sources, revocations=revocations))
        bundles, lists = self.ca.believed_by_workloads(), self._current_lists()
        if bundles != self._bundles or lists != self._lists:
            self._bundles, self._lists = bundles, lists
            at = self.trust_domain
            jwks = {bundle.trust_domain: bundle.to_jwt_bundle() for bundle in bundles}
            told = Bundles(at, bundles, jwks, {at: lists} if lists else {})
            self._say(evolve(self._sources, bundles=told))

    def _current_lists(self) -> tuple[bytes, ...]:
        """One of each CA, all of now, or none."""
        authorities, now = self.ca.authorities, self.ca.now()
        issuers = [*authorities.roots, *(one.certificate for one in authorities.in_use)]
        found = []
        for issuer in issuers:
            current = self.ca.publisher.current(key_id(issuer.public_key()))
            if current is None or current.span.next_update <= now:
                return ()
            found.append(current.der)
        return tuple(found)

    def _say(self, sources: Sources) -> None:
        self._sources = sources
        self._watchers.tell()


def _principal(selectors: frozenset[Selector]) -> Principal:
    """Who asks, as the audit log has it: the user that the kernel has recorded."""
    uids = values_of("unix:uid", selectors)
    proof = f"unix:uid:{uids[0]}" if uids else "unix"
    return anonymous(f"{proof} at the workload socket", selectors)
