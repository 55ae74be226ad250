"""Health and metrics in plaintext, for whoever watches this machine: a few pages to be read, and nothing else."""

import ipaddress
from collections.abc import Awaitable, Callable, Mapping, Sequence
from http import HTTPStatus
from socket import gethostname
from typing import Protocol

from attrs import field, frozen
from twisted.web import resource, server

from pki.codes import Code
from pki.errors import ANY_ERROR
from twisted_mesh.http.json import problem_body
from twisted_mesh.http.request import SiteRequest, answer
from twisted_mesh.runtime.log import logger
from twisted_mesh.runtime.tasks import spawn

_log = logger("status")
_PROBLEM = "application/problem+json"


class IPage(Protocol):
    """What is answered to one question."""

    @property
    def body(self) -> bytes: ...

    @property
    def status(self) -> int: ...

    @property
    def content_type(self) -> str: ...

    @property
    def headers(self) -> Mapping[str, str]: ...


@frozen
class Page:
    """The plainest."""

    body: bytes
    status: int = HTTPStatus.OK
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(factory=dict)


Question = Callable[[], Awaitable[IPage]]


async def _alive() -> Page:
    return Page(b'{"status":"alive"}')


#: ``/livez``: that the process answers, whatever else is wrong.
LIVENESS: Question = _alive


class StatusSite(resource.Resource):
    """Answers a few questions without proof of who asks; so it takes nothing but the question."""

    isLeaf = takes_whole_requests = True

    def __init__(self, questions: Mapping[str, Question], names: Sequence[str] = ()) -> None:
        """``names`` are host names of ours, by which it may be asked for."""
        super().__init__()
        self._questions = questions
        self._names = {"localhost", gethostname().lower(), *names}

    def render(self, request: SiteRequest) -> int:
        """Begin to answer."""
        _ = spawn(self._serve(request), "answering about health", _log)
        return server.NOT_DONE_YET

    async def _serve(self, request: SiteRequest) -> None:
        page: IPage
        try:
            page = await self._page(request)
        except ANY_ERROR:
            _log.failure("a question about health could not be answered", event="request-broke")
            page = _refusal(500, Code.INTERNAL, "a bug was met; the log has the details")
        if not request.is_gone:
            answer(request, page.status, page.body, page.content_type, page.headers)

    async def _page(self, request: SiteRequest) -> IPage:
        if not self._is_meant(request):
            return _refusal(
                421,
                Code.CROSS_ORIGIN,
                "this is asked for by an address, localhost, or a name of ours, and not by that Host",
            )
        question = self._questions.get(request.path.decode("ascii", "replace"))
        if question is None:
            return _refusal(404, Code.NOT_FOUND, f"there is nothing here but {self._told}")
        if request.method not in (b"GET", b"HEAD"):
            refused = _refusal(405, Code.METHOD_NOT_ALLOWED, "this is read (GET), and no more")
            return Page(refused.body, 405, _PROBLEM, {"allow": "GET, HEAD"})
        return await question()

    @property
    def _told(self) -> str:
        return ", ".join(self._questions)

    def _is_meant(self, request: SiteRequest) -> bool:
        """Whether it was sent to us by a name of ours.

        A web page can have its own name lead here, and read what is answered to that; never an address.
        """
        hosts = request.requestHeaders.getRawHeaders(b"host") or ()
        return all(self._is_ours(host.decode("ascii", "replace").lower()) for host in hosts)

    def _is_ours(self, host: str) -> bool:
        name, colon, port = host.rpartition(":")
        if not (colon and port.isdigit()):
            name = host
        if name in self._names:
            return True
        try:
            ipaddress.ip_address(name.removeprefix("[").removesuffix("]"))
        except ValueError:
            return False
        return True


def _refusal(status: int, code: Code, detail: str) -> Page:
    return Page(problem_body(status, code, detail), status, _PROBLEM)
