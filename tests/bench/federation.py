"""What following other trust domains costs: memory for each, and how soon a peer's new root is believed."""

import gc
import time
from collections.abc import Callable
from pathlib import Path

from attrs import evolve

from pki.jwt_svid.jwks import JwtAuthority
from pki.keys import KeyAlgorithm, MemoryKey
from pki.spiffe import TrustDomain
from pki.svid.bundle import BundleSet, TrustBundle
from pki.svid.federated_document import FederatedDocument
from pki.svid.federation import Profile, Relationship
from pki.svid.refresh import Refresh
from pki.svid.revocation_set import RevocationSet
from tests.bench.processes import LOAD_CORE, pinned
from tests.bench.tables import Table, Value, median
from tests.twisted_mesh.federation.hostile import ok, reactor, serving, svid
from tests.twisted_mesh.grpc.sockets import turn_until
from twisted_mesh.federation.fetcher import BundleFetcher
from twisted_mesh.federation.follower import Follower
from twisted_mesh.runtime.clock import wall_clock
from twisted_mesh.runtime.log import logger
from twisted_mesh.testing import Clock, MemoryCa

_DOMAINS, _ROOTS = 1_000, 2
_log = logger("federation")


def measure(home: Path, rounds: int, say: Callable[[str], None]) -> Table:
    rows: list[dict[str, Value]] = []
    with pinned(LOAD_CORE):
        say(f"memory of {_DOMAINS:,} trust domains")
        kib, busy = _memory()
        rows.append({"": f"KiB for each of {_DOMAINS:,} trust domains", "median": kib})
        rows.append({"": "ms of one core for each answer of one", "median": busy})
        say("a new root")
        waits = [_until_believed() for _ in range(max(rounds, 3))]
        rows.append({"": "s until a new root is believed, least hint", "median": median(waits)})
    notes = (
        f"Each domain with {_ROOTS} roots and a key for JWT, P-256, published with the number 2 after the number 1.",
        f"The least hint: asked every {Refresh().least:g} s, over https_spiffe on this machine; the root is published",
        "just after an answer, so that all of the pause is in it.",
    )
    return Table("federation", "following other trust domains", tuple(rows), notes)


class _Memory:
    """Endpoints that cost nothing but what they answer."""

    def __init__(self, documents: dict[TrustDomain, bytes]) -> None:
        self.documents = documents

    async def fetch_bundle(
        self, relationship: Relationship, bundles: BundleSet, revocations: RevocationSet | None
    ) -> FederatedDocument:
        domain = relationship.trust_domain
        return FederatedDocument.parse(domain, self.documents[domain])


def _memory() -> tuple[float, float]:
    """KiB for each trust domain that is followed, and milliseconds for each answer that is read and compared."""
    documents = {}
    for number in range(_DOMAINS):
        domain = TrustDomain(f"d{number}.example")
        roots = [MemoryCa(domain).root.certificate for _ in range(_ROOTS)]
        token_key = JwtAuthority.of(MemoryKey.generate(KeyAlgorithm.EC_P256).public_key)  # type: ignore[arg-type]
        documents[domain] = TrustBundle(domain, tuple(roots), 1, 300, (token_key,)).to_jwks()
    clock = Clock()
    own = MemoryCa("own.example").bundle
    gc.collect()
    before = _resident_kib()
    follower = Follower(
        *(_Memory(documents), lambda: own, clock, clock.now, _log),
        on_bundle=lambda *_: None,
    )
    for domain in documents:
        follower.follow(Relationship(domain, f"https://{domain}/bundle", Profile.HTTPS_WEB))
    follower.startService()
    for _ in range(200):
        clock.advance(1)
    if len(follower.believed.bundles) != _DOMAINS:
        raise AssertionError("not all are believed")
    gc.collect()
    kib = (_resident_kib() - before) / _DOMAINS
    begun = time.process_time()
    for domain, document in list(documents.items()):
        documents[domain] = document.replace(b'spiffe_sequence": 1', b'spiffe_sequence": 2')
    for _ in range(300):
        clock.advance(1)
    asked = sum(state.sequence == 2 for state in follower)
    spent = time.process_time() - begun
    follower.stopService()
    return round(kib, 1), round(spent * 1000 / max(asked, 1), 2)


def _resident_kib() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise AssertionError("this system does not tell")


def _until_believed() -> float:
    """Seconds from the moment that a peer publishes its new root until it is believed here."""
    peer, anew = MemoryCa("peer.example"), MemoryCa("peer.example")
    published = [evolve(peer.bundle, sequence=1, refresh_hint=1)]
    endpoint = peer.issue("spiffe://peer.example/mesh/ca")
    believed: list[TrustBundle | None] = []
    own = MemoryCa("own.example").bundle
    fetcher = BundleFetcher(reactor(), wall_clock)
    with serving(lambda _: ok(published[0].to_jwks()), svid(endpoint)) as place:
        relationship = Relationship(
            peer.trust_domain, place.url(), Profile.HTTPS_SPIFFE, endpoint.spiffe_id
        )
        follower = Follower(
            *(fetcher, lambda: own, reactor(), wall_clock, _log),
            on_bundle=lambda _, bundle: believed.append(bundle),
        )
        follower.startService()
        follower.follow(relationship, peer.bundle)
        turn_until(lambda: len(believed) == 1)
        roots = (*peer.bundle.roots, *anew.bundle.roots)
        published[0] = evolve(published[0], roots=roots, sequence=2)
        begun = time.monotonic()
        turn_until(lambda: len(believed) == 2)
        waited = time.monotonic() - begun
        follower.stopService()
    return waited
