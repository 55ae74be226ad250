"""A decision point at a real socket: yes and no as they are said, and everything else is no decision."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.internet.protocol import Factory, Protocol

from pki.rules.errors import BadPolicy, PolicyUnavailable
from pki.rules.facts import Facts, RequestFacts
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
from twisted_mesh.ca.policy.external import AT_ONCE, LARGEST_ANSWER, DecisionPoint, point_url
from twisted_mesh.http.https_client import HttpsClient

ASKED = Facts(request=RequestFacts(spiffe_id="spiffe://mesh.local/service/web"))


def point(url: str, timeout: float = 2.0, **settings: Any) -> DecisionPoint:
    client = HttpsClient(reactor(), timeout=timeout, **settings)
    return DecisionPoint("opa", url, point_url(url, "opa"), client)


def plain(port: int, path: str = "/v1/data/mesh/allow") -> str:
    return f"http://127.0.0.1:{port}{path}"


def said(body: bytes, **settings: Any) -> tuple[bool, str]:
    with serving(ok(body), None) as endpoint:
        return run(point(plain(endpoint.port), **settings).ask(ASKED))


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"result": true}', (True, "")),
        (b'{"result": false}', (False, "")),
        (b'{"result": {"allow": true}}', (True, "")),
        (
            b'{"result": {"allow": false, "reason": "not in the inventory"}}',
            (False, "not in the inventory"),
        ),
        (b'{"decision_id": "7", "result": {"allow": true, "more": [1]}}', (True, "")),
    ],
)
def test_yes_and_no_are_as_they_are_said(body: bytes, expected: tuple[bool, str]) -> None:
    assert said(body) == expected


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"true",
        b"{}",
        b'{"result": null}',
        b'{"result": "true"}',
        b'{"result": 1}',
        b'{"result": []}',
        b'{"result": {}}',
        b'{"result": {"allow": "yes"}}',
        b'{"result": {"allow": 1}}',
        b'{"result": {"allow": true, "reason": 7}}',
        b'{"result": false, "result": true}',
        b'{"result": {"allow": false, "allow": true}}',
        b'{"result": true',
        b'{"result": true} {"result": false}',
        b'{"Result": true}',
        b"\xff\xfe",
        b'{"result": ' + b"[" * 5000,
        b"<html>",
    ],
)
def test_all_else_is_no_decision(body: bytes) -> None:
    with pytest.raises(PolicyUnavailable, match="decision point opa has not decided"):
        said(body)


@pytest.mark.parametrize("status", [201, 204, 301, 400, 401, 403, 404, 500, 503])
def test_only_an_answer_of_200_counts(status: int) -> None:
    with (
        serving(answer(status, b'{"result": true}'), None) as endpoint,
        pytest.raises(PolicyUnavailable, match=f"it answers {status}"),
    ):
        run(point(plain(endpoint.port)).ask(ASKED))


def test_no_redirection_is_followed() -> None:
    with serving(ok(b'{"result": true}'), None) as other:
        redirecting = serving(redirect(plain(other.port)), None)
        with redirecting as endpoint, pytest.raises(PolicyUnavailable, match="it answers 302"):
            run(point(plain(endpoint.port)).ask(ASKED))
        assert other.asked == []


def slow(transport: Any) -> None:
    """Says nothing."""


def dribbling(transport: Any) -> None:
    """A byte now and then, for ever."""
    transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")

    def more() -> None:
        if transport.connected:
            transport.write(b" ")
            reactor().callLater(0.02, more)

    more()


def endless(transport: Any) -> None:
    transport.write(b"HTTP/1.1 200 OK\r\n\r\n")

    def more() -> None:
        if transport.connected:
            transport.write(b" " * LARGEST_ANSWER)
            reactor().callLater(0, more)

    more()


@pytest.mark.parametrize("answers", [slow, dribbling, endless])
def test_one_that_is_slow_or_never_ends_is_no_decision(answers: Callable[[Any], None]) -> None:
    with serving(lambda _: answers, None) as endpoint, pytest.raises(PolicyUnavailable):
        run(point(plain(endpoint.port), 0.3).ask(ASKED))


@pytest.mark.parametrize(
    "noise", [b"", b"SSH-2.0-x\r\n", b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 20000]
)
def test_one_that_speaks_no_http_is_no_decision(noise: bytes) -> None:
    with serving(noise, None) as endpoint, pytest.raises(PolicyUnavailable):
        run(point(plain(endpoint.port), 1.0).ask(ASKED))


def test_one_that_is_gone_is_no_decision() -> None:
    with pytest.raises(PolicyUnavailable, match="nobody listens"):
        run(point(plain(free_port())).ask(ASKED))


def test_a_long_answer_is_no_decision() -> None:
    with pytest.raises(PolicyUnavailable, match=f"more than {LARGEST_ANSWER} bytes"):
        said(b'{"result": true, "x": "' + b"x" * LARGEST_ANSWER + b'"}')


def test_by_https_it_is_believed_by_the_cas_that_are_named() -> None:
    with serving(ok(b'{"result": true}'), web_certificate("localhost")) as endpoint:
        url = f"https://localhost:{endpoint.port}/allow"
        assert run(point(url, roots=(web_root()[0],)).ask(ASKED)) == (True, "")
        with pytest.raises(PolicyUnavailable):
            run(point(url).ask(ASKED))


def test_by_https_it_must_be_the_host_that_is_named() -> None:
    with serving(ok(b'{"result": true}'), web_certificate("localhost")) as endpoint:
        url = f"https://other.example:{endpoint.port}/allow"
        with pytest.raises(PolicyUnavailable):
            run(point(url, roots=(web_root()[0],)).ask(ASKED))


def test_plain_http_where_https_is_named_is_no_decision() -> None:
    with serving(ok(b'{"result": true}'), None) as endpoint, pytest.raises(PolicyUnavailable):
        run(point(f"https://localhost:{endpoint.port}/", 1.0).ask(ASKED))


class Opa(Protocol):
    """Says yes to whoever asks in the right form, and keeps what it was asked."""

    heard = b""
    asked: ClassVar[list[tuple[str, Any]]] = []

    def dataReceived(self, data: bytes) -> None:
        self.heard += data
        head, end, body = self.heard.partition(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head.lower())
        if end and length is not None and len(body) == int(length[1]):
            self.asked.append((head.decode().lower(), json.loads(body)))
            self.transport.write(ok(b'{"result": true}'))
            self.transport.loseConnection()


def test_it_may_be_at_a_unix_socket_and_is_sent_the_input(tmp_path: Path) -> None:
    path = tmp_path / "s"
    port = reactor().listenUNIX(str(path), Factory.forProtocol(Opa))
    try:
        assert run(point(f"unix:{path}:/v1/data/mesh").ask(ASKED)) == (True, "")
        assert run(point(f"unix:{path}").ask(ASKED)) == (True, "")
    finally:
        run(maybeDeferred(port.stopListening))
    (head, body), (other, _) = Opa.asked
    assert head.startswith("post /v1/data/mesh http/1.1") and other.startswith("post / http/1.1")
    assert "content-type: application/json" in head and "authorization" not in head
    assert body == {"input": ASKED.as_input()}


def test_a_unix_socket_that_is_not_there_is_no_decision(tmp_path: Path) -> None:
    with pytest.raises(PolicyUnavailable, match="has not decided"):
        run(point(f"unix:{tmp_path}/s").ask(ASKED))


def test_no_more_than_so_many_are_asked_at_a_time() -> None:
    with serving(ok(b'{"result": true}'), None) as endpoint:
        one = point(plain(endpoint.port), 10.0)
        many = [Deferred.fromCoroutine(one.ask(ASKED)) for _ in range(4 * AT_ONCE)]

        async def all_of_them() -> Any:
            return await gatherResults(many)

        assert run(all_of_them()) == [(True, "")] * len(many)
        assert endpoint.most_open <= AT_ONCE


def test_whoever_waits_too_long_for_a_turn_is_not_kept() -> None:
    with serving(lambda _: slow, None) as endpoint:
        one = point(plain(endpoint.port), 0.3)
        many = [Deferred.fromCoroutine(one.ask(ASKED)) for _ in range(2 * AT_ONCE)]
        failures: list[Any] = []
        for asking in many:
            asking.addErrback(failures.append)

        async def all_of_them() -> Any:
            return await gatherResults(many)

        run(all_of_them())
        assert [failure.check(PolicyUnavailable) for failure in failures] == [
            PolicyUnavailable
        ] * len(many)
        assert one._turns.tokens == AT_ONCE and one._turns.waiting == []


@pytest.mark.parametrize(
    "url",
    [
        "http://opa.example/allow",
        "http://127.0.0.1.example/",
        "http://user:secret@127.0.0.1/",
        "ftp://127.0.0.1/",
        "unix:",
        "unix:opa.sock",
        "unix:/run/" + "x" * 200,
        "unix:/run/opa.sock:v1",
        "https:///",
        "https://opa example/",
        "file:///etc/passwd",
        "",
    ],
)
def test_what_is_no_place_to_ask_is_refused_with_the_policy(url: str) -> None:
    with pytest.raises(BadPolicy, match="url") as refused:
        point_url(url, "opa")
    assert refused.value.problems[0].subject == "external opa"
    assert "secret" not in str(refused.value)
