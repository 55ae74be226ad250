"""Who may be connected: so many at once, and a flood that proves nothing pushes itself out."""

import resource

import pytest
from attrs import define, field
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from twisted.internet.task import Clock

from pki.errors import Malformed
from tests.twisted_mesh.recording import RecordingLog
from twisted_mesh.limits.connection_limit import Capacity, ConnectionLimit, Place

#: Of a listener that is small enough to be filled by hand.
CAPACITY = Capacity(most=8, unproven=4, of_peer=4, of_address=2)


@define(eq=False)
class Door:
    """A connection limit, and which connections it has hung up on."""

    capacity: Capacity = CAPACITY
    clock: Clock = field(factory=Clock)
    log: RecordingLog = field(factory=RecordingLog)
    hung_up: list[Place] = field(factory=list)
    connection_limit: ConnectionLimit = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.connection_limit = ConnectionLimit(self.capacity, self.clock, "the door", self.log)

    def come(self, key: str, *, is_proven: bool = False) -> Place | None:
        place = self.connection_limit.admit(key, is_proven=is_proven)
        if place is not None:
            place.hang_up = lambda: self.hung_up.append(place)
        return place

    def let_in(self, key: str, *, is_proven: bool = False) -> Place:
        place = self.come(key, is_proven=is_proven)
        assert place is not None
        return place

    def settle(self) -> None:
        """The reactor's next turn: whoever was hung up on is gone."""
        while self.hung_up:
            self.hung_up.pop().leave()


@pytest.fixture
def authenticator() -> Door:
    return Door()


def test_so_many_are_let_in_and_no_more(authenticator: Door) -> None:
    places = [authenticator.let_in(f"svid {n}", is_proven=True) for n in range(8)]
    assert authenticator.come("svid 9", is_proven=True) is None
    assert len(authenticator.connection_limit) == 8
    places[0].leave()
    assert authenticator.come("svid 9", is_proven=True) is not None


def test_the_oldest_of_a_full_address_makes_room_for_its_newest(authenticator: Door) -> None:
    first, second = (authenticator.let_in("a") for _ in range(2))
    third = authenticator.let_in("a")
    assert authenticator.hung_up == [first]
    assert first.made_room and not second.made_room and not third.made_room
    assert authenticator.connection_limit.unproven == 2


def test_a_newcomer_takes_the_place_of_the_address_with_most(authenticator: Door) -> None:
    kept = authenticator.let_in("b")
    oldest, *_ = (authenticator.let_in("a") for _ in range(2))
    authenticator.let_in("c")
    authenticator.let_in("d")
    assert authenticator.hung_up == [oldest]
    assert not kept.made_room


def test_who_has_proven_who_it_is_never_makes_room(authenticator: Door) -> None:
    proven = [authenticator.let_in("x", is_proven=True) for _ in range(4)]
    for number in range(100):
        authenticator.come(f"address {number}")
        authenticator.settle()
    assert not any(place.made_room for place in proven)
    assert authenticator.connection_limit.unproven == 4
    late = authenticator.come("y", is_proven=True)
    assert late is not None, "an unproven one has made room"


def test_where_all_have_proven_who_they_are_a_stranger_is_refused(authenticator: Door) -> None:
    for number in range(8):
        authenticator.let_in(f"svid {number}", is_proven=True)
    assert authenticator.come("a") is None
    assert authenticator.connection_limit.refused == 1
    assert not authenticator.hung_up


def test_whoever_proves_itself_leaves_the_crowd_of_strangers(authenticator: Door) -> None:
    honest = authenticator.let_in("a")
    assert honest.prove("spiffe://mesh.local/service/x")
    assert honest.is_proven and authenticator.connection_limit.unproven == 0
    for _ in range(20):
        authenticator.come("a")
        authenticator.settle()
    assert not honest.made_room
    honest.leave()
    assert len(authenticator.connection_limit) == 2


def test_one_peer_has_so_many_connections_and_no_more(authenticator: Door) -> None:
    for _ in range(4):
        assert authenticator.let_in("a").prove("svid")
    assert not authenticator.let_in("a").prove("svid")
    assert authenticator.let_in("b").prove("another")
    assert authenticator.come("svid", is_proven=True) is None


