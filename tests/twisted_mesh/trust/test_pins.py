"""Pins as they are lived by: who is refused or reported, who is judged again, and what is said of it, each once."""

from collections.abc import Sequence
from datetime import datetime, timedelta

import pytest
from attrs import define, evolve, field
from cryptography import x509
from twisted.internet.task import Clock

from pki.codes import Code
from pki.keys import spki_der
from pki.spiffe import SpiffePattern
from pki.svid.bundle import BundleSet
from pki.svid.chain import Verdict
from pki.svid.revocation_set import Reason, Revocation
from pki.svid.spki_pin import PinSet, SpkiHash
from pki.svid.x509svid import Purpose, X509Svid
from pki.validity import rfc3339
from tests.authorities import BACKEND, DAY, HOUR, MESH, NOW, OTHER, Mesh, der, forge, key, mesh
from tests.twisted_mesh.peers import peer_of
from tests.twisted_mesh.recording import RecordingLog
from tests.twisted_mesh.trust.test_reviewer import Judged
from twisted_mesh.interfaces import TrustUpdate
from twisted_mesh.trust.connections import ConnectionRegistry
from twisted_mesh.trust.judge import Judge
from twisted_mesh.trust.store import TICK, TrustStore
from twisted_mesh.trust.trust import Trust


def long_lived(of: Mesh) -> x509.Certificate:
    spiffe_id = of.trust_domain.member("service", "backend")
    return forge(of.issuing, uris=[str(spiffe_id)], end=NOW + 1000 * HOUR)


CA = mesh()
ROOT, ISSUING = SpkiHash.of(CA.root.certificate), SpkiHash.of(CA.issuing.certificate)
BACKUP, ANOTHER = (SpkiHash.of_spki(spki_der(key(name).public_key)) for name in ("backup", "other"))
LEAF = long_lived(CA)
CHAIN = (LEAF, *CA.issuing.intermediates)


def pins(
    *hashes: SpkiHash, mode: str = "enforce", until: datetime = NOW + 100 * HOUR, who: str = "**"
) -> PinSet:
    rule = f"{MESH.id}/{who}={','.join(map(str, hashes))}"
    return PinSet.parse([rule], mode, rfc3339(until), now=NOW)


@define(eq=False)
class Rig:
    time: datetime = NOW
    clock: Clock = field(factory=Clock)
    log: RecordingLog = field(factory=RecordingLog)
    judge: Judge = field(init=False)
    store: TrustStore = field(init=False)

    def __attrs_post_init__(self) -> None:
        everyone = tuple(map(SpiffePattern.parse, (f"{MESH.id}/**", f"{OTHER.id}/**")))
        bundles = CA.bundles.with_bundle(mesh(OTHER).bundle)
        self.judge = Judge(lambda: self.time, Trust(bundles, allow=everyone))
        self.store = TrustStore(
            self.judge, ConnectionRegistry(), self.clock, lambda: self.time, self.log
        )

    def verdict(self, chain: Sequence[x509.Certificate] = CHAIN) -> Verdict:
        return self.judge.verdict(chain, Purpose.CLIENT)

    def codes(self, chain: Sequence[x509.Certificate] = CHAIN) -> list[str]:
        return [problem.code for problem in self.verdict(chain).problems]

    def connect(self, of: Mesh = CA) -> Judged:
        connection = Judged(peer_of(LEAF if of is CA else long_lived(of), of), judge=self.judge)
        self.store.registry.add(connection)
        return connection

    def tick(self, to: datetime) -> None:
        self.time = to
        self.clock.advance(TICK)


@pytest.fixture
def rig() -> Rig:
    return Rig()


# Who is refused.


def test_a_peer_that_breaks_pins_is_refused_where_they_are_enforced(rig: Rig) -> None:
    rig.store.pin(pins(ROOT, BACKUP))
    assert rig.codes() == []
    rig.store.pin(pins(BACKUP, ANOTHER))
    assert rig.codes() == ["pin-mismatch"]
    rig.store.pin(PinSet())
    assert rig.codes() == []


