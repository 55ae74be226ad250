"""What an agent tells the CA of a workload that it has attested: no more than the CA takes."""

from collections.abc import Collection

from pki.policy.entry import RegistrationEntry
from pki.policy.selector import Selector
from twisted_mesh.api.messages import MOST_SELECTORS

#: The one kind of which a process may have any number: Linux knows 65,536 groups of one process.
_GROUP = "unix:gid"


def stated(entry: RegistrationEntry, selectors: Collection[Selector]) -> frozenset[Selector]:
    """All of them, but for groups beyond :data:`MOST_SELECTORS`, of which those that ``entry`` wants are not."""
    first = sorted(selectors, key=lambda one: (one not in entry.selectors, one.kind == _GROUP, one))
    return frozenset(first[:MOST_SELECTORS])
