"""docs/FEDERATION.md: what it names as tests are tests."""

import re

from tests.running import CHECKOUT


def test_each_line_of_the_specification_is_held_by_a_test() -> None:
    page = (CHECKOUT / "docs" / "FEDERATION.md").read_text()
    _, table = page.split("## The specification, line by line")
    lines = [line for line in table.split("\n## ")[0].splitlines() if line.startswith("| ")][1:]
    assert len(lines) > 15
    sources = "\n".join(path.read_text() for path in (CHECKOUT / "tests").rglob("test_*.py"))
    there = set(re.findall(r"def (test_\w+)\(", sources))
    for line in lines:
        named = set(re.findall(r"`(test_\w+)`", line))
        assert named, line
        assert named <= there
