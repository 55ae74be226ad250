"""A good peer that may not connect is told so inside TLS, and gets no further, whatever it tries."""

from collections.abc import Callable, Sequence
from datetime import timedelta

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from pki.codes import Code
from pki.errors import Problem
from pki.spiffe import SpiffePattern
from pki.svid.bundle import BundleSet
from pki.svid.revocation_set import Reason, Revocation
from pki.svid.x509svid import X509Svid
from tests.authorities import HOUR, forge
from tests.twisted_mesh.recording import RecordingLog
from tests.twisted_mesh.talking import Answer, read_answers
from tests.twisted_mesh.tls.wires import (
    TODAY,
    Conversation,
    End,
    converse,
    good_svid,
    home,
    svid_of,
)
from twisted_mesh.http.refusal import HttpRefusal
from twisted_mesh.limits.connection_limit import Capacity, ConnectionLimit
from twisted_mesh.limits.handshake_budget import HandshakeBudget
from twisted_mesh.tls.farewell import CLOSE_TIMEOUT
from twisted_mesh.tls.turned_away import MOST_BYTES
from twisted_mesh.trust.reviewer import Reviewer

ALLOWED = "spiffe://mesh.local/service/payment-worker"
BACKEND = "spiffe://mesh.local/service/backend"
GET = b"GET /api/status HTTP/1.1\r\nHost: localhost\r\n\r\n"


def choosy(**options: object) -> End:
    """A server of HTTP that lets one service in, and not the one that calls."""
    return End(True, allow=ALLOWED, explain=HttpRefusal, **options)  # type: ignore[arg-type]


def called(client: End | None = None, server: End | None = None) -> Conversation:
    conversation = converse(client or End(False), server or choosy())
    assert not isinstance(conversation.outcome[0], Exception)
    return conversation


def say(conversation: Conversation, data: bytes) -> None:
    """Send it, if there is still somebody to send it to."""
    if conversation.calling.made and conversation.calling.made[0].transport.connected:
        conversation.calling.made[0].transport.write(data)
        conversation.pump()


def answers(conversation: Conversation, *, to_head: bool = False) -> list[Answer]:
    return read_answers(conversation.calling.made[0].heard, to_head=to_head)


def refusals(server: End) -> list[str]:
    return [e["codes"] for e in server.log.events if e.get("event") == "peer-refused"]


def assert_nobody_heard(conversation: Conversation) -> None:
    """Neither was the application connected, nor is the peer counted among those who are."""
    assert [(made.connected_times, made.heard) for made in conversation.served.made] == [(0, b"")]
    assert len(conversation.server.registry) == 0


def test_it_reads_403_and_what_to_do() -> None:
    conversation = called()
    say(conversation, GET)
    (answer,) = answers(conversation)
    assert answer.status == 403
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["connection"] == "close"
    assert answer.headers["date"]
    assert answer.json["code"] == "not-authorized"
    assert BACKEND in answer.json["detail"]
    assert f"--allow {BACKEND}" in answer.json["detail"]
    assert ALLOWED not in str(answer), "who may is none of its business"
    assert_nobody_heard(conversation)
    assert refusals(conversation.server) == ["not-authorized"], "once, and at once"
    assert not conversation.server_wire.connected
    assert len(conversation.server.registry.turned_away) == 0


@pytest.mark.parametrize("exact_alerts", [True, False])
@pytest.mark.parametrize("demands", [True, False])
def test_every_kind_of_context_tells_it(exact_alerts: bool, demands: bool) -> None:
    server = choosy(exact_alerts=exact_alerts, demands_certificate=demands)
    conversation = called(server=server)
    say(conversation, GET)
    assert [answer.status for answer in answers(conversation)] == [403]
    assert_nobody_heard(conversation)


