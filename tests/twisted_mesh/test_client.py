"""The server that a user types, and what is told of the handshake with it."""

from collections.abc import Iterator

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from twisted.logger import LogEvent, globalLogPublisher

from pki.errors import Malformed
from tests.authorities import BACKEND, MESH, mesh
from tests.twisted_mesh.peers import peer_of
from twisted_mesh.client import ServerUrl, log_handshake
from twisted_mesh.runtime.event_text import event_text


@pytest.mark.parametrize(
    ("text", "server", "told", "url"),
    [
        ("https://api", ServerUrl("api", 443), "api:443", "https://api:443"),
        ("https://API.example:9443/", ServerUrl("api.example", 9443), "api.example:9443", None),
        ("https://127.0.0.1:1", ServerUrl("127.0.0.1", 1), "127.0.0.1:1", None),
        ("https://[::1]:9443", ServerUrl("::1", 9443), "::1:9443", "https://[::1]:9443"),
    ],
)
def test_a_server_is_read_and_told(
    text: str, server: ServerUrl, told: str, url: str | None
) -> None:
    assert ServerUrl.parse(text) == server
    assert str(server) == told
    assert url is None or server.url == url


@pytest.mark.parametrize(
    "text",
    [
        "",
        "api:9443",
        "http://api:9443",
        "https://",
        "https://api:0",
        "https://api:65536",
        "https://api/path",
        "https://api?query",
        "https://api#fragment",
        "https://user@api",
        "https://:@api",
        "https://[::1",
        "https://api\n",
        "https://a\tpi",
        "https://b\u00fccher.example",
        "https://a..\u2024",
    ],
)
def test_is_no_server(text: str) -> None:
    with pytest.raises(Malformed, match="write https://HOST:PORT") as refused:
        ServerUrl.parse(text)
    assert str(refused.value).isprintable()


@given(
    st.text()
    | st.text().map("https://".__add__)
    | st.from_regex(r"https://[a-z0-9\[\]:@%.]*(:[0-9]+)?/?", fullmatch=True)
)
@example("https://[v1.a:b]:1")
@example("https://a:" + "9" * 5000)
@example("\ud800")
def test_a_server_is_refused_or_read_back_from_its_url(text: str) -> None:
    try:
        server = ServerUrl.parse(text)
    except Malformed as refused:
        assert str(refused).isprintable()
    else:
        assert ServerUrl.parse(server.url) == server
        assert server.url.isascii()


@pytest.fixture
def logged() -> Iterator[list[LogEvent]]:
    events: list[LogEvent] = []
    globalLogPublisher.addObserver(events.append)
    yield events
    globalLogPublisher.removeObserver(events.append)


def test_the_handshake_is_told_in_the_guides_words(logged: list[LogEvent]) -> None:
    log_handshake(peer_of(mesh().leaf()), MESH.member("service", "payment-worker"))
    (event,) = logged
    assert event_text(event).splitlines() == [
        "TLS Handshake Details:",
        "  Cipher Suite: TLS_AES_128_GCM_SHA256",
        "  TLS Version: TLS 1.3",
        "  Key Exchange: X25519MLKEM768",
        f"  Server Identity: {BACKEND}",
        "  Our Identity: spiffe://mesh.local/service/payment-worker",
    ]
