"""One rule of a policy: when it holds, it allows or it denies."""

from enum import StrEnum

from attrs import field, frozen

from pki.rules.expression import Expression
from pki.rules.facts import RuleAction


class Effect(StrEnum):
    """What a rule that holds says."""

    ALLOW = "allow"
    DENY = "deny"


@frozen
class Rule:
    """A condition with a name and an effect."""

    name: str
    effect: Effect
    actions: frozenset[RuleAction]
    """When it is asked."""
    when: Expression
    reason: str = ""
    """For whoever is refused by it."""
    file: str = field(default="", eq=False)
    """Where it was read from."""


@frozen
class External:
    """A policy decision point elsewhere that is asked too, and must say yes."""

    name: str
    url: str
    timeout: float
    """Seconds."""
    actions: frozenset[RuleAction]
    ca_file: str = ""
    """Whom ``https`` is believed by, in PEM; empty for whom the machine believes."""
    file: str = field(default="", eq=False)
    """Where it was read from."""
