"""What holds of a process's open files before it opens one of its own. Imports the standard library only."""

import os
import resource
from contextlib import suppress

#: What a command needs: a reactor's, a few connections, and a file at a time.
LEAST_OPEN_FILES = 24
_STANDARD = 3


def hold_the_standard_ones() -> None:
    """Have descriptors 0, 1 and 2 be somebody's, where the shell closed them (``>&-``).

    Else a database or a socket gets the number, and what a library prints is written into it. Where not one file
    may be opened, nothing can be mistaken either.
    """
    with suppress(OSError):
        while (descriptor := os.open(os.devnull, os.O_RDWR)) < _STANDARD:
            pass
        os.close(descriptor)


def too_few(least: int) -> str | None:
    """Allow ``least`` at least, where the administrator's limit does; a sentence where it does not."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < least and (hard >= least or hard == resource.RLIM_INFINITY):
        resource.setrlimit(resource.RLIMIT_NOFILE, (least, hard))
    elif soft < least:
        return (
            f"this process may have {soft} files open at most, and needs {least}: raise the limit (ulimit -n 1024, or "
            "LimitNOFILE= of a unit)"
        )
    return None
