"""What is signed, what for and by whom; a key elsewhere signs nothing without an intent; no revocation is untold."""

import hashlib
import json
import resource
import signal
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from attrs import evolve
from twisted.internet.defer import Deferred, succeed
from twisted.logger import LogEvent

from pki.errors import Malformed, PkiError, Refused
from pki.issuing.authority import IssuerExpired, SigningFailed
from pki.issuing.csr import build_csr
from pki.keys import KeyAlgorithm
from pki.policy.entry import DEFAULT_ENTRY, EntryMembers, RegistrationEntry, read_entry
from pki.policy.lifetimes import Lifetimes
from pki.policy.policy import Forbidden, Grant, NoProof
from pki.policy.principal import Kind, Principal, administrator, anonymous, workload
from pki.policy.selector import Selector
from pki.serial import serial_hex
from pki.spiffe import SpiffeId
from pki.svid.revocation_set import Reason
from pki.svid.x509svid import Purpose, leaf_problems
from pki.validity import rfc3339
from tests.authorities import BACKEND, DAY, HOUR, MESH, NOW, OTHER, key
from tests.twisted_mesh.ca.rigs import ADMIN, CaRig, ca_rig, entry, result_of, settled
from twisted_mesh.ca.issuance import Purchase
from twisted_mesh.ca.issuance_log import IssuanceLog
from twisted_mesh.ca.registered import NameTaken
from twisted_mesh.runtime.event_text import event_text
from twisted_mesh.state.directory import StateError
from twisted_mesh.stores.commands import RecordCertificate, RecordIntent
from twisted_mesh.stores.records import (
    Conflict,
    EntryGone,
    IssuedCertificate,
    Query,
    Revoked,
    Status,
    StoreError,
    Unknown,
)

ISSUING = ["sign", "RecordIssue"]
#: Where the key is elsewhere.
INTENDING = ["RecordIntent", "sign", "RecordCertificate"]


def records(rig: CaRig) -> list[IssuedCertificate]:
    return list(result_of(rig.ca.record.certificates(Query(now=rig.time))).certificates)


def own(serial: int = 1, spiffe_id: SpiffeId = BACKEND) -> Any:
    return workload(spiffe_id, serial)


# The order of things.


@pytest.mark.usefixtures("elsewhere")
def test_the_intent_is_recorded_before_the_signature_and_the_certificate_after(rig: CaRig) -> None:
    leaf, *_ = rig.sign()
    assert rig.order == INTENDING
    (intent,) = [command for command in rig.store.told if isinstance(command, RecordIntent)]
    assert intent.certificate.serial == leaf.serial_number
    (record,) = records(rig)
    assert record.status(NOW) is Status.VALID
    assert record.spiffe_id == BACKEND
    assert record.requester == "unix:uid:0"
    assert record.expires_at == leaf.not_valid_after_utc


def test_the_cas_own_certificate_is_recorded_in_the_same_way(rig: CaRig) -> None:
    leaf, *_ = result_of(rig.ca.own.issue_tls(key("the CA's own")))
    assert rig.order == ISSUING
    (record,) = records(rig)
    assert str(record.spiffe_id) == "spiffe://mesh.local/mesh/ca"
    assert record.requester == "self"
    assert leaf_problems(leaf, Purpose.ANY) == []


@pytest.mark.usefixtures("elsewhere")
def test_without_a_record_of_the_intent_nothing_is_signed(rig: CaRig) -> None:
    rig.store.broken = {"RecordIntent"}
    with pytest.raises(StoreError, match="disk is full"):
        rig.sign()
    assert rig.order == ["RecordIntent"]
    assert records(rig) == []


@pytest.mark.usefixtures("elsewhere")
def test_without_a_record_of_the_certificate_it_does_not_leave(
    rig: CaRig, logged: list[LogEvent]
) -> None:
    rig.store.broken = {"RecordCertificate"}
    with pytest.raises(StoreError, match="disk is full"):
        rig.sign()
    assert rig.order == INTENDING
    (record,) = records(rig)
    assert record.status(NOW) is Status.PENDING
    assert "certificate-signed" not in [event.get("event") for event in logged]


