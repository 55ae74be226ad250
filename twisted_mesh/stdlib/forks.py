"""Who must hear of ``os.fork``: a child has none of its parent's threads, and its locks as they were at that moment."""

import os
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
_forking: list[Forked] = []


def tell_of_forks(who: Forked) -> None:
    """Have it hear of every fork from now on, for as long as somebody else holds it."""
    _living.add(who)


def tell_no_more(who: Forked) -> None:
    """It needs to hear of none any more. May be said again."""
    _living.discard(who)


def _before_fork() -> None:
    _forking[:] = list(_living)
    for one in _forking:
        one.before_fork()


def _after_fork_in_parent() -> None:
    for one in _forking:
        one.after_fork_in_parent()
    _forking.clear()


def _after_fork_in_child() -> None:
    for one in _forking:
        with suppress(*ANY_ERROR):
            one.after_fork_in_child()
    _forking.clear()


os.register_at_fork(
    before=_before_fork,
    after_in_parent=_after_fork_in_parent,
    after_in_child=_after_fork_in_child,
)
