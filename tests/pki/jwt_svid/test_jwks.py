"""JWT authorities in a JWKS: what is written is read back, and what is damaged verifies nothing."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from joserfc.jwk import KeySet

from pki.errors import PkiError
from pki.jwt_svid.compact import BadJwt
from pki.jwt_svid.jwks import JwtAuthority, authorities_of, read_jwks, write_jwks
from tests.pki.jwt_svid.tokens import KEY, OTHER_KEY, RSA_KEY, authority_of, jwks


def test_what_is_written_is_read_back() -> None:
    document = jwks(KEY, RSA_KEY)
    assert read_jwks(document) == (authority_of(KEY), authority_of(RSA_KEY))
    assert write_jwks(read_jwks(document)) == document


def test_a_strict_library_reads_the_keys_of_openid_connect() -> None:
    keys = [
        authority_of(KEY).to_jwk("sig", alg="ES256"),
        authority_of(RSA_KEY).to_jwk("sig", alg="RS256"),
    ]
    found = KeySet.import_key_set({"keys": keys})  # type: ignore[arg-type, typeddict-item]
    assert [key.kid for key in found.keys] == [authority_of(KEY).kid, authority_of(RSA_KEY).kid]


GOOD = authority_of(KEY).to_jwk()
DAMAGED = {
    "no kid": {name: value for name, value in GOOD.items() if name != "kid"},
    "kid empty": GOOD | {"kid": ""},
    "kid endless": GOOD | {"kid": "k" * 2000},
    "off the curve": GOOD | {"x": GOOD["y"]},
    "no point": {name: value for name, value in GOOD.items() if name != "x"},
    "another curve": GOOD | {"crv": "P-384"},
    "unknown curve": GOOD | {"crv": "secp256k1"},
    "symmetric": {"use": "jwt-svid", "kid": "a", "kty": "oct", "k": "AAAA"},
    "Ed25519": {"use": "jwt-svid", "kid": "a", "kty": "OKP", "crv": "Ed25519", "x": "AAAA"},
    "padding": GOOD | {"x": GOOD["x"] + "="},
    "weak": {"use": "jwt-svid", "kid": "a", "kty": "RSA", "n": "-" * 171, "e": "AQAB"},
    "alg of HMAC": GOOD | {"alg": "HS256"},
    "alg none": GOOD | {"alg": "none"},
    "alg of another kind": GOOD | {"alg": "RS256"},
    "no object": "x",
}


@pytest.mark.parametrize("jwk", DAMAGED.values(), ids=DAMAGED.keys())
def test_a_damaged_key_is_passed_over_and_the_rest_stays(jwk: object) -> None:
    other = authority_of(OTHER_KEY)
    assert authorities_of([jwk, other.to_jwk()]) == (other,)


def test_of_a_name_that_two_keys_have_neither_is_believed() -> None:
    other = authority_of(OTHER_KEY)
    impostor = other.to_jwk() | {"kid": GOOD["kid"]}
    assert authorities_of([GOOD, impostor, other.to_jwk()]) == (other,)
    assert authorities_of([GOOD, GOOD]) == (authority_of(KEY),)


@pytest.mark.parametrize("document", [b"", b"[]", b"{}", b'{"keys":{}}', b'{"keys":[],"keys":[]}'])
def test_a_document_that_is_no_jwks_is_refused(document: bytes) -> None:
    with pytest.raises(BadJwt):
        read_jwks(document)


@given(
    st.binary(max_size=60)
    | st.builds(
        lambda x: json.dumps({"keys": [x]}).encode(),
        st.dictionaries(
            st.sampled_from(list(GOOD)), st.text(max_size=8) | st.sampled_from(list(GOOD.values()))
        ),
    )
)
def test_no_bytes_make_it_raise_anything_but_a_refusal(document: bytes) -> None:
    try:
        found = read_jwks(document)
    except PkiError:
        return
    assert all(isinstance(authority, JwtAuthority) for authority in found)
