"""A log in the test's own hands: it can be truthful, forked, put back, slow, or lie, and answers at a real socket."""

import asyncio
import base64
import gzip
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from typing import Any

from attrs import define, field
from cryptography import x509

from pki.ct.entry import EntryType, LogEntry, SignedEntry, data_tile, of_precertificate
from pki.ct.log_key import LogKey
from pki.ct.log_list import Log
from pki.ct.precertificate import with_poison, with_scts
from pki.ct.receipt import sign_sct
from pki.ct.sct import SignedCertificateTimestamp, list_bytes, milliseconds
from pki.ct.tile_path import TilePath, tile_width
from pki.ct.tree_head import TreeHead, sign_head
from pki.keys import MemoryKey
from pki.svid.spki_pin import SpkiHash
from pki.tlog import merkle
from tests.authorities import Mesh, der, key, mesh, signed_anew
from tests.twisted_mesh.federation.hostile import Endpoint, Shown, answer, ok, serving
from twisted_mesh.tls.self_signed import SelfSigned

NOW = datetime.fromisoformat("2026-11-29T12:00:00+00:00")
#: What every log of the tests shows in TLS.
TLS = SelfSigned.of(key("a log's TLS"), "log", NOW)
PIN: SpkiHash = TLS.pin


@define(eq=False)
class PaperLog:
    """Entries and the tree over them; :meth:`answers` is what it serves."""

    name: str = "paper"
    port: int = 1
    at: datetime = NOW
    entries: list[LogEntry] = field(factory=list)
    tiles: dict[tuple[int, int], bytes] = field(factory=dict)
    note: str = ""
    without_partial: bool = False
    """Whether partial tiles are gone, as they are once the full ones are there."""
    zips: bool = False
    wrong: dict[str, bytes | Callable[[Any], object]] = field(factory=dict)
    """By path, what is answered in the place of the truth."""
    asked: list[str] = field(factory=list)
    shows: "PaperLog | None" = None
    """Another tree, which is served in the place of this one."""
    kept: set[Any] = field(factory=set)
    """Connections that go on."""

    @property
    def key(self) -> MemoryKey:
        return key(f"the log {self.name}")

    @property
    def log(self) -> Log:
        url = f"https://localhost:{self.port}/{self.name}"
        return Log(self.name, LogKey.of(self.key.public_key), url, url, tls_pins=(PIN,))

    def fork(self) -> "PaperLog":
        """The same log, which goes on in another way from here."""
        found = PaperLog(self.name, self.port, self.at, list(self.entries), dict(self.tiles))
        found.note = self.note
        return found

    def add(
        self, signed: SignedEntry, pre: bytes = b"p", chain: tuple[bytes, ...] = ()
    ) -> SignedCertificateTimestamp:
        """One entry more; its receipt."""
        index = len(self.entries)
        entry = LogEntry(milliseconds(self.at), signed, index, pre, chain)
        self._append([entry])
        return asyncio.run(sign_sct(signed, entry.timestamp, index, self.key))

    def fill(self, count: int, what: bytes = b"entry") -> None:
        """So many entries more, whatever they are."""
        start = len(self.entries)
        self._append(
            [
                LogEntry(milliseconds(self.at), filler(b"%b %d" % (what, index)), index, b"pre")
                for index in range(start, start + count)
            ]
        )

    def _append(self, entries: list[LogEntry]) -> None:
        hashes = [entry.leaf_hash for entry in entries]
        self.tiles |= merkle.append(len(self.entries), hashes, self._read)
        self.entries += entries

    def root(self, size: int) -> bytes:
        return merkle.root(size, self._read)

    def _read(self, level: int, number: int) -> bytes:
        return self.tiles.get((level, number), b"")

    def sign(self, at: datetime | None = None, size: int | None = None) -> str:
        """Sign a head, which is served from now on."""
        size = len(self.entries) if size is None else size
        head = TreeHead(self.log.origin, size, self.root(size), milliseconds(at or self.at))
        self.note = asyncio.run(sign_head(head, self.key))
        return self.note

    def tick(self, seconds: float = 1.0) -> None:
        self.at += timedelta(seconds=seconds)

    def answers(self, target: str) -> "bytes | Callable[[Any], object]":
        """For :func:`~tests.twisted_mesh.federation.hostile.serving`."""
        path = target.removeprefix(f"/{self.name}/")
        if self.shows is not None:
            return self.shows.answers(target)
        self.asked.append(path)
        if path in self.wrong:
            return self.wrong[path]
        if path == "checkpoint":
            return ok(self.note.encode(), "text/plain; charset=utf-8")
        try:
            where = TilePath.parse(path)
        except Exception:
            return answer(404, b"nothing")
        found = self.tile(where)
        is_replaced = where.width < 256 and self.tile(where.whole)
        if not found or (is_replaced and self.without_partial):
            return answer(404, b"nothing")
        said = (
            ok(gzip.compress(found), content_encoding="gzip")
            if self.zips
            else ok(found, "application/octet-stream")
        )
        return lambda transport: self.say(transport, said)

    def say(self, transport: Any, said: bytes) -> None:
        """Without hanging up."""
        self.kept.add(transport)
        transport.write(said)

    def tile(self, where: TilePath) -> bytes:
        level = where.level or 0
        if tile_width(level, where.number, len(self.entries)) < where.width:
            return b""
        if where.level is None:
            first = where.number * 256
            return data_tile(self.entries[first : first + where.width])
        return self.tiles[level, where.number][: where.width * 32]


