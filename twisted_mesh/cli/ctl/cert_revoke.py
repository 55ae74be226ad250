"""What ``mesh-ctl cert revoke`` does: find, ask, revoke, look again."""

from collections.abc import Mapping, Sequence
from http import HTTPStatus

import msgspec
from attrs import define, field, frozen

from pki.codes import Code
from pki.errors import PkiError, Problem
from pki.serial import serial_hex
from pki.spiffe import RESERVED_SEGMENT, SpiffeId, SpiffePattern
from pki.svid.revocation_set import Reason
from twisted_mesh.api.admin_client import Administration
from twisted_mesh.api.messages import LARGEST_PAGE, CertificateRow
from twisted_mesh.api.refusal import CaRefused
from twisted_mesh.cli.ctl import output
from twisted_mesh.cli.ctl.cert_actions import connections_on, pairs, put_rows
from twisted_mesh.cli.ctl.options import confirmed, confirmed_by_number
from twisted_mesh.cli.status import DONE, REFUSED

#: How often what was issued in the meantime is looked for and revoked too.
_ROUNDS = 3
#: So many of those that are not revoked have a line.
_TOLD = 10
#: What names somebody. Without any of them it is about everybody that time or issuer leave.
_NAMING = {"spiffe_id", "key", "entry", "agent"}


def is_of_ca(row: CertificateRow) -> bool:
    """Whether it is one of the CA's own."""
    whose = SpiffeId.parse(row.spiffe_id)
    return whose.is_reserved and whose.agent is None


@define(eq=False)
class Found:
    """What was found."""

    rows: list[CertificateRow]
    left_out: list[CertificateRow] = field(factory=list)
    """The CA's own, which nobody has named."""


@frozen
class Selection:
    """All that is given must match; something is given."""

    serials: Sequence[int]
    filters: Mapping[str, str]
    """As :func:`twisted_mesh.cli.ctl.cert_filters.understood` gives them."""

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
        found: dict[str, CertificateRow] = {}
        # In this order: what gets its signature meanwhile is listed twice, and never not at all.
        for status in ("pending", "valid"):
            async for page in administration.pages({**self.filters, "status": status}, None):
                found |= {row.serial: row for row in page.certificates}
        meant = [row for row in found.values() if self._may_mean(row)]
        left_out = [row for row in found.values() if not self._may_mean(row)]
        return Found(meant, left_out)

    async def _named(self, administration: Administration) -> list[CertificateRow]:
        rows: list[CertificateRow] = []
        for serial in self.serials:
            row = await administration.certificate(serial)  # or it says that there is none
            if self.filters:
                asked = {**self.filters, "serial": serial_hex(serial)}
                page = await administration.page(asked, 1)
                if not page.certificates:
                    output.say(f"{row.serial} of {row.spiffe_id} is not what the other options say")
                    continue
            rows.append(row)
        return rows

    def _may_mean(self, row: CertificateRow) -> bool:
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


@define(eq=False)
class Tally:
    """What became of each certificate."""

    revoked: list[CertificateRow] = field(factory=list)
    already: list[CertificateRow] = field(factory=list)
    failed: list[tuple[CertificateRow, PkiError]] = field(factory=list)
    left_out: list[CertificateRow] = field(factory=list)
    meanwhile: int = 0
    """Issued while we revoked, and still valid."""


