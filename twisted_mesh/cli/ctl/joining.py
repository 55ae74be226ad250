"""The line by which a new service joins, and the one by which it is called then, as ``token create`` prints them."""

import errno
import os
import re
import shlex
import shutil
import socket
import sys
from collections.abc import Collection
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

from attrs import frozen

from pki.errors import printable
from pki.spiffe import SpiffePattern
from twisted_mesh.api.messages import MadeToken, NewToken

#: What whoever copies a line has to replace.
_ANY = "NAME"
#: The trust domain that programs take unless they are told otherwise.
_USUAL_DOMAIN = "mesh.local"
#: Where a server listens unless it is told otherwise, and how many ports after it are looked at.
_USUAL_PORT, _PORTS = 9443, 100


@frozen
class Joining:
    """How a service with the token ``made`` joins, and who calls it how."""

    made: MadeToken
    new: NewToken
    port: int = _USUAL_PORT
    """Where it may listen."""

    @classmethod
    def of(cls, made: MadeToken, new: NewToken) -> "Joining":
        """On this machine, where nobody else can reach the CA, it gets a port that is free."""
        joining = cls(made, new)
        return cls(made, new, _free_port()) if joining.is_here else joining

    @property
    def is_here(self) -> bool:
        """Whether only this machine reaches the CA."""
        return is_loopback(self.made.ca_url)

    def told(self) -> str:
        """All of it, as it is shown."""
        line = shlex.join(self.line())
        change = f", with a name in place of {_ANY}" if _ANY in line else ""
        where = "on this machine" if self.is_here else "where the service is to run"
        parts = [
            f"To be run {where}{change}; mesh-client takes the same options, but no --listen. "
            "The token is shown this once:",
            f"  {line}",
            f"Once it says that it is ready, it is called by:\n\n  {shlex.join(self.call())}",
        ]
        if self.is_here:
            parts.append(
                f"The CA listens on {urlsplit(self.made.ca_url).hostname} only: for other machines start mesh-ca "
                "with --listen :8443, and with --public-url https://NAME:8443 if they know this one by a NAME of "
                "its own; then make another token."
            )
        return "\n\n".join(parts)

    def line(self) -> list[str]:
        """The line to copy: a server that joins by that token."""
        whose = self._whose
        line = [installed_program("mesh-server") if self.is_here else "mesh-server"]
        if self.port != _USUAL_PORT:
            line += ["--listen", str(self.port)]
        line += self._trust_domain
        line += ["--spiffe-id", str(whose)]
        if self.new.dns_names or self.new.ip_addresses:
            # With any of them the server takes none by itself.
            line += _repeated("--dns", ["localhost", *self.new.dns_names])
            line += _repeated("--ip", ["127.0.0.1", *self.new.ip_addresses])
        return [*line, *reaching_options(self.made)]

    def call(self) -> list[str]:
        """The line by which a client calls that server, from where it is."""
        names = (*self.new.dns_names, *self.new.ip_addresses)
        host = "localhost" if self.is_here or not names else names[0]
        if ":" in host:
            host = f"[{host}]"
        return [
            installed_program("mesh-client") if self.is_here else "mesh-client",
            *self._trust_domain,
            *("--server", f"https://{host}:{self.port}"),
            *("--server-id", str(self._whose)),
        ]

    @property
    def _whose(self) -> SpiffePattern:
        return SpiffePattern.parse(self.new.spiffe_id or _example(self.made.spiffe_id))

    @property
    def _trust_domain(self) -> list[str]:
        domain = str(self._whose.trust_domain)
        return [] if domain == _USUAL_DOMAIN else ["--trust-domain", domain]


def reaching_options(made: MadeToken) -> list[str]:
    """All that a new machine has to know."""
    return [
        *("--ca-url", printable(made.ca_url)),
        *("--ca-fingerprint", printable(made.fingerprint)),
        *("--join-token", printable(made.token)),
    ]


def is_loopback(url: str) -> bool:
    """Whether only this machine reaches whoever is at ``url``."""
    host = urlsplit(url).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def installed_program(name: str) -> str:
    """What starts that program of ours from here: its name where the PATH has it, else where it is installed."""
    if shutil.which(name) is not None:
        return name
    installed = Path(sys.executable).parent / name
    if not installed.is_file():
        return name
    below = os.path.relpath(installed)
    return below if not below.startswith("..") else str(installed)


def _free_port() -> int:
    """The usual port, or the next one on which nobody listens."""
    for port in range(_USUAL_PORT, _USUAL_PORT + _PORTS):
        with socket.socket(socket.AF_INET6 if socket.has_ipv6 else socket.AF_INET) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                sock.bind(("", port))
                sock.listen(1)
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    continue
            return port
    return _USUAL_PORT


def _repeated(option: str, values: Collection[str]) -> list[str]:
    return [word for value in dict.fromkeys(values) for word in (option, value)]


def _example(template: str) -> str:
    """An ID that an entry's template may stand for, to be changed by whoever copies it."""
    words = [re.sub(r"\{[^{}]*\}|\*+", _ANY, segment) for segment in template.split("/")]
    return "/".join(words)
