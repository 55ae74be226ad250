"""How far an attempt to reach somebody came, and why no further: what the kernel says of it, told apart.

A refusal, a silence, a directory that is closed and a socket that is not there have each another cure. Whoever
connects keeps a :class:`Reach`, has its endpoint watched, and asks it once that has failed.
"""

import errno
import ipaddress
import os
import resource
import stat
from pathlib import Path
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectError, DNSLookupError, TimeoutError
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from zope.interface import implementer

from pki.errors import printable

#: More of what comes first is not looked at.
_FIRST = 16
_DESCRIPTORS = (errno.EMFILE, errno.ENFILE)
_NOT_FOR_US = (errno.EACCES, errno.EPERM)
_NO_WAY = (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EHOSTDOWN)
_OTHERWISE = "ask over TLS with a join token"

Why = tuple[str, str]
"""What is so, and what to do about it."""


@define(eq=False, repr=False)
class Reach:
    """One attempt to reach a place, or several after another: where it is, and how far the last one came."""

    where: str
    """As it is written: ``https://host:9443``, ``unix:/run/ca.sock``."""
    host: str = ""
    path: str = ""
    """Of a unix socket."""
    who: str = "server"
    """What is to be there."""
    start: str = "start it, or check the address and the port"
    """What to do where nobody listens."""
    is_usual_port: bool = False
    """Whether nobody has written the port."""
    seconds: float = 0.0
    """How long all of it may take; 0 where that is not known."""
    otherwise: str = _OTHERWISE
    """What else there is to do where a unix socket is closed to us."""
    is_connected: bool = field(default=False, init=False)
    heard: bytes = field(default=b"", init=False)
    """The first bytes that came back."""

    def watch(self, endpoint: IStreamClientEndpoint) -> IStreamClientEndpoint:
        """The same endpoint, of which this hears how far it comes."""
        return _Watched(endpoint, self)

    @property
    def speaks(self) -> str | None:
        """The protocol in which the other side has begun to speak, if it is one that is known by its first bytes."""
        return spoken_in(self.heard)

    def why(self, error: BaseException) -> Why | None:
        """Why nobody was reached; None where somebody was, or where ``error`` does not say."""
        if isinstance(error, TimeoutError):
            return self._silence()
        if isinstance(error, DNSLookupError):
            if lack := lack_of_descriptors():
                return lack
            return (
                f"the name {printable(self.host, 100)} cannot be looked up: nobody has it, or no name server answers",
                "check how it is spelt, and this machine's name servers",
            )
        if isinstance(error, OSError) and error.errno in _DESCRIPTORS:
            return _no_descriptors()
        if not isinstance(error, ConnectError):
            return None
        number = error.osError if isinstance(error.osError, int) else 0
        return self._of_number(number)

    def _of_number(self, number: int) -> Why | None:
        if number in _DESCRIPTORS:
            return _no_descriptors()
        if self.path:
            return why_no_socket(Path(self.path), number, self.start, self.otherwise)
        if number == errno.ECONNREFUSED:
            if self.is_usual_port:
                return (
                    "nobody listens there, on the port that is meant where none is written",
                    f"write the port: {self.where.rpartition(':')[0]}:PORT",
                )
            return "nobody listens there", self.start
        if number == errno.ETIMEDOUT:
            return self._silence()
        if number in _NO_WAY:
            return (
                f"no way leads there from here ({os.strerror(number)})",
                "check the address, and this machine's network",
            )
        if number in _NOT_FOR_US:
            return (
                f"this machine lets nobody connect there ({os.strerror(number)})",
                "look at its firewall, and at what confines this program",
            )
        return None

    def _silence(self) -> Why:
        within = f" within {self.seconds:g} s" if self.seconds else " in time"
        if self.is_connected:
            return (
                f"it takes connections, and did not answer{within}",
                "it runs: look in its log what it is busy with",
            )
        if self.path:
            return (
                f"the socket is there, and nobody took the connection{within}",
                "it runs: look in its log what it is busy with",
            )
        named = "" if _is_address(self.host) else ", or its name was not found out by then"
        port = (
            "; the port is the one that is meant where none is written"
            if self.is_usual_port
            else ""
        )
        return (
            f"it did not answer in time: there was no connection{within}, and no refusal{named}{port}",
            "check the address and the port: that host is down, or a firewall between swallows what is sent there",
        )


