"""The key of a CSR: whether a certificate may carry it, and whether possession of its other half is proven."""

from collections.abc import Collection

from attrs import evolve, frozen
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes

from pki.codes import Code
from pki.der import oid_content, oid_text
from pki.errors import HOSTILE_INPUT, Problem
from pki.issuing.certification_request import CertificationRequest
from pki.keys import (
    KeyAlgorithm,
    PublicKey,
    is_certifiable,
    is_strong,
    kind_of,
    spki_der,
    weaknesses,
)

_PSS = oid_content("1.2.840.113549.1.1.10")
#: What the keys of the table sign by.
_VERIFIABLE = {
    oid_content(oid.dotted_string): oid for row in KeyAlgorithm for oid in row.kind.verifiable
}
#: Of keys that the mesh does not use, whose signature is no fault beside that.
_STRONG_OF_OTHERS = {oid_content(f"2.16.840.1.101.3.4.3.{n}") for n in (2, 3, 4)}
_WEAK = {
    oid_content(oid): name
    for oid, name in {
        "1.2.840.113549.1.1.4": "MD5",
        "1.2.840.113549.1.1.5": "SHA-1",
        "1.3.14.3.2.29": "SHA-1",
        "1.2.840.10040.4.3": "SHA-1",
        "1.2.840.10045.4.1": "SHA-1",
        "1.2.840.113549.1.1.14": "SHA-224",
        "1.2.840.10045.4.3.1": "SHA-224",
        "2.16.840.1.101.3.4.3.1": "SHA-224",
        **{f"2.16.840.1.101.3.4.3.{n}": "SHA-3" for n in range(5, 17)},
    }.items()
}
_PSS_KEY = "1.2.840.113549.1.1.10"
#: Where a key says of what kind it is, however long its lengths are.
_HEAD = 512
_EC_KEY = "1.2.840.10045.2.1"
_HOW = (
    "openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out KEY, or "
    "keytool -genkeypair -keyalg EC -groupname secp256r1"
)
_SIGN = (
    "openssl req -new -sha256 -key KEY, or keytool -certreq -sigalg SHA256withRSA (SHA256withECDSA)"
)


@frozen
class ProvenKey:
    """The public key of a CSR, and its SubjectPublicKeyInfo as certificates have it."""

    public_key: PublicKey
    spki: bytes


def proven_key(
    csr: CertificationRequest, forbidden: Collection[bytes], problems: list[Problem]
) -> ProvenKey | None:
    """The key, where a certificate can carry one of its kind; what is against it is added to ``problems``.

    It is the CSR's own: that of RSASSA-PSS alone, which a certificate would call an RSA key, is refused.
    ``forbidden`` are SubjectPublicKeyInfos.
    """
    try:
        key = csr.public_key()
        weak = weaknesses(key)
    except HOSTILE_INPUT:
        problems.append(_unusable(csr))
        return None
    if _PSS in csr.spki[:_HEAD] and csr.key_algorithm == _PSS_KEY:
        weak = [_weak("the CSR's key is for RSASSA-PSS alone, and no such key is used in the mesh")]
    problems += [evolve(each, remedy=f"{each.remedy}; {_HOW}") for each in weak]
    weakness = _weakness(csr)
    if weakness is not None:
        problems.append(weakness)
    # A signature is checked with the stranger's key, at the price that this key sets: only a good one's is.
    elif not weak and not _is_proven(csr, key):
        problems.append(
            Problem(
                code=Code.NO_POSSESSION,
                detail="the CSR's signature does not match its key: possession of the private key is not proven",
                remedy="make the CSR anew with the key that it names",
                subject="csr",
            )
        )
    if not is_certifiable(key):
        return None
    spki = spki_der(key, csr.spki)
    if spki in forbidden:
        problems.append(
            Problem(
                code=Code.FORBIDDEN_KEY,
                detail="this is a certificate authority's own key",
                remedy="make a key of your own",
                subject="csr",
            )
        )
    return ProvenKey(key, spki)


def _unusable(csr: CertificationRequest) -> Problem:
    """Why there is no key in it."""
    algorithm = csr.key_algorithm
    if algorithm == _EC_KEY:
        detail = (
            "the CSR's public key is no point on a curve that is known here, "
            "or its curve is written out in numbers and not named"
        )
    else:
        detail = f"the CSR's public key is malformed, or of a kind that is not used in the mesh ({algorithm})"
    return evolve(_weak(detail), remedy=f"make a new key and CSR; {_HOW}")


def _weak(detail: str) -> Problem:
    return Problem(
        code=Code.WEAK_KEY,
        detail=detail,
        remedy=f"make a new key: one of {', '.join(KeyAlgorithm)}",
        subject="csr",
    )


def _weakness(csr: CertificationRequest) -> Problem | None:
    """What is against its signature, whoever made it."""
    algorithm = csr.algorithm
    if algorithm in _VERIFIABLE or algorithm in _STRONG_OF_OTHERS:
        return None
    if algorithm == _PSS:
        by, remedy = "RSASSA-PSS with parameters that are not used here", "sign it by PKCS #1 v1.5"
        try:
            strictly = x509.load_der_x509_csr(csr.der)
            if is_strong(strictly):
                return None
            digest = strictly.signature_hash_algorithm
            by = f"RSASSA-PSS over {digest.name}" if digest else by
        except HOSTILE_INPUT:
            pass
    else:
        by = (
            _WEAK.get(algorithm)
            or f"an algorithm that the mesh does not use ({oid_text(algorithm)})"
        )
        remedy = "sign it with SHA-256, SHA-384 or SHA-512"
    return Problem(
        code=Code.WEAK_SIGNATURE,
        detail=f"the CSR is signed with {by}",
        remedy=f"{remedy}: {_SIGN}",
        subject="csr",
    )


def _is_proven(csr: CertificationRequest, key: PublicKeyTypes) -> bool:
    """Whether the key made the signature over the very bytes of the CSR."""
    kind, oid = kind_of(key), _VERIFIABLE.get(csr.algorithm)
    try:
        if oid is None:  # RSASSA-PSS
            return x509.load_der_x509_csr(csr.der).is_signature_valid
        if kind is None or oid not in kind.verifiable:
            return False
        kind.verify(key, csr.signature, csr.info, kind.verifiable[oid])
    except InvalidSignature:
        return False
    except HOSTILE_INPUT:
        return False
    return True
