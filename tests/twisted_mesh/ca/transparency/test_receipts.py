"""Each certificate is on record as an intent, shown to logs, given their SCTs, and then it is issued."""

import hashlib
from collections.abc import Callable
from datetime import timedelta

import pytest
from twisted.internet.defer import CancelledError
from twisted.logger import LogEvent

from pki.audit.log import Act, Entry
from pki.ct.entry import signed_entry_of
from pki.ct.errors import BadSct, NotAcceptedHere
from pki.ct.log_list import LogList
from pki.ct.receipt import SctDemand
from pki.ct.sct import scts_of
from pki.keys import SigningFailed
from pki.svid.revocation_set import Reason
from tests.authorities import NOW, key
from tests.twisted_mesh.ca.rigs import CaRig, result_of, settled
from tests.twisted_mesh.ca.transparency.doors import AWAY, Logged
from twisted_mesh.ca.api.status import status_of
from twisted_mesh.ca.transparency.errors import LogsAway
from twisted_mesh.ca.transparency.receipts import GRACE, WhenAway
from twisted_mesh.ca.transparency.standing import FIRST_PAUSE, LONGEST_PAUSE, MOST_UNDER_WAY
from twisted_mesh.stores.commands import RecordIntent
from twisted_mesh.stores.records import Status, StoreError


def acts(rig: CaRig) -> list[str]:
    result_of(rig.log.extend())
    listed, _ = rig.calls.result(rig.store.store.log_entries(0, 1000))
    return [Entry.parse(logged.entry).act for logged in listed]


def test_intent_precertificate_scts_certificate_record(rig: CaRig) -> None:
    logged = Logged.with_logs(rig)
    leaf, issuer, *_ = rig.sign()
    assert rig.order == ["RecordIntent", "sign", "sign", "RecordCertificate"]
    assert acts(rig) == [Act.ISSUE]
    demand = SctDemand(2, LogList(tuple(door.log for door in logged.doors)))
    assert demand.problems([leaf, issuer], NOW) == ()
    for door in logged.doors:
        ((precertificate, above, *_),) = door.shown
        assert precertificate.serial_number == leaf.serial_number
        assert above == issuer
        assert precertificate.extensions[len(list(precertificate.extensions)) - 1].critical
    (row,) = logged.look()
    assert row.status(NOW) is Status.VALID


def test_digests_on_record_are_of_what_was_drafted(rig: CaRig) -> None:
    _ = Logged.with_logs(rig)
    leaf, issuer, *_ = rig.sign()
    (intent,) = [command for command in rig.store.told if isinstance(command, RecordIntent)]
    entry = signed_entry_of(leaf, issuer)
    assert hashlib.sha256(entry.body).digest() == intent.digest
    assert intent.entry.facts["tbs"] == intent.digest.hex()
    examined = rig.calls.result(rig.store.store.examine(0, 10))
    (row,) = examined.certificates
    assert (row.tbs, row.oddities) == (intent.digest.hex(), ())


def test_an_ocsp_responder_is_shown_to_nobody(rig: CaRig) -> None:
    logged = Logged.with_logs(rig)
    result_of(rig.ca.own.issue_responder(rig.ca.authorities.issuing, key(3)))
    assert rig.order == ["sign", "RecordIssue"]
    assert [door.shown for door in logged.doors] == [[], []]


def test_the_cas_own_certificate_has_scts_too(rig: CaRig) -> None:
    _ = Logged.with_logs(rig)
    leaf, *_ = result_of(rig.ca.own.issue_tls(key(3)))
    assert len(scts_of(leaf)) == 2


def test_one_log_of_two_away_is_503_and_nothing_is_left(rig: CaRig) -> None:
    logged = Logged.with_logs(rig)
    logged.doors[1].error = AWAY
    with pytest.raises(LogsAway, match=r"2 of 2 logs.*nothing listens there") as raised:
        rig.sign()
    assert (status_of(raised.value), raised.value.retry_after) == (503, 1)
    (row,) = logged.look()
    assert (row.status(NOW), row.reason) == (Status.REVOKED, Reason.UNSPECIFIED)
    assert acts(rig) == [Act.ISSUE, Act.WRITE_OFF]
    assert [told.serial for told in rig.told] == [row.serial]
    assert rig.calls.result(rig.store.store.open_intents()) == ()


