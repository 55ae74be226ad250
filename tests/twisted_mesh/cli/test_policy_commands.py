"""``mesh-ctl policy check``, ``test`` and ``explain``: what they say of files, and their exit statuses."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from twisted_mesh.cli.ctl.policy import command

RULES = """version = 1
[[rule]]
name = "no-root"
effect = "deny"
when = "'unix:uid:0' in selectors"
reason = "root gets nothing"
[[rule]]
name = "short"
effect = "allow"
when = "request.ttl <= 3600 && !principal.administrator"
"""
TESTS = """version = 1
[[test]]
name = "root"
action = "issue"
input = { selectors = ["unix:uid:0"] }
expect = "deny"
"""


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "p.toml").write_text(RULES)
    (tmp_path / "p.test.toml").write_text(TESTS)
    return tmp_path


def run(*words: str | Path, stdin: str = "") -> tuple[int, str]:
    done: Result = CliRunner().invoke(
        command, [*map(str, words)], input=stdin, standalone_mode=False
    )
    return (done.return_value if done.exception is None else 1), done.output + str(
        done.exception or ""
    )


def told(*words: str | Path, stdin: str = "") -> tuple[int, Any]:
    status, text = run(*words, "--format", "json", stdin=stdin)
    return status, json.loads(text)


def test_a_good_policy_is_said_to_be_one_with_what_it_costs(directory: Path) -> None:
    status, text = run("check", directory)
    assert status == 0
    assert "2 rules are good: sha256:" in text
    assert "issue, renew, issue-jwt" in text
    assert told("check", directory)[1]["rules"] == 2


def test_whoever_looks_in_selectors_at_a_renewal_is_told_what_they_are_there(
    directory: Path,
) -> None:
    status, text = run("check", directory)
    assert status == 0
    assert "p.toml, rule 'no-root' reads selectors at renew" in text
    (said,) = told("check", directory)[1]["advice"]
    assert said["where"] == "p.toml" and "entry.selectors" in said["remedy"]
    for better in (
        RULES.replace("in selectors", "in entry.selectors"),
        RULES.replace('effect = "deny"', 'effect = "deny"\non = ["issue"]'),
        RULES.replace("'unix:uid:0' in", "action == 'issue' && 'unix:uid:0' in"),
        RULES.replace("unix:uid:0", "x509:spiffe://mesh.local/root"),
    ):
        (directory / "p.toml").write_text(better)
        assert told("check", directory)[1]["advice"] == []


def test_one_rule_is_told_as_one(tmp_path: Path) -> None:
    rule = '[[rule]]\nname = "all"\neffect = "allow"\nwhen = "true"\n'
    (tmp_path / "all.toml").write_text("version = 1\n" + rule)
    assert "1 rule is good: sha256:" in run("check", tmp_path / "all.toml")[1]


def test_every_mistake_is_told_of_the_tests_too(directory: Path) -> None:
    (directory / "p.toml").write_text(RULES.replace("ttl", "tll"))
    (directory / "p.test.toml").write_text(TESTS.replace("selectors", "selektors"))
    status, text = run("check", directory)
    assert status == 1
    assert "p.toml, rule 'short': line 1, column 9: there is no member of request tll" in text
    assert "p.test.toml, test 'root': selektors is no member" in text
    status, answer = told("check", directory)
    assert (status, answer["ok"], len(answer["problems"])) == (1, False, 2)


def test_unit_tests_hold_or_the_policy_allows_too_much(directory: Path) -> None:
    status, text = run("test", directory)
    assert (status, "1 of 1 tests hold" in text) == (0, True)
    assert "no test is decided by: short" in text
    (directory / "p.toml").write_text(RULES.replace("unix:uid:0", "unix:uid:1"))
    status, text = run("test", directory / "p.toml")
    assert (status, "the policy allows too much: allow by short" in text) == (1, True)
    assert told("test", directory)[1]["tests"][0]["ok"] is False


def test_no_tests_are_no_success(directory: Path) -> None:
    (directory / "p.test.toml").unlink()
    status, text = run("test", directory)
    assert (status, "there are no tests beside" in text) == (1, True)


def test_an_explanation_tells_which_rule_decided_on_what(directory: Path) -> None:
    status, text = run("explain", directory, "--set", "selectors=unix:gid:0,unix:uid:0")
    assert status == 1
    assert '=>  no-root  deny    yes    selectors = ["unix:gid:0","unix:uid:0"]' in text
    assert "issue: denied by no-root: root gets nothing" in text
    long = ("--set", "request.ttl=7200", "--set", "principal.administrator=true")
    status, answer = told("explain", directory, "--action", "renew", *long)
    assert (status, answer["allowed"], answer["rule"]) == (1, False, "")
    assert answer["rules"][1]["values"] == {"principal.administrator": True, "request.ttl": 7200}
    given = json.dumps({"input": {"action": "renew", "request": {"ttl": 60}}})
    status, answer = told("explain", directory, "--input", "-", stdin=given)
    assert (status, answer["allowed"], answer["rule"]) == (0, True, "short")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--set", "request.tll=1"), "request.tll is no member"),
        (("--set", "request.ttl=soon"), "request.ttl is a whole number"),
        (("--set", "request.ttl"), "write NAME=VALUE"),
        (("--set", "action=sign"), "action is one of"),
        (("--set", "__class__.x=1"), "__class__ is no member"),
        (("--input", "/nowhere"), "--input"),
    ],
)
def test_an_input_with_a_mistake_is_none(
    directory: Path, words: tuple[str, ...], said: str
) -> None:
    status, text = run("explain", directory, *words)
    assert (status, said in text) == (1, True)


@pytest.mark.parametrize(
    "stdin", ["", "[]", '{"a": ', '{"input": 5}', '{"requets": {}}', "[" * 9999]
)
def test_a_document_with_a_mistake_is_none(directory: Path, stdin: str) -> None:
    status, text = run("explain", directory, "--input", "-", stdin=stdin)
    assert status == 1
    assert "input" in text