REQUESTS = {
    "an upload": b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 900000\r\n\r\n" + b"x" * 5000,
    "HTTP/1.0": b"GET / HTTP/1.0\r\n\r\n",
    "Expect": b"PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n",
    "CONNECT": b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n",
    "an upgrade": b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
    "keep-alive": b"GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\n\r\n",
    "a pipeline": GET * 9,
    "chunks": b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "line feeds": b"GET / HTTP/1.1\nHost: a\n\n",
    "an endless head": b"GET / HTTP/1.1\r\nX: " + b"x" * 20000,
    "no request at all": b"\r\n\r\nwhatever\r\n\r\n",
}


@pytest.mark.parametrize("kind", REQUESTS)
def test_whatever_it_asks_it_is_told_once(kind: str) -> None:
    conversation = called()
    say(conversation, REQUESTS[kind])
    say(conversation, GET)
    assert [answer.status for answer in answers(conversation)] == [403]
    assert_nobody_heard(conversation)


def test_head_gets_no_body() -> None:
    conversation = called()
    say(conversation, GET.replace(b"GET", b"HEAD"))
    (answer,) = answers(conversation, to_head=True)
    assert (answer.status, answer.body) == (403, b"")
    assert int(answer.headers["content-length"]) > 0


def test_one_that_asks_nothing_is_told_when_its_time_is_up() -> None:
    conversation = called()
    say(conversation, b"GET / HT")
    assert conversation.calling.made[0].heard == b""
    conversation.server.clock.advance(conversation.server.security.handshake_timeout)
    conversation.pump()
    assert [answer.status for answer in answers(conversation)] == [403]
    assert refusals(conversation.server) == ["not-authorized"]


def test_whoever_talks_on_has_no_more_time_for_that() -> None:
    conversation = called()
    client = conversation.calling.made[0].transport
    for second in range(4):
        assert not conversation.server_wire.aborted, second
        client.write(GET)
        conversation.client.clock.advance(0)
        # It is heard, and hears nothing: no goodbye either.
        conversation.server_wire.protocol.dataReceived(conversation.client_wire.value())
        conversation.client_wire.clear()
        conversation.server.clock.advance(CLOSE_TIMEOUT / 4)
    assert conversation.server_wire.aborted


