"""Between the handshake and the first byte: a peer that somebody is still asked about."""

from collections.abc import Sequence
from datetime import timedelta

import pytest
from attrs import define, evolve, field
from cryptography import x509
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from pki.errors import Problem
from pki.svid.revocation_set import Reason, Revocation
from tests.authorities import HOUR
from tests.twisted_mesh.tls.test_handshake import refused
from tests.twisted_mesh.tls.wires import TODAY, Conversation, End, Talker, converse, good_svid, home
from twisted_mesh.tls.alerts import PeerRefused
from twisted_mesh.trust.reviewer import Reviewer

REVOKED = Problem("revoked", "somebody says so", "ask why")


@define(eq=False)
class Asked:
    """A check that answers when the test says so."""

    at_once: bool = False
    paths: list[Sequence[x509.Certificate]] = field(factory=list)
    seconds: list[float] = field(factory=list)
    answers: "list[Deferred[Sequence[Problem]]]" = field(factory=list)

    async def objections(
        self, path: Sequence[x509.Certificate], seconds: float
    ) -> Sequence[Problem]:
        self.paths.append(path)
        self.seconds.append(seconds)
        if self.at_once:
            return ()
        self.answers.append(Deferred())
        return await self.answers[-1]


def checking(serves: bool, asked: Asked) -> End:
    end = End(serves)
    end.security = evolve(end.security, peer_check=asked)
    return end


@pytest.fixture
def asked() -> Asked:
    return Asked()


def held(asked: Asked) -> Conversation:
    """A client that has said something to a server that still wonders about it."""
    conversation = converse(End(False), checking(True, asked))
    conversation.calling.made[0].transport.write(b"hello")
    conversation.pump()
    assert len(asked.paths) == 1
    assert conversation.served.made[0].connected_times == 0
    return conversation


def test_the_application_hears_nothing_before_the_answer_and_everything_after_it(
    asked: Asked,
) -> None:
    conversation = held(asked)
    assert len(conversation.server.registry) == 0
    asked.answers[0].callback(())
    served = conversation.served.made[0]
    assert (served.connected_times, served.heard) == (1, b"hello")
    assert len(conversation.server.registry) == 1
    conversation.calling.made[0].transport.write(b" and more")
    served.transport.write(b"hello yourself")
    conversation.pump()
    assert served.heard == b"hello and more"
    assert conversation.calling.made[0].heard == b"hello yourself"


def test_who_waits_is_not_read_from(asked: Asked) -> None:
    conversation = held(asked)
    assert conversation.server_wire.producerState == "paused"
    asked.answers[0].callback(())
    assert conversation.server_wire.producerState == "producing"


def test_the_answer_may_be_there_at_once() -> None:
    asked = Asked(at_once=True)
    conversation = converse(checking(False, asked), checking(True, asked))
    assert isinstance(conversation.outcome[0], Talker)
    assert len(asked.paths) == 2
    assert conversation.server_wire.producerState == "producing"


def test_the_leaf_comes_first_and_its_issuer_second(asked: Asked) -> None:
    held(asked)
    leaf, issuer, root = asked.paths[0]
    leaf.verify_directly_issued_by(issuer)
    issuer.verify_directly_issued_by(root)
    assert 0 < asked.seconds[0] < 10


def test_an_objection_refuses_the_peer_for_that_reason(asked: Asked) -> None:
    conversation = held(asked)
    asked.answers[0].callback((REVOKED,))
    conversation.pump()
    refused(conversation, "revoked")
    assert conversation.served.made[0].heard == b""
    assert "somebody says so" in conversation.server.log.text("peer-refused")


def test_a_client_is_connected_only_once_its_server_is_known_to_be_good(asked: Asked) -> None:
    conversation = converse(checking(False, asked), End(True))
    assert not conversation.outcome
    asked.answers[0].callback(())
    conversation.pump()
    assert isinstance(conversation.outcome[0], Talker)


