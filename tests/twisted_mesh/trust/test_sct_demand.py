"""Receipts of logs as they are lived by: who is refused, what is remembered, who is judged again, what may be said."""

import base64
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

import pytest
from attrs import define, evolve, field
from cryptography import x509

from pki.ct.log_list import LogList, LogState
from pki.ct.precertificate import with_scts
from pki.ct.receipt import FUTURE, SctDemand
from pki.ct.sct import SignedCertificateTimestamp
from pki.errors import Problem
from pki.spiffe import SpiffePattern
from pki.svid.bundle import BundleSet
from pki.svid.pin import Fingerprint, RootPin
from pki.svid.x509svid import Purpose, X509Svid
from tests.twisted_mesh.peers import FACTS
from tests.twisted_mesh.recording import RecordingLog
from tests.twisted_mesh.trust.test_reviewer import Judged
from twisted_mesh.interfaces import TrustUpdate
from twisted_mesh.testing import Clock, MemoryCa, MemoryLog, at_once, list_of, with_receipts
from twisted_mesh.testing.memory_log import signed_anew
from twisted_mesh.trust.connections import ConnectionRegistry, Peer
from twisted_mesh.trust.judge import Judge
from twisted_mesh.trust.pinned_judge import PinnedJudge
from twisted_mesh.trust.store import TrustStore
from twisted_mesh.trust.trust import Trust

A, B, C = (MemoryLog(name) for name in "abc")
EVERYBODY = (SpiffePattern.parse("spiffe://mesh.test/**"),)


def id_of(log: MemoryLog) -> str:
    return base64.b64encode(log.log.log_id).decode()


@define(eq=False)
class Rig:
    clock: Clock = field(factory=Clock)
    ca: MemoryCa = field(init=False)
    log: RecordingLog = field(factory=RecordingLog)
    judge: Judge = field(init=False)
    store: TrustStore = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.ca = MemoryCa(clock=self.clock, logs=(A, B))
        trust = Trust(BundleSet.of(self.ca.bundle), allow=EVERYBODY)
        self.judge = Judge(self.clock.now, trust)
        self.store = TrustStore(
            self.judge, ConnectionRegistry(), self.clock, self.clock.now, self.log
        )
        self.require(2, A, B)

    def require(self, number: int, *logs: MemoryLog) -> None:
        self.store.require_scts(SctDemand(number, list_of(logs, self.clock.now())))

    def codes(self, svid: X509Svid, purpose: Purpose = Purpose.CLIENT) -> list[str]:
        return [str(problem.code) for problem in self.problems(svid, purpose)]

    def problems(self, svid: X509Svid, purpose: Purpose = Purpose.CLIENT) -> tuple[Problem, ...]:
        return self.judge.verdict(svid.chain, purpose).problems

    def receipt(
        self, svid: X509Svid, log: MemoryLog = A, **ahead: float
    ) -> SignedCertificateTimestamp:
        at = self.clock.now() + timedelta(**ahead)
        return log.receipt(svid.leaf, self.ca.issuing.certificate, at)

    def with_receipts(self, svid: X509Svid, *scts: SignedCertificateTimestamp) -> X509Svid:
        return with_receipts(svid, self.ca.issuing, scts)


@pytest.fixture
def rig() -> Rig:
    return Rig()


# Who is refused.


def test_a_logged_certificate_is_let_in_and_one_past_the_logs_is_not(rig: Rig) -> None:
    for purpose in (Purpose.CLIENT, Purpose.SERVER):
        assert rig.codes(rig.ca.issue("shop"), purpose) == []
        assert rig.codes(rig.ca.issue("shop", logs=()), purpose) == ["no-sct"]
        assert rig.codes(rig.ca.issue("shop", logs=(A,)), purpose) == ["no-sct"]


def test_the_ca_is_exempt_from_nothing(rig: Rig) -> None:
    name = "spiffe://mesh.test/mesh/ca"
    assert rig.codes(rig.ca.issue(name, logs=()), Purpose.SERVER) == ["no-sct"]
    assert rig.codes(rig.ca.issue(name), Purpose.SERVER) == []


def flipped(sct: SignedCertificateTimestamp) -> SignedCertificateTimestamp:
    damaged = bytearray(sct.signature)
    damaged[-1] ^= 1
    return evolve(sct, signature=bytes(damaged))


