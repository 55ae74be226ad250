"""The keeper of an identity's files: writes them anew whenever something in them has changed, and says so.

It looks at what an agent has, and asks the CA for nothing but CRLs. While somebody is being told, nothing is
written: who reads two files one after the other because it was told to has until then.
"""

import random
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial

from attrs import define, field, frozen
from cryptography import x509
from prometheus_client import Counter
from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.threads import deferToThread
from twisted.logger import Logger

from pki.codes import Code
from pki.errors import ANY_ERROR, PkiError, Problem, printable
from pki.serial import serial_hex
from pki.svid.bundle import TrustBundle
from pki.svid.revocation_set import RevocationSet
from pki.svid.x509svid import X509Svid
from pki.validity import rfc3339
from twisted_mesh.files.command import Stop
from twisted_mesh.files.tellers import FAILURES, Part, Teller
from twisted_mesh.files.writer import FilesWriter
from twisted_mesh.identity.agent import Agent
from twisted_mesh.revocation.crl_set import CrlSet, read_crls
from twisted_mesh.runtime.clock import Now, wall_clock
from twisted_mesh.runtime.meters import Reading, Readings, show
from twisted_mesh.runtime.tasks import Defer, Ticker, spawn
from twisted_mesh.trust.store import TICK

SVID, KEY, BUNDLE, CRL = "svid.pem", "svid_key.pem", "svid_bundle.pem", "crl.pem"
#: Seconds after which CRLs are fetched at the latest: a CA that issues next week has its own by then.
_LONGEST = 3600.0
#: The share of what a CRL has left after which the next one is fetched: the CA has made one by then.
_SHARE = 2 / 3
#: So many times a CRL may be behind the feed before that is a failure.
_MOMENTS = 5
#: So many looks for the first CRL of a CA that was just made; it may never have one, if its key has gone.
_LOOKS = 15
#: Seconds that a command may go on once we are stopped.
_DRAIN = 10.0

WRITTEN = Counter("mesh_files_written", "Generations of files that were written.", registry=None)
TOLD = Counter(
    "mesh_files_told",
    "Commands and processes that were told of new files.",
    ["part"],
    registry=None,
)


class KeepingBroke(PkiError):
    """Keeping the files met a bug of ours; those that there are stay."""

    code = Code.INTERNAL


class NotListed(PkiError):
    """Something is known to be revoked, and the CRLs do not say so."""

    code = Code.FILES_BEHIND


@frozen(eq=False)
class Contents:
    """What is in the files, of one moment."""

    svid: X509Svid
    roots: tuple[x509.Certificate, ...]
    crls: CrlSet
    others: tuple[TrustBundle, ...] = ()
    """Of the other trust domains that the identity's holder may believe."""

    def changes(self, before: "Contents | None") -> tuple[str, ...]:
        """What is new in comparison: ``svid``, ``bundle``, ``crl``."""
        if before is None:
            return ("svid", "bundle", "crl")
        found = {
            "svid": self.svid is not before.svid,
            "bundle": self.roots != before.roots or self.others != before.others,
            "crl": self.crls is not before.crls and self.crls.to_pem() != before.crls.to_pem(),
        }
        return tuple(name for name, is_new in found.items() if is_new)

    @property
    def files(self) -> Mapping[str, tuple[bytes, int]]:
        """Bytes and mode by name."""
        bundle = TrustBundle(self.svid.spiffe_id.trust_domain, self.roots)
        return {
            SVID: (self.svid.chain_pem(), 0o644),
            KEY: (self.svid.key.to_pem(), 0o600),
            BUNDLE: (bundle.to_pem(), 0o644),
            CRL: (self.crls.to_pem(), 0o644),
            **federated_files(self.others),
        }


def federated_files(bundles: Iterable[TrustBundle]) -> Mapping[str, tuple[bytes, int]]:
    """A file for each trust domain, by name: in one with ours its CA could mint our names for whoever reads that."""
    stem, dot, ending = BUNDLE.partition(".")
    return {
        f"{stem}.{bundle.trust_domain}{dot}{ending}": (bundle.to_pem(), 0o644) for bundle in bundles
    }


