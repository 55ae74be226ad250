"""A record against a log that the CA cannot sign now: nobody is accused by what is not signed yet."""

import asyncio
import io
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from attrs import field, frozen
from msgspec import UNSET

from pki.codes import Code
from pki.errors import Problem
from pki.validity import rfc3339
from tests.authorities import NOW
from tests.twisted_mesh.cli.ctl.test_audit_transcript import Log, written
from twisted_mesh.api.blocked_key_messages import BlockedKeyRows
from twisted_mesh.api.log_messages import RecordFederation, RecordRow, RecordRows
from twisted_mesh.api.messages import Registrations, RevocationRow, TokenRow
from twisted_mesh.api.refusal import CaRefused
from twisted_mesh.cli.ctl.audit_record import Compared, compared, undecided

UNKNOWN = RecordRow(
    "aa",
    [],
    spiffe_id="spiffe://mesh.local/x",
    issued_at=rfc3339(NOW),
    expires_at=rfc3339(NOW + timedelta(hours=1)),
    requester="unix:uid:0",
)


@frozen
class Ca(Log):
    """Has a certificate of which its log says nothing, and perhaps acts that are not signed."""

    acts: int = 0
    lost: tuple[int, ...] = ()
    refused: int | None = None
    """With what it answers whoever asks for claims."""
    federations: tuple[RecordFederation, ...] | None = field(default=None, hash=False)
    """None for a CA that shows none."""

    @property
    def client(self) -> Any:
        return SimpleNamespace(pause=_at_once)

    async def revocations(self) -> AsyncIterator[Sequence[RevocationRow]]:
        yield []

    async def record(self) -> AsyncIterator[RecordRows]:
        federations = UNSET if self.federations is None else list(self.federations)
        lost = list(self.lost)
        yield RecordRows([UNKNOWN], None, [], self.acts, lost, federations)

    async def registrations(self) -> Registrations:
        return Registrations([])

    async def claims(self) -> Any:
        if self.refused is not None:
            raise CaRefused(self.refused, [Problem(Code.NOT_FOUND, "there is nothing here")])
        yield []

    async def blocked_keys(self) -> BlockedKeyRows:
        return BlockedKeyRows([])

    async def tokens(self) -> list[TokenRow]:
        return []


async def _at_once(*_: object) -> None:
    """No time passes."""


def found(ca: Ca) -> Compared:
    return asyncio.run(compared(ca, io.BytesIO(written(ca)), NOW))  # type: ignore[arg-type]


def test_what_the_whole_log_does_not_tell_of_is_named() -> None:
    result = found(Ca(3, acts=3))
    assert (Code.RECORD_UNKNOWN, "aa") in {(d.code, d.name) for d in result.differences}
    assert list(undecided(result)) == []


def test_what_only_unsigned_acts_may_tell_of_is_not_judged() -> None:
    result = found(Ca(3, acts=5))
    assert Code.RECORD_UNKNOWN not in {d.code for d in result.differences}
    (finding,) = undecided(result)
    assert (finding.code, finding.start, finding.end) == (Code.UNHEALTHY_AUDIT, 3, 5)
    assert finding.is_breach, "and nobody says that all is well"


def test_checkpoints_are_missed_where_pruning_cannot_have_thinned_them() -> None:
    result = found(Ca(5, pruned=3, acts=5, lost=(2, 4)))
    (missing,) = [d for d in result.differences if d.kind == "checkpoint"]
    assert (missing.code, missing.name) == (Code.RECORD_MISSING, "4")
    (warning,) = undecided(result)
    assert (warning.code, warning.is_breach) == (Code.LOG_CUT, False)


def test_a_ca_of_before_there_were_claims_shows_none() -> None:
    result = found(Ca(3, acts=3, refused=404))
    assert {(d.code, d.name) for d in result.differences} == {
        (d.code, d.name) for d in found(Ca(3, acts=3)).differences
    }


def test_whoever_may_not_see_claims_is_told() -> None:
    with pytest.raises(CaRefused):
        found(Ca(3, acts=3, refused=403))


def test_a_federation_that_the_log_does_not_tell_of_is_named() -> None:
    planted = RecordFederation("evil.example", rfc3339(NOW), {"url": "https://evil.example/b"})
    result = found(Ca(3, acts=3, federations=(planted,)))
    assert (Code.RECORD_UNKNOWN, "evil.example") in {(d.code, d.name) for d in result.differences}
