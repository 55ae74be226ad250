"""Runs a program of ours by a wall clock that began at another time and goes on from there: TIME PROGRAM ARGUMENTS."""

import sys
from datetime import UTC, datetime

from twisted_mesh.runtime import clock

#: Modules take the clock by its name, so it is put back before any other of ours is loaded.
_behind = clock.wall_clock() - datetime.fromisoformat(sys.argv[1])


def _wall_clock() -> datetime:
    return datetime.now(UTC) - _behind


clock.wall_clock = _wall_clock


def main() -> object:
    sys.argv = sys.argv[2:]
    if sys.argv[0] == "twistd":
        from twisted.scripts import twistd

        return twistd.run()
    from twisted_mesh.cli.ctl.command import main as mesh_ctl

    return mesh_ctl()


if __name__ == "__main__":
    sys.exit(main())
