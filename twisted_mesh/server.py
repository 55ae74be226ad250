"""mesh-server: an HTTP service that serves nobody whose identity is not proven."""

from functools import lru_cache
from typing import Any

import msgspec
from twisted.web import resource, server

from pki.codes import Code
from pki.errors import discreet
from pki.spiffe import SpiffeId
from twisted_mesh.http.connection import HttpConnection
from twisted_mesh.http.json import problem_body
from twisted_mesh.http.request import SiteRequest, answer, no_longer_accepted
from twisted_mesh.http.server import BoundedSite
from twisted_mesh.interfaces import IReactor
from twisted_mesh.runtime.log import logger
from twisted_mesh.tls.connection import MeshConnection
from twisted_mesh.tls.spoken_address import spoken_address
from twisted_mesh.trust.connections import Peer
from twisted_mesh.trust.ending import leave_by

_log = logger("server")
_PROBLEM = "application/problem+json"


class MeshSite(BoundedSite):
    """A site whose callers are all proven, and logged as they connect."""

    def opened(self, connection: HttpConnection) -> None:
        """Log who it is, and note when it should come again."""
        transport = connection.transport
        if isinstance(transport, MeshConnection) and transport.peer is not None:
            connection.leave_by = _leave_by(transport, transport.peer)
            log_peer(transport, transport.peer)


def _leave_by(connection: MeshConnection, peer: Peer) -> float:
    """A POSIX time: callers hang up once our own certificate has ended, as we do once theirs has."""
    security = connection.factory.security
    end, own = peer.proven.keys.ends_at, security.contexts.shown
    if own is not None:
        end = min(end, own.leaf.not_valid_after_utc)
    return leave_by(end, security.judge.now).timestamp()


class StatusResource(resource.Resource):
    """``GET /api/status``: who are you to me?"""

    isLeaf = takes_whole_requests = True

    def render(self, request: SiteRequest) -> int:
        """Answer, unless the caller would not be let in again now: then 403, and the connection closes."""
        connection: Any = request.channel.transport
        peer: Peer | None = connection.peer
        if peer is None:  # the context demands a certificate, so this is a bug: shut the door
            connection.abortConnection()
            return server.NOT_DONE_YET
        if problems := connection.objections():
            connection.sever(problems)
            answer(request, 403, no_longer_accepted(problems[0]), _PROBLEM)
            return server.NOT_DONE_YET
        status, body = _answer_to(request.method, request.path, peer.spiffe_id)
        is_good = status == 200
        answer(request, status, body, "application/json" if is_good else _PROBLEM)
        # One event for each request. It has the guide's two lines: since nothing is waited for, nobody would see the
        # first of them any sooner.
        _log.info(
            "Handling request: {method} {path}\nResponse sent to {caller}: {status}",
            event="request",
            method=request.method.decode("ascii", "replace"),
            path=_shown(request.path),
            caller=peer.spiffe_id.name,
            status="200 OK" if is_good else str(status),
        )
        return server.NOT_DONE_YET


def _answer_to(method: bytes, path: bytes, caller: SpiffeId) -> tuple[int, bytes]:
    if path != b"/api/status":
        return 404, problem_body(404, Code.NOT_FOUND, "there is nothing here: try /api/status")
    if method not in {b"GET", b"HEAD"}:
        detail = "GET is all that is done here"
        return 405, problem_body(405, Code.METHOD_NOT_ALLOWED, detail)
    return 200, _healthy(caller)


@lru_cache(maxsize=1024)
def _healthy(caller: SpiffeId) -> bytes:
    return msgspec.json.encode({"status": "healthy", "caller": str(caller)})


@lru_cache(maxsize=256)
def _shown(path: bytes) -> str:
    """For the log."""
    return discreet(path.decode("ascii", "replace"), 200)


def log_peer(connection: MeshConnection, peer: Peer) -> None:
    """The guide's words on a new connection, with all that is known of it."""
    _log.info(
        "New connection from {address}\n"
        "Client certificate presented:\n"
        "  Subject: {subject}\n  SAN URI: {peer}\n  Issuer: {issuer}\n  Serial: {serial}\n"
        "Client identity verified: {peer}\n"
        "  {version}, {cipher}, {group}, SNI {sni}, ALPN {alpn}",
        event="peer-verified",
        address=spoken_address(connection.getPeer()),
        peer=str(peer.spiffe_id),
        **peer.tls.fields,
    )


def site(reactor: IReactor) -> MeshSite:
    """What mesh-server serves."""
    return MeshSite(StatusResource(), reactor)
