"""A CA in this process: the real store in memory, answered at once, and a signer that the test can break."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred, DeferredLock, fail, succeed
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface import implementer

from pki.audit.log import Act, LogKey
from pki.codes import Code
from pki.errors import PkiError
from pki.issuing.authority import Authority
from pki.issuing.csr import build_csr
from pki.jwt_svid.rotation import Line, Rules
from pki.keys import KeyAlgorithm, MemoryKey, PublicKey
from pki.policy.entry import EntryMembers, RegistrationEntry, read_entry
from pki.policy.lifetimes import Lifetimes
from pki.policy.principal import Principal, administrator
from pki.spiffe import SpiffeId, TrustDomain
from pki.svid.bundle import BundleSet, TrustBundle
from pki.svid.federated_document import FederatedDocument
from pki.svid.federation import Relationship
from pki.svid.revocation_set import Revocation
from tests.authorities import BACKEND, DAY, HOUR, MESH, NOW, Mesh, key, mesh
from tests.twisted_mesh.support import ThreadCalls
from twisted_mesh.attest.evidence import Evidence
from twisted_mesh.attest.interface import Means
from twisted_mesh.attest.registry import Attested, Attestors
from twisted_mesh.ca.api.authentication import Account
from twisted_mesh.ca.audit_log import AuditLog
from twisted_mesh.ca.authorities import Authorities, CurrentAuthorities
from twisted_mesh.ca.entries import RegistrationEntries
from twisted_mesh.ca.federation import Federations, OnBundle, OnState
from twisted_mesh.ca.foreign_crls import ForeignCrls
from twisted_mesh.ca.housekeeping import Housekeeping
from twisted_mesh.ca.issuance import Issuance, OwnCertificates
from twisted_mesh.ca.issuance_log import IssuanceLog
from twisted_mesh.ca.jwt_issuer import JwtIssuer
from twisted_mesh.ca.jwt_keys import JwtKeys
from twisted_mesh.ca.notifier import Notifier
from twisted_mesh.ca.parts import CaParts
from twisted_mesh.ca.policy.gate import PolicyGate
from twisted_mesh.ca.revocation.crl_publisher import CrlPublisher
from twisted_mesh.ca.revocation.ocsp_responder import OcspResponder
from twisted_mesh.ca.rotation.root_rotator import RootRotator
from twisted_mesh.ca.rotation.root_steps import RootSteps
from twisted_mesh.ca.rotation.steps import RotationSteps
from twisted_mesh.federation.follower import Follower
from twisted_mesh.interfaces import IRevocationListener
from twisted_mesh.keystores.spec import KeySpec
from twisted_mesh.limits.fair_queue import FairQueue
from twisted_mesh.limits.quota import Allowance, Quota
from twisted_mesh.runtime.log import logger
from twisted_mesh.state.directory import StateDirectory
from twisted_mesh.state.key_files import KeyFiles
from twisted_mesh.stores.opening import open_store
from twisted_mesh.stores.records import StoreError

ADMIN = administrator("unix:uid:0")
LIFETIMES = Lifetimes(HOUR, timedelta(hours=24))


@define(eq=False)
class SettledStore:
    """A store whose Deferreds have fired; ``broken`` names the commands and queries that fail."""

    store: Any
    calls: ThreadCalls
    order: list[str]
    told: list[Any] = field(factory=list)
    broken: set[str] = field(factory=set)
    is_shared: bool = False

    def start(self) -> None:
        self.store.start()

    def stop(self) -> Any:
        return self._settled("stop", self.store.stop)

    @property
    def id(self) -> str:
        return str(self.store.id)

    def apply(self, command: Any) -> Any:
        self.told.append(command)
        return self._settled(type(command).__name__, lambda: self.store.apply(command))

    def __getattr__(self, name: str) -> Callable[..., Any]:
        """A query of the store's."""
        query = getattr(self.store, name)
        return lambda *args: self._settled(name, lambda: query(*args))

    def _settled(self, what: str, ask: Callable[[], Any]) -> Any:
        self.order.append(what)
        if what in self.broken:
            return fail(StoreError("store memory: the disk is full: free some space"))
        outcome = self.calls.outcome(ask())
        return fail(outcome) if isinstance(outcome, Exception) else succeed(outcome)


@define(eq=False)
class Signer:
    """A signing key that notes when it signs, and can break."""

    key: MemoryKey
    order: list[str]
    breaks: Callable[[], bytes] | None = None
    held: "Deferred[None] | None" = None
    """What each signature waits for."""
    is_in_memory: bool = True

    @property
    def algorithm(self) -> KeyAlgorithm:
        return self.key.algorithm

    @property
    def public_key(self) -> PublicKey:
        return self.key.public_key

    async def sign(self, data: bytes) -> bytes:
        self.order.append("sign")
        if self.held is not None:
            await self.held
        return self.breaks() if self.breaks is not None else await self.key.sign(data)


