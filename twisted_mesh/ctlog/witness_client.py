"""Questions to a witness (C2SP tlog-witness), each over a connection of its own."""

from collections.abc import Collection, Iterator
from io import BytesIO

from attrs import define, field
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.web.client import URI, Agent, FileBodyProducer
from twisted.web.iweb import IAgentEndpointFactory
from zope.interface import implementer

from pki.errors import PkiError
from pki.svid.spki_pin import SpkiHash
from twisted_mesh.ctlog.witness_address import WitnessAddress
from twisted_mesh.http.quiet_pool import QuietPool
from twisted_mesh.http.response_body import read_body
from twisted_mesh.http.response_head import BoundedHeads
from twisted_mesh.interfaces import IReactor
from twisted_mesh.runtime.names import HostEndpoint
from twisted_mesh.runtime.reach import Reach
from twisted_mesh.runtime.tasks import within
from twisted_mesh.tls.alerts import PeerRefused, as_error
from twisted_mesh.tls.pinned_client import PinnedEndpoint, PinnedTls, PinnedVisit

#: Seconds for one question.
TIMEOUT = 5.0
_LIMIT = 128 * 1024


class AnyKey(Collection[SpkiHash]):
    """Where who answers proves itself by what it says."""

    def __contains__(self, pin: object) -> bool:
        return True

    def __iter__(self) -> Iterator[SpkiHash]:
        return iter(())

    def __len__(self) -> int:
        return 1


@define(eq=False, repr=False)
class WitnessClient:
    """Asks one witness. Whatever goes wrong is a :class:`PkiError`."""

    reactor: IReactor
    address: WitnessAddress
    _pool: QuietPool = field(init=False)
    _tls: PinnedTls = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._pool = QuietPool(self.reactor, persistent=False)
        pin = self.address.pin
        self._tls = PinnedTls(
            None,
            AnyKey() if pin is None else (pin,),
            "--witness",
            "compare with what the witness prints when it starts",
        )

    async def ask(self, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        """Status and body of the answer: to a POST, where there is something to send."""
        visit = _Visit(self)
        agent = Agent.usingEndpointFactory(self.reactor, visit, self._pool)
        url = f"{self.address.url}{path}".encode("ascii")
        method = b"GET" if body is None else b"POST"
        producer = None if body is None else FileBodyProducer(BytesIO(body))

        async def exchange() -> tuple[int, bytes]:
            response = await agent.request(method, url, None, producer)
            return response.code, await read_body(response, _LIMIT, str(self.address.url))

        try:
            return await within(self.reactor, TIMEOUT, exchange())
        except PkiError:
            raise
        except Exception as error:
            if visit.tls.problem is not None:
                raise PeerRefused((visit.tls.problem,)) from None
            raise as_error(error, visit.reach) from None

    @property
    def tls(self) -> PinnedTls:
        """What is shown to it, and whom it has to be."""
        return self._tls


@implementer(IAgentEndpointFactory)
@define(eq=False)
class _Visit:
    """One question."""

    client: WitnessClient
    tls: PinnedVisit = field(init=False)
    reach: Reach = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.tls = PinnedVisit(self.client.tls)
        self.reach = Reach(str(self.client.address.url), who="witness", seconds=TIMEOUT)

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        """For twisted.web's agent."""
        url, reactor = self.client.address.url, self.client.reactor
        self.reach.host = url.host
        tcp = self.reach.watch(HostEndpoint(reactor, url.host, url.port, TIMEOUT))
        if url.scheme == "http":
            return BoundedHeads(tcp)
        return BoundedHeads(PinnedEndpoint(tcp, self.tls, reactor))
