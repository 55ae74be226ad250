"""docs/recipes/sidecar-*.md, with the real programs."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from attrs import frozen

from tests.recipes.estate import Estate, estate, is_open
from tests.recipes.sidecars import Program, Reader, pages
from tests.running import until
from tests.tools import require_tool

pytestmark = pytest.mark.recipes

_ASKED = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
_ANSWERED = b"HTTP/1.1 200"


@pytest.fixture
def made() -> Iterator[Estate]:
    with estate() as found:
        yield found


def node(reader: Reader, text: str) -> None:
    script = reader.estate.home / "service.js"
    script.write_text(text)
    reader.estate.start(require_tool("node"), script)
    until(lambda: is_open(reader.port("8080")))


def test_node(made: Estate) -> None:
    Reader(made, page("node"), {"js": node}, _ASKED, _ANSWERED).read()


def page(name: str) -> Path:
    (found,) = [each for each in pages() if each.stem == f"sidecar-{name}"]
    return found
