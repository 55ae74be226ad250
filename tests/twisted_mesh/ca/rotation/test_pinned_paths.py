"""Whose pins each step of a CA's keys would break, and that the succession waits for them only as long as it can."""

from datetime import timedelta
from pathlib import Path

import pytest
from twisted.logger import LogEvent

from pki.issuing.root_conditions import Followers, blocking, waits
from pki.issuing.root_line import RootStep
from pki.keys import spki_der
from pki.svid.spki_pin import PinSet, SpkiHash
from pki.validity import rfc3339
from tests.authorities import DAY, HOUR, MESH, key
from tests.twisted_mesh.ca.lives import YEAR, Life
from tests.twisted_mesh.ca.rigs import result_of
from twisted_mesh.ca.pin_reports import PinReports
from twisted_mesh.ca.rotation.pinned_paths import PinnedPaths
from twisted_mesh.runtime.event_text import event_text

BACKUP, OTHER = (SpkiHash.of_spki(spki_der(key(name).public_key)) for name in ("backup", "other"))
WHO = "x509:spiffe://mesh.local/service/web"


class Pinned(Life):
    """A CA that hears of pins; whoever tells does so all the time."""

    def start(self) -> None:
        super().start()
        self.reports = PinReports(lambda: 0.0, lambda: self.time, MESH)
        self.pinned = self.rotator.pinned = PinnedPaths(self.reports, self.current)

    def pin(self, *hashes: SpkiHash, mode: str = "enforce", until: timedelta = 10 * YEAR) -> None:
        rule = f"{MESH.id}/**={','.join(map(str, hashes))}"
        self.reports.tell(WHO, "1", PinSet.told([rule], mode, rfc3339(self.time + until)))

    @property
    def issuing(self) -> SpkiHash:
        return SpkiHash.of(self.authorities.issuing.certificate)

    @property
    def root(self) -> SpkiHash:
        return SpkiHash.of(self.authorities.root)

    @property
    def problem(self) -> str:
        found = self.rotator.trouble()
        return "" if found is None else f"{found.code}: {found.detail}"


@pytest.fixture
def life(tmp_path: Path) -> Pinned:
    made = Pinned(tmp_path)
    made.run()
    return made


def told(logged: list[LogEvent], event: str) -> list[str]:
    return [event_text(one) for one in logged if one.get("event") == event]


# The issuing CAs' succession.


def due(life: Pinned) -> Pinned:
    """The successor is prepared, and is to take over."""
    life.pass_time(YEAR / 2 + HOUR)
    life.pass_time(YEAR / 3)
    return life


def test_a_successor_whose_key_is_pinned_or_whose_root_is_takes_over_in_time(life: Pinned) -> None:
    life.pin(life.root, BACKUP)
    assert due(life).generations == (2, None, (1,))
    assert life.problem == ""


def test_a_successor_that_breaks_pins_waits_and_says_so(
    life: Pinned, logged: list[LogEvent]
) -> None:
    life.pin(life.issuing, BACKUP)
    assert due(life).generations == (1, 2, ())
    assert "the next issuing CA is due" in life.problem
    assert WHO in life.problem and f"{MESH.id}/**" in life.problem
    assert any(WHO in line for line in told(logged, "rotation-waits-for-pins"))
    life.pin(life.issuing, SpkiHash.of(life.authorities.prepared.certificate))  # type: ignore[union-attr]
    life.pass_time(HOUR)
    assert life.generations == (2, None, (1,)), "the pins have moved"
    assert told(logged, "rotation-breaks-pins") == []


@pytest.mark.parametrize("way_out", ["report", "gone"])
def test_whoever_puts_pins_to_report_or_takes_them_away_is_waited_for_no_more(
    life: Pinned, way_out: str
) -> None:
    life.pin(life.issuing, BACKUP)
    due(life)
    if way_out == "report":
        life.pin(life.issuing, BACKUP, mode="report")
    else:
        life.reports.tell(WHO, "1", PinSet())
    life.pass_time(HOUR)
    assert life.generations == (2, None, (1,))


