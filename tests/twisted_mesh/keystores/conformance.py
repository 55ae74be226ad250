"""What every key store keeps to. A test module of a store's own subclasses :class:`KeyStoreConformance`.

It gives two fixtures: ``ground``, which is a :class:`Ground` around a store that is started and has room for a few
keys, and which stops it afterwards; and what it can besides is said in the class's fields.
"""

from collections.abc import Awaitable, Callable
from typing import Any, ClassVar

import pytest
from attrs import define

from pki.keys import KeyAlgorithm, KeyReference, MemoryKey, signature_over
from twisted_mesh.keystores.errors import KeyStoreAway, KeyStoreRefused
from twisted_mesh.keystores.interface import KeyStore


@define
class Ground:
    """A store, how a test waits for it, and how it takes it away."""

    store: KeyStore
    settle: Callable[[Awaitable[Any]], Any]
    """The result of what is awaited; raises what that raises."""
    take_away: Callable[[], None]
    """As if it were unplugged, or had died; what comes now finds nobody."""
    bring_back: Callable[[], None]


class KeyStoreConformance:
    """Subclass it as ``Test…``, with a fixture ``ground``."""

    algorithms: ClassVar[tuple[KeyAlgorithm, ...]] = (KeyAlgorithm.EC_P256,)
    """Those that the store makes."""
    destroys: ClassVar[bool] = True
    """Whether keys can be deleted in it."""

    def test_a_made_key_signs_what_its_public_half_verifies(self, ground: Ground) -> None:
        for algorithm in self.algorithms:
            key = ground.settle(ground.store.generate(algorithm, f"mesh.test {algorithm}"))
            assert key.algorithm is algorithm
            assert not key.is_in_memory
            for data in (b"", b"a certificate", b"x" * 20_000):
                assert ground.settle(signature_over(data, key, key.public_key))

    def test_a_reference_finds_its_key_again(self, ground: Ground) -> None:
        made = ground.settle(ground.store.generate(self.algorithms[0], "mesh.test root-1"))
        reference = KeyReference.parse(made.to_pem(b"a passphrase is for files with keys"))
        assert ground.store.holds(reference.uri)
        again = ground.store.key(reference)
        assert ground.settle(signature_over(b"data", again, made.public_key))

    def test_another_stores_key_is_none_of_its_own(self, ground: Ground) -> None:
        assert not ground.store.holds("pkcs11:token=somebody%20elses;object=root-1")
        other = "signer" if ground.store.uri.startswith("pkcs11:") else "pkcs11"
        assert not ground.store.holds(f"{other}:token=mesh")

    def test_each_key_is_another(self, ground: Ground) -> None:
        one, other = (
            ground.settle(ground.store.generate(self.algorithms[0], "the same label"))
            for _ in range(2)
        )
        assert one.reference.key_id != other.reference.key_id
        assert one.uri != other.uri
        for key in (one, other):
            assert ground.settle(signature_over(b"data", key, key.public_key))

    def test_a_key_is_found_by_its_reference(self, ground: Ground) -> None:
        made = ground.settle(ground.store.generate(self.algorithms[0], "mesh.test issuing-1"))
        found = ground.settle(ground.store.find(made.uri))
        assert found.reference.key_id == made.reference.key_id

    def test_what_is_not_there_does_not_sign(self, ground: Ground) -> None:
        made = ground.settle(ground.store.generate(self.algorithms[0], "mesh.test gone"))
        if not self.destroys:
            with pytest.raises(KeyStoreRefused):
                ground.settle(ground.store.destroy(made.reference))
            return
        ground.settle(ground.store.destroy(made.reference))
        ground.settle(ground.store.destroy(made.reference))
        for asked in (
            made.sign(b"data"),
            ground.store.find(made.uri),
            ground.store.whereabouts(made.reference),
        ):
            with pytest.raises(KeyStoreRefused):
                ground.settle(asked)
        assert ground.store.problem is None

    def test_a_key_never_signs_for_another_public_half(self, ground: Ground) -> None:
        """Who changes the public key of a reference gets no signature that would hold for it."""
        made = ground.settle(ground.store.generate(self.algorithms[0], "mesh.test issuing-2"))
        stranger = MemoryKey.generate(self.algorithms[0]).public_key
        forged = ground.store.key(KeyReference(made.uri, stranger))
        with pytest.raises(Exception) as caught:
            ground.settle(signature_over(b"data", forged, stranger))
        assert caught.value.code in ("signing-failed", "key-store-refused")  # type: ignore[attr-defined]

    def test_its_keys_cannot_be_taken_out(self, ground: Ground) -> None:
        made = ground.settle(ground.store.generate(self.algorithms[0], "mesh.test root-2"))
        where = ground.settle(ground.store.whereabouts(made.reference))
        assert where.uri == made.uri
        assert where.store
        assert where.is_extractable is False
        assert where.problem is None

    def test_while_it_is_away_it_says_so_and_it_heals_by_itself(self, ground: Ground) -> None:
        made = ground.settle(ground.store.generate(self.algorithms[0], "mesh.test issuing-3"))
        ground.take_away()
        with pytest.raises(KeyStoreAway) as caught:
            ground.settle(made.sign(b"data"))
        assert ": " in str(caught.value), "it says what is wrong, and what to do"
        ground.settle(ground.store.look())
        assert ground.store.problem is not None
        # What needs no answer needs no store.
        assert ground.store.holds(made.uri)
        assert ground.store.key(made.reference).public_key == made.public_key
        ground.bring_back()
        ground.settle(ground.store.look())
        assert ground.store.problem is None
        assert ground.settle(signature_over(b"data", made, made.public_key))

    def test_it_can_be_stopped_twice_and_signs_no_more(self, ground: Ground) -> None:
        made = ground.settle(ground.store.generate(self.algorithms[0], "mesh.test root-3"))
        ground.settle(ground.store.stop())
        ground.settle(ground.store.stop())
        with pytest.raises(KeyStoreAway):
            ground.settle(made.sign(b"data"))
