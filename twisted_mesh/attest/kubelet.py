"""The kubelet's word on a container: which pod of this node it is of."""

from pathlib import Path
from typing import Any

from attrs import define, field, frozen
from OpenSSL import SSL
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IOpenSSLClientConnectionCreator,
    IReactorTime,
    IStreamClientEndpoint,
)
from twisted.internet.threads import deferToThread
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from zope.interface import implementer

from pki.errors import PkiError, Problem
from pki.svid.x509svid import load_certificates
from twisted_mesh.attest.container_cgroup import Container
from twisted_mesh.attest.container_source import Told
from twisted_mesh.attest.local_api import TIMEOUT, LocalApi, NotTold
from twisted_mesh.attest.pod_list import PodList
from twisted_mesh.http.address import server_name
from twisted_mesh.interfaces import IReactor
from twisted_mesh.runtime.names import HostEndpoint
from twisted_mesh.runtime.reach import Reach
from twisted_mesh.runtime.socket_owner import users_at
from twisted_mesh.runtime.tasks import Defer
from twisted_mesh.tls import groups
from twisted_mesh.tls.web_client import WebClientEndpoint, WebTrust, WebVisit

#: Bytes of a node's whole list, and of a token.
_LARGEST, _LONGEST_TOKEN = 16 * 1024 * 1024, 16 * 1024
#: A list that is longer is read on a thread.
_READ_AT_ONCE = 128 * 1024
#: Seconds for which a list is taken for the present one: it is not fetched more often than that.
FRESH = 0.4
_OK, _NOT_FOR_US = 200, (401, 403)
ROOT = 0


@frozen
class KubeletSettings:
    """Where the kubelet is asked, and how it is known."""

    scheme: str
    """``https``; ``http`` for its read-only port."""
    host: str
    port: int
    ca_file: Path | None = None
    """Whose certificates are believed; None with plain HTTP, and with :attr:`skip_verification`."""
    name: str = ""
    """What its certificate must be for: the node's name, or its address; empty for :attr:`host`."""
    token_file: Path | None = None
    """What is shown to it, read anew each time."""
    skip_verification: bool = False
    """Believe whoever listens, which is root's by the kernel's word, on this machine."""

    @property
    def url(self) -> str:
        """For people."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"

    @property
    def is_verified(self) -> bool:
        """Whether a certificate says who answers."""
        return self.scheme == "https" and not self.skip_verification


@define(eq=False, repr=False)
class Kubelet:
    """The kubelet of this node. A :class:`ContainerSource`."""

    reactor: IReactor
    settings: KubeletSettings
    root: int = ROOT
    timeout: float = TIMEOUT
    defer: Defer = deferToThread
    """Has a long list read somewhere else."""
    attempts: int = 8
    pause: float = 0.5
    requires_pq: bool = False
    """Whether over TLS keys are exchanged by hybrid groups alone."""
    _api: LocalApi = field(init=False)
    _roots: tuple[bytes, WebTrust] | None = field(default=None, init=False)
    """The file, and what was made of it."""
    _visit: WebVisit | None = field(default=None, init=False)
    """The last one by TLS: why its certificate was refused."""
    _last: tuple[float, PodList | PkiError] | None = field(default=None, init=False)
    """What came last, and when."""
    _waiting: list[Deferred[None]] | None = field(default=None, init=False)
    """For the list that is under way; None where none is."""

    def __attrs_post_init__(self) -> None:
        said = self.settings
        self._api = LocalApi(
            self.reactor,
            self.where,
            said.url.partition("//")[2],
            self._endpoint,
            lambda: Reach(
                said.url,
                said.host,
                who="kubelet",
                start="check the address and the port",
                seconds=self.timeout,
            ),
            self.timeout,
        )

    @property
    def where(self) -> str:
        """For people."""
        return f"the kubelet at {self.settings.url}"

    def speaks_of(self, container: Container) -> bool:
        """Of what root has put below no unit: whoever may choose the name of a cgroup may choose any pod's."""
        return container.user is None and not container.is_in_unit

    async def tell(self, container: Container) -> Told | None:
        """See :class:`ContainerSource`."""
        selectors = (await self._pods()).selectors_of(container)
        return None if selectors is None else Told(selectors)

    async def _pods(self) -> PodList:
        """The list of this moment, fetched once for all who ask together."""
        while self._waiting is not None:
            waiter: Deferred[None] = Deferred()
            self._waiting.append(waiter)
            await waiter
        last, now = self._last, self.reactor.seconds()
        if last is None or not last[0] <= now < last[0] + FRESH:
            last = await self._fetched()
        if isinstance(last[1], PkiError):
            raise last[1]
        return last[1]

    async def _fetched(self) -> tuple[float, PodList | PkiError]:
        """What is to be had is shared by all who wait, also where that is nothing."""
        self._waiting = []
        found: PodList | PkiError = NotTold(f"{self.where} was not waited for")
        try:
            found = await self._fetch()
        except PkiError as error:
            found = error
        finally:
            self._last = self.reactor.seconds(), found
            waiting, self._waiting = self._waiting, None
            for waiter in waiting:
                if not waiter.called:
                    waiter.callback(None)
        return self._last

    async def _fetch(self) -> PodList:
        headers = {}
        if self.settings.token_file is not None:
            headers["Authorization"] = f"Bearer {_token(self.settings.token_file)}"
        self._visit = None
        try:
            status, body = await self._api.get("/pods", _LARGEST, self._look, headers)
        except PkiError:
            if (why := self._refusal()) is not None:
                raise NotTold(f"{self.where}: {why}") from None
            raise
        if status in _NOT_FOR_US:
            raise NotTold(
                f"{self.where} answers {status}: it wants a token of a service account that may get nodes/proxy"
            )
        if status != _OK:
            raise NotTold(f"{self.where} answers {status}")
        if len(body) <= _READ_AT_ONCE:
            return PodList.parse(body)
        return await self.defer(PodList.parse, body)

    def _refusal(self) -> Problem | None:
        """What its certificate was refused for, the last time."""
        return None if self._visit is None else self._visit.problem

    def _look(self, transport: Any) -> None:
        """Raises :class:`NotTold` where nothing but the kernel says who answers, and it is not root."""
        if self.settings.is_verified:
            return
        there, here = transport.getPeer(), transport.getHost()
        users = users_at((there.host, there.port), (here.host, here.port))
        if users != {self.root}:
            raise NotTold(
                f"{self.where} is not known by a certificate, and it is not root alone who listens there: "
                "anybody on this machine can where the kubelet does not"
            )

    def _endpoint(self) -> IStreamClientEndpoint:
        said = self.settings
        tcp = HostEndpoint(self.reactor, said.host, said.port, self.timeout)
        if said.scheme == "http":
            return tcp
        if said.ca_file is None:
            return _Unverified(tcp, self.reactor, self.requires_pq)
        name = said.name or said.host
        self._visit = visit = WebVisit(self._trust(said.ca_file), name, server_name(name))
        return WebClientEndpoint(tcp, visit, self.reactor)

    def _trust(self, file: Path) -> WebTrust:
        """Made anew where the file has changed. Raises :class:`NotTold`."""
        data = _read(file, _LARGEST)
        if self._roots is None or self._roots[0] != data:
            try:
                trust = WebTrust(self.reactor, load_certificates(data), self.requires_pq)
            except PkiError as error:
                raise NotTold(f"{file}: {error}") from None
            self._roots = data, trust
        return self._roots[1]