def broken_token() -> bytes:
    raise SigningFailed("the token is gone")


@pytest.mark.usefixtures("elsewhere")
@pytest.mark.parametrize("breaks", [broken_token, lambda: b"no signature", lambda: bytes(70)])
def test_a_signer_that_breaks_leaves_a_record_that_can_be_revoked(rig: CaRig, breaks: Any) -> None:
    rig.signer.breaks = breaks
    with pytest.raises(SigningFailed):
        rig.sign()
    assert rig.order == ["RecordIntent", "sign"]
    (record,) = records(rig)
    assert record.status(NOW) is Status.PENDING
    revoked = result_of(rig.ca.certificates.revoke(ADMIN, record.serial, Reason.KEY_COMPROMISE))
    assert revoked.status(NOW) is Status.REVOKED


@pytest.mark.usefixtures("elsewhere")
def test_a_store_that_takes_its_time_holds_the_signature_back(rig: CaRig) -> None:
    waiting: list[Deferred[Any]] = []

    def apply(command: Any) -> Deferred[Any]:
        waiting.append(Deferred())
        return waiting[-1]

    rig.ca.issuance.store = type("Slow", (), {"apply": staticmethod(apply)})
    outcome: list[Any] = []
    draft = rig.ca.authorities.issuing.draft(key(9).public_key, BACKEND, NOW, HOUR)
    purchase = Purchase(ADMIN, Grant(None, HOUR))
    Deferred.fromCoroutine(rig.ca.issuance.issue(draft, BACKEND, purchase)).addBoth(outcome.append)
    assert rig.order == []
    waiting[0].callback(1)
    assert rig.order == ["sign"]
    assert outcome == []
    waiting[1].callback(None)
    assert len(outcome[0].chain) == 2


# What is issued.


def test_the_chain_holds_the_intermediate_and_not_the_root(rig: CaRig) -> None:
    leaf, *intermediates = rig.sign()
    assert intermediates == [rig.home.issuing.certificate]
    leaf.verify_directly_issued_by(intermediates[0])


@pytest.mark.parametrize(
    ("asked", "given"),
    [
        (None, HOUR),
        (timedelta(seconds=1), timedelta(seconds=1)),
        (timedelta(hours=24), timedelta(hours=24)),
    ],
)
def test_a_life_counts_from_its_issue(rig: CaRig, asked: timedelta, given: timedelta) -> None:
    leaf, *_ = rig.sign(ttl=asked)
    assert leaf.not_valid_after_utc - NOW == given


@pytest.mark.parametrize("asked", [timedelta(0), timedelta(hours=24, seconds=1)])
def test_a_life_out_of_range_is_refused_and_nothing_recorded(rig: CaRig, asked: timedelta) -> None:
    with pytest.raises(PkiError, match="ask for 1s to 1d"):
        rig.sign(ttl=asked)
    assert rig.order == []


def test_a_life_out_of_range_is_told_with_all_that_is_wrong_besides(rig: CaRig) -> None:
    with pytest.raises(Refused) as refused:
        rig.sign(OTHER.member("x"), ttl=timedelta(days=9))
    codes = [problem.code for problem in refused.value.problems]
    assert codes == ["ttl-out-of-range", "wrong-trust-domain"]


def test_the_maximum_may_be_more_than_a_day(logged: list[LogEvent]) -> None:
    with ca_rig(lifetimes=Lifetimes(HOUR, 7 * DAY)) as rig:
        leaf, *_ = rig.sign(ttl=7 * DAY)
        assert leaf.not_valid_after_utc - NOW == 7 * DAY
        mine, *_ = result_of(rig.ca.own.issue_tls(key(9)))
        assert mine.not_valid_after_utc - NOW == DAY


def test_no_certificate_outlives_the_issuing_ca(rig: CaRig) -> None:
    end = rig.home.issuing.certificate.not_valid_after_utc
    rig.time = end - timedelta(minutes=5)
    leaf, *_ = rig.sign()
    assert leaf.not_valid_after_utc == end
    rig.time = end + timedelta(seconds=1)
    with pytest.raises(IssuerExpired):
        rig.sign()


