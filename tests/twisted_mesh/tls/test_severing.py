"""How an open connection ends when its peer would not be let in any more: what may be finished, and how fast."""

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import pytest
from attrs import define, evolve, field
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Factory
from twisted.web._newclient import HTTP11ClientProtocol, Request
from twisted.web.http_headers import Headers
from zope.interface import implementer

from pki.errors import Problem
from pki.spiffe import SpiffePattern
from pki.svid.bundle import BundleSet, TrustBundle
from pki.svid.revocation_set import Reason, Revocation
from pki.svid.x509svid import X509Svid
from tests.authorities import BACKEND, DAY, HOUR, MESH, forge, forge_issuing, forge_root, key
from tests.twisted_mesh.http.test_server import GET, LATER, Noting, post
from tests.twisted_mesh.talking import Answer, read_answers
from tests.twisted_mesh.tls.wires import (
    TODAY,
    Conversation,
    End,
    Talker,
    converse,
    home,
)
from twisted_mesh.http.response_body import read_body
from twisted_mesh.http.server import BoundedSite
from twisted_mesh.interfaces import IFinishing
from twisted_mesh.server import MeshSite, StatusResource
from twisted_mesh.tls.alerts import PeerRefused, as_error
from twisted_mesh.tls.farewell import CLOSE_TIMEOUT, SEVER_CLOSE_TIMEOUT, SEVER_GRACE
from twisted_mesh.trust.judge import Judge
from twisted_mesh.trust.reviewer import Reviewer

STATUS = b"GET /api/status HTTP/1.1\r\nHost: a\r\n\r\n"
REVOKED = Problem("revoked", "in this test")


class Root(Noting):
    """Besides, for ``/long``, an answer that the test writes piece by piece."""

    def render(self, request: Any) -> int:
        if request.path == b"/long":
            request.setHeader(b"content-length", b"1000000")
            request.write(b"the beginning")
            self.waiting.append(request)
        return super().render(request) if request.path != b"/long" else 1


@define(eq=False)
class Mesh:
    """A client that is connected to an HTTP server, and the reviewers of both."""

    client: End = field(factory=lambda: End(False))
    server: End = field(factory=lambda: End(True))
    root: Any = field(factory=Root)
    site: BoundedSite = field(init=False)
    conversation: Conversation = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.site = MeshSite(self.root, self.server.clock)
        self.conversation = Conversation(self.client, self.server, served=self.site)  # type: ignore[arg-type]
        self.conversation.connect()

    @property
    def talker(self) -> Talker:
        return self.conversation.calling.made[0]

    def say(self, data: bytes) -> None:
        self.talker.transport.write(data)
        self.conversation.pump()

    def pass_time(self, seconds: float) -> None:
        """The server's, in steps, with what the two say meanwhile."""
        for _ in range(round(seconds / 0.05)):
            self.server.clock.advance(0.05)
            self.conversation.pump()

    def revoke(self) -> None:
        """The client's certificate, without a word to the client yet."""
        revoke(self.server, self.client.svid)

    @property
    def answers(self) -> list[Answer]:
        return read_answers(self.talker.heard)

    @property
    def severed(self) -> list[str]:
        return severed(self.server)

    @property
    def is_open(self) -> bool:
        return self.talker.lost is None


def reviewer_of(end: End) -> Reviewer:
    return Reviewer(end.judge, end.registry, end.clock, end.log)


def revoke(end: End, svid: X509Svid | None) -> None:
    """Have ``end`` believe that it is revoked."""
    assert svid is not None
    news = Revocation(
        home().issuing.key_id, svid.leaf.serial_number, TODAY, Reason.KEY_COMPROMISE, TODAY + HOUR
    )
    trust = end.judge.trust
    revocations = trust.revocations.merged([news], TODAY)
    reviewer_of(end).believe(evolve(trust, revocations=revocations), [news])


def severed(end: End) -> list[str]:
    """The codes of each connection that was severed there."""
    return [e["codes"] for e in end.log.events if e.get("event") == "connection-severed"]


