"""Whoever answers for a connection is the entry that bought its certificate, whichever ID that names."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from pki.policy.principal import workload
from tests.authorities import BACKEND
from tests.twisted_mesh.ca.rigs import CaRig, ca_rig, result_of
from twisted_mesh.ca import holders as module
from twisted_mesh.ca.holders import Holders
from twisted_mesh.limits.quota import Allowance, QuotaUsedUp


@pytest.fixture
def rig() -> Iterator[CaRig]:
    with ca_rig() as made:
        yield made


def peer(serial: int) -> Any:
    return SimpleNamespace(path=[SimpleNamespace(serial_number=serial)])


def test_an_entrys_certificates_are_the_entrys_and_the_store_is_asked_once(rig: CaRig) -> None:
    bought, *_ = rig.sign(principal=workload(BACKEND, 1))
    given, *_ = rig.sign()
    holders = Holders(rig.store)  # type: ignore[arg-type]
    assert result_of(holders.of(peer(bought.serial_number))) == "entry:file.backend"
    assert result_of(holders.of(peer(given.serial_number))) is None
    assert result_of(holders.of(peer(4711))) is None
    rig.order.clear()
    assert result_of(holders.of(peer(bought.serial_number))) == "entry:file.backend"
    assert rig.order == []


def test_a_store_that_cannot_answer_leaves_it_at_the_id(rig: CaRig) -> None:
    bought, *_ = rig.sign(principal=workload(BACKEND, 1))
    holders = Holders(rig.store)  # type: ignore[arg-type]
    rig.store.broken.add("find_all")
    assert result_of(holders.of(peer(bought.serial_number))) is None
    rig.store.broken.clear()
    assert result_of(holders.of(peer(bought.serial_number))) == "entry:file.backend"


def test_no_flood_of_certificates_grows_what_is_remembered(
    rig: CaRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_REMEMBERED", 10)
    holders = Holders(rig.store)  # type: ignore[arg-type]
    for serial in range(1, 100):
        result_of(holders.of(peer(serial)))
    assert len(holders._known) == 10


def test_a_certificate_that_came_to_nothing_costs_no_quota(rig: CaRig) -> None:
    quota = rig.ca.certificates.quota
    quota.allowance = Allowance(2, 2)
    rig.store.broken.add("RecordIssue")
    for _ in range(5):
        with pytest.raises(Exception, match="the disk is full"):
            rig.sign(principal=workload(BACKEND, 1))
    rig.store.broken.clear()
    for _ in range(2):
        rig.sign(principal=workload(BACKEND, 1))
    with pytest.raises(QuotaUsedUp, match="has had 2 certificates"):
        rig.sign(principal=workload(BACKEND, 1))
