"""X.509-SVIDs: the rules that make a certificate the identity of a workload, and one with its key."""

from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from functools import partial
from typing import Protocol, TypeVar, cast

from attrs import field, frozen
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import ExtendedKeyUsageOID

from pki.codes import Code
from pki.der import blocks, flaw
from pki.errors import HOSTILE_INPUT, Malformed, Problem, printable
from pki.keys import MemoryKey, SigningKey, spki_der
from pki.pem import CERTIFICATE, REQUEST, listed
from pki.spiffe import NotASpiffeId, SpiffeId
from pki.validity import Validity

_E = TypeVar("_E", bound=x509.ExtensionType)


class Carrier(Protocol):
    """What carries extensions: a certificate, a CSR (those that it asks for) or a CRL."""

    @property
    def extensions(self) -> x509.Extensions:
        """All of them."""
        ...


class OtherKey(Malformed):
    """A certificate and a key that do not belong together."""

    def __init__(
        self, spiffe_id: SpiffeId, key: MemoryKey, others: Sequence[x509.Certificate]
    ) -> None:
        of = next((subject_of(cert) for cert in others if is_certified(key, cert)), None)
        super().__init__(
            f"the certificate for {spiffe_id} was issued for another key"
            + (f": this is the key of {of}, which stands behind it" if of else "")
        )


def is_certified(key: SigningKey, cert: x509.Certificate) -> bool:
    """Whether a certificate was made for that key. Never raises."""
    try:
        return spki_der(cert.public_key()) == spki_der(key.public_key)
    except HOSTILE_INPUT:
        return False


class Purpose(StrEnum):
    """What a certificate is judged for: which end of a connection presents it."""

    SERVER = "server"
    CLIENT = "client"
    ANY = "svid"


_REQUIRED_EKUS = {
    Purpose.SERVER: (ExtendedKeyUsageOID.SERVER_AUTH,),
    Purpose.CLIENT: (ExtendedKeyUsageOID.CLIENT_AUTH,),
    Purpose.ANY: (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH),
}
_ANEW = "request an SVID from the mesh's CA"
_EKU_NAMES = {
    ExtendedKeyUsageOID.SERVER_AUTH: "serverAuth",
    ExtendedKeyUsageOID.CLIENT_AUTH: "clientAuth",
}


def subject_of(cert: x509.Certificate) -> str:
    """The subject as one printable line; the serial where it is empty or cannot be decoded."""
    try:
        name = cert.subject.rfc4514_string()
    except HOSTILE_INPUT:
        name = ""
    return printable(name) or f"serial {cert.serial_number:x}"


def issuer_of(cert: x509.Certificate) -> str:
    """The issuer's name as one printable line; empty where it has none that can be decoded."""
    try:
        return printable(cert.issuer.rfc4514_string())
    except HOSTILE_INPUT:
        return ""


def validity_of(cert: x509.Certificate) -> Validity:
    """From when to when a certificate holds, in UTC."""
    return Validity(cert.not_valid_before_utc, cert.not_valid_after_utc)


def extension(carrier: Carrier, kind: type[_E]) -> _E | None:
    """The extension's value, or None. Raises what hostile DER makes cryptography raise."""
    try:
        # By OID: by class, each look is an isinstance of an abstract class.
        return cast(_E, carrier.extensions.get_extension_for_oid(kind.oid).value)
    except x509.ExtensionNotFound:
        return None


def uri_names(cert: x509.Certificate) -> list[str]:
    """The URIs among its alternative names, as they stand there. Raises as :func:`extension`."""
    names = extension(cert, x509.SubjectAlternativeName)
    return names.get_values_for_type(x509.UniformResourceIdentifier) if names else []


def spiffe_id_of(cert: x509.Certificate) -> SpiffeId | None:
    """The ID that an SVID names; None where it is not exactly one well-formed SPIFFE ID with a path."""
    try:
        uris = uri_names(cert)
        spiffe_id = SpiffeId.parse(uris[0]) if len(uris) == 1 else None
    except NotASpiffeId:
        return None
    except HOSTILE_INPUT:
        return None
    return spiffe_id if spiffe_id and spiffe_id.path else None


def leaf_problems(cert: x509.Certificate, purpose: Purpose) -> list[Problem]:
    """Every rule of X509-SVID (sections 3 to 5) that a leaf breaks; nothing about its chain."""
    try:
        return list(_leaf_problems(cert, purpose))
    except HOSTILE_INPUT:
        return [
            Problem(
                Code.NOT_AN_SVID,
                "the certificate's extensions cannot be decoded, or one appears twice",
                "issue it anew",
                "RFC 5280 section 4.2",
                subject_of(cert),
            )
        ]


def uri_problems(uris: Sequence[str], subject: Callable[[], str]) -> Iterator[Problem]:
    """What keeps URI names from being one workload's SPIFFE ID; ``subject`` says whose they are."""

    def problem(detail: str, rule: str) -> Problem:
        return Problem(Code.NOT_AN_SVID, detail, _ANEW, rule, subject())

    if len(uris) != 1:
        yield problem(
            f"an SVID has exactly one URI name, this one {len(uris)}", "X509-SVID section 2"
        )
    for uri in uris[:4]:
        try:
            if not SpiffeId.parse(uri).path:
                yield problem(
                    f"{uri} names a trust domain: a workload's ID has a path",
                    "X509-SVID section 5.2",
                )
        except NotASpiffeId as error:
            yield problem(str(error), "SPIFFE-ID section 2")


