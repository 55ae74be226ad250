"""``doctor``: what it looks at from outside, and what it makes of a CA that does not answer."""

import asyncio
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from attrs import field, frozen

from pki.errors import PkiError, Problem
from tests.authorities import NOW
from tests.twisted_mesh.backup.states import ca_state
from twisted_mesh.api.messages import Health, HealthCheck
from twisted_mesh.api.refusal import CaRefused
from twisted_mesh.cli.ctl import doctor_checks
from twisted_mesh.cli.ctl.doctor_checks import Diagnosis
from twisted_mesh.http.address import CaAddress
from twisted_mesh.tls.alerts import Unreachable

SOCKET = CaAddress("unix", "/ca.sock")
LITTLE_SPACE = Health("ok", [HealthCheck("disk", "warn", "little space", "free some")])
AWAY = Problem("unreachable", "no CA answers", "start it")


@frozen
class Client:
    address: CaAddress = SOCKET
    date: datetime | None = NOW


@frozen
class Ca:
    """Stands for a CA: its health, or why it does not answer."""

    answer: Health | PkiError = LITTLE_SPACE
    client: Client = field(factory=Client)

    async def health(self) -> Health:
        if isinstance(self.answer, PkiError):
            raise self.answer
        return self.answer


def diagnosed(
    ca: Ca, capsys: pytest.CaptureFixture[str], *before: HealthCheck, skew: timedelta = timedelta()
) -> tuple[int, str]:
    work: Any = Diagnosis(before, False, lambda: NOW + skew)
    return asyncio.run(work(ca)), capsys.readouterr().out


def test_warnings_are_told_and_do_not_fail(capsys: pytest.CaptureFixture[str]) -> None:
    status, told = diagnosed(Ca(), capsys)
    assert status == 0
    assert "warn  disk: little space\n      -> free some\n" in told


@pytest.mark.parametrize("hours", [-1, 1])
def test_clocks_that_differ_are_found(hours: int, capsys: pytest.CaptureFixture[str]) -> None:
    status, told = diagnosed(Ca(), capsys, skew=timedelta(hours=hours))
    assert status == 1
    assert "fail  clocks: this machine's clock and the CA's differ by 1h 0m" in told


def test_a_ca_that_is_away_or_unwell_is_a_finding(capsys: pytest.CaptureFixture[str]) -> None:
    for error in (Unreachable(AWAY), CaRefused(503, [AWAY])):
        status, told = diagnosed(Ca(error), capsys, HealthCheck("modes", "ok", "fine"))
        assert status == 1
        assert told == "ok    modes: fine\nfail  ca: no CA answers\n      -> start it\n"


def test_a_caller_who_may_not_ask_learns_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(CaRefused):
        diagnosed(Ca(CaRefused(401, [Problem("no-proof", "who are you?")])), capsys)


def test_the_cas_own_look_at_the_disk_counts(capsys: pytest.CaptureFixture[str]) -> None:
    _, told = diagnosed(Ca(), capsys, HealthCheck("disk", "ok", "by us"))
    assert "by us" not in told


def found(root: Path) -> dict[str, tuple[str, str]]:
    return {check.name: (check.status, check.detail) for check in doctor_checks.of_files(root)}


def test_a_good_state_directory_is_found_good(tmp_path: Path) -> None:
    checks = found(ca_state(tmp_path / "state").root)
    assert {status for status, _ in checks.values()} == {"ok"}
    assert set(checks) == {"modes", "disk"}


@pytest.mark.parametrize(
    ("name", "mode", "words"),
    [
        ("", 0o700, "no other user reaches the socket"),
        ("", 0o777, "has mode 0777"),
        ("ca", 0o700, "no other user reaches the socket"),
        ("ca/private", 0o755, "has mode 0755"),
        ("ca/private/root.key", 0o640, "has mode 0640: others can read it"),
    ],
)
def test_wrong_modes_are_named(tmp_path: Path, name: str, mode: int, words: str) -> None:
    state = ca_state(tmp_path / "state")
    path = state.root / name
    path.chmod(mode)
    status, detail = found(state.root)["modes"]
    path.chmod(0o700)
    assert status == "fail"
    assert f"{path} " in detail
    assert words in detail


def test_a_directory_without_a_ca_is_told(tmp_path: Path) -> None:
    status, detail = found(tmp_path)["state"]
    assert status == "fail"
    assert f"{tmp_path}/ca is not there" in detail
