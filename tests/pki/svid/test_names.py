"""Host names: which a certificate carries, and what is said of the others."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pki.svid.names import BadDnsName, dns_name, is_dns_name

GOOD = ["localhost", "a.b", "xn--bcher-kva.example", "1a.2b", "a" * 63, "a." * 126 + "a"]
#: A name, the rule that it breaks, and the cure.
BAD = [
    ("", "empty", "leave it out"),
    ("127.0.0.1", "an IP address", "IP:"),
    ("::1", "an IP address", "--ip"),
    ("[::1]", "an IP address", "--ip"),
    ("https://a.example/", "a URI", "write only its host"),
    ("*.a.example", "a wildcard", "name each host"),
    ("*", "a wildcard", "name each host"),
    ("b\u00fccher.example", "letters beyond ASCII", "xn--"),
    ("a.", "ends with a dot", "write a"),
    ("A.Example.", "ends with a dot", "write a.example"),
    ("A.Example", "capital letters", "write a.example"),
    ("a_b.example", "an underscore", "a dash"),
    ("a.example:443", "a port", "write a.example"),
    ("a" * 64, "too long", "63 between dots"),
    ("a." * 126 + "ab", "too long", "253"),
    (".", "no host name", "letters, digits and dashes"),
    (".a", "no host name", "dots between"),
    ("a..b", "no host name", "dots between"),
    ("-a", "no host name", "no dash first"),
    ("a-", "no host name", "no dash first"),
    ("a b", "no host name", "letters, digits"),
    ("a\n", "no host name", "letters, digits"),
    ("a.1", "no host name", "no number last"),
    ("0x7f000001", "no host name", "no number last"),
]


@pytest.mark.parametrize("name", GOOD)
def test_host_names_are_taken(name: str) -> None:
    assert is_dns_name(name)
    assert dns_name(name) == name


@pytest.mark.parametrize(("name", "rule", "remedy"), BAD, ids=[repr(row[0][:20]) for row in BAD])
def test_what_is_no_host_name_says_why_and_what_to_write(name: str, rule: str, remedy: str) -> None:
    assert not is_dns_name(name)
    with pytest.raises(BadDnsName) as caught:
        dns_name(name)
    assert rule in caught.value.detail
    assert remedy in caught.value.remedy


@given(st.text(max_size=300))
def test_any_text_is_a_name_or_says_why_not(text: str) -> None:
    try:
        assert is_dns_name(dns_name(text))
    except BadDnsName as error:
        assert not is_dns_name(text)
        assert str(error).isprintable()
        assert error.remedy
