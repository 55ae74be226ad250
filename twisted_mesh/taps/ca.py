"""``twistd mesh-ca``: the certificate authority."""

import os
import socket
from collections.abc import Mapping, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

from twisted.application.service import IService
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import UNIXServerEndpoint
from twisted.internet.error import TimeoutError
from twisted.internet.interfaces import IStreamServerEndpoint

from pki.audit.log import Act, LogKey
from pki.errors import PkiError
from pki.spiffe import SpiffePattern
from pki.svid.revocation_set import Revocation
from pki.validity import spoken_duration
from twisted_mesh import observe
from twisted_mesh.attest.interface import Means
from twisted_mesh.attest.registry import Attestors
from twisted_mesh.ca import metrics
from twisted_mesh.ca.api.app import ROUTES, CaApi
from twisted_mesh.ca.api.authentication import (
    PlaintextAuthenticator,
    SocketAuthenticator,
    TlsAuthenticator,
    of_process,
)
from twisted_mesh.ca.api.public_site import PublicSite
from twisted_mesh.ca.api.throttle import Throttle
from twisted_mesh.ca.audit_log import AuditLog
from twisted_mesh.ca.authorities import load_or_create, tell_certificate
from twisted_mesh.ca.entries_file import read_entries
from twisted_mesh.ca.housekeeping import Housekeeping
from twisted_mesh.ca.issuance_log import IssuanceLog
from twisted_mesh.ca.notifier import Notifier
from twisted_mesh.ca.restore_note import take_note_of_restore
from twisted_mesh.ca.rotation.rotator import Rotator
from twisted_mesh.ca.rotation.steps import RotationSteps
from twisted_mesh.ca.service import CertificateAuthority
from twisted_mesh.http.server import BoundedSite
from twisted_mesh.identity.manager import CertificateManager
from twisted_mesh.identity.sources import OwnSource
from twisted_mesh.limits.connection_limit import Capacity, ConnectionLimit
from twisted_mesh.revocation.feed import Feed
from twisted_mesh.revocation.stapler import Stapler
from twisted_mesh.runtime.clock import wall_clock
from twisted_mesh.runtime.tasks import within
from twisted_mesh.state.directory import StateDirectory, refuse_changeable
from twisted_mesh.state.key_files import KeyFiles
from twisted_mesh.state.passphrase import read_passphrase
from twisted_mesh.stores.opening import open_store
from twisted_mesh.taps import default_entry, publication
from twisted_mesh.taps.ca_options import Options
from twisted_mesh.taps.lifecycle import (
    MeshService,
    StartError,
    listening_endpoint,
    result_now,
    service_of,
)
from twisted_mesh.tls import endpoints
from twisted_mesh.tls.contexts import ContextFactory, Role
from twisted_mesh.tls.security import Security
from twisted_mesh.tls.stapling import Staples
from twisted_mesh.trust.connections import ConnectionRegistry
from twisted_mesh.trust.freshness import Freshness
from twisted_mesh.trust.judge import Judge, Trust
from twisted_mesh.trust.store import TrustStore

_SUMMARY = {
    "POST /api/v1/sign": "Submit CSR, receive signed certificate",
    "GET /api/v1/ca": "Download CA root certificate",
    "POST /api/v1/revoke": "Revoke a certificate",
}
#: Seconds that the last entries of the audit log may take.
_LAST_WORDS = 2.0
#: What sun_path holds on every platform: 104 bytes on macOS, 108 on Linux.
_MAX_SOCKET_PATH = 103