@frozen
class Revoking:
    """``cert revoke``."""

    selection: Selection
    reason: Reason
    dry_run: bool
    yes: bool
    as_json: bool

    async def __call__(self, administration: Administration) -> int:
        found = await self.selection.find(administration)
        due = [row for row in found.rows if row.status != "revoked"]
        self._say_left_out(found.left_out)
        if self.dry_run:
            await self._put_dry(administration, due)
            return DONE
        tally = Tally(already=[row for row in found.rows if row.status == "revoked"])
        tally.left_out = found.left_out
        if due and not self._confirmed(due):
            output.say("nothing was revoked")
            return REFUSED
        await self._revoke(administration, due, tally)
        if not self.selection.serials:
            await self._again(administration, tally)
        self._put(tally)
        return REFUSED if tally.failed or tally.meanwhile else DONE

    def _confirmed(self, due: list[CertificateRow]) -> bool:
        if self.yes:
            return True
        names = list(dict.fromkeys(row.spiffe_id for row in due))
        what, living = output.counted(len(due), "certificate"), _connections(due)
        on_them = f", with {output.counted(living, 'open connection')}" if living else ""
        if self.selection.is_sweeping:
            return confirmed_by_number(
                f"This is about everybody: {what} of {output.counted(len(names), 'SPIFFE ID')}{on_them} would be "
                f"revoked, for good ({self.reason}). Type the number of certificates to go on",
                len(due),
                yes=self.yes,
            )
        told = ", ".join(names[:3]) + (f" and {len(names) - 3:,} more" if names[3:] else "")
        return confirmed(
            f"Revoke {what} of {told}{on_them}, for good ({self.reason})?", yes=self.yes
        )

    async def _revoke(
        self, administration: Administration, due: Sequence[CertificateRow], tally: Tally
    ) -> None:
        for start in range(0, len(due), LARGEST_PAGE):
            some = due[start : start + LARGEST_PAGE]
            try:
                done = await administration.revoke_all([row.serial for row in some], self.reason)
            except CaRefused as error:
                tally.failed += [(row, error) for row in some]
            except PkiError as error:
                if not tally.revoked:
                    raise  # the CA is away: that is what is to be told
                tally.failed += [(row, error) for row in due[start:]]
                return
            else:
                unknown = set(done.unknown)
                tally.revoked += [row for row in some if row.serial not in unknown]
                tally.failed += [(row, _GONE) for row in some if row.serial in unknown]

    async def _again(self, administration: Administration, tally: Tally) -> None:
        """Revoke what was issued while we revoked: a workload renews whenever it wants."""
        for number in range(_ROUNDS):
            failed = {row.serial for row, _ in tally.failed}
            found = await self.selection.find(administration)
            # The CA replaces its own at once, which is as it should be.
            more = [r for r in found.rows if r.serial not in failed and not is_of_ca(r)]
            tally.meanwhile = len(more)
            if not more or number == _ROUNDS - 1:
                return
            await self._revoke(administration, more, tally)

    def _say_left_out(self, left_out: list[CertificateRow]) -> None:
        if left_out:
            output.say(
                f"{output.counted(len(left_out), 'certificate')} of the CA itself left out: name its own by --serial, "
                f"or --spiffe-id {left_out[0].spiffe_id}"
            )

    async def _put_dry(self, administration: Administration, due: list[CertificateRow]) -> None:
        if self.as_json:
            output.put_json([msgspec.to_builtins(row) for row in due])
        elif due:
            put_rows(due, connections=True)
        known = await administration.connections()
        output.say(
            f"{output.counted(len(due), 'certificate')} would be revoked; "
            f"{output.counted(_connections(due), 'open connection')} on them, as the CA and "
            f"{output.counted(known.endpoints, 'endpoint')} told in the last {known.within}"
        )

    def _put(self, tally: Tally) -> None:
        for row, error in tally.failed[:_TOLD]:
            output.say(f"{pairs(row.serial)} of {row.spiffe_id} is not revoked: {error}")
        if len(tally.failed) > _TOLD:
            output.say(f"{len(tally.failed) - _TOLD:,} more are not revoked")
        if tally.meanwhile:
            output.say(
                f"{output.counted(tally.meanwhile, 'certificate')} more came while these were revoked: end the "
                "workload's right to renew (mesh-ctl entry delete), then repeat this"
            )
        if self.as_json:
            output.put_json(_as_json(tally, self.reason))
            return
        told = [f"{output.counted(len(tally.revoked), 'certificate')} revoked ({self.reason})"]
        if tally.already:
            told.append(f"{len(tally.already):,} had been before")
        if tally.failed:
            told.append(f"{len(tally.failed):,} failed")
        output.put("; ".join(told))


_GONE = CaRefused(
    HTTPStatus.NOT_FOUND, [Problem(Code.NOT_FOUND, "it is not on record any more", "list again")]
)


def _connections(rows: Sequence[CertificateRow]) -> int:
    return sum(map(connections_on, rows))


def _as_json(tally: Tally, reason: Reason) -> dict[str, object]:
    return {
        "reason": str(reason),
        "revoked": [row.serial for row in tally.revoked],
        "already": [row.serial for row in tally.already],
        "failed": [
            {"serial": row.serial, "code": error.problems[0].code, "detail": str(error)}
            for row, error in tally.failed
        ],
        "left_out": [row.serial for row in tally.left_out],
        "meanwhile": tally.meanwhile,
    }
