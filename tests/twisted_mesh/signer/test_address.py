"""Where a signer is, as it is written among a CA's options."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pki.errors import PkiError
from pki.svid.spki_pin import SpkiHash
from twisted_mesh.signer.address import BadSigner, SignerAddress

PIN = SpkiHash(b"\xfb" * 32)
OTHER = SpkiHash(b"\xff" * 32)

words = st.text(st.characters(categories=["L", "N", "P", "S"]), max_size=20)
addresses = st.one_of(
    st.builds(SignerAddress, path=words.map("/{}".format), user=words).filter(
        lambda found: len(found.path.encode()) <= 103
    ),
    st.builds(
        SignerAddress,
        host=st.sampled_from(["signer.example", "127.0.0.1", "::1"]),
        port=st.integers(1, 65535),
        pins=st.lists(
            st.binary(min_size=32, max_size=32).map(SpkiHash), max_size=8, unique=True
        ).map(tuple),
    ),
)


@given(addresses)
def test_what_is_written_is_read_as_it_was(address: SignerAddress) -> None:
    assert SignerAddress.parse(str(address)) == address


@given(
    st.one_of(st.text(), st.text().map("signer:unix:/{}".format), st.text().map("signer:{}".format))
)
def test_nothing_but_an_error_of_ours_comes_of_any_text(text: str) -> None:
    try:
        found = SignerAddress.parse(text)
    except PkiError as error:
        assert str(error).isprintable()
    else:
        assert SignerAddress.parse(str(found)) == found


def test_a_socket_is_named_by_its_path_and_its_user() -> None:
    found = SignerAddress.parse("signer:unix:/run/mesh-signer/s.sock?user=mesh-signer")
    assert (found.path, found.user) == ("/run/mesh-signer/s.sock", "mesh-signer")
    assert found.where == "unix:/run/mesh-signer/s.sock"


def test_a_pin_has_its_plus_and_its_slash_as_they_are() -> None:
    """As a form's ``+`` is a blank, and base64 has pluses."""
    text = f"signer:https://signer.example:9443?pin={PIN},{OTHER}"
    assert "+" in text
    found = SignerAddress.parse(text)
    assert found.pins == (PIN, OTHER)
    assert str(found) == text
    assert found.where == "https://signer.example:9443"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("unix:/run/s", "write signer:unix:PATH"),
        ("signer:tcp:host:1", "write signer:unix:PATH"),
        (f"signer:https://host?pin={PIN}", "write signer:unix:PATH"),
        (f"signer:https://host:1/path?pin={PIN}", "write signer:unix:PATH"),
        (f"signer:http://host:1?pin={PIN}", "write signer:unix:PATH"),
        (f"signer:https://user@host:1?pin={PIN}", "write signer:unix:PATH"),
        ("signer:https://host:1?pin=sha256/AAAA", "is damaged"),
        (f"signer:https://host:1?pin={PIN},{PIN}", "given once"),
        (f"signer:https://host:1?pin={PIN}&pin={OTHER}", "there twice"),
        (f"signer:https://host:1?pin={PIN}&user=root", "user= is of a unix socket"),
        ("signer:unix:run/s", "the whole path"),
        ("signer:unix:", "the whole path"),
        (f"signer:unix:/run/{'s' * 100}", "too long for a unix socket"),
        (f"signer:unix:/run/s?pin={PIN}", "name that with user="),
        ("signer:unix:/run/s?user=a&user=b", "there twice"),
        ("signer:unix:/run/s?user=", "is empty"),
        ("signer:unix:/run/s?module-path=/tmp/x.so", "'module-path' says nothing of where"),
        ("signer:unix:/run/s?pin-value=1234", "'pin-value' says nothing of where"),
        ("signer:unix:/run/%00", "no printable text"),
        ("signer:unix:/run/%ff", "no printable text"),
    ],
)
def test_what_is_no_address_is_refused_with_what_to_write(text: str, said: str) -> None:
    with pytest.raises(PkiError, match=said):
        SignerAddress.parse(text)


def test_a_secret_that_was_put_in_is_not_shown() -> None:
    with pytest.raises(BadSigner) as refused:
        SignerAddress.parse("signer:https://host:1?token=d41AbCd8f00b204e9800998ecf8427eXYZ")
    assert "d41AbCd8f00b" not in str(refused.value)
