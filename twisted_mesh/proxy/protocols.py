"""What a listener adds to the bytes that it carries, by what it was configured."""

from twisted_mesh.proxy import proxy_protocol
from twisted_mesh.proxy.http_filter import http_filter
from twisted_mesh.proxy.listener import Listener
from twisted_mesh.proxy.seam import Protocols


def protocols_of(listener: Listener) -> Protocols:
    """What ``listener`` was configured to add."""
    return Protocols(
        opening=proxy_protocol.header if listener.proxy_protocol else None,
        filter=http_filter if listener.http and listener.serves else None,
    )
