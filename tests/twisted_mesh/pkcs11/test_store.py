"""SoftHSM's token as a key store, and what its own tools and others say of the keys in it."""

import _ctypes
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pki.der import pem
from pki.errors import PkiError
from pki.keys import KeyAlgorithm, KeyReference, signature_over, spki_der
from pki.keys.pkcs11_uri import Pkcs11Uri
from pki.pem import PUBLIC_KEY
from tests.tools import require_tool
from tests.twisted_mesh.keystores.conformance import Ground, KeyStoreConformance
from tests.twisted_mesh.pkcs11.conftest import Stores
from tests.twisted_mesh.pkcs11.softhsm import PIN, SoftHsm
from twisted_mesh.keystores.errors import KeyStoreAway, KeyStoreRefused
from twisted_mesh.pkcs11.failures import TokenRefused

ALGORITHMS = (
    KeyAlgorithm.EC_P256,
    KeyAlgorithm.EC_P384,
    KeyAlgorithm.ED25519,
)
#: SoftHSM takes a second to make one, and ten.
SLOW = (KeyAlgorithm.RSA_2048, KeyAlgorithm.RSA_4096)


class TestPkcs11Store(KeyStoreConformance):
    """On SoftHSM, whose token is taken out by moving its files."""

    algorithms = ALGORITHMS

    @pytest.fixture
    def ground(
        self, opened: Callable[..., Any], stores: Stores, softhsm: SoftHsm
    ) -> Iterator[Ground]:
        yield Ground(opened(), stores.settle, softhsm.take_out, softhsm.put_back)


@pytest.mark.parametrize(
    "algorithm", [*ALGORITHMS, *(pytest.param(slow, marks=pytest.mark.interop) for slow in SLOW)]
)
def test_opensc_and_gnutls_find_the_key_and_that_it_stays_there(
    algorithm: KeyAlgorithm, opened: Callable[..., Any], stores: Stores, softhsm: SoftHsm
) -> None:
    key = stores.settle(opened().generate(algorithm, "mesh.test root-1"))
    listed = softhsm.tool("--list-objects", "--type", "privkey")
    assert "label:      mesh.test root-1" in listed
    assert re.search(r"Usage:\s+sign$", listed, re.MULTILINE), listed
    assert re.search(
        r"Access:\s+sensitive, always sensitive, never extractable, local$", listed, re.MULTILINE
    )
    # By our own URI, to the letter.
    login = ["--provider", softhsm.module, "--login", "--set-pin", PIN]
    shown = softhsm.run("p11tool", *login, "--info", key.uri)
    assert "CKA_NEVER_EXTRACTABLE" in shown
    assert "CKA_SENSITIVE" in shown


