"""The store's two threads: who waits for whom, how much may wait, and how all of it stops."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from attrs import field, frozen
from sqlalchemy import Connection
from twisted.internet.defer import Deferred, gatherResults

from tests.running import PATIENCE
from tests.twisted_mesh.stores.certificates import NOW, intent, issued, record, signed
from tests.twisted_mesh.support import ThreadCalls
from twisted_mesh.stores import rules, sql, transactions
from twisted_mesh.stores.commands import Command, Probe
from twisted_mesh.stores.records import Query, StoreError
from twisted_mesh.stores.sql import SqlStore
from twisted_mesh.stores.sqlite import Sqlite


@pytest.fixture
def on_disk(tmp_path: Path, calls: ThreadCalls) -> Iterator[SqlStore]:
    store = SqlStore(Sqlite(tmp_path / "ca" / "mesh.db", patience=0.05), calls)
    store.start()
    yield store
    calls.result(store.stop())


@frozen
class Gate:
    """Holds a thread up: ``reached`` once it is there, on its way once ``open`` is set."""

    reached: threading.Event = field(factory=threading.Event)
    open: threading.Event = field(factory=threading.Event)

    def hold(self, *_: object) -> None:
        self.reached.set()
        assert self.open.wait(PATIENCE)


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
def slow_commits(monkeypatch: pytest.MonkeyPatch, gate: Gate) -> list[int]:
    """The sizes of transactions; the first waits at the gate, as for a slow disk."""
    sizes: list[int] = []
    apply_all = transactions.apply_all

    def slowly(engine: Any, commands: list[Command]) -> Any:
        sizes.append(len(commands))
        if len(sizes) == 1:
            gate.hold()
        return apply_all(engine, commands)

    monkeypatch.setattr(transactions, "apply_all", slowly)
    return sizes


def begun(calls: ThreadCalls, gate: Gate, deferred: Deferred[Any]) -> Deferred[Any]:
    """``deferred``, whose work has come to the gate."""
    calls.turn()
    assert gate.reached.wait(PATIENCE)
    return deferred


def test_a_slow_write_delays_no_read(
    on_disk: SqlStore, calls: ThreadCalls, gate: Gate, slow_commits: list[int]
) -> None:
    told = begun(calls, gate, on_disk.apply(intent(1)))
    assert calls.result(on_disk.find(1)) is None
    assert calls.result(on_disk.list(Query(NOW))).certificates == ()
    assert not told.called
    gate.open.set()
    calls.result(told)
    assert calls.result(on_disk.find(1)) == issued(1)
    assert slow_commits == [1]


def test_a_slow_write_in_the_midst_of_its_transaction_delays_no_read(
    on_disk: SqlStore, calls: ThreadCalls, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    record(on_disk, calls, signed(1))
    probe = rules._probe
    monkeypatch.setattr(rules, "_probe", lambda *given: (probe(*given), gate.hold()))
    told = [on_disk.apply(intent(2)), on_disk.apply(Probe(NOW))]
    begun(calls, gate, told[1])
    assert calls.result(on_disk.find(1)) == signed(1)
    assert calls.result(on_disk.find(2)) is None
    gate.open.set()
    calls.result(gatherResults(told))
    assert calls.result(on_disk.find(2)) == issued(2)


def test_a_slow_read_delays_no_write(on_disk: SqlStore, calls: ThreadCalls, gate: Gate) -> None:
    asked = begun(calls, gate, on_disk._read(gate.hold))
    calls.result(on_disk.apply(intent(1)))
    assert not asked.called
    gate.open.set()
    calls.result(asked)


def test_a_slow_disk_makes_larger_commits_and_loses_nothing(
    store: SqlStore, calls: ThreadCalls, gate: Gate, slow_commits: list[int]
) -> None:
    first = begun(calls, gate, store.apply(intent(0)))
    rest = [store.apply(intent(n)) for n in range(1, 300)]
    calls.turn()
    gate.open.set()
    calls.result(gatherResults([first, *rest]))
    assert slow_commits == [1, 128, 128, 43]
    page = calls.result(store.list(Query(NOW, limit=1000)))
    assert [c.serial for c in page.certificates] == list(range(299, -1, -1))


def test_what_the_answered_have_next_shares_a_commit_with_what_has_waited(
    store: SqlStore, calls: ThreadCalls, gate: Gate, slow_commits: list[int]
) -> None:
    first = begun(calls, gate, store.apply(intent(0)))
    told = [store.apply(intent(1))]
    _ = first.addCallback(
        lambda _: calls.callFromThread(lambda: told.append(store.apply(intent(2))))
    )
    gate.open.set()
    calls.result(first)
    while len(told) < 2:
        calls.turn()
    calls.result(gatherResults(told))
    assert slow_commits == [1, 2]


def test_what_waits_for_the_disk_is_bounded_and_whoever_comes_then_is_told(
    store: SqlStore,
    calls: ThreadCalls,
    gate: Gate,
    slow_commits: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sql, "_WAITING", 5)
    told = [begun(calls, gate, store.apply(intent(0)))]
    told += [store.apply(intent(n)) for n in range(1, 6)]
    for late in (store.apply(intent(6)), store.apply(Probe(NOW))):
        assert late.called
        error = calls.outcome(late)
        assert type(error) is StoreError
        assert error.code == "store-unavailable"
        assert "ask again later" in str(error)
    gate.open.set()
    calls.result(gatherResults(told))
    assert [calls.result(store.find(n)) for n in range(7)] == [*map(issued, range(6)), None]
    calls.result(store.apply(intent(6)))
    assert slow_commits == [1, 5, 1]


def test_what_waits_for_an_answer_is_bounded_and_whoever_comes_then_is_told(
    store: SqlStore, calls: ThreadCalls, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sql, "_ASKING", 3)
    record(store, calls, signed(1))
    asked = [begun(calls, gate, store._read(gate.hold)), store.find(1), store.find(2)]
    late = store.find(1)
    assert late.called
    assert "ask again later" in str(calls.outcome(late))
    gate.open.set()
    assert calls.result(gatherResults(asked)) == [None, signed(1), None]
    # Also those that failed make room.
    for _ in range(5):
        assert isinstance(calls.outcome(store._read(_fails)), StoreError)
    assert calls.result(store.find(1)) == signed(1)


def _fails(connection: Connection) -> None:
    connection.exec_driver_sql("SELECT * FROM nothing")


def test_stopping_finishes_what_is_under_way(store: SqlStore, calls: ThreadCalls) -> None:
    answers = [store.apply(intent(n)) for n in range(1000)]
    asked = [store.find(1) for _ in range(100)]
    stopped = [store.stop(), store.stop()]
    late: list[Deferred[object]] = [
        store.apply(intent(5000)),
        store.find(1),
        store.list(Query(NOW)),
        store.feed(0),
        store.log_head(),
    ]
    for answer in late:
        error = calls.outcome(answer)
        assert type(error) is StoreError
        assert error.code == "store-unavailable"
    calls.result(gatherResults(stopped))
    assert all(answer.called for answer in [*answers, *asked])
    assert len(set(calls.result(gatherResults(answers)))) == 1000
    assert set(calls.result(gatherResults(asked))) <= {None, issued(1)}
    assert calls.result(store.stop()) is None


def test_stopping_waits_for_both_threads(
    on_disk: SqlStore, calls: ThreadCalls, gate: Gate, slow_commits: list[int]
) -> None:
    reading, threads = Gate(), threading.active_count()
    asked = begun(calls, reading, on_disk._read(reading.hold))
    told = begun(calls, gate, on_disk.apply(intent(1)))
    stopped = on_disk.stop()
    gate.open.set()
    calls.result(told)
    calls.turn()
    again = on_disk.stop()
    with pytest.raises(StoreError, match="open already"):
        on_disk.start()
    assert not stopped.called
    assert not again.called
    reading.open.set()
    calls.result(asked)
    calls.result(gatherResults([stopped, again]))
    assert threading.active_count() == threads - 2


def test_a_store_that_runs_is_not_started_again(store: SqlStore) -> None:
    with pytest.raises(StoreError, match="open already"):
        store.start()


def test_a_bug_leaves_nobody_waiting(
    store: SqlStore, calls: ThreadCalls, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise AssertionError("a bug")

    with monkeypatch.context() as patch:
        patch.setattr(transactions.Writer, "apply", broken)
        for answer in [store.apply(intent(n)) for n in (1, 2)]:
            error = calls.outcome(answer)
            assert type(error) is StoreError
            assert "a bug" not in str(error)
    calls.result(store.apply(intent(1)))
    error = calls.outcome(store._read(broken))
    assert type(error) is StoreError
    assert calls.result(store.find(1)) == issued(1)


def test_a_program_error_in_one_command_is_its_own(
    store: SqlStore, calls: ThreadCalls, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise AssertionError("a bug")

    monkeypatch.setattr(rules, "_probe", broken)
    told: list[Deferred[Any]] = [store.apply(c) for c in (intent(1), Probe(NOW), intent(2))]
    outcomes = [calls.outcome(answer) for answer in told]
    assert [type(outcome).__name__ for outcome in outcomes] == ["int", "AssertionError", "int"]
