"""``twistd mesh-witness``: cosigns the checkpoints of logs, and keeps what contradicts them."""

from typing import cast

import msgspec
from attrs import evolve
from twisted.application.service import IService
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.web.resource import IResource

from pki.audit.log import LOG_ALGORITHM
from pki.keys import KeyAlgorithm, MemoryKey
from pki.svid.spki_pin import SpkiHash
from twisted_mesh.ct.evidence_files import EvidenceFiles
from twisted_mesh.ct.log_file import LogFile
from twisted_mesh.ct.transport import LogTransport
from twisted_mesh.http.server import BoundedSite, Limits
from twisted_mesh.http.status_site import LIVENESS, Page
from twisted_mesh.limits.connection_limit import Capacity, ConnectionLimit
from twisted_mesh.monitoring import metrics
from twisted_mesh.runtime.clock import wall_clock
from twisted_mesh.runtime.meters import Reading, Readings, show
from twisted_mesh.runtime.tasks import Ticker, sleep, spawn
from twisted_mesh.state.directory import write_whole
from twisted_mesh.state.key_files import KeyFiles
from twisted_mesh.state.passphrase import read_passphrase
from twisted_mesh.taps.lifecycle import MeshService, service_of
from twisted_mesh.taps.listening import early_endpoint, listening_endpoint
from twisted_mesh.taps.reread import Reread
from twisted_mesh.taps.witness_options import Options
from twisted_mesh.tls.pinned_server import PinnedCallers, over_pinned_tls
from twisted_mesh.tls.self_signed import SelfSigned
from twisted_mesh.witness.comparison import Comparison
from twisted_mesh.witness.directory import WitnessDirectory
from twisted_mesh.witness.record import Record
from twisted_mesh.witness.request import LARGEST_BODY
from twisted_mesh.witness.service import Witness
from twisted_mesh.witness.site import WitnessSite

_MOST = 128
_KEY, _TLS_KEY = "witness.key", "witness-tls.key"
#: Seconds between two looks whether the list of logs has changed.
_LOOKING = 10.0

#: What Prometheus reads of a witness.
READINGS: tuple[Reading[Witness], ...] = (
    Reading(
        "mesh_witness_cosigned_total",
        "Checkpoints that were cosigned since the start.",
        lambda witness: witness.cosigned,
        is_counter=True,
    ),
    Reading(
        "mesh_witness_evidence",
        "Contradictions of logs that are kept as evidence.",
        lambda witness: len(witness.evidence),
    ),
)


class _Everybody(frozenset[SpkiHash]):
    """Whatever key a caller shows, it may call."""

    def __contains__(self, _: object) -> bool:
        return True