@pytest.fixture
def mesh() -> Mesh:
    return Mesh()


# Idle.


def test_an_idle_connection_is_closed_at_once_with_a_goodbye(mesh: Mesh) -> None:
    mesh.say(GET)
    mesh.revoke()
    mesh.conversation.pump()
    assert mesh.server.clock.seconds() == 0
    assert mesh.talker.lost is not None
    assert mesh.talker.lost.check(ConnectionDone), "not reset: it said goodbye"
    assert mesh.severed == ["revoked"]
    assert len(mesh.server.registry) == 0
    assert mesh.server.clock.getDelayedCalls() == []


def test_the_log_says_who_was_cut_and_why(mesh: Mesh) -> None:
    mesh.revoke()
    (event,) = [e for e in mesh.server.log.events if e.get("event") == "connection-severed"]
    assert event["peer"] == str(BACKEND)
    assert event["codes"] == "revoked"
    assert event["reasons"].startswith("revoked: serial ")
    assert "(keyCompromise)" in event["reasons"]


def test_a_peer_that_never_answers_the_goodbye_is_dropped(mesh: Mesh) -> None:
    mesh.say(GET)
    mesh.revoke()
    mesh.server.clock.advance(SEVER_CLOSE_TIMEOUT - 0.01)
    assert not mesh.conversation.server_wire.aborted
    mesh.server.clock.advance(0.02)
    assert mesh.conversation.server_wire.aborted
    mesh.conversation.pump()
    assert len(mesh.server.registry) == 0
    assert mesh.server.clock.getDelayedCalls() == []


def test_all_is_over_within_a_second() -> None:
    assert SEVER_GRACE + SEVER_CLOSE_TIMEOUT < 1


def test_half_a_request_line_has_not_begun(mesh: Mesh) -> None:
    mesh.say(GET[:9])
    mesh.revoke()
    mesh.conversation.pump()
    assert not mesh.is_open
    assert mesh.talker.heard == b""


# In the middle of a request.


def test_a_request_that_is_being_served_is_answered_and_told_to_close(mesh: Mesh) -> None:
    mesh.say(LATER)
    mesh.revoke()
    mesh.pass_time(SEVER_GRACE - 0.1)
    assert mesh.is_open
    mesh.root.finish()
    mesh.conversation.pump()
    (reply,) = mesh.answers
    assert (reply.status, reply.body, reply.headers["connection"]) == (200, b"at last", "close")
    assert mesh.talker.lost is not None
    assert mesh.talker.lost.check(ConnectionDone)
    assert mesh.server.clock.getDelayedCalls() == []


def test_no_other_request_is_begun_meanwhile_sent_before_or_after(mesh: Mesh) -> None:
    mesh.say(LATER + GET)
    mesh.revoke()
    mesh.say(GET)
    mesh.root.finish()
    mesh.conversation.pump()
    assert mesh.root.paths == ["/later"]
    assert len(mesh.answers) == 1
    assert not mesh.is_open


def test_a_request_that_takes_longer_than_the_grace_is_torn(mesh: Mesh) -> None:
    mesh.say(LATER)
    mesh.revoke()
    mesh.pass_time(SEVER_GRACE - 0.1)
    assert mesh.is_open
    mesh.pass_time(0.15)
    assert mesh.conversation.server_wire.aborted
    assert not mesh.is_open
    assert mesh.talker.heard == b""
    assert mesh.server.clock.getDelayedCalls() == []


def test_after_a_late_answer_the_peer_has_time_to_read_it(mesh: Mesh) -> None:
    mesh.say(LATER)
    mesh.revoke()
    mesh.server.clock.advance(SEVER_GRACE - 0.01)
    mesh.root.finish()
    mesh.server.clock.advance(SEVER_CLOSE_TIMEOUT - 0.01)
    assert not mesh.conversation.server_wire.aborted
    mesh.conversation.pump()
    assert [reply.body for reply in mesh.answers] == [b"at last"]


# Uploading.


