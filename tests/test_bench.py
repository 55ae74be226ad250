"""The page of the bench: what was measured is kept, what failed is said, and its pictures are pictures."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.bench import report
from tests.bench.svg import Bar, bars
from tests.bench.tables import Table


def section(name: str, measure: Callable[..., Table], bound: int = 100) -> report.Section:
    return report.Section(name, name.title(), "Text.", measure, "CPU us each", "µs", bound)


def told(home: Path, rounds: int, say: Callable[[str], None], seconds: float = 2.0) -> Table:
    rows = ({"": "mesh-server", "CPU us each": 100}, {"": "other | <peer>", "CPU us each": None})
    return Table("x", "x", rows, (f"{rounds} rounds of {seconds} s",))


def breaks(*_: object, **__: object) -> Table:
    raise OSError("the peer is gone")


def takes_for_ever(*_: object, **__: object) -> Table:
    time.sleep(20)
    raise AssertionError("nobody has ended it")


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    def run(*of: report.Section, **how: bool) -> str:
        monkeypatch.setattr(report, "sections", lambda: of)
        monkeypatch.setattr(report, "_PAGE", tmp_path / "docs" / "PAGE.md")
        monkeypatch.setattr(report, "_PLOTS", tmp_path / "docs" / "plots")
        page = report.run(tmp_path / "kept", tmp_path, {"machine": "this"}, lambda _: None, **how)
        return page.read_text()

    return run


def test_what_was_measured_is_kept_until_it_is_wanted_anew(
    written: Callable[..., str], tmp_path: Path
) -> None:
    first = written(section("one", told))
    assert "| mesh-server | 100 |" in first
    assert "| other \\| <peer> | - |" in first
    assert "3 rounds of 2.0 s" in first
    assert "![One](plots/one.svg)" in first
    assert written(section("one", breaks), section("two", told)).startswith(first.rstrip()[:-40])
    assert "the peer is gone" in written(section("one", breaks), again=True)
    assert json.loads((tmp_path / "kept" / "two.json").read_text())["table"]["rows"]


def test_a_section_that_breaks_or_takes_too_long_says_so_and_the_others_go_on(
    written: Callable[..., str],
) -> None:
    sections = section("breaks", breaks), section("late", takes_for_ever, bound=1)
    page = written(*sections, section("one", told), quick=True)
    assert "It could not be measured: OSError: the peer is gone" in page
    assert "It could not be measured: OutOfTime: not done within 1 s" in page
    assert "1 rounds of 0.4 s" in page


def test_the_whole_has_a_bound() -> None:
    assert sum(found.bound for found in report.sections()) <= 18 * 60


def test_a_picture_is_xml_whatever_its_labels_say_and_has_colours_for_dark_pages() -> None:
    drawn = bars(
        '<a> & "b"', "µs", [Bar("<mesh>", 1200.5, is_ours=True), Bar("none", 0.0, is_ours=False)]
    )
    root = ElementTree.fromstring(drawn)
    assert root.tag.endswith("svg")
    texts = [element.text for element in root.iter() if element.tag.endswith("text")]
    assert texts == ['<a> & "b"', "µs", "<mesh>", "1,200", "none", "0"]
    assert "prefers-color-scheme:dark" in drawn