def test_pins_let_nobody_in(rig: Rig) -> None:
    rig.store.pin(pins(ROOT, BACKUP))
    rig.store.allow([])
    assert rig.codes() == ["not-authorized"]
    stranger = mesh(root_key=key("a stranger's root"), issuing_key=key("a stranger's CA"))
    rig.store.pin(pins(SpkiHash.of(stranger.root.certificate), BACKUP))
    assert "unknown-authority" in rig.codes((stranger.leaf(), *stranger.issuing.intermediates))


def test_all_reasons_are_told_at_once(rig: Rig) -> None:
    rig.store.pin(pins(BACKUP, ANOTHER))
    rig.store.allow([])
    rig.time = NOW + 99 * HOUR
    short = CA.leaf()
    assert rig.codes((short, *CHAIN[1:])) == ["expired", "not-authorized", "pin-mismatch"]


def test_a_pin_of_the_leaf_alone_does_not_count(rig: Rig) -> None:
    rig.store.pin(pins(SpkiHash.of(LEAF), BACKUP))
    assert rig.codes() == ["pin-mismatch"]


def test_a_certificate_that_was_merely_sent_along_does_not_count(rig: Rig) -> None:
    """A stolen or forged chain may carry any certificate that is pinned: only what vouches counts."""
    other = mesh(OTHER)
    rig.store.pin(pins(SpkiHash.of(other.root.certificate), BACKUP))
    assert rig.codes((*CHAIN, other.root.certificate)) == ["pin-mismatch"]


def test_a_pinned_key_that_is_revoked_is_told_as_revoked_and_nothing_else(rig: Rig) -> None:
    rig.store.pin(pins(ISSUING, BACKUP))
    connection = rig.connect()
    revocation = Revocation(
        CA.root.key_id,
        CA.issuing.certificate.serial_number,
        NOW,
        Reason.CA_COMPROMISE,
        NOW + HOUR,
    )
    rig.store.update(TrustUpdate((revocation,), withdrawn_pins=frozenset((str(ISSUING),))))
    assert connection.severed == ["revoked"]
    assert rig.codes() == ["revoked"]


def test_our_own_chain_is_not_held_to_our_pins(rig: Rig) -> None:
    rig.store.pin(pins(BACKUP, ANOTHER))
    ours = X509Svid(LEAF, CHAIN[1:], key(9), BACKEND)
    assert rig.store.trust.judge_ours(ours, NOW).ok
    assert rig.judge.on_ours(CHAIN).ok


# Who is judged again.


def test_whoever_breaks_new_pins_is_cut_and_nobody_else_is_even_judged(rig: Rig) -> None:
    ours, theirs = rig.connect(), rig.connect(mesh(OTHER))
    rig.store.pin(pins(ROOT, BACKUP))
    assert (ours.judged, theirs.judged) == (0, 0), "who meets them is not judged for it"
    rig.store.pin(pins(BACKUP, ANOTHER))
    assert (ours.severed, theirs.judged) == (["pin-mismatch"], 0)


def test_a_pin_that_is_withdrawn_cuts_whoever_rested_on_it(rig: Rig) -> None:
    rig.store.pin(pins(ROOT, BACKUP))
    connection = rig.connect()
    rig.store.update(TrustUpdate(withdrawn_pins=frozenset((str(ANOTHER),))))
    assert connection.judged == 0, "nobody has pinned it"
    rig.store.update(TrustUpdate(withdrawn_pins=frozenset((str(ROOT), str(ANOTHER)))))
    assert connection.severed == ["pin-mismatch"]


