"""A record that was rewritten is not signed again: what was signed is remembered apart from it."""

import os
import sqlite3
import stat
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from attrs import define, field

from pki.audit.log import Act, Checkpoint, Entry, LogKey
from pki.tlog.merkle import EMPTY_ROOT, leaf_hash
from tests.authorities import NOW
from tests.twisted_mesh.ca.rigs import ADMIN, SettledStore, result_of, settled
from tests.twisted_mesh.support import ThreadCalls
from twisted_mesh.ca.audit_log import AuditLog
from twisted_mesh.ca.checkpoint_memory import CheckpointMemory, SignedCheckpoint
from twisted_mesh.state.directory import StateError
from twisted_mesh.stores.opening import open_store
from twisted_mesh.stores.records import StoreError

NAME = "mesh.local/audit/0123456789abcdef"


@define(eq=False)
class Lives:
    """A CA's log in a state directory, one life after the other."""

    home: Path
    key: LogKey = field(factory=lambda: LogKey.generate(NAME))
    calls: ThreadCalls = field(factory=ThreadCalls)
    store: Any = None

    @property
    def ca(self) -> Path:
        return self.home / "ca"

    @property
    def memory(self) -> Path:
        return self.ca / "checkpoints"

    def begin(self, *, is_restored: bool = False) -> AuditLog:
        self.store = SettledStore(open_store("", self.home, self.calls), self.calls, [])
        self.store.start()
        log = AuditLog(self.store, self.key, lambda: NOW, self.memory)
        result_of(log.recall(is_restored=is_restored))
        return log

    def end(self) -> None:
        if self.store is not None:
            result_of(settled(self.store.stop()))
            self.store = None

    def live(self, acts: int, *, sign: bool = True) -> None:
        """A life in which so much is done, that ends well unless it is not signed."""
        log = self.begin()
        for number in range(acts):
            result_of(log.record(Act.ADMINISTER, str(number), {}, ADMIN))
        if sign:
            result_of(log.extend())
        self.end()

    def rewrite(self, *statements: str) -> None:
        with closing(sqlite3.connect(self.ca / "mesh.db")) as database, database:
            for statement in statements:
                database.execute(statement)

    def edit(self, position: int) -> None:
        entry = Entry(NOW, Act.ADMINISTER, "unix:uid:0", "forged", {}).to_bytes()
        with closing(sqlite3.connect(self.ca / "mesh.db")) as database, database:
            database.execute("UPDATE audit SET entry = ? WHERE position = ?", (entry, position))

    def append(self, count: int) -> None:
        entry = Entry(NOW, Act.ADMINISTER, "unix:uid:0", "forged", {}).to_bytes()
        with closing(sqlite3.connect(self.ca / "mesh.db")) as database, database:
            (size,) = database.execute("SELECT value FROM counters WHERE name = 'audit'").fetchone()
            rows = [(size + number, 0, entry) for number in range(count)]
            database.executemany("INSERT INTO audit VALUES (?, ?, ?)", rows)
            database.execute("UPDATE counters SET value = ? WHERE name = 'audit'", (size + count,))


@pytest.fixture
def lives(tmp_path: Path) -> Iterator[Lives]:
    lives = Lives(tmp_path)
    yield lives
    lives.end()


#: Empties what is signed, so that the CA makes it anew from the rows.
BACK = (
    "DELETE FROM tiles",
    "DELETE FROM checkpoints",
    "UPDATE counters SET value = 0 WHERE name = 'tree'",
)


def rewritten(lives: Lives) -> None:
    lives.edit(1)
    lives.rewrite(*BACK)


def rolled_back(lives: Lives) -> None:
    lives.rewrite(
        *BACK,
        "DELETE FROM audit WHERE position >= 2",
        "UPDATE counters SET value = 2 WHERE name = 'audit'",
    )


def emptied(lives: Lives) -> None:
    lives.rewrite(*BACK, "DELETE FROM audit", "UPDATE counters SET value = 0 WHERE name = 'audit'")


