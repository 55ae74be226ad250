"""The key stores of one start: which of them has a key, and how they stand."""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from time import perf_counter

from attrs import define, evolve, field
from twisted.internet.interfaces import IReactorTime

from pki.errors import ANY_ERROR, PkiError, Problem
from pki.keys import KeptKey, KeyReference, SigningKey, weaknesses
from twisted_mesh.keystores.errors import KeyStoreAway, KeyStoreRefused
from twisted_mesh.keystores.interface import KeyStore
from twisted_mesh.keystores.spec import KeySpec
from twisted_mesh.keystores.stored_key import StoredKey
from twisted_mesh.keystores.whereabouts import Whereabouts
from twisted_mesh.runtime.log import logger
from twisted_mesh.runtime.tasks import Ticker, spawn

_log = logger("keys")
#: Seconds between two looks at a store that is away.
TICK = 1.0
#: Of so many looks one is at all of them.
_EACH = 5


def unobserved(store: str, outcome: str, seconds: float) -> None:
    """Nobody counts signatures."""


@define(eq=False, repr=False)
class KeyStores:
    """All that the options name, by their URIs there; a CA whose keys are in files has none."""

    stores: Mapping[str, KeyStore] = field(factory=dict)
    signed: Callable[[str, str, float], None] = unobserved
    """Is told of each signature: the kind of store, ``made`` or why not, and how many seconds it took."""
    _returns: list[Callable[[], None]] = field(factory=list, init=False)
    _ticks: int = field(default=0, init=False)
    _ticker: Ticker | None = field(default=None, init=False)
    _looking: bool = field(default=False, init=False)
    _told: dict[str, str] = field(factory=dict, init=False)
    """What was last told of each store."""

    # Keys.

    def key(self, reference: KeyReference) -> StoredKey:
        """The key of a file that refers to it. Raises :class:`KeyStoreRefused` where no store of ours has it."""
        return self._watched(self.store_of(reference).key(reference))

    async def make(self, spec: KeySpec, label: str) -> StoredKey:
        """The key that ``spec`` names in a store, or a fresh one. Raises as stores do."""
        if spec.store is None:
            raise AssertionError("a key in a file is made by whoever keeps it")
        store = self.stores[spec.store]
        if spec.key is None:
            return self._watched(await store.generate(spec.algorithm, label))
        found = await store.find(spec.key)
        if problems := weaknesses(found.public_key):
            raise KeyStoreRefused(f"the key {spec.key} is used for no CA: {problems[0]}")
        return self._watched(found)

    def are_made_in(self, spec: KeySpec, key: KeptKey) -> bool:
        """Whether such a key is where ``spec`` has keys made."""
        if spec.store is None:
            return key.is_in_memory
        return isinstance(key, StoredKey) and self.stores[spec.store].holds(key.uri)

    async def destroy(self, reference: KeyReference) -> Problem | None:
        """Delete a key in its store; why that could not be done. Never raises for a store's sake."""
        try:
            await self.store_of(reference).destroy(reference)
        except PkiError as error:
            return error.problems[0]
        return None

    async def whereabouts(self, key: SigningKey) -> Whereabouts:
        """Where a key is; of one whose store cannot say, why. Never raises for a store's sake."""
        if not isinstance(key, StoredKey):
            return Whereabouts("file", "")
        kind, own_pin, where = key.reference.scheme, "", ""
        try:
            store = self.store_of(key.reference)
            own_pin, where = store.own_pin, store.uri.removeprefix(f"{kind}:")
            return evolve(await store.whereabouts(key.reference), own_pin=own_pin)
        except PkiError as error:
            return Whereabouts(
                kind, key.uri, store=where, own_pin=own_pin, problem=error.problems[0]
            )

    def store_of(self, reference: KeyReference) -> KeyStore:
        """The store that a reference names. Raises :class:`KeyStoreRefused`."""
        for store in self.stores.values():
            if store.holds(reference.uri):
                return store
        raise KeyStoreRefused(
            f"the key {reference.uri} is in no store that this start names: say where it is, --key-store "
            f"{reference.scheme}:… (docs/KEYS.md)"
        )

    def _watched(self, key: StoredKey) -> StoredKey:
        store = self.store_of(key.reference)
        return evolve(key, signer=partial(self._sign, key), standing=lambda: store.problem)

    async def _sign(self, key: StoredKey, _: KeyReference, data: bytes) -> bytes:
        started, outcome = perf_counter(), "broke"
        try:
            signature = await key.sign(data)
            outcome = "made"
            return signature
        except KeyStoreAway:
            outcome = "away"
            raise
        except KeyStoreRefused:
            outcome = "refused"
            raise
        finally:
            self.signed(key.reference.scheme, outcome, perf_counter() - started)

    # Stores.

    @property
    def problems(self) -> Mapping[str, PkiError]:
        """What is wrong with those that do not work, by the names that people know them by."""
        return {s.uri: s.problem for s in self.stores.values() if s.problem is not None}

    @property
    def standing(self) -> Mapping[str, float]:
        """1 for each that works, 0 for each that does not, by the same names; ``files`` where there is none."""
        standing = {s.uri: float(s.problem is None) for s in self.stores.values()}
        return standing or {"files": 1.0}

    def start(self, clock: IReactorTime) -> None:
        """Open them, once twistd has forked, and look at them from now on."""
        if not self.stores:
            return
        for store in self.stores.values():
            store.start()
        self._ticker = Ticker(clock, TICK, self._tick, "the key stores", _log)
        self._ticker.start(now=False)

    async def stop(self) -> None:
        """Close them."""
        if self._ticker is not None:
            self._ticker.stop()
        for store in self.stores.values():
            try:
                await store.stop()
            except ANY_ERROR:
                _log.failure(
                    "the key store {uri} does not close", event="key-store-broke", uri=store.uri
                )

    def watch_return(self, returned: Callable[[], None]) -> None:
        """Have ``returned`` called whenever a store signs again that did not."""
        self._returns.append(returned)

    async def look(self) -> None:
        """See how each of them stands, and tell where that is another than before."""
        await self._look_at(tuple(self.stores.values()))

    async def try_again(self) -> str:
        """A person asks: see :meth:`KeyStore.try_again`. What has changed, and what came of that, in words."""
        failing = set(self.problems)
        others = {store.uri for store in self.stores.values() if store.try_again()}
        await self.look()
        problems, told = self.problems, []
        for uri in sorted(failing | others):
            found = [f"another PIN for {uri}"] if uri in others else []
            if uri in failing and uri not in problems:
                found.append(f"{uri} signs again")
            elif uri in others and uri in problems:
                found.append(f"it does not sign: {problems[uri]}")
            told += found
        return "; ".join(told)

    def _tick(self) -> None:
        self._ticks += 1
        if self._looking:
            return
        due = [s for s in self.stores.values() if self._ticks % _EACH == 0 or s.problem is not None]
        if due:
            self._looking = True
            _ = spawn(self._look(due), "a look at the key stores", _log)

    async def _look(self, due: Iterable[KeyStore]) -> None:
        try:
            await self._look_at(due)
        finally:
            self._looking = False

    async def _look_at(self, due: Iterable[KeyStore]) -> None:
        self._tell()  # a signature may have found out in between
        for store in due:
            await store.look()
        self._tell()

    def _tell(self) -> None:
        problems = self.problems
        for uri, problem in problems.items():
            if self._told.get(uri) != str(problem):
                self._told[uri] = str(problem)
                _log.error(
                    "The key store {uri} does not sign: {reason}",
                    event="key-store-away",
                    uri=uri,
                    reason=str(problem),
                )
        for uri in self._told.keys() - problems.keys():
            del self._told[uri]
            _log.info("The key store {uri} signs again", event="key-store-back", uri=uri)
            for returned in self._returns:
                returned()


def stores_of(
    specs: Iterable[KeySpec],
    others: Iterable[str],
    open_store: Callable[[str], KeyStore],
    signed: Callable[[str, str, float], None] = unobserved,
) -> KeyStores:
    """The stores that key options name, and ``others``: one for each URI, however many keys are in it.

    ``signed`` is told of each signature.
    """
    named = [spec.store for spec in specs if spec.store is not None]
    return KeyStores({uri: open_store(uri) for uri in dict.fromkeys((*named, *others))}, signed)
