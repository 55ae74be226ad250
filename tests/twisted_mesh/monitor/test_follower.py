"""One log followed: every entry and head verified, the place kept, and what is wrong with a log told with evidence."""

from collections.abc import Iterator, Sequence
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

from pki.codes import Code
from pki.ct.entry import EntryType, LogEntry, SignedEntry
from pki.ct.evidence import parse_evidence
from tests.authorities import DAY, HOUR, NOW, mesh
from tests.twisted_mesh.monitor.rig import Rig
from tests.written_log import WrittenLog, leaves
from twisted_mesh.monitor import follower
from twisted_mesh.monitor.alert import AlertKind
from twisted_mesh.monitor.index import Step
from twisted_mesh.monitor.name_pattern import NamePattern
from twisted_mesh.monitor.reading import EntryReader
from twisted_mesh.monitor.search import Query
from twisted_mesh.monitor.tile_scan import Scanned
from twisted_mesh.monitor.watch_list import WatchList
from twisted_mesh.state.directory import StateError

FEW = 5


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path)
    yield made
    made.database.close()


def test_every_entry_is_read_and_verified_and_indexed(rig: Rig) -> None:
    certs = leaves(FEW)
    rig.log.add(*certs)
    rig.log.sign()
    assert rig.turn()
    assert rig.follower.place is not None
    assert (rig.follower.place.size, rig.follower.place.tree.root) == (FEW, rig.log.root)
    assert not rig.alerts()
    found = rig.found()
    assert [one.position for one in found] == [4, 3, 2, 1, 0]
    assert {one.serial for one in found} == {cert.serial_number for cert in certs}
    assert found[0].names == ("spiffe://mesh.local/service/n4",)
    assert found[0].is_precertificate
    assert (
        rig.found(Query(name=NamePattern.parse("spiffe://mesh.local/service/n2")))[0].position == 2
    )


def test_a_certificate_is_indexed_under_the_key_of_its_issuer(rig: Rig) -> None:
    (cert,) = leaves(1)
    rig.log.add(cert)
    rig.log.add_certificate(cert, mesh().issuing.certificate)
    rig.log.sign()
    assert rig.turn()
    final, pre = rig.found()
    assert not final.is_precertificate
    assert final.issuer == pre.issuer
    assert final.serial == pre.serial == cert.serial_number


def test_it_goes_on_where_it_was_and_reads_nothing_twice(rig: Rig) -> None:
    rig.log.add(*leaves(FEW))
    rig.log.sign()
    assert rig.turn()
    rig.again()
    for full in range(0, 255, 85):
        rig.log.add(*leaves(85, start=FEW + full))
    rig.log.sign(NOW + HOUR)
    # The first tile is full by now, and its entries that were read must be there and count once.
    assert rig.turn()
    assert rig.follower.place is not None
    assert rig.follower.place.size == FEW + 255 == len(rig.found())
    assert rig.follower.place.tree.root == rig.log.root


def test_an_old_data_tile_is_not_asked_for_again(rig: Rig) -> None:
    certs = leaves(256)
    rig.log.add(*certs)
    rig.log.sign()
    assert rig.turn()
    (rig.log.path / "tile/data/000").unlink()
    rig.log.add(*certs[:3])
    rig.log.sign(NOW + HOUR)
    assert rig.turn()
    assert len(rig.found()) == 259


def test_an_entry_that_is_not_the_one_in_the_tree_is_found_and_not_indexed(rig: Rig) -> None:
    rig.log.add(*leaves(FEW))
    rig.log.sign()
    path = rig.log.path / f"tile/data/000.p/{FEW}"
    damaged = bytearray(path.read_bytes())
    at = damaged.index(b"spiffe://mesh.local/service/n3") + 29
    damaged[at] = ord("9")
    path.write_bytes(bytes(damaged))
    assert not rig.turn()
    assert rig.kinds() == [AlertKind.CONTRADICTS]
    assert not rig.found()
    assert rig.follower.place is not None
    assert rig.follower.place.size == 0
    # Once the log serves what it has signed again, that is over, and all is read.
    path.write_bytes(bytes(damaged[:at]) + b"3" + bytes(damaged[at + 1 :]))
    assert rig.turn()
    assert len(rig.found()) == FEW
    assert not rig.index.standing()


