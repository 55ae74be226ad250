"""A certificate that was signed before anything of it was on record: all of it is recorded in one step, or nothing."""

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event
from sqlalchemy.exc import OperationalError
from twisted.internet.defer import CancelledError, gatherResults

from pki.audit.log import Act
from tests.twisted_mesh.stores.certificates import (
    DIGEST,
    NOW,
    acts,
    intent,
    issue,
    issued,
    names,
    outcome,
    record,
    revoke,
    signed,
    tell,
)
from tests.twisted_mesh.stores.registrations import (
    create_entry,
    create_token,
    delete_entry,
    stored,
    token_of,
)
from tests.twisted_mesh.support import ThreadCalls
from twisted_mesh.stores import transactions
from twisted_mesh.stores.commands import Command
from twisted_mesh.stores.opening import open_store
from twisted_mesh.stores.records import (
    Conflict,
    EntryGone,
    Query,
    Revoked,
    StoreError,
    TokenSpent,
)
from twisted_mesh.stores.sql import SqlStore

TOKEN = token_of(1, "web")


def recorded(store: SqlStore, calls: ThreadCalls) -> list[int]:
    """The serials, the newest first; none of them is still to be signed."""
    assert calls.result(store.open_intents()) == ()
    return [found.serial for found in calls.result(store.list(Query(NOW))).certificates]


def test_row_certificate_and_act_are_recorded_in_one_step(
    store: SqlStore, calls: ThreadCalls, others: list[Command]
) -> None:
    assert outcome(store, calls, issue(7), others) is None
    assert calls.result(store.find(7)) == signed(7)
    assert 7 not in [found.certificate.serial for found in calls.result(store.open_intents())]
    assert acts(store, calls).count((Act.ISSUE, "7")) == 1


def test_many_are_recorded_at_once_in_their_order(store: SqlStore, calls: ThreadCalls) -> None:
    assert tell(store, calls, *(issue(serial) for serial in range(100))) == [None] * 100
    assert recorded(store, calls) == list(range(99, -1, -1))
    assert acts(store, calls) == [(Act.ISSUE, f"{serial:x}") for serial in range(100)]
    assert calls.result(store.find(42)) == signed(42)


def test_what_is_told_with_it_keeps_its_place(store: SqlStore, calls: ThreadCalls) -> None:
    told = tell(store, calls, issue(1), intent(2), issue(3), revoke(1), issue(4))
    assert names(told) == ["NoneType", "int", "NoneType", "IssuedCertificate", "NoneType"]
    assert [told_act for _, told_act in acts(store, calls)] == ["1", "2", "3", "1", "4"]
    assert [found.serial for found in calls.result(store.list(Query(NOW))).certificates] == [
        4, 3, 2, 1,
    ]  # fmt: skip


def test_of_two_that_repeat_one_request_the_first_counts(
    store: SqlStore, calls: ThreadCalls
) -> None:
    told = tell(store, calls, issue(1, request_key="once"), issue(2, request_key="once"), issue(3))
    assert names(told) == ["NoneType", "Conflict", "NoneType"]
    assert calls.result(store.find_request("once")) == signed(1)
    assert recorded(store, calls) == [3, 1]


def test_a_token_that_is_used_twice_at_once_buys_once(store: SqlStore, calls: ThreadCalls) -> None:
    tell(store, calls, create_token(TOKEN, stored("web")))
    told = tell(store, calls, issue(1, token=TOKEN.digest), issue(2, token=TOKEN.digest), issue(3))
    assert told[0] is told[2] is None
    assert isinstance(told[1], TokenSpent)
    assert recorded(store, calls) == [3, 1]
    spent = calls.result(store.find_token(TOKEN.digest))
    assert spent is not None
    assert (spent.spent_at, spent.serial) == (NOW, 1)


def test_an_entry_that_is_gone_by_then_buys_nothing_and_costs_no_token(
    store: SqlStore, calls: ThreadCalls
) -> None:
    tell(store, calls, create_token(TOKEN, stored("web")), create_entry("api"))
    told = tell(
        store,
        calls,
        delete_entry("api"),
        issue(1, requires="api"),
        issue(2, requires="api", token=TOKEN.digest),
    )
    assert isinstance(told[1], EntryGone)
    assert isinstance(told[2], EntryGone)
    assert recorded(store, calls) == []
    kept = calls.result(store.find_token(TOKEN.digest))
    assert kept is not None
    assert kept.spent_at is None


def test_a_token_is_not_spent_on_what_is_not_recorded(store: SqlStore, calls: ThreadCalls) -> None:
    tell(store, calls, create_token(TOKEN, stored("web")))
    record(store, calls, signed(1))
    assert isinstance(calls.outcome(store.apply(issue(1, token=TOKEN.digest))), Conflict)
    kept = calls.result(store.find_token(TOKEN.digest))
    assert kept is not None
    assert kept.spent_at is None


