"""``twistd mesh-agent``: keeps an identity as files, for programs that are not of the mesh."""

from typing import cast

from twisted.application.service import IService
from twisted.internet.threads import deferToThread

from twisted_mesh.files.keeper import FilesKeeper
from twisted_mesh.files.tellers import by_command, by_signal
from twisted_mesh.files.writer import FilesWriter
from twisted_mesh.identity.agent import Agent
from twisted_mesh.monitoring import EndpointStatus
from twisted_mesh.state.memory import Memories
from twisted_mesh.taps.agent_options import Options
from twisted_mesh.taps.lifecycle import MeshService, service_of
from twisted_mesh.taps.listening import listening_endpoint
from twisted_mesh.taps.status_port import clear_way, status_site


class AgentService(MeshService):
    """The agent: an identity, its files, its status."""

    options: Options

    def understand(self) -> None:
        """The CA that is asked, and where the status is. Raises :class:`PkiError`."""
        options, reactor = self.options, self.reactor
        self.status_endpoint = None
        if options["status"]:
            self.status_endpoint = listening_endpoint(reactor, options["status"], "127.0.0.1")
        self.client = options.ca_client(reactor)

    async def start(self) -> None:
        """Own the directory, and bind the status port. Raises :class:`PkiError`."""
        options, reactor = self.options, self.reactor
        writer = FilesWriter(options["write"])
        writer.take()
        self.agent = Agent(
            self.client, options.wanted(), reactor, (), serves=False, connects=False, log=self.log
        )
        tellers = []
        if options["command"] is not None:
            tellers.append(by_command(options["command"], self.log))
        if options["signal"] is not None:
            tellers.append(by_signal(options["signal"], self.log))
        self.keeper = FilesKeeper(
            self.agent,
            writer,
            tellers,
            reactor,
            self.log,
            defer=deferToThread,
            drain=options["drain"],
        )
        self.keeper.show()
        memories = Memories(reactor, self.agent.memories)
        self.addService(memories)
        self.status = EndpointStatus(
            self.agent.manager, self.descriptors, memories, self.keeper.troubles, self.keeper.lack
        )
        self.status.show()
        if self.status_endpoint is not None:
            clear_way(options["status"])
            health = status_site(self.status.questions, options["dns"], reactor, self.log)
            self.listening(
                self.status_endpoint.listen(health), f"the status address {options['status']}"
            )

    async def run(self) -> None:
        """Get an identity, however long that takes, and keep its files."""
        self.open()
        for service in (*self.agent.services, self.keeper):
            self.addService(service)
        self.log.info(
            "Keeping the files of {spiffe_id} in {directory}",
            event="keeping-files",
            spiffe_id=str(self.options["spiffe-id"]),
            directory=str(self.options["write"]),
        )

    async def close(self) -> None:
        """Ask no more, and keep what the next start is to remember."""
        if hasattr(self, "agent"):
            self.agent.close()
            self.agent.witness.remember()


def makeService(options: Options) -> IService:
    """What ``twistd mesh-agent`` starts."""
    return cast(IService, service_of(AgentService, options))
