"""Tokens of SoftHSM, stores on them, and the module that misbehaves."""

from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from tests.twisted_mesh.pkcs11.softhsm import Shim, SoftHsm
from tests.twisted_mesh.support import ThreadCalls
from twisted_mesh.keystores.ground import StoreGround
from twisted_mesh.keystores.interface import KeyStore
from twisted_mesh.keystores.pins import Pins


class TokenReactor(ThreadCalls, Clock):
    """Threads of their own, and a clock that the test moves."""

    def __init__(self) -> None:
        ThreadCalls.__init__(self)
        Clock.__init__(self)


async def _awaited(work: Awaitable[Any]) -> Any:
    return await work


@define
class Stores:
    """Those of one test."""

    reactor: TokenReactor
    directory: Path
    opened: list[KeyStore] = field(factory=list)

    def open(self, uri: str, pin: Path | None, *, start: bool = True) -> Any:
        from twisted_mesh.pkcs11.store import open_store

        store = open_store(uri, StoreGround(self.reactor, Pins(pin), self.directory))
        self.opened.append(store)
        if start:
            store.start()
        return store

    def begun(self, work: Awaitable[Any]) -> "Deferred[Any]":
        return Deferred.fromCoroutine(_awaited(work))

    def settle(self, work: Awaitable[Any]) -> Any:
        return self.reactor.result(self.begun(work))

    def stop(self) -> None:
        for store in self.opened:
            stopped = self.begun(store.stop())
            self.reactor.advance(0)
            self.reactor.result(stopped)


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> SoftHsm:
    pytest.importorskip("pkcs11")
    return SoftHsm.made(tmp_path_factory.mktemp("softhsm") / "made", "mesh")


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> str:
    return Shim.built(tmp_path_factory.mktemp("shim"))


@pytest.fixture
def softhsm(made: SoftHsm, tmp_path: Path) -> Iterator[SoftHsm]:
    copied = made.copied(tmp_path / "softhsm")
    with copied.here():
        yield copied


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[Stores]:
    stores = Stores(TokenReactor(), tmp_path)
    yield stores
    stores.stop()


@pytest.fixture
def shim(built: str, softhsm: SoftHsm, tmp_path: Path) -> Iterator[Shim]:
    shim = Shim(built, tmp_path, softhsm.module)
    shim.does()
    with shim.here():
        yield shim


@pytest.fixture
def opened(stores: Stores, softhsm: SoftHsm) -> Callable[..., Any]:
    """Opens a store on the token of this test."""
    return lambda query="", **more: stores.open(softhsm.uri(query=query, **more), softhsm.pin)
