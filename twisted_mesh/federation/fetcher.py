"""Fetches the bundle of another trust domain from its endpoint (SPIFFE Federation section 5.2), within bounds.

``https_spiffe``: an X.509-SVID with exactly the configured SPIFFE ID, judged as every peer of the mesh is, by the
bundle that is held of that ID's trust domain; TLS 1.3, which every server has that keeps to what section 5 demands;
the web's CAs have no say, nor has the host's name. ``https_web``: a certificate of the web's CAs for the host.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING
from urllib.parse import urldefrag, urljoin

from attrs import define, evolve, field, frozen
from cryptography import x509
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.threads import deferToThread
from twisted.web.client import URI, Agent
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgentEndpointFactory
from zope.interface import implementer

from pki.codes import Code
from pki.errors import PkiError, Problem, printable
from pki.spiffe import SpiffeId, SpiffePattern
from pki.svid.bundle import BadBundle, BundleSet
from pki.svid.federated_document import LARGEST_DOCUMENT, FederatedDocument
from pki.svid.federation import BadFederation, Relationship, endpoint_url
from pki.svid.revocation_set import RevocationSet
from twisted_mesh.http.address import server_name
from twisted_mesh.http.fetch import NotServed
from twisted_mesh.http.quiet_pool import QuietPool
from twisted_mesh.http.response_body import read_body
from twisted_mesh.http.response_head import BoundedHeads
from twisted_mesh.interfaces import IReactor
from twisted_mesh.runtime.clock import Now
from twisted_mesh.runtime.names import HostEndpoint
from twisted_mesh.runtime.reach import Reach
from twisted_mesh.runtime.tasks import Defer, within
from twisted_mesh.tls.alerts import PeerRefused, as_error
from twisted_mesh.tls.contexts import ContextFactory, Role
from twisted_mesh.tls.endpoints import MeshClientEndpoint
from twisted_mesh.tls.no_group import offered_in_vain
from twisted_mesh.tls.security import Security
from twisted_mesh.tls.web_client import WebClientEndpoint, WebTrust, WebVisit
from twisted_mesh.trust.judge import Judge
from twisted_mesh.trust.trust import Trust

if TYPE_CHECKING:  # loaded where receipts are demanded
    from pki.ct.receipt import SctDemand

#: Redirections that are followed, each time anew: where they lead is never kept (section 7.5.1).
MOST_REDIRECTIONS = 3
_OK, _REDIRECTIONS = 200, (301, 302, 303, 307, 308)
#: Of an answer that has no bundle nothing more is read.
_OTHER_ANSWER = 64 * 1024
#: A document that is longer is read on a thread.
_READ_AT_ONCE = 32 * 1024
#: No ``accept-encoding``: a few kB that unfold to gigabytes are not asked for.
_HEADERS = Headers({"accept": ["application/json"], "user-agent": ["twisted-mesh"]})


@frozen
class _Answer:
    status: int
    location: str
    body: bytes
    media_type: str
    encoding: str


@define(eq=False)
class BundleFetcher:
    """Asks bundle endpoints, each time over a connection of its own."""

    reactor: IReactor
    now: Now
    web_roots: Sequence[x509.Certificate] | None = None
    """Whom ``https_web`` believes; None for the CAs that this machine believes."""
    timeout: float = 10.0
    """Seconds for a whole answer, connecting and redirections included."""
    defer: Defer = deferToThread
    """Has a long document read somewhere else."""
    requires_pq: bool = False
    """Whether keys are exchanged by hybrid groups alone, by either profile."""
    demand: "Callable[[], SctDemand | None]" = lambda: None
    """Of how many logs the certificate of ``https_spiffe`` must have receipts, now."""
    _pool: QuietPool = field(init=False)
    _web: WebTrust = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._pool = QuietPool(self.reactor, persistent=False)
        self._web = WebTrust(self.reactor, self.web_roots, self.requires_pq)

    async def fetch_bundle(
        self,
        relationship: Relationship,
        bundles: BundleSet,
        revocations: RevocationSet | None = None,
    ) -> FederatedDocument:
        """What the endpoint has now, which is not compared with anything that is held.

        ``bundles`` has that of the endpoint's trust domain, for ``https_spiffe``. Raises :class:`PkiError`: one of
        :mod:`twisted_mesh.tls.alerts` where there is no answer or the server is not who it should be,
        :class:`~twisted_mesh.http.fetch.NotServed` where the answer is no document, :class:`BadBundle` where the
        document is no bundle.
        """
        visit = _Visit(self, relationship, bundles, revocations or RevocationSet())
        try:
            body, media_type = await within(self.reactor, self.timeout, visit.document())
        except PkiError:
            raise
        except Exception as error:
            found = as_error(error, visit.reach)
            raise (offered_in_vain(found) if self.requires_pq else found) from None
        try:
            if len(body) <= _READ_AT_ONCE:
                return FederatedDocument.parse(relationship.trust_domain, body)
            return await self.defer(FederatedDocument.parse, relationship.trust_domain, body)
        except BadBundle as error:
            said = f"{printable(visit.url, 200)} ({media_type or 'of no media type'})"
            raise type(error)(f"{said}: {error}") from None


@implementer(IAgentEndpointFactory)
@define(eq=False)
class _Visit:
    """One question, to the configured URL and to where that leads."""

    fetcher: BundleFetcher
    relationship: Relationship
    bundles: BundleSet
    revocations: RevocationSet
    url: str = field(init=False)
    reach: Reach = field(init=False)
    _web: WebVisit | None = field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        self._go_to(self.relationship.url)

    async def document(self) -> tuple[bytes, str]:
        """What is there, and of which media type it says that it is. None is demanded (SHOULD, section 5.2.1.3)."""
        for _ in range(MOST_REDIRECTIONS + 1):
            answer = await self._ask()
            if answer.status == _OK:
                return self._whole(answer), answer.media_type
            if answer.status not in _REDIRECTIONS:
                raise NotServed(
                    f"{self._shown} answers {answer.status}: look whether the URL is right"
                )
            self._go_to(self._next(answer))
        raise NotServed(
            f"{self._shown}: {MOST_REDIRECTIONS} redirections are followed and no more; name the place itself"
        )

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        """For twisted.web's agent: the URL of the moment, whatever ``uri`` says."""
        reactor = self.fetcher.reactor
        host, port = endpoint_url(self.url)
        tcp = HostEndpoint(reactor, host, port, self.fetcher.timeout)
        if self.relationship.endpoint_id is not None:
            security = self._security(self.relationship.endpoint_id)
            tls = MeshClientEndpoint(tcp, security, server_name(host), (), self.reach)
            return BoundedHeads(tls)
        self._web = WebVisit(self.fetcher._web, host, server_name(host))
        return BoundedHeads(WebClientEndpoint(self.reach.watch(tcp), self._web, reactor))

    @property
    def _shown(self) -> str:
        return printable(self.url, 200)

    def _go_to(self, url: str) -> None:
        self.url = url
        host, _ = endpoint_url(url)
        seconds = self.fetcher.timeout
        self.reach = Reach(self._shown, host=host, who="bundle endpoint", seconds=seconds)

    def _next(self, answer: _Answer) -> str:
        """Where a redirection leads: to what could have been configured, or nowhere."""
        if not answer.location:
            raise NotServed(f"{self._shown} answers {answer.status}, and does not say where to")
        try:
            # The fragment is for whoever shows a page (RFC 9110 section 10.2.2).
            url, _ = urldefrag(urljoin(self.url, answer.location))
            endpoint_url(url, f"the place to which {self._shown} redirects,")
        except ValueError:
            raise NotServed(f"{self._shown} redirects to what is no URL") from None
        return url

    def _whole(self, answer: _Answer) -> bytes:
        if answer.encoding not in ("", "identity"):
            raise NotServed(
                f"{self._shown} answers in the encoding {printable(answer.encoding, 40)!r}, which was not asked for"
            )
        return answer.body

    async def _ask(self) -> _Answer:
        agent = Agent.usingEndpointFactory(self.fetcher.reactor, self, self.fetcher._pool)
        try:
            response = await agent.request(b"GET", self.url.encode("ascii"), _HEADERS)
            limit = LARGEST_DOCUMENT if response.code == _OK else _OTHER_ANSWER
            body = await read_body(response, limit, self._shown)
        except Exception as error:
            raise self._told(error) from None

        def header(name: str) -> str:
            found: list[bytes] = response.headers.getRawHeaders(name.encode()) or [b""]
            return found[-1].decode("latin-1").strip()

        media_type, encoding = header("content-type"), header("content-encoding").lower()
        return _Answer(response.code, header("location"), body, printable(media_type, 60), encoding)

    def _told(self, error: Exception) -> Exception:
        """What went wrong, as it can be told; a cancellation stays one."""
        if self._web is not None and self._web.problem is not None:
            return PeerRefused((self._web.problem,))
        if isinstance(error, PeerRefused):
            return PeerRefused([self._about_id(problem) for problem in error.problems])
        return error

    def _about_id(self, problem: Problem) -> Problem:
        if problem.code != Code.NOT_AUTHORIZED:
            return problem
        return evolve(
            problem,
            code=Code.NAME_MISMATCH,
            detail=f"the server at {self._shown} is {problem.subject}, and the bundle of "
            f"{self.relationship.trust_domain} is to come from {self.relationship.endpoint_id}",
            remedy="check the URL, and ask the peer's operator for its endpoint's SPIFFE ID",
            rule="SPIFFE Federation section 5.2.2.4",
        )

    def _security(self, endpoint_id: SpiffeId) -> Security:
        """By what the server is judged: its own trust domain's bundle, and nobody else's."""
        bundle = self.bundles.get(endpoint_id.trust_domain)
        if bundle is None:
            raise BadFederation(
                f"no bundle of {endpoint_id.trust_domain} is held, by which {endpoint_id} could prove itself: federate "
                "with that trust domain first"
            )
        allowed = SpiffePattern.parse(str(endpoint_id))
        demand = self.fetcher.demand()
        trust = Trust(BundleSet.of(bundle), self.revocations, (allowed,), demand=demand)
        contexts = ContextFactory(Role(serves=False, requires_pq=self.fetcher.requires_pq))
        contexts.replace(None, bundle.roots)
        return Security(contexts, Judge(self.fetcher.now, trust), self.fetcher.reactor)
