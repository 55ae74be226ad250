"""The CA's API over HTTP: one table of routes, each of which passes ``policy.permit``."""

import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import datetime
from functools import lru_cache
from http import HTTPStatus
from typing import Any

import msgspec
from attrs import frozen
from cryptography import x509
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from twisted.web import resource, server

from pki.codes import Code
from pki.der import CERTIFICATE, pem
from pki.errors import Malformed, PkiError
from pki.policy.policy import Action, Forbidden, NoProof, Principal
from pki.serial import parse_serial, serial_hex
from pki.svid.revocation_set import GIVEN_REASONS, Reason
from pki.svid.x509svid import certificates_pem
from pki.validity import parse_duration, rfc3339
from twisted_mesh.attest.registry import Attestors
from twisted_mesh.ca.api import audit, connections, entries, published, trust
from twisted_mesh.ca.api.admission import Arrived, ProvingBody
from twisted_mesh.ca.api.authentication import Authenticator
from twisted_mesh.ca.api.request import (
    MAX_PAGE,
    Call,
    certificate_query,
    path_of,
    refuse_browsers,
    refuse_other_media,
    unless_held,
)
from twisted_mesh.ca.api.response import Answer
from twisted_mesh.ca.api.status import status_of
from twisted_mesh.ca.api.throttle import Throttle
from twisted_mesh.ca.health import Standing
from twisted_mesh.ca.parts import CaParts
from twisted_mesh.http.json import BadRequest, parse_json, problem_body
from twisted_mesh.http.request import BoundedRequest, answer
from twisted_mesh.limits.rate_limit import RateLimited, TryLater
from twisted_mesh.runtime.log import logger, reasons
from twisted_mesh.runtime.tasks import spawn
from twisted_mesh.stores.records import Conflict, IssuedCertificate

_log = logger("ca")
_RETRY_AFTER = "5"
#: Lines of the log for refused requests: whoever makes them must not be able to fill the disk.
_TOLD_A_SECOND = 20


class SignRequest(msgspec.Struct):
    """``POST /api/v1/sign``."""

    csr: str
    requested_id: str
    ttl: str | None = None
    token: str | None = None


class RevokeRequest(msgspec.Struct):
    """``POST /api/v1/revoke``: of one, or of many at once."""

    serial: str | None = None
    serials: list[str] | None = None
    reason: str = str(Reason.UNSPECIFIED)


class DetachRequest(msgspec.Struct):
    """``POST /api/v1/ca/detach-root``."""

    sha256: str
    """Of the file of the root's key, in hex: who asks has read it."""


Handler = Callable[["CaApi", Call], Awaitable[Answer]]


@frozen
class Route:
    action: Action
    handler: Handler
    proving: type[ProvingBody] | None = None
    """What the body is where it may hold a proof of who asks."""
    media: str = "application/json"
    """What a body says that it is."""
    is_deep: bool = False
    """Whether its ``*`` may have slashes in it."""