@implementer(IStreamClientEndpoint)
@define(eq=False, repr=False)
class _Watched:
    endpoint: IStreamClientEndpoint
    reach: Reach

    def connect(self, factory: IProtocolFactory) -> "Deferred[IProtocol]":
        self.reach.is_connected, self.reach.heard = False, b""
        connecting: Deferred[IProtocol] = self.endpoint.connect(factory)
        return connecting.addCallback(self._listen)

    def _listen(self, protocol: Any) -> IProtocol:
        """Keep the first bytes, and get out of the way."""
        # TLS on a socket is given what comes past its protocol.
        given = getattr(protocol, "taken", None) or protocol
        reach, has_own = self.reach, "dataReceived" in getattr(given, "__dict__", {})
        reach.is_connected = True
        deliver = given.dataReceived

        def first(data: bytes) -> None:
            reach.heard = data[:_FIRST]
            if has_own:
                given.dataReceived = deliver
            else:
                del given.dataReceived
            deliver(data)

        given.dataReceived = first
        connected: IProtocol = protocol
        return connected


def spoken_in(first: bytes) -> str | None:
    """What protocol begins with these bytes: ``TLS``, ``plain HTTP``, ``SSH``; None for any other."""
    if len(first) >= 2 and first[0] in (0x14, 0x15, 0x16) and first[1] == 3:
        return "TLS"
    if first.startswith(b"HTTP/"):
        return "plain HTTP"
    return "SSH" if first.startswith(b"SSH-") else None


def why_no_socket(path: Path, number: int, start: str, otherwise: str = _OTHERWISE) -> Why | None:
    """Why no connection to the unix socket ``path`` came about, by the kernel's number and a look at the path."""
    if number in _NOT_FOR_US:
        if (blocking := closed_on_the_way(path)) is not None:
            return (
                f"this user may not go through the directory {blocking}",
                f"have it opened (chmod o+x {blocking}), or {otherwise}",
            )
        return (
            "this user may not use the socket",
            f"have it opened (chmod o+w {path}), and every directory on the way (chmod o+x), or {otherwise}",
        )
    for above in reversed(path.absolute().parents):
        if not above.exists():
            return f"there is no directory {above}", f"check the path; {start}"
        if not above.is_dir():
            return f"{above} is no directory", "check the path"
    try:
        found = path.stat()
    except FileNotFoundError:
        return "no socket is there", start
    except OSError:
        return None
    if not stat.S_ISSOCK(found.st_mode):
        return "what is there is no socket", "check the path"
    if number == errno.ECONNREFUSED:
        return "nobody listens at the socket any more: it was left behind", start
    if number == errno.EPROTOTYPE:
        return "the socket there is of another kind, and no CA's", "check the path"
    return None


def closed_on_the_way(path: Path) -> Path | None:
    """The first directory above ``path`` that we may not go through; None where all are open, or not there."""
    for above in reversed(path.absolute().parents):
        if not os.path.isdir(above):
            return None
        if not os.access(above, os.X_OK, effective_ids=os.access in os.supports_effective_ids):
            return above
    return None


def lack_of_descriptors() -> Why | None:
    """What is to be said where this process has no file descriptor left."""
    try:
        os.close(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
    except OSError as error:
        if error.errno in _DESCRIPTORS:
            return _no_descriptors()
    return None


def _no_descriptors() -> Why:
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return (
        f"this process has no file descriptor left to connect with: {most} are the most",
        "raise the limit (ulimit -n, or LimitNOFILE=)",
    )


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True
