"""What PKCS #11 calls our keys: how a token is asked to make one and to sign, and what its answers mean.

By PKCS #11 version 3.0 (Cryptoki), in its numbers: nothing here loads a module.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from enum import IntEnum
from typing import Generic, TypeVar

from attrs import frozen

from pki.der import BIT_STRING, elements
from pki.errors import Malformed

Public = TypeVar("Public")

#: CK_ATTRIBUTE_TYPE.
CKA_MODULUS, CKA_MODULUS_BITS, CKA_PUBLIC_EXPONENT = 0x120, 0x121, 0x122
CKA_EC_PARAMS, CKA_EC_POINT = 0x180, 0x181

#: What :meth:`TokenTerms.public_key` is made from: attributes of a public key, as the token gives them.
Attributes = Mapping[int, bytes]


class KeyType(IntEnum):
    """CK_KEY_TYPE."""

    RSA = 0x00
    EC = 0x03
    EC_EDWARDS = 0x40


class Mechanism(IntEnum):
    """CK_MECHANISM_TYPE."""

    RSA_PKCS_KEY_PAIR_GEN = 0x0000
    RSA_PKCS = 0x0001
    SHA256_RSA_PKCS = 0x0040
    EC_KEY_PAIR_GEN = 0x1040
    ECDSA = 0x1041
    EC_EDWARDS_KEY_PAIR_GEN = 0x1055
    EDDSA = 0x1057


@frozen
class Way:
    """One way of signing: what the token is to do, and with what of the data."""

    mechanism: Mechanism
    operand: bytes


class TokenTerms(ABC, Generic[Public]):
    """One key algorithm as tokens have it."""

    key_type: KeyType
    generation: Mechanism
    """What makes a key pair."""

    @property
    @abstractmethod
    def template(self) -> Mapping[int, bytes | int]:
        """What a public key's template says besides its label: the curve, or the size and exponent."""

    @abstractmethod
    def ways(self, data: bytes) -> Iterable[Way]:
        """Ways to sign ``data``, the best first: a token need not have all of them."""

    @abstractmethod
    def signature(self, answer: bytes) -> bytes:
        """The token's answer as certificates carry it. Raises :class:`Malformed` for what is none."""

    @abstractmethod
    def public_key(self, attributes: Attributes) -> Public:
        """The key. Raises :class:`Malformed` where that is none of this algorithm."""

    @property
    @abstractmethod
    def described_by(self) -> tuple[int, ...]:
        """The attributes that :meth:`public_key` needs."""


def point_of(attributes: Attributes, size: int) -> bytes:
    """CKA_EC_POINT of so many bytes: the standard has it in an OCTET STRING, and some tokens as it is."""
    value = attributes.get(CKA_EC_POINT, b"")
    if len(value) == size:
        return value
    try:
        (element,) = elements(value)
    except (Malformed, ValueError):
        raise no_such_key() from None
    if element.tag == BIT_STRING:
        return element.content[1:]
    return element.content


def whole_number(attributes: Attributes, attribute: int) -> int:
    """A big integer of PKCS #11: unsigned, the most significant byte first."""
    return int.from_bytes(attributes.get(attribute, b""), "big")


def no_such_key() -> Malformed:
    """The token describes a key in a way that is none."""
    return Malformed(
        "the token does not describe its public key as a key of its kind: no certificate may be made for it"
    )


def no_signature() -> Malformed:
    """The token's answer has not even the form of one."""
    return Malformed("the token's answer has not the form of a signature: nothing was issued")
