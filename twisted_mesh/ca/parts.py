"""The parts of a CA, and how they belong together: each is given those that it needs when it is made."""

from collections.abc import Awaitable, Callable, Collection, Sequence
from pathlib import Path
from time import monotonic

from attrs import define, field, frozen

from pki.errors import Problem
from pki.keys import KeyAlgorithm
from pki.policy.lifetimes import Lifetimes
from pki.policy.principal import Principal
from pki.spiffe import TrustDomain
from pki.svid.bundle import BundleSet, TrustBundle
from twisted_mesh.ca.acknowledgements import Acknowledgements
from twisted_mesh.ca.agents import Agents
from twisted_mesh.ca.audit_log import AuditLog
from twisted_mesh.ca.authorities import Authorities, CurrentAuthorities
from twisted_mesh.ca.blocked_authorities import own_problem
from twisted_mesh.ca.blocked_keys import BlockedKeys
from twisted_mesh.ca.connection_reports import ConnectionReports
from twisted_mesh.ca.entries import RegistrationEntries
from twisted_mesh.ca.federated_trust import FederatedTrust
from twisted_mesh.ca.federation import Federations
from twisted_mesh.ca.health import FEDERATES_WITH_NOBODY, Health
from twisted_mesh.ca.issuance import Issuance, OwnCertificates, WriteOffs
from twisted_mesh.ca.join_tokens import JoinTokens
from twisted_mesh.ca.jwt_issuer import JwtIssuer
from twisted_mesh.ca.notifier import Notifier
from twisted_mesh.ca.pin_reports import PinReports
from twisted_mesh.ca.policy.gate import PolicyGate
from twisted_mesh.ca.published_trust import Published
from twisted_mesh.ca.record import CertificateRecord
from twisted_mesh.ca.revocation.crl_publisher import CrlPublisher
from twisted_mesh.ca.revocation.ocsp_responder import OcspResponder
from twisted_mesh.ca.revoked_authorities import NAME as REVOKED
from twisted_mesh.ca.revoked_authorities import RevokedAuthorities
from twisted_mesh.ca.rotation.distrusting import RootDistruster
from twisted_mesh.ca.rotation.revoking import AuthorityRevoker
from twisted_mesh.ca.rotation.root_rotator import RootRotator
from twisted_mesh.ca.rotation.rotator import Rotator
from twisted_mesh.ca.sct_reports import SctReports
from twisted_mesh.ca.service import CertificateAuthority
from twisted_mesh.ca.transparency.standing import SHOWN_TO_NOBODY, LogsStanding
from twisted_mesh.ca.transparency.transparency import Transparency
from twisted_mesh.interfaces import IRevocationListener
from twisted_mesh.keystores.standing import keys_standing
from twisted_mesh.keystores.stores import KeyStores
from twisted_mesh.limits.quota import DEFAULT_ALLOWANCE, Allowance, Quota
from twisted_mesh.revocation.listeners import RevocationListeners
from twisted_mesh.runtime.clock import Now
from twisted_mesh.runtime.log import logger
from twisted_mesh.stores.interface import IStore
from twisted_mesh.stores.records import Conflict
from twisted_mesh.trust.connections import ConnectionRegistry

_log = logger("ca")


@define(eq=False, repr=False)
class CaUrl:
    """Where callers of other machines reach the CA's TLS port. It is known once that port is bound."""

    text: str = field(default="", init=False)

    def __str__(self) -> str:
        return self.text

    def settle(self, text: str) -> None:
        """The port is bound, and this is where."""
        self.text = text