def test_an_upload_is_read_for_a_while_and_no_further() -> None:
    conversation = called()
    wire, client = conversation.client_wire, conversation.calling.made[0].transport
    client.write(REQUESTS["an upload"])
    for _ in range(MOST_BYTES // 16384 + 2):
        client.write(b"x" * 16384)
    conversation.server_wire.protocol.dataReceived(wire.value())
    assert conversation.server_wire.aborted
    conversation = called()
    client = conversation.calling.made[0].transport
    client.write(REQUESTS["an upload"])
    conversation.client.clock.advance(0)
    conversation.server_wire.protocol.dataReceived(conversation.client_wire.value())
    conversation.client_wire.clear()
    assert not conversation.server_wire.closing, "the peer has not said goodbye"
    conversation.server.clock.advance(CLOSE_TIMEOUT)
    assert conversation.server_wire.aborted


@pytest.mark.parametrize(
    "make",
    [
        lambda: svid_of(
            forge(home().issuing, start=TODAY - HOUR, end=TODAY - timedelta(seconds=1)),
            home().issuing.intermediates,
        ),
        lambda: None,
        lambda: svid_of(forge(home().issuing, start=TODAY - HOUR, end=TODAY + HOUR), ()),
    ],
)
def test_whoever_is_not_good_too_hears_an_alert(make: Callable[[], X509Svid | None]) -> None:
    conversation = converse(End(False, make()), choosy())
    assert_nobody_heard(conversation)
    assert conversation.calling.made[0].heard == b""
    assert not conversation.server_wire.connected
    assert refusals(conversation.server) != ["not-authorized"]


def test_where_revocations_are_stale_nobody_is_told_anything() -> None:
    server = choosy()
    server.judge.freshness.lapse()
    conversation = converse(End(False), server)
    assert conversation.calling.made[0].heard == b""
    assert_nobody_heard(conversation)
    assert refusals(server) == ["not-authorized, stale-revocation"]


def revocation_of(svid: X509Svid) -> Revocation:
    from pki.keys import key_id

    issuer = key_id(home().issuing.certificate.public_key())
    end = svid.leaf.not_valid_after_utc
    return Revocation(issuer, svid.leaf.serial_number, TODAY, Reason.KEY_COMPROMISE, end)


def reviewer_of(server: End) -> Reviewer:
    return Reviewer(server.judge, server.registry, server.clock, RecordingLog())


def revoke(server: End, svid: X509Svid) -> None:
    trust, news = server.judge.trust, [revocation_of(svid)]
    merged = trust.revocations.merged(news, TODAY)
    reviewer_of(server).believe(evolve(trust, revocations=merged), news)


def expire(server: End, svid: X509Svid) -> None:
    server.time = svid.validity.not_after + timedelta(seconds=1)
    reviewer_of(server).look_at_the_clock(server.time)


def withdraw_roots(server: End, svid: X509Svid) -> None:
    reviewer_of(server).believe(evolve(server.judge.trust, bundles=BundleSet()))


@pytest.mark.parametrize("change", [revoke, expire, withdraw_roots])
def test_one_that_is_not_good_any_more_is_cut(change: Callable[[End, X509Svid], None]) -> None:
    client = End(False)
    conversation = called(client)
    assert client.svid is not None
    assert len(conversation.server.registry.turned_away) == 1
    change(conversation.server, client.svid)
    conversation.pump()
    say(conversation, GET)
    assert conversation.calling.made[0].heard == b""
    assert not conversation.server_wire.connected
    assert len(conversation.server.registry.turned_away) == 0


def allow_all(server: End, svid: X509Svid) -> None:
    everybody = SpiffePattern.parse("spiffe://mesh.local/**")
    reviewer_of(server).believe(evolve(server.judge.trust, allow=(everybody,)))


def rotate(server: End, svid: X509Svid) -> None:
    server.contexts.replace(good_svid(), server.believes.bundles.all_roots)


def forget_verdicts(server: End, svid: X509Svid) -> None:
    reviewer_of(server).believe(server.judge.trust)


CHANGES: Sequence[Callable[[End, X509Svid], None]] = (
    revoke,
    expire,
    withdraw_roots,
    allow_all,
    rotate,
    forget_verdicts,
)


def test_whoever_may_by_now_comes_again() -> None:
    client = End(False)
    conversation = called(client)
    assert client.svid is not None
    allow_all(conversation.server, client.svid)
    say(conversation, GET)
    assert [answer.status for answer in answers(conversation)] == [403]
    assert_nobody_heard(conversation)
    again = converse(client, conversation.server)
    assert again.served.made[0].connected_times == 1


@given(
    st.lists(
        st.sampled_from([GET, *REQUESTS.values()])
        | st.binary(max_size=64)
        | st.sampled_from(CHANGES)
        | st.floats(0, 12),
        max_size=8,
    ),
    st.booleans(),
)
def test_nothing_that_comes_to_pass_lets_it_in(
    steps: list[bytes | float | Callable[[End, X509Svid], None]], exact_alerts: bool
) -> None:
    client = End(False)
    conversation = called(client, choosy(exact_alerts=exact_alerts))
    server, svid = conversation.server, client.svid
    assert svid is not None
    for step in steps:
        if isinstance(step, bytes):
            say(conversation, step)
        elif isinstance(step, float):
            server.clock.advance(step)
        else:
            step(server, svid)
        conversation.pump()
        assert_nobody_heard(conversation)
    heard = conversation.calling.made[0].heard
    assert heard.count(b"HTTP/1.1 ") <= 1
    assert heard == b"" or heard.startswith(b"HTTP/1.1 403 ")
    server.clock.advance(12)
    conversation.pump()
    assert not conversation.server_wire.connected
    assert_nobody_heard(conversation)
    assert len(server.registry.turned_away) == 0
    assert not [e for e in server.log.events if e.get("event") == "establish-broke"]


def test_trust_that_changes_within_the_handshake_lets_nobody_in_who_was_turned_away() -> None:
    """The callback said no; the rule changes before the handshake is over."""
    from twisted_mesh.tls import verify

    server = choosy()
    decide = verify.Handshake.turn_away

    def then_allowed(handshake: verify.Handshake) -> bool:
        is_one = decide(handshake)
        assert End(False).svid is not None
        allow_all(server, good_svid())
        return is_one

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(verify.Handshake, "turn_away", then_allowed)
        conversation = converse(End(False), server)
    say(conversation, GET)
    assert [answer.status for answer in answers(conversation)] == [403]
    assert_nobody_heard(conversation)


def test_it_counts_as_unproven_and_its_handshake_is_charged() -> None:
    server = choosy()
    limit = ConnectionLimit(Capacity.of(16), server.clock, "the port", RecordingLog())
    budget = HandshakeBudget(server.clock)
    server.security = evolve(server.security, connection_limit=limit, handshake_budget=budget)
    charged: list[float] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(HandshakeBudget, "charge", lambda self, _, spent: charged.append(spent))
        conversation = called(server=server)
        assert (limit.unproven, len(limit)) == (1, 1)
        assert charged, "as soon as it is known"
        say(conversation, GET)
    assert len(limit) == 0


def strictest() -> End:
    """A server that lets everybody in by all rules together, and by those of the port one service that does not call.

    Then, and not before, what it demands besides is asked of a leaf.
    """
    problem = Problem(Code.NOT_AUTHORIZED, f"{BACKEND} is not among those that may here")
    return End(True, explain=HttpRefusal, leaf_checks=(lambda leaf: problem,))


def test_where_the_port_alone_does_not_let_it_in_it_is_told_too() -> None:
    conversation = called(server=strictest())
    say(conversation, GET)
    assert [answer.status for answer in answers(conversation)] == [403]
    assert_nobody_heard(conversation)
    assert refusals(conversation.server) == ["not-authorized"]


def test_whom_a_policy_denies_reads_the_rule() -> None:
    problem = Problem(Code.POLICY_DENIED, f"{BACKEND}: the policy's rule 'night' says no: closed")
    server = End(True, explain=HttpRefusal, leaf_checks=(lambda leaf: problem,))
    conversation = called(server=server)
    say(conversation, GET)
    (answer,) = answers(conversation)
    assert (answer.status, answer.json["code"]) == (403, "policy-denied")
    assert "rule 'night' says no: closed" in answer.json["detail"]
    assert_nobody_heard(conversation)
    assert refusals(server) == ["policy-denied"]


def test_a_policy_that_does_not_decide_is_an_alert() -> None:
    problem = Problem(Code.POLICY_UNAVAILABLE, "the policy has not decided")
    server = End(True, explain=HttpRefusal, leaf_checks=(lambda leaf: problem,))
    conversation = converse(End(False), server)
    say(conversation, GET)
    assert not conversation.calling.made or not answers(conversation)
    assert_nobody_heard(conversation)
    assert refusals(server) == ["policy-unavailable"]


def test_where_the_port_objects_to_more_than_that_it_hears_an_alert() -> None:
    server = strictest()
    server.security = evolve(
        server.security,
        leaf_checks=(
            *server.security.leaf_checks,
            lambda leaf: Problem(Code.NAME_MISMATCH, "it is another host's"),
        ),
    )
    conversation = converse(End(False), server)
    assert conversation.calling.made[0].heard == b""
    assert_nobody_heard(conversation)
    assert refusals(server) == ["not-authorized, name-mismatch"]


@pytest.mark.parametrize("server", [End(True, allow=ALLOWED), choosy(explains=False)])
def test_of_a_port_that_speaks_another_protocol_it_hears_an_alert(server: End) -> None:
    conversation = converse(End(False), server)
    assert conversation.calling.made[0].heard == b""
    assert "alert" in str(conversation.client_error) or conversation.client_error is not None
    assert_nobody_heard(conversation)
