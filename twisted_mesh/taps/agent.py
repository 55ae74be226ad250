"""``twistd mesh-agent``: serves the workloads of a machine, and keeps an identity as files for other programs."""

from collections.abc import Sequence
from typing import cast

from attrs import define
from twisted.application.service import IService
from twisted.internet.threads import deferToThread

from pki.errors import Problem
from twisted_mesh.api.client import CaClient
from twisted_mesh.files.keeper import FilesKeeper
from twisted_mesh.files.tellers import by_command, by_signal
from twisted_mesh.files.writer import FilesWriter
from twisted_mesh.identity.agent import Agent
from twisted_mesh.identity.connection_reporter import ConnectionReporter
from twisted_mesh.monitoring import EndpointStatus
from twisted_mesh.state.memory import Memories
from twisted_mesh.taps.agent_options import Options
from twisted_mesh.taps.lifecycle import MeshService, service_of
from twisted_mesh.taps.listening import listening_endpoint
from twisted_mesh.taps.reread import Reread
from twisted_mesh.taps.sct_options import audited, troubles_of
from twisted_mesh.taps.status_port import clear_way, status_site
from twisted_mesh.taps.workload_socket import WorkloadSocket
from twisted_mesh.workload.agent_issuer import AgentIssuer


@define(eq=False)
class _Files:
    """What is kept as files."""

    agent: Agent
    keeper: FilesKeeper


@define(eq=False)
class _Workloads:
    """Who is served."""

    agent: Agent
    issuer: AgentIssuer
    socket: WorkloadSocket


class AgentService(MeshService):
    """The agent: an identity of its own and the workloads that it serves, or one in files, or both; and its status."""

    options: Options
    files: _Files | None = None
    workloads: _Workloads | None = None

    def understand(self) -> None:
        """The CA that is asked, and where the status is. Raises :class:`PkiError`."""
        options, reactor = self.options, self.reactor
        self.status_endpoint = None
        if options["status"]:
            self.status_endpoint = listening_endpoint(reactor, options["status"], "127.0.0.1")
        self.client = options.origin(reactor, self.log)

    async def start(self) -> None:
        """Own the directory and the socket, and bind the status port. Raises :class:`PkiError`."""
        options = self.options
        options.hold_to_newest(options["sct-demand"])
        if options["name"] is not None:
            self._serve_workloads()
        if options["write"]:
            self._keep_files()
        auditor = options.audit(self.reactor, *(agent.trust_store for agent in self._agents))
        if auditor is not None:
            self.addService(auditor)
        self._auditor = auditor
        kept = [memory for agent in self._agents for memory in agent.memories]
        memories = Memories(self.reactor, [*kept, *audited(auditor)])
        self.addService(memories)
        self.status = EndpointStatus(
            self._agents[-1].manager, self.descriptors, memories, self._troubles, self._lack
        )
        self.status.show()
        if self.status_endpoint is not None:
            clear_way(options["status"])
            health = status_site(self.status.questions, options["dns"], self.reactor, self.log)
            self.listening(
                self.status_endpoint.listen(health), f"the status address {options['status']}"
            )

    @property
    def _agents(self) -> Sequence[Agent]:
        """Each of its own identity."""
        return [part.agent for part in (self.workloads, self.files) if part is not None]

    def _serve_workloads(self) -> None:
        options = self.options
        # Each shows an identity of its own to the CA.
        client = options.ca_client(self.reactor)
        agent = Agent(
            client,
            options.wanted_of_agent(),
            self.reactor,
            (),
            serves=False,
            connects=False,
            log=self.log,
        )
        issuer = AgentIssuer(agent, self.reactor)
        containers = options.local_workloads(self.reactor)
        socket = WorkloadSocket(
            options["socket"], "--socket", issuer, self.reactor, self.log, containers
        )
        socket.open(self.listening)
        self.workloads = _Workloads(agent, issuer, socket)

    def _keep_files(self) -> None:
        options, reactor = self.options, self.reactor
        writer = FilesWriter(options["write"])
        writer.take()
        agent = Agent(
            self.client, options.wanted(), reactor, (), serves=False, connects=False, log=self.log
        )
        tellers = []
        if options["command"] is not None:
            tellers.append(by_command(options["command"], self.log))
        if options["signal"] is not None:
            tellers.append(by_signal(options["signal"], self.log))
        keeper = FilesKeeper(
            agent,
            writer,
            tellers,
            reactor,
            self.log,
            defer=deferToThread,
            drain=options["drain"],
        )
        keeper.show()
        self.files = _Files(agent, keeper)

    def rereads(self) -> list[Reread]:
        """The log level, who is asked about containers, and which logs' receipts count."""
        asked = None if self.workloads is None else self.workloads.socket.containers
        return [
            *super().rereads(),
            *self.options.reread_workload_attestors(asked, self.reactor),
            *self.options.reread_demand(*(agent.trust_store for agent in self._agents)),
        ]

    def _troubles(self) -> Sequence[tuple[str, Problem]]:
        found: list[tuple[str, Problem]] = [*troubles_of(self._auditor)]
        if self.workloads is not None:
            found += self.workloads.socket.troubles()
        if self.files is not None:
            found += self.files.keeper.troubles()
        return found

    def _lack(self) -> Problem | None:
        lack = None if self.workloads is None else self.workloads.socket.lack()
        if lack is None and self.files is not None:
            lack = self.files.keeper.lack()
        return lack

    async def run(self) -> None:
        """Get an identity, however long that takes, keep its files, and serve workloads."""
        self.open()
        for agent in self._agents:
            for service in agent.services:
                self.addService(service)
            if agent.wanted.demand is not None and isinstance(agent.client, CaClient):
                self.addService(self._reporter(agent, agent.client))
        if self.workloads is not None:
            self.addService(self.workloads.issuer)
            self.log.info(
                "Serving the workloads of this machine as {spiffe_id} at unix://{path}",
                event="serving-workloads",
                spiffe_id=str(self.options["agent-id"]),
                path=str(self.options["socket"]),
            )
        if self.files is not None:
            self.addService(self.files.keeper)
            self.log.info(
                "Keeping the files of {spiffe_id} in {directory}",
                event="keeping-files",
                spiffe_id=str(
                    self.options["spiffe-id"] or f"the default identity at {self.files.agent.where}"
                ),
                directory=str(self.options["write"]),
            )

    def _reporter(self, agent: Agent, client: CaClient) -> ConnectionReporter:
        """Tells the CA which receipts are demanded, of its own certificate: nobody else is met here."""
        store = agent.trust_store
        return ConnectionReporter(
            client,
            store.registry,
            self.reactor,
            self.log,
            agent.instance,
            demand=lambda: store.trust.demand,
        )

    async def drain(self, seconds: float) -> None:
        """End the streams of workloads, and let what is being answered finish."""
        if self.workloads is not None:
            await self.workloads.socket.drain(seconds)

    async def close(self) -> None:
        """Ask no more, and keep what the next start is to remember."""
        if self.workloads is not None:
            self.workloads.socket.close()
        for agent in self._agents:
            agent.close()
            agent.witness.remember()


def makeService(options: Options) -> IService:
    """What ``twistd mesh-agent`` starts."""
    return cast(IService, service_of(AgentService, options))
