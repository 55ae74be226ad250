"""A key that is elsewhere, as this process has it: its public half, its place, and who signs by it."""

from collections.abc import Awaitable, Callable

from attrs import field, frozen

from pki.errors import PkiError
from pki.keys import KeyAlgorithm, KeyReference, PublicKey


@frozen(eq=False, repr=False)
class StoredKey:
    """A :class:`pki.keys.KeptKey` on a token or behind a signer. It is there while its store is away."""

    reference: KeyReference
    signer: Callable[[KeyReference, bytes], Awaitable[bytes]] = field(repr=False)
    """The store's: it raises :class:`KeyStoreAway` and :class:`KeyStoreRefused`."""
    standing: Callable[[], PkiError | None] = field(default=lambda: None, repr=False)
    """What is wrong with the store, as far as is known; nothing is asked."""
    algorithm: KeyAlgorithm = field(init=False)

    @algorithm.default
    def _of_the_public_key(self) -> KeyAlgorithm:
        return self.reference.algorithm

    def demand_store(self) -> None:
        """Raises why its store does not sign, where that is known, before anything is begun that needs it."""
        problem = self.standing()
        if problem is not None:
            raise type(problem)(str(problem))

    @property
    def uri(self) -> str:
        """Where it is."""
        return self.reference.uri

    @property
    def is_in_memory(self) -> bool:
        """Never: somebody else has seen what it signs."""
        return False

    @property
    def public_key(self) -> PublicKey:
        """What verifies its signatures."""
        return self.reference.public_key

    async def sign(self, data: bytes) -> bytes:
        """The signature over ``data``, as :meth:`pki.keys.SigningKey.sign` has it."""
        return await self.signer(self.reference, data)

    def to_pem(self, passphrase: bytes | None = None) -> bytes:
        """What its file holds: the reference, which is no secret and is not encrypted."""
        return str(self.reference).encode("ascii")
