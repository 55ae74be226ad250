"""Receipts judged: which count, why the others do not, and how many a peer must have."""

import asyncio
from datetime import timedelta

import pytest
from attrs import evolve
from cryptography import x509

from pki.codes import Code
from pki.ct.errors import BadLogList, BadSct
from pki.ct.log_key import LogKey, log_signature
from pki.ct.log_list import LogList, LogState
from pki.ct.precertificate import with_scts
from pki.ct.receipt import FUTURE, SctDemand, judge_receipts, sign_sct, signed_data, verify_sct
from pki.ct.sct import SignedCertificateTimestamp, list_bytes, milliseconds
from pki.keys import KeyAlgorithm, MemoryKey
from tests.authorities import DAY, HOUR, MESH, NOW, OTHER, key, mesh, rsa_key, signed_anew
from tests.pki.ct.logs import LOGS, NOW_MS, ONE, THREE, TWO, TestLog, entry_of, logged

LEAF, ISSUER = mesh().leaf(), mesh().issuing.certificate
ENTRY = entry_of(LEAF)
BOTH = SctDemand(2, LOGS)


def told(*scts: SignedCertificateTimestamp, demand: SctDemand = BOTH, logs: LogList = LOGS) -> str:
    """What a peer with these receipts is told; empty where it is let in."""
    problems = evolve(demand, logs=logs).problems((logged(LEAF, *scts), ISSUER), NOW)
    assert all(problem.code is Code.NO_SCT and problem.remedy for problem in problems)
    return "; ".join(problem.detail for problem in problems)


def test_receipts_of_two_logs_are_two() -> None:
    assert not told(ONE.sct(ENTRY), TWO.sct(ENTRY))


def test_one_is_not_two_and_the_message_says_what_is_known_here() -> None:
    found = told(ONE.sct(ENTRY))
    assert "receipts (SCTs) of 2 logs are demanded" in found
    assert "it has 1 that count, of 1" in found
    assert "known here: one, two" in found


def test_more_than_are_demanded_do_no_harm_whatever_they_are() -> None:
    scts = THREE.sct(ENTRY), ONE.sct(ENTRY, at=1), TWO.sct(entry_of(mesh(OTHER).leaf()))
    assert not told(*scts, demand=SctDemand(1, LOGS))


_OTHER_LEAF = mesh().leaf(MESH.member("service", "other"))
_FLIPPED = evolve(
    ONE.sct(ENTRY),
    signature=ONE.sct(ENTRY).signature[:-1] + bytes((ONE.sct(ENTRY).signature[-1] ^ 1,)),
)
REFUSED = {
    "of a log that is not known": (lambda: THREE.sct(ENTRY), "is not known here"),
    "for another certificate": (lambda: ONE.sct(entry_of(_OTHER_LEAF)), "for something else"),
    "for a certificate of another CA": (
        lambda: ONE.sct(evolve(ENTRY, issuer_key_hash=bytes(32))),
        "for something else",
    ),
    "with a bit of its signature flipped": (lambda: _FLIPPED, "not signed by that log's key"),
    "with another time": (
        lambda: evolve(ONE.sct(ENTRY), timestamp=NOW_MS - 1),
        "for something else",
    ),
    "with another index": (
        lambda: evolve(ONE.sct(ENTRY, index=1), extensions=ONE.sct(ENTRY, index=2).extensions),
        "for something else",
    ),
    "with another algorithm": (
        lambda: evolve(ONE.sct(ENTRY), signature_algorithm=1),
        "another algorithm",
    ),
    "with another hash": (lambda: evolve(ONE.sct(ENTRY), hash_algorithm=6), "another algorithm"),
    "that names one log and is signed by another": (
        lambda: evolve(TWO.sct(ENTRY), log_id=ONE.log.log_id),
        "not signed by that log's key",
    ),
    "from the future": (
        lambda: ONE.sct(ENTRY, at=milliseconds(NOW + FUTURE + timedelta(seconds=1))),
        "from the future: 2026-11-23T10:05:01Z",
    ),
}


@pytest.mark.parametrize(("make", "reason"), REFUSED.values(), ids=REFUSED)
def test_a_receipt_does_not_count(make: object, reason: str) -> None:
    sct = make()  # type: ignore[operator]
    found = told(sct, demand=SctDemand(1, LOGS))
    assert reason in found and "it has 0 that count, of 1" in found


def test_a_clock_may_be_a_little_ahead() -> None:
    assert not told(ONE.sct(ENTRY, at=milliseconds(NOW + FUTURE)), demand=SctDemand(1, LOGS))


def test_one_log_counts_once_however_often_it_has_signed() -> None:
    assert "another in the same certificate" in told(ONE.sct(ENTRY), ONE.sct(ENTRY, index=9))


@pytest.mark.parametrize("state", [LogState.RETIRED, LogState.READONLY])
@pytest.mark.parametrize(("at", "counts"), [(0, True), (1, False)])
def test_what_a_retired_log_has_signed_before_counts(
    state: LogState, at: int, counts: bool
) -> None:
    logs = LogList((ONE.log.retired(state, NOW),), NOW)
    found = told(ONE.sct(ENTRY, at=NOW_MS + at), demand=SctDemand(1, logs), logs=logs)
    assert (not found) is counts
    assert counts or f"that log is {state} since 2026-11-23T10:00:00Z" in found


