"""``cert revoke``: what is meant, what is asked before, what is sent, and what is told after."""

import asyncio
import json
from typing import Any

import pytest
from msgspec.structs import replace

from pki.errors import Problem
from pki.svid.revocation_set import Reason
from tests.authorities import MESH
from tests.twisted_mesh.cli.ctl.registered import Ca, certificate
from twisted_mesh.api.refusal import CaRefused
from twisted_mesh.cli.ctl import options
from twisted_mesh.cli.ctl.cert_revoke import Revoking, Selection
from twisted_mesh.tls.alerts import Unreachable

WEB = {"spiffe_id": f"spiffe://{MESH}/service/web"}
EARLY = {"issued_before": "2026-11-23T12:00:00Z"}


def some(number: int, spiffe_id: str = "/service/web") -> list[Any]:
    return [certificate(serial, spiffe_id, None) for serial in range(1, number + 1)]


def revoke(
    ca: Ca,
    filters: dict[str, str],
    *serials: int,
    dry_run: bool = False,
    yes: bool = True,
    as_json: bool = False,
) -> int:
    work = Revoking(
        Selection(serials, filters), Reason.SUPERSEDED, dry_run=dry_run, yes=yes, as_json=as_json
    )
    administration: Any = ca
    return asyncio.run(work(administration))


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the user says, and is asked."""
    said: dict[str, Any] = {"answer": ""}

    def ask(question: str, **_: Any) -> Any:
        said["question"] = question
        return said["answer"]

    monkeypatch.setattr(options.click, "prompt", ask)
    monkeypatch.setattr(options.click, "confirm", ask)
    return said


def test_a_thousand_go_in_one_request(capsys: pytest.CaptureFixture[str]) -> None:
    ca = Ca(certificates=some(2300))
    assert revoke(ca, WEB) == 0
    assert [len(act) - 1 for act in ca.acts] == [1000, 1000, 300]
    assert capsys.readouterr().out == "2,300 certificates revoked (superseded)\n"


def test_valid_and_pending_ones_are_looked_for_until_none_is_left() -> None:
    ca = Ca(certificates=some(1))
    revoke(ca, WEB)
    assert ca.asked == [{**WEB, "status": status} for status in ("pending", "valid")] * 2


def test_a_serial_is_revoked_whatever_its_status_and_once(
    capsys: pytest.CaptureFixture[str],
) -> None:
    rows = some(3)
    rows[1] = replace(rows[1], status="expired")
    rows[2] = replace(rows[2], status="revoked")
    ca = Ca(certificates=rows)
    assert revoke(ca, {}, 2, 3, as_json=True) == 0
    assert ca.acts == [("02", "superseded")]
    assert ca.asked == []
    assert json.loads(capsys.readouterr().out) == {
        "reason": "superseded", "revoked": ["02"], "already": ["03"], "failed": [], "left_out": [],
        "meanwhile": 0,
    }  # fmt: skip


def test_a_serial_must_match_the_other_options_too(capsys: pytest.CaptureFixture[str]) -> None:
    class Choosy(Ca):
        async def page(self, filters: Any, limit: int = 1000, cursor: Any = None) -> Any:
            found = await super().page(filters, limit, cursor)
            return found if filters["serial"] == "01" else replace(found, certificates=[])

    ca = Choosy(certificates=some(2))
    assert revoke(ca, WEB, 1, 2) == 0
    assert ca.acts == [("01", "superseded")]
    assert ca.asked == [{**WEB, "serial": "01"}, {**WEB, "serial": "02"}]
    assert "02 of spiffe://mesh.local/service/web is not what the other options say" in (
        capsys.readouterr().err
    )


def test_a_serial_that_is_not_there_ends_it_before_anything_is_done() -> None:
    ca = Ca(certificates=some(1))
    with pytest.raises(CaRefused, match="no certificate has the serial 9"):
        revoke(ca, {}, 1, 9)
    assert ca.acts == []


# The CA's own.

OWN = certificate(77, "/mesh/ca", None)


@pytest.mark.parametrize(
    ("filters", "is_meant"),
    [
        (EARLY, False),
        ({"issuer": "ab" * 32}, False),
        ({"spiffe_id": f"spiffe://{MESH}/**"}, False),
        ({"entry": "e1"}, False),
        ({"spiffe_id": f"spiffe://{MESH}/mesh/**"}, True),
        ({"spiffe_id": f"spiffe://{MESH}/mesh/ca"}, True),
        ({"key": "ab" * 32}, True),
        ({"key": "ab" * 32, **EARLY}, True),
    ],
)
def test_the_cas_own_certificates_are_revoked_only_where_they_are_named(
    filters: dict[str, str], is_meant: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    ca = Ca(certificates=[*some(1), OWN])
    assert revoke(ca, filters) == 0
    assert ("4d" in ca.acts[0]) is is_meant
    assert ("1 certificate of the CA itself left out" in capsys.readouterr().err) is not is_meant


# What is asked.


@pytest.mark.parametrize(
    "filters",
    [EARLY, {"issuer": "ab" * 32}, {"spiffe_id": f"spiffe://{MESH}/**"}, {**EARLY, "issuer": "ab"}],
)
@pytest.mark.parametrize(
    ("answer", "status"), [("2000", 0), (" 2,000 ", 0), ("", 1), ("y", 1), ("200", 1)]
)
def test_what_is_about_everybody_asks_for_the_number(
    filters: dict[str, str], answer: str, status: int, answers: dict[str, Any]
) -> None:
    ca = Ca(certificates=some(2000))
    answers["answer"] = answer
    assert revoke(ca, filters, yes=False) == status
    assert answers["question"] == (
        "This is about everybody: 2,000 certificates of 1 SPIFFE ID would be revoked, for good (superseded). "
        "Type the number of certificates to go on [2000]"
    )
    assert bool(ca.acts) is not status


@pytest.mark.parametrize("filters", [WEB, {"key": "ab"}, {"entry": "e1"}, {**EARLY, "entry": "e"}])
def test_what_is_about_somebody_asks_for_a_yes(
    filters: dict[str, str], answers: dict[str, Any]
) -> None:
    rows = [replace(row, connections=2) for row in some(2)]
    answers["answer"] = False
    assert revoke(Ca(certificates=rows), filters, yes=False) == 1
    assert answers["question"] == (
        "Revoke 2 certificates of spiffe://mesh.local/service/web, with 4 open connections, for good "
        "(superseded)?"
    )


def test_a_dry_run_shows_the_connections_and_who_has_told(
    capsys: pytest.CaptureFixture[str],
) -> None:
    rows = [
        replace(row, connections=connections)
        for row, connections in zip(some(3), (0, 7, 1), strict=True)
    ]
    ca = Ca(certificates=rows)
    assert revoke(ca, WEB, dry_run=True, yes=False) == 0
    assert ca.acts == []
    told = capsys.readouterr()
    heading, *lines = told.out.splitlines()
    assert heading.split()[-1] == "CONNECTIONS"
    assert [line.split()[-1] for line in lines] == ["0", "7", "1"]
    assert told.err == (
        "mesh-ctl: 3 certificates would be revoked; 8 open connections on them, as the CA and 2 endpoints told in "
        "the last 30s\n"
    )


# What goes wrong.

REFUSED = CaRefused(403, [Problem("not-authorized", "no")])
AWAY = Unreachable(Problem("unreachable", "nobody listens"))


def test_a_ca_that_is_away_is_what_is_told() -> None:
    ca = Ca(certificates=some(2000), broken=[AWAY])
    with pytest.raises(Unreachable):
        revoke(ca, WEB)
    assert len(ca.acts) == 1


def test_a_ca_that_goes_away_midway_leaves_a_tally(capsys: pytest.CaptureFixture[str]) -> None:
    class Dying(Ca):
        async def revoke_all(self, serials: Any, reason: Any) -> Any:
            done = await super().revoke_all(serials, reason)
            self.broken = [AWAY]
            return done

    ca = Dying(certificates=some(3000))
    assert revoke(ca, WEB) == 1
    assert len(ca.acts) == 2
    told = capsys.readouterr()
    assert told.out == "1,000 certificates revoked (superseded); 2,000 failed\n"
    assert len(told.err.splitlines()) == 11
    assert told.err.endswith("1,990 more are not revoked\n")


def test_what_is_refused_fails_and_what_is_gone_too(capsys: pytest.CaptureFixture[str]) -> None:
    ca = Ca(certificates=some(2), broken=[REFUSED])
    assert revoke(ca, {}, 1, 2, as_json=True) == 1
    told = json.loads(capsys.readouterr().out)
    assert [failed["code"] for failed in told["failed"]] == ["not-authorized"] * 2

    class Forgetful(Ca):
        async def revoke_all(self, serials: Any, reason: Any) -> Any:
            self.certificates = self.certificates[:1]
            return await super().revoke_all(serials, reason)

    ca = Forgetful(certificates=some(2))
    assert revoke(ca, {}, 1, 2) == 1
    assert "1 certificate revoked (superseded); 1 failed" in capsys.readouterr().out