#: What is wrong with the second of two receipts, the first of which is good; and what is said of it.
BAD: dict[str, tuple[Callable[[Rig, X509Svid], SignedCertificateTimestamp], str]] = {
    "of a log that is not known": (lambda rig, svid: rig.receipt(svid, C), "not known here"),
    "from the future": (lambda rig, svid: rig.receipt(svid, B, minutes=6), "from the future"),
    "with a bit flipped": (lambda rig, svid: flipped(rig.receipt(svid, B)), "signed by that log"),
    "for another certificate": (
        lambda rig, svid: rig.receipt(rig.ca.issue("shop"), B),
        "is for something else",
    ),
    "with another time than was signed": (
        lambda rig, svid: evolve(rig.receipt(svid, B), timestamp=1),
        "is for something else",
    ),
    "by the name of a log and the key of another": (
        lambda rig, svid: evolve(rig.receipt(svid, C), log_id=B.log.log_id),
        "signed by that log's key",
    ),
    "a second of the same log": (lambda rig, svid: rig.receipt(svid, A), "has another"),
    "for the same under another CA": (
        lambda rig, svid: B.receipt(svid.leaf, MemoryCa().issuing.certificate, rig.clock.now()),
        "is for something else",
    ),
}


@pytest.mark.parametrize("what", BAD)
def test_a_bad_receipt_does_not_count(rig: Rig, what: str) -> None:
    make, words = BAD[what]
    svid = rig.ca.issue("shop", logs=())
    shown = rig.with_receipts(svid, rig.receipt(svid), make(rig, svid))
    (problem,) = rig.problems(shown)
    assert problem.code == "no-sct"
    assert words in problem.detail
    rig.require(1, A, B)
    assert rig.codes(shown) == [], "the other one is good"


def test_a_final_certificate_that_differs_from_what_was_logged_has_no_receipts(rig: Rig) -> None:
    logged, other = rig.ca.issue("shop", logs=()), rig.ca.issue("admin", logs=())
    scts = [rig.receipt(logged, log) for log in (A, B)]
    assert rig.codes(rig.with_receipts(logged, *scts)) == []
    assert rig.codes(rig.with_receipts(other, *scts)) == ["no-sct"]


@pytest.mark.parametrize(
    "told",
    [b"", b"\0\0", b"\0\4\0\2\0\0", b"\0\3\0\1\7", b"\xff\xff", b"\0\1\0\0\1"],
)
def test_a_list_of_receipts_that_cannot_be_read_is_none(rig: Rig, told: bytes) -> None:
    """Though the CA has signed it."""
    svid = rig.ca.issue("shop", logs=())
    tbs = with_scts(svid.leaf.tbs_certificate_bytes, told)
    leaf = at_once(signed_anew(svid.leaf, tbs, rig.ca.issuing))
    assert rig.codes(evolve(svid, leaf=leaf))
    assert rig.codes(rig.ca.issue("shop")) == []


def test_a_retired_log_counts_for_what_it_has_signed_before(rig: Rig) -> None:
    svid, end = rig.ca.issue("shop"), rig.clock.now() + timedelta(minutes=1)
    retired = LogList((A.log, B.log.retired(LogState.RETIRED, end)), rig.clock.now())
    rig.store.require_scts(SctDemand(2, retired))
    assert rig.codes(svid) == []
    rig.clock.advance(120)
    assert rig.codes(rig.ca.issue("shop")) == ["no-sct"]
    assert rig.codes(svid) == []


def test_receipts_let_nobody_in(rig: Rig) -> None:
    """And whoever no CA of ours vouches for is not worth looking at: a log signs what it is shown."""
    stranger = MemoryCa(clock=rig.clock, logs=(A, B))
    assert rig.codes(stranger.issue("shop")) == ["unknown-authority"]
    rig.store.allow([])
    assert rig.codes(rig.ca.issue("shop")) == ["not-authorized"]
    assert rig.codes(rig.ca.issue("shop", logs=())) == ["not-authorized", "no-sct"]


def test_a_stolen_ca_that_brings_its_own_log_gains_nothing(rig: Rig) -> None:
    own = (MemoryLog("a"), MemoryLog("b"))
    stolen = rig.ca.issue("shop", logs=own)
    assert rig.codes(stolen) == ["no-sct"]
    before = rig.store.trust.demand
    # There is no word in the feed for a log; what it withdraws only takes away.
    rig.store.update(TrustUpdate(withdrawn_logs=frozenset(map(id_of, own))))
    assert rig.store.trust.demand is before
    assert rig.codes(stolen) == ["no-sct"]


def test_a_root_that_is_known_by_its_fingerprint_is_met_by_a_logged_ca_alone(rig: Rig) -> None:
    root, name = rig.ca.root.certificate, "spiffe://mesh.test/mesh/ca"
    pin = RootPin(Fingerprint.of(root), rig.ca.trust_domain)
    trust = Trust(allow=EVERYBODY, demand=rig.store.trust.demand)
    judge = PinnedJudge(rig.clock.now, trust, pin=pin)
    stolen, logged = rig.ca.issue(name, logs=()), rig.ca.issue(name)
    verdict = judge.verdict((*stolen.chain, root), Purpose.SERVER)
    assert [str(problem.code) for problem in verdict.problems] == ["no-sct"]
    assert judge.pin is pin, "nothing is believed by that"
    assert judge.verdict((*logged.chain, root), Purpose.SERVER).ok
    assert judge.pin is None
    assert not judge.verdict((*stolen.chain, root), Purpose.SERVER).ok


