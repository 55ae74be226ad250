"""A policy about peers, for whoever joins with one; nothing of it is loaded for others."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pki.rules.rule_set import RuleSet
    from twisted_mesh.trust.peer_policy import PeerPolicy


def rules_at(path: Path) -> "RuleSet":
    """Those of a file or a directory. Raises :class:`~pki.rules.errors.BadPolicy` and StateError."""
    from twisted_mesh.state.policy_files import read_policy

    return read_policy(path, "policy")


def policy_of(rules: "RuleSet | None", action: str) -> "PeerPolicy | None":
    """What is asked about peers that have called (``accept``) or are called (``connect``).

    Raises :class:`~pki.rules.errors.BadPolicy` where no rule could let anybody in.
    """
    if rules is None:
        return None
    from pki.rules.facts import RuleAction
    from twisted_mesh.trust.peer_policy import PeerPolicy

    return PeerPolicy(rules, frozenset({RuleAction(action)}))
