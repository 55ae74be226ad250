"""SQLite files as operators meet them: new, old, damaged, locked, full, gone."""

import os
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from twisted.internet.defer import gatherResults

from pki.revocation import Reason
from tests.running import CHECKOUT, PATIENCE
from tests.twisted_mesh.stores.certificates import ISSUER, NOW, der, issued
from tests.twisted_mesh.support import ThreadCalls
from twisted_mesh.stores import schema
from twisted_mesh.stores.records import (
    Command,
    Query,
    RecordCertificate,
    RecordIntent,
    Revoke,
    StoreError,
)
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
    assert type(error) is StoreError
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
    calls.result(store.apply(RecordIntent(issued(1))))
    modes = {f.name: stat.S_IMODE(f.stat().st_mode) for f in path.parent.iterdir()}
    assert modes == {"mesh.db": 0o600, "mesh.db-wal": 0o600, "mesh.db-shm": 0o600}
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_all_is_there_after_a_restart(path: Path, calls: ThreadCalls) -> None:
    store = SqlStore(Sqlite(path), calls)
    store.start()
    calls.result(store.apply(RecordIntent(issued(1))))
    calls.result(store.apply(Revoke(1, NOW, Reason.SUPERSEDED)))
    before = calls.result(store.feed(0)), calls.result(store.list(Query(NOW)))
    calls.result(store.stop())
    assert [f.name for f in path.parent.iterdir()] == ["mesh.db"]
    store.start()
    assert (calls.result(store.feed(0)), calls.result(store.list(Query(NOW)))) == before
    calls.result(store.stop())


def test_what_waits_together_is_one_transaction_of_one_statement(
    store: SqlStore, calls: ThreadCalls
) -> None:
    statements: list[str] = []

    def together(commands: list[Command]) -> list[str]:
        reached, gate = threading.Event(), threading.Event()

        def wait(connection):
            reached.set()
            gate.wait(PATIENCE)
            connection.connection.dbapi_connection.set_trace_callback(statements.append)

        waiting = [store._read(wait)]
        calls.turn()
        assert reached.wait(PATIENCE)
        waiting += map(store.apply, commands)
        gate.set()
        calls.result(gatherResults(waiting))
        verbs = [statement.split()[0] for statement in statements]
        statements.clear()
        return verbs[verbs.index("BEGIN") :]

    serials = range(100)
    intents: list[Command] = [RecordIntent(issued(n)) for n in serials]
    assert together(intents) == ["BEGIN", "INSERT", "COMMIT"]
    signed: list[Command] = [RecordCertificate(ISSUER, n, der(n)) for n in serials]
    assert together(signed) == ["BEGIN", "UPDATE", "COMMIT"]
    assert calls.result(store.find(99)) == issued(99, der=der(99))


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
    calls.result(store.apply(RecordIntent(issued(1))))
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    for answer in [store.apply(RecordIntent(issued(n))) for n in (2, 3)]:
        assert_is_one_sentence(calls.outcome(answer), path, "locked")
    assert calls.result(store.find(1)) == issued(1)
    other.execute("COMMIT")
    other.close()
    assert calls.result(store.find(2)) is None
    calls.result(store.apply(RecordIntent(issued(2))))
    assert calls.result(store.find(2)) == issued(2)


def test_a_database_that_may_not_grow_keeps_nothing_and_heals(
    store: SqlStore, path: Path, calls: ThreadCalls
) -> None:
    def limit(pages: int) -> None:
        calls.result(
            store._read(lambda c: c.exec_driver_sql(f"PRAGMA max_page_count = {pages}").all())
        )

    limit(1)  # as many as there are
    answers = [store.apply(RecordIntent(issued(n, subject="x" * 500))) for n in range(100)]
    errors = [calls.outcome(answer) for answer in answers]
    assert_is_one_sentence(errors[-1], path, "the disk is full")
    kept = {n for n, error in enumerate(errors) if error is None}
    limit(1 << 30)
    found = calls.result(store.list(Query(NOW, limit=1000))).certificates
    assert {certificate.serial for certificate in found} == kept
    calls.result(store.apply(RecordIntent(issued(500))))
    assert calls.result(store.find(500)) == issued(500)


def test_a_full_disk_keeps_nothing_and_heals(tmp_path: Path, calls: ThreadCalls) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "none", disk]
    if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("only root can make a small disk, and not everywhere")
    try:
        path = disk / "mesh.db"
        store = SqlStore(Sqlite(path), calls)
        store.start()
        calls.result(store.apply(RecordIntent(issued(0))))
        with (disk / "ballast").open("wb", buffering=0) as ballast, pytest.raises(OSError):
            while ballast.write(bytes(4096)) == 4096:
                pass
            raise OSError("a short write is a full disk too")
        serial, error = 1, None
        while error is None and serial < 10_000:
            error = calls.outcome(store.apply(RecordIntent(issued(serial))))
            serial += 1
        assert_is_one_sentence(error, path, "the disk is full")
        assert calls.result(store.find(serial - 1)) is None
        (disk / "ballast").unlink()
        calls.result(store.apply(RecordIntent(issued(serial - 1))))
        found = calls.result(store.list(Query(NOW, limit=20_000))).certificates
        assert {certificate.serial for certificate in found} == set(range(serial))
        calls.result(store.stop())
    finally:
        subprocess.run(["umount", disk], check=True)


def test_a_file_that_was_moved_away_acknowledges_nothing(
    store: SqlStore, path: Path, calls: ThreadCalls
) -> None:
    path.rename(path.with_suffix(".away"))
    for replace in (False, True):
        if replace:
            path.write_bytes(b"")
        error = calls.outcome(store.apply(RecordIntent(issued(1))))
        assert_is_one_sentence(error, path, "restart")
    path.with_suffix(".away").rename(path)
    calls.result(store.apply(RecordIntent(issued(1))))
    assert calls.result(store.find(1)) == issued(1)
