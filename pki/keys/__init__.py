"""Keys: the table of key algorithms, weak keys, keys made and kept, and signatures by an awaited signer."""

from pki.keys.algorithm import (
    KeyAlgorithm,
    PrivateKey,
    PublicKey,
    UnknownAlgorithm,
    is_certifiable,
    jwk_members,
    kind_of,
    number_digest,
    verify,
    verify_cost,
    weaknesses,
)
from pki.keys.memory_key import MemoryKey
from pki.keys.pkcs8 import UnusableKey
from pki.keys.reference import KeyReference, is_reference
from pki.keys.signature import (
    KeptKey,
    SigningFailed,
    SigningKey,
    is_broken,
    is_strong,
    signature_over,
)
from pki.keys.spki import key_bits, key_id, key_identifier, spki_der, spki_pin

__all__ = [
    "KeptKey",
    "KeyAlgorithm",
    "KeyReference",
    "MemoryKey",
    "PrivateKey",
    "PublicKey",
    "SigningFailed",
    "SigningKey",
    "UnknownAlgorithm",
    "UnusableKey",
    "is_broken",
    "is_certifiable",
    "is_reference",
    "is_strong",
    "jwk_members",
    "key_bits",
    "key_id",
    "key_identifier",
    "kind_of",
    "number_digest",
    "signature_over",
    "spki_der",
    "spki_pin",
    "verify",
    "verify_cost",
    "weaknesses",
]
