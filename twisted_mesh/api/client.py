"""A client of the CA's API: over its unix socket, over mutual TLS, or loopback HTTP for experiments."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from attrs import define, evolve, field
from cryptography import x509
from msgspec import UNSET
from twisted.internet.error import TimeoutError
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.threads import deferToThread
from twisted.web.client import URI, Agent, FileBodyProducer
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgentEndpointFactory, IResponse
from zope.interface import implementer

from pki.errors import PkiError
from pki.policy.join_token import JoinToken
from pki.spiffe import SpiffeId, TrustDomain
from pki.svid.bundle import BadBundle, BundleSet, TrustBundle
from pki.svid.x509svid import X509Svid, load_certificates
from pki.validity import compared, format_duration
from twisted_mesh.api.attestation_messages import (
    CHALLENGE,
    AttestationMember,
    Challenge,
    ChallengeRequest,
)
from twisted_mesh.api.body import encoded, read_shape
from twisted_mesh.api.ca_reach import reach_of
from twisted_mesh.api.ca_user import CaUser
from twisted_mesh.api.local_ca import LocalCaEndpoint
from twisted_mesh.api.messages import PublishedCrls, SignAnswer, SignRequest
from twisted_mesh.api.refusal import CaRefused, told_problems
from twisted_mesh.api.trust_news import WHOLE_BUNDLE, TrustNews, read_bundle, read_news
from twisted_mesh.api.trust_question import TrustQuestion
from twisted_mesh.evidence.data import AttestationData
from twisted_mesh.http.address import BadCaUrl, CaAddress, server_name
from twisted_mesh.http.quiet_pool import QuietPool
from twisted_mesh.http.response_body import read_body
from twisted_mesh.http.response_head import BoundedHeads
from twisted_mesh.runtime.clock import wall_clock
from twisted_mesh.runtime.names import HostEndpoint
from twisted_mesh.runtime.reach import Reach
from twisted_mesh.runtime.tasks import Defer, within
from twisted_mesh.tls.alerts import as_error
from twisted_mesh.tls.endpoints import MeshClientEndpoint
from twisted_mesh.tls.security import Security
from twisted_mesh.trust.judge import Judge
from twisted_mesh.trust.reviewer import Reviewer
from twisted_mesh.trust.trust import Trust

T = TypeVar("T")

#: Seconds for one request, connecting included.
REQUEST_TIMEOUT = 10.0
#: Seconds that a connection is kept for the next question of who waits for news.
_KEPT_OPEN = 10
#: Connections that are kept: the feed needs one, an agent another for its entries and some to have much signed.
_MOST_KEPT = 8
_MAX_ANSWER = 32 * 1024 * 1024
#: Bytes that are read in a few milliseconds.
_READ_AT_ONCE = 128 * 1024


@implementer(IAgentEndpointFactory)
@define(eq=False, repr=False)
class _Route:
    """To the CA, and how far it came."""

    client: "CaClient"
    reach: Reach

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        """The CA, whatever ``uri`` says: Twisted's agents ask for it."""
        return self.client.endpoint(self.reach)


