"""What the recipes tell people to type is understood, also where none of the programs of others is installed."""

import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.recipes.estate import DOCUMENTS, blocks
from tests.recipes.pages import program
from twisted_mesh.taps import agent_options, proxy_options


def commands(program: str) -> Iterator[tuple[str, list[str]]]:
    pages = [path.stem for path in sorted(DOCUMENTS.glob("*.md"))]
    for page in (*pages, "../SIDECAR", "../COMING_FROM"):
        for block in blocks(page, "sh"):
            for line in block.replace("\\\n", " ").splitlines():
                words = shlex.split(line, comments=True)
                if words[:1] == [program]:
                    yield page, words[1:]


AGENTS, SIDECARS = list(commands("mesh-agent")), list(commands("mesh-proxy"))


@pytest.mark.parametrize(("document", "words"), AGENTS, ids=[name for name, _ in AGENTS])
def test_the_agent_understands_what_a_recipe_says(
    document: str, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    options = agent_options.Options()
    options.parseOptions(words)
    assert options["write"].is_absolute()
    assert (
        options["command"] or options["signal"] or document == "envoy"
    )  # which watches the files itself


@pytest.mark.parametrize(("document", "words"), SIDECARS, ids=[name for name, _ in SIDECARS])
def test_the_sidecar_understands_what_a_recipe_says(
    document: str, words: list[str], tmp_path: Path
) -> None:
    if "--pidfile" in words:  # which is twistd's
        at = words.index("--pidfile")
        words = [*words[:at], *words[at + 2 :]]
    if "--config" in words:
        (text,) = blocks(document, "toml")
        file = tmp_path / "sidecar.toml"
        file.touch(mode=0o600)
        file.write_text(text)
        words = [*words, "--config", str(file)]
    options = proxy_options.Options()
    options.parseOptions(words)
    assert options["listeners"]


def test_an_application_of_fastapi_needs_three_lines() -> None:
    lines = program("fastapi.md", "server").splitlines()
    assert len([line for line in lines if re.search(r"\b(join|for_uvicorn|me)\b", line)]) == 3
