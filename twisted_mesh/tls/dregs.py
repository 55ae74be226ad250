"""What comes on a socket behind the end of TLS."""

import socket
from contextlib import suppress

from twisted_mesh.tls.lending import LARGE

#: So often it is read, to be dropped.
_MOST = 16


def take_dregs(sock: socket.socket) -> None:
    """A socket that is closed with bytes unread resets the connection, and that may overtake what was sent."""
    with suppress(OSError):
        # Not into the room of all connections: what is in that may be another's, which has written to this one.
        for _ in range(_MOST):
            if not sock.recv(LARGE):
                break