@pytest.mark.parametrize(
    ("csr", "kind", "words"),
    [
        (b"", Malformed, "PEM"),
        (b"-----BEGIN CERTIFICATE REQUEST-----\n-----END", Malformed, "has no end"),
        (b"x" * 40000, Malformed, "at most"),
    ],
)
def test_what_is_no_csr_is_refused(rig: CaRig, csr: bytes, kind: type, words: str) -> None:
    with pytest.raises(kind, match=words):
        result_of(rig.ca.certificates.sign(ADMIN, csr, str(BACKEND), None))
    assert rig.order == []


@pytest.mark.parametrize("path", ["mesh/ca", "mesh", "mesh/x/y"])
def test_not_even_an_administrator_gets_a_name_of_the_meshs_own(rig: CaRig, path: str) -> None:
    with pytest.raises(Refused, match="reserved-id"):
        rig.sign(MESH.member(*path.split("/")))


def test_the_cas_own_key_is_not_certified_for_anybody() -> None:
    with ca_rig() as rig:
        csr = build_csr(rig.signer.key, BACKEND)
        with pytest.raises(Refused, match="forbidden-key"):
            result_of(rig.ca.certificates.sign(ADMIN, csr, str(BACKEND), None))


def test_a_ca_that_certifies_some_kinds_of_keys_refuses_the_others(rig: CaRig) -> None:
    rig.ca.certificates.leaf_keys = (KeyAlgorithm.EC_P256,)
    csr = build_csr(key("leaf", KeyAlgorithm.ML_DSA_65), BACKEND)
    with pytest.raises(
        Refused, match=r"forbidden-key: .* ec-p256 only, and the CSR's is ML-DSA-65"
    ):
        result_of(rig.ca.certificates.sign(ADMIN, csr, str(BACKEND), None))
    rig.sign(BACKEND)
    rig.ca.certificates.leaf_keys = ()
    assert result_of(rig.ca.certificates.sign(ADMIN, csr, str(BACKEND), None))


# Who may.


def test_who_has_proven_nothing_gets_nothing_signed(rig: CaRig) -> None:
    with pytest.raises(NoProof):
        rig.sign(principal=anonymous("tls:no-certificate"))
    assert rig.order == []


def test_a_workload_renews_itself_and_nobody_else(rig: CaRig) -> None:
    rig.sign(principal=own())
    with pytest.raises(Forbidden, match="own-identity-only"):
        rig.sign(MESH.member("service", "other"), principal=own())
    assert rig.order == ["find", *ISSUING, "find"]


def test_a_workload_gets_no_host_name_that_it_did_not_have(rig: CaRig) -> None:
    rig.sign(principal=own(), dns_names=["localhost", "backend.mesh.local"])
    with pytest.raises(Forbidden, match="names-granted-only"):
        rig.sign(principal=own(), dns_names=["bank.example"])


# Revoking.


def test_a_revocation_is_told_with_its_issuer(rig: CaRig, logged: list[LogEvent]) -> None:
    leaf, *_ = rig.sign()
    revoked = result_of(
        rig.ca.certificates.revoke(ADMIN, leaf.serial_number, Reason.KEY_COMPROMISE)
    )
    (told,) = rig.told
    assert (told.issuer, told.serial) == (rig.home.issuing.key_id, leaf.serial_number)
    assert told.reason is revoked.reason is Reason.KEY_COMPROMISE
    assert told.expires_at == leaf.not_valid_after_utc
    (event,) = [e for e in logged if e.get("event") == "certificate-revoked"]
    assert event["requester"] == str(ADMIN)
    assert "Reason: keyCompromise" in event_text(event)


def test_revoking_again_answers_as_the_first_time_and_tells_again(
    rig: CaRig, logged: list[LogEvent]
) -> None:
    leaf, *_ = rig.sign()
    first = result_of(rig.ca.certificates.revoke(ADMIN, leaf.serial_number, Reason.KEY_COMPROMISE))
    rig.time += HOUR
    again = result_of(rig.ca.certificates.revoke(ADMIN, leaf.serial_number, Reason.SUPERSEDED))
    assert again == first
    assert rig.told[0] == rig.told[1]
    assert [e.get("event") for e in logged].count("certificate-revoked") == 1


