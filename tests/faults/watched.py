"""A CA whose reactor is watched: ``python -m tests.faults.watched GATE -- <twistd's arguments>``.

SIGUSR1 has it forget, and SIGUSR2 tell, the longest time for which its reactor did nothing. GATE is a
file; while it is there, each commit takes as many seconds longer as it says.
"""

import os
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

#: What it says of the longest pause.
PAUSE = r"longest pause of the reactor: (\d+\.\d) ms"
_TICK = 0.005


class Watch:
    """Comes back every few milliseconds, and notices when it could not."""

    def __init__(self) -> None:
        self._last = time.monotonic()
        self._longest = 0.0

    def tick(self, reactor: Any) -> None:
        now = time.monotonic()
        self._longest = max(self._longest, now - self._last - _TICK)
        self._last = now
        reactor.callLater(_TICK, self.tick, reactor)

    def forget(self, *_: object) -> None:
        self._longest = 0.0

    def tell(self, *_: object) -> None:
        os.write(2, f"longest pause of the reactor: {self._longest * 1000:.1f} ms\n".encode())


def slow_down_commits(gate: Path) -> None:
    from sqlalchemy import Engine, event

    def committing(_: object) -> None:
        with suppress(OSError, ValueError):
            time.sleep(float(gate.read_text()))

    event.listen(Engine, "commit", committing)


def main(arguments: Sequence[str]) -> None:
    gate, separator, *rest = arguments
    if separator != "--":
        raise SystemExit("usage: watched GATE -- ARGUMENTS")
    slow_down_commits(Path(gate))
    # twistd's own start comes first: what it does there is no pause of anybody's.
    from twisted.scripts import twistd

    watch = Watch()
    signal.signal(signal.SIGUSR1, watch.forget)
    signal.signal(signal.SIGUSR2, watch.tell)
    sys.argv = ["twistd", *rest]

    run = twistd.runApp

    def watched(config: Any) -> None:
        from twisted.internet import reactor

        reactor.callWhenRunning(watch.tick, reactor)  # type: ignore[attr-defined]
        run(config)

    twistd.runApp = watched
    twistd.run()


if __name__ == "__main__":
    main(sys.argv[1:])
