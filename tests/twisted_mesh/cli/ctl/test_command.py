"""The command line of ``mesh-ctl``: what can be typed, and what is said to the rest. No CA is asked."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from pki.audit.log import Act
from tests.running import CHECKOUT
from twisted_mesh.cli.ctl import audit, options, output
from twisted_mesh.cli.ctl.command import main, mesh_ctl

PROGRAM = [sys.executable, str(CHECKOUT / "bin" / "mesh-ctl")]


@pytest.fixture(autouse=True)
def away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state directory without a CA, and nobody's home."""
    monkeypatch.setenv("MESH_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def commands() -> Iterator[tuple[str, ...]]:
    """Every command that there is, groups too."""

    def below(group: click.Group, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        yield path
        context = click.Context(group)
        for name in group.list_commands(context):
            command = group.get_command(context, name)
            if isinstance(command, click.Group):
                yield from below(command, (*path, name))
            else:
                yield (*path, name)

    return below(mesh_ctl, ())


@pytest.mark.parametrize("path", list(commands()), ids=" ".join)
def test_every_command_has_help_with_examples(
    path: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*path, "--help"]) == 0
    shown = capsys.readouterr().out
    assert "Examples:\n" in shown
    assert f"  {' '.join(('mesh-ctl', *path))}" in shown


def test_help_loads_neither_twisted_nor_cryptography() -> None:
    ask = (
        "import sys; from twisted_mesh.cli.ctl.command import main; main(['cert', 'list', '--help']);"
        "print(json.dumps(sorted(sys.modules)) if (json := __import__('json')) else '')"
    )
    shown = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True)
    loaded = set(json.loads(shown.stdout.splitlines()[-1]))
    assert not loaded & {"twisted", "cryptography", "sqlalchemy", "rich", "OpenSSL", "pki.errors"}


SERIAL = "1f2e"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("nonsense", "No such command 'nonsense' (see mesh-ctl --help)"),
        ("cert nonsense", "No such command 'nonsense' (see mesh-ctl cert --help)"),
        ("cert list --nonsense", "No such option '--nonsense' (see mesh-ctl cert list --help)"),
        ("cert list --status good", "'good' is not one of"),
        ("cert list --limit 0", "0 is not in the range"),
        ("cert list --serial xyz", "--serial: 'xyz' is not a serial number"),
        (
            "cert list --issuer abc",
            "--issuer abc cannot be read (No such file or directory); and it is no SHA-256, which has 64 digits",
        ),
        ("cert list --key abc", "--key abc cannot be read (No such file or directory); and it is"),
        ("cert list --issued-after yesterday", "--issued-after: 'yesterday' is not a time"),
        ("cert list --expires-before 2026-11-24", "--expires-before: '2026-11-24' is not a time"),
        ("cert list --spiffe-id mesh.local", "--spiffe-id: 'mesh.local' is not a SPIFFE ID"),
        ("cert list --spiffe-id spiffe://mesh.local/*/x", "here a pattern has no *"),
        ("cert list --ca-url ftp://x", "'ftp://x' is no CA address"),
        ("cert list --ca-url https://localhost", "or name that file with --ca-file"),
        ("cert list --ca-file x", "--ca-file is for a CA at https://"),
        ("cert list --svid x", "--svid is for a CA at https://: name it with --ca-url"),
        ("cert list --ca-url https://localhost --svid x", "--svid x/svid.pem cannot be read"),
        ("cert list --timeout 1", "'1' is not a duration"),
        ("cert list --timeout 0s", "--timeout is at least 1s"),
        ("cert list --trust-domain A", "'A' is not a SPIFFE ID"),
        ("cert show", "Missing argument 'SERIAL'"),
        ("cert show 1:2", "'1:2' is not a serial number"),
        (
            "cert revoke",
            "say which certificates: --serial, --spiffe-id, --key, --entry, --agent, --issuer, or",
        ),
        ("cert revoke --reason superseded --yes", "say which certificates: --serial, --spiffe-id"),
        ("cert revoke --issued-before noon --yes", "--issued-before: 'noon' is not a time"),
        (
            "cert revoke --key /dev/null --yes",
            "--key /dev/null: there is nothing in it",
        ),
        (f"cert revoke --serial {SERIAL} --yes --reason certificateHold", "is not one of"),
        (f"cert revoke --serial {SERIAL}", "no terminal to ask for confirmation at: add --yes"),
        (f"cert revoke --serial {SERIAL} --yes --reason why", "'why' is not one of"),
        ("cert export /dev/null", "/dev/null is not a file"),
        (
            "backup create /etc/passwd",
            "/etc/passwd is there already: name another file, or say --overwrite",
        ),
        ("audit verify --verifier x", "--verifier goes with --file"),
        ("audit show -1", "No such option '-1'"),
        ("audit show 1 --act start", "POSITION is one entry"),
        ("audit show --act steal", "'steal' is not one of"),
        ("audit export", "Missing argument 'FILE'"),
        ("token create", "say what it buys: --spiffe-id ID, or --entry ID"),
        ("token create --spiffe-id spiffe://m/a --entry e", "say what it buys: --spiffe-id ID, or"),
        ("token create --entry e --dns a.example", "are said by the entry"),
        ("token create --spiffe-id mesh.local/a", "--spiffe-id: 'mesh.local/a' is not a SPIFFE ID"),
        (
            "token create --spiffe-id spiffe://m/a/*",
            "--spiffe-id: 'spiffe://m/a/*' is not a SPIFFE ID",
        ),
        ("token create --spiffe-id spiffe://m/mesh/ca", "names the mesh itself"),
        (
            "token create --spiffe-id spiffe://m/a --dns A --ip 1 --cert-ttl 0s",
            "--dns: 'A' has capital letters: write a; --ip: '1' is no IP address; "
            "--cert-ttl: a certificate lives at least 1s",
        ),
        ("token create --entry e --ttl 8d", "--ttl: a token lives from 1s to 7d"),
        ("token create --entry e --ttl soon", "--ttl: 'soon' is not a duration"),
        ("token create --entry e --key abc", "'abc' is no SHA-256: --key takes 64 digits of hex"),
        ("token create --entry e --csr gone.csr", "--csr gone.csr cannot be read"),
        ("token create --entry e --csr x --key y", "--key and --csr name the same thing"),
        ("token revoke", "Missing argument 'TOKEN'"),
        ("token revoke mj1_abc", "TOKEN is neither the id of a token"),
        ("token revoke 0123456789ab", "no terminal to ask for confirmation at: add --yes"),
        ("entry create --selector unix:uid:1", "Missing option '--spiffe-id'"),
        ("entry create --spiffe-id spiffe://m/a", "Missing option '--selector'"),
        (
            "entry create --selector uid:1 --spiffe-id spiffe://m/mesh/x --key rsa --ttl 2h --max-ttl 1h",
            "did you mean unix:uid:1000?",
        ),
        (
            "entry create --selector unix:uid:1 --spiffe-id spiffe://m/mesh/x --key rsa --ttl 2h --max-ttl 1h",
            "no entry buys it; --ttl: 2h is more than max_ttl, 1h; --key: ",
        ),
        ("entry show", "Missing argument 'ENTRY'"),
        ("entry delete default", "no terminal to ask for confirmation at: add --yes"),
        ("why --pid 0", "0 is not in the range"),
        ("why --selector uid:1", "--selector: 'uid:1' is no selector: did you mean unix:uid:1000?"),
        ("why --dns a.example", "--dns, --ip and --ttl go with --spiffe-id"),
        ("why --spiffe-id x", "--spiffe-id: 'x' is not a SPIFFE ID"),
        ("why --spiffe-id spiffe://m/a --ttl 1", "--ttl: '1' is not a duration"),
        ("why --request gone.json", "--request gone.json cannot be read"),
        ("why --request gone.json --spiffe-id spiffe://m/a", "--request says what is asked for"),
        ("why --ca-url https://localhost", "sees no processes of this machine"),
        ("why --ca-url https://localhost --pid 1", "sees no processes of this machine"),
        ("ca detach-root x", "no terminal to ask for confirmation at: add --yes"),
        ("backup restore", "Missing argument 'FILE'"),
    ],
)
def test_what_cannot_be_used_is_one_sentence_and_status_2(
    arguments: str, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments.split()) == 2
    said = capsys.readouterr()
    assert said.out == ""
    (line,) = said.err.splitlines()
    assert line.startswith("mesh-ctl: ")
    assert sentence in line


