"""The audit log in the store: what was told is in the tree, proves itself, and is pruned by and by."""

from datetime import timedelta

import pytest

from pki.audit.log import Act
from pki.errors import PkiError
from pki.tlog import merkle
from tests.twisted_mesh.stores.certificates import (
    HOUR,
    LATER,
    NOW,
    acts,
    entry,
    intent,
    issued,
    record,
    revoke,
    signed,
)
from tests.twisted_mesh.support import ThreadCalls
from twisted_mesh.stores import log
from twisted_mesh.stores.commands import ExtendLog, Prune, RecordAct, SaveCheckpoint
from twisted_mesh.stores.records import LogHead, Query, StoreError
from twisted_mesh.stores.sql import SqlStore

LONG_AGO = NOW - timedelta(days=400)


def tell(store: SqlStore, calls: ThreadCalls, count: int, at=NOW) -> None:
    told = [store.apply(RecordAct(entry(Act.ADMINISTER, n, at))) for n in range(count)]
    for answer in told:
        calls.result(answer)


def extend(store: SqlStore, calls: ThreadCalls) -> LogHead:
    return calls.result(store.apply(ExtendLog()))


def test_an_empty_log_has_the_empty_root(store: SqlStore, calls: ThreadCalls) -> None:
    assert calls.result(store.log_head()) == LogHead(0, merkle.EMPTY_ROOT)
    assert extend(store, calls) == LogHead(0, merkle.EMPTY_ROOT)
    assert calls.result(store.log_entries(0, 10)) == ([], 0)
    assert calls.result(store.last_checkpoint()) is None


def test_what_is_told_is_in_the_tree_once_it_is_extended(
    store: SqlStore, calls: ThreadCalls
) -> None:
    calls.result(store.apply(intent(1)))
    assert calls.result(store.log_head()).size == 0
    head = extend(store, calls)
    leaf = merkle.leaf_hash(entry(Act.ISSUE, 1).to_bytes())
    assert head == LogHead(1, leaf)
    assert calls.result(store.log_head()) == head
    (logged,), size = calls.result(store.log_entries(0, 10))
    assert (logged.position, logged.leaf, size) == (0, leaf, 1)
    assert logged.entry == entry(Act.ISSUE, 1).to_bytes()


def test_a_long_log_is_taken_in_a_stride_at_a_time(
    store: SqlStore, calls: ThreadCalls, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log, "_STRIDE", 250)
    tell(store, calls, 600)
    sizes = [extend(store, calls).size for _ in range(4)]
    assert sizes == [250, 500, 600, 600]
    grown = merkle.GrowingTree()
    for n in range(600):
        grown.add(merkle.leaf_hash(entry(Act.ADMINISTER, n).to_bytes()))
    assert calls.result(store.log_head()) == LogHead(600, grown.root)


def test_entries_and_trees_prove_themselves(store: SqlStore, calls: ThreadCalls) -> None:
    tell(store, calls, 300)
    first = extend(store, calls)
    tell(store, calls, 1)
    second = extend(store, calls)
    for position in (0, 255, 256, 300):
        ((logged,), _) = calls.result(store.log_entries(position, 1))
        proof = calls.result(store.inclusion_proof(position, second.size))
        merkle.verify_inclusion(logged.leaf, position, second.size, proof, second.root)
    proof = calls.result(store.consistency_proof(first.size, second.size))
    merkle.verify_consistency(first.size, second.size, first.root, second.root, proof)


def test_a_proof_of_what_is_not_there_is_refused(store: SqlStore, calls: ThreadCalls) -> None:
    tell(store, calls, 3)
    extend(store, calls)
    for answer in (
        store.inclusion_proof(3, 3),
        store.inclusion_proof(-1, 3),
        store.inclusion_proof(0, 4),
        store.consistency_proof(0, 3),
        store.consistency_proof(3, 4),
    ):
        assert isinstance(calls.outcome(answer), PkiError)


@pytest.mark.parametrize(
    ("start", "limit", "expected"),
    [(0, 2, [0, 1]), (2, 9, [2]), (3, 9, []), (9, 9, []), (-5, 2, [0, 1]), (0, 0, []), (1, -1, [])],
)
def test_entries_are_listed_from_a_position_on(
    store: SqlStore, calls: ThreadCalls, start: int, limit: int, expected: list[int]
) -> None:
    tell(store, calls, 3)
    extend(store, calls)
    entries, size = calls.result(store.log_entries(start, limit))
    assert ([logged.position for logged in entries], size) == (expected, 3)


def test_checkpoints_are_kept_by_size(store: SqlStore, calls: ThreadCalls) -> None:
    for size, note in ((3, "three"), (7, "seven"), (5, "five"), (7, "seven again")):
        calls.result(store.apply(SaveCheckpoint(size, NOW, note)))
    assert calls.result(store.last_checkpoint()) == (7, "seven again")
    everything = [(3, "three"), (5, "five"), (7, "seven again")]
    assert calls.result(store.checkpoints(0, 10)) == everything
    assert calls.result(store.checkpoints(4, 10)) == everything[1:]
    assert calls.result(store.checkpoints(0, 2)) == everything[:2]


