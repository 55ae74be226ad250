"""Tokens that refuse, are slow, lie, are taken out, or are started anew; and what is never tried twice."""

import ctypes
from collections.abc import Callable
from typing import Any

import pytest

from pki.keys import KeyAlgorithm, SigningFailed, signature_over
from tests.running import until
from tests.twisted_mesh.pkcs11.conftest import Stores
from tests.twisted_mesh.pkcs11.softhsm import PIN, Shim, SoftHsm
from twisted_mesh.keystores.errors import KeyStoreAway, KeyStoreRefused
from twisted_mesh.keystores.stored_key import StoredKey
from twisted_mesh.pkcs11.failures import TokenRefused
from twisted_mesh.pkcs11.store import Pkcs11Store

FINAL_TRY, LOCKED = 0x20000, 0x40000
P256 = KeyAlgorithm.EC_P256

Opened = Callable[..., Pkcs11Store]


@pytest.fixture
def store(opened: Opened, shim: Shim) -> Pkcs11Store:
    """On the module that misbehaves."""
    return opened(module=shim.module)


@pytest.fixture
def key(store: Pkcs11Store, stores: Stores) -> StoredKey:
    return stores.settle(store.generate(P256, "mesh.test issuing-1"))


def signs(stores: Stores, key: StoredKey) -> bool:
    return bool(stores.settle(signature_over(b"data", key, key.public_key)))


# PINs.


def test_a_wrong_pin_is_said_and_tried_once(
    store: Pkcs11Store, stores: Stores, softhsm: SoftHsm, shim: Shim
) -> None:
    softhsm.pin.write_text("4321\n")
    for _ in range(3):
        with pytest.raises(TokenRefused, match="the PIN is wrong; it is not tried again"):
            stores.settle(store.find("pkcs11:object=a"))
        stores.settle(store.look())
    assert shim.calls("C_Login") == 1
    assert isinstance(store.problem, TokenRefused)
    assert "4321" not in str(store.problem)
    # Another in the file is tried by itself; the first, put back, is not.
    softhsm.pin.write_text("5678\n")
    stores.settle(store.look())
    softhsm.pin.write_text("4321\n")
    stores.settle(store.look())
    assert shim.calls("C_Login") == 2
    softhsm.pin.write_text(f"{PIN}\n")
    stores.settle(store.look())
    assert shim.calls("C_Login") == 3
    assert store.problem is None
    assert signs(stores, stores.settle(store.generate(P256, "a")))


def test_a_person_may_have_the_same_pin_tried_once_more(
    store: Pkcs11Store, stores: Stores, shim: Shim
) -> None:
    shim.does("C_Login return 0xA0")
    stores.settle(store.look())
    stores.settle(store.look())
    assert shim.calls("C_Login") == 1
    assert not store.try_again(), "it is the same PIN"
    stores.settle(store.look())
    stores.settle(store.look())
    assert shim.calls("C_Login") == 2
    shim.does()
    assert not store.try_again()
    stores.settle(store.look())
    assert store.problem is None


def test_a_person_who_asks_hears_whether_it_is_another_pin(
    store: Pkcs11Store, stores: Stores, softhsm: SoftHsm
) -> None:
    assert not store.try_again(), "there was none before"
    softhsm.pin.write_text("4321\n")
    stores.settle(store.look())
    assert store.try_again()
    assert not store.try_again()
    # The right one is tried by itself, and is another one all the same.
    softhsm.pin.write_text(f"{PIN}\n")
    stores.settle(store.look())
    assert store.problem is None
    assert store.try_again()
    softhsm.pin.unlink()
    assert not store.try_again(), "whoever logs in says why it cannot be read"


def test_the_last_try_is_a_persons(store: Pkcs11Store, stores: Stores, shim: Shim) -> None:
    shim.does(f"C_GetTokenInfo flags {FINAL_TRY:#x}")
    with pytest.raises(TokenRefused, match="one try left"):
        stores.settle(store.find("pkcs11:object=a"))
    assert shim.calls("C_Login") == 0
    store.try_again()
    stores.settle(store.look())
    assert shim.calls("C_Login") == 1
    assert store.problem is None


