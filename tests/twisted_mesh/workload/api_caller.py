"""A caller of the Workload API over a real socket, that says what it wants to say and no more."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from attrs import define

from tests.authorities import NOW
from tests.twisted_mesh.grpc.sockets import channel_to, own_reactor, run, served
from tests.twisted_mesh.workload.fake_workloads import FakeWorkloads, judge
from twisted_mesh.grpc.client import ClientCall, GrpcChannel
from twisted_mesh.grpc.server import GrpcServer
from twisted_mesh.grpc.status import GrpcError, Status
from twisted_mesh.workload import messages
from twisted_mesh.workload.messages import (
    BundlesRequest,
    JwtBundlesResponse,
    JwtSvidRequest,
    JwtSvidResponse,
    ValidateJwtSvidRequest,
    ValidateJwtSvidResponse,
    X509BundlesResponse,
    X509SvidRequest,
    X509SvidResponse,
)
from twisted_mesh.workload.workload_api import Validate, WorkloadApi

T = TypeVar("T")
#: What each method is asked, where nothing is wrong with it.
REQUESTS = {
    messages.FETCH_X509_SVID: X509SvidRequest().encode(),
    messages.FETCH_X509_BUNDLES: BundlesRequest().encode(),
    messages.FETCH_JWT_SVID: JwtSvidRequest(["web"]).encode(),
    messages.FETCH_JWT_BUNDLES: BundlesRequest().encode(),
    messages.VALIDATE_JWT_SVID: ValidateJwtSvidRequest("web", "good.one").encode(),
}
STREAMS = (messages.FETCH_X509_SVID, messages.FETCH_X509_BUNDLES, messages.FETCH_JWT_BUNDLES)
#: How the answers are read.
_ANSWERS = {
    messages.FETCH_X509_SVID: X509SvidResponse,
    messages.FETCH_X509_BUNDLES: X509BundlesResponse,
    messages.FETCH_JWT_SVID: JwtSvidResponse,
    messages.FETCH_JWT_BUNDLES: JwtBundlesResponse,
    messages.VALIDATE_JWT_SVID: ValidateJwtSvidResponse,
}


def server_of(workloads: FakeWorkloads, validate: Validate = judge) -> GrpcServer:
    """The API for them; its judge of tokens is a fake one by default."""
    methods = WorkloadApi(workloads, validate, lambda: NOW).methods()
    return GrpcServer(
        own_reactor(), methods, admit=workloads.caller, key_of=lambda caller: caller.pid
    )


@define(eq=False)
class ApiCaller:
    """One connection."""

    channel: GrpcChannel
    server: GrpcServer
    workloads: FakeWorkloads

    def stream(
        self,
        path: str = messages.FETCH_X509_SVID,
        request: bytes | None = None,
        metadata: Sequence[tuple[str, str]] = (messages.SECURITY_HEADER,),
    ) -> "Answers":
        """A call with that request, or the usual one."""
        asked = REQUESTS.get(path, b"") if request is None else request
        return Answers(path, run(self.channel.stream(path, asked, metadata=metadata, seconds=20)))

    def refusal(self, *call: object, **more: object) -> GrpcError:
        """What a call ends with that has no answer."""
        try:
            answer = self.stream(*call, **more).next()  # type: ignore[arg-type]
        except GrpcError as error:
            return error
        raise AssertionError(f"it was answered: {answer}")

    def status(self, *call: object, **more: object) -> Status:
        return self.refusal(*call, **more).status


@define(eq=False)
class Answers:
    """Those of one call."""

    path: str
    call: ClientCall

    def next(self) -> object:
        """The next one; None after the last. Raises :class:`GrpcError`."""
        message = run(self.call.receive())
        return None if message is None else _ANSWERS[self.path].parse(message)

    def x509(self) -> X509SvidResponse:
        return self._of(X509SvidResponse)

    def x509_bundles(self) -> X509BundlesResponse:
        return self._of(X509BundlesResponse)

    def jwt(self) -> JwtSvidResponse:
        return self._of(JwtSvidResponse)

    def jwt_bundles(self) -> JwtBundlesResponse:
        return self._of(JwtBundlesResponse)

    def valid(self) -> ValidateJwtSvidResponse:
        return self._of(ValidateJwtSvidResponse)

    def _of(self, kind: Callable[..., T]) -> T:
        answer = self.next()
        assert isinstance(answer, kind)  # type: ignore[arg-type]
        return answer  # type: ignore[no-any-return]


@contextmanager
def calling(
    workloads: FakeWorkloads | None = None, validate: Validate = judge
) -> Iterator[ApiCaller]:
    """Somebody who is connected to what serves ``workloads``."""
    workloads = workloads or FakeWorkloads()
    server = server_of(workloads, validate)
    with served(server) as path, channel_to(path) as channel:
        yield ApiCaller(channel, server, workloads)
