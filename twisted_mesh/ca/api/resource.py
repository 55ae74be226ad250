"""The loop that answers a request, for each site of the CA: refusals and bugs are problem documents."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from http import HTTPStatus

from twisted.web import resource, server

from pki.codes import Code
from pki.errors import ANY_ERROR, PkiError
from twisted_mesh.ca.api.request import unless_held
from twisted_mesh.ca.api.response import Answer, problem_answer
from twisted_mesh.ca.api.status import status_of
from twisted_mesh.http.request import SiteRequest, answer
from twisted_mesh.limits.rate_limit import TryLater
from twisted_mesh.runtime.log import logger
from twisted_mesh.runtime.tasks import spawn

_log = logger("ca")
_RETRY_AFTER = 5


class AnsweringResource(resource.Resource, ABC):
    """A site that is one resource: every request is answered with what :meth:`_reply` comes to."""

    isLeaf = takes_whole_requests = True
    bug_text = "the CA has met a bug of its own"
    """What callers are told of one."""

    def render(self, request: SiteRequest) -> int:
        """Begin to answer; whatever goes wrong is answered too."""
        _ = spawn(self._serve(request), "answering a request", _log)
        return server.NOT_DONE_YET

    @abstractmethod
    async def _reply(self, request: SiteRequest) -> Answer:
        """The answer. Raises :class:`PkiError` for a refusal, by which :func:`status_of` finds the status."""

    def _refused(
        self, request: SiteRequest, status: HTTPStatus, error: PkiError
    ) -> Mapping[str, str]:
        """Take note of a refusal; the headers that it has besides."""
        return {}

    async def _serve(self, request: SiteRequest) -> None:
        headers: dict[str, str] = {}
        try:
            reply = unless_held(request, await self._reply(request))
        except PkiError as error:
            status = status_of(error)
            reply = problem_answer(status, error.code, str(error), error.problems)
            if isinstance(error, TryLater):
                headers["retry-after"] = str(error.retry_after)
            elif status == HTTPStatus.SERVICE_UNAVAILABLE:
                headers["retry-after"] = str(_RETRY_AFTER)
            headers |= self._refused(request, status, error)
        except ANY_ERROR:
            _log.failure("a request could not be answered", event="request-broke")
            status = HTTPStatus.INTERNAL_SERVER_ERROR
            reply = problem_answer(status, Code.INTERNAL, self.bug_text)
        if not request.is_gone:
            headers |= reply.headers
            answer(request, reply.status, reply.body, reply.content_type, headers)
