"""Keys in this process's memory: made, read, written, and put to use."""

from typing import Self

from attrs import field, frozen
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

from pki.keys.algorithm import KeyAlgorithm, PrivateKey, PublicKey, weaknesses
from pki.keys.pkcs8 import UnusableKey, read_pem, write_pem


@frozen(eq=False, repr=False)
class MemoryKey:
    """A :class:`pki.keys.SigningKey` in this process's memory. Its ``repr`` shows no secret."""

    private_key: PrivateKey = field(repr=False)
    algorithm: KeyAlgorithm

    @classmethod
    def generate(cls, algorithm: KeyAlgorithm) -> Self:
        """A fresh key; where ``algorithm.kind.is_slow``, it may take a second."""
        return cls(algorithm.kind.generate(), algorithm)

    @classmethod
    def from_pem(cls, pem: bytes, passphrase: bytes | None = None) -> Self:
        """A PKCS #8 or traditional PEM key. Raises :class:`UnusableKey`, never with key material in it."""
        return cls._of(read_pem(pem, passphrase))

    @classmethod
    def from_known_pem(cls, pem: bytes, passphrase: bytes | None = None) -> Self:
        """The same of a key whose public half the caller compares with a certificate: see :func:`read_pem`."""
        return cls._of(read_pem(pem, passphrase, is_known=True))

    @classmethod
    def _of(cls, key: PrivateKeyTypes) -> Self:
        algorithm = KeyAlgorithm.of(key.public_key()) if hasattr(key, "public_key") else None
        if algorithm is None or not isinstance(key, PrivateKey):
            raise UnusableKey(f"the private key is none of {', '.join(KeyAlgorithm)}")
        if weak := weaknesses(key.public_key()):
            details = "; ".join(problem.detail for problem in weak)
            raise UnusableKey(f"nobody may rely on this key: {details}; make a new one")
        return cls(key, algorithm)

    def to_pem(self, passphrase: bytes | None = None) -> bytes:
        """PKCS #8, encrypted if there is a passphrase."""
        return write_pem(self.private_key, passphrase)

    @property
    def is_in_memory(self) -> bool:
        """Always."""
        return True

    @property
    def public_key(self) -> PublicKey:
        """What verifies its signatures."""
        return self.private_key.public_key()

    async def sign(self, data: bytes) -> bytes:
        """The signature over ``data``, as :meth:`pki.keys.SigningKey.sign` has it."""
        signature: bytes = self.algorithm.kind.sign(self.private_key, data)
        return signature
