"""Logs of certificates for tests: one in this process, whose thread is the caller's own, and mesh-ctlog itself.

``running_log(home, mesh)`` is a real process; its ``log`` is what a list says of it, and ``own`` the key that it takes
submissions from. ``LogRig(home)`` is the same without process, port and TLS, on a clock that the test turns.
"""

import asyncio
import base64
import http.client
import itertools
import json
import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

from attrs import define, evolve, field
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from twisted.internet.defer import Deferred, execute
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from pki.ct.entry import LogEntry, SignedEntry, of_precertificate, parse_data_tile
from pki.ct.log_list import Log, LogList
from pki.ct.precertificate import with_poison, with_scts, without_poison
from pki.ct.sct import SignedCertificateTimestamp, list_bytes, read_signature
from pki.ct.tile_path import TilePath, tile_width
from pki.ct.tree_head import TreeHead, open_note
from pki.issuing.unsigned import algorithm_of, assemble
from pki.keys import MemoryKey
from pki.spiffe import SpiffeId
from pki.svid.x509svid import certificates_pem
from pki.tlog.merkle import root
from tests.authorities import HOUR, MESH, NOW, Mesh, key, mesh
from tests.running import BIN, PATIENCE, Running, free_port
from twisted_mesh.ctlog.admission import Admitted, admit
from twisted_mesh.ctlog.head_key import HeadKey
from twisted_mesh.ctlog.ledger import Ledger, Sequenced
from twisted_mesh.ctlog.sequencer import Sequencer
from twisted_mesh.ctlog.store import Head, LogStore
from twisted_mesh.ctlog.tiles import TileFiles
from twisted_mesh.runtime.log import logger
from twisted_mesh.tls.self_signed import SelfSigned

SUBMITTER = MESH.member("mesh", "ca")
ORIGIN = "log.example/test"


def present() -> Mesh:
    """A mesh of now: a real process goes by the real clock. It is made once an hour."""
    return mesh(now=datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - HOUR)


def signed(of: Mesh, tbs: bytes, like: x509.Certificate) -> x509.Certificate:
    """What the mesh's issuing CA makes of a TBSCertificate."""
    signature = asyncio.run(of.issuing.key.sign(tbs))
    return x509.load_der_x509_certificate(assemble(tbs, algorithm_of(like), signature))


def precertificate(
    of: Mesh,
    name: str = "backend",
    now: datetime = NOW,
    lifetime: timedelta = HOUR,
    leaf_key: MemoryKey | None = None,
) -> x509.Certificate:
    """One of ``/service/NAME``, with a new serial number each time."""
    spiffe_id = of.trust_domain.member("service", name)
    draft = of.issuing.draft((leaf_key or key(9)).public_key, spiffe_id, now, lifetime)
    return signed(of, with_poison(draft.tbs), draft.unsigned)


def final(
    of: Mesh, pre: x509.Certificate, scts: Sequence[SignedCertificateTimestamp]
) -> x509.Certificate:
    """The certificate that the precertificate promised, with these receipts in it."""
    tbs = with_scts(without_poison(pre.tbs_certificate_bytes), list_bytes(scts))
    return signed(of, tbs, pre)


def der(cert: x509.Certificate) -> bytes:
    return cert.public_bytes(Encoding.DER)


def chain_of(of: Mesh, leaf: x509.Certificate) -> list[bytes]:
    """Leaf and issuing CA, as a CA submits them."""
    return [der(leaf), der(of.issuing.certificate)]


def entry_of(of: Mesh, pre: x509.Certificate) -> SignedEntry:
    """What a receipt for it is for."""
    return of_precertificate(pre, of.issuing.certificate)


def receipt(answer: dict[str, Any]) -> SignedCertificateTimestamp:
    """What add-chain and add-pre-chain answer, read."""
    assert answer["sct_version"] == 0
    made = read_signature(base64.b64decode(answer["signature"]))
    return SignedCertificateTimestamp(
        base64.b64decode(answer["id"]),
        answer["timestamp"],
        base64.b64decode(answer["extensions"]),
        *made,
    )


