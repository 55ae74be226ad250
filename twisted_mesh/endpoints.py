"""Endpoint strings ``mesh:``, by which any program on Twisted listens and connects over mutual TLS.

``mesh:9443``, ``mesh:9443:interface=127.0.0.1``, ``mesh:host:9443:peer=spiffe\\://TD/service/x``. All
that ask for the same identity in one process share one :class:`~twisted_mesh.identity.agent.Agent`.
"""

import difflib
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeVar

from attrs import define, field
from cryptography import x509
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint, TCP6ServerEndpoint
from twisted.internet.interfaces import (
    IAddress,
    IListeningPort,
    IProtocol,
    IProtocolFactory,
    IStreamClientEndpoint,
    IStreamServerEndpoint,
)
from twisted.web.client import URI, HTTPConnectionPool
from twisted.web.client import Agent as WebAgent
from twisted.web.iweb import IAgentEndpointFactory
from zope.interface import implementer

from pki.codes import Code
from pki.errors import Malformed, PkiError, Problem, printable
from pki.rules.facts import RuleAction
from pki.spiffe import SpiffeId, SpiffePattern, TrustDomain
from pki.svid.x509svid import spiffe_id_of
from pki.validity import parse_duration
from twisted_mesh.http.address import server_name
from twisted_mesh.identity.endpoint_words import IDENTITY, asked_for, several
from twisted_mesh.identity.shared import Asked, OtherWords, SharedAgent, stop_all
from twisted_mesh.interfaces import IReactor
from twisted_mesh.limits.connection_limit import Capacity, ConnectionLimit
from twisted_mesh.limits.handshake_budget import HandshakeBudget
from twisted_mesh.runtime.log import logger
from twisted_mesh.runtime.names import HostEndpoint
from twisted_mesh.tls import endpoints
from twisted_mesh.tls.connection import MeshConnection

_E = TypeVar("_E")
_log = logger("endpoints")
#: The trust domain that programs take unless they are told otherwise.
_USUAL_DOMAIN = TrustDomain.parse("mesh.local")
_SERVER = (*IDENTITY, "interface", "allow", "backlog", "drain")
_CLIENT = (*IDENTITY, "peer", "timeout")


class BadEndpoint(Malformed, ValueError):
    """An endpoint string that cannot be used; a ``ValueError`` too, as Twisted's own raise."""


def _shared(reactor: IReactor, asked: Asked) -> SharedAgent:
    """Raises :class:`BadEndpoint` where it is there already, in other words."""
    try:
        return SharedAgent.of(reactor, asked)
    except OtherWords as error:
        raise BadEndpoint(str(error)) from None


async def leave(reactor: IReactor) -> None:
    """Stop every identity of the ``mesh:`` endpoints of ``reactor`` now: for tests, and for programs that go on."""
    await stop_all(reactor)


def peer_id(connection: Any) -> SpiffeId:
    """Who is at the other end of a transport, a protocol or a request of twisted.web.

    Raises :class:`LookupError` where that is no connection of the mesh.
    """
    for _ in range(8):
        if isinstance(connection, MeshConnection):
            if connection.peer is None:
                break
            return connection.peer.spiffe_id
        connection = getattr(connection, "channel", None) or getattr(connection, "transport", None)
    raise LookupError("this is no connection of the mesh: nobody has proven anything on it")


@implementer(IStreamServerEndpoint)
@define(eq=False)
class MeshServerEndpoint:
    """Listens once there is an identity to show; lets in who matches ``allow``."""

    reactor: IReactor
    endpoint: IStreamServerEndpoint
    asked: Asked
    allow: tuple[SpiffePattern, ...]
    drain: float

    def listen(self, factory: IProtocolFactory) -> "Deferred[IListeningPort]":
        """Fires with the port, which is bound once the first certificate is there, however long that takes."""
        return Deferred.fromCoroutine(self._listen(factory))

    async def _listen(self, factory: IProtocolFactory) -> IListeningPort:
        shared = _shared(self.reactor, self.asked)
        shared.use()
        try:
            await shared.ready()
            security = shared.agent.security(
                serves=True,
                leaf_checks=(partial(_not_among, self.allow, "allow="),),
                connection_limit=ConnectionLimit(
                    Capacity.of_server(None), self.reactor, "the port", _log
                ),
                handshake_budget=HandshakeBudget(self.reactor),
            )
            port = await endpoints.listen(self.endpoint, factory, security)
        except Exception:
            await shared.release()
            raise
        return _Port(port, shared, self.drain)


@implementer(IListeningPort)
@define(eq=False)
class _Port:
    """A port that stops its identity too, where it was the last to use it."""

    port: IListeningPort
    shared: SharedAgent
    drain: float
    _is_listening: bool = field(default=True, init=False)

    def startListening(self) -> None:
        self.port.startListening()
        if not self._is_listening:
            self._is_listening = True
            self.shared.use()

    def stopListening(self) -> "Deferred[None]":
        """Fires once open connections are done, or cut off after ``drain`` seconds."""
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        stopped: Any = self.port.stopListening()
        if stopped is not None:
            await stopped
        if self._is_listening:
            self._is_listening = False
            await self.shared.release(self.drain)

    def getHost(self) -> IAddress:
        return self.port.getHost()


@implementer(IStreamClientEndpoint)
@define(eq=False)
class MeshClientEndpoint:
    """Connects to whoever proves to be ``peer``, wherever it is reached."""

    reactor: IReactor
    host: str
    port: int
    asked: Asked
    peer: SpiffePattern
    timeout: float

    def connect(self, factory: IProtocolFactory) -> "Deferred[IProtocol]":
        """Fires once both have proven who they are; fails with a :class:`PkiError`."""
        return Deferred.fromCoroutine(self._connect(factory))

    async def _connect(self, factory: IProtocolFactory) -> IProtocol:
        shared = _shared(self.reactor, self.asked)
        shared.use_for_clients()
        await shared.ready(self.timeout)
        mesh = endpoints.MeshClientEndpoint(
            HostEndpoint(self.reactor, self.host, self.port, self.timeout),
            shared.agent.security(serves=False),
            server_name(self.host),
            (partial(_not_among, (self.peer,), "peer="),),
        )
        return await mesh.connect(factory)


