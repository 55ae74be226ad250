"""SQLite files as operators meet them: new, old, damaged, locked, full, gone."""

import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event
from twisted.internet.defer import gatherResults

from tests.running import CHECKOUT
from tests.twisted_mesh.stores.certificates import (
    API,
    KEY,
    NOW,
    der,
    intent,
    issued,
    revoke,
    signed,
)
from tests.twisted_mesh.support import ThreadCalls
from twisted_mesh.stores import schema
from twisted_mesh.stores.commands import Command, RecordCertificate
from twisted_mesh.stores.records import Query, Status, StoreError
from twisted_mesh.stores.sql import SqlStore
from twisted_mesh.stores.sqlite import Sqlite


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ca" / "mesh.db"


@pytest.fixture
def store(path: Path, calls: ThreadCalls) -> Iterator[SqlStore]:
    store = SqlStore(Sqlite(path, patience=0.05), calls)
    store.start()
    yield store
    calls.result(store.stop())


def assert_is_one_sentence(error: object, path: Path, remedy: str) -> None:
    assert isinstance(error, StoreError)
    text = str(error)
    assert error.code == "store-unavailable"
    assert str(path) in text
    assert remedy in text
    assert "\n" not in text
    assert "sqlalche" not in text.lower()
    assert "sqlite3." not in text


def refusal(path: Path, calls: ThreadCalls) -> StoreError:
    """Why a store on ``path`` does not start."""
    threads = threading.active_count()
    with pytest.raises(StoreError) as raised:
        SqlStore(Sqlite(path, patience=0.05), calls).start()
    assert threading.active_count() == threads
    return raised.value


def test_the_live_connection_is_durable(store: SqlStore, calls: ThreadCalls) -> None:
    def pragmas(connection):
        names = ("synchronous", "journal_mode", "foreign_keys")
        return [connection.exec_driver_sql(f"PRAGMA {n}").scalar_one() for n in names]

    assert calls.result(store._read(pragmas)) == [2, "wal", 1]


def test_its_files_are_for_their_owner_alone(
    store: SqlStore, path: Path, calls: ThreadCalls
) -> None:
    calls.result(store.apply(intent(1)))
    modes = {f.name: stat.S_IMODE(f.stat().st_mode) for f in path.parent.iterdir()}
    names = ("mesh.db", "mesh.db-wal", "mesh.db-shm", "reserve")
    assert modes == dict.fromkeys(names, 0o600)
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_all_is_there_after_a_restart(path: Path, calls: ThreadCalls) -> None:
    store = SqlStore(Sqlite(path), calls)
    store.start()
    calls.result(store.apply(intent(1)))
    calls.result(store.apply(revoke(1)))
    before = calls.result(store.feed(0)), calls.result(store.list(Query(NOW)))
    calls.result(store.stop())
    assert {f.name for f in path.parent.iterdir()} == {"mesh.db", "reserve"}
    store.start()
    assert (calls.result(store.feed(0)), calls.result(store.list(Query(NOW)))) == before
    calls.result(store.stop())


class Watched(Sqlite):
    """Shows its connections: the writer's, then the reader's."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.connections: list[sqlite3.Connection] = []

    def _connect(self) -> sqlite3.Connection:
        self.connections.append(super()._connect())
        return self.connections[-1]


@pytest.fixture
def watched(path: Path, calls: ThreadCalls) -> Iterator[tuple[SqlStore, sqlite3.Connection]]:
    """A store, and its writer's connection."""
    database = Watched(path)
    store = SqlStore(database, calls)
    store.start()
    yield store, database.connections[0]
    calls.result(store.stop())


def test_what_waits_together_is_one_transaction_of_a_few_statements(
    watched: tuple[SqlStore, sqlite3.Connection], calls: ThreadCalls
) -> None:
    store, writing = watched
    statements: list[str] = []
    writing.set_trace_callback(statements.append)

    def together(commands: list[Command]) -> list[Any]:
        outcomes = calls.result(gatherResults([store.apply(command) for command in commands]))
        verbs = [statement.split()[0] for statement in statements]
        statements.clear()
        return [verbs, outcomes]

    serials = range(100)
    verbs, numbers = together([intent(n) for n in serials])
    assert verbs == ["BEGIN", "UPDATE", "SELECT", "INSERT", "INSERT", "INSERT", "COMMIT"]
    renewals: list[Command] = [intent(100 + n, renews=n) for n in range(20)]
    bodies = [RecordCertificate(number, der(n)) for n, number in enumerate(numbers)]
    verbs, _ = together([*renewals, *bodies])
    assert verbs == [
        *("BEGIN", "SELECT", "UPDATE", "SELECT", "INSERT", "INSERT", "INSERT"),
        *("DELETE", "INSERT", "COMMIT"),
    ]
    assert calls.result(store.find(99)) == signed(99)


