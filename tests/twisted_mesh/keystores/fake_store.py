"""A key store in this process, which a test can take away, slow down, and have lie."""

from collections.abc import Callable
from contextlib import suppress

from attrs import define, field
from twisted.internet.defer import Deferred

from pki.errors import PkiError
from pki.keys import KeyAlgorithm, KeyReference, MemoryKey
from twisted_mesh.keystores.errors import KeyStoreAway, KeyStoreRefused
from twisted_mesh.keystores.stored_key import StoredKey
from twisted_mesh.keystores.whereabouts import Whereabouts


@define(eq=False)
class FakeStore:
    """Its keys are ``pkcs11:token=NAME;object=LABEL;id=%NN``."""

    name: str = "mesh"
    keys: dict[str, tuple[MemoryKey, str]] = field(factory=dict)
    """By their URIs, with their labels."""
    is_away: bool = False
    refuses: str = ""
    lies: Callable[[bytes], bytes] = lambda signature: signature
    held: "Deferred[None] | None" = None
    """What each signature waits for."""
    problem: PkiError | None = None
    own_pin: str = ""
    started: bool = False
    signed: int = 0
    tries: int = 0
    """How often a person has asked to try again."""
    has_another_pin: bool = False
    """What is answered then."""
    _next: int = 1

    @property
    def uri(self) -> str:
        return f"pkcs11:token={self.name}"

    def start(self) -> None:
        self.started = True

    async def stop(self) -> None:
        self.started = False

    async def look(self) -> None:
        with suppress(PkiError):
            self._here()

    def try_again(self) -> bool:
        self.tries += 1
        return self.has_another_pin

    def holds(self, uri: str) -> bool:
        return uri.partition(";")[0] == self.uri

    def key(self, reference: KeyReference) -> StoredKey:
        return StoredKey(reference, self._sign)

    async def generate(self, algorithm: KeyAlgorithm, label: str) -> StoredKey:
        self._here()
        key = MemoryKey.generate(algorithm)
        uri = f"{self.uri};object={label.replace(' ', '%20')};id=%{self._next:02x}"
        self._next += 1
        self.keys[uri] = (key, label)
        return self.key(KeyReference(uri, key.public_key))

    async def find(self, uri: str) -> StoredKey:
        self._here()
        found = [held for held in self.keys if set(uri.split(";")) <= set(held.split(";"))]
        if len(found) != 1:
            there = ", ".join(label for _, label in self.keys.values()) or "nothing"
            raise KeyStoreRefused(f"{len(found)} keys are {uri}: there is {there}")
        (held,) = found
        return self.key(KeyReference(held, self.keys[held][0].public_key))

    async def destroy(self, reference: KeyReference) -> None:
        self._here()
        self.keys.pop(reference.uri, None)

    async def whereabouts(self, reference: KeyReference) -> Whereabouts:
        self._here()
        self._held(reference)
        return Whereabouts(
            "pkcs11",
            reference.uri,
            store=self.name,
            label=self.keys[reference.uri][1],
            is_extractable=False,
            is_sensitive=True,
            is_local=True,
        )

    async def _sign(self, reference: KeyReference, data: bytes) -> bytes:
        self._here()
        if self.held is not None:
            await self.held
        self._here()
        self.signed += 1
        return self.lies(await self._held(reference).sign(data))

    def _held(self, reference: KeyReference) -> MemoryKey:
        if reference.uri not in self.keys:
            raise KeyStoreRefused(f"there is no key {reference.uri} on the token")
        return self.keys[reference.uri][0]

    def _here(self) -> None:
        self.problem = None
        if not self.started or self.is_away:
            self.problem = KeyStoreAway("the token is not in its slot: put it back")
        elif self.refuses:
            self.problem = KeyStoreRefused(self.refuses)
        if self.problem is not None:
            raise self.problem
