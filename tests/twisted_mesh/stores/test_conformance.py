"""What every store does, whatever it keeps its tables in."""

from datetime import timedelta

import pytest
from attrs import evolve
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from zope.interface.verify import verifyObject

from pki.revocation import Reason, Revocation
from tests.twisted_mesh.stores.certificates import (
    API,
    HOUR,
    ISSUER,
    NOW,
    OTHER_ISSUER,
    WEB,
    der,
    issued,
)
from tests.twisted_mesh.support import ThreadCalls
from twisted_mesh.interfaces import IStore
from twisted_mesh.stores import reading
from twisted_mesh.stores.records import (
    BadCursor,
    Command,
    Conflict,
    IssuedCertificate,
    Query,
    RecordCertificate,
    RecordIntent,
    Revoke,
    Status,
    StoreError,
    Unknown,
)
from twisted_mesh.stores.sql import SqlStore

LATER = NOW + timedelta(minutes=5)


def revoke(serial: int, **changes: object) -> Revoke:
    return evolve(Revoke(serial, NOW, Reason.KEY_COMPROMISE), **changes)


def record(store: SqlStore, calls: ThreadCalls, *certificates: IssuedCertificate) -> None:
    for certificate in certificates:
        calls.result(store.apply(RecordIntent(evolve(certificate, der=None))))
        if certificate.der is not None:
            calls.result(
                store.apply(
                    RecordCertificate(certificate.issuer, certificate.serial, certificate.der)
                )
            )


def serials(store: SqlStore, calls: ThreadCalls, query: Query) -> list[int]:
    return [c.serial for c in calls.result(store.list(query)).certificates]


def test_it_is_an_istore(store: SqlStore) -> None:
    assert verifyObject(IStore, store)


def test_an_intent_is_listed_as_pending_until_the_certificate_comes(
    store: SqlStore, calls: ThreadCalls
) -> None:
    intent = issued(1 << 126)
    assert calls.result(store.apply(RecordIntent(intent))) is None
    assert calls.result(store.find(intent.serial)) == intent
    assert intent.status(NOW) is Status.PENDING
    command = RecordCertificate(ISSUER, intent.serial, der(1))
    assert calls.result(store.apply(command)) is None
    found = calls.result(store.find(intent.serial))
    assert found == evolve(intent, der=der(1))
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
    assert isinstance(calls.outcome(store.apply(RecordIntent(issued(serial)))), ValueError)
    assert calls.result(store.find(serial)) is None
    assert isinstance(calls.outcome(store.apply(revoke(serial))), Unknown)


@pytest.mark.parametrize("issuer", [ISSUER, OTHER_ISSUER])
def test_a_serial_is_given_out_once(store: SqlStore, calls: ThreadCalls, issuer: str) -> None:
    record(store, calls, issued(7, der=der(7)))
    error = calls.outcome(store.apply(RecordIntent(issued(7, issuer=issuer, spiffe_id=WEB))))
    assert isinstance(error, Conflict)
    assert error.code == "conflict"
    assert calls.result(store.find(7)) == issued(7, der=der(7))


def test_a_certificate_without_an_intent_is_refused(store: SqlStore, calls: ThreadCalls) -> None:
    record(store, calls, issued(7))
    for issuer, serial in ((ISSUER, 8), (OTHER_ISSUER, 7)):
        error = calls.outcome(store.apply(RecordCertificate(issuer, serial, der(8))))
        assert isinstance(error, Unknown)
        assert error.code == "not-found"
    assert calls.result(store.find(7)) == issued(7)
    assert calls.result(store.find(8)) is None


def test_a_recorded_certificate_is_never_replaced(store: SqlStore, calls: ThreadCalls) -> None:
    record(store, calls, issued(7, der=der(7)))
    assert calls.result(store.apply(RecordCertificate(ISSUER, 7, der(7)))) is None
    error = calls.outcome(store.apply(RecordCertificate(ISSUER, 7, der(8))))
    assert isinstance(error, Conflict)
    assert calls.result(store.find(7)) == issued(7, der=der(7))


