"""Whether a thing is signed by a key: yes, no, or not checked and why."""

from attrs import frozen
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, padding, rsa
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding

from pki.errors import HOSTILE_INPUT, Malformed
from pki.inspect.ber import Node, first, integer_of, oid_of, only
from pki.inspect.oid_names import HASHES, SIGNATURES
from pki.keys import KeyAlgorithm, kind_of

#: To verify with a larger key takes longer than anybody waits; OpenSSL has the same limit.
_MOST_BITS = 16384

_SHA2 = (hashes.SHA224(), hashes.SHA256(), hashes.SHA384(), hashes.SHA512())
_SHA3 = (hashes.SHA3_224(), hashes.SHA3_256(), hashes.SHA3_384(), hashes.SHA3_512())
_RSA = dict(
    zip(
        (
            *(f"1.2.840.113549.1.1.{n}" for n in (14, 11, 12, 13)),
            *(f"2.16.840.1.101.3.4.3.{n}" for n in (13, 14, 15, 16)),
        ),
        _SHA2 + _SHA3,
        strict=True,
    )
)
_ECDSA = dict(
    zip(
        (
            *(f"1.2.840.10045.4.3.{n}" for n in (1, 2, 3, 4)),
            *(f"2.16.840.1.101.3.4.3.{n}" for n in (9, 10, 11, 12)),
        ),
        _SHA2 + _SHA3,
        strict=True,
    )
)
_DSA = dict(zip((f"2.16.840.1.101.3.4.3.{n}" for n in (1, 2, 3, 4)), _SHA2, strict=True))
_UNDECODABLE: tuple[type[BaseException], ...] = (Malformed, *HOSTILE_INPUT)
_PSS = "1.2.840.113549.1.1.10"
_MGF1 = "1.2.840.113549.1.1.8"
_ED448 = "1.3.101.113"
#: What the mesh's own keys sign by.
_OURS = {oid.dotted_string for row in KeyAlgorithm for oid in row.kind.verifiable}
#: For which forgeries were made, or worse (RFC 6149, RFC 6151, RFC 9155).
_BROKEN = {
    "1.2.840.113549.1.1.2": "MD2",
    "1.2.840.113549.1.1.3": "MD4",
    "1.2.840.113549.1.1.4": "MD5",
    "1.3.14.3.2.3": "MD5",
    "1.2.840.113549.1.1.5": "SHA-1",
    "1.3.14.3.2.29": "SHA-1",
    "1.3.14.3.2.27": "SHA-1",
    "1.2.840.10040.4.3": "SHA-1",
    "1.2.840.10045.4.1": "SHA-1",
}
_PSS_HASHES = {
    "SHA-224": hashes.SHA224(),
    "SHA-256": hashes.SHA256(),
    "SHA-384": hashes.SHA384(),
    "SHA-512": hashes.SHA512(),
}


@frozen
class Checked:
    """The answer."""

    holds: bool | None
    """None: it was not checked."""
    why: str = ""
    """Why not."""


def check(key: PublicKeyTypes | None, algorithm: Node, signature: bytes, data: bytes) -> Checked:
    """Whether ``key`` signed ``data`` by what an AlgorithmIdentifier says. Raises nothing."""
    try:
        oid = oid_of(first(algorithm.content, algorithm.inner))
        broken = pss_hash(algorithm) if oid == _PSS else _BROKEN.get(oid)
    except Malformed:
        return Checked(None, "its signature algorithm cannot be decoded")
    if broken in _BROKEN.values():
        return Checked(None, f"a signature over {broken} proves nothing")
    if key is None:
        return Checked(None, "its key cannot be used here")
    if getattr(key, "key_size", 0) > _MOST_BITS:
        return Checked(None, f"its key has more than {_MOST_BITS} bits")
    try:
        return _check(key, oid, algorithm, signature, data)
    except InvalidSignature:
        return Checked(False)
    except HOSTILE_INPUT:
        return Checked(None, "that key or that algorithm cannot be used here")


def check_certificate(cert: x509.Certificate, issuer: x509.Certificate) -> Checked:
    """Whether ``issuer``'s key signed ``cert``. Raises nothing."""
    try:
        key = issuer.public_key()
        _, algorithm, _ = first(cert.public_bytes(Encoding.DER)).children
        return check(key, algorithm, cert.signature, cert.tbs_certificate_bytes)
    except _UNDECODABLE:
        return Checked(None, "its issuer's key cannot be used here")


def _check(
    key: PublicKeyTypes, oid: str, algorithm: Node, signature: bytes, data: bytes
) -> Checked:
    of_kind: type[object]
    if oid in _RSA or oid == _PSS:
        of_kind = rsa.RSAPublicKey
        if isinstance(key, rsa.RSAPublicKey):
            if oid == _PSS:
                pss = _pss(algorithm)
                if pss is None:
                    return Checked(None, "its parameters of RSASSA-PSS cannot be used here")
                key.verify(signature, data, *pss)
            else:
                key.verify(signature, data, padding.PKCS1v15(), _RSA[oid])
    elif oid in _ECDSA:
        of_kind = ec.EllipticCurvePublicKey
        if isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(signature, data, ec.ECDSA(_ECDSA[oid]))
    elif oid in _DSA:
        of_kind = dsa.DSAPublicKey
        if isinstance(key, dsa.DSAPublicKey):
            key.verify(signature, data, _DSA[oid])
    elif oid == _ED448:
        of_kind = ed448.Ed448PublicKey
        if isinstance(key, ed448.Ed448PublicKey):
            key.verify(signature, data)
    elif oid in _OURS:
        kind = kind_of(key)
        digests = (
            {known.dotted_string: digest for known, digest in kind.verifiable.items()}
            if kind
            else {}
        )
        if kind is None or oid not in digests:
            return Checked(False)
        kind.verify(key, signature, data, digests[oid])
        return Checked(True)
    else:
        return Checked(None, f"the algorithm {SIGNATURES.get(oid, oid)} is not known here")
    return Checked(isinstance(key, of_kind))


def _pss(algorithm: Node) -> tuple[padding.PSS, hashes.HashAlgorithm] | None:
    """RFC 4055 section 3.1; None where there is something in them that is not known."""
    try:
        parts = {part.tag: only(part) for part in tuple(algorithm.children)[1].children}
        digest = _PSS_HASHES[pss_hash(algorithm)]
        function, generator = parts[0xA1].children
        if oid_of(function) != _MGF1:
            return None
        inner = _PSS_HASHES[HASHES[oid_of(first(generator.content, generator.inner))]]
        salt = integer_of(parts[0xA2]) if 0xA2 in parts else 20
    except (Malformed, ValueError, LookupError):
        return None
    if not 0 <= salt <= _MOST_BITS:
        return None
    return padding.PSS(padding.MGF1(inner), salt), digest


def pss_hash(algorithm: Node) -> str:
    """What RSASSA-PSS is over: ``SHA-256``. Raises :class:`Malformed`."""
    for parameters in tuple(algorithm.children)[1:]:
        for part in parameters.children:
            if part.tag == 0xA0:
                identifier = only(part)
                oid = oid_of(first(identifier.content, identifier.inner))
                return HASHES.get(oid, oid)
    return "SHA-1"


def algorithm_text(algorithm: Node) -> str:
    """What a signature algorithm is called: ``ECDSA with SHA-256``. Raises :class:`Malformed`."""
    oid = oid_of(first(algorithm.content, algorithm.inner))
    name = SIGNATURES.get(oid, oid)
    return f"{name} with {pss_hash(algorithm)}" if oid == _PSS else name
