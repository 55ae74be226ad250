"""Who must hear of ``os.fork``: a child has none of its parent's threads, and its locks as they were at that moment."""

import os
import threading
import weakref
from contextlib import suppress
from typing import Protocol

from pki.errors import ANY_ERROR


class Forked(Protocol):
    """What goes on in both processes."""

    def before_fork(self) -> None:
        """Let nobody be in the middle of anything."""
        ...

    def after_fork_in_parent(self) -> None:
        """Go on."""
        ...

    def after_fork_in_child(self) -> None:
        """Go on without what is the parent's."""
        ...


_living: "weakref.WeakSet[Forked]" = weakref.WeakSet()
#: Held from before a fork until after it. Two threads that fork at once would take the locks of all in another order
#: each, and who is put on the list in between would be told of the half of it.
_turn = threading.RLock()
#: Who was told of the forks that are under way: of one, or of one within another, by a signal's handler.
_told: list[tuple[Forked, ...]] = []


def tell_of_forks(who: Forked) -> None:
    """Have it hear of every fork from now on, for as long as somebody else holds it."""
    with _turn:
        _living.add(who)


def tell_no_more(who: Forked) -> None:
    """It needs to hear of none any more. May be said again."""
    with _turn:
        _living.discard(who)


def _before_fork() -> None:
    _turn.acquire()
    forking = tuple(_living)
    _told.append(forking)
    for one in forking:
        one.before_fork()


def _after_fork_in_parent() -> None:
    for one in _told.pop():
        one.after_fork_in_parent()
    _turn.release()


def _after_fork_in_child() -> None:
    global _turn  # noqa: PLW0603 - other threads may have waited for it, which are not here
    forking = _told.pop()
    _told.clear()
    _turn = threading.RLock()
    for one in forking:
        with suppress(*ANY_ERROR):
            one.after_fork_in_child()


os.register_at_fork(
    before=_before_fork,
    after_in_parent=_after_fork_in_parent,
    after_in_child=_after_fork_in_child,
)
