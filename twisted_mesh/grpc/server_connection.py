"""One caller's connection to a gRPC server: calls begun as they come, and ended as they should."""

from collections.abc import Callable, Hashable, Mapping
from typing import ClassVar

from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    RequestReceived,
    StreamEnded,
    StreamReset,
)
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime

from pki.errors import ANY_ERROR, PkiError, printable
from twisted_mesh.grpc.admission import Admission
from twisted_mesh.grpc.call import Call
from twisted_mesh.grpc.connection import GrpcConnection, log
from twisted_mesh.grpc.framing import parse_timeout
from twisted_mesh.grpc.method import Method
from twisted_mesh.grpc.status import GrpcError, Status
from twisted_mesh.runtime.tasks import spawn


class ServerConnection(GrpcConnection):
    """One caller's connection."""

    client_side: ClassVar[bool] = False

    def __init__(
        self,
        reactor: IReactorTime,
        methods: Mapping[str, Method],
        admission: Admission,
        gone: Callable[["ServerConnection"], object],
    ) -> None:
        super().__init__(reactor, admission.limits)
        self.methods = methods
        self.calls: dict[int, Call] = {}
        self.caller: object = None
        self._key: Hashable = self
        self._group: Hashable = self
        self._admission = admission
        self._tell_gone = gone
        self._refusal: GrpcError | None = None
        self._is_admitted = False
        self._waiting: list[tuple[Call, Method]] = []
        """Calls that came before it was known whose they are."""
        self._since = reactor.seconds()
        """When it was made, or its last call ended."""
        self._is_leaving = False
        self._admitting: Deferred[None] | None = None

    def connectionMade(self) -> None:
        """Find out who it is, while it speaks."""
        if not self._admission.enter():
            self.is_lost = True
            self._tell_gone(self)
            self.transport.abortConnection()
            return
        super().connectionMade()
        self._admitting = spawn(self._admit(), "the admission of a gRPC caller", log)

    async def _admit(self) -> None:
        try:
            self.caller = await self._admission.admit(self.transport)
            if self.is_lost:
                return
            key = self._admission.key_of(self.caller)
            group = self._admission.group_of(self.caller)
            if self._admission.is_flood(key, group):
                # Later: this very coroutine would be cancelled by it.
                self.reactor.callLater(0, self.abort)
                return
            self._key, self._group = key, group
            self._refusal = self._admission.too_many_connections(key, group)
        except CancelledError:
            raise
        except GrpcError as error:
            self._refusal = error
        except PkiError as error:
            self._refusal = GrpcError(Status.UNAVAILABLE, str(error))
        except ANY_ERROR:
            log.failure("a gRPC caller could not be admitted", event="grpc-broke")
            self._refusal = GrpcError(Status.INTERNAL, "the caller could not be attested")
        self._is_admitted = True
        waiting, self._waiting = self._waiting, []
        for call, method in waiting:
            self._begin(call, method)

    def happened(self, event: Event) -> None:
        """What concerns a call."""
        if isinstance(event, RequestReceived):
            self._opened(event)
        elif isinstance(event, DataReceived):
            self._received(event)
        elif isinstance(event, StreamEnded):
            if call := self.calls.get(event.stream_id):
                self._heard(call)
        elif isinstance(event, StreamReset):
            if call := self.calls.get(event.stream_id):
                call.is_heard = True
                call.lost()
        elif isinstance(event, ConnectionTerminated):
            # h2 reads no frame after that word, and no client has more to say.
            self.abort()

    def _opened(self, event: RequestReceived) -> None:
        headers = [
            (name.decode("latin-1"), value.decode("latin-1")) for name, value in event.headers
        ]
        http = {name: value for name, value in headers if name.startswith(":")}
        metadata = tuple((name, value) for name, value in headers if not name.startswith(":"))
        call = Call(self, self._closed, event.stream_id, http.get(":path", ""), metadata)
        call.is_heard = event.stream_ended is not None
        kind = "".join(call.values("content-type")[:1])
        if http.get(":method") != "POST":
            call.refuse(405, Status.INTERNAL, "gRPC is spoken by POST")
            return
        if not (
            kind == "application/grpc"
            or kind.startswith(("application/grpc+", "application/grpc;"))
        ):
            call.refuse(
                415, Status.INVALID_ARGUMENT, "gRPC is spoken with content-type application/grpc"
            )
            return
        self.calls[event.stream_id] = call
        try:
            self._check(call)
        except GrpcError as error:
            call.fail(error)

    def _check(self, call: Call) -> None:
        if self._admission.is_draining:
            raise self._admission.farewell
        if call.path not in self.methods:
            raise GrpcError(Status.UNIMPLEMENTED, f"there is no {printable(call.path, 100)} here")
        encodings = call.values("grpc-encoding")
        if any(encoding != "identity" for encoding in encodings):
            raise GrpcError(
                Status.UNIMPLEMENTED,
                "messages are taken uncompressed only (grpc-encoding: identity)",
            )
        for timeout in call.values("grpc-timeout")[:1]:
            call.deadline = self.reactor.callLater(
                parse_timeout(timeout),
                call.fail,
                GrpcError(Status.DEADLINE_EXCEEDED, "it took longer than the caller waits"),
            )
        method = self.methods[call.path]
        if not method.takes_one:
            self._start(call, method)
        elif call.is_heard:
            raise GrpcError(Status.UNIMPLEMENTED, "this method takes one message, and none came")

    def _received(self, event: DataReceived) -> None:
        call = self.calls.get(event.stream_id)
        if call is None or call.is_over:
            self.credit(event.stream_id, event.flow_controlled_length)
            return
        try:
            came = call.inlet.feed(event.data, event.flow_controlled_length)
            first = came and not call.asked
            call.asked += came
            method = self.methods[call.path]
            if method.takes_one and call.asked > 1:
                raise GrpcError(
                    Status.UNIMPLEMENTED, "this method takes one message, and several came"
                )
            if first and method.takes_one:
                self._start(call, method)
        except GrpcError as error:
            call.fail(error)

    def _heard(self, call: Call) -> None:
        call.is_heard = True
        if call.is_over:
            return
        if not call.inlet.is_between:
            call.fail(GrpcError(Status.INTERNAL, "the request ends within a message"))
        elif self.methods[call.path].takes_one and not call.asked:
            call.fail(
                GrpcError(Status.UNIMPLEMENTED, "this method takes one message, and none came")
            )
        else:
            call.inlet.end()

    def _start(self, call: Call, method: Method) -> None:
        if self._is_admitted:
            self._begin(call, method)
        else:
            self._waiting.append((call, method))

    def _begin(self, call: Call, method: Method) -> None:
        if call.is_over:
            return
        refusal = self._refusal or self._admission.too_many_calls(self._key, call)
        if refusal is not None:
            call.fail(refusal)
            return
        call.caller = self.caller
        call.task = Deferred.fromCoroutine(self._run(call, method))

    async def _run(self, call: Call, method: Method) -> None:
        try:
            await method.run(call)
            call.finish()
        except GrpcError as error:
            call.fail(error)
        except PkiError as error:
            call.fail(GrpcError(Status.UNKNOWN, str(error)))
        except CancelledError:
            call.fail(GrpcError(Status.CANCELLED, "the call was given up"))
        except ANY_ERROR:
            log.failure("a gRPC method broke: {path}", event="grpc-broke", path=call.path)
            call.fail(
                GrpcError(Status.INTERNAL, "there is a fault in the server: its log has more")
            )

    def _closed(self, call: Call) -> None:
        """Nothing of that call is left."""
        if self.calls.pop(call.stream_id, None) is not None and not self.calls:
            self._since = self.reactor.seconds()
            if self._is_leaving:
                self.reactor.callLater(0, self._leave_if_done)

    def _leave_if_done(self) -> None:
        if self._is_leaving and not self.calls:
            self.close()

    def look(self) -> None:
        """End what has taken too long."""
        now = self.reactor.seconds()
        silent = 0.0 if self.has_spoken else now - self._since
        stalled = 0.0 if self.full_since is None else now - self.full_since
        if silent > self.limits.hello_seconds or stalled > self.limits.stalled_seconds:
            self.abort()
        elif not self.calls and now - self._since > self.limits.idle_seconds:
            self.close()
        else:
            for call in list(self.calls.values()):
                self._look_at(call, now)
            self.pump()
            self._leave_if_done()

    def _look_at(self, call: Call, now: float) -> None:
        if call.over_at is not None:
            if now - call.over_at > self.limits.stalled_seconds:
                self.reset(call.stream_id, ErrorCodes.CANCEL)
                call.lost()
        elif not call.asked and now - call.opened_at > self.limits.request_seconds:
            call.fail(GrpcError(Status.DEADLINE_EXCEEDED, "the request did not come"))

    def drain(self) -> None:
        """Open no more calls; answer those that are nearly done, end the others, and then hang up."""
        self._is_leaving = True
        if not self.is_lost:
            for call in list(self.calls.values()):
                method = self.methods[call.path]
                if not method.is_unary or call.task is None:
                    call.fail(self._admission.farewell)
            self.pump()
            self._leave_if_done()

    def ended(self) -> None:
        """All its calls are over with it."""
        self._admission.leave(self._key, self._group)
        self._tell_gone(self)
        if self._admitting is not None:
            self._admitting.cancel()
        for call in list(self.calls.values()):
            call.is_heard = True
            call.lost()