@implementer(IRevocationListener)
@define(eq=False)
class Listener:
    """An endpoint: notes what it hears, and how much of it each time."""

    told: list[Revocation] = field(factory=list)
    numbers: list[int] = field(factory=list)

    def revoked(self, revocations: Sequence[Revocation]) -> None:
        self.told += revocations
        self.numbers.append(len(revocations))


@define
class JwtMemory:
    """Where JWT keys are kept, for a CA without files."""

    line: Line = field(factory=Line)
    private: dict[str, MemoryKey] = field(factory=dict)

    def load(self) -> tuple[Line, dict[str, MemoryKey]]:
        return self.line, dict(self.private)

    def save(self, line: Line) -> None:
        self.line = line

    def keep(self, kid: str, key: MemoryKey) -> None:
        self.private[kid] = key

    def remove(self, kid: str) -> None:
        self.private.pop(kid, None)


class EndpointDown(PkiError):
    code = Code.UNREACHABLE


@define(eq=False)
class Endpoints:
    """The bundle endpoints of other trust domains: what each has to say, or that it is down."""

    bundles: dict[TrustDomain, TrustBundle] = field(factory=dict)
    asked: list[TrustDomain] = field(factory=list)

    async def fetch_bundle(
        self, relationship: Relationship, bundles: BundleSet, revocations: object = None
    ) -> FederatedDocument:
        self.asked.append(relationship.trust_domain)
        if relationship.trust_domain not in self.bundles:
            raise EndpointDown(f"{relationship.url} does not answer")
        document = self.bundles[relationship.trust_domain].to_jwks()
        return FederatedDocument.parse(relationship.trust_domain, document)


def no_lists(*_: Any, **__: Any) -> Any:
    raise AssertionError("no list is followed here")


async def at_once(function: Callable[..., Any], *arguments: Any) -> Any:
    return function(*arguments)


