"""What an auditor finds in a log that was tampered with, and where; and that a good log is left alone."""

from collections.abc import Sequence
from datetime import datetime, timedelta

import pytest
from attrs import frozen
from hypothesis import given
from hypothesis import strategies as st

from pki.audit.auditor import Finding, Row, examine
from pki.audit.log import Act, Checkpoint, Entry
from pki.tlog import merkle
from pki.tlog.merkle import EMPTY_ROOT, leaf_hash
from tests.authorities import NOW
from tests.pki.tlog.test_merkle import Tiles

ORIGIN = "mesh.local/audit/0123456789abcdef"
SIZE = 600
SIGNED = (100, 256, 400, 550)


def entry(number: int, act: Act = Act.ISSUE, at: datetime | None = None) -> bytes:
    at = at or NOW + timedelta(seconds=number)
    return Entry(at, act, "self", f"{number:x}", {"n": str(number)}).to_bytes()


ENTRIES = tuple(entry(number) for number in range(SIZE))


def kept(entries: Sequence[bytes] = ENTRIES) -> list[Row]:
    """The rows of a log whose stored tree fits its entries."""
    return [Row(position, data, leaf_hash(data)) for position, data in enumerate(entries)]


def at_size(
    size: int, entries: Sequence[bytes] = ENTRIES, origin: str = ORIGIN, hours: int = 0
) -> Checkpoint:
    tiles = Tiles(entries[:size])
    at = NOW + timedelta(seconds=size, hours=hours)
    return Checkpoint(origin, size, merkle.root(size, tiles.read), at)


CHECKPOINTS = tuple(at_size(size) for size in SIGNED)
NEW = entry(1_000_000, Act.REVOKE)


def replaced(rows: list[Row], position: int, row: Row) -> list[Row]:
    return [*rows[:position], row, *rows[position + 1 :]]


def found(rows: Sequence[Row], checkpoints: Sequence[Checkpoint] = CHECKPOINTS) -> list[Finding]:
    return list(examine(rows, checkpoints))


def told(
    rows: Sequence[Row], checkpoints: Sequence[Checkpoint] = CHECKPOINTS
) -> list[tuple[str, int, int]]:
    return [(finding.code, finding.start, finding.end) for finding in found(rows, checkpoints)]


@given(
    st.lists(st.integers(0, SIZE), max_size=6), st.integers(0, SIZE), st.booleans(), st.booleans()
)
def test_a_good_log_is_left_alone(
    sizes: list[int], pruned: int, repeat: bool, knows_leaves: bool
) -> None:
    rows = [
        Row(p, None if p < pruned else data, leaf if knows_leaves or p < pruned else None)
        for p, data, leaf in kept()
    ]
    checkpoints = [at_size(size) for size in sizes] * (2 if repeat else 1)
    assert told(rows, checkpoints) == []


def test_an_empty_log_is_left_alone() -> None:
    assert told([], []) == told([], [at_size(0)]) == []


def test_rows_may_be_what_a_database_answers() -> None:
    assert list(examine(iter(map(Row._make, map(tuple, kept()))), iter(CHECKPOINTS))) == []


@pytest.mark.parametrize("position", [0, 99, 100, 300, 599])
def test_an_edited_entry_is_found_exactly(position: int) -> None:
    row = Row(position, NEW, leaf_hash(ENTRIES[position]))
    findings = [f for f in found(replaced(kept(), position, row)) if f.is_breach]
    assert [(f.code, f.start, f.end) for f in findings] == [("log-edited", position, position + 1)]
    assert str(position) in findings[0].detail


def test_an_edited_entry_of_unknown_leaf_is_found_between_two_checkpoints() -> None:
    rows = [Row(position, data) for position, data, _ in replaced(kept(), 300, Row(300, NEW))]
    assert ("log-rewritten", 256, 400) in told(rows)


@pytest.mark.parametrize(
    ("position", "start", "end"),
    [(0, 0, 100), (99, 0, 100), (100, 100, 256), (255, 100, 256), (399, 256, 400), (549, 400, 550)],
)
def test_an_entry_hashed_anew_with_the_whole_tree_is_found_between_two_checkpoints(
    position: int, start: int, end: int
) -> None:
    # Whoever has the database and not the log's key: everything in it fits, and was never signed.
    forged = (*ENTRIES[:position], entry(position, Act.STOP), *ENTRIES[position + 1 :])
    (finding,) = found(kept(forged))
    assert (finding.code, finding.start, finding.end) == ("log-rewritten", start, end)
    assert f"from {start} to {end - 1}" in finding.detail