@pytest.mark.parametrize("sent", [-1, 60, 25])
def test_an_upload_is_answered_with_the_reason_and_never_served(mesh: Mesh, sent: int) -> None:
    request = post(b"x" * 500)
    mesh.say(request[:sent])
    mesh.revoke()
    mesh.say(request[sent:])
    (reply,) = mesh.answers
    assert (reply.status, reply.json["code"]) == (403, "revoked")
    assert reply.headers["connection"] == "close"
    assert mesh.root.seen == []
    assert not mesh.is_open


def test_who_goes_on_uploading_and_does_not_listen_is_dropped(mesh: Mesh) -> None:
    mesh.say(post(b"x" * 60_000)[:1000])
    mesh.revoke()
    for _ in range(9):
        mesh.talker.transport.write(b"x" * 100)
        mesh.conversation._carry(mesh.conversation.client_wire, mesh.conversation.server_wire)
        mesh.server.clock.advance(0.1)
    assert mesh.conversation.server_wire.aborted
    assert mesh.root.seen == []


def test_a_refusal_that_is_on_its_way_is_not_followed_by_another(mesh: Mesh) -> None:
    mesh.talker.transport.write(post(b"x" * 70_000)[:200])
    mesh.conversation._carry(mesh.conversation.client_wire, mesh.conversation.server_wire)
    mesh.revoke()
    mesh.server.clock.advance(SEVER_CLOSE_TIMEOUT + 0.01)
    assert mesh.conversation.server_wire.aborted, "sooner than it would have been"
    assert mesh.severed == ["revoked"]


# Downloading.


def test_a_download_that_ends_within_the_grace_is_whole(mesh: Mesh) -> None:
    mesh.site.reads_whole = False  # as for all that is answered piece by piece
    mesh.say(b"GET /long HTTP/1.1\r\nHost: a\r\n\r\n")
    mesh.revoke()
    (request,) = mesh.root.waiting
    request.write(b"x" * (1_000_000 - len(b"the beginning")))
    request.finish()
    mesh.conversation.pump()
    (reply,) = mesh.answers
    assert len(reply.body) == 1_000_000
    assert not mesh.is_open


def test_a_download_that_goes_on_is_torn_after_the_grace(mesh: Mesh) -> None:
    mesh.site.reads_whole = False
    mesh.say(b"GET /long HTTP/1.1\r\nHost: a\r\n\r\n")
    mesh.revoke()
    (request,) = mesh.root.waiting
    for _ in range(6):
        request.write(b"more")
        mesh.pass_time(0.1)
    assert mesh.conversation.server_wire.aborted
    assert not mesh.is_open
    assert len(mesh.talker.heard) < 1_000_000, "less than it was said to have: whoever counts knows"
    assert mesh.server.clock.getDelayedCalls() == []


# Once is enough.


def test_severing_twice_is_severing_once(mesh: Mesh) -> None:
    mesh.say(LATER)
    (connection,) = mesh.server.registry.all()
    mesh.revoke()
    connection.sever([Problem("expired", "in this test")])
    mesh.revoke()
    assert mesh.severed == ["revoked"]
    mesh.pass_time(SEVER_GRACE)
    connection.sever([REVOKED])
    assert mesh.severed == ["revoked"]


def test_a_peer_that_leaves_during_the_grace_leaves_nothing_behind(mesh: Mesh) -> None:
    mesh.say(LATER)
    mesh.revoke()
    mesh.conversation.client_wire.loseConnection()
    mesh.conversation.pump()
    assert len(mesh.server.registry) == 0
    assert mesh.server.clock.getDelayedCalls() == []
    mesh.root.waiting[0].setHeader(b"x", b"y")  # the resource may not know it yet


def test_who_is_leaving_anyway_is_given_less_time(mesh: Mesh) -> None:
    assert SEVER_CLOSE_TIMEOUT < CLOSE_TIMEOUT
    (connection,) = mesh.server.registry.all()
    connection.loseConnection()  # type: ignore[attr-defined]
    mesh.revoke()
    mesh.server.clock.advance(SEVER_CLOSE_TIMEOUT + 0.01)
    assert mesh.conversation.server_wire.aborted