def test_a_locked_token_is_not_even_tried(store: Pkcs11Store, stores: Stores, shim: Shim) -> None:
    shim.does(f"C_GetTokenInfo flags {LOCKED:#x}")
    with pytest.raises(TokenRefused, match="is locked: its security officer can unlock it"):
        stores.settle(store.find("pkcs11:object=a"))
    assert shim.calls("C_Login") == 0


def test_no_pin_says_how_to_name_one(stores: Stores, softhsm: SoftHsm) -> None:
    store = stores.open(softhsm.uri(), None)
    with pytest.raises(TokenRefused, match="--token-pin-file"):
        stores.settle(store.find("pkcs11:object=a"))
    softhsm.pin.chmod(0o644)
    readable = stores.open(softhsm.uri(), softhsm.pin)
    with pytest.raises(TokenRefused, match="wants its PIN"):
        stores.settle(readable.find("pkcs11:object=a"))


# What the token does.


def test_a_wrong_signature_is_caught(
    key: StoredKey, stores: Stores, shim: Shim, store: Pkcs11Store
) -> None:
    shim.does("C_Sign wrong")
    with pytest.raises(SigningFailed):
        signs(stores, key)
    with pytest.raises(SigningFailed):
        stores.settle(store.generate(P256, "mesh.test issuing-2"))
    shim.does()
    assert signs(stores, key)


def test_a_slow_token_holds_up_nobody(
    key: StoredKey, store: Pkcs11Store, stores: Stores, shim: Shim
) -> None:
    before = shim.calls("C_Sign")
    shim.does("C_Sign hold")
    waiting = [stores.begun(key.sign(b"data")) for _ in range(5)]
    until(lambda: shim.calls("C_Sign") == before + 4)
    stores.reactor.advance(9.9)
    assert not any(one.called for one in waiting)
    stores.reactor.advance(0.2)
    said = [str(stores.reactor.outcome(one)) for one in waiting]
    assert all("has not answered within 10 s" in one for one in said[:4])
    assert "was busy with others for 10 s" in said[4]
    assert isinstance(store.problem, KeyStoreAway)
    # All threads hang: whoever comes now is told at once.
    with pytest.raises(KeyStoreAway, match="4 calls hang in its module"):
        stores.settle(key.sign(b"data"))
    shim.does()
    until(lambda: not (stores.reactor.turn() or store.pool.hanging))
    assert signs(stores, key)
    assert store.problem is None


def test_a_full_token_says_so(store: Pkcs11Store, stores: Stores, shim: Shim) -> None:
    shim.does("C_GenerateKeyPair return 0x31")
    with pytest.raises(KeyStoreRefused, match=r"CKR_DEVICE_MEMORY\): the token is full"):
        stores.settle(store.generate(P256, "a"))
    assert store.problem is None
    assert shim.calls("C_GenerateKeyPair") == 1


def test_a_key_whose_making_was_not_confirmed_is_made_once(
    store: Pkcs11Store, stores: Stores, shim: Shim, softhsm: SoftHsm
) -> None:
    shim.does("C_GenerateKeyPair lost 0x30")
    key = stores.settle(store.generate(P256, "once"))
    assert shim.calls("C_GenerateKeyPair") == 1
    assert shim.calls("C_Initialize") == 2, "the module was initialised anew"
    assert softhsm.tool("--list-objects", "--type", "privkey").count("label:      once") == 1
    assert signs(stores, key)


def test_a_token_with_few_sessions_signs_one_by_one(
    store: Pkcs11Store, stores: Stores, shim: Shim
) -> None:
    key = stores.settle(store.generate(P256, "a"))
    there = shim.calls("C_OpenSession")
    few = f"C_OpenSession after {there} 0xB1"
    shim.does(few, "C_Sign hold")
    signing = [stores.begun(key.sign(b"%d" % number)) for number in range(12)]
    # One was for making the key.
    until(lambda: stores.reactor.turn() or store.pool.threads == there - 1)
    shim.does(few)
    assert all(stores.reactor.result(one) for one in signing)


