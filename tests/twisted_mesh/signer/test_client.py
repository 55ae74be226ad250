"""The client of a signer at real sockets: what is asked again, what is not, and what is said of whatever goes wrong."""

import base64
import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from twisted.internet.defer import Deferred, gatherResults

from pki.errors import PkiError
from pki.keys import KeyAlgorithm, verify
from tests.authorities import HOUR, NOW, key, mesh
from tests.twisted_mesh.grpc.sockets import own_reactor, run, turn_until
from tests.twisted_mesh.signer.stub import (
    Stub,
    answer,
    at_socket,
    listening,
    over_tls,
    refusal,
    speaking,
    tls_client,
)
from tests.twisted_mesh.tls.test_groups import without_setter
from twisted_mesh.api.ca_user import ForeignCa
from twisted_mesh.signer.address import SignerAddress
from twisted_mesh.signer.client import MOST_AT_ONCE, SignerClient, SignerRefused
from twisted_mesh.signer.messages import KeyPurpose
from twisted_mesh.tls.self_signed import pin_of

DATA = b"what is signed, whole"
#: As a certificate begins.
LEAF = b"\x30\x03\xa0\x01\x00"


def refused(work: Any) -> PkiError:
    with pytest.raises(PkiError) as refusal:
        run(work)
    assert str(refusal.value).isprintable()
    return refusal.value


def test_keys_are_made_listed_and_sign() -> None:
    with at_socket() as (stub, client):
        made = run(client.make(KeyPurpose.ISSUING, "ec-p384", "mesh.local issuing-1"))
        assert (made.name, made.algorithm) == ("mesh.local-issuing-1-0", "ec-p384")
        assert run(client.keys()) == (made,)
        signature = run(client.sign(made.name, DATA))
        held = stub.keys[made.name]
        verify(held.public_key, signature, DATA, held.algorithm.hash)


def test_one_connection_serves_one_question_after_the_other() -> None:
    with at_socket() as (stub, client):
        stub.hold("issuing-1")
        for _ in range(5):
            run(client.sign("issuing-1", DATA))
        assert (stub.opened, len(stub.asked)) == (1, 5)


def test_questions_at_once_have_a_connection_each_and_no_more_than_there_may_be() -> None:
    waiting: list[Any] = []

    def silent(stub: Stub, transport: Any, path: str, body: dict[str, Any]) -> None:
        waiting.append((transport, path, body))

    with at_socket() as (stub, client):
        stub.hold("issuing-1")
        stub.fault = silent
        count = MOST_AT_ONCE * 3
        done = gatherResults(
            [Deferred.fromCoroutine(client.sign("issuing-1", LEAF)) for _ in range(count)]
        )
        turn_until(lambda: len(waiting) == MOST_AT_ONCE)
        assert stub.opened == MOST_AT_ONCE
        stub.fault = None
        for transport, path, body in waiting:
            transport.write(stub.good(path, body))
        assert len(run(done)) == count
        assert stub.opened == MOST_AT_ONCE


def test_a_list_of_what_is_revoked_does_not_wait_for_certificates() -> None:
    def slow(stub: Stub, transport: Any, path: str, body: dict[str, Any]) -> bytes | None:
        is_list = base64.b64decode(body["data"]) == listed
        return stub.good(path, body) if is_list else None

    number = x509.CRLNumber(7)
    listed = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(mesh().issuing.certificate.subject)
        .last_update(NOW)
        .next_update(NOW + HOUR)
        .add_extension(number, critical=False)
        .sign(key().private_key, hashes.SHA256())
        .tbs_certlist_bytes
    )
    with at_socket() as (stub, client):
        stub.hold("issuing-1")
        stub.fault = slow
        leaf = mesh().issuing.certificate.tbs_certificate_bytes
        waiting = [
            Deferred.fromCoroutine(client.sign("issuing-1", leaf)).addErrback(lambda _: None)
            for _ in range(MOST_AT_ONCE * 3)
        ]
        turn_until(lambda: len(stub.asked) == MOST_AT_ONCE)
        assert run(client.sign("issuing-1", listed))
        for one in waiting:
            one.cancel()


def test_a_signer_that_was_restarted_meanwhile_is_asked_again() -> None:
    with at_socket() as (stub, client):
        stub.hold("issuing-1")
        run(client.sign("issuing-1", DATA))
        stub.drop()
        turn_until(lambda: not stub.connections)
        # The client may not have heard of it yet.
        assert run(client.sign("issuing-1", DATA))
        assert stub.opened == 2


