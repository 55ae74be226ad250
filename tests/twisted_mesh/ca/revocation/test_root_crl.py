"""The root's CRL: signed while the root's key is at hand, believed for as long as it may be away."""

import os
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.task import Clock
from twisted.logger import LogEvent

from pki.audit.log import Act, Entry
from pki.keys import key_id
from pki.svid.revocation_set import Reason, Revocation
from tests.authorities import DAY, HOUR, NOW, OTHER, mesh
from tests.twisted_mesh.ca.publishing import (
    publishing_rig,
    reborn,
    relied_on,
    served,
    with_root_key,
    without_root_key,
)
from tests.twisted_mesh.ca.rigs import CaRig, result_of
from twisted_mesh.ca.revocation.crl import NotPublished, PublishedCrl
from twisted_mesh.ca.revocation.crl_publisher import TICK
from twisted_mesh.stores.records import StoreError


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[CaRig]:
    with publishing_rig(directory=tmp_path) as made:
        with_root_key(made)
        yield made


def root_id(rig: CaRig) -> str:
    return key_id(rig.home.root.certificate.public_key())


def attend(rig: CaRig, seconds: float = 0.0) -> None:
    result_of(rig.ca.publisher.attend(seconds))


def root_crl(rig: CaRig) -> PublishedCrl:
    found = served(rig, root_id(rig))
    relied_on(rig, found, rig.home.root.certificate)
    return found


def acts(rig: CaRig) -> list[Entry]:
    result_of(rig.log.extend())
    listed, _ = result_of(_asked(rig.store.log_entries(0, 100)))
    told = [Entry.parse(logged.entry) for logged in listed]
    return [entry for entry in told if entry.facts.get("step") == "root-crl-signed"]


async def _asked(deferred: Any) -> Any:
    return await deferred


def test_it_is_made_when_the_key_is_there_and_holds_until_the_issuing_ca_ends(rig: CaRig) -> None:
    attend(rig)
    made = root_crl(rig)
    assert made.entries == 0
    assert made.span.next_update == rig.home.issuing.certificate.not_valid_after_utc
    (told,) = acts(rig)
    assert (told.act, told.object) == (Act.ADMINISTER, root_id(rig))
    assert told.facts["number"] == str(made.number)


def test_it_is_made_anew_at_half_of_its_life(rig: CaRig) -> None:
    attend(rig)
    first = root_crl(rig)
    rig.time += 180 * DAY
    attend(rig)
    assert root_crl(rig) is first
    rig.time += 5 * DAY
    attend(rig)
    assert root_crl(rig).number > first.number
    assert len(acts(rig)) == 2


def test_it_is_served_from_its_file_while_the_key_is_away(rig: CaRig) -> None:
    attend(rig)
    first = root_crl(rig)
    without_root_key(rig)
    rig.time += 30 * DAY
    reborn(rig)
    attend(rig)
    again = root_crl(rig)
    assert (again.der, again.number, again.etag) == (first.der, first.number, first.etag)
    assert rig.ca.publisher.waiting() is None


def test_before_the_key_leaves_it_is_signed_once_more(rig: CaRig) -> None:
    attend(rig)
    first = root_crl(rig)
    rig.time += 100 * DAY
    result_of(rig.ca.publisher.sign_root(rig.home.root.key))  # type: ignore[arg-type]
    assert root_crl(rig).number > first.number
    assert root_crl(rig).span.this_update > first.span.this_update


@pytest.mark.parametrize(
    ("later", "words"),
    [
        (timedelta(), None),
        (300 * DAY, None),
        (310 * DAY, "is believed for 55 days"),
        (366 * DAY, "is not believed any more"),
    ],
)
def test_health_says_in_time_that_the_key_is_wanted(
    rig: CaRig, later: timedelta, words: str | None
) -> None:
    attend(rig)
    without_root_key(rig)
    rig.time += later
    reborn(rig)
    attend(rig)
    problem = rig.ca.publisher.waiting()
    if words is None:
        assert problem is None
    else:
        assert problem is not None
        assert words in problem.detail
        assert "bring the root's key back" in problem.remedy


def test_without_key_and_file_there_is_none_until_the_key_comes(rig: CaRig) -> None:
    without_root_key(rig)
    attend(rig)
    with pytest.raises(NotPublished, match="its key is not here"):
        root_crl(rig)
    problem = rig.ca.publisher.waiting()
    assert problem is not None
    assert "there is no CRL of the root" in problem.detail
    with_root_key(rig)
    attend(rig)
    assert root_crl(rig).entries == 0
    assert rig.ca.publisher.waiting() is None


