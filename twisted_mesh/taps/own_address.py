"""Where ``mesh-ca`` is found by others, as it says so itself: its TLS port, and what ``--crl-http`` publishes."""

import socket
from ipaddress import ip_address
from urllib.parse import urlsplit

from twisted.internet.interfaces import IAddress

_EVERYWHERE = ("", "0.0.0.0", "::")  # noqa: S104 - to compare with, not to bind


def is_loopback(address: IAddress) -> bool:
    """Whether only this machine reaches a listening ``address`` of Twisted's."""
    host = getattr(address, "host", None)
    if host is None:  # a unix socket
        return hasattr(address, "name")
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def reached_at(address: IAddress, public_url: str | None) -> str:
    """The URL by which callers reach the CA's TLS port, as far as can be known here."""
    if public_url is not None and public_url.startswith("https://"):
        return public_url
    host = reached_host(address)
    return f"https://{f'[{host}]' if ':' in host else host}:{port_of(address)}"


def port_of(address: IAddress) -> int:
    """The number of the port of a listening ``address``; 0 where it has none, as a unix socket."""
    number: int = getattr(address, "port", 0)
    return number


def reached_host(address: IAddress) -> str:
    """The name or address by which callers reach a listening ``address``, as far as can be known here."""
    host: str = getattr(address, "host", "localhost")
    if host == "127.0.0.1":
        return "localhost"
    return socket.gethostname() if host in _EVERYWHERE else host


def published_at(address: IAddress, public_url: str | None) -> str:
    """The URL below which a listening ``address`` is found: plain HTTP, whatever else there is.

    Whoever checks a certificate must not need another certificate checked for that (RFC 5280 section
    8). So of an https ``public_url`` only the host is taken, and not where only this machine gets in.
    """
    if public_url is not None and public_url.startswith("http://"):
        return public_url
    host = reached_host(address)
    if public_url is not None and not is_loopback(address):
        host = urlsplit(public_url).hostname or host
    return f"http://{f'[{host}]' if ':' in host else host}:{port_of(address)}"
