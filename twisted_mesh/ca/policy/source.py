"""Where a request comes from, as the policy is told it."""

import ipaddress
from enum import StrEnum

from attrs import frozen


class Transport(StrEnum):
    """By which way somebody came to the CA."""

    TLS = "tls"
    UNIX = "unix"
    """The CA's socket."""
    HTTP = "http"
    """The plaintext port of ``--insecure-http``."""
    WORKLOAD = "workload"
    """The CA's own workload socket."""
    NONE = ""
    """None: the request was made in this process."""


@frozen
class Source:
    """Where a request comes from; an address is that of the connection, whoever is behind it."""

    address: str = ""
    port: int = 0
    transport: Transport = Transport.NONE

    @classmethod
    def at(cls, host: str, port: int, transport: Transport) -> "Source":
        """An IP address of the network. What is IPv4 is written as that."""
        try:
            found = ipaddress.ip_address(host.partition("%")[0])
        except ValueError:
            return cls(host, port, transport)
        mapped = getattr(found, "ipv4_mapped", None)
        return cls(str(mapped or found), port, transport)

    @property
    def is_local(self) -> bool:
        """Whether it came by the CA's socket: a process of its own machine, whose user the kernel knows."""
        return self.transport is Transport.UNIX


NOWHERE = Source()
WORKLOADS = Source(transport=Transport.WORKLOAD)
