"""``--status``: health and metrics in plaintext, at the CA and at an endpoint, in one way."""

import ipaddress
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from twisted.internet.address import UNIXAddress
from twisted.internet.interfaces import IAddress
from twisted.logger import Logger

from twisted_mesh.http.server import BoundedSite
from twisted_mesh.http.status_site import Question, StatusSite
from twisted_mesh.interfaces import IReactor
from twisted_mesh.limits.connection_limit import Capacity, ConnectionLimit
from twisted_mesh.runtime.socket_path import too_long
from twisted_mesh.taps.bind_error import LOCK
from twisted_mesh.taps.early_port import is_answered
from twisted_mesh.taps.service_options import StartError

#: Connections for those who look whether it is well.
_MOST = 64
_UNIX = "unix:"


def status_site(
    questions: Mapping[str, Question], names: Sequence[str], reactor: IReactor, log: Logger
) -> BoundedSite:
    """The site that answers ``questions``; ``names`` are host names of ours."""
    limit = ConnectionLimit(Capacity.of(_MOST), reactor, "the status port", log)
    return BoundedSite(StatusSite(questions, names), reactor, connection_limit=limit)


def clear_way(address: str, option: str = "--status") -> None:
    """Remove the socket of a process that was killed, and a lock that says it is ours, where nobody answers.

    Raises :class:`StartError` where there can be no socket of that name.
    """
    if not address.startswith(_UNIX):
        return
    path = Path(address.removeprefix(_UNIX).partition(":")[0])
    if (objection := too_long(path)) is not None:
        raise StartError(f"the socket's path {objection}: choose a shorter {option}")
    if is_answered(path):
        return
    with suppress(OSError):  # whoever binds there says what is wrong
        if path.is_socket():
            path.unlink()
    lock = f"{path}{LOCK}"
    with suppress(OSError):
        # In a container each start has the number of the one before, and would be held to be what is in its way.
        if os.readlink(lock) == str(os.getpid()):
            os.unlink(lock)


def refuse_public(address: IAddress, text: str) -> None:
    """Raises :class:`StartError` where ``address``, which ``--status`` was given as ``text``, is not this machine's."""
    if isinstance(address, UNIXAddress) or _is_loopback(getattr(address, "host", "")):
        return
    raise StartError(
        f"--status {text} can be reached from other machines, and whoever asks there needs no proof: write "
        "127.0.0.1:PORT, [::1]:PORT or unix:PATH, and give those of other machines an SVID and --monitor"
    )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