def test_the_first_revocation_wins(store: SqlStore, calls: ThreadCalls) -> None:
    record(store, calls, issued(7, der=der(7)))
    first = calls.result(store.apply(revoke(7)))
    assert first == issued(7, der=der(7), revoked_at=NOW, reason=Reason.KEY_COMPROMISE)
    again = revoke(7, at=LATER, reason=Reason.SUPERSEDED)
    assert calls.result(store.apply(again)) == first
    assert calls.result(store.find(7)) == first
    assert calls.result(store.feed(0)).position == 1


def test_revoking_what_was_never_issued_is_refused(store: SqlStore, calls: ThreadCalls) -> None:
    record(store, calls, issued(7))
    for command in (revoke(8), revoke(7, issuer=OTHER_ISSUER)):
        error = calls.outcome(store.apply(command))
        assert isinstance(error, Unknown)
        assert error.code == "not-found"
    assert calls.result(store.feed(0)).revocations == ()


def test_a_pending_certificate_can_be_revoked_and_stays_so(
    store: SqlStore, calls: ThreadCalls
) -> None:
    record(store, calls, issued(7))
    calls.result(store.apply(revoke(7, issuer=ISSUER)))
    calls.result(store.apply(RecordCertificate(ISSUER, 7, der(7))))
    found = calls.result(store.find(7))
    assert found == issued(7, der=der(7), revoked_at=NOW, reason=Reason.KEY_COMPROMISE)
    assert found.status(NOW) is Status.REVOKED


def test_the_feed_gives_what_came_after_a_position(store: SqlStore, calls: ThreadCalls) -> None:
    record(store, calls, *(issued(n) for n in range(1, 4)))
    empty = calls.result(store.feed(0))
    assert (empty.position, empty.revocations) == (0, ())
    for serial in (2, 1, 3):
        calls.result(store.apply(revoke(serial)))
    everything = calls.result(store.feed(0))
    assert everything.store == empty.store != ""
    assert everything.position == 3
    assert everything.revocations == tuple(
        Revocation(ISSUER, serial, NOW, Reason.KEY_COMPROMISE, NOW + HOUR) for serial in (2, 1, 3)
    )
    for after in (1, 2, 3):
        news = calls.result(store.feed(after))
        assert news.position == 3
        assert news.revocations == everything.revocations[after:]


@pytest.mark.parametrize("after", [4, 1 << 62, -1])
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


