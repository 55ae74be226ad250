"""Unit tests beside a policy: what each question must be answered with, in files ``*.test.toml``."""

import tomllib
from collections.abc import Mapping
from typing import Any, Literal

import msgspec
from attrs import frozen

from pki.codes import Code
from pki.errors import Malformed, Problem, discreet
from pki.rules.errors import BadPolicy, PolicyUnavailable
from pki.rules.facts import Facts, RuleAction
from pki.rules.rule_set import RuleSet
from pki.rules.rules_file import VERSION

#: Tests of one policy.
_MOST = 5000


class _TestTable(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    action: str
    expect: Literal["allow", "deny", "error"]
    input: dict[str, Any] = {}
    rule: str | None = None


class _File(msgspec.Struct, forbid_unknown_fields=True):
    version: int
    input: dict[str, Any] = {}
    test: list[_TestTable] = []


@frozen
class Case:
    """One question, and the answer that it must have."""

    name: str
    facts: Facts
    expect: str
    """``allow``, ``deny``, or ``error`` where the policy must find none."""
    rule: str | None
    """Which rule must decide; empty for a refusal because none allows; None where it is not said."""
    file: str = ""


@frozen
class Outcome:
    """What became of a case."""

    case: Case
    answer: str
    """As :attr:`Case.expect`."""
    rule: str
    """Which rule has decided; empty where none allows, and for an error."""
    detail: str
    """The error, or the rule's reason."""

    @property
    def is_as_expected(self) -> bool:
        """Whether the test holds."""
        return self.answer == self.case.expect and self.case.rule in (None, self.rule)

    def __str__(self) -> str:
        """What was expected and what was found: a policy that allows too much is told so."""
        case = self.case
        by = f" by {self.rule}" if self.rule else ""
        found = f"{self.answer}{by}{f' ({self.detail})' if self.answer == 'error' else ''}"
        if case.expect == "deny" and self.answer == "allow":
            return f"the policy allows too much: {found}, and it must be denied"
        wanted = case.expect + (f" by {case.rule or 'no rule'}" if case.rule is not None else "")
        return f"{found}, and {wanted} is expected"


def read_cases(files: Mapping[str, str]) -> tuple[Case, ...]:
    """The tests that these files have, text by name. Raises :class:`~pki.rules.errors.BadPolicy` with every problem."""
    cases: list[Case] = []
    problems: list[Problem] = []
    for file in sorted(files):
        try:
            read = msgspec.convert(tomllib.loads(files[file]), _File)
            if read.version != VERSION:
                raise Malformed(
                    f"version {read.version} is not known here: write version = {VERSION}"
                )
            usual = Facts.of_input(read.input)
        except (
            tomllib.TOMLDecodeError,
            msgspec.ValidationError,
            RecursionError,
            Malformed,
        ) as error:
            problems.append(_problem(file, discreet(str(error), 300)))
            continue
        for table in read.test:
            try:
                cases.append(_case(file, table, usual))
            except Malformed as error:
                problems.append(_problem(f"{file}, test {discreet(table.name, 64)!r}", str(error)))
    if len(cases) > _MOST:
        problems.append(_problem("", f"there are more than {_MOST} tests"))
    if problems:
        raise BadPolicy(problems)
    return tuple(cases)


def run_case(rules: RuleSet, case: Case) -> Outcome:
    """Ask the policy what the case asks."""
    try:
        decision = rules.decide(case.facts)
    except PolicyUnavailable as error:
        return Outcome(case, "error", "", str(error))
    return Outcome(case, "allow" if decision.allowed else "deny", decision.rule, decision.reason)


def _case(file: str, table: _TestTable, usual: Facts) -> Case:
    if table.action not in tuple(RuleAction):
        raise Malformed(f"action is one of {', '.join(RuleAction)}")
    if "action" in table.input:
        raise Malformed("the action stands beside the input, and not in it")
    facts = Facts.of_input({**table.input, "action": table.action}, usual)
    return Case(table.name, facts, table.expect, table.rule, file)


def _problem(where: str, detail: str) -> Problem:
    return Problem(Code.BAD_POLICY, f"{where}: {detail}" if where else detail, subject=where)
