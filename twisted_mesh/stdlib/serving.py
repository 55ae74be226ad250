"""What servers of others are told so that their applications hear who is calling."""

import ssl
from functools import cache
from importlib import import_module
from typing import Any

from twisted_mesh.stdlib.peers import with_peer_id


def for_uvicorn(context: ssl.SSLContext) -> dict[str, Any]:
    """Arguments of ``uvicorn.run`` and ``uvicorn.Config``: serve by ``context``, and tell who is calling.

    ``scope["spiffe_id"]`` is there for HTTP requests, and for no WebSocket. For one process: several of them
    cannot be handed a context.
    """
    return {"ssl_context_factory": lambda config, default: context, "http": _http_protocol()}


@cache
def _http_protocol() -> type:
    """uvicorn's protocol, which has the transport, and tells the application nothing of it."""
    base: Any = import_module("uvicorn.protocols.http.h11_impl").H11Protocol

    class MeshProtocol(base):  # type: ignore[misc]
        """HTTP/1.1, of which the application hears who is calling."""

        app: Any

        def connection_made(self, transport: Any) -> None:
            """After the handshake; once for each connection."""
            self.app = with_peer_id(self.app, transport)
            super().connection_made(transport)

    return MeshProtocol
