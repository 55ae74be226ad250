"""Python without ceremony: an identity of the mesh for any program that uses the standard library's ``ssl``.

There is no reactor in it: importing this installs none, and asyncio or whoever else runs the loop is left alone.
"""

from twisted_mesh.stdlib.context import MeshContext
from twisted_mesh.stdlib.identity import JoinedIdentity
from twisted_mesh.stdlib.joining import join
from twisted_mesh.stdlib.peers import PeerIdMiddleware, peer_id, with_peer_id
from twisted_mesh.stdlib.refusals import (
    ContextSealed,
    KeyNotKnown,
    MeshSSLError,
    NoHybridGroup,
    NoIdentity,
    PeerRefused,
)
from twisted_mesh.stdlib.serving import for_uvicorn

__all__ = [
    "ContextSealed",
    "JoinedIdentity",
    "KeyNotKnown",
    "MeshContext",
    "MeshSSLError",
    "NoHybridGroup",
    "NoIdentity",
    "PeerIdMiddleware",
    "PeerRefused",
    "for_uvicorn",
    "join",
    "peer_id",
    "with_peer_id",
]
