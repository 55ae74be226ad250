"""An issuer as a test wants it, and a reactor whose clock and descriptors the test turns."""

import select
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from attrs import define, evolve, field
from cryptography import x509
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFDSet, IReadDescriptor
from twisted.internet.task import Clock
from zope.interface import implementer

from pki.errors import PkiError
from pki.keys import KeyAlgorithm, MemoryKey
from pki.policy.entry import EntryMembers, RegistrationEntry, read_entry
from pki.policy.selector import Selector
from pki.spiffe import SpiffeId, TrustDomain
from pki.svid.bundle import BundleSet
from pki.svid.x509svid import X509Svid
from tests.authorities import HOUR, MESH, NOW, mesh
from tests.running import PATIENCE
from twisted_mesh.runtime.watchers import Watchers
from twisted_mesh.workload.interface import (
    Bundles,
    IWorkloadIssuer,
    JwtSvid,
    Snapshot,
    Sources,
)


@implementer(IReactorFDSet)
class Turning(Clock):
    """A clock, whose :meth:`turn` waits for a descriptor to be readable."""

    def __init__(self) -> None:
        super().__init__()
        self.readers: list[IReadDescriptor] = []

    def addReader(self, reader: IReadDescriptor) -> None:
        self.readers.append(reader)

    def removeReader(self, reader: IReadDescriptor) -> None:
        if reader in self.readers:
            self.readers.remove(reader)

    def addWriter(self, writer: object) -> None:
        raise AssertionError("nobody writes here")

    removeWriter = addWriter

    def removeAll(self) -> list[object]:
        raise AssertionError("nobody wants that here")

    getReaders = getWriters = removeAll

    def turn(self, seconds: float = PATIENCE) -> None:
        """Tell the readers whose descriptors come to be readable in that time."""
        poll = select.poll()
        by_number = {reader.fileno(): reader for reader in self.readers}
        for number in by_number:
            poll.register(number, select.POLLIN)
        for number, _ in poll.poll(seconds * 1000):
            by_number[number].doRead()

    def now(self) -> datetime:
        return NOW + timedelta(seconds=self.seconds())


def entry(
    name: str = "web", *selectors: str, spiffe_id: str = "", ttl: str | None = None
) -> RegistrationEntry:
    said = EntryMembers(
        selectors=list(selectors) or ["unix:uid:1000"],
        spiffe_id=spiffe_id or f"spiffe://{MESH}/service/{name}",
        ttl=ttl,
    )
    return read_entry(name, MESH, said)


@implementer(IWorkloadIssuer)
@define(eq=False, slots=False)
class FakeIssuer:
    """Signs at once, or when the test says so; raises :attr:`trouble`."""

    reactor: Turning
    now_sources: Sources = field(
        factory=lambda: Sources((), Bundles(MESH, BundleSet.of(mesh().bundle)))
    )
    trust_domain: TrustDomain = MESH
    agent: str | None = "node-1"
    trouble: PkiError | None = None
    lifetime: timedelta = HOUR
    waits: bool = False
    waiting: list[Deferred[None]] = field(factory=list)
    asked: list[tuple[str, frozenset[Selector]]] = field(factory=list)
    tokens: list[tuple[str, tuple[str, ...]]] = field(factory=list)
    signed: str = ""
    """The text of tokens, where that matters."""
    revoked: list[X509Svid] = field(factory=list)
    path: tuple[x509.Certificate, ...] | None = None
    """That is to be served."""
    watchers: Watchers = field(factory=Watchers)

    def sources(self) -> Sources:
        return self.now_sources

    def watch(self, changed: Callable[[], None]) -> Callable[[], None]:
        return self.watchers.add(changed)

    def say(self, **changes: object) -> None:
        """Other sources from now on."""
        self.now_sources = evolve(self.now_sources, **changes)
        self.watchers.tell()

    def answer(self) -> None:
        """Let those go on that wait."""
        waiting, self.waiting = self.waiting, []
        for one in waiting:
            if not one.called:
                one.callback(None)

    def is_revoked(self, svid: X509Svid) -> bool:
        return svid in self.revoked

    def as_served(self, svid: X509Svid) -> X509Svid:
        is_same = self.path in (None, svid.intermediates)
        return svid if is_same else evolve(svid, intermediates=self.path)

    async def issue(
        self, entry: RegistrationEntry, selectors: frozenset[Selector], algorithm: KeyAlgorithm
    ) -> X509Svid:
        self.asked.append((entry.id, selectors))
        if self.waits:
            self.waiting.append(Deferred())
            await self.waiting[-1]
        if self.trouble is not None:
            raise self.trouble
        key = MemoryKey.generate(algorithm)
        spiffe_id = SpiffeId.parse(str(entry.spiffe_id.fill(selectors)))
        leaf = await mesh().issuing.sign(
            mesh().issuing.draft(key.public_key, spiffe_id, self.reactor.now(), self.lifetime)
        )
        return X509Svid.assemble([leaf, mesh().issuing.certificate], key)

    async def issue_jwt(
        self,
        entry: RegistrationEntry,
        selectors: frozenset[Selector],
        audience: Sequence[str],
        ttl: timedelta | None,
    ) -> JwtSvid:
        self.tokens.append((entry.id, tuple(audience)))
        if self.waits:
            self.waiting.append(Deferred())
            await self.waiting[-1]
        if self.trouble is not None:
            raise self.trouble
        spiffe_id = SpiffeId.parse(str(entry.spiffe_id.fill(selectors)))
        ends = self.reactor.now() + (ttl or timedelta(minutes=5))
        return JwtSvid(spiffe_id, self.signed or f"token {len(self.tokens)}", ends)


@define(eq=False)
class Told:
    """What a stream was told."""

    snapshots: list[Snapshot] = field(factory=list)

    def __call__(self, snapshot: Snapshot) -> None:
        self.snapshots.append(snapshot)

    @property
    def last(self) -> Snapshot:
        return self.snapshots[-1]

    @property
    def ids(self) -> list[str]:
        """Of the last."""
        return [one.svid.spiffe_id.path for one in self.last.svids]

    @property
    def refused(self) -> tuple[bool, str]:
        """Whether for good, and why."""
        assert self.last.refusal is not None
        assert not self.last.svids
        return self.last.refusal.is_final, str(self.last.refusal.problem)
