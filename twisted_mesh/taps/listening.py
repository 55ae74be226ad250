"""Addresses to listen on, as users write them, and the ports that come of them or one sentence why not."""

import os
from typing import TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IStreamServerEndpoint
from twisted.python.failure import Failure

from pki.errors import discreet, printable
from twisted_mesh.taps.activation import ActivatedEndpoint, is_activated
from twisted_mesh.taps.bind_error import LOCK, why_not_bound
from twisted_mesh.taps.early_port import EarlyReactor
from twisted_mesh.taps.service_options import StartError

T = TypeVar("T")


def early_endpoint(
    reactor: object, text: str, default_interface: str = ""
) -> IStreamServerEndpoint:
    """The same as :func:`listening_endpoint`; it is bound only, until ``MeshService.open`` is said."""
    if is_activated(text):
        activated: IStreamServerEndpoint = ActivatedEndpoint(reactor, text)
        return activated
    return listening_endpoint(EarlyReactor(reactor), text, default_interface)


def listening_endpoint(
    reactor: object, text: str, default_interface: str = ""
) -> IStreamServerEndpoint:
    """``9443``, ``:9443``, ``host:9443``, ``[::1]:9443`` or a Twisted endpoint string."""
    host, colon, port = text.rpartition(":")
    if not colon:
        host = default_interface
    plain_host = not host or host.startswith("[") or (":" not in host and "=" not in host)
    if (
        port.isascii()
        and port.isdigit()
        and plain_host
        and host not in ("tcp", "tcp6", "unix", "systemd")
    ):
        if not is_port(port):
            raise StartError(f"{discreet(text, 80)!r}: a port is at most 65535")
        host = host.strip("[]").replace(":", "\\:")
        kind = "tcp6" if "\\:" in host else "tcp"
        text = f"{kind}:{port}:interface={host}:backlog=1024"
    try:
        endpoint: IStreamServerEndpoint = serverFromString(reactor, text)
        return endpoint
    except Exception:  # each endpoint parser raises what it likes
        raise StartError(
            f"{discreet(text, 80)!r} is no address to listen on: write 9443, host:9443 or a Twisted endpoint string"
        ) from None


def is_port(text: str) -> bool:
    """Whether it is the number of a port; 0 has the system choose one."""
    return text.isascii() and text.isdigit() and len(text) <= 5 and int(text) <= 65535


def result_of(starting: "Deferred[T]", what: str) -> T:
    """The port of a ``listen`` that has already fired, as TCP's and UNIX's do. Raises :class:`StartError`."""
    outcome: list[T | Failure] = []
    _ = starting.addBoth(outcome.append)
    if not outcome:
        raise StartError(f"{what} cannot be listened on: its endpoint takes its time")
    (port,) = outcome
    if isinstance(port, Failure):
        error = port.value
        if isinstance(error, StartError):
            raise error
        if isinstance(error, OSError) and isinstance(error.filename2, bytes):
            # Before it binds a socket's path, Twisted makes a lock beside it.
            path = os.fsdecode(error.filename2).removesuffix(LOCK)
            error = CannotListenError("unix", path, error)
        if isinstance(error, CannotListenError):
            raise StartError(f"{what} cannot be listened on {why_not_bound(error)}")
        raise StartError(f"{what} cannot be listened on ({printable(str(error), 200)})")
    return port
