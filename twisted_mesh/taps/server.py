"""``twistd mesh-server``: a service that proves who it is and serves who proves the same."""

from collections.abc import Sequence
from typing import cast

from twisted.application.service import IService

from pki.spiffe import SpiffePattern, TrustDomain
from pki.validity import rfc3339, spoken_duration
from twisted_mesh.api.client import CaClient
from twisted_mesh.http.refusal import HttpRefusal
from twisted_mesh.identity.agent import Agent
from twisted_mesh.identity.connection_reporter import ConnectionReporter
from twisted_mesh.limits.connection_limit import Capacity, ConnectionLimit
from twisted_mesh.limits.handshake_budget import HandshakeBudget
from twisted_mesh.monitoring import EndpointStatus
from twisted_mesh.revocation.crl_source import crl_issuers
from twisted_mesh.runtime.clock import wall_clock
from twisted_mesh.runtime.tasks import spawn
from twisted_mesh.server import site
from twisted_mesh.state.memory import Memories
from twisted_mesh.taps.lifecycle import MeshService, service_of
from twisted_mesh.taps.listening import listening_endpoint
from twisted_mesh.taps.parent import ParentService
from twisted_mesh.taps.reread import Reread, difference
from twisted_mesh.taps.sct_options import audited, troubles_of
from twisted_mesh.taps.server_options import Options
from twisted_mesh.taps.service_options import StartError
from twisted_mesh.taps.status_port import clear_way
from twisted_mesh.tls import endpoints

_ANY = ("0.0.0.0", "::")  # noqa: S104 - a word for the log, not an address to bind


