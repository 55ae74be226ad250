"""Workers that are killed, stopped, paused and told to read again, while callers come and are served."""

import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest
from attrs import define, field

from tests.running import PATIENCE, Mesh, until
from tests.twisted_mesh.workers.served import Served, asked, served
from twisted_mesh.workers.supervisor import LONGEST_PAUSE

_CALLERS = 4


@define(eq=False)
class Callers:
    """Come again and again, each with a new connection and some requests on it."""

    found: Served
    counts: Counter[str] = field(factory=Counter)
    longest: float = 0.0
    """Seconds from one that was served to the next, of one caller."""
    _over: threading.Event = field(factory=threading.Event)
    _threads: list[threading.Thread] = field(factory=list)

    def __enter__(self) -> "Callers":
        self._threads = [threading.Thread(target=self._come) for _ in range(_CALLERS)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(PATIENCE)

    def _come(self) -> None:
        served_at = time.monotonic()
        while not self._over.is_set():
            try:
                with self.found.call() as caller:
                    for _ in range(3):
                        assert asked(caller)
            except (OSError, AssertionError):
                # Whoever was with the one that has ended.
                self.counts["lost"] += 1
                continue
            self.counts["served"] += 1
            now = time.monotonic()
            self.longest, served_at = max(self.longest, now - served_at), now


def listening(found: Served) -> list[int]:
    return [worker["pid"] for worker in found.workers() if worker["listening"]]


def ordeal(found: Served, steps: int, seed: int) -> Counter[str]:
    """So many blows, each at a moment at which another worker serves; how often each was dealt."""
    draw, dealt = random.Random(seed), Counter[str]()
    for _ in range(steps):
        until(lambda: len(listening(found)) > 1)
        victim = draw.choice(listening(found))
        blow = draw.choice((signal.SIGKILL, signal.SIGTERM, signal.SIGSTOP, signal.SIGHUP))
        dealt[blow.name] += 1
        if blow is signal.SIGHUP:
            found.server.process.send_signal(blow)
            continue
        os.kill(victim, blow)
        if blow is signal.SIGSTOP:
            time.sleep(draw.uniform(0, 0.3))
            os.kill(victim, signal.SIGCONT)
        else:
            until(lambda victim=victim: victim not in listening(found))  # type: ignore[misc]
    return dealt


def through(running: Mesh, steps: int, seed: int) -> Counter[str]:
    with ExitStack() as stack:
        found = stack.enter_context(served(running, "--drain", "1s", workers=3))
        held = Path(f"/proc/{found.server.process.pid}/fd")
        usual = len(list(held.iterdir()))
        with Callers(found) as callers:
            dealt = ordeal(found, steps, seed)
            # One that has ended again and again is put off for so long.
            put_off = time.monotonic() + LONGEST_PAUSE
            while len(listening(found)) < 3 and time.monotonic() < put_off:
                time.sleep(0.2)
            until(lambda: len(listening(found)) == 3)
            served_then = callers.counts["served"]
            until(lambda: callers.counts["served"] > served_then + 20)
        assert callers.longest < PATIENCE / 2
        # A blow costs whoever was with the victim, and the connections that were waiting for it.
        deadly = dealt["SIGKILL"] + dealt["SIGTERM"]
        assert callers.counts["lost"] <= deadly * _CALLERS * 2
        until(lambda: len(list(held.iterdir())) <= usual, lambda: list(held.iterdir()))
        assert sum(worker["restarts"] for worker in found.workers()) == deadly
    assert found.server.wait() == 0
    assert "Traceback" not in found.server.text
    return callers.counts


def test_callers_are_served_whatever_befalls_a_worker(running: Mesh) -> None:
    assert through(running, 3, 1)["served"] > 20


@pytest.mark.soak
@pytest.mark.parametrize(
    ("steps", "seed"),
    [(20, 0), *(pytest.param(60, seed, marks=pytest.mark.endurance) for seed in range(4))],
)
def test_callers_are_served_through_many_blows(
    running: Mesh, steps: int, seed: int, record_property: Callable[[str, object], None]
) -> None:
    for name, count in through(running, steps, seed).items():
        record_property(name, count)
