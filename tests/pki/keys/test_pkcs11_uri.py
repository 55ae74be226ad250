import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pki.errors import Malformed, PkiError
from pki.keys.pkcs11_uri import Pkcs11Uri

_text = st.text(st.characters(codec="utf-8"), max_size=12)
_names = st.from_regex(r"x-[A-Za-z0-9_-]{1,8}", fullmatch=True)
_maybe = st.none() | _text
_uris = st.builds(
    Pkcs11Uri,
    token=_maybe,
    manufacturer=_maybe,
    serial=_maybe,
    model=_maybe,
    library_manufacturer=_maybe,
    library_description=_maybe,
    library_version=st.none() | st.tuples(st.integers(0, 255), st.integers(0, 255)),
    slot_manufacturer=_maybe,
    slot_description=_maybe,
    slot_id=st.none() | st.integers(0, 2**32),
    object=_maybe,
    id=st.none() | st.binary(max_size=20),
    type=st.sampled_from([None, "public", "private", "cert", "secret-key", "data"]),
    pin_source=_maybe,
    module_name=_maybe,
    module_path=_maybe,
    vendor=st.dictionaries(_names, _text, max_size=2).map(lambda d: tuple(d.items())),
    vendor_query=st.lists(st.tuples(_names, _text), max_size=3).map(tuple),
)


@given(_uris)
def test_what_is_written_reads_as_it_was_and_is_what_the_grammar_allows(uri: Pkcs11Uri) -> None:
    assert Pkcs11Uri.parse(str(uri)) == uri
    assert re.fullmatch(r"pkcs11:[A-Za-z0-9._~:@+,;=%/?&-]*", str(uri))


@given(st.text(max_size=60) | st.text(max_size=60).map("pkcs11:token=a;{}".format))
def test_any_text_is_a_uri_or_is_refused_in_words(text: str) -> None:
    try:
        uri = Pkcs11Uri.parse(text)
    except PkiError as error:
        assert str(error)
    else:
        assert Pkcs11Uri.parse(str(uri)) == uri


