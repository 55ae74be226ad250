"""What the sites of a few public documents have in common: each is read, by anybody, and there is nothing else."""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from http import HTTPStatus

from twisted.internet.address import UNIXAddress
from twisted.internet.interfaces import IReactorTime

from pki.codes import Code
from pki.errors import PkiError
from twisted_mesh.ca.api.request import path_of
from twisted_mesh.ca.api.resource import AnsweringResource
from twisted_mesh.ca.api.response import Answer
from twisted_mesh.http.json import BadRequest
from twisted_mesh.http.request import SiteRequest
from twisted_mesh.limits.rate_limit import Rate, TokenBuckets, address_key

_METHODS = ("GET", "HEAD")


class NotServed(BadRequest):
    """There is nothing at this path."""

    code = Code.NOT_FOUND


class WrongMethod(BadRequest):
    """What is there is read, and nothing else is done to it."""

    code = Code.METHOD_NOT_ALLOWED


class DocumentSite(AnsweringResource):
    """Documents by their paths. Callers are known by their network, and limited by it."""

    def __init__(self, rate: Rate, clock: IReactorTime) -> None:
        super().__init__()
        self._buckets = TokenBuckets(rate, clock.seconds)

    @property
    @abstractmethod
    def documents(self) -> Mapping[str, Callable[[], Answer]]:
        """What there is, by its path."""

    async def _reply(self, request: SiteRequest) -> Answer:
        peer = request.channel.getPeer()
        if not isinstance(peer, UNIXAddress):  # a web server in front bounds its own callers
            self._buckets.charge(address_key(peer))
        documents = self.documents
        answering = documents.get(path_of(request))
        if answering is None:
            raise NotServed(
                HTTPStatus.NOT_FOUND, f"there is nothing here but {' and '.join(documents)}"
            )
        method = request.method.decode("ascii", "replace")
        if method not in _METHODS:
            raise WrongMethod(HTTPStatus.METHOD_NOT_ALLOWED, "this is read by GET")
        return answering()

    def _refused(
        self, request: SiteRequest, status: HTTPStatus, error: PkiError
    ) -> Mapping[str, str]:
        if status == HTTPStatus.METHOD_NOT_ALLOWED:
            return {"allow": ", ".join(_METHODS)}
        return {}
