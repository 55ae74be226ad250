"""A current SVID proves who connected; one that ended after the handshake proves nothing, and says why."""

from collections.abc import Callable
from datetime import timedelta

import pytest
from attrs import evolve

from pki.errors import Problem
from pki.policy.policy import NoProof
from pki.policy.selector import Selector
from pki.svid.revocation_set import Reason, Revocation
from tests.authorities import HOUR, OTHER
from tests.twisted_mesh.attest.processes import outcome
from tests.twisted_mesh.attest.records import Record
from tests.twisted_mesh.tls.wires import TODAY, End, converse, good_svid, home
from twisted_mesh.attest.evidence import Attestation, Evidence
from twisted_mesh.attest.svid import NoLongerGood
from twisted_mesh.tls.connection import MeshConnection


def connection_to(server: End, client: End | None = None) -> MeshConnection:
    conversation = converse(client or End(False), server)
    connection = conversation.served.made[0].transport
    assert isinstance(connection, MeshConnection)
    return connection


def attest(connection: object) -> Attestation | None:
    return outcome(Record().attestor.attest(Evidence.of(connection)))


def test_the_svid_says_who_it_is() -> None:
    connection = connection_to(End(True))
    assert connection.peer is not None
    spiffe_id = connection.peer.spiffe_id
    assert attest(connection) == Attestation(
        f"x509:{spiffe_id}",
        frozenset({Selector("x509", str(spiffe_id))}),
        spiffe_id,
        connection.peer.leaf.serial_number,
    )


def test_two_certificates_of_one_id_are_told_apart() -> None:
    server = End(True)
    first, second = (attest(connection_to(server, End(False, svid=good_svid()))) for _ in range(2))
    assert first is not None
    assert second is not None
    assert first.spiffe_id == second.spiffe_id
    assert first.serial != second.serial


def test_without_a_certificate_it_is_nobody() -> None:
    server = End(True, demands_certificate=False)
    assert attest(connection_to(server, End(False, svid=None))) is None


def expires(server: End, connection: MeshConnection) -> None:
    assert connection.peer is not None
    server.time = connection.peer.leaf.not_valid_after_utc + timedelta(seconds=1)


def is_revoked(server: End, connection: MeshConnection) -> None:
    assert connection.peer is not None
    ((issuer, serial), *_) = connection.peer.credentials()
    revocation = Revocation(issuer, serial, TODAY, Reason.KEY_COMPROMISE, TODAY + HOUR)
    revocations = server.judge.trust.revocations.merged([revocation], TODAY)
    server.judge.trust = evolve(server.judge.trust, revocations=revocations)


def is_of_another_domain(server: End, connection: MeshConnection) -> None:
    server.judge.trust = evolve(server.judge.trust, bundles=home(OTHER).bundles)


def is_allowed_no_more(server: End, connection: MeshConnection) -> None:
    server.judge.trust = evolve(server.judge.trust, allow=())


def is_severed(server: End, connection: MeshConnection) -> None:
    connection.sever((Problem("revoked", "a reason"),))


def is_lost(server: End, connection: MeshConnection) -> None:
    connection.connectionLost()


ENDS: dict[str, tuple[Callable[[End, MeshConnection], None], str, str]] = {
    "expired a second ago": (expires, "expired", "expired: "),
    "revoked": (is_revoked, "revoked", "revoked: "),
    "of another trust domain": (
        is_of_another_domain,
        "unknown-trust-domain",
        "unknown-trust-domain: ",
    ),
    "not allowed": (is_allowed_no_more, "no-proof", "not-authorized: "),
    "severed": (is_severed, "no-proof", "being closed"),
    "lost": (is_lost, "no-proof", "being closed"),
}


@pytest.mark.parametrize("name", ENDS)
def test_an_svid_that_ended_since_the_handshake_proves_nothing(name: str) -> None:
    end, code, sentence = ENDS[name]
    server = End(True)
    connection = connection_to(server)
    assert attest(connection) is not None
    end(server, connection)
    with pytest.raises(NoProof, match=sentence) as refusal:
        attest(connection)
    assert isinstance(refusal.value, NoLongerGood)
    assert refusal.value.code == code
    assert refusal.value.problems


def test_a_severed_connection_of_a_revoked_certificate_says_revoked() -> None:
    server = End(True)
    connection = connection_to(server)
    is_revoked(server, connection)
    connection.sever((Problem("revoked", "a reason"),))
    with pytest.raises(NoProof) as refusal:
        attest(connection)
    assert refusal.value.code == "revoked"


def test_at_its_last_second_it_is_good() -> None:
    server = End(True)
    connection = connection_to(server)
    assert connection.peer is not None
    server.time = connection.peer.leaf.not_valid_after_utc
    assert attest(connection) is not None
    server.time += HOUR
    with pytest.raises(NoProof):
        attest(connection)


def test_what_only_looks_like_a_proven_connection_is_nobody() -> None:
    class Pretender:
        peer = connection_to(End(True)).peer

        def still_good(self) -> bool:
            return True

    assert attest(Pretender()) is None
