"""What ``mesh-ctl policy`` does with files of rules, where no CA is asked."""

import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
from attrs import evolve

from pki.errors import Malformed, PkiError, Problem, discreet, printable
from pki.rules.advice import advice
from pki.rules.case import Outcome, read_cases, run_case
from pki.rules.decision import Explanation, Verdict
from pki.rules.errors import BadPolicy
from pki.rules.facts import NO_TIME, Facts, RuleAction
from pki.rules.rule_set import RuleSet
from pki.rules.rules_file import read_rules
from twisted_mesh.cli.ctl.output import counted, put, put_json, put_table
from twisted_mesh.cli.program import Unusable
from twisted_mesh.runtime.clock import wall_clock
from twisted_mesh.state.directory import read_file
from twisted_mesh.state.policy_files import policy_texts, unit_test_texts

_WHAT = "the policy"
_LARGEST_INPUT = 1024 * 1024


def check(path: str, *, as_json: bool) -> int:
    """All that is wrong, of its unit tests too, and what is good and seldom meant."""
    problems: list[Problem] = []
    rules = None
    for read in (_rules, _cases):
        try:
            found = read(Path(path))
            rules = found if isinstance(found, RuleSet) else rules
        except BadPolicy as error:
            problems += error.problems
    advised = () if rules is None else advice(rules.rules)
    if as_json:
        put_json(
            {
                "ok": not problems,
                "digest": None if rules is None else rules.digest,
                "rules": 0 if rules is None else len(rules.rules),
                "problems": [*map(_problem, problems)],
                "advice": [*map(_problem, advised)],
            }
        )
    elif problems:
        _put_problems(problems)
    elif rules is not None:
        count = len(rules.rules)
        put(f"{counted(count, 'rule')} {'is' if count == 1 else 'are'} good: {rules.digest}")
        _put_costs(rules)
        _put_problems(advised)
    return 1 if problems else 0


def test(path: str, *, as_json: bool) -> int:
    """Whether each unit test holds."""
    rules, cases = _rules(Path(path)), _cases(Path(path))
    outcomes = [run_case(rules, case) for case in cases]
    failed = [outcome for outcome in outcomes if not outcome.is_as_expected]
    unmet = sorted({rule.name for rule in rules.rules} - {outcome.rule for outcome in outcomes})
    if as_json:
        put_json(
            {
                "ok": bool(outcomes) and not failed,
                "tests": [*map(_told, outcomes)],
                "undecided": unmet,
            }
        )
    elif outcomes:
        put_table(("FILE", "TEST", "RESULT", ""), map(_row, outcomes))
        put(f"{len(outcomes) - len(failed)} of {len(outcomes)} tests hold")
        if unmet:
            put(f"no test is decided by: {', '.join(unmet)}")
    if not outcomes:
        raise PkiError(
            f"there are no tests beside {path}: write them in *.test.toml, as docs/POLICY.md shows"
        )
    return 1 if failed else 0


def explain(
    path: str, file: str | None, action: str | None, members: Iterable[str], *, as_json: bool
) -> int:
    """What each rule says of one input."""
    rules = _rules(Path(path))
    facts = _facts(file, action, members)
    explanation = rules.explain(facts)
    decision = explanation.decision
    if as_json:
        put_json(
            {
                "allowed": decision is not None and decision.allowed,
                "rule": None if decision is None else decision.rule,
                "error": explanation.error or None,
                "digest": rules.digest,
                "input": facts.as_input(),
                "rules": [*map(_verdict, explanation.verdicts)],
            }
        )
    else:
        put_table(("", "RULE", "EFFECT", "HOLDS", "READ"), map(_verdict_row, explanation.verdicts))
        put(_decided(explanation, facts))
    return 0 if decision is not None and decision.allowed else 1


def _rules(path: Path) -> RuleSet:
    # Whoever checks a policy is not let in by it: in a checkout its files may be others' too.
    return read_rules(policy_texts(path, _WHAT, read_file))


def _cases(path: Path) -> Sequence[Any]:
    return read_cases(unit_test_texts(path, _WHAT))


def _problem(problem: Problem) -> dict[str, str]:
    return {"where": problem.subject, "problem": problem.detail, "remedy": problem.remedy}


def _put_problems(problems: Iterable[Problem]) -> None:
    for problem in problems:
        put(printable(_line(problem), 1000))


