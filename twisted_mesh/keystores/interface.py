"""What a key store is: keys are made in it, found in it, and sign in it, and never leave it.

Every implementation is held to the one suite of ``tests/twisted_mesh/keystores/conformance.py``.
"""

from typing import Protocol

from pki.errors import PkiError
from pki.keys import KeyAlgorithm, KeyReference
from twisted_mesh.keystores.stored_key import StoredKey
from twisted_mesh.keystores.whereabouts import Whereabouts


class KeyStore(Protocol):
    """A token, a signer behind a socket.

    What is awaited raises :class:`KeyStoreAway` where the store does not answer in time, and
    :class:`KeyStoreRefused` where it says no; nothing else of its own. All of it is called on the reactor, and
    nothing blocks that.
    """

    @property
    def uri(self) -> str:
        """Which, for people and logs; there is no secret in it."""
        ...

    @property
    def problem(self) -> PkiError | None:
        """Why the last that was asked of it failed; None while it works. A refusal of one key is none of the store."""
        ...

    @property
    def own_pin(self) -> str:
        """The key that we prove ourselves by there, for those who have to let us in; empty where that is not asked."""
        ...

    def start(self) -> None:
        """From now on it may be opened: threads, descriptors, sessions. twistd forks before. Nothing is awaited."""
        ...

    async def stop(self) -> None:
        """Close all. May be said again, and before it was started."""
        ...

    async def look(self) -> None:
        """See whether it is there, and open it anew where it was away; :attr:`problem` says how it went.

        Called every few seconds. Never raises, and tries no PIN again that was wrong.
        """
        ...

    def try_again(self) -> bool:
        """A person asks: what was refused for good, as a wrong PIN is, may be tried once more.

        Whether there is another PIN than when a person asked last, or than the first there was.
        """
        ...

    def holds(self, uri: str) -> bool:
        """Whether a key of that URI, as references have it, is this store's. By the URI alone: nothing is asked."""
        ...

    def key(self, reference: KeyReference) -> StoredKey:
        """The key of a reference that :meth:`holds`. Nothing is asked: it is there while the store is away."""
        ...

    async def generate(self, algorithm: KeyAlgorithm, label: str) -> StoredKey:
        """A fresh key, which cannot be taken out again; it is there for good once this returns.

        Each call makes one. ``label`` is what people find it by: the same label may be there already.
        """
        ...

    async def find(self, uri: str) -> StoredKey:
        """The one key of that URI, which may name less than a reference does: a label alone.

        :class:`KeyStoreRefused` where there is none, and lists what there is; or more than one.
        """
        ...

    async def destroy(self, reference: KeyReference) -> None:
        """Delete a key. It may be gone already. :class:`KeyStoreRefused` where the store lets nobody delete keys."""
        ...

    async def whereabouts(self, reference: KeyReference) -> Whereabouts:
        """What the store says of a key. Raises as all else does."""
        ...
