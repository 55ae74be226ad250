"""When the certificates of a connection end, and that its caller should make another before they do."""

from collections.abc import Callable
from datetime import timedelta

from twisted_mesh.proxy.seam import Caller

#: The last part of a connection's life: so much of it, and no longer than that.
_SHARE, _MOST = 10, timedelta(minutes=1)


def ending(caller: Caller) -> Callable[[], bool]:
    """Asks whether the connection of ``caller`` is near its end, once its certificate or ours ends.

    At the end it is cut, whatever is under way: who can tell the caller in time to leave does.
    """
    now, own = caller.now, caller.tls.get_certificate() if caller.tls is not None else None
    if now is None or caller.peer is None or own is None:
        return bool
    leaves = (caller.peer.leaf, own.to_cryptography())
    end = min(leaf.not_valid_after_utc for leaf in leaves)
    soon = end - min(_MOST, (end - now()) / _SHARE)
    return lambda: now() >= soon
