"""The table of key algorithms: one row each, and what is asked of whatever key comes along."""

from collections.abc import Collection, Iterable, Mapping
from enum import StrEnum
from functools import cache
from typing import Any, Self, TypeGuard

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import (
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mldsa import (
    MLDSA44PrivateKey,
    MLDSA44PublicKey,
    MLDSA65PrivateKey,
    MLDSA65PublicKey,
    MLDSA87PrivateKey,
    MLDSA87PublicKey,
)
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.hashes import HashAlgorithm

from pki.codes import Code
from pki.errors import Malformed, Problem, discreet
from pki.keys.ecdsa import P256, P384
from pki.keys.ed25519 import Ed25519
from pki.keys.kind import Hash, KeyKind
from pki.keys.mldsa import MlDsa44, MlDsa65, MlDsa87
from pki.keys.published import digest, printed
from pki.keys.rsa import Rsa

#: The key classes of the table.
PublicKey = (
    RSAPublicKey
    | EllipticCurvePublicKey
    | Ed25519PublicKey
    | MLDSA44PublicKey
    | MLDSA65PublicKey
    | MLDSA87PublicKey
)
PrivateKey = (
    RSAPrivateKey
    | EllipticCurvePrivateKey
    | Ed25519PrivateKey
    | MLDSA44PrivateKey
    | MLDSA65PrivateKey
    | MLDSA87PrivateKey
)

#: A row, whatever its key classes are: they go with it.
_Row = KeyKind[Any, Any]


class UnknownAlgorithm(Malformed):
    """No name of the table's. Whoever has mistyped one is told which it may have been."""


class KeyAlgorithm(StrEnum):
    """What a key is; the value is its name in options and files."""

    kind: _Row
    """All that depends on the algorithm."""

    RSA_2048 = "rsa-2048", Rsa(2048)
    RSA_4096 = "rsa-4096", Rsa(4096)
    EC_P256 = "ec-p256", P256
    EC_P384 = "ec-p384", P384
    ED25519 = "ed25519", Ed25519()
    ML_DSA_44 = "ml-dsa-44", MlDsa44()
    ML_DSA_65 = "ml-dsa-65", MlDsa65()
    ML_DSA_87 = "ml-dsa-87", MlDsa87()

    def __new__(cls, name: str, *row: _Row) -> Self:
        made = str.__new__(cls, name)
        made._value_ = name
        (made.kind,) = row
        return made

    @classmethod
    def parse(
        cls, text: str, named: str = "a key algorithm", among: Collection["KeyAlgorithm"] = ()
    ) -> Self:
        """By its name, as :func:`str` gives it. Raises :class:`UnknownAlgorithm`.

        ``named`` is what it is called where it was said, an option for one; ``among``: those that there are to choose
        from, all if none are given.
        """
        names = list(map(str, among or cls))
        if text in names:
            return cls(text)
        near = _resembling(text, names)
        meant = f": did you mean {' or '.join(near)}?" if near else ""
        raise UnknownAlgorithm(
            f"{named} is one of {', '.join(names)}, and {discreet(text, 40)!r} is none of them{meant}"
        )

    @property
    def label(self) -> str:
        """For people: ``ECDSA P-256``, ``RSA-4096``."""
        return self.kind.label

    @property
    def hash(self) -> Hash | None:
        """What signatures of this key are made over; None where it signs the data itself."""
        return self.kind.hash

    @property
    def identifier(self) -> bytes:
        """The AlgorithmIdentifier of what such a key signs, in DER."""
        return self.kind.identifier

    @classmethod
    def of(cls, key: PublicKeyTypes) -> Self | None:
        """The algorithm of a public key; None where it is none of ours."""
        return next((row for row in _rows(type(key)) if row.kind.made(key)), None)


@cache
def _rows(kind: type) -> tuple[KeyAlgorithm, ...]:
    """The rows for keys of that public class."""
    return tuple(row for row in KeyAlgorithm if issubclass(kind, row.kind.public_class))


def is_certifiable(key: PublicKeyTypes) -> TypeGuard[PublicKey]:
    """Whether it is of a class of the table, whatever its size. Abstract classes take long to ask themselves."""
    return bool(_rows(type(key)))


def kind_of(key: PublicKeyTypes) -> _Row | None:
    """Who speaks for a public key of whatever size; None for one that the mesh does not use."""
    for row in _rows(type(key)):
        if row.kind.accepts(key):
            return row.kind
    return None


def weaknesses(key: PublicKeyTypes, *, at_a_glance: bool = False) -> list[Problem]:
    """Every reason why no certificate may carry this key; empty when there is none.

    ``at_a_glance``: kind, size and exponent alone, which costs nothing. To look for factors takes
    longer than to verify a signature.
    """
    kind = kind_of(key)
    if kind is None:
        name = key.curve.name if isinstance(key, EllipticCurvePublicKey) else type(key).__name__
        found: Iterable[str] = [
            f"keys of kind {name.removesuffix('PublicKey')} are not used in the mesh"
        ]
    elif at_a_glance:
        found = kind.glaring(key)
    else:
        found = [*kind.weaknesses(key), *printed(kind.number(key))]
    return [_weak(detail) for detail in found]


def verify(key: PublicKey, signature: bytes, data: bytes, digest: HashAlgorithm | None) -> None:
    """Raises ``cryptography.exceptions.InvalidSignature`` unless ``key`` signed ``data``.

    ``digest`` is what it signed over; None for the data itself.
    """
    kind = kind_of(key)
    if kind is None:
        raise InvalidSignature
    kind.verify(key, signature, data, digest)


def verify_cost(key: PublicKeyTypes) -> int | None:
    """About how many microseconds it takes to verify a signature of ``key``; None where none is to be verified.

    That is so of a key which is weak at a glance: its signature would prove nothing, and may cost anything.
    """
    kind = kind_of(key)
    return None if kind is None or any(kind.glaring(key)) else kind.verify_cost(key)


def jwk_members(key: PublicKeyTypes) -> Mapping[str, str] | None:
    """What describes a public key in a JWK, ``kty`` among them; None for a key that the mesh does not use."""
    kind = kind_of(key)
    return kind.jwk(key) if kind else None


def _resembling(text: str, names: Iterable[str]) -> list[str]:
    """The names that are like it; one alone where they differ in case and punctuation only."""
    from difflib import get_close_matches  # only whoever mistyped waits for it

    bare = {"".join(filter(str.isalnum, name)): name for name in names}
    asked = "".join(filter(str.isalnum, text[:40].lower()))
    near = [asked] if asked in bare else get_close_matches(asked, bare, cutoff=0.75)
    return [bare[name] for name in near]


def number_digest(key: PublicKeyTypes) -> bytes | None:
    """What lists of bad keys tell this one by, however it is written; None for a key that the mesh does not use."""
    kind = kind_of(key)
    return digest(kind.number(key)) if kind else None


def _weak(detail: str) -> Problem:
    return Problem(
        code=Code.WEAK_KEY,
        detail=detail,
        remedy=f"make a new key: one of {', '.join(KeyAlgorithm)}",
        rule="CA/Browser Forum BR section 6.1.6",
        subject="public key",
    )
