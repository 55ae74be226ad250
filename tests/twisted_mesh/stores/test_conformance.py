"""What every store does when it is told something, whatever it keeps its tables in."""

from typing import Any

import pytest
from attrs import evolve
from sqlalchemy import create_engine
from twisted.internet.defer import CancelledError
from zope.interface.verify import verifyObject

from pki.audit.log import Act, Entry
from pki.svid.revocation_set import Reason, Revocation
from tests.twisted_mesh.stores.certificates import (
    DIGEST,
    HOUR,
    ISSUER,
    LATER,
    NOW,
    OTHER_ISSUER,
    WEB,
    acts,
    der,
    entry,
    intent,
    issued,
    outcome,
    record,
    revoke,
    revoke_all,
    signed,
    write_off,
)
from tests.twisted_mesh.support import ThreadCalls
from twisted_mesh.stores import log, reading
from twisted_mesh.stores.commands import (
    Command,
    Probe,
    Prune,
    RecordAct,
    RecordCertificate,
    TakeCrlNumber,
)
from twisted_mesh.stores.interface import IStore
from twisted_mesh.stores.records import (
    Conflict,
    LastCrl,
    OpenIntent,
    Query,
    Revoked,
    Status,
    Unknown,
)
from twisted_mesh.stores.schema import create
from twisted_mesh.stores.sql import SqlStore


def test_it_is_an_istore(store: SqlStore) -> None:
    assert verifyObject(IStore, store)


def test_an_intent_is_pending_until_the_certificate_comes(
    store: SqlStore, calls: ThreadCalls
) -> None:
    command = intent(1 << 126)
    number = calls.result(store.apply(command))
    pending = calls.result(store.find(1 << 126))
    assert pending == command.certificate
    assert pending.is_pending
    assert pending.status(NOW) is Status.PENDING
    assert calls.result(store.apply(RecordCertificate(number, der(1 << 126)))) is None
    found = calls.result(store.find(1 << 126))
    assert found == signed(1 << 126)
    assert not found.is_pending
    assert found.status(NOW) is Status.VALID


@pytest.mark.parametrize("serial", [0, 1, 0xAB, (1 << 160) - 1])
def test_any_serial_of_20_bytes_is_kept_exactly(
    store: SqlStore, calls: ThreadCalls, serial: int
) -> None:
    record(store, calls, issued(serial))
    assert calls.result(store.find(serial)) == issued(serial)


@pytest.mark.parametrize("serial", [-1, 1 << 160])
def test_what_is_no_serial_is_not_kept_and_not_found(
    store: SqlStore, calls: ThreadCalls, serial: int
) -> None:
    assert isinstance(calls.outcome(store.apply(intent(serial))), ValueError)
    assert calls.result(store.find(serial)) is None
    assert isinstance(calls.outcome(store.apply(revoke(serial))), Unknown)
    assert acts(store, calls) == []


@pytest.mark.parametrize("issuer", [ISSUER, OTHER_ISSUER])
def test_a_serial_is_given_out_once(
    store: SqlStore, calls: ThreadCalls, issuer: str, others: list[Command]
) -> None:
    record(store, calls, signed(7))
    error = outcome(store, calls, intent(7, issuer=issuer, spiffe_id=WEB), others)
    assert isinstance(error, Conflict)
    assert error.code == "conflict"
    assert calls.result(store.find(7)) == signed(7)


def test_a_request_is_recorded_once(
    store: SqlStore, calls: ThreadCalls, others: list[Command]
) -> None:
    assert calls.result(store.find_request("mine")) is None
    calls.result(store.apply(intent(7, request_key="mine")))
    error = outcome(store, calls, intent(8, request_key="mine"), others)
    assert isinstance(error, Conflict)
    assert error.code == "conflict"
    assert calls.result(store.find_request("mine")) == issued(7)
    assert calls.result(store.find(8)) is None


def test_of_two_equal_requests_at_once_one_is_recorded(store: SqlStore, calls: ThreadCalls) -> None:
    told = [store.apply(intent(n, request_key="mine")) for n in (7, 8)]
    first, second = map(calls.outcome, told)
    assert isinstance(first, int)
    assert isinstance(second, Conflict)
    assert calls.result(store.find_request("mine")) == issued(7)