class WitnessService(MeshService):
    """The witness: its record, its key, its door."""

    options: Options
    witness: Witness | None = None
    """None until the start has come to it."""
    _comparing: "Deferred[None] | None" = None

    def understand(self) -> None:
        """Which logs it cosigns, and where it is asked. Raises :class:`PkiError`."""
        options = self.options
        self.directory = WitnessDirectory(options["state-dir"])
        self.logs: LogFile = options["ct-logs"]
        self.logs.load()
        self.endpoint = early_endpoint(self.reactor, options["listen"], "127.0.0.1")
        self.status_endpoint = None
        if options["status"]:
            self.status_endpoint = listening_endpoint(self.reactor, options["status"], "127.0.0.1")
        # Now: after twistd's fork there is no standard input any more.
        passphrase = read_passphrase(options["key-passphrase-file"], options["key-passphrase-fd"])
        self.files = KeyFiles(self.directory.private, passphrase)
        self.sites: list[BoundedSite] = []
        self._looking = Ticker(
            self.reactor, _LOOKING, self._look_at_logs, "the list of logs", self.log
        )

    async def start(self) -> None:
        """Take the directory, read record and keys, and bind the door. Raises :class:`PkiError`."""
        options = self.options
        self.directory.prepare()
        self.directory.lock()
        self.record = Record(self.directory.record)
        self.record.open(options["name"])
        key = self._key(_KEY, LOG_ALGORITHM)
        tls_key = self._key(_TLS_KEY, KeyAlgorithm.EC_P256)
        self.files.seal()
        evidence = EvidenceFiles(self.directory.evidence, self.log)
        witness = Witness(
            options["name"],
            key,
            self.record,
            lambda: self.logs.logs,
            evidence,
            wall_clock,
            deferToThread,
            self.log,
        )
        witness.load()
        evidence.recall(self.logs.logs)
        write_whole(self.directory.public_key, f"{witness.public}\n".encode(), 0o600)
        self.witness = witness
        self.questions = {"/livez": LIVENESS, "/readyz": self._readiness, "/metrics": metrics}
        show("witness", Readings(witness, READINGS))
        # Nobody is asked for a key: a checkpoint says itself whose it is.
        own = SelfSigned.of(tls_key, "mesh-witness", wall_clock())
        callers = PinnedCallers(own, _Everybody(), lambda _: None, is_demanded=False)
        limit = ConnectionLimit(Capacity.of(_MOST), self.reactor, "the address", self.log)
        limits = evolve(Limits(), body_bytes=LARGEST_BODY)
        root = cast(IResource, WitnessSite(witness, self.reactor))
        site = BoundedSite(root, self.reactor, limits, limit)
        self.sites.append(site)
        wrapped = over_pinned_tls(callers, site, self.reactor)
        self.listening(self.endpoint.listen(wrapped), f"the address {options['listen']}")
        self.tls_pin = callers.own_pin
        self.serve_status(self.status_endpoint)

    def _key(self, name: str, algorithm: KeyAlgorithm) -> MemoryKey:
        if self.files.exists(name):
            return self.files.load(name, MemoryKey.from_pem)
        made = MemoryKey.generate(algorithm)
        self.files.write(name, made)
        return made

    async def run(self) -> None:
        """Listen, and say so, once the reactor turns and heeds signals."""
        await sleep(self.reactor, 0)
        self.open()
        if self.witness is None:
            raise AssertionError("it was not started")
        self._looking.start(now=False)
        others = tuple(
            LogTransport(self.reactor, url, pins) for url, pins in self.options["compare"]
        )
        comparison = Comparison(
            self.witness, others, self.reactor, self.log, self.options["interval"]
        )
        self.witness.tell_of_doubts(comparison.doubt)
        if others:
            self._comparing = spawn(comparison.run(), "comparing witnesses", self.log)
        self.log.info(
            "Cosigning for {logs} logs at {address} with the key {key}\nIts TLS key is {pin}\nReady to cosign.",
            event="ready",
            logs=len(self.logs.logs.logs),
            address=self.options["listen"],
            key=str(self.witness.public),
            pin=str(self.tls_pin),
        )

    async def _readiness(self) -> Page:
        problem = None if self.witness is None else self.witness.problem
        if problem is None:
            return Page(b'{"status":"ready"}')
        body = {"status": "not ready", "code": problem.code, "detail": problem.detail}
        return Page(msgspec.json.encode(body), 503)

    def _look_at_logs(self) -> None:
        self.logs.look(self.log)

    def rereads(self) -> list[Reread]:
        """The log level, and the list of logs."""
        return [*super().rereads(), Reread(f"--ct-logs {self.logs.path}", self._reread_logs)]

    async def _reread_logs(self) -> str:
        has_changed = self.logs.load()
        return f"it has {len(self.logs.logs.logs)} logs now" if has_changed else ""

    async def drain(self, seconds: float) -> None:
        """Let what is being answered finish, within so many seconds."""
        self._looking.stop()
        if self._comparing is not None:
            self._comparing.cancel()
        late = 0
        for site in self.sites:
            late += await site.drain(seconds)
        if late:
            self.cut_off(late, seconds)

    async def close(self) -> None:
        """Release the record and the directory."""
        if self.witness is not None:
            self.record.close()
        self.directory.unlock()


def makeService(options: Options) -> IService:
    """What ``twistd mesh-witness`` starts."""
    return cast(IService, service_of(WitnessService, options))
