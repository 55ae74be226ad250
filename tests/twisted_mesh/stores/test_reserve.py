"""A disk that is full: nothing new is given out, and what makes safer is still done."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from twisted.internet.defer import gatherResults

from pki.audit.log import Act
from tests.twisted_mesh.stores.certificates import (
    HOUR,
    NOW,
    der,
    entry,
    intent,
    issue,
    issued,
    record,
    revoke,
    signed,
    tell,
    write_off,
)
from tests.twisted_mesh.stores.registrations import (
    create_entry,
    create_token,
    delete_entry,
    entry_of,
    revoke_token,
    settle_default,
    stored,
    token_of,
)
from tests.twisted_mesh.support import ThreadCalls
from twisted_mesh.stores import reserve
from twisted_mesh.stores.commands import (
    ExtendLog,
    Probe,
    Prune,
    RecordAct,
    RecordCertificate,
    SaveCheckpoint,
)
from twisted_mesh.stores.records import Full, Query, StoreError
from twisted_mesh.stores.reserve import Reserve
from twisted_mesh.stores.sql import SqlStore
from twisted_mesh.stores.sqlite import Sqlite


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64m", "none", disk]
    if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("only root can make a small disk, and not everywhere")
    yield disk
    subprocess.run(["umount", disk], check=True)


def fill(disk: Path, *, but: int = 0) -> None:
    """Use up all of its space but so many bytes."""
    found = os.statvfs(disk)
    with (disk / "ballast").open("ab", buffering=0) as ballast:
        size = ballast.tell() + found.f_bavail * found.f_frsize - but
        os.posix_fallocate(ballast.fileno(), 0, size)
    assert os.statvfs(disk).f_bavail * found.f_frsize == but


def empty(disk: Path) -> None:
    (disk / "ballast").unlink()


@pytest.fixture
def store(disk: Path, calls: ThreadCalls) -> Iterator[SqlStore]:
    store = SqlStore(Sqlite(disk / "mesh.db"), calls)
    yield store
    calls.result(store.stop())


def issue_until_full(store: SqlStore, calls: ThreadCalls, first: int = 1000) -> int:
    """The first serial that was refused."""
    for serial in range(first, first + 10_000):
        outcome = calls.outcome(store.apply(intent(serial)))
        if not isinstance(outcome, int):
            assert_is_full(outcome)
            return serial
    raise AssertionError("it never was full")


def assert_is_full(error: object) -> None:
    assert isinstance(error, Full)
    assert error.code == "store-unavailable"
    assert "the disk is full" in str(error)
    assert "free some space" in str(error)


def test_on_a_full_disk_nothing_is_given_out_and_all_else_is_done(
    disk: Path, store: SqlStore, calls: ThreadCalls
) -> None:
    store.start()
    first, second, _ = record(store, calls, issued(1), issued(2), signed(3))
    old = {"issued_at": NOW - 3 * HOUR, "expires_at": NOW - 2 * HOUR}
    record(store, calls, signed(4, **old))
    fill(disk)
    refused = issue_until_full(store, calls)
    assert (disk / "reserve").exists(), "nothing has needed it so far"
    for command in (
        intent(refused),
        issue(refused),
        Probe(NOW),
        RecordAct(entry(Act.REFUSE)),
    ):
        assert_is_full(calls.outcome(store.apply(command)))
    together = [
        store.apply(command)
        for command in (
            intent(refused),
            revoke(3),
            RecordCertificate(first, der(1)),
            Probe(NOW),
            write_off(second),
            RecordAct(entry(Act.START)),
            ExtendLog(),
            SaveCheckpoint(5, NOW, "note"),
            Prune(NOW - HOUR, NOW - HOUR),
        )
    ]
    outcomes = [calls.outcome(answer) for answer in together]
    assert_is_full(outcomes[0])
    assert_is_full(outcomes[3])
    assert not any(isinstance(outcomes[n], Exception) for n in (1, 2, 4, 5, 6, 7, 8))
    assert calls.result(store.find(1)) == signed(1)
    assert calls.result(store.find(2)).revoked_at == NOW
    assert calls.result(store.find(3)).revoked_at == NOW
    assert calls.result(store.find(4)) is None
    assert calls.result(store.find(refused)) is None


def test_on_a_full_disk_no_right_to_a_certificate_is_given_out_and_rights_are_taken_away(
    disk: Path, store: SqlStore, calls: ThreadCalls
) -> None:
    store.start()
    lost, live = token_of(1, "web"), token_of(2, "api")
    tell(store, calls, create_token(lost, stored("web")), create_token(live, stored("api")))
    fill(disk)
    issue_until_full(store, calls)
    for command in (
        create_entry("db"),
        create_token(token_of(3, "db"), stored("db")),
        intent(1, requires="api", token=live.digest),
    ):
        assert_is_full(calls.outcome(store.apply(command)))
    assert calls.result(store.apply(revoke_token(lost))).revoked_at == NOW
    assert calls.result(store.apply(delete_entry("web"))) is None
    assert calls.result(store.apply(settle_default(entry_of("default", "unix:uid:0")))) is True
    assert calls.result(store.apply(settle_default(None))) is False
    assert [s.entry.id for s in calls.result(store.entries())] == ["api", "default"]
    assert calls.result(store.tokens()) == (live,)
    empty(disk)
    calls.result(store.apply(intent(1, requires="api", token=live.digest)))
    calls.result(store.apply(create_entry("db")))


def test_once_there_is_space_again_all_goes_on_by_itself(
    disk: Path, store: SqlStore, calls: ThreadCalls
) -> None:
    store.start()
    fill(disk)
    refused = issue_until_full(store, calls)
    empty(disk)
    calls.result(store.apply(intent(refused)))
    assert (disk / "reserve").stat().st_size > 0
    page = calls.result(store.list(Query(NOW, limit=20_000)))
    assert [c.serial for c in page.certificates] == list(range(refused, 999, -1))
    # And again.
    fill(disk)
    refused = issue_until_full(store, calls, refused + 1)
    empty(disk)
    calls.result(store.apply(intent(refused)))


def test_a_reserve_that_would_take_the_last_of_the_space_is_not_taken(
    disk: Path, store: SqlStore, calls: ThreadCalls
) -> None:
    store.start()
    size = (disk / "reserve").stat().st_size
    fill(disk)
    refused = issue_until_full(store, calls)
    (disk / "ballast").unlink()
    (disk / "reserve").unlink()
    fill(disk, but=(size + size // 2) // 4096 * 4096)
    assert_is_full(calls.outcome(store.apply(intent(refused))))
    assert not (disk / "reserve").exists()


def test_where_no_reserve_can_be_taken_at_the_start_nothing_is_given_out_until_it_can(
    disk: Path, store: SqlStore, calls: ThreadCalls
) -> None:
    fill(disk, but=392 * 1024)
    store.start()
    assert not (disk / "reserve").exists()
    assert_is_full(calls.outcome(store.apply(intent(1))))
    calls.result(store.apply(RecordAct(entry(Act.START))))
    assert calls.result(store.find(1)) is None
    empty(disk)
    calls.result(store.apply(intent(1)))
    assert (disk / "reserve").exists()


def test_a_store_starts_on_a_full_disk_and_revokes(
    disk: Path, store: SqlStore, calls: ThreadCalls
) -> None:
    store.start()
    record(store, calls, signed(1))
    calls.result(store.stop())
    fill(disk)
    store.start()
    assert calls.result(store.apply(revoke(1))).revoked_at == NOW
    issue_until_full(store, calls)
    empty(disk)
    calls.result(store.apply(intent(2)))


def test_what_was_revoked_on_a_full_disk_is_there_after_a_restart(
    disk: Path, store: SqlStore, calls: ThreadCalls
) -> None:
    store.start()
    record(store, calls, *(signed(n) for n in range(20)))
    fill(disk)
    issue_until_full(store, calls)
    for serial in range(20):
        calls.result(store.apply(revoke(serial)))
    calls.result(store.stop())
    store.start()
    assert calls.result(store.feed(0)).position == 20


def test_there_is_room_for_a_thousand_revocations(
    disk: Path, store: SqlStore, calls: ThreadCalls
) -> None:
    """With 3 MB in reserve, less than half of what it usually is, and each in a commit of its own."""
    store.start()
    calls.result(gatherResults([store.apply(intent(n)) for n in range(1000)]))
    fill(disk)
    issue_until_full(store, calls, 5000)
    for serial in range(1000):
        calls.result(store.apply(revoke(serial)))
    assert calls.result(store.feed(0)).position == 1000


def test_a_new_store_on_a_full_disk_says_so(
    disk: Path, store: SqlStore, calls: ThreadCalls
) -> None:
    fill(disk, but=4096)
    with pytest.raises(StoreError, match="the disk is full"):
        store.start()
    empty(disk)
    (disk / "mesh.db").unlink()
    store.start()
    calls.result(store.apply(intent(1)))


def test_on_a_disk_that_is_mounted_read_only_it_does_not_start_until_it_is_writable(
    disk: Path, store: SqlStore, calls: ThreadCalls
) -> None:
    store.start()
    record(store, calls, signed(1))
    calls.result(store.stop())
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    with pytest.raises(StoreError, match="Read-only file system"):
        store.start()
    subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
    store.start()
    calls.result(store.apply(intent(2)))
    assert calls.result(store.find(1)) == signed(1)


def test_a_reserve_that_cannot_be_kept_is_no_reason_to_stop(
    disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that is read-only tells so itself; only a lack of room is for the reserve to tell."""
    kept = Reserve(disk / "reserve")
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    assert kept.hold()
    assert not kept.release()
    subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
    assert list(disk.iterdir()) == []
    monkeypatch.setattr(reserve, "_fill", lambda *_: os.truncate(disk / "missing", 1))
    assert kept.hold()
    assert list(disk.iterdir()) == []


def test_a_reserve_is_held_once_and_given_up_once(disk: Path) -> None:
    kept = Reserve(disk / "reserve")
    assert kept.hold()
    assert kept.hold()
    size = (disk / "reserve").stat().st_size
    assert size == 64 * 1024 * 1024 // 20
    assert os.stat(disk / "reserve").st_blocks * 512 >= size
    assert os.stat(disk / "reserve").st_mode & 0o777 == 0o600
    assert kept.release()
    assert not kept.release()
    fill(disk)
    assert not kept.hold()
    assert [file.name for file in disk.iterdir()] == ["ballast"]
