"""A data tile read by a monitor: only where things are in it, since every byte that a leaf hash is over stands there.

:func:`pki.ct.entry.parse_data_tile` reads the same into values, and takes ten times as long.
"""

from collections.abc import Iterator
from hashlib import sha256
from typing import NamedTuple

from pki.ct.entry import TILE_WIDTH
from pki.errors import Malformed

_TIMESTAMP, _TYPE, _KEY_HASH, _LENGTH, _INDEX = 8, 2, 32, 3, 5
_X509, _PRECERT = b"\0\0", b"\0\1"
#: Extensions that only say where the entry is (static-ct-api), up to the index; with their length.
_EXTENSIONS = b"\0\x08\0\0\x05"
#: A leaf's hash is over 0 (RFC 6962 section 2.1), the version and the leaf's type (section 3.4), and the entry.
_LEAF = b"\0\0\0"
#: Bytes of a certificate; those of all chains of one entry.
LONGEST, _LONGEST_CHAIN = 64 * 1024, 16 * 32


class Scanned(NamedTuple):
    """One entry, as far as a monitor looks."""

    timestamp: int
    """Milliseconds."""
    leaf_hash: bytes
    issuer_key: bytes
    """SHA-256 of the issuer's key, of a precertificate; of a certificate the fingerprint of its issuer, or nothing."""
    is_precertificate: bool
    body: bytes
    """The TBSCertificate of a precertificate; a certificate whole."""


def scan(data: bytes, first: int, skip: int = 0) -> Iterator[Scanned]:
    """The entries of a data tile whose first has the position ``first``, but for so many at its beginning.

    Raises :class:`Malformed`. That each is the tree's own at its place only its hash shows.
    """
    at, end, position = 0, len(data), first
    last = first + TILE_WIDTH
    while at < end:
        if position == last:
            raise Malformed(f"a data tile has more than {TILE_WIDTH} entries")
        start, kind_at = at, at + _TIMESTAMP
        body_at = kind_at + _TYPE
        kind = data[kind_at:body_at]
        is_precertificate = kind == _PRECERT
        if is_precertificate:
            body_at += _KEY_HASH
        elif kind != _X509:
            raise Malformed(f"the entry {position} is of no type that there is")
        at = body_at + _LENGTH
        size = int.from_bytes(data[body_at:at], "big")
        body_at, at = at, at + size
        if not 0 < size <= LONGEST:
            raise Malformed(f"the certificate of entry {position} has {size} bytes")
        entry_end = at + 5 + _INDEX
        if data[at : at + 5] != _EXTENSIONS or entry_end > end:
            raise Malformed(f"the entry {position} is cut short, or does not say where it is")
        if int.from_bytes(data[at + 5 : entry_end], "big") != position:
            raise Malformed(f"the entry {position} says that it is another")
        at = entry_end
        if is_precertificate:
            at += _LENGTH
            size = int.from_bytes(data[at - _LENGTH : at], "big")
            at += size
            if not 0 < size <= LONGEST:
                raise Malformed(f"the precertificate of entry {position} has {size} bytes")
        chain_at = at + 2
        size = int.from_bytes(data[at:chain_at], "big")
        at = chain_at + size
        if at > end or size % 32 or size > _LONGEST_CHAIN or chain_at > end:
            raise Malformed(f"the entry {position} is cut short")
        if skip > 0:
            skip -= 1
        else:
            if is_precertificate:
                issuer = data[kind_at + _TYPE : kind_at + _TYPE + _KEY_HASH]
            else:
                issuer = data[chain_at : chain_at + 32] if size else b""
            yield Scanned(
                int.from_bytes(data[start:kind_at], "big"),
                sha256(_LEAF + data[start:entry_end]).digest(),
                issuer,
                is_precertificate,
                data[body_at : body_at + _size(data, body_at)],
            )
        position += 1


def _size(data: bytes, at: int) -> int:
    """Of what begins there, by the length that stands before it."""
    return int.from_bytes(data[at - _LENGTH : at], "big")
