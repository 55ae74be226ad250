"""``--workers``: the process that has the identity and the addresses, and supervises those that serve."""

import os
import socket
from abc import abstractmethod
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

import msgspec
from attrs import evolve
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import (
    TCP4ServerEndpoint,
    TCP6ServerEndpoint,
    UNIXServerEndpoint,
)
from twisted.internet.error import TimeoutError
from twisted.internet.interfaces import IStreamServerEndpoint
from twisted.internet.protocol import Factory

from pki.codes import Code
from pki.errors import Problem, discreet
from pki.svid.spki_pin import PinSet
from twisted_mesh import observe
from twisted_mesh.api.client import CaClient
from twisted_mesh.http.status_site import LIVENESS, Page
from twisted_mesh.identity.agent import Agent
from twisted_mesh.monitoring import OF_IDENTITY
from twisted_mesh.revocation.options import RevocationOptions
from twisted_mesh.runtime.meters import Reading, Readings, show
from twisted_mesh.state.memory import Memories, reading_of
from twisted_mesh.taps.activation import ActivatedEndpoint, ActivatedPort
from twisted_mesh.taps.early_port import EarlyPort
from twisted_mesh.taps.inherited_port import HeldPort
from twisted_mesh.taps.lifecycle import MeshService
from twisted_mesh.taps.listening import early_endpoint, listening_endpoint
from twisted_mesh.taps.reread import Reread
from twisted_mesh.taps.service_options import StartError
from twisted_mesh.taps.status_port import clear_way
from twisted_mesh.taps.worker_options import WorkerOptions
from twisted_mesh.workers.figures import PARENT, merged_metrics, merged_readiness
from twisted_mesh.workers.messages import Answered, Asked, Assignment, Told
from twisted_mesh.workers.process import Worker, WorkerFailed
from twisted_mesh.workers.relay import Relay
from twisted_mesh.workers.supervisor import Supervisor

#: Endpoints whose sockets can be handed on.
_SHARED = (TCP4ServerEndpoint, TCP6ServerEndpoint, UNIXServerEndpoint, ActivatedEndpoint)
SharedOut = EarlyPort | ActivatedPort | HeldPort
#: What Prometheus reads of the workers beside their own figures.
OF_WORKERS: tuple[Reading[Supervisor], ...] = (
    Reading("mesh_workers", "Workers that there should be.", lambda s: s.count),
    Reading(
        "mesh_workers_listening",
        "Workers that take connections.",
        lambda s: sum(one.is_listening for one in s.workers),
    ),
    Reading(
        "mesh_worker_restarts_total",
        "Workers that were started in the place of one that had ended.",
        lambda s: sum(one.restarts for one in s.workers),
        is_counter=True,
    ),
)


