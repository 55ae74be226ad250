"""``twistd mesh-proxy``: carries connections of programs that know nothing of the mesh over it."""

import os
import resource
from collections.abc import Sequence
from functools import partial
from typing import cast

from attrs import frozen
from twisted.application.service import IService
from twisted.internet.interfaces import IStreamServerEndpoint

from pki.errors import Malformed
from pki.spiffe import SpiffePattern
from pki.validity import rfc3339, spoken_duration
from twisted_mesh.api.client import CaClient
from twisted_mesh.http.refusal import OF_PROXY, HttpRefusal
from twisted_mesh.http.status_site import Page
from twisted_mesh.identity.agent import Agent
from twisted_mesh.identity.connection_reporter import ConnectionReporter
from twisted_mesh.limits.connection_limit import Capacity, ConnectionLimit
from twisted_mesh.limits.handshake_budget import HandshakeBudget
from twisted_mesh.monitoring import EndpointStatus
from twisted_mesh.proxy.circle import circle_problem
from twisted_mesh.proxy.front import Front
from twisted_mesh.proxy.greeting import GreetingEndpoint
from twisted_mesh.proxy.listener import Listener
from twisted_mesh.proxy.report import Report
from twisted_mesh.runtime.clock import wall_clock
from twisted_mesh.runtime.meters import show
from twisted_mesh.runtime.tasks import Ticker
from twisted_mesh.state.memory import Memories
from twisted_mesh.taps.lifecycle import MeshService, service_of
from twisted_mesh.taps.listener_rules import is_for_others, refuse_moved, usual_interface
from twisted_mesh.taps.listening import listening_endpoint
from twisted_mesh.taps.proxy_options import Options
from twisted_mesh.taps.proxy_parent import ProxyParent
from twisted_mesh.taps.reread import Reread, difference
from twisted_mesh.taps.sct_options import audited, troubles_of
from twisted_mesh.taps.service_options import StartError
from twisted_mesh.taps.status_port import clear_way
from twisted_mesh.tls import endpoints
from twisted_mesh.tls.transport import TRANSPORT

#: Descriptors that are no connections: the log, key files, listening sockets, the reactor's own, the CA's.
_OTHER_DESCRIPTORS = 64
#: What 2 GiB hold.
_MOST_ROOM = 10_000
_LEAST_ROOM = 4
#: Seconds between two looks for those who have gone unheard.
_LOOK = 1.0
#: Handshakes under way at one listener, at most.
_MOST_UNPROVEN = 256
_LEAST_UNPROVEN = 16
#: Descriptors, where there is no limit of them.
_ENOUGH = 1 << 20


@frozen(eq=False)
class ProxyStatus(EndpointStatus):
    """What ``--status`` answers: it knows of the targets too."""

    report: Report | None = None

    async def readiness(self) -> Page:
        """The same, once each target's state is known."""
        if self.report is not None:
            await self.report.look()
        return await super().readiness()


