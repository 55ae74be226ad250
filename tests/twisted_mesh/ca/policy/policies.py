"""Policies for tests: rules in the text of a file, and a point that answers what the test says."""

from typing import Any

from attrs import define, field

from pki.rules.errors import PolicyUnavailable
from pki.rules.facts import Facts
from pki.rules.rules_file import read_rules
from tests.twisted_mesh.ca.rigs import CaRig, result_of
from twisted_mesh.ca.audit_log import OURSELVES
from twisted_mesh.ca.policy.policy import Policy

ALL = """
version = 1
[[rule]]
name = "all"
effect = "allow"
when = "true"
"""
NOBODY = """
version = 1
[[rule]]
name = "nobody"
effect = "deny"
when = "true"
reason = "nothing is issued today"
"""
#: It reads an item that is not there, and is not found out before.
BROKEN = """
version = 1
[[rule]]
name = "broken"
effect = "allow"
when = 'selectors[100] == "x"'
"""


def allowing(when: str) -> str:
    """A file whose one rule allows what that expression holds for."""
    return ALL.replace('"true"', f"'{when}'")


@define(eq=False)
class Point:
    """Stands for a decision point outside."""

    answers: list[tuple[bool, str] | Exception]
    name: str = "opa"
    asked: list[Facts] = field(factory=list)

    async def ask(self, asked: Facts) -> tuple[bool, str]:
        self.asked.append(asked)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


def undecided() -> PolicyUnavailable:
    return PolicyUnavailable("", "the decision point opa has not decided: nobody listens there")


def policy(text: str, *points: Point, on: tuple[str, ...] = ("issue",)) -> Policy:
    """What is read of a file with that text."""
    made: Any = [(frozenset(on), point) for point in points]
    return Policy("/etc/mesh/policy.toml", read_rules({"policy.toml": text}), made)


def rule_by(rig: CaRig, text: str, *points: Point) -> None:
    """From now on the CA of ``rig`` asks this policy."""
    rig.gate.read = lambda: policy(text, *points)
    result_of(rig.gate.reload(OURSELVES))
