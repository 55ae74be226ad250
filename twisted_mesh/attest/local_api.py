"""Questions to an API of this machine, a container runtime's or the kubelet's: one GET over a connection of its own."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from attrs import define
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IReactorTime, IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

from pki.codes import Code
from pki.errors import PkiError
from twisted_mesh.http.answer_reader import Answer, AnswerTooLong, NotHttp
from twisted_mesh.runtime.reach import Reach
from twisted_mesh.runtime.tasks import within
from twisted_mesh.runtime.wire import Cut
from twisted_mesh.tls.alerts import as_error

#: Seconds for a whole answer, connecting included.
TIMEOUT = 3.0
_PLAIN_ENDS = (ConnectionDone, ConnectionLost)


class NotTold(PkiError):
    """Who answers is not who is meant to, or has not what was asked for."""

    code = Code.NOT_SERVED


@define(eq=False, repr=False)
class LocalApi:
    """Asks one place. Whatever goes wrong is a :class:`PkiError`."""

    clock: IReactorTime
    where: str
    """For people: ``unix:/run/docker.sock``."""
    host: str
    """What the header says."""
    connect_by: Callable[[], IStreamClientEndpoint]
    reach: Callable[[], Reach]
    timeout: float = TIMEOUT

    async def get(
        self,
        path: str,
        limit: int,
        look: Callable[[Any], None],
        headers: Mapping[str, str] = MappingProxyType({}),
    ) -> tuple[int, bytes]:
        """The status and the body, at most ``limit`` bytes.

        ``look`` is given the transport before a byte is sent, and raises where the other end is not to be asked.
        """
        said = {
            "Host": self.host,
            "Accept": "application/json",
            "User-Agent": "twisted-mesh",
            "Connection": "close",
            **headers,
        }
        lines = [f"GET {path} HTTP/1.1", *(f"{name}: {value}" for name, value in said.items())]
        request = "\r\n".join([*lines, "", ""]).encode("ascii")
        reach = self.reach()
        asking = _Asking(request, Answer(limit, self.where), look)
        endpoint = reach.watch(self.connect_by())
        try:
            await within(self.clock, self.timeout, asking.over(endpoint))
        except PkiError:
            raise
        except NotHttp:
            raise NotTold(f"{self.where} answers with no HTTP") from None
        except Cut:
            if reach.speaks == "TLS":
                raise NotTold(f"{self.where} speaks TLS: write https://") from None
            raise NotTold(f"{self.where} ends the connection within its answer") from None
        except Exception as error:
            raise as_error(error, reach) from None
        return asking.answer.status, bytes(asking.answer.body)


class _Asking(Protocol):
    """One question, and its answer."""

    transport: Any

    def __init__(self, request: bytes, answer: Answer, look: Callable[[Any], None]) -> None:
        self.answer = answer
        self._request = request
        self._look = look
        self._done: Deferred[None] = Deferred(lambda _: self._hang_up())

    async def over(self, endpoint: IStreamClientEndpoint) -> None:
        """Ask there. Raises what the connection fails with, :class:`NotHttp`, :class:`Cut`, :class:`AnswerTooLong`."""
        factory = Factory.forProtocol(lambda: self)
        factory.noisy = False
        await endpoint.connect(factory)
        await self._done

    def connectionMade(self) -> None:
        """Ask, once it is known who is there."""
        try:
            self._look(self.transport)
        except PkiError as error:
            self._fail(error)
        else:
            self.transport.write(self._request)

    def dataReceived(self, data: bytes) -> None:
        """Some of the answer."""
        if self._done.called:
            return
        try:
            if self.answer.feed(data):
                self._done.callback(None)
                self._hang_up()
        except (NotHttp, AnswerTooLong) as error:
            self._fail(error)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The end of an answer that does not say how long it is, or too soon."""
        if self._done.called:
            return
        try:
            self.answer.end()
        except Cut as cut:
            # What a handshake failed with says more.
            self._done.errback(cut if reason.check(*_PLAIN_ENDS) else reason)
        else:
            self._done.callback(None)

    def _fail(self, error: Exception) -> None:
        self._done.errback(error)
        self._hang_up()

    def _hang_up(self) -> None:
        if self.transport is not None:
            self.transport.abortConnection()
