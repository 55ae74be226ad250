"""What a broken connection means, in words that say what to do; whatever broke it."""

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from OpenSSL import SSL
from twisted.internet.error import (
    ConnectError,
    ConnectingCancelledError,
    ConnectionAborted,
    ConnectionDone,
    ConnectionLost,
    ConnectionRefusedError,
    DNSLookupError,
    NoProtocol,
    TCPTimedOutError,
    TimeoutError,
)
from twisted.python.failure import Failure
from twisted.web.client import ResponseFailed, ResponseNeverReceived

from pki.errors import Malformed, Problem
from twisted_mesh.runtime.reach import Reach
from twisted_mesh.tls.alerts import (
    PeerRefused,
    RefusedByPeer,
    Unreachable,
    as_error,
    problem_of,
)
from twisted_mesh.tls.openssl_errors import ALERTS, ERRORS

REFUSED = PeerRefused([Problem("expired", "it ended"), Problem("wrong-usage", "not for this")])


def openssl(*reasons: str) -> SSL.Error:
    return SSL.Error([("SSL routines", "", reason) for reason in reasons])


@pytest.mark.parametrize("alert", ALERTS)
@pytest.mark.parametrize("prefix", ["tlsv1 alert ", "ssl/tls alert ", "tlsv13 alert "])
def test_an_alert_is_the_other_sides_refusal_of_us(alert: str, prefix: str) -> None:
    problem = problem_of(openssl(prefix + alert))
    assert problem.code == ALERTS[alert][0]
    assert problem.detail.startswith("the other side refused us: ")
    assert problem.remedy
    assert problem.rule == f"TLS alert: {alert}"


@pytest.mark.parametrize(
    ("alert", "code"),
    [
        ("certificate required", "no-certificate"),
        ("certificate expired", "expired"),
        ("certificate revoked", "revoked"),
        ("unknown ca", "unknown-authority"),
        ("unsupported certificate", "wrong-usage"),
        ("protocol version", "protocol-version"),
    ],
)
def test_alerts_have_the_codes_of_the_contract(alert: str, code: str) -> None:
    assert problem_of(openssl(f"tlsv1 alert {alert}")).code == code


def test_an_alert_that_is_not_in_the_list_is_named() -> None:
    problem = problem_of(openssl("tlsv1 alert access denied"))
    assert problem.code == "refused-by-peer"
    assert problem.detail == "the other side sent the TLS alert access denied"


@pytest.mark.parametrize("reason", ERRORS)
def test_what_openssl_complains_of_is_about_the_peer(reason: str) -> None:
    problem = problem_of(openssl(reason))
    assert (problem.code, problem.detail, problem.remedy) == ERRORS[reason]
    assert not problem.detail.startswith("the other side refused us")


def test_the_first_reason_that_is_known_counts() -> None:
    problem = problem_of(openssl("something odd", "http request", "tlsv1 alert unknown ca"))
    assert problem.code == "not-tls"


def test_a_reason_that_is_not_known_is_shown() -> None:
    assert problem_of(openssl("bad extension")).detail == "bad extension"


