"""What the recipes tell people to type is understood by mesh-agent, also where none of the programs is installed."""

import re
import shlex
import shutil
from collections.abc import Iterator

import pytest

from tests.recipes.estate import DOCUMENTS, blocks
from tests.recipes.pages import program
from twisted_mesh.taps.agent_options import Options


def commands() -> Iterator[tuple[str, list[str]]]:
    for path in sorted(DOCUMENTS.glob("*.md")):
        for block in blocks(path.stem, "sh"):
            for line in block.replace("\\\n", " ").splitlines():
                words = shlex.split(line)
                if words[:1] == ["mesh-agent"]:
                    yield path.stem, words[1:]


@pytest.mark.parametrize(
    ("document", "words"), list(commands()), ids=[name for name, _ in commands()]
)
def test_the_agent_understands_what_a_recipe_says(
    document: str, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    options = Options()
    options.parseOptions(words)
    assert options["write"].is_absolute()
    assert (
        options["command"] or options["signal"] or document == "envoy"
    )  # which watches the files itself


def test_an_application_of_fastapi_needs_three_lines() -> None:
    lines = program("fastapi.md", "server").splitlines()
    assert len([line for line in lines if re.search(r"\b(join|for_uvicorn|me)\b", line)]) == 3
