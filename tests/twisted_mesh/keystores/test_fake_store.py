"""The tests' own key store keeps to what every one does."""

from collections.abc import Iterator

import pytest

from pki.keys import KeyAlgorithm
from tests.twisted_mesh.keystores.conformance import Ground, KeyStoreConformance
from tests.twisted_mesh.keystores.fake_store import FakeStore
from tests.twisted_mesh.keystores.settling import result_now


class TestFakeStore(KeyStoreConformance):
    """In this process, at once."""

    algorithms = (KeyAlgorithm.EC_P256, KeyAlgorithm.ED25519)

    @pytest.fixture
    def ground(self) -> Iterator[Ground]:
        store = FakeStore()
        store.start()

        def turn(is_away: bool) -> None:
            store.is_away = is_away

        yield Ground(store, result_now, lambda: turn(True), lambda: turn(False))
