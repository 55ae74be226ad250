"""Which certificates a command of ``mesh-ctl`` is about: by serials, by filters, by both."""

from collections.abc import Mapping, Sequence

from attrs import define, field, frozen

from pki.serial import serial_hex
from pki.spiffe import RESERVED_SEGMENT, SpiffeId, SpiffePattern
from twisted_mesh.api.admin_client import Administration, Row
from twisted_mesh.cli.ctl import output

#: What names somebody. Without any of them it is about everybody that time or issuer leave.
_NAMING = {"spiffe_id", "key", "entry"}


def is_of_ca(row: Row) -> bool:
    """Whether it is one of the CA's own."""
    return SpiffeId.parse(row.spiffe_id).is_reserved


@define(eq=False)
class Found:
    """What was found."""

    rows: list[Row]
    left_out: list[Row] = field(factory=list)
    """The CA's own, which nobody has named."""


@frozen
class Selection:
    """All that is given must match; something is given."""

    serials: Sequence[int]
    filters: Mapping[str, str]
    """As :func:`twisted_mesh.cli.ctl.filters.understood` gives them."""

    @property
    def is_sweeping(self) -> bool:
        """Whether it is about whoever was issued something, and not about somebody."""
        naming = _NAMING & self.filters.keys()
        if naming == {"spiffe_id"} and self._segments == ("**",):
            naming = set()
        return not self.serials and not naming

    async def find(self, administration: Administration) -> Found:
        """By serial all that there are; else what could still be used: expired ones need no revoking."""
        if self.serials:
            return Found(await self._named(administration))
        found: dict[str, Row] = {}
        # In this order: what gets its signature meanwhile is listed twice, and never not at all.
        for status in ("pending", "valid"):
            async for page in administration.pages({**self.filters, "status": status}, None):
                found |= {row.serial: row for row in page.certificates}
        meant = [row for row in found.values() if self._may_mean(row)]
        left_out = [row for row in found.values() if not self._may_mean(row)]
        return Found(meant, left_out)

    async def _named(self, administration: Administration) -> list[Row]:
        rows: list[Row] = []
        for serial in self.serials:
            row: Row = await administration.certificate(serial)  # or it says that there is none
            if self.filters:
                asked = {**self.filters, "serial": serial_hex(serial)}
                page = await administration.page(asked, 1)
                if not page.certificates:
                    output.say(f"{row.serial} of {row.spiffe_id} is not what the other options say")
                    continue
            rows.append(row)
        return rows

    def _may_mean(self, row: Row) -> bool:
        """The CA's own certificates are meant by their ID or key, and by nothing that happens to match.

        Whoever sweeps away what was issued before noon still needs a CA that can be reached.
        """
        if not is_of_ca(row) or "key" in self.filters:
            return True
        return self._segments[:1] == (RESERVED_SEGMENT,)

    @property
    def _segments(self) -> tuple[str, ...]:
        named = self.filters.get("spiffe_id")
        return SpiffePattern.parse(named).segments if named is not None else ()
