"""Health: each check comes from doing the thing, and says what to do."""

from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pki.errors import Problem
from tests.authorities import key, mesh
from tests.twisted_mesh.ca.rigs import CaRig, result_of
from twisted_mesh.ca import health
from twisted_mesh.ca.check import Check, Standing


def look(rig: CaRig, name: str) -> Check:
    rig.seconds += 2
    (found,) = [check for check in result_of(rig.ca.health.examine()) if check.name == name]
    return found


def test_a_healthy_ca_is_healthy_in_everything(rig: CaRig, tmp_path: Path) -> None:
    rig.ca.health.directory = tmp_path
    found = result_of(rig.ca.health.examine())
    assert [check.name for check in found] == [
        *("signing", "store", "clock", "issuer", "root", "keys", "intents", "audit", "crls"),
        *("federation", "policy", "platforms", "logs", "descriptors", "disk", "memories"),
    ]
    assert {check.standing for check in found} == {Standing.OK}


def test_it_really_signs(rig: CaRig) -> None:
    result_of(rig.ca.health.examine())
    assert "sign" in rig.order
    rig.signer.breaks = lambda: b"no signature"
    assert look(rig, "signing").standing is Standing.FAIL


def test_what_it_signs_could_not_be_a_certificate(rig: CaRig, monkeypatch: Any) -> None:
    seen: list[bytes] = []
    monkeypatch.setattr(health, "verify", lambda key, signature, data, digest: seen.append(data))
    result_of(rig.ca.health.examine())
    assert not seen[0].startswith(b"\x30")


def test_it_really_writes(rig: CaRig) -> None:
    rig.store.broken = {"Probe"}
    found = look(rig, "store")
    assert found.standing is Standing.FAIL
    assert "disk is full" in found.detail
    rig.store.broken = set()
    assert look(rig, "store").standing is Standing.OK


def test_an_answer_is_good_for_a_second(rig: CaRig) -> None:
    first = result_of(rig.ca.health.examine())
    rig.order.clear()
    assert result_of(rig.ca.health.examine()) is first
    assert rig.order == []
    rig.seconds += 1
    result_of(rig.ca.health.examine())
    assert "Probe" in rig.order


def test_a_clock_behind_the_record_is_told(rig: CaRig) -> None:
    rig.sign()
    rig.time -= timedelta(minutes=2)
    found = look(rig, "clock")
    assert found.standing is Standing.FAIL
    assert "2m" in found.detail
    rig.time += timedelta(minutes=2)
    assert look(rig, "clock").standing is not Standing.FAIL


def test_a_clock_that_jumped_is_told(rig: CaRig) -> None:
    assert look(rig, "clock").standing is Standing.OK
    rig.time += timedelta(hours=3)
    assert look(rig, "clock").standing is Standing.WARN


def test_an_issuer_that_has_expired_is_told(rig: CaRig) -> None:
    rig.time = rig.home.issuing.certificate.not_valid_after_utc + timedelta(seconds=1)
    assert look(rig, "issuer").standing is Standing.FAIL


def test_a_rotation_of_the_root_and_its_next_step_are_told(rig: CaRig) -> None:
    assert "rotation" not in look(rig, "root").detail
    authorities = rig.ca.authorities
    other = mesh(root_key=key(7)).root.certificate
    rig.ca.current.adopt(authorities.along(authorities.root_line.prepared(other, rig.time)))
    found = look(rig, "root")
    assert found.standing is Standing.OK
    assert "its rotation is prepared, and goes on by mesh-ctl ca root activate" in found.detail


def test_what_the_succession_waits_for_is_told(rig: CaRig) -> None:
    rig.ca.health.waiting = lambda: Problem("waiting", "the root's key is away", "bring it back")
    found = look(rig, "issuer")
    assert found.standing is Standing.WARN
    assert found.remedy == "bring it back"


@pytest.mark.usefixtures("elsewhere")
def test_many_open_intents_are_told(rig: CaRig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "_MANY_INTENTS", 1)
    rig.store.broken = {"RecordCertificate"}
    for _ in range(2):
        with pytest.raises(Exception, match="disk is full"):
            rig.sign()
    assert look(rig, "intents").standing is Standing.WARN


def test_a_log_that_cannot_be_signed_is_told(rig: CaRig) -> None:
    rig.log.last_problem = Problem("x", "y")  # type: ignore[assignment]
    assert look(rig, "audit").standing is Standing.WARN


def test_a_disk_that_fills_up_is_told(
    rig: CaRig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    rig.ca.health.directory = tmp_path
    monkeypatch.setattr(health.shutil, "disk_usage", lambda _: SimpleNamespace(free=1024))
    assert look(rig, "disk").standing is Standing.WARN
    rig.ca.health.directory = tmp_path / "gone"
    monkeypatch.undo()
    assert look(rig, "disk").standing is Standing.FAIL


def test_few_descriptors_left_are_told(rig: CaRig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health.resource, "getrlimit", lambda _: (5, 5))
    found = look(rig, "descriptors")
    assert found.standing is Standing.WARN
    assert "of 5 file descriptors" in found.detail