def test_pruned_acts_keep_their_hashes_and_their_proofs(
    store: SqlStore, calls: ThreadCalls
) -> None:
    tell(store, calls, 3, at=LONG_AGO)
    tell(store, calls, 2)
    head = extend(store, calls)
    before, _ = calls.result(store.log_entries(0, 10))
    assert calls.result(store.apply(Prune(NOW, NOW - HOUR))) == 3
    assert calls.result(store.apply(Prune(NOW, NOW - HOUR))) == 0
    after, size = calls.result(store.log_entries(0, 10))
    assert size == 5
    assert [logged.leaf for logged in after] == [logged.leaf for logged in before]
    assert [logged.entry is None for logged in after] == [True, True, True, False, False]
    assert calls.result(store.log_head()) == head
    proof = calls.result(store.inclusion_proof(1, 5))
    merkle.verify_inclusion(after[1].leaf, 1, 5, proof, head.root)
    tell(store, calls, 1)
    assert extend(store, calls).size == 6


def test_acts_that_are_not_in_the_tree_yet_are_not_pruned(
    store: SqlStore, calls: ThreadCalls
) -> None:
    tell(store, calls, 2, at=LONG_AGO)
    extend(store, calls)
    tell(store, calls, 2, at=LONG_AGO)
    assert calls.result(store.apply(Prune(NOW, NOW))) == 2
    extend(store, calls)
    assert calls.result(store.apply(Prune(NOW, NOW))) == 2
    assert len(acts_left(store, calls)) == 0


def acts_left(store: SqlStore, calls: ThreadCalls) -> list[int]:
    entries, _ = calls.result(store.log_entries(0, 1000))
    return [logged.position for logged in entries if logged.entry is not None]


def test_where_the_clock_ran_backwards_acts_are_pruned_up_to_the_first_that_stays(
    store: SqlStore, calls: ThreadCalls
) -> None:
    tell(store, calls, 1, at=LONG_AGO)
    tell(store, calls, 1)
    tell(store, calls, 1, at=LONG_AGO)
    extend(store, calls)
    assert calls.result(store.apply(Prune(NOW, NOW))) == 1
    assert acts_left(store, calls) == [1, 2]


def test_of_each_hours_checkpoints_the_last_stays_once_its_time_is_over(
    store: SqlStore, calls: ThreadCalls
) -> None:
    start = LONG_AGO.replace(minute=0, second=0, microsecond=0)
    times = [start + timedelta(minutes=10 * n) for n in range(13)]
    for size, at in enumerate([*times, NOW, LATER], 1):
        calls.result(store.apply(SaveCheckpoint(size, at, "note")))
    gone = []
    # A little at a time comes to the same; what is kept alone does not count as gone.
    for _ in range(10):
        gone.append(calls.result(store.apply(Prune(NOW, NOW - HOUR, limit=3))))
    assert sum(gone) == 10
    kept = [size for size, _ in calls.result(store.checkpoints(0, 100))]
    assert kept == [6, 12, 13, 14, 15]


def test_certificates_are_pruned_past_their_time_and_open_intents_are_not(
    store: SqlStore, calls: ThreadCalls
) -> None:
    old = {"issued_at": NOW - 3 * HOUR, "expires_at": NOW - 2 * HOUR}
    record(store, calls, signed(1, **old), issued(2, **old), signed(3), signed(4, **old), signed(5))
    for serial in (1, 3, 4, 5):
        calls.result(store.apply(revoke(serial)))
    command = Prune(NOW - HOUR, LONG_AGO)
    assert calls.result(store.apply(command)) == 2
    assert calls.result(store.apply(command)) == 0
    left = calls.result(store.list(Query(NOW))).certificates
    assert [certificate.serial for certificate in left] == [5, 3, 2]
    # Their revocations went with them; the others keep their places, and no place is given out again.
    feed = calls.result(store.feed(0))
    assert (feed.position, [r.serial for r in feed.revocations]) == (4, [3, 5])
    assert [r.serial for r in calls.result(store.feed(2)).revocations] == [5]
    calls.result(store.apply(revoke(2)))
    assert [r.serial for r in calls.result(store.feed(4)).revocations] == [2]
    assert calls.result(store.feed(0)).position == 5
    assert len(acts(store, calls)) == 10


def test_pruned_away_to_nothing_the_feed_gives_no_position_twice(
    store: SqlStore, calls: ThreadCalls
) -> None:
    (first,) = record(store, calls, signed(1))
    calls.result(store.apply(revoke(1)))
    assert calls.result(store.apply(Prune(NOW + 2 * HOUR, LONG_AGO))) == 1
    feed = calls.result(store.feed(0))
    assert (feed.position, feed.revocations) == (1, ())
    (second,) = record(store, calls, signed(1))
    assert second > first
    calls.result(store.apply(revoke(1)))
    assert calls.result(store.feed(1)).position == 2


def test_a_little_is_pruned_at_a_time(store: SqlStore, calls: ThreadCalls) -> None:
    record(store, calls, *(signed(n) for n in range(5)))
    command = Prune(NOW + 2 * HOUR, LONG_AGO, limit=2)
    assert [calls.result(store.apply(command)) for _ in range(4)] == [2, 2, 1, 0]


@pytest.mark.parametrize("what", ["DELETE FROM audit WHERE position = 4", "DELETE FROM tiles"])
def test_a_log_that_was_cut_is_not_extended(store: SqlStore, calls: ThreadCalls, what: str) -> None:
    tell(store, calls, 3)
    extend(store, calls)
    tell(store, calls, 3)

    def cut(connection):
        connection.exec_driver_sql(what)
        connection.commit()

    calls.result(store._read(cut))
    error = calls.outcome(store.apply(ExtendLog()))
    assert isinstance(error, PkiError)
    if "audit" in what:
        assert isinstance(error, StoreError)
        assert "restore the last backup" in str(error)
    assert calls.result(store.last_act())[0] == 6
