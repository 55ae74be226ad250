"""An agent: one identity of this process, kept fresh, with what is believed and what is revoked.

The one place where source, trust store, feed, manager and contexts are put together: mesh-server,
mesh-client and the ``mesh:`` endpoints differ in the :class:`Wanted` that they give.
"""

from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import define, evolve, field, frozen
from twisted.application.service import MultiService, Service
from twisted.internet.error import TimeoutError
from twisted.logger import Logger

from pki.errors import PkiError
from pki.keys import KeyAlgorithm
from pki.policy.join_token import JoinToken
from pki.spiffe import SpiffeId, SpiffePattern
from pki.svid.bundle import TrustBundle
from pki.svid.names import IPAddress
from pki.svid.pin import Fingerprint
from pki.svid.spki_pin import PinSet
from pki.svid.x509svid import X509Svid
from twisted_mesh.api.client import CaClient
from twisted_mesh.api.trust_question import Belief, new_instance
from twisted_mesh.identity.bootstrap import saved_svid
from twisted_mesh.identity.manager import CertificateManager
from twisted_mesh.identity.provider import IProvider, IssuerCheck
from twisted_mesh.identity.proving import Proving
from twisted_mesh.identity.sources import CaSource
from twisted_mesh.interfaces import IReactor
from twisted_mesh.revocation.crl_numbers import crl_numbers_path
from twisted_mesh.revocation.crl_watch import CrlWatch
from twisted_mesh.revocation.feed import Feed
from twisted_mesh.revocation.options import RevocationOptions
from twisted_mesh.revocation.stapler import Stapler
from twisted_mesh.runtime.clock import wall_clock
from twisted_mesh.runtime.log import logger
from twisted_mesh.runtime.tasks import within
from twisted_mesh.state.memory import Memory
from twisted_mesh.tls.contexts import ContextFactory, Role
from twisted_mesh.tls.security import PeerCheck, Security
from twisted_mesh.tls.stapling import Staples
from twisted_mesh.trust.connections import ConnectionRegistry
from twisted_mesh.trust.freshness import Freshness
from twisted_mesh.trust.judge import Judge
from twisted_mesh.trust.log_witness import LogWitness, witness_path
from twisted_mesh.trust.store import TrustStore
from twisted_mesh.trust.trust import Trust

if TYPE_CHECKING:
    from pki.ct.receipt import SctDemand
    from twisted_mesh.trust.peer_policy import PeerPolicy


@frozen
class Wanted:
    """Which identity is asked for, and how it is kept."""

    spiffe_id: SpiffeId | None
    """None for the default one of a provider; a CA has to be told."""
    state_dir: Path
    """Where what must outlive the process is kept."""
    dns_names: tuple[str, ...] = ()
    ip_addresses: tuple[IPAddress, ...] = ()
    ttl: timedelta | None = None
    """How long certificates live; None for what the CA gives."""
    algorithm: KeyAlgorithm = KeyAlgorithm.EC_P256
    rotate_at: float = 0.5
    """The share of a certificate's life after which it is renewed."""
    token: JoinToken | None = field(default=None, repr=False)
    """What buys the first certificate."""
    freshness: Freshness = field(factory=Freshness)
    revocation: RevocationOptions = field(factory=RevocationOptions)
    """Who is heard about revocation besides the CA."""
    pins: PinSet = field(factory=PinSet)
    """By which CA keys peers must be vouched for besides."""
    proving: Proving | None = field(default=None, eq=False, repr=False)
    """What buys the first certificate in place of a token, and others where the CA wants it."""
    policy: "PeerPolicy | None" = None
    """What must allow peers besides."""
    requires_pq: bool = False
    """Whether keys are exchanged with peers by hybrid groups alone."""
    demand: "SctDemand | None" = None
    """Of how many logs peers' certificates must have receipts besides."""

    @property
    def named(self) -> SpiffeId:
        """Whose identity it is, where a CA is told that."""
        if self.spiffe_id is None:
            raise AssertionError("a CA has to be told which identity is wanted")
        return self.spiffe_id


