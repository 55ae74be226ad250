"""``--crl-http``: signed data in plain HTTP, as RFC 5280 expects it, and nothing else."""

from http import HTTPStatus
from typing import Any

from twisted.web import resource, server

from pki.codes import Code
from pki.errors import PkiError
from twisted_mesh.ca.api import published
from twisted_mesh.ca.api.request import path_of, refuse_other_media, unless_held
from twisted_mesh.ca.api.response import Answer
from twisted_mesh.ca.api.status import status_of
from twisted_mesh.ca.parts import CaParts
from twisted_mesh.http.json import BadRequest, problem_body
from twisted_mesh.http.request import BoundedRequest, answer
from twisted_mesh.limits.rate_limit import Rate, TokenBuckets, TryLater, address_key
from twisted_mesh.runtime.log import logger
from twisted_mesh.runtime.tasks import spawn

_log = logger("ca")
_OCSP = "/ocsp"


class NotServed(BadRequest):
    code = Code.NOT_FOUND


class PublicSite(resource.Resource):
    """CRLs, OCSP answers and issuers' certificates. Callers are known by their network, and limited by it."""

    isLeaf = True

    def __init__(self, ca: CaParts, rate: Rate, clock: Any) -> None:
        super().__init__()
        self.ca = ca
        self._buckets = TokenBuckets(rate, clock.seconds)

    def render(self, request: BoundedRequest) -> int:
        _ = spawn(self._serve(request), "answering a request", _log)
        return server.NOT_DONE_YET

    async def _serve(self, request: BoundedRequest) -> None:
        retry_after: int | None = None
        try:
            reply = unless_held(request, await self._reply(request))
        except PkiError as error:
            status = status_of(error)
            if status == HTTPStatus.SERVICE_UNAVAILABLE or isinstance(error, TryLater):
                retry_after = getattr(error, "retry_after", 5)
            body = problem_body(status, error.code, str(error), error.problems)
            reply = Answer(body, status, "application/problem+json")
        except Exception:
            _log.failure("a request could not be answered", event="request-broke")
            status = HTTPStatus.INTERNAL_SERVER_ERROR
            body = problem_body(status, Code.INTERNAL, "the CA has met a bug of its own")
            reply = Answer(body, status, "application/problem+json")
        headers = dict(reply.headers)
        if retry_after is not None:
            headers["retry-after"] = str(retry_after)
        if not request.is_gone:
            answer(request, reply.status, reply.body, reply.content_type, headers)

    async def _reply(self, request: BoundedRequest) -> Answer:
        who = address_key(request.channel.getPeer())
        self._buckets.charge(who)
        method, path = request.method.decode("ascii", "replace"), path_of(request)
        if method == "POST" and path == _OCSP:
            refuse_other_media(request, published.OCSP_REQUEST)
            body = request.content.read() if request.content else b""
            return await published.ocsp(self.ca, body, who)
        if method in ("GET", "HEAD"):
            if path.startswith(f"{_OCSP}/"):
                return await published.ocsp_in_path(self.ca, path.removeprefix(f"{_OCSP}/"), who)
            above, _, name = path.rpartition("/")
            if path == "/crl" or above == "/crl":
                return await published.crl(self.ca, name if above else None)
            if path == "/issuer" or above == "/issuer":
                return await published.issuer(self.ca, name if above else None)
        raise NotServed(HTTPStatus.NOT_FOUND, "there is nothing here but /crl, /ocsp and /issuer")
