"""Another policy, asked what the CA's own was asked."""

from collections.abc import Sequence
from pathlib import Path

from msgspec import Struct

from pki.errors import PkiError
from pki.rules.errors import PolicyUnavailable
from pki.rules.facts import Facts
from pki.rules.rule_set import RuleSet
from pki.rules.rules_file import read_rules
from twisted_mesh.api.policy_messages import DecisionRow
from twisted_mesh.state.directory import read_file
from twisted_mesh.state.policy_files import policy_texts


class Change(Struct, frozen=True):
    """A request of which the other policy thinks otherwise."""

    was: DecisionRow
    outcome: str
    rule: str
    reason: str


class Replay(Struct, frozen=True):
    """What came of it."""

    digest: str
    """Of the other policy."""
    asked: int
    left_out: int
    """Decisions on record that are of another version of the input, or damaged."""
    unasked: int
    """Requests that it would allow, and of which it would have a decision point asked besides."""
    changes: list[Change]


def replay(path: Path, decided: Sequence[DecisionRow]) -> Replay:
    """What the policy in ``path`` would have said, each time at the time of the request. Raises :class:`PkiError`."""
    rules = read_rules(policy_texts(path, "the policy", read_file))
    points = [(external.name, external.actions) for external in rules.externals]
    asked = left_out = unasked = 0
    changes = []
    for was in decided:
        try:
            facts = Facts.of_input(was.input)
        except PkiError:
            left_out += 1
            continue
        asked += 1
        outcome, rule, reason = _said(rules, facts)
        if outcome == "allow" and (whom := [name for name, on in points if facts.action in on]):
            unasked += 1
            # Who was let in then is taken to be let in by them now.
            outcome = "allow" if was.outcome == "allow" else f"allow if {', '.join(whom)} would"
        if outcome != was.outcome:
            changes.append(Change(was, outcome, rule, reason))
    return Replay(rules.digest, asked, left_out, unasked, changes)


def _said(rules: RuleSet, facts: Facts) -> tuple[str, str, str]:
    try:
        decision = rules.decide(facts)
    except PolicyUnavailable as error:
        return "unavailable", error.rule, str(error)
    return "allow" if decision.allowed else "deny", decision.rule, decision.reason
