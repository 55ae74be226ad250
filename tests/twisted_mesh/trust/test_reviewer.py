"""Whatever is believed anew, whoever rested on the old is judged again, and nobody else is."""

import re
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from attrs import define, evolve, field
from twisted.internet.task import Clock

from pki.errors import Problem
from pki.spiffe import SpiffeId, SpiffePattern
from pki.svid.bundle import BundleSet, TrustBundle
from pki.svid.revocation_set import Reason, Revocation, RevocationSet
from pki.svid.spki_pin import PinSet, SpkiHash
from pki.svid.x509svid import Purpose
from tests.authorities import HOUR, MESH, NOW, OTHER, Mesh, forge, mesh
from tests.twisted_mesh.peers import Connected, peer_of
from tests.twisted_mesh.recording import RecordingLog
from twisted_mesh.trust.connections import ConnectionRegistry, IndexKeys
from twisted_mesh.trust.judge import Judge
from twisted_mesh.trust.reviewer import A_TURN, Reviewer
from twisted_mesh.trust.trust import Trust

CA, OTHERS = mesh(), mesh(OTHER)
HOUSE = Path(__file__).resolve().parents[3] / "twisted_mesh"


def patterns(*texts: str) -> tuple[SpiffePattern, ...]:
    return tuple(map(SpiffePattern.parse, texts))


def revoked(connection: Connected, ca: Mesh = CA) -> Revocation:
    assert connection.peer is not None
    serial = connection.peer.leaf.serial_number
    return Revocation(ca.issuing.key_id, serial, NOW, Reason.KEY_COMPROMISE, NOW + HOUR)


@define(eq=False)
class Judged(Connected):
    """A live connection that is judged by a real judge."""

    judge: Judge | None = None
    on_judged: Callable[[], object] = field(default=lambda: None)

    def objections(self) -> Sequence[Problem]:
        self.judged += 1
        self.on_judged()
        assert self.judge is not None
        assert self.peer is not None
        return self.judge.verdict(self.peer.path[:-1], Purpose.CLIENT).problems


@define(eq=False)
class Rig:
    """A reviewer, and connections of services that are named ``s0``, ``s1`` and so on."""

    time: datetime = NOW
    clock: Clock = field(factory=Clock)
    log: RecordingLog = field(factory=RecordingLog)
    registry: ConnectionRegistry = field(factory=ConnectionRegistry)
    connections: list[Judged] = field(factory=list)
    judge: Judge = field(init=False)
    reviewer: Reviewer = field(init=False)

    def __attrs_post_init__(self) -> None:
        trust = Trust(
            BundleSet.of(CA.bundle, OTHERS.bundle),
            allow=patterns("spiffe://mesh.local/**", "spiffe://other.example/**"),
        )
        self.judge = Judge(lambda: self.time, trust)
        self.reviewer = Reviewer(self.judge, self.registry, self.clock, self.log)

    def connect(self, count: int, ca: Mesh = CA, lifetime: timedelta = HOUR) -> list[Judged]:
        made = []
        for _ in range(count):
            name = f"s{len(self.connections)}"
            spiffe_id = SpiffeId.parse(f"{ca.trust_domain.id}/service/{name}")
            leaf = forge(ca.issuing, uris=[str(spiffe_id)], end=NOW + lifetime)
            connection = Judged(peer_of(leaf, ca, spiffe_id), judge=self.judge)
            self.connections.append(connection)
            self.registry.add(connection)
            made.append(connection)
        return made

    def believe(self, news: Sequence[Revocation] | None = None, **changed: object) -> None:
        self.reviewer.believe(evolve(self.judge.trust, **changed), news)

    def revoke(self, *news: Revocation, told: bool = True) -> None:
        revocations = self.judge.trust.revocations.merged(news, NOW)
        self.believe(news if told else None, revocations=revocations)

    @property
    def verdicts(self) -> int:
        """How many have been asked for so far."""
        return sum(connection.judged for connection in self.connections)

    @property
    def severed(self) -> dict[int, str]:
        """The codes by which connections were severed."""
        return {
            at: ";".join(connection.severed)
            for at, connection in enumerate(self.connections)
            if connection.severed
        }


@pytest.fixture
def rig() -> Rig:
    return Rig()


@pytest.mark.parametrize("told", [True, False])
def test_of_a_thousand_connections_only_the_revoked_one_is_judged_again(
    rig: Rig, told: bool
) -> None:
    connections = rig.connect(1000)
    rig.revoke(revoked(connections[500]), told=told)
    assert rig.verdicts == 1
    assert rig.severed == {500: "revoked"}


