"""A log's files, written without a log: for tests of those who read one, and quickly, for a million entries."""

import asyncio
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from hashlib import sha256
from pathlib import Path

from attrs import define, field
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from pki.ct.entry import EntryType, LogEntry, SignedEntry, data_tile, key_hash_of
from pki.ct.log_key import LogKey
from pki.ct.log_list import Log, LogList
from pki.ct.sct import milliseconds
from pki.ct.tile_path import TilePath, issuer_path
from pki.ct.tree_head import TreeHead, sign_head
from pki.keys import MemoryKey
from pki.tlog import merkle
from tests.authorities import NOW, key, mesh

WIDTH = 256


@define(eq=False)
class WrittenLog:
    """Static files, as C2SP's static-ct-api lays them out."""

    path: Path
    url: str = "https://log.example/2026"
    key: MemoryKey = field(factory=lambda: key("a log of certificates"))
    size: int = field(default=0, init=False)
    root: bytes = field(default=merkle.EMPTY_ROOT, init=False)
    note: str = field(default="", init=False)
    _tiles: dict[tuple[int, int], bytes] = field(factory=dict, init=False)
    _data: list[LogEntry] = field(factory=list, init=False)
    """Entries of the last data tile, while it is not full."""

    @property
    def log(self) -> Log:
        """As a list has it."""
        return Log("a log", LogKey.of(self.key.public_key), self.url, f"{self.url}/")

    @property
    def logs(self) -> LogList:
        return LogList((self.log,), NOW)

    def add(self, *certs: x509.Certificate, at: datetime = NOW) -> None:
        """As precertificates of our issuing CA."""
        issuer = mesh().issuing.certificate
        fingerprint = self._issuer(issuer)
        self.append(
            LogEntry(
                milliseconds(at),
                SignedEntry(EntryType.PRECERT, cert.tbs_certificate_bytes, key_hash_of(issuer)),
                self.size + number,
                cert.public_bytes(Encoding.DER),
                (fingerprint,),
            )
            for number, cert in enumerate(certs)
        )

    def add_tbs(self, tbs: bytes) -> None:
        """As a log that lies may have it: the precertificate says nothing of what the tree is over."""
        signed = SignedEntry(EntryType.PRECERT, tbs, key_hash_of(mesh().issuing.certificate))
        pre = leaves(1)[0].public_bytes(Encoding.DER)
        self.append([LogEntry(milliseconds(NOW), signed, self.size, pre)])

    def add_certificate(self, cert: x509.Certificate, *above: x509.Certificate) -> None:
        """As a certificate with its issuers."""
        chain = tuple(map(self._issuer, above))
        signed = SignedEntry(EntryType.X509, cert.public_bytes(Encoding.DER))
        self.append([LogEntry(milliseconds(NOW), signed, self.size, chain=chain)])

    def append(self, entries: Iterable[LogEntry]) -> None:
        """Whatever they are."""
        new = list(entries)
        changed = merkle.append(
            self.size, [entry.leaf_hash for entry in new], lambda *at: self._tiles.get(at, b"")
        )
        self._tiles |= changed
        self.size += len(new)
        for (level, number), tile in changed.items():
            self._write(str(TilePath(level, number, len(tile) // 32)), tile)
        self._data += new
        while self._data:
            number = self._data[0].leaf_index // WIDTH
            tile_entries = self._data[:WIDTH]
            path = TilePath(None, number, len(tile_entries))
            self._write(str(path), data_tile(tile_entries))
            if len(tile_entries) < WIDTH:
                break
            del self._data[:WIDTH]
        self.root = merkle.root(self.size, lambda *at: self._tiles.get(at, b""))

    def sign(self, at: datetime = NOW + timedelta(seconds=1)) -> str:
        """Sign a head of what there is."""
        head = TreeHead(self.log.origin, self.size, self.root, milliseconds(at))
        self.note = asyncio.run(sign_head(head, self.key))
        self.show(self.note)
        return self.note

    def show(self, note: str) -> None:
        """Have that be the newest head."""
        self._write("checkpoint", note.encode())

    def _issuer(self, cert: x509.Certificate) -> bytes:
        der = cert.public_bytes(Encoding.DER)
        fingerprint = sha256(der).digest()
        self._write(issuer_path(fingerprint), der)
        return fingerprint

    def _write(self, name: str, data: bytes) -> None:
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def leaves(count: int, name: str = "service/n", start: int = 0) -> Sequence[x509.Certificate]:
    """Good certificates of our mesh, each of another name."""
    mesh_ = mesh()
    return [
        mesh_.leaf(mesh_.trust_domain.member(*f"{name}{start + n}".split("/")))
        for n in range(count)
    ]
