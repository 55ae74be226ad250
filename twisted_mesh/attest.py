"""Attestors: from evidence that a caller cannot choose to a :class:`pki.policy.Principal`."""

import os
import socket
import struct
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from cryptography import x509

from pki.policy import Principal, administrator, anonymous, workload
from pki.spiffe import SpiffeId
from pki.svid import extension
from twisted_mesh.connections import Peer
from twisted_mesh.tls.transport import MeshConnection

_SOL_LOCAL, _LOCAL_PEERCRED = 0, 1

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
    return _principal(peer.spiffe_id, peer.leaf)


@lru_cache(maxsize=1024)
def _principal(spiffe_id: SpiffeId, leaf: x509.Certificate) -> Principal:
    """What a certificate says never changes; whether it is still good is asked each time."""
    names = extension(leaf, x509.SubjectAlternativeName)
    return workload(
        spiffe_id,
        leaf.serial_number,
        names.get_values_for_type(x509.DNSName) if names else (),
        _addresses(names.get_values_for_type(x509.IPAddress)) if names else (),
    )


def _addresses(values: Any) -> list[Any]:
    return list(values)


def peer_uid(connected: socket.socket) -> int:
    """The effective user of the process that connected, as the kernel recorded it then."""
    if hasattr(socket, "SO_PEERCRED"):
        option, size, layout = (socket.SOL_SOCKET, socket.SO_PEERCRED), 12, "3i"  # struct ucred
    else:
        option, size, layout = (
            (_SOL_LOCAL, _LOCAL_PEERCRED),
            76,
            "2I",
        )  # struct xucred: macOS, the BSDs
    _, uid, *_rest = struct.unpack_from(layout, connected.getsockopt(*option, size))
    return int(uid)
