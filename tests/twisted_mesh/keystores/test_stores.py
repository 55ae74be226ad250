"""The stores of one start: which has a key, what is told of them, and what they are counted by."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from twisted.internet.task import Clock
from twisted.logger import LogEvent, globalLogPublisher

from pki.keys import KeyAlgorithm, KeyReference, MemoryKey, signature_over
from tests.authorities import key
from tests.twisted_mesh.keystores.fake_store import FakeStore
from tests.twisted_mesh.keystores.settling import result_now
from twisted_mesh.keystores.errors import KeyStoreAway, KeyStoreRefused
from twisted_mesh.keystores.spec import KeySpec
from twisted_mesh.keystores.stored_key import StoredKey
from twisted_mesh.keystores.stores import TICK, KeyStores, stores_of
from twisted_mesh.state.directory import StateError
from twisted_mesh.state.key_files import KeyFiles

P256 = KeyAlgorithm.EC_P256
SPEC = KeySpec(P256, "pkcs11:token=mesh?module-path=/m.so")


@pytest.fixture
def fake() -> FakeStore:
    return FakeStore()


@pytest.fixture
def signed() -> list[tuple[str, str]]:
    return []


@pytest.fixture
def stores(fake: FakeStore, signed: list[tuple[str, str]]) -> KeyStores:
    stores = stores_of([SPEC, KeySpec(P256), SPEC], [], lambda uri: fake)
    stores.signed = lambda kind, outcome, _: signed.append((kind, outcome))
    stores.start(Clock())
    return stores


@pytest.fixture
def told() -> Iterator[list[str]]:
    """The events of key stores."""
    events: list[str] = []

    def note(event: LogEvent) -> None:
        if event.get("log_namespace") == "mesh.keys":
            events.append(event["event"])

    globalLogPublisher.addObserver(note)
    yield events
    globalLogPublisher.removeObserver(note)


def made(stores: KeyStores) -> StoredKey:
    found = result_now(stores.make(SPEC, "mesh.test issuing-1"))
    assert isinstance(found, StoredKey)
    return found


def test_each_store_is_opened_once() -> None:
    opened: list[str] = []

    def open_store(uri: str) -> FakeStore:
        opened.append(uri)
        return FakeStore()

    stores_of([SPEC, KeySpec(P256), SPEC], ["signer:unix:/s"], open_store)
    assert opened == [SPEC.store, "signer:unix:/s"]


def test_a_file_refers_to_a_key_or_is_one(stores: KeyStores, tmp_path: Path) -> None:
    stored = made(stores)
    files = KeyFiles(tmp_path, b"secret", stores.key)
    files.write("issuing.key", stored)
    files.write("root.key", key())
    assert files.is_elsewhere("issuing.key")
    assert not files.is_elsewhere("root.key")
    again = files.kept("issuing.key")
    assert not again.is_in_memory
    assert result_now(signature_over(b"data", again, stored.public_key))
    for is_known in (False, True):
        assert isinstance(files.kept("root.key", is_known=is_known), MemoryKey)
    files.seal()  # a reference is no secret, and stays as it is
    assert files.read("issuing.key") == stored.to_pem()


def test_a_key_of_no_store_says_which_option_is_missing(stores: KeyStores, tmp_path: Path) -> None:
    elsewhere = KeyReference("pkcs11:token=old;object=root-1", key().public_key)
    with pytest.raises(KeyStoreRefused, match="--key-store pkcs11:"):
        stores.key(elsewhere)
    (tmp_path / "root.key").write_text(str(elsewhere))
    (tmp_path / "root.key").chmod(0o600)
    for files in (KeyFiles(tmp_path), KeyFiles(tmp_path, referred=stores.key)):
        with pytest.raises(StateError, match="--key-store pkcs11:"):
            files.kept("root.key")


def test_a_key_that_is_there_is_used_and_none_is_made(stores: KeyStores, fake: FakeStore) -> None:
    stored = made(stores)
    named = KeySpec(P256, SPEC.store, "pkcs11:token=mesh;object=mesh.test%20issuing-1")
    found = result_now(stores.make(named, "another label"))
    assert found.reference.key_id == stored.reference.key_id
    assert len(fake.keys) == 1


def test_signatures_are_counted_by_their_outcome(
    stores: KeyStores, fake: FakeStore, signed: list[tuple[str, str]]
) -> None:
    stored = made(stores)
    result_now(stored.sign(b"data"))
    fake.is_away = True
    with pytest.raises(KeyStoreAway):
        result_now(stored.sign(b"data"))
    fake.is_away, fake.refuses = False, "no"
    with pytest.raises(KeyStoreRefused):
        result_now(stored.sign(b"data"))
    assert signed == [("pkcs11", "made"), ("pkcs11", "away"), ("pkcs11", "refused")]


def test_it_looks_by_itself_and_tells_each_change_once(fake: FakeStore, told: list[str]) -> None:
    clock, returns = Clock(), list[float]()
    stores = stores_of([SPEC], [], lambda uri: fake)
    stores.watch_return(lambda: returns.append(clock.seconds()))
    stores.start(clock)
    assert fake.started
    fake.is_away = True
    clock.pump([TICK] * 12)
    assert list(stores.problems) == [fake.uri]
    assert stores.standing == {fake.uri: 0.0}
    assert told == ["key-store-away"]
    fake.is_away = False
    clock.advance(TICK)
    assert not stores.problems, "what is away is looked at each second"
    assert told == ["key-store-away", "key-store-back"]
    assert returns == [13 * TICK]
    result_now(stores.stop())
    assert not fake.started
    fake.is_away = True
    clock.pump([TICK] * 12)
    assert not stores.problems, "nobody looks any more"


def test_who_asks_to_try_again_hears_what_has_changed_and_what_came_of_it(fake: FakeStore) -> None:
    stores = stores_of([SPEC], [], lambda uri: fake)
    stores.start(Clock())
    assert result_now(stores.try_again()) == ""
    fake.refuses = "the PIN is wrong"
    result_now(stores.look())
    assert result_now(stores.try_again()) == "", "it is the same one, and as wrong as before"
    fake.has_another_pin = True
    assert result_now(stores.try_again()) == (
        "another PIN for pkcs11:token=mesh; it does not sign: the PIN is wrong"
    )
    fake.refuses = ""
    assert result_now(stores.try_again()) == (
        "another PIN for pkcs11:token=mesh; pkcs11:token=mesh signs again"
    )
    # It may have been found by itself already, or be for the next login.
    assert result_now(stores.try_again()) == "another PIN for pkcs11:token=mesh"
    fake.has_another_pin, fake.is_away = False, True
    result_now(stores.look())
    fake.is_away = False
    assert result_now(stores.try_again()) == "pkcs11:token=mesh signs again"
    assert fake.tries == 6
    result_now(stores.stop())


def test_what_a_signature_finds_out_is_told_too(fake: FakeStore, told: list[str]) -> None:
    clock = Clock()
    stores = stores_of([SPEC], [], lambda uri: fake)
    stores.start(clock)
    stored = made(stores)
    fake.is_away = True
    with pytest.raises(KeyStoreAway):
        result_now(stored.sign(b"data"))
    fake.is_away = False
    clock.advance(TICK)
    assert told == ["key-store-away", "key-store-back"]


def test_where_a_key_is_can_be_said_while_its_store_is_away(
    stores: KeyStores, fake: FakeStore
) -> None:
    stored = made(stores)
    assert result_now(stores.whereabouts(stored)).label == "mesh.test issuing-1"
    fake.is_away = True
    where = result_now(stores.whereabouts(stored))
    assert where.problem is not None
    assert (where.kind, where.uri, where.problem.code) == ("pkcs11", stored.uri, "key-store-away")
    assert result_now(stores.whereabouts(key())).kind == "file"
