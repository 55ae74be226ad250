"""Questions to servers that are no members of the mesh: over https, by the web's CAs or by those of a file.

Plain http is for this machine only, and for the metadata services that a platform has. Redirections are not
followed, no proxy is asked, and no compression: what is fetched is what was named, and no longer than was said.
"""

from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

from attrs import define, field, frozen
from cryptography import x509
from twisted.internet.defer import Deferred, succeed
from twisted.internet.endpoints import UNIXClientEndpoint
from twisted.internet.interfaces import IConsumer, IStreamClientEndpoint
from twisted.web.client import URI, Agent
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgentEndpointFactory, IBodyProducer
from zope.interface import implementer

from pki.errors import Malformed, PkiError, discreet, printable
from twisted_mesh.http.address import server_name, split_url
from twisted_mesh.http.fetch import NotServed
from twisted_mesh.http.quiet_pool import QuietPool
from twisted_mesh.http.response_body import read_body
from twisted_mesh.http.response_head import BoundedHeads
from twisted_mesh.interfaces import IReactor
from twisted_mesh.runtime.names import HostEndpoint
from twisted_mesh.runtime.reach import Reach
from twisted_mesh.runtime.tasks import within
from twisted_mesh.tls.alerts import PeerRefused, as_error
from twisted_mesh.tls.no_group import offered_in_vain
from twisted_mesh.tls.web_client import WebClientEndpoint, WebTrust, WebVisit

#: Where plain http goes no further than this machine.
LOOPBACK = ("localhost", "127.0.0.1", "::1")
_LONGEST_URL = 2000
_OK, _REDIRECTIONS = 200, range(300, 400)
#: Of an answer with another status nothing more is read.
_OTHER_ANSWER = 16 * 1024