def test_pages_are_newest_first_and_no_later_certificate_shifts_them(
    store: SqlStore, calls: ThreadCalls
) -> None:
    # Three to each instant, so that pages end between equals.
    certificates = [issued(n, issued_at=NOW + timedelta(seconds=n // 3)) for n in range(10)]
    record(store, calls, *certificates)
    cursor, seen, sizes = None, [], []
    for turn in range(4):
        page = calls.result(store.list(Query(NOW, limit=3, cursor=cursor)))
        seen += [certificate.serial for certificate in page.certificates]
        sizes.append(len(page.certificates))
        cursor = page.next
        record(store, calls, issued(100 + turn, issued_at=NOW + HOUR))
    assert sizes == [3, 3, 3, 1]
    assert cursor is None
    assert seen == list(range(9, -1, -1))


def test_a_page_that_ends_with_the_last_certificate_has_no_next(
    store: SqlStore, calls: ThreadCalls
) -> None:
    record(store, calls, issued(1), issued(2))
    assert calls.result(store.list(Query(NOW, limit=2))).next is None
    assert calls.result(store.list(Query(NOW, limit=1))).next is not None


@pytest.mark.parametrize(
    "cursor", ["", "garbage", "é", "\0", "AAAA", "A" * 38 + "=", "!" + "A" * 38, "A" * 5000]
)
def test_a_cursor_that_no_page_ended_with_is_refused(
    store: SqlStore, calls: ThreadCalls, cursor: str
) -> None:
    error = calls.outcome(store.list(Query(NOW, cursor=cursor)))
    assert isinstance(error, BadCursor)
    assert error.code == "malformed"
    assert len(str(error)) < 300


def test_certificates_are_listed_by_status_id_and_expiry(
    store: SqlStore, calls: ThreadCalls
) -> None:
    old = NOW - HOUR
    record(
        store,
        calls,
        issued(1, der=der(1)),
        issued(2),
        issued(3, der=der(3), spiffe_id=WEB),
        issued(4, der=der(4), issued_at=old - HOUR, expires_at=old),
        issued(5, issued_at=old - HOUR, expires_at=old),
        issued(6, der=der(6), issued_at=old - HOUR, expires_at=old),
        issued(7, der=der(7), issued_at=old, expires_at=NOW),
    )
    for serial in (3, 6):
        calls.result(store.apply(revoke(serial)))
    for query, expected in (
        (Query(NOW), [3, 2, 1, 7, 6, 5, 4]),
        (Query(NOW, status=Status.VALID), [1, 7]),
        (Query(NOW, status=Status.PENDING), [2]),
        (Query(NOW, status=Status.EXPIRED), [5, 4]),
        (Query(NOW + timedelta(microseconds=1), status=Status.EXPIRED), [7, 5, 4]),
        (Query(NOW, status=Status.REVOKED), [3, 6]),
        (Query(NOW, spiffe_id=WEB), [3]),
        (Query(NOW, spiffe_id=API, status=Status.REVOKED), [6]),
        (Query(NOW, expires_before=NOW), [6, 5, 4]),
        (Query(NOW, expires_before=NOW + HOUR + HOUR, status=Status.VALID), [1, 7]),
        (Query(NOW, status=Status.EXPIRED, limit=1), [5]),
    ):
        assert serials(store, calls, query) == expected, query


def test_commands_given_at_once_fail_alone(store: SqlStore, calls: ThreadCalls) -> None:
    record(store, calls, issued(1), issued(2))
    commands: list[Command] = [
        RecordIntent(issued(3)),
        RecordIntent(issued(1)),  # known
        RecordIntent(issued(4, subject="\ud800")),  # no database takes that
        RecordIntent(issued(-4)),
        RecordCertificate(ISSUER, 2, der(2)),
        RecordCertificate(ISSUER, 9, der(9)),  # no intent
        RecordIntent(issued(5)),
        RecordIntent(issued(5)),
        revoke(5),
        RecordCertificate(ISSUER, 5, der(5)),
        revoke(1),
        revoke(9),
    ]
    outcomes = [calls.outcome(d) for d in [store.apply(command) for command in commands]]
    assert [type(outcome).__name__ for outcome in outcomes] == [
        "NoneType",
        "Conflict",
        "UnicodeEncodeError",
        "ValueError",
        "NoneType",
        "Unknown",
        "NoneType",
        "Conflict",
        "IssuedCertificate",
        "NoneType",
        "IssuedCertificate",
        "Unknown",
    ]
    assert serials(store, calls, Query(NOW)) == [5, 3, 2, 1]
    assert [r.serial for r in calls.result(store.feed(0)).revocations] == [5, 1]


def test_what_is_asked_sees_what_was_told_before(store: SqlStore, calls: ThreadCalls) -> None:
    told = store.apply(RecordIntent(issued(1)))
    asked = store.find(1)
    assert calls.result(asked) == issued(1)
    assert calls.result(told) is None


def test_cancelling_an_answer_stops_nothing(store: SqlStore, calls: ThreadCalls) -> None:
    answer = store.apply(RecordIntent(issued(1)))
    answer.cancel()
    assert isinstance(calls.outcome(answer), CancelledError)
    assert calls.result(store.find(1)) == issued(1)


def test_stopping_finishes_what_is_under_way(store: SqlStore, calls: ThreadCalls) -> None:
    answers = [store.apply(RecordIntent(issued(n))) for n in range(1000)]
    stopped = [store.stop(), store.stop()]
    late: list[Deferred[object]] = [
        store.apply(RecordIntent(issued(5000))),
        store.find(1),
        store.list(Query(NOW)),
        store.feed(0),
    ]
    for answer in late:
        error = calls.outcome(answer)
        assert type(error) is StoreError
        assert error.code == "store-unavailable"
    calls.result(gatherResults(stopped))
    assert all(answer.called for answer in answers)
    assert calls.result(gatherResults(answers)) == [None] * 1000
    assert calls.result(store.stop()) is None


def test_a_store_that_runs_is_not_started_again(store: SqlStore) -> None:
    with pytest.raises(StoreError, match="open already"):
        store.start()
