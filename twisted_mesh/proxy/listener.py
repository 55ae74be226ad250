"""What one listener of mesh-proxy is: where it listens, where its connections go, and who may be at the far side."""

import ipaddress
from collections.abc import Sequence
from enum import StrEnum

from attrs import frozen
from cryptography import x509

from pki.codes import Code
from pki.errors import Malformed, Problem, discreet, printable
from pki.spiffe import SpiffePattern, TrustDomain
from pki.svid.x509svid import spiffe_id_of
from twisted_mesh.tls.hostname import hostname_problem

_UNIX = "unix:"
_TCP = "tcp:"


class Mode(StrEnum):
    """Which side of a listener speaks mutual TLS."""

    SERVER = "server"
    """Callers do; its target is a program on this machine."""
    CLIENT = "client"
    """Its target does; callers are programs on this machine."""


@frozen
class Target:
    """Where connections go: ``HOST:PORT``, ``unix:PATH``. ``Target.parse(str(x)) == x``."""

    host: str = ""
    port: int = 0
    path: str = ""
    """Of a unix socket; there is no host then."""

    @classmethod
    def parse(cls, text: str) -> "Target":
        """Also ``tcp:HOST:PORT`` and ``unix:///PATH``. Raises :class:`Malformed`."""
        if text.startswith(_UNIX):
            path = text.removeprefix(_UNIX)
            if path.startswith("//"):
                path = path.removeprefix("//")
            if not path or "\0" in path:
                raise Malformed(f"{discreet(text, 80)!r} names no socket: write unix:PATH")
            return cls(path=path)
        host, _, port = text.removeprefix(_TCP).rpartition(":")
        is_port = port.isascii() and port.isdigit() and len(port) <= 5 and 0 < int(port) <= 65535
        if host.startswith("[") and host.endswith("]"):
            host = host[1:-1]
            is_host = _ip(host) is not None
        else:
            is_host = bool(host) and host.isascii() and host.isprintable()
            is_host = is_host and not set(host) & set(" :/[]")
        if not is_port or not is_host:
            raise Malformed(
                f"{discreet(text, 80)!r} is no target: write HOST:PORT, [::1]:PORT or unix:PATH"
            )
        return cls(host, int(port))

    def __str__(self) -> str:
        if self.path:
            return f"{_UNIX}{self.path}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @property
    def is_local(self) -> bool:
        """Whether what is sent there stays on this machine."""
        return bool(self.path) or is_loopback(self.host)


def is_loopback(host: str) -> bool:
    """Whether ``host`` is this machine, and reached from it alone."""
    found = _ip(host)
    return host == "localhost" if found is None else found.is_loopback


def _ip(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


class OnCut(StrEnum):
    """What the other side hears of an end that nobody has said: TLS ended without a goodbye, or a bound is reached."""

    RESET = "reset"
    """A reset: nothing that was cut short passes for whole."""
    END = "end"
    """An end like any other, after all that was said."""


@frozen
class Bounds:
    """How long and how many. Seconds; 0 where there is no bound."""

    connect: float = 10.0
    """Until the target has taken a connection."""
    handshake: float = 10.0
    """Until TLS is done, whatever trickles in."""
    idle: float = 0.0
    """Without a byte in either direction."""
    lifetime: float = 0.0
    """Of a connection, whatever it is doing."""
    close: float = 60.0
    """After one side has said all, without a byte from the other; 0 hangs up at once."""
    connections: int | None = None
    """That are carried at once; who comes then waits. None for what descriptors there are."""


@frozen
class Listener:
    """One listener, as it was configured."""

    name: str
    mode: Mode
    address: str
    """Where it listens, as it was written."""
    target: Target
    allow: tuple[SpiffePattern, ...] = ()
    """Of a server: who may call. One match is enough, here or in ``allow_dns``."""
    allow_dns: tuple[str, ...] = ()
    """Of a server: callers whose certificate is valid for one of these names may call too."""
    verify: tuple[SpiffePattern, ...] = ()
    """Of a client: who must answer. One match is needed."""
    verify_dns: tuple[str, ...] = ()
    """Of a client: the certificate of who answers must be valid for one of these names besides; any, if none."""
    http: bool = False
    """Whether HTTP is spoken, and the caller is told to the target in headers."""
    proxy_protocol: bool = False
    """Whether the caller is told to the target by the PROXY protocol, version 2."""
    permissive: bool = False
    """Whether callers without TLS are let in too."""
    bounds: Bounds = Bounds()
    unsafe_listen: bool = False
    """Of a client: whether callers of other machines are let in, whose words come in plaintext."""
    on_cut: OnCut = OnCut.RESET
    """What the other side hears of an end that nobody has said."""

    @property
    def serves(self) -> bool:
        """Whether callers speak TLS."""
        return self.mode is Mode.SERVER

    @property
    def patterns(self) -> tuple[SpiffePattern, ...]:
        """Who may be at the far side, as far as that is said by SPIFFE IDs."""
        return self.allow if self.serves else self.verify

    def objection(self, leaf: x509.Certificate, ours: TrustDomain | None) -> Problem | None:
        """Why whoever has proven to hold ``leaf`` may not be at the far side; None where it may.

        ``ours`` is the trust domain whose CA is believed about DNS names: another's may certify any.
        """
        spiffe_id = spiffe_id_of(leaf)
        is_named = spiffe_id is not None and any(
            pattern.matches(spiffe_id) for pattern in self.patterns
        )
        if self.serves:
            is_ours = spiffe_id is not None and spiffe_id.trust_domain == ours
            if is_named or (is_ours and _is_one_of(leaf, self.allow_dns)):
                return None
            return self._problem(str(spiffe_id), "--allow", (*self.allow, *self.allow_dns))
        if not is_named:
            return self._problem(str(spiffe_id), "--verify", self.verify)
        if self.verify_dns and not _is_one_of(leaf, self.verify_dns):
            return hostname_problem(leaf, self.verify_dns[0])
        return None

    def _problem(self, who: str, option: str, may: Sequence[object]) -> Problem:
        named = ", ".join(map(str, may)) or "nobody"
        return Problem(
            Code.NOT_AUTHORIZED,
            f"{printable(who, 300)} is not among those that may at listener {self.name}: {named}",
            f"to accept it, name it in {option} ({option.removeprefix('--')} = […] in the file)",
            option,
            who,
        )


def _is_one_of(leaf: x509.Certificate, names: Sequence[str]) -> bool:
    return any(hostname_problem(leaf, name) is None for name in names)
