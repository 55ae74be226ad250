"""Attestors: from evidence that a caller cannot choose to what it proves of the caller."""

import os
from collections.abc import Callable
from typing import Any

from pki.policy import Principal, administrator, anonymous, workload
from twisted_mesh.attest.credentials import peer_uid
from twisted_mesh.connections import Peer
from twisted_mesh.tls.transport import MeshConnection

#: From a connection's transport to who is at its other end.
Attestor = Callable[[Any], Principal]


def attest_process(transport: Any) -> Principal:
    """The caller on a unix socket, by its kernel credentials: the CA's own user and root administer it."""
    uid = peer_uid(transport.socket)
    proof = f"unix:uid:{uid}"
    return administrator(proof) if uid in (0, os.geteuid()) else anonymous(proof)


def attest_tls(transport: Any) -> Principal:
    """The caller over TLS, by the SVID that its handshake proved; without one, nobody."""
    peer = transport.peer if isinstance(transport, MeshConnection) else None
    if peer is None:
        return anonymous("tls:no-certificate")
    # The handshake may be long ago: the right ends with the certificate, not with the connection.
    return principal_of(peer) if transport.still_good() else anonymous("tls:no-longer-valid")


def attest_plaintext(transport: Any) -> Principal:
    """Whoever reaches the loopback port that ``--insecure-http`` opens, on the user's own word."""
    return administrator("insecure-http")


def principal_of(peer: Peer) -> Principal:
    return workload(peer.spiffe_id, peer.leaf.serial_number)
