"""The SPIFFE Workload API: the five methods, each a translation of snapshots into messages (docs/WORKLOAD_API.md)."""

import json
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Protocol, TypeVar, cast

from attrs import evolve, frozen
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
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
from twisted_mesh.runtime.log import logger
from twisted_mesh.workload import messages
from twisted_mesh.workload.interface import (
    Bundles,
    ICaller,
    IWorkloads,
    Refusal,
    Snapshot,
    WorkloadSvid,
)
from twisted_mesh.workload.messages import (
    BundlesRequest,
    JwtBundlesResponse,
    JwtSvidMessage,
    JwtSvidRequest,
    JwtSvidResponse,
    ValidateJwtSvidRequest,
    ValidateJwtSvidResponse,
    X509BundlesResponse,
    X509SvidMessage,
    X509SvidRequest,
    X509SvidResponse,
)

Handler = Callable[[Call, bytes], Awaitable[None]]
UnaryHandler = Callable[[Call, bytes], Awaitable[bytes]]
T = TypeVar("T")
log = logger("workload")
_JWT_USE = "jwt-svid"
#: What gRPC's clients take by default, in bytes of a message.
_MOST_OF_CLIENTS = 4 * 1024 * 1024
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


def refused(refusal: Refusal | None) -> GrpcError:
    """How a call ends for that reason; for none, because nothing is known yet."""
    if refusal is None:
        return GrpcError(Status.UNAVAILABLE, "nothing is known yet: the CA has not answered")
    status = Status.PERMISSION_DENIED if refusal.is_final else Status.UNAVAILABLE
    return GrpcError(status, str(refusal.problem))


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
        hints = _each_once(svid.hint for svid in found)
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


def believed(snapshot: Snapshot) -> Bundles:
    """The bundles that a caller may have. Raises :class:`GrpcError`.

    Whoever is refused for good gets none; who has an identity that just cannot be signed now keeps them.
    """
    if snapshot.bundles is None or (snapshot.refusal is not None and snapshot.refusal.is_final):
        raise refused(snapshot.refusal)
    return snapshot.bundles


def x509_svids(snapshot: Snapshot) -> bytes:
    """FetchX509SVID's answer. Raises :class:`GrpcError` where there is none."""
    if not snapshot.svids:
        raise refused(snapshot.refusal)
    bundles = believed(snapshot)
    hints = _each_once(identity.hint for identity in snapshot.svids)
    answer = X509SvidResponse(
        svids=[
            _identity(identity, hint, bundles)
            for identity, hint in zip(snapshot.svids, hints, strict=True)
        ],
        crl=_crls(bundles),
        federated_bundles=_x509(bundles, without=bundles.own),
    )
    return _small(answer.encode(), lambda: evolve(answer, crl=()).encode())


def _identity(identity: WorkloadSvid, hint: str, bundles: Bundles) -> X509SvidMessage:
    svid = identity.svid
    return X509SvidMessage(
        spiffe_id=str(svid.spiffe_id),
        x509_svid=b"".join(cert.public_bytes(Encoding.DER) for cert in svid.chain),
        x509_svid_key=svid.key.private_key.private_bytes(
            Encoding.DER, PrivateFormat.PKCS8, NoEncryption()
        ),
        bundle=_roots(bundles, svid.spiffe_id.trust_domain),
        hint=hint,
    )


def x509_bundles(snapshot: Snapshot) -> bytes:
    """FetchX509Bundles' answer. Raises :class:`GrpcError` where there is none."""
    bundles = believed(snapshot)
    _roots(bundles, bundles.own)
    answer = X509BundlesResponse(_crls(bundles), _x509(bundles))
    return _small(answer.encode(), lambda: evolve(answer, crl=()).encode())


def _small(message: bytes, without_crls: Callable[[], bytes]) -> bytes:
    """An answer that every client takes: one that does not could not rotate either."""
    if len(message) <= _MOST_OF_CLIENTS:
        return message
    log.warn(
        "an answer of the Workload API has {size} bytes, and clients take {most}: its CRLs are left out",
        event="workload-crls-left-out",
        size=len(message),
        most=_MOST_OF_CLIENTS,
    )
    return without_crls()


def jwt_bundles(snapshot: Snapshot) -> bytes:
    """FetchJWTBundles' answer. Raises :class:`GrpcError` where there is none."""
    bundles = believed(snapshot)
    if bundles.own not in bundles.jwks:
        raise GrpcError(
            Status.UNAVAILABLE, f"nothing is known yet of the JWT keys of {bundles.own}"
        )
    return JwtBundlesResponse(
        {str(at.id): _jwt_keys(jwks) for at, jwks in bundles.jwks.items()}
    ).encode()


@lru_cache(maxsize=64)
def _jwt_keys(jwks: bytes) -> bytes:
    """The document without keys of another use (section 6.2.2). Raises :class:`GrpcError`."""
    try:
        document = json.loads(jwks)
        keys = [key for key in document["keys"] if key.get("use") == _JWT_USE]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise GrpcError(Status.UNAVAILABLE, "a bundle of JWT keys is no JWKS document") from None
    if len(keys) == len(document["keys"]):
        return jwks
    return json.dumps({**document, "keys": keys}).encode()


def _roots(bundles: Bundles, trust_domain: TrustDomain) -> bytes:
    """Raises :class:`GrpcError` where there are none: the field is mandatory."""
    bundle = bundles.x509.get(trust_domain)
    if bundle is None or not bundle.roots:
        raise GrpcError(Status.UNAVAILABLE, f"no root of {trust_domain} is known yet")
    return b"".join(root.public_bytes(Encoding.DER) for root in bundle.roots)


def _x509(bundles: Bundles, without: TrustDomain | None = None) -> Mapping[str, bytes]:
    """Each trust domain apart; one without a root is believed in nothing, and left out."""
    return {
        str(bundle.trust_domain.id): _roots(bundles, bundle.trust_domain)
        for bundle in bundles.x509
        if bundle.trust_domain != without and bundle.roots
    }


def _crls(bundles: Bundles) -> Sequence[bytes]:
    """Of our own trust domain first."""
    order = sorted(bundles.crls, key=lambda at: (at != bundles.own, at))
    return [crl for at in order for crl in bundles.crls[at]]


def _each_once(hints: Iterable[str]) -> list[str]:
    """Each hint where it stands first: in one answer no two identities have the same (section 5.2.1)."""
    seen: set[str] = set()
    kept = []
    for hint in hints:
        kept.append("" if hint in seen else hint)
        seen.add(hint)
    return kept


__all__ = ["Valid", "Validate", "WorkloadApi", "admit", "believed", "caller_of", "refused"]