def test_a_feed_that_would_widen_pins_does_not(rig: Rig) -> None:
    rig.store.pin(pins(ROOT, BACKUP))
    rig.store.update(TrustUpdate(withdrawn_pins=frozenset((str(ROOT),))))
    for said in (frozenset[str](), frozenset((str(ANOTHER),))):
        rig.store.update(TrustUpdate(withdrawn_pins=said))
        assert rig.codes() == ["pin-mismatch"]
    rig.store.pin(pins(ROOT, BACKUP, ANOTHER))
    assert rig.codes() == ["pin-mismatch"], "nor does whoever has them read again"


def test_what_was_withdrawn_before_it_was_pinned_counts_too(rig: Rig) -> None:
    rig.store.update(TrustUpdate(withdrawn_pins=frozenset((str(ROOT),))))
    rig.store.pin(pins(ROOT, BACKUP))
    assert rig.codes() == ["pin-mismatch"]


def test_a_feed_that_withdraws_all_shuts_the_door_until_a_person_opens_it(rig: Rig) -> None:
    rig.store.pin(pins(ROOT, BACKUP))
    connection = rig.connect()
    everything = frozenset((str(ROOT), str(BACKUP)))
    for _ in range(3):
        rig.store.update(TrustUpdate(withdrawn_pins=everything))
    assert connection.severed == ["pins-withdrawn"]
    assert rig.codes() == ["pins-withdrawn"]
    assert rig.log.count("pins-withdrawn") == 1
    assert "--peer-pin-mode to report" in rig.log.text("pins-withdrawn")
    for times in (1, 2):  # it is said each time
        rig.store.pin(pins(ROOT, BACKUP, mode="report"))
        assert rig.codes() == []
        assert rig.log.count("pins-report-only") == times
        assert rig.log.count("pins-withdrawn") == 1 + times


# The clock.


def test_at_their_end_pins_are_reported_only_and_that_is_loud(rig: Rig) -> None:
    rig.store.pin(pins(BACKUP, ANOTHER, until=NOW + DAY))
    rig.store.startService()
    rig.tick(NOW + DAY - timedelta(microseconds=1))
    assert rig.codes() == ["pin-mismatch"]
    assert rig.log.count("pins-expired") == 0
    rig.time = NOW + DAY
    assert rig.codes() == [], "whatever is remembered"
    connection = rig.connect()
    rig.tick(NOW + DAY)
    rig.tick(NOW + DAY + HOUR)
    assert rig.log.count("pins-expired") == 1
    assert (connection.judged, connection.severed) == (1, [])
    assert rig.log.count("pin-mismatch-reported") == 1, "judged again, as by pins that report"
    rig.store.stopService()


def test_a_clock_that_is_put_back_enforces_them_again(rig: Rig) -> None:
    rig.store.pin(pins(BACKUP, ANOTHER, until=NOW + DAY))
    rig.store.startService()
    rig.tick(NOW + 2 * DAY)
    judgement = rig.judge.judgement(tuple(map(der, CHAIN)), Purpose.CLIENT)
    connection = rig.connect()
    assert rig.judge.still_holds(judgement)
    rig.time = NOW
    assert not rig.judge.still_holds(judgement), "at once"
    rig.tick(NOW)
    assert connection.severed == ["pin-mismatch"]
    rig.store.stopService()


def test_their_end_is_told_beforehand_once_a_day(rig: Rig) -> None:
    rig.store.pin(pins(ROOT, BACKUP, until=NOW + 30 * DAY))
    rig.store.startService()
    for hours in range(0, 30 * 24, 6):
        rig.tick(NOW + timedelta(hours=hours))
    assert rig.log.count("pins-end-soon") == 14
    rig.store.stopService()


# What is said.


def test_what_breaks_pins_that_report_is_said_once_for_a_peer_and_a_reason(rig: Rig) -> None:
    rig.store.pin(pins(BACKUP, ANOTHER, mode="report"))
    for number in range(3):  # as with each renewal
        assert rig.codes((CA.leaf(leaf_key=key(f"leaf {number}")), *CHAIN[1:])) == []
    assert rig.log.count("pin-mismatch-reported") == 1
    (event,) = [e for e in rig.log.events if e["event"] == "pin-mismatch-reported"]
    assert (event["codes"], event["peer"]) == ("pin-mismatch", str(BACKEND))
    assert rig.codes((CA.leaf(MESH.member("service", "other")), *CHAIN[1:])) == []
    assert rig.log.count("pin-mismatch-reported") == 2
    rig.store.pin(pins(BACKUP, ANOTHER, mode="report"))
    assert rig.codes() == []
    assert rig.log.count("pin-mismatch-reported") == 3, "other pins, or the same said again"


