"""What logs hold: what a receipt is for, the leaf of the tree, and what stands of it in data tiles."""

import hashlib
from collections.abc import Iterable, Sequence
from enum import IntEnum
from typing import Self

from attrs import frozen
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from pki.ct.errors import BadSct
from pki.ct.precertificate import (
    LONGEST,
    is_poisoned,
    parted,
    without_poison,
    without_scts,
)
from pki.ct.sct import (
    SignedCertificateTimestamp,
    index_extension,
    parse_extensions,
    parse_list,
)
from pki.ct.wire import Reader, vector
from pki.errors import Malformed
from pki.svid.certificate import encoded_parts
from pki.tlog.merkle import leaf_hash

#: Entries of a data tile.
TILE_WIDTH = 256
#: Issuers of one entry.
_MOST_ISSUERS = 16
_FINGERPRINT = 32


class EntryType(IntEnum):
    """What was submitted (RFC 6962 section 3.1)."""

    X509 = 0
    PRECERT = 1


@frozen
class SignedEntry:
    """What a receipt is for: a certificate, or what a precertificate was a draft of (RFC 6962 section 3.2)."""

    type: EntryType
    body: bytes
    """The certificate in DER, or the TBSCertificate without poison and receipts."""
    issuer_key_hash: bytes = b""
    """The SHA-256 of the issuer's SubjectPublicKeyInfo; of a precertificate only."""

    def to_bytes(self) -> bytes:
        """The entry's type, and ``signed_entry``."""
        return self.type.to_bytes(2, "big") + self.issuer_key_hash + vector(3, self.body)

    @classmethod
    def _read(cls, reader: Reader) -> Self:
        number = reader.number(2)
        if number not in (EntryType.X509, EntryType.PRECERT):
            raise Malformed(f"{number} is no type of an entry")
        kind = EntryType(number)
        key_hash = reader.fixed(32) if kind is EntryType.PRECERT else b""
        return cls(kind, reader.vector(3, 1, LONGEST), key_hash)

    @property
    def digest(self) -> bytes:
        """By what two of them are told to be the same."""
        return hashlib.sha256(self.to_bytes()).digest()


def key_hash_of(issuer: x509.Certificate) -> bytes:
    """The SHA-256 of the issuer's key, as it is written in its certificate."""
    return hashlib.sha256(encoded_parts(issuer)[2]).digest()


def of_certificate(cert: x509.Certificate) -> SignedEntry:
    """What add-chain gives a receipt for: the certificate as it is. Raises :class:`Malformed` for a precertificate."""
    if is_poisoned(cert.tbs_certificate_bytes):
        raise Malformed("it is a precertificate, which has a call of its own: add-pre-chain")
    return SignedEntry(EntryType.X509, cert.public_bytes(Encoding.DER))


def of_precertificate(precertificate: x509.Certificate, issuer: x509.Certificate) -> SignedEntry:
    """What add-pre-chain gives a receipt for. Raises :class:`Malformed` for what is no precertificate.

    ``issuer`` is the CA that issues the final certificate; a precertificate signing certificate is not known here.
    """
    tbs = without_poison(precertificate.tbs_certificate_bytes)
    return SignedEntry(EntryType.PRECERT, tbs, key_hash_of(issuer))


def signed_entry_of(cert: x509.Certificate, issuer: x509.Certificate) -> SignedEntry:
    """What the receipts inside a certificate are for. Raises :class:`Malformed` for a precertificate."""
    tbs = without_scts(cert.tbs_certificate_bytes)
    return SignedEntry(EntryType.PRECERT, tbs, key_hash_of(issuer))


def receipts_of(
    cert: x509.Certificate, issuer: x509.Certificate
) -> tuple[tuple[SignedCertificateTimestamp, ...], SignedEntry]:
    """The receipts inside a certificate, and what they are for. Raises :class:`BadSct`."""
    try:
        listed, tbs = parted(cert.tbs_certificate_bytes)
    except Malformed as error:
        raise BadSct(f"what receipts (SCTs) of it are for cannot be told: {error}") from None
    scts = () if listed is None else parse_list(listed)
    return scts, SignedEntry(EntryType.PRECERT, tbs, key_hash_of(issuer))


@frozen
class LogEntry:
    """An entry at its place in a log. ``parse_data_tile(entry.tile_leaf) == (entry,)``."""

    timestamp: int
    """Milliseconds, as in its receipt."""
    signed: SignedEntry
    leaf_index: int
    pre_certificate: bytes = b""
    """As it was submitted, in DER; empty where a certificate was."""
    chain: tuple[bytes, ...] = ()
    """The SHA-256 of each certificate above it."""

    @property
    def type(self) -> EntryType:
        """What was submitted."""
        return self.signed.type

    @property
    def submitted(self) -> bytes:
        """The certificate or precertificate in DER, as it was submitted."""
        return self.pre_certificate or self.signed.body

    @property
    def timestamped(self) -> bytes:
        """The TimestampedEntry (RFC 6962 section 3.4)."""
        extensions = vector(2, index_extension(self.leaf_index))
        return self.timestamp.to_bytes(8, "big") + self.signed.to_bytes() + extensions

    @property
    def merkle_leaf(self) -> bytes:
        """The MerkleTreeLeaf: what the tree is over."""
        return b"\0\0" + self.timestamped

    @property
    def leaf_hash(self) -> bytes:
        """Its hash in the tree, 32 bytes."""
        return leaf_hash(self.merkle_leaf)

    @property
    def tile_leaf(self) -> bytes:
        """The TileLeaf: what a data tile has of it (C2SP static-ct-api)."""
        pre = vector(3, self.pre_certificate) if self.type is EntryType.PRECERT else b""
        return self.timestamped + pre + vector(2, b"".join(self.chain))

    @classmethod
    def _read(cls, reader: Reader) -> Self:
        timestamp = reader.number(8)
        signed = SignedEntry._read(reader)
        index = parse_extensions(reader.vector(2, 0, 8))
        if index is None:
            raise Malformed("an entry does not say where it is")
        pre = reader.vector(3, 1, LONGEST) if signed.type is EntryType.PRECERT else b""
        prints = reader.vector(2, 0, _MOST_ISSUERS * _FINGERPRINT)
        if len(prints) % _FINGERPRINT:
            raise Malformed("the fingerprint of an issuer is cut short")
        chain = tuple(prints[at : at + _FINGERPRINT] for at in range(0, len(prints), _FINGERPRINT))
        return cls(timestamp, signed, index, pre, chain)


def merkle_leaf_of(signed: SignedEntry, timestamp: int, extensions: bytes) -> bytes:
    """The MerkleTreeLeaf that a receipt promises, whatever its extensions."""
    entry = timestamp.to_bytes(8, "big") + signed.to_bytes() + vector(2, extensions)
    return b"\0\0" + entry


def parse_data_tile(data: bytes) -> tuple[LogEntry, ...]:
    """The entries of a data tile, from 1 to 256. Raises :class:`Malformed`.

    That each is the tile's own at that place, its hash in the tile of level 0 shows.
    """
    reader, found = Reader(data), list[LogEntry]()
    while not reader.is_done:
        if len(found) == TILE_WIDTH:
            raise Malformed(f"a data tile has more than {TILE_WIDTH} entries")
        found.append(LogEntry._read(reader))
    if not found:
        raise Malformed("a data tile without an entry")
    return tuple(found)


def data_tile(entries: Sequence[LogEntry] | Iterable[LogEntry]) -> bytes:
    """What :func:`parse_data_tile` reads."""
    return b"".join(entry.tile_leaf for entry in entries)