def test_what_is_revoked_buys_no_renewal(
    store: SqlStore, calls: ThreadCalls, others: list[Command]
) -> None:
    record(store, calls, signed(7), signed(8))
    calls.result(store.apply(revoke(7)))
    error = outcome(store, calls, intent(9, renews=7), others)
    assert isinstance(error, Revoked)
    assert error.code == "revoked"
    assert calls.result(store.find(9)) is None
    assert isinstance(calls.result(store.apply(intent(9, renews=8))), int)


def test_a_revocation_told_before_a_renewal_is_known_to_it(
    store: SqlStore, calls: ThreadCalls
) -> None:
    record(store, calls, signed(7))
    commands: list[Command] = [intent(8, renews=7), revoke(7), intent(9, renews=7), intent(10)]
    outcomes = [calls.outcome(told) for told in [store.apply(command) for command in commands]]
    assert [type(outcome).__name__ for outcome in outcomes] == [
        "int",
        "IssuedCertificate",
        "Revoked",
        "int",
    ]


def test_a_certificate_without_an_open_intent_is_unknown(
    store: SqlStore, calls: ThreadCalls, others: list[Command]
) -> None:
    recorded, written_off = record(store, calls, signed(7), issued(8))
    calls.result(store.apply(write_off(written_off)))
    for number in (recorded, written_off, written_off + 1000, -1, 0):
        error = outcome(store, calls, RecordCertificate(number, der(9)), others)
        assert isinstance(error, Unknown)
        assert error.code == "not-found"
        others.clear()
    assert calls.result(store.find(7)) == signed(7)
    assert calls.result(store.find(8)).der is None


def test_of_two_certificates_for_an_intent_the_first_is_kept(
    store: SqlStore, calls: ThreadCalls
) -> None:
    (number,) = record(store, calls, issued(7))
    told = [store.apply(RecordCertificate(number, der(n))) for n in (7, 8)]
    first, second = map(calls.outcome, told)
    assert first is None
    assert isinstance(second, Unknown)
    assert calls.result(store.find(7)) == signed(7)


def test_open_intents_are_told_with_what_was_to_be_signed(
    store: SqlStore, calls: ThreadCalls
) -> None:
    numbers = record(store, calls, issued(7), signed(8), issued(9), issued(10))
    calls.result(store.apply(revoke(9)))
    calls.result(store.apply(write_off(numbers[3])))
    revoked = issued(9, revoked_at=NOW, reason=Reason.SUPERSEDED)
    seven, nine = OpenIntent(numbers[0], issued(7), DIGEST), OpenIntent(numbers[2], revoked, DIGEST)
    assert calls.result(store.open_intents()) == (seven, nine)
    assert calls.result(store.open_intents(1)) == (seven,)


def test_writing_off_revokes_and_tells_the_feed(
    store: SqlStore, calls: ThreadCalls, others: list[Command]
) -> None:
    (number,) = record(store, calls, issued(7))
    gone = outcome(store, calls, write_off(number, at=LATER), others)
    assert gone == issued(7, is_pending=False, revoked_at=LATER, reason=Reason.UNSPECIFIED)
    assert gone.status(LATER) is Status.REVOKED
    assert calls.result(store.find(7)) == gone
    assert [r.serial for r in calls.result(store.feed(0)).revocations] == [7]
    assert (Act.WRITE_OFF, f"{number:x}") in acts(store, calls)
    assert isinstance(calls.outcome(store.apply(write_off(number))), Unknown)
    assert [act for act, _ in acts(store, calls)].count(Act.WRITE_OFF) == 1


def test_writing_off_frees_the_request(store: SqlStore, calls: ThreadCalls) -> None:
    number = calls.result(store.apply(intent(7, request_key="mine")))
    told = [store.apply(write_off(number)), store.apply(intent(8, request_key="mine"))]
    for answer in told:
        calls.result(answer)
    assert calls.result(store.find_request("mine")) == issued(8)


def test_writing_off_what_was_revoked_keeps_the_first_revocation(
    store: SqlStore, calls: ThreadCalls
) -> None:
    (number,) = record(store, calls, issued(7))
    calls.result(store.apply(revoke(7)))
    gone = calls.result(store.apply(write_off(number, at=LATER)))
    assert (gone.revoked_at, gone.reason) == (NOW, Reason.SUPERSEDED)
    assert calls.result(store.feed(0)).position == 1
    assert [act for act, _ in acts(store, calls)] == [Act.ISSUE, Act.REVOKE, Act.WRITE_OFF]
    assert calls.result(store.open_intents()) == ()


