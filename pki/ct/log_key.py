"""The key of a log: P-256, or RSA of 2048 bits and more, and always SHA-256 (RFC 6962 section 2.1.4)."""

import base64
import hashlib
from functools import cached_property
from typing import Self

from attrs import define, field
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_der_public_key

from pki.ct.errors import BadLogList, BadSct
from pki.ct.sct import ECDSA, RSA
from pki.ct.sct import SHA256 as OVER_SHA256
from pki.errors import HOSTILE_INPUT, discreet
from pki.keys import (
    KeyAlgorithm,
    PublicKey,
    SigningKey,
    is_certifiable,
    kind_of,
    signature_over,
    spki_der,
    weaknesses,
)

#: What TLS 1.2 calls the kinds of keys that a log may have.
_NUMBERS = {
    KeyAlgorithm.EC_P256.kind: ECDSA,
    KeyAlgorithm.RSA_2048.kind: RSA,
    KeyAlgorithm.RSA_4096.kind: RSA,
}
_LONGEST = 2048
_SHA256 = SHA256()


@define(frozen=True, eq=False, repr=False, slots=False)
class LogKey:
    """A log's public key. Two are equal whose bytes are."""

    spki: bytes
    public_key: PublicKey
    signature_algorithm: int = field(init=False)

    def __attrs_post_init__(self) -> None:
        kind = kind_of(self.public_key)
        number = None if kind is None else _NUMBERS.get(kind)
        if number is None:
            raise BadLogList(
                "the key of a log is ECDSA P-256, or RSA of 2048 bits and more (RFC 6962 section 2.1.4)"
            )
        if found := weaknesses(self.public_key, at_a_glance=True):
            raise BadLogList(f"the key of a log is weak: {found[0].detail}")
        object.__setattr__(self, "signature_algorithm", number)

    @classmethod
    def of(cls, key: PublicKey) -> Self:
        """Raises :class:`BadLogList` for a kind that no log may have."""
        return cls(spki_der(key), key)

    @classmethod
    def from_spki(cls, spki: bytes) -> Self:
        """Read a SubjectPublicKeyInfo. Raises :class:`BadLogList`."""
        try:
            key = load_der_public_key(spki) if len(spki) <= _LONGEST else None
        except HOSTILE_INPUT:
            key = None
        if key is None or not is_certifiable(key):
            raise BadLogList(
                "the key of a log is damaged: it is the base64 of a SubjectPublicKeyInfo in DER"
            )
        if spki_der(key) != spki:
            raise BadLogList(
                "the key of a log is not written as others write it: its log ID would be another"
            )
        return cls(spki, key)

    @classmethod
    def parse(cls, text: str) -> Self:
        """The base64 of the SubjectPublicKeyInfo, as log lists have it: ``K.parse(str(key)) == key``."""
        try:
            spki = base64.b64decode(text.encode("ascii"), validate=True)
        except ValueError:
            spki = b""
        if not spki or base64.b64encode(spki).decode() != text:
            raise BadLogList(
                f"{discreet(text, 60)!r} is no key of a log: it is the base64 of a SubjectPublicKeyInfo"
            )
        return cls.from_spki(spki)

    def __str__(self) -> str:
        return base64.b64encode(self.spki).decode()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LogKey) and other.spki == self.spki

    def __hash__(self) -> int:
        return hash(self.spki)

    @cached_property
    def log_id(self) -> bytes:
        """The SHA-256 of the SubjectPublicKeyInfo (RFC 6962 section 3.2)."""
        return hashlib.sha256(self.spki).digest()

    def verify(self, signature: bytes, algorithms: tuple[int, int], data: bytes) -> None:
        """Raises :class:`BadSct` unless this log has signed ``data``, over SHA-256 and by its own algorithm."""
        kind = kind_of(self.public_key)
        if kind is None or algorithms != (OVER_SHA256, self.signature_algorithm):
            raise BadSct("it is signed by another algorithm than that log's")
        try:
            kind.verify(self.public_key, signature, data, _SHA256)
        except InvalidSignature:
            raise BadSct("it is not signed by that log's key, or is for something else") from None


async def log_signature(data: bytes, key: SigningKey) -> tuple[bytes, int, int]:
    """A log's signature over ``data``, with the numbers of its algorithms.

    Raises :class:`BadLogList` for a key that no log may have, and as :func:`pki.keys.signature_over`.
    """
    number = LogKey.of(key.public_key).signature_algorithm
    return await signature_over(data, key, key.public_key), OVER_SHA256, number