def test_a_signature_that_its_connection_was_lost_on_is_asked_for_once_more() -> None:
    def cut(stub: Stub, transport: Any, path: str, body: dict[str, Any]) -> None:
        transport.abortConnection()

    with at_socket() as (stub, client):
        stub.hold("issuing-1")
        stub.fault = cut
        error = refused(client.sign("issuing-1", DATA))
        assert "took the connection and closed it without a word" in str(error)
        assert len(stub.asked) == 2


def test_a_key_is_never_asked_for_twice() -> None:
    """Nor on a connection of which nobody knows whether it is still one."""

    def cut(stub: Stub, transport: Any, path: str, body: dict[str, Any]) -> None:
        transport.abortConnection()

    with at_socket() as (stub, client):
        run(client.keys())
        stub.fault = cut
        refused(client.make(KeyPurpose.ISSUING, "ec-p256", "issuing-1"))
        assert [path for path, _ in stub.asked] == ["GET /v1/keys", "POST /v1/keys"]
        assert stub.opened == 2


def test_no_more_connections_are_kept_than_are_used_at_once() -> None:
    """Each key that is made has one of its own."""
    with at_socket() as (stub, client):
        for _ in range(MOST_AT_ONCE * 2):
            run(client.make(KeyPurpose.ISSUING, "ec-p256", "issuing-1"))
        turn_until(lambda: len(stub.connections) == MOST_AT_ONCE)


def test_a_silent_signer_is_not_waited_for_and_its_late_answer_answers_nothing() -> None:
    held: list[Any] = []

    def silent(stub: Stub, transport: Any, path: str, body: dict[str, Any]) -> None:
        held.append(transport)

    with at_socket() as (stub, client):
        client.timeout = 0.1
        stub.hold("issuing-1")
        stub.fault = silent
        error = refused(client.sign("issuing-1", DATA))
        assert error.problems[0].code == "unreachable"
        assert "did not answer within 0.1 s" in str(error)
        client.timeout = 2.0
        stub.fault = None
        held[0].write(answer(200, {"signature": "bGF0ZQ=="}))
        assert run(client.sign("issuing-1", DATA)) != b"late"
        assert len(stub.asked) == 2  # what timed out is not asked again by itself


def test_what_follows_an_answer_is_nobodys_answer() -> None:
    def twice(stub: Stub, transport: Any, path: str, body: dict[str, Any]) -> bytes:
        stub.fault = None
        return answer(200, {"signature": "b25l"}) + answer(200, {"signature": "dHdv"})

    with at_socket() as (stub, client):
        stub.hold("issuing-1")
        stub.fault = twice
        assert run(client.sign("issuing-1", DATA)) == b"one"
        assert run(client.sign("issuing-1", DATA)) != b"two"
        assert stub.opened == 2


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "is not HTTP"),
        (answer(200, b"no JSON"), "is no signer"),
        (answer(200, {"signature": 7}), "is no signer"),
        (answer(200, {"signature": "no base64!"}), "is no signer"),
        (answer(200, {}), "is no signer"),
        (answer(200, b"[" * 100_000), "is no signer"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n", "answers with more than"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000, "is not HTTP"),
        (answer(302, b"", location="http://elsewhere/"), "is no signer"),
    ],
)
def test_what_is_no_answer_is_none(said: bytes, words: str) -> None:
    with at_socket() as (stub, client):
        stub.fault = lambda *_: said
        assert words in str(refused(client.sign("issuing-1", DATA)))


def test_a_refusal_says_the_rule_and_what_to_do() -> None:
    no = refusal(
        403, "not-authorized", "it is a CA certificate\nof its own key", "approve it", "ca-key"
    )
    with at_socket() as (stub, client):
        stub.fault = lambda *_: no
        error = refused(client.sign("root-1", DATA))
        assert isinstance(error, SignerRefused)
        assert (error.status, error.is_for_now) == (403, False)
        assert str(error) == "it is a CA certificate\\nof its own key (rule ca-key)"
        (problem,) = error.problems
        assert (problem.code, problem.remedy, problem.rule) == (
            "not-authorized",
            "approve it",
            "ca-key",
        )
        # The connection is as good as before.
        refused(client.sign("root-1", DATA))
        assert stub.opened == 1