def test_the_first_revocation_wins(store: SqlStore, calls: ThreadCalls) -> None:
    record(store, calls, signed(7))
    first = calls.result(store.apply(revoke(7)))
    assert first == signed(7, revoked_at=NOW, reason=Reason.SUPERSEDED)
    again = revoke(7, at=LATER, reason=Reason.SUPERSEDED)
    assert calls.result(store.apply(again)) == first
    assert calls.result(store.find(7)) == first
    assert calls.result(store.feed(0)).position == 1
    assert acts(store, calls) == [(Act.ISSUE, "7"), (Act.REVOKE, "7")]


def test_revoking_what_was_never_issued_is_refused(store: SqlStore, calls: ThreadCalls) -> None:
    record(store, calls, issued(7))
    for command in (revoke(8), revoke(7, issuer=OTHER_ISSUER)):
        error = calls.outcome(store.apply(command))
        assert isinstance(error, Unknown)
        assert error.code == "not-found"
    assert calls.result(store.feed(0)).revocations == ()
    assert acts(store, calls) == [(Act.ISSUE, "7")]


def test_many_are_revoked_in_one_step_and_each_is_an_act(
    store: SqlStore, calls: ThreadCalls, others: list[Command]
) -> None:
    record(store, calls, signed(7), issued(8), signed(9), signed(10))
    first = calls.result(store.apply(revoke(9)))
    told = revoke_all(10, 11, 9, 8, -1, 10, at=LATER, reason=Reason.SUPERSEDED)
    revoked = outcome(store, calls, told, others)
    changes: dict[str, Any] = {"der": None, "revoked_at": LATER, "reason": Reason.SUPERSEDED}
    assert revoked == (
        signed(10, **changes),
        evolve(first, der=None),
        issued(8, revoked_at=LATER, reason=Reason.SUPERSEDED),
    )
    assert set(calls.result(store.find_all([8, 9, 10, 11, -1]))) == set(revoked)
    assert calls.result(store.find(10)) == signed(10, **{**changes, "der": der(10)})
    assert [r.serial for r in calls.result(store.feed(0)).revocations] == [9, 10, 8]
    acts_told = [act for act in acts(store, calls) if act[0] is Act.REVOKE]
    assert acts_told == [(Act.REVOKE, f"{serial:x}") for serial in (9, 10, 8)]
    # Repeated, it changes nothing and answers the same.
    assert calls.result(store.apply(evolve(told, at=LATER + HOUR))) == revoked
    assert calls.result(store.feed(0)).position == 3
    assert calls.result(store.apply(revoke_all())) == ()
    assert calls.result(store.find_all([])) == ()


def test_a_thousand_are_revoked_in_one_step(store: SqlStore, calls: ThreadCalls) -> None:
    told = [store.apply(intent(serial)) for serial in range(1, 1001)]
    for answer in told:
        calls.result(answer)
    revoked = calls.result(store.apply(revoke_all(*range(1, 1001))))
    assert [c.serial for c in revoked] == list(range(1, 1001))
    assert calls.result(store.feed(0)).position == 1000


def test_a_pending_certificate_can_be_revoked_and_stays_so(
    store: SqlStore, calls: ThreadCalls
) -> None:
    (number,) = record(store, calls, issued(7))
    pending = calls.result(store.apply(revoke(7, issuer=ISSUER)))
    assert pending.is_pending
    calls.result(store.apply(RecordCertificate(number, der(7))))
    found = calls.result(store.find(7))
    assert found == signed(7, revoked_at=NOW, reason=Reason.SUPERSEDED)
    assert found.status(NOW) is Status.REVOKED


def test_the_feed_gives_what_came_after_a_position(store: SqlStore, calls: ThreadCalls) -> None:
    record(store, calls, *(issued(n) for n in range(1, 4)))
    empty = calls.result(store.feed(0))
    assert (empty.position, empty.revocations) == (0, ())
    for serial in (2, 1, 3):
        calls.result(store.apply(revoke(serial)))
    everything = calls.result(store.feed(0))
    assert everything.store == empty.store == store.id != ""
    assert everything.position == 3
    assert everything.revocations == tuple(
        Revocation(ISSUER, serial, NOW, Reason.SUPERSEDED, NOW + HOUR) for serial in (2, 1, 3)
    )
    for after in (1, 2, 3):
        news = calls.result(store.feed(after))
        assert news.position == 3
        assert news.revocations == everything.revocations[after:]


