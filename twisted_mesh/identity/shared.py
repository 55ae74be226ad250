"""Identities that several parts of one process share: one agent each, which stops with the last that uses it."""

from typing import Any
from weakref import WeakKeyDictionary

from attrs import define, field, frozen
from twisted.internet.defer import Deferred

from pki.errors import Malformed
from pki.spiffe import SpiffeId, SpiffePattern
from twisted_mesh.api.client import CaClient
from twisted_mesh.identity.agent import Agent, Wanted
from twisted_mesh.identity.connection_reporter import ConnectionReporter
from twisted_mesh.interfaces import IReactor
from twisted_mesh.runtime.log import logger
from twisted_mesh.runtime.tasks import within
from twisted_mesh.tls.connection import MeshConnection

_log = logger("endpoints")


class OtherWords(Malformed):
    """Somebody else in this process asks for the same identity, and for something else about it."""


@frozen
class Asked:
    """An identity as it is asked for: who asks in the same words shares it."""

    words: tuple[tuple[str, str], ...]
    client: CaClient = field(eq=False)
    wanted: Wanted = field(eq=False)


@define(eq=False, repr=False)
class SharedAgent:
    """An agent, and how many use it; it stops with the last of them, or with the reactor."""

    reactor: IReactor
    asked: Asked
    agent: Agent = field(init=False)
    has_clients: bool = False
    _users: int = field(default=0, init=False)
    _reporter: ConnectionReporter | None = field(default=None, init=False)
    _trigger: Any = field(init=False)

    def __attrs_post_init__(self) -> None:
        wanted = self.asked.wanted
        everybody = SpiffePattern.parse(f"{wanted.named.trust_domain.id}/**")
        self.agent = Agent(self.asked.client, wanted, self.reactor, (everybody,), log=_log)
        self.agent.start()
        # After all that is stopped before: listeners drain while connections are still judged again.
        self._trigger = self.reactor.addSystemEventTrigger("during", "shutdown", self._shut_down)

    @classmethod
    def of(cls, reactor: IReactor, asked: Asked) -> "SharedAgent":
        """The one of that identity. Raises :class:`OtherWords` where it is there already, in other words."""
        known = AGENTS.setdefault(reactor, {})
        who = (str(asked.wanted.state_dir), str(asked.client.address), asked.wanted.named)
        shared = known.get(who)
        if shared is None:
            shared = known[who] = cls(reactor, asked)
        elif shared.asked != asked:
            differing = dict(set(shared.asked.words) ^ set(asked.words))
            raise OtherWords(
                f"another mesh: endpoint of this process asks for {asked.wanted.named} with other values of "
                f"{', '.join(sorted(differing))}: give both the same"
            )
        return shared

    def use(self) -> None:
        """Run for one more user."""
        self._users += 1

    async def ready(self, seconds: float | None = None) -> None:
        """Once there is a certificate; its CA is told of what is demanded from then on. Raises :class:`PkiError`."""
        agent = self.agent
        await agent.ready(seconds)
        if self._reporter is None and (agent.wanted.pins or agent.wanted.demand):
            store = agent.trust_store
            self._reporter = ConnectionReporter(
                agent.ca,
                store.registry,
                self.reactor,
                _log,
                pins=lambda: store.trust.pins,
                demand=lambda: store.trust.demand,
            )
            self._reporter.startService()

    def use_for_clients(self) -> None:
        """Run until the reactor stops, or until :func:`leave`: who connects does not say when it is over."""
        if not self.has_clients:
            self.has_clients = True
            self.use()

    async def release(self, drain: float = 0.0) -> None:
        """One user fewer; with the last, connections have ``drain`` seconds, and then nothing is left."""
        self._users -= 1
        if self._users > 0:
            return
        registry = self.agent.trust_store.registry
        if len(registry) and drain:
            empty: Deferred[None] = Deferred()
            registry.when_empty(lambda: None if empty.called else empty.callback(None))
            try:
                await within(self.reactor, drain, empty)
            except Exception:
                _log.warn("{count} connections were cut off", event="cut-off", count=len(registry))
        if self._users > 0:
            return  # somebody has come meanwhile
        for connection in registry.all():
            if isinstance(connection, MeshConnection):
                connection.abortConnection()
        await self.end()

    async def end(self) -> None:
        """Stop, whoever uses it."""
        known = AGENTS.get(self.reactor, {})
        for who in [who for who, shared in known.items() if shared is self]:
            del known[who]
            self._report_no_more()
            await self.agent.stop()
            self.reactor.removeSystemEventTrigger(self._trigger)

    def _shut_down(self) -> "Deferred[None]":
        known = AGENTS.get(self.reactor, {})
        for who in [who for who, shared in known.items() if shared is self]:
            del known[who]
        self._report_no_more()
        return Deferred.fromCoroutine(self.agent.stop())

    def _report_no_more(self) -> None:
        reporter, self._reporter = self._reporter, None
        if reporter is not None:
            reporter.stopService()


#: By reactor, and by state directory, CA and ID.
AGENTS: "WeakKeyDictionary[Any, dict[tuple[str, str, SpiffeId], SharedAgent]]" = WeakKeyDictionary()


async def stop_all(reactor: IReactor) -> None:
    """Stop every identity of the ``mesh:`` endpoints of ``reactor`` now: for tests, and for programs that go on."""
    for shared in list(AGENTS.get(reactor, {}).values()):
        await shared.end()