# The examples of RFC 7512 section 3, one by one.
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("pkcs11:", Pkcs11Uri()),
        (
            "pkcs11:object=my-pubkey;type=public",
            Pkcs11Uri(object="my-pubkey", type="public"),
        ),
        (
            "pkcs11:object=my-key;type=private?pin-source=file:/etc/token",
            Pkcs11Uri(object="my-key", type="private", pin_source="file:/etc/token"),
        ),
        (
            "pkcs11:token=The%20Software%20PKCS%2311%20Softtoken;manufacturer=Snake%20Oil,%20Inc.;"
            "model=1.0;object=my-certificate;type=cert;id=%69%95%3E%5C%F4%BD%EC%91;serial="
            "?pin-source=file:/etc/token_pin",
            Pkcs11Uri(
                token="The Software PKCS#11 Softtoken",
                manufacturer="Snake Oil, Inc.",
                model="1.0",
                object="my-certificate",
                type="cert",
                id=bytes.fromhex("69953e5cf4bdec91"),
                serial="",
                pin_source="file:/etc/token_pin",
            ),
        ),
        (
            "pkcs11:object=my-sign-key;type=private?module-name=mypkcs11",
            Pkcs11Uri(object="my-sign-key", type="private", module_name="mypkcs11"),
        ),
        (
            "pkcs11:object=my-sign-key;type=private?module-path=/mnt/libmypkcs11.so.1",
            Pkcs11Uri(object="my-sign-key", type="private", module_path="/mnt/libmypkcs11.so.1"),
        ),
        (
            "pkcs11:token=Software%20PKCS%2311%20softtoken;manufacturer=Snake%20Oil,%20Inc."
            "?pin-value=the-pin",
            Pkcs11Uri(
                token="Software PKCS#11 softtoken",
                manufacturer="Snake Oil, Inc.",
                pin_value="the-pin",
            ),
        ),
        ("pkcs11:slot-description=Sun%20Metaslot", Pkcs11Uri(slot_description="Sun Metaslot")),
        (
            "pkcs11:library-manufacturer=Snake%20Oil,%20Inc.;library-description=Soft%20Token%20Library;"
            "library-version=1.23",
            Pkcs11Uri(
                library_manufacturer="Snake Oil, Inc.",
                library_description="Soft Token Library",
                library_version=(1, 23),
            ),
        ),
        ("pkcs11:token=My%20token%25%20created%20by%20Joe;library-version=3;id=%01%02%03%Ba%dd%Ca%fe%04%05%06",
         Pkcs11Uri(token="My token% created by Joe", library_version=(3, 0), id=bytes.fromhex("010203baddcafe040506"))),
        (
            "pkcs11:token=A%20name%20with%20a%20substring%20%25%3B;object=my-certificate;type=cert",
            Pkcs11Uri(
                token="A name with a substring %;", object="my-certificate", type="cert"
            ),
        ),
        (
            "pkcs11:token=Name%20with%20a%20small%20A%20with%20acute:%20%C3%A1;object=my-certificate;type=cert",
            Pkcs11Uri(
                token="Name with a small A with acute: á", object="my-certificate", type="cert"
            ),
        ),
        (
            "pkcs11:token=my-token;object=my-certificate;type=cert;vendor-aaa=value-a"
            "?pin-source=file:/etc/token_pin&vendor-bbb=value-b",
            Pkcs11Uri(
                token="my-token",
                object="my-certificate",
                type="cert",
                vendor=(("vendor-aaa", "value-a"),),
                pin_source="file:/etc/token_pin",
                vendor_query=(("vendor-bbb", "value-b"),),
            ),
        ),
    ],
)  # fmt: skip
def test_the_examples_of_the_rfc(text: str, expected: Pkcs11Uri) -> None:
    assert Pkcs11Uri.parse(text) == expected
    assert Pkcs11Uri.parse(str(expected)) == expected


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("token=a", "begins with pkcs11:"),
        ("pkcs12:token=a", "begins with pkcs11:"),
        ("pkcs11:token", "NAME=VALUE"),
        ("pkcs11:token=a;", "NAME=VALUE"),
        ("pkcs11:;token=a", "NAME=VALUE"),
        ("pkcs11:=a", "NAME=VALUE"),
        ("pkcs11:tok.en=a", "NAME=VALUE"),
        ("pkcs11:token=a b", "%20"),
        ("pkcs11:token=a/b", "percent-encoded"),
        ("pkcs11:token=á", "percent-encoded"),
        ("pkcs11:token=a%2", "percent-encoded"),
        ("pkcs11:token=a%zz", "percent-encoded"),
        ("pkcs11:token=a\n", "percent-encoded"),
        ("pkcs11:token=a#b", "percent-encoded"),
        ("pkcs11:token=a?pin-source=a&&module-path=b", "NAME=VALUE"),
        ("pkcs11:token=a?pin-source=a;b", "percent-encoded"),
        ("pkcs11:token=%ff", "UTF-8"),
        ("pkcs11:token=a;token=b", "twice"),
        ("pkcs11:x-a=a;x-a=b", "twice"),
        ("pkcs11:?module-path=a&module-path=b", "twice"),
        ("pkcs11:?pin-source=a&pin-value=b", "leave out pin-value"),
        ("pkcs11:type=key", "secret-key"),
        ("pkcs11:slot-id=0x1", "decimal"),
        ("pkcs11:slot-id=", "decimal"),
        ("pkcs11:slot-id=" + "9" * 5000, "4096"),
        ("pkcs11:library-version=1.", "a number"),
        ("pkcs11:library-version=1.2.3", "a number"),
        ("pkcs11:library-version=" + "9" * 10, "a number"),
    ],
)
def test_what_is_no_such_uri_is_refused_with_its_rule(text: str, said: str) -> None:
    with pytest.raises(Malformed, match=re.escape(said)):
        Pkcs11Uri.parse(text)


def test_no_pin_is_in_what_is_shown() -> None:
    uri = Pkcs11Uri.parse("pkcs11:token=a?pin-value=31415926")
    assert "31415926" not in repr(uri)
    assert "31415926" not in str(uri.locator)
    for text in ("pkcs11:token=a?pin-value=31415926;", "pkcs11:?pin-value=31415926&pin-value=2"):
        with pytest.raises(Malformed) as refused:
            Pkcs11Uri.parse(text)
        assert "31415926" not in str(refused.value)


def test_a_locator_names_no_module_and_no_pin() -> None:
    uri = Pkcs11Uri.parse(
        "pkcs11:token=a;object=b;id=%01?module-path=/m&pin-source=file:/p&algorithm=ec-p256"
    )
    assert str(uri.locator) == "pkcs11:token=a;object=b;id=%01"
    assert str(uri.token_only) == "pkcs11:token=a"
    assert uri.names_object
    assert not uri.token_only.names_object


@pytest.mark.parametrize(
    ("wide", "narrow", "covers"),
    [
        ("pkcs11:token=a", "pkcs11:token=a;serial=1;object=x", True),
        ("pkcs11:token=a?module-path=/m", "pkcs11:token=a;serial=1", True),
        ("pkcs11:token=a;serial=1", "pkcs11:token=a", False),
        ("pkcs11:token=", "pkcs11:token=a", False),
        ("pkcs11:token=a;x-y=1", "pkcs11:token=a", False),
        ("pkcs11:", "pkcs11:token=a", True),
    ],
)
def test_a_uri_covers_what_has_all_that_it_names(wide: str, narrow: str, covers: bool) -> None:
    assert Pkcs11Uri.parse(wide).covers(Pkcs11Uri.parse(narrow)) is covers
