"""Logs for tests: keys, receipts and trees that they sign, and certificates with receipts inside."""

import asyncio
from collections.abc import Sequence
from datetime import datetime

from attrs import define, field, frozen
from cryptography import x509

from pki.ct.entry import LogEntry, SignedEntry, signed_entry_of
from pki.ct.log_key import LogKey
from pki.ct.log_list import Log, LogList
from pki.ct.precertificate import with_scts
from pki.ct.receipt import sign_sct
from pki.ct.sct import SignedCertificateTimestamp, list_bytes, milliseconds
from pki.ct.tree_head import TreeHead, sign_head
from pki.keys import MemoryKey
from pki.tlog import merkle
from tests.authorities import NOW, Mesh, key, mesh, signed_anew

NOW_MS = milliseconds(NOW)


@frozen(eq=False)
class TestLog:
    """A log with its private key."""

    __test__ = False

    name: str
    key: MemoryKey

    @property
    def log(self) -> Log:
        url = f"https://{self.name}.example/2026"
        return Log(self.name, LogKey.of(self.key.public_key), url, url)

    def sct(
        self, entry: SignedEntry, index: int = 0, at: int = NOW_MS
    ) -> SignedCertificateTimestamp:
        return asyncio.run(sign_sct(entry, at, index, self.key))

    def head(self, size: int, root: bytes, at: int = NOW_MS) -> str:
        return asyncio.run(sign_head(TreeHead(self.log.origin, size, root, at), self.key))


ONE, TWO, THREE = (TestLog(name, key(f"log {name}")) for name in ("one", "two", "three"))
LOGS = LogList((ONE.log, TWO.log), NOW)


@define(eq=False)
class Tree:
    """A tree of leaf hashes, in tiles."""

    tiles: dict[tuple[int, int], bytes] = field(factory=dict)
    size: int = 0

    def add(self, leaves: Sequence[bytes]) -> "Tree":
        self.tiles.update(merkle.append(self.size, leaves, self.read))
        self.size += len(leaves)
        return self

    def read(self, level: int, number: int) -> bytes:
        return self.tiles.get((level, number), b"")

    def root(self, size: int | None = None) -> bytes:
        return merkle.root(self.size if size is None else size, self.read)


def entry_of(cert: x509.Certificate, home: Mesh | None = None) -> SignedEntry:
    """What the receipts of a certificate of that mesh are for."""
    return signed_entry_of(cert, (home or mesh()).issuing.certificate)


def logged(
    cert: x509.Certificate, *scts: SignedCertificateTimestamp, home: Mesh | None = None
) -> x509.Certificate:
    """The certificate issued anew with these receipts inside."""
    issuing = (home or mesh()).issuing.key
    assert isinstance(issuing, MemoryKey)
    body = with_scts(cert.tbs_certificate_bytes, list_bytes(scts))
    return x509.load_der_x509_certificate(signed_anew(body, issuing.private_key))  # type: ignore[arg-type]


def leaf_hashes(count: int, first: int = 0) -> list[bytes]:
    """Of entries that there might be."""
    return [merkle.leaf_hash(b"%d" % number) for number in range(first, first + count)]


def log_entries(count: int, at: datetime = NOW) -> list[LogEntry]:
    """Entries of one log, all of the same certificate."""
    signed = entry_of(mesh().leaf())
    return [
        LogEntry(milliseconds(at), signed, index, b"pre", (bytes(32),)) for index in range(count)
    ]
