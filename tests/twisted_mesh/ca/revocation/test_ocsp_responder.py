"""OCSP answers: what is said of whom, by whom, and which answers are given again."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.x509 import ocsp
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import LogEvent

from pki.issuing.authority import Authority
from pki.keys import KeyAlgorithm
from pki.ocsp.request import SHA1, SHA256, Issuer, OcspRequest
from pki.ocsp.response import judge_answer, read_answer
from pki.svid.revocation_set import Reason
from tests.authorities import DAY, HOUR, MESH, OTHER, key, mesh
from tests.twisted_mesh.ca.publishing import publishing_rig, revoke
from tests.twisted_mesh.ca.rigs import CaRig, ca_rig, result_of
from twisted_mesh.ca.revocation import ocsp_responder
from twisted_mesh.ca.revocation.ocsp_responder import STATUSES, OcspReply
from twisted_mesh.limits.fair_queue import FairQueue
from twisted_mesh.stores.records import Query, Status

MINUTE = timedelta(minutes=1)
NONCE = b"\x07" * 32
OCSP_STATUS = ocsp.OCSPResponseStatus


@pytest.fixture
def rig() -> Iterator[CaRig]:
    with publishing_rig() as made:
        yield made


@pytest.fixture
def counts(rig: CaRig) -> "Counter[str]":
    counted: Counter[str] = Counter()
    rig.ca.responder.counts = lambda status: counted.update([status])
    return counted


def issuing(rig: CaRig) -> Authority:
    return rig.ca.authorities.issuing


def request(
    issuer: Authority, *serials: int, nonce: bytes | None = None, algorithm: str = SHA1
) -> bytes:
    identity = Issuer.of(issuer.certificate)
    ids = tuple(identity.cert_id(serial, algorithm) for serial in serials)
    return OcspRequest(ids, nonce).to_der()


def reply(rig: CaRig, der: bytes) -> OcspReply:
    return result_of(rig.ca.responder.answer(der, "somebody"))  # type: ignore[no-any-return]


def ask(rig: CaRig, *serials: int, **options: Any) -> OcspReply:
    return reply(rig, request(issuing(rig), *serials, **options))


def standings(answer: OcspReply) -> list[str]:
    """Of each certificate, in order; or why there is no answer."""
    read = ocsp.load_der_ocsp_response(answer.der)
    if read.response_status is not OCSP_STATUS.SUCCESSFUL:
        return [read.response_status.name.lower()]
    return [single.certificate_status.name.lower() for single in read.responses]


def judged(rig: CaRig, answer: OcspReply, leaf: x509.Certificate, **options: Any) -> list[str]:
    """What an endpoint makes of it."""
    issuer = issuing(rig).certificate
    problems = judge_answer(answer.der, leaf, issuer, now=rig.time, **options)
    return [problem.code for problem in problems]


def delegate_of(answer: OcspReply) -> x509.Certificate:
    (found,) = ocsp.load_der_ocsp_response(answer.der).certificates
    return found


# How certificates stand.


@pytest.mark.parametrize("algorithm", [SHA1, SHA256])
def test_a_good_one_is_good_and_a_revoked_one_revoked(rig: CaRig, algorithm: str) -> None:
    leaf, *_ = rig.sign()
    assert judged(rig, ask(rig, leaf.serial_number, algorithm=algorithm), leaf) == []
    revoke(rig, leaf.serial_number, Reason.SUPERSEDED)
    answer = ask(rig, leaf.serial_number, algorithm=algorithm)
    assert judged(rig, answer, leaf) == ["revoked"]
    read = read_answer(answer.der, leaf, issuing(rig).certificate, now=rig.time)
    assert read.revocation is not None
    assert (read.revocation.reason, read.revocation.revoked_at) == (Reason.SUPERSEDED, rig.time)
    assert read.next_update == rig.time + HOUR


@pytest.mark.parametrize("serial", [0, 1, -1, 1 << 159, 1 << 2000])
def test_a_serial_that_was_not_issued_here_is_unknown(rig: CaRig, serial: int) -> None:
    assert standings(ask(rig, serial)) == ["unknown"]


@pytest.mark.usefixtures("elsewhere")
def test_what_is_only_intended_is_unknown_and_what_is_written_off_revoked(rig: CaRig) -> None:
    rig.store.broken = {"RecordCertificate"}
    with pytest.raises(Exception, match="disk is full"):
        rig.sign()
    rig.store.broken = set()
    (pending,) = rig.calls.result(rig.store.store.open_intents())
    serial = pending.certificate.serial
    assert standings(ask(rig, serial)) == ["unknown"]
    result_of(rig.ca.write_offs.resolve())
    assert standings(ask(rig, serial)) == ["revoked"]


def test_one_that_expired_still_stands_as_it_did(rig: CaRig) -> None:
    good, *_ = rig.sign()
    bad, *_ = rig.sign()
    revoke(rig, bad.serial_number)
    rig.time += 20 * DAY
    assert standings(ask(rig, good.serial_number)) == ["good"]
    assert standings(ask(rig, bad.serial_number)) == ["revoked"]


def test_several_are_answered_in_their_order(rig: CaRig) -> None:
    first, *_ = rig.sign()
    second, *_ = rig.sign()
    revoke(rig, second.serial_number)
    serials = second.serial_number, 77, first.serial_number, second.serial_number
    answer = ask(rig, *serials, nonce=NONCE)
    assert standings(answer) == ["revoked", "unknown", "good", "revoked"]
    assert answer.span is None


def test_a_nonce_comes_back_and_the_answer_is_for_nobody_else(rig: CaRig) -> None:
    leaf, *_ = rig.sign()
    answer = ask(rig, leaf.serial_number, nonce=NONCE)
    assert judged(rig, answer, leaf, nonce=NONCE) == []
    assert judged(rig, answer, leaf, nonce=b"other") == ["ocsp-nonce"]
    assert answer.span is None
    assert len(rig.ca.responder) == 0


def test_a_ca_that_has_not_begun_to_publish_answers_by_its_record() -> None:
    with ca_rig() as rig:
        leaf, *_ = rig.sign()
        assert standings(ask(rig, leaf.serial_number)) == ["good"]
        revoke(rig, leaf.serial_number)
        assert standings(ask(rig, leaf.serial_number)) == ["revoked"]


# Who signs.


def test_the_delegate_is_recorded_and_audited_like_every_certificate(rig: CaRig) -> None:
    leaf, *_ = rig.sign()
    rig.order.clear()
    delegate = delegate_of(ask(rig, leaf.serial_number))
    assert rig.order == ["sign", "RecordIssue", "find_all"]
    page = result_of(rig.ca.record.certificates(Query(now=rig.time)))
    record = page.certificates[0]
    assert record.serial == delegate.serial_number
    assert str(record.spiffe_id) == "spiffe://mesh.local/mesh/ocsp-responder"
    assert (record.requester, record.status(rig.time)) == ("self", Status.VALID)
    assert delegate.not_valid_after_utc == rig.time + DAY
    assert delegate.extensions.get_extension_for_class(x509.OCSPNoCheck)


@pytest.mark.parametrize(
    ("issuing", "expected"),
    [
        (KeyAlgorithm.RSA_4096, KeyAlgorithm.EC_P256),
        (KeyAlgorithm.ML_DSA_65, KeyAlgorithm.ML_DSA_65),
    ],
)
def test_a_delegate_withstands_what_its_issuer_does(
    issuing: KeyAlgorithm, expected: KeyAlgorithm
) -> None:
    home = mesh(MESH, key("root", KeyAlgorithm.EC_P256), key("issuing", issuing))
    with publishing_rig(home=home) as rig:
        leaf, *_ = rig.sign()
        answer = ask(rig, leaf.serial_number)
        assert standings(answer) == ["good"]
        assert judged(rig, answer, leaf) == []
        assert KeyAlgorithm.of(delegate_of(answer).public_key()) is expected


def test_one_delegate_signs_until_half_of_its_life_and_the_next_then(rig: CaRig) -> None:
    leaf, *_ = rig.sign()
    first = delegate_of(ask(rig, leaf.serial_number))
    rig.time += 11 * HOUR
    result_of(rig.ca.responder.attend())
    assert delegate_of(ask(rig, leaf.serial_number)) == first
    rig.time += HOUR
    result_of(rig.ca.responder.attend())
    assert len(rig.ca.responder) == 0, "what it signed is not given again"
    second = ask(rig, leaf.serial_number)
    assert delegate_of(second) != first
    assert delegate_of(second).public_key() != first.public_key()
    assert judged(rig, second, leaf) == []


def test_one_that_nobody_asked_is_not_replaced(rig: CaRig) -> None:
    leaf, *_ = rig.sign()
    ask(rig, leaf.serial_number)
    rig.time += 12 * HOUR
    result_of(rig.ca.responder.attend())
    rig.time += 12 * HOUR
    rig.order.clear()
    result_of(rig.ca.responder.attend())
    rig.time += 12 * HOUR
    result_of(rig.ca.responder.attend())
    assert rig.order == []
    assert judged(rig, ask(rig, leaf.serial_number), leaf) == []


def test_one_that_cannot_be_replaced_signs_on_while_it_is_valid(rig: CaRig) -> None:
    leaf, *_ = rig.sign(ttl=DAY)
    first = delegate_of(ask(rig, leaf.serial_number))
    rig.time += 23 * HOUR + 30 * MINUTE
    rig.store.broken = {"RecordIssue"}
    with pytest.raises(Exception, match="disk is full"):
        result_of(rig.ca.responder.attend())
    answer = ask(rig, leaf.serial_number)
    assert delegate_of(answer) == first
    assert answer.span is not None
    assert answer.span.next_update == first.not_valid_after_utc
    rig.time += HOUR
    assert standings(ask(rig, leaf.serial_number)) == ["try_later"]
    rig.store.broken = set()
    assert standings(ask(rig, leaf.serial_number)) == ["good"]


def test_each_issuing_ca_has_its_own_delegate(rig: CaRig) -> None:
    old, (leaf, *_) = issuing(rig), rig.sign()
    made = rig.home.root.create_issuing(key("generation 2"), MESH, rig.time, 2)
    rig.ca.current.adopt(rig.ca.authorities.with_active(asyncio.run(made)))
    other, *_ = rig.sign()
    by_old = reply(rig, request(old, leaf.serial_number))
    assert judge_answer(by_old.der, leaf, old.certificate, now=rig.time) == ()
    assert judged(rig, ask(rig, other.serial_number), other) == []
    # A serial is a CA's own; of another CA's certificates its delegate can say nothing.
    assert standings(reply(rig, request(old, other.serial_number))) == ["unknown"]
    both = OcspRequest(
        (
            Issuer.of(old.certificate).cert_id(leaf.serial_number),
            Issuer.of(issuing(rig).certificate).cert_id(other.serial_number),
        )
    )
    assert standings(reply(rig, both.to_der())) == ["good", "unknown"]
    assert len(rig.ca.responder) == 2
    rig.ca.current.adopt(rig.ca.authorities.without(old))
    assert standings(reply(rig, request(old, leaf.serial_number))) == ["unauthorized"]
    assert len(rig.ca.responder) == 1


def test_a_delegate_that_is_revoked_is_replaced(rig: CaRig) -> None:
    leaf, *_ = rig.sign()
    first = delegate_of(ask(rig, leaf.serial_number))
    revoke(rig, first.serial_number)
    assert delegate_of(ask(rig, leaf.serial_number)) != first


# What is given again.


def test_an_answer_is_given_again_until_half_of_its_life(rig: CaRig) -> None:
    leaf, *_ = rig.sign()
    first = ask(rig, leaf.serial_number)
    rig.order.clear()
    rig.time += 29 * MINUTE
    assert ask(rig, leaf.serial_number) is first
    assert rig.order == []
    rig.time += MINUTE
    assert ask(rig, leaf.serial_number) is not first


def test_revoking_drops_what_is_kept_of_that_certificate_only(rig: CaRig) -> None:
    leaf, *_ = rig.sign()
    other, *_ = rig.sign()
    kept = ask(rig, other.serial_number)
    for algorithm in (SHA1, SHA256):
        ask(rig, leaf.serial_number, algorithm=algorithm)
    assert len(rig.ca.responder) == 3
    revoke(rig, leaf.serial_number)
    assert len(rig.ca.responder) == 1
    assert standings(ask(rig, leaf.serial_number)) == ["revoked"]
    assert ask(rig, other.serial_number) is kept


def test_who_is_known_to_stand_well_is_not_looked_up_again(rig: CaRig) -> None:
    leaf, *_ = rig.sign()
    ask(rig, leaf.serial_number, nonce=NONCE)
    rig.order.clear()
    assert standings(ask(rig, leaf.serial_number, 5, nonce=NONCE)) == ["good", "unknown"]
    assert standings(ask(rig, leaf.serial_number, nonce=NONCE)) == ["good"]
    assert rig.order == ["find_all"], "of the unknown one"
    revoke(rig, leaf.serial_number)
    assert standings(ask(rig, leaf.serial_number, nonce=NONCE)) == ["revoked"]


def test_what_is_revoked_while_an_answer_is_signed_is_not_called_good(rig: CaRig) -> None:
    leaf, *_ = rig.sign()
    ask(rig, 1)
    gate: Deferred[None] = Deferred()
    rig.ca.responder.store = Slow(rig.store, gate)
    answers: list[OcspReply] = []
    asked = rig.ca.responder.answer(request(issuing(rig), leaf.serial_number), "x")
    Deferred.fromCoroutine(asked).addCallback(answers.append)
    revoke(rig, leaf.serial_number)
    gate.callback(None)
    assert standings(answers[0]) == ["revoked"]
    assert standings(ask(rig, leaf.serial_number)) == ["revoked"]


class Slow:
    """A store that knows an answer and gives it later."""

    def __init__(self, store: Any, gate: "Deferred[None]") -> None:
        self._store, self._gate = store, gate

    async def find_all(self, serials: Any) -> Any:
        found = await self._store.find_all(serials)
        await self._gate
        return found


def test_so_many_are_kept_and_the_unknown_push_out_nobody(
    rig: CaRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ocsp_responder, "MOST_ANSWERS", 3)
    serials = [rig.sign()[0].serial_number for _ in range(5)]
    kept = [ask(rig, serial) for serial in serials]
    assert len(rig.ca.responder) == 3
    for serial in range(100):
        ask(rig, serial)
    assert len(rig.ca.responder._good) == 3
    assert [ask(rig, serial) is was for serial, was in zip(serials[2:], kept[2:], strict=True)] == [
        *(True, True, True)
    ]
    assert ask(rig, serials[0]) is not kept[0]


# What bad input gets.


@pytest.mark.parametrize(
    "der", [b"", b"\x30", b"nonsense", b"\x30\x80", bytes(70_000)], ids=lambda d: str(len(d))
)
def test_what_is_no_request_is_called_malformed(
    rig: CaRig, der: bytes, counts: "Counter[str]"
) -> None:
    assert standings(reply(rig, der)) == ["malformed_request"]
    assert counts == {"malformed": 1}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200), st.integers(0, 60), st.binary(max_size=3))
def test_no_bytes_make_it_break(rig: CaRig, noise: bytes, at: int, change: bytes) -> None:
    whole = request(issuing(rig), 5)
    for der in (noise, whole[:at] + change + whole[at + len(change) :], whole[:at]):
        assert standings(reply(rig, der))[0] != "internal_error"


def test_another_cas_certificate_is_not_ours_to_speak_of(rig: CaRig) -> None:
    assert standings(reply(rig, request(mesh(OTHER).issuing, 1))) == ["unauthorized"]
    root = Authority(rig.home.root.certificate, rig.home.root.key)
    assert standings(reply(rig, request(root, 1))) == ["unauthorized"]


def test_a_full_line_is_told_to_try_later(rig: CaRig) -> None:
    leaf, *_ = rig.sign()
    kept = ask(rig, leaf.serial_number)
    full = rig.ca.responder.fair_queue = FairQueue(per_caller=0)
    assert standings(ask(rig, 2)) == ["try_later"]
    assert ask(rig, leaf.serial_number) is kept
    assert full.at_work == 0


def test_a_store_that_is_away_is_told_once_in_the_log(
    rig: CaRig, logged: list[LogEvent], counts: "Counter[str]"
) -> None:
    rig.store.broken = {"find_all"}
    for _ in range(3):
        assert standings(ask(rig, 1)) == ["try_later"]
    told = [e for e in logged if e.get("event") == "ocsp-failed" and e["log_level"].name == "warn"]
    assert len(told) == 1
    assert counts == {"try-later": 3}


def test_a_bug_is_an_internal_error_of_ocsp(rig: CaRig, counts: "Counter[str]") -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError

    rig.ca.responder.certify = broken  # type: ignore[assignment]
    assert standings(ask(rig, 1)) == ["internal_error"]
    assert counts == {"internal": 1}


def test_who_does_not_wait_any_more_has_met_no_bug(rig: CaRig, logged: list[LogEvent]) -> None:
    def given_up(*_: Any) -> None:
        raise CancelledError

    rig.ca.responder.certify = given_up  # type: ignore[assignment]
    with pytest.raises(CancelledError):
        ask(rig, 1)
    assert not [event for event in logged if event.get("event") == "request-broke"]


def test_an_issuing_ca_that_has_ended_has_no_delegate(rig: CaRig) -> None:
    rig.time += 400 * DAY
    assert standings(ask(rig, 1)) == ["unauthorized"]


def test_every_answer_is_counted_by_what_it_says(rig: CaRig, counts: "Counter[str]") -> None:
    leaf, *_ = rig.sign()
    ask(rig, leaf.serial_number)
    ask(rig, leaf.serial_number)
    ask(rig, leaf.serial_number, 3, nonce=NONCE)
    assert counts == {"good": 3, "unknown": 1}
    assert set(counts) <= set(STATUSES)
