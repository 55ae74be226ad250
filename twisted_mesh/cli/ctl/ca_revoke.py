"""What ``mesh-ctl ca revoke-issuing`` and ``ca root distrust`` do: show whom it concerns, ask, revoke."""

from collections.abc import Iterable

import msgspec
from attrs import frozen

from pki.svid.revocation_set import Reason
from twisted_mesh.api.admin_client import Administration
from twisted_mesh.api.root_messages import RootDistrusted
from twisted_mesh.cli.ctl import output
from twisted_mesh.cli.ctl.cert_actions import connections_on
from twisted_mesh.cli.ctl.options import confirmed
from twisted_mesh.cli.status import DONE, REFUSED


@frozen
class Concerned:
    """Who would be cut off, as far as the CA knows."""

    certificates: int
    spiffe_ids: int
    connections: int
    endpoints: int
    """That have told the CA of connections."""
    within: str

    @classmethod
    async def by(cls, administration: Administration, issuers: Iterable[str]) -> "Concerned":
        """Of the certificates that are valid and that these have issued, by key id."""
        certificates, connections, names = 0, 0, set[str]()
        for issuer in issuers:
            filters = {"issuer": issuer, "status": "valid"}
            async for page in administration.pages(filters, None):
                certificates += len(page.certificates)
                connections += sum(map(connections_on, page.certificates))
                names |= {row.spiffe_id for row in page.certificates}
        known = await administration.connections()
        return cls(certificates, len(names), connections, known.endpoints, known.within)

    def __str__(self) -> str:
        return (
            f"{output.counted(self.certificates, 'valid certificate')} of "
            f"{output.counted(self.spiffe_ids, 'SPIFFE ID')} and "
            f"{output.counted(self.connections, 'open connection')} on them, as the CA and "
            f"{output.counted(self.endpoints, 'endpoint')} told in the last {self.within}"
        )


@frozen
class RevokingIssuing:
    """``ca revoke-issuing``."""

    issuer: str
    reason: Reason
    force: bool
    dry_run: bool
    yes: bool
    as_json: bool

    async def __call__(self, administration: Administration) -> int:
        concerned = await Concerned.by(administration, [self.issuer])
        if self.dry_run:
            if self.as_json:
                output.put_json({"issuer": self.issuer, **_builtins(concerned)})
            else:
                output.put(f"It would cut off {concerned}")
            return DONE
        question = (
            f"Revoke this issuing CA for good ({self.reason}), and cut off {concerned}? Their holders get others from "
            "its successor"
        )
        if not confirmed(question, yes=self.yes):
            output.say("nothing was revoked")
            return REFUSED
        done = await administration.revoke_issuing(self.issuer, self.reason, force=self.force)
        if self.as_json:
            output.put_json({**msgspec.to_builtins(done), **_builtins(concerned)})
            return DONE
        for row in done.revoked:
            before = ", as it was before" if done.was_revoked else ""
            output.put(f"{row.subject} is revoked{before} ({row.reason}, {row.revoked_at})")
        if done.issuing is not None:
            output.put(f"The CA that issues now: {done.issuing}")
        if done.waits is not None:
            output.put(f"Still to be done: {done.waits}")
        return DONE


def _builtins(concerned: Concerned) -> dict[str, object]:
    return {
        "certificates": concerned.certificates,
        "spiffe_ids": concerned.spiffe_ids,
        "connections": concerned.connections,
        "endpoints": concerned.endpoints,
    }


@frozen
class Distrusting:
    """``ca root distrust``."""

    fingerprint: str
    reason: Reason
    dry_run: bool
    yes: bool
    as_json: bool

    async def __call__(self, administration: Administration) -> int:
        planned = await administration.distrust_root(self.fingerprint, self.reason, dry_run=True)
        concerned = await Concerned.by(administration, planned.alone)
        if self.dry_run:
            if self.as_json:
                output.put_json({**msgspec.to_builtins(planned), **_builtins(concerned)})
            else:
                output.put(f"It would take these steps: {', '.join(planned.steps) or 'none'}")
                output.put(f"It would cut off {concerned}")
            return DONE
        question = f"Have nobody believe {planned.subject} any more, for good ({self.reason}), and cut off {concerned}?"
        if not confirmed(question, yes=self.yes):
            output.say("nothing was done")
            return REFUSED
        done = await administration.distrust_root(self.fingerprint, self.reason)
        if self.as_json:
            output.put_json({**msgspec.to_builtins(done), **_builtins(concerned)})
        else:
            _put_distrusted(done)
        return DONE if done.proven else REFUSED


def _put_distrusted(done: RootDistrusted) -> None:
    output.put(f"{done.subject} is distrusted ({done.reason}, {done.revoked_at})")
    output.put(f"Chains lead to {done.root} now: whoever joins compares with that")
    if done.remnants:
        cells = ((row.remains, row.where, row.subject, row.serial) for row in done.remnants)
        output.put_table(("CERTIFICATE", "IN", "SUBJECT", "SERIAL"), cells)
    output.put(
        "Proven: no certificate that this CA holds or has issued brings its key back to life"
        if done.proven
        else "NOT proven: what is said to revive it, or was issued over its key, brings the stolen key back to life"
    )
    if done.waits is not None:
        output.put(f"Still to be done: {done.waits}")
    output.put(
        "Who was not connected and knows that root alone joins again, with the new fingerprint; destroy all copies of "
        "the old key, and make a backup"
    )