@pytest.mark.parametrize(
    "error",
    [
        SSL.Error(),
        SSL.Error([]),
        SSL.Error(""),
        SSL.Error("words"),
        SSL.Error(None),
        SSL.Error([("a", "b")]),
        SSL.Error([("a", "b", None)]),
        SSL.Error([None]),
        SSL.SysCallError(-1, "Unexpected EOF"),
        SSL.SysCallError(104, "ECONNRESET"),
        SSL.ZeroReturnError(),
        SSL.WantReadError(),
    ],
)
def test_an_error_of_openssl_without_reasons_is_still_a_problem(error: SSL.Error) -> None:
    problem = problem_of(error)
    assert problem.code == "tls-error"
    assert problem.detail.isprintable()


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (ConnectionRefusedError(), "unreachable", "nobody listens there"),
        (DNSLookupError("x"), "unreachable", "host name is unknown"),
        (TimeoutError(), "unreachable", "did not answer in time"),
        (TCPTimedOutError(), "unreachable", "timed out"),
        (ConnectError(string="no route to host"), "unreachable", "no route to host"),
        (NoProtocol(), "interrupted", "no valid certificate at the moment"),
        (ConnectingCancelledError(None), "interrupted", "broken off on our side"),
        (ConnectionDone(), "interrupted", "closed the connection"),
        (ConnectionLost(), "interrupted", "closed the connection"),
        (ConnectionAborted(), "interrupted", "closed the connection"),
        (RuntimeError("a\nbug\x1b[31m"), "interrupted", "RuntimeError: a\\nbug\\x1b[31m"),
        (REFUSED, "expired", "it ended"),
    ],
)
def test_every_end_of_a_connection_has_its_words(error: Exception, code: str, words: str) -> None:
    for shape in (error, Failure(error)):
        problem = problem_of(shape)
        assert problem.code == code
        assert words in problem.detail


@pytest.mark.parametrize("wrap", [ResponseNeverReceived, ResponseFailed])
@pytest.mark.parametrize(
    ("inner", "code"),
    [
        (openssl("tlsv1 alert certificate revoked"), "revoked"),
        (ConnectionLost(), "interrupted"),
        (REFUSED, "expired"),
    ],
)
def test_twisted_webs_wrapping_hides_nothing(wrap: Any, inner: Exception, code: str) -> None:
    wrapped = wrap([Failure(inner)])
    assert problem_of(wrapped).code == code
    assert problem_of(wrap([Failure(ConnectionDone()), Failure(wrapped)])).code == code


@pytest.mark.parametrize("wrap", [ResponseNeverReceived, ResponseFailed])
def test_what_is_read_and_is_no_http_is_said_to_be_none(wrap: Any) -> None:
    reach = Reach("http://a:1")
    reach.heard = b"HTTP/1.1 200 OK"
    for cause in (ValueError("Invalid Content-Length: b'-1'"), KeyError(b"gzip"), OverflowError()):
        problem = problem_of(wrap([Failure(cause)]))
        assert (problem.code, problem.detail) == ("not-http", "what it answered is not HTTP")
        detail = problem_of(wrap([Failure(cause)]), reach).detail
        assert detail.startswith("what answers at http://a:1 is not HTTP throughout")
    cut = wrap([Failure(ConnectionLost()), Failure(KeyError())])
    assert "closed the connection" in problem_of(cut).detail


def test_our_own_refusal_stays_what_it_is() -> None:
    assert as_error(REFUSED) is REFUSED
    assert as_error(Failure(REFUSED)) is REFUSED
    assert as_error(ResponseNeverReceived([Failure(REFUSED)])) is REFUSED
    other = Malformed("no")
    assert as_error(other) is other


def test_nobody_there_is_told_from_a_no() -> None:
    assert type(as_error(ConnectionRefusedError())) is Unreachable
    assert type(as_error(openssl("tlsv1 alert unknown ca"))) is RefusedByPeer
    assert type(as_error(ConnectionLost())) is RefusedByPeer


def test_the_error_reads_like_its_problem() -> None:
    error = RefusedByPeer(Problem("expired", "it says: ended", "renew it"))
    assert str(error) == "it says: ended (renew it)"
    assert error.problems == (Problem("expired", "it says: ended", "renew it"),)


ANYTHING = st.recursive(
    st.none() | st.integers() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.tuples(inner, inner, inner),
    max_leaves=5,
)


@given(
    st.sampled_from([SSL.Error, SSL.SysCallError, ConnectError, ConnectionLost, ValueError]),
    st.lists(ANYTHING, max_size=2),
)
@example(SSL.Error, [[("a", "b", "alert")]])
def test_no_error_at_all_makes_it_raise(kind: type[Exception], arguments: list[Any]) -> None:
    problem = problem_of(kind(*arguments))
    assert problem.code
    assert problem.detail.isprintable()
