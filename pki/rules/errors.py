"""What a policy in rules can refuse, and what it cannot do."""

from pki.codes import Code
from pki.errors import PkiError, Refused


class PolicyDenied(PkiError):
    """A rule says no, or none says yes (HTTP 403). ``rule`` is its name, and empty where none says yes."""

    code = Code.POLICY_DENIED

    def __init__(self, rule: str, reason: str = "") -> None:
        self.rule = rule
        said = f"the policy's rule {rule!r} says no" if rule else "no rule of the policy allows it"
        super().__init__(f"{said}: {reason}" if reason else said)


class PolicyUnavailable(PkiError):
    """The policy could not be evaluated, so nobody knows whether it allows this (HTTP 503): the answer is no."""

    code = Code.POLICY_UNAVAILABLE

    def __init__(self, rule: str, detail: str) -> None:
        self.rule = rule
        super().__init__(
            f"the policy's rule {rule!r} cannot be evaluated: {detail}" if rule else detail
        )


class BadPolicy(Refused):
    """A policy that is not used: ``problems`` has all that is wrong with it, each with file, rule and place."""

    code = Code.BAD_POLICY
