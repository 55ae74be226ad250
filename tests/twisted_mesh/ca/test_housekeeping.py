"""Housekeeping: what was cut short is resolved, what is long over is forgotten, whatever goes wrong meanwhile."""

from collections.abc import Iterator
from datetime import timedelta

import pytest
from attrs import define, field
from twisted.internet.task import Clock

from tests.authorities import DAY, HOUR
from tests.twisted_mesh.ca.rigs import CaRig, housekeeping, result_of
from twisted_mesh.ca.housekeeping import TICK, Housekeeping
from twisted_mesh.stores.records import Query, Status, StoreError


@define
class House:
    rig: CaRig
    clock: Clock = field(factory=Clock)
    keeping: Housekeeping = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.keeping = housekeeping(self.rig, self.clock, 30 * DAY, 100 * DAY)
        self.keeping.start()

    def pass_time(self, time: timedelta) -> None:
        self.rig.time += time
        self.clock.advance(time.total_seconds())

    @property
    def statuses(self) -> list[Status]:
        page = result_of(self.rig.ca.record.certificates(Query(now=self.rig.time)))
        return [certificate.status(self.rig.time) for certificate in page.certificates]


@pytest.fixture
def house(rig: CaRig) -> Iterator[House]:
    house = House(rig)
    yield house
    house.keeping.stop()


@pytest.mark.usefixtures("elsewhere")
def test_an_intent_that_nobody_finishes_is_written_off_soon(house: House) -> None:
    house.rig.store.broken = {"RecordCertificate"}
    with pytest.raises(StoreError):
        house.rig.sign()
    assert house.statuses == [Status.PENDING]
    house.rig.store.broken = {"WriteOff"}
    house.clock.advance(TICK)
    assert house.statuses == [Status.PENDING]
    house.rig.store.broken = set()
    house.clock.advance(TICK)
    assert house.statuses == [Status.REVOKED]


def test_what_expired_long_ago_is_forgotten(house: House) -> None:
    house.rig.sign()
    house.pass_time(HOUR + 29 * DAY)
    assert house.statuses == [Status.EXPIRED]
    house.pass_time(2 * DAY)
    assert house.statuses == []


def test_a_clock_that_is_ahead_for_less_than_an_hour_costs_nothing(house: House) -> None:
    house.rig.sign()
    for _ in range(3):
        house.rig.time += 365 * DAY
        house.pass_time(0.9 * HOUR)
        assert house.statuses == [Status.EXPIRED]
        house.rig.time -= 365 * DAY
        house.pass_time(timedelta(seconds=TICK))
    house.rig.time += 365 * DAY
    house.pass_time(timedelta(seconds=TICK))
    house.pass_time(HOUR)
    assert house.statuses == []


def test_however_much_there_is_to_forget(house: House) -> None:
    for _ in range(30):
        house.rig.sign()
    house.rig.time += 40 * DAY
    assert result_of(house.keeping.prune()) == 30


def test_old_acts_lose_their_text_and_keep_their_place(house: House) -> None:
    house.rig.sign()
    size = result_of(house.rig.log.extend()).checkpoint.size
    house.rig.time += 200 * DAY
    house.rig.sign()
    result_of(house.keeping.prune())
    before = house.rig.log.latest
    assert before is not None
    after = result_of(house.rig.log.extend()).checkpoint
    assert after.size == size + 1
    listed, _ = house.rig.calls.result(house.rig.store.store.log_entries(0, 10))
    assert [logged.entry is None for logged in listed] == [True, False]
    assert all(len(logged.leaf) == 32 for logged in listed)
