"""Private keys that files hold as a seed, expanded, or both (RFC 9881 section 6): OpenSSL writes both.

The seed is the key, and all that cryptography reads: the rest is made of it. What stands beside it must belong to it,
or the file is not what it says.
"""

from hashlib import shake_256

from attrs import field, frozen
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

from pki.der import OCTET_STRING, SEQUENCE, element, elements
from pki.errors import Malformed

_SEED = 0x80
_SEED_SIZE = 32
#: An expanded key begins with rho, K and the hash of the public key (FIPS 204 section 7.2, skEncode).
_RHO, _HASH = slice(0, 32), slice(64, 128)
_LEAST = 1024


@frozen(eq=False, repr=False)
class SeededKey:
    """What a PrivateKeyInfo holds of one. The ``repr`` shows no secret."""

    info: bytes = field(repr=False)
    """A PrivateKeyInfo with the seed alone; empty where there is none."""
    expanded: bytes = field(repr=False)

    @classmethod
    def read(cls, der: bytes) -> "SeededKey | None":
        """Of a PrivateKeyInfo (RFC 5958 section 2); None where it holds no expanded key. Never raises."""
        try:
            (outer,) = elements(der)
            version, algorithm, private, *_ = elements(outer.content)
            (held,) = elements(private.content)
            if held.tag == OCTET_STRING and len(held.content) >= _LEAST:
                return cls(b"", held.content)
            if held.tag != SEQUENCE:
                return None
            seed, expanded = elements(held.content)
        except (Malformed, ValueError):
            return None
        if not seed.tag == expanded.tag == OCTET_STRING or len(seed.content) != _SEED_SIZE:
            return None
        alone = element(OCTET_STRING, element(_SEED, seed.content))
        return cls(element(SEQUENCE, version.whole + algorithm.whole + alone), expanded.content)

    def belongs_to(self, key: PrivateKeyTypes) -> bool:
        """Whether the expanded key is of the same public key as the seed's."""
        public = key.public_key().public_bytes_raw() if hasattr(key, "public_key") else b""  # type: ignore[union-attr]
        return self.expanded[_RHO] == public[_RHO] and self.expanded[_HASH] == shake_256(
            public
        ).digest(64)