def _put_costs(rules: RuleSet) -> None:
    rows = [
        (
            rule.name,
            str(rule.effect),
            ", ".join(action for action in RuleAction if action in rule.actions),
            f"{rule.when.cost / 10:.0f} us",
        )
        for rule in rules.rules
    ]
    put_table(("RULE", "EFFECT", "ASKED ON", "AT MOST"), rows)


def _line(problem: Problem) -> str:
    return f"{problem.detail} ({problem.remedy})" if problem.remedy else problem.detail


def _row(outcome: Outcome) -> tuple[str, str, str, str]:
    good = outcome.is_as_expected
    said = f"{outcome.answer} by {outcome.rule}" if outcome.rule else outcome.answer
    return (
        outcome.case.file,
        outcome.case.name,
        "ok" if good else "fail",
        said if good else str(outcome),
    )


def _told(outcome: Outcome) -> dict[str, object]:
    return {
        "file": outcome.case.file,
        "test": outcome.case.name,
        "ok": outcome.is_as_expected,
        "answer": outcome.answer,
        "rule": outcome.rule,
        "expected": outcome.case.expect,
        "detail": "" if outcome.is_as_expected else str(outcome),
    }


def _verdict_row(verdict: Verdict) -> tuple[str, str, str, str, str]:
    holds = {True: "yes", False: "no", None: f"error: {verdict.error}"}[verdict.holds]
    values = "; ".join(f"{path} = {_shown(value)}" for path, value in verdict.values)
    return (
        "=>" if verdict.decides else " ",
        verdict.rule,
        str(verdict.effect),
        holds,
        values or "nothing",
    )


def _verdict(verdict: Verdict) -> dict[str, object]:
    return {
        "rule": verdict.rule,
        "effect": str(verdict.effect),
        "holds": verdict.holds,
        "error": verdict.error or None,
        "decides": verdict.decides,
        "values": {
            path: value.isoformat() if isinstance(value, datetime) else value
            for path, value in verdict.values
        },
    }


def _shown(value: object) -> str:
    text = value.isoformat() if isinstance(value, datetime) else msgspec.json.encode(value).decode()
    return printable(text, 200)


def _decided(explanation: Explanation, facts: Facts) -> str:
    decision = explanation.decision
    if decision is None:
        return f"{facts.action}: there is no decision, so the answer is no: {explanation.error}"
    if not decision.rule:
        return f"{facts.action}: denied, as no rule allows it"
    why = f": {decision.reason}" if decision.reason else ""
    return f"{facts.action}: {'allowed' if decision.allowed else 'denied'} by {decision.rule}{why}"


def _facts(file: str | None, action: str | None, members: Iterable[str]) -> Facts:
    given: Mapping[str, object] = {}
    if file is not None:
        given = _json(file)
    facts = Facts.of_input(given)
    for member in members:
        name, equals, value = member.partition("=")
        if not equals:
            raise Unusable(f"--set {discreet(member, 80)}: write NAME=VALUE, as request.ttl=3600")
        facts = Facts.of_input(_nested(name, facts, value), facts)
    if action is not None:
        facts = evolve(facts, action=action)
    if facts.action not in tuple(RuleAction):
        raise Malformed(f"action is one of {', '.join(RuleAction)}")
    return evolve(facts, time=wall_clock()) if facts.time == NO_TIME else facts


def _json(file: str) -> Mapping[str, object]:
    if file == "-":
        data = sys.stdin.buffer.read(_LARGEST_INPUT + 1)
    else:
        data = read_file(Path(file), "--input", _LARGEST_INPUT)
    try:
        read = msgspec.json.decode(data, type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError) as error:
        raise Malformed(f"--input: {discreet(str(error), 200)}") from None
    # As it is saved elsewhere: OPA has it in an object of that name.
    inner = read.get("input", read) if set(read) == {"input"} else read
    if not isinstance(inner, dict):
        raise Malformed("--input is an object with the members that docs/POLICY.md lists")
    return inner


def _nested(name: str, facts: Facts, text: str) -> Mapping[str, object]:
    """``request.ttl`` and a text, as an input: the text is read by the kind of what stands there."""
    first, _, second = name.partition(".")
    there: object = getattr(facts, first, None) if first.isidentifier() else None
    if second:
        there = getattr(there, second, None) if second.isidentifier() else None
    value: object = text
    if isinstance(there, tuple):
        value = [item for item in text.split(",") if item]
    elif isinstance(there, bool):
        value = {"true": True, "false": False}.get(text, text)
    elif isinstance(there, int) and text.lstrip("-").isdecimal() and len(text) < 20:
        value = int(text)
    return {first: {second: value}} if second else {first: value}
