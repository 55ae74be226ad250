"""Public keys as they stand in certificates and CSRs, those too that no library reads."""

import hashlib

from attrs import frozen
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import dsa, ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.serialization import load_der_public_key

from pki.der import OBJECT_IDENTIFIER
from pki.errors import HOSTILE_INPUT, Malformed
from pki.inspect.ber import Node, bits_of, definite, first, integer_of, oid_of
from pki.inspect.oid_names import CURVES, KEYS
from pki.inspect.remarks import Remarks
from pki.keys import KeyAlgorithm

#: A longer exponent is not shown: no key has one, and Python does not write it.
_LONGEST_EXPONENT = 4096


@frozen
class PublicKeyFacts:
    """A public key as it stands in a certificate or CSR."""

    algorithm: str
    """As its OID is called: ``EC``, ``RSA``, ``DSA``; the OID of a kind that is not known here."""
    label: str
    """For people: ``ECDSA P-256``, ``RSA-4096``."""
    bits: int | None
    curve: str
    exponent: int | None
    spki_sha256: str
    """Over the SubjectPublicKeyInfo as it came, in hex: what keys are pinned by."""


def read_public_key(spki: Node, remarks: Remarks) -> tuple[PublicKeyFacts, PublicKeyTypes | None]:
    """The facts, and the key where it can be used."""
    digest = hashlib.sha256(spki.whole).hexdigest()
    oid = remarks.attempt("public key", lambda: _algorithm(spki))
    if oid is None:
        return PublicKeyFacts("unknown", "unknown", None, "", None, digest), None
    algorithm = KEYS.get(oid, oid)
    key = None
    try:
        key = _load(spki)
    except UnsupportedAlgorithm:
        remarks.note(f"its public key at byte {spki.at} is of a kind that is not used here")
    except HOSTILE_INPUT:
        remarks.note(
            f"its public key at byte {spki.at} is no key that can be used: nothing verifies"
        )
    bits, curve, exponent, label = None, "", None, algorithm
    if isinstance(key, rsa.RSAPublicKey):
        bits, exponent = key.key_size, key.public_numbers().e
    elif isinstance(key, ec.EllipticCurvePublicKey):
        bits, curve = key.key_size, key.curve.name
    elif isinstance(key, dsa.DSAPublicKey):
        bits = key.key_size
    elif key is None:
        try:
            bits, curve, exponent = _outline(algorithm, spki)
        except (Malformed, ValueError):
            remarks.lose(f"its public key at byte {spki.at}", "its DER is damaged or cut short")
    if algorithm == "RSA" and bits:
        label = f"RSA-{bits}"
    elif curve:
        label = f"ECDSA {curve}"
    known = KeyAlgorithm.of(key) if key else None
    return (
        PublicKeyFacts(algorithm, known.label if known else label, bits, curve, exponent, digest),
        key,
    )


def _load(spki: Node) -> PublicKeyTypes:
    """The key, however long its lengths are. Raises what cryptography raises."""
    try:
        return load_der_public_key(spki.whole)
    except ValueError:
        try:
            shortest = definite(spki)
        except Malformed:
            shortest = spki.whole
        if shortest == spki.whole:
            raise
        return load_der_public_key(shortest)


def _algorithm(spki: Node) -> str:
    identifier = first(spki.content, spki.inner)
    return oid_of(first(identifier.content, identifier.inner))


def _outline(algorithm: str, spki: Node) -> tuple[int | None, str, int | None]:
    """Bits, curve and exponent of what the library does not take. Raises :class:`Malformed` or ValueError."""
    identifier, bits = spki.children
    if algorithm == "RSA":
        modulus, exponent = first(bits_of(bits), bits.inner + 1).children
        number = integer_of(exponent)
        is_short = number.bit_length() <= _LONGEST_EXPONENT
        return integer_of(modulus).bit_length(), "", number if is_short else None
    if algorithm == "EC":
        parameters = tuple(identifier.children)[1:]
        if parameters and parameters[0].tag == OBJECT_IDENTIFIER:
            oid = oid_of(parameters[0])
            return None, CURVES.get(oid, oid), None
        return None, "(spelled out)", None
    return None, "", None