def test_what_no_checkpoint_covers_can_be_changed() -> None:
    # The limit of every such log, and why checkpoints are signed each second and kept by witnesses.
    forged = (*ENTRIES[:550], entry(550, Act.STOP), *ENTRIES[551:])
    assert told(kept(forged)) == []


def test_two_entries_swapped_in_place_are_both_found() -> None:
    rows = kept()
    three, four = rows[3], rows[4]
    rows[3:5] = [Row(3, four.entry, three.leaf), Row(4, three.entry, four.leaf)]
    assert told(rows) == [("log-edited", 3, 4), ("log-edited", 4, 5)]


def test_two_entries_swapped_with_their_leaves_are_found_between_checkpoints() -> None:
    rows = kept()
    rows[300], rows[301] = Row(300, *rows[301][1:]), Row(301, *rows[300][1:])
    assert told(rows) == [("log-rewritten", 256, 400)]


@pytest.mark.parametrize(("start", "end"), [(0, 1), (0, 100), (5, 6), (120, 130)])
def test_a_cut_is_found_with_what_is_missing(start: int, end: int) -> None:
    rows = kept()
    del rows[start:end]
    assert told(rows) == [("log-cut", start, end)]


def test_each_of_several_cuts_is_found() -> None:
    rows = [row for row in kept() if row.position % 100 not in (7, 8)]
    assert told(rows) == [("log-cut", n + 7, n + 9) for n in range(0, 600, 100)]


def test_a_cut_that_was_closed_by_numbering_anew_is_found_between_checkpoints() -> None:
    assert told(kept(ENTRIES[:300] + ENTRIES[301:]))[0] == ("log-rewritten", 256, 400)


def test_an_entry_whose_text_and_hash_are_wiped_is_missing() -> None:
    assert told(replaced(kept(), 300, Row(300, None))) == [("log-cut", 300, 301)]
    assert told([*kept()[:590], *(Row(n, None) for n in range(590, 595)), *kept()[595:]]) == [
        ("log-cut", 590, 595)
    ]


def test_a_log_without_any_text_or_hash_was_rolled_back_to_nothing() -> None:
    assert told([Row(position, None) for position in range(SIZE)]) == [("log-rolled-back", 0, 550)]


def test_text_wiped_in_between_is_no_pruning() -> None:
    rows = [row._replace(entry=None) if 10 <= row.position < 13 else row for row in kept()]
    assert told(rows) == [("log-cut", 10, 13)]
    rows = [row._replace(entry=None) if row.position >= 597 else row for row in kept()]
    assert told(rows) == [("log-cut", 597, 600)]


def test_text_that_cannot_be_read_counts_as_kept() -> None:
    forged = (b"rubbish", *ENTRIES[1:])
    rows = replaced(kept(forged), 1, Row(1, None, leaf_hash(ENTRIES[1])))
    assert told(rows, [at_size(100, forged)]) == [("bad-entry", 0, 1), ("log-cut", 1, 2)]


def test_a_position_that_is_there_twice_is_found() -> None:
    rows = kept()
    assert told([*rows[:301], rows[300], *rows[301:]]) == [("log-repeated", 300, 301)]
    assert told([*rows, rows[0]]) == [("log-repeated", 0, 1)]


def test_a_second_entry_at_one_position_does_not_replace_the_first() -> None:
    rows = kept()
    rows.insert(301, Row(300, NEW, leaf_hash(NEW)))
    assert told(rows) == [("log-repeated", 300, 301)]


def test_rows_out_of_order_are_found_and_not_called_missing() -> None:
    rows = kept()
    rows[300], rows[301] = rows[301], rows[300]
    assert told(rows) == [("log-reordered", 300, 301)]
    rows = kept()
    late = rows[20:23]
    assert told([*rows[:20], *rows[24:500], *late, *rows[500:]]) == [
        ("log-reordered", 20, 21),
        ("log-reordered", 21, 22),
        ("log-reordered", 22, 23),
        ("log-cut", 23, 24),
    ]


def test_an_endless_number_of_gaps_is_told_as_they_come() -> None:
    rows = iter([Row(position, None, EMPTY_ROOT) for position in range(0, 10_000, 2)])
    findings = examine(rows, [])
    assert next(findings) == Finding("log-cut", 1, 2, "entry 1 missing from the log")
    # The row that is taken out here makes one gap of two.
    assert next(rows).position < 2100
    assert sum(1 for _ in findings) == 4997


