"""A witness over HTTP (C2SP tlog-witness): checkpoints come by POST, and what was cosigned last can be read."""

import re
from http import HTTPStatus
from typing import Any

from twisted.internet.interfaces import IReactorTime
from twisted.web import resource, server

from pki.errors import ANY_ERROR
from twisted_mesh.http.request import SiteRequest, answer
from twisted_mesh.limits.rate_limit import LimitedLog, Rate, TokenBuckets, address_key
from twisted_mesh.runtime.log import logger
from twisted_mesh.runtime.tasks import spawn
from twisted_mesh.witness.service import TEXT_TYPE, Reply, Witness

_log = logger("witness")
ADD_CHECKPOINT = b"/add-checkpoint"
PUBLIC_KEY = b"/witness.pub"
_HEAD = re.compile(rb"/checkpoint/([0-9a-f]{64})")
_LOGGED = Rate(5, 20)
#: What one address may ask: a log's checkpoint every second, for many logs behind one address.
_ASKED = Rate(50, 500)
_RETRY_AFTER = 5
_AGAIN = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)


class WitnessSite(resource.Resource):
    """Answers everybody: what is asked says by its signature who has a right to it."""

    isLeaf = takes_whole_requests = True

    def __init__(self, witness: Witness, clock: IReactorTime) -> None:
        super().__init__()
        self._witness = witness
        self._asked = TokenBuckets(_ASKED, clock.seconds)
        self._refusals = LimitedLog(_log, _LOGGED, clock.seconds)

    def render(self, request: SiteRequest) -> int:
        """Begin to answer; whatever goes wrong is answered too."""
        _ = spawn(self._serve(request), "answering a request", _log)
        return server.NOT_DONE_YET

    async def _serve(self, request: SiteRequest) -> None:
        try:
            reply = await self._reply(request)
        except ANY_ERROR:
            _log.failure("a request could not be answered", event="request-broke")
            reply = _said(HTTPStatus.INTERNAL_SERVER_ERROR, "the witness has met a bug of its own")
        headers = {"retry-after": str(_RETRY_AFTER)} if reply.status in _AGAIN else {}
        if reply.status >= HTTPStatus.BAD_REQUEST:
            self._refusals.warn(
                "Refused with {status}: {reason}",
                event="checkpoint-refused",
                status=int(reply.status),
                reason=reply.body.decode().strip(),
            )
        if not request.is_gone:
            answer(request, reply.status, reply.body, reply.content_type, headers)

    async def _reply(self, request: SiteRequest) -> Reply:
        if self._asked.take(address_key(_peer(request))):
            return _said(HTTPStatus.TOO_MANY_REQUESTS, "too many requests from this address")
        path = request.path
        if path == ADD_CHECKPOINT:
            if request.method != b"POST":
                return _said(HTTPStatus.METHOD_NOT_ALLOWED, "a checkpoint is sent by POST")
            return await self._witness.add_checkpoint(request.body)
        if request.method not in (b"GET", b"HEAD"):
            return _said(HTTPStatus.METHOD_NOT_ALLOWED, "that is read by GET")
        if path == PUBLIC_KEY:
            return Reply(HTTPStatus.OK, f"{self._witness.public}\n".encode())
        if (found := _HEAD.fullmatch(path)) is not None:
            log = self._witness.logs().log_of(bytes.fromhex(found[1].decode()))
            head = None if log is None else self._witness.head_of(log.origin)
            if head is not None:
                return Reply(HTTPStatus.OK, head.note.encode(), TEXT_TYPE)
            return _said(HTTPStatus.NOT_FOUND, "nothing was cosigned of that log")
        return _said(
            HTTPStatus.NOT_FOUND,
            "a witness is asked POST /add-checkpoint, GET /checkpoint/LOG-ID and GET /witness.pub",
        )


def _peer(request: SiteRequest) -> Any:
    return request.channel.transport.getPeer()


def _said(status: HTTPStatus, text: str) -> Reply:
    return Reply(status, f"{text}\n".encode())
