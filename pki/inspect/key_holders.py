"""What in a file holds a key: certificates, CSRs, public keys and private ones, each told by its public half alone."""

from collections.abc import Iterator, Sequence

from attrs import field, frozen
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_der_public_key

from pki.errors import HOSTILE_INPUT, Malformed, printable
from pki.inspect.contents import Held, held
from pki.keys import spki_der
from pki.keys.pkcs8 import PassphraseMismatch, read_pem
from pki.pem import CERTIFICATE, PRIVATE_KEY, PUBLIC_KEY, REQUEST, listed
from pki.spiffe import TrustDomain
from pki.svid.bundle import TrustBundle
from pki.svid.certificate import encoded_parts
from pki.svid.pin import Fingerprint
from pki.svid.spki_pin import SpkiHash
from pki.svid.x509svid import subject_of

#: A bundle in JSON does not say whose it is, and its fingerprints do not depend on it.
_SOMEBODYS = TrustDomain("bundle.invalid")
_PUBLIC_KEYS = (PUBLIC_KEY, "RSA PUBLIC KEY")
_CURE = "give a certificate, a CSR or a key"


@frozen
class KeyHolder:
    """One of them."""

    what: str
    """``certificate``, ``CSR``, ``public key`` or ``private key``."""
    subject: str
    """Of a certificate or a CSR, as one printable line."""
    spki: bytes = field(repr=False)
    """The SubjectPublicKeyInfo, as it stands there."""
    certificate: x509.Certificate | None = field(default=None, repr=False)

    @property
    def pin(self) -> str:
        """``sha256/`` and the base64 of the SHA-256 of the SubjectPublicKeyInfo (RFC 7469 section 2.4)."""
        return str(SpkiHash.of_spki(self.spki))

    @property
    def fingerprint(self) -> str:
        """``sha256:`` and the SHA-256 of the certificate in hex, as a CA prints its root's; else empty."""
        return str(Fingerprint.of(self.certificate)) if self.certificate else ""

    def has_key_of(self, other: "KeyHolder") -> bool:
        """Whether it is the same key, however it is written. Never raises."""
        return _plain(self.spki) == _plain(other.spki)


def key_holders(data: bytes) -> tuple[tuple[KeyHolder, ...], tuple[str, ...]]:
    """What holds a key in a file in PEM or DER, or the roots of a SPIFFE bundle in JSON; and why the rest is not told.

    At least one does, or :class:`Malformed` is raised, whose text has nothing of a private key in it.
    """
    if data.lstrip()[:1] == b"{":
        roots = TrustBundle.from_jwks(_SOMEBODYS, data).roots
        if not roots:
            raise Malformed("the SPIFFE bundle holds no root for X.509: it is for JWT-SVIDs alone")
        return tuple(map(_of_certificate, roots)), ()
    parts = held(data)
    found: list[KeyHolder] = []
    lost: list[str] = []
    for number, part in enumerate(parts, 1):
        place = f"block {number} of {len(parts)}: " if parts[1:] else ""
        try:
            found += _holders(part, data, is_first=_is_first_key(parts, number))
        except Malformed as error:
            lost.append(f"{place}{error}")
    if not found:
        kinds = listed(part.label for part in parts)
        raise Malformed(lost[0] if lost else f"it holds nothing with a key but {kinds}: {_CURE}")
    return tuple(found), tuple(lost)


def _is_first_key(parts: Sequence[Held], number: int) -> bool:
    return not any(part.label.endswith(PRIVATE_KEY) for part in parts[: number - 1])


def _holders(part: Held, data: bytes, *, is_first: bool) -> Iterator[KeyHolder]:
    if part.why:
        raise Malformed(part.why)
    try:
        if part.label == CERTIFICATE:
            yield _of_certificate(x509.load_der_x509_certificate(part.der))
        elif part.label == REQUEST:
            csr = x509.load_der_x509_csr(part.der)
            yield KeyHolder("CSR", _subject_of_csr(csr), spki_der(csr.public_key()))
        elif part.label in _PUBLIC_KEYS:
            yield KeyHolder("public key", "", spki_der(load_der_public_key(part.der)))
    except HOSTILE_INPUT:
        raise Malformed(
            f"{listed([part.label])} in it cannot be decoded: fetch or issue it anew, or look at it with "
            "pki-inspect show"
        ) from None
    if part.label.endswith(PRIVATE_KEY):
        yield _of_private_key(data, is_first=is_first)


def _of_certificate(cert: x509.Certificate) -> KeyHolder:
    return KeyHolder("certificate", subject_of(cert), encoded_parts(cert)[2], cert)


def _of_private_key(data: bytes, *, is_first: bool) -> KeyHolder:
    if not is_first:
        raise Malformed("it is not the first private key of the file: give each its own")
    try:
        return KeyHolder("private key", "", spki_der(read_pem(data).public_key()))
    except PassphraseMismatch:
        raise Malformed(
            "the private key is encrypted, so that nothing can be told of it: give its public half "
            "(openssl pkey -in FILE -pubout)"
        ) from None
    except HOSTILE_INPUT:
        raise Malformed("the private key is of a kind that is not known here") from None


def _subject_of_csr(csr: x509.CertificateSigningRequest) -> str:
    try:
        return printable(csr.subject.rfc4514_string())
    except HOSTILE_INPUT:
        return ""


def _plain(spki: bytes) -> bytes:
    try:
        return spki_der(load_der_public_key(spki))
    except HOSTILE_INPUT:
        return spki