class ProxyService(MeshService):
    """The proxy: its identity, its listeners, its status."""

    options: Options
    under_way = "connections"
    fronts: Sequence[Front] = ()

    def understand(self) -> None:
        """The endpoints, and the CA that is asked. Raises :class:`PkiError`."""
        options, reactor = self.options, self.reactor
        if os.environ.get(TRANSPORT) == "twisted":
            raise StartError(
                f"{TRANSPORT}=twisted cannot end one direction and go on with the other, as a proxy must: unset it"
            )
        self.endpoints = [self._endpoint(listener) for listener in options["listeners"]]
        self.status_endpoint = None
        if options["status"]:
            self.status_endpoint = listening_endpoint(reactor, options["status"], "127.0.0.1")
        self.client = options.origin(reactor, self.log)
        self.is_hurried = False

    def _hurry(self) -> None:
        """A second SIGTERM: whoever sends it does not want to wait."""
        if not self.is_hurried:
            self.is_hurried = True
            late = sum(front.cut("drain") for front in self.fronts)
            self.log.warn(
                "Told to stop once more: {late} connections are cut off", event="hurried", late=late
            )

    def _endpoint(self, listener: Listener) -> IStreamServerEndpoint:
        return self.endpoint_at(listener.address, usual_interface(listener))

    async def start(self) -> None:
        """Build what gets and shows an identity, and bind every port. Raises :class:`PkiError`."""
        options, reactor = self.options, self.reactor
        options.hold_to_newest(options["sct-demand"])
        self.signals.hurry(self._hurry)
        listeners: Sequence[Listener] = options["listeners"]
        self.agent = Agent(
            self.client,
            options.wanted(),
            reactor,
            self._widest(listeners),
            serves=any(listener.serves for listener in listeners),
            connects=any(not listener.serves for listener in listeners),
            log=self.log,
        )
        self.trust_store, self.manager = self.agent.trust_store, self.agent.manager
        auditor = options.audit(reactor, self.trust_store)
        if auditor is not None:
            self.addService(auditor)
        memories = Memories(reactor, [*self.agent.memories, *audited(auditor)])
        self.addService(memories)
        rooms = _rooms(listeners)
        self.fronts = [
            Front(
                listener, reactor, self.trust_store.judge, room, self.log, options["trust-domain"]
            )
            for listener, room in zip(listeners, rooms, strict=True)
        ]
        self.report = Report(self.fronts)
        self.looks = Ticker(reactor, _LOOK, self._look, "the proxy", self.log)
        self.status = ProxyStatus(
            self.manager,
            self.descriptors,
            memories,
            lambda: (*self.report.troubles(), *troubles_of(auditor)),
            self.report.lack,
            self.report,
        )
        self.status.show()
        self.questions = {**self.status.questions, "/status": self.report.page}
        show("proxy", self.report)
        for front, endpoint in zip(self.fronts, self.endpoints, strict=True):
            self._bind(front, endpoint)
        if problem := self._circle(listeners):
            raise StartError(problem)
        self.serve_status(self.status_endpoint)

    def _bind(self, front: Front, endpoint: IStreamServerEndpoint) -> None:
        listener = front.listener
        what = f"the address {listener.address}"
        if self.options.seat is None:
            clear_way(listener.address, "--listen")
        timeout = listener.bounds.handshake
        if listener.serves:
            limit = ConnectionLimit(
                _capacity(front.room, len(self.fronts)),
                self.reactor,
                f"listener {listener.name}",
                self.log,
            )
            security = self.agent.security(
                serves=True,
                handshake_timeout=timeout,
                connection_limit=limit,
                handshake_budget=HandshakeBudget(self.reactor),
                leaf_checks=(front.objection,),
                explain=partial(HttpRefusal, cure=OF_PROXY),
                explains=lambda: front.listener.http,
            )
            greeting = GreetingEndpoint(endpoint, front, limit)
            port = self.listening(endpoints.listen(greeting, front.callers, security), what)
            front.watch(port, lambda: limit.unproven)
            return
        front.secure(self.agent.security(serves=False, handshake_timeout=timeout))
        port = self.listening(endpoint.listen(front.callers), what)
        address = port.getHost()
        if is_for_others(listener, address):
            self.log.warn(
                "Listener {listener} takes plaintext from other machines (--unsafe-listen): whoever reaches {address} "
                "is carried to {target} as us",
                event="proxy-unsafe-listen",
                listener=listener.name,
                address=listener.address,
                target=str(listener.target),
            )
        front.watch(port)

    def _circle(self, listeners: Sequence[Listener]) -> str:
        return circle_problem([front.port.getHost() for front in self.fronts], listeners)

    def _widest(self, listeners: Sequence[Listener]) -> tuple[SpiffePattern, ...]:
        """All that may be at some far side; which of them at which one, each listener says."""
        found: dict[SpiffePattern, None] = {}
        for listener in listeners:
            found |= dict.fromkeys(listener.patterns)
            if listener.allow_dns:
                if self.options["trust-domain"] is None:
                    raise StartError(
                        "--allow-dns with --source needs --trust-domain: whose names are meant?"
                    )
                found[SpiffePattern.parse(f"{self.options['trust-domain'].id}/**")] = None
        return tuple(found)

    async def run(self) -> None:
        """Get an identity, however long that takes, and then say where the proxy listens."""
        for service in self.agent.services:
            self.addService(service)
        svid = await self.manager.ready()
        self.open()
        if isinstance(self.client, CaClient):
            self.addService(ConnectionReporter.of(self.agent, self.client))
        self.looks.start(now=False)
        for front in self.fronts:
            address = front.port.getHost()
            self.log.info(
                "Listener {listener} ({mode}) carries {address} to {target} as {spiffe_id}",
                event="proxy-listening",
                listener=front.listener.name,
                mode=str(front.listener.mode),
                address=_spoken(address),
                target=str(front.listener.target),
                spiffe_id=str(svid.spiffe_id),
            )
            self._warn_of(front)
        rotation = self.manager.next_rotation or svid.validity.not_after
        self.log.info(
            "Certificate rotation scheduled:\n  Next rotation: {next_rotation} (in {wait})\n"
            "Ready to carry connections.",
            event="ready",
            next_rotation=rfc3339(rotation),
            wait=spoken_duration(rotation - wall_clock()),
        )

    def _warn_of(self, front: Front) -> None:
        """What was probably not meant, and what should not stay."""
        # A Workload API may bring the bundles of federated trust domains along.
        for pattern in front.listener.patterns if self.options["source"] is None else ():
            if pattern.trust_domain != self.options["trust-domain"]:
                self.log.warn(
                    "Listener {listener}: {pattern} means nobody before an entry that lets this proxy have its ID "
                    "federates with that trust domain (mesh-ctl entry create --federates-with), and its CA with it: "
                    "this proxy is of {trust_domain}",
                    event="allow-unheld",
                    listener=front.listener.name,
                    pattern=str(pattern),
                    trust_domain=str(self.options["trust-domain"]),
                )
        if front.listener.permissive:
            self.log.warn(
                "Listener {listener} is permissive: whoever reaches it may call {target} without TLS and without proof",
                event="proxy-permissive",
                listener=front.listener.name,
                target=str(front.listener.target),
            )

    def _look(self) -> None:
        for front in self.fronts:
            front.look()

    def rereads(self) -> list[Reread]:
        """The log level, the listeners (who may, where connections go, how long and how many), and pins."""
        found = super().rereads()
        if self.options.source_of_listeners and self.fronts:
            found.append(Reread(self.options.source_of_listeners, self._reread_listeners))
        if self.fronts:
            found += self.options.reread_pins(self.trust_store)
            found += self.options.reread_policy(self.trust_store)
            found += self.options.reread_demand(self.trust_store)
        return found

    async def _reread_listeners(self) -> str:
        listeners = self.options.read_listeners()
        refuse_moved([front.listener for front in self.fronts], listeners)
        if problem := self._circle(listeners):
            raise Malformed(problem)
        widest = self._widest(listeners)
        before = [str(front.listener) for front in self.fronts]
        for front, listener, room in zip(self.fronts, listeners, _rooms(listeners), strict=True):
            front.replace(listener, room)
            self._warn_of(front)
        self.options["listeners"] = listeners
        self.trust_store.allow(widest)
        self.trust_store.review()
        changed = [
            front.listener.name
            for front, was in zip(self.fronts, before, strict=True)
            if str(front.listener) != was
        ]
        return difference((), changed).replace("new:", "changed:")

    async def drain(self, seconds: float) -> None:
        """Let what is carried finish within so many seconds."""
        late = 0
        until = self.reactor.seconds() + seconds
        for front in self.fronts:
            front.take_no_more()
        for front in self.fronts:
            late += await front.drain(max(0.0, until - self.reactor.seconds()), self._is_in_hurry)
        if late:
            self.cut_off(late, seconds)

    def _is_in_hurry(self) -> bool:
        return self.is_hurried

    async def close(self) -> None:
        """Ask no more, and keep what the next start is to remember."""
        if self.fronts:
            self.looks.stop()
            self.agent.close()
            self.agent.witness.remember()