def test_an_unknown_serial_is_unknown_to_an_administrator_only(rig: CaRig) -> None:
    with pytest.raises(Unknown, match="serial 2a"):
        result_of(rig.ca.certificates.revoke(ADMIN, 42, Reason.UNSPECIFIED))
    with pytest.raises(Forbidden):
        result_of(rig.ca.certificates.revoke(own(), 42, Reason.UNSPECIFIED))
    with pytest.raises(NoProof):
        result_of(rig.ca.certificates.revoke(anonymous("x"), 42, Reason.UNSPECIFIED))
    assert rig.told == []


def test_many_are_revoked_in_one_step_and_told_at_once(rig: CaRig, logged: list[LogEvent]) -> None:
    leaves = [rig.sign(MESH.member("service", f"s{n}"))[0].serial_number for n in range(5)]
    result_of(rig.ca.certificates.revoke(ADMIN, leaves[0], Reason.UNSPECIFIED))
    rig.endpoint.numbers.clear()
    rig.order.clear()
    revoked = result_of(rig.ca.certificates.revoke_all(ADMIN, [*leaves, 42], Reason.SUPERSEDED))
    assert rig.order == ["find_all", "RevokeAll"]
    assert rig.endpoint.numbers == [5], "all are told again, as by one revocation that is repeated"
    reasons = [found.reason for found in revoked]
    assert reasons.count(Reason.SUPERSEDED) == 4
    (event,) = [e for e in logged if e.get("event") == "certificates-revoked"]
    assert event["count"] == 4
    assert event["spiffe_ids"].endswith(", …")
    objects = [told["object"] for told in entries(rig) if told["act"] == "revoke"]
    assert sorted(objects) == sorted(map(serial_hex, leaves))
    assert [told["facts"]["reason"] for told in entries(rig) if told["act"] == "revoke"] == [
        "unspecified", *["superseded"] * 4,
    ]  # fmt: skip


def test_a_workload_revokes_its_own_certificates_and_no_others(rig: CaRig) -> None:
    mine, *_ = rig.sign()
    other, *_ = rig.sign(MESH.member("service", "other"))
    result_of(rig.ca.certificates.revoke(own(), mine.serial_number, Reason.SUPERSEDED))
    with pytest.raises(Forbidden, match="own-certificate-only"):
        result_of(rig.ca.certificates.revoke(own(), other.serial_number, Reason.SUPERSEDED))
    assert [r.serial for r in rig.told] == [mine.serial_number]


def test_a_revocation_that_is_not_stored_is_not_told(rig: CaRig) -> None:
    leaf, *_ = rig.sign()
    rig.store.broken = {"Revoke"}
    with pytest.raises(StoreError):
        result_of(rig.ca.certificates.revoke(ADMIN, leaf.serial_number, Reason.UNSPECIFIED))
    assert rig.told == []


def test_the_feed_begins_anew_for_a_position_of_another_store(rig: CaRig) -> None:
    leaf, *_ = rig.sign()
    result_of(rig.ca.certificates.revoke(ADMIN, leaf.serial_number, Reason.UNSPECIFIED))
    feed = result_of(rig.ca.record.revocations(0))
    assert [r.serial for r in feed.revocations] == [leaf.serial_number]
    assert result_of(rig.ca.record.revocations(feed.position, feed.store)).revocations == ()
    assert result_of(rig.ca.record.revocations(feed.position)).revocations == ()
    anew = result_of(rig.ca.record.revocations(feed.position, "another store"))
    assert anew == feed


# Health.


# The log and the issuance log.


def test_the_log_tells_what_was_asked_and_what_was_given(
    rig: CaRig, logged: list[LogEvent]
) -> None:
    rig.sign()
    assert [event["event"] for event in logged] == ["csr-received", "certificate-signed"]
    asked, given = map(event_text, logged)
    assert asked == (
        "Received CSR:\n  Subject: CN=backend\n  Requested SAN: spiffe://mesh.local/service/backend\n"
        "  From: administrator (unix:uid:0)"
    )
    assert "SAN URI: spiffe://mesh.local/service/backend" in given
    assert "Expires: 2026-11-23T11:00:00Z" in given
    assert "BEGIN" not in asked + given