def test_a_connection_that_is_gone_has_nothing_to_be_objected_to(mesh: Mesh) -> None:
    (connection,) = mesh.server.registry.all()
    mesh.conversation.client_wire.loseConnection()
    mesh.conversation.pump()
    mesh.server.time = TODAY + DAY
    assert connection.objections() == ()
    assert not connection.still_good()  # type: ignore[attr-defined]


# What is no HTTP, and the client's end.


def test_another_protocol_hears_no_more_and_learns_why_it_ended() -> None:
    client, server = End(False), End(True)
    conversation = converse(client, server)
    served, calling = conversation.served.made[0], conversation.calling.made[0]
    revoke(server, client.svid)
    calling.transport.write(b"do this")
    conversation.pump()
    assert served.heard == b""
    assert served.lost is not None
    assert isinstance(served.lost.value, PeerRefused)
    assert [p.code for p in served.lost.value.problems] == ["revoked"]
    assert calling.lost is not None
    assert calling.lost.check(ConnectionDone)


def test_a_protocol_that_breaks_while_it_finishes_is_cut_off() -> None:
    @implementer(IFinishing)
    class Broken(Talker):
        def finish(self, refusal: object = None) -> None:
            raise ZeroDivisionError("a bug")

    client, server = End(False), End(True)
    served: Any = Factory.forProtocol(Broken)
    served.noisy = False
    conversation = Conversation(client, server, served=served)
    conversation.connect()
    revoke(server, client.svid)
    assert conversation.server_wire.aborted
    assert server.log.count("finish-broke") == 1


def test_a_client_severs_its_connection_to_a_revoked_server_and_says_so() -> None:
    client, server = End(False), End(True)
    conversation = converse(client, server)
    served, calling = conversation.served.made[0], conversation.calling.made[0]
    assert len(client.registry) == 1
    revoke(client, server.svid)
    served.transport.write(b"an answer that nobody believes any more")
    conversation.pump()
    assert severed(client) == ["revoked"]
    assert calling.heard == b""
    assert isinstance(conversation.client_error.value, PeerRefused)
    assert len(client.registry) == len(server.registry) == 0


@pytest.mark.parametrize("begun", [False, True])
def test_whoever_waits_for_a_revoked_servers_answer_reads_why_there_is_none(begun: bool) -> None:
    client, server = End(False), End(True)
    asking: Any = Factory.forProtocol(HTTP11ClientProtocol)
    asking.noisy = False
    root = Root()
    site = MeshSite(root, server.clock)
    site.reads_whole = not begun  # what is answered piece by piece is Twisted's
    conversation = Conversation(
        client,
        server,
        served=site,  # type: ignore[arg-type]
        calling=asking,
    )
    conversation.connect()
    (protocol,) = conversation.outcome
    path = b"/long" if begun else b"/later"
    request = Request(b"GET", path, Headers({"host": ["a"]}), None)
    errors: list[Any] = []
    protocol.request(request).addCallback(read_body, 2_000_000, "the server").addErrback(
        errors.append
    )
    conversation.pump()
    assert len(root.waiting) == 1
    revoke(client, server.svid)
    conversation.pump()
    (failure,) = errors
    error = as_error(failure)
    assert isinstance(error, PeerRefused)
    assert [problem.code for problem in error.problems] == ["revoked"]


# For each cause.


def test_an_idle_connection_ends_with_its_peers_certificate(mesh: Mesh) -> None:
    reviewer = reviewer_of(mesh.server)
    mesh.server.time = TODAY + HOUR
    reviewer.look_at_the_clock(mesh.server.time)
    assert mesh.severed == []
    mesh.server.time += timedelta(seconds=1)
    reviewer.look_at_the_clock(mesh.server.time)
    mesh.conversation.pump()
    assert mesh.severed == ["expired"]
    assert not mesh.is_open


