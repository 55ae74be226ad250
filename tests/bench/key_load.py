"""Signatures by keys in files and on a token, in a process of their own: a job on standard input, figures on output."""

import json
import statistics
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater, react

from pki.errors import PkiError
from pki.keys import KeyAlgorithm, MemoryKey, SigningKey, signature_over
from twisted_mesh.keystores.ground import StoreGround
from twisted_mesh.keystores.pins import Pins
from twisted_mesh.pkcs11.store import Pkcs11Store, open_store

#: About what a certificate without its signature has.
_DATA = b"d" * 600


@asynccontextmanager
async def _store(job: Mapping[str, Any]) -> AsyncIterator[Pkcs11Store]:
    ground = StoreGround(reactor, Pins(Path(job["pin"])), Path(job["pin"]).parent)  # type: ignore[arg-type]
    store = open_store(job["uri"], ground)
    assert isinstance(store, Pkcs11Store)
    store.start()
    try:
        yield store
    finally:
        await store.stop()


async def signatures(job: Mapping[str, Any]) -> dict[str, Any]:
    """For ``seconds``, by ``callers`` at a time: each signature is verified, as the CA does it."""
    algorithm = KeyAlgorithm(job["algorithm"])
    if "uri" not in job:
        return await _sign(MemoryKey.generate(algorithm), job)
    async with _store(job) as store:
        return await _sign(await store.generate(algorithm, "bench"), job)


async def _sign(key: SigningKey, job: Mapping[str, Any]) -> dict[str, Any]:
    end, took = time.perf_counter() + job["seconds"], []

    async def call() -> None:
        while (began := time.perf_counter()) < end:
            await signature_over(_DATA, key, key.public_key)
            took.append(time.perf_counter() - began)
            # A file's key is there at once, and others' turns come all the same.
            await deferLater(reactor, 0)  # type: ignore[arg-type]

    began = time.perf_counter()
    await gatherResults([Deferred.fromCoroutine(call()) for _ in range(job["callers"])])
    seconds = time.perf_counter() - began
    return {
        "rate": len(took) / seconds,
        "median": statistics.median(took),
        "p99": statistics.quantiles(took, n=100)[98],
    }


async def recovery(job: Mapping[str, Any]) -> dict[str, Any]:
    """Seconds from the token's return, which is told by a file, until it signs: by who asks all the time, and none."""
    async with _store(job) as store:
        key = await store.generate(KeyAlgorithm.EC_P256, "bench")
        tokens, elsewhere = Path(job["tokens"]), Path(job["elsewhere"])
        times = []
        for _ in range(job["times"]):
            tokens.rename(elsewhere)
            tokens.mkdir()
            for _ in range(20):
                try:
                    await key.sign(_DATA)
                except PkiError:
                    break
            tokens.rmdir()
            elsewhere.rename(tokens)
            began = time.perf_counter()
            while True:
                try:
                    await key.sign(_DATA)
                    break
                except PkiError:
                    await deferLater(reactor, 0.01)  # type: ignore[arg-type]
            times.append(time.perf_counter() - began)
        return {"median": statistics.median(times), "longest": max(times)}


async def _main(_: object) -> None:
    job = json.load(sys.stdin)
    told = await {"signatures": signatures, "recovery": recovery}[job["kind"]](job)
    sys.stdout.write(json.dumps(told))


if __name__ == "__main__":
    react(lambda clock: Deferred.fromCoroutine(_main(clock)))