def test_each_certificate_is_one_line_of_json(rig: CaRig, tmp_path: Path) -> None:
    rig.log_to(tmp_path / "issued.jsonl")
    leaves = [rig.sign()[0] for _ in range(2)]
    lines = (tmp_path / "issued.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [
        {
            "time": "2026-11-23T10:00:00Z",
            "serial": serial_hex(leaf.serial_number),
            "spiffe_id": str(BACKEND),
            "subject": "CN=backend",
            "expires_at": "2026-11-23T11:00:00Z",
            "requester": "unix:uid:0",
        }
        for leaf in leaves
    ]


def test_the_issuance_log_is_tried_at_the_start_and_appended_to(tmp_path: Path) -> None:
    path = tmp_path / "issued.jsonl"
    path.write_text("before\n")
    IssuanceLog(path).open()
    assert path.read_text() == "before\n"
    with pytest.raises(StateError, match=r"the issuance log .* cannot be written .Is a directory"):
        IssuanceLog(tmp_path).open()


def test_a_certificate_that_cannot_be_logged_does_not_leave(rig: CaRig, tmp_path: Path) -> None:
    rig.log_to(tmp_path / "gone" / "issued.jsonl")
    with pytest.raises(StateError, match="issuance log"):
        rig.sign()
    (record,) = records(rig)
    assert record.status(NOW) is Status.VALID
    result_of(rig.ca.certificates.revoke(ADMIN, record.serial, Reason.SUPERSEDED))


def test_a_full_disk_tears_no_line_of_the_issuance_log(rig: CaRig, tmp_path: Path) -> None:
    path = tmp_path / "issued.jsonl"
    rig.log_to(path)
    rig.sign()
    whole = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(whole) + 10, limits[1]))
    try:
        with pytest.raises(StateError, match="issuance log"):
            rig.sign()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert path.read_bytes() == whole
    rig.sign()
    assert all(json.loads(line) for line in path.read_text().splitlines())


def test_listing_asks_the_store(rig: CaRig) -> None:
    rig.sign()
    page = result_of(rig.ca.record.certificates(Query(now=NOW, spiffe_id=MESH.member("nobody"))))
    assert page.certificates == ()
    rig.store.broken = {"list"}
    with pytest.raises(StoreError):
        result_of(settled(rig.store.list(Query(now=NOW))))


# The audit log.


def entries(rig: CaRig) -> list[dict[str, Any]]:
    result_of(rig.log.extend())
    listed, _ = result_of(settled(rig.store.log_entries(0, 1000)))
    return [json.loads(logged.entry) for logged in listed]


def test_an_issue_is_in_the_log_with_the_digest_of_what_was_signed(rig: CaRig) -> None:
    leaf, *_ = rig.sign()
    (entry,) = entries(rig)
    assert entry == {
        "act": "issue",
        "actor": "unix:uid:0",
        "at": entry["at"],
        "object": serial_hex(leaf.serial_number),
        "facts": {
            "expires_at": rfc3339(leaf.not_valid_after_utc),
            "issuer": rig.ca.authorities.issuing.key_id,
            "spiffe_id": str(BACKEND),
            "tbs": hashlib.sha256(leaf.tbs_certificate_bytes).hexdigest(),
        },
    }


def test_a_renewal_says_by_which_certificate(rig: CaRig) -> None:
    first, *_ = rig.sign()
    rig.sign(principal=own(first.serial_number))
    assert [entry["act"] for entry in entries(rig)] == ["issue", "renew"]
    assert entries(rig)[1]["actor"] == f"x509:{BACKEND} serial {serial_hex(first.serial_number)}"


