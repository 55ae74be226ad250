"""A whole policy: what its rules decide together. Without a rule that allows, the answer is no."""

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

from attrs import define, field

from pki.codes import Code
from pki.errors import Problem
from pki.rules.checker import MOST_COSTLY
from pki.rules.decision import Decision, Explanation, Verdict
from pki.rules.errors import BadPolicy, PolicyUnavailable
from pki.rules.expression import context
from pki.rules.facts import Facts, RuleAction
from pki.rules.rule import Effect, External, Rule


@define(eq=False, repr=False)
class RuleSet:
    """The rules of a policy, in order."""

    rules: tuple[Rule, ...]
    digest: str
    """``sha256:…`` of the files that they were read from."""
    externals: tuple[External, ...] = ()
    files: frozenset[str] = frozenset()
    """The names of what was read, those without a rule too."""
    _asked: Mapping[str, "_Asked"] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._asked = MappingProxyType(
            {action.value: _Asked.of(self.rules, action) for action in RuleAction}
        )
        too_costly = [action for action, asked in self._asked.items() if asked.cost > MOST_COSTLY]
        if too_costly:
            raise BadPolicy(
                Problem(
                    Code.BAD_POLICY,
                    f"the rules that are asked for {action} could take {self._asked[action].cost / 10_000:.0f} ms "
                    f"together, and {MOST_COSTLY / 10_000:.0f} ms are allowed",
                    remedy="take lists within lists, and patterns, out of them",
                )
                for action in too_costly
            )

    def decide(self, facts: Facts) -> Decision:
        """What the rules say. Raises :class:`~pki.rules.errors.PolicyUnavailable` for an error in any rule asked.

        Every rule that denies is asked; then those that allow, in order, until one holds.
        """
        asked = self._asked[facts.action]
        variables = context(facts.reading(asked.reads))
        denied: Rule | None = None
        for rule in asked.denies:
            if _holds(rule, variables) and denied is None:
                denied = rule
        if denied is not None:
            return Decision(False, denied.name, denied.reason, self.digest)
        for rule in asked.allows:
            if _holds(rule, variables):
                return Decision(True, rule.name, rule.reason, self.digest)
        return Decision(False, "", "", self.digest)

    def explain(self, facts: Facts) -> Explanation:
        """What each rule that is for the action says, whether or not it is asked, and the decision."""
        asked = self._asked[facts.action]
        decision, error = None, ""
        try:
            decision = self.decide(facts)
            variables = context(facts.reading(asked.reads))
        except PolicyUnavailable as unavailable:
            error = str(unavailable)
            variables = None
        decider = decision.rule if decision is not None else ""
        return Explanation(
            tuple(
                _verdict(rule, facts, variables, rule.name == decider)
                for rule in (*asked.denies, *asked.allows)
            ),
            decision,
            error,
        )

    def answers(self, action: RuleAction) -> bool:
        """Whether any rule could allow this: if none is for it, a policy would refuse everybody."""
        return bool(self._asked[action].allows)

    def reads(self, action: RuleAction) -> frozenset[str]:
        """Every path of the input that its rules for this read."""
        return self._asked[action].reads

    def externals_for(self, action: RuleAction) -> tuple[External, ...]:
        """Who else is asked about it."""
        return tuple(external for external in self.externals if action in external.actions)

    def demand_denials_of(self, before: "RuleSet") -> None:
        """Refuse to follow ``before`` where a file is gone by which that one said no.

        A file that is lost must not let in whom it kept out: what says no is taken out of its file, and not with it.
        Raises :class:`~pki.rules.errors.BadPolicy` with each.
        """
        said_no: list[Rule | External] = list(before.externals)
        said_no += (rule for rule in before.rules if rule.effect is Effect.DENY)
        says_no = {rule.name for rule in self.rules if rule.effect is Effect.DENY}
        says_no |= {external.name for external in self.externals}
        lost: dict[str, list[str]] = {}
        for one in said_no:
            if one.file not in self.files and one.name not in says_no:
                lost.setdefault(one.file, []).append(one.name)
        if lost:
            raise BadPolicy(
                Problem(
                    Code.BAD_POLICY,
                    f"{file} is gone, by which {', '.join(names)} said no",
                    remedy="put it back; or, to have that allowed, leave the file there with nothing but version = 1",
                    subject=file,
                )
                for file, names in sorted(lost.items())
            )

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.digest[:19]} {len(self.rules)} rules>"


@define(eq=False, repr=False)
class _Asked:
    denies: tuple[Rule, ...]
    allows: tuple[Rule, ...]
    reads: frozenset[str]
    cost: int

    @classmethod
    def of(cls, rules: Iterable[Rule], action: RuleAction) -> "_Asked":
        mine = [rule for rule in rules if action in rule.actions]
        return cls(
            tuple(rule for rule in mine if rule.effect is Effect.DENY),
            tuple(rule for rule in mine if rule.effect is Effect.ALLOW),
            frozenset().union(*(rule.when.reads for rule in mine)),
            sum(rule.when.cost for rule in mine),
        )


def _holds(rule: Rule, variables: Any) -> bool:
    try:
        return rule.when.holds(variables)
    except PolicyUnavailable as error:
        raise PolicyUnavailable(rule.name, str(error)) from None


def _verdict(rule: Rule, facts: Facts, variables: Any, decides: bool) -> Verdict:
    holds, error = None, ""
    values: tuple[tuple[str, object], ...] = ()
    try:
        values = tuple((path, facts.read(path)) for path in sorted(rule.when.reads))
        if variables is None:
            variables = context(facts.reading(rule.when.reads))
        holds = rule.when.holds(variables)
    except PolicyUnavailable as unavailable:
        error = str(unavailable)
    return Verdict(rule.name, rule.effect, holds, error, values, decides)
