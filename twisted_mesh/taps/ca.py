"""``twistd mesh-ca``: the certificate authority."""

import os
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from twisted.application.service import IService
from twisted.internet.error import TimeoutError
from twisted.internet.threads import deferToThread

from pki.audit.log import Act
from pki.errors import PkiError
from pki.validity import format_duration, spoken_duration
from twisted_mesh.ca import meters, metrics
from twisted_mesh.ca.authorities import Authorities
from twisted_mesh.ca.authority_files import load_or_create, tell_certificate
from twisted_mesh.ca.first_installation import take_note_of_installation
from twisted_mesh.ca.housekeeping import take_note_of_restore
from twisted_mesh.ca.issuance_log import IssuanceLog
from twisted_mesh.ca.parts import CaParts
from twisted_mesh.ca.record_clock import RecordClock
from twisted_mesh.keystores.errors import KeyStoreAway, KeyStoreRefused
from twisted_mesh.monitoring import OF_IDENTITY
from twisted_mesh.runtime import garbage
from twisted_mesh.runtime.clock import is_unsynchronised, wall_clock
from twisted_mesh.runtime.meters import Readings, show
from twisted_mesh.runtime.tasks import Ticker, within
from twisted_mesh.state.directory import StateDirectory, StateError, refuse_changeable
from twisted_mesh.state.key_files import KeyFiles, remove_file
from twisted_mesh.state.memory import Memories
from twisted_mesh.state.passphrase import read_passphrase
from twisted_mesh.stores.opening import open_store
from twisted_mesh.taps import default_entry
from twisted_mesh.taps.ca_assembly import CaAssembly, Ground, assemble
from twisted_mesh.taps.ca_audit_key import log_key
from twisted_mesh.taps.ca_federation import services_of
from twisted_mesh.taps.ca_listeners import CaListeners
from twisted_mesh.taps.ca_options import Options
from twisted_mesh.taps.ca_rereads import CaRereads
from twisted_mesh.taps.ca_transparency import reread_demand
from twisted_mesh.taps.lifecycle import MeshService, service_of
from twisted_mesh.taps.reread import Reread

if TYPE_CHECKING:
    from twisted_mesh.ca.policy.policy import Policy
    from twisted_mesh.taps.workload_socket import WorkloadSocket

#: The routes that most callers need; docs/COMMANDS.md has all.
_SUMMARY = {
    "POST /api/v1/sign": "Submit CSR, receive signed certificate",
    "GET /api/v1/ca": "Download CA root certificate",
    "POST /api/v1/revoke": "Revoke a certificate",
}
#: Seconds that the last entries of the audit log may take.
_LAST_WORDS = 2.0