@define(eq=False, repr=False)
class CaClient:
    """Asks one CA. Whatever goes wrong is a :class:`PkiError`: :class:`CaRefused` if it said no itself,
    :class:`~twisted_mesh.tls.alerts.Unreachable` if there was no answer."""

    reactor: Any
    """An ``IReactorTCP``, ``IReactorUNIX`` and ``IReactorTime``."""
    address: CaAddress
    security: Security | None = None
    """For ``https``: the root or its fingerprint, the demand for ``/mesh/ca``, and our own SVID if there is one."""
    timeout: float = REQUEST_TIMEOUT
    ca_user: CaUser = field(factory=CaUser)
    """Who may be the CA at a unix socket."""
    defer: Defer = deferToThread
    """Has a long answer read somewhere else."""
    date: datetime | None = field(default=None, init=False)
    """The CA's clock, as it was in its last answer."""
    _dated_at: datetime | None = field(default=None, init=False)
    """Ours, then."""
    _shown: X509Svid | None = field(default=None, init=False)
    _reviewer: Reviewer | None = field(default=None, init=False)
    """Changes what is believed of the CA, and cuts what it is asked on."""
    _followed: Trust | None = field(default=None, init=False)
    """What was believed of others when that was done last."""
    _generation: int = field(default=0, init=False)
    """Of the trust whose roots are in the context of the moment."""
    _pool: QuietPool = field(init=False)
    _reach: Reach = field(init=False)
    """Of the request that was sent last."""
    _waiting_reach: Reach = field(init=False)
    """Of the connection that is kept."""
    _waiting_pool: QuietPool | None = field(default=None, init=False)
    """Its connection stays for the next question; it was made under the identity that is shown now."""

    def __attrs_post_init__(self) -> None:
        self._pool = QuietPool(self.reactor, persistent=False)
        self._reach = self._waiting_reach = reach_of(self.address, self.timeout)
        if self.address.scheme == "https" and self.security is None:
            raise BadCaUrl(
                f"{self.address}: whose root to believe is not known: name it with --ca-fingerprint or --ca-file"
            )

    def endpoint(self, reach: Reach) -> IStreamClientEndpoint:
        """The CA, as it is reached now; ``reach`` hears how far that comes."""
        if self.address.scheme == "unix":
            path = Path(self.address.path)
            local = LocalCaEndpoint(self.reactor, path, self.ca_user, self.timeout)
            return reach.watch(BoundedHeads(local))
        tcp = HostEndpoint(self.reactor, self.address.host, self.address.port, self.timeout)
        if self.security is None:
            return reach.watch(BoundedHeads(tcp))
        if self._generation != self.security.judge.trust.generation:
            # The root was met: from now on OpenSSL holds it too.
            self.present(self._shown, self.security.contexts.origin)
        name = server_name(self.address.host)
        return BoundedHeads(MeshClientEndpoint(tcp, self.security, name, (), reach))

    def too_slow(self) -> PkiError:
        """What is to be said of a CA for whose answer nobody waits any longer."""
        return as_error(TimeoutError(), self._reach)

    def present(self, svid: X509Svid | None, origin: str = "") -> None:
        """Prove ourselves by ``svid`` from the next request on, where the CA is asked over TLS.

        ``origin`` says where it comes from, for people.
        """
        if svid is not self._shown:
            self.hang_up()
        self._shown = svid
        if self.security is not None:
            trust = self.security.judge.trust
            self.security.contexts.replace(svid, trust.at_hand)
            self.security.contexts.origin = origin
            self._generation = trust.generation

    def heed(self, judge: Judge) -> None:
        """Believe of the CA what ``judge`` believes of everybody, and no more what has been revoked or has gone.

        So it is with what stands above our own certificate, before that is shown.
        """
        if self.security is not None:
            ours = self.security
            ours.judge.told_by = judge

            def told(*what: Any) -> None:
                """Whoever looks whether logs keep their promises looks for the CA's own certificate too."""
                judge.sct_watch(*what)

            ours.judge.sct_watch = told
            self._reviewer = Reviewer(ours.judge, ours.registry, self.reactor, ours.log)

    def _follow(self) -> None:
        """Take over what has changed since the last question, once the CA's own root was met."""
        if self.security is None or self._reviewer is None:
            return
        judge = self.security.judge
        told = judge.told_by
        if told is None or told.trust is self._followed or judge.pin is not None:
            return
        trust, held = told.trust, judge.trust
        bundles = BundleSet.of(
            *(
                bundle
                if (bundle := trust.bundles.get(ours.trust_domain)) and bundle.roots
                else ours
                for ours in held.bundles
            )
        )
        self._followed = trust
        if bundles == held.bundles:
            bundles = held.bundles
        self._reviewer.believe(
            evolve(
                held,
                bundles=bundles,
                revocations=trust.revocations,
                beside=trust.beside,
                demand=trust.demand,
            )
        )

    def hang_up(self) -> None:
        """Keep no connection for another question. One that is being answered is not kept for long."""
        pool, self._waiting_pool = self._waiting_pool, None
        if pool is not None:
            _ = pool.closeCachedConnections()

    def _waiting_agent(self) -> Agent:
        if self._waiting_pool is None:
            pool = self._waiting_pool = QuietPool(self.reactor, persistent=True)
            pool.maxPersistentPerHost, pool.cachedConnectionTimeout = _MOST_KEPT, _KEPT_OPEN
            self._waiting_reach = reach_of(self.address, 0.0)
        return self._agent(self._waiting_pool, self._waiting_reach)

    def _agent(self, pool: QuietPool, reach: Reach) -> Agent:
        agent: Agent = Agent.usingEndpointFactory(self.reactor, _Route(self, reach), pool)
        return agent

    def compared_clocks(self) -> str:
        """How the CA's clock was to ours at its last answer, for people; empty where there was none."""
        if self.date is None or self._dated_at is None:
            return ""
        return compared(self.date, self._dated_at, "the CA's clock")

    async def sign(  # noqa: PLR0917
        self,
        csr: bytes,
        spiffe_id: SpiffeId,
        ttl: timedelta | None = None,
        idempotency_key: str | None = None,
        token: JoinToken | None = None,
        attestation: AttestationData | None = None,
    ) -> tuple[x509.Certificate, ...]:
        """The issued certificate and its intermediates, leaf first.

        Asked again with the same CSR and ``idempotency_key``, because the answer was lost, it is the
        same certificate; with the same ``token`` too, which proves the right to it, as ``attestation`` does.
        """
        asked = SignRequest(
            csr.decode("ascii"),
            str(spiffe_id),
            None if ttl is None else format_duration(ttl),
            None if token is None else token.text,
            UNSET if attestation is None else AttestationMember.of(attestation),
        )
        headers = {"idempotency-key": idempotency_key} if idempotency_key else {}
        answer = await self.ask("POST", "/api/v1/sign", asked, SignAnswer, headers)
        return load_certificates(
            "".join((answer.certificate, *answer.chain)).encode(), "the CA's answer"
        )

    async def challenge(self, kind: str) -> str | None:
        """What is to be answered in evidence of that kind; None where nothing is."""
        asked = ChallengeRequest(kind)
        return (await self.ask("POST", CHALLENGE, asked, Challenge)).challenge

    async def bundle(self, trust_domain: TrustDomain) -> TrustBundle:
        """The CA's own bundle. Raises :class:`BadBundle` also where it has no root."""
        content = await self.send("GET", WHOLE_BUNDLE)
        bundle = await self._read(content, partial(read_bundle, str(self.address), trust_domain))
        if not bundle.roots:
            raise BadBundle(f"the CA at {self.address} sent a bundle without a usable root")
        return bundle

    async def trust(self, question: TrustQuestion) -> TrustNews:
        """What is new since what the question says is known. A CA that cannot wait for it answers at once."""
        content = await self.send("GET", question.path, wait=question.wait)
        return await self._read(content, partial(read_news, str(self.address)))

    async def roots(self) -> tuple[x509.Certificate, ...]:
        """The roots of the CA's trust domain."""
        return load_certificates(await self.send("GET", "/api/v1/ca"), "the CA's answer")

    async def crls(self) -> PublishedCrls:
        """The CRLs of the root and of every issuing CA, as they came: nothing of them is checked."""
        content = await self.send("GET", "/api/v1/crls")
        return await self._read(content, partial(read_shape, str(self.address), PublishedCrls))

    async def ocsp(self, request: bytes) -> bytes:
        """The CA's answer to an OCSPRequest, as it came; both are DER."""
        return await self.send("POST", "/api/v1/ocsp", request)

    async def ask(
        self,
        method: str,
        path: str,
        body: msgspec.Struct | None,
        shape: type[T],
        more: Mapping[str, str] | None = None,
        *,
        wait: int = 0,
    ) -> T:
        """What one route answers to ``body``, as a ``shape``; ``more`` are headers.

        It may take ``wait`` seconds longer than others, and its connection is kept for the next such question.
        Raises :class:`Malformed` for an answer that is no ``shape``.
        """
        content = await self.send(method, path, body, more, wait=wait)
        return await self._read(content, partial(read_shape, str(self.address), shape))

    async def _read(self, content: bytes, read: Callable[[bytes], T]) -> T:
        """What ``read`` makes of an answer: on a thread, where that would keep everybody else waiting."""
        if len(content) <= _READ_AT_ONCE:
            return read(content)
        return await self.defer(read, content)

    async def send(
        self,
        method: str,
        path: str,
        body: msgspec.Struct | bytes | None = None,
        more: Mapping[str, str] | None = None,
        *,
        wait: int = 0,
    ) -> bytes:
        """What one route answers, as it came. Raises :class:`PkiError`."""
        self._follow()
        host = self.address.host or "localhost"
        host = f"[{host}]" if ":" in host else host
        scheme = "https" if self.address.scheme == "https" else "http"
        port = f":{self.address.port}" if self.address.port else ""
        producer = headers = None
        if body is not None:
            kind, data = encoded(body)
            producer = FileBodyProducer(BytesIO(data))
            headers = Headers({"content-type": [kind]})
            for name, value in (more or {}).items():
                headers.setRawHeaders(name, [value])
        if wait:
            agent, reach = self._waiting_agent(), self._waiting_reach
        else:
            reach = self._reach = reach_of(self.address, self.timeout)
            agent = self._agent(self._pool, reach)
        url = f"{scheme}://{host}{port}{path}"
        try:
            status, content = await within(
                self.reactor,
                self.timeout + wait,
                self._exchange(agent, method, url, headers, producer),
            )
        except PkiError:
            raise
        except Exception as error:
            raise as_error(error, reach) from None
        if status >= 400:
            raise CaRefused(status, told_problems(status, content))
        return content

    async def _exchange(
        self,
        agent: Agent,
        method: str,
        url: str,
        headers: Headers | None,
        producer: FileBodyProducer | None,
    ) -> tuple[int, bytes]:
        response: IResponse = await agent.request(method.encode(), url.encode(), headers, producer)
        self.date, self._dated_at = _date(response), wall_clock()
        return response.code, await read_body(response, _MAX_ANSWER, str(self.address))


def _date(response: IResponse) -> datetime | None:
    """The ``Date`` header (RFC 9110 section 6.6.1)."""
    (text, *_) = response.headers.getRawHeaders("date") or [""]
    try:
        return parsedate_to_datetime(text).astimezone(UTC)
    except (ValueError, TypeError, OverflowError):
        return None