@pytest.mark.parametrize("after", [4, 1 << 62, 1 << 70, -1])
def test_the_feed_gives_everything_to_whoever_holds_an_unknown_position(
    store: SqlStore, calls: ThreadCalls, after: int
) -> None:
    record(store, calls, issued(1))
    calls.result(store.apply(revoke(1)))
    assert [r.serial for r in calls.result(store.feed(after)).revocations] == [1]


def test_a_long_feed_comes_in_parts(
    store: SqlStore, calls: ThreadCalls, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "FEED_LIMIT", 2)
    record(store, calls, *(issued(n) for n in range(5)))
    for serial in range(5):
        calls.result(store.apply(revoke(serial)))
    position, seen = 0, []
    while news := calls.result(store.feed(position)).revocations:
        position = calls.result(store.feed(position)).position
        seen += [revocation.serial for revocation in news]
    assert (position, seen) == (5, [0, 1, 2, 3, 4])


def test_commands_given_at_once_fail_alone(store: SqlStore, calls: ThreadCalls) -> None:
    _, two = record(store, calls, issued(1), issued(2))
    commands: list[Command] = [
        intent(3),
        intent(1),  # known
        intent(4, subject="\ud800"),  # no database takes that
        intent(-4),
        RecordCertificate(two, der(2)),
        RecordCertificate(900, der(9)),  # no intent
        intent(5),
        evolve(intent(6), entry=evolve(entry(Act.ISSUE), actor="\ud800")),
        intent(5),
        revoke(5),
        revoke(1),
        evolve(revoke(3), entry=evolve(entry(Act.REVOKE), actor="\ud800")),
        revoke(9),
    ]
    outcomes = [calls.outcome(d) for d in [store.apply(command) for command in commands]]
    assert [type(outcome).__name__ for outcome in outcomes] == [
        "int",
        "Conflict",
        "UnicodeEncodeError",
        "ValueError",
        "NoneType",
        "Unknown",
        "int",
        "UnicodeEncodeError",
        "Conflict",
        "IssuedCertificate",
        "IssuedCertificate",
        "UnicodeEncodeError",
        "Unknown",
    ]
    page = calls.result(store.list(Query(NOW)))
    assert [c.serial for c in page.certificates] == [5, 3, 2, 1]
    assert [r.serial for r in calls.result(store.feed(0)).revocations] == [5, 1]
    assert acts(store, calls) == [
        (Act.ISSUE, "1"),
        (Act.ISSUE, "2"),
        (Act.ISSUE, "3"),
        (Act.ISSUE, "5"),
        (Act.REVOKE, "5"),
        (Act.REVOKE, "1"),
    ]


def test_each_act_writes_its_entry_and_nothing_else_does(
    store: SqlStore, calls: ThreadCalls
) -> None:
    first, second = record(store, calls, signed(1), issued(2))
    for command in (
        intent(3, renews=1),
        RecordAct(entry(Act.START, 0xAA)),
        revoke(1),
        write_off(second),
        RecordCertificate(first + 2, der(3)),
        Probe(NOW),
        Prune(NOW - HOUR, NOW - HOUR),
    ):
        calls.result(store.apply(command))
    assert acts(store, calls) == [
        (Act.ISSUE, "1"),
        (Act.ISSUE, "2"),
        (Act.RENEW, "3"),
        (Act.START, "aa"),
        (Act.REVOKE, "1"),
        (Act.WRITE_OFF, f"{second:x}"),
    ]
    assert calls.result(store.last_act()) == (6, int(NOW.timestamp() * 10**6))


def test_the_acts_about_cas_are_read_in_their_order(store: SqlStore, calls: ThreadCalls) -> None:
    entries = [
        Entry(NOW, act, "self", str(number), {"about": '"act":"rotate"'})
        for number, act in enumerate((Act.ROTATE, Act.START, Act.ROTATE, Act.STOP))
    ]
    for recorded in entries:
        calls.result(store.apply(RecordAct(recorded)))
    found = calls.result(store.ca_acts())
    assert found == (entries[0].to_bytes(), entries[2].to_bytes())


