"""Where the processes of a machine ask for their identities: one unix socket with the Workload API and Envoy's SDS."""

import os
import resource
import stat
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import define, evolve, field
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import UNIXServerEndpoint
from twisted.internet.interfaces import IListeningPort
from twisted.logger import Logger

from pki.codes import Code
from pki.errors import Problem
from twisted_mesh.attest.local_workloads import LocalWorkloads
from twisted_mesh.attest.process import ProcessAttestor
from twisted_mesh.attest.users import UserNames
from twisted_mesh.interfaces import IReactor
from twisted_mesh.runtime.clock import wall_clock
from twisted_mesh.runtime.meters import Reading, Readings, show
from twisted_mesh.runtime.socket_owner import listener_at
from twisted_mesh.runtime.socket_path import too_long
from twisted_mesh.runtime.tasks import sleep
from twisted_mesh.state.way import on_the_way
from twisted_mesh.taps.early_port import is_answered
from twisted_mesh.taps.service_options import StartError
from twisted_mesh.workload import meters
from twisted_mesh.workload.caller import Caller, Callers
from twisted_mesh.workload.interface import IWorkloadIssuer
from twisted_mesh.workload.workloads import Workloads, process_of

if TYPE_CHECKING:
    from twisted_mesh.grpc.server import GrpcServer

#: Descriptors that one workload takes (its connection, and the handle of its process), and what is left for others.
_OF_ONE, _OTHERS = 2, 128
#: What the limit of descriptors is raised to where the system lets us, and how many connections there are at most.
_ENOUGH, _MOST = 65536, 16384
Listening = Callable[[Deferred[IListeningPort], str], IListeningPort]
#: Seconds for the reactor to write what connections were told last.
_LAST_WORDS = 0.05
_EXTRA = "pip install 'twisted-mesh[workload]'"


def parse_socket(path: Path, option: str) -> Path:
    """Where the socket is to be. Raises :class:`StartError`, also where what serves it is not installed."""
    try:
        import google.protobuf  # noqa: F401
        import h2  # noqa: F401
    except ImportError as error:
        raise StartError(
            f"{option} needs {error.name or 'more'}, which is not installed: {_EXTRA}"
        ) from None
    if (objection := too_long(path)) is not None:
        raise StartError(f"the workload socket's path {objection}: choose a shorter {option}")
    return path