def _leaf_problems(cert: x509.Certificate, purpose: Purpose) -> Iterator[Problem]:
    def problem(code: Code, detail: str, rule: str) -> Problem:
        return Problem(code, detail, _ANEW, rule, subject_of(cert))

    yield from uri_problems(uri_names(cert), partial(subject_of, cert))
    constraints = extension(cert, x509.BasicConstraints)
    if constraints and constraints.ca:
        yield problem(
            Code.NOT_AN_SVID,
            "a CA certificate is no workload's identity",
            "X509-SVID section 5.2",
        )
    usage = extension(cert, x509.KeyUsage)
    if usage is None or not usage.digital_signature:
        yield problem(
            Code.WRONG_USAGE,
            "key usage does not allow digitalSignature",
            "X509-SVID section 4.3",
        )
    if usage and (usage.key_cert_sign or usage.crl_sign):
        yield problem(
            Code.NOT_AN_SVID,
            "a leaf must not have keyCertSign or cRLSign",
            "X509-SVID section 4.3",
        )
    extended = extension(cert, x509.ExtendedKeyUsage) or ()
    missing = [_EKU_NAMES[oid] for oid in _REQUIRED_EKUS[purpose] if oid not in extended]
    if missing:
        yield problem(
            Code.WRONG_USAGE,
            f"extended key usage does not allow {' and '.join(missing)}",
            "X509-SVID section 4.4",
        )


def _may_issue(cert: x509.Certificate) -> bool:
    """Whether it is a CA with keyCertSign (X509-SVID sections 4.1 and 4.3)."""
    try:
        constraints = extension(cert, x509.BasicConstraints)
        usage = extension(cert, x509.KeyUsage)
    except HOSTILE_INPUT:
        return False
    return bool(constraints and constraints.ca and usage and usage.key_cert_sign)


@frozen
class X509Svid:
    """A workload's identity: leaf, intermediates and key, which belong together."""

    leaf: x509.Certificate
    intermediates: tuple[x509.Certificate, ...]
    key: MemoryKey = field(repr=False)
    spiffe_id: SpiffeId

    @classmethod
    def assemble(cls, certificates: Sequence[x509.Certificate], key: MemoryKey) -> "X509Svid":
        """From a chain, leaf first.

        Raises :class:`Malformed` unless the leaf is an SVID for ``key`` and the rest are CAs. Whether
        they lead to a root, and hold now, is for :func:`pki.svid.chain.judge` to say.
        """
        if not certificates:
            raise Malformed("an SVID needs a certificate, and there is none")
        leaf, *intermediates = certificates
        spiffe_id = spiffe_id_of(leaf)
        if spiffe_id is None:
            why = "; ".join(dict.fromkeys(p.detail for p in leaf_problems(leaf, Purpose.ANY)))
            raise Malformed(f"{subject_of(leaf)} names no SPIFFE ID with a path: {why} ({_ANEW})")
        try:
            certified = spki_der(leaf.public_key())
        except HOSTILE_INPUT:
            raise Malformed(
                f"the certificate for {spiffe_id} holds a key that cannot be decoded"
            ) from None
        if certified != spki_der(key.public_key):
            raise OtherKey(spiffe_id, key, intermediates)
        for problem in leaf_problems(leaf, Purpose.ANY):
            raise Malformed(
                f"the certificate for {spiffe_id} is no SVID: {problem.detail} ({_ANEW})"
            )
        for cert in intermediates:
            if not _may_issue(cert):
                raise Malformed(
                    f"{subject_of(cert)} stands above {spiffe_id} and is no CA that may sign certificates"
                )
        return cls(leaf, tuple(intermediates), key, spiffe_id)

    @property
    def chain(self) -> tuple[x509.Certificate, ...]:
        """Leaf first, without the root."""
        return (self.leaf, *self.intermediates)

    @property
    def validity(self) -> Validity:
        """That of the leaf."""
        return validity_of(self.leaf)

    def chain_pem(self) -> bytes:
        """:attr:`chain` in PEM, as TLS servers take it."""
        return certificates_pem(self.chain)


def certificates_pem(certificates: Sequence[x509.Certificate]) -> bytes:
    """In PEM, one after the other; :func:`load_certificates` reads them back."""
    return b"".join(cert.public_bytes(serialization.Encoding.PEM) for cert in certificates)


def load_certificates(data: bytes, what: str = "the file") -> tuple[x509.Certificate, ...]:
    """Every certificate in a PEM or DER file, at least one. Raises :class:`Malformed`, which names what is there."""
    if not data.strip():
        raise Malformed(
            f"{what} holds no certificates in PEM or DER: there is nothing in it; copy the file anew, or name another"
        )
    try:
        held = blocks(data)
    except Malformed as error:
        raise Malformed(
            f"{what} holds no certificates in PEM or DER that can be read: {error}"
        ) from None
    found = [block.der for block in held if block.label == CERTIFICATE]
    if not found:
        labels = [block.label for block in held]
        cure = next((_CURES[label] for label in labels if label in _CURES), _CURE)
        raise Malformed(f"{what} holds no certificates but {listed(labels)}: {cure}")
    return tuple(_certificate(der, what, at, len(found)) for at, der in enumerate(found, 1))


def _certificate(der: bytes, what: str, at: int, of: int) -> x509.Certificate:
    try:
        return x509.load_der_x509_certificate(der)
    except HOSTILE_INPUT as error:
        which = f"the certificate {at} of {of}" if of > 1 else "the certificate"
        raise Malformed(f"{what}: {which} in it {flaw(CERTIFICATE, der, error)}") from None


_CURE = "name the file with the certificate"
_CURES = {
    "TRUSTED CERTIFICATE": "write it as a plain one (openssl x509 -in FILE -out NEW)",
    "PKCS7": "take the certificates out of it (openssl pkcs7 -print_certs -in FILE -out NEW)",
    "PKCS12": "take the certificates out of it (openssl pkcs12 -nokeys -in FILE -out NEW)",
    REQUEST: "name the file with the certificate that a CA has made of it",
}
