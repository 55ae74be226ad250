"""What an agent tells the CA of a workload that it has attested: no more than the CA takes."""

from collections.abc import Collection, Iterable

from pki.policy.entry import RegistrationEntry
from pki.policy.selector import Selector
from twisted_mesh.api.agent_messages import MOST_SELECTORS

#: The one kind of which a process may have any number: Linux knows 65,536 groups of one process.
_GROUP = "unix:gid"


def stated(entry: RegistrationEntry, selectors: Iterable[Selector]) -> frozenset[Selector]:
    """All of them, but for groups beyond :data:`MOST_SELECTORS`, of which those that ``entry`` wants are not."""
    return foremost(selectors, entry.selectors, MOST_SELECTORS)


def foremost(
    selectors: Iterable[Selector], wanted: Collection[Selector], most: int
) -> frozenset[Selector]:
    """So many of them at most: those of ``wanted``, then what are no groups, then groups."""
    first = sorted(selectors, key=lambda one: (one not in wanted, one.kind == _GROUP, one))
    return frozenset(first[:most])
