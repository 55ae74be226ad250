"""What is no mistake in a rule and is seldom meant: told to whoever checks a policy, and nothing fails by it."""

from collections.abc import Iterable

from pki.codes import Code
from pki.errors import Problem
from pki.rules.facts import RuleAction
from pki.rules.rule import Rule

_SELECTORS, _ACTION = "selectors", "action"
#: Of this kind is what an SVID proves.
_OF_SVID = "x509:"


def advice(rules: Iterable[Rule]) -> tuple[Problem, ...]:
    """One for each rule that takes a renewal's selectors for those by which the first certificate was bought."""
    return tuple(
        Problem(
            Code.BAD_POLICY,
            f"{rule.file}, rule {rule.name!r} reads selectors at renew, where an SVID proves itself alone: there they "
            f"are [{_OF_SVID}spiffe://…], whatever was attested before",
            remedy="read entry.selectors, or leave renew out of its on; an entry made with --reattest has both",
            subject=rule.file,
        )
        for rule in rules
        if _forgets_renewals(rule)
    )


def _forgets_renewals(rule: Rule) -> bool:
    reads = rule.when.reads
    return (
        RuleAction.RENEW in rule.actions
        and _SELECTORS in reads
        and _ACTION not in reads
        and _OF_SVID not in rule.when.text
    )