class CaApi(resource.Resource):
    """All of the CA's HTTP, for one listener: its ``authenticator`` says who its callers are.

    ``guards_browsers`` is for the plaintext port: a web page that the user looks at must not be
    able to call it.
    """

    isLeaf = True

    def __init__(
        self,
        ca: CaParts,
        authenticator: Authenticator,
        attestors: Attestors,
        *,
        guards_browsers: bool = False,
        throttle: Throttle | None = None,
    ) -> None:
        super().__init__()
        self.ca = ca
        self.authenticator = authenticator
        self.attestors = attestors
        self.guards_browsers = guards_browsers
        self.throttle = throttle
        self._second, self._told, self._untold = 0, 0, 0

    def render(self, request: BoundedRequest) -> int:
        _ = spawn(self._serve(request), "answering a request", _log)
        return server.NOT_DONE_YET

    async def _serve(self, request: BoundedRequest) -> None:
        headers: dict[str, str] = {}
        try:
            reply = unless_held(request, await self._reply(request))
        except PkiError as error:
            status = status_of(error)
            reply = Answer(
                problem_body(status, error.code, str(error), error.problems),
                status,
                "application/problem+json",
            )
            if isinstance(error, TryLater):
                headers["retry-after"] = str(error.retry_after)
            elif status == HTTPStatus.SERVICE_UNAVAILABLE:
                headers["retry-after"] = _RETRY_AFTER
            self._tell(request, status, error)
        except Exception:
            _log.failure("a request could not be answered", event="request-broke")
            status = HTTPStatus.INTERNAL_SERVER_ERROR
            text = "the CA has met a bug of its own; its log has the details"
            reply = Answer(
                problem_body(status, Code.INTERNAL, text), status, "application/problem+json"
            )
        headers |= reply.headers
        if not request.is_gone:
            if reply.status == HTTPStatus.METHOD_NOT_ALLOWED:
                headers["allow"] = ", ".join(sorted(_PATHS[_known(request)[1]]))
            answer(request, reply.status, reply.body, reply.content_type, headers)

    async def _reply(self, request: BoundedRequest) -> Answer:
        if self.guards_browsers:
            refuse_browsers(request)
        arrived = Arrived.on(request, self.authenticator)
        try:
            # Before anything else: also whoever asks for what there is not can ask too often.
            charged = arrived.charge(self.throttle, _action(request))
            route, rest = _route(request)
            known = await charged.attest(self.attestors, self.ca.entries.lets_in, route.proving)
            call = known.permit(route.action).read(rest)
            return await route.handler(self, call)
        except (NoProof, Forbidden, RateLimited) as error:
            self.ca.log.refused(error.code, arrived.account.proof)
            raise

    def _tell(self, request: BoundedRequest, status: int, error: PkiError) -> None:
        (_log.warn if self._may_tell() else _log.debug)(
            "{method} {path} answered {status}: {reasons}",
            event="request-refused",
            method=request.method.decode("ascii", "replace"),
            path=request.path.decode("ascii", "replace")[:200],
            status=int(status),
            codes=error.code,
            reasons=reasons(error.problems),
        )

    def _may_tell(self) -> bool:
        """Whether one more refusal has its line in the log: all are counted, some are told."""
        second = int(time.monotonic())
        if second != self._second:
            if self._untold:
                _log.warn(
                    "{untold} more refusals were only counted",
                    event="refusals-untold",
                    untold=self._untold,
                )
            self._second, self._told, self._untold = second, 0, 0
        self._told += 1
        self._untold += self._told > _TOLD_A_SECOND
        return self._told <= _TOLD_A_SECOND

    async def sign(self, call: Call) -> Answer:
        asked = call.read(SignRequest)
        ttl = parse_duration(asked.ttl) if asked.ttl is not None else None
        csr = asked.csr.encode("utf-8", "replace")
        issued = await self.ca.certificates.sign(
            call.principal,
            csr,
            asked.requested_id,
            ttl,
            call.idempotency_key,
            token=call.token,
        )
        told = {
            "certificate": pem(CERTIFICATE, issued.der).decode("ascii"),
            "chain": [_pem(cert) for cert in issued.intermediates],
            "expires_at": rfc3339(issued.expires_at),
            "serial": serial_hex(issued.serial),
            "spiffe_id": asked.requested_id,
        }
        return Answer(msgspec.json.encode(told), HTTPStatus.CREATED)

    async def roots(self, call: Call) -> Answer:
        return Answer(self.ca.bundle().to_pem(), content_type="application/x-pem-file")

    async def bundle(self, call: Call) -> Answer:
        return Answer(self.ca.bundle().to_jwks())

    async def crl(self, call: Call) -> Answer:
        return await published.crl(self.ca, call.query.get("issuer"))

    async def ocsp(self, call: Call) -> Answer:
        return await published.ocsp(self.ca, call.body, call.who)

    async def ocsp_in_path(self, call: Call) -> Answer:
        return await published.ocsp_in_path(self.ca, call.rest, call.who)

    async def trust(self, call: Call) -> Answer:
        return await trust.trust(self.ca, call)

    async def revoke(self, call: Call) -> Answer:
        asked = parse_json(call.body, RevokeRequest)
        if (asked.serial is None) == (asked.serials is None):
            raise Malformed("the body does not fit: it has either serial or serials")
        if asked.reason not in GIVEN_REASONS:
            raise Malformed(
                f"{asked.reason[:60]!r} is no reason: choose one of {', '.join(GIVEN_REASONS)}"
            )
        reason = Reason(asked.reason)
        if asked.serials is not None:
            return await self._revoke_all(call.principal, asked.serials, reason)
        serial = parse_serial(asked.serial or "")
        return Answer(
            msgspec.json.encode(
                _revoked(await self.ca.certificates.revoke(call.principal, serial, reason))
            )
        )

    async def _revoke_all(
        self, principal: Principal, given: Sequence[str], reason: Reason
    ) -> Answer:
        if not 0 < len(given) <= MAX_PAGE:
            raise Malformed(f"serials is a list of 1 to {MAX_PAGE} serials")
        serials = list(dict.fromkeys(map(parse_serial, given)))
        revoked = await self.ca.certificates.revoke_all(principal, serials, reason)
        unknown = set(serials) - {found.serial for found in revoked}
        told = {
            "revoked": [_revoked(found) for found in revoked],
            "unknown": [serial_hex(serial) for serial in serials if serial in unknown],
        }
        return Answer(msgspec.json.encode(told))

    async def certificates(self, call: Call) -> Answer:
        page = await self.ca.record.certificates(certificate_query(call.query, self.ca.now()))
        listed = self._listed(page.certificates)
        return Answer(msgspec.json.encode({"certificates": listed, "next": page.next}))

    async def certificate(self, call: Call) -> Answer:
        known = await self.ca.record.certificate(parse_serial(call.rest))
        pem = None
        if known.der is not None:
            pem = certificates_pem([x509.load_der_x509_certificate(known.der)]).decode()
        (listed,) = self._listed([known])
        return Answer(msgspec.json.encode({**listed, "certificate": pem}))

    def _listed(self, certificates: Iterable[IssuedCertificate]) -> list[dict[str, Any]]:
        now, count = self.ca.now(), self.ca.reports.now()
        return [
            {**_listed(found, now), "connections": count(found.issuer, found.serial)}
            for found in certificates
        ]

    async def health(self, call: Call) -> Answer:
        checks = await self.ca.health.examine()
        worst = max((check.standing for check in checks), default=Standing.OK)
        told = {"status": worst.word, "checks": [check.to_dict() for check in checks]}
        return Answer(msgspec.json.encode(told))

    async def detach_root(self, call: Call) -> Answer:
        asked = parse_json(call.body, DetachRequest)
        if self.ca.rotator is None:
            raise Conflict("this CA keeps no keys in files")
        detached = await self.ca.rotator.detach_root(call.principal, asked.sha256)
        told = {
            "prepared": detached.prepared,
            "wanted_at": rfc3339(detached.wanted_at),
            "issues_until": rfc3339(detached.issues_until),
        }
        return Answer(msgspec.json.encode(told))

    async def liveness(self, call: Call) -> Answer:
        return Answer(b'{"status":"alive"}')

    async def readiness(self, call: Call) -> Answer:
        failing = [c for c in await self.ca.health.examine() if c.standing is Standing.FAIL]
        if not failing:
            return Answer(b'{"status":"ready"}')
        status = HTTPStatus.SERVICE_UNAVAILABLE
        problems = [check.problem for check in failing]
        body = problem_body(status, Code.NOT_READY, "; ".join(map(str, problems)), problems)
        return Answer(body, status, "application/problem+json")

    async def metrics(self, call: Call) -> Answer:
        await self.ca.health.examine()  # the gauges show how that came out
        return Answer(generate_latest(), content_type=CONTENT_TYPE_LATEST)


