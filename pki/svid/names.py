"""The names in a certificate: its subject and its alternative names, as values and in DER."""

import re
from collections.abc import Collection
from ipaddress import IPv4Address, IPv6Address, ip_address
from string import ascii_letters, digits

from cryptography import x509

from pki.codes import Code
from pki.der import SEQUENCE, element, inside
from pki.errors import Malformed, discreet
from pki.spiffe import SpiffeId

IPAddress = IPv4Address | IPv6Address

#: Tags of GeneralNames (RFC 5280 section 4.2.1.6).
DNS_NAME, URI, IP_ADDRESS = 0x82, 0x86, 0x87
#: The empty Name, in DER.
NAMELESS = element(SEQUENCE, b"")
#: Characters that a common name has at most (RFC 5280 ub-common-name).
MOST_OF_COMMON_NAME = 64
#: RFC 1035 section 2.3.4, without the root's dot.
_LONGEST_DNS_NAME = 253
_VERSION = 0xA0
_COMMON_NAME = bytes.fromhex("0603550403")
_LABEL = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)", re.ASCII)
_COMMON = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9 ._@:/-]*[A-Za-z0-9])?", re.ASCII)
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*", re.ASCII)


def is_common_name(text: str) -> bool:
    """Whether a subject may have ``text``: 1 to 64 characters that no way of writing names escapes (RFC 4514)."""
    return len(text) <= MOST_OF_COMMON_NAME and _COMMON.fullmatch(text) is not None


def subject_for(spiffe_id: SpiffeId, common_name: str = "") -> x509.Name:
    """``CN=<common name>``, by default that of the last path segment, which many IDs may share.

    It is empty where that would not fit (RFC 5280 ub-common-name).
    """
    name = common_name or spiffe_id.name
    if not 0 < len(name) <= MOST_OF_COMMON_NAME:
        return x509.Name([])
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])


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


def subject_der(spiffe_id: SpiffeId, common_name: str = "") -> bytes:
    """The same as :func:`subject_for`, in DER."""
    name = (common_name or spiffe_id.name).encode("ascii")
    size = len(name)
    if not 0 < size <= MOST_OF_COMMON_NAME:
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


class BadDnsName(Malformed):
    """A text that no certificate here carries as a DNS name; it says what to write in its place."""

    code = Code.MALFORMED_DNS_NAME

    def __init__(self, name: str, rule: str, remedy: str) -> None:
        if len(name) > _LONGEST_DNS_NAME:
            # A run that is cut may be too short to be known as a secret.
            name = name[:_LONGEST_DNS_NAME].rstrip(ascii_letters + digits + "+/=") + "…"
        self.detail, self.remedy = f"{discreet(name, 120)!r} {rule}", remedy
        super().__init__(f"{self.detail}: {remedy}")


def is_dns_name(name: str) -> bool:
    """Whether ``name`` is a host name in lower-case letters, digits and dashes, without wildcards."""
    labels = name.split(".")
    # A last label that is a number makes it an IP address to whoever parses it (WHATWG URL section 3.5).
    return (
        len(name) <= _LONGEST_DNS_NAME
        and all(map(_LABEL.fullmatch, labels))
        and not _NUMBER.fullmatch(labels[-1])
    )


def dns_name(name: str) -> str:
    """``name``, where :func:`is_dns_name` says so. Raises :class:`BadDnsName` with the rule that it breaks."""
    if not is_dns_name(name):
        raise BadDnsName(name, *_why_no_dns_name(name))
    return name


def _why_no_dns_name(name: str) -> tuple[str, str]:
    """The rule that it breaks, and what to do."""
    plain = name.lower().rstrip(".")
    if not name:
        return "is an empty DNS name", "leave it out, or write the host's name"
    if is_address(name):
        return "is an IP address and no DNS name", "ask for it as an IP address (IP:, --ip)"
    if "://" in name:
        return "is a URI and no DNS name", "ask for it as a URI, or write only its host"
    if "*" in name:
        return "has a wildcard, which no SVID carries", "name each host"
    if not name.isascii():
        return "has letters beyond ASCII", "write the name in its xn-- form (IDNA)"
    if name.endswith(".") and is_dns_name(plain):
        return "ends with a dot", f"write {plain}"
    if is_dns_name(plain):
        return "has capital letters", f"write {plain}"
    if "_" in name:
        return "has an underscore, which no host name has", "use a dash, or another name (RFC 1123)"
    host, colon, port = name.rpartition(":")
    if colon and port.isdigit() and is_dns_name(host):
        return "has a port", f"write {host}"
    if len(name) > _LONGEST_DNS_NAME or any(len(label) > 63 for label in name.split(".")):
        return (
            "is too long",
            "a host name has at most 253 characters, and 63 between dots (RFC 1035)",
        )
    return (
        "is no host name",
        "write letters, digits and dashes with dots between, no dash first or last, and no number last",
    )


def address(text: str) -> IPAddress:
    """The IP address that ``text`` is. Raises :class:`Malformed`."""
    try:
        if "%" not in text:  # a scope has no place in a certificate
            return ip_address(text)
    except ValueError:
        pass
    raise Malformed(f"{discreet(text, 80)!r} is no IP address")


def is_address(text: str) -> bool:
    """Whether ``text`` is an IP address, perhaps in brackets."""
    try:
        ip_address(text.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return True
