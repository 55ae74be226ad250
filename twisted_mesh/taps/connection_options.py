"""How many connections a service holds at most."""

from pki.errors import Malformed
from twisted_mesh.limits.connection_limit import Capacity


def max_connections(text: str | None) -> int | None:
    """``--max-connections``; None for what the system allows. Raises :class:`Malformed`."""
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 6):
        raise Malformed("--max-connections takes the number of connections at each door")
    return Capacity.of(int(text)).most