@define(eq=False)
class WorkloadSocket:
    """Serves what ``issuer`` signs at ``path``, from :meth:`open` to :meth:`drain`."""

    path: Path
    option: str
    """By which it is told where to be."""
    issuer: IWorkloadIssuer
    reactor: IReactor
    log: Logger
    containers: LocalWorkloads | None = None
    """Who is asked about those of the callers; None for nobody."""
    workloads: Workloads = field(init=False)
    _server: "GrpcServer | None" = field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        attestor = ProcessAttestor(UserNames(self.reactor))
        callers = Callers(attestor, self.reactor, self.containers)
        self.workloads = Workloads(self.issuer, callers, self.reactor, wall_clock)

    def open(self, listening: Listening) -> IListeningPort:
        """Listen at once: who comes before there is anything is told so. Raises :class:`StartError`."""
        # Only here is needed what the extra brings along.
        from pki.jwt_svid.validator import validate
        from twisted_mesh.grpc.server import GrpcServer, Limits
        from twisted_mesh.workload.sds import SecretService
        from twisted_mesh.workload.workload_api import WorkloadApi

        self._clear_way()
        methods = {
            **WorkloadApi(self.workloads, validate, wall_clock).methods(),
            **SecretService(self.workloads).methods(),
        }
        self._server = GrpcServer(
            self.reactor,
            methods,
            admit=self.workloads.caller,
            key_of=_key_of,
            group_of=_user_of,
            limits=evolve(Limits(), connections=_room()),
            farewell="whoever serves the workloads of this machine is being stopped: connect again in a moment",
        )
        self.workloads.start()
        endpoint = UNIXServerEndpoint(self.reactor, str(self.path), backlog=1024, mode=0o666)
        port = listening(endpoint.listen(self._server), f"the workload socket {self.path}")
        show("workload", Readings(self.workloads, READINGS, meters.ALL))
        self._tell_closed_way()
        self.log.info(
            "The SPIFFE Workload API and Envoy's SDS are at unix://{path}",
            event="workload-socket",
            path=str(self.path),
        )
        return port

    async def drain(self, seconds: float) -> None:
        """Let what is being answered finish, within so many seconds, and end all streams."""
        if self._server is not None:
            await self._server.drain(seconds)
            await sleep(self.reactor, _LAST_WORDS)

    def close(self) -> None:
        """Forget all keys."""
        self.workloads.stop()

    def troubles(self) -> Sequence[tuple[str, Problem]]:
        """What is the matter with what workloads get, while what they have stays."""
        problem = self.workloads.sources.problem
        return [] if problem is None else [("workloads", problem.problems[0])]

    def lack(self) -> Problem | None:
        """Why workloads can have nothing at all."""
        sources = self.workloads.sources
        if sources.is_over or sources.bundles is None:
            if sources.problem is not None:
                return sources.problem.problems[0]
            return Problem(Code.NO_IDENTITY, "the CA has not told of any entries yet", "wait")
        return None

    def _clear_way(self) -> None:
        """Make the directory, and remove the socket of one that was killed. Raises :class:`StartError`."""
        try:
            self.path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            found = self.path.lstat() if os.path.lexists(self.path) else None
            if found is None:
                return
            if not stat.S_ISSOCK(found.st_mode):
                raise StartError(
                    f"{self.path} is no socket, but a file that would be overwritten: remove it, or choose another "
                    f"{self.option}"
                )
            if is_answered(self.path):
                owner = listener_at(str(self.path)) or "who it is, root sees with ss -lxp"
                raise StartError(
                    f"the workload socket {self.path} is another program's ({owner}): stop that, or choose another "
                    f"{self.option}"
                )
            self.path.unlink()
        except OSError as error:
            raise StartError(
                f"the workload socket {self.path} cannot be made ({error.strerror}): choose another {self.option}"
            ) from None

    def _tell_closed_way(self) -> None:
        """Whoever may not go through a directory on the way has no identity, and cannot be told why."""
        for above in on_the_way(self.path)[1:]:
            try:
                is_open = above.stat().st_mode & stat.S_IXOTH
            except OSError:
                continue
            if not is_open:
                self.log.warn(
                    "Processes of other users cannot come to {path}: {directory} is closed to them. chmod o+x it, or "
                    "choose another {option}",
                    event="workload-socket-closed",
                    path=str(self.path),
                    directory=str(above),
                    option=self.option,
                )
                return


def _key_of(caller: object) -> Hashable:
    return process_of(caller) if isinstance(caller, Caller) else id(caller)


def _user_of(caller: object) -> Hashable:
    return caller.uid if isinstance(caller, Caller) else None


def _room() -> int:
    """For how many connections there are descriptors, once there are as many as we may have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _ENOUGH if hard == resource.RLIM_INFINITY else min(_ENOUGH, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = wanted
    return (
        _MOST if soft == resource.RLIM_INFINITY else min(_MOST, max(8, (soft - _OTHERS) // _OF_ONE))
    )


#: What Prometheus reads of it.
READINGS: tuple[Reading[Workloads], ...] = (
    Reading("mesh_workload_streams", "Streams of workloads that are open.", lambda w: w.streams),
    Reading("mesh_workload_svids", "SVIDs that are held for workloads.", lambda w: len(w.svids)),
    Reading(
        "mesh_workload_entries",
        "Entries that count for the workloads of this machine.",
        lambda w: len(w.sources.entries),
    ),
    Reading(
        "mesh_workload_ca_trouble",
        "1 while nothing can be signed for workloads.",
        lambda w: float(w.sources.problem is not None),
    ),
)