def test_what_is_found_is_found_by_an_index(store: SqlStore, calls: ThreadCalls) -> None:
    plans: set[str] = set()

    def explained(connection, cursor, statement, parameters, *_):
        if statement.startswith("SELECT"):
            plan = cursor.execute(f"EXPLAIN QUERY PLAN {statement}", parameters)
            plans.update(detail for *_, detail in plan)

    calls.result(store._read(lambda c: event.listen(c.engine, "before_cursor_execute", explained)))
    calls.result(store.find(1))
    calls.result(store.find_all([1, 2]))
    calls.result(store.find_request("mine"))
    calls.result(store.feed(3))
    for query in (
        Query(NOW, spiffe_id=API),
        Query(NOW, below=API),
        Query(NOW, key=KEY),
        Query(NOW, entry="web"),
        Query(NOW, serial=1),
        Query(NOW, status=Status.REVOKED),
        Query(NOW, status=Status.PENDING),
        Query(NOW, expires_before=NOW),
        Query(NOW, issued_after=NOW),
    ):
        calls.result(store.list(query))
    # Open intents are few.
    for table in ("certificates", "bodies", "feed", "audit"):
        assert f"SCAN {table}" not in plans
    for index in ("spiffe_id", "key", "issued_at", "expires_at", "request", "entry"):
        assert any(f"INDEX certificates_by_{index} " in plan for plan in plans), index
    assert any("INDEX certificates_by_key (<expr>=? AND <expr>=?)" in plan for plan in plans)


def test_a_store_that_stops_leaves_one_tidy_file(path: Path, calls: ThreadCalls) -> None:
    store = SqlStore(Sqlite(path), calls)
    for told in (intent(1), intent(2), None):
        store.start()
        if told is not None:
            calls.result(store.apply(told))
        calls.result(store.stop())
        assert {f.name for f in path.parent.iterdir()} == {"mesh.db", "reserve"}


def test_no_file_is_touched_before_it_starts(path: Path, calls: ThreadCalls) -> None:
    SqlStore(Sqlite(path), calls)
    assert not path.parent.exists()


def test_another_kind_of_file_is_refused(path: Path, calls: ThreadCalls) -> None:
    content = b"not a database, and longer than a header " * 100
    path.parent.mkdir()
    path.write_bytes(content)
    assert_is_one_sentence(refusal(path, calls), path, "not a database")
    assert path.read_bytes() == content


@pytest.mark.parametrize("tables", ["stranger (x)", "meta (k, v)"])
def test_another_programs_database_is_refused(path: Path, calls: ThreadCalls, tables: str) -> None:
    path.parent.mkdir()
    with sqlite3.connect(path) as other:
        other.execute(f"CREATE TABLE {tables}")
    other.close()
    assert_is_one_sentence(refusal(path, calls), path, "not those of this program")


def test_a_later_schema_is_refused(path: Path, calls: ThreadCalls) -> None:
    store = SqlStore(Sqlite(path), calls)
    store.start()
    calls.result(store.stop())
    with sqlite3.connect(path) as other:
        other.execute("UPDATE meta SET value = ? WHERE name = 'schema'", (schema.VERSION + 1,))
    other.close()
    assert_is_one_sentence(refusal(path, calls), path, "upgrade twisted-mesh")


def test_a_damaged_file_is_refused(path: Path, calls: ThreadCalls) -> None:
    store = SqlStore(Sqlite(path), calls)
    store.start()
    calls.result(store.stop())
    content = path.read_bytes()
    path.write_bytes(content[:100] + b"\xff" * (len(content) - 100))
    assert_is_one_sentence(refusal(path, calls), path, "restore the last backup")


def test_a_directory_in_its_place_is_refused(path: Path, calls: ThreadCalls) -> None:
    path.mkdir(parents=True)
    assert_is_one_sentence(refusal(path, calls), path, "check the path")


