"""What ``mesh-ctl cert revoke`` does: find, ask, revoke each, look again."""

from collections.abc import Mapping
from typing import Any

import msgspec
from attrs import define, field, frozen
from twisted.internet.defer import Deferred, DeferredSemaphore, gatherResults

from pki.errors import PkiError
from pki.revocation import Reason
from twisted_mesh.administration import Administration, Row
from twisted_mesh.ca_client import CaRefused
from twisted_mesh.cli.ctl import output
from twisted_mesh.cli.ctl.certificates import pairs, put_rows
from twisted_mesh.cli.ctl.options import confirmed
from twisted_mesh.cli.ctl.session import DONE, REFUSED

#: So many requests are under way at a time: the CA commits them together.
_AT_ONCE = 16
#: How often what was issued in the meantime is looked for and revoked too.
_ROUNDS = 3


@define(eq=False)
class Tally:
    """What became of each certificate."""

    revoked: list[Row] = field(factory=list)
    already: list[Row] = field(factory=list)
    failed: list[tuple[Row, PkiError]] = field(factory=list)
    meanwhile: int = 0
    """Issued while we revoked, and still valid."""


@frozen
class Revoking:
    """``cert revoke``."""

    serials: tuple[int, ...]
    filters: Mapping[str, str] | None
    """Those of a SPIFFE ID or a subtree, if any."""
    reason: Reason
    dry_run: bool
    yes: bool
    as_json: bool

    async def __call__(self, administration: Administration) -> int:
        rows = {row.serial: row for row in await self._found(administration)}
        if self.dry_run:
            self._put_dry([row for row in rows.values() if row.status != "revoked"])
            return DONE
        tally = Tally(already=[row for row in rows.values() if row.status == "revoked"])
        due = [row for row in rows.values() if row.status != "revoked"]
        if due and not self._confirmed(due):
            output.say("nothing was revoked")
            return REFUSED
        await self._revoke(administration, due, tally)
        await self._again(administration, tally)
        self._put(tally)
        return REFUSED if tally.failed or tally.meanwhile else DONE

    async def _found(self, administration: Administration) -> list[Row]:
        named: list[Row] = [await administration.certificate(serial) for serial in self.serials]
        return named + await self._living(administration)

    async def _living(self, administration: Administration) -> list[Row]:
        """What could still be used of the ID or subtree. Expired ones need no revoking."""
        found: list[Row] = []
        if self.filters is not None:
            for status in ("valid", "pending"):
                async for page in administration.pages({**self.filters, "status": status}, None):
                    found += page.certificates
        return found

    def _confirmed(self, due: list[Row]) -> bool:
        if self.yes:
            return True
        names = list(dict.fromkeys(row.spiffe_id for row in due))
        told = ", ".join(names[:3]) + (f" and {len(names) - 3:,} more" if names[3:] else "")
        what = output.counted(len(due), "certificate")
        return confirmed(f"Revoke {what} of {told}, for good ({self.reason})?", yes=self.yes)

    async def _revoke(self, administration: Administration, due: list[Row], tally: Tally) -> None:
        turns = DeferredSemaphore(_AT_ONCE)

        async def one(row: Row) -> None:
            try:
                await administration.revoke(row.serial, self.reason)
                tally.revoked.append(row)
            except PkiError as error:
                tally.failed.append((row, error))

        def start(row: Row) -> "Deferred[None]":
            return Deferred.fromCoroutine(one(row))

        await gatherResults([turns.run(start, row) for row in due])
        for _, error in tally.failed[:1]:
            if len(tally.failed) == len(due) and not isinstance(error, CaRefused):
                raise error  # the CA is away: that is what is to be told

    async def _again(self, administration: Administration, tally: Tally) -> None:
        """Revoke what was issued while we revoked: a workload renews whenever it wants."""
        for number in range(_ROUNDS):
            failed = {row.serial for row, _ in tally.failed}
            more = [r for r in await self._living(administration) if r.serial not in failed]
            tally.meanwhile = len(more)
            if not more or number == _ROUNDS - 1:
                return
            await self._revoke(administration, more, tally)

    def _put_dry(self, due: list[Row]) -> None:
        if self.as_json:
            output.put_json([msgspec.to_builtins(row) for row in due])
            return
        if due:
            put_rows(due)
        output.say(f"{output.counted(len(due), 'certificate')} would be revoked")

    def _put(self, tally: Tally) -> None:
        for row, error in tally.failed:
            output.say(f"{pairs(row.serial)} of {row.spiffe_id} is not revoked: {error}")
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


def _as_json(tally: Tally, reason: Reason) -> dict[str, Any]:
    return {
        "reason": str(reason),
        "revoked": [row.serial for row in tally.revoked],
        "already": [row.serial for row in tally.already],
        "failed": [
            {"serial": row.serial, "code": error.problems[0].code, "detail": str(error)}
            for row, error in tally.failed
        ],
        "meanwhile": tally.meanwhile,
    }