class CaService(MeshService):
    """The CA: its state, its store, its listeners, its own certificate."""

    ca: CertificateAuthority
    manager: CertificateManager
    rotator: Rotator
    record_is_lost = False
    """Whether the record is younger than the CA."""

    def understand(self) -> None:
        options, reactor = self.options, self.reactor
        self.tls_endpoint = listening_endpoint(reactor, options["listen"], "127.0.0.1")
        self.state = StateDirectory(options["state-dir"])
        # Now: after twistd's fork there is no standard input any more.
        passphrase = read_passphrase(
            options["key-passphrase-file"],
            options["key-passphrase-fd"],
            os.environ.get("CREDENTIALS_DIRECTORY"),
        )
        self.keys = KeyFiles(self.state.private, passphrase)
        self.store = open_store(options["store"], self.state.root, reactor)
        self.socket = Path(options["socket"]) if options["socket"] else self.state.socket
        if len(str(self.socket).encode()) > _MAX_SOCKET_PATH:
            raise StartError(
                f"the socket's path {self.socket} is too long for a unix socket: choose a shorter --socket"
            )
        self.notifier = Notifier(reactor)
        self.plain_endpoint = None
        if options["insecure-http"] is not None:
            self.plain_endpoint = listening_endpoint(
                reactor, f"127.0.0.1:{options['insecure-http']}"
            )
        self.crl_endpoint = None
        if options["crl-http"] is not None:
            self.crl_endpoint = listening_endpoint(reactor, options["crl-http"], "127.0.0.1")

    def start(self) -> None:
        options = self.options
        self.state.prepare()
        self.state.lock()
        self.state.refuse_half_restored()
        fresh = not self.state.root_certificate.exists()
        records = (self.state.ca / f"mesh.db{tail}" for tail in ("", "-wal", "-shm"))
        refuse_changeable(*records, *map(Path, filter(None, [options["issuance-log"]])))
        authorities = result_now(
            load_or_create(
                self.state,
                self.keys,
                options["trust-domain"],
                wall_clock(),
                root_algorithm=options["root-key"],
                issuing_algorithm=options["issuing-key"],
                issuing_life=options["issuing-duration"],
            )
        )
        issuance_log = (
            IssuanceLog(Path(options["issuance-log"])) if options["issuance-log"] else None
        )
        if issuance_log:
            issuance_log.open()
        self.store.start()
        self.audit = AuditLog(self.store, self._log_key(), wall_clock)
        self.ca = CertificateAuthority(
            options["trust-domain"],
            authorities,
            self.store,
            self.audit,
            options["lifetimes"],
            wall_clock,
            issuance_log,
        )
        if options["entries"] is not None:
            self.ca.entries.filed = read_entries(options["entries"], options["trust-domain"])
        self.ca.health.directory = self.state.ca
        self.ca.publisher.keep_in(self.state.ca)
        self.ca.publisher.begin()
        self.housekeeping = Housekeeping(
            self.ca, self.reactor, options["keep-expired"], options["keep-audit"]
        )
        rotation_steps = RotationSteps(
            self.ca,
            self.state,
            self.keys,
            self._record,
            options["issuing-key"],
            options["issuing-duration"],
            farewell=self.ca.publisher.sign_root,
        )
        self.rotator = Rotator(rotation_steps, self.reactor)
        self.ca.health.waiting = self.rotator.waiting
        self.ca.detach = self.rotator.detach_root
        observe.watch_rotation(self.rotator)
        self._tell_authorities(fresh=fresh)
        self.record_is_lost = self.store.is_new and not fresh and options["store"] != "memory:"
        if self.record_is_lost:
            self.log.warn(
                "The record of what was issued is new, although the CA is not: certificates from before cannot be "
                "listed or revoked. If mesh.db was lost, stop and restore it from a backup",
                event="record-lost",
            )
        self._open_doors()

    def _log_key(self) -> LogKey:
        """What signs the audit log's checkpoints; its name tells the store, so that no other log fits."""
        name = f"{self.options['trust-domain']}/audit/{self.store.id[:16]}"
        if self.options["store"] == "memory:":
            return LogKey.generate(name)
        if self.keys.exists("audit.key"):
            key = self.keys.load("audit.key", partial(LogKey.from_pem, name))
            self.keys.seal()
            return key
        key = LogKey.generate(name)
        self.keys.write("audit.key", key)
        return key

    def _open_doors(self) -> None:
        """Bind at once, so that a taken port ends the start. TLS hangs up until there is a certificate."""
        reactor, options = self.reactor, self.options
        everyone = SpiffePattern.parse(f"{options['trust-domain'].id}/**")
        known = Freshness(seconds=reactor.seconds)
        judge = Judge(wall_clock, Trust(self.ca.bundles(), allow=(everyone,)), known)
        staples = Staples(wall_clock)
        role = Role(serves=True, demands_certificate=False, sends_root=True)
        contexts = ContextFactory(role, staples)
        registry = self.ca.reports.own = ConnectionRegistry()
        self.stapler = Stapler(self._about_ourselves, staples, reactor, wall_clock, self.log)
        self.trust_store = TrustStore(
            judge, registry, reactor, wall_clock, self.log, [self.stapler]
        )
        source = OwnSource(self.ca.issue_own, self.ca.bundles, wall_clock)
        self.feed = Feed(source, self.trust_store.update, known, reactor, wall_clock, self.log)
        self.manager = CertificateManager(
            source,
            self.trust_store,
            [contexts],
            reactor,
            wall_clock,
            self.log,
            feed=self.feed,
            preparations=[self.stapler.prepare],
            announce=False,
        )
        self.ca.on_revocation += [self.trust_store.revoked, self._replace_own]
        # Who was revoked in earlier lives is refused before the first handshake.
        self.ca.publisher.hears.append(self.trust_store.revoked)
        observe.watch(self.manager)
        metrics.watch(self.ca)
        throttle = Throttle(reactor, options["rate-limit"])
        names = ["the TLS port", "the socket"]
        if self.plain_endpoint is not None:
            names.append("the plaintext port")
        if self.crl_endpoint is not None:
            names.append("the CRL port")
        most = options["max-connections"]
        capacity = Capacity.of(most) if most else Capacity.of_system(len(names))
        # Half of the connections, and half of what one caller may have, are for those who do not wait.
        self.notifier.most, self.notifier.most_of_one = capacity.most // 2, capacity.of_peer // 2
        self.ca.notifier = self.notifier
        places = {name: ConnectionLimit(capacity, reactor, name, self.log) for name in names}
        tls, unix = places["the TLS port"], places["the socket"]
        security = Security(contexts, judge, reactor, registry, self.log, connection_limit=tls)
        ca = self.ca
        attestors = Attestors.registered(
            Means(reactor, ca.store.find_token, ca.entries.entry_of, ca.now)
        )
        apis = [
            CaApi(ca, authenticator, attestors, throttle=throttle)
            for authenticator in (
                TlsAuthenticator(options["admin"]),
                SocketAuthenticator(ca.entries),
            )
        ]
        self.sites = [
            BoundedSite(apis[0], reactor),
            BoundedSite(apis[1], reactor, connection_limit=unix, caller_key=of_process),
        ]
        what = f"the TLS address {options['listen']}"
        self.tls_port = self.listening(
            endpoints.listen(self.tls_endpoint, self.sites[0], security), what
        )
        self.ca.url = default_entry.reached_at(self.tls_port.getHost(), options["public-url"])
        self._listen_unix(self.socket)
        if self.plain_endpoint is not None:
            api = CaApi(
                ca, PlaintextAuthenticator(), attestors, guards_browsers=True, throttle=throttle
            )
            site = BoundedSite(api, reactor, connection_limit=places["the plaintext port"])
            self.sites.append(site)
            port: Any = self.listening(
                self.plain_endpoint.listen(site), f"the plaintext port {options['insecure-http']}"
            )
            self.log.warn(
                "--insecure-http is on: every process of this machine is an administrator of this CA, without proof, "
                "at http://localhost:{port}. Never where anything matters.",
                event="insecure-http",
                port=port.getHost().port,
            )
        if self.crl_endpoint is not None:
            self._open_crl_port(self.crl_endpoint, places["the CRL port"])

    def _open_crl_port(
        self, endpoint: IStreamServerEndpoint, connection_limit: ConnectionLimit
    ) -> None:
        options = self.options
        resource = PublicSite(self.ca, options["rate-limit"], self.reactor)
        site = BoundedSite(resource, self.reactor, connection_limit=connection_limit)
        self.sites.append(site)
        port: Any = self.listening(endpoint.listen(site), f"the CRL address {options['crl-http']}")
        url = publication.url(port.getHost(), options["public-url"])
        self.ca.publish_at(url)
        self.log.info(
            "CRLs, OCSP answers and the issuing CA's certificate are at {url}, and certificates say so",
            event="publishing-at",
            url=url,
            port=port.getHost().port,
        )

    async def _about_ourselves(self, request: bytes) -> bytes:
        return (await self.ca.responder.answer(request, "the CA's own TLS port")).der

    def _listen_unix(self, path: Path) -> None:
        if path.is_socket():
            if _is_answered(path):
                raise StartError(f"the socket {path} is another program's: choose another --socket")
            path.unlink()  # of a CA that was killed
        endpoint = UNIXServerEndpoint(self.reactor, str(path), backlog=1024, mode=0o666)
        self.listening(endpoint.listen(self.sites[1]), f"the socket {path}")

    async def _record(self, act: str, target: str, facts: Mapping[str, str]) -> None:
        """Have an act of the CA's own life in the record before it takes effect."""
        await self.audit.record(Act(act), target, facts)

    async def run(self) -> None:
        await self.audit.recall()
        await take_note_of_restore(self.state, self.audit, str(self.ca.trust_domain))
        await self.ca.write_off()
        await self.audit.record(
            Act.START,
            str(self.ca.trust_domain),
            {"version": version("twisted-mesh"), "issuer": self.ca.authorities.issuing.key_id},
        )
        await default_entry.settle(
            self.ca.entries,
            self.ca.trust_domain,
            [self.tls_port.getHost()],
            declined=bool(self.options["no-default-entry"]),
            is_lost=self.record_is_lost,
        )
        await self.audit.extend()
        self.audit.start(self.reactor)
        self.housekeeping.start()
        await self.ca.publisher.ready()
        await self.rotator.attend()
        self.ca.publisher.start(self.reactor)
        self.addService(self.rotator)
        for service in (self.trust_store, self.feed, self.manager):
            self.addService(service)
        await self.manager.ready()
        address: Any = self.tls_port.getHost()
        self.log.info(
            "API server listening on https://{host}:{port} and unix:{socket}",
            event="listening",
            host=f"[{address.host}]" if ":" in address.host else address.host,
            port=address.port,
            socket=str(self.socket),
        )
        told = [f"{m} {p}" for m, p in ROUTES if p.startswith("/api/")]
        width = max(map(len, told))
        lines = [f"  {route:<{width}} {_SUMMARY.get(route, '')}".rstrip() for route in told]
        self.log.info("Endpoints:\n" + "\n".join(lines), event="endpoints")
        self.log.info("Ready to issue certificates.", event="ready")

    def _replace_own(self, revocations: Sequence[Revocation]) -> None:
        """Who has revoked our own certificate wants another at the TLS port, and no CA that nobody believes."""
        svid = self.manager.svid
        if svid is not None and svid.leaf.serial_number in {r.serial for r in revocations}:
            self.manager.renew_now()

    def _tell_authorities(self, *, fresh: bool) -> None:
        authorities = self.ca.authorities
        if not fresh:
            tell_certificate("Root CA certificate loaded", authorities.root)
        issuing = authorities.issuing.certificate
        self.log.info(
            "Root CA fingerprint: {fingerprint}\nRoot CA file: {path}\nTrust domain: {trust_domain}",
            event="root",
            fingerprint=authorities.fingerprint,
            path=str(self.state.root_certificate),
            trust_domain=str(self.ca.trust_domain),
        )
        last = authorities.prepared or authorities.issuing
        left = last.certificate.not_valid_after_utc - wall_clock()
        tell_certificate("Issuing CA certificate", issuing)
        if authorities.root_key is None:
            self.log.warn(
                "The root's key is not here. Certificates are issued for {left} more; a new issuing CA has to wait "
                "until it is back in {private}",
                event="root-detached",
                left=spoken_duration(left),
                private=str(self.state.private),
            )

    async def _last_words(self) -> None:
        await self.audit.tell_refusals()
        await self.audit.record(Act.STOP, str(self.ca.trust_domain), {})
        await self.audit.extend()

    async def drain(self, seconds: float) -> None:
        self.notifier.close()
        draining = [Deferred.fromCoroutine(site.drain(seconds)) for site in self.sites]
        if late := sum(await gatherResults(draining)):
            self.cut_off(late, seconds)

    async def close(self) -> None:
        self.stapler.stop()
        self.housekeeping.stop()
        self.ca.publisher.stop()
        self.audit.stop()
        try:
            await within(self.reactor, _LAST_WORDS, self._last_words())
        except (PkiError, TimeoutError) as error:
            self.log.warn(
                "The stop is not in the audit log: {error}",
                event="stop-unrecorded",
                error=str(error),
            )
        await self.store.stop()
        self.state.unlock()


def _is_answered(path: Path) -> bool:
    """Whether somebody listens on a unix socket."""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True


def makeService(options: Options) -> IService:
    return cast(IService, service_of(CaService, options))
