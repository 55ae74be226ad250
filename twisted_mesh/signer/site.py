"""The protocol, answered: one resource for each door, which knows who its callers are."""

from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import msgspec
from twisted.internet.interfaces import IReactorTime
from twisted.web import resource, server

from pki.codes import Code
from pki.errors import ANY_ERROR, Malformed, PkiError
from pki.keys import SigningFailed
from pki.policy.policy import NoProof
from pki.signing.errors import NotSignable, SigningRefused
from twisted_mesh.http.json import BadRequest, parse_json
from twisted_mesh.http.request import SiteRequest, answer
from twisted_mesh.keystores.errors import KeyStoreAway, KeyStoreRefused
from twisted_mesh.limits.rate_limit import LimitedLog, Rate, RateLimited, TryLater
from twisted_mesh.runtime.log import logger
from twisted_mesh.runtime.tasks import spawn
from twisted_mesh.signer.errors import ForeignCaller, SignerStateError, UnknownKey
from twisted_mesh.signer.messages import (
    KEYS_PATH,
    SIGN_PATH,
    WHEREABOUTS_PATH,
    NewKey,
    Refusal,
    SignRequest,
    WhereaboutsRequest,
)
from twisted_mesh.signer.service import Signer

_log = logger("signer")
_LOGGED = Rate(5, 20)
_RETRY_AFTER = 5
#: The status of each kind of refusal; the first that fits.
STATUSES: tuple[tuple[type[PkiError], HTTPStatus], ...] = (
    (RateLimited, HTTPStatus.TOO_MANY_REQUESTS),
    (SigningRefused, HTTPStatus.FORBIDDEN),
    (ForeignCaller, HTTPStatus.FORBIDDEN),
    (NoProof, HTTPStatus.FORBIDDEN),
    (KeyStoreRefused, HTTPStatus.FORBIDDEN),
    (UnknownKey, HTTPStatus.NOT_FOUND),
    (NotSignable, HTTPStatus.BAD_REQUEST),
    (KeyStoreAway, HTTPStatus.SERVICE_UNAVAILABLE),
    (SignerStateError, HTTPStatus.SERVICE_UNAVAILABLE),
    (SigningFailed, HTTPStatus.SERVICE_UNAVAILABLE),
    (Malformed, HTTPStatus.BAD_REQUEST),
)

#: From a connection's transport to who calls: ``uid:1000``. Raises :class:`ForeignCaller`.
WhoCalls = Callable[[Any], str]


class SignerSite(resource.Resource):
    """Answers whoever ``who_calls`` lets in."""

    isLeaf = takes_whole_requests = True

    def __init__(self, signer: Signer, who_calls: WhoCalls, clock: IReactorTime) -> None:
        super().__init__()
        self._signer = signer
        self._who_calls = who_calls
        self._refusals = LimitedLog(_log, _LOGGED, clock.seconds)

    def render(self, request: SiteRequest) -> int:
        """Begin to answer; whatever goes wrong is answered too."""
        _ = spawn(self._serve(request), "answering a request", _log)
        return server.NOT_DONE_YET

    async def _serve(self, request: SiteRequest) -> None:
        headers: dict[str, str] = {}
        status, body = HTTPStatus.OK, b""
        try:
            status, reply = await self._reply(request)
            body = msgspec.json.encode(reply)
        except PkiError as error:
            status = _status_of(error)
            body = msgspec.json.encode(_refusal(error))
            if status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE):
                wait = error.retry_after if isinstance(error, TryLater) else _RETRY_AFTER
                headers["retry-after"] = str(wait)
            self._refusals.warn(
                "Refused with {status}: {reason}",
                event="signing-refused",
                status=int(status),
                code=str(error.code),
                rule=getattr(error, "rule", ""),
                reason=str(error),
            )
        except ANY_ERROR:
            _log.failure("a request could not be answered", event="request-broke")
            status = HTTPStatus.INTERNAL_SERVER_ERROR
            bug = "the signer has met a bug of its own; its log has the details"
            body = msgspec.json.encode(Refusal(Code.INTERNAL, bug))
        if not request.is_gone:
            answer(request, status, body, headers=headers)

    async def _reply(self, request: SiteRequest) -> tuple[HTTPStatus, msgspec.Struct]:
        by = self._who_calls(request.channel.transport)
        signer = self._signer
        path = request.path.decode("ascii", "replace")
        match request.method, path:
            case b"GET", "/v1/keys":
                return HTTPStatus.OK, signer.keys()
            case b"POST", "/v1/keys":
                made = await signer.make(parse_json(request.body, NewKey), by)
                return HTTPStatus.CREATED, made
            case b"POST", "/v1/sign":
                return HTTPStatus.OK, await signer.sign(parse_json(request.body, SignRequest), by)
            case b"POST", "/v1/whereabouts":
                asked = parse_json(request.body, WhereaboutsRequest)
                return HTTPStatus.OK, await signer.whereabouts(asked)
        raise BadRequest(
            HTTPStatus.NOT_FOUND,
            f"a signer is asked GET or POST {KEYS_PATH}, POST {SIGN_PATH} and POST {WHEREABOUTS_PATH}",
        )


def _status_of(error: PkiError) -> HTTPStatus:
    if isinstance(error, BadRequest):
        return error.status
    return next(
        (status for kind, status in STATUSES if isinstance(error, kind)),
        HTTPStatus.SERVICE_UNAVAILABLE,
    )


def _refusal(error: PkiError) -> Refusal:
    problem = error.problems[0]
    return Refusal(str(error.code), problem.detail, problem.remedy, problem.rule)
