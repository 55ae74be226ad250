"""Whether the certificates of a carried connection end soon, and its caller should make another before they do."""

from collections.abc import Callable

from twisted_mesh.proxy.seam import Caller
from twisted_mesh.trust.ending import leave_by


def ending(caller: Caller) -> Callable[[], bool]:
    """Asks whether the connection of ``caller`` is near its end, once its certificate or ours ends.

    At the end it is cut, whatever is under way: who can tell the caller in time to leave does.
    """
    now, own = caller.now, caller.tls.get_certificate() if caller.tls is not None else None
    if now is None or caller.peer is None or own is None:
        return bool
    leaves = (caller.peer.leaf, own.to_cryptography())
    end = min(leaf.not_valid_after_utc for leaf in leaves)
    soon = leave_by(end, now())
    return lambda: now() >= soon