class CaService(MeshService):
    """The CA: its state, its store, its parts, its listeners."""

    objects_between_looks = garbage.OF_A_CA
    options: Options
    parts: CaParts | None = None
    """None until the start has come to it."""
    built: CaAssembly
    """What was assembled, once :attr:`parts` are there."""
    workloads: "WorkloadSocket | None" = None
    """Serves this machine's processes; None where nobody has asked for that."""
    policy: "Policy | None" = None
    """What was read of ``--policy`` at the start."""
    _clock_ticker: Ticker | None = None
    """Looks at a clock that is behind the record."""

    def understand(self) -> None:
        """The listeners, the passphrase and the store, as the options have them. Raises :class:`PkiError`."""
        options, reactor = self.options, self.reactor
        self.state = StateDirectory(options["state-dir"])
        self.listeners = CaListeners.parse(
            options, self.state.socket, reactor, self.log, self.listening
        )
        if (path := options["policy"]) is not None:
            from twisted_mesh.taps.ca_policy import read_policy_of

            self.policy = read_policy_of(path, reactor, requires_pq=bool(options["require-pq"]))
        if logs := options["logs"]:
            logs.read(wall_clock())  # now: before keys are made, since a log may be misspelt
        # Now: after twistd's fork there is no standard input any more.
        passphrase = read_passphrase(
            options["key-passphrase-file"],
            options["key-passphrase-fd"],
            _credentials(),
        )
        self.stores = options.key_stores(reactor, self.state.private, meters.took_to_sign_elsewhere)
        self.keys = KeyFiles(self.state.private, passphrase, self.stores.key)
        self.store = open_store(options["store"], self.state.root, reactor)

    async def start(self) -> None:
        """Take the state, make or load the keys, assemble the CA and bind its ports. Raises :class:`PkiError`."""
        options = self.options
        self.state.prepare()
        self.state.lock()
        self.state.refuse_half_restored()
        fresh = not self.state.root_certificate.exists() or self.state.installed.exists()
        if is_unsynchronised():
            self.log.warn(
                "The kernel says that nothing keeps this machine's clock right: certificates are dated by it. Start a "
                "time service (chronyd, systemd-timesyncd)",
                event="clock-unsynchronised",
            )
        records = (self.state.ca / f"mesh.db{tail}" for tail in ("", "-wal", "-shm"))
        refuse_changeable(*records, *map(Path, filter(None, [options["issuance-log"]])))
        self.stores.start(self.reactor)
        authorities = await load_or_create(
            self.state,
            self.keys,
            options["trust-domain"],
            wall_clock(),
            root_key=options["root-key"],
            issuing_key=options["issuing-key"],
            issuing_life=options["issuing-duration"],
            stores=self.stores,
        )
        if fresh:  # a CA that is begun anew remembers no other
            remove_file(self.state.checkpoints)
        issuance_log = None
        if options["issuance-log"]:
            issuance_log = IssuanceLog(Path(options["issuance-log"]))
            issuance_log.open()
        self.store.start()
        capacity = self.listeners.capacity
        audit_key = await log_key(options, self.keys, self.stores, self.store)
        ground = Ground(
            options,
            self.state,
            self.keys,
            self.store,
            self.reactor,
            self.log,
            deferToThread,
            self.stores,
            audit_key,
        )
        self.built = built = assemble(
            ground,
            authorities,
            issuance_log,
            capacity,
            lambda: self.descriptors.problem,
            self.policy,
        )
        self.parts = parts = built.parts
        self.endpoint = built.endpoint
        for retry in built.waiting_for_keys:
            self.stores.watch_return(retry)
        show("identity", Readings(self.endpoint.manager, OF_IDENTITY))
        metrics.watch(parts)
        self.addService(Memories(self.reactor, parts.health.memories))
        self._tell_authorities(authorities, fresh=fresh)
        self.record_is_lost = self.store.is_new and not fresh and self.store.is_kept
        if self.record_is_lost:
            self.log.warn(
                "The record of what was issued is new, although the CA is not: certificates from before cannot be "
                "listed or revoked. If mesh.db was lost, stop and restore it from a backup",
                event="record-lost",
            )
        self.address = self.listeners.open(parts, self.endpoint, capacity)
        if options["workload-socket"]:
            self._serve_workloads(parts, options["workload-socket"])

    def _serve_workloads(self, parts: CaParts, path: Path) -> None:
        """Listen at once, and have something to tell once the CA runs. Raises :class:`StartError`."""
        from twisted_mesh.ca.workload_issuer import CaWorkloadIssuer
        from twisted_mesh.taps.workload_socket import WorkloadSocket

        trust_store = self.endpoint.trust_store
        self.workload_issuer = CaWorkloadIssuer(
            parts, lambda: trust_store.trust.revocations, self.reactor
        )
        self.workloads = WorkloadSocket(
            path,
            "--workload-socket",
            self.workload_issuer,
            self.reactor,
            self.log,
            self.listeners.containers,
        )
        self.workloads.open(self.listening)

    @property
    def _assembled(self) -> CaParts:
        """The parts, for whatever happens after :meth:`start`."""
        if self.parts is None:
            raise AssertionError("the CA runs before it has been assembled")
        return self.parts

    async def run(self) -> None:
        """Settle what is left of earlier lives, then get a certificate, and listen. Raises :class:`PkiError`."""
        parts, log = self._assembled, self.built.audit
        trust_domain = str(parts.trust_domain)
        if not self.options["clock-is-right"]:
            await parts.issuance.record_clock.recall(self.store)
            self._watch_clock(parts.issuance.record_clock)
        await log.recall(is_restored=self.state.restored.exists())
        acts = await self.store.ca_acts()
        if parts.revoker is not None:
            await parts.revoker.hold_against(acts)
        await self.built.root_rotator.hold_against(acts)
        await parts.blocked.load()
        quota = parts.certificates.quota
        quota.recall(await self.store.issued_since(quota.hour))
        if self.state.restored.exists():
            await self.built.root_rotator.take_note_of_restore()
        await take_note_of_restore(self.state, log, trust_domain)
        await take_note_of_installation(self.state, log)
        await parts.write_offs.resolve()
        await log.record(
            Act.START,
            trust_domain,
            {
                "version": version("twisted-mesh"),
                "issuer": parts.authorities.issuing.key_id,
                # What says later which of what is gone may have been pruned.
                "keep_expired": format_duration(self.options["keep-expired"]),
            },
        )
        await parts.policy.begin()
        await default_entry.settle(
            parts.entries,
            parts.trust_domain,
            [self.address],
            declined=bool(self.options["no-default-entry"]),
            is_lost=self.record_is_lost,
        )
        # Of a full disk, or a key that is away; it is told, and tried again, each second.
        with suppress(StateError, KeyStoreAway, KeyStoreRefused):
            await log.extend()
        log.start(self.reactor)
        self.built.housekeeping.start()
        await parts.publisher.ready()
        await self.built.rotator.attend()
        await self.built.jwt_keys.attend()
        parts.publisher.start(self.reactor)
        self.addService(self.built.rotator)
        if parts.transparency is not None:
            self.addService(parts.transparency)
        self.addService(self.built.root_rotator)
        self.addService(self.built.jwt_keys)
        await self.built.federations.load()
        for service in services_of(self.built.federations):
            self.addService(service)
        await self.built.federations.crls.ready()
        for service in self.endpoint.services:
            self.addService(service)
        # With a full disk the CA gets no certificate, and whoever is revoked by its socket is revoked all the same.
        self.open(later=self.listeners.tls_port)
        await self.endpoint.manager.ready()
        self.open()
        if self.workloads is not None:
            self.addService(self.workload_issuer)
        self._tell_ready()

    def _watch_clock(self, clock: RecordClock) -> None:
        """Have our own certificate as soon as the clock is right, where it is not."""

        def look() -> None:
            if clock.is_right():
                self._stop_watching()
                self.endpoint.manager.retry_now()

        if clock.behind is not None:
            self._clock_ticker = Ticker(self.reactor, 1.0, look, "the clock", self.log)
            self._clock_ticker.start()

    def _stop_watching(self) -> None:
        if self._clock_ticker is not None:
            self._clock_ticker.stop()
            self._clock_ticker = None

    def _tell_ready(self) -> None:
        address: Any = self.address
        self.log.info(
            "API server listening on https://{host}:{port} and unix:{socket}",
            event="listening",
            host=f"[{address.host}]" if ":" in address.host else address.host,
            port=address.port,
            socket=str(self.listeners.socket),
        )
        width = max(map(len, _SUMMARY))
        lines = [f"  {route:<{width}} {does}" for route, does in _SUMMARY.items()]
        self.log.info("Endpoints:\n" + "\n".join(lines), event="endpoints")
        self.log.info("Ready to issue certificates.", event="ready")

    def _tell_authorities(self, authorities: Authorities, *, fresh: bool) -> None:
        if not fresh:
            tell_certificate("Root CA certificate loaded", authorities.root)
        issuing = authorities.issuing.certificate
        self.log.info(
            "Root CA fingerprint: {fingerprint}\nRoot CA file: {path}\nTrust domain: {trust_domain}",
            event="root",
            fingerprint=authorities.fingerprint,
            path=str(self.state.root_certificate),
            trust_domain=str(self.options["trust-domain"]),
        )
        last = authorities.prepared or authorities.issuing
        left = last.certificate.not_valid_after_utc - wall_clock()
        tell_certificate("Issuing CA certificate", issuing)
        if authorities.root_key is None:
            self.log.warn(
                "The root's key is not here. Certificates are issued for {left} more; a new issuing CA has to wait "
                "until it is back in {private}, or has certified one elsewhere (mesh-ctl ca root csr)",
                event="root-detached",
                left=spoken_duration(left),
                private=str(self.state.private),
            )

    def rereads(self) -> list[Reread]:
        """The log level, the entries of a file, and the passphrase of the keys to come."""
        found = super().rereads()
        if self.parts is not None:
            rereads = CaRereads(
                self.options,
                self.parts,
                self.listeners,
                self.keys,
                self.stores,
                self.reactor,
                _credentials(),
            )
            found += rereads.all()
            found += reread_demand(self.options, self.endpoint.trust_store)
        return found

    async def drain(self, seconds: float) -> None:
        """Let whoever waits for news go, and requests finish within so many seconds."""
        if self.parts is not None:
            self.parts.let_go()
        if self.workloads is not None:
            await self.workloads.drain(seconds)
        if late := await self.listeners.drain(seconds):
            self.cut_off(late, seconds)

    async def close(self) -> None:
        """Stop what watches the clock, record the stop, and give back the store and the lock."""
        self._stop_watching()
        if self.workloads is not None:
            self.workloads.close()
        if self.parts is not None:
            self.endpoint.stapler.stop()
            self.built.housekeeping.stop()
            self.parts.publisher.stop()
            self.built.audit.stop()
            await self._record_stop()
        await self.store.stop()
        await self.stores.stop()
        self.state.unlock()

    async def _record_stop(self) -> None:
        try:
            await within(self.reactor, _LAST_WORDS, self._last_words())
        except (PkiError, TimeoutError) as error:
            self.log.warn(
                "The stop is not in the audit log: {error}",
                event="stop-unrecorded",
                error=str(error),
            )

    async def _last_words(self) -> None:
        audit = self.built.audit
        await audit.tell_refusals()
        await audit.record(Act.STOP, str(self.options["trust-domain"]), {})
        await audit.extend()


def _credentials() -> str | None:
    """systemd's directory of them."""
    return os.environ.get("CREDENTIALS_DIRECTORY")


def makeService(options: Options) -> IService:
    """What ``twistd mesh-ca`` starts."""
    return cast(IService, service_of(CaService, options))
