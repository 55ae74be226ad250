"""A program that issues until it is killed, and prints each serial once the store has acknowledged it.

``python -m tests.twisted_mesh.stores.acknowledging DIRECTORY [CLIENTS [PAIRS [unsafe]]]``; ``unsafe``
turns synchronous off, for the test of the test. Every other certificate has an intent first.
"""

import os
import sqlite3
import sys
from pathlib import Path

from twisted.internet import defer, reactor, task

from tests.twisted_mesh.stores.certificates import der, intent
from tests.twisted_mesh.stores.certificates import issue as issue_at_once
from twisted_mesh.stores.commands import RecordCertificate
from twisted_mesh.stores.sql import SqlStore
from twisted_mesh.stores.sqlite import Sqlite


class Unsafe(Sqlite):
    def _connect(self) -> sqlite3.Connection:
        connection = super()._connect()
        connection.execute("PRAGMA synchronous = OFF")
        return connection


async def issue(store: SqlStore, first: int, step: int, pairs: int) -> None:
    for number in range(pairs):
        serial = first + number * step
        if number % 2:
            await store.apply(issue_at_once(serial))
            os.write(1, f"certificate {serial}\n".encode())
            continue
        opened = await store.apply(intent(serial))
        os.write(1, f"intent {serial}\n".encode())
        await store.apply(RecordCertificate(opened, der(serial)))
        os.write(1, f"certificate {serial}\n".encode())


async def main(directory: str, clients: str = "16", pairs: str = "1000000", *unsafe: str) -> None:
    database = (Unsafe if unsafe else Sqlite)(Path(directory) / "ca" / "mesh.db")
    store = SqlStore(database, reactor)
    store.start()
    os.write(1, b"started\n")
    count = int(clients)
    await defer.gatherResults(
        defer.ensureDeferred(issue(store, n, count, int(pairs))) for n in range(count)
    )
    await store.stop()


if __name__ == "__main__":
    task.react(lambda _: defer.ensureDeferred(main(*sys.argv[1:])))
