"""Whether a certificate is valid for the host that was asked for (RFC 9525), by service-identity's rules.

SPIFFE IDs are not matched here: :class:`pki.spiffe.SpiffePattern` does that.
"""

from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address

from cryptography import x509
from service_identity.exceptions import CertificateError
from service_identity.hazmat import DNS_ID, DNSPattern, IPAddress_ID, IPAddressPattern, ServiceID

from pki.codes import Code
from pki.errors import HOSTILE_INPUT, Problem, discreet, printable
from pki.svid.x509svid import extension, subject_of

_SHOWN = 10


def hostname_problem(cert: x509.Certificate, host: str) -> Problem | None:
    """Why ``cert`` is not valid for ``host``, a DNS name or an IP address; None if it is. Never raises."""
    try:
        names = extension(cert, x509.SubjectAlternativeName)
    except HOSTILE_INPUT:
        said = f"the names in the certificate cannot be decoded: {printable(host, 120)} may be one"
        return _mismatch(cert, said)
    wanted = _service_id(host)
    if wanted is None:
        return _mismatch(cert, f"{discreet(host, 120)!r} is neither a host name nor an IP address")
    if any(wanted.verify(pattern) for pattern in _patterns(names or ())):
        return None
    listed = list(_host_names(names or ()))
    shown = ", ".join(listed[:_SHOWN]) or "no host name or IP address"
    if len(listed) > _SHOWN:
        shown += f" and {len(listed) - _SHOWN} more"
    return _mismatch(cert, f"certificate is valid for {shown}, not {printable(host, 120)}")


def _service_id(host: str) -> ServiceID | None:
    try:
        return IPAddress_ID(ip_address(host))
    except ValueError:
        pass
    if host != host.strip():  # DNS_ID would trim it
        return None
    try:
        return DNS_ID(host.removesuffix("."))
    except ValueError:  # idna's errors are ValueErrors too
        return None


def _patterns(names: Iterable[x509.GeneralName]) -> Iterator[DNSPattern | IPAddressPattern]:
    """What can be matched. Not ``extract_patterns``: there one odd name, even a URI with a port, hides all."""
    for name in names:
        if isinstance(name, x509.IPAddress):
            if isinstance(name.value, IPv4Address | IPv6Address):
                yield IPAddressPattern(name.value)
        elif isinstance(name, x509.DNSName):
            try:
                yield DNSPattern.from_bytes(name.value.encode())
            except (CertificateError, ValueError):
                continue


def _host_names(names: Iterable[x509.GeneralName]) -> Iterator[str]:
    for name in names:
        if isinstance(name, x509.DNSName | x509.IPAddress):
            yield printable(str(name.value), 120)


def _mismatch(cert: x509.Certificate, detail: str) -> Problem:
    return Problem(
        Code.NAME_MISMATCH,
        detail,
        "call it by a name that its certificate carries, or have that name granted to it",
        "RFC 9525 section 6",
        subject_of(cert),
    )