def test_a_revocation_is_in_the_log_once(rig: CaRig) -> None:
    leaf, *_ = rig.sign()
    for _ in range(2):
        result_of(rig.ca.certificates.revoke(ADMIN, leaf.serial_number, Reason.SUPERSEDED))
    _, revoked = entries(rig)
    assert (revoked["act"], revoked["object"]) == ("revoke", serial_hex(leaf.serial_number))
    assert revoked["facts"] == {"spiffe_id": str(BACKEND), "reason": "superseded"}


def test_what_is_refused_by_the_store_is_not_in_the_log(rig: CaRig) -> None:
    rig.store.broken = {"RecordIssue"}
    with pytest.raises(StoreError):
        rig.sign()
    rig.store.broken = set()
    assert entries(rig) == []


# The caller's certificate, at the moment of the record.


def test_whoever_was_revoked_a_moment_ago_renews_nothing(rig: CaRig) -> None:
    first, *_ = rig.sign()
    result_of(rig.ca.certificates.revoke(ADMIN, first.serial_number, Reason.SUPERSEDED))
    rig.order.clear()
    with pytest.raises(Revoked, match="revoked meanwhile"):
        rig.sign(principal=own(first.serial_number))
    assert rig.order == ["find", *ISSUING]
    assert len(records(rig)) == 1


# Requests that are repeated.


def again(rig: CaRig, key: str = "once", principal: Any = ADMIN, csr: bytes | None = None) -> Any:
    csr = csr or REPEATED
    return result_of(rig.ca.certificates.sign(principal, csr, str(BACKEND), None, key)).chain


REPEATED = build_csr(key(9), BACKEND)


def test_a_repeated_request_gets_the_same_certificate(rig: CaRig) -> None:
    first = again(rig)
    assert again(rig) == first
    assert len(records(rig)) == 1


@pytest.mark.parametrize(
    "change",
    [{"key": "twice"}, {"principal": own()}, {"csr": build_csr(key(8), BACKEND)}],
    ids=["another key", "another caller", "another CSR"],
)
def test_another_request_gets_another_certificate(rig: CaRig, change: Any) -> None:
    first = again(rig)
    assert again(rig, **change) != first
    assert len(records(rig)) == 2


def test_a_caller_that_renewed_meanwhile_is_still_the_same_caller(rig: CaRig) -> None:
    first, second = (rig.sign()[0].serial_number for _ in range(2))
    assert again(rig, principal=own(first)) == again(rig, principal=own(second))


@pytest.mark.parametrize("over", ["revoked", "expired"])
def test_a_repeated_request_is_not_answered_with_what_is_over(rig: CaRig, over: str) -> None:
    leaf, *_ = again(rig)
    if over == "revoked":
        result_of(rig.ca.certificates.revoke(ADMIN, leaf.serial_number, Reason.SUPERSEDED))
    else:
        rig.time += 2 * HOUR
    with pytest.raises(Conflict, match=f"is {over}: use another"):
        again(rig)


def test_a_request_repeated_while_it_is_under_way_waits_for_its_outcome(rig: CaRig) -> None:
    asked: list[Deferred[Any]] = []
    signing = rig.signer.held = Deferred()
    for _ in range(3):
        asked.append(
            Deferred.fromCoroutine(
                rig.ca.certificates.sign(ADMIN, REPEATED, str(BACKEND), None, "once")
            )
        )
    assert not any(deferred.called for deferred in asked)
    signing.callback(None)
    chains = [result_of(settled(deferred)) for deferred in asked]
    assert chains[0] == chains[1] == chains[2]
    assert len(records(rig)) == 1


def test_a_request_that_failed_may_be_repeated(rig: CaRig) -> None:
    rig.store.broken = {"RecordIssue"}
    with pytest.raises(StoreError):
        again(rig)
    rig.store.broken = set()
    assert again(rig)


# Intents that nobody finishes.


@pytest.mark.usefixtures("elsewhere")
def test_an_intent_without_a_certificate_is_written_off_and_revoked(
    rig: CaRig, logged: list[LogEvent]
) -> None:
    rig.store.broken = {"RecordCertificate"}
    with pytest.raises(StoreError):
        again(rig)
    rig.store.broken = set()
    with pytest.raises(StoreError, match="is being resolved"):
        again(rig)
    assert result_of(rig.ca.write_offs.resolve()) == 1
    (record,) = records(rig)
    assert record.status(NOW) is Status.REVOKED
    assert [revocation.serial for revocation in rig.told] == [record.serial]
    assert [entry["act"] for entry in entries(rig)] == ["issue", "write-off"]
    assert "intent-written-off" in [event.get("event") for event in logged]
    assert result_of(rig.ca.write_offs.resolve()) == 0
    leaf, *_ = again(rig)
    assert leaf.serial_number != record.serial


