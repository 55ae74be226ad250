"""What servers staple to their certificates, and what clients make of it, handshake by handshake."""

from datetime import timedelta

import pytest
from OpenSSL import SSL
from twisted.python.failure import Failure

from pki.errors import PkiError
from pki.ocsp.sign import Responder
from pki.svid.x509svid import X509Svid
from tests.answers import BAD, answer, delegate
from tests.authorities import HOUR
from tests.twisted_mesh.tls.wires import (
    TODAY,
    Conversation,
    End,
    Talker,
    converse,
    good_svid,
    home,
)
from twisted_mesh.tls import verify
from twisted_mesh.tls.alerts import PeerRefused, problem_of

MOMENT = timedelta(seconds=1)


def serving(staple: bytes = b"", svid: X509Svid | None = None) -> End:
    """A server that staples that to its certificate."""
    svid = svid or good_svid()
    end = End(True, svid)
    if staple:
        end.staples.hold(svid.leaf, staple, TODAY + HOUR)
    return end


def refusal(conversation: Conversation) -> PkiError:
    """Why the client refused the server, whose application nobody has heard of."""
    (failure,) = conversation.outcome
    assert isinstance(failure, Failure)
    error = failure.value
    assert isinstance(error, PeerRefused)
    assert conversation.calling.made[0].connected_times == 0
    assert not conversation.client_wire.connected
    return error


def assert_connected(conversation: Conversation) -> None:
    assert isinstance(conversation.outcome[0], Talker), conversation.outcome


@pytest.mark.parametrize("by", ["the issuer", "a delegate"])
@pytest.mark.parametrize("required", [False, True])
def test_a_good_staple_lets_the_server_in(by: str, required: bool) -> None:
    svid, ca = good_svid(), home()
    responder = (
        delegate(ca, TODAY)
        if by == "a delegate"
        else Responder(ca.issuing.certificate, ca.issuing.key)
    )
    staple = answer(ca, svid.leaf, TODAY, responder=responder)
    assert_connected(converse(End(False, requires_staple=required), serving(staple, svid)))


@pytest.mark.parametrize("required", [False, True])
@pytest.mark.parametrize("what", BAD)
def test_a_staple_that_does_not_show_it_good_refuses_the_server(
    what: str, required: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, code = BAD[what]
    svid = good_svid()
    staple = make(home(), svid.leaf, TODAY)
    server = serving(staple, svid)
    if code == "ocsp-other-certificate":
        _come_over(monkeypatch, staple)
    conversation = converse(End(False, requires_staple=required), server)
    assert refusal(conversation).problems[0].code == code
    # The server is told by an alert of its own, and says what that means.
    assert server.log.text("peer-refused").count("staple-refused: ") == 1


def _come_over(monkeypatch: pytest.MonkeyPatch, staple: bytes) -> None:
    """Have clients be stapled what OpenSSL's own server does not staple: it sees that it does not fit."""
    heed = verify.Handshake.judge_staple
    monkeypatch.setattr(verify.Handshake, "judge_staple", lambda self, _: heed(self, staple))


def test_without_a_staple_a_server_is_good_unless_one_is_required() -> None:
    assert_connected(converse(End(False), serving()))
    conversation = converse(End(False, requires_staple=True), serving())
    assert [problem.code for problem in refusal(conversation).problems] == ["staple-missing"]


def test_what_is_no_ocsp_response_counts_as_no_staple() -> None:
    garbage = b"no OCSP response"
    assert_connected(converse(End(False), serving(garbage)))
    conversation = converse(End(False, requires_staple=True), serving(garbage))
    assert refusal(conversation).problems[0].code == "staple-missing"


def test_a_bad_certificate_is_refused_for_what_is_wrong_with_it_whatever_is_stapled() -> None:
    svid = good_svid(None, "batch", "job")
    staple = BAD["stale"][0](home(), svid.leaf, TODAY)
    client = End(False, allow="spiffe://mesh.local/service/*", requires_staple=True)
    problems = refusal(converse(client, serving(staple, svid))).problems
    assert [problem.code for problem in problems] == ["not-authorized"]


def test_servers_neither_ask_for_staples_nor_miss_them() -> None:
    server = serving()
    server.security = type(server.security)(
        server.contexts, server.judge, server.clock, requires_staple=True
    )
    assert_connected(converse(End(False), server))


def test_a_stale_answer_is_stapled_no_more() -> None:
    svid = good_svid()
    server = serving(answer(home(), svid.leaf, TODAY), svid)
    server.time = TODAY + HOUR
    assert server.staples.of(svid.leaf)
    server.time += MOMENT
    assert server.staples.of(svid.leaf) == b""
    server.staples.hold(good_svid().leaf, b"another", TODAY + 2 * HOUR)
    assert len(server.staples._held) == 1


def test_each_certificate_has_a_staple_of_its_own_also_while_the_next_one_takes_over() -> None:
    old, new = good_svid(), good_svid()
    server = serving(answer(home(), old.leaf, TODAY), old)
    old_context = server.contexts.current()
    server.staples.hold(new.leaf, answer(home(), new.leaf, TODAY), TODAY + HOUR)
    client = End(False, requires_staple=True)
    assert_connected(converse(client, server))
    server.contexts.replace(new, home().bundles.all_roots)
    assert server.contexts.current() != old_context
    assert_connected(converse(client, server))


def test_a_good_answer_is_verified_once_and_believed_until_it_is_stale(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    svid, client = good_svid(), End(False, requires_staple=True)
    server = serving(answer(home(), svid.leaf, TODAY, lives=10 * MOMENT), svid)
    assert_connected(converse(client, server))
    read: list[bytes] = []
    from twisted_mesh.trust import judge

    real = judge.read_answer
    monkeypatch.setattr(
        judge,
        "read_answer",
        lambda der, *rest, **more: read.append(der) or real(der, *rest, **more),
    )
    assert_connected(converse(client, server))
    assert not read
    client.time = TODAY + 11 * MOMENT
    assert refusal(converse(client, server)).problems[0].code == "ocsp-stale"
    assert len(read) == 1


@pytest.mark.parametrize("staple", ["good", "none"])
def test_a_bug_in_the_judging_of_a_staple_shuts_the_door_and_spoils_no_other_connection(
    staple: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    svid, client = good_svid(), End(False)
    server = serving(answer(home(), svid.leaf, TODAY) if staple == "good" else b"", svid)

    def broken(*args: object) -> bool:
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr(verify.Handshake, "judge_staple", broken)
        patch.setattr(verify, "_log", client.log)
        conversation = converse(client, server)
    assert refusal(conversation).problems[0].code == "internal"
    assert_connected(converse(client, server))


def test_a_bug_in_the_stapling_costs_the_staple_only(monkeypatch: pytest.MonkeyPatch) -> None:
    svid = good_svid()
    server = serving(answer(home(), svid.leaf, TODAY), svid)
    monkeypatch.setattr(type(server.staples), "of_key", lambda *_: 1 / 0)
    assert_connected(converse(End(False), server))


def test_a_client_that_never_asked_does_not_pass_for_one_that_was_answered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(SSL.Connection, "request_ocsp", lambda self: None)
    conversation = converse(End(False, requires_staple=True), serving())
    (failure,) = conversation.outcome
    assert isinstance(failure, Failure)
    assert conversation.calling.made[0].connected_times == 0
    assert problem_of(failure).code in ("internal", "interrupted")
