"""Messages of the Workload API are read as they were written, by the field numbers of its specification."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pki.errors import Malformed
from twisted_mesh.workload.messages import (
    BundlesRequest,
    JwtBundlesResponse,
    JwtSvidMessage,
    JwtSvidRequest,
    JwtSvidResponse,
    ValidateJwtSvidRequest,
    ValidateJwtSvidResponse,
    X509BundlesResponse,
    X509SvidMessage,
    X509SvidRequest,
    X509SvidResponse,
)

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
data = st.binary(max_size=20)
by_domain = st.dictionaries(texts, data, max_size=3)
claims = st.dictionaries(
    texts,
    st.recursive(
        st.none() | st.booleans() | texts | st.floats(allow_nan=False, allow_infinity=False),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
        max_leaves=6,
    ),
    max_size=4,
)
messages = st.one_of(
    st.builds(X509SvidRequest),
    st.builds(BundlesRequest),
    st.builds(
        X509SvidResponse,
        st.lists(st.builds(X509SvidMessage, texts, data, data, data, texts), max_size=3),
        st.lists(data, max_size=3),
        by_domain,
    ),
    st.builds(X509BundlesResponse, st.lists(data, max_size=3), by_domain),
    st.builds(JwtSvidRequest, st.lists(texts, max_size=3), texts),
    st.builds(
        JwtSvidResponse, st.lists(st.builds(JwtSvidMessage, texts, texts, texts), max_size=3)
    ),
    st.builds(JwtBundlesResponse, by_domain),
    st.builds(ValidateJwtSvidRequest, texts, texts),
    st.builds(ValidateJwtSvidResponse, texts, claims),
)
KINDS: Any = (
    X509SvidRequest,
    BundlesRequest,
    X509SvidResponse,
    X509BundlesResponse,
    JwtSvidRequest,
    JwtSvidResponse,
    JwtBundlesResponse,
    ValidateJwtSvidRequest,
    ValidateJwtSvidResponse,
)


@given(messages)
def test_a_message_is_read_as_it_was_written(message: Any) -> None:
    assert type(message).parse(message.encode()) == message


@given(st.binary(max_size=60))
def test_arbitrary_bytes_raise_nothing_but_our_error(found: bytes) -> None:
    for kind in KINDS:
        try:
            kind.parse(found)
        except Malformed as error:
            assert "of the Workload API" in str(error)


@pytest.mark.parametrize(
    ("message", "encoded"),
    [
        (
            X509SvidResponse(
                [X509SvidMessage("i", b"c", b"k", b"b", "h")], [b"crl"], {"td": b"roots"}
            ),
            "0a0f0a01691201631a016b2201622a0168" + "120363726c" + "1a0b0a0274641205726f6f7473",
        ),
        (X509BundlesResponse([b"crl"], {"td": b"roots"}), "0a0363726c120b0a0274641205726f6f7473"),
        (JwtSvidRequest(["a", "b"], "i"), "0a01610a0162120169"),
        (JwtSvidResponse([JwtSvidMessage("i", "t", "h")]), "0a090a01691201741a0168"),
        (JwtBundlesResponse({"td": b"jwks"}), "0a0a0a02746412046a776b73"),
        (ValidateJwtSvidRequest("a", "t"), "0a0161120174"),
        (
            ValidateJwtSvidResponse("i", {"exp": 2.0}),
            "0a01691212" + "0a100a03657870" + "1209" + "110000000000000040",
        ),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else "",
)
def test_fields_have_the_numbers_of_the_specification(message: Any, encoded: str) -> None:
    assert message.encode().hex() == encoded


def test_fields_of_a_later_specification_are_passed_over() -> None:
    assert JwtSvidRequest.parse(bytes.fromhex("0a0161" + "9a060178")) == JwtSvidRequest(["a"])


@pytest.mark.parametrize(
    "wrong",
    [
        {"a": object()},
        {1: 2},
        {"a": 10**400},
        {"a": "\ud800"},
    ],
    ids=["object", "number-as-name", "huge", "surrogate"],
)
def test_claims_that_protobuf_cannot_carry_are_refused(wrong: Any) -> None:
    with pytest.raises(Malformed):
        ValidateJwtSvidResponse("i", wrong).encode()


def test_claims_that_are_nested_too_deeply_are_refused() -> None:
    deep: dict[str, Any] = {}
    for _ in range(200):
        deep = {"a": deep}
    with pytest.raises(Malformed):
        ValidateJwtSvidResponse("i", deep).encode()


def test_no_key_and_no_token_is_shown() -> None:
    shown = repr(
        (
            X509SvidMessage("i", b"c", b"SECRET", b"b"),
            JwtSvidMessage("i", "SECRET"),
            ValidateJwtSvidRequest("a", "SECRET"),
        )
    )
    assert "SECRET" not in shown