@implementer(IStreamClientEndpoint, IOpenSSLClientConnectionCreator)
@define(eq=False)
class _Unverified:
    """TLS with whoever is there."""

    endpoint: IStreamClientEndpoint
    clock: IReactorTime
    requires_pq: bool

    def connect(self, factory: Any) -> "Deferred[Any]":
        """See :class:`IStreamClientEndpoint`."""
        wrapped = TLSMemoryBIOFactory(self, True, factory, self.clock)
        wrapped.noisy = False
        connecting: Deferred[Any] = self.endpoint.connect(wrapped)
        return connecting.addCallback(lambda tls: tls.wrappedProtocol)

    def clientConnectionForTLS(self, protocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        """Twisted's: what is to shake hands."""
        context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        context.set_min_proto_version(SSL.TLS1_2_VERSION)
        if self.requires_pq:
            groups.insist(context, is_only_lock=True)
            context.set_min_proto_version(SSL.TLS1_3_VERSION)
        context.set_verify(SSL.VERIFY_NONE, lambda *_: True)
        return SSL.Connection(context, None)


def _token(file: Path) -> str:
    """Raises :class:`NotTold`."""
    text = _read(file, _LONGEST_TOKEN).decode("ascii", "replace").strip()
    if not text or not text.isascii() or not text.isprintable() or " " in text:
        raise NotTold(f"{file} holds no token: it is one word")
    return text


def _read(file: Path, limit: int) -> bytes:
    try:
        with file.open("rb") as opened:
            data = opened.read(limit + 1)
    except OSError as error:
        raise NotTold(f"{file} cannot be read: {error.strerror}") from None
    if len(data) > limit:
        raise NotTold(f"{file} is longer than {limit} bytes")
    return data