@frozen
class WebUrl:
    """An ``https:`` URL, or an ``http:`` one of a host that plain http may go to. ``str(WebUrl.parse(x, y)) == x``."""

    text: str
    scheme: str
    host: str
    port: int
    socket: str = ""
    """The unix socket that is asked in place of the host; empty for the host itself."""

    @classmethod
    def parse(cls, text: str, what: str, plain_hosts: Sequence[str] = LOOPBACK) -> "WebUrl":
        """Raises :class:`Malformed`, which names the setting ``what``."""
        shown = discreet(text, 100)
        try:
            url = urlsplit(text)
        except ValueError:
            url = urlsplit("")
        origin = split_url(f"{url.scheme}://{url.netloc}".lower(), {"https": 443, "http": 80})
        usable = text.isascii() and text.isprintable() and " " not in text and "#" not in text
        if not usable or origin is None or len(text) > _LONGEST_URL:
            raise Malformed(f"{what} {shown!r} is no URL: write https://HOST/PATH")
        scheme, host, port = origin
        if scheme == "http" and host not in plain_hosts:
            raise Malformed(
                f"{what} {shown}: plain http goes to {', '.join(plain_hosts)} only, since anybody on the way could "
                "answer; write https://"
            )
        return cls(text, scheme, host, port)

    @property
    def origin(self) -> str:
        """Scheme, host and port, in lower case, the port always there (RFC 6454)."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"

    def __str__(self) -> str:
        return self.text


@frozen
class WebAnswer:
    """What was answered, with whatever status."""

    status: int
    headers: Mapping[str, str]
    """By their names in lower case: of several the last."""
    body: bytes = field(repr=False)


@define(eq=False, repr=False)
class HttpsClient:
    """Asks by HTTP/1.1, each time over a connection of its own. Whatever goes wrong is a :class:`PkiError`."""

    reactor: IReactor
    roots: Sequence[x509.Certificate] | None = None
    """The CAs that servers are believed by; None for those that this machine believes."""
    timeout: float = 5.0
    """Seconds for one question, connecting included."""
    who: str = "web server"
    """What is to be there, for people."""
    requires_pq: bool = False
    """Whether over TLS keys are exchanged by hybrid groups alone."""
    _pool: QuietPool = field(init=False)
    _web_trust: WebTrust = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._pool = QuietPool(self.reactor, persistent=False)
        self._web_trust = WebTrust(self.reactor, self.roots, self.requires_pq)

    async def get(self, url: WebUrl, limit: int, headers: Mapping[str, str] | None = None) -> bytes:
        """The body of a 200, at most ``limit`` bytes. Raises :class:`NotServed` for any other status."""
        answer = await self.ask(url, limit, headers=headers)
        if answer.status in _REDIRECTIONS:
            raise NotServed(
                f"{url} answers {answer.status}: redirections are not followed, name the place itself"
            )
        if answer.status != _OK:
            raise NotServed(f"{url} answers {answer.status}: look whether the URL is right")
        return answer.body

    async def ask(
        self,
        url: WebUrl,
        limit: int,
        *,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> WebAnswer:
        """What is answered, whatever its status; a body of at most ``limit`` bytes."""
        visit = _Visit(self, url)
        sent = Headers({name: [value] for name, value in (headers or {}).items()})
        try:
            return await within(
                self.reactor, self.timeout, visit.exchange(method, sent, body, limit)
            )
        except PkiError:
            raise
        except Exception as error:
            if visit.tls is not None and visit.tls.problem is not None:
                raise PeerRefused((visit.tls.problem,)) from None
            found = as_error(error, visit.reach)
            raise (offered_in_vain(found) if self.requires_pq else found) from None


@implementer(IAgentEndpointFactory)
@define(eq=False)
class _Visit:
    """One question."""

    client: HttpsClient
    url: WebUrl
    reach: Reach = field(init=False)
    tls: WebVisit | None = field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        self.reach = Reach(
            printable(str(self.url), 200),
            host="" if self.url.socket else self.url.host,
            path=self.url.socket,
            who=self.client.who,
            seconds=self.client.timeout,
        )

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        """For twisted.web's agent: the host of the URL itself, whatever ``uri`` says."""
        client, url = self.client, self.url
        if url.socket:
            unix = UNIXClientEndpoint(client.reactor, url.socket, timeout=client.timeout)
            return BoundedHeads(self.reach.watch(unix))
        tcp = self.reach.watch(HostEndpoint(client.reactor, url.host, url.port, client.timeout))
        if url.scheme == "http":
            return BoundedHeads(tcp)
        self.tls = WebVisit(client._web_trust, url.host, server_name(url.host))
        return BoundedHeads(WebClientEndpoint(tcp, self.tls, client.reactor))

    async def exchange(
        self, method: str, headers: Headers, body: bytes | None, limit: int
    ) -> WebAnswer:
        agent = Agent.usingEndpointFactory(self.client.reactor, self, self.client._pool)
        producer = None if body is None else _Body(body)
        response = await agent.request(
            method.encode("ascii"), self.url.text.encode("ascii"), headers, producer
        )
        most = limit if response.code == _OK else min(limit, _OTHER_ANSWER)
        content = await read_body(response, most, self.reach.where)
        told = {
            name.decode("latin-1").lower(): values[-1].decode("latin-1").strip()
            for name, values in response.headers.getAllRawHeaders()
        }
        if (encoding := told.get("content-encoding", "identity").lower()) != "identity":
            raise NotServed(
                f"{self.reach.where} answers in the encoding {printable(encoding, 40)!r}, which was not asked for"
            )
        return WebAnswer(response.code, told, content)


@implementer(IBodyProducer)
@define(eq=False, repr=False)
class _Body:
    """Bytes that are sent at once: Twisted's own producer waits for turns of one particular reactor."""

    body: bytes

    @property
    def length(self) -> int:
        return len(self.body)

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        consumer.write(self.body)
        return succeed(None)

    def pauseProducing(self) -> None:
        """Nothing is left to wait with."""

    def resumeProducing(self) -> None:
        """Nothing is left."""

    def stopProducing(self) -> None:
        """Nothing is left."""