def _listed(certificate: IssuedCertificate, now: datetime) -> dict[str, Any]:
    return {
        "serial": serial_hex(certificate.serial),
        "subject": certificate.subject,
        "spiffe_id": str(certificate.spiffe_id),
        "issued_at": rfc3339(certificate.issued_at),
        "expires_at": rfc3339(certificate.expires_at),
        "status": str(certificate.status(now)),
        "revoked_at": rfc3339(certificate.revoked_at) if certificate.revoked_at else None,
        "reason": str(certificate.reason) if certificate.reason else None,
        "issuer": certificate.issuer,
        "key": certificate.key,
        "requester": certificate.requester,
        "entry": certificate.entry,
    }


def _revoked(certificate: IssuedCertificate) -> dict[str, Any]:
    return {
        "serial": serial_hex(certificate.serial),
        "revoked_at": rfc3339(certificate.revoked_at) if certificate.revoked_at else None,
        "reason": str(certificate.reason),
    }


def _elsewhere(action: Action, handler: Callable[[CaParts, Call], Awaitable[Answer]]) -> Route:
    """A route whose handler stands in another module."""
    return Route(action, lambda api, call: handler(api.ca, call))


#: Method and path of everything that the CA answers.
ROUTES: dict[tuple[str, str], Route] = {
    ("POST", "/api/v1/sign"): Route(Action.SIGN, CaApi.sign, proving=SignRequest),
    ("GET", "/api/v1/ca"): Route(Action.READ_CA, CaApi.roots),
    ("GET", "/api/v1/bundle"): Route(Action.READ_BUNDLE, CaApi.bundle),
    ("GET", "/api/v1/crl"): Route(Action.READ_CRL, CaApi.crl),
    ("POST", "/api/v1/ocsp"): Route(Action.ASK_OCSP, CaApi.ocsp, media=published.OCSP_REQUEST),
    ("GET", "/api/v1/ocsp/*"): Route(Action.ASK_OCSP, CaApi.ocsp_in_path, is_deep=True),
    ("GET", "/api/v1/trust"): Route(Action.READ_TRUST, CaApi.trust),
    ("POST", "/api/v1/revoke"): Route(Action.REVOKE, CaApi.revoke),
    ("GET", "/api/v1/certificates"): Route(Action.LIST, CaApi.certificates),
    ("GET", "/api/v1/certificates/*"): Route(Action.LIST, CaApi.certificate),
    ("GET", "/api/v1/connections"): _elsewhere(Action.READ_CONNECTIONS, connections.read),
    ("POST", "/api/v1/connections"): _elsewhere(Action.TELL_CONNECTIONS, connections.tell),
    ("GET", "/api/v1/audit/checkpoint"): _elsewhere(Action.READ_CHECKPOINT, audit.checkpoint),
    ("GET", "/api/v1/audit/checkpoints"): _elsewhere(Action.READ_AUDIT, audit.checkpoints),
    ("GET", "/api/v1/audit/entries"): _elsewhere(Action.READ_AUDIT, audit.entries),
    ("GET", "/api/v1/audit/proof"): _elsewhere(Action.READ_CHECKPOINT, audit.proof),
    ("GET", "/api/v1/health"): Route(Action.READ_HEALTH, CaApi.health),
    ("POST", "/api/v1/ca/detach-root"): Route(Action.DETACH_ROOT, CaApi.detach_root),
    ("GET", "/api/v1/entries"): _elsewhere(Action.READ_ENTRIES, entries.list_entries),
    ("POST", "/api/v1/entries"): _elsewhere(Action.CHANGE_ENTRIES, entries.create_entry),
    ("GET", "/api/v1/entries/*"): _elsewhere(Action.READ_ENTRIES, entries.show_entry),
    ("DELETE", "/api/v1/entries/*"): _elsewhere(Action.CHANGE_ENTRIES, entries.delete_entry),
    ("GET", "/api/v1/tokens"): _elsewhere(Action.READ_TOKENS, entries.list_tokens),
    ("POST", "/api/v1/tokens"): _elsewhere(Action.CHANGE_TOKENS, entries.create_token),
    ("DELETE", "/api/v1/tokens/*"): _elsewhere(Action.CHANGE_TOKENS, entries.revoke_token),
    ("GET", "/livez"): Route(Action.LIVENESS, CaApi.liveness),
    ("GET", "/readyz"): Route(Action.READINESS, CaApi.readiness),
    ("GET", "/metrics"): Route(Action.METRICS, CaApi.metrics),
}