def test_what_is_known_to_be_away_costs_no_serial(rig: CaRig) -> None:
    logged = Logged.with_logs(rig)
    logged.doors[1].error = AWAY
    for _ in range(3):
        with pytest.raises(LogsAway):
            rig.sign()
    assert rig.order.count("RecordIntent") == 1
    assert len(logged.look()) == 1


def test_it_is_asked_again_with_a_pause_that_grows_by_one_certificate_at_a_time(rig: CaRig) -> None:
    logged = Logged.with_logs(rig, 1, 1)
    (door,) = logged.doors
    door.error = AWAY
    pauses = [FIRST_PAUSE]
    while pauses[-1] < LONGEST_PAUSE:
        pauses.append(min(2 * pauses[-1], LONGEST_PAUSE))
    for asked, pause in enumerate(pauses, 1):
        with pytest.raises(LogsAway):
            rig.sign()
        assert len(door.shown) == asked
        logged.clock.advance(pause - 0.01)
        with pytest.raises(LogsAway):
            rig.sign()
        assert len(door.shown) == asked
        logged.clock.advance(0.01)
    door.error, door.is_held = None, True
    trial = logged.begun()
    with pytest.raises(LogsAway):
        rig.sign()
    door.is_held = False
    door.answer()
    assert result_of(settled(trial)).serial
    rig.sign()


def test_a_quorum_of_two_of_three_goes_on_without_one(rig: CaRig, logged: list[LogEvent]) -> None:
    ca = Logged.with_logs(rig, 3, 2)
    assert len(scts_of(rig.sign()[0])) == 3, "one to spare is taken, too"
    ca.doors[0].error = AWAY
    for _ in range(3):
        assert len(scts_of(rig.sign()[0])) == 2
    assert len(ca.doors[0].shown) == 2, "it is left alone"
    ca.clock.advance(FIRST_PAUSE)
    ca.doors[0].error = None
    assert len(scts_of(rig.sign()[0])) == 3
    told = [event["event"] for event in logged if str(event.get("event")).startswith("log-")]
    assert told == ["log-away", "log-back"]


def test_a_slow_log_to_spare_is_waited_for_once(rig: CaRig) -> None:
    ca = Logged.with_logs(rig, 3, 2)
    slow = ca.doors[2]
    slow.is_held = True
    first = ca.begun()
    assert not first.called
    ca.clock.advance(GRACE)
    assert len(scts_of(result_of(settled(first)).chain[0])) == 2
    slow.answer()
    second = ca.begun()
    assert second.called, "nobody waits for it again"
    slow.is_held = False
    slow.answer()
    assert len(scts_of(rig.sign()[0])) == 3, "it is quick again, which is known by the last one"


def test_a_log_that_hangs_is_given_up_in_time(rig: CaRig) -> None:
    ca = Logged.with_logs(rig)
    ca.doors[0].is_held = True
    asked = ca.begun()
    ca.clock.advance(2.9)
    assert not asked.called
    ca.clock.advance(0.1)
    with pytest.raises(LogsAway, match="no SCT within 3 s"):
        result_of(settled(asked))
    assert ca.is_settled()


def test_a_log_that_hangs_does_not_keep_a_thousand_requests(rig: CaRig) -> None:
    ca = Logged.with_logs(rig, 1, 1)
    (standing,) = ca.receipts.logs
    for _ in range(MOST_UNDER_WAY):
        standing.begin()
    with pytest.raises(LogsAway, match="too much is under way"):
        rig.sign()
    assert rig.order == []


@pytest.mark.parametrize("off", [timedelta(minutes=6), timedelta(minutes=-6)])
def test_an_sct_of_another_time_does_not_count(rig: CaRig, off: timedelta) -> None:
    ca = Logged.with_logs(rig)
    ca.doors[0].now = lambda: rig.time + off
    with pytest.raises(LogsAway, match=r"6m 0s .*compare the two machines' clocks"):
        rig.sign()
    assert ca.receipts.logs[0].outcomes == {"bad-sct": 1}