class ServerService(MeshService):
    """The server: its identity, its port, its status."""

    options: Options

    def understand(self) -> None:
        """The endpoints, and the CA that is asked. Raises :class:`PkiError`."""
        options, reactor = self.options, self.reactor
        self.listens_on = self.endpoint_at(options["listen"])
        self.status_endpoint = None
        if options["status"]:
            self.status_endpoint = listening_endpoint(reactor, options["status"], "127.0.0.1")
        self.client = options.origin(reactor, self.log)

    async def start(self) -> None:
        """Build what gets and shows an identity, and bind the ports. Raises :class:`PkiError`."""
        options, reactor = self.options, self.reactor
        options.hold_to_newest(options["sct-demand"])
        allow = tuple(options["allow"])
        allow += options.read_allow_file()
        if not allow and options["trust-domain"] is None:
            raise StartError(
                "with --source say who may connect: --allow spiffe://TD/**, or --trust-domain TD for everybody of that"
            )
        if not allow:
            allow = (SpiffePattern.parse(f"{options['trust-domain'].id}/**"),)
            self.log.warn(
                "No --allow was given: every service of {trust_domain} may connect",
                event="allow-all",
                trust_domain=str(options["trust-domain"]),
            )
        self.agent = Agent(
            self.client,
            options.wanted(),
            reactor,
            allow,
            connects=False,
            log=self.log,
        )
        self.trust_store, self.manager = self.agent.trust_store, self.agent.manager
        auditor = options.audit(reactor, self.trust_store)
        memories = Memories(reactor, [*self.agent.memories, *audited(auditor)])
        self.addService(memories)
        self.status = EndpointStatus(
            self.manager, self.descriptors, memories, lambda: troubles_of(auditor)
        )
        if auditor is not None:
            self.addService(auditor)
        self.status.show()
        self.questions = self.status.questions
        self.site = site(reactor)
        if options.seat is not None:
            self.signals.hurry(self._hurry)
        security = self.agent.security(
            serves=True,
            connection_limit=ConnectionLimit(
                Capacity.of_server(options["max-connections"]), reactor, "the port", self.log
            ),
            handshake_budget=HandshakeBudget(reactor),
            explain=HttpRefusal,
        )
        if options.seat is None:
            clear_way(options["listen"], "--listen")
        self.port = self.listening(
            endpoints.listen(self.listens_on, self.site, security),
            f"the address {options['listen']}",
        )
        self.serve_status(self.status_endpoint)

    async def run(self) -> None:
        """Get an identity, however long that takes, and then say where the server listens."""
        for service in self.agent.services:
            self.addService(service)
        svid = await self.manager.ready()
        self._tell_of_strangers(svid.spiffe_id.trust_domain)
        self.open()
        if isinstance(self.client, CaClient):
            self.addService(ConnectionReporter.of(self.agent, self.client))
        address = self.port.getHost()
        host = getattr(address, "host", "")
        self.log.info(
            "Starting mTLS server on {host}:{port}\nClient certificate required: YES\nTrusted CA: {roots}",
            event="listening",
            host=host if host not in _ANY else "",
            port=getattr(address, "port", address),
            roots=", ".join(
                root.subject.rfc4514_string() for root in self.trust_store.trust.bundles.all_roots
            ),
        )
        rotation = self.manager.next_rotation or svid.validity.not_after
        self.log.info(
            "Certificate rotation scheduled:\n  Next rotation: {next_rotation} (in {wait})\n"
            "Ready to accept mTLS connections.",
            event="ready",
            next_rotation=rfc3339(rotation),
            wait=spoken_duration(rotation - wall_clock()),
        )

    def _tell_of_strangers(self, ours: TrustDomain) -> None:
        """Whom ``--allow`` names, and of whose trust domain no bundle has come."""
        bundles = self.trust_store.trust.bundles
        for pattern in self.trust_store.trust.allow:
            if bundles.get(pattern.trust_domain) is None:
                self.log.warn(
                    "--allow {pattern} lets nobody in before an entry that lets this server have its ID federates with "
                    "that trust domain (mesh-ctl entry create --federates-with), and its CA with it: this server is of "
                    "{trust_domain}",
                    event="allow-unheld",
                    pattern=str(pattern),
                    trust_domain=str(ours),
                )

    def rereads(self) -> list[Reread]:
        """The log level, who may connect, pins, whose receipts count, and whose lists of the revoked are heeded."""
        found = super().rereads()
        if self.options["allow-file"] is not None:
            found.append(Reread(f"--allow-file {self.options['allow-file']}", self._reread_allowed))
        found += self.options.reread_pins(self.trust_store)
        found += self.options.reread_policy(self.trust_store)
        found += self.options.reread_demand(self.trust_store)
        if self.agent.crls.sources:
            places = ", ".join(map(str, self.agent.crls.sources))
            found.append(Reread(f"--crl {places}", self._reread_crls))
        return found

    async def _reread_allowed(self) -> str:
        before = set(self.trust_store.trust.allow)
        patterns = (*self.options["allow"], *self.options.read_allow_file())
        self.trust_store.allow(patterns)
        return difference(map(str, before), map(str, patterns))

    async def _reread_crls(self) -> str:
        before = self.agent.crls.issuers
        self.agent.crls.look_anew(crl_issuers(self.options["crl-issuer"]))
        changed = ", and --crl-issuer has changed" if self.agent.crls.issuers != before else ""
        return (
            f"each is read as if it were new within a second, or asked for when it is due{changed}"
        )

    async def close(self) -> None:
        """Ask no more, and keep what the next start is to remember."""
        self.agent.close()
        self.agent.witness.remember()

    def _hurry(self) -> None:
        """The parent of this worker was told to stop once more."""
        _ = spawn(self.drain(0), "stopping", self.log)

    async def drain(self, seconds: float) -> None:
        """Let requests finish within so many seconds."""
        late = await self.site.drain(seconds)
        if late:
            self.cut_off(late, seconds)


class ServerParent(ParentService):
    """Supervises workers that are servers."""

    options: Options

    def addresses(self) -> Sequence[tuple[str, str]]:
        """See :class:`ParentService`."""
        return [(self.options["listen"], "")]

    def read_rules(self) -> str:
        """See :class:`ParentService`."""
        _ = self.options.read_allow_file(), self.options.read_pins(), self.options.read_policy()
        return ""


def makeService(options: Options) -> IService:
    """What ``twistd mesh-server`` starts."""
    return cast(
        IService, service_of(ServerParent if options.has_workers else ServerService, options)
    )