@define(eq=False, repr=False)
class Agent:
    """Obtains, renews and presents one identity, and judges whoever it meets.

    ``client`` reaches the CA, or is who gives an identity in its place. ``allow`` is the widest that
    anybody may be who connects; a :meth:`security` may be narrower. Nothing is asked before :meth:`start`.
    """

    client: CaClient | IProvider
    wanted: Wanted
    reactor: IReactor
    allow: tuple[SpiffePattern, ...]
    serves: bool = True
    connects: bool = True
    log: Logger = field(factory=lambda: logger("agent"))
    retries: Callable[[PkiError, float], bool] = lambda error, pause: True
    """As :attr:`CertificateManager.retries`."""
    instance: str = field(factory=new_instance)
    """By which the CA tells this one from others of the same ID."""
    trust_store: TrustStore = field(init=False)
    feed: Feed = field(init=False)
    manager: CertificateManager = field(init=False)
    witness: LogWitness = field(init=False)
    """Of the CA's audit log."""
    crls: CrlWatch = field(init=False)
    memories: list[Memory] = field(init=False)
    """What it remembers in files."""
    handing_on: list[Callable[[TrustBundle], bool]] = field(factory=list, init=False)
    """Whether each who hands what is believed on to others, in files say, has that bundle: no word of it before."""
    _holds: int = field(default=0, init=False)
    """The sequence of the bundle that all have."""
    _contexts: dict[bool, ContextFactory] = field(init=False)
    """By whether they are a server's."""
    _stapler: Stapler | None = field(default=None, init=False)
    _services: MultiService | None = field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        wanted, reactor, log = self.wanted, self.reactor, self.log
        judge = Judge(
            wall_clock,
            Trust(
                allow=self.allow,
                pins=wanted.pins,
                policy=wanted.policy,
                demand=wanted.demand,
            ),
            wanted.freshness,
        )
        who = f"{self.where} {wanted.spiffe_id}"
        self.witness = LogWitness(witness_path(wanted.state_dir, who))
        self.witness.recall()
        source: CaSource | IProvider
        if isinstance(self.client, CaClient):
            source = self._ca_source(self.client, judge)
        else:
            source = self.client
            judge.freshness.doubts.append(source.doubt)
        self.wanted = evolve(wanted, token=None)  # the source forgets it once it is spent
        self._contexts = {}
        if self.connects:
            self._contexts[False] = ContextFactory(
                Role(serves=False, requires_pq=wanted.requires_pq)
            )
        if self.serves:
            staples = Staples(wall_clock)
            self._contexts[True] = ContextFactory(
                Role(serves=True, requires_pq=wanted.requires_pq), staples
            )
            if isinstance(self.client, CaClient):
                self._stapler = Stapler(self.client.ocsp, staples, reactor, wall_clock, log)
        staplers = [self._stapler] if self._stapler else []
        self.trust_store = TrustStore(
            judge, ConnectionRegistry(), reactor, wall_clock, log, staplers
        )
        numbers = crl_numbers_path(wanted.state_dir, who)
        self.crls = wanted.revocation.watch(self.trust_store, reactor, log, numbers)
        giver = "the CA" if isinstance(self.client, CaClient) else "the Workload API"
        self.feed = Feed(
            source,
            self.trust_store.update,
            judge.freshness,
            reactor,
            wall_clock,
            log,
            giver=giver,
        )
        self.manager = CertificateManager(
            source,
            self.trust_store,
            list(self._contexts.values()),
            reactor,
            wall_clock,
            log,
            wanted.algorithm,
            wanted.rotate_at,
            self.feed,
            [*(stapler.prepare for stapler in staplers), self.crls.prepare],
            retries=self.retries,
            giver=giver,
        )
        self.memories = [self.witness.memory, self.crls.numbers.memory]
        if isinstance(source, CaSource):
            self.memories.insert(1, source.kept.memory)
            source.belief = self.belief
            self.trust_store.revoked(source.kept.learnt.revoked)
        else:
            source.on_fresh, source.on_loss = self.manager.take_fresh, self.manager.give_up
        self.manager.on_change = partial(self._changed, source)

    def _changed(self, source: CaSource | IProvider, svid: X509Svid, trust: Trust) -> None:
        """That is served and believed from now on."""
        self.crls.learn(svid.intermediates, trust.bundles.all_roots)
        if isinstance(source, CaSource):
            source.serve(svid, trust)

    def _ca_source(self, client: CaClient, judge: Judge) -> CaSource:
        wanted = self.wanted
        client.heed(judge)
        source = CaSource(
            client,
            wanted.named,
            wall_clock,
            self.log,
            wanted.dns_names,
            wanted.ip_addresses,
            wanted.ttl,
            self.witness,
            wanted.token,
            saved_svid(client, wanted.state_dir, wanted.named),
            proving=wanted.proving,
        )
        if wanted.proving is not None:
            wanted.proving.demand_judged(client.address)
        source.recall()
        return source

    @property
    def ca(self) -> CaClient:
        """The CA that is asked, where the identity is one of a CA's."""
        if not isinstance(self.client, CaClient):
            raise AssertionError("the identity comes from a Workload API, and no CA is asked")
        return self.client

    @property
    def has_crls(self) -> bool:
        """Whether whoever gives the identity publishes CRLs: a CA always does, others may."""
        return isinstance(self.client, CaClient)

    @property
    def where(self) -> str:
        """The address of whoever gives the identity."""
        return str(self.client.address) if isinstance(self.client, CaClient) else self.client.where

    @property
    def svid(self) -> X509Svid | None:
        """The certificate of the moment, with its key; None before the first."""
        return self.manager.svid

    def belief(self) -> Belief | None:
        """What is believed and served now, for the CA; None before there is an identity."""
        svid, trust = self.svid, self.trust_store.trust
        bundle = None if svid is None else trust.bundles.get(svid.spiffe_id.trust_domain)
        if bundle is None:
            return None
        if all(has_it(bundle) for has_it in self.handing_on):
            self._holds = bundle.sequence
        top = self.manager.top
        return Belief(self.instance, self._holds, "" if top is None else str(Fingerprint.of(top)))

    def tell_belief(self) -> None:
        """Whoever hands a bundle on has it now: the CA hears of it at once."""
        if self.svid is not None:
            self.feed.renew()

    @property
    def services(self) -> tuple[Service, ...]:
        """What runs, in the order in which it starts: for a service of Twisted that has it for children."""
        return self.trust_store, self.feed, self.manager

    def security(self, *, serves: bool, **more: Any) -> Security:
        """What a listener's connections (``serves``) or a client's are secured by; ``more`` as its fields."""
        return Security(
            self._contexts[serves],
            self.trust_store.judge,
            self.reactor,
            self.trust_store.registry,
            self.log,
            peer_check=self._peer_check(),
            **more,
        )

    def _peer_check(self) -> PeerCheck | None:
        checker = self.wanted.revocation.checker(self.trust_store, self.reactor, self.log)
        if isinstance(self.client, CaClient):
            return checker
        return IssuerCheck(self.client, self.trust_store, checker)

    def start(self) -> None:
        """Ask for the first certificate, and look after it from now on, where it is nobody's child."""
        if self._services is None:
            self._services = MultiService()
            for service in self.services:
                service.setServiceParent(self._services)
            self._services.startService()

    async def ready(self, seconds: float | None = None) -> X509Svid:
        """The first certificate, however long that takes, or within so many seconds.

        Raises :class:`PkiError`: why there was none in that time.
        """
        if seconds is None:
            return await self.manager.ready()
        try:
            return await within(self.reactor, seconds, self.manager.ready())
        except TimeoutError:
            raise self.manager.last_problem or self.client.too_slow() from None

    async def stop(self) -> None:
        """Ask no more, and keep what the next start is to remember. Open connections are not judged again."""
        services, self._services = self._services, None
        if services is not None:
            await services.stopService()
        self.close()
        self.witness.remember()

    def close(self) -> None:
        """Stop what is no service: staples, CRLs, and the stream of a provider."""
        if self._stapler is not None:
            self._stapler.stop()
        self.crls.stop()
        if not isinstance(self.client, CaClient):
            self.client.close()
