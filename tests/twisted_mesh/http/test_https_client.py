"""Questions to servers of the web at real sockets: whom it believes, and what it takes."""

import gzip
from typing import Any

import pytest

from pki.codes import Code
from pki.errors import Malformed, PkiError
from tests.running import free_port
from tests.twisted_mesh.federation.hostile import (
    answer,
    ok,
    reactor,
    redirect,
    serving,
    web_certificate,
    web_root,
)
from tests.twisted_mesh.grpc.sockets import run
from twisted_mesh.http.https_client import HttpsClient, WebAnswer, WebUrl


def client(timeout: float = 5.0) -> HttpsClient:
    return HttpsClient(reactor(), (web_root()[0],), timeout)


def url(text: str) -> WebUrl:
    return WebUrl.parse(text, "jwks_url")


def got(text: str, limit: int = 100, timeout: float = 5.0) -> bytes:
    return run(client(timeout).get(url(text), limit))


def refused(text: str, **kwargs: Any) -> tuple[str, str]:
    with pytest.raises(PkiError) as refusal:
        got(text, **kwargs)
    assert str(refusal.value).isprintable()
    return refusal.value.problems[0].code, str(refusal.value)


def test_over_https_it_is_the_host_that_counts() -> None:
    with serving(ok(b"{}"), web_certificate("localhost", "127.0.0.1")) as endpoint:
        assert got(endpoint.url("/keys?a=b")) == b"{}"
        assert got(endpoint.url(host="127.0.0.1")) == b"{}"
        lines = endpoint.asked[0].decode().lower().split("\r\n")
        assert lines[0] == "get /keys?a=b http/1.1"
        assert not [line for line in lines if line.startswith(("accept-encoding", "cookie"))]


@pytest.mark.parametrize(
    ("shown", "code"),
    [
        (lambda: web_certificate("other.example"), Code.NAME_MISMATCH),
        (lambda: web_certificate("localhost", issuer="another CA"), Code.UNKNOWN_AUTHORITY),
    ],
)
def test_who_is_not_the_host_is_refused(shown: Any, code: Code) -> None:
    with serving(ok(b"{}"), shown()) as endpoint:
        assert refused(endpoint.url())[0] == code
        assert not endpoint.asked


def test_plain_http_is_for_this_machine() -> None:
    with serving(ok(b"{}"), None) as endpoint:
        assert got(f"http://127.0.0.1:{endpoint.port}/") == b"{}"
        assert refused(f"https://127.0.0.1:{endpoint.port}/", timeout=0.3)[0] == Code.UNREACHABLE


def test_what_else_is_said_goes_along_and_comes_back() -> None:
    with serving(answer(201, b"made", kind="x"), None) as endpoint:
        asking = client().ask(
            url(f"http://127.0.0.1:{endpoint.port}/reviews"),
            100,
            method="POST",
            headers={"authorization": "Bearer secret"},
            body=b"{}",
        )
        told = run(asking)
        assert (told.status, told.body, told.headers["kind"]) == (201, b"made", "x")
        assert b"Bearer secret" in endpoint.asked[0] and endpoint.asked[0].startswith(b"POST")
        assert "made" not in repr(WebAnswer(200, {}, b"made"))


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_no_redirection_is_followed(status: int) -> None:
    with serving(ok(b"secret"), None) as inside:
        lead = redirect(f"http://127.0.0.1:{inside.port}/latest", status)
        with serving(lead, None) as endpoint:
            code, words = refused(f"http://127.0.0.1:{endpoint.port}/")
        assert code == Code.NOT_SERVED and "not followed" in words
        assert not inside.asked


@pytest.mark.parametrize("status", [204, 401, 404, 500, 503])
def test_another_status_is_no_answer(status: int) -> None:
    with serving(answer(status, b"" if status == 204 else b"words"), None) as endpoint:
        code, words = refused(f"http://127.0.0.1:{endpoint.port}/")
        assert code == Code.NOT_SERVED and str(status) in words


def test_no_more_is_taken_than_was_said() -> None:
    with serving(ok(b"x" * 101), None) as endpoint:
        assert "more than 100 bytes" in refused(f"http://127.0.0.1:{endpoint.port}/")[1]
    endless = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"40\r\n" + b"x" * 64
    with serving(endless + b"\r\n40\r\n" + b"x" * 64, None) as endpoint:
        assert "more than 100 bytes" in refused(f"http://127.0.0.1:{endpoint.port}/")[1]
    with serving(b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 20_000, None) as endpoint:
        assert refused(f"http://127.0.0.1:{endpoint.port}/")


def test_no_compression_is_unfolded() -> None:
    with serving(ok(gzip.compress(bytes(50)), content_encoding="gzip"), None) as endpoint:
        assert "not asked for" in refused(f"http://127.0.0.1:{endpoint.port}/")[1]


@pytest.mark.parametrize(
    "said", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhalf", b"SSH-2.0-x\r\n"]
)
def test_who_speaks_no_http_or_ends_early_is_told(said: bytes) -> None:
    with serving(said, None) as endpoint:
        assert refused(f"http://127.0.0.1:{endpoint.port}/")


def test_who_is_slow_is_given_up() -> None:
    def drip(transport: Any) -> None:
        transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nx")

    with serving(lambda _: drip, None) as endpoint:
        code, words = refused(f"http://127.0.0.1:{endpoint.port}/", timeout=0.2)
        assert code == Code.UNREACHABLE and "0.2 s" in words


def test_who_is_not_there_is_told() -> None:
    code, words = refused(f"http://127.0.0.1:{free_port()}/")
    assert code == Code.UNREACHABLE and "nobody listens" in words


@pytest.mark.parametrize(
    ("text", "origin"),
    [
        ("https://Issuer.example/keys", "https://issuer.example:443"),
        ("https://issuer.example:8443", "https://issuer.example:8443"),
        ("http://localhost:8080/x", "http://localhost:8080"),
        ("http://[::1]/x", "http://[::1]:80"),
    ],
)
def test_a_url_is_read_and_written_as_it_was(text: str, origin: str) -> None:
    assert (str(url(text)), url(text).origin) == (text, origin)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "issuer.example",
        "file:///etc/passwd",
        "ftp://issuer.example/",
        "https://",
        "https://user:pass@issuer.example/",
        "https://issuer.example:0/",
        "https://issuer.example:99999/",
        "https://issuer.example/a b",
        "https://issuer.example/\n",
        "https://issuer.example/#x",
        "https://issuer.example/\u00e4",
        "https://[::1/",
        "https://issuer.example/" + "a" * 3000,
        "http://issuer.example/",
        "http://10.0.0.1/",
        "http://169.254.169.254/",
        "http://127.0.0.1.evil.example/",
        "http://localhost.evil.example/",
        "http://2130706433/",
        "http://0/",
    ],
)
def test_what_is_no_url_that_may_be_asked_is_refused_in_words(text: str) -> None:
    with pytest.raises(Malformed, match=r"^jwks_url .*https://"):
        url(text)


def test_a_metadata_service_may_be_named() -> None:
    assert WebUrl.parse("http://169.254.169.254/x", "x", ("169.254.169.254",)).port == 80
