"""An identity of the standard library's ssl serves by the path that the CA tells, and by none that is revoked."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from attrs import define, field
from cryptography import x509

from pki.spiffe import SpiffeId
from pki.svid.bundle import BundleSet, TrustBundle
from pki.svid.pin import Fingerprint, RootPin
from pki.svid.revocation_set import Revocation, RevocationSet
from pki.svid.x509svid import X509Svid
from tests.authorities import DAY, HOUR, MESH, der, key, mesh, overlap, revocation_of
from tests.twisted_mesh.stdlib.standing import Memory
from twisted_mesh.api.trust_news import TrustNews
from twisted_mesh.api.trust_question import Belief
from twisted_mesh.http.address import CaAddress
from twisted_mesh.identity.saved_svid import SavedSvid, identity_path
from twisted_mesh.interfaces import Identity
from twisted_mesh.runtime.clock import wall_clock
from twisted_mesh.stdlib import NoIdentity, PeerRefused
from twisted_mesh.stdlib.ca_connection import CaConnection
from twisted_mesh.stdlib.guard import _presented
from twisted_mesh.stdlib.identity import SPREAD, JoinedIdentity
from twisted_mesh.stdlib.source import BlockingSource
from twisted_mesh.trust.trust import Trust

START = wall_clock()
BOTH = overlap(START)
OLD, NEW = (BOTH.by_old.certificate,), (BOTH.by_new.certificate,)
WEB = SpiffeId.parse("spiffe://mesh.local/service/web")
ROOTS = BOTH.bundle.roots
OLD_GONE = revocation_of(BOTH.old, BOTH.old.certificate, START + DAY)


@define(eq=False)
class Source:
    """A CA, as the thread of an identity asks it."""

    spiffe_id: SpiffeId = WEB
    chain: tuple[x509.Certificate, ...] = OLD
    belief: Any = None
    told: list[TrustNews] = field(factory=list)
    served: list[tuple[X509Svid, Trust]] = field(factory=list)
    ca: Any = field(
        factory=lambda: SimpleNamespace(
            address="the test", believe=lambda trust: None, interrupt=int, hang_up=int
        )
    )

    def obtain(self) -> Identity:
        draft = BOTH.by_old.draft(
            key(9).public_key, self.spiffe_id, wall_clock(), HOUR, dns_names=["localhost"]
        )
        leaf = asyncio.run(BOTH.by_old.sign(draft))
        svid = X509Svid.assemble((leaf, *self.chain), key(9))
        return Identity(svid, BundleSet.of(BOTH.bundle), wall_clock())

    def news(self, wait: int = 0) -> TrustNews:
        return self.told.pop(0) if self.told else news()

    def serve(self, svid: X509Svid, trust: Trust) -> None:
        self.served.append((svid, trust))


def news(
    *revoked: Revocation,
    path: tuple[x509.Certificate, ...] | None = None,
    roots: tuple[x509.Certificate, ...] = ROOTS,
    sequence: int = 3,
) -> TrustNews:
    bundles = BundleSet.of(TrustBundle(MESH, roots, sequence))
    told = None if path is None else {BOTH.key_id: path}
    return TrustNews("s", 1, bundles, revoked, issuers=told)


@pytest.fixture
def source() -> Source:
    return Source()


@pytest.fixture
def web(source: Source) -> Iterator[JoinedIdentity]:
    identity = JoinedIdentity(source)  # type: ignore[arg-type]
    identity._renew()
    yield identity
    identity.close()


def shown(identity: JoinedIdentity) -> list[bytes]:
    """What a client sees of it, in a handshake."""
    client = JoinedIdentity(Source(chain=NEW))  # type: ignore[arg-type]
    client._renew()
    try:
        memory = Memory.between(identity.server_context(str(WEB)), client.client_context(str(WEB)))
        memory.shake_hands()
        guard: Any = memory.client._sslobj  # type: ignore[attr-defined]
        return list(_presented(guard._raw))
    finally:
        client.close()


def test_the_same_certificate_is_shown_by_the_path_that_is_told(
    web: JoinedIdentity, source: Source
) -> None:
    leaf = web.svid.leaf
    assert shown(web) == [der(leaf), der(OLD[0])]
    assert web._believe(news(path=NEW))
    assert shown(web) == [der(leaf), der(NEW[0])]
    assert web.rotations == 0
    svid, _ = source.served[-1]
    assert svid.chain == (leaf, *NEW), "the CA is shown it, and it is kept"
    assert not web._believe(news(path=NEW))
    assert web._believe(news(path=OLD)), "and back"
    assert shown(web) == [der(leaf), der(OLD[0])]


def test_the_ca_is_told_what_is_believed_and_shown(web: JoinedIdentity, source: Source) -> None:
    belief = source.belief()
    assert isinstance(belief, Belief)
    assert (belief.holds, belief.top) == (3, str(Fingerprint.of(BOTH.old.certificate)))
    web._believe(news(path=NEW, sequence=4))
    after = source.belief()
    assert (after.holds, after.top) == (4, str(Fingerprint.of(BOTH.new.certificate)))
    assert after.instance == belief.instance
    assert JoinedIdentity(Source())._belief() is None  # type: ignore[arg-type]


@pytest.mark.parametrize("path", [(mesh().issuing.certificate,), (*NEW, *OLD), NEW * 11])
def test_a_path_that_peers_would_refuse_is_not_shown(
    web: JoinedIdentity, path: tuple[x509.Certificate, ...], caplog: pytest.LogCaptureFixture
) -> None:
    web._believe(news(path=path))
    assert not web._believe(news(path=path)), "it is known"
    assert web.svid.intermediates == OLD
    assert caplog.text.count("is not served") == 1


@pytest.mark.parametrize(
    "gone",
    [OLD_GONE, revocation_of(BOTH.old, OLD[0], START + DAY)],
    ids=["root", "issuing CA"],
)
def test_what_rests_on_a_revoked_ca_is_shown_to_nobody_and_replaced_soon(
    web: JoinedIdentity, source: Source, gone: Revocation
) -> None:
    client = JoinedIdentity(Source(chain=NEW))  # type: ignore[arg-type]
    client._renew()
    memory = Memory.between(web.server_context(str(WEB)), client.client_context(str(WEB)))
    memory.shake_hands()
    assert web._believe(news(gone))
    with pytest.raises(PeerRefused, match="revoked"):
        memory.server.write(b"not any more")
    with pytest.raises(NoIdentity, match="revoked"):
        shown(web)
    assert web._timetable.is_due
    assert 0 <= web._timetable.retry_at - time.monotonic() <= SPREAD
    source.chain, source.told = NEW, [news(gone)]
    web._rotate()
    assert shown(web)[1] == der(NEW[0])
    client.close()


def test_a_distrusted_root_is_left_without_a_gap_where_there_is_another_path(
    web: JoinedIdentity,
) -> None:
    leaf = web.svid.leaf
    assert web._believe(news(OLD_GONE, path=NEW, roots=(BOTH.new.certificate,)))
    assert web.svid.chain == (leaf, *NEW)
    assert shown(web)[0] == der(leaf)


# The next life.


def test_options_that_name_the_old_root_are_answered_by_what_was_believed_last(
    tmp_path: Path,
) -> None:
    pin = RootPin(Fingerprint.of(BOTH.old.certificate), MESH)

    def life() -> BlockingSource:
        address = CaAddress.parse("https://ca.example:8443")
        kept = SavedSvid(identity_path(tmp_path / "state", "who"))
        source = BlockingSource(
            CaConnection(address, MESH, 1.0, pin=pin), WEB, wall_clock, kept=kept
        )
        source.recall()
        return source

    first = life()
    assert first.ca.pin == pin, "nothing was kept yet"
    svid = Source(chain=NEW).obtain().svid
    for roots in ([BOTH.old, BOTH.new], [BOTH.new]):
        first.serve(svid, Trust(BundleSet.of(BOTH.bundle_of(*roots))))
    second = life()
    assert second.ca.pin is None
    assert list(second.ca.bundles.all_roots) == [BOTH.new.certificate]
    revoked = RevocationSet().merged([OLD_GONE], START)
    second.serve(svid, Trust(BundleSet.of(BOTH.bundle_of(BOTH.new)), revoked))
    third = life()
    assert third.ca.pin == pin, "it was distrusted: that line leads nowhere"
    assert third.ca.revocations.find(OLD_GONE.issuer, OLD_GONE.serial)


def test_a_ca_is_believed_by_what_is_believed_of_all() -> None:
    ca = CaConnection(CaAddress.parse("https://ca.example:8443"), MESH, 1.0)
    ca.believe(Trust())
    assert not list(ca.bundles), "nobody is believed by nothing"
    ca.believe(Trust(BundleSet.of(BOTH.bundle)))
    revoked = RevocationSet().merged([OLD_GONE], START)
    ca.believe(Trust(BundleSet.of(BOTH.bundle), revoked))
    assert ca.revocations is revoked
