"""From what ``--store`` says to a store, by a registry."""

from collections.abc import Callable
from pathlib import Path

from twisted.internet.interfaces import IReactorFromThreads

from pki.errors import discreet
from twisted_mesh.stores.interface import IStore
from twisted_mesh.stores.records import StoreError
from twisted_mesh.stores.sql import SqlStore
from twisted_mesh.stores.sqlite import Sqlite

#: Makes the store that a ``--store`` names, not started, for a state directory. Raises :class:`StoreError`.
StoreMaker = Callable[[str, Path, IReactorFromThreads], IStore]


def _in_a_file(_: str, state_dir: Path, reactor: IReactorFromThreads) -> IStore:
    return SqlStore(Sqlite(state_dir / "ca" / "mesh.db"), reactor)


def _in_memory(_: str, __: Path, reactor: IReactorFromThreads) -> IStore:
    return SqlStore(Sqlite(None), reactor)


def _later(_: str, __: Path, ___: IReactorFromThreads) -> IStore:
    # What was asked for is never echoed: it holds a password.
    raise StoreError(
        "--store postgresql://… comes in a later version: leave --store out for SQLite in the state directory"
    )


#: Every kind of store, one line each: by the whole of what ``--store`` says, or by what stands before its first colon.
STORES: dict[str, StoreMaker] = {
    "": _in_a_file,
    "sqlite": _in_a_file,
    "memory:": _in_memory,
    "postgresql:": _later,
    "postgres:": _later,
}


def open_store(spec: str, state_dir: Path, reactor: IReactorFromThreads) -> IStore:
    """The store that ``spec`` names, not started: nothing is opened yet. Raises :class:`StoreError`.

    Empty or ``sqlite`` is a file in the state directory; ``memory:`` forgets all when it stops.
    """
    scheme, colon, rest = spec.partition(":")
    make = STORES.get(scheme + colon)
    if make is None or (rest and make is _in_memory):
        raise StoreError(
            f"--store {discreet(spec, 60)} is no store: it is sqlite (the default) or memory:"
        )
    return make(spec, state_dir, reactor)
