"""The SPIFFE Workload API: the five methods, each a translation of snapshots into messages (docs/WORKLOAD_API.md)."""

from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import Protocol, TypeVar, cast

from attrs import frozen
from twisted.internet.defer import Deferred

from pki.codes import Code
from pki.errors import Malformed, PkiError
from pki.jwt_svid.claims import BadAudience, demand_audience
from pki.spiffe import NotASpiffeId, SpiffeId, TrustDomain
from twisted_mesh.attest.handle import NoDescriptors
from twisted_mesh.grpc.call import Call
from twisted_mesh.grpc.server import Method, streaming, unary
from twisted_mesh.grpc.status import GrpcError, Status
from twisted_mesh.runtime.clock import Now
from twisted_mesh.workload import messages
from twisted_mesh.workload.api_answers import (
    believed,
    each_once,
    jwt_bundles,
    refused,
    x509_bundles,
    x509_svids,
)
from twisted_mesh.workload.interface import (
    ICaller,
    IWorkloads,
    Snapshot,
)
from twisted_mesh.workload.messages import (
    BundlesRequest,
    JwtSvidMessage,
    JwtSvidRequest,
    JwtSvidResponse,
    ValidateJwtSvidRequest,
    ValidateJwtSvidResponse,
    X509SvidRequest,
)

Handler = Callable[[Call, bytes], Awaitable[None]]
UnaryHandler = Callable[[Call, bytes], Awaitable[bytes]]
T = TypeVar("T")
#: What the CA refuses because of who asks; other refusals may pass.
_DENIED = frozenset({Code.NOT_AUTHORIZED, Code.REVOKED, Code.PROCESS_GONE})


class Valid(Protocol):
    """What a token has proven."""

    @property
    def spiffe_id(self) -> SpiffeId:
        """Of whom it is."""
        ...

    @property
    def claims(self) -> Mapping[str, object]:
        """All that it says, as decoded JSON."""
        ...


class Validate(Protocol):
    """Judges JWT-SVIDs, as :func:`pki.jwt_svid.validator.validate` does."""

    def __call__(
        self,
        token: str,
        audience: str,
        jwks_by_trust_domain: Mapping[TrustDomain, bytes],
        now: datetime,
    ) -> Valid:
        """What ``token`` proves to ``audience``. Raises :class:`PkiError`."""
        ...


def guarded(handler: UnaryHandler) -> UnaryHandler:
    """Asked only by who sends the security header (SPIFFE Workload Endpoint section 3), and still is who it was."""

    async def guard(call: Call, request: bytes) -> bytes:
        admit(call)
        answer = await handler(call, request)
        demand_presence(caller_of(call))
        return answer

    return guard


def followed(handler: Handler) -> Handler:
    """The same for a method that streams."""

    async def guard(call: Call, request: bytes) -> None:
        admit(call)
        await handler(call, request)

    return guard


def admit(call: Call) -> None:
    """Raises :class:`GrpcError` unless the security header is there, exactly once and with its exact value."""
    name, value = messages.SECURITY_HEADER
    found = call.values(name)
    if found != [value]:
        said = "it has none" if not found else "it has another, or several"
        raise GrpcError(
            Status.INVALID_ARGUMENT,
            f"a call carries the header {name}: {value} once, and {said} (SPIFFE Workload Endpoint section 3)",
        )
    demand_presence(caller_of(call))


def caller_of(call: Call) -> ICaller:
    """Who calls: what ``IWorkloads.caller`` attested when it connected."""
    return cast(ICaller, call.caller)


def demand_presence(caller: ICaller) -> None:
    """What was made for a process is not for the one that took its place."""
    try:
        has_gone = caller.has_gone()
    except NoDescriptors as error:
        raise GrpcError(Status.UNAVAILABLE, str(error)) from None
    if has_gone:
        raise GrpcError(
            Status.PERMISSION_DENIED,
            "the process that connected has ended, or has become another program: connect anew",
        )


