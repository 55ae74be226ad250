"""Where a CA is, and URLs that are a host and a port and nothing else."""

import ipaddress
import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from attrs import field, frozen

from pki.errors import Malformed, discreet, printable
from twisted_mesh.runtime.socket_path import too_long

_HOST = re.compile(r"[a-z0-9._-]+|[0-9a-f:.]+(%[a-z0-9._-]+)?", re.ASCII)


class BadCaUrl(Malformed):
    """This is no address of a CA."""


@frozen
class CaAddress:
    """Where a CA is: ``unix:PATH``, ``https://HOST:PORT`` or, on loopback only, ``http://localhost:PORT``."""

    scheme: str
    path: str = ""
    host: str = ""
    port: int = 0
    is_usual_port: bool = field(default=False, eq=False)
    """Whether nobody has written the port."""

    @classmethod
    def parse(cls, text: str) -> "CaAddress":
        """Raises :class:`BadCaUrl`."""
        if text.startswith(("unix:", "/")) and text != "unix:":
            path = text.removeprefix("unix:")
            if (objection := too_long(Path(path))) is not None:
                raise BadCaUrl(
                    f"{printable(objection, 400)}: name it by a shorter path, or a symbolic link"
                )
            return cls("unix", path=path)
        url = split_url(text, {"https": 443, "http": 80})
        if url is None:
            if meant := as_https(text):
                raise BadCaUrl(f"{printable(text, 100)!r} is no CA address: write {meant}")
            raise BadCaUrl(
                f"{discreet(text, 100)!r} is no CA address: write unix:PATH, https://HOST:PORT or http://localhost:PORT"
            )
        scheme, host, port = url
        if scheme == "http" and host not in ("localhost", "127.0.0.1", "::1"):
            raise BadCaUrl(
                f"{discreet(text, 100)}: a CA is asked over plain HTTP on this machine only (--insecure-http); use https://"
            )
        return cls(scheme, host=host, port=port, is_usual_port=not names_port(text))

    def __str__(self) -> str:
        if self.scheme == "unix":
            return f"unix:{self.path}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"


def split_url(text: str, ports: Mapping[str, int]) -> tuple[str, str, int] | None:
    """Scheme, host and port of a URL that consists of nothing else; None where it is no such URL.

    ``ports`` are the schemes that there are, each with the port that it means by itself.
    """
    try:
        url = urlsplit(text)
        usual = ports[url.scheme]  # asked for in any case: it refuses the other schemes
        host, port = url.hostname or "", usual if url.port is None else url.port
    except (ValueError, KeyError):
        return None
    # urlsplit drops line breaks without a word: what it has read must be what was written.
    whole = f"{url.scheme}://{url.netloc}".lower() == text.removesuffix("/").lower()
    usable = whole and port and "@" not in url.netloc and _HOST.fullmatch(host)
    return (url.scheme, host, port) if usable else None


def as_https(text: str) -> str | None:
    """The URL that is meant where somebody has written ``host:port`` alone; None where that is no such thing."""
    if "//" in text or not names_port(f"https://{text}"):
        return None
    url = split_url(f"https://{text}", {"https": 443})
    return None if url is None else f"https://{text}"


def names_port(text: str) -> bool:
    """Whether a URL that :func:`split_url` takes has a port written in it."""
    try:
        return urlsplit(text).port is not None
    except ValueError:
        return False


def server_name(host: str) -> str | None:
    """What goes into SNI: the host name, or None for an IP address (RFC 6066 section 3)."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return host
    return None
