"""``pki-inspect lint``: what it says to people and to programs, and with which status it ends."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click import unstyle
from click.testing import CliRunner, Result

from pki.inspect.lint_report import all_lints
from pki.svid.x509svid import certificates_pem
from tests.authorities import forge, key, mesh, pem
from tests.pki.inspect.oddities import ODDITIES
from tests.pki.inspect.test_lint_report import leaf, usage
from twisted_mesh.cli.inspect import cli
from twisted_mesh.cli.program import Unusable

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: a good chain, its root, a key, and a leaf that may do too much."""
    chain = [mesh().leaf(), mesh().issuing.certificate]
    (tmp_path / "svid.pem").write_bytes(certificates_pem(chain))
    (tmp_path / "root.crt").write_bytes(mesh().bundle.to_pem())
    (tmp_path / "key.pem").write_bytes(key(9).to_pem())
    (tmp_path / "odd.pem").write_bytes(leaf(usage(digital_signature=True, key_encipherment=True)))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments: str, status: int, stdin: bytes = b"") -> Result:
    result = CliRunner().invoke(cli, ["lint", *arguments], input=stdin, standalone_mode=False)
    if isinstance(result.exception, Unusable):
        result.exit_code = result.exception.exit_code
        result.stderr_bytes = (result.stderr_bytes or b"") + result.exception.message.encode()
    elif result.exception:
        raise result.exception
    else:
        result.exit_code = result.return_value
    assert result.exit_code == status
    return result


def told(*arguments: str, status: int) -> dict[str, Any]:
    """What programs are told; people are told the same with the same status."""
    text = unstyle(run(*arguments, status=status).stdout)
    said: dict[str, Any] = json.loads(run(*arguments, "--format", "json", status=status).stdout)
    assert set(said) <= {"verdict", "things", "unreadable"}
    for thing in said["things"]:
        for problem in thing["problems"]:
            assert set(problem) == {"code", "subject", "rule", "detail", "remedy", "lint"}
            assert f"{problem['code']}: {problem['detail']}" in text
            assert problem["rule"] in text
        for unjudged in thing["not_applied"]:
            assert unjudged["lint"] in text
            assert unjudged["why"] in text
        if thing["applied"]:
            assert f"{len(thing['applied'])} lints" in text
    return said


def test_our_own_chain_has_no_findings() -> None:
    said = told("svid.pem", "root.crt", status=0)
    assert said["verdict"] == "no findings"
    assert [thing["profiles"] for thing in said["things"]] == [["svid"], ["ca"], ["ca"]]
    assert not any(thing["problems"] or thing["not_applied"] for thing in said["things"])
    known = {name for name, _, _ in all_lints()}
    assert all(known.issuperset(thing["applied"]) for thing in said["things"])


def test_a_finding_is_status_1_and_has_its_rule() -> None:
    said = told("odd.pem", status=1)
    assert said["verdict"] == "findings"
    first = said["things"][0]["problems"][0]
    assert (first["lint"], first["rule"]) == ("key-usage-of-key", "RFC 8813 section 3")


def test_a_profile_is_chosen() -> None:
    assert not told("svid.pem", "--profile", "any", status=0)["things"][0]["problems"]
    said = told("root.crt", "--profile", "svid", "--profile", "web", status=1)
    assert said["things"][0]["profiles"] == ["svid", "web"]


def test_what_cannot_be_read_is_status_2_and_hides_no_other(here: Path) -> None:
    (here / "mixed.pem").write_bytes((here / "svid.pem").read_bytes() + pem(b"\x30\0"))
    said = told("mixed.pem", "absent.pem", status=2)
    assert said["verdict"] == "unreadable"
    assert len(said["things"]) == 2
    assert len(said["unreadable"]) == 2
    lost = run("absent.pem", status=2)
    assert lost.stdout == ""
    assert lost.stderr == (
        "absent.pem cannot be read (No such file or directory): name a certificate's file"
    )


def test_a_finding_is_told_beside_what_cannot_be_read(here: Path) -> None:
    assert told("odd.pem", "absent.pem", status=2)["verdict"] == "findings"


def test_a_key_is_not_looked_at_and_alone_is_nothing() -> None:
    said = told("svid.pem", "key.pem", status=0)
    assert said["things"][-1]["applied"] == []
    assert said["things"][-1]["not_applied"][0]["lint"] == "all"
    assert run("key.pem", status=2).stdout == ""


def test_standard_input_is_read(here: Path) -> None:
    shown = run("-", status=0, stdin=(here / "svid.pem").read_bytes())
    assert "standard input (1 of 2)" in shown.stdout


@pytest.mark.filterwarnings("ignore:Parsed a serial number which wasn't positive")
@pytest.mark.parametrize("which", ODDITIES)
def test_no_odd_file_is_a_traceback(here: Path, which: str) -> None:
    (here / "odd").write_bytes(ODDITIES[which].der)
    runner = CliRunner().invoke(cli, ["lint", "odd"], standalone_mode=False)
    assert runner.exception is None or isinstance(runner.exception, Unusable)
    assert runner.stdout or runner.exception


def test_each_lint_is_in_the_reference() -> None:
    commands = (ROOT / "docs" / "COMMANDS.md").read_text()
    for name, _, rule in all_lints():
        row = next(line for line in commands.splitlines() if line.startswith(f"| `{name}` "))
        assert rule in row


def test_the_program_lints_and_loads_no_reactor() -> None:
    check = (
        "import sys; from twisted_mesh.cli.inspect import main;"
        "status = main(['lint', 'odd.pem']); print(status, 'twisted' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True)
    assert done.stdout.endswith("\n1 False\n")
    assert done.stderr == ""


def test_a_certificate_of_another_make_is_looked_at_too(here: Path) -> None:
    alone = forge(None, subject_key=key(4))
    (here / "alone.pem").write_bytes(certificates_pem([alone]))
    (thing,) = told("alone.pem", status=0)["things"]
    assert {skipped["why"] for skipped in thing["not_applied"]} == {
        "its issuer is not named as a CA of this make is"
    }
