"""Where a signer is: the URI that names it among a CA's key stores.

``signer:unix:/run/mesh-signer/signer.sock`` or ``signer:https://HOST:PORT?pin=sha256/BASE64``; behind ``?`` stands who
is believed to be there. It has no secret in it, so that it may stand among a program's arguments.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Self
from urllib.parse import quote, unquote

from attrs import frozen

from pki.errors import Malformed, discreet, printable
from pki.svid.spki_pin import SpkiHash
from twisted_mesh.http.address import split_url
from twisted_mesh.runtime.socket_path import too_long

SCHEME = "signer:"
#: So many pins of one signer: that of its key, and of those to move to.
MOST_PINS = 8
_LONGEST = 2000


class BadSigner(Malformed):
    """This is no address of a signer."""


@frozen
class SignerAddress:
    """Where a signer is, and whom to believe there. ``SignerAddress.parse(str(x)) == x``."""

    path: str = ""
    """Of its unix socket; empty where it is asked over TLS."""
    host: str = ""
    port: int = 0
    pins: tuple[SpkiHash, ...] = ()
    """Over TLS: the keys of which it may show one. There is nothing else that it could prove; without any nobody is
    asked."""
    user: str = ""
    """At a socket: the user whose process it is, by name or number; empty for whoever owns the directory."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises :class:`BadSigner`."""
        shown = discreet(text, 200)
        if not text.startswith(SCHEME) or not text.isprintable() or len(text) > _LONGEST:
            raise BadSigner(
                f"{shown!r} is no signer: write signer:unix:PATH, or signer:https://HOST:PORT?pin=sha256/BASE64"
            )
        place, _, query = text.removeprefix(SCHEME).partition("?")
        said = _attributes(query, shown)
        pins = tuple(map(SpkiHash.parse, said["pin"].split(",") if "pin" in said else ()))
        if len(set(pins)) < len(pins) or len(pins) > MOST_PINS:
            raise BadSigner(
                f"{shown}: {MOST_PINS} pins are the most, and each is given once: that of the signer's key, and of one "
                "to move to"
            )
        user = said.get("user", "")
        if place.startswith("unix:"):
            return cls._at_socket(place, shown, pins, user)
        return cls._over_tls(place, shown, pins, user)

    @classmethod
    def _at_socket(cls, place: str, shown: str, pins: tuple[SpkiHash, ...], user: str) -> Self:
        path = _decoded(place.removeprefix("unix:"), shown)
        if not path.startswith("/"):
            raise BadSigner(
                f"{shown}: write the whole path of the signer's socket, which begins with /: it is looked up again for "
                "as long as the CA runs"
            )
        if (objection := too_long(Path(path))) is not None:
            raise BadSigner(
                f"{printable(objection, 400)}: name it by a shorter path, or a symbolic link"
            )
        if pins:
            raise BadSigner(
                f"{shown}: a pin is of the key that a signer shows over TLS (signer:https://HOST:PORT); at a socket "
                "the kernel says who is there: name that with user="
            )
        return cls(path=path, user=user)

    @classmethod
    def _over_tls(cls, place: str, shown: str, pins: tuple[SpkiHash, ...], user: str) -> Self:
        url = split_url(place, {"https": 0})
        if url is None or place.endswith("/"):
            raise BadSigner(
                f"{shown} is no signer: write signer:unix:PATH, or signer:https://HOST:PORT?pin=sha256/BASE64"
            )
        if user:
            raise BadSigner(f"{shown}: user= is of a unix socket; over TLS a pin says who is there")
        _, host, port = url
        return cls(host=host, port=port, pins=pins)

    @property
    def where(self) -> str:
        """Its place alone, for people: ``unix:/run/mesh-signer/signer.sock``, ``https://host:9443``."""
        if self.path:
            return f"unix:{self.path}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"https://{host}:{self.port}"

    def __str__(self) -> str:
        place = f"unix:{quote(self.path)}" if self.path else self.where
        said = [f"pin={','.join(map(str, self.pins))}"] if self.pins else []
        said += [f"user={quote(self.user, safe='')}"] if self.user else []
        return f"{SCHEME}{place}{'?' if said else ''}{'&'.join(said)}"


def _attributes(query: str, shown: str) -> Mapping[str, str]:
    found: dict[str, str] = {}
    for attribute in query.split("&") if query else ():
        name, _, value = attribute.partition("=")
        if name not in ("pin", "user"):
            raise BadSigner(
                f"{shown}: {discreet(name, 40)!r} says nothing of where a signer is: pin= and user= do"
            )
        value = _decoded(value, shown)
        if not value or name in found:
            raise BadSigner(f"{shown}: {name}= is empty, or there twice")
        found[name] = value
    return found


def _decoded(text: str, shown: str) -> str:
    """Percent-encoding undone (RFC 3986 section 2.1); a plus stays one, since base64 has it."""
    try:
        decoded = unquote(text, errors="strict")
    except UnicodeDecodeError:
        decoded = "\0"
    if not decoded.isprintable():
        raise BadSigner(f"{shown}: what it has percent-encoded is no printable text")
    return decoded
