"""How long the path of a unix socket may be. Imports the standard library only."""

import os
from pathlib import Path

#: What sun_path holds, without its closing NUL, on every platform: 104 bytes on macOS, 108 on Linux.
MOST_SOCKET_PATH = 103


def too_long(path: Path) -> str | None:
    """That no unix socket can be at ``path`` since it is too long; None where one can."""
    length = len(os.fsencode(path))
    if length <= MOST_SOCKET_PATH:
        return None
    return (
        f"{path} is too long for a unix socket: {length} bytes, and {MOST_SOCKET_PATH} are the most"
    )
