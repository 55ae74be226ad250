"""Pages of the record in which an index hides what its table has: no start and no ``audit verify`` passes it over."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.twisted_mesh.stores.certificates import intent
from tests.twisted_mesh.support import ThreadCalls
from twisted_mesh.stores.records import StoreError
from twisted_mesh.stores.sql import SqlStore
from twisted_mesh.stores.sqlite import Sqlite

SERIALS = "sqlite_autoindex_certificates_1"


@pytest.fixture
def path(tmp_path: Path, calls: ThreadCalls) -> Path:
    """A record with three certificates, closed."""
    path = tmp_path / "ca" / "mesh.db"
    store = SqlStore(Sqlite(path), calls)
    store.start()
    for serial in (1, 2, 4):
        calls.result(store.apply(intent(serial)))
    calls.result(store.stop())
    return path


def page_of(path: Path, index: str) -> slice:
    """Where in the file an index is that has one page."""
    with closing(sqlite3.connect(path)) as connection:
        (size,) = connection.execute("PRAGMA page_size").fetchone()
        (root,) = connection.execute(
            "SELECT rootpage FROM sqlite_master WHERE name = ?", (index,)
        ).fetchone()
    return slice((root - 1) * size, root * size)


def empty(path: Path, index: str) -> None:
    """Take all entries out of an index: a leaf without cells (SQLite's file format, section 1.6)."""
    data, page = bytearray(path.read_bytes()), page_of(path, index)
    size = page.stop - page.start
    leaf = b"\x0a\0\0\0\0" + size.to_bytes(2, "big") + b"\0"
    data[page] = leaf.ljust(size, b"\0")
    path.write_bytes(data)


@pytest.mark.parametrize(
    "index",
    [SERIALS, "certificates_by_key", "certificates_by_expires_at", "sqlite_autoindex_meta_1"],
)
def test_no_start_on_an_index_that_hides_rows(path: Path, calls: ThreadCalls, index: str) -> None:
    empty(path, index)
    store = SqlStore(Sqlite(path), calls)
    with pytest.raises(StoreError, match=rf"not all that is on record is found by {index};"):
        store.start()


def test_who_is_filed_under_another_serial_is_named(path: Path, calls: ThreadCalls) -> None:
    data, page = bytearray(path.read_bytes()), page_of(path, SERIALS)
    data[page] = bytes(data[page]).replace(f"{2:040x}".encode(), f"{3:040x}".encode())
    path.write_bytes(data)
    store = SqlStore(Sqlite(path), calls)
    store.start()  # as many entries as there are rows
    assert calls.result(store.find(2)) is None, "nobody could revoke it"
    rows = calls.result(store.examine(0, 10)).certificates
    assert [bool(row.oddities) for row in rows] == [False, True, False]
    assert f"is not found by {SERIALS}" in rows[1].oddities[0]
    calls.result(store.stop())


def test_a_hidden_row_of_a_smaller_table_is_named(path: Path, calls: ThreadCalls) -> None:
    store = SqlStore(Sqlite(path), calls)
    store.start()
    assert calls.result(store.oddities()) == ()
    calls.result(store.stop())
    data, page = bytearray(path.read_bytes()), page_of(path, "sqlite_autoindex_meta_1")
    data[page] = bytes(data[page]).replace(b"store", b"stork")
    path.write_bytes(data)
    store = SqlStore(Sqlite(path), calls)
    store.start()
    (found,) = calls.result(store.oddities())
    assert (found.table, found.name) == ("meta", "indices")
    assert "sqlite_autoindex_meta_1" in found.detail
    calls.result(store.stop())
