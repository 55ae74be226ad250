"""What a listener of the proxy may be, by where it listens, and what of it a running proxy can take up."""

from collections.abc import Sequence

from twisted.internet.address import UNIXAddress
from twisted.internet.interfaces import IAddress

from pki.errors import Malformed
from twisted_mesh.proxy.listener import Listener, is_loopback
from twisted_mesh.taps.service_options import StartError


def usual_interface(listener: Listener) -> str:
    """Where a port alone is listened on: a client's callers are programs on this machine."""
    return "" if listener.serves else "127.0.0.1"


def is_for_others(listener: Listener, address: IAddress) -> bool:
    """Whether a client's listener that is bound there takes callers of other machines.

    Raises :class:`StartError` where nobody has said that it may.
    """
    is_here = isinstance(address, UNIXAddress) or is_loopback(getattr(address, "host", ""))
    if not is_here and not listener.unsafe_listen:
        raise StartError(
            f"the address {listener.address} can be reached from other machines, whose words would come in plaintext: "
            "listen on 127.0.0.1:PORT, [::1]:PORT or unix:PATH, or say --unsafe-listen (unsafe-listen = true in the "
            "file)"
        )
    return not is_here


def refuse_moved(running: Sequence[Listener], listeners: Sequence[Listener]) -> None:
    """Raises :class:`Malformed` for what counts from the next start only, where others run."""
    for old, new in zip(running, listeners, strict=False):
        for key in ("name", "mode", "address"):
            if getattr(old, key) != getattr(new, key):
                raise Malformed(
                    f"listener {old.name} has another {'listen' if key == 'address' else key} now: that counts "
                    "from the next start only"
                )
        if old.bounds.handshake != new.bounds.handshake:
            raise Malformed(
                f"listener {old.name} has another handshake-timeout now: that counts from the next start only"
            )
    if len(listeners) != len(running):
        raise Malformed(
            f"there are {len(listeners)} listeners now, and {len(running)} run: more or fewer of them count "
            "from the next start only"
        )
