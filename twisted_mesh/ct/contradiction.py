"""Whether two heads of a log contradict each other, and what shows it."""

from pki.ct.evidence import RolledBack, SplitView
from twisted_mesh.ct.reader import SignedHead
from twisted_mesh.ct.view import LogView


def of_two_heads(one: SignedHead, other: SignedHead) -> SplitView | RolledBack | None:
    """What two heads show by themselves: two roots of one size, or a later tree that is smaller."""
    if one.size == other.size:
        if one.root == other.root:
            return None
        return SplitView(one.note, other.note, other.root)
    smaller, larger = sorted((one, other), key=lambda head: head.size)
    if smaller.head.timestamp > larger.head.timestamp:
        return RolledBack(larger.note, smaller.note)
    return None


async def of_view(view: LogView, other: SignedHead) -> SplitView | None:
    """What the log's own tiles show: that the tree of ``view`` does not go on from ``other``, which is no larger.

    None where it does. Raises :class:`~pki.errors.PkiError` where that cannot be read.
    """
    if not other.size:
        return None
    prefix = await view.root_at(other.size)
    if prefix == other.root:
        return None
    proof = () if other.size == view.size else await view.consistency_proof(other.size)
    return SplitView(other.note, view.signed.note, prefix, proof)
