"""State directories that earlier versions of ours have left behind, in ``tests/vectors/state-VERSION.tar.xz``."""

import tarfile
from datetime import UTC, datetime
from pathlib import Path

VECTORS = Path(__file__).resolve().parent / "vectors"
#: Which versions left one, and when an hour had passed since. Their CAs have ended long ago by any clock but this.
LEFT = {"0.1.0": datetime(2026, 11, 28, 19, 0, tzinfo=UTC)}


def unpack(version: str, home: Path) -> Path:
    """``home/state`` and, beside it, a backup and what that version's mesh-ctl said of it all."""
    with tarfile.open(VECTORS / f"state-{version}.tar.xz") as archive:
        archive.extractall(home, filter="tar")
    return home / "state"