def test_a_client_hears_why_its_server_is_not(asked: Asked) -> None:
    conversation = converse(checking(False, asked), End(True))
    asked.answers[0].callback((REVOKED,))
    conversation.pump()
    assert isinstance(conversation.outcome[0], Failure)
    assert isinstance(conversation.client_error, PeerRefused)
    assert conversation.client_error.problems == (REVOKED,)
    assert conversation.calling.made[0].connected_times == 0


@pytest.mark.parametrize("answer", [(), (REVOKED,)])
def test_who_is_gone_meanwhile_is_not_let_in(answer: Sequence[Problem], asked: Asked) -> None:
    conversation = held(asked)
    connection = conversation.served.made[0]
    conversation.server_wire.protocol.taken.abortConnection()
    conversation.pump()
    asked.answers[0].callback(answer)
    assert connection.connected_times == 0
    assert len(conversation.server.registry) == 0


@pytest.mark.parametrize("answer", [(), (REVOKED,)])
def test_the_deadline_of_the_handshake_holds_for_the_answer_too(
    answer: Sequence[Problem], asked: Asked
) -> None:
    conversation = held(asked)
    conversation.server.clock.advance(11)
    conversation.pump()
    refused(conversation, "handshake-timeout")
    asked.answers[0].callback(answer)
    assert conversation.served.made[0].connected_times == 0


def test_what_has_changed_while_somebody_was_asked_counts(asked: Asked) -> None:
    conversation = held(asked)
    server, leaf = conversation.server, asked.paths[0][0]
    reviewer = Reviewer(server.judge, server.registry, server.clock, server.log)
    news = [
        Revocation(
            home().issuing.key_id,
            leaf.serial_number,
            TODAY,
            Reason.KEY_COMPROMISE,
            TODAY + HOUR,
        )
    ]
    trust = server.judge.trust
    merged = trust.revocations.merged(news, TODAY)
    reviewer.believe(evolve(trust, revocations=merged), news)
    asked.answers[0].callback(())
    conversation.pump()
    refused(conversation, "revoked")
    assert "keyCompromise" in server.log.text("peer-refused")


def test_a_certificate_that_ends_while_somebody_is_asked_lets_nobody_in(asked: Asked) -> None:
    """Which no swap of what is believed says, only the clock."""
    conversation = held(asked)
    conversation.server.time = asked.paths[0][0].not_valid_after_utc + timedelta(seconds=1)
    asked.answers[0].callback(())
    conversation.pump()
    refused(conversation, "expired")
    assert conversation.served.made[0].connected_times == 0


def test_revocations_that_get_too_old_meanwhile_let_nobody_in(asked: Asked) -> None:
    conversation = held(asked)
    conversation.server.judge.freshness.lapse()
    asked.answers[0].callback(())
    conversation.pump()
    refused(conversation, "stale-revocation")
    assert conversation.served.made[0].connected_times == 0


def test_a_bug_in_the_asking_shuts_the_door(asked: Asked) -> None:
    conversation = held(asked)
    asked.answers[0].errback(ZeroDivisionError())
    conversation.pump()
    assert conversation.served.made[0].connected_times == 0
    assert not conversation.server_wire.connected
    assert conversation.server.log.count("establish-broke") == 1


def test_without_a_certificate_there_is_nothing_to_ask_about(asked: Asked) -> None:
    server = End(True, demands_certificate=False)
    server.security = evolve(server.security, peer_check=asked)
    conversation = converse(End(False, None), server)
    assert conversation.served.made[0].connected_times == 1
    assert not asked.paths


def test_who_is_refused_in_the_handshake_is_not_asked_about(asked: Asked) -> None:
    server = checking(True, asked)
    conversation = converse(End(False, good_svid(home(), "x", "y", "z")), server)
    assert isinstance(conversation.outcome[0], Talker)
    assert len(asked.paths) == 1
    bad = End(False, good_svid(None, "other"))
    server.judge.trust = evolve(server.judge.trust, allow=())
    refused(converse(bad, server), "not-authorized")
    assert len(asked.paths) == 1
