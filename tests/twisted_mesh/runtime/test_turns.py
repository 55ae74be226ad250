"""Turns: few at once, and any number who wait."""

from twisted.internet.defer import CancelledError, Deferred

from twisted_mesh.runtime.turns import Turns


def test_any_number_who_are_done_at_once_get_their_turn_and_give_it_on() -> None:
    turns, done = Turns(2), list[int]()

    async def one(number: int) -> None:
        await turns.acquire()
        try:
            done.append(number)
        finally:
            turns.release()

    held = [turns.acquire(), turns.acquire()]
    waiting = [Deferred.fromCoroutine(one(number)) for number in range(5000)]
    assert not done
    for each in held:
        assert each.called
        turns.release()
    assert done == list(range(5000))
    assert all(each.called for each in waiting)
    assert turns.tokens == 2


def test_who_gives_up_leaves_the_others_their_turn() -> None:
    turns = Turns(1)
    turns.acquire()
    given_up, next_one = turns.acquire(), turns.acquire()
    given_up.addErrback(lambda failure: failure.trap(CancelledError))
    given_up.cancel()
    turns.release()
    assert next_one.called