def test_a_restore_is_for_the_directorys_owner(
    away: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (away / "state" / "ca").mkdir(parents=True)
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    assert main(["backup", "restore", "ca.tar"]) == 2
    assert f"belongs to the user with uid {os.getuid()}" in capsys.readouterr().err


def test_without_a_command_it_shows_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "Commands:" in capsys.readouterr().err


def test_a_reader_that_has_gone_is_no_traceback() -> None:
    piped = subprocess.run(
        f"{' '.join(PROGRAM)} cert list --help | true", shell=True, capture_output=True, text=True
    )
    assert piped.stderr == ""


def test_shells_complete_it() -> None:
    def complete(words: str, number: int) -> list[str]:
        asked = {
            "_MESH_CTL_COMPLETE": "bash_complete",
            "COMP_WORDS": words,
            "COMP_CWORD": str(number),
        }
        shown = subprocess.run(
            PROGRAM, env={**os.environ, **asked}, capture_output=True, text=True, check=True
        )
        return [line.partition(",")[2] for line in shown.stdout.splitlines()]

    assert complete("mesh-ctl c", 1) == ["ca", "cert", "ct"]
    assert complete("mesh-ctl cert rev", 2) == ["revoke"]
    assert complete("mesh-ctl cert list --status p", 4) == ["pending"]


class _Terminal:
    def isatty(self) -> bool:
        return True


def test_whoever_has_a_terminal_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", _Terminal())
    options.must_be_answered(False)
    for answer in (True, False):
        monkeypatch.setattr(click, "confirm", lambda question, err, answer=answer: answer)
        assert options.confirmed("Sure?", yes=False) is answer
    assert options.confirmed("Sure?", yes=True)


def test_a_table_shows_what_strangers_wrote_on_one_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    output.put_table(("A", "B"), [("[red]x", "\x1b[31m\n"), (None, "valid")])
    heading, first, second = capsys.readouterr().out.splitlines()
    assert heading.split() == ["A", "B"]
    assert first == r"[red]x  \x1b[31m\n"
    assert second.split() == ["-", "valid"]


def test_json_lists_are_whole_however_they_come(capsys: pytest.CaptureFixture[str]) -> None:
    for chunks in ([], [[]], [[1]], [[1, 2], [], [3]]):
        listed = output.JsonList()
        for chunk in chunks:
            listed.put(chunk)
        listed.end()
        assert json.loads(capsys.readouterr().out) == [item for chunk in chunks for item in chunk]


def test_colour_is_for_terminals_without_no_color(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", _Terminal())
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert output.has_colour()
    monkeypatch.setenv("NO_COLOR", "1")
    assert not output.has_colour()


def test_every_act_of_the_log_can_be_asked_for() -> None:
    assert tuple(Act) == audit.ACTS
