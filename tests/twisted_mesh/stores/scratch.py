"""The drill: one more kind of store, ``scratch:PATH``, which is a file somewhere else. All that it takes is here."""

from pathlib import Path

from twisted.internet.interfaces import IReactorFromThreads
from zope.interface import implementer

from twisted_mesh.stores import opening
from twisted_mesh.stores.interface import IStore
from twisted_mesh.stores.sql import SqlStore
from twisted_mesh.stores.sqlite import Sqlite

SCHEME = "scratch:"


@implementer(IStore)
class ScratchStore(SqlStore):
    """Keeps nothing for good, though it is on a disk."""

    is_kept = False


def open_scratch(spec: str, _: Path, reactor: IReactorFromThreads) -> IStore:
    return ScratchStore(Sqlite(Path(spec.removeprefix(SCHEME))), reactor)


#: The line of registration.
opening.STORES[SCHEME] = open_scratch