#: Every path, with its methods.
_PATHS: dict[str, set[str]] = defaultdict(set)
for _method, _path in ROUTES:
    _PATHS[_path].add(_method)
#: Those whose ``*`` stands for all that follows, slashes too.
_DEEP = tuple(path for (_, path), route in ROUTES.items() if route.is_deep)


class NoSuchRoute(BadRequest):
    code = Code.NOT_FOUND


class WrongMethod(BadRequest):
    code = Code.METHOD_NOT_ALLOWED


def _known(request: BoundedRequest) -> tuple[str, str, str]:
    """Method, path as the table has it, and what its ``*`` stands for; the path is empty where there is none."""
    method, path = request.method.decode("ascii", "replace"), path_of(request)
    above, _, rest = path.rpartition("/")
    deep = (
        (known, path.removeprefix(known[:-1])) for known in _DEEP if path.startswith(known[:-1])
    )
    for known, found in ((path, ""), (f"{above}/*", rest), *deep):
        if known in _PATHS and (found or known == path):
            return "GET" if method == "HEAD" else method, known, found
    return method, "", ""


def _action(request: BoundedRequest) -> Action | None:
    """What is asked for; None where there is nothing to be asked."""
    method, path, _ = _known(request)
    route = ROUTES.get((method, path))
    return route.action if route else None


def _route(request: BoundedRequest) -> tuple[Route, str]:
    """The route, and what its path's ``*`` stands for."""
    method, path, rest = _known(request)
    if not path:
        raise NoSuchRoute(
            HTTPStatus.NOT_FOUND, "there is nothing at this path: the API is below /api/v1/"
        )
    route = ROUTES.get((method, path))
    if route is None:
        raise WrongMethod(HTTPStatus.METHOD_NOT_ALLOWED, f"{method[:20]} is not done to {path}")
    if method == "POST":
        refuse_other_media(request, route.media)
    return route, rest


@lru_cache(maxsize=16)
def _pem(issuer: x509.Certificate) -> str:
    return certificates_pem([issuer]).decode()