def without_the_first(lives: Lives) -> None:
    lives.rewrite(*BACK, "DELETE FROM audit WHERE position = 0")


def other_leaf(lives: Lives) -> None:
    forged = (b"x" * 32).hex()
    lives.rewrite(f"UPDATE tiles SET hashes = CAST(x'{forged}' || substr(hashes, 33) AS BLOB)")


def without_tiles(lives: Lives) -> None:
    lives.rewrite("DELETE FROM tiles")


def without_checkpoints_and_tail(lives: Lives) -> None:
    lives.edit(3)
    lives.rewrite(*BACK)


def many_more(lives: Lives) -> None:
    lives.append(51)


def unsigned_note(lives: Lives) -> None:
    lives.rewrite("UPDATE checkpoints SET note = replace(note, 'time 2026', 'time 2027')")


FALSIFIED: dict[Callable[[Lives], None], str] = {
    rewritten: "log-forked",
    rolled_back: "log-rolled-back",
    emptied: "log-rolled-back",
    without_the_first: "log-cut",
    other_leaf: "log-forked",
    without_tiles: "damaged-tree",
    without_checkpoints_and_tail: "log-forked",
    many_more: "log-unvouched",
    unsigned_note: "bad-checkpoint",
}


@pytest.mark.parametrize("how", FALSIFIED, ids=lambda how: how.__name__)
def test_a_log_that_was_rewritten_is_not_signed_again(
    lives: Lives, how: Callable[[Lives], None], logged: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("twisted_mesh.ca.audit_log._MOST_UNSIGNED", 50)
    lives.live(4)
    before = lives.memory.read_bytes()
    how(lives)
    log = lives.begin()
    (event,) = [event for event in logged if event["event"] == "log-contradicts"]
    assert event["code"] == FALSIFIED[how]
    result_of(log.record(Act.REVOKE, "4a", {}, ADMIN))
    signed = result_of(log.extend())
    assert signed.checkpoint.size == 4, "what is shown is what was signed"
    assert lives.memory.read_bytes() == before
    with pytest.raises(StoreError, match="nothing is issued"):
        log.demand_intact()


def test_what_is_changed_while_the_ca_runs_is_not_signed(lives: Lives, logged: Any) -> None:
    log = lives.begin()
    for number in range(3):
        result_of(log.record(Act.ADMINISTER, str(number), {}, ADMIN))
    result_of(log.extend())
    rewritten(lives)
    result_of(log.record(Act.ADMINISTER, "more", {}, ADMIN))
    assert result_of(log.extend()).checkpoint.size == 3
    assert [event["code"] for event in logged] == ["log-forked"]
    assert log.contradiction is not None


def test_the_memory_says_so_without_any_checkpoint_in_the_record(lives: Lives, logged: Any) -> None:
    lives.live(4)
    lives.rewrite(*BACK)
    log = lives.begin()
    assert log.contradiction is None, "the rows make the tree that was signed"
    assert logged == []


def test_what_a_crash_left_unsigned_is_signed(lives: Lives, logged: Any) -> None:
    lives.live(4)
    lives.live(3, sign=False)
    log = lives.begin()
    assert result_of(log.extend()).checkpoint.size == 7
    assert logged == []


def test_a_first_life_that_signed_nothing_is_no_contradiction(lives: Lives, logged: Any) -> None:
    lives.live(3, sign=False)
    assert result_of(lives.begin().extend()).checkpoint.size == 3
    assert logged == []


def test_nothing_is_shown_before_it_is_remembered(lives: Lives) -> None:
    log = lives.begin()
    result_of(log.record(Act.ADMINISTER, "1", {}, ADMIN))
    lives.store.broken = {"SaveCheckpoint"}
    with pytest.raises(StoreError):
        result_of(log.extend())
    assert log.latest is None
    memory = CheckpointMemory(lives.key.verifier, lives.memory)
    remembered = memory.recall()
    assert remembered is not None
    assert remembered.checkpoint.size == 1
    assert stat.S_IMODE(lives.memory.stat().st_mode) == 0o600


def test_what_cannot_be_remembered_is_not_signed_for_anybody(
    lives: Lives, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = lives.begin()
    result_of(log.record(Act.ADMINISTER, "1", {}, ADMIN))

    def full(*_: object) -> None:
        raise StateError("the disk is full")

    monkeypatch.setattr("twisted_mesh.ca.checkpoint_memory.write_whole", full)
    with pytest.raises(StateError):
        result_of(log.extend())
    assert log.latest is None
    monkeypatch.undo()
    assert result_of(log.extend()).checkpoint.size == 1


# The memory itself is lost.


def test_a_lost_memory_is_taken_up_from_the_record_with_a_word(lives: Lives, logged: Any) -> None:
    lives.live(4)
    lives.memory.unlink()
    log = lives.begin()
    assert log.latest is not None
    assert log.latest.checkpoint.size == 4
    assert [event["event"] for event in logged] == ["checkpoints-lost"]
    lives.end()
    lives.begin()
    assert len(logged) == 1


def test_a_lost_memory_and_a_record_without_checkpoints_are_not_believed(
    lives: Lives, logged: Any
) -> None:
    lives.live(4)
    lives.memory.unlink()
    rewritten(lives)
    assert result_of(lives.begin().extend()) is None
    assert [event["code"] for event in logged] == ["log-unvouched"]


DAMAGED: dict[str, Callable[[Path], object]] = {
    "emptied": lambda memory: memory.write_bytes(b""),
    "cut short": lambda memory: memory.write_bytes(memory.read_bytes()[:-20]),
    "another's": lambda memory: memory.write_bytes(b"{}"),
    "without checkpoints": lambda memory: memory.write_bytes(b'{"checkpoints":[]}'),
    "signed by another": lambda memory: memory.write_bytes(
        memory.read_bytes().replace(b"time 2026", b"time 2027")
    ),
    "a directory": lambda memory: (memory.unlink(), memory.mkdir()),
    "a name of nothing": lambda memory: (memory.unlink(), memory.symlink_to("nowhere")),
}


@pytest.mark.parametrize("how", DAMAGED)
def test_a_damaged_memory_is_no_lost_one(lives: Lives, how: str, logged: Any) -> None:
    lives.live(4)
    DAMAGED[how](lives.memory)
    log = lives.begin()
    (event,) = logged
    assert (event["event"], event["code"]) == ("log-contradicts", "bad-checkpoint")
    assert "is damaged" in event["error"]
    assert str(lives.memory) in event["error"]
    with pytest.raises(StoreError, match="nothing is issued"):
        log.demand_intact()
    result_of(log.record(Act.REVOKE, "4a", {}, ADMIN))
    assert result_of(log.extend()) is None


def test_a_damaged_memory_is_replaced_where_the_log_is_accepted(lives: Lives, logged: Any) -> None:
    lives.live(4)
    lives.memory.write_bytes(b"{}")
    (lives.ca / "accept-log").touch()
    assert lives.begin().contradiction is None
    lives.end()
    assert lives.begin().contradiction is None
    assert [event["event"] for event in logged] == ["log-contradicts", "log-accepted"]


def test_a_record_under_another_name_is_not_believed(lives: Lives, logged: Any) -> None:
    lives.live(4)
    lives.key = LogKey("mesh.local/audit/other", lives.key.private_key)
    log = lives.begin()
    assert log.contradiction is not None
    assert [event["code"] for event in logged] == ["log-replaced"]


def test_a_restore_begins_another_log(lives: Lives, logged: Any) -> None:
    lives.live(4)
    lives.key = LogKey("mesh.local/audit/restored", lives.key.private_key)
    log = lives.begin(is_restored=True)
    assert log.latest is not None
    assert log.latest.checkpoint.size == 4
    lives.end()
    assert lives.begin(is_restored=True).contradiction is None, "killed before the note was gone"
    lives.end()
    assert lives.begin().contradiction is None
    assert logged == []


# Somebody has looked, and says that it is to go on.


def test_whoever_owns_the_files_may_accept_the_log_as_it_is(lives: Lives, logged: Any) -> None:
    lives.live(4)
    rewritten(lives)
    (lives.ca / "accept-log").touch()
    log = lives.begin()
    assert log.contradiction is None
    assert not (lives.ca / "accept-log").exists()
    listed, _ = result_of(settled(lives.store.log_entries(4, 1)))
    entry = Entry.parse(listed[0].entry)
    assert (entry.act, entry.object) == (Act.ADMINISTER, "audit log")
    assert entry.facts["did"] == "accept-log"
    assert entry.facts["seen"].startswith(f"{NAME} 4 ")
    assert [event["event"] for event in logged] == ["log-contradicts", "log-accepted"]
    lives.end()
    assert lives.begin().contradiction is None
    assert len(logged) == 2


def test_what_has_no_tree_cannot_be_accepted(lives: Lives, logged: Any) -> None:
    lives.live(4)
    without_the_first(lives)
    (lives.ca / "accept-log").touch()
    log = lives.begin()
    assert log.contradiction is not None
    assert "restore a backup" in logged[-1]["log_format"]


def test_checkpoints_that_are_gone_from_the_record_are_told(lives: Lives) -> None:
    for _ in range(3):
        lives.live(2)
    assert result_of(lives.begin().lost_checkpoints()) == ()
    lives.end()
    lives.rewrite("DELETE FROM checkpoints")
    log = lives.begin()
    assert log.contradiction is None
    # The last one may have been on its way when the CA died.
    assert result_of(log.lost_checkpoints()) == (2, 4)


def test_a_checkpoint_that_a_crash_kept_out_of_the_record_is_not_missed(lives: Lives) -> None:
    """It is remembered first, and recorded then."""
    lives.live(2)
    log = lives.begin()
    result_of(log.record(Act.ADMINISTER, "3", {}, ADMIN))
    lives.store.broken = {"SaveCheckpoint"}
    with pytest.raises(StoreError):
        result_of(log.extend())
    lives.end()
    lives.live(1)
    assert result_of(lives.begin().lost_checkpoints()) == ()


def test_a_checkpoint_that_the_store_did_not_take_is_recorded_with_the_next(lives: Lives) -> None:
    log = lives.begin()
    for number in range(3):
        result_of(log.record(Act.ADMINISTER, str(number), {}, ADMIN))
        lives.store.broken = {"SaveCheckpoint"} if number == 1 else set()
        if number == 1:
            with pytest.raises(StoreError):
                result_of(log.extend())
        else:
            result_of(log.extend())
    assert result_of(log.lost_checkpoints()) == ()
    found = result_of(settled(lives.store.checkpoints(0, 10)))
    assert [size for size, _ in found] == [1, 2, 3]


# How much is remembered.


def signed(size: int, key: LogKey) -> SignedCheckpoint:
    root = leaf_hash(b"%d" % size) if size else EMPTY_ROOT
    checkpoint = Checkpoint(key.name, size, root, NOW)
    return SignedCheckpoint(checkpoint, result_of(key.sign(checkpoint)))


def test_the_newest_stay_and_the_older_are_thinned(tmp_path: Path) -> None:
    key = LogKey.generate(NAME)
    memory = CheckpointMemory(key.verifier, tmp_path / "checkpoints")
    for size in range(0, 5000, 3):
        memory._kept.append(signed(size, key))
    memory.keep(signed(5000, key))
    again = CheckpointMemory(key.verifier, tmp_path / "checkpoints")
    assert again.recall() == signed(5000, key)
    sizes = [kept.checkpoint.size for kept in again._kept]
    assert sizes == sorted(sizes)
    assert sizes[0] == 0
    assert sizes[-16:] == [*range(4998 - 14 * 3, 5000, 3), 5000]
    assert len(sizes) <= 16 + 14
    assert os.path.getsize(tmp_path / "checkpoints") < 32 * 1024