@pytest.mark.usefixtures("elsewhere")
def test_an_intent_whose_signature_is_under_way_is_left_alone(rig: CaRig) -> None:
    signing = rig.signer.held = Deferred()
    asked = Deferred.fromCoroutine(rig.ca.certificates.sign(ADMIN, REPEATED, str(BACKEND), None))
    assert result_of(rig.ca.write_offs.resolve()) == 0
    signing.errback(SigningFailed("the token is gone"))
    with pytest.raises(SigningFailed):
        result_of(settled(asked))
    assert result_of(rig.ca.write_offs.resolve()) == 1


@pytest.mark.usefixtures("elsewhere")
def test_a_written_off_intent_takes_no_certificate_any_more(rig: CaRig) -> None:
    signing = rig.signer.held = Deferred()
    asked = Deferred.fromCoroutine(rig.ca.certificates.sign(ADMIN, REPEATED, str(BACKEND), None))
    rig.ca.issuance.under_way.clear()  # as another process would see it
    assert result_of(rig.ca.write_offs.resolve()) == 1
    signing.callback(None)
    with pytest.raises(Unknown):
        result_of(settled(asked))


@pytest.mark.usefixtures("elsewhere")
def test_an_intent_that_got_its_certificate_meanwhile_stops_no_write_off(rig: CaRig) -> None:
    """What was open when it was read may be finished when that is answered."""
    rig.store.broken = {"RecordCertificate"}
    for _ in range(2):
        with pytest.raises(StoreError):
            rig.sign()
    rig.store.broken = set()
    first, second = rig.calls.result(rig.store.store.open_intents())
    ask = rig.store.store.open_intents

    def too_late(limit: int = 1000) -> Any:
        rig.store.store.open_intents = ask
        rig.calls.result(rig.store.store.apply(RecordCertificate(first.id, b"finished")))
        return succeed((first, second))

    rig.store.store.open_intents = too_late
    assert result_of(rig.ca.write_offs.resolve()) == 1
    statuses = {record.serial: record.status(NOW) for record in records(rig)}
    assert statuses == {
        first.certificate.serial: Status.VALID,
        second.certificate.serial: Status.REVOKED,
    }


@pytest.mark.usefixtures("elsewhere")
def test_every_intent_is_resolved_however_many_there_are(rig: CaRig) -> None:
    rig.store.broken = {"RecordCertificate"}
    for _ in range(5):
        with pytest.raises(StoreError):
            rig.sign()
    rig.store.broken = set()
    ask = rig.store.store.open_intents
    rig.store.store.open_intents = lambda limit=1000: ask(2)
    assert result_of(rig.ca.write_offs.resolve()) == 5
    assert {record.status(NOW) for record in records(rig)} == {Status.REVOKED}


# What the right rests on, at the moment of the record.


@pytest.mark.parametrize("whose", ["entry of a user", "default entry of an administrator"])
def test_a_right_that_ends_while_the_request_waits_its_turn_buys_nothing(
    rig: CaRig, whose: str
) -> None:
    entries, uid = rig.ca.entries, Selector("unix:uid", "77")
    if whose == "entry of a user":
        right = entry("a" * 16, str(uid), BACKEND)
        result_of(entries.create(ADMIN, right, ""))
        caller = Principal(Kind.WORKLOAD, str(uid), selectors=frozenset({uid}))
    else:
        right = entry(DEFAULT_ENTRY, "unix:uid:0", f"spiffe://{MESH}/other/**")
        result_of(entries.settle_default(right))
        caller = administrator("unix:uid:0", frozenset({Selector("unix:uid", "0")}))
    rig.ca.certificates.fair_queue.most = 1
    result_of(rig.ca.certificates.fair_queue.acquire("somebody else"))
    outcome: list[Any] = []
    csr = build_csr(key(9), BACKEND)
    signing = rig.ca.certificates.sign(caller, csr, str(BACKEND), None)
    Deferred.fromCoroutine(signing).addBoth(outcome.append)
    assert outcome == []
    result_of(entries.delete(ADMIN, right.id, ""))
    rig.ca.certificates.fair_queue.release("somebody else")
    (failure,) = outcome
    assert failure.check(EntryGone), failure
    assert rig.order[-2:] == ISSUING
    assert records(rig) == []


