"""What key options say: an algorithm, a store, a key in it; and what no command line may have."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pki.errors import Malformed, PkiError
from pki.keys import KeyAlgorithm
from twisted_mesh.keystores.spec import KeySpec, parse_store

MODULE = "module-path=/usr/lib/softhsm/libsofthsm2.so"
P384 = KeyAlgorithm.EC_P384


def parsed(text: str) -> KeySpec:
    return KeySpec.parse(text, "--issuing-key", P384)


def test_an_algorithm_is_a_key_in_a_file() -> None:
    spec = parsed("ec-p256")
    assert (spec.algorithm, spec.store, spec.key) == (KeyAlgorithm.EC_P256, None, None)
    assert not spec.is_stored
    assert str(spec) == "ec-p256"


def test_a_token_is_named_with_its_module() -> None:
    spec = parsed(f"pkcs11:token=mesh?{MODULE}&algorithm=rsa-4096&pin-source=file:/run/pin")
    assert spec.algorithm is KeyAlgorithm.RSA_4096
    assert spec.store == f"pkcs11:token=mesh?{MODULE}&pin-source=file:/run/pin"
    assert spec.key is None
    assert str(spec) == "rsa-4096 in pkcs11:token=mesh"


def test_a_key_is_found_in_the_store_that_others_are_made_in() -> None:
    named = parsed(f"pkcs11:token=mesh;object=root;id=%01;type=private?{MODULE}")
    made = parsed(f"pkcs11:token=mesh?{MODULE}")
    assert named.store == made.store
    assert named.key == "pkcs11:token=mesh;object=root;id=%01;type=private"
    assert named.algorithm is P384


def test_a_signer_is_a_socket_or_an_address() -> None:
    spec = parsed("signer:unix:/run/mesh-signer.sock?algorithm=ed25519")
    assert (spec.algorithm, spec.store, spec.key) == (
        KeyAlgorithm.ED25519,
        "signer:unix:/run/mesh-signer.sock",
        None,
    )
    spec = parsed("signer:https://kms.example:9443?pin=sha256/YWJj&key=root-1")
    assert spec.store == "signer:https://kms.example:9443?pin=sha256/YWJj"
    assert spec.key == "signer:root-1"


@pytest.mark.parametrize(
    "text, reason",
    [
        ("ec-p255", "--issuing-key is one of rsa-2048"),
        ("", "is one of"),
        ("pkcs12:token=mesh", "is one of"),
        ("pkcs11:token=mesh?algorithm=dsa", "algorithm= is one of"),
        ("pkcs11:token=mesh?algorithm=ec-p256&algorithm=ec-p384", "twice"),
        ("pkcs11:token=mesh?pin-value=1234", "whoever lists processes"),
        ("pkcs11:token=mesh?pin%2dvalue=1234", "whoever lists processes"),
        ("pkcs11:token=a b", "printable ASCII"),
        ("pkcs11:token=a\n", "printable ASCII"),
    ],
)
def test_what_is_none_is_refused(text: str, reason: str) -> None:
    with pytest.raises(Malformed, match=reason) as caught:
        parsed(text)
    assert "1234" not in str(caught.value)


@given(st.text(max_size=60) | st.text(max_size=60).map(lambda t: f"pkcs11:{t}"))
def test_whatever_stands_there_is_read_or_refused(text: str) -> None:
    try:
        spec = parsed(text)
    except PkiError:
        return
    if spec.store is not None:
        assert parse_store(spec.store, "--key-store")[0] == spec.store
