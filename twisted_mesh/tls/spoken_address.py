"""The other end of a connection, in words."""

from twisted.internet.address import IPv4Address, IPv6Address


def spoken_address(address: object) -> str:
    """``host:port`` for the log."""
    if not isinstance(address, IPv4Address | IPv6Address):
        return "a local process"
    host = f"[{address.host}]" if ":" in address.host else address.host
    return f"{host}:{address.port}"