def test_a_request_that_is_being_answered_is_not_the_time_to_make_room(authenticator: Door) -> None:
    first, second = (authenticator.let_in("a") for _ in range(2))
    first.serve()
    authenticator.let_in("a")
    assert authenticator.hung_up == [second]
    authenticator.settle()
    authenticator.let_in("a").serve()
    authenticator.settle()
    assert authenticator.come("a") is None, "both are being answered"
    first.rest()
    assert authenticator.come("a") is not None
    assert authenticator.hung_up == [first]


def test_answered_connections_make_room_after_those_that_only_wait(authenticator: Door) -> None:
    first, second = (authenticator.let_in("a") for _ in range(2))
    first.serve()
    first.rest()
    authenticator.let_in("a")
    assert authenticator.hung_up == [second]


def test_in_a_silent_flood_whoever_has_spoken_keeps_its_place() -> None:
    authenticator = Door(Capacity(most=100, unproven=50, of_peer=50, of_address=50))
    for _ in range(25):
        authenticator.let_in("a")
    honest = authenticator.let_in("a")
    honest.speak()
    for _ in range(200):
        authenticator.come("a")
        authenticator.settle()
    assert not honest.made_room


def test_in_a_talkative_flood_a_newcomer_has_the_time_for_its_first_word() -> None:
    authenticator = Door(Capacity(most=100, unproven=50, of_peer=50, of_address=50))
    for _ in range(50):
        authenticator.let_in("a").speak()
    honest = authenticator.let_in("a")
    for _ in range(49):
        authenticator.let_in("a").speak()
        authenticator.settle()
    assert not honest.made_room


def test_what_a_place_is_told_after_its_end_changes_nothing(authenticator: Door) -> None:
    first = authenticator.let_in("a")
    first.leave()
    first.leave()
    first.serve()
    first.rest()
    assert not first.prove("svid")
    assert len(authenticator.connection_limit) == 0
    assert (
        not authenticator.connection_limit._unproven and not authenticator.connection_limit._proven
    )


def test_those_that_make_room_keep_their_descriptor_for_a_turn_so_only_a_few_do() -> None:
    authenticator = Door(Capacity(most=100, unproven=50, of_peer=50, of_address=50))
    let_in = sum(authenticator.come("a") is not None for _ in range(200))
    assert let_in == 50 + 64
    assert len(authenticator.connection_limit) == 114
    authenticator.settle()
    assert len(authenticator.connection_limit) == 50
    assert authenticator.come("a") is not None, "in the next turn there is room again"


def test_one_line_a_second_tells_of_all(authenticator: Door) -> None:
    for _ in range(102):
        authenticator.come("a")
        authenticator.settle()
    assert authenticator.log.count("connections-full") == 1
    authenticator.clock.advance(1.0)
    authenticator.come("a")
    first, second = authenticator.log.events
    assert (first["made_room"], second["made_room"]) == (1, 100)
    assert first["log_level"].name == "warn"
    assert authenticator.log.text("connections-full").count("\n") == 1
    assert "the door has no room: 0 connections were refused and 100 idle ones made room" in (
        authenticator.log.text("connections-full")
    )


# Those with proof, who have taken all.


def test_where_two_have_taken_all_the_larger_gives_what_idles_to_a_newcomer() -> None:
    door = Door(Capacity.of(16))
    for who in "xy":
        for _ in range(8):
            assert door.let_in("a").prove(who)
    for number in range(5):
        honest = door.come(f"b{number}")
        assert honest is not None, "the honest caller gets in"
        assert honest.prove("honest")
        honest.serve()
        door.settle()
    assert len(door.connection_limit) == 16


def test_a_request_of_the_largest_holder_is_not_cut() -> None:
    door = Door(Capacity.of(16))
    for who in "xy":
        for _ in range(8):
            place = door.let_in("a")
            assert place.prove(who)
            place.serve()
            door.settle()
    assert door.come("honest") is None
    place.rest()
    assert door.come("honest") is not None
    assert door.hung_up == [place]


def test_the_names_that_one_entry_bought_are_one_holder() -> None:
    door = Door(Capacity.of(16))
    greedy = []
    for number in range(14):
        place = door.let_in("a")
        assert place.prove(f"name {number}")
        place.belong("entry:1")
        greedy.append(place)
    others = [door.let_in("b") for _ in range(2)]
    for place in others:
        assert place.prove("other")
    assert door.come("c") is not None
    assert door.hung_up == [greedy[0]]
    assert not any(place.made_room for place in others)
    for place in [*greedy, *others]:
        place.leave()
    assert len(door.connection_limit._proven) == 0