def other_history(rig: Rig, size: int) -> WrittenLog:
    """The same log with other entries."""
    other = WrittenLog(rig.path / f"other-{size}")
    other.add(*leaves(size, "service/other"))
    other.sign(NOW + HOUR)
    rig.now = NOW + HOUR
    return other


@pytest.mark.parametrize("size", [FEW, FEW + 2])
def test_a_fork_is_told_with_evidence_that_anybody_can_verify(rig: Rig, size: int) -> None:
    rig.log.add(*leaves(FEW))
    rig.log.sign()
    assert rig.turn()
    rig.follower = rig.follow(other_history(rig, size))
    assert not rig.turn()
    assert not rig.turn()  # and it is told once
    (alert,) = rig.alerts()
    assert alert.kind is AlertKind.FORKED
    evidence = parse_evidence(Path(alert.facts["evidence"]).read_bytes())
    assert evidence.verify(rig.log.logs).code is Code.CT_LOG_FORKED
    assert len(rig.found()) == FEW


def test_a_log_that_was_rolled_back_is_told_with_evidence(rig: Rig) -> None:
    rig.log.add(*leaves(3))
    rig.log.sign()
    rig.log.add(*leaves(2, start=3))
    before = WrittenLog(rig.path / "older")
    before.add(*leaves(3))
    rig.log.sign(NOW + timedelta(minutes=1))
    assert rig.turn()
    before.sign(NOW + HOUR)
    rig.now = NOW + HOUR
    rig.follower = rig.follow(before)
    assert not rig.turn()
    (alert,) = rig.alerts()
    assert alert.kind is AlertKind.ROLLED_BACK
    evidence = parse_evidence(Path(alert.facts["evidence"]).read_bytes())
    assert evidence.verify(rig.log.logs).code is Code.CT_LOG_ROLLED_BACK


def test_an_old_head_that_is_shown_again_is_told_and_proves_nothing(rig: Rig) -> None:
    rig.log.add(*leaves(3))
    old = rig.log.sign()
    rig.log.add(*leaves(2, start=3))
    rig.log.sign(NOW + timedelta(minutes=1))
    assert rig.turn()
    rig.log.show(old)
    assert not rig.turn()
    (alert,) = rig.alerts()
    assert alert.kind is AlertKind.ROLLED_BACK
    assert "evidence" not in alert.facts


def test_a_head_of_another_key_is_no_head(rig: Rig) -> None:
    rig.log.add(*leaves(1))
    note = rig.log.sign()
    rig.log.show(note[:-8] + "AAAA" + note[-4:])
    assert not rig.turn()
    assert rig.kinds() == [AlertKind.AWAY]


def test_a_log_that_is_away_is_told_once_and_when_it_is_over(rig: Rig) -> None:
    rig.log.add(*leaves(1))
    assert not rig.turn()  # there is no checkpoint
    assert not rig.turn()
    assert rig.kinds() == [AlertKind.AWAY]
    rig.log.sign()
    assert rig.turn()
    assert not rig.index.standing()
    (rig.log.path / "checkpoint").unlink()
    assert not rig.turn()
    assert rig.kinds() == [AlertKind.AWAY] * 2


@pytest.mark.parametrize(
    ("signed_at", "kind"),
    [
        (NOW + timedelta(minutes=6), AlertKind.CLOCK),
        (NOW + timedelta(minutes=4), None),
        (NOW - timedelta(hours=25), AlertKind.STALE),
        (NOW - timedelta(hours=23), None),
    ],
)
def test_the_clock_of_a_log(rig: Rig, signed_at: object, kind: AlertKind | None) -> None:
    rig.log.add(*leaves(1), at=NOW - 2 * DAY)
    rig.log.sign(signed_at)  # type: ignore[arg-type]
    assert rig.turn()
    assert rig.kinds() == ([kind] if kind else [])


def test_a_clock_that_goes_back_is_told(rig: Rig) -> None:
    rig.log.add(*leaves(1), at=NOW - HOUR)
    rig.log.sign(NOW)
    assert rig.turn()
    rig.log.add(*leaves(1, start=1), at=NOW - HOUR)
    rig.log.sign(NOW - timedelta(minutes=30))
    assert rig.turn()
    assert rig.kinds() == [AlertKind.CLOCK]


