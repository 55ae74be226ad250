"""A CA whose clock is behind its own record is not ready, and signs nothing that would be dead on arrival."""

from collections.abc import Iterator
from datetime import timedelta

import pytest

from pki.audit.log import Act
from tests.authorities import HOUR
from tests.twisted_mesh.ca.publishing import at_once
from tests.twisted_mesh.ca.revocation.test_ocsp_responder import ask, standings
from tests.twisted_mesh.ca.rigs import CaRig, result_of
from tests.twisted_mesh.recording import RecordingLog
from twisted_mesh.ca import record_clock
from twisted_mesh.ca.check import Check, Standing
from twisted_mesh.ca.record_clock import ClockBehind
from twisted_mesh.ca.revocation.crl import NotPublished


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> RecordingLog:
    log = RecordingLog()
    monkeypatch.setattr(record_clock, "_log", log)
    return log


@pytest.fixture
def behind(rig: CaRig, log: RecordingLog) -> Iterator[CaRig]:
    """A CA that has run two days ahead, and has come back: the newest row is of today."""
    today = rig.time
    rig.time = today + timedelta(days=2)
    result_of(rig.log.record(Act.START, "mesh.local", {}))
    rig.time = today
    result_of(rig.log.record(Act.START, "mesh.local", {}))
    result_of(rig.ca.issuance.record_clock.recall(rig.store))
    yield rig


def clock(rig: CaRig) -> Check:
    rig.seconds += 2
    (found,) = [c for c in result_of(rig.ca.health.examine()) if c.name == "clock"]
    return found


def test_it_warns_at_once_with_both_times_and_the_cure(behind: CaRig, log: RecordingLog) -> None:
    (told,) = [event for event in log.events if event["event"] == "clock-behind"]
    assert told["behind"] == "2 days"
    assert "--clock-is-right" in told["cure"]
    assert "2026-11-23" in told["now"]
    assert "2026-11-25" in told["latest"]


def test_it_is_not_ready_whatever_the_newest_row_says(behind: CaRig) -> None:
    found = clock(behind)
    assert found.standing is Standing.FAIL
    assert "2 days behind the latest act on record" in found.detail


def test_what_would_be_dead_on_arrival_is_not_signed(behind: CaRig) -> None:
    behind.order.clear()
    with pytest.raises(ClockBehind, match=r"would have ended by 2026-11-25"):
        behind.sign()
    assert "sign" not in behind.order
    assert "RecordIssue" not in behind.order


def test_no_crl_and_no_ocsp_answer_is_dead_on_arrival_and_they_come_with_the_right_time(
    behind: CaRig,
) -> None:
    publisher = behind.ca.publisher
    publisher.demand_life = behind.ca.issuance.record_clock.demand_life
    publisher.aside = at_once
    publisher.begin()
    issuer = behind.ca.authorities.issuing.key_id
    behind.order.clear()
    with pytest.raises(NotPublished, match="behind its own record"):
        result_of(publisher.crl(issuer))
    assert standings(ask(behind, 1)) == ["try_later"]
    assert "sign" not in behind.order
    problem = publisher.waiting()
    assert problem is not None
    assert "behind its own record" in problem.detail
    behind.time += timedelta(days=2)
    assert result_of(publisher.crl(issuer)).number
    assert all(known.problem is None for known in publisher.lists)
    assert standings(ask(behind, 1)) == ["unknown"]


def test_what_outlives_the_record_is_signed(rig: CaRig) -> None:
    today = rig.time
    rig.time = today + timedelta(minutes=30)
    result_of(rig.log.record(Act.START, "mesh.local", {}))
    rig.time = today
    result_of(rig.ca.issuance.record_clock.recall(rig.store))
    assert clock(rig).standing is Standing.FAIL
    assert rig.sign(ttl=HOUR)


def test_it_heals_when_the_clock_comes_right(behind: CaRig, log: RecordingLog) -> None:
    behind.time += timedelta(days=2)
    assert behind.sign()
    assert clock(behind).standing is not Standing.FAIL
    assert log.count("clock-right") == 1


def test_a_clock_that_is_right_is_told_of_by_nobody(rig: CaRig, log: RecordingLog) -> None:
    rig.sign()
    result_of(rig.ca.issuance.record_clock.recall(rig.store))
    rig.time -= timedelta(seconds=30)
    assert rig.ca.issuance.record_clock.behind is None
    assert log.events == []