def test_keys_that_are_announced_and_break_pins_are_told_once(rig: Rig) -> None:
    rig.store.pin(pins(ISSUING, BACKUP))
    bundle = evolve(CA.bundle, next_keys=(str(ANOTHER),))
    for _ in range(2):
        rig.store.update(TrustUpdate(bundles=BundleSet.of(bundle, mesh(OTHER).bundle)))
        rig.store.update(TrustUpdate(bundles=BundleSet.of(bundle)))
    assert rig.log.count("pins-must-move") == 1
    assert str(ANOTHER) in rig.log.text("pins-must-move")
    rig.store.pin(pins(ISSUING, ANOTHER))
    assert rig.log.count("pins-must-move") == 1
    rig.store.pin(pins(ISSUING, BACKUP))
    assert rig.log.count("pins-must-move") == 2, "it is said again when they are read again"


def test_a_stranger_has_nothing_said_of_pins(rig: Rig) -> None:
    rig.store.pin(pins(BACKUP, ANOTHER, mode="report"))
    stranger = mesh(root_key=key("a stranger's root"), issuing_key=key("a stranger's CA"))
    assert not rig.verdict((stranger.leaf(), *stranger.issuing.intermediates)).ok
    rig.store.allow([])
    assert rig.codes() == ["not-authorized"]
    assert rig.log.count("pin-mismatch-reported") == 0


def test_a_rule_without_a_backup_is_told_once_it_can_be_known(rig: Rig) -> None:
    rig.store.pin(pins(ROOT, ISSUING))
    for number in range(2):
        assert rig.codes((CA.leaf(leaf_key=key(f"leaf {number}")), *CHAIN[1:])) == []
    assert rig.log.count("pins-without-backup") == 1
    rig.store.pin(pins(ROOT, ISSUING, BACKUP))
    assert rig.codes() == []
    assert rig.log.count("pins-without-backup") == 1


@pytest.mark.parametrize(
    ("held", "event"),
    [
        (pins(ROOT, BACKUP, until=NOW + 60 * DAY), "pins-enforced"),
        (pins(ROOT, BACKUP, mode="report"), "pins-report-only"),
        (pins(ROOT, BACKUP, until=NOW - HOUR), "pins-expired"),
    ],
    ids=["enforced", "report", "ended"],
)
def test_what_pins_do_is_said_at_the_start(rig: Rig, held: PinSet, event: str) -> None:
    rig.judge.trust = evolve(rig.judge.trust, pins=held)
    rig.store.startService()
    assert rig.log.count(event) == 1
    assert len([e for e in rig.log.events if str(e["event"]).startswith("pins-")]) == 1
    rig.store.stopService()


def test_without_pins_nothing_is_said(rig: Rig) -> None:
    rig.store.startService()
    assert rig.codes() == []
    rig.store.stopService()
    assert rig.log.events == []


def test_what_was_told_is_remembered_within_bounds(rig: Rig) -> None:
    rig.store.pin(pins(BACKUP, ANOTHER, mode="report"))
    good = rig.verdict()
    watch = rig.judge.pin_watch
    for number in range(5000):
        one = evolve(good, spiffe_id=MESH.member("service", f"s{number}"))
        watch(rig.store.trust.pins, one, NOW)
    memory = rig.store._pin_log._memory._told
    assert len(memory) == 4096


def test_the_code_is_one_of_the_catalogue() -> None:
    assert Code.parse("pin-mismatch") is Code.PIN_MISMATCH
