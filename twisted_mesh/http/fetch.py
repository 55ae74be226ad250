"""Downloads over plain HTTP of what is signed: CRLs and OCSP answers, within bounds.

Not over ``https``: a CRL that can only be had over TLS may be needed to judge the very certificate
that it is served under (RFC 5280 section 8), and its signature says all that TLS would. Redirects
are not followed, and no proxy is asked: what is fetched is what was named.
"""

from io import BytesIO
from urllib.parse import urlsplit

from attrs import define, field, frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.web.client import URI, Agent, FileBodyProducer
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgentEndpointFactory, IResponse
from zope.interface import implementer

from pki.codes import Code
from pki.errors import Malformed, PkiError, discreet
from twisted_mesh.http.address import split_url
from twisted_mesh.http.quiet_pool import QuietPool
from twisted_mesh.http.response_body import read_body
from twisted_mesh.http.response_head import BoundedHeads
from twisted_mesh.interfaces import IReactor
from twisted_mesh.runtime.names import HostEndpoint
from twisted_mesh.runtime.reach import Reach
from twisted_mesh.runtime.tasks import within
from twisted_mesh.tls.alerts import as_error

_LONGEST_URL = 2000
_OK, _NOT_MODIFIED, _REDIRECTIONS = 200, 304, range(300, 400)


class NotServed(PkiError):
    """Whoever answers has not what was asked for."""

    code = Code.NOT_SERVED


@frozen
class HttpUrl:
    """An ``http:`` URL. ``str(HttpUrl.parse(text)) == text``."""

    origin: str
    """``http://host:port``, in lower case, the port always there."""
    text: str

    @classmethod
    def parse(cls, text: str, what: str) -> "HttpUrl":
        """Raises :class:`Malformed`, which names the option ``what``."""
        shown = discreet(text, 100)
        if text.lower().startswith("https:"):
            raise Malformed(
                f"{what} {shown}: over plain http only, since what is fetched there is signed by its issuer; "
                "write http://"
            )
        try:
            url = urlsplit(text)
        except ValueError:
            url = urlsplit("")
        origin = split_url(f"{url.scheme}://{url.netloc}".lower(), {"http": 80})
        usable = text.isascii() and text.isprintable() and " " not in text and "#" not in text
        if not usable or origin is None or len(text) > _LONGEST_URL:
            raise Malformed(f"{what} {shown!r} is no URL: write http://HOST/PATH")
        _, host, port = origin
        host = f"[{host}]" if ":" in host else host
        return cls(f"http://{host}:{port}", text)

    def __str__(self) -> str:
        return self.text


@implementer(IAgentEndpointFactory)
@define(eq=False)
class _Route:
    """To the host itself, never to a proxy; and how far it came."""

    reactor: IReactor
    timeout: float
    reach: Reach

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        """For twisted.web's agent."""
        host = uri.host.decode("ascii").strip("[]")
        self.reach.host = host
        tcp = HostEndpoint(self.reactor, host, uri.port, self.timeout)
        return self.reach.watch(BoundedHeads(tcp))


@define(eq=False)
class Fetcher:
    """Asks by HTTP/1.1, each time over a connection of its own. Whatever goes wrong is a :class:`PkiError`."""

    reactor: IReactor
    timeout: float
    """Seconds for one request, connecting included."""
    _pool: QuietPool = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._pool = QuietPool(self.reactor, persistent=False)

    async def post(self, url: HttpUrl, body: bytes, kind: str, limit: int) -> bytes:
        """What is answered to ``body``, which is of that media type; at most ``limit`` bytes."""
        headers = Headers({"content-type": [kind]})
        status, _, content = await self._ask(b"POST", url, headers, body, limit)
        return _expected(url, status, content)

    async def _ask(
        self, method: bytes, url: HttpUrl, headers: Headers, body: bytes | None, limit: int
    ) -> tuple[int, Headers, bytes]:
        reach = Reach(str(url), who="web server", seconds=self.timeout)
        route = _Route(self.reactor, self.timeout, reach)
        agent = Agent.usingEndpointFactory(self.reactor, route, self._pool)
        producer = None if body is None else FileBodyProducer(BytesIO(body))
        asking = agent.request(method, url.text.encode("ascii"), headers, producer)
        exchange = self._exchange(url, asking, limit)
        try:
            return await within(self.reactor, self.timeout, exchange)
        except PkiError:
            raise
        except Exception as error:
            raise as_error(error, reach) from None

    async def _exchange(
        self, url: HttpUrl, asking: "Deferred[IResponse]", limit: int
    ) -> tuple[int, Headers, bytes]:
        response = await asking
        # Of what is refused only the status is of use.
        limit = limit if response.code == _OK else min(limit, 64 * 1024)
        return response.code, response.headers, await read_body(response, limit, str(url))


@define(eq=False)
class Download:
    """One place that is asked again and again, and sends its content only if that has changed."""

    fetcher: Fetcher
    url: HttpUrl
    limit: int
    _validators: dict[str, str] = field(factory=dict, init=False)

    async def fetch(self) -> bytes | None:
        """The content; None if it is what came the last time. Raises :class:`PkiError`."""
        headers = Headers({name: [value] for name, value in self._validators.items()})
        status, told, content = await self.fetcher._ask(b"GET", self.url, headers, None, self.limit)
        if status == _NOT_MODIFIED and self._validators:
            return None
        content = _expected(self.url, status, content)
        self._validators = {
            asked: values[-1].strip()
            for asked, name in (("if-none-match", "etag"), ("if-modified-since", "last-modified"))
            if (values := told.getRawHeaders(name))
        }
        return content

    def forget(self) -> None:
        """Have the content sent again, whether it has changed or not."""
        self._validators = {}


def _expected(url: HttpUrl, status: int, content: bytes) -> bytes:
    if status in _REDIRECTIONS:
        raise NotServed(
            f"{url} answers {status}: redirections are not followed, name the place itself"
        )
    if status != _OK:
        raise NotServed(f"{url} answers {status}: look whether the URL is right")
    return content