@frozen
class WorkloadApi:
    """Serves ``workloads`` to their processes."""

    workloads: IWorkloads
    validate: Validate
    now: Now

    def methods(self) -> Mapping[str, Method]:
        """For a :class:`twisted_mesh.grpc.server.GrpcServer` whose ``admit`` is ``workloads.caller``.

        FetchWITSVID and FetchWITBundles are not among them: what is not served is UNIMPLEMENTED.
        """
        return {
            messages.FETCH_X509_SVID: streaming(followed(self._fetch_x509_svid)),
            messages.FETCH_X509_BUNDLES: streaming(followed(self._fetch_x509_bundles)),
            messages.FETCH_JWT_SVID: unary(guarded(self._fetch_jwt_svid)),
            messages.FETCH_JWT_BUNDLES: streaming(followed(self._fetch_jwt_bundles)),
            messages.VALIDATE_JWT_SVID: unary(guarded(self._validate_jwt_svid)),
        }

    async def _fetch_x509_svid(self, call: Call, request: bytes) -> None:
        _parsed(X509SvidRequest.parse, request)
        await self._follow(call, x509_svids)

    async def _fetch_x509_bundles(self, call: Call, request: bytes) -> None:
        _parsed(BundlesRequest.parse, request)
        await self._follow(call, x509_bundles)

    async def _fetch_jwt_bundles(self, call: Call, request: bytes) -> None:
        _parsed(BundlesRequest.parse, request)
        await self._follow(call, jwt_bundles)

    async def _follow(self, call: Call, encode: Callable[[Snapshot], bytes]) -> None:
        """Answer with each snapshot that makes a difference; the newest takes the place of what was not sent yet."""
        caller = caller_of(call)
        last = b""

        def told(snapshot: Snapshot) -> None:
            nonlocal last
            if call.is_over:
                return
            try:
                demand_presence(caller)
                message = encode(snapshot)
            except GrpcError as error:
                call.fail(error)
                return
            if message != last:
                last = message
                call.replace(message)

        following = self.workloads.follow(caller, told)
        try:
            await call.over()
        finally:
            following.stop()

    async def _snapshot(self, caller: ICaller) -> Snapshot:
        """The one of this moment."""
        first: Deferred[Snapshot] = Deferred()

        def told(snapshot: Snapshot) -> None:
            if not first.called:
                first.callback(snapshot)

        following = self.workloads.follow(caller, told)
        try:
            return await first
        finally:
            following.stop()

    async def _fetch_jwt_svid(self, call: Call, request: bytes) -> bytes:
        wanted = _parsed(JwtSvidRequest.parse, request)
        if not wanted.audience or not all(wanted.audience):
            raise GrpcError(
                Status.INVALID_ARGUMENT,
                "audience is mandatory, and none of it may be empty: name whom the token is for",
            )
        try:
            spiffe_id = SpiffeId.parse(wanted.spiffe_id) if wanted.spiffe_id else None
        except NotASpiffeId as error:
            raise GrpcError(Status.INVALID_ARGUMENT, str(error)) from None
        try:
            demand_audience(wanted.audience)
        except BadAudience as error:
            raise GrpcError(Status.INVALID_ARGUMENT, str(error)) from None
        caller = caller_of(call)
        snapshot = await self._snapshot(caller)
        own = [identity.svid.spiffe_id for identity in snapshot.svids]
        if not own:
            raise refused(snapshot.refusal)
        if spiffe_id is not None and spiffe_id not in own:
            raise GrpcError(
                Status.PERMISSION_DENIED,
                f"{spiffe_id} is not this process's: it is {' and '.join(map(str, own))}",
            )
        try:
            found = await self.workloads.jwt_svids(caller, wanted.audience, spiffe_id)
        except PkiError as error:
            raise GrpcError(_status_of(error), str(error)) from None
        if not found:
            raise GrpcError(Status.PERMISSION_DENIED, "this process has no identity for a token")
        hints = each_once(svid.hint for svid in found)
        return JwtSvidResponse(
            [
                JwtSvidMessage(str(svid.spiffe_id), svid.token, hint)
                for svid, hint in zip(found, hints, strict=True)
            ]
        ).encode()

    async def _validate_jwt_svid(self, call: Call, request: bytes) -> bytes:
        asked = _parsed(ValidateJwtSvidRequest.parse, request)
        for name, value in (("audience", asked.audience), ("svid", asked.svid)):
            if not value:
                raise GrpcError(Status.INVALID_ARGUMENT, f"{name} is mandatory, and it is empty")
        bundles = believed(await self._snapshot(caller_of(call)))
        try:
            valid = self.validate(asked.svid, asked.audience, bundles.jwks, self.now())
            return ValidateJwtSvidResponse(str(valid.spiffe_id), valid.claims).encode()
        except PkiError as error:
            raise GrpcError(Status.INVALID_ARGUMENT, str(error)) from None


def _parsed(parse: Callable[[bytes], T], request: bytes) -> T:
    try:
        return parse(request)
    except Malformed as error:
        raise GrpcError(Status.INTERNAL, str(error)) from None


def _status_of(error: PkiError) -> Status:
    """Of what the CA, or who speaks for it, says to the wish for a token."""
    codes = {problem.code for problem in error.problems}
    if codes & _DENIED:
        return Status.PERMISSION_DENIED
    return Status.INVALID_ARGUMENT if Code.BAD_AUDIENCE in codes else Status.UNAVAILABLE