@implementer(IAgentEndpointFactory)
@define(eq=False)
class _WebEndpoints:
    reactor: IReactor
    options: Mapping[str, str]

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        if uri.scheme != b"https":
            raise BadEndpoint("the mesh speaks TLS only: write https://HOST:PORT")
        host = uri.host.decode("ascii").strip("[]")
        return client_endpoint(self.reactor, host, str(uri.port), **self.options)


def web_agent(
    reactor: IReactor, *, pool: HTTPConnectionPool | None = None, **options: str
) -> WebAgent:
    """An agent of twisted.web, also for ``treq.client.HTTPClient``: each server must prove to be ``peer``.

    ``options`` are those of a client's string, with ``_`` for ``-``. Raises :class:`BadEndpoint`.
    """
    named = {name.replace("_", "-"): text for name, text in options.items()}
    client_endpoint(reactor, "localhost", "443", **named)  # whatever is wrong is said now
    agent: WebAgent = WebAgent.usingEndpointFactory(reactor, _WebEndpoints(reactor, named), pool)
    return agent


def server_endpoint(reactor: IReactor, *places: str, **options: str) -> MeshServerEndpoint:
    """What ``mesh:PORT[:interface=ADDRESS][:…]`` means. Raises :class:`BadEndpoint` in one sentence."""
    return _understood("mesh:PORT", places, options, partial(_server, reactor), _SERVER)


def client_endpoint(reactor: IReactor, *places: str, **options: str) -> MeshClientEndpoint:
    """What ``mesh:HOST:PORT:peer=ID[:…]`` means. Raises :class:`BadEndpoint` in one sentence."""
    return _understood("mesh:HOST:PORT", places, options, partial(_client, reactor), _CLIENT)


def _understood(
    form: str,
    places: tuple[str, ...],
    options: Mapping[str, str],
    made: Callable[..., _E],
    known: tuple[str, ...],
) -> _E:
    count = form.count(":")
    try:
        if len(places) != count:
            stray = ", ".join(printable(place, 80) for place in places[count:])
            missing = "something is missing"
            raise Malformed(
                f"{stray} is one too many: a colon within a value is written \\:"
                if stray
                else missing
            )
        for name in options:
            if name not in known:
                near = difflib.get_close_matches(name, known, 1)
                meant = f"did you mean {near[0]}=?" if near else f"there are {', '.join(known)}"
                raise Malformed(f"{printable(name, 80)}= is no option of it: {meant}")
        return made(*places, options)
    except PkiError as error:
        raise BadEndpoint(f"{form}: {error}") from None


def _server(reactor: IReactor, port: str, options: Mapping[str, str]) -> MeshServerEndpoint:
    asked = asked_for(reactor, options, "api-server", _USUAL_DOMAIN, RuleAction.ACCEPT)
    trust_domain = asked.wanted.named.trust_domain
    allow = tuple(map(SpiffePattern.parse, several(options.get("allow"))))
    if not allow:
        allow = (SpiffePattern.parse(f"{trust_domain.id}/**"),)
        _log.warn(
            "No allow= was given: every service of {trust_domain} may connect",
            event="allow-all",
            trust_domain=str(trust_domain),
        )
    interface = options.get("interface", "")
    listening = TCP6ServerEndpoint if ":" in interface else TCP4ServerEndpoint
    backlog = options.get("backlog", "50")
    if not backlog.isascii() or not backlog.isdigit():
        raise Malformed("backlog= is a number")
    tcp = listening(reactor, _port(port, 0), int(backlog), interface)
    return MeshServerEndpoint(reactor, tcp, asked, allow, _seconds(options, "drain", "5s"))


def _client(
    reactor: IReactor, host: str, port: str, options: Mapping[str, str]
) -> MeshClientEndpoint:
    if "peer" not in options:
        raise Malformed("peer= is missing: say who must answer, peer=spiffe\\://TD/service/x")
    peer = SpiffePattern.parse(options["peer"])
    asked = asked_for(reactor, options, "payment-worker", peer.trust_domain, RuleAction.CONNECT)
    if peer.trust_domain != asked.wanted.named.trust_domain:
        raise Malformed(
            f"peer={peer} can prove nothing to us: only roots of {asked.wanted.named.trust_domain} are held here"
        )
    timeout = _seconds(options, "timeout", "30s")
    return MeshClientEndpoint(reactor, host, _port(port, 1), asked, peer, timeout)


def _port(text: str, least: int) -> int:
    if not (text.isascii() and text.isdigit() and least <= int(text) <= 65535):
        raise Malformed(f"{printable(text, 40)} is no port: a number from {least} to 65535")
    return int(text)


def _seconds(options: Mapping[str, str], name: str, usual: str) -> float:
    return parse_duration(options.get(name, usual)).total_seconds()


def _not_among(
    allow: tuple[SpiffePattern, ...], option: str, leaf: x509.Certificate
) -> Problem | None:
    spiffe_id = spiffe_id_of(leaf)
    if spiffe_id is not None and any(pattern.matches(spiffe_id) for pattern in allow):
        return None
    return Problem(
        Code.NOT_AUTHORIZED,
        f"{spiffe_id} is not among those that may: {', '.join(map(str, allow))}",
        f"to accept it, name it in {option}",
        option,
        str(spiffe_id),
    )
