"""Proof that whoever asks for a certificate has the key of another one that he has: what is signed, and whether it was.

The signature is over one challenge, one trust domain and one key that is to be certified: it is good for nothing else.
"""

import re
from hashlib import sha256

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes, PublicKeyTypes

from pki.codes import Code
from pki.errors import Malformed, PkiError
from pki.keys import KeyAlgorithm, kind_of, verify_cost, weaknesses

#: What no other protocol has before what it signs (RFC 8446 section 4.4.3): a signature made for this is none there,
#: and none that somebody is led to make there is one here.
_CONTEXT = b" " * 64 + b"twisted-mesh, possession of an X.509 identity, version 1\0"
_CHALLENGE = re.compile(r"[0-9a-f-]{16,200}", re.ASCII)
_NAME = re.compile(r"[a-z0-9._-]{1,255}", re.ASCII)


class NotPossessed(PkiError):
    """The signature is not of the certificate's key over what had to be signed."""

    code = Code.BAD_EVIDENCE


def statement(challenge: str, trust_domain: str, spki: bytes) -> bytes:
    """What is signed, for a key to be certified with that SubjectPublicKeyInfo by the CA of that trust domain.

    Raises :class:`Malformed` for a challenge that is none: whoever signs looks too, so that nobody gets a signature
    over what he likes.
    """
    if not _CHALLENGE.fullmatch(challenge) or not _NAME.fullmatch(trust_domain):
        raise Malformed("this is no challenge of a CA: it has hexadecimal digits and dashes")
    told = f"{trust_domain}\0{challenge}\0".encode("ascii")
    return _CONTEXT + told + sha256(spki).digest()


def possession(key: PrivateKeyTypes, challenge: str, trust_domain: str, spki: bytes) -> bytes:
    """The signature of ``key``. Raises :class:`Malformed` for a key that no certificate of a mesh may have."""
    kind = kind_of(key.public_key())
    if kind is None:
        raise Malformed(
            f"the key of this certificate is of a kind that the mesh does not use: it has {', '.join(KeyAlgorithm)}"
        )
    signature: bytes = kind.sign(key, statement(challenge, trust_domain, spki))
    return signature


def demand_possession(key: PublicKeyTypes, signature: bytes, signed: bytes) -> None:
    """Raises :class:`NotPossessed` unless the holder of ``key`` has signed that :func:`statement`.

    RSA by PKCS #1 v1.5 or PSS with SHA-256, the others as they sign certificates. A key that is weak at a glance has
    signed nothing: to look may cost anything.
    """
    kind = kind_of(key)
    if kind is None or verify_cost(key) is None:
        raise NotPossessed(
            "the key of this certificate is weak, or of a kind that the mesh does not use"
        )
    try:
        kind.verify_possession(key, signature, signed)
    except InvalidSignature:
        raise NotPossessed(
            "the signature is not of this certificate's key over the challenge, the trust domain and the key of the CSR"
        ) from None
    # The last, and only of who has the key: a stranger is not to choose what is computed.
    if weak := weaknesses(key):
        raise NotPossessed(f"whoever likes may have the key of this certificate: {weak[0].detail}")