@define(eq=False)
class CaRig:
    """The CA of ``mesh()``, at a time that the test chooses."""

    calls: ThreadCalls = field(factory=ThreadCalls)
    time: datetime = NOW
    seconds: float = 0.0
    """The steady clock."""
    order: list[str] = field(factory=list)
    """What the store and the signer were asked for."""
    endpoint: Listener = field(factory=Listener)
    home: Mesh = field(factory=mesh)
    lifetimes: Lifetimes = LIFETIMES
    directory: Path | None = None
    """Where what is published is kept."""
    notifier: Notifier | None = None
    clock: Clock = field(factory=Clock)
    """Of what follows other trust domains."""
    endpoints: Endpoints = field(factory=Endpoints)
    store: SettledStore = field(init=False)
    signer: Signer = field(init=False)
    log: AuditLog = field(init=False)
    gate: PolicyGate = field(init=False)
    """There is no policy before the test gives it one."""
    jwt_keys: JwtKeys = field(init=False)
    """None is made before it is asked for."""
    root_rotator: RootRotator = field(init=False)
    """It can keep nothing."""
    ca: CaParts = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.store = SettledStore(open_store("memory:", Path(), self.calls), self.calls, self.order)
        self.store.start()
        self.log = AuditLog(self.store, LogKey.generate(f"{MESH}/audit/test"), self.now)
        self.gate = PolicyGate(self.log, self.now)
        self.found()

    def found(self) -> None:
        """Make the CA anew, of what is here."""
        issuing = self.home.issuing
        self.signer = Signer(issuing.key, self.order)  # type: ignore[arg-type]
        authority = Authority(issuing.certificate, self.signer, issuing.intermediates)
        authorities = Authorities(self.home.root.certificate, None, authority)
        current = CurrentAuthorities(MESH, self.lifetimes, authorities, self.notifier)
        filed = (entry("file.backend", f"x509:{BACKEND}", BACKEND),)
        entries = RegistrationEntries(self.store, self.log, self.now, filed)
        self.assemble(
            OwnCertificates(Issuance(current, self.store, self.log, self.now, entries)),
            CrlPublisher(current, self.store, self.log, self.now, self.directory),
        )
        result_of(self.ca.entries.load())
        self.order.clear()

    def assemble(self, own: OwnCertificates, publisher: CrlPublisher) -> None:
        """Make the CA of these."""
        responder = OcspResponder(
            own.issuance.authorities,
            self.store,
            publisher,
            self.now,
            own.issue_responder,
            FairQueue(),
        )
        self.jwt_keys = JwtKeys(
            own.issuance.authorities,
            JwtMemory(),  # type: ignore[arg-type]
            self.log,
            Rules(KeyAlgorithm.EC_P256, 7 * DAY, HOUR),
            self.now,
            Clock(),
            at_once,
        )
        nowhere = StateDirectory(Path("/nowhere"))
        rotation_steps = RotationSteps(
            own.issuance.authorities,
            nowhere,
            KeyFiles(nowhere.private),
            self.record,
            KeySpec(KeyAlgorithm.EC_P256),
            365 * DAY,
            self.now,
            at_once,
        )
        self.root_rotator = RootRotator(
            RootSteps(rotation_steps, KeySpec(KeyAlgorithm.EC_P256)),
            own.issuance.authorities,
            self.store,
            self.now,
            Clock(),
            DeferredLock(),
        )
        self.ca = CaParts.assemble(
            own,
            responder,
            publisher,
            [self.endpoint],
            root_rotator=self.root_rotator,
            jwt=JwtIssuer(
                self.jwt_keys,
                own.issuance,
                FairQueue(),
                Quota(self.now, Allowance(5, 10), "JWT-SVIDs"),
                self.gate,
                issuer="https://mesh.example",
            ),
            seconds=lambda: self.seconds,
            federations=self._federations(own.issuance.authorities),
            policy=self.gate,
        )

    def _federations(self, current: CurrentAuthorities) -> Federations:
        def make_follower(on_bundle: OnBundle, on_state: OnState) -> Follower:
            return Follower(
                self.endpoints,
                current.bundle,
                self.clock,
                self.now,
                logger("federation"),
                on_bundle,
                on_state,
            )

        crls = ForeignCrls(no_lists, self.clock, self.now)
        return Federations(
            self.store, self.log, self.now, current.trust_domain, make_follower, crls
        )

    async def record(self, act: str, target: str, facts: Mapping[str, str]) -> None:
        await self.log.record(Act(act), target, facts)

    def now(self) -> datetime:
        return self.time

    @property
    def told(self) -> list[Revocation]:
        """What endpoints have heard."""
        return self.endpoint.told

    def log_to(self, path: Path) -> None:
        self.ca.issuance.issuance_log = IssuanceLog(path)

    def sign(
        self,
        spiffe_id: SpiffeId = BACKEND,
        principal: Principal = ADMIN,
        ttl: timedelta | None = None,
        **names: Any,
    ) -> Any:
        """The chain, leaf first. Raises what the CA raises."""
        csr = build_csr(key(9), spiffe_id, **names)
        return result_of(self.ca.certificates.sign(principal, csr, str(spiffe_id), ttl)).chain


def housekeeping(
    rig: CaRig, clock: Clock, keep_expired: timedelta, keep_acts: timedelta
) -> Housekeeping:
    """That of the rig's CA."""
    ca = rig.ca
    return Housekeeping(
        *(ca.store, ca.write_offs, ca.responder, ca.publisher, ca.now),
        clock,
        keep_expired,
        keep_acts,
    )


@define(eq=False)
class Door:
    """Lets ``caller`` in, whoever knocks."""

    caller: Principal

    def account(self, evidence: Evidence) -> Account:
        return Account(self.caller.proof, self.caller.kind)

    def principal(self, attested: Attested) -> Principal:
        return self.caller


def attestors_of(rig: CaRig) -> Attestors:
    """Those that the CA of a rig has."""
    ca = rig.ca
    return Attestors.registered(
        Means(
            Clock(),
            ca.store.find_token,
            ca.entries.entry_of,
            ca.now,
            ca.store.find,
            trust_domain=ca.trust_domain,
        )
    )


def entry(entry_id: str, selector: str, spiffe_id: object, **more: Any) -> RegistrationEntry:
    return read_entry(
        entry_id, MESH, EntryMembers(selectors=[selector], spiffe_id=str(spiffe_id), **more)
    )


def result_of(coroutine: Any) -> Any:
    """What it returns or raises; it may wait for nothing that has not happened."""
    outcome: list[Any] = []
    Deferred.fromCoroutine(coroutine).addBoth(outcome.append)
    (result,) = outcome
    if isinstance(result, Failure):
        result.raiseException()
    return result


@contextmanager
def ca_rig(**settings: Any) -> Iterator[CaRig]:
    rig = CaRig(**settings)
    try:
        yield rig
    finally:
        result_of(settled(rig.store.stop()))


async def settled(deferred: Any) -> Any:
    return await deferred