def test_a_parent_that_is_a_file_is_refused(path: Path, calls: ThreadCalls) -> None:
    path.parent.write_text("")
    assert_is_one_sentence(refusal(path, calls), path, "check the path")


def test_an_unwritable_file_is_refused(tmp_path_factory: pytest.TempPathFactory) -> None:
    """As a user who may not write; root may everything, so the test becomes nobody."""
    directory = tmp_path_factory.mktemp("unwritable")
    path = directory / "mesh.db"
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE meta (k)")
    other.close()
    path.chmod(0o444)
    script = (
        "import os, sys; from pathlib import Path\n"
        "from twisted_mesh.stores.sql import SqlStore; from twisted_mesh.stores.sqlite import Sqlite\n"
        "os.chdir(sys.argv[1])\n"
        "if os.geteuid() == 0: os.setuid(65534)\n"
        "SqlStore(Sqlite(Path('mesh.db')), None).start()\n"
    )
    directory.chmod(0o755)
    result = subprocess.run(
        [sys.executable, "-c", script, directory], cwd=CHECKOUT, capture_output=True, text=True
    )
    assert result.returncode == 1
    assert "StoreError: store mesh.db: Permission denied: check the path" in result.stderr


def test_a_locked_file_fails_commands_until_it_is_let_go(
    store: SqlStore, path: Path, calls: ThreadCalls
) -> None:
    calls.result(store.apply(intent(1)))
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    for answer in [store.apply(intent(n)) for n in (2, 3)]:
        assert_is_one_sentence(calls.outcome(answer), path, "locked")
    assert calls.result(store.find(1)) == issued(1)
    other.execute("COMMIT")
    other.close()
    assert calls.result(store.find(2)) is None
    calls.result(store.apply(intent(2)))
    assert calls.result(store.find(2)) == issued(2)


def test_a_database_that_may_not_grow_keeps_nothing_and_heals(
    watched: tuple[SqlStore, sqlite3.Connection], path: Path, calls: ThreadCalls
) -> None:
    store, writing = watched
    writing.execute("PRAGMA max_page_count = 1")  # as many as there are
    answers = [store.apply(intent(n, subject="x" * 500)) for n in range(100)]
    errors = [calls.outcome(answer) for answer in answers]
    assert_is_one_sentence(errors[-1], path, "the disk is full")
    kept = {n for n, error in enumerate(errors) if isinstance(error, int)}
    writing.execute(f"PRAGMA max_page_count = {1 << 30}")
    found = calls.result(store.list(Query(NOW, limit=1000))).certificates
    assert {certificate.serial for certificate in found} == kept
    calls.result(store.apply(intent(500)))
    assert calls.result(store.find(500)) == issued(500)


def test_a_file_that_was_moved_away_acknowledges_nothing(
    store: SqlStore, path: Path, calls: ThreadCalls
) -> None:
    path.rename(path.with_suffix(".away"))
    for replace in (False, True):
        if replace:
            path.write_bytes(b"")
        error = calls.outcome(store.apply(intent(1)))
        assert_is_one_sentence(error, path, "restart")
    path.with_suffix(".away").rename(path)
    calls.result(store.apply(intent(1)))
    assert calls.result(store.find(1)) == issued(1)


def test_once_damage_is_known_nothing_is_written_any_more(
    store: SqlStore, path: Path, calls: ThreadCalls
) -> None:
    number = calls.result(store.apply(intent(1)))
    damage = sqlite3.DatabaseError("database disk image is malformed")
    damage.sqlite_errorname = "SQLITE_CORRUPT"
    told = store._database.explain(damage)
    for command in (intent(2), RecordCertificate(number, der(1)), revoke(1)):
        error = calls.outcome(store.apply(command))
        assert_is_one_sentence(error, path, "restore the last backup")
        assert str(error) == str(told)
    assert calls.result(store.find(1)) is not None, "what can be read is read"


def test_a_record_that_contradicts_itself_is_told_in_words(
    store: SqlStore, path: Path, calls: ThreadCalls
) -> None:
    calls.result(store.apply(intent(1)))
    with sqlite3.connect(path) as other:
        other.execute("UPDATE counters SET value = 0 WHERE name = 'audit'")
    other.close()
    assert_is_one_sentence(calls.outcome(store.apply(intent(2))), path, "contradicts itself")