@define(eq=False, slots=False)
class FilesKeeper(Service):
    """Keeps one directory up with one agent. The writer has been taken before it starts."""

    agent: Agent
    writer: FilesWriter
    tellers: Sequence[Teller]
    clock: IReactorTime
    log: Logger
    now: Now = wall_clock
    defer: Defer = deferToThread
    draw: random.Random = field(factory=random.SystemRandom)
    drain: float = _DRAIN
    """Seconds that a command may go on once this is stopped."""
    written: Contents | None = field(default=None, init=False)
    """What is in the files; None before the first time."""
    crls: CrlSet | None = field(default=None, init=False)
    _fetching: Part = field(init=False)
    _writing: Part = field(init=False)
    _fetched_for: tuple[RevocationSet, tuple[x509.Certificate, ...]] | None = field(
        default=None, init=False
    )
    """What was known to be revoked when CRLs were fetched, and under which CAs."""
    _fetch_at: float = field(default=0.0, init=False)
    _behind: int = field(default=0, init=False)
    """So many times in a row something was revoked that was on no CRL yet."""
    _missing: int = field(default=0, init=False)
    """So many times in a row there was no CRL of a CA that is known."""
    _working: "Deferred[None] | None" = field(default=None, init=False)
    _stop: Stop = field(factory=Stop, init=False)
    _is_stopping: bool = field(default=False, init=False)
    _ticker: Ticker = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._fetching = Part("crls", "The CRLs beside the identity are not up to date", self.log)
        self._writing = Part("files", "The files are not up to date", self.log)
        self._ticker = Ticker(self.clock, TICK, self._look, "keeping files", self.log)
        self.agent.handing_on.append(self._has)

    def startService(self) -> None:
        """Write the files as soon as there is an identity, and look after them from now on."""
        super().startService()
        self._ticker.start()

    def stopService(self) -> "Deferred[None]":
        """Write no more; fires once what was being written or told is done, or ended. The files stay."""
        super().stopService()
        self._ticker.stop()
        self._is_stopping = True
        return Deferred.fromCoroutine(self._finish())

    async def _finish(self) -> None:
        if self._working is not None and not self._working.called:
            late = self.clock.callLater(self.drain, self._stop.set)
            with suppress(CancelledError):
                await self._working
            if late.active():
                late.cancel()
        self._stop.close()
        self.writer.release()

    # What is asked by others.

    @property
    def parts(self) -> tuple[Part, ...]:
        """All that may fail."""
        return self._fetching, self._writing, *(teller.part for teller in self.tellers)

    def troubles(self) -> Sequence[tuple[str, Problem]]:
        """What keeps failing, by name."""
        return [
            (part.name, part.problem)
            for part in self.parts
            if part.keeps_failing and part.problem is not None
        ]

    def lack(self) -> Problem | None:
        """Why there are no files at all."""
        if self.written is not None:
            return None
        for part in (self._fetching, self._writing):
            if part.problem is not None:
                return part.problem
        return Problem(Code.FILES_BEHIND, "the files have not been written yet", "wait")

    def show(self) -> None:
        """Have ``/metrics`` of this process tell of it."""
        show("files", Readings(self, READINGS, (WRITTEN, TOLD, FAILURES)))

    # The loop.

    def _look(self) -> None:
        if self._working is not None and not self._working.called:
            return
        svid, bundle = self.agent.svid, self._bundle()
        if svid is None or bundle is None:
            return
        seconds = self.clock.seconds()
        if (
            self._is_fetch_due(svid, seconds)
            or self._is_write_due(svid, bundle, seconds)
            or any(teller.is_due(seconds) for teller in self.tellers)
        ):
            self._working = spawn(self._work(svid, bundle), "keeping files", self.log)

    def _bundle(self) -> TrustBundle | None:
        """Of the identity's own trust domain, and of no other: nobody of that may be who is of this."""
        svid = self.agent.svid
        if svid is None:
            return None
        return self.agent.trust_store.trust.bundles.get(svid.spiffe_id.trust_domain)

    def _others(self) -> tuple[TrustBundle, ...]:
        """Those of other trust domains, by name."""
        svid, believed = self.agent.svid, self.agent.trust_store.trust.bundles
        own = None if svid is None else svid.spiffe_id.trust_domain
        return tuple(believed.bundles[at] for at in sorted(believed.bundles) if at != own)

    def _is_fetch_due(self, svid: X509Svid, seconds: float) -> bool:
        if seconds < self._fetching.again_at:
            return False
        known = self._known(svid)
        before = self._fetched_for
        return (
            before is None
            or before[0] is not known[0]
            or before[1] != known[1]
            or self._behind > 0
            or self._missing > 0
            or seconds >= self._fetch_at
        )

    def _is_write_due(self, svid: X509Svid, bundle: TrustBundle, seconds: float) -> bool:
        if self.crls is None or seconds < self._writing.again_at:
            return False
        before = self.written
        return (
            before is None
            or before.svid is not svid
            or before.roots != bundle.roots
            or before.crls is not self.crls
            or before.others != self._others()
        )

    def _known(self, svid: X509Svid) -> tuple[RevocationSet, tuple[x509.Certificate, ...]]:
        trust = self.agent.trust_store.trust
        # Before the first certificate of another issuing CA is met: whoever reads the files wants a list of it then.
        return trust.revocations, (*svid.intermediates, *trust.beside)

    async def _work(self, svid: X509Svid, bundle: TrustBundle) -> None:
        if self._is_fetch_due(svid, self.clock.seconds()):
            await self._try(self._fetching, partial(self._fetch, svid, bundle))
        if self._is_write_due(svid, bundle, self.clock.seconds()):
            await self._try(self._writing, partial(self._write, svid, bundle))
        for teller in self.tellers:
            if teller.is_due(self.clock.seconds()) and not self._is_stopping:
                await self._try(teller.part, partial(self._tell, teller))

    async def _try(self, part: Part, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except CancelledError:
            raise  # we are being stopped
        except PkiError as error:
            part.failed(error, self.clock.seconds())
        except ANY_ERROR as error:
            self.log.failure("keeping files broke", event="files-broke")
            broke = KeepingBroke(f"{type(error).__name__}: {printable(str(error))}")
            part.failed(broke, self.clock.seconds())
        else:
            part.done()

    async def _fetch(self, svid: X509Svid, bundle: TrustBundle) -> None:
        known = self._known(svid)
        answer = await self.agent.client.crls()
        now = self.now()
        if answer.crls or self.agent.has_crls:
            found = await self.defer(read_crls, answer, bundle, svid, now, self.crls)
        else:
            found = CrlSet(())
        is_behind = found.lacks(known[0], now)
        left = max(0.0, (found.next_update - now).total_seconds())
        pause = min(_LONGEST, left * _SHARE) * (0.9 + self.draw.random() / 10)
        self._fetch_at = self.clock.seconds() + pause
        self._fetched_for = known
        if self.crls is None or found.to_pem() != self.crls.to_pem():
            self.crls = found
        # Who waits at the feed hears of a revocation before its CRL is made: that takes a moment.
        self._behind = self._behind + 1 if is_behind else 0
        is_missing = found.misses(known[1]) and self._missing < _LOOKS
        self._missing = self._missing + 1 if is_missing else 0
        if self._behind > _MOMENTS:
            raise NotListed("what was revoked is not on the CA's CRLs yet: its log says why")

    async def _write(self, svid: X509Svid, bundle: TrustBundle) -> None:
        crls, before = self.crls, self.written
        if crls is None:
            raise AssertionError("nothing is to be written before there are CRLs")
        contents = Contents(svid, bundle.roots, crls, self._others())
        changes = contents.changes(before)
        if changes:
            await self.defer(self.writer.write, contents.files)
            WRITTEN.inc()
            for teller in self.tellers:
                teller.untold.update(changes)
            self.log.info(
                "Files in {directory} are new: {changes}",
                event="files-written",
                directory=str(self.writer.directory),
                changes=", ".join(changes),
                serial=serial_hex(svid.leaf.serial_number),
                not_after=rfc3339(svid.validity.not_after),
                next_update=rfc3339(crls.next_update),
            )
        self.written = contents
        if before is not None and "bundle" in changes:
            self.agent.tell_belief()

    def _has(self, bundle: TrustBundle) -> bool:
        """Whether whoever reads the files believes these roots."""
        return self.written is not None and self.written.roots == bundle.roots

    async def _tell(self, teller: Teller) -> None:
        contents, changes = self.written, sorted(teller.untold)
        if contents is None:
            raise AssertionError("nobody is told before something is written")
        svid = contents.svid
        facts = {
            "MESH_FILES": str(self.writer.directory),
            "MESH_CHANGED": " ".join(changes),
            "MESH_SPIFFE_ID": str(svid.spiffe_id),
            "MESH_SERIAL": serial_hex(svid.leaf.serial_number),
            "MESH_NOT_AFTER": rfc3339(svid.validity.not_after),
        }
        began = self.clock.seconds()
        done = await self.defer(teller.way, facts, self._stop)
        teller.untold.difference_update(changes)
        TOLD.labels(teller.part.name).inc()
        self.log.info(
            "{done} for new files: {changes}",
            event="files-told",
            done=done,
            changes=", ".join(changes),
            seconds=round(self.clock.seconds() - began, 3),
        )


#: What Prometheus reads of it.
READINGS: tuple[Reading[FilesKeeper], ...] = (
    Reading(
        "mesh_files_behind",
        "1 while the last attempt of that part has failed.",
        lambda k: {part.name: float(part.problem is not None) for part in k.parts},
        "part",
    ),
    Reading(
        "mesh_files_expiry_timestamp_seconds",
        "When the certificate in the files expires; 0 while there is none.",
        lambda k: k.written.svid.validity.not_after.timestamp() if k.written else 0.0,
    ),
    Reading(
        "mesh_files_crl_expiry_timestamp_seconds",
        "When the first of the CRLs in the files ends; 0 while there is none.",
        lambda k: k.written.crls.next_update.timestamp() if k.written else 0.0,
    ),
)
