"""The host names in a workload's certificate: those of its entry, or those that everybody may have."""

import ipaddress
from collections.abc import Sequence

from pki.policy.entry import RegistrationEntry
from pki.svid.names import IPAddress

_EVERYBODYS: tuple[Sequence[str], Sequence[IPAddress]] = (
    ("localhost",),
    (ipaddress.IPv4Address("127.0.0.1"),),
)


def names_of(entry: RegistrationEntry) -> tuple[Sequence[str], Sequence[IPAddress]]:
    """DNS names and IP addresses; where the entry has neither, those by which programs of one machine call each other.

    A client of the mesh wants its server's name in the certificate too, whoever has asked for that.
    """
    if entry.dns_names or entry.ip_addresses:
        return entry.dns_names, entry.ip_addresses
    return _EVERYBODYS