def test_all_connections_of_one_certificate_are_severed(rig: Rig) -> None:
    first, other = rig.connect(2)
    again = Judged(first.peer, judge=rig.judge)
    rig.registry.add(again)
    rig.revoke(revoked(first))
    assert first.severed == again.severed == ["revoked"]
    assert other.judged == 0


def test_revoking_what_nobody_rests_on_concerns_nobody(rig: Rig) -> None:
    rig.connect(3)
    strangers = Rig().connect(2, OTHERS)
    rig.revoke(*(revoked(stranger, OTHERS) for stranger in strangers))
    rig.revoke(revoked(strangers[0], CA))
    assert rig.verdicts == 0


def test_of_many_revocations_those_of_the_connected_are_looked_up(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with a CRL of another CA's that is read for the first time: longer than the list of who is connected."""
    _, hit, _ = rig.connect(3)
    asked: list[int] = []
    resting_on = ConnectionRegistry.resting_on

    def counting(registry: ConnectionRegistry, issuer: str, serial: int) -> tuple[object, ...]:
        asked.append(serial)
        return resting_on(registry, issuer, serial)

    monkeypatch.setattr(ConnectionRegistry, "resting_on", counting)
    others = [evolve(revoked(hit), serial=serial) for serial in range(1, 5000)]
    rig.revoke(*others, revoked(hit))
    assert rig.severed == {1: "revoked"}
    assert len(asked) == 1


def test_a_revoked_issuing_ca_severs_all_below_it(rig: Rig) -> None:
    rig.connect(3)
    rig.connect(1, OTHERS)
    serial = CA.issuing.certificate.serial_number
    rig.revoke(Revocation(CA.root.key_id, serial, NOW, Reason.CA_COMPROMISE, NOW + HOUR))
    assert rig.severed == {0: "revoked", 1: "revoked", 2: "revoked"}
    assert rig.verdicts == 3


def test_a_revoked_root_severs_all_that_end_in_it(rig: Rig) -> None:
    rig.connect(3)
    rig.connect(1, OTHERS)
    root = CA.root.certificate
    gone = Revocation(CA.root.key_id, root.serial_number, NOW, Reason.CA_COMPROMISE, NOW + HOUR)
    rig.revoke(gone)
    assert rig.severed == {0: "revoked", 1: "revoked", 2: "revoked"}
    assert rig.verdicts == 3


def test_a_removed_root_severs_who_ends_in_it(rig: Rig) -> None:
    rig.connect(2)
    rig.connect(2, OTHERS)
    rig.believe(bundles=CA.bundles)
    assert rig.severed == {2: "unknown-trust-domain", 3: "unknown-trust-domain"}
    assert rig.verdicts == 2


def test_a_root_that_is_given_to_another_trust_domain_vouches_for_ours_no_longer(rig: Rig) -> None:
    rig.connect(1, OTHERS)
    swapped = TrustBundle(OTHER, CA.bundle.roots), TrustBundle(MESH, OTHERS.bundle.roots)
    rig.believe(bundles=BundleSet.of(*swapped))
    assert rig.severed == {0: "unknown-authority"}


def test_a_root_more_concerns_nobody(rig: Rig) -> None:
    rig.connect(2)
    both = TrustBundle(MESH, (*OTHERS.bundle.roots, *CA.bundle.roots))
    rig.believe(bundles=BundleSet.of(both, OTHERS.bundle))
    assert rig.verdicts == 0


def test_who_is_still_let_in_by_another_root_stays_and_rests_on_that_one(rig: Rig) -> None:
    rig.connect(1)
    connection = Connected(rig.connections[0].peer)
    rig.registry.add(connection)
    elsewhere = peer_of(OTHERS.leaf(), OTHERS)
    connection.peer = elsewhere  # as its judging finds out
    rig.believe(bundles=OTHERS.bundles)
    assert connection.judged == 1
    assert connection.severed == []
    assert rig.registry.ending_in(OTHERS.root.certificate) == (connection,)
    assert rig.registry.ending_in(CA.root.certificate) == ()


def test_who_is_allowed_no_longer_is_severed_and_the_others_are_not_even_judged(rig: Rig) -> None:
    rig.connect(4)
    rig.connect(1, OTHERS)
    rig.believe(allow=patterns("spiffe://mesh.local/service/s1", "spiffe://mesh.local/service/s3"))
    assert rig.severed == {at: "not-authorized" for at in (0, 2, 4)}
    assert rig.verdicts == 3


def test_a_wider_rule_and_the_same_rule_in_other_words_concern_nobody(rig: Rig) -> None:
    rig.connect(2)
    wide = patterns("spiffe://mesh.local/**", "spiffe://other.example/**", "spiffe://third/**")
    rig.believe(allow=wide)
    rig.believe(allow=tuple(reversed(wide)))
    rig.believe(allow=patterns("spiffe://mesh.local/service/*"))
    assert rig.verdicts == 0


def test_whoever_ends_is_severed_when_the_clock_says_so(rig: Rig) -> None:
    rig.connect(2)
    rig.connect(1, lifetime=HOUR / 2)
    rig.time = NOW + HOUR / 2
    rig.reviewer.look_at_the_clock(rig.time)
    assert rig.verdicts == 0
    rig.time += timedelta(seconds=1)
    for _ in range(3):  # as the ticks come, before its connection is gone
        rig.reviewer.look_at_the_clock(rig.time)
    assert rig.severed == {2: "expired"}
    assert rig.verdicts == 1
    rig.time = NOW + 30 * HOUR
    rig.reviewer.look_at_the_clock(rig.time)
    assert rig.severed == {at: "expired" for at in range(3)}


def test_a_clock_that_is_put_back_meanwhile_severs_nobody(rig: Rig) -> None:
    rig.connect(1)
    rig.reviewer.look_at_the_clock(NOW + 2 * HOUR)
    assert (rig.verdicts, rig.severed) == (1, {})
    rig.time = NOW + 3 * HOUR
    rig.reviewer.look_at_the_clock(rig.time)
    assert rig.severed == {0: "expired"}, "it is not forgotten"


def test_every_reason_is_given_and_each_connection_is_severed_once(rig: Rig) -> None:
    (connection,) = rig.connect(1)
    rig.time = NOW + 2 * HOUR
    revocations = RevocationSet().merged([revoked(connection)], NOW)
    rig.believe([revoked(connection)], revocations=revocations, allow=(), bundles=BundleSet())
    rig.reviewer.look_at_the_clock(rig.time)
    (codes,) = rig.severed.values()
    assert set(codes.split(", ")) == {"expired", "unknown-trust-domain", "not-authorized"}
    assert rig.verdicts == 1


def test_each_swap_is_a_generation_of_its_own(rig: Rig) -> None:
    rig.believe(allow=())
    rig.believe(allow=(), generation=0)
    assert rig.judge.trust.generation == 2


def slowly(rig: Rig, connections: Sequence[Judged], seconds: float) -> None:
    """Judging one takes so long from now on, and nothing else takes any time."""
    for connection in connections:
        connection.on_judged = lambda: setattr(rig.clock, "rightNow", rig.clock.rightNow + seconds)


def turn(rig: Rig, after: float = 0.0) -> None:
    """One turn of the reactor alone, after others have had so many seconds."""
    rig.clock.rightNow += after
    call = rig.clock.calls.pop(0)
    call.called = 1
    call.func()


def revoke_the_issuing_ca(rig: Rig) -> None:
    serial = CA.issuing.certificate.serial_number
    rig.revoke(Revocation(CA.root.key_id, serial, NOW, Reason.CA_COMPROMISE, NOW + HOUR))


def test_many_are_judged_in_turns_and_what_changes_meanwhile_counts(rig: Rig) -> None:
    connections = rig.connect(25)
    slowly(rig, connections, A_TURN / 8)
    revoke_the_issuing_ca(rig)
    assert rig.verdicts == 8
    gone, again = [connection for connection in connections if not connection.judged][:2]
    rig.registry.discard(gone)
    rig.revoke(revoked(again))
    while rig.clock.getDelayedCalls():
        rig.clock.advance(0)
    assert rig.verdicts == 24, "each once; who is gone is not judged"
    assert [connection for connection in connections if not connection.severed] == [gone]


def test_a_turn_is_three_times_as_long_as_the_others_had_since_the_last(rig: Rig) -> None:
    """Or those who are cut and come back at once would starve the review."""
    slowly(rig, rig.connect(200), A_TURN / 5)
    revoke_the_issuing_ca(rig)
    assert rig.verdicts in (5, 6)
    turn(rig, after=0.02)
    assert rig.verdicts in (65, 66, 67)  # floating point
    before = rig.verdicts
    turn(rig, after=0.001)
    assert rig.verdicts in (before + 5, before + 6), "this much at least"


def test_all_that_have_to_go_are_heard_no_more_before_the_first_is_closed(rig: Rig) -> None:
    connections = rig.connect(30)
    slowly(rig, connections, A_TURN / 8)
    revoke_the_issuing_ca(rig)
    turn(rig)
    turn(rig)
    assert sum(len(connection.deaf) for connection in connections) == 24
    assert rig.severed == {}
    turn(rig)
    assert {tuple(connection.deaf) for connection in connections} == {("revoked",)}
    assert set(rig.severed) == set(range(30))


def test_thousands_of_one_certificate_are_one_judgement(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    (first,) = rig.connect(1)
    others = [Judged(first.peer, judge=rig.judge) for _ in range(2000)]
    for other in others:
        rig.registry.add(other)
    judged: list[object] = []
    judge = Trust.judge

    def counting(trust: Trust, *arguments: Any) -> Any:
        judged.append(arguments)
        return judge(trust, *arguments)

    monkeypatch.setattr(Trust, "judge", counting)
    rig.revoke(revoked(first))
    while rig.clock.getDelayedCalls():
        rig.clock.advance(0)
    assert {tuple(connection.severed) for connection in (first, *others)} == {("revoked",)}
    assert len(judged) == 1


def test_one_that_cannot_be_closed_does_not_keep_the_others_open(rig: Rig) -> None:
    broken, good = rig.connect(2)
    broken.severed = ()  # type: ignore[assignment]
    rig.revoke(revoked(broken), revoked(good))
    assert good.severed == ["revoked"]
    assert rig.log.count("review-broke") == 1


def test_a_bug_shuts_the_door_and_does_not_keep_the_others_open(rig: Rig) -> None:
    broken, good = rig.connect(2)
    broken.judge = None
    rig.revoke(revoked(broken), revoked(good))
    assert rig.severed == {0: "internal", 1: "revoked"}
    assert rig.log.count("review-broke") == 1


def test_who_showed_no_certificate_is_never_concerned(rig: Rig) -> None:
    nobody = Connected()
    rig.registry.add(nobody)
    rig.believe(allow=(), bundles=BundleSet())
    rig.reviewer.look_at_the_clock(NOW + 100 * HOUR)
    assert (nobody.judged, nobody.severed) == (0, [])


def test_with_ten_thousand_connections_each_of_a_thousand_revocations_costs_one_verdict(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = IndexKeys.of(peer_of(CA.leaf()))

    def made(peer: Any) -> IndexKeys:
        return evolve(
            keys,
            credentials=((CA.issuing.key_id, peer),),
            spiffe_id=MESH.member("service", f"t{peer}"),
        )

    monkeypatch.setattr(IndexKeys, "of", made)
    objection = Problem("expired", "in this test")
    connections = [Connected(number, (objection,)) for number in range(1, 10_001)]  # type: ignore[arg-type]
    for connection in connections:
        rig.registry.add(connection)
    for number in range(1, 1001):
        news = Revocation(CA.issuing.key_id, number, NOW, Reason.UNSPECIFIED, NOW + HOUR)
        rig.believe([news], revocations=RevocationSet())
    assert [connection.judged for connection in connections] == [1] * 1000 + [0] * 9000
    rig.believe(allow=patterns("spiffe://mesh.local/service/t5000"))
    while rig.clock.getDelayedCalls():
        rig.clock.advance(0)
    assert [c.judged for c in connections] == [1] * 4999 + [0] + [1] * 5000


def test_with_ten_thousand_connections_pins_cost_a_verdict_for_each_that_breaks_them(
    rig: Rig,
) -> None:
    odd, even = (peer_of(CA.leaf(), CA, MESH.member(name, "x")) for name in ("odd", "even"))
    others = peer_of(OTHERS.leaf(), OTHERS)
    connections = [Connected((odd, even, others)[number % 3]) for number in range(9999)]
    for connection in connections:
        rig.registry.add(connection)
    root, other = SpkiHash.of(CA.root.certificate), SpkiHash(bytes(32))

    def held(*rules: str) -> PinSet:
        return PinSet.told(rules, "enforce", "2026-12-01T00:00:00Z")

    def judged() -> list[int]:
        while rig.clock.getDelayedCalls():
            rig.clock.advance(0)
        return [connection.judged for connection in connections]

    rig.believe(pins=held(f"{MESH.id}/**={root},{other}"))
    assert judged() == [0] * 9999, "who meets them stays, and nothing is judged for it"
    broken = held(f"{MESH.id}/odd/*={other},{SpkiHash(b'x' * 32)}")
    rig.believe(pins=broken)
    assert judged() == [1, 0, 0] * 3333
    rig.believe(pins=broken)
    rig.believe(pins=PinSet())
    assert judged() == [1, 0, 0] * 3333


def test_nobody_else_swaps_what_is_believed() -> None:
    """Or open connections would not be judged by it. A pinned judge may, while nobody can be connected."""
    swap = re.compile(r"\w\._?trust = ")
    found = {
        str(path.relative_to(HOUSE)): len(swap.findall(path.read_text()))
        for path in HOUSE.rglob("*.py")
        if swap.search(path.read_text())
    }
    assert found == {"trust/judge.py": 2, "trust/pinned_judge.py": 1, "trust/reviewer.py": 1}