@pytest.mark.parametrize("state", [LogState.REJECTED, LogState.PENDING])
def test_of_some_logs_nothing_counts(state: LogState) -> None:
    logs = LogList((ONE.log.retired(state, NOW + DAY),), NOW)
    assert "none of its receipts counts" in told(ONE.sct(ENTRY), logs=logs)


def test_a_log_that_is_withdrawn_is_not_known_any_more_and_none_is_added() -> None:
    less = BOTH.narrowed([ONE.log.log_id])
    assert "is not known here" in told(ONE.sct(ENTRY), logs=less.logs)
    assert BOTH.narrowed([THREE.log.log_id]) is BOTH
    assert not less.narrowed([TWO.log.log_id]).logs.logs


def test_none_are_demanded_of_nobody() -> None:
    assert not SctDemand(0, LOGS) and BOTH
    assert SctDemand(0, LOGS).problems((LEAF, ISSUER), NOW) == ()


def test_a_certificate_without_any_is_told_so() -> None:
    (problem,) = BOTH.problems((LEAF, ISSUER), NOW)
    assert "it has none" in problem.detail and problem.subject == "CN=backend"


def test_a_certificate_alone_has_nobody_above_it() -> None:
    (problem,) = BOTH.problems((LEAF,), NOW)
    assert "nobody stands above it" in problem.detail


def odd(body: bytes) -> x509.Certificate:
    issuing = mesh().issuing.key
    assert isinstance(issuing, MemoryKey)
    return x509.load_der_x509_certificate(signed_anew(body, issuing.private_key))  # type: ignore[arg-type]


def test_a_damaged_list_counts_as_none() -> None:
    body = with_scts(LEAF.tbs_certificate_bytes, list_bytes([ONE.sct(ENTRY)])[:-1] + b"\1\2")
    (problem,) = BOTH.problems((odd(body), ISSUER), NOW)
    assert "counts as one without receipts" in problem.detail and "damaged" in problem.detail


def test_a_stranger_s_many_receipts_of_one_log_cost_one_signature(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[bytes] = []
    really = LogKey.verify

    def counted(self: LogKey, signature: bytes, *rest: object) -> None:
        seen.append(signature)
        really(self, signature, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(LogKey, "verify", counted)
    assert told(*[evolve(_FLIPPED, timestamp=NOW_MS - n) for n in range(16)])
    assert len(seen) == 1


def test_a_log_that_can_be_read_says_where_its_entry_is() -> None:
    """Else nobody could look for it: a log that lies would sign receipts without entries, and not be found out."""
    secret = unplaced(ONE)
    assert secret.leaf_index is None
    assert "does not say where its entry is" in told(secret, demand=SctDemand(1, LOGS))
    old = evolve(ONE.log, monitoring_url="")  # of RFC 6962's own logs it is not demanded
    assert not told(secret, demand=SctDemand(1, LogList((old,))), logs=LogList((old,)))


def unplaced(log: TestLog) -> SignedCertificateTimestamp:
    made = asyncio.run(log_signature(signed_data(NOW_MS, ENTRY, b""), log.key))
    return SignedCertificateTimestamp(log.log.log_id, NOW_MS, b"", *made)


def test_each_receipt_is_told_by_its_log() -> None:
    cert = logged(LEAF, ONE.sct(ENTRY), THREE.sct(ENTRY))
    good, unknown = judge_receipts(cert, ISSUER, LOGS, NOW + HOUR)
    assert good.counts and good.log == ONE.log
    assert not unknown.counts and unknown.log is None


@pytest.mark.parametrize("algorithm", [KeyAlgorithm.EC_P256, KeyAlgorithm.RSA_2048])
def test_a_log_signs_by_either_kind_of_key(algorithm: KeyAlgorithm) -> None:
    log = TestLog("any", key("a log", algorithm))
    sct = log.sct(ENTRY, index=4)
    assert sct.signature_algorithm == (3 if algorithm is KeyAlgorithm.EC_P256 else 1)
    verify_sct(SignedCertificateTimestamp.parse(sct.to_bytes()), ENTRY, log.log.key)
    with pytest.raises(BadSct, match="another log's"):
        verify_sct(sct, ENTRY, ONE.log.key)


@pytest.mark.parametrize("algorithm", [KeyAlgorithm.EC_P384, KeyAlgorithm.ED25519])
def test_no_log_has_another_kind_of_key(algorithm: KeyAlgorithm) -> None:
    with pytest.raises(BadLogList, match="P-256, or RSA of 2048"):
        asyncio.run(sign_sct(ENTRY, NOW_MS, 0, key("no log", algorithm)))


def test_a_weak_key_is_no_log_s() -> None:
    with pytest.raises(BadLogList, match="weak"):
        LogKey.of(rsa_key(1024).public_key())
