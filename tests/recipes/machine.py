"""A machine whose processes have identities by a CA in memory, served from a thread: its socket is a real one."""

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from attrs import define, evolve, field
from twisted.internet.selectreactor import SelectReactor
from zope.interface import implementer

from pki.crl.issue import issue_crl
from pki.errors import PkiError
from pki.keys import KeyAlgorithm, key_id
from pki.policy.entry import EntryMembers, RegistrationEntry, read_entry
from pki.policy.selector import Selector
from pki.spiffe import SpiffeId, TrustDomain
from pki.svid.bundle import BundleSet
from pki.svid.x509svid import X509Svid
from tests.recipes.estate import Identity
from tests.running import PATIENCE, is_listening, until
from tests.twisted_mesh.attest.processes import process_attestor
from twisted_mesh.grpc.server import GrpcServer
from twisted_mesh.runtime.watchers import Watchers
from twisted_mesh.state.generation import publish
from twisted_mesh.testing import Clock, MemoryCa, at_once
from twisted_mesh.workload.caller import Callers
from twisted_mesh.workload.interface import Bundles, IWorkloadIssuer, JwtSvid, Sources
from twisted_mesh.workload.sds import SecretService
from twisted_mesh.workload.workloads import Workloads

LATER = timedelta(minutes=5)


class _Now(Clock):
    """The machine's, as no outside program looks at another."""

    def now(self) -> datetime:
        return datetime.now(UTC).replace(microsecond=0)


def memory_ca(trust_domain: str) -> MemoryCa:
    return MemoryCa(trust_domain, _Now())


@implementer(IWorkloadIssuer)
@define(eq=False)
class MemoryIssuer:
    """Signs at once."""

    ca: MemoryCa
    trust_domain: TrustDomain
    now_sources: Sources
    agent: str | None = None
    _watchers: Watchers = field(factory=Watchers)

    def sources(self) -> Sources:
        return self.now_sources

    def watch(self, changed: Callable[[], None]) -> Callable[[], None]:
        return self._watchers.add(changed)

    def say(self, sources: Sources) -> None:
        self.now_sources = sources
        self._watchers.tell()

    def is_revoked(self, svid: X509Svid) -> bool:
        return False

    def as_served(self, svid: X509Svid) -> X509Svid:
        return svid

    async def issue(
        self, entry: RegistrationEntry, selectors: frozenset[Selector], algorithm: KeyAlgorithm
    ) -> X509Svid:
        spiffe_id = str(SpiffeId.parse(str(entry.spiffe_id.fill(selectors))))
        return self.ca.issue(spiffe_id, lifetime=entry.ttl or timedelta(hours=1))

    async def issue_jwt(
        self,
        entry: RegistrationEntry,
        selectors: frozenset[Selector],
        audience: Sequence[str],
        ttl: timedelta | None,
    ) -> JwtSvid:
        raise PkiError("no tokens here")


@define(eq=False)
class Machine:
    """What is there is changed from the test's thread, and told in the reactor's."""

    home: Path
    ca: MemoryCa = field(factory=lambda: memory_ca("mesh.local"))
    cas: list[MemoryCa] = field(init=False)
    """Of all trust domains that are believed."""
    reactor: SelectReactor = field(factory=SelectReactor)
    issuer: MemoryIssuer = field(init=False)
    _issued: dict[int, X509Svid] = field(factory=dict)
    _number: int = 0

    def __attrs_post_init__(self) -> None:
        self.cas = [self.ca]
        domain = self.ca.trust_domain
        self.issuer = MemoryIssuer(self.ca, domain, Sources((), self._bundles(LATER, LATER)))

    @property
    def socket(self) -> Path:
        return self.home / "workload.sock"

    def identity(self, name: str) -> Identity:
        """Files of somebody of our trust domain who has it for an hour, by another way."""
        return self.written(self.ca.issue(name))

    def written(self, svid: X509Svid) -> Identity:
        """Files of whoever believes the machine; itself it may be anybody."""
        directory = self.home / f"files-{svid.leaf.serial_number:x}"
        files = {
            "svid.pem": (svid.chain_pem(), 0o644),
            "svid_key.pem": (svid.key.to_pem(), 0o600),
            "svid_bundle.pem": (self.ca.bundle.to_pem(), 0o644),
        }
        publish(directory, files)
        found = Identity(directory)
        self._issued[found.serial] = svid
        return found

    def revoke(self, identity: Identity) -> None:
        """Have everybody told."""
        svid = self._issued[identity.serial]
        for ca in self.cas:
            if ca.trust_domain == svid.spiffe_id.trust_domain:
                ca.revoke(svid)
        self.tell_crls()

    def believe(self, ca: MemoryCa) -> None:
        """Another trust domain, of which there are CRLs as well."""
        self.cas.append(ca)
        self.tell_crls()

    def let_in(self, name: str, ttl: str | None = None, federates_with: Sequence[str] = ()) -> str:
        """Have an entry for the processes of our own user; its id."""
        said = EntryMembers(
            selectors=[f"unix:uid:{os.geteuid()}"],
            spiffe_id=f"spiffe://mesh.local/service/{name}",
            ttl=ttl,
            federates_with=list(federates_with),
        )
        entry = read_entry(f"entry-{name}", self.ca.trust_domain, said)
        self._say(lambda now: evolve(now, entries=(*now.entries, entry)))
        return entry.id

    def shut_out(self, entry_id: str) -> None:
        self._say(
            lambda now: evolve(now, entries=[each for each in now.entries if each.id != entry_id])
        )

    def tell_crls(self, root: timedelta | None = LATER, issuing: timedelta | None = LATER) -> None:
        """New CRLs that hold for so long; without that one for None."""
        bundles = self._bundles(root, issuing)
        self._say(lambda now: evolve(now, bundles=bundles))

    def _bundles(self, root: timedelta | None, issuing: timedelta | None) -> Bundles:
        crls = {ca.trust_domain: self._crls(ca, root, issuing) for ca in self.cas}
        return Bundles(
            self.ca.trust_domain, BundleSet.of(*(ca.bundle for ca in self.cas)), crls=crls
        )

    def _crls(
        self, ca: MemoryCa, root: timedelta | None, issuing: timedelta | None
    ) -> Sequence[bytes]:
        self._number += 1
        now = ca.clock.now()
        revoked = list(ca.revoked.of(key_id(ca.issuing.certificate.public_key())))
        return [
            at_once(
                issue_crl(issuer, revoked, self._number, this_update=now, next_update=now + life)
            )
            for issuer, life in ((ca.root, root), (ca.issuing, issuing))
            if life is not None
        ]

    def _say(self, changed: Callable[[Sources], Sources]) -> None:
        self.reactor.callFromThread(lambda: self.issuer.say(changed(self.issuer.now_sources)))

    @contextmanager
    def served(self) -> Iterator[None]:
        """Whoever connects is told."""
        callers = Callers(process_attestor(), self.reactor)
        workloads = Workloads(self.issuer, callers, self.reactor)
        methods = SecretService(workloads).methods()
        server = GrpcServer(self.reactor, methods, admit=workloads.caller)
        self.reactor.callWhenRunning(workloads.start)
        self.reactor.callWhenRunning(self.reactor.listenUNIX, str(self.socket), server)
        thread = threading.Thread(target=self.reactor.run, args=(False,), daemon=True)
        thread.start()
        until(lambda: is_listening(self.socket))
        try:
            yield
        finally:
            self.reactor.callFromThread(workloads.stop)
            self.reactor.callFromThread(self.reactor.stop)
            thread.join(PATIENCE)
