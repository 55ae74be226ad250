"""Where in a log's static files something is (C2SP static-ct-api): tiles, data tiles and issuers."""

import re
from typing import Self

from attrs import frozen

from pki.errors import Malformed, discreet

CHECKPOINT = "checkpoint"
#: Levels of a tree of 2**40 leaves, in tiles of height 8.
MOST_LEVELS = 6
_MOST_TILES = 1 << 32
_PATH = re.compile(
    r"tile/(?P<level>[0-5]|data)/(?P<number>(?:x[0-9]{3}/){0,4}[0-9]{3})(?:\.p/(?P<width>[1-9][0-9]{0,2}))?",
    re.ASCII,
)
_ISSUER = re.compile(r"issuer/([0-9a-f]{64})", re.ASCII)


@frozen
class TilePath:
    """One tile. ``TilePath.parse(str(path)) == path``."""

    level: int | None
    """From 0 up; None for a data tile."""
    number: int
    width: int = 256
    """How many entries it has: less than 256 for a partial one."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """``tile/0/x001/234`` or ``tile/data/000.p/17``. Raises :class:`Malformed`."""
        found = _PATH.fullmatch(text)
        if found:
            level = None if found["level"] == "data" else int(found["level"])
            number = int(found["number"].replace("x", "").replace("/", ""))
            path = cls(level, number, int(found["width"] or 256))
            # One path for each tile: no x000 in front, and a width of 255 at most.
            if number < _MOST_TILES and str(path) == text:
                return path
        raise Malformed(f"{discreet(text, 80)!r} is no path of a tile (C2SP static-ct-api)")

    def __str__(self) -> str:
        level = "data" if self.level is None else self.level
        rest, digits = divmod(self.number, 1000)
        number = f"{digits:03}"
        while rest:
            rest, digits = divmod(rest, 1000)
            number = f"x{digits:03}/{number}"
        return f"tile/{level}/{number}" + (f".p/{self.width}" if self.width < 256 else "")

    @property
    def whole(self) -> "TilePath":
        """The full tile in whose place a partial one stands."""
        return TilePath(self.level, self.number)


def tile_width(level: int, number: int, size: int) -> int:
    """How many hashes that tile has in a tree of ``size``: 0 where it has none. Data tiles are like level 0."""
    return max(0, min(256, (size >> (8 * level)) - number * 256))


def issuer_path(fingerprint: bytes) -> str:
    """Where an issuer's certificate is, by its SHA-256."""
    return f"issuer/{fingerprint.hex()}"


def parse_issuer(text: str) -> bytes:
    """The fingerprint in :func:`issuer_path`. Raises :class:`Malformed`."""
    found = _ISSUER.fullmatch(text)
    if not found:
        raise Malformed(f"{discreet(text, 80)!r} is no path of an issuer (C2SP static-ct-api)")
    return bytes.fromhex(found[1])
