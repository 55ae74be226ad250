"""Logs that a test has in its hands: each answers when it is told to, with what it is told."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from attrs import define, field
from cryptography import x509
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from pki.ct.entry import of_precertificate
from pki.ct.errors import LogAway
from pki.ct.log_key import LogKey
from pki.ct.log_list import Log
from pki.ct.receipt import sign_sct
from pki.ct.sct import SignedCertificateTimestamp, milliseconds
from pki.errors import PkiError
from pki.issuing.csr import build_csr
from tests.authorities import BACKEND, key, mesh
from tests.twisted_mesh.ca.rigs import ADMIN, CaRig, result_of
from twisted_mesh.ca.transparency.receipts import Receipts, WhenAway
from twisted_mesh.ca.transparency.standing import LogStanding
from twisted_mesh.stores.records import Query

AWAY = LogAway("nothing listens there")


@define(eq=False)
class Door:
    """See :class:`twisted_mesh.ca.transparency.standing.LogDoor`."""

    name: str
    now: Callable[[], datetime]
    shown: list[Sequence[x509.Certificate]] = field(factory=list)
    error: PkiError | None = None
    """What it answers with instead of an SCT."""
    is_held: bool = False
    """Whether it answers only when it is told to."""
    waiting: list["Deferred[None]"] = field(factory=list)
    roots: list[x509.Certificate] = field(factory=lambda: [mesh().root.certificate])
    is_hung_up: bool = False

    @property
    def log(self) -> Log:
        url = f"https://{self.name}.example/ct"
        return Log(self.name, LogKey.of(key(self.name).public_key), url, url)

    async def add_pre_chain(self, chain: Sequence[x509.Certificate]) -> SignedCertificateTimestamp:
        self.shown.append(chain)
        await self._answering()
        entry = of_precertificate(chain[0], chain[1])
        at = milliseconds(self.now())
        return await sign_sct(entry, at, len(self.shown) - 1, key(self.name))

    async def get_roots(self) -> Sequence[x509.Certificate]:
        await self._answering()
        return self.roots

    def hang_up(self) -> None:
        self.is_hung_up = True

    async def _answering(self) -> None:
        if self.is_held:
            self.waiting.append(Deferred())
            await self.waiting[-1]
        if self.error is not None:
            raise self.error

    def answer(self) -> None:
        waiting, self.waiting = self.waiting, []
        for one in waiting:
            one.callback(None)


@define(eq=False)
class Logged:
    """The CA of a rig, and the logs that it shows its certificates to."""

    rig: CaRig
    clock: Clock = field(factory=Clock)
    doors: list[Door] = field(init=False)
    receipts: Receipts = field(init=False)

    @classmethod
    def with_logs(
        cls, rig: CaRig, logs: int = 2, quorum: int = 2, when_away: WhenAway = WhenAway.REFUSE
    ) -> "Logged":
        made = cls(rig)
        made.doors = [Door(f"log-{number}", rig.now) for number in range(1, logs + 1)]
        standings = tuple(LogStanding(door) for door in made.doors)
        made.receipts = Receipts(standings, quorum, when_away, 3.0, made.clock, rig.now)
        rig.ca.issuance.receipts = made.receipts
        return made

    def begun(self, **more: Any) -> "Deferred[Any]":
        """A request that is under way."""
        csr = build_csr(key(9), BACKEND)
        sign = self.rig.ca.certificates.sign
        return Deferred.fromCoroutine(sign(ADMIN, csr, str(BACKEND), None, **more))

    def look(self) -> list[Any]:
        """What is on record."""
        store = self.rig.store.store
        return list(self.rig.calls.result(store.list(Query(now=self.rig.time))).certificates)

    def is_settled(self) -> bool:
        """Whether no intent is open, after housekeeping has looked."""
        result_of(self.rig.ca.write_offs.resolve())
        return self.rig.calls.result(self.rig.store.store.open_intents()) == ()