def test_pins_that_end_are_waited_for_no_more(life: Pinned) -> None:
    life.pin(life.issuing, BACKUP, until=YEAR * 5 / 6 + DAY)
    assert due(life).generations == (1, 2, ())
    life.pass_time(2 * DAY)
    assert life.generations == (2, None, (1,))


def test_certificates_go_on_though_pins_break_before_one_is_cut_short(
    life: Pinned, logged: list[LogEvent]
) -> None:
    life.pin(life.issuing, BACKUP)
    due(life)
    last = life.authorities.line.active.ends_at - life.longest_leaf
    life.go_to(last - timedelta(minutes=1))
    assert life.generations == (1, 2, ())
    life.go_to(last + timedelta(seconds=1))
    assert life.generations == (2, None, (1,))
    assert len(told(logged, "rotation-breaks-pins")) == 1
    assert WHO in told(logged, "rotation-breaks-pins")[0]
    assert "the CA keys in use are not among" in life.problem, "until somebody has mended it"
    life.pin(life.issuing, BACKUP)
    assert life.problem == ""


def test_a_lie_holds_it_up_and_no_longer(life: Pinned) -> None:
    """Whoever may read trust may tell; here of pins that no CA has ever met."""
    life.pin(BACKUP, OTHER)
    assert due(life).generations == (1, 2, ())
    life.go_to(life.authorities.line.active.ends_at)
    assert life.generations == (2, None, (1,))


# A root's rotation.


def against(life: Pinned, step: RootStep) -> list[str]:
    """What keeps the step from being done, of pins alone."""
    line = life.authorities.root_line
    followers = Followers(broken_pins=life.pinned.of_rotation())
    found = waits(step, line, followers, life.time, refresh_hint=0)
    return [problem.code for problem in blocking(found) if problem.code == "root-breaks-pin"]


def test_activation_is_refused_where_a_path_to_come_breaks_pins(life: Pinned) -> None:
    first_root, first_issuing = life.root, life.issuing
    life.pin(first_root, BACKUP)
    assert life.pinned.of_rotation() == ()
    result_of(life.root_steps.prepare())
    issuing, root = map(SpkiHash.parse, life.authorities.next_pins)
    for hashes, is_broken in (
        ((first_root, BACKUP), True),  # once the old root is retired
        ((first_issuing, BACKUP), True),
        ((first_issuing, root), True),  # until the old root is retired
        ((first_root, root), False),
        ((issuing, first_issuing), False),
        ((BACKUP, OTHER), True),
    ):
        life.pin(*hashes)
        assert against(life, RootStep.ACTIVATE) == ["root-breaks-pin"] * is_broken, hashes
        if is_broken:
            assert WHO in life.pinned.of_rotation()[0]
    life.pin(first_root, BACKUP, mode="report")
    assert against(life, RootStep.ACTIVATE) == []


def test_retirement_is_refused_where_the_new_path_breaks_pins(life: Pinned) -> None:
    first_root = life.root
    result_of(life.root_steps.prepare())
    issuing, root = map(SpkiHash.parse, life.authorities.next_pins)
    result_of(life.root_steps.activate())
    assert life.issuing == issuing
    for hashes, is_broken in (
        ((first_root, BACKUP), True),
        ((first_root, root), False),
        ((issuing, BACKUP), False),
    ):
        life.pin(*hashes)
        assert against(life, RootStep.RETIRE) == ["root-breaks-pin"] * is_broken, hashes
    life.pin(first_root, BACKUP)
    assert life.problem == "", "nothing is broken yet"
    result_of(life.root_steps.switch())
    assert against(life, RootStep.RETIRE) == [], "there is nothing left to wait for"
    assert "the CA keys in use are not among" in life.problem
