"""What a signer remembers, as its judge asks for it; and what a verdict adds to that."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Protocol

from attrs import field, frozen
from cryptography import x509

from pki.keys import KeyAlgorithm, PublicKey
from pki.svid.spki_pin import SpkiHash


@frozen(eq=False, repr=False)
class HeldKey:
    """A key of the signer's, as far as a judge wants to know it."""

    name: str
    purpose: str
    """``root``, ``issuing`` or ``audit``."""
    algorithm: KeyAlgorithm
    public_key: PublicKey
    spki: bytes
    """In DER."""
    is_made_here: bool = True
    """Whether the signer has made it, and so knows all that it has ever signed."""


@frozen
class Certified:
    """A certificate that a key has certified."""

    sha256: str
    """Of its to-be-signed bytes, in hex."""
    not_after: datetime


@frozen
class SignedCrl:
    """The last CRL of a key."""

    number: int
    sha256: str
    """Of its to-be-signed bytes, in hex."""


@frozen
class SignedCheckpoint:
    """The last checkpoint of a log."""

    size: int
    root: bytes


class Memory(Protocol):
    """What was signed before. Each answer is of the moment: one judge asks at a time."""

    def certificates_of(self, key: HeldKey) -> Sequence[x509.Certificate]:
        """The CA certificates of that key that are known; their signatures may be placeholders."""
        ...

    def holder_of(self, spki: bytes) -> HeldKey | None:
        """The signer's own key with that SubjectPublicKeyInfo."""
        ...

    def is_approved(self, spki: bytes, now: datetime) -> bool:
        """Whether a person has approved that a root of ours certifies that key."""
        ...

    def certified(self, key: HeldKey, serial: int) -> Certified | None:
        """The certificate of that serial."""
        ...

    def precertified(self, key: HeldKey, serial: int) -> Certified | None:
        """The precertificate of that serial; its digest is over what it was drafted as, without the poison."""
        ...

    def last_crl(self, key: HeldKey) -> SignedCrl | None:
        """None before the first."""
        ...

    def listed(self, key: HeldKey) -> Mapping[int, datetime | None]:
        """What the last CRL lists, and when each of these certificates ends; None for what is not known."""
        ...

    def last_checkpoint(self, origin: str) -> SignedCheckpoint | None:
        """None before the first."""
        ...

    def origin_of(self, key: HeldKey) -> str | None:
        """The name of the log whose checkpoints that key signs; None before the first."""
        ...

    def has_roots(self) -> bool:
        """Whether the signer holds the key of any root."""
        ...


@frozen
class CertificateEffect:
    """A certificate is certified."""

    serial: int
    not_after: datetime
    is_ca: bool
    tbs: bytes = field(repr=False)


@frozen
class PrecertificateEffect:
    """A precertificate is certified, of which there may be one certificate."""

    serial: int
    not_after: datetime
    sha256: str
    """Over what it was drafted as, in hex."""


@frozen
class CrlEffect:
    """A CRL follows the last one."""

    number: int
    sha256: str
    added: Mapping[int, datetime | None]
    dropped: frozenset[int]


@frozen
class CheckpointEffect:
    """A checkpoint follows the last one."""

    origin: str
    size: int
    root: bytes


Effect = CertificateEffect | PrecertificateEffect | CrlEffect | CheckpointEffect


@frozen
class Verdict:
    """What may be signed: of which kind it is, what the log says of it, what is remembered."""

    kind: str
    """``certificate``, ``crl``, ``ocsp``, ``csr``, ``checkpoint``, ``statement``."""
    facts: Mapping[str, str | int] = field(factory=dict)
    effect: Effect | None = None
    """None where it was signed before, or nothing follows from it."""


def pin_of(spki: bytes) -> str:
    """How people name a key: ``sha256/BASE64`` (RFC 7469)."""
    return str(SpkiHash.of_spki(spki))
