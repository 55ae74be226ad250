"""``twistd mesh-ctlog``: an append-only log of certificates, and receipts for those who submit them."""

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, cast

import msgspec
from attrs import evolve
from twisted.application.service import IService
from twisted.internet.threads import deferToThread, deferToThreadPool
from twisted.python.threadpool import ThreadPool
from twisted.web.resource import IResource

from pki.codes import Code
from pki.ct.log_key import LogKey
from pki.ct.log_list import Log, LogList, LogState, origin_of
from pki.ct.tile_path import CHECKPOINT
from pki.errors import PkiError, Problem
from pki.keys import KeyAlgorithm, MemoryKey
from pki.tlog.note import NoteSignature
from twisted_mesh import monitoring
from twisted_mesh.ctlog import metrics
from twisted_mesh.ctlog.directory import LogDirectory
from twisted_mesh.ctlog.examiner import Examiner
from twisted_mesh.ctlog.head_key import HeadKey
from twisted_mesh.ctlog.ledger import Ledger
from twisted_mesh.ctlog.own_certificate import own_certificate
from twisted_mesh.ctlog.reads import Published
from twisted_mesh.ctlog.roots import AcceptedRoots
from twisted_mesh.ctlog.sequencer import Sequencer
from twisted_mesh.ctlog.site import LogSite
from twisted_mesh.ctlog.store import Head, LogStore
from twisted_mesh.ctlog.submissions import MAX_BODY, Submissions
from twisted_mesh.ctlog.submitters import PIN_FILE, Submitters
from twisted_mesh.ctlog.tiles import TileFiles
from twisted_mesh.ctlog.witness_client import WitnessClient
from twisted_mesh.ctlog.witnesses import Witness, Witnesses
from twisted_mesh.http.server import BoundedSite, Limits
from twisted_mesh.http.status_site import LIVENESS, Page
from twisted_mesh.limits.connection_limit import Capacity, ConnectionLimit
from twisted_mesh.limits.rate_limit import LimitedLog, Rate, TokenBuckets
from twisted_mesh.runtime.clock import wall_clock
from twisted_mesh.runtime.tasks import sleep
from twisted_mesh.state.directory import write_whole
from twisted_mesh.state.key_files import KeyFiles
from twisted_mesh.state.passphrase import read_passphrase
from twisted_mesh.taps.ctlog_options import Options, host_of, prefix_of
from twisted_mesh.taps.lifecycle import MeshService, service_of
from twisted_mesh.taps.listening import early_endpoint, listening_endpoint
from twisted_mesh.taps.reread import Reread
from twisted_mesh.taps.service_options import StartError
from twisted_mesh.tls.pinned_server import PinnedCallers, over_pinned_tls

_LOG_KEY, _TLS_KEY = "log.key", "tls.key"
_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_REFUSED = Rate(1, 10)