@pytest.mark.parametrize("revoked_first", [True, False], ids=["revoked-first", "renewed-first"])
def test_a_revocation_that_races_a_renewal_is_before_or_after_it(
    store: SqlStore, calls: ThreadCalls, *, revoked_first: bool
) -> None:
    record(store, calls, signed(1))
    racing: list[Command] = [issue(2, renews=1), revoke(1)]
    told = tell(store, calls, *(reversed(racing) if revoked_first else racing))
    refused = [answer for answer in told if isinstance(answer, Revoked)]
    assert len(refused) == revoked_first
    assert recorded(store, calls) == ([1] if revoked_first else [2, 1])


def test_one_that_may_not_be_keeps_no_other_from_being_recorded(
    store: SqlStore, calls: ThreadCalls
) -> None:
    told = tell(store, calls, issue(1), issue(2, requires="nothing"), issue(3), issue(1))
    assert names(told) == ["NoneType", "EntryGone", "NoneType", "Conflict"]
    assert recorded(store, calls) == [3, 1]


class Disk:
    """Fails the next commit, before it is done or when it is."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, is_done: bool) -> None:
        self.fails = 1
        applied: Any = transactions.apply_all

        def apply_all(engine: Engine, commands: Any) -> Any:
            outcomes = applied(engine, commands)
            if is_done:
                self._fail()
            return outcomes

        monkeypatch.setattr(transactions, "apply_all", apply_all)
        self._before = None if is_done else lambda _: self._fail()
        if self._before is not None:
            event.listen(Engine, "commit", self._before)

    def _fail(self) -> None:
        if self.fails:
            self.fails -= 1
            raise OperationalError("COMMIT", {}, Exception("disk I/O error"))

    def mend(self) -> None:
        if self._before is not None:
            event.remove(Engine, "commit", self._before)


def test_a_commit_that_fails_keeps_nothing_and_is_told_to_all(
    store: SqlStore, calls: ThreadCalls, monkeypatch: pytest.MonkeyPatch
) -> None:
    tell(store, calls, create_token(TOKEN, stored("web")))
    disk = Disk(monkeypatch, is_done=False)
    try:
        told = tell(store, calls, issue(1), issue(2, token=TOKEN.digest), issue(3))
    finally:
        disk.mend()
    assert all(type(answer) is StoreError for answer in told)
    assert recorded(store, calls) == []
    assert acts(store, calls) == [(Act.ADMINISTER, "3")]
    assert tell(store, calls, issue(1), issue(2, token=TOKEN.digest)) == [None, None]


def test_a_commit_of_which_nobody_knows_is_told_as_one_that_failed(
    store: SqlStore, calls: ThreadCalls, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who repeats the request finds out."""
    Disk(monkeypatch, is_done=True)
    assert type(calls.outcome(store.apply(issue(1, request_key="once")))) is StoreError
    assert calls.result(store.find_request("once")) == signed(1)


def test_a_thread_that_would_end_leaves_nobody_waiting(
    store: SqlStore, calls: ThreadCalls, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ends(*_: object) -> None:
        raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr(transactions.Writer, "apply", ends)
        assert names(tell(store, calls, issue(1), issue(2))) == ["StoreError"] * 2
    assert recorded(store, calls) == []
    assert calls.result(store.apply(issue(1))) is None


def test_a_caller_who_leaves_meanwhile_undoes_nothing(store: SqlStore, calls: ThreadCalls) -> None:
    answer = store.apply(issue(1, request_key="once"))
    answer.cancel()
    assert isinstance(calls.outcome(answer), CancelledError)
    calls.result(store.apply(issue(2)))
    assert calls.result(store.find_request("once")) == signed(1)


def test_a_store_that_stops_in_the_middle_answers_what_it_has_written(
    tmp_path: Path, calls: ThreadCalls
) -> None:
    store: Any = open_store("", tmp_path, calls)
    store.start()
    answers = [store.apply(issue(serial)) for serial in range(300)]
    calls.result(store.stop())
    assert calls.result(gatherResults(answers)) == [None] * 300
    again: Any = open_store("", tmp_path, calls)
    again.start()
    assert calls.result(again.find(299)) == signed(299)
    calls.result(again.stop())


def test_beside_an_older_record_with_open_intents(store: SqlStore, calls: ThreadCalls) -> None:
    """What an earlier version has left open is resolved as ever, and nothing new stands beside it."""
    (number,) = record(store, calls, issued(1))
    calls.result(store.apply(issue(2)))
    (opened,) = calls.result(store.open_intents())
    assert (opened.id, opened.digest) == (number, DIGEST)
