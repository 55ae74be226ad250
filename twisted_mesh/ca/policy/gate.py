"""The one place where the CA asks its policy: once for all that it issues to somebody, and for nothing else."""

import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING

from attrs import define, field, frozen
from twisted.internet.defer import DeferredLock

from pki.audit.log import Act
from pki.codes import Code
from pki.errors import ANY_ERROR, PkiError, Problem
from pki.policy.principal import Principal
from pki.rules.errors import PolicyDenied, PolicyUnavailable
from pki.rules.facts import Facts
from pki.validity import rfc3339
from twisted_mesh.api.policy_messages import IN_FORCE, DecisionRow, PolicyStatus, PolicyWithdrawn
from twisted_mesh.ca.audit_log import AuditLog
from twisted_mesh.ca.health import RULED_BY_ENTRIES
from twisted_mesh.ca.policy.journal import Decided, DecisionJournal
from twisted_mesh.runtime.clock import Now
from twisted_mesh.runtime.log import logger
from twisted_mesh.stores.records import Conflict

if TYPE_CHECKING:  # a CA without a policy loads nothing of what a policy needs
    from twisted_mesh.ca.policy.policy import Policy

_log = logger("policy")
_OBJECT = "policy"
#: Characters of a digest that are enough for people: ``sha256:`` and twelve digits.
_SHORT = 19
#: What the audit log has in the place of a digest where nobody asked.
WITHDRAWN = "withdrawn"


class PolicyNotTaken(PkiError):
    """What is in the files cannot be used, and what was read before stays in force."""

    code = Code.BAD_POLICY


class Outcome(StrEnum):
    """What came of one question."""

    ALLOW = "allow"
    DENY = "deny"
    UNAVAILABLE = "unavailable"


Asked = Callable[[], Facts]
"""Makes what the policy is asked, as it is at the moment of the question."""


@frozen(eq=False, repr=False)
class Approval:
    """That something may be issued, by the policy of one moment."""

    asked: Asked
    generation: int
    facts: Mapping[str, str]
    """For the audit log; nothing where there is no policy."""


@frozen
class Withdrawal:
    """That an administrator has taken the policy back."""

    at: datetime
    by: str
    reason: str


Heard = Callable[[Outcome, str, float], None]
"""Hears of each question: what came of it, by which rule, and after how many seconds."""


