"""How many logs must answer, who demands more, how they stand, and what is looked at between certificates."""

from collections.abc import Collection

import pytest
from attrs import frozen

from pki.ct.log_list import Log
from pki.errors import PkiError
from tests.authorities import mesh
from tests.twisted_mesh.ca.rigs import CaRig, result_of
from tests.twisted_mesh.ca.transparency.doors import AWAY, Door, Logged
from twisted_mesh.api.messages import RequiredScts
from twisted_mesh.ca.check import Standing
from twisted_mesh.ca.sct_reports import SctReports
from twisted_mesh.ca.transparency.errors import BadQuorum, LogsAway
from twisted_mesh.ca.transparency.log_watch import TICK, WELL, LogWatch
from twisted_mesh.ca.transparency.quorum import demand_quorum, ids_of, quorum_of, shortfall
from twisted_mesh.ca.transparency.receipts import WhenAway
from twisted_mesh.ca.transparency.transparency import Transparency


@pytest.mark.parametrize(
    ("asked", "logs", "quorum"), [(None, 1, 1), (None, 2, 1), (None, 3, 2), (2, 2, 2), (1, 3, 1)]
)
def test_all_but_one_unless_it_is_said(asked: int | None, logs: int, quorum: int) -> None:
    assert quorum_of(asked, logs) == quorum


@pytest.mark.parametrize(("asked", "logs"), [(3, 2), (0, 2), (1, 0)])
def test_no_more_than_there_are(asked: int, logs: int) -> None:
    with pytest.raises(BadQuorum, match=f"there are {logs} logs"):
        quorum_of(asked, logs)


@frozen
class Place:
    """A CA with logs, and endpoints that have said what they demand."""

    ca: Logged
    reports: SctReports
    transparency: Transparency

    @classmethod
    def made(cls, rig: CaRig, logs: int, quorum: int, away: WhenAway = WhenAway.REFUSE) -> "Place":
        ca = Logged.with_logs(rig, logs, quorum, away)
        reports = SctReports(lambda: rig.seconds)
        watch = LogWatch(ca.receipts, lambda: [mesh().root.certificate], ca.clock)
        transparency = Transparency(
            ca.receipts,
            watch,
            None,  # type: ignore[arg-type]
            quorum,
            lambda: [door.log for door in ca.doors],
            lambda log: Door(log.description, rig.now),
            reports,
        )
        rig.ca.health.logged = transparency.standing
        return cls(ca, reports, transparency)

    @property
    def logs(self) -> list[Log]:
        return [door.log for door in self.ca.doors]

    def demand(self, required: int, who: str = "spiffe://mesh.local/a") -> None:
        self.reports.tell(who, "x" * 16, RequiredScts(required, ids_of(self.logs)))

    def look(self) -> tuple[Standing, str]:
        """What the CA's health says of its logs."""
        self.ca.rig.seconds += 5
        checks = result_of(self.ca.rig.ca.health.examine())
        (found,) = [check for check in checks if check.name == "logs"]
        return found.standing, found.detail


def test_a_ca_begins_with_no_fewer_than_endpoints_demand(rig: CaRig) -> None:
    place = Place.made(rig, 3, 2)
    for number in range(12):
        place.demand(2, f"spiffe://mesh.local/{number}")
    demand_quorum(2, place.logs, place.reports)
    with pytest.raises(BadQuorum, match="--ct-quorum is 1 of 3 logs, and 12 endpoints demand SCTs"):
        demand_quorum(1, place.logs, place.reports)
    with pytest.raises(BadQuorum, match="no --ct-log is given, and 12 endpoints"):
        demand_quorum(0, (), place.reports)


def test_logs_that_an_endpoint_does_not_know_do_not_count_for_it(rig: CaRig) -> None:
    place = Place.made(rig, 3, 2)
    place.reports.tell("spiffe://mesh.local/a", "x" * 16, RequiredScts(2, ids_of(place.logs[:2])))
    assert shortfall(2, place.logs, place.reports).startswith("1 endpoint demands")
    assert shortfall(3, place.logs, place.reports) == ""


def test_an_endpoint_that_demands_more_than_there_is_is_told_of(rig: CaRig) -> None:
    place = Place.made(rig, 3, 2)
    assert place.look()[0] is Standing.OK
    place.demand(3)
    standing, detail = place.look()
    assert (standing, "1 endpoint demands SCTs of up to 3 logs" in detail) == (Standing.WARN, True)


