"""One row of the table: a broken set-up, one side of it, and what that side has to say first."""

import re
from collections.abc import Callable
from pathlib import Path

from attrs import frozen


@frozen
class FirstLine:
    """A sentence that names the true cause, and a cure that works."""

    setup: str
    """What is broken, in words: the name of the test."""
    side: str
    """Who says it: ``client``, ``server``, ``ca``, ``ctl``, ``service``, ``inspector``."""
    cause: str
    """A pattern of the cause, with the address, file, time or name that is to blame."""
    cure: str
    """A pattern of what to do about it."""
    say: Callable[[Path], str]
    """Makes the set-up in an empty directory, below the process where that will do; what that side says of it."""
    starts_processes: bool = False
    """Whether it takes whole programs, and its time: those are tried by ``make interop``."""
    never: str = ""
    """A pattern of what would be false here."""

    def lacks(self, said: str) -> list[str]:
        """What is wrong with the first line of ``said``; empty where nothing is."""
        line = next(iter(said.splitlines()), "")
        found = [
            f"no {what} {pattern!r}"
            for what, pattern in (("cause", self.cause), ("cure", self.cure))
            if not re.search(pattern, line)
        ]
        if self.never and re.search(self.never, line):
            found.append(f"says {self.never!r}")
        return found