class CtLogService(MeshService):
    """The log: its record and files, its sequencer, its door."""

    options: Options
    under_way = "submissions"
    sequencer: Sequencer | None = None
    """None until the start has come to it, and where the log is read-only."""
    witnesses: Witnesses | None = None
    """The same."""

    def understand(self) -> None:
        """Where it is called. Raises :class:`PkiError`."""
        options = self.options
        self.directory = LogDirectory(options["state-dir"], options["store"])
        self.endpoint = early_endpoint(self.reactor, options["listen"])
        self.status_endpoint = None
        if options["status"]:
            self.status_endpoint = listening_endpoint(self.reactor, options["status"], "127.0.0.1")
        # Now: after twistd's fork there is no standard input any more.
        passphrase = read_passphrase(options["key-passphrase-file"], options["key-passphrase-fd"])
        self.keys = KeyFiles(self.directory.private, passphrase)
        self.store = LogStore(self.directory.record)
        self.tiles = TileFiles(self.directory.public)
        self.sites: list[BoundedSite] = []
        self.submitters = Submitters(options.accepted, self.directory.ca / PIN_FILE)
        self.roots = AcceptedRoots(options["roots"], self.directory.ca)
        # One thread, so that a disk that is slow for those who read holds up no receipt.
        self.pool = ThreadPool(1, 1, "ctlog")
        self.examiner = Examiner(self.tiles, self.reactor, deferToThread, self.log)
        self._refused = LimitedLog(self.log, _REFUSED, self.reactor.seconds)

    async def start(self) -> None:
        """Take the directory, read record and keys, and bind the door. Raises :class:`PkiError`."""
        options = self.options
        self.directory.prepare()
        self.directory.lock()
        key, tls_key = self._key(_LOG_KEY), self._key(_TLS_KEY)
        self.keys.seal()
        self.head_key = self._open(key)
        callers = PinnedCallers(
            own_certificate(self.directory.certificate, tls_key, host_of(self.url)),
            self.submitters,
            self._tell_refused,
            is_demanded=False,
        )
        self.submitters.look()
        self.roots.look()
        wrapped = over_pinned_tls(callers, self._served(), self.reactor)
        self.listening(self.endpoint.listen(wrapped), f"the address {options['listen']}")
        self.log_entry = self._entry(callers)
        listed = LogList((self.log_entry,), wall_clock()).to_bytes()
        write_whole(self.directory.list_entry, listed, 0o644)
        self.questions = {
            "/livez": LIVENESS,
            "/readyz": self._readiness,
            "/metrics": monitoring.metrics,
        }
        metrics.watch(self)
        self.serve_status(self.status_endpoint)

    def _key(self, name: str) -> MemoryKey:
        if self.keys.exists(name):
            return self.keys.load(name, MemoryKey.from_pem)
        if name == _LOG_KEY and self.directory.record.exists():
            raise StartError(
                f"{self.keys.path(name)} is gone, and {self.directory.record} is there: bring the key back from a "
                "backup; a log with another key is another log, with another --state-dir"
            )
        made = MemoryKey.generate(KeyAlgorithm.EC_P256)
        self.keys.write(name, made)
        return made

    def _url(self) -> str:
        """The log's URL; where none is given, that of its port on this machine. Empty where neither is known."""
        given: str | None = self.options["url"]
        if given is not None:
            return given
        host, _, port = str(self.options["listen"]).rpartition(":")
        is_here = host.strip("[]") in _LOOPBACK and port.isdigit() and int(port)
        return f"https://localhost:{int(port)}/" if is_here else ""

    def _open(self, key: MemoryKey) -> HeadKey:
        """Record and files, held against each other. Raises :class:`PkiError`."""
        self.tiles.prepare()
        self.url = self._url()
        if self.options["read-only"]:
            return self._open_retired(key)
        is_new = not self.directory.record.exists()
        if is_new and not self.url:
            raise StartError(
                f"--listen {self.options['listen']} does not say by which name others call: give --url "
                "https://HOST:PORT/, which is the log's name for life"
            )
        asked = origin_of(self.url) if is_new or self.options["url"] else None
        origin = self.store.open(asked, LogKey.of(key.public_key).log_id)
        own = self._named(origin, key)
        self.ledger = Ledger(self.store, self.tiles, own, lambda: time.time_ns() // 1_000_000)
        self.ledger.open()
        return own

    def _named(self, origin: str, key: MemoryKey) -> HeadKey:
        if origin != origin_of(self.url):
            self.url = f"https://{origin}/"
        return HeadKey(origin, key)

    def _open_retired(self, key: MemoryKey) -> HeadKey:
        data = self.tiles.read(CHECKPOINT)
        if data is None:
            raise StartError(
                f"there is no log in {self.directory.public} that could be served --read-only"
            )
        note = data.decode("utf-8", "replace")
        given: str | None = self.options["url"]
        own = self._named(origin_of(given) if given else note.partition("\n")[0], key)
        own.open(note)
        return own

    def _served(self) -> BoundedSite:
        """The site, and all that stands behind it."""
        options = self.options
        self.published = Published(self.tiles, deferToThread)
        if not options["read-only"]:
            self._on_head(self.ledger.published)
            self.sequencer = Sequencer(
                self.ledger,
                self.reactor,
                self._on_the_thread,
                self.log,
                self._on_head,
                metrics.took,
            )
            self.witnesses = Witnesses(
                self.head_key,
                [Witness(one, WitnessClient(self.reactor, one).ask) for one in options["witness"]],
                self._proof,
                self._cosigned,
                self.sequencer.halt,
                lambda: self.ledger.head.size,
                self.reactor,
                self.log,
            )
            self.witnesses.on_head(self.ledger.published)
        self.submissions = Submissions(
            self.submitters,
            self.roots,
            self.sequencer,
            self.head_key,
            TokenBuckets(options["submission-rate"], self.reactor.seconds),
            wall_clock,
            lambda: self.examiner.problem,
        )
        self.site = LogSite(
            self.submissions,
            self.published,
            prefix_of(self.url),
            options["read-rate"],
            self.reactor,
        )
        most = Capacity.of_system(1)
        # Whoever reads proves nothing, and most of them read.
        capacity = evolve(most, unproven=most.most - 8, of_address=(most.most - 8) * 3 // 4)
        limit = ConnectionLimit(capacity, self.reactor, "the log", self.log)
        limits = evolve(Limits(), body_bytes=MAX_BODY)
        served = BoundedSite(cast(IResource, self.site), self.reactor, limits, limit)
        self.sites.append(served)
        return served

    def _on_the_thread(self, call: Any, /, *arguments: Any, **named: Any) -> Any:
        return deferToThreadPool(self.reactor, self.pool, call, *arguments, **named)

    def _on_head(self, head: Head) -> None:
        self.published.show(head.note.encode())
        if self.witnesses is not None:
            self.witnesses.on_head(head)

    async def _proof(self, first: int, second: int) -> Sequence[bytes]:
        found: Sequence[bytes] = await self._on_the_thread(self.ledger.proof_between, first, second)
        return found

    async def _cosigned(self, head: Head, lines: Sequence[NoteSignature], by_all: bool) -> None:
        note = await self._on_the_thread(self.ledger.cosign, head, lines, by_all=by_all)
        if note is not None and self.ledger.published is head:
            self.published.show(note.encode())

    def _entry(self, callers: PinnedCallers) -> Log:
        """What a list of logs says of this one."""
        options = self.options
        state, since = LogState.USABLE, None
        if options["read-only"]:
            signed = self.head_key.open((self.tiles.read(CHECKPOINT) or b"").decode())
            state, since = (
                LogState.READONLY,
                datetime.fromtimestamp(signed.timestamp / 1000 + 1, UTC),
            )
        return Log(
            options["description"] or self.head_key.origin,
            self.head_key.public,
            self.url,
            options["monitoring-url"] or self.url,
            state,
            since,
            (callers.own_pin,),
        )

    def _tell_refused(self, pin: object) -> None:
        self._refused.warn(
            "A caller with the key {pin} was refused: to take submissions from it, write --accept-ca ID={pin}",
            event="ctlog-caller-refused",
            pin=str(pin or "that cannot be read"),
        )

    async def run(self) -> None:
        """Listen, and say so, once the reactor turns and heeds signals."""
        await sleep(self.reactor, 0)
        self.pool.start()
        if self.sequencer is not None:
            self.sequencer.start()
            self.examiner.start(self.size)
        if self.witnesses is not None:
            self.witnesses.start()
        self.open()
        entry = self.log_entry
        self.log.info(
            "The log {origin} is at {url} (entries: {size}). Its key is {key}, and that of its TLS {pin}; both "
            "are in {listed}, for --ct-logs\nReady to log certificates.",
            event="ready",
            origin=entry.origin,
            url=self.url,
            size=self.size,
            key=str(entry.key),
            pin=str(entry.tls_pins[0]),
            listed=str(self.directory.list_entry),
        )

    @property
    def size(self) -> int:
        """Entries that everybody can see."""
        if self.sequencer is not None:
            return self.ledger.published.size
        return self.head_key.open((self.tiles.read(CHECKPOINT) or b"").decode()).size

    def problems(self) -> Sequence[Problem]:
        """Why nothing is taken, the first that counts."""
        if self.options["read-only"]:
            return ()
        found: list[Problem] = []
        if self.sequencer is not None and self.sequencer.problem is not None:
            found += self.sequencer.problem.problems
        if self.examiner.problem is not None:
            found += self.examiner.problem.problems
        if self.descriptors.problem is not None:
            found.append(self.descriptors.problem)
        self.submitters.look()
        return (*found, *filter(None, (self.submitters.problem, self.roots.problem)))

    async def _readiness(self) -> Page:
        told: dict[str, object] = {"status": "ready", "entries": self.size}
        problems = self.problems()
        if problems:
            told |= {
                "status": "not ready",
                "code": problems[0].code,
                "detail": problems[0].detail,
                "remedy": problems[0].remedy,
            }
        return Page(msgspec.json.encode(told), 503 if problems else 200)

    def rereads(self) -> list[Reread]:
        """The log level, the roots, and by which key a CA beside us submits."""
        found = super().rereads()

        async def roots() -> str:
            changed = self.roots.look()
            if self.roots.problem is not None:
                raise _Unread(self.roots.problem.detail)
            return "they have changed, and count from now on" if changed else ""

        async def submitters() -> str:
            before = set(self.submitters)
            self.submitters.look()
            return (
                "it has changed, and counts from now on" if set(self.submitters) != before else ""
            )

        async def tiles() -> str:
            if self.sequencer is not None:
                self.examiner.start(self.size)
            return ""

        return [
            *found,
            Reread("all tiles", tiles),
            Reread("the roots", roots),
            Reread(f"the CA's pin {self.submitters.pin_file}", submitters),
        ]

    async def drain(self, seconds: float) -> None:
        """Let what has been submitted get its receipt, within so many seconds."""
        late = 0
        for site in self.sites:
            late += await site.drain(seconds)
        if late:
            self.cut_off(late, seconds)

    async def close(self) -> None:
        """Release the record."""
        if self.sequencer is not None:
            self.sequencer.stop()
        self.examiner.stop()
        if self.witnesses is not None:
            self.witnesses.stop()
        if self.pool.started:
            self.pool.stop()  # once the batch that is under way is on the disk
        self.store.close()
        self.directory.unlock()


class _Unread(PkiError):
    code = Code.UNKNOWN_TRUST_DOMAIN


def makeService(options: Options) -> IService:
    """What ``twistd mesh-ctlog`` starts."""
    return cast(IService, service_of(CtLogService, options))
