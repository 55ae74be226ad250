"""What the programs have in common: they say their version, their options, and why they ended."""

import re
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version

import click
import pytest

from twisted_mesh.cli import client, inspect
from twisted_mesh.cli.ctl import command as ctl
from twisted_mesh.cli.program import run_program
from twisted_mesh.cli.stdout import OutputLost

Main = Callable[[Sequence[str]], int]

PROGRAMS: dict[str, tuple[Main, tuple[list[str], ...]]] = {
    "mesh-client": (client.main, ([],)),
    "mesh-ctl": (ctl.main, ([], ["doctor"], ["cert"], ["cert", "list"])),
    "pki-inspect": (inspect.main, ([], ["show"], ["verify"], ["lint"], ["probe"])),
}
EACH = [
    pytest.param(main, words, id=" ".join([name, *words]))
    for name, (main, lines) in PROGRAMS.items()
    for words in lines
]


@pytest.mark.parametrize(("main", "words"), EACH)
def test_every_command_says_its_version(
    main: Main, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):  # a command may be loaded once, and run again
        assert main([*words, "--version"]) == 0
        assert capsys.readouterr() == (f"twisted-mesh {version('twisted-mesh')}\n", "")


@pytest.mark.parametrize(("main", "words"), EACH)
def test_every_command_shows_its_options(
    main: Main, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    shown = []
    for asked in ("-h", "--help"):
        assert main([*words, asked]) == 0
        shown.append(capsys.readouterr())
    assert shown[0] == shown[1]
    assert re.search(r"^  -h, --help  ", shown[0].out, re.MULTILINE)


@pytest.mark.parametrize(
    ("raised", "status", "said"),
    [
        (click.UsageError("it is not so."), 2, "x: it is not so (see x --help)\n"),
        (click.ClickException("no file"), 1, "x: no file\n"),
        (click.Abort(), 130, ""),
        (OSError(28, "No space left on device"), 2,
         "x: the output cannot be written (No space left on device): free some space\n"),
        (OutputLost(OSError(28, "No space left on device")), 2,
         "x: the output cannot be written (No space left on device): free some space\n"),
        (OutputLost(BrokenPipeError(32, "Broken pipe")), 1, ""),
        (OSError(24, "Too many open files", "/a/b"), 2,
         "x: no file descriptor is left: raise the limit (ulimit -n)\n"),
        (PermissionError(13, "Permission denied", "/a/b"), 2,
         "x: /a/b cannot be used (Permission denied): look at it, and at its directories\n"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)  # fmt: skip
def test_a_failure_is_a_status_and_a_sentence(
    raised: Exception,
    status: int,
    said: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    @click.command()
    def command() -> None:
        raise raised

    monkeypatch.setattr("twisted_mesh.cli.stdout.abandon_stdout", lambda: None)
    assert run_program("x", command, []) == status
    assert capsys.readouterr() == ("", said)


def test_a_bug_is_not_hidden() -> None:
    @click.command()
    def command() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_program("x", command, [])


def test_a_program_without_stderr_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    assert client.main(["--no-such-option"]) == 2
