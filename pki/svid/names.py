"""The names in a certificate: its subject and its alternative names, as values and in DER."""

import re
from collections.abc import Collection
from ipaddress import IPv4Address, IPv6Address

from cryptography import x509

from pki.der import SEQUENCE, element, inside
from pki.spiffe import SpiffeId

IPAddress = IPv4Address | IPv6Address

#: Tags of GeneralNames (RFC 5280 section 4.2.1.6).
DNS_NAME, URI, IP_ADDRESS = 0x82, 0x86, 0x87
#: The empty Name, in DER.
NAMELESS = element(SEQUENCE, b"")
_VERSION = 0xA0
_COMMON_NAME = bytes.fromhex("0603550403")
_LABEL = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)", re.ASCII)
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*", re.ASCII)


def subject_for(spiffe_id: SpiffeId) -> x509.Name:
    """``CN=<last path segment>``, or an empty name where that would not fit (RFC 5280 ub-common-name)."""
    if not 0 < len(spiffe_id.name) <= 64:
        return x509.Name([])
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, spiffe_id.name)])


def alternative_names(
    spiffe_id: SpiffeId, dns_names: Collection[str] = (), ip_addresses: Collection[IPAddress] = ()
) -> x509.SubjectAlternativeName:
    """The one URI SAN of an SVID, then its host names."""
    return x509.SubjectAlternativeName(
        [
            x509.UniformResourceIdentifier(str(spiffe_id)),
            *(x509.DNSName(name) for name in dns_names),
            *(x509.IPAddress(address) for address in ip_addresses),
        ]
    )


def subject_der(spiffe_id: SpiffeId) -> bytes:
    """The same as :func:`subject_for`, in DER."""
    name = spiffe_id.name.encode("ascii")
    size = len(name)
    if not 0 < size <= 64:
        return NAMELESS
    # A SEQUENCE of a SET of a SEQUENCE of an OID and a UTF8String; every length fits into one octet.
    return b"\x30%c\x31%c\x30%c%b\x0c%c%b" % (
        size + 11,
        size + 9,
        size + 7,
        _COMMON_NAME,
        size,
        name,
    )


def encoded_subject(cert: x509.Certificate) -> bytes:
    """The subject's Name in DER, byte for byte as it stands in the certificate."""
    tbs = cert.tbs_certificate_bytes
    at, _ = inside(tbs, 0)
    if tbs[at] == _VERSION:
        _, at = inside(tbs, at)
    for _field in ("serial number", "algorithm", "issuer", "validity"):
        _, at = inside(tbs, at)
    return tbs[at : inside(tbs, at)[1]]


def general_names(
    spiffe_id: SpiffeId, dns_names: Collection[str] = (), ip_addresses: Collection[IPAddress] = ()
) -> tuple[tuple[int, bytes], ...]:
    """The same as :func:`alternative_names`, as the tag and content of each in DER."""
    return (
        (URI, str(spiffe_id).encode("ascii")),
        *[(DNS_NAME, name.encode("ascii")) for name in dns_names],
        *[(IP_ADDRESS, address.packed) for address in ip_addresses],
    )


def is_dns_name(name: str) -> bool:
    """Whether ``name`` is a host name in lower-case letters, digits and dashes, without wildcards."""
    labels = name.split(".")
    # A last label that is a number makes it an IP address to whoever parses it (WHATWG URL section 3.5).
    return (
        len(name) <= 253
        and all(map(_LABEL.fullmatch, labels))
        and not _NUMBER.fullmatch(labels[-1])
    )
