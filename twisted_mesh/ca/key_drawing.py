"""Keys for CAs that are about to be made: drawn once, so that a crash in between takes up the same one again."""

from collections.abc import Awaitable, Callable, Collection
from typing import Any

from attrs import define, field
from twisted.internet.threads import deferToThread

from pki.keys import KeptKey, KeyAlgorithm, MemoryKey, key_id
from pki.spiffe import TrustDomain
from twisted_mesh.keystores.errors import KeyStoreRefused
from twisted_mesh.keystores.spec import KeySpec
from twisted_mesh.keystores.stored_key import StoredKey
from twisted_mesh.keystores.stores import KeyStores
from twisted_mesh.runtime.log import logger
from twisted_mesh.state.directory import StateError
from twisted_mesh.state.key_files import KeyFiles

_log = logger("ca")


async def in_place(call: Callable[..., Any], *args: Any) -> Any:
    """What ``call`` returns, at once: at a start nobody waits for the reactor yet."""
    return call(*args)


@define(eq=False, repr=False)
class KeyDrawing:
    """Makes keys where options say, and keeps them, or the word of where they are, in files."""

    files: KeyFiles
    trust_domain: TrustDomain
    stores: KeyStores = field(factory=KeyStores)
    aside: Callable[..., Awaitable[Any]] = deferToThread
    """Runs what writes files or makes keys, off the reactor."""

    async def draw(
        self,
        name: str,
        spec: KeySpec,
        label: str,
        telling: Callable[[KeyAlgorithm], None],
        taken: Collection[str] = (),
    ) -> KeptKey:
        """The key of the file ``name``: the one that was drawn before, else one that is made, or found, and kept.

        ``label`` is what it is called on a token, after the trust domain; ``telling`` says that it is being made;
        ``taken`` are the ids of keys that CAs have already. Raises :class:`StateError`, and what stores raise.
        """
        drawn = await self.aside(self._drawn, name, spec)
        if drawn is not None:
            await self.aside(self.files.seal)
            found: KeptKey = drawn
            return found
        telling(spec.algorithm)
        made: KeptKey
        if spec.is_stored:
            made = await self.stores.make(spec, f"{self.trust_domain} {label}")
            if key_id(made.public_key) in taken:
                raise KeyStoreRefused(
                    f"the key {spec.key} is a CA's of this trust domain already, and the next one has a key of its "
                    "own: name another with object=, or none, so that one is made"
                )
        else:
            made = await self.aside(MemoryKey.generate, spec.algorithm)
        await self.aside(self.files.write, name, made)
        return made

    def _drawn(self, name: str, spec: KeySpec) -> KeptKey | None:
        """What lies there already and is what ``spec`` would make."""
        if spec.key is not None or not self.files.exists(name):
            return None
        try:
            key = self.files.kept(name)
        except StateError:
            return None
        fits = key.algorithm is spec.algorithm and self.stores.are_made_in(spec, key)
        return key if fits else None

    async def destroy(self, key: KeptKey) -> None:
        """Delete a key that is wanted no more and whose file is gone, where it was made for this CA. Never raises.

        One that somebody else has made, and named with ``object=``, stays; so does what a store refuses to delete.
        """
        if not isinstance(key, StoredKey):
            return
        where = await self.stores.whereabouts(key)
        if where.problem is None and not where.label.startswith(f"{self.trust_domain} "):
            return
        problem = where.problem or await self.stores.destroy(key.reference)
        if problem is not None:
            _log.warn(
                "The key {uri} is wanted no more, and is still where it was: {reason}. Delete it there",
                event="key-left-over",
                uri=key.uri,
                reason=problem.detail,
            )
