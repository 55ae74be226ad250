"""Downloads over plain HTTP: what is asked, what is taken, and that nothing is followed."""

import pytest
from twisted.internet.defer import Deferred

from pki.errors import Malformed, PkiError
from tests.twisted_mesh.http_places import HttpPlaces, Request, reach, response
from twisted_mesh.http.fetch import Download, Fetcher, HttpUrl
from twisted_mesh.tls.alerts import Unreachable

URL = HttpUrl.parse("http://crl.example:8080/root?x=1", "--crl")


@pytest.fixture
def places(monkeypatch: pytest.MonkeyPatch) -> HttpPlaces:
    found = HttpPlaces()
    reach(monkeypatch, found)
    return found


def downloading(places: HttpPlaces, limit: int = 100) -> Download:
    return Download(Fetcher(places.reactor, 30.0), URL, limit)


@pytest.mark.parametrize(
    ("text", "origin"),
    [
        ("http://crl.example/root.crl", "http://crl.example:80"),
        ("http://CRL.Example:8080", "http://crl.example:8080"),
        ("http://[::1]:80/a%20b", "http://[::1]:80"),
        ("http://127.0.0.1/", "http://127.0.0.1:80"),
    ],
)
def test_a_url_is_read_and_written_as_it_was(text: str, origin: str) -> None:
    url = HttpUrl.parse(text, "--crl")
    assert (str(url), url.origin) == (text, origin)


@pytest.mark.parametrize(
    "text",
    [
        "https://crl.example/root.crl",
        "HTTPS://crl.example",
        "ftp://crl.example/",
        "http://",
        "http:///path",
        "http://user:pass@crl.example/",
        "http://crl.example:0/",
        "http://crl.example:99999/",
        "http://crl.example/a b",
        "http://crl.example/a\nb",
        "http://crl.example/#part",
        "http://[::1/",
        "http://crl.example/" + "a" * 3000,
        "http://crl.example/\u00e4",
        "",
    ],
)
def test_what_is_no_http_url_is_refused_in_words(text: str) -> None:
    with pytest.raises(Malformed, match=r"^--crl .*write http://") as caught:
        HttpUrl.parse(text, "--crl")
    assert "\n" not in str(caught.value)


def test_what_is_there_is_fetched(places: HttpPlaces) -> None:
    places.answer = lambda request: response(b"content")
    assert places.result(downloading(places).fetch()) == b"content"
    (asked,) = places.asked
    assert asked.line == "GET /root?x=1"
    assert asked.headers["host"] == "crl.example:8080"
    assert places.addresses == [("crl.example", 8080)]


def test_an_ipv6_address_is_asked_at_its_port(places: HttpPlaces) -> None:
    fetcher = Fetcher(places.reactor, 30.0)
    places.answer = lambda request: response(b"x")
    places.result(Download(fetcher, HttpUrl.parse("http://[::1]:81/", "--crl"), 9).fetch())
    assert places.addresses == [("::1", 81)]


def test_what_has_not_changed_is_not_sent_again_unless_it_is_forgotten(places: HttpPlaces) -> None:
    def answer(request: Request) -> bytes:
        if request.headers.get("if-none-match") == '"one"':
            assert request.headers["if-modified-since"] == "Mon, 23 Nov 2026 10:00:00 GMT"
            return response(status=304)
        told = {"ETag": '"one"', "Last-Modified": "Mon, 23 Nov 2026 10:00:00 GMT"}
        return response(b"content", headers=told)

    places.answer = answer
    download = downloading(places)
    assert [places.result(download.fetch()) for _ in range(3)] == [b"content", None, None]
    download.forget()
    assert places.result(download.fetch()) == b"content"


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (response(status=404), "answers 404"),
        (response(status=500, headers={"ETag": "x"}), "answers 500"),
        (response(status=304), "redirections are not followed"),
        (
            response(status=302, headers={"Location": "http://169.254.169.254/"}),
            "redirections are not followed",
        ),
        (response(b"a" * 101), "more than 100"),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n65\r\n"
            + b"a" * 101
            + b"\r\n0\r\n\r\n",
            "more than 100 bytes",
        ),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\ncut", "interrupted|closed|cut"),
        (b"what is this\r\n\r\n", "not HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", "what answers at http://.* is not HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\nhello", "is not HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0x5\r\n\r\nhello", "is not HTTP"),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
            "is not HTTP",
        ),
        (b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 40 + b"\r\n\r\n", "more than 100"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n", "not HTTP"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", "is not HTTP"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\nx", "not HTTP"),
        (b"HTTP/1.1 one OK\r\n\r\n", "is not HTTP"),
        (b"HTTP/1.1 200 OK\r\n: x\r\n\r\n", "is not HTTP"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 20000, "is not HTTP"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" * 5000, "is not HTTP"),
        (b"HTTP/1.1 200 OK\nX: " + b"y\nX: " * 20000, "is not HTTP"),
    ],
)
def test_whatever_else_is_answered_is_an_error_of_ours(
    answer: bytes, words: str, places: HttpPlaces
) -> None:
    places.answer = lambda request: answer
    with pytest.raises(PkiError, match=words):
        places.result(downloading(places).fetch())
    assert len(places.asked) == 1


def test_nobody_there_and_no_answer_in_time_are_unreachable(places: HttpPlaces) -> None:
    places.is_down = True
    with pytest.raises(Unreachable):
        places.result(downloading(places).fetch())
    places.is_down = False
    places.answer = lambda request: None
    outcome: list[object] = []
    Deferred.fromCoroutine(downloading(places).fetch()).addBoth(outcome.append)
    places.reactor.pump([1.0] * 29)
    assert not outcome
    places.reactor.pump([1.0] * 2)
    assert "takes connections, and did not answer within 30 s" in str(outcome[0])


def test_a_question_is_posted_with_its_type(places: HttpPlaces) -> None:
    places.answer = lambda request: response(request.body[::-1])
    fetcher = Fetcher(places.reactor, 30.0)
    answer = places.result(fetcher.post(URL, b"abc", "application/ocsp-request", 10))
    assert answer == b"cba"
    assert places.asked[0].line == "POST /root?x=1"
    assert places.asked[0].headers["content-type"] == "application/ocsp-request"
