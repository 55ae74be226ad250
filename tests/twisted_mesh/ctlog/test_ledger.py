"""The log's tree, record and files: what they are after any end, and that nothing is signed on top of a change."""

import shutil
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from pki.ct.entry import LogEntry, parse_data_tile
from pki.ct.tile_path import TilePath, tile_width
from pki.tlog.merkle import consistency_proof, root, verify_consistency
from tests.ctlogs import LogRig, precertificate
from twisted_mesh.ctlog.errors import ContradictsItself, CtLogStateError
from twisted_mesh.ctlog.ledger import Ledger
from twisted_mesh.ctlog.store import LogStore
from twisted_mesh.ctlog.tiles import TileFiles


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[LogRig]:
    made = LogRig(tmp_path / "log")
    yield made
    made.close()


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> LogRig:
    """One of 300 entries that has ended. It is copied, and nobody changes it."""
    made = LogRig(tmp_path_factory.mktemp("filled") / "log")
    made.fill(300)
    made.close()
    return made


class Reader:
    """Whoever reads the files of a log, and believes none of them."""

    def __init__(self, rig: LogRig) -> None:
        self.head = rig.head
        self.public = rig.home / "public"

    def tile(self, level: int, number: int) -> bytes:
        width = tile_width(level, number, self.head.size)
        return (self.public / str(TilePath(level, number, width))).read_bytes() if width else b""

    def entries(self, number: int) -> Sequence[LogEntry]:
        path = TilePath(None, number, tile_width(0, number, self.head.size))
        return parse_data_tile((self.public / str(path)).read_bytes())

    def verify(self) -> None:
        """That the files are the tree of the head, and the entries those of the tree."""
        size = self.head.size
        assert root(size, self.tile) == self.head.root
        for number in range(-(-size // 256)):
            entries = self.entries(number)
            assert b"".join(entry.leaf_hash for entry in entries) == self.tile(0, number)
            first = number * 256
            assert [one.leaf_index for one in entries] == list(range(first, first + len(entries)))
            for fingerprint in {one for entry in entries for one in entry.chain}:
                assert (self.public / "issuer" / fingerprint.hex()).exists()


def test_it_grows_and_each_head_extends_the_one_before(rig: LogRig) -> None:
    heads = [rig.head]
    for count in (1, 2, 253, 1, 300):
        added = rig.fill(count)
        assert [one.entry.leaf_index for one in added] == [*range(heads[-1].size, rig.head.size)]
        assert all(one.is_new for one in added)
        heads.append(rig.head)
        reader = Reader(rig)
        reader.verify()
    assert [head.size for head in heads] == [0, 1, 3, 256, 257, 557]
    for before, after in pairwise(heads[1:]):
        proof = consistency_proof(before.size, after.size, reader.tile)
        verify_consistency(before.size, after.size, before.root, after.root, proof)
    assert [head.timestamp for head in heads] == sorted(head.timestamp for head in heads)


def test_it_starts_again_where_it_was_and_goes_on(rig: LogRig) -> None:
    rig.fill(300)
    before = rig.head
    rig = rig.again()
    assert rig.head == before
    rig.fill(10)
    assert rig.head.size == 310
    Reader(rig).verify()
    rig.close()


def test_the_same_entry_has_one_place_also_in_one_batch_and_after_a_start(rig: LogRig) -> None:
    pre = precertificate(rig.of)
    one, other = rig.admitted(pre=pre), rig.other()
    found = rig.ledger.extend([one, other, one])
    assert [(a.entry.leaf_index, a.is_new) for a in found] == [(0, True), (1, True), (0, False)]
    rig.fill(300)
    rig = rig.again()
    size = rig.head.size
    (again,) = rig.ledger.extend([rig.admitted(pre=pre)])
    assert (again.entry, again.is_new) == (found[0].entry, False)
    assert rig.head.size == size
    rig.close()


def test_full_tiles_leave_the_record_and_superfluous_ones_the_disk(rig: LogRig) -> None:
    rig.fill(1)
    public = rig.home / "public" / "tile"
    assert (public / "data" / "000.p").exists()
    rig.fill(299)
    rig.clock.advance(61)
    rig.fill(1)
    assert (public / "data" / "000").exists()
    assert not (public / "data" / "000.p").exists() and not (public / "0" / "000.p").exists()
    assert [position for position, _ in rig.ledger.store.entries()] == [*range(256, 301)]
    assert set(rig.ledger.store.tiles()) == {(0, 1), (1, 0)}
    assert rig.ledger.store.remembered() == 301
    rig.clock.advance(200_000)
    rig.fill(1)
    assert rig.ledger.store.remembered() == 0


#: What is done between a receipt's request and its answer, and where in that a process may end.
STEPS: tuple[tuple[type[Any], str], ...] = (
    (LogStore, "add"),
    (LogStore, "sign"),
    (LogStore, "forget"),
    (TileFiles, "write"),
    (Ledger, "_publish"),
)


class Killed(BaseException):
    """As kill -9: nothing of ours is heard of it."""


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("step", STEPS, ids=[name for _, name in STEPS])
def test_wherever_it_is_killed_what_was_answered_is_there(
    rig: LogRig,
    step: tuple[type[Any], str],
    after: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answered = rig.fill(250)
    seen = rig.head
    kind, name = step
    original = getattr(kind, name)
    batch = [rig.other() for _ in range(20)]

    def dies(*arguments: Any) -> Any:
        if after:
            original(*arguments)
        # What the disk has at that moment; of SQLite, with a transaction that is under way.
        shutil.copytree(rig.home, tmp_path / "dead")
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(kind, name, dies)
        with suppress(Killed):
            rig.ledger.extend(batch)
    rig.close()
    rig = LogRig(tmp_path / "dead", rig.of, rig.clock)
    assert rig.head.size in (250, 270)
    Reader(rig).verify()
    proof = consistency_proof(seen.size, rig.head.size, Reader(rig).tile)
    verify_consistency(seen.size, rig.head.size, seen.root, rig.head.root, proof)
    again = rig.ledger.extend(batch)
    assert [one.entry.leaf_index for one in again] == list(range(250, 270))
    assert rig.head.size == 270
    reader = Reader(rig)
    reader.verify()
    tiles = [reader.entries(number) for number in range(2)]
    for one in answered:
        number, at = divmod(one.entry.leaf_index, 256)
        assert tiles[number][at] == one.entry
    rig.close()


def test_a_disk_that_is_full_adds_nothing_and_heals(
    rig: LogRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.fill(5)
    batch = [rig.other() for _ in range(3)]

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("twisted_mesh.ctlog.tiles._write_all", full)
        for _ in range(2):
            with pytest.raises(CtLogStateError, match="No space left"):
                rig.ledger.extend(batch)
        assert rig.head.size == 5
        with pytest.raises(CtLogStateError):  # nor is anything signed that could not be shown
            rig.ledger.extend([rig.other()])
    # They were on record before the files failed: they are where they were given a place.
    found = rig.ledger.extend([*batch, rig.other()])
    assert [one.entry.leaf_index for one in found] == [5, 6, 7, 8]
    assert rig.head.size == 9
    Reader(rig).verify()


def test_a_record_that_is_full_adds_nothing_and_heals(rig: LogRig) -> None:
    rig.fill(5)
    connection = rig.ledger.store._connection
    assert connection is not None
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    connection.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(CtLogStateError, match="free some space"):
        rig.fill(100)
    assert rig.head.size == 5
    connection.execute("PRAGMA max_page_count = 1000000")
    rig.fill(100)
    assert rig.head.size == 105
    Reader(rig).verify()


def test_a_record_that_is_taken_away_while_it_runs_is_missed_at_once(rig: LogRig) -> None:
    rig.fill(5)
    record = rig.home / "ctlog.db"
    record.rename(rig.home / "elsewhere")
    with pytest.raises(CtLogStateError, match="put it back"):
        rig.fill(1)
    (rig.home / "elsewhere").rename(record)
    rig.fill(1)
    assert rig.head.size == 6


def test_a_clock_that_goes_back_is_waited_for_a_little_and_then_refused(rig: LogRig) -> None:
    rig.fill(1)
    signed = rig.head.timestamp
    rig.ahead = timedelta(seconds=-200)
    rig.fill(1)
    assert rig.head.timestamp == signed
    rig.ahead = timedelta(hours=-1)
    with pytest.raises(CtLogStateError, match="behind what was signed"):
        rig.ledger.extend([rig.other()])
    with pytest.raises(CtLogStateError, match="behind what was signed"):
        rig.ledger.refresh(0)
    rig.ahead = timedelta(seconds=1)
    rig.fill(1)
    assert rig.head.timestamp == signed + 1000
    assert rig.head.size == 3


def test_an_old_head_is_signed_again(rig: LogRig) -> None:
    rig.fill(1)
    before = rig.head
    assert not rig.ledger.refresh(60_000)
    rig.clock.advance(61)
    assert rig.ledger.refresh(60_000)
    assert (rig.head.size, rig.head.root) == (before.size, before.root)
    assert rig.head.timestamp == before.timestamp + 61_000


def database(rig: LogRig, sql: str) -> None:
    with closing(sqlite3.connect(rig.home / "ctlog.db")) as connection:
        connection.execute(sql)
        connection.commit()


def another_record(rig: LogRig) -> None:
    other = LogRig(rig.home.parent / "other", rig.of, origin="other.example/log")
    other.fill(300)
    other.close()
    for name in ("ctlog.db", "ctlog.db-wal", "ctlog.db-shm"):
        with suppress(FileNotFoundError):
            shutil.copy(other.home / name, rig.home / name)


def damaged_checkpoint(rig: LogRig) -> None:
    (rig.home / "public/checkpoint").write_text("x")


CHANGES: dict[str, Callable[[LogRig], None]] = {
    "an entry is changed": lambda rig: database(
        rig,
        "UPDATE entries SET data = (SELECT data FROM entries WHERE position = 299) WHERE position = 298",
    ),
    "an entry is gone": lambda rig: database(rig, "DELETE FROM entries WHERE position = 280"),
    "the last entry is gone": lambda rig: database(rig, "DELETE FROM entries WHERE position = 299"),
    "all entries are gone": lambda rig: database(rig, "DELETE FROM entries"),
    "an entry is no entry": lambda rig: database(
        rig, "UPDATE entries SET data = x'00' WHERE position = 280"
    ),
    "a tile is changed": lambda rig: database(
        rig, "UPDATE tiles SET hashes = zeroblob(length(hashes)) WHERE level = 0"
    ),
    "an upper tile is changed": lambda rig: database(
        rig, "UPDATE tiles SET hashes = zeroblob(length(hashes)) WHERE level = 1"
    ),
    "a tile is gone": lambda rig: database(rig, "DELETE FROM tiles WHERE level = 1"),
    "the head is smaller": lambda rig: database(rig, "UPDATE head SET size = 200"),
    "the head is forged": lambda rig: database(
        rig,
        "UPDATE head SET note = replace(note, char(10) || '300' || char(10), char(10) || '200' || char(10))",
    ),
    "the head is gone": lambda rig: database(rig, "DELETE FROM head"),
    "a trigger is there": lambda rig: database(
        rig, "CREATE TRIGGER t AFTER INSERT ON seen BEGIN DELETE FROM entries; END"
    ),
    "it is another log's record": another_record,
    "the record is gone": lambda rig: (rig.home / "ctlog.db").unlink(),
    "the checkpoint is gone": lambda rig: (rig.home / "public/checkpoint").unlink(),
    "the checkpoint is damaged": damaged_checkpoint,
}


@pytest.mark.parametrize("change", CHANGES)
def test_it_does_not_go_on_with_what_somebody_without_the_key_has_changed(
    filled: LogRig, change: str, tmp_path: Path
) -> None:
    shutil.copytree(filled.home, tmp_path / "log")
    rig = LogRig(tmp_path / "log", filled.of)
    rig.close()
    assert rig.head.size == 300
    CHANGES[change](rig)
    with pytest.raises(CtLogStateError):
        rig.again()


def test_it_does_not_go_on_with_a_record_that_was_put_back(rig: LogRig, tmp_path: Path) -> None:
    rig.fill(10)
    rig.close()
    shutil.copy(rig.home / "ctlog.db", tmp_path / "old.db")
    rig = rig.again()
    rig.fill(10)
    rig.close()
    for tail in ("-wal", "-shm"):
        (rig.home / f"ctlog.db{tail}").unlink(missing_ok=True)
    shutil.copy(tmp_path / "old.db", rig.home / "ctlog.db")
    with pytest.raises(ContradictsItself, match="put back by an older one"):
        rig.again()


def test_files_that_are_gone_or_changed_come_back_while_the_record_has_them(rig: LogRig) -> None:
    rig.fill(300)
    rig.close()
    public = rig.home / "public"
    (public / "tile/0/001.p/44").write_bytes(b"x")
    (public / "tile/data/001.p/44").unlink()
    shutil.rmtree(public / "issuer")
    rig = rig.again()
    Reader(rig).verify()
    rig.close()


def test_no_second_receipt_is_given_for_what_is_not_in_the_tree(rig: LogRig) -> None:
    pre = precertificate(rig.of)
    rig.ledger.extend([rig.admitted(pre=pre)])
    rig.fill(299)
    for sql in ("UPDATE seen SET position = 5", "UPDATE seen SET position = 9000"):
        database(rig, sql)
        with pytest.raises(ContradictsItself, match="not in the log"):
            rig.ledger.extend([rig.admitted(pre=pre)])
    database(rig, "UPDATE seen SET position = 0")
    data = rig.home / "public/tile/data/000"
    changed = bytearray(data.read_bytes())
    changed[7] ^= 1  # the time in the first entry, for which a receipt would be signed
    data.write_bytes(changed)
    with pytest.raises(ContradictsItself, match="not in the log"):
        rig.ledger.extend([rig.admitted(pre=pre)])