def test_an_older_one_from_a_backup_is_replaced_by_one_with_a_higher_number(rig: CaRig) -> None:
    attend(rig)
    path = rig.ca.publisher.root.path
    assert path is not None
    old = path.read_bytes()
    rig.time += 200 * DAY
    attend(rig)
    last = root_crl(rig).number
    path.write_bytes(old)
    reborn(rig)
    attend(rig)
    assert root_crl(rig).number > last


@pytest.mark.parametrize("damage", ["nonsense", "cut", "of another CA", "unreadable"])
def test_a_file_that_is_no_crl_of_the_root_is_told_and_made_anew(
    rig: CaRig, damage: str, logged: list[LogEvent]
) -> None:
    attend(rig)
    first = root_crl(rig)
    path = rig.ca.publisher.root.path
    assert path is not None
    if damage == "unreadable":
        path.unlink()
        path.mkdir()
    else:
        other = mesh(OTHER).root
        with publishing_rig(home=mesh(OTHER)) as elsewhere:
            with_root_key(elsewhere)
            attend(elsewhere)
            foreign = served(elsewhere, other.key_id).der
        path.write_bytes(
            {"nonsense": b"nonsense", "cut": first.der[:-9], "of another CA": foreign}[damage]
        )
    without_root_key(rig)
    reborn(rig)
    attend(rig)
    assert "root-crl-unusable" in [event.get("event") for event in logged]
    assert rig.ca.publisher.current(root_id(rig)) is None
    if damage == "unreadable":
        os.rmdir(path)
    with_root_key(rig)
    attend(rig)
    assert root_crl(rig).number > first.number


def test_what_cannot_be_recorded_is_not_signed(rig: CaRig) -> None:
    rig.store.broken = {"RecordAct"}
    with pytest.raises(StoreError):
        attend(rig)
    assert rig.ca.publisher.current(root_id(rig)) is None
    problem = rig.ca.publisher.waiting()
    assert problem is not None
    assert "cannot be made" in problem.detail
    rig.store.broken = set()
    attend(rig, 29)
    assert rig.ca.publisher.current(root_id(rig)) is None, "it is not tried each second"
    attend(rig, 30)
    assert root_crl(rig).entries == 0


def test_it_is_tried_at_once_when_what_kept_it_from_being_signed_is_over(rig: CaRig) -> None:
    clock, publisher = Clock(), rig.ca.publisher
    publisher.retry_now()  # nothing runs yet
    rig.store.broken = {"RecordAct"}
    publisher.start(clock)
    clock.advance(TICK)
    rig.store.broken = set()
    clock.advance(TICK)
    assert publisher.current(root_id(rig)) is None
    publisher.retry_now()
    assert root_crl(rig).entries == 0
    publisher.stop()


def test_a_disk_that_cannot_be_written_leaves_the_one_that_is_served(
    rig: CaRig, tmp_path: Path
) -> None:
    attend(rig)
    first = root_crl(rig)
    rig.ca.publisher.root.path = tmp_path / "gone" / "root.crl"
    rig.time += 200 * DAY
    with pytest.raises(Exception, match="gone"):
        attend(rig)
    assert root_crl(rig) is first


def test_what_the_root_has_revoked_is_told_once_its_key_is_here(rig: CaRig) -> None:
    attend(rig)
    without_root_key(rig)
    gone = Revocation(root_id(rig), 0xAB, NOW, Reason.CA_COMPROMISE, NOW + HOUR)
    rig.ca.publisher.revoked([gone])
    problem = rig.ca.publisher.waiting()
    assert problem is not None
    assert "has revoked what its CRL does not say" in problem.detail
    assert rig.ca.publisher.overdue == 1
    with_root_key(rig)
    attend(rig)
    (told,) = relied_on(rig, root_crl(rig), rig.home.root.certificate)
    assert (told.serial, told.reason) == (0xAB, Reason.CA_COMPROMISE)
    assert rig.ca.publisher.overdue == 0


def test_an_issuing_ca_that_has_ended_leaves_it_a_day(rig: CaRig) -> None:
    rig.time += 366 * DAY
    attend(rig)
    assert root_crl(rig).span.next_update == rig.time + DAY
