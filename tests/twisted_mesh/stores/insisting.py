"""A program that issues on a disk that has its troubles: what is refused is told, and tried again.

``python -m tests.twisted_mesh.stores.insisting DIRECTORY CLIENTS PAIRS`` prints ``certificate SERIAL``
once the store has acknowledged it, and each refusal.
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet import defer, reactor, task

from tests.twisted_mesh.stores.certificates import der, intent
from tests.twisted_mesh.stores.certificates import issue as at_once
from twisted_mesh.stores.commands import Command, RecordCertificate
from twisted_mesh.stores.opening import open_store
from twisted_mesh.stores.records import StoreError


async def insist(store: Any, command: Callable[[], Command]) -> Any:
    for _ in range(1000):
        try:
            return await store.apply(command())
        except StoreError as error:
            os.write(1, f"refused {error}\n".encode())
    raise SystemExit("refused for ever")


async def issue(store: Any, first: int, step: int, pairs: int) -> None:
    for serial in range(first, first + step * pairs, step):
        if serial % 2:
            await insist(store, lambda serial=serial: at_once(serial))
            os.write(1, f"certificate {serial}\n".encode())
            continue
        number = await insist(store, lambda serial=serial: intent(serial))
        await insist(
            store, lambda serial=serial, number=number: RecordCertificate(number, der(serial))
        )
        os.write(1, f"certificate {serial}\n".encode())


async def main(directory: str, clients: str, pairs: str) -> None:
    store = open_store("", Path(directory), reactor)
    store.start()
    os.write(1, b"started\n")
    count = int(clients)
    await defer.gatherResults(
        defer.ensureDeferred(issue(store, n, count, int(pairs))) for n in range(count)
    )
    await store.stop()


if __name__ == "__main__":
    task.react(lambda _: defer.ensureDeferred(main(*sys.argv[1:])))