def test_how_the_logs_stand(rig: CaRig) -> None:
    place = Place.made(rig, 3, 2)
    assert place.look() == (Standing.OK, "certificates get SCTs of 2 of 3 logs, and 3 can be asked")
    place.ca.doors[0].error = AWAY
    rig.sign()
    standing, detail = place.look()
    assert (standing, "log-1: nothing listens there" in detail) == (Standing.WARN, True)
    place.ca.doors[1].error = AWAY
    with pytest.raises(LogsAway):
        rig.sign()
    standing, detail = place.look()
    assert (standing, "nothing is issued" in detail) == (Standing.FAIL, True)


def test_none_to_spare_is_told(rig: CaRig) -> None:
    standing, detail = Place.made(rig, 2, 2).look()
    assert (standing, "no log to spare" in detail) == (Standing.WARN, True)


def test_issuing_without_is_told_for_as_long_as_the_ca_runs(rig: CaRig) -> None:
    place = Place.made(rig, 3, 2, WhenAway.ISSUE)
    for door in place.ca.doors:
        door.error = AWAY
    rig.sign()
    standing, detail = place.look()
    assert (standing, "1 were issued with fewer" in detail) == (Standing.WARN, True)
    assert "--ct-away issue" in detail


def test_without_logs_it_says_so(rig: CaRig) -> None:
    checks = result_of(rig.ca.health.examine())
    (found,) = [check for check in checks if check.name == "logs"]
    assert (found.standing, found.detail) == (Standing.OK, "certificates are shown to no log")


def test_a_log_that_is_not_there_is_known_before_the_first_certificate(rig: CaRig) -> None:
    place = Place.made(rig, 3, 2)
    place.ca.doors[0].error = AWAY
    place.transparency.startService()
    assert place.look()[0] is Standing.WARN
    rig.sign()
    assert place.ca.doors[0].shown == [], "no certificate is spent on that"
    place.ca.doors[0].error = None
    place.ca.clock.advance(TICK)
    assert place.look()[0] is Standing.OK
    place.transparency.stopService()
    assert all(door.is_hung_up for door in place.ca.doors)


def test_what_a_certificate_found_away_only_a_certificate_finds_back(rig: CaRig) -> None:
    place = Place.made(rig, 3, 2)
    place.transparency.startService()
    (door, *_) = place.ca.doors
    door.error = AWAY
    rig.sign()
    door.error = None
    place.ca.clock.advance(TICK)
    assert place.look()[0] is Standing.WARN
    rig.sign()
    assert place.look()[0] is Standing.OK
    place.transparency.stopService()


def test_a_log_that_does_not_know_our_root_is_told_of(rig: CaRig) -> None:
    place = Place.made(rig, 3, 2)
    place.ca.doors[2].roots = []
    place.transparency.startService()
    standing, detail = place.look()
    assert (standing, "it takes no chain to the root" in detail) == (Standing.WARN, True)
    place.ca.doors[2].roots = [mesh().root.certificate]
    place.ca.clock.advance(TICK)
    assert place.look()[0] is Standing.OK
    place.transparency.stopService()


def test_a_log_that_is_well_is_left_in_peace(rig: CaRig) -> None:
    place = Place.made(rig, 1, 1)
    (door,) = place.ca.doors
    door.is_held = True
    place.transparency.startService()
    door.answer()
    place.ca.clock.pump([TICK] * 10)
    assert door.waiting == []
    place.ca.clock.advance(WELL)
    assert len(door.waiting) == 1
    place.transparency.stopService()


def test_the_list_read_again_keeps_what_is_known_of_a_log(rig: CaRig) -> None:
    place = Place.made(rig, 2, 1)
    place.ca.doors[0].error = AWAY
    rig.sign()
    gone = place.ca.doors.pop(1)
    place.ca.doors.append(Door("log-3", rig.now))
    place.transparency.reread()
    first, second = place.ca.receipts.logs
    assert (first.problem, second.name) == (AWAY, "log-3")
    assert gone.is_hung_up


def test_a_list_that_is_too_short_changes_nothing(rig: CaRig) -> None:
    place = Place.made(rig, 2, 2)
    before = place.ca.receipts.logs
    place.ca.doors.pop()
    with pytest.raises(PkiError, match="there are 1 logs"):
        place.transparency.reread()
    assert place.ca.receipts.logs is before


def test_ids_are_as_endpoints_tell_them(rig: CaRig) -> None:
    found: Collection[str] = ids_of(Place.made(rig, 3, 2).logs)
    assert [len(one) for one in found] == [44] * 3