def test_a_flood_without_proof_takes_no_more_than_a_few_places_of_those_with() -> None:
    door = Door(Capacity.of(16))
    proven = []
    for who in "xy":
        for _ in range(8):
            place = door.let_in("a")
            assert place.prove(who)
            proven.append(place)
            door.settle()
    for number in range(100):
        door.come(f"address {number}")
        door.settle()
    assert sum(place.state.name == "GONE" for place in proven) == 2
    assert door.connection_limit.unproven == 2


# Capacities.


def test_half_is_for_the_unproven_and_most_of_that_for_one_address() -> None:
    assert Capacity.of(400) == Capacity(400, 200, 200, 150)
    assert Capacity.of(4000) == Capacity(4000, 256, 2000, 192), "the unproven are never many"
    with pytest.raises(Malformed, match="at least 8 are needed"):
        Capacity.of(7)


@pytest.mark.parametrize(
    ("descriptors", "most"),
    [
        (1024, 416),
        (256, 32),
        (64, 8),
        (20_000, 9904),
        (524_288, 10_000),
        (resource.RLIM_INFINITY, 10_000),
    ],
)
def test_the_systems_limit_leaves_room_for_all_listeners_and_the_record(
    descriptors: int, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (descriptors, descriptors))
    capacity = Capacity.of_system(2)
    assert capacity.most == most
    if most == 416:
        assert capacity.of_address >= 100, "a hundred clients of one machine may join at once"


@pytest.mark.parametrize(
    ("descriptors", "most"), [(1024, 896), (64, 8), (resource.RLIM_INFINITY, 20_000)]
)
def test_a_service_has_what_the_system_allows_and_most_of_it_for_one_caller(
    descriptors: int, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (descriptors, descriptors))
    capacity = Capacity.of_server(None)
    assert (capacity.most, capacity.of_peer) == (most, most * 3 // 4)
    assert Capacity.of_server(16) == Capacity(16, 8, 12, 6)


class Crowd(RuleBasedStateMachine):
    """Whatever they do: nobody is counted twice, and no share is exceeded."""

    def __init__(self) -> None:
        super().__init__()
        self.authenticator = Door()
        self.places: list[Place] = []

    def _some(self, number: int) -> Place:
        return self.places[number % len(self.places)]

    @rule(key=st.sampled_from("abcd"), is_proven=st.booleans())
    def come(self, key: str, is_proven: bool) -> None:
        place = self.authenticator.come(key, is_proven=is_proven)
        if place is not None:
            self.places.append(place)

    @precondition(lambda self: self.places)
    @rule(number=st.integers(0, 20), key=st.sampled_from("xy"))
    def prove(self, number: int, key: str) -> None:
        place = self._some(number)
        if not place.is_proven and not place.prove(key) and place.key not in "xy":
            place.leave()

    @precondition(lambda self: self.places)
    @rule(number=st.integers(0, 20), serves=st.booleans())
    def work(self, number: int, serves: bool) -> None:
        place = self._some(number)
        (place.serve if serves else place.rest)()

    @precondition(lambda self: self.places)
    @rule(number=st.integers(0, 20))
    def leave(self, number: int) -> None:
        self._some(number).leave()

    @rule()
    def settle(self) -> None:
        self.authenticator.settle()

    @invariant()
    def counts(self) -> None:
        connection_limit, capacity = (
            self.authenticator.connection_limit,
            self.authenticator.capacity,
        )
        open_ = [place for place in self.places if place.state.name == "TAKEN"]
        unproven = [place for place in open_ if not place.is_proven]
        assert len(connection_limit) == len(open_) + sum(p.made_room for p in self.places)
        assert len(open_) <= capacity.most
        assert connection_limit.unproven == len(unproven) <= capacity.unproven
        for key in "abcdxy":
            assert sum(place.key == key for place in unproven) <= capacity.of_address
            proven = sum(place.key == key and place.is_proven for place in open_)
            assert proven <= capacity.of_peer


TestCrowd = Crowd.TestCase