class ParentService(MeshService):
    """Of one service: which addresses it has, and what its workers are told, its subclass says."""

    options: WorkerOptions
    agent: Agent | None = None
    """Of the parent's own certificate; None where each worker has its identity from a Workload API."""
    relay: Relay | None = None
    supervisor: Supervisor | None = None

    @abstractmethod
    def addresses(self) -> Sequence[tuple[str, str]]:
        """Where it listens, and which interface a port alone means, in the order in which workers take them."""

    def bound(self, ports: Sequence[SharedOut]) -> None:
        """The addresses are ours. Raises :class:`StartError` where they may not be listened on."""

    @abstractmethod
    def read_rules(self) -> str:
        """Read the files of rules by :attr:`ServiceOptions.texts`, and refuse what the workers would.

        What has changed, or nothing. Raises :class:`PkiError`.
        """

    async def more_status(self) -> dict[str, Any]:
        """What ``/status`` tells besides the workers."""
        return {}

    def understand(self) -> None:
        """The addresses, and who is asked for a certificate. Raises :class:`PkiError`."""
        options, reactor = self.options, self.reactor
        self.endpoints = [self._endpoint(*address) for address in self.addresses()]
        self.status_endpoint = None
        if options["status"]:
            self.status_endpoint = listening_endpoint(reactor, options["status"], "127.0.0.1")
        # A Workload API looks at each process that asks, and gives it a key: there is nothing to relay.
        self.client = options.origin(reactor, self.log) if options["source"] is None else None

    def _endpoint(self, address: str, interface: str) -> IStreamServerEndpoint:
        endpoint = early_endpoint(self.reactor, address, interface)
        # What another wraps, or what makes more of a connection than it is, would be passed by.
        if not isinstance(endpoint, _SHARED):
            raise StartError(
                f"the address {discreet(address, 80)} is one that a single process listens on: with --workers write "
                "HOST:PORT, unix:PATH or systemd:NAME, or leave --workers out"
            )
        return endpoint

    async def start(self) -> None:
        """Bind every address, and build what vouches for the workers. Raises :class:`PkiError`."""
        options, reactor = self.options, self.reactor
        options.hold_to_newest(options["sct-demand"])
        self.signals.hurry(self._hurry)
        self.shared = [
            self._bind(endpoint, address)
            for endpoint, (address, _) in zip(self.endpoints, self.addresses(), strict=True)
        ]
        self.bound(self.shared)
        ca = ""
        if isinstance(self.client, CaClient):
            ca = str(self.client.address)
            wanted = evolve(options.wanted(), revocation=RevocationOptions(), pins=PinSet())
            self.agent = agent = Agent(
                self.client, wanted, reactor, (), serves=False, connects=False, log=self.log
            )
            self.relay = Relay(self.client, wanted.named, agent.manager, wanted.proving, self.log)
            memories = Memories(reactor, agent.memories)
            self.addService(memories)
            show("identity", Readings(agent.manager, OF_IDENTITY))
            show("status", Readings(self, (reading_of(memories.memories),)))
        self.supervisor = Supervisor(
            reactor,
            options["workers"],
            self._sockets,
            lambda number, sockets: self._assignment(number, sockets, ca),
            self._answer,
            observe.pass_on,
            options["drain"],
            self.log,
            options.came_from,
        )
        show("workers", Readings(self.supervisor, OF_WORKERS))
        self.questions = {
            "/livez": LIVENESS,
            "/readyz": self._readiness,
            "/metrics": self._metrics,
            "/status": self._status,
        }
        self.serve_status(self.status_endpoint)

    def _bind(self, endpoint: IStreamServerEndpoint, address: str) -> SharedOut:
        clear_way(address, "--listen")
        port = self.listening(endpoint.listen(Factory()), f"the address {address}")
        if isinstance(port, EarlyPort | ActivatedPort):
            return port
        return HeldPort(port)

    async def run(self) -> None:
        """Get the certificate that vouches for the workers, and have all of them serve."""
        if self.supervisor is None:
            raise AssertionError("it is made at the start")
        if self.agent is not None:
            for service in self.agent.services:
                self.addService(service)
            await self.agent.ready()
        await self.supervisor.start()
        self.log.info(
            "{workers} workers serve: processes {pids}",
            event="workers-ready",
            workers=self.supervisor.count,
            pids=", ".join(str(worker.pid) for worker in self.supervisor.workers),
        )

    # what a worker needs

    def _sockets(self) -> list[socket.socket]:
        found: list[socket.socket] = []
        try:
            for port in self.shared:
                found.append(port.for_worker())
        except OSError:
            for one in found:
                one.close()
            raise
        return found

    def _assignment(self, number: int, sockets: int, ca: str) -> Assignment:
        options = self.options
        level = f"--log-level={options['log-level'].level}"
        return Assignment(
            options.program,
            number,
            options["workers"],
            os.getpid(),
            [*options.words_of_worker, level],
            dict(options.texts or {}),
            sockets,
            ca,
        )

    async def _answer(self, number: int, asked: Asked) -> Answered:
        if self.relay is None:
            problem = Problem(
                Code.NOT_AUTHORIZED, "no CA is asked here", "the identity is a Workload API's"
            )
            return Answered(asked.number, 0, problems=[problem])
        return await self.relay.answer(number, asked)

    # what people and machines read

    async def pages(self, path: str) -> list[tuple[str, bytes]]:
        """That page of all workers that answer, by number."""
        return [(name, told.body) for name, told in await self._told(path) if told.status == 200]

    async def _told(self, path: str) -> list[tuple[str, Told]]:
        if self.supervisor is None:
            return []
        asked = [
            (str(worker.number), Deferred.fromCoroutine(_page(worker, path)))
            for worker in self.supervisor.workers
            if worker.pid
        ]
        found = [(name, await page) for name, page in asked]
        return [(name, told) for name, told in found if told is not None]

    async def _metrics(self) -> Page:
        pages = {PARENT: generate_latest(), **dict(await self.pages("/metrics"))}
        return Page(merged_metrics(pages), content_type=CONTENT_TYPE_LATEST)

    async def _readiness(self) -> Page:
        pages = [
            (name, told.status, told.body)
            for name, told in await self._told("/readyz")
            if told.body != b"{}"
        ]
        told = merged_readiness(pages, self.options["workers"])
        if self.agent is not None and (problem := self.agent.manager.last_problem) is not None:
            own = {
                "name": PARENT,
                "detail": str(problem),
                "remedy": "its log says when it tries again",
            }
            told["degraded"] = [*told.get("degraded", ()), own]
        is_ready = told["status"] == "ready"
        status = HTTPStatus.OK if is_ready else HTTPStatus.SERVICE_UNAVAILABLE
        return Page(msgspec.json.encode(told), status)

    async def _status(self) -> Page:
        now = self.reactor.seconds()
        workers = [
            {
                "worker": worker.number,
                "pid": worker.pid or None,
                "listening": worker.is_listening,
                "restarts": worker.restarts,
                "seconds": round(now - worker.since, 1) if worker.pid else None,
            }
            for worker in (self.supervisor.workers if self.supervisor else ())
        ]
        return Page(msgspec.json.encode({"workers": workers, **await self.more_status()}))

    # what signals ask for

    def rereads(self) -> list[Reread]:
        """The log level, the files of rules, and whatever else each worker reads again."""
        options, found = self.options, super().rereads()
        named = [f"--{name} {options[name]}" for name in options.files if options[name]]
        named += [f"--crl {place}" for place in options["crl"]]
        if named or found:
            what = ", ".join(named) or "the log level of the workers"
            found.append(Reread(what, self._reread_rules))
        return found

    async def _reread_rules(self) -> str:
        options = self.options
        texts = options.read_texts()
        before = options.take_texts(texts)
        try:
            demand = options.read_demand(options["sct-demand"])
            changed = self.read_rules()
            options.hold_to_newest(demand)
        except BaseException:
            _ = options.take_texts(before)
            raise
        options["sct-demand"] = demand
        if self.agent is not None:
            self.agent.trust_store.require_scts(demand)
        if self.supervisor is not None:
            self.supervisor.reread(texts, options["log-level"].level)
        return changed or ("each worker says what has changed" if options["crl"] else "")

    def _hurry(self) -> None:
        if self.supervisor is not None:
            self.log.warn("Told to stop once more: what is under way is cut off", event="hurried")
            self.supervisor.hurry()

    async def drain(self, seconds: float) -> None:
        """Have the workers finish, and end."""
        if self.supervisor is not None:
            await self.supervisor.stop()

    async def close(self) -> None:
        """Ask no more, and keep what the next start is to remember."""
        if self.agent is not None:
            self.agent.close()
            self.agent.witness.remember()


async def _page(worker: Worker, path: str) -> Told | None:
    try:
        return await worker.ask(path)
    except (TimeoutError, WorkerFailed):
        return None
