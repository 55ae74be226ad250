"""Who believes and serves what: by each one's own word, as long as its certificate lasts, and never without a bound."""

from datetime import datetime, timedelta

import pytest
from attrs import define, field

from pki.svid.pin import Fingerprint
from tests.authorities import HOUR, NOW
from twisted_mesh.ca import acknowledgements as module
from twisted_mesh.ca.acknowledgements import WITHOUT_CERTIFICATE, Acknowledgements

OLD, NEW = Fingerprint(b"\1" * 32), Fingerprint(b"\2" * 32)


@define(eq=False)
class Rig:
    time: datetime = NOW
    known: Acknowledgements = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.known = Acknowledgements(lambda: self.time)

    def names(self) -> list[str]:
        return [f"{one.who} {one.instance}" for one in self.known.known()]


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_who_believes_an_earlier_bundle_or_serves_another_root_is_told(rig: Rig) -> None:
    rig.known.take("a", "1", 4, OLD, NOW + HOUR)
    rig.known.take("a", "2", 5, NEW, NOW + HOUR)
    rig.known.take("b", "1", 6, None, NOW + HOUR)
    assert [(one.who, one.instance) for one in rig.known.lagging(5)] == [("a", "1")]
    assert rig.known.lagging(4) == []
    assert [(one.who, one.instance) for one in rig.known.not_serving(NEW)] == [
        ("a", "1"),
        ("b", "1"),
    ]
    assert rig.names() == ["a 1", "a 2", "b 1"]
    assert len(rig.known) == 3


def test_the_last_word_of_each_counts(rig: Rig) -> None:
    rig.known.take("a", "1", 4, OLD, NOW + HOUR)
    rig.known.take("a", "1", 5, NEW, NOW + HOUR)
    assert rig.known.lagging(5) == rig.known.not_serving(NEW) == []
    assert len(rig.known) == 1


def test_each_counts_until_its_certificate_has_ended(rig: Rig) -> None:
    rig.known.take("a", "1", 4, OLD, NOW + HOUR)
    rig.known.take("b", "1", 4, OLD)
    rig.time = NOW + WITHOUT_CERTIFICATE
    assert rig.names() == ["a 1", "b 1"]
    rig.time += timedelta(milliseconds=1)
    assert rig.names() == ["a 1"], "at once, however lately it was looked at"
    rig.time = NOW + HOUR + timedelta(seconds=1)
    assert rig.names() == []
    assert len(rig.known) == 0


def test_nobody_takes_the_room_of_others_and_who_has_none_is_not_forgotten(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_INSTANCES", 2)
    monkeypatch.setattr(module, "MOST", 3)
    for name in "1234":
        rig.known.take("flood", name, 0, OLD, NOW + HOUR)
    assert rig.names() == ["flood 1", "flood 2"]
    assert not rig.known.is_whole
    rig.known.take("a", "1", 5, NEW, NOW + 2 * HOUR)
    rig.known.take("b", "1", 5, NEW, NOW + 2 * HOUR)
    assert rig.names() == ["a 1", "flood 1", "flood 2"]
    rig.known.take("a", "1", 6, NEW, NOW + 2 * HOUR)
    assert rig.known.known()[0].holds == 6, "who is there may go on"
    rig.time = NOW + HOUR + timedelta(seconds=1)
    assert not rig.known.is_whole, "b would count still"
    rig.known.take("b", "1", 6, NEW, NOW + 2 * HOUR)
    assert rig.names() == ["a 1", "b 1"]
    rig.time = NOW + 2 * HOUR + timedelta(seconds=1)
    assert rig.known.is_whole


def test_a_wall_clock_that_is_put_back_revives_nobody_and_breaks_nothing(rig: Rig) -> None:
    rig.known.take("a", "1", 4, OLD, NOW + HOUR)
    rig.time = NOW + 2 * HOUR
    assert rig.names() == []
    rig.time = NOW
    assert rig.names() == []
    rig.known.take("a", "1", 5, OLD, NOW + HOUR)
    assert rig.names() == ["a 1"]
