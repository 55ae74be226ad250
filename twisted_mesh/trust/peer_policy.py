"""A policy's word on a peer that is good and allowed: the last question before it is let in."""

from collections.abc import Collection, Iterable
from datetime import datetime, timedelta
from typing import ClassVar, Self

from attrs import define
from cryptography import x509

from pki.codes import Code
from pki.errors import ANY_ERROR, Problem
from pki.rules.errors import BadPolicy, PolicyUnavailable
from pki.rules.facts import Facts, PeerFacts, RuleAction
from pki.rules.rule_set import RuleSet
from pki.svid.chain import Verdict
from pki.svid.x509svid import Purpose
from twisted_mesh.runtime.log import logger

#: How long a decision holds that was made by the time of day.
A_WHILE = timedelta(seconds=60)
#: How long it holds that there is none.
_A_MOMENT = timedelta(seconds=1)
_log = logger("policy")


@define(eq=False, repr=False)
class PeerPolicy:
    """A policy as an endpoint asks it: of each peer once, as long as nothing changes that it is decided by."""

    rules: RuleSet
    actions: Collection[RuleAction]
    """What this endpoint does: whoever has called, or is called, without any rule that could allow it is a mistake."""
    lasts: ClassVar[timedelta] = A_WHILE
    """How long a decision holds that was made by the time of day."""

    @classmethod
    def of_whoever(cls, rules: RuleSet, does: RuleAction) -> Self:
        """Of an identity by which one endpoint ``does`` that, and others may do what the rules have an answer for."""
        cls(rules, (does,))
        return cls(
            rules, tuple(a for a in (RuleAction.ACCEPT, RuleAction.CONNECT) if rules.answers(a))
        )

    def __attrs_post_init__(self) -> None:
        silent = [action for action in sorted(self.actions) if not self.rules.answers(action)]
        if silent:
            raise BadPolicy(
                Problem(
                    Code.BAD_POLICY,
                    f"no rule of the policy could allow {action}: nobody would be let in",
                    remedy=f'write one with effect = "allow" and on = ["{action}"]; when = "false" if that is meant',
                )
                for action in silent
            )

    def objection(self, verdict: Verdict, purpose: Purpose, now: datetime) -> Problem | None:
        """Why a peer is not let in whose verdict is good; None if it is. Never raises."""
        try:
            decision = self.rules.decide(_facts(verdict, purpose, now))
        except PolicyUnavailable as error:
            return _unavailable(str(error), verdict)
        except ANY_ERROR:
            _log.failure("a policy could not be asked; the peer is refused", event="policy-broke")
            return _unavailable("it broke", verdict)
        if decision.allowed:
            return None
        said = (
            f"the policy's rule {decision.rule!r} says no"
            if decision.rule
            else "no rule of the policy allows it"
        )
        return Problem(
            Code.POLICY_DENIED,
            f"{verdict.spiffe_id}: {said}{f': {decision.reason}' if decision.reason else ''}",
            "mesh-ctl policy explain tells which facts decided",
            "--policy",
            str(verdict.spiffe_id),
        )

    def until(self, verdict: Verdict, purpose: Purpose, now: datetime) -> datetime | None:
        """The last moment at which the same would be said; None if no clock changes it."""
        if any(problem.code is Code.POLICY_UNAVAILABLE for problem in verdict.problems):
            return now + _A_MOMENT
        return now + A_WHILE if "time" in self.rules.reads(_action(purpose)) else None

    @property
    def reads_time(self) -> bool:
        """Whether open connections are to be judged again as time passes."""
        return any("time" in self.rules.reads(action) for action in self.actions)


def _action(purpose: Purpose) -> RuleAction:
    """A peer that serves was called by us."""
    return RuleAction.CONNECT if purpose is Purpose.SERVER else RuleAction.ACCEPT


def _facts(verdict: Verdict, purpose: Purpose, now: datetime) -> Facts:
    spiffe_id, path = verdict.spiffe_id, verdict.path
    if spiffe_id is None or not path:
        raise PolicyUnavailable("", "the peer has no name")
    leaf = path[0]
    return Facts(
        action=_action(purpose).value,
        time=now,
        peer=PeerFacts(
            id=str(spiffe_id),
            trust_domain=str(spiffe_id.trust_domain),
            path=spiffe_id.path,
            dns_names=tuple(_dns_names(leaf)),
            not_after=leaf.not_valid_after_utc,
            issuer=path[min(1, len(path) - 1)].subject.rfc4514_string(),
        ),
    )


def _dns_names(leaf: x509.Certificate) -> Iterable[str]:
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    return names.get_values_for_type(x509.DNSName)


def _unavailable(detail: str, verdict: Verdict) -> Problem:
    return Problem(
        Code.POLICY_UNAVAILABLE,
        f"{verdict.spiffe_id}: {detail}",
        "look in the log which rule it is",
        "--policy",
        str(verdict.spiffe_id),
    )
