"""Who owes for failed handshakes waits for its turn; who owes nothing waits for nobody."""

from collections.abc import Callable

import pytest
from twisted.internet.task import Clock

from twisted_mesh.limits.handshake_budget import OF_ALL, OF_NETWORK, HandshakeBudget, Share, Turn

ATTACKER, HONEST = "address:192.0.2.1", "address:192.0.2.2"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def budget(clock: Clock) -> HandshakeBudget:
    return HandshakeBudget(clock, Share(0.1, 0.5), Share(0.5, 100.0))


def nobody() -> None:
    raise AssertionError("this one may go on at once")


def test_whoever_owes_nothing_goes_on_at_once(budget: HandshakeBudget) -> None:
    assert budget.enter(HONEST, nobody) is None
    budget.charge(ATTACKER, 50.0)
    assert budget.enter(HONEST, nobody) is None
    assert budget.put_off == 0


def test_a_burst_is_let_through(budget: HandshakeBudget) -> None:
    """A client that was set up wrongly, and tries again, is no attacker."""
    for _ in range(5):
        assert budget.enter(ATTACKER, nobody) is None
        budget.charge(ATTACKER, 0.1)
    assert budget.enter(ATTACKER, nobody) is None


def test_time_pays_at_the_share(budget: HandshakeBudget, clock: Clock) -> None:
    budget.charge(ATTACKER, 0.7)
    assert budget.wait(ATTACKER) == pytest.approx(2.0)
    gone_on: list[float] = []
    assert budget.enter(ATTACKER, lambda: gone_on.append(clock.seconds())) is not None
    clock.advance(1.9)
    assert gone_on == []
    clock.advance(0.1)
    assert gone_on == [2.0]
    clock.advance(5.0)
    assert budget.wait(ATTACKER) == 0.0
    assert clock.getDelayedCalls() == []


def steps(
    budget: HandshakeBudget, network: str, names: str, cost: float, gone_on: list[str]
) -> list[Turn | None]:
    """Each comes now, and costs so much once it may go on."""

    def step(name: str) -> Callable[[], None]:
        def go() -> None:
            gone_on.append(name)
            budget.charge(network, cost)

        return go

    return [budget.enter(network, step(name)) for name in names]


def test_each_waits_for_what_those_before_it_cost(budget: HandshakeBudget, clock: Clock) -> None:
    budget.charge(ATTACKER, 0.5 + 0.05)
    gone_on: list[str] = []
    steps(budget, ATTACKER, "abc", 0.05, gone_on)
    for passed in ("", "a", "ab", "abc"):
        assert "".join(gone_on) == passed
        clock.pump([0.125] * 4)


def test_an_honest_peer_behind_an_attackers_address_gets_its_turn(
    budget: HandshakeBudget, clock: Clock
) -> None:
    """24 others that cost 5 ms each, and come back as soon as they are refused."""
    budget.charge(ATTACKER, 10.0)
    clock.advance(budget.wait(ATTACKER) - 0.01)
    let_in: list[float] = []

    def come_back() -> None:
        budget.charge(ATTACKER, 0.005)
        budget.enter(ATTACKER, come_back)

    for _ in range(24):
        budget.enter(ATTACKER, come_back)
    started = clock.seconds()
    budget.enter(ATTACKER, lambda: let_in.append(clock.seconds() - started))
    clock.pump([0.01] * 300)
    assert len(let_in) == 1
    assert let_in[0] == pytest.approx(24 * 0.005 / 0.1, abs=0.3)


def test_however_many_networks_fail_the_share_of_all_holds(clock: Clock) -> None:
    budget = HandshakeBudget(clock, Share(0.1, 0.1), Share(0.2, 1.0))
    taken: list[str] = []
    for number in range(40):
        network = f"address:{number}"
        budget.charge(network, 0.1)
        steps(budget, network, "x" * 10, 0.1, taken)
    taken.clear()
    clock.advance(min(budget.wait(f"address:{number}") for number in range(40)) - 0.01)
    clock.pump([0.1] * 100)
    assert len(taken) * 0.1 <= 10.0 * 0.2 + 0.1
    assert len(taken) * 0.1 >= 10.0 * 0.2 * 0.5
    assert budget.enter(HONEST, nobody) is None


def test_networks_take_turns(clock: Clock) -> None:
    budget = HandshakeBudget(clock, Share(0.1, 0.1), Share(0.1, 0.1))
    gone_on: list[str] = []
    for network in "ab":
        budget.charge(network, 0.2)
    steps(budget, "a", "1234", 0.01, gone_on)
    steps(budget, "b", "5678", 0.01, gone_on)
    clock.pump([0.1] * 100)
    assert gone_on == list("15263748")


def test_whoever_has_gone_keeps_nobody_waiting(budget: HandshakeBudget, clock: Clock) -> None:
    budget.charge(ATTACKER, 0.6)
    gone_on: list[str] = []
    first, second = steps(budget, ATTACKER, "ab", 0.0, gone_on)
    assert first is not None and second is not None
    first.cancel()
    first.cancel()
    clock.advance(1.0)
    assert gone_on == ["b"]
    second.cancel()
    budget.charge(ATTACKER, 5.0)
    (third,) = steps(budget, ATTACKER, "c", 0.0, gone_on)
    assert third is not None
    third.cancel()
    assert clock.getDelayedCalls() == []


def test_one_that_breaks_does_not_stop_the_others(budget: HandshakeBudget, clock: Clock) -> None:
    budget.charge(ATTACKER, 0.6)
    gone_on: list[str] = []

    def broken() -> None:
        raise RuntimeError("broken")

    budget.enter(ATTACKER, broken)
    steps(budget, ATTACKER, "b", 0.0, gone_on)
    with pytest.raises(RuntimeError):
        clock.advance(1.0)
    clock.advance(0.0)
    assert gone_on == ["b"]


def test_memory_is_bounded_and_nobody_is_forgotten_who_owes(clock: Clock) -> None:
    budget = HandshakeBudget(clock, Share(0.1, 0.1), OF_ALL, most=10)
    for number in range(1000):
        budget.charge(f"address:{number}", 0.2)
    assert len(budget._paid_at) <= 11
    assert all(budget.wait(f"address:{number}") for number in range(10))
    assert budget.wait("address:none of them"), "who finds no place shares one account"
    clock.advance(10_000)
    budget.charge(HONEST, 0.2)
    assert budget.wait(HONEST) == pytest.approx(1.0)


def test_nobody_pays_for_what_others_cost_at_once(clock: Clock) -> None:
    """A thousand networks that come for the first time are put off no sooner than they have cost something."""
    budget = HandshakeBudget(clock)
    for number in range(1000):
        budget.charge(f"address:{number}", 0.1)
    assert budget.wait("address:7") == pytest.approx(2.0)


def test_what_is_left_for_everybody_else_is_most_of_it() -> None:
    assert OF_ALL.of_time <= 0.25
    assert OF_NETWORK.of_time <= 0.1