def _rooms(listeners: Sequence[Listener]) -> list[int]:
    """How many connections each carries: two descriptors for each, and some for who has proven nothing yet."""
    left = _descriptors(len(listeners))
    each = max(_LEAST_ROOM, min(_MOST_ROOM, (left - min(_MOST_UNPROVEN, left // 4)) // 2))
    return [listener.bounds.connections or each for listener in listeners]


def _descriptors(listeners: int) -> int:
    """What there is for each of so many listeners."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return (_ENOUGH if soft == resource.RLIM_INFINITY else soft - _OTHER_DESCRIPTORS) // listeners


def _capacity(room: int, listeners: int) -> Capacity:
    """Of those who have proven who they are none is hung up on for another: they wait.

    However few may be carried, many may come for that at once, and who is hung up on before it is judged cannot tell
    that from being let in: TLS 1.3 has ended its handshake by then.
    """
    unproven = max(_LEAST_UNPROVEN, min(_MOST_UNPROVEN, _descriptors(listeners) // 4))
    most = room + 2 * unproven
    return Capacity(most, unproven, most, unproven * 3 // 4)


def _spoken(address: object) -> str:
    name = getattr(address, "name", None)
    if isinstance(name, bytes):
        return f"unix:{name.decode('utf-8', 'replace')}"
    host = str(getattr(address, "host", ""))
    return f"{f'[{host}]' if ':' in host else host}:{getattr(address, 'port', '')}"


def makeService(options: Options) -> IService:
    """What ``twistd mesh-proxy`` starts."""
    return cast(IService, service_of(ProxyParent if options.has_workers else ProxyService, options))