def filler(text: bytes) -> SignedEntry:
    """An entry that is of no certificate."""
    return SignedEntry(EntryType.PRECERT, b"tbs of " + text, bytes(32))


@contextmanager
def served(log: PaperLog) -> Iterator[Endpoint]:
    """``log`` at a socket of this machine, which it knows from then on."""
    with serving(log.answers, Shown((TLS.certificate,), TLS.key)) as endpoint:
        log.port = endpoint.port
        try:
            yield endpoint
        finally:
            for transport in log.kept:
                with suppress(AttributeError):  # of one that is gone
                    transport.abortConnection()


def logged(
    *logs: PaperLog, of: Mesh | None = None, leaf: x509.Certificate | None = None
) -> x509.Certificate:
    """A leaf with receipts of these logs, each of which has its entry by then."""
    of = of or mesh()
    tbs = (leaf or of.leaf()).tbs_certificate_bytes
    issuing_key = of.issuing.key.private_key
    pre = x509.load_der_x509_certificate(signed_anew(with_poison(tbs), issuing_key))
    entry = of_precertificate(pre, of.issuing.certificate)
    scts = [log.add(entry, der(pre)) for log in logs]
    return x509.load_der_x509_certificate(
        signed_anew(with_scts(tbs, list_bytes(scts)), issuing_key)
    )


def promised(log: PaperLog, index: int, of: Mesh | None = None) -> x509.Certificate:
    """A leaf with a receipt for an entry that the log does not have at that index, if at all."""
    of = of or mesh()
    tbs = of.leaf(of.trust_domain.member("service", "hidden")).tbs_certificate_bytes
    issuing_key = of.issuing.key.private_key
    pre = x509.load_der_x509_certificate(signed_anew(with_poison(tbs), issuing_key))
    entry = of_precertificate(pre, of.issuing.certificate)
    sct = asyncio.run(sign_sct(entry, milliseconds(log.at), index, log.key))
    return x509.load_der_x509_certificate(
        signed_anew(with_scts(tbs, list_bytes((sct,))), issuing_key)
    )


def receipt(sct: SignedCertificateTimestamp, **changed: Any) -> bytes:
    """What add-chain answers with."""
    text = {
        "sct_version": 0,
        "id": base64.b64encode(sct.log_id).decode(),
        "timestamp": sct.timestamp,
        "extensions": base64.b64encode(sct.extensions).decode(),
        "signature": base64.b64encode(sct.signed).decode(),
    }
    return json.dumps(text | changed).encode()
