"""A key as the signer's record has it."""

from functools import lru_cache

from attrs import frozen
from cryptography.hazmat.primitives import serialization

from pki.keys import KeyAlgorithm, is_certifiable
from pki.signing.memory import HeldKey
from twisted_mesh.signer.errors import SignerStateError

#: All of what a row of it has; where and in which order is added.
KEYS = "SELECT name, purpose, algorithm, label, spki, store, is_made_here FROM keys"


@frozen
class KeyRow:
    """A key as the record has it."""

    held: HeldKey
    label: str
    store: str
    """``files``, or the URI of a key store without its query."""


def key_row(row: tuple) -> KeyRow:  # type: ignore[type-arg]
    """Out of a row of :data:`KEYS`. Raises :class:`SignerStateError`."""
    name, purpose, algorithm, label, spki, store, is_made_here = row
    return KeyRow(_held(name, purpose, algorithm, spki, bool(is_made_here)), label, store)


@lru_cache(maxsize=1024)
def _held(name: str, purpose: str, algorithm: str, spki: bytes, is_made_here: bool) -> HeldKey:
    public_key = serialization.load_der_public_key(spki)
    if not is_certifiable(public_key):
        raise SignerStateError(f"the key {name} is of a kind that this program does not know")
    return HeldKey(name, purpose, KeyAlgorithm(algorithm), public_key, spki, is_made_here)