@define(eq=False, slots=False)
class LogRig:
    """One start of a log, in memory but for its files."""

    home: Path
    of: Mesh = field(factory=mesh)
    clock: Clock = field(factory=Clock)
    ahead: timedelta = timedelta()
    origin: str = ORIGIN
    heads: list[Head] = field(factory=list, init=False)
    _numbers: Iterator[int] = field(factory=itertools.count, init=False)
    ledger: Ledger = field(init=False)
    sequencer: Sequencer = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.home.mkdir(exist_ok=True)
        store = LogStore(self.home / "ctlog.db")
        files = TileFiles(self.home / "public")
        own = HeadKey(self.origin, key("a log"))
        self.ledger = Ledger(store, files, own, self.milliseconds)
        try:
            files.prepare()
            store.open(self.origin, own.public.log_id)
            self.ledger.open()
        except BaseException:
            store.close()
            raise
        self.sequencer = Sequencer(
            self.ledger, self.clock, execute, logger("ctlog"), self.heads.append
        )

    def now(self) -> datetime:
        return NOW + self.ahead + timedelta(seconds=self.clock.seconds())

    def milliseconds(self) -> int:
        return int(self.now().timestamp() * 1000)

    @property
    def log(self) -> Log:
        """As a list has it."""
        url = f"https://{self.origin}/"
        return Log("a log", self.ledger.key.public, url, url)

    @cached_property
    def _like(self) -> Admitted:
        pre = precertificate(self.of)
        return admit(
            chain_of(self.of, pre),
            is_precertificate=True,
            submitter=SUBMITTER,
            roots=[self.of.root.certificate],
            now=NOW,
        )

    @property
    def head(self) -> TreeHead:
        """What readers see."""
        note = (self.home / "public" / "checkpoint").read_text()
        return open_note(note, self.log)

    def admitted(self, name: str = "backend", pre: x509.Certificate | None = None) -> Admitted:
        pre = pre or precertificate(self.of, name, self.now())
        return admit(
            chain_of(self.of, pre),
            is_precertificate=True,
            submitter=SUBMITTER,
            roots=[self.of.root.certificate],
            now=self.now(),
        )

    def other(self) -> Admitted:
        """One more that was admitted, without the work of judging it: nobody could read its certificate."""
        like = self._like
        body = like.signed.body + next(self._numbers).to_bytes(8, "big")
        return evolve(like, signed=evolve(like.signed, body=body))

    def fill(self, count: int, at_a_time: int = 100) -> list[Sequenced]:
        """So many new entries, each as :meth:`other` makes them."""
        found: list[Sequenced] = []
        for at in range(0, count, at_a_time):
            batch = [self.other() for _ in range(min(at_a_time, count - at))]
            found += self.ledger.extend(batch)
        return found

    def add(self, admitted: Admitted) -> Sequenced:
        """By the sequencer, at once."""
        found: list[Any] = []
        _ = Deferred.fromCoroutine(self.sequencer.add(admitted)).addBoth(found.append)
        self.clock.advance(1)
        assert found, "it waits"
        if isinstance(found[0], Failure):
            found[0].raiseException()
        result: Sequenced = found[0]
        return result

    def close(self) -> None:
        self.ledger.store.close()

    def again(self) -> "LogRig":
        """The next start, in the same place."""
        self.close()
        made = LogRig(self.home, self.of, self.clock, self.ahead, self.origin)
        made._numbers = self._numbers
        return made


