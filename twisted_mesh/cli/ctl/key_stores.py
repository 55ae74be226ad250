"""Key stores for commands that work on a root's or a CA's files: opened where the command line names one."""

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from attrs import frozen

from pki.keys import KeyAlgorithm
from pki.keys.reference import SCHEMES
from twisted_mesh.api.blocking_client import result_of
from twisted_mesh.cli.ctl.options import key_algorithm
from twisted_mesh.keystores.spec import KeySpec, parse_store
from twisted_mesh.keystores.stores import KeyStores, stores_of


@frozen
class Named:
    """What a command line says of stores."""

    uris: Sequence[str]
    pin_file: Path | None
    spec: KeySpec | None = None
    """Of a key that is to be made, or found."""

    @classmethod
    def of(cls, uris: Sequence[str], pin_file: str | None, spec: KeySpec | None = None) -> "Named":
        """Raises :class:`pki.errors.Malformed`."""
        stores = [parse_store(uri, "--key-store")[0] for uri in uris]
        return cls(stores, Path(pin_file) if pin_file else None, spec)


#: A command line without a store.
NOTHING_NAMED = Named((), None)


def spec_of(text: str, option: str, default: KeyAlgorithm) -> KeySpec:
    """An algorithm, or a key in a store. Raises :class:`Unusable` and :class:`pki.errors.Malformed`."""
    if not is_uri(text):
        return KeySpec(key_algorithm(text))
    return KeySpec.parse(text, option, default)


def is_uri(text: str) -> bool:
    """Whether it names a key in a store, and no file or algorithm."""
    return text.partition(":")[0] in SCHEMES


def with_stores(named: Named, directory: Path, work: Callable[[KeyStores], Awaitable[int]]) -> int:
    """Do ``work``; its exit status. A reactor runs where a store is named: its answers are waited for.

    ``directory`` is where a store may keep what it proves itself by. Raises :class:`pki.errors.PkiError`.
    """
    if not named.uris and not (named.spec is not None and named.spec.is_stored):
        return result_of(work(KeyStores()))
    from twisted_mesh.cli.running import reactor, run
    from twisted_mesh.custody import open_store
    from twisted_mesh.keystores.ground import StoreGround
    from twisted_mesh.keystores.pins import Pins

    ground = StoreGround(reactor, Pins(named.pin_file), directory)
    specs = [named.spec] if named.spec is not None else []
    stores = stores_of(specs, named.uris, lambda uri: open_store(uri, ground))

    async def whole() -> int:
        stores.start(reactor)
        try:
            return await work(stores)
        finally:
            await stores.stop()

    return run("mesh-ctl", whole)
