"""The policy that the CA has read: its rules, and the decision points outside that they say to ask."""

from collections.abc import Sequence

from attrs import frozen

from pki.rules.decision import Decision
from pki.rules.facts import Facts
from pki.rules.rule_set import RuleSet
from twisted_mesh.api.policy_messages import PolicyRuleRow
from twisted_mesh.ca.policy.external import DecisionPoint


@frozen(eq=False, repr=False)
class Policy:
    """What was read: rules, and whom else to ask."""

    path: str
    rules: RuleSet
    points: Sequence[tuple[frozenset[str], DecisionPoint]] = ()
    """Decision points, each with the actions that it is asked about."""

    @property
    def digest(self) -> str:
        """Of the rules and of all that is said of points."""
        return self.rules.digest

    async def decide(self, asked: Facts) -> Decision:
        """The rules' word, and then that of each point: one that says no is enough.

        Raises :class:`PolicyUnavailable`.
        """
        decision = self.rules.decide(asked)
        for actions, point in self.points:
            if not decision.allowed:
                break
            if asked.action in actions:
                allowed, reason = await point.ask(asked)
                if not allowed:
                    decision = Decision(False, point.name, reason, self.digest)
        return decision

    def rows(self) -> list[PolicyRuleRow]:
        """Its rules and points, as the API tells them."""
        rules = [
            PolicyRuleRow(
                rule.name, str(rule.effect), sorted(rule.actions), rule.when.text, rule.reason
            )
            for rule in self.rules.rules
        ]
        return rules + [
            PolicyRuleRow(point.name, "external", sorted(actions), point.where, "")
            for actions, point in self.points
        ]
