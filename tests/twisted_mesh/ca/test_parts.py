"""The parts of a CA: who hears of a revocation, and in which order."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from twisted.internet.task import Clock
from twisted.logger import LogEvent

from pki.svid.revocation_set import Reason, Revocation
from tests.twisted_mesh.ca.publishing import listed, publishing_rig
from tests.twisted_mesh.ca.rigs import ADMIN, CaRig, result_of
from twisted_mesh.ca.notifier import Notifier
from twisted_mesh.ca.revocation.crl_publisher import CrlPublisher
from twisted_mesh.ca.revocation.ocsp_responder import OcspResponder
from twisted_mesh.stores.records import StoreError

ORDER = ["Listener", "Notifier", "OcspResponder", "CrlPublisher"]


@pytest.fixture
def rig() -> Iterator[CaRig]:
    with publishing_rig(notifier=Notifier(Clock())) as made:
        yield made


@pytest.fixture
def heard(rig: CaRig, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Who has heard of a revocation, one after the other; all hear it all the same."""
    names: list[str] = []

    def noting(kind: type[Any]) -> Callable[[Any, Sequence[Revocation]], None]:
        hear = kind.revoked

        def revoked(self: Any, revocations: Sequence[Revocation]) -> None:
            names.append(kind.__name__)
            hear(self, revocations)

        return revoked

    for kind in (type(rig.endpoint), Notifier, OcspResponder, CrlPublisher):
        monkeypatch.setattr(kind, "revoked", noting(kind))
    return names


def revoke(rig: CaRig) -> int:
    leaf, *_ = rig.sign()
    result_of(rig.ca.certificates.revoke(ADMIN, leaf.serial_number, Reason.SUPERSEDED))
    return leaf.serial_number


def test_endpoints_hear_first_and_the_crl_comes_last(rig: CaRig, heard: list[str]) -> None:
    serial = revoke(rig)
    assert heard == ORDER
    assert listed(rig) == {serial}


def test_what_is_revoked_together_is_heard_once(rig: CaRig, heard: list[str]) -> None:
    serials = [rig.sign()[0].serial_number for _ in range(3)]
    result_of(rig.ca.certificates.revoke_all(ADMIN, serials, Reason.SUPERSEDED))
    assert heard == ORDER
    assert rig.endpoint.numbers == [3]


@pytest.mark.usefixtures("elsewhere")
def test_what_is_written_off_is_heard_in_the_same_order(rig: CaRig, heard: list[str]) -> None:
    rig.store.broken = {"RecordCertificate"}
    with pytest.raises(StoreError):
        rig.sign()
    rig.store.broken = set()
    assert result_of(rig.ca.write_offs.resolve()) == 1
    assert heard == ORDER


def test_an_endpoint_that_breaks_keeps_no_revocation_from_the_crl(
    rig: CaRig, monkeypatch: pytest.MonkeyPatch, logged: list[LogEvent]
) -> None:
    def broken(self: Any, revocations: Sequence[Revocation]) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(type(rig.endpoint), "revoked", broken)
    serial = revoke(rig)
    assert listed(rig) == {serial}
    (told,) = [event for event in logged if event.get("event") == "revocation-unheard"]
    assert told["listener"] == "Listener"
