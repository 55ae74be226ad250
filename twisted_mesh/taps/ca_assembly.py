"""The CA put together, from what it issues with to what watches it: each part is given those that it needs."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from pki.audit.log import Act, LogSigner
from pki.errors import Problem
from pki.jwt_svid.rotation import Rules
from pki.keys import key_id
from pki.policy.entry import RegistrationEntry
from twisted_mesh.ca import meters
from twisted_mesh.ca.acknowledgements import Acknowledgements
from twisted_mesh.ca.audit_log import AuditLog
from twisted_mesh.ca.authorities import Authorities, CurrentAuthorities
from twisted_mesh.ca.blocked_authorities import demand_good_start
from twisted_mesh.ca.blocked_keys import BlockedKeys, read_lists
from twisted_mesh.ca.entries import RegistrationEntries
from twisted_mesh.ca.entries_file import read_entries
from twisted_mesh.ca.federation import Federations
from twisted_mesh.ca.housekeeping import Housekeeping
from twisted_mesh.ca.issuance import Issuance, OwnCertificates
from twisted_mesh.ca.issuance_log import IssuanceLog
from twisted_mesh.ca.jwt_files import JwtFiles
from twisted_mesh.ca.jwt_issuer import JwtIssuer
from twisted_mesh.ca.jwt_keys import JwtKeys
from twisted_mesh.ca.notifier import Notifier
from twisted_mesh.ca.parts import CaParts
from twisted_mesh.ca.pin_reports import PinReports
from twisted_mesh.ca.policy.gate import PolicyGate
from twisted_mesh.ca.revocation.crl_publisher import CrlPublisher
from twisted_mesh.ca.revocation.ocsp_responder import OcspResponder
from twisted_mesh.ca.rotation.certification import Certification
from twisted_mesh.ca.rotation.pinned_paths import PinnedPaths
from twisted_mesh.ca.rotation.root_rotator import RootRotator
from twisted_mesh.ca.rotation.root_steps import RootSteps
from twisted_mesh.ca.rotation.rotator import Rotator
from twisted_mesh.ca.rotation.steps import RotationSteps
from twisted_mesh.ca.sct_reports import SctReports
from twisted_mesh.interfaces import IReactor
from twisted_mesh.keystores.stores import KeyStores
from twisted_mesh.limits.connection_limit import Capacity
from twisted_mesh.limits.fair_queue import FairQueue
from twisted_mesh.limits.quota import Quota
from twisted_mesh.runtime.clock import wall_clock
from twisted_mesh.runtime.log import logger
from twisted_mesh.state.directory import StateDirectory
from twisted_mesh.state.key_files import KeyFiles
from twisted_mesh.stores.interface import IStore
from twisted_mesh.taps.ca_endpoint import CaEndpoint, own_trust_store
from twisted_mesh.taps.ca_federation import federations_of
from twisted_mesh.taps.ca_options import Options
from twisted_mesh.taps.ca_transparency import transparency_of

if TYPE_CHECKING:
    from twisted_mesh.ca.policy.policy import Policy

_log = logger("ca")


@frozen(eq=False, repr=False)
class Ground:
    """What a CA is built on: its options, what it keeps, and the process that it runs in."""

    options: Options
    state: StateDirectory
    keys: KeyFiles
    store: IStore
    """It is open."""
    reactor: IReactor
    log: Logger
    in_thread: Callable[..., Deferred[Any]]
    """Has a function called where the reactor does not wait for it."""
    stores: KeyStores
    """They are started."""
    audit_key: LogSigner


@frozen(eq=False, repr=False)
class CaAssembly:
    """A CA put together: its parts, and what its service starts and stops besides them."""

    parts: CaParts
    audit: AuditLog
    endpoint: CaEndpoint
    rotator: Rotator
    root_rotator: RootRotator
    jwt_keys: JwtKeys
    federations: Federations
    housekeeping: Housekeeping

    @property
    def waiting_for_keys(self) -> Sequence[Callable[[], None]]:
        """What each is told that tries again after a pause, once a key store signs again."""
        return (
            self.endpoint.manager.retry_now,
            self.endpoint.stapler.retry_now,
            self.rotator.retry_now,
            self.root_rotator.retry_now,
            self.parts.publisher.retry_now,
        )


def assemble(  # noqa: PLR0917
    ground: Ground,
    authorities: Authorities,
    issuance_log: IssuanceLog | None,
    capacity: Capacity,
    lacking: Callable[[], Problem | None],
    policy: "Policy | None" = None,
) -> CaAssembly:
    """The CA that issues with ``authorities``. Nothing of it listens or ticks yet.

    ``issuance_log`` is open already; ``capacity`` is how many connections its ports have room for; ``lacking`` says
    whether descriptors are; ``policy`` is what was read of ``--policy``. Raises :class:`pki.errors.PkiError` for
    files that cannot be used.
    """
    options, reactor, store, state = ground.options, ground.reactor, ground.store, ground.state
    remembered = state.checkpoints if store.is_kept else None
    audit = AuditLog(
        store, ground.audit_key, wall_clock, remembered, ground.in_thread, options["keep-audit"]
    )
    # A quarter of the connections, and half of what one caller may have, are for those who do not wait.
    notifier = Notifier(reactor, capacity.most * 3 // 4, capacity.of_peer // 2)
    current = CurrentAuthorities(
        options["trust-domain"],
        options["lifetimes"],
        authorities,
        notifier,
        options["refresh-hint"],
        frozenset(options["ct-withdrawn-log"]),
    )
    filed: Sequence[RegistrationEntry] = ()
    if options["entries"] is not None:
        filed = read_entries(options["entries"], options["trust-domain"])
    blocked = BlockedKeys(store, audit, wall_clock, read_lists(options["blocked-keys"]))
    entries = RegistrationEntries(store, audit, wall_clock, filed)
    sct_reports = SctReports(monotonic, state.required_scts if store.is_kept else None)
    sct_reports.recall()
    transparency = transparency_of(options, state, ground.keys, reactor, current, sct_reports)
    own = OwnCertificates(
        Issuance(
            current,
            store,
            audit,
            wall_clock,
            entries,
            issuance_log,
            None if transparency is None else transparency.receipts,
            meters.took_to_sign,
        )
    )
    trust_store = own_trust_store(
        current,
        reactor,
        wall_clock,
        ground.log,
        demand=options["sct-demand"],
        withdrawn=frozenset(options["ct-withdrawn-log"]),
    )
    # Who was revoked in earlier lives is refused before the first handshake.
    publisher = CrlPublisher(
        current,
        store,
        audit,
        wall_clock,
        state.ca,
        trust_store,
        demand_life=own.issuance.record_clock.demand_life,
    )
    publisher.begin()
    fair_queue = FairQueue()
    responder = OcspResponder(
        current, store, publisher, wall_clock, own.issue_responder, fair_queue, meters.count_ocsp
    )
    endpoint = CaEndpoint.of(
        own,
        responder,
        trust_store,
        reactor,
        ground.log,
        requires_pq=bool(options["require-pq"]),
    )
    federations = federations_of(
        reactor,
        own.issuance,
        state.root if store.is_kept else None,
        lambda: trust_store.trust.revocations,
        partial(blocked.problem, subject="bundle"),
        requires_pq=bool(options["require-pq"]),
        demand=lambda: trust_store.trust.demand,
    )
    blocked.watch(federations.follower.review)
    pin_reports = PinReports(monotonic, wall_clock, current.trust_domain)
    acknowledgements = Acknowledgements(wall_clock)
    rotator, root_rotator = _rotators(
        ground,
        current,
        audit,
        publisher,
        federations=federations,
        pin_reports=pin_reports,
        acknowledgements=acknowledgements,
    )
    jwt_keys = _jwt_keys(ground, current, audit)
    jwt_keys.load()
    demand_good_start(blocked, current)
    gate = _policy_gate(ground, policy, audit)
    parts = CaParts.assemble(
        own,
        responder,
        publisher,
        [trust_store, endpoint],
        rotator=rotator,
        root_rotator=root_rotator,
        acknowledgements=acknowledgements,
        renew_own=endpoint.renew,
        pin_reports=pin_reports,
        sct_reports=sct_reports,
        jwt=JwtIssuer(
            jwt_keys,
            own.issuance,
            fair_queue,
            Quota(wall_clock, options["quota"], "JWT-SVIDs"),
            gate,
            options["jwt-lifetimes"],
            options["oidc-issuer"],
        ),
        directory=state.ca,
        connections=trust_store.registry,
        allowance=options["quota"],
        lacking=lacking,
        federations=federations,
        policy=gate,
        tells_every_root=bool(options["bundle-ml-dsa"]),
        key_stores=ground.stores,
        leaf_keys=options["leaf-key"],
        blocked=blocked,
        transparency=transparency,
    )
    if not parts.public_bundle().roots:
        _log.warn(
            "The public bundle (--federation, GET /api/v1/bundle) has no root: all of ours have ML-DSA keys, which "
            "many readers do not know. Readers that do get them by --bundle-ml-dsa",
            event="public-bundle-empty",
        )
    housekeeping = Housekeeping(
        store,
        parts.write_offs,
        parts.responder,
        publisher,
        wall_clock,
        reactor,
        options["keep-expired"],
        options["keep-audit"],
    )
    return CaAssembly(
        parts, audit, endpoint, rotator, root_rotator, jwt_keys, federations, housekeeping
    )


def _rotators(
    ground: Ground,
    current: CurrentAuthorities,
    audit: AuditLog,
    publisher: CrlPublisher,
    *,
    federations: Federations,
    pin_reports: PinReports,
    acknowledgements: Acknowledgements,
) -> tuple[Rotator, RootRotator]:
    """What replaces issuing CAs, and what rotates the root."""
    options = ground.options

    async def record(act: str, target: str, facts: Mapping[str, str]) -> None:
        """Have an act of the CA's own life in the record before it takes effect."""
        await audit.record(Act(act), target, facts)

    steps = RotationSteps(
        current,
        ground.state,
        ground.keys,
        record,
        options["issuing-key"],
        options["issuing-duration"],
        wall_clock,
        stores=ground.stores,
    )
    root_steps = RootSteps(steps, options["root-key"])
    pinned = PinnedPaths(pin_reports, current)
    rotator = Rotator(
        steps,
        ground.reactor,
        root_steps=root_steps,
        certification=Certification(steps, publisher),
        pinned=pinned,
        farewell=publisher.sign_root,
    )
    root_rotator = RootRotator(
        root_steps,
        current,
        ground.store,
        wall_clock,
        ground.reactor,
        rotator.lock,
        options["root-rotation"],
        domains=lambda: sorted(map(str, federations.held)),
        acknowledgements=acknowledgements,
        broken_pins=pinned.of_rotation,
    )
    return rotator, root_rotator


def _jwt_keys(ground: Ground, current: CurrentAuthorities, audit: AuditLog) -> JwtKeys:
    options, authorities = ground.options, current.current
    return JwtKeys(
        current,
        JwtFiles(
            ground.state,
            ground.keys,
            key_id(authorities.root.public_key()),
            authorities.known_roots,
        ),
        audit,
        Rules(options["jwt-key"], options["jwt-key-duration"], options["jwt-lifetimes"].maximum),
        wall_clock,
        ground.reactor,
        ground.in_thread,
    )


def _policy_gate(ground: Ground, found: "Policy | None", audit: AuditLog) -> PolicyGate:
    """What asks the policy; nobody is asked where there is none, and nothing is loaded for it."""
    path = ground.options["policy"]
    if path is None:
        return PolicyGate(audit, wall_clock)
    from twisted_mesh.taps.ca_policy import policy_gate

    return policy_gate(
        path,
        found,
        ground.reactor,
        audit,
        ground.state.ca,
        requires_pq=bool(ground.options["require-pq"]),
    )