@frozen(eq=False, repr=False)
class CaParts:
    """All that a running CA consists of, for whoever serves it: its API, its public site, its loops, its metrics."""

    certificates: CertificateAuthority
    """Signs for callers, and revokes."""
    record: CertificateRecord
    current: CurrentAuthorities
    entries: RegistrationEntries
    tokens: JoinTokens
    issuance: Issuance
    own: OwnCertificates
    write_offs: WriteOffs
    log: AuditLog
    publisher: CrlPublisher
    responder: OcspResponder
    health: Health
    reports: ConnectionReports
    """What endpoints say of their connections."""
    pin_reports: PinReports
    """What they say of their pins."""
    sct_reports: SctReports
    """What they say of the receipts of logs that they demand."""
    policy: PolicyGate
    """What is asked of all that is issued to somebody."""
    acknowledgements: Acknowledgements
    """What endpoints say that they believe and serve."""
    notifier: Notifier | None
    """Who waits for news; without one nobody waits."""
    agents: Agents
    agents_notifier: Notifier | None
    """Agents that wait for their entries to change."""
    rotator: Rotator | None
    """Replaces issuing CAs, and takes the root's key away; None where no keys are kept in files."""
    revoker: AuthorityRevoker | None = None
    """Revokes issuing CAs; None where no keys are kept in files."""
    distruster: RootDistruster | None = None
    """Distrusts roots; None likewise."""
    jwt: JwtIssuer | None = None
    """Signs JWT-SVIDs; None where no keys are kept in files."""
    root_rotator: RootRotator | None = None
    """Rotates the root; None where no keys are kept in files."""
    url: CaUrl = field(factory=CaUrl)
    key_stores: KeyStores = field(factory=KeyStores)
    """Where keys are that are in no file."""
    transparency: Transparency | None = None
    """The logs that certificates are shown to; None where there are none."""
    federated: FederatedTrust | None = None
    """Which other trust domains whom is told of; None where there is nobody to follow them."""
    tells_every_root: bool = False
    """Whether the public bundle has roots too whose keys the libraries of others may not know."""

    @classmethod
    def assemble(
        cls,
        own: OwnCertificates,
        responder: OcspResponder,
        publisher: CrlPublisher,
        endpoints: Sequence[IRevocationListener] = (),
        *,
        rotator: Rotator | None = None,
        renew_own: Callable[[], Awaitable[None]] | None = None,
        jwt: JwtIssuer | None = None,
        root_rotator: RootRotator | None = None,
        acknowledgements: Acknowledgements | None = None,
        pin_reports: PinReports | None = None,
        sct_reports: SctReports | None = None,
        directory: Path | None = None,
        connections: ConnectionRegistry | None = None,
        allowance: Allowance = DEFAULT_ALLOWANCE,
        lacking: Callable[[], Problem | None] = lambda: None,
        seconds: Callable[[], float] = monotonic,
        federations: Federations | None = None,
        policy: PolicyGate | None = None,
        tells_every_root: bool = False,
        key_stores: KeyStores | None = None,
        leaf_keys: Collection[KeyAlgorithm] = (),
        blocked: BlockedKeys | None = None,
        transparency: Transparency | None = None,
    ) -> "CaParts":
        """A CA around what it issues with and what it publishes.

        ``acknowledgements`` are those that ``root_rotator`` waits for. ``endpoints`` are the first to
        hear what is revoked; then whoever waits for news is told, OCSP answers are made anew, and the CRL
        is the last: it takes a moment, and nobody else is to wait for it. ``renew_own`` has the CA's own
        certificate issued anew. ``directory`` is where the state
        lives, for one that is kept; ``connections`` are those of its own TLS port;
        ``key_stores`` are where keys are that are in no file;
        ``allowance`` is how many certificates callers may have; ``lacking`` says
        whether descriptors are; ``seconds`` is a clock that does not go back.
        """
        issuance = own.issuance
        current, store, log, now = issuance.authorities, issuance.store, issuance.log, issuance.now
        memories = [log.memory, publisher.numbers.memory, publisher.root.memory]
        if issuance.issuance_log is not None:
            memories.append(issuance.issuance_log.memory)
        scts = SctReports(seconds) if sct_reports is None else sct_reports
        memories.append(scts.memory)
        notifier = current.notifier
        told = [*endpoints, *([notifier] if notifier is not None else []), responder, publisher]
        listener = RevocationListeners(told, _log)
        gate = PolicyGate(log, now) if policy is None else policy
        if gate.journal is not None:
            memories.append(gate.journal.memory)
        write_offs = WriteOffs(issuance, listener)
        issuance.give_up_by(write_offs.give_up)
        certificates = CertificateAuthority(
            issuance,
            publisher,
            listener,
            responder.fair_queue,
            Quota(now, allowance),
            gate,
            BlockedKeys(store, log, now) if blocked is None else blocked,
            leaf_keys,
        )
        tokens = JoinTokens(store, log, now, issuance.entries)
        agents_notifier = None
        if notifier is not None:
            agents_notifier = Notifier(notifier.clock, notifier.most, notifier.most_of_one)
        if agents_notifier is not None:
            _ = issuance.entries.watch(agents_notifier.announce)
        revoker = distruster = None
        if rotator is not None and renew_own is not None and directory is not None:
            file = RevokedAuthorities(directory / REVOKED)
            _ = file.load()
            revoker = AuthorityRevoker(rotator, file, publisher, listener, renew_own)
            if rotator.root_steps is not None:
                distruster = RootDistruster(revoker, rotator.root_steps, store)
                rotator.finish_too(distruster.finish)
        return cls(
            certificates=certificates,
            record=CertificateRecord(store),
            current=current,
            entries=issuance.entries,
            tokens=tokens,
            issuance=issuance,
            own=own,
            write_offs=write_offs,
            log=log,
            publisher=publisher,
            responder=responder,
            health=Health(
                current,
                store,
                log,
                now,
                directory,
                rotator.trouble if rotator is not None else lambda: None,
                publisher.waiting,
                lambda: publisher.overdue,
                lacking,
                memories,
                seconds,
                behind=issuance.record_clock.problem,
                federation=(
                    (lambda: (FEDERATES_WITH_NOBODY, None))
                    if federations is None
                    else federations.standing
                ),
                rooted=root_rotator.standing if root_rotator is not None else lambda: None,
                ruled=gate.standing,
                own_blocked=lambda: own_problem(certificates.blocked, current),
                kept=lambda: keys_standing(key_stores or KeyStores()),
                logged=(
                    (lambda: LogsStanding(SHOWN_TO_NOBODY))
                    if transparency is None
                    else transparency.standing
                ),
            ),
            reports=ConnectionReports(seconds, connections),
            pin_reports=PinReports(seconds, now, current.trust_domain)
            if pin_reports is None
            else pin_reports,
            sct_reports=scts,
            policy=gate,
            acknowledgements=Acknowledgements(now)
            if acknowledgements is None
            else acknowledgements,
            notifier=notifier,
            agents=Agents(issuance.entries, tokens, certificates, store, now),
            agents_notifier=agents_notifier,
            rotator=rotator,
            revoker=revoker,
            distruster=distruster,
            tells_every_root=tells_every_root,
            jwt=jwt,
            transparency=transparency,
            federated=None
            if federations is None
            else FederatedTrust(current, issuance.entries, store, federations),
            root_rotator=root_rotator,
            key_stores=key_stores or KeyStores(),
        )

    @property
    def has_room_for_agents(self) -> bool:
        """Whether one more agent may wait: what endpoints and agents do not wait on is for the other callers."""
        waiting = (self.notifier, self.agents_notifier)
        most = self.notifier.most if self.notifier is not None else 0
        return sum(len(one) for one in waiting if one is not None) < most

    @property
    def blocked(self) -> BlockedKeys:
        """Keys that nothing is certified for."""
        return self.certificates.blocked

    def let_go(self) -> None:
        """Have nobody wait for news any more."""
        for notifier in (self.notifier, self.agents_notifier):
            if notifier is not None:
                notifier.close()

    @property
    def authorities(self) -> Authorities:
        """Those of the moment."""
        return self.current.current

    @property
    def trust_domain(self) -> TrustDomain:
        """Whose CA it is."""
        return self.current.trust_domain

    @property
    def lifetimes(self) -> Lifetimes:
        """How long a caller's certificate lives by default, and at most."""
        return self.current.lifetimes

    @property
    def store(self) -> IStore:
        """Where all is kept."""
        return self.issuance.store

    @property
    def now(self) -> Now:
        """The wall clock."""
        return self.issuance.now

    def bundle(self) -> TrustBundle:
        """What members of the trust domain are believed by."""
        return self.current.bundle()

    def public_bundle(self) -> TrustBundle:
        """The same, for readers of whom nobody knows by what library they read it."""
        bundle = self.bundle()
        return bundle if self.tells_every_root else bundle.for_others()

    def bundles(self) -> BundleSet:
        """:meth:`bundle`, as all that is believed here."""
        return self.current.bundles()

    async def told_to(self, principal: Principal) -> Callable[[], Published]:
        """What ``principal`` is told of whom to believe, asked at any later moment too. Raises :class:`StoreError`."""
        if self.federated is None:
            return lambda: self.published
        return await self.federated.told_to(principal)

    def believed_by_workloads(self) -> BundleSet:
        """All bundles that may be handed out to anybody: our own, and of others those that are federated with."""
        own = self.current.bundles()
        if self.federated is None:
            return own
        return BundleSet({**self.federated.federations.believed().bundles, **own.bundles})

    @property
    def federations(self) -> Federations:
        """The trust domains that are federated with. Raises :class:`Conflict` where there is nobody to follow them."""
        if self.federated is None:
            raise Conflict("this CA federates with nobody: it does not follow other trust domains")
        return self.federated.federations

    @property
    def published(self) -> Published:
        """All that is told of whom to believe: another object whenever it says something else."""
        return self.current.published
