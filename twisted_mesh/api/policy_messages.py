"""Requests and answers about the policy that the CA asks; as :mod:`twisted_mesh.api.messages` has them."""

from typing import Any

from msgspec import Struct

#: So many decisions are told at a time.
MOST_DECISIONS = 2000
#: The state of a policy that is asked.
IN_FORCE = "in-force"


class PolicyRuleRow(Struct, frozen=True):
    """One rule, or one decision point outside."""

    name: str
    effect: str
    """``allow``, ``deny`` or ``external``."""
    on: list[str]
    """The actions that it is asked about."""
    when: str
    """The expression; of a decision point its URL."""
    reason: str


class PolicyWithdrawn(Struct, frozen=True):
    """That nobody asks the policy, until it is read again."""

    at: str
    by: str
    reason: str


class PolicyStatus(Struct, frozen=True):
    """``GET /api/v1/policy``, and what is answered to a change of it."""

    state: str
    """``none``, ``in-force`` or ``withdrawn``."""
    path: str
    """``--policy``; empty where there is none."""
    digest: str
    """SHA-256 of what was read, in hex."""
    loaded_at: str | None
    rules: list[PolicyRuleRow]
    problem: str
    """Why what is in the files now was not taken up; empty where it was."""
    withdrawn: PolicyWithdrawn | None
    changed: bool = False
    """Whether the request that this answers has changed anything."""


class ReloadPolicy(Struct, frozen=True, omit_defaults=True):
    """``POST /api/v1/policy/reload``."""

    reason: str = ""


class WithdrawPolicy(Struct, frozen=True, omit_defaults=True):
    """``POST /api/v1/policy/withdraw``."""

    reason: str = ""


class DecisionRow(Struct, frozen=True):
    """What was decided of one request, and on what."""

    at: str
    outcome: str
    """``allow``, ``deny`` or ``unavailable``."""
    rule: str
    """Which one decided; empty where none did."""
    reason: str
    policy: str
    """The digest of the policy."""
    input: dict[str, Any]
    """What it was asked: the documented input of rules."""


class Decisions(Struct, frozen=True):
    """``GET /api/v1/policy/decisions``: the last ones, the oldest first."""

    decisions: list[DecisionRow]