@define(eq=False)
class RunningLog:
    """A mesh-ctlog that is a process of its own, started again and again at one address."""

    home: Path
    of: Mesh = field(factory=present)
    real: bool = False
    """Whether it starts as a shell starts it."""
    port: int = field(factory=free_port)
    running: Running | None = None
    own: SelfSigned = field(init=False)
    """What its submitter shows."""

    def __attrs_post_init__(self) -> None:
        self.home.mkdir(parents=True, exist_ok=True)
        submitter = key("a submitter")
        names = [x509.UniformResourceIdentifier(str(self.accepted))]
        self.own = SelfSigned.of(submitter, "a CA", datetime.now(UTC), names)
        (self.home / "roots.pem").write_bytes(certificates_pem([self.of.root.certificate]))
        pem = submitter.to_pem() + certificates_pem([self.own.certificate])
        (self.home / "submitter.pem").write_bytes(pem)

    @property
    def accepted(self) -> SpiffeId:
        """The CA whose key it takes submissions from."""
        return self.of.trust_domain.member("mesh", "ca")

    @property
    def state(self) -> Path:
        return self.home / "state"

    @property
    def public(self) -> Path:
        return self.state / "ctlog" / "public"

    @property
    def words(self) -> tuple[str, ...]:
        """What it is started with."""
        return (
            *("--state-dir", str(self.state), "--listen", f"127.0.0.1:{self.port}"),
            *("--url", f"https://localhost:{self.port}/"),
            *("--accept-ca", f"{self.accepted}={self.own.pin}"),
            *("--roots", str(self.home / "roots.pem")),
        )

    def start(self, *options: str, wait: bool = True) -> Running:
        command = (BIN / "mesh-ctlog", *self.words, *options)
        self.running = Running.start(*command, cwd=self.home, real=self.real)
        if wait:
            self.running.wait_for(r"Ready to log certificates\.")
        return self.running

    def stop(self) -> None:
        if self.running is not None and self.running.process.poll() is None:
            self.running.process.kill()
            self.running.wait()

    @property
    def log(self) -> Log:
        """As a list has it; there once it has started."""
        (log,) = LogList.parse((self.state / "ctlog" / "log-list.json").read_bytes()).logs
        return log

    @property
    def head(self) -> TreeHead:
        """As readers get it."""
        status, data = self.get("checkpoint")
        assert status == 200, data
        return open_note(data.decode(), self.log)

    def connect(self, *, shows_key: bool = True) -> http.client.HTTPSConnection:
        """Over TLS, as its submitter or as a reader."""
        context = ssl.create_default_context(cafile=str(self.state / "ctlog" / "tls.crt"))
        if shows_key:
            context.load_cert_chain(self.home / "submitter.pem")
        return http.client.HTTPSConnection(
            "localhost", self.port, timeout=PATIENCE, context=context
        )

    def get(self, path: str) -> tuple[int, bytes]:
        """What a reader gets, over a connection of its own."""
        connection = self.connect(shows_key=False)
        try:
            connection.request("GET", f"/{path}")
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def post(
        self,
        chain: Sequence[bytes],
        call: str = "add-pre-chain",
        connection: http.client.HTTPSConnection | None = None,
    ) -> tuple[int, dict[str, Any]]:
        """What is answered to a chain of DER."""
        used = connection or self.connect()
        try:
            body = json.dumps({"chain": [base64.b64encode(one).decode() for one in chain]})
            used.request("POST", f"/ct/v1/{call}", body)
            answer = used.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            if connection is None:
                used.close()

    def submit(
        self, pre: x509.Certificate, connection: http.client.HTTPSConnection | None = None
    ) -> SignedCertificateTimestamp:
        """The receipt for a precertificate."""
        status, answer = self.post(chain_of(self.of, pre), connection=connection)
        assert status == 200, answer
        return receipt(answer)

    def verified_size(self) -> int:
        """How many entries, where its tiles, read as anybody does, are the tree of its head."""
        head = self.head

        def tile(level: int, number: int) -> bytes:
            path = TilePath(level, number, tile_width(level, number, head.size))
            status, body = self.get(str(path))
            assert status == 200, path
            return body

        assert root(head.size, tile) == head.root
        return head.size

    def entries(self) -> list[LogEntry]:
        """All that readers see."""
        size, found = self.head.size, list[LogEntry]()
        for number in range(-(-size // 256)):
            status, body = self.get(str(TilePath(None, number, tile_width(0, number, size))))
            assert status == 200, number
            found += parse_data_tile(body)
        return found

    def log_one(self, name: str = "backend") -> x509.Certificate:
        """A certificate of now with this log's receipt."""
        pre = precertificate(self.of, name, datetime.now(UTC))
        return final(self.of, pre, [self.submit(pre)])


@contextmanager
def running_log(
    home: Path, of: Mesh | None = None, *options: str, real: bool = False
) -> Iterator[RunningLog]:
    """A log that takes what ``of``'s CA submits; nothing of it is left running."""
    made = RunningLog(home, of or present(), real)
    try:
        made.start(*options)
        yield made
    finally:
        made.stop()
