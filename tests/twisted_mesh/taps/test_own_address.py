"""Where certificates say that CRLs are found."""

import socket

import pytest
from twisted.internet.address import IPv4Address, IPv6Address

from twisted_mesh.taps import own_address

LOOPBACK = IPv4Address("TCP", "127.0.0.1", 8080)
EVERYWHERE = IPv4Address("TCP", "0.0.0.0", 8080)
ONE = IPv4Address("TCP", "192.0.2.7", 8080)
SIX = IPv6Address("TCP", "2001:db8::7", 8080)
HERE = socket.gethostname()


@pytest.mark.parametrize(
    ("address", "public_url", "url"),
    [
        (LOOPBACK, None, "http://localhost:8080"),
        (ONE, None, "http://192.0.2.7:8080"),
        (SIX, None, "http://[2001:db8::7]:8080"),
        (EVERYWHERE, None, f"http://{HERE}:8080"),
        # As it is said, whatever is in between.
        (LOOPBACK, "http://crl.example", "http://crl.example"),
        (ONE, "http://crl.example:81", "http://crl.example:81"),
        # Never over TLS: its host, on the port that serves it in plain HTTP.
        (EVERYWHERE, "https://ca.example:8443", "http://ca.example:8080"),
        (ONE, "https://[2001:db8::9]", "http://[2001:db8::9]:8080"),
        # Nobody else gets in there.
        (LOOPBACK, "https://ca.example:8443", "http://localhost:8080"),
    ],
)
def test_it_is_plain_http_at_a_host_that_is_reached(
    address: object, public_url: str | None, url: str
) -> None:
    assert own_address.published_at(address, public_url) == url
