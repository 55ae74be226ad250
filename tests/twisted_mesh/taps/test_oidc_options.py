"""``--oidc`` and ``--oidc-issuer``: what is meant, or one sentence why it cannot be."""

from pathlib import Path

import pytest

from pki.errors import Malformed
from twisted_mesh.taps.oidc_options import OidcOptions, issuer_url

ISSUER = "https://mesh.example"
BAD = [
    "mesh.example",
    "http://mesh.example",
    "https://",
    "https://mesh.example/",
    "https://mesh.example/td/",
    "https://mesh.example//td",
    "https://mesh.example/td?x=1",
    "https://mesh.example/#x",
    "https://user@mesh.example",
    "https://Mesh.example",
    "https://mesh.example:443",
    "https://mesh.example/a b",
    "https://mesh.example/%61",
    "HTTPS://mesh.example",
    "https://mesh.example\n",
    "",
]


@pytest.mark.parametrize(
    "text", [ISSUER, f"{ISSUER}:8443", f"{ISSUER}/td/one", "https://[::1]:8443"]
)
def test_an_issuer_is_taken_as_it_is_written(text: str) -> None:
    assert issuer_url(text) == text


@pytest.mark.parametrize("text", BAD)
def test_an_issuer_that_others_could_write_differently_is_refused(text: str) -> None:
    with pytest.raises(Malformed, match="--oidc-issuer"):
        issuer_url(text)


def test_a_socket_is_for_a_web_server_and_an_address_is_tls() -> None:
    assert OidcOptions.parse(None, None, None, None) is None
    assert OidcOptions.parse("unix:/run/x", ISSUER, None, None) == OidcOptions("unix:/run/x")
    assert OidcOptions.parse(":443", ISSUER, "c", "k") == OidcOptions(":443", Path("c"), Path("k"))


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ((None, None, "c", None), "for --oidc"),
        (("unix:/run/x", None, None, None), "--oidc-issuer"),
        (("unix:/run/x", ISSUER, "c", "k"), "leave --oidc-cert"),
        (("127.0.0.1:80", ISSUER, None, None), "There is no plaintext"),
        ((":443", ISSUER, "c", None), "give --oidc-cert and --oidc-key"),
    ],
    ids=["no address", "no issuer", "socket with key", "plaintext", "no key"],
)
def test_what_does_not_fit_is_refused(given: tuple[str | None, ...], told: str) -> None:
    with pytest.raises(Malformed, match=told):
        OidcOptions.parse(*given)
