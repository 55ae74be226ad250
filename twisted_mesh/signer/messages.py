"""The protocol of a signer: HTTP/1.1 with JSON bodies, each of which is one of these (docs/SIGNER.md).

Bytes are base64 in JSON, with padding (RFC 4648 section 4). What a body has beyond its shape is refused by the signer,
and passed over by its clients.
"""

from enum import StrEnum

from msgspec import Struct

KEYS_PATH = "/v1/keys"
"""``GET``: a :class:`KeyList`. ``POST`` a :class:`NewKey`: a :class:`Key`, 201."""
SIGN_PATH = "/v1/sign"
"""``POST`` a :class:`SignRequest`: a :class:`Signature`."""
WHEREABOUTS_PATH = "/v1/whereabouts"
"""``POST`` a :class:`WhereaboutsRequest`: a :class:`KeyWhereabouts`."""

MAX_DATA = 16 * 1024 * 1024
"""Bytes that are signed at a time, at most: a CRL of some 400,000 entries."""
MAX_BODY = MAX_DATA // 3 * 4 + 64 * 1024
"""Bytes of a request's body, at most."""


class KeyPurpose(StrEnum):
    """What a key is for; it signs nothing else."""

    ROOT = "root"
    ISSUING = "issuing"
    AUDIT = "audit"


class Key(Struct, frozen=True):
    """A key that the signer holds."""

    name: str
    """What requests name it by, and references: ``signer:NAME``. Letters, digits, dots and dashes."""
    algorithm: str
    """As :class:`pki.keys.KeyAlgorithm` spells it: ``ec-p384``."""
    public_key: bytes
    """The SubjectPublicKeyInfo, in DER."""
    purpose: KeyPurpose
    label: str
    """What whoever had it made called it: ``mesh.local issuing-2``."""
    store: str
    """Where it lies, for people: ``files``, ``pkcs11:token=mesh``."""


class KeyList(Struct, frozen=True):
    """``GET /v1/keys``."""

    keys: tuple[Key, ...]


class NewKey(Struct, frozen=True, forbid_unknown_fields=True):
    """``POST /v1/keys``: make one, another one each time. How many there may be is the signer's policy."""

    purpose: KeyPurpose
    algorithm: str
    label: str


class SignRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """``POST /v1/sign``."""

    key: str
    """A key's name."""
    data: bytes
    """All that is to be signed, never a digest of it."""


class Signature(Struct, frozen=True):
    """What ``POST /v1/sign`` answers."""

    signature: bytes
    """As certificates carry it: DER for ECDSA, PKCS #1 v1.5 for RSA."""


class WhereaboutsRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """``POST /v1/whereabouts``."""

    key: str


class KeyWhereabouts(Struct, frozen=True, omit_defaults=True):
    """Where a key lies, and what its store says of it. What a store does not know is left out."""

    key: str
    store: str
    """``files``, ``pkcs11``, or what an adapter calls its own."""
    token_label: str = ""
    token_serial: str = ""
    token_model: str = ""
    object_label: str = ""
    object_id: str = ""
    """In hex."""
    is_extractable: bool | None = None
    is_sensitive: bool | None = None
    is_local: bool | None = None
    """Whether it was made there."""
    problem: str = ""
    """Why it cannot sign now; empty where it can."""


class Refusal(Struct, frozen=True):
    """Every answer that is none of the above. Its status is

    * 400: the request cannot be used, or its data is nothing that a signer signs (``not-signable``);
    * 403: a rule of the signer's policy says no (``signing-refused``), or the caller may not call (``forbidden``);
    * 404: there is no such key, or no such path;
    * 413: more than :data:`MAX_DATA`;
    * 429, with ``Retry-After``: the rate is used up (``rate-limited``);
    * 503: the keys behind the signer are away (``key-store-away``), or its record cannot be written.

    Only 429 and 503 are worth asking again as they are.
    """

    code: str
    detail: str
    """A sentence for people: what is wrong."""
    remedy: str = ""
    rule: str = ""
    """The name of the rule that was broken, as docs/SIGNER.md lists it: ``crl-number``."""
