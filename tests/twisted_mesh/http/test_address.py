"""Addresses of a CA: read, told, refused."""

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pki.errors import PkiError
from twisted_mesh.client import ServerUrl
from twisted_mesh.http.address import BadCaUrl, CaAddress, as_https, server_name


@pytest.mark.parametrize(
    ("text", "address", "told"),
    [
        ("unix:/run/ca.sock", CaAddress("unix", "/run/ca.sock"), "unix:/run/ca.sock"),
        ("/run/ca.sock", CaAddress("unix", "/run/ca.sock"), "unix:/run/ca.sock"),
        ("unix:ca.sock", CaAddress("unix", "ca.sock"), "unix:ca.sock"),
        ("https://ca:8443", CaAddress("https", "", "ca", 8443), "https://ca:8443"),
        (
            "https://CA.Example/",
            CaAddress("https", "", "ca.example", 443),
            "https://ca.example:443",
        ),
        ("https://[::1]:8443", CaAddress("https", "", "::1", 8443), "https://[::1]:8443"),
        ("https://10.0.0.1", CaAddress("https", "", "10.0.0.1", 443), "https://10.0.0.1:443"),
        ("http://localhost:80", CaAddress("http", "", "localhost", 80), "http://localhost:80"),
        ("http://127.0.0.1:1", CaAddress("http", "", "127.0.0.1", 1), "http://127.0.0.1:1"),
        ("http://[::1]", CaAddress("http", "", "::1", 80), "http://[::1]:80"),
    ],
)
def test_an_address_is_read_and_told(text: str, address: CaAddress, told: str) -> None:
    assert CaAddress.parse(text) == address
    assert str(address) == told


@pytest.mark.parametrize(
    "text",
    [
        "",
        "unix:",
        "ca:8443",
        "ftp://ca",
        "https://",
        "https://:8443",
        "https://ca:0",
        "https://ca:65536",
        "https://ca:port",
        "https://ca/path",
        "https://ca?query",
        "https://ca#fragment",
        "https://user@ca",
        "https://:secret@ca",
        "https://[::1",
        "https://ca\nx",
        "https://c a",
        "https://b\u00fccher.example",
        "https://\u2100",
        "http://ca.example:8080",
        "http://localhost.evil.example",
        "http://127.0.0.1.evil.example",
    ],
)
def test_is_no_address_of_a_ca(text: str) -> None:
    with pytest.raises(BadCaUrl) as refused:
        CaAddress.parse(text)
    assert str(refused.value).isprintable()


@given(
    st.text()
    | st.text().map("https://".__add__)
    | st.from_regex(r"(https?|unix):/?/?[a-z0-9\[\]:@%.]*(:[0-9]+)?/?", fullmatch=True)
)
@example("https://[v1.a:b]:1")
@example("https://[::1%25eth0]:1")
@example("unix:unix:/x")
@example("https://a:" + "9" * 5000)
def test_an_address_is_refused_or_read_back_as_it_is_told(text: str) -> None:
    try:
        address = CaAddress.parse(text)
    except BadCaUrl as refused:
        assert str(refused).isprintable()
    else:
        assert CaAddress.parse(str(address)) == address


@pytest.mark.parametrize(
    ("host", "name"), [("ca.example", "ca.example"), ("127.0.0.1", None), ("::1", None)]
)
def test_an_ip_address_is_not_sent_as_a_server_name(host: str, name: str | None) -> None:
    assert server_name(host) == name


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("localhost:9443", "https://localhost:9443"),
        ("[::1]:9443", "https://[::1]:9443"),
        ("localhost", None),
        ("http://localhost:1", None),
        ("a b:1", None),
        ("x:99999", None),
        ("user@host:1", None),
    ],
)
def test_who_leaves_the_scheme_out_is_told_what_to_write(text: str, meant: str | None) -> None:
    assert as_https(text) == meant
    with pytest.raises(
        PkiError, match=re.escape(f"https://HOST:PORT{f', here {meant};' if meant else ';'}")
    ):
        ServerUrl.parse(text)