# What is remembered.


class Counting(SctDemand):
    asked = 0

    def problems(self, path: Sequence[x509.Certificate], now: datetime) -> tuple[Problem, ...]:
        type(self).asked += 1
        return super().problems(path, now)


def test_a_verdict_is_remembered_good_or_bad(rig: Rig) -> None:
    Counting.asked = 0
    rig.store.require_scts(Counting(2, list_of((A, B), rig.clock.now() + timedelta(seconds=1))))
    good, bad = rig.ca.issue("shop"), rig.ca.issue("shop", logs=(A,))
    for _ in range(5):
        rig.clock.advance(10)
        assert (rig.codes(good), rig.codes(bad)) == ([], ["no-sct"])
    assert Counting.asked == 2


def test_a_refusal_for_the_future_ends_when_that_is_there(rig: Rig) -> None:
    svid = rig.ca.issue("shop", logs=(B,))
    sct = rig.receipt(svid, A, minutes=8)
    shown = rig.with_receipts(svid, sct, rig.receipt(svid, B))
    assert rig.codes(shown) == ["no-sct"]
    rig.clock.advance(179)
    assert rig.codes(shown) == ["no-sct"]
    rig.clock.advance(2)
    assert sct.at <= rig.clock.now() + FUTURE
    assert rig.codes(shown) == []


# Who is judged again.


def connected(rig: Rig, svid: X509Svid) -> Judged:
    peer = Peer(svid.spiffe_id, (*svid.chain, rig.ca.root.certificate), FACTS, 1)
    connection = Judged(peer, judge=rig.judge)
    rig.store.registry.add(connection)
    return connection


def test_a_log_that_the_feed_withdraws_counts_no_more_and_ends_connections(rig: Rig) -> None:
    rig.require(1, A, B)
    of_a, of_both = rig.ca.issue("shop", logs=(A,)), rig.ca.issue("shop")
    open_a, open_both = connected(rig, of_a), connected(rig, of_both)
    rig.store.update(TrustUpdate(withdrawn_logs=frozenset((id_of(A),))))
    assert open_a.severed == ["no-sct"]
    assert not open_both.severed
    assert (rig.codes(of_a), rig.codes(of_both)) == (["no-sct"], [])
    assert "do not count any more: a" in rig.log.text("logs-withdrawn")
    # Neither silence nor the same list once more brings it back.
    rig.store.update(TrustUpdate())
    rig.require(1, A, B)
    assert rig.codes(of_a) == ["no-sct"]
    assert rig.log.count("scts-unmeetable") == 0


def test_where_too_few_logs_are_left_nobody_is_let_in_and_that_is_said(rig: Rig) -> None:
    open_one = connected(rig, rig.ca.issue("shop"))
    rig.store.update(TrustUpdate(withdrawn_logs=frozenset((id_of(B),))))
    assert rig.codes(rig.ca.issue("shop")) == ["no-sct"]
    assert open_one.severed == ["no-sct"]
    assert "nobody can connect" in rig.log.text("scts-unmeetable")


def test_a_list_that_was_read_again_counts_for_those_who_are_connected(rig: Rig) -> None:
    svid = rig.ca.issue("shop")
    open_one = connected(rig, svid)
    rig.require(2, A, B, C)
    assert not open_one.severed
    rig.require(3, A, B, C)
    assert open_one.severed == ["no-sct"]
    assert rig.codes(svid) == ["no-sct"]


def test_what_we_show_is_not_held_to_what_we_demand(rig: Rig) -> None:
    ours = rig.ca.issue("shop", logs=())
    assert rig.store.trust.judge_ours(ours, rig.clock.now()).ok
    assert rig.judge.on_ours(ours.chain).ok


def test_who_follows_up_receipts_hears_of_each_peer_once(rig: Rig) -> None:
    seen: list[str] = []
    rig.judge.sct_watch = lambda demand, verdict: seen.append(str(verdict.spiffe_id))
    good, bad = rig.ca.issue("shop"), rig.ca.issue("till", logs=())
    for _ in range(3):
        rig.codes(good)
        rig.codes(bad)
    assert seen == ["spiffe://mesh.test/service/shop"]


def test_the_log_says_what_is_demanded_at_the_start(rig: Rig) -> None:
    rig.store.startService()
    rig.store.stopService()
    assert "receipts (SCTs) of 2 of these logs: a, b" in rig.log.text("scts-required")
