"""The log over HTTP: submissions by RFC 6962, and the static files of C2SP's static-ct-api."""

from collections.abc import Mapping
from http import HTTPStatus

import msgspec
from twisted.internet.interfaces import IReactorTime
from twisted.web import resource, server

from pki.codes import Code
from pki.ct.errors import LogReadOnly, NotAcceptedHere
from pki.errors import ANY_ERROR, Malformed, PkiError
from twisted_mesh.ctlog.errors import CtLogStateError, ForeignSubmitter
from twisted_mesh.ctlog.reads import KINDS, Published
from twisted_mesh.ctlog.submissions import Submissions
from twisted_mesh.http.json import PROBLEM_TYPE, BadRequest, problem_body
from twisted_mesh.http.request import SiteRequest, answer
from twisted_mesh.limits.rate_limit import (
    Busy,
    LimitedLog,
    Rate,
    RateLimited,
    TokenBuckets,
    TryLater,
    address_key,
)
from twisted_mesh.runtime.log import logger
from twisted_mesh.runtime.tasks import spawn
from twisted_mesh.tls.pinned_server import key_shown

_log = logger("ctlog")
_LOGGED = Rate(5, 20)
_RETRY_AFTER = 5
ADD_CHAIN, ADD_PRE_CHAIN, GET_ROOTS = (
    "ct/v1/add-chain",
    "ct/v1/add-pre-chain",
    "ct/v1/get-roots",
)
#: The status of each kind of refusal; the first that fits.
STATUSES: tuple[tuple[type[PkiError], HTTPStatus], ...] = (
    (RateLimited, HTTPStatus.TOO_MANY_REQUESTS),
    (Busy, HTTPStatus.SERVICE_UNAVAILABLE),
    (ForeignSubmitter, HTTPStatus.FORBIDDEN),
    (LogReadOnly, HTTPStatus.FORBIDDEN),
    (NotAcceptedHere, HTTPStatus.BAD_REQUEST),
    (CtLogStateError, HTTPStatus.SERVICE_UNAVAILABLE),
    (Malformed, HTTPStatus.BAD_REQUEST),
)


class LogSite(resource.Resource):
    """Answers submitters, who have shown a key, and readers, who have not."""

    isLeaf = takes_whole_requests = True

    def __init__(
        self,
        submissions: Submissions,
        published: Published,
        prefix: str,
        read_rate: Rate,
        clock: IReactorTime,
    ) -> None:
        """``prefix`` is what stands before all paths, as the log's URL has it, with a slash at both ends."""
        super().__init__()
        self._submissions = submissions
        self._published = published
        self._prefix = prefix
        self._buckets = TokenBuckets(read_rate, clock.seconds)
        self._refusals = LimitedLog(_log, _LOGGED, clock.seconds)
        self.reads = dict.fromkeys(KINDS, 0)
        """How many of each kind."""

    def render(self, request: SiteRequest) -> int:
        """Begin to answer; whatever goes wrong is answered too."""
        _ = spawn(self._serve(request), "answering a request", _log)
        return server.NOT_DONE_YET

    async def _serve(self, request: SiteRequest) -> None:
        try:
            await self._answer(request)
        except PkiError as error:
            self._refuse(request, error)
        except ANY_ERROR:
            _log.failure("a request could not be answered", event="request-broke")
            bug = "the log has met a bug of its own; its log has the details"
            _tell(request, HTTPStatus.INTERNAL_SERVER_ERROR, Code.INTERNAL, bug)

    async def _answer(self, request: SiteRequest) -> None:
        path = request.path.decode("ascii", "replace")
        is_read = request.method in (b"GET", b"HEAD")
        called = path.removeprefix(self._prefix) if path.startswith(self._prefix) else ""
        if called in (ADD_CHAIN, ADD_PRE_CHAIN) and request.method == b"POST":
            shown = key_shown(request.channel.transport)
            receipt = await self._submissions.add(
                request.body, shown, is_precertificate=called == ADD_PRE_CHAIN
            )
            _send(request, msgspec.json.encode(receipt))
        elif called == GET_ROOTS and is_read:
            _send(request, msgspec.json.encode(self._submissions.get_roots()))
        elif called in (ADD_CHAIN, ADD_PRE_CHAIN, GET_ROOTS) or not is_read:
            detail = f"{ADD_CHAIN} and {ADD_PRE_CHAIN} are asked by POST, and all else by GET"
            raise BadRequest(HTTPStatus.METHOD_NOT_ALLOWED, detail)
        else:
            await self._read(request, called)

    async def _read(self, request: SiteRequest, path: str) -> None:
        if wait := self._buckets.take(address_key(request.channel.getPeer())):
            raise RateLimited("this address reads too much of the log at a time", wait)
        takes_gzip = b"gzip" in (request.getHeader(b"accept-encoding") or b"")
        found = await self._published.get(path, takes_gzip=takes_gzip) if path else None
        if found is None:
            raise BadRequest(
                HTTPStatus.NOT_FOUND,
                "there is no such tile, or not yet; a partial one goes once it is full: ask for that",
            )
        self.reads[found.kind] += 1
        _send(request, found.body, found.content_type, found.headers)

    def _refuse(self, request: SiteRequest, error: PkiError) -> None:
        status = _status_of(error)
        code = Code.NOT_FOUND if status == HTTPStatus.NOT_FOUND else error.code
        headers: dict[str, str] = {}
        if status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE):
            wait = error.retry_after if isinstance(error, TryLater) else _RETRY_AFTER
            headers["retry-after"] = str(wait)
        if request.method == b"POST":
            self._submissions.count(str(code))
            self._refusals.warn(
                "Refused with {status}: {reason}",
                event="ctlog-refused",
                status=int(status),
                code=str(code),
                reason=str(error),
            )
        _tell(request, status, code, str(error), headers)


def _send(
    request: SiteRequest,
    body: bytes,
    content_type: str = "application/json",
    headers: Mapping[str, str] | None = None,
) -> None:
    if not request.is_gone:
        answer(request, HTTPStatus.OK, body, content_type, headers)


def _tell(
    request: SiteRequest,
    status: HTTPStatus,
    code: Code,
    detail: str,
    headers: Mapping[str, str] | None = None,
) -> None:
    if not request.is_gone:
        answer(request, status, problem_body(status, code, detail), PROBLEM_TYPE, headers)


def _status_of(error: PkiError) -> HTTPStatus:
    if isinstance(error, BadRequest):
        return error.status
    return next(
        (status for kind, status in STATUSES if isinstance(error, kind)),
        HTTPStatus.SERVICE_UNAVAILABLE,
    )
