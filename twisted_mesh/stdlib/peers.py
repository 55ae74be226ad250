"""Who is at the other end, for applications and for the gateways between them and their servers."""

import ssl
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

from twisted_mesh.stdlib.guard import Guard

#: Under what WSGI servers give the connection: gunicorn, and werkzeug's own.
_SOCKETS = ("gunicorn.socket", "werkzeug.socket")

Scope = MutableMapping[str, Any]
Asgi = Callable[
    [Scope, Callable[[], Awaitable[Any]], Callable[[Any], Awaitable[None]]], Awaitable[None]
]
Wsgi = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


def peer_id(connection: object) -> str:
    """The SPIFFE ID that the other end has proven.

    ``connection`` is a socket or an SSLObject of a context of the mesh, or what has one: a transport or a
    StreamWriter of asyncio's. Shakes hands where nobody has yet. Raises ``ssl.SSLError`` where the peer is refused,
    or not let in any more, and :class:`TypeError` for a connection that is not the mesh's: never believe it.
    """
    guard = _guard(connection)
    if guard is None:
        raise TypeError(
            f"{type(connection).__name__} is no connection of the mesh: nobody has proven anything on it"
        )
    return guard.spiffe_id


def _guard(connection: object) -> Guard | None:
    get_extra_info = getattr(connection, "get_extra_info", None)
    if callable(get_extra_info):
        connection = get_extra_info("ssl_object")
    if isinstance(connection, ssl.SSLObject | ssl.SSLSocket):
        connection = connection._sslobj  # type: ignore[union-attr]
    return connection if isinstance(connection, Guard) else None


class PeerIdMiddleware:
    """WSGI: ``environ["spiffe.id"]`` is who is calling, where the server gives its connection, as gunicorn does.

    Elsewhere each request ends in an error, since an application that reads nothing there might let everybody in.
    """

    def __init__(self, application: Wsgi) -> None:
        self._application = application

    def __call__(
        self, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        """One request."""
        connection = next((environ[name] for name in _SOCKETS if name in environ), None)
        if connection is None:
            raise RuntimeError(
                "this WSGI server does not give its applications the connection, so it cannot be told who is calling"
            )
        environ["spiffe.id"] = peer_id(connection)
        return self._application(environ, start_response)


def with_peer_id(application: Asgi, transport: object) -> Asgi:
    """ASGI: ``scope["spiffe_id"]`` is who is calling over ``transport``, for whoever has a server's transport."""

    async def called(
        scope: Scope,
        receive: Callable[[], Awaitable[Any]],
        send: Callable[[Any], Awaitable[None]],
    ) -> None:
        scope["spiffe_id"] = peer_id(transport)
        await application(scope, receive, send)

    return called
