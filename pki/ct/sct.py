"""Signed certificate timestamps: a log's receipts (RFC 6962 sections 3.2 and 3.3), and where each says its entry is."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Self

from attrs import frozen
from cryptography import x509

from pki.ct.errors import BadSct
from pki.ct.precertificate import embedded_list
from pki.ct.wire import Reader, vector
from pki.errors import Malformed

#: Receipts in one list. Whoever has two or three logs has use for as many.
MOST_SCTS = 16
#: Of a list, in bytes: RFC 6962 has two bytes for its length.
_LONGEST_LIST = 2**16 - 1
_LONGEST_SIGNATURE = 1024
#: TLS 1.2's numbers (RFC 5246 section 7.4.1.4.1): SHA-256, and who signs over it.
SHA256, RSA, ECDSA = 4, 1, 3
_LEAF_INDEX, _INDEX_SIZE = 0, 5
#: An index has 40 bits (C2SP static-ct-api).
MOST_ENTRIES = 1 << 40
#: The end of the year 9999, in milliseconds: what datetime can still show.
LATEST = 253402300799999
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@frozen
class SignedCertificateTimestamp:
    """What a log signs for an entry. ``S.parse(sct.to_bytes()) == sct``."""

    log_id: bytes
    """The SHA-256 of the log's SubjectPublicKeyInfo."""
    timestamp: int
    """Milliseconds since 1970, by the log's clock."""
    extensions: bytes
    signature: bytes
    hash_algorithm: int = SHA256
    signature_algorithm: int = ECDSA

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """One receipt of version 1. Raises :class:`BadSct`."""
        try:
            reader = Reader(data)
            if version := reader.number(1):
                raise BadSct(f"a receipt (SCT) of version {version + 1} is none that is read here")
            sct = cls(
                reader.fixed(32),
                reader.number(8),
                reader.vector(2),
                *_signature(reader),
            )
            reader.end()
            parse_extensions(sct.extensions)
        except Malformed as error:
            raise BadSct(f"a receipt (SCT) is damaged: {error}") from None
        if sct.timestamp > LATEST:
            raise BadSct("a receipt (SCT) is of no year that there will be")
        return sct

    def to_bytes(self) -> bytes:
        """The structure of RFC 6962 section 3.2."""
        return b"\0%b%b%b%b" % (
            self.log_id,
            self.timestamp.to_bytes(8, "big"),
            vector(2, self.extensions),
            self.signed,
        )

    @property
    def signed(self) -> bytes:
        """The signature with its algorithms, as add-chain answers with it (RFC 5246 section 4.7)."""
        head = bytes((self.hash_algorithm, self.signature_algorithm))
        return head + vector(2, self.signature)

    @property
    def leaf_index(self) -> int | None:
        """Where in the log its entry is; None for a log that does not say (C2SP static-ct-api)."""
        return parse_extensions(self.extensions)

    @property
    def at(self) -> datetime:
        """When the log has signed it."""
        return moment(self.timestamp)


def moment(milliseconds: int) -> datetime:
    """The time of a timestamp."""
    return _EPOCH + timedelta(milliseconds=milliseconds)


def milliseconds(at: datetime) -> int:
    """The timestamp of a time, rounded down."""
    return (at - _EPOCH) // timedelta(milliseconds=1)


def read_signature(data: bytes) -> tuple[bytes, int, int]:
    """Signature and algorithms out of what :attr:`SignedCertificateTimestamp.signed` is. Raises :class:`BadSct`."""
    reader = Reader(data)
    try:
        found = _signature(reader)
        reader.end()
    except Malformed as error:
        raise BadSct(f"a log's signature is damaged: {error}") from None
    return found


def _signature(reader: Reader) -> tuple[bytes, int, int]:
    digest, algorithm = reader.fixed(2)
    return reader.vector(2, 1, _LONGEST_SIGNATURE), digest, algorithm


def index_extension(leaf_index: int) -> bytes:
    """The extensions of a receipt that says where its entry is. Raises :class:`Malformed` for no such index."""
    if not 0 <= leaf_index < MOST_ENTRIES:
        raise Malformed(f"a log has no entry {leaf_index}: there are {MOST_ENTRIES} at most")
    return bytes((_LEAF_INDEX,)) + vector(2, leaf_index.to_bytes(_INDEX_SIZE, "big"))


def parse_extensions(data: bytes) -> int | None:
    """The index among a receipt's extensions; None where it is not. Raises :class:`Malformed`."""
    reader, found = Reader(data), {}
    while not reader.is_done:
        kind = reader.number(1)
        if kind in found:
            raise Malformed("an extension of it is there twice")
        found[kind] = reader.vector(2)
    index = found.get(_LEAF_INDEX)
    if index is None:
        return None
    if len(index) != _INDEX_SIZE:
        raise Malformed(f"an index has {_INDEX_SIZE} bytes, and it has one of {len(index)}")
    return int.from_bytes(index, "big")


def parse_list(data: bytes) -> tuple[SignedCertificateTimestamp, ...]:
    """A SignedCertificateTimestampList (section 3.3), at least one. Raises :class:`BadSct`."""
    try:
        whole = Reader(data)
        inner = Reader(whole.vector(2, 1))
        whole.end()
        found: list[SignedCertificateTimestamp] = []
        while not inner.is_done:
            if len(found) == MOST_SCTS:
                raise BadSct(
                    f"a certificate with over {MOST_SCTS} receipts (SCTs) is not looked at"
                )
            found.append(SignedCertificateTimestamp.parse(inner.vector(2, 1)))
    except Malformed as error:
        raise BadSct(f"a list of receipts (SCTs) is damaged: {error}") from None
    return tuple(found)


def list_bytes(scts: Sequence[SignedCertificateTimestamp]) -> bytes:
    """What :func:`parse_list` reads. Raises :class:`BadSct` for none, or too many."""
    inner = b"".join(vector(2, sct.to_bytes()) for sct in scts)
    if not 0 < len(scts) <= MOST_SCTS or len(inner) > _LONGEST_LIST:
        raise BadSct(f"a list has from one to {MOST_SCTS} receipts (SCTs), not {len(scts)}")
    return vector(2, inner)


def scts_of(cert: x509.Certificate) -> tuple[SignedCertificateTimestamp, ...]:
    """The receipts in a certificate; none where it has no list. Raises :class:`BadSct`."""
    try:
        data = embedded_list(cert.tbs_certificate_bytes)
    except Malformed as error:
        raise BadSct(f"the certificate's extensions cannot be read: {error}") from None
    return () if data is None else parse_list(data)
