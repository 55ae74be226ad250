"""mesh-client: calls a service, sees who answers, and says what both sides proved."""

from collections.abc import Callable
from http import HTTPStatus

from attrs import define, evolve, field, frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.web.client import URI, Agent
from twisted.web.iweb import IAgentEndpointFactory
from zope.interface import implementer

from pki.errors import Malformed, PkiError, Problem, discreet
from pki.spiffe import SpiffeId
from twisted_mesh.http.address import as_https, names_port, server_name, split_url
from twisted_mesh.http.json import PROBLEM_TYPE, read_problem
from twisted_mesh.http.quiet_pool import QuietPool
from twisted_mesh.http.response_body import read_body
from twisted_mesh.http.response_head import BoundedHeads
from twisted_mesh.interfaces import IReactor
from twisted_mesh.runtime.log import logger
from twisted_mesh.runtime.names import HostEndpoint
from twisted_mesh.runtime.reach import Reach
from twisted_mesh.runtime.tasks import within
from twisted_mesh.tls.alerts import RefusedByPeer, as_error, not_http
from twisted_mesh.tls.connection import MeshConnection
from twisted_mesh.tls.endpoints import MeshClientEndpoint
from twisted_mesh.tls.hostname import hostname_problem
from twisted_mesh.tls.security import Security
from twisted_mesh.trust.connections import Peer

_log = logger("client")
_MAX_ANSWER = 16 * 1024 * 1024


@frozen
class ServerUrl:
    """``https://HOST[:PORT]``, without anything else."""

    host: str
    port: int
    is_usual_port: bool = field(default=False, eq=False)
    """Whether nobody has written the port."""

    @classmethod
    def parse(cls, text: str) -> "ServerUrl":
        """Raises :class:`Malformed`."""
        url = split_url(text, {"https": 443})
        if url is None:
            whole = as_https(text)
            meant = f", here {discreet(whole, 100)}" if whole else ""
            raise Malformed(
                f"{discreet(text, 100)!r} is no server: write https://HOST:PORT{meant}; the mesh speaks TLS only"
            )
        _, host, port = url
        return cls(host, port, not names_port(text))

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        """Without a path: ``https://host:port``."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"https://{host}:{self.port}"


@frozen
class Reply:
    """One answer, and who proved to have given it."""

    status: int
    phrase: str
    body: bytes
    peer: Peer
    refusal: Problem | None = None
    """Why we may not, where it says so in a problem document (403), whatever we have asked."""


@implementer(IAgentEndpointFactory)
@define(eq=False)
class MeshHttpClient:
    """Requests to one server, each over a connection and a handshake of its own."""

    reactor: IReactor
    server: ServerUrl
    security: Security
    timeout: float
    on_peer: Callable[[Peer], None] = field(default=lambda peer: None)
    """Called with the server's proven identity, before anything is sent to it."""
    checks_host: bool = True
    """Whether its certificate must have the host name too, and not the right SPIFFE ID alone."""
    _met: list[Peer] = field(factory=list, init=False)
    _reach: Reach = field(init=False)
    _agent: Agent = field(init=False)

    def __attrs_post_init__(self) -> None:
        pool = QuietPool(self.reactor, persistent=False)
        self._agent = Agent.usingEndpointFactory(self.reactor, self, pool)
        self._reach = Reach(
            self.server.url,
            host=self.server.host,
            is_usual_port=self.server.is_usual_port,
            seconds=self.timeout,
        )

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        """For twisted.web's agent: the one server, over mutual TLS, by its host name."""
        host = self.server.host
        tcp = HostEndpoint(self.reactor, host, self.server.port, self.timeout)
        leaf_checks = (lambda leaf: hostname_problem(leaf, host),) if self.checks_host else ()
        name = server_name(host)
        mesh = MeshClientEndpoint(tcp, self.security, name, leaf_checks, self._reach)
        return BoundedHeads(_Watched(mesh, self._meet))

    def _meet(self, peer: Peer) -> None:
        self._met.append(peer)
        self.on_peer(peer)

    async def get(self, path: str) -> Reply:
        """Raises :class:`PkiError`: what we refused, what refused us, or that nobody answered in time."""
        try:
            return await within(self.reactor, self.timeout, self._get(path))
        except PkiError:
            raise
        except Exception as error:
            raise as_error(error, self._reach) from None

    async def _get(self, path: str) -> Reply:
        self._met.clear()
        response = await self._agent.request(b"GET", f"{self.server.url}{path}".encode())
        body = await read_body(response, _MAX_ANSWER, self.server.url)
        if not 100 <= response.code < 600:  # RFC 9110 section 15
            raise RefusedByPeer(not_http(self.server.url, "TLS"))
        (peer,) = self._met
        phrase = response.phrase.decode("ascii", "replace")
        (kind, *_) = response.headers.getRawHeaders("content-type") or [""]
        refusal = None
        if response.code == HTTPStatus.FORBIDDEN and kind == PROBLEM_TYPE:
            refusal = self._refusal(body)
        return Reply(response.code, phrase, body, peer, refusal)

    def _refusal(self, body: bytes) -> Problem | None:
        """What a document says that has one of our codes; that of another program is its own matter."""
        problem = read_problem(body)
        if problem is None:
            return None
        return evolve(problem, detail=f"{self.server.url} refused us: {problem.detail}")


@implementer(IStreamClientEndpoint)
@define(eq=False)
class _Watched:
    """An endpoint that tells whom it connected to."""

    endpoint: MeshClientEndpoint
    met: Callable[[Peer], None]

    def connect(self, factory: IProtocolFactory) -> Deferred[IProtocol]:
        def report(protocol: IProtocol) -> IProtocol:
            connection = getattr(protocol, "transport", None)
            if not isinstance(connection, MeshConnection) or connection.peer is None:
                raise RuntimeError("a connection without a proven peer")
            self.met(connection.peer)
            return protocol

        return self.endpoint.connect(factory).addCallback(report)


def log_handshake(peer: Peer, ours: SpiffeId) -> None:
    """What the handshake settled, in the guide's words."""
    _log.info(
        "TLS Handshake Details:\n  Cipher Suite: {cipher}\n  TLS Version: {version}\n  Key Exchange: {group}\n"
        "  Server Identity: {server}\n  Our Identity: {ours}",
        event="handshake",
        cipher=peer.tls.cipher,
        version=peer.tls.version,
        group=peer.tls.group,
        server=str(peer.spiffe_id),
        ours=str(ours),
        chain=list(peer.tls.chain),
        serials=list(peer.tls.serials),
    )
