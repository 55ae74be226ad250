"""Why an address cannot be listened on: a port in use, one that is root's, and a foreign address are three things."""

import errno
import os
import socket
import stat
from pathlib import Path

from twisted.internet.error import CannotListenError

from pki.errors import printable
from twisted_mesh.runtime.reach import closed_on_the_way, lack_of_descriptors
from twisted_mesh.runtime.socket_owner import listener_at, listener_on
from twisted_mesh.runtime.socket_path import too_long

_FIRST_FREE_PORT = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")
_ANOTHER = "choose another address"
#: What Twisted adds to a socket's path for a link that names the process whose socket it is.
LOCK = ".lock"


def why_not_bound(error: CannotListenError) -> str:
    """The system's words, what is so and what to do about it, for a sentence that names the address."""
    cause = error.socketError
    number = getattr(cause, "errno", None)
    reason = printable(getattr(cause, "strerror", None) or str(cause), 200)
    if number in (errno.EMFILE, errno.ENFILE) and (lack := lack_of_descriptors()) is not None:
        said: str | None = ": ".join(lack)
    elif isinstance(error.port, int):
        said = _of_tcp(str(error.interface or ""), error.port, cause)
    elif isinstance(error.port, str | bytes):
        said = _of_unix(os.fsdecode(error.port), number)
    else:
        port = getattr(error.port, "port", 0)
        said = _of_tcp(str(getattr(error.port, "host", "")), port, cause)
    return f"({reason}): {said or _ANOTHER}"


def _of_tcp(interface: str, port: int, cause: object) -> str | None:
    number = getattr(cause, "errno", None)
    shown = printable(interface, 100)
    if isinstance(cause, socket.gaierror):
        return f"no address of {shown} can be found: check how it is spelt, or write an address of this machine"
    if number == errno.EADDRINUSE:
        return _in_use(listener_on(interface, port))
    if number == errno.EACCES:
        return (
            f"ports below {_first_free_port()} are for root here: choose a higher port, or give "
            "this program the capability CAP_NET_BIND_SERVICE (AmbientCapabilities= in its unit)"
        )
    if number == errno.EADDRNOTAVAIL:
        return f"{shown} is no address of this machine: choose one that it has (ip address), or 0.0.0.0 or [::] for all"
    if number == errno.EAFNOSUPPORT:
        return f"this machine has no IPv6, which {shown} is: choose an address of IPv4"
    return None


def _of_unix(path: str, number: int | None) -> str | None:
    if (objection := too_long(Path(path))) is not None:
        return f"{objection}: choose a shorter path"
    place = Path(path).absolute()
    if number is None:
        return _locked(path)
    if number == errno.EADDRINUSE:
        try:
            is_socket = stat.S_ISSOCK(place.lstat().st_mode)
        except OSError:
            is_socket = True
        if not is_socket:
            return "a file that is no socket is there: remove it, or choose another path"
        return _in_use(listener_at(path))
    if number == errno.ENOENT:
        missing = next(above for above in reversed(place.parents) if not above.exists())
        return f"there is no directory {missing}: make it, or choose another path"
    if number == errno.ENOTDIR:
        return "something on the way to it is no directory: choose another path"
    if number in (errno.EACCES, errno.EPERM):
        closed = closed_on_the_way(place)
        if closed is not None:
            return f"this user may not go through the directory {closed}: open it, or choose another path"
        return f"this user may not write to the directory {place.parent}: open it, or choose another path"
    if number == errno.EROFS:
        return f"{place.parent} is on a file system that is read-only: choose another path"
    return None


def _locked(path: str) -> str | None:
    """Twisted believes in the link beside the socket as long as a process of that number runs, whichever that is."""
    if (owner := listener_at(path)) is not None:
        return _in_use(owner)
    try:
        holder = printable(os.readlink(path + LOCK), 20)
    except OSError:
        return None
    return (
        f"{path}{LOCK} says that it is process {holder}'s: stop that; or, where it is a program that has nothing to "
        "do with it, remove that file"
    )


def _in_use(owner: str | None) -> str:
    if owner is not None:
        return f"{owner} listens there: stop that, or {_ANOTHER}"
    return f"stop what uses it, or {_ANOTHER}; root sees who that is with ss -ltnxp"


def _first_free_port() -> int:
    try:
        return int(_FIRST_FREE_PORT.read_text())
    except (OSError, ValueError):
        return 1024
