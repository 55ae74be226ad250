"""Another policy, asked what the CA's own was asked: what would come out otherwise, and what cannot be known."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from pki.rules.errors import BadPolicy
from pki.rules.facts import Facts, RequestFacts
from tests.authorities import NOW
from twisted_mesh.api.policy_messages import IN_FORCE, DecisionRow, PolicyRuleRow, PolicyStatus
from twisted_mesh.cli.ctl.policy_ca_actions import DryRun, Showing
from twisted_mesh.cli.ctl.policy_replay import Replay, replay

WEB = "spiffe://mesh.local/service/web"
RULE = """
version = 1
[[rule]]
name = "{name}"
effect = "{effect}"
on = ["issue"]
when = '''{when}'''
"""
EXTERNAL = """
[[external]]
name = "opa"
url = "http://127.0.0.1:1/allow"
"""


def decided(outcome: str, **facts: Any) -> DecisionRow:
    asked = Facts(request=RequestFacts(spiffe_id=WEB), time=NOW, **facts).as_input()
    return DecisionRow("2026-11-23T10:00:00Z", outcome, "old", "", "sha256:0", asked)


def said(path: Path, when: str, *rows: DecisionRow, more: str = "") -> Replay:
    file = path / "policy.toml"
    file.write_text(RULE.format(name="new", effect="allow", when=when) + more)
    file.chmod(0o600)
    return replay(file, rows)


@pytest.mark.parametrize(
    ("was", "when", "now"),
    [
        ("allow", "true", None),
        ("deny", "false", None),
        ("allow", "false", "deny"),
        ("deny", "true", "allow"),
        ("unavailable", "true", "allow"),
        ("allow", 'selectors[5] == ""', "unavailable"),
    ],
)
def test_what_comes_out_otherwise_is_told(
    tmp_path: Path, was: str, when: str, now: str | None
) -> None:
    done = said(tmp_path, when, decided(was))
    assert [change.outcome for change in done.changes] == ([] if now is None else [now])
    assert (done.asked, done.left_out, done.unasked) == (1, 0, 0)


def test_each_is_asked_at_its_own_time(tmp_path: Path) -> None:
    when = f'time < timestamp("{NOW:%Y-%m-%dT%H:%M:%SZ}") + duration("1h")'
    assert said(tmp_path, when, decided("allow")).changes == []


def test_what_a_decision_point_let_in_counts_as_let_in(tmp_path: Path) -> None:
    done = said(tmp_path, "true", decided("allow"), more=EXTERNAL)
    assert (done.changes, done.unasked) == ([], 1)


def test_what_only_a_decision_point_can_say_is_told_as_that(tmp_path: Path) -> None:
    done = said(tmp_path, "true", decided("deny"), more=EXTERNAL)
    assert [change.outcome for change in done.changes] == ["allow if opa would"]


def test_what_cannot_be_read_is_counted(tmp_path: Path) -> None:
    odd = DecisionRow("", "allow", "", "", "", {"version": 2, "no": "such"})
    done = said(tmp_path, "true", odd, decided("allow"))
    assert (done.asked, done.left_out) == (1, 1)


def test_a_policy_that_cannot_be_used_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadPolicy, match="spiffe_idd"):
        said(tmp_path, 'request.spiffe_idd == ""', decided("allow"))


def test_no_request_on_record_is_no_word_for_a_policy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Administration:
        async def decisions(self, last: int) -> list[DecisionRow]:
            return []

    file = tmp_path / "policy.toml"
    file.write_text(RULE.format(name="new", effect="deny", when="true"))
    file.chmod(0o600)
    asyncio.run(DryRun(file, 10, False)(Administration()))  # type: ignore[arg-type]
    said = capsys.readouterr().err
    assert "nothing was asked" in said and "nothing would change" not in said


def test_an_expression_that_is_shown_in_part_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    class Administration:
        async def policy(self) -> PolicyStatus:
            rule = PolicyRuleRow("all", "allow", ["issue"], "true && " * 20 + "true", "")
            return PolicyStatus(IN_FORCE, "rules", "sha256:0", None, [rule], "", None)

    asyncio.run(Showing(False)(Administration()))  # type: ignore[arg-type]
    assert capsys.readouterr().out.rstrip().endswith("true…")