# Whose CSR is looked at.

#: Of no entry.
STRANGER = MESH.member("other", "stranger")


@pytest.mark.parametrize(
    ("principal", "spiffe_id", "rule"),
    [
        (anonymous("unix:uid:7", frozenset({Selector("unix:uid", "7")})), BACKEND, "no-entry"),
        (anonymous("tls:no-certificate"), BACKEND, None),
        (own(spiffe_id=STRANGER), STRANGER, "no-entry"),
        (own(spiffe_id=STRANGER), BACKEND, "own-identity-only"),
        (administrator("unix:uid:0", issues=False), BACKEND, "no-entry"),
    ],
)
def test_a_csr_of_whoever_has_no_right_is_not_even_decoded(
    rig: CaRig, principal: Principal, spiffe_id: SpiffeId, rule: str | None
) -> None:
    refusal = NoProof if rule is None else Forbidden
    for csr in (build_csr(key(9), spiffe_id), b"nonsense"):
        with patch("pki.issuing.csr.load_csr") as decode, pytest.raises(refusal) as refused:
            result_of(rig.ca.certificates.sign(principal, csr, str(spiffe_id), None))
        assert getattr(refused.value, "rule", None) == rule
        decode.assert_not_called()


def test_whoever_has_a_right_is_told_all_that_is_wrong(rig: CaRig) -> None:
    csr = build_csr(key(9), MESH.member("service", "other"))
    with pytest.raises(Refused) as refused:
        result_of(rig.ca.certificates.sign(ADMIN, csr, "spiffe://mesh.local/mesh/x", 99 * DAY))
    codes = {problem.code for problem in refused.value.problems}
    assert codes == {"reserved-id", "wrong-uri", "ttl-out-of-range"}


def named(entry_id: str, common_name: str, path: str = "db") -> RegistrationEntry:
    members = EntryMembers(
        selectors=["unix:uid:7"],
        spiffe_id=f"spiffe://{MESH}/service/{path}",
        common_name=common_name,
    )
    return read_entry(entry_id, MESH, members)


def test_a_common_name_is_one_entrys(rig: CaRig) -> None:
    rig.found()
    entries = rig.ca.entries
    result_of(entries.create(ADMIN, named("a", "db.main"), ""))
    with pytest.raises(NameTaken, match="common name of the entry a already"):
        result_of(entries.create(ADMIN, named("b", "db.main", "other"), ""))
    with pytest.raises(NameTaken, match="entry a already"):
        result_of(entries.replace_filed([named("file.c", "db.main", "third")]))
    with pytest.raises(NameTaken, match=r"entry file\.d already"):
        result_of(entries.replace_filed([named("file.d", "x"), named("file.e", "x", "third")]))
    result_of(entries.delete(ADMIN, "a", ""))
    result_of(entries.create(ADMIN, named("b", "db.main", "other"), ""))


def test_an_entrys_common_name_is_the_subject(rig: CaRig) -> None:
    rig.found()
    spiffe_id = SpiffeId.parse(f"spiffe://{MESH}/service/db")
    made = result_of(rig.ca.entries.create(ADMIN, named("a", "db.main"), ""))
    caller = evolve(workload(spiffe_id, 1), entry=made.entry.id, selectors=made.entry.selectors)
    leaf = rig.sign(spiffe_id, caller)[0]
    assert leaf.subject.rfc4514_string() == "CN=db.main"
    (kept,) = [known for known in records(rig) if known.entry == "a"]
    assert kept.subject == "CN=db.main"
