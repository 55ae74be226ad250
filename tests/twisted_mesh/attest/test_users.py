"""The names of users: looked up aside, once at a time, remembered for a minute, never waited for without end."""

import pwd
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from tests.twisted_mesh.attest.processes import STRANGER, Names, outcome
from twisted_mesh.attest import users
from twisted_mesh.attest.users import PATIENCE, REMEMBERED_FOR, UserNames, user_name


class Slow:
    """A directory that answers when the test says so."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, Deferred[Any]]] = []

    def aside(self, call: Callable[..., Any], uid: int) -> Awaitable[Any]:
        self.asked.append((uid, Deferred()))
        return self.asked[-1][1]


def start(names: UserNames, uid: int) -> list[Any]:
    """What comes of asking, once it does."""
    answers: list[Any] = []
    Deferred.fromCoroutine(names.of(uid)).addBoth(answers.append)
    return answers


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def slow() -> Slow:
    return Slow()


@pytest.fixture
def waiting(clock: Clock, slow: Slow) -> UserNames:
    return UserNames(clock, slow.aside)


async def at_once(call: Callable[..., Any], *args: Any) -> Any:
    return call(*args)


def test_the_name_of_a_user_of_this_machine() -> None:
    assert user_name(0) == pwd.getpwuid(0).pw_name
    assert user_name(STRANGER) is None
    assert user_name(2**80) is None


def test_a_name_is_remembered_for_a_minute_and_that_there_is_none_too(clock: Clock) -> None:
    directory = Names({1: "one"})
    names = UserNames(clock, at_once, directory.look_up)
    assert [outcome(names.of(uid)) for uid in (1, 2, 1, 2)] == ["one", None, "one", None]
    clock.advance(REMEMBERED_FOR - 1)
    directory.known = {1: "uno", 2: "two"}
    assert [outcome(names.of(uid)) for uid in (1, 2)] == ["one", None]
    assert directory.asked == [1, 2]
    clock.advance(1)
    assert [outcome(names.of(uid)) for uid in (1, 2)] == ["uno", "two"]


def test_so_many_names_are_remembered_and_no_more(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(users, "_MOST", 3)
    directory = Names()
    names = UserNames(clock, at_once, directory.look_up)
    for uid in (*range(10), 9, 8, 7, 6):
        outcome(names.of(uid))
    assert directory.asked == [*range(10), 6]
    assert len(names._known) == 3


def test_many_callers_of_one_user_wait_for_one_look_up(waiting: UserNames, slow: Slow) -> None:
    answers = [start(waiting, 1) for _ in range(100)]
    assert len(slow.asked) == 1
    slow.asked[0][1].callback("one")
    assert answers == [["one"]] * 100
    assert not waiting._waiting


def test_a_directory_that_does_not_answer_leaves_callers_without_a_name(
    waiting: UserNames, slow: Slow, clock: Clock
) -> None:
    first = start(waiting, 1)
    clock.advance(PATIENCE - 0.1)
    assert first == []
    clock.advance(0.1)
    assert first == [None]
    second = start(waiting, 1)
    assert len(slow.asked) == 1, "the thread that hangs is the only one"
    slow.asked[0][1].callback("one")
    assert second == ["one"]
    assert start(waiting, 1) == ["one"]
    assert not clock.getDelayedCalls()


def test_callers_who_gave_up_are_forgotten(waiting: UserNames, clock: Clock) -> None:
    for _ in range(10):
        start(waiting, 1)
        clock.advance(PATIENCE)
    assert waiting._waiting == {1: []}


def test_a_directory_that_hangs_takes_few_threads(waiting: UserNames, slow: Slow) -> None:
    answers = [start(waiting, uid) for uid in range(100)]
    assert len(slow.asked) == users.AT_ONCE
    assert answers[users.AT_ONCE :] == [[None]] * (100 - users.AT_ONCE)
    for _, deferred in slow.asked:
        deferred.callback("x")
    assert not waiting._waiting


def test_a_look_up_that_breaks_leaves_callers_without_a_name_and_is_tried_again(
    waiting: UserNames, slow: Slow
) -> None:
    answers = start(waiting, 1)
    slow.asked[0][1].errback(OSError("no directory"))
    assert answers == [None]
    again = start(waiting, 1)
    slow.asked[1][1].callback("one")
    assert again == ["one"]
