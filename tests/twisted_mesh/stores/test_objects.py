"""What a record may hold besides rows: a CA does not start on what somebody else has put there."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.twisted_mesh.support import ThreadCalls
from twisted_mesh.stores import objects
from twisted_mesh.stores.records import StoreError
from twisted_mesh.stores.sql import SqlStore
from twisted_mesh.stores.sqlite import Sqlite

UNDO = (
    "CREATE TRIGGER undo AFTER UPDATE ON certificates BEGIN "
    "UPDATE certificates SET revoked_at = NULL WHERE id = new.id; END"
)


@pytest.fixture
def path(tmp_path: Path, calls: ThreadCalls) -> Path:
    """A record as a first start leaves it."""
    store = SqlStore(Sqlite(tmp_path / "ca" / "mesh.db"), calls)
    store.start()
    calls.result(store.stop())
    return tmp_path / "ca" / "mesh.db"


def change(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        for statement in statements:
            connection.execute(statement)


def start(path: Path, calls: ThreadCalls) -> None:
    store = SqlStore(Sqlite(path), calls)
    store.start()
    calls.result(store.stop())


@pytest.mark.parametrize(
    ("statement", "told"),
    [
        (UNDO, "the trigger 'undo'"),
        ("CREATE VIEW v AS SELECT 1", "the view 'v'"),
        ("CREATE TABLE more (x)", "the table 'more'"),
        ("CREATE INDEX certificates_by_subject ON certificates (subject)", "by_subject'"),
        ("ALTER TABLE entries ADD COLUMN more TEXT", "the table 'entries', which is not as"),
        (
            "ALTER TABLE tokens ADD COLUMN g TEXT GENERATED ALWAYS AS (id)",
            "the table 'tokens', which is not as",
        ),
    ],
)
def test_a_start_names_what_is_not_ours(
    path: Path, calls: ThreadCalls, statement: str, told: str
) -> None:
    change(path, statement)
    before = path.read_bytes()
    with pytest.raises(StoreError, match=r"it holds what is not this program's") as refused:
        start(path, calls)
    assert told in str(refused.value)
    assert "restore the last backup" in str(refused.value)
    assert path.read_bytes()[100:] == before[100:], "nothing was written"


@pytest.mark.parametrize(
    ("statement", "told"),
    [
        ("UPDATE meta SET value = 'abc' WHERE name = 'schema'", "its tables are not those of"),
        ("UPDATE meta SET value = '-1' WHERE name = 'schema'", "its tables are not those of"),
        (
            "UPDATE meta SET value = replace(hex(zeroblob(2500)), '0', '9') WHERE name = 'schema'",
            "its tables are not those of",
        ),
        ("DELETE FROM meta WHERE name = 'store'", "it has no id any more"),
        ("UPDATE meta SET value = char(27) WHERE name = 'store'", "it has no id any more"),
        ("DELETE FROM counters WHERE name = 'feed'", "it has no feed any more"),
        ("UPDATE counters SET value = 'x' WHERE name = 'audit'", "it has no audit any more"),
    ],
    ids=["no number", "negative", "long", "no id", "odd id", "no counter", "odd counter"],
)
def test_a_record_without_what_each_has_is_refused_in_a_sentence(
    path: Path, calls: ThreadCalls, statement: str, told: str
) -> None:
    change(path, statement)
    with pytest.raises(StoreError, match=told):
        start(path, calls)


def test_an_older_record_with_a_trigger_is_not_brought_up(path: Path, calls: ThreadCalls) -> None:
    change(path, UNDO, "UPDATE meta SET value = '3' WHERE name = 'schema'")
    with pytest.raises(StoreError, match="the trigger 'undo'"):
        start(path, calls)


def test_what_analyze_leaves_is_sqlites_own(path: Path, calls: ThreadCalls) -> None:
    change(path, "INSERT INTO meta VALUES ('x', 'y')", "ANALYZE")
    start(path, calls)


def test_what_poses_as_sqlites_own_is_named() -> None:
    assert objects.foreign([("trigger", "sqlite_stat1", "sqlite_stat1", UNDO)])
    assert objects.foreign([("index", "sqlite_autoindex_mine_1", "mine", None)])
    assert not objects.foreign([("index", "sqlite_autoindex_meta_1", "meta", None)])


def test_what_is_a_blank_to_python_only_is_no_blank() -> None:
    """SQLite takes it as part of a name: so a constraint becomes the name of a type."""
    written = "CREATE TABLE meta (name TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (name))"
    assert not objects.foreign([("table", "meta", "meta", written.replace(" ", "\n\t "))])
    for blank in ("\N{NO-BREAK SPACE}", "\N{EM SPACE}", "\x1c"):
        changed = written.replace("NOT NULL", f"NOT{blank}NULL")
        assert objects.foreign([("table", "meta", "meta", changed)])
        assert objects.foreign([("table", "meta", "meta", f"{written[:19]}{blank}{written[19:]}")])
