"""The keys behind a signer: in files of its own, or in another key store; made, found and put to use."""

import re
from collections.abc import Awaitable

from attrs import define, field

from pki.errors import Malformed
from pki.keys import KeptKey, KeyAlgorithm, MemoryKey, signature_over, spki_der
from pki.signing.memory import HeldKey
from twisted_mesh.keystores.spec import KeySpec, without_query
from twisted_mesh.keystores.stored_key import StoredKey
from twisted_mesh.keystores.stores import KeyStores
from twisted_mesh.runtime.tasks import Defer
from twisted_mesh.signer.key_row import KeyRow
from twisted_mesh.signer.messages import KeyPurpose, KeyWhereabouts, NewKey
from twisted_mesh.state.key_files import KeyFiles

#: Where a key is that is in a file.
FILES = "files"
_LABEL = re.compile(r"[\x20-\x7e]{1,120}", re.ASCII)


@define(eq=False, repr=False)
class Keyring:
    """Signs with any of the keys; what may be signed others have judged by then."""

    files: KeyFiles
    stores: KeyStores
    defer: Defer
    store: str | None = None
    """The URI of the key store that new keys are made in; None for files."""
    _keys: dict[str, KeptKey] = field(factory=dict, init=False, repr=False)

    def load(self, row: KeyRow) -> None:
        """Have a key of the record at hand. Raises what files and stores raise, and :class:`Malformed`."""
        key = self.files.kept(f"{row.held.name}.key")
        if spki_der(key.public_key) != row.held.spki:
            raise Malformed(
                f"{self.files.path(row.held.name)}.key is not the key of that name in the record: bring back the one "
                "that was there"
            )
        self._keys[row.held.name] = key

    async def sign(self, held: HeldKey, data: bytes) -> bytes:
        """The signature, verified. Raises what the key's store raises, and :class:`pki.keys.SigningFailed`."""
        key = self._keys[held.name]
        if not key.is_in_memory:
            return await signature_over(data, key, held.public_key)
        return await self.defer(_at_once, signature_over(data, key, held.public_key))

    async def make(self, asked: NewKey, name: str) -> KeyRow:
        """A new key, kept, and not in the record yet. Raises :class:`Malformed` and what stores raise."""
        algorithm = _algorithm(asked)
        if not _LABEL.fullmatch(asked.label):
            raise Malformed("a key's label is 1 to 120 characters of printable ASCII")
        key: KeptKey
        if self.store is None:
            key = await self.defer(MemoryKey.generate, algorithm)
        else:
            key = await self.stores.make(KeySpec(algorithm, self.store), asked.label)
        return await self.keep(key, asked.purpose, name, asked.label, is_made_here=True)

    async def keep(
        self, key: KeptKey, purpose: KeyPurpose, name: str, label: str, *, is_made_here: bool
    ) -> KeyRow:
        """Write a key, or where it is, into a file of ours. Raises :class:`PkiError`."""
        await self.defer(self.files.write, f"{name}.key", key)
        self._keys[name] = key
        spki = spki_der(key.public_key)
        held = HeldKey(name, str(purpose), key.algorithm, key.public_key, spki, is_made_here)
        return KeyRow(held, label, without_query(key.uri) if isinstance(key, StoredKey) else FILES)

    async def whereabouts(self, row: KeyRow) -> KeyWhereabouts:
        """Where a key is, by what its store says. Never raises for a store's sake."""
        key, name = self._keys[row.held.name], row.held.name
        if not isinstance(key, StoredKey):
            return KeyWhereabouts(name, FILES, is_extractable=True)
        found = await self.stores.whereabouts(key)
        return KeyWhereabouts(
            name,
            found.kind,
            found.store,
            found.serial,
            found.model,
            found.label,
            found.id,
            found.is_extractable,
            found.is_sensitive,
            found.is_local,
            str(found.problem) if found.problem is not None else "",
        )


def _algorithm(asked: NewKey) -> KeyAlgorithm:
    try:
        return KeyAlgorithm(asked.algorithm)
    except ValueError:
        raise Malformed(f"a key's algorithm is one of {', '.join(KeyAlgorithm)}") from None


def _at_once(work: Awaitable[bytes]) -> bytes:
    """What a coroutine comes to that waits for nothing: a key in memory."""
    steps = work.__await__()
    try:
        next(steps)
    except StopIteration as done:
        result: bytes = done.value
        return result
    raise AssertionError("a key in memory waits for nothing")