@pytest.mark.parametrize(
    ("status", "for_now"), [(400, False), (409, False), (429, True), (503, True)]
)
def test_some_refusals_are_for_now(status: int, for_now: bool) -> None:
    with at_socket() as (stub, client):
        stub.fault = lambda *_: answer(status, b"<html>")
        error = refused(client.sign("root-1", DATA))
        assert isinstance(error, SignerRefused)
        assert error.is_for_now is for_now
        assert f"answered {status}" in str(error)


def test_where_nobody_listens_it_is_said_what_to_do() -> None:
    with TemporaryDirectory() as directory:
        path = Path(directory, "s")
        client = SignerClient(own_reactor(), SignerAddress(path=str(path)))
        text = str(refused(client.keys()))
        assert f"no signer answers at unix:{path}" in text
        assert "twistd -n mesh-signer" in text
        with listening(Stub(), path):
            assert run(client.keys()) == ()
            client.hang_up()
        assert "signer" in str(refused(client.keys()))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_nothing_is_asked_of_somebody_elses_process() -> None:
    with TemporaryDirectory() as directory:
        path = Path(directory, "s")
        address = SignerAddress(path=str(path), user="65533")
        client = SignerClient(own_reactor(), address)
        stub = Stub()
        Path(directory).chmod(0o755)
        os.chown(directory, 65534, -1)
        with listening(stub, path):
            error = refused(client.make(KeyPurpose.ISSUING, "ec-p256", "issuing-1"))
            assert isinstance(error, ForeignCa)
            assert "may be the signer there: name its user with user= in the signer's URI" in str(
                error
            )
            assert stub.asked == []


def test_over_tls_each_is_known_by_its_key_alone() -> None:
    mine = pin_of(key("the CA's own"))
    stub = Stub()
    stub.hold("issuing-1")

    def accepts(certificate: Any) -> bool:
        shown.append(str(type(mine).of(certificate)))
        return True

    shown: list[str] = []
    with over_tls(stub, accepts=accepts) as port:
        client = tls_client(port, "another", "the signer's own")
        for _ in range(3):
            run(client.sign("issuing-1", DATA))
        assert stub.opened == 1
        assert set(shown) == {str(mine)}
        client.hang_up()


def test_a_signer_with_another_key_hears_nothing() -> None:
    stub = Stub()
    with over_tls(stub, "somebody else's") as port:
        client = tls_client(port, "the signer's own")
        error = refused(client.make(KeyPurpose.ISSUING, "ec-p256", "issuing-1"))
        assert error.problems[0].code == "wrong-fingerprint"
        assert str(pin_of(key("somebody else's"))) in str(error)
        assert stub.asked == []


def test_a_signer_that_does_not_take_our_key_is_to_be_told_of_it() -> None:
    stub = Stub()
    with over_tls(stub, accepts=lambda _: False) as port:
        client = tls_client(port, "the signer's own")
        error = refused(client.sign("issuing-1", DATA))
        assert f"--client-pin {pin_of(key('the CA' + chr(39) + 's own'))}" in str(error.problems[0])
        assert stub.asked == []


@pytest.mark.parametrize("lock", ["both", "second"])
def test_where_hybrid_groups_are_required_a_signer_without_them_hears_nothing(
    lock: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stub = Stub()
    stub.hold("issuing-1")
    with over_tls(stub) as port:
        client = tls_client(port, "the signer's own", requires_pq=True)
        assert run(client.sign("issuing-1", DATA))
        client.hang_up()
    stub = Stub()
    with over_tls(stub, groups="x25519") as port:
        if lock == "second":
            without_setter(monkeypatch)
        error = refused(tls_client(port, "the signer's own", requires_pq=True).keys())
        assert error.problems[0].code == "classical-key-exchange"
        assert stub.asked == []


def test_what_speaks_no_tls_is_told_apart() -> None:
    with speaking(b"SSH-2.0-OpenSSH_9.2\r\n") as port:
        error = refused(tls_client(port, "the signer's own").keys())
        assert "speaks SSH, and no TLS" in str(error)


def test_an_rsa_key_is_made_in_its_own_time() -> None:
    """A signature has ten seconds; a key a minute."""

    def slow(stub: Stub, transport: Any, path: str, body: dict[str, Any]) -> None:
        own_reactor().callLater(0.2, transport.write, stub.good(path, body))

    with at_socket() as (stub, client):
        client.timeout = 0.1
        stub.fault = slow
        assert run(client.make(KeyPurpose.ROOT, KeyAlgorithm.EC_P384, "root-1")).name == "root-1-0"
