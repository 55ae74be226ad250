"""Where others find what ``mesh-ca --crl-http`` publishes, as certificates say it."""

from urllib.parse import urlsplit

from twisted.internet.interfaces import IAddress

from twisted_mesh.taps.default_entry import is_loopback, port_of, reached_host


def url(address: IAddress, public_url: str | None) -> str:
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
