"""The inventory: what is listed, in which order, and page after page."""

from collections.abc import Iterator
from datetime import timedelta
from itertools import count
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pki.spiffe import SpiffeId
from tests.twisted_mesh.stores.certificates import (
    API,
    HOUR,
    ISSUER,
    KEY,
    NOW,
    OTHER_ISSUER,
    OTHER_KEY,
    WEB,
    issued,
    record,
    revoke,
    signed,
    write_off,
)
from tests.twisted_mesh.support import ThreadCalls
from twisted_mesh.stores import reading
from twisted_mesh.stores.records import BadCursor, Page, Query, Status
from twisted_mesh.stores.sql import SqlStore
from twisted_mesh.stores.sqlite import Sqlite

A_MICROSECOND = timedelta(microseconds=1)


@pytest.fixture(params=["few", "many"])
def spread(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether an index narrows a query down, or rows are walked over, a few to a page."""
    if request.param == "many":
        monkeypatch.setattr(reading, "_FEW", 0)
        monkeypatch.setattr(reading, "_WALK", 3)


def pages(store: SqlStore, calls: ThreadCalls, query: Query) -> Iterator[Page]:
    """All of them, as a client follows them."""
    while True:
        page = calls.result(store.list(query))
        yield page
        if page.next is None:
            return
        query = Query(**{**_fields(query), "cursor": page.next})


def _fields(query: Query) -> dict[str, Any]:
    return {name: getattr(query, name) for name in Query.__match_args__}


def listed(store: SqlStore, calls: ThreadCalls, query: Query) -> list[int]:
    return [c.serial for page in pages(store, calls, query) for c in page.certificates]


def test_pages_are_newest_first_and_no_later_certificate_shifts_them(
    store: SqlStore, calls: ThreadCalls
) -> None:
    record(store, calls, *(issued(n) for n in range(10)))
    seen, sizes = [], []
    for turn, page in enumerate(pages(store, calls, Query(NOW, limit=3))):
        seen += [certificate.serial for certificate in page.certificates]
        sizes.append(len(page.certificates))
        record(store, calls, issued(100 + turn, issued_at=NOW + HOUR))
    assert sizes == [3, 3, 3, 1]
    assert seen == list(range(9, -1, -1))


def test_a_page_that_ends_with_the_last_certificate_has_no_next(
    store: SqlStore, calls: ThreadCalls
) -> None:
    record(store, calls, issued(1), issued(2))
    assert calls.result(store.list(Query(NOW, limit=2))).next is None
    assert calls.result(store.list(Query(NOW, limit=1))).next is not None


def test_a_page_may_be_short_and_have_a_next(
    store: SqlStore, calls: ThreadCalls, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "_WALK", 3)
    record(store, calls, issued(1, issuer=OTHER_ISSUER), *(issued(n) for n in range(2, 9)))
    found = list(pages(store, calls, Query(NOW, issuer=OTHER_ISSUER)))
    assert [[c.serial for c in page.certificates] for page in found] == [[], [], [1]]


@pytest.mark.parametrize(
    "cursor",
    ["", "garbage", "é", "\0", "AAAA", "A" * 38 + "=", "!" + "A" * 38, "A" * 5000, "_" * 11],
)
def test_a_cursor_that_no_page_ended_with_is_refused(
    store: SqlStore, calls: ThreadCalls, cursor: str
) -> None:
    error = calls.outcome(store.list(Query(NOW, cursor=cursor)))
    assert isinstance(error, BadCursor)
    assert error.code == "malformed"
    assert len(str(error)) < 300


@pytest.mark.usefixtures("spread")
def test_certificates_are_listed_by_all_that_is_asked_of_them(
    store: SqlStore, calls: ThreadCalls
) -> None:
    old = NOW - HOUR
    numbers = record(
        store,
        calls,
        signed(1),
        issued(2),
        signed(3, spiffe_id=WEB, key=OTHER_KEY),
        signed(4, issued_at=old - HOUR, expires_at=old),
        issued(5, issued_at=old - HOUR, expires_at=old, issuer=OTHER_ISSUER),
        signed(6, issued_at=old - HOUR, expires_at=old),
        signed(7, issued_at=old, expires_at=NOW),
        issued(8, spiffe_id=WEB, entry="web"),
    )
    for serial in (3, 6):
        calls.result(store.apply(revoke(serial)))
    calls.result(store.apply(write_off(numbers[7])))
    for query, expected in (
        (Query(NOW), [8, 7, 6, 5, 4, 3, 2, 1]),
        (Query(NOW, status=Status.VALID), [7, 1]),
        (Query(NOW, status=Status.PENDING), [2]),
        (Query(NOW, status=Status.EXPIRED), [5, 4]),
        (Query(NOW + A_MICROSECOND, status=Status.EXPIRED), [7, 5, 4]),
        (Query(NOW, status=Status.REVOKED), [8, 6, 3]),
        (Query(NOW, spiffe_id=WEB), [8, 3]),
        (Query(NOW, spiffe_id=API, status=Status.REVOKED), [6]),
        (Query(NOW, key=OTHER_KEY), [3]),
        (Query(NOW, key=OTHER_KEY[:32] + KEY[32:]), []),
        (Query(NOW, key=KEY, status=Status.VALID), [7, 1]),
        (Query(NOW, entry="web"), [8]),
        (Query(NOW, entry="web", spiffe_id=API), []),
        (Query(NOW, entry="we"), []),
        (Query(NOW, serial=3), [3]),
        (Query(NOW, serial=3, status=Status.VALID), []),
        (Query(NOW, serial=9), []),
        (Query(NOW, issuer=OTHER_ISSUER), [5]),
        (Query(NOW, issuer=OTHER_ISSUER, status=Status.VALID), []),
        (Query(NOW, expires_before=NOW), [6, 5, 4]),
        (Query(NOW, expires_before=NOW + A_MICROSECOND), [7, 6, 5, 4]),
        (Query(NOW, expires_after=NOW), [8, 3, 2, 1]),
        (Query(NOW, expires_after=old, expires_before=NOW + HOUR), [7]),
        (Query(NOW, expires_before=NOW + HOUR + HOUR, status=Status.VALID), [7, 1]),
        (Query(NOW, expires_before=old, status=Status.EXPIRED), []),
        (Query(NOW, expires_after=NOW, status=Status.VALID), [1]),
        (Query(NOW, issued_before=NOW), [7, 6, 5, 4]),
        (Query(NOW, issued_after=old), [8, 3, 2, 1]),
        (Query(NOW, issued_after=old - HOUR, issued_before=NOW), [7]),
        (Query(NOW, status=Status.EXPIRED, limit=1), [5, 4]),
    ):
        assert listed(store, calls, query) == expected, query


@pytest.mark.usefixtures("spread")
def test_below_an_id_is_what_has_it_as_a_directory(store: SqlStore, calls: ThreadCalls) -> None:
    names = ["/a", "/a/b", "/a/b/c", "/a-b", "/a.b", "/a0", "/ab", "/b", "/A/b", "/a/Z", "/a/zz"]
    ids = [SpiffeId.parse(f"spiffe://mesh.local{name}") for name in names]
    record(store, calls, *(issued(n, spiffe_id=name) for n, name in enumerate(ids)))

    def below(name: str) -> list[str]:
        query = Query(NOW, below=SpiffeId.parse(f"spiffe://mesh.local{name}"))
        return sorted(names[serial] for serial in listed(store, calls, query))

    assert below("/a") == ["/a/Z", "/a/b", "/a/b/c", "/a/zz"]
    assert below("/a/b") == ["/a/b/c"]
    assert below("/c") == []
    assert below("") == sorted(names)


def test_lists_leave_the_certificates_themselves_out(store: SqlStore, calls: ThreadCalls) -> None:
    record(store, calls, signed(1))
    (found,) = calls.result(store.list(Query(NOW))).certificates
    assert found == signed(1, der=None)


wanted = st.fixed_dictionaries(
    {},
    optional={
        "spiffe_id": st.sampled_from([API, WEB]),
        "below": st.just(SpiffeId.parse("spiffe://mesh.local/service")),
        "status": st.sampled_from(Status),
        "issuer": st.sampled_from([ISSUER, OTHER_ISSUER]),
        "key": st.sampled_from([KEY, OTHER_KEY]),
        "entry": st.sampled_from(["web", "api"]),
        "expires_after": st.integers(-2, 2).map(lambda hours: NOW + hours * HOUR),
        "issued_before": st.integers(-2, 2).map(lambda hours: NOW + hours * HOUR),
    },
)
certificates = st.lists(
    st.fixed_dictionaries(
        {
            "spiffe_id": st.sampled_from([API, WEB]),
            "issuer": st.sampled_from([ISSUER, OTHER_ISSUER]),
            "key": st.sampled_from([KEY, OTHER_KEY]),
            "entry": st.sampled_from([None, "web", "api"]),
            "issued_at": st.integers(-2, 2).map(lambda hours: NOW + hours * HOUR),
            "is_pending": st.booleans(),
        }
    ),
    max_size=20,
)


@given(certificates, wanted, st.integers(1, 5), st.integers(0, 6), st.integers(1, 6))
def test_who_follows_next_sees_each_match_exactly_once(
    facts: list[dict[str, Any]], wanted: dict[str, Any], limit: int, few: int, walk: int
) -> None:
    calls = ThreadCalls()
    store = SqlStore(Sqlite(None), calls)
    store.start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "_FEW", few)
        patch.setattr(reading, "_WALK", walk)
        for serial, fact in enumerate(facts):
            make = issued if fact.pop("is_pending") else signed
            record(store, calls, make(serial, expires_at=fact["issued_at"] + HOUR, **fact))
        seen, later = [], count(1000)
        for page in pages(store, calls, Query(NOW, limit=limit, **wanted)):
            assert len(page.certificates) <= limit
            seen += [certificate.serial for certificate in page.certificates]
            record(store, calls, issued(next(later)))
    everything = listed(store, calls, Query(NOW, limit=1000, **wanted))
    calls.result(store.stop())
    assert seen == [serial for serial in everything if serial < 1000]