def test_a_log_that_was_rolled_back_lacks_at_least_what_was_signed() -> None:
    (finding,) = found(kept(ENTRIES[:420]))
    assert (finding.code, finding.start, finding.end) == ("log-rolled-back", 420, 550)
    assert "at least 130 are gone" in finding.detail


def test_a_log_that_was_rolled_back_and_went_on_is_found_by_a_witness() -> None:
    # Put back to 420, and grown past what the witness has seen: the sizes alone tell nothing.
    forged = ENTRIES[:420] + tuple(entry(n, Act.RENEW) for n in range(420, 700))
    own = at_size(700, forged, hours=1)
    assert told(kept(forged), [*CHECKPOINTS, own]) == [("log-rewritten", 400, 550)]


def test_two_roots_signed_for_one_size_are_a_fork_whatever_the_log_holds() -> None:
    other = at_size(256, [NEW] * 256, hours=1)
    assert told(kept(), [*CHECKPOINTS, other]) == [("log-forked", 0, 256)]
    assert told(kept(ENTRIES[:5]), [at_size(256), other])[0] == ("log-forked", 0, 256)


def test_a_fork_does_not_hide_what_was_changed_after_it() -> None:
    forged = (*ENTRIES[:300], NEW, *ENTRIES[301:])
    codes = [f.code for f in found(kept(forged), [*CHECKPOINTS, at_size(256, [NEW] * 256)])]
    assert codes == ["log-forked", "time-backwards", "log-rewritten"]


def test_a_log_in_place_of_another_is_found_and_judged_by_its_own_checkpoints() -> None:
    before = at_size(550, [NEW] * 550, "mesh.local/audit/before", hours=-9)
    findings = found(kept(), [before, *CHECKPOINTS])
    assert [(f.code, f.start, f.end) for f in findings] == [("log-replaced", 0, 550)]
    assert "mesh.local/audit/before" in findings[0].detail
    assert ORIGIN in findings[0].detail


def test_an_empty_log_has_one_root() -> None:
    assert told(kept(), [Checkpoint(ORIGIN, 0, leaf_hash(b""), NOW)])[0] == ("log-rewritten", 0, 0)


def test_an_entry_that_cannot_be_read_is_found_although_it_was_signed() -> None:
    forged = (*ENTRIES[:50], b'{"act":"issue"}', *ENTRIES[51:])
    assert told(kept(forged), [at_size(100, forged)]) == [("bad-entry", 50, 51)]


def test_a_clock_that_ran_backwards_is_a_note_and_no_breach() -> None:
    back = NOW + timedelta(seconds=49) - timedelta(minutes=1)
    at_the_limit = (*ENTRIES[:50], entry(50, at=back), *ENTRIES[51:])
    assert told(kept(at_the_limit), []) == []
    beyond = (*ENTRIES[:50], entry(50, at=back - timedelta(seconds=1)), *ENTRIES[51:])
    (finding,) = found(kept(beyond), [])
    assert (finding.code, finding.start, finding.is_breach) == ("time-backwards", 50, False)


@frozen
class Tampering:
    """What an attacker does to one position of the database, leaves hashed anew or not."""

    kind: str
    position: int
    rehash: bool

    def of(self, rows: list[Row]) -> list[Row]:
        data = list(rows)
        at = self.position
        match self.kind:
            case "edit":
                data[at] = data[at]._replace(entry=entry(at, Act.ADMINISTER))
            case "cut":
                data = [
                    row._replace(position=i) for i, row in enumerate(data[:at] + data[at + 1 :])
                ]
            case "insert":
                added = Row(at, NEW, leaf_hash(NEW))
                data = [
                    row._replace(position=i)
                    for i, row in enumerate([*data[:at], added, *data[at:]])
                ]
            case "delete":
                del data[at]
            case "truncate":
                data = data[:at]
        if self.rehash:
            data = [row._replace(leaf=leaf_hash(row.entry or b"")) for row in data]
        return data


@given(
    st.builds(
        Tampering,
        st.sampled_from(["edit", "cut", "insert", "delete", "truncate"]),
        st.integers(0, SIGNED[-1] - 1),
        st.booleans(),
    )
)
def test_whatever_is_done_to_a_signed_entry_is_found_and_located(tampering: Tampering) -> None:
    breaches = [f for f in found(tampering.of(kept())) if f.is_breach]
    assert breaches
    assert any(f.start <= tampering.position < f.end for f in breaches)
    # No further apart than two checkpoints, save for what is gone from the end.
    assert all(f.end - f.start <= 156 for f in breaches if f.code != "log-rolled-back")