@pytest.mark.parametrize("answer", [0x32, 0x30, 0xE0, 0x05, 0x06, 0x190])
def test_a_token_taken_out_while_it_signs_is_away_and_heals(
    answer: int, key: StoredKey, store: Pkcs11Store, stores: Stores, shim: Shim
) -> None:
    shim.does(f"C_Sign return {answer:#x}")
    with pytest.raises(KeyStoreAway):
        stores.settle(key.sign(b"data"))
    assert isinstance(store.problem, KeyStoreAway)
    shim.does()
    stores.settle(store.look())
    assert store.problem is None
    assert signs(stores, key)


def test_who_asks_an_absent_token_again_and_again_does_not_start_its_module_each_time(
    key: StoredKey, stores: Stores, shim: Shim
) -> None:
    before = shim.calls("C_Initialize")
    shim.does("C_GetTokenInfo return 0xE0", "C_Sign return 0xE0")
    for _ in range(50):
        with pytest.raises(KeyStoreAway):
            stores.settle(key.sign(b"data"))
    assert shim.calls("C_Initialize") - before <= 2


@pytest.mark.parametrize("call", ["C_CloseAllSessions", "C_Logout", "C_Finalize"])
def test_what_somebody_else_has_closed_is_opened_again(
    call: str, opened: Opened, stores: Stores, softhsm: SoftHsm
) -> None:
    """As a daemon that was restarted, or another part of this process that uses the module."""
    store = opened()
    key = stores.settle(store.generate(P256, "a"))
    functions = ctypes.CDLL(softhsm.module)
    argument: Any = None
    if call != "C_Finalize":
        argument = ctypes.c_ulong(store.pool.access.slot_id or 0)
    if call == "C_Logout":
        session = ctypes.c_ulong()
        assert (
            functions.C_OpenSession(argument, ctypes.c_ulong(4), None, None, ctypes.byref(session))
            == 0
        )
        argument = session
    assert getattr(functions, call)(argument) == 0
    assert signs(stores, key)
    assert store.problem is None


# Modules.


@pytest.mark.parametrize("acts", [(), ("C_Initialize unlocked",)])
def test_many_threads_sign_by_one_module(
    acts: tuple[str, ...], stores: Stores, shim: Shim, opened: Opened
) -> None:
    """SoftHSM, initialised as the binding does it, takes no locks: it crashed within a second."""
    shim.does(*acts)
    store = opened(query="&sessions=8", module=shim.module)
    key = stores.settle(store.generate(P256, "a"))
    signing = [stores.begun(key.sign(b"%d" % number)) for number in range(300)]
    assert len({stores.reactor.result(one) for one in signing}) == 300
    assert store.pool.threads == 8


def test_two_stores_share_a_module_and_one_may_end(
    opened: Opened, stores: Stores, softhsm: SoftHsm
) -> None:
    softhsm.add("other")
    one, other = opened(), opened(label="other")
    keys = [stores.settle(store.generate(P256, "a")) for store in (one, other)]
    assert one.access.module is other.access.module
    stores.settle(one.stop())
    assert signs(stores, keys[1])
    with pytest.raises(KeyStoreAway, match="not open"):
        signs(stores, keys[0])
    one.start()
    assert all(signs(stores, key) for key in keys)


def test_another_tokens_work_is_not_interrupted_for_one_that_is_away(
    key: StoredKey, stores: Stores, shim: Shim, opened: Opened
) -> None:
    away = opened(label="nowhere", module=shim.module)
    before = shim.calls("C_Finalize")
    for _ in range(3):
        assert signs(stores, key)
        stores.settle(away.look())
        assert away.problem is not None
    assert shim.calls("C_Finalize") - before <= 1


def test_a_key_takes_one_login_and_two_sessions_to_make(
    store: Pkcs11Store, stores: Stores, shim: Shim
) -> None:
    """What is read by a session that was closed costs a try, and another login."""
    stores.settle(store.generate(P256, "a"))
    assert shim.calls("C_Login") == 1
    assert shim.calls("C_OpenSession") <= 3  # its proof may be signed by another thread
