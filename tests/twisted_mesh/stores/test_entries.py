"""What every store does with registration entries."""

import sqlite3
from pathlib import Path

import pytest
from attrs import evolve

from pki.audit.log import Act
from pki.policy.entry import RegistrationEntry
from tests.twisted_mesh.stores.certificates import (
    HOUR,
    LATER,
    NOW,
    acts,
    intent,
    names,
    outcome,
    tell,
)
from tests.twisted_mesh.stores.registrations import (
    create_entry,
    create_token,
    delete_entry,
    entry_of,
    opened,
    revoke_token,
    settle_default,
    stored,
    token_of,
)
from tests.twisted_mesh.support import ThreadCalls
from twisted_mesh.stores.commands import Command, Prune
from twisted_mesh.stores.records import Conflict, EntryGone, StoreError, Unknown
from twisted_mesh.stores.sql import SqlStore

TOKEN = token_of(1, "web")
LONG_AGO = NOW - 1000 * HOUR


def test_entries_are_kept_whole_and_told_in_the_order_of_their_making(
    store: SqlStore, calls: ThreadCalls
) -> None:
    assert calls.result(store.entries()) == ()
    first = create_entry("ff", "unix:uid:1000", "systemd:unit:a.service")
    second = evolve(create_entry("00", "unix:uid:0"), at=LATER)
    assert tell(store, calls, second, first) == [None, None]
    assert [(s.entry, s.created_at) for s in calls.result(store.entries())] == [
        (first.entry, NOW),
        (second.entry, LATER),
    ]


def test_an_entry_is_made_once(store: SqlStore, calls: ThreadCalls, others: list[Command]) -> None:
    calls.result(store.apply(create_entry("web", "unix:uid:1000")))
    error = outcome(store, calls, create_entry("web", "unix:uid:0"), others)
    assert isinstance(error, Conflict)
    assert "there is an entry web already" in str(error)
    (only,) = calls.result(store.entries())
    assert only == stored("web", "unix:uid:1000")


def test_a_deleted_entry_is_gone_and_its_tokens_with_it(
    store: SqlStore, calls: ThreadCalls
) -> None:
    tell(store, calls, create_entry("api"), create_token(TOKEN, stored("web")))
    tell(store, calls, create_token(token_of(2, "api")))
    assert calls.result(store.apply(delete_entry("web"))) is None
    assert [s.entry.id for s in calls.result(store.entries())] == ["api"]
    assert [token.entry for token in calls.result(store.tokens())] == ["api"]
    assert calls.result(store.find_token(TOKEN.digest)) is None
    for gone in ("web", "no such", ""):
        error = calls.outcome(store.apply(delete_entry(gone)))
        assert isinstance(error, Unknown)
        assert error.code == "not-found"


def test_an_entry_can_be_made_anew_once_it_is_deleted(store: SqlStore, calls: ThreadCalls) -> None:
    told = tell(store, calls, create_entry("a"), delete_entry("a"), create_entry("a", "unix:uid:1"))
    assert told == [None, None, None]
    assert calls.result(store.entries()) == (stored("a", "unix:uid:1"),)


def test_what_an_entry_bought_stays_when_it_is_deleted(store: SqlStore, calls: ThreadCalls) -> None:
    tell(store, calls, create_entry("web"), intent(1, requires="web", entry="web"))
    tell(store, calls, delete_entry("web"))
    assert calls.result(store.find(1)).entry == "web"


@pytest.mark.parametrize("document", [b"", b"{}", b"\xff", b"'{'", 7, "x"])
def test_an_entry_that_cannot_be_read_stops_all_and_is_named(
    tmp_path: Path, calls: ThreadCalls, document: object
) -> None:
    with opened(tmp_path / "mesh.db", calls) as store:
        tell(store, calls, create_entry("good"), create_entry("bad"))
        spoil(tmp_path / "mesh.db", document)
        error = calls.outcome(store.entries())
        assert type(error) is StoreError
        assert "the registration entry bad in the store cannot be read" in str(error)
        assert "mesh-ctl entry delete bad" in str(error)
        # It buys nothing, and does not keep the other from being found again.
        calls.result(store.apply(Prune(NOW, LONG_AGO)))
        calls.result(store.apply(delete_entry("bad")))
        assert calls.result(store.entries()) == (stored("good"),)


def test_an_entry_that_says_it_is_another_is_not_believed(
    tmp_path: Path, calls: ThreadCalls
) -> None:
    with opened(tmp_path / "mesh.db", calls) as store:
        tell(store, calls, create_entry("bad"))
        spoil(tmp_path / "mesh.db", entry_of("other").to_document())
        error = calls.outcome(store.entries())
    assert isinstance(error, StoreError)
    assert "entry bad in the store cannot be read (it says that it is other)" in str(error)


def spoil(path: Path, document: object) -> None:
    with sqlite3.connect(path) as other:
        other.execute("UPDATE entries SET document = ? WHERE id = 'bad'", (document,))
    other.close()


@pytest.mark.parametrize("choice", [entry_of("default", "unix:uid:1000"), None])
@pytest.mark.parametrize("later", [entry_of("default", "unix:uid:0"), None])
def test_the_default_entry_is_settled_once(
    store: SqlStore,
    calls: ThreadCalls,
    choice: RegistrationEntry | None,
    later: RegistrationEntry | None,
) -> None:
    assert calls.result(store.apply(settle_default(choice))) is True
    assert calls.result(store.apply(settle_default(later))) is False
    made = [] if choice is None else [choice]
    assert [s.entry for s in calls.result(store.entries())] == made
    assert acts(store, calls) == [(Act.ADMINISTER, "5")]


def test_a_default_entry_that_was_deleted_does_not_come_back(
    store: SqlStore, calls: ThreadCalls
) -> None:
    settle = settle_default(entry_of("default", "unix:uid:1000"))
    assert tell(store, calls, settle, delete_entry("default"), settle) == [True, None, False]
    assert calls.result(store.entries()) == ()


def test_an_intent_needs_the_entry_that_it_requires(
    store: SqlStore, calls: ThreadCalls, others: list[Command]
) -> None:
    calls.result(store.apply(create_entry("web")))
    gone = outcome(store, calls, intent(1, requires="api"), others)
    assert isinstance(gone, EntryGone)
    assert gone.code == "not-authorized"
    assert calls.result(store.find(1)) is None
    calls.result(store.apply(intent(2, requires="web", entry="web")))
    assert calls.result(store.find(2)).entry == "web"


def test_an_entry_deleted_before_an_intent_is_known_to_it(
    store: SqlStore, calls: ThreadCalls
) -> None:
    told = tell(
        store,
        calls,
        create_entry("web"),
        create_entry("api"),
        intent(1, requires="web"),
        intent(2, requires="api"),
        delete_entry("web"),
        intent(3, requires="api"),
        intent(4, requires="web"),
        intent(5),
    )
    assert names(told[2:]) == ["int", "int", "NoneType", "int", "EntryGone", "int"]


def test_each_act_is_in_the_log_and_what_fails_is_not(store: SqlStore, calls: ThreadCalls) -> None:
    tell(
        store,
        calls,
        create_entry("a"),
        create_entry("a"),
        create_token(token_of(1, "a")),
        create_token(token_of(1, "a")),
        create_token(token_of(2, "b")),
        revoke_token(token_of(1, "a")),
        revoke_token(token_of(1, "a")),
        settle_default(None),
        settle_default(None),
        delete_entry("a"),
        delete_entry("a"),
    )
    assert [name for _, name in acts(store, calls)] == ["1", "3", "4", "5", "2"]