@define(eq=False, repr=False)
class PolicyGate:
    """Asks, remembers what was said, and changes what is asked. Without a policy it lets everything through.

    What an entry does not buy never comes to it, and nothing but what is issued does: to revoke, to distrust and to
    take the policy back is subject to no policy.
    """

    log: AuditLog
    now: Now
    read: "Callable[[], Policy] | None" = None
    """Reads the files of ``--policy``; None where there is none. Raises :class:`PkiError`."""
    policy: "Policy | None" = None
    journal: DecisionJournal | None = None
    aside: Callable[[Callable[[], list[DecisionRow]]], Awaitable[list[DecisionRow]]] | None = None
    """How the journal is read: in a thread, where others wait."""
    heard: Heard = lambda outcome, rule, seconds: None
    seconds: Callable[[], float] = time.perf_counter
    withdrawn: Withdrawal | None = field(default=None, init=False)
    problem: str = field(default="", init=False)
    """Why what is in the files now was not taken up."""
    _generation: int = field(default=0, init=False)
    _loaded_at: datetime | None = field(default=None, init=False)
    _lock: DeferredLock = field(factory=DeferredLock, init=False)

    # what is asked

    async def ask(self, asked: Asked) -> Approval:
        """Return if it may be issued; without a policy nothing is even made of what is asked.

        Raises :class:`PolicyDenied`, :class:`PolicyUnavailable`.
        """
        generation, policy = self._generation, self.policy
        if policy is None:
            return Approval(asked, generation, {})
        if self.withdrawn is not None:
            return Approval(asked, generation, {"policy": WITHDRAWN})
        facts, began = asked(), self.seconds()
        try:
            decision = await policy.decide(facts)
        except PolicyUnavailable as error:
            self._note(policy, facts, Outcome.UNAVAILABLE, error.rule, str(error), began)
            raise
        except ANY_ERROR:
            _log.failure("a policy could not be asked; nothing is issued", event="policy-broke")
            self._note(policy, facts, Outcome.UNAVAILABLE, "", "a bug of the CA's", began)
            raise PolicyUnavailable(
                "", "the policy could not be asked: the CA's log has why"
            ) from None
        outcome = Outcome.ALLOW if decision.allowed else Outcome.DENY
        self._note(policy, facts, outcome, decision.rule, decision.reason, began)
        if not decision.allowed:
            raise PolicyDenied(decision.rule, decision.reason)
        return Approval(asked, generation, {"policy": policy.digest, "rule": decision.rule})

    async def confirm(self, approval: Approval) -> Approval:
        """The same, or that of the policy of now where that is another. Raises as :meth:`ask`."""
        while approval.generation != self._generation:
            approval = await self.ask(approval.asked)
        return approval

    def _note(  # noqa: PLR0917
        self, policy: "Policy", asked: Facts, outcome: Outcome, rule: str, reason: str, began: float
    ) -> None:
        self.heard(outcome, rule, self.seconds() - began)
        if outcome is not Outcome.ALLOW:
            code = Code.POLICY_DENIED if outcome is Outcome.DENY else Code.POLICY_UNAVAILABLE
            by = f"rule {rule} of " if rule else ""
            self.log.refused(code, f"{by}policy {policy.digest[:_SHORT]}: {asked.principal.proof}")
        if self.journal is not None:
            at = rfc3339(self.now())
            self.journal.note(Decided(at, outcome.value, rule, reason, policy.digest, asked))

    # what changes it

    async def begin(self) -> None:
        """Have it on record what is in force from the start. Raises :class:`StoreError`."""
        if self.policy is None:
            return
        await self.log.record(Act.ADMINISTER, _OBJECT, _facts("load-policy", self.policy))
        self._take(self.policy)

    async def reload(self, by: Principal, why: str = "") -> str:
        """Read the files again, and have them count; what has changed by that, or nothing.

        A withdrawal ends by it. Raises :class:`PolicyNotTaken`, :class:`Conflict` where there is no ``--policy``, and
        what the store raises: then nothing has changed.
        """
        await self._lock.acquire()
        try:
            return await self._reload(self._reader(), by, why)
        finally:
            self._lock.release()

    async def _reload(self, read: "Callable[[], Policy]", by: Principal, why: str) -> str:
        before = self.policy
        try:
            found = read()
            if before is not None:
                found.rules.demand_denials_of(before.rules)
        except PkiError as error:
            self.problem = str(error)
            _log.error(
                "The policy is not taken up, and what was read before stays in force: {reason}",
                event="policy-refused",
                reason=str(error),
            )
            facts = {"did": "refuse-policy", "problem": str(error), "reason": why}
            await self.log.record(Act.ADMINISTER, _OBJECT, _said(facts), by)
            # Its own code and whoever tells of it say that it was not taken up.
            said = [str(problem).removeprefix(f"{problem.code}: ") for problem in error.problems]
            raise PolicyNotTaken("; ".join(said)) from None
        self.problem = ""
        is_same = before is not None and before.digest == found.digest
        if is_same and self.withdrawn is None:
            self.policy = found  # what its decision points are believed by is read anew
            return ""
        facts = _facts("reload-policy", found) | {
            "before": WITHDRAWN if self.withdrawn else before.digest if before else "",
            "reason": why,
        }
        await self.log.record(Act.ADMINISTER, _OBJECT, _said(facts), by)
        told = "in force again" if is_same else f"now {found.digest[:_SHORT]}"
        self._take(found)
        return told

    async def withdraw(self, by: Principal, why: str) -> None:
        """Ask it no more, until it is read again or the CA is started again. Done again, it changes nothing.

        Raises :class:`Conflict` where there is no policy, and what the store raises: then it stays in force.
        """
        await self._lock.acquire()
        try:
            if self.policy is None:
                raise Conflict("this CA has no policy: it was started without --policy")
            if self.withdrawn is not None:
                return
            facts = _facts("withdraw-policy", self.policy) | {"reason": why}
            await self.log.record(Act.ADMINISTER, _OBJECT, _said(facts), by)
            self.withdrawn = Withdrawal(self.now(), by.evidence, why)
            self._generation += 1
            _log.critical(
                "THE POLICY IS WITHDRAWN by {by}: entries alone decide what is issued, until mesh-ctl policy reload or "
                "the next start. Reason: {reason}",
                event="policy-withdrawn",
                by=by.evidence,
                reason=why or "(none given)",
            )
        finally:
            self._lock.release()

    def _reader(self) -> "Callable[[], Policy]":
        if self.read is None:
            raise Conflict("this CA has no policy: it was started without --policy")
        return self.read

    def _take(self, policy: "Policy") -> None:
        self.policy, self.withdrawn, self._loaded_at = policy, None, self.now()
        self._generation += 1
        _log.info(
            "Policy in force: {rules} rules of {path}, {points} decision points\n  Digest: {digest}",
            event="policy-loaded",
            rules=len(policy.rules.rules),
            points=len(policy.points),
            path=policy.path,
            digest=policy.digest,
        )

    # what is told

    def standing(self) -> tuple[str, Problem | None]:
        """What is in force, in words, and what is wrong with it."""
        if self.policy is None:
            return RULED_BY_ENTRIES, None
        told = f"the policy {self.policy.digest[:_SHORT]} of {self.policy.path} is in force"
        if self.withdrawn is not None:
            return "the policy is not asked", Problem(
                Code.UNHEALTHY_POLICY,
                f"it was withdrawn at {rfc3339(self.withdrawn.at)} by {self.withdrawn.by}",
                "mend it, and have it read again (mesh-ctl policy reload)",
            )
        if self.problem:
            return told, Problem(
                Code.UNHEALTHY_POLICY,
                f"what is in the files now was not taken up: {self.problem}",
                "mend it (mesh-ctl policy check), and have it read again (mesh-ctl policy reload)",
            )
        return told, None

    def status(self, *, changed: bool = False) -> PolicyStatus:
        """What is in force, for the API."""
        policy, ended = self.policy, self.withdrawn
        state = "none" if policy is None else "withdrawn" if ended is not None else IN_FORCE
        return PolicyStatus(
            state,
            policy.path if policy is not None else "",
            policy.digest if policy is not None else "",
            rfc3339(self._loaded_at) if self._loaded_at is not None else None,
            [] if policy is None else policy.rows(),
            self.problem,
            None if ended is None else PolicyWithdrawn(rfc3339(ended.at), ended.by, ended.reason),
            changed,
        )

    async def last(self, count: int) -> list[DecisionRow]:
        """The last decisions on record, the oldest first."""
        if self.journal is None:
            return []
        read = self.journal.reader(count)
        return read() if self.aside is None else await self.aside(read)


def _facts(did: str, policy: "Policy") -> dict[str, str]:
    return {
        "did": did,
        "digest": policy.digest,
        "path": policy.path,
        "rules": str(len(policy.rules.rules)),
        "points": str(len(policy.points)),
    }


def _said(facts: Mapping[str, str]) -> dict[str, str]:
    """Without what says nothing."""
    return {name: value for name, value in facts.items() if value}
