"""Kinds of keys: what the mesh asks of a key algorithm, so that a new one is one more file like its neighbours'."""

import base64
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import ClassVar, Generic, TypeVar, cast

from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512, HashAlgorithm
from cryptography.x509 import ObjectIdentifier

from pki.keys.cryptoki import TokenTerms
from pki.keys.spki import key_bits, spki_der

Private = TypeVar("Private")
Public = TypeVar("Public")

#: What our own signatures are made over.
Hash = SHA256 | SHA384 | SHA512


class KeyKind(ABC, Generic[Private, Public]):
    """One key algorithm. A subclass is a family, like RSA; its values differ in size, like RSA-4096.

    What a kind tells is everything that depends on the algorithm: nobody else asks what class a key is of.
    """

    private_class: ClassVar[type[object]]
    public_class: ClassVar[type[object]]
    """cryptography's classes; one family has both."""
    verifiable: ClassVar[Mapping[ObjectIdentifier, Hash | None]]
    """The signature algorithms that :meth:`verify` knows, and what each is made over: None for the data itself."""
    is_slow: ClassVar[bool] = False
    """Whether a key may take a second to make."""
    is_post_quantum: ClassVar[bool] = False
    """Whether a quantum computer forges no signature of it. Libraries of others may not know such keys yet."""

    @property
    @abstractmethod
    def label(self) -> str:
        """For people: ``ECDSA P-256``, ``RSA-4096``."""

    @property
    @abstractmethod
    def hash(self) -> Hash | None:
        """What such a key signs over; None where it signs the data itself."""

    @property
    @abstractmethod
    def identifier(self) -> bytes:
        """The AlgorithmIdentifier of what such a key signs, in DER."""

    @abstractmethod
    def generate(self) -> Private:
        """A fresh key."""

    @abstractmethod
    def made(self, key: Public) -> bool:
        """Whether ``key`` is of the very size or curve that :meth:`generate` makes."""

    def accepts(self, key: Public) -> bool:
        """Whether this kind speaks for ``key``, which somebody else has made."""
        return self.made(key)

    @abstractmethod
    def sign(self, key: Private, data: bytes) -> bytes:
        """The signature over ``data``, as certificates carry it."""

    @abstractmethod
    def verify(
        self, key: Public, signature: bytes, data: bytes, digest: HashAlgorithm | None
    ) -> None:
        """Raises ``cryptography.exceptions.InvalidSignature`` unless ``key`` signed ``data`` over ``digest``."""

    def verify_possession(self, key: Public, signature: bytes, data: bytes) -> None:
        """As :meth:`verify`, by whatever scheme somebody's token or device may sign with such a key."""
        self.verify(key, signature, data, self.hash)

    @property
    def on_token(self) -> TokenTerms[Public] | None:
        """What PKCS #11 calls such keys; None where no token is asked for one."""
        return None

    @abstractmethod
    def jwk(self, key: Public) -> Mapping[str, str]:
        """What describes ``key`` in a JWK (RFC 7517 section 4): ``kty``, and what that kind of key has."""

    @abstractmethod
    def verify_cost(self, key: Public) -> int:
        """About how many microseconds :meth:`verify` takes for ``key``, on one core of a small server.

        For a key that has no :meth:`glaring` weakness: what others may cost, nobody has to know.
        """

    def number(self, key: Public) -> bytes:
        """What the private half belongs to, whatever else a key is written with: a number without zeros before it.

        The modulus, the x coordinate: whoever has the private half of another key with the same has that of this one.
        """
        return key_bits(spki_der(cast("PublicKeyTypes", key)))

    def glaring(self, key: Public) -> Iterable[str]:
        """Those of :meth:`weaknesses` that are seen at once: size, exponent, a point of small order."""
        return ()

    def weaknesses(self, key: Public) -> Iterable[str]:
        """Why no certificate may carry ``key``, a sentence each; none where one may."""
        return self.glaring(key)


def base64url(data: bytes) -> str:
    """As a JWK writes bytes (RFC 7515 section 2): without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