def test_acts_about_cas_are_found_without_looking_through_all() -> None:
    engine = create_engine("sqlite://")
    with engine.begin() as connection:
        create(connection)
        asked = str(log.ca_acts_query.compile(engine, compile_kwargs={"literal_binds": True}))
        (plan,) = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {asked}").all()
    engine.dispose()
    assert "USING INDEX audit_of_cas" in plan[3]


def test_an_empty_store_has_no_last_act(store: SqlStore, calls: ThreadCalls) -> None:
    assert calls.result(store.last_act()) == (0, None)


def test_a_probe_is_written_and_read_back(store: SqlStore, calls: ThreadCalls) -> None:
    for at in (NOW, LATER, NOW):
        assert calls.result(store.apply(Probe(at))) is None


def test_what_is_asked_sees_what_was_answered_before(store: SqlStore, calls: ThreadCalls) -> None:
    for serial in range(20):
        calls.result(store.apply(intent(serial)))
        assert calls.result(store.find(serial)) == issued(serial)


def test_cancelling_an_answer_stops_nothing(store: SqlStore, calls: ThreadCalls) -> None:
    answer = store.apply(intent(1))
    answer.cancel()
    assert isinstance(calls.outcome(answer), CancelledError)
    calls.result(store.apply(Probe(NOW)))
    assert calls.result(store.find(1)) == issued(1)


def test_numbers_of_crls_only_grow_each_issuers_for_itself(
    store: SqlStore, calls: ThreadCalls
) -> None:
    assert calls.result(store.last_crl(ISSUER)) is None

    def take(issuer: str = ISSUER, **more: object) -> object:
        return calls.result(store.apply(evolve(TakeCrlNumber(issuer), **more)))

    assert [take(), take(), take(OTHER_ISSUER), take()] == [1, 2, 1, 3]
    assert take(least=1000) == 1000
    assert [take(least=7), take()] == [1001, 1002]
    assert calls.result(store.last_crl(ISSUER)) == LastCrl(1002, None)
    take(served=NOW)
    assert calls.result(store.last_crl(ISSUER)) == LastCrl(1003, NOW)
    take()
    assert calls.result(store.last_crl(ISSUER)) == LastCrl(1004, NOW)
    assert calls.result(store.last_crl(OTHER_ISSUER)) == LastCrl(1, None)
    assert take("ef" * 32, least=1 << 62, served=LATER) == 1 << 62


def test_many_are_found_at_once(store: SqlStore, calls: ThreadCalls) -> None:
    record(store, calls, signed(1), issued(2), signed(3))
    calls.result(store.apply(revoke(3)))
    found = {c.serial: c for c in calls.result(store.find_all([3, 1, 2, 9, 1]))}
    assert set(found) == {1, 2, 3}
    assert [found[n].status(NOW) for n in (1, 2, 3)] == [
        Status.VALID,
        Status.PENDING,
        Status.REVOKED,
    ]
    assert {c.der for c in found.values()} == {None}
    assert calls.result(store.find_all([])) == ()


def test_what_a_crl_still_lists_is_not_forgotten(store: SqlStore, calls: ThreadCalls) -> None:
    record(store, calls, signed(1), signed(2))
    calls.result(store.apply(revoke(1)))
    over = NOW + 3 * HOUR
    command = Prune(over, NOW, revoked_before=NOW + HOUR)
    assert calls.result(store.apply(command)) == 1
    assert calls.result(store.find(2)) is None
    assert calls.result(store.find(1)).status(over) is Status.REVOKED
    assert calls.result(store.apply(evolve(command, revoked_before=over))) == 1
    assert calls.result(store.find(1)) is None


def test_it_counts_what_was_issued_from_a_time_on_by_id_and_entry(
    store: SqlStore, calls: ThreadCalls
) -> None:
    record(store, calls, issued(1), evolve(issued(2), issued_at=NOW - HOUR))
    record(store, calls, evolve(issued(3), spiffe_id=WEB), issued(4))
    counted = calls.result(store.issued_since(NOW))
    assert dict(((of, entry), n) for of, entry, n in counted) == {
        (str(WEB), None): 1,
        (str(issued(1).spiffe_id), None): 2,
    }
    assert calls.result(store.issued_since(NOW + HOUR)) == ()
