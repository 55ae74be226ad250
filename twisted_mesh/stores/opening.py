"""From what ``--store`` says to a store."""

from pathlib import Path

from twisted.internet.interfaces import IReactorFromThreads

from pki.errors import printable
from twisted_mesh.stores.records import StoreError
from twisted_mesh.stores.sql import SqlStore
from twisted_mesh.stores.sqlite import Sqlite


def open_store(spec: str, state_dir: Path, reactor: IReactorFromThreads) -> SqlStore:
    """The store that ``spec`` names, not started: nothing is opened yet. Raises :class:`StoreError`.

    Empty or ``sqlite`` is a file in the state directory; ``memory:`` forgets all when it stops.
    """
    if spec in ("", "sqlite"):
        return SqlStore(Sqlite(state_dir / "ca" / "mesh.db"), reactor)
    if spec == "memory:":
        return SqlStore(Sqlite(None), reactor)
    if spec.startswith(("postgresql:", "postgres:")):  # never echoed: it holds a password
        raise StoreError(
            "--store postgresql://… comes in a later version: leave --store out for SQLite in the state directory"
        )
    raise StoreError(
        f"--store {printable(spec, 60)} is no store: it is sqlite (the default) or memory:"
    )
