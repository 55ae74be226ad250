"""The filters of ``cert list`` and ``cert revoke``, checked before the CA is asked, and as its API understands them.

A key or an issuer is named by its SHA-256, or by a file that has it.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.serialization import load_der_public_key

from pki.der import blocks
from pki.errors import HOSTILE_INPUT, PkiError, discreet
from pki.issuing.certification_request import read_request
from pki.keys import key_id
from pki.pem import CERTIFICATE, PUBLIC_KEY, REQUEST
from pki.serial import parse_serial, serial_hex
from pki.spiffe import SpiffeId, SpiffePattern
from pki.svid.x509svid import extension
from pki.validity import parse_rfc3339
from twisted_mesh.cli.program import Unusable
from twisted_mesh.state.directory import StateError, read_file

_DIGITS = 64


def understood(filters: Mapping[str, str | None]) -> dict[str, str]:
    """Those that were given, by the names of the API's parameters."""
    found = {}
    for name, text in filters.items():
        if text is not None:
            try:
                found[name] = _READERS[name](text)
            except PkiError as error:
                raise Unusable(f"--{name.replace('_', '-')}: {error}") from None
    return found


def _names(text: str) -> str:
    """A SPIFFE ID or a subtree: what an index can find."""
    pattern = SpiffePattern.parse(text)
    literal = pattern.segments[:-1] if pattern.segments[-1:] == ("**",) else pattern.segments
    if "*" in literal:
        raise Unusable("--spiffe-id: here a pattern has no *, only ** at its end for a subtree")
    return str(pattern)


def _agent(text: str) -> str:
    """An agent's ID: its name alone does not say of which trust domain it is."""
    if SpiffeId.parse(text).agent is None:
        raise Unusable("--agent: it is the ID of one, spiffe://TD/mesh/agent/NAME")
    return text


def digest_of(text: str, who_takes: str) -> str:
    """A SHA-256, as people copy it from somewhere. Raises :class:`Unusable`."""
    digest = digest_in(text)
    if digest is None:
        raise Unusable(f"{discreet(text, 80)!r} is no SHA-256: {who_takes} 64 digits of hex")
    return digest


def _time(text: str) -> str:
    parse_rfc3339(text)
    return text


def digest_in(text: str) -> str | None:
    """A SHA-256, as people copy it from somewhere; None where ``text`` is none."""
    digits = text.lower().removeprefix("sha256:").replace(":", "")
    is_hex = len(digits) == _DIGITS and all(digit in "0123456789abcdef" for digit in digits)
    return digits if is_hex else None


def key_meant(text: str) -> str:
    """``--key``: the SHA-256 of a key, or a file with a certificate, a CSR or a public key; the first counts.

    Raises :class:`Unusable`.
    """
    if (digest := digest_in(text)) is not None:
        return digest
    return key_id(key_in("--key", text))


def key_in(option: str, text: str) -> PublicKeyTypes:
    """The key of the first certificate, CSR or public key in the file ``text``. Raises :class:`Unusable`."""
    for label, der in _blocks(option, text):
        if label in _KEYS:
            try:
                return _KEYS[label](der)
            except PkiError as error:
                raise Unusable(f"{option} {discreet(text)}: {error}") from None
            except HOSTILE_INPUT:
                raise Unusable(f"{option} {discreet(text)}: its {label} cannot be read") from None
    raise Unusable(
        f"{option} {discreet(text)}: there is no certificate, CSR or public key in it (of a private key: "
        "openssl pkey -pubout)"
    )


def issuer_meant(text: str, option: str = "--issuer") -> str:
    """``--issuer``: the SHA-256 of an issuing CA's key, or a file with its certificate. Raises :class:`Unusable`."""
    if (digest := digest_in(text)) is not None:
        return digest
    named = f"{option} {discreet(text)}"
    for label, der in _blocks(option, text):
        if label == CERTIFICATE:
            try:
                cert = x509.load_der_x509_certificate(der)
                limits = extension(cert, x509.BasicConstraints)
                if limits is None or not limits.ca:
                    raise Unusable(
                        f"{named}: the certificate is no CA's: name the one that issued it"
                    )
                if cert.issuer == cert.subject:
                    raise Unusable(
                        f"{named}: this is a root: name the issuing CA that it has signed"
                    )
                return key_id(cert.public_key())
            except HOSTILE_INPUT:
                raise Unusable(f"{named}: its certificate cannot be read") from None
    raise Unusable(f"{named}: there is no certificate in it")


def _blocks(option: str, name: str) -> list[tuple[str, bytes]]:
    try:
        return [(block.label, block.der) for block in blocks(read_file(Path(name), option))]
    except StateError as error:
        raise Unusable(
            f"{error}; and it is no SHA-256, which has {_DIGITS} digits of hex"
        ) from None
    except PkiError as error:
        raise Unusable(f"{option} {discreet(name)}: {error}") from None


_KEYS: dict[str, Callable[[bytes], PublicKeyTypes]] = {
    CERTIFICATE: lambda der: x509.load_der_x509_certificate(der).public_key(),
    REQUEST: lambda der: read_request(der).public_key(),
    PUBLIC_KEY: load_der_public_key,
}

_READERS: dict[str, Callable[[str], str]] = {
    "spiffe_id": _names,
    "status": str,
    "serial": lambda text: serial_hex(parse_serial(text)),
    "issuer": issuer_meant,
    "key": key_meant,
    "entry": str,
    "agent": _agent,
    "issued_after": _time,
    "issued_before": _time,
    "expires_after": _time,
    "expires_before": _time,
}