def test_an_entry_dated_after_the_head_that_has_it_is_told(rig: Rig) -> None:
    rig.log.add(*leaves(1), at=NOW + timedelta(minutes=3))
    rig.log.sign(NOW)
    assert rig.turn()
    assert rig.kinds() == [AlertKind.CLOCK]


def test_what_is_watched_for_is_told_in_the_same_transaction(tmp_path: Path) -> None:
    watch = WatchList((NamePattern.parse("spiffe://mesh.local/service/n1"),))
    rig = Rig(tmp_path, watch)
    rig.log.add(*leaves(3))
    rig.log.sign()
    assert rig.turn()
    (alert,) = rig.alerts()
    assert alert.kind is AlertKind.NAME_SEEN
    assert alert.facts["position"] == "1"
    assert alert.facts["spiffe_id"] == "spiffe://mesh.local/service/n1"
    rig.database.close()


def test_what_is_torn_in_the_middle_is_not_there_at_all(rig: Rig) -> None:
    rig.log.add(*leaves(150))
    rig.log.sign()
    # The disk is full before the transaction ends: nothing of it may be there, and the next turn reads it all.
    rig.database.do("PRAGMA max_page_count = 1")
    with pytest.raises(StateError, match="free some space"):
        rig.turn()
    rig.database.do("PRAGMA max_page_count = 1073741823")
    assert not rig.found()
    rig.again()
    assert rig.turn()
    assert len(rig.found()) == 150


def test_a_place_that_was_tampered_with_does_not_make_a_log_verify(rig: Rig) -> None:
    rig.log.add(*leaves(3))
    rig.log.sign()
    assert rig.turn()
    rig.database.do("UPDATE logs SET peaks = ?", sha256(b"x").digest() * 2)
    rig.log.add(*leaves(1, start=3))
    rig.log.sign(NOW + timedelta(minutes=1))
    rig.again()
    assert not rig.turn()
    assert rig.kinds() == [AlertKind.CONTRADICTS]


def test_a_log_of_huge_entries_is_read_piece_by_piece(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever a log serves, a monitor that follows others too has to hold it in memory."""
    monkeypatch.setattr(follower, "MOST_BYTES", 100_000)
    huge = LogEntry(0, SignedEntry(EntryType.PRECERT, bytes(100), bytes(32)), 0, bytes(100))
    rig.log.append(evolve(huge, leaf_index=index) for index in range(256 * 20 + 3))
    rig.log.sign()
    held: list[int] = []
    really = EntryReader.step

    def step(self: EntryReader, entries: Sequence[Scanned], *rest: Any) -> Step:
        held.append(len(entries))
        return really(self, entries, *rest)

    monkeypatch.setattr(EntryReader, "step", step)
    assert rig.turn()
    assert rig.follower.place is not None and rig.follower.place.size == rig.log.size
    assert held == [8 * 256, 8 * 256, 4 * 256 + 3]


def test_an_entry_of_a_time_that_no_database_has_is_read_like_others(rig: Rig) -> None:
    """A log may date an entry as it likes, and is told so; what it has after that one is to be seen all the same."""
    (cert,) = leaves(1)
    signed = SignedEntry(EntryType.PRECERT, cert.tbs_certificate_bytes, bytes(32))
    rig.log.append([LogEntry(2**64 - 1, signed, 0, b"pre")])
    rig.log.add(cert)
    rig.log.sign()
    assert rig.turn()
    assert rig.kinds() == [AlertKind.CLOCK]
    assert [found.position for found in rig.found()] == [0, 1]


def test_an_entry_that_breaks_the_monitor_is_told(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever finds such a one hides by it what is logged after: that nobody reads is what is to be told first."""
    rig.log.add(*leaves(FEW))
    rig.log.sign()
    really = EntryReader.step

    def broken(*_: Any) -> Step:
        raise OverflowError("a number that nobody has thought of")

    monkeypatch.setattr(EntryReader, "step", broken)
    assert not rig.turn() and not rig.turn()
    (alert,) = rig.alerts()
    assert alert.kind is AlertKind.AWAY and "a bug of this monitor" in alert.detail
    monkeypatch.setattr(EntryReader, "step", really)
    assert rig.turn() and not rig.index.standing()