def test_a_connection_ends_with_the_root_of_its_peer(mesh: Mesh) -> None:
    trust = mesh.server.judge.trust
    empty = BundleSet.of(TrustBundle(MESH, ()))
    reviewer_of(mesh.server).believe(evolve(trust, bundles=empty))
    mesh.conversation.pump()
    assert mesh.severed == ["unknown-authority"]
    assert not mesh.is_open


def test_a_connection_lives_on_if_another_root_vouches_for_its_peer() -> None:
    """The issuing CA is signed by an old root and by a new one, and the client presents both."""
    lives: Any = {"start": TODAY - HOUR, "end": TODAY + DAY}
    roots = [forge_root(f"root {n}", **lives) for n in (1, 2)]
    first, second = (forge_issuing(root, "crossed", **lives) for root in roots)
    leaf = forge(first, start=TODAY - HOUR, end=TODAY + HOUR)
    chain = (first.certificate, second.certificate)
    client, server = End(False, X509Svid(leaf, chain, key(9), BACKEND)), End(True)
    trust = evolve(
        server.judge.trust,
        bundles=BundleSet.of(TrustBundle(MESH, tuple(root.certificate for root in roots))),
    )
    server.judge.trust = trust
    server.contexts.replace(server.svid, trust.bundles.all_roots)
    conversation = converse(client, server)
    (connection,) = server.registry.all()
    for _ in roots:
        assert connection.peer is not None
        last = connection.peer.path[-1]
        assert server.registry.ending_in(last) == (connection,)
        kept = tuple(root for root in server.judge.trust.bundles.all_roots if root != last)
        bundles = BundleSet.of(TrustBundle(MESH, kept))
        reviewer_of(server).believe(evolve(server.judge.trust, bundles=bundles))
        conversation.pump()
        if kept:
            assert severed(server) == []
            assert server.registry.ending_in(kept[0]) == (connection,)
            assert connection.peer.generation == 1
    assert severed(server) == ["unknown-authority"]


@pytest.mark.parametrize(
    ("allow", "judged", "codes"),
    [
        (["spiffe://mesh.local/service/*", "spiffe://mesh.local/batch/*"], 0, []),
        (["spiffe://mesh.local/service/backend"], 0, []),
        (["spiffe://mesh.local/batch/*"], 1, ["not-authorized"]),
        ([], 1, ["not-authorized"]),
    ],
)
def test_a_connection_ends_with_the_rule_that_let_it_in(
    mesh: Mesh,
    monkeypatch: pytest.MonkeyPatch,
    allow: Sequence[str],
    judged: int,
    codes: Sequence[str],
) -> None:
    calls = counted(monkeypatch)
    trust = mesh.server.judge.trust
    rules = tuple(map(SpiffePattern.parse, allow))
    reviewer_of(mesh.server).believe(evolve(trust, allow=rules))
    mesh.conversation.pump()
    assert len(calls) == judged
    assert mesh.severed == codes
    assert mesh.is_open is not bool(codes)
    if not codes:
        mesh.say(GET)
        assert [reply.status for reply in mesh.answers] == [200]


def counted(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Every verdict that is asked for from now on."""
    calls: list[object] = []
    verdict: Callable[..., Any] = Judge.judgement

    def counting(*arguments: Any) -> Any:
        calls.append(arguments)
        return verdict(*arguments)

    monkeypatch.setattr(Judge, "judgement", counting)
    return calls


# The server's own look, at each request.


def test_who_has_expired_since_is_told_so_at_its_next_request_and_cut() -> None:
    """Before a tick of the manager found out."""
    mesh = Mesh(root=StatusResource())
    mesh.say(STATUS)
    mesh.server.time = TODAY + 2 * HOUR
    mesh.say(STATUS)
    first, second = mesh.answers
    assert first.status == 200
    assert (second.status, second.json["code"]) == (403, "expired")
    assert second.headers["connection"] == "close"
    assert not mesh.is_open
    assert mesh.severed == ["expired"]
