"""Whoever must hear of forks hears of each, however many threads fork at once."""

import contextlib
import os
import threading

import pytest
from attrs import define, field

from tests.running import PATIENCE
from twisted_mesh.stdlib.forks import tell_no_more, tell_of_forks

#: Seconds for two threads to meet that must not.
MOMENT = 0.3


@define(eq=False)
class Hearing:
    """Has a lock that must be free again afterwards, as a JoinedIdentity has."""

    lock: "threading.RLock" = field(factory=threading.RLock)
    meeting: threading.Barrier = field(factory=lambda: threading.Barrier(2, timeout=MOMENT))
    is_told: bool = False

    def before_fork(self) -> None:
        with contextlib.suppress(threading.BrokenBarrierError):
            self.meeting.wait()
        self.lock.acquire()

    def after_fork_in_parent(self) -> None:
        self.lock.release()

    def after_fork_in_child(self) -> None:
        self.is_told = True


# A child of a process with threads is what is looked at.
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_two_threads_that_fork_at_once_have_both_children_told_and_no_lock_held() -> None:
    hearing = Hearing()
    statuses: list[int] = []

    def fork() -> None:
        pid = os.fork()
        if pid == 0:
            os._exit(0 if hearing.is_told else 7)
        statuses.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))

    tell_of_forks(hearing)
    try:
        threads = [threading.Thread(target=fork, daemon=True) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
    finally:
        tell_no_more(hearing)
    assert statuses == [0, 0]
    assert hearing.lock.acquire(timeout=MOMENT)
