"""What the policy has decided is kept within bounds, whole lines only, and costs nobody a certificate."""

import errno
import json
import os
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from pki.rules.facts import EntryFacts, Facts, RequestFacts
from tests.authorities import NOW
from twisted_mesh.ca.policy.journal import LONGEST, Decided, DecisionJournal


def row(number: int = 0, **asked: Any) -> Decided:
    return Decided(f"at {number}", "allow", "all", "", "d1", Facts(**asked))


@pytest.fixture
def journal(tmp_path: Path) -> DecisionJournal:
    return DecisionJournal(tmp_path / "policy", size=20_000, files=3)


def told(journal: DecisionJournal, count: int = 100) -> list[str]:
    return [one.at for one in journal.reader(count)()]


def test_the_last_are_told_the_oldest_first(journal: DecisionJournal) -> None:
    for number in range(5):
        journal.note(row(number))
    assert told(journal) == [f"at {number}" for number in range(5)]
    assert told(journal, 2) == ["at 3", "at 4"]


def test_what_is_told_can_be_asked_again(journal: DecisionJournal) -> None:
    asked = Facts(
        selectors=("a:b",), time=NOW, request=RequestFacts(ttl=7, dns_names=("a.example",))
    )
    journal.note(Decided("at", "allow", "all", "", "d1", asked))
    (kept,) = journal.reader(1)()
    assert kept.input == asked.as_input()
    assert Facts.of_input(kept.input) == asked


def test_an_empty_one_tells_nothing(journal: DecisionJournal) -> None:
    assert told(journal) == []


def test_nobody_else_reads_it(journal: DecisionJournal) -> None:
    journal.note(row())
    assert journal.directory.stat().st_mode & 0o777 == 0o700
    assert [path.stat().st_mode & 0o777 for path in journal.directory.iterdir()] == [0o600]


def test_it_is_bounded_and_loses_the_oldest(journal: DecisionJournal) -> None:
    for number in range(500):
        journal.note(row(number))
    sizes = [path.stat().st_size for path in journal.directory.iterdir()]
    assert len(sizes) <= 3 and max(sizes) < 20_000 + 1000
    found = told(journal, 1000)
    assert found == [f"at {number}" for number in range(500 - len(found), 500)] and len(found) > 30


def test_half_a_line_of_a_crash_spoils_no_other(journal: DecisionJournal) -> None:
    journal.note(row(1))
    newest = journal.directory / "decisions.jsonl"
    with newest.open("ab") as file:
        file.write(b'{"at": "at 2", "outc')
    again = DecisionJournal(journal.directory)
    again.note(row(3))
    assert told(again) == ["at 1", "at 3"]


def test_what_is_none_is_left_out(journal: DecisionJournal) -> None:
    journal.note(row(1))
    with (journal.directory / "decisions.jsonl").open("ab") as file:
        file.write(b"[" * 5000 + b'\n{"at": 1}\nnull\n\xff\xfe\n')
    journal.note(row(2))
    assert told(journal) == ["at 1", "at 2"]


def test_a_crash_between_two_renames_loses_one_file_at_most(journal: DecisionJournal) -> None:
    done = 0
    replace = Path.replace

    def killed(self: Path, target: Path) -> Path:
        nonlocal done
        done += 1
        if done == 4:  # the second rotation, after its first step
            raise KeyboardInterrupt
        return replace(self, target)

    with patch.object(Path, "replace", killed), pytest.raises(KeyboardInterrupt):
        for number in range(100):
            journal.note(row(number))
    assert told(DecisionJournal(journal.directory))[-1].startswith("at ")


def test_a_full_disk_is_told_and_harms_nobody(journal: DecisionJournal) -> None:
    journal.note(row(1))
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with patch("twisted_mesh.ca.policy.journal.os.open", side_effect=full):
        journal.note(row(2))
    assert journal.memory.problem is not None
    assert "free some space" in journal.memory.problem.remedy
    journal.memory.again()
    assert journal.memory.problem is None
    journal.note(row(3))
    assert told(journal) == ["at 1", "at 3"]


def test_half_a_line_that_a_full_disk_leaves_is_taken_back(journal: DecisionJournal) -> None:
    journal.note(row(1))
    with Path("/dev/full").open("wb", buffering=0) as device:
        before = os.open

        def full(path: Any, flags: int, mode: int = 0o777) -> int:
            return (
                os.dup(device.fileno())
                if str(path).endswith("decisions.jsonl")
                else before(path, flags, mode)
            )

        with patch("twisted_mesh.ca.policy.journal.os.open", full):
            journal.note(row(2))
    assert journal.memory.problem is not None
    assert told(journal) == ["at 1"]


def test_a_link_in_its_place_is_not_followed(journal: DecisionJournal, tmp_path: Path) -> None:
    journal.directory.mkdir(mode=0o700)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("")
    (journal.directory / "decisions.jsonl").symlink_to(elsewhere)
    journal.note(row(1))
    assert elsewhere.read_text() == ""
    assert journal.memory.problem is not None


def test_a_pipe_in_its_place_holds_nobody_up(journal: DecisionJournal) -> None:
    journal.directory.mkdir(mode=0o700)
    os.mkfifo(journal.directory / "decisions.jsonl")
    journal.note(row(1))
    assert journal.memory.problem is not None


def test_one_that_is_too_long_is_not_kept(journal: DecisionJournal) -> None:
    journal.note(row(1, action="x" * LONGEST))
    journal.note(row(2))
    assert told(journal) == ["at 2"]


def test_values_of_environments_are_kept_only_where_the_entry_names_them(
    journal: DecisionJournal,
) -> None:
    selectors = ["docker:env:PASSWORD=hunter2", "docker:env:TIER=web", "docker:label:a:b"]
    named = EntryFacts(selectors=("docker:env:TIER=web",))
    journal.note(row(1, selectors=tuple(selectors), entry=named))
    (kept,) = journal.reader(1)()
    assert kept.input["selectors"] == [
        "docker:env:PASSWORD=(not shown)",
        "docker:env:TIER=web",
        "docker:label:a:b",
    ]
    assert "hunter2" not in json.dumps(kept.input)