@pytest.mark.parametrize(
    "algorithm",
    [
        KeyAlgorithm.EC_P256,
        KeyAlgorithm.EC_P384,
        *(pytest.param(slow, marks=pytest.mark.interop) for slow in SLOW),
    ],
)
def test_openssl_verifies_what_the_token_has_signed(
    algorithm: KeyAlgorithm, opened: Callable[..., Any], stores: Stores, tmp_path: Path
) -> None:
    key = stores.settle(opened().generate(algorithm, "mesh.test issuing-1"))
    (tmp_path / "data").write_bytes(b"a certificate")
    (tmp_path / "signature").write_bytes(stores.settle(key.sign(b"a certificate")))
    (tmp_path / "key.pem").write_bytes(pem(PUBLIC_KEY, spki_der(key.public_key)))
    assert algorithm.hash is not None
    check = ["-verify", "key.pem", "-signature", "signature", "data"]
    done = subprocess.run(
        [require_tool("openssl"), "dgst", f"-{algorithm.hash.name}", *check],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert "Verified OK" in done.stdout, done.stderr


def test_a_key_that_opensc_made_is_found_by_its_label(
    opened: Callable[..., Any], stores: Stores, softhsm: SoftHsm
) -> None:
    made = ("--keypairgen", "--key-type", "EC:prime256v1", "--usage-sign", "--sensitive")
    softhsm.tool(*made, "--label", "ceremony", "--id", "0a0b")
    store = opened()
    key = stores.settle(store.find("pkcs11:token=mesh;object=ceremony"))
    assert key.uri.endswith(";object=ceremony;id=%0a%0b")
    assert stores.settle(signature_over(b"data", key, key.public_key))
    # Two of one label are not guessed about.
    softhsm.tool(*made, "--label", "ceremony", "--id", "0c0d")
    with pytest.raises(
        KeyStoreRefused, match=r"2 private keys .* name the id= too, of .*0a:0b.*0c:0d"
    ) as refused:
        stores.settle(store.find("pkcs11:object=ceremony"))
    assert not isinstance(refused.value, TokenRefused)
    assert stores.settle(store.find("pkcs11:object=ceremony;id=%0c%0d")).uri.endswith("%0d")
    with pytest.raises(
        KeyStoreRefused, match="no private key 'Ceremony'; those that are there: 'ceremony'"
    ):
        stores.settle(store.find("pkcs11:object=Ceremony"))
    assert store.problem is None


def test_a_key_that_can_be_taken_out_is_no_cas(
    opened: Callable[..., Any], stores: Stores, softhsm: SoftHsm
) -> None:
    softhsm.tool(
        "--keypairgen",
        "--key-type",
        "EC:prime256v1",
        "--extractable",
        "--label",
        "loose",
        "--id",
        "01",
    )
    with pytest.raises(KeyStoreRefused, match="can be taken out"):
        stores.settle(opened().find("pkcs11:object=loose"))


def test_a_key_without_its_public_half_says_how_to_write_it_there(
    opened: Callable[..., Any], stores: Stores, softhsm: SoftHsm
) -> None:
    softhsm.tool(
        "--keypairgen",
        "--key-type",
        "EC:prime256v1",
        "--sensitive",
        "--label",
        "half",
        "--id",
        "02",
    )
    softhsm.tool("--delete-object", "--type", "pubkey", "--id", "02")
    with pytest.raises(KeyStoreRefused, match="--write-object"):
        stores.settle(opened().find("pkcs11:object=half"))


def test_a_weak_key_is_refused(
    opened: Callable[..., Any], stores: Stores, softhsm: SoftHsm
) -> None:
    softhsm.tool(
        "--keypairgen", "--key-type", "rsa:1024", "--sensitive", "--label", "weak", "--id", "03"
    )
    with pytest.raises(KeyStoreRefused, match="no public key beside"):
        stores.settle(opened().find("pkcs11:object=weak"))


def test_a_key_on_another_token_of_the_same_name_is_not_taken(
    opened: Callable[..., Any], stores: Stores
) -> None:
    store = opened()
    key = stores.settle(store.generate(KeyAlgorithm.EC_P256, "mesh.test root-1"))
    serial = Pkcs11Uri.parse(key.uri).serial
    moved = KeyReference(key.uri.replace(f"serial={serial}", "serial=0123456789"), key.public_key)
    assert store.holds(moved.uri)
    with pytest.raises(KeyStoreRefused, match=f"serial 0123456789, and this one has {serial}"):
        stores.settle(store.key(moved).sign(b"data"))


def test_what_is_on_the_token_is_told(opened: Callable[..., Any], stores: Stores) -> None:
    store = opened()
    key = stores.settle(store.generate(KeyAlgorithm.EC_P256, "mesh.test root-1"))
    where = stores.settle(store.whereabouts(key.reference))
    assert (where.kind, where.store, where.label) == ("pkcs11", "mesh", "mesh.test root-1")
    assert (where.manufacturer, where.model) == ("SoftHSM project", "SoftHSM v2")
    assert (where.is_extractable, where.was_ever_extractable) == (False, False)
    assert (where.is_sensitive, where.is_local) == (True, True)
    assert where.serial == Pkcs11Uri.parse(key.uri).serial


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("pkcs11:token=mesh", "module-path="),
        ("pkcs11:token=mesh?module-path=libsofthsm2.so", "whole path"),
        ("pkcs11:token=mesh?module-path=/m.so%00", "whole path"),
        ("pkcs11:token=mesh?module-path=/m.so&pin-value=1234", "Change that PIN"),
        ("pkcs11:token=mesh;x-y=1?module-path=/m.so", "x-y"),
        ("pkcs11:token=mesh?module-path=/m.so&pin-sorce=file:/p", "pin-sorce=, which nobody knows"),
        ("pkcs11:token=mesh?module-path=/m.so&sessions=0", "from 1 to 64"),
        ("pkcs11:token=mesh?module-path=/m.so&sessions=x", "from 1 to 64"),
        ("pkcs11:token=mesh?module-path=/m.so&timeout=301", "from 1 to 300"),
    ],
)
def test_a_uri_that_opens_no_store_is_refused_before_anything_is_opened(
    uri: str, said: str, stores: Stores
) -> None:
    with pytest.raises(PkiError, match=re.escape(said)) as refused:
        stores.open(uri, None, start=False)
    assert "1234" not in str(refused.value)


def test_a_module_that_cannot_be_loaded_is_away(stores: Stores) -> None:
    for path, said in (
        ("/nonexistent.so", "No such file"),
        (_ctypes.__file__, "C_GetFunctionList"),
    ):
        store = stores.open(f"pkcs11:token=mesh?module-path={path}", None)
        with pytest.raises(KeyStoreAway, match=said):
            stores.settle(store.find("pkcs11:object=a"))
        assert store.problem is not None


def test_a_token_that_is_not_there_says_which_are(stores: Stores, softhsm: SoftHsm) -> None:
    store = stores.open(softhsm.uri("mash"), softhsm.pin)
    with pytest.raises(
        KeyStoreAway, match=r"no token pkcs11:token=mash: there is 'mesh' \(serial [0-9a-f]+\)"
    ):
        stores.settle(store.find("pkcs11:object=a"))


def test_two_tokens_of_one_label_are_told_apart_by_serial(stores: Stores, softhsm: SoftHsm) -> None:
    softhsm.add("mesh")
    store = stores.open(softhsm.uri(), softhsm.pin)
    with pytest.raises(
        TokenRefused, match="2 tokens are pkcs11:token=mesh: name its serial= too"
    ) as refused:
        stores.settle(store.find("pkcs11:object=a"))
    serial = str(refused.value).rpartition(" ")[2]
    other = stores.open(softhsm.uri(f"mesh;serial={serial}"), softhsm.pin)
    assert stores.settle(other.generate(KeyAlgorithm.EC_P256, "a")).uri.startswith(
        f"pkcs11:token=mesh;serial={serial};"
    )
