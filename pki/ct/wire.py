"""TLS's presentation language (RFC 8446 section 3), as RFC 6962 writes what it signs: numbers, opaque vectors."""

from attrs import define

from pki.errors import Malformed


@define(eq=False, repr=False)
class Reader:
    """Reads what was written with :func:`vector` and fixed sizes; raises :class:`Malformed` past the end."""

    data: bytes
    at: int = 0

    def fixed(self, size: int) -> bytes:
        """So many bytes."""
        end = self.at + size
        if end > len(self.data):
            raise Malformed("it is cut short")
        found = self.data[self.at : end]
        self.at = end
        return found

    def number(self, size: int) -> int:
        """An unsigned number of so many bytes, the highest first."""
        return int.from_bytes(self.fixed(size), "big")

    def vector(self, octets: int, least: int = 0, most: int | None = None) -> bytes:
        """A vector whose length takes ``octets`` bytes, and is in these bounds."""
        size = self.number(octets)
        if size < least or (most is not None and size > most):
            raise Malformed(f"a part of it has {size} bytes, which is too few or too many")
        return self.fixed(size)

    @property
    def is_done(self) -> bool:
        """Whether all was read."""
        return self.at == len(self.data)

    def end(self) -> None:
        """Raises :class:`Malformed` where something is left."""
        if not self.is_done:
            raise Malformed(f"{len(self.data) - self.at} bytes stand after its end")


def vector(octets: int, content: bytes) -> bytes:
    """A vector whose length takes ``octets`` bytes. Raises :class:`Malformed` for one that is too long."""
    if len(content) >= 1 << (8 * octets):
        raise Malformed(f"{len(content)} bytes are more than such a part may have")
    return len(content).to_bytes(octets, "big") + content