def test_what_a_log_refuses_and_what_proves_nothing_is_counted_apart(rig: CaRig) -> None:
    ca = Logged.with_logs(rig, 3, 1)
    ca.doors[1].error = NotAcceptedHere("another root")
    ca.doors[2].error = BadSct("another log's")
    rig.sign()
    assert [dict(log.outcomes) for log in ca.receipts.logs] == [
        {"sct": 1},
        {"refused": 1},
        {"bad-sct": 1},
    ]


def test_without_enough_logs_it_is_issued_loudly_where_somebody_has_said_so(
    rig: CaRig, logged: list[LogEvent]
) -> None:
    ca = Logged.with_logs(rig, 2, 2, WhenAway.ISSUE)
    ca.doors[0].error = AWAY
    assert [sct.log_id for sct in scts_of(rig.sign()[0])] == [ca.doors[1].log.log_id]
    ca.doors[1].error = AWAY
    assert scts_of(rig.sign()[0]) == ()
    assert scts_of(rig.sign()[0]) == (), "nobody is asked, and it is told all the same"
    told = [event for event in logged if event.get("event") == "issued-without-scts"]
    assert [event["found"] for event in told] == [1, 0, 0]
    assert ca.receipts.issued_without == 3
    assert [row.status(NOW) for row in ca.look()] == [Status.VALID] * 3


def _log_away(ca: Logged) -> None:
    ca.doors[1].error = AWAY


def _key_breaks(ca: Logged) -> None:
    def gone() -> bytes:
        raise SigningFailed("the key is gone")

    ca.rig.signer.breaks = gone


def _store_breaks(ca: Logged) -> None:
    ca.rig.store.broken = {"RecordCertificate"}


@pytest.mark.parametrize("breaks", [_log_away, _key_breaks, _store_breaks])
def test_wherever_it_ends_the_serial_is_written_off(
    rig: CaRig, breaks: Callable[[Logged], None]
) -> None:
    ca = Logged.with_logs(rig)
    breaks(ca)
    with pytest.raises((LogsAway, SigningFailed, StoreError)):
        rig.sign()
    (row,) = ca.look()
    assert row.status(NOW) is Status.REVOKED
    assert [told.serial for told in rig.told] == [row.serial]


def test_where_it_cannot_be_written_off_at_once_housekeeping_does(rig: CaRig) -> None:
    ca = Logged.with_logs(rig)
    ca.doors[0].error = AWAY
    rig.store.broken = {"WriteOff"}
    with pytest.raises(LogsAway):
        rig.sign()
    assert ca.look()[0].status(NOW) is Status.PENDING
    rig.store.broken = set()
    assert ca.is_settled()
    assert ca.look()[0].status(NOW) is Status.REVOKED


def test_a_bug_in_asking_a_log_keeps_nobody_waiting(rig: CaRig) -> None:
    ca = Logged.with_logs(rig)
    ca.doors[0].error = ZeroDivisionError("a bug")  # type: ignore[assignment]
    with pytest.raises(LogsAway, match="log-1: asking it broke, by a bug of ours"):
        rig.sign()
    assert ca.is_settled()


def test_whoever_hangs_up_leaves_nothing_open(rig: CaRig) -> None:
    ca = Logged.with_logs(rig)
    ca.doors[0].is_held = True
    asked = ca.begun()
    asked.cancel()
    with pytest.raises(CancelledError):
        result_of(settled(asked))
    ca.doors[0].answer()
    assert ca.is_settled()
    assert rig.ca.issuance.under_way == set()


def test_a_repeated_request_gets_another_certificate_after_a_503(rig: CaRig) -> None:
    ca = Logged.with_logs(rig)
    ca.doors[0].error = AWAY
    with pytest.raises(LogsAway):
        result_of(settled(ca.begun(idempotency_key="once")))
    ca.doors[0].error = None
    ca.clock.advance(FIRST_PAUSE)
    issued = result_of(settled(ca.begun(idempotency_key="once")))
    assert len(scts_of(issued.chain[0])) == 2


@pytest.mark.parametrize("of", ["the key", "the store"])
def test_a_key_or_a_store_of_others_changes_nothing(rig: CaRig, of: str) -> None:
    _ = Logged.with_logs(rig)
    rig.signer.is_in_memory = of != "the key"
    rig.store.is_shared = of == "the store"
    rig.sign()
    assert rig.order == ["RecordIntent", "sign", "sign", "RecordCertificate"]
