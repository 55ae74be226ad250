"""What the steps of a root's rotation wait for, who is named, and what happens without being asked."""

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from attrs import define, evolve, field
from twisted.internet.defer import DeferredLock, succeed
from twisted.internet.task import Clock
from twisted.logger import LogEvent

from pki.codes import Code
from pki.issuing.root_conditions import RootMode, due_at
from pki.issuing.root_line import OutOfTurn, Phase, RootStep
from pki.policy.policy import Forbidden
from pki.policy.principal import workload
from pki.spiffe import SpiffeId
from pki.svid.pin import Fingerprint
from pki.svid.x509svid import validity_of
from tests.authorities import BACKEND, DAY, HOUR, MESH
from tests.twisted_mesh.ca.lives import YEAR, Life
from tests.twisted_mesh.ca.rigs import ADMIN, result_of
from twisted_mesh.ca.acknowledgements import Acknowledgements
from twisted_mesh.ca.rotation.root_rotator import Done, RootRotator, RootWaits
from twisted_mesh.ca.rotation.steps import RootKeyAway
from twisted_mesh.runtime.event_text import event_text
from twisted_mesh.stores.records import IssuedCertificate, Page, Query

MINUTE = timedelta(minutes=1)
ENDPOINT = f"x509:{BACKEND}"


@define
class Certificates:
    """Those that are valid, as the store lists them."""

    rows: list[IssuedCertificate] = field(factory=list)

    def list(self, query: Query) -> Any:
        found = [
            row
            for row in self.rows
            if query.issuer in (None, row.issuer) and row.expires_at >= query.now
        ]
        start = int(query.cursor or 0)
        page = tuple(found[start : start + query.limit])
        end = start + query.limit
        return succeed(Page(page, str(end) if end < len(found) else None))


@define(eq=False)
class Rotation:
    """A CA's life with the rotator of its root, on the life's clocks."""

    life: Life
    certificates: Certificates = field(factory=Certificates)
    heard: Acknowledgements = field(init=False)
    rotator: RootRotator = field(init=False)
    clock: Clock = field(factory=Clock)

    def __attrs_post_init__(self) -> None:
        self.heard = Acknowledgements(lambda: self.life.time)
        self.begin(RootMode.REMIND)

    def begin(self, mode: RootMode, **more: Any) -> None:
        self.rotator = RootRotator(
            self.life.root_steps,
            self.life.current,
            self.certificates,  # type: ignore[arg-type]
            lambda: self.life.time,
            self.clock,
            DeferredLock(),
            mode,
            acknowledgements=self.heard,
            **more,
        )

    def do(self, step: RootStep, **how: Any) -> Done:
        found: Done = result_of(self.rotator.do(ADMIN, step, **how))
        return found

    def refused(self, step: RootStep, **how: Any) -> RootWaits:
        with pytest.raises(RootWaits) as refused:
            self.do(step, **how)
        return refused.value

    def pass_time(self, duration: timedelta, steps: int = 1) -> None:
        for _ in range(steps):
            self.life.time += duration / steps
            self.clock.advance((duration / steps).total_seconds())

    def says(self, who: str, *, holds: int | None = None, serves_new: bool = False) -> None:
        line = self.life.authorities.root_line
        root = line.new if serves_new and line.new is not None else line.old
        sequence = self.life.current.bundle().sequence if holds is None else holds
        self.heard.take(who, "instance", sequence, Fingerprint.of(root), self.life.time + DAY)

    def issued(
        self, spiffe_id: SpiffeId = BACKEND, life: timedelta = HOUR, by: str = "test"
    ) -> None:
        time = self.life.time
        self.certificates.rows.append(
            IssuedCertificate(
                serial=len(self.certificates.rows) + 1,
                issuer=self.life.authorities.issuing.key_id,
                spiffe_id=spiffe_id,
                subject="CN=x",
                key="00" * 32,
                issued_at=time,
                expires_at=time + life,
                requester=by,
                is_pending=False,
            )
        )

    @property
    def phase(self) -> Phase:
        return self.life.authorities.root_line.phase


@pytest.fixture
def rotation(tmp_path: Path) -> Rotation:
    life = Life(tmp_path)
    life.run()
    return Rotation(life)


def codes(found: Sequence[Any]) -> list[str]:
    return [wait.problem.code for wait in found]


def prepared(rotation: Rotation) -> Rotation:
    rotation.do(RootStep.PREPARE)
    rotation.pass_time(26 * MINUTE)
    return rotation


def activated(rotation: Rotation) -> Rotation:
    prepared(rotation).do(RootStep.ACTIVATE)
    return rotation


# What is waited for.


def test_a_whole_rotation_with_nobody_to_wait_for(rotation: Rotation) -> None:
    old = rotation.life.authorities.fingerprint
    assert activated(rotation).do(RootStep.RETIRE).is_done
    assert rotation.phase is Phase.SETTLED
    assert rotation.life.authorities.fingerprint != old


def test_whoever_polls_is_given_five_times_the_hint(rotation: Rotation) -> None:
    rotation.do(RootStep.PREPARE)
    rotation.pass_time(24 * MINUTE)
    refused = rotation.refused(RootStep.ACTIVATE)
    assert [problem.code for problem in refused.problems] == [Code.ROOT_TOO_SOON]
    assert rotation.phase is Phase.PREPARED
    rotation.pass_time(2 * MINUTE)
    assert rotation.do(RootStep.ACTIVATE).is_done


def test_activation_with_one_endpoint_missing(rotation: Rotation) -> None:
    rotation.says(ENDPOINT)
    rotation.says("x509:spiffe://mesh.local/service/late", holds=1)
    prepared(rotation)
    rotation.says(ENDPOINT)
    refused = rotation.refused(RootStep.ACTIVATE)
    (problem,) = refused.problems
    assert problem.code == Code.ROOT_UNACKNOWLEDGED
    assert "spiffe://mesh.local/service/late" in problem.detail
    assert str(BACKEND) not in problem.detail
    assert rotation.phase is Phase.PREPARED
    looked = rotation.do(RootStep.ACTIVATE, dry_run=True)
    assert not looked.is_done
    assert codes(looked.waits) == [Code.ROOT_UNACKNOWLEDGED]
    assert rotation.phase is Phase.PREPARED
    assert rotation.do(RootStep.ACTIVATE, force=True, reason="it is off").is_done
    (act,) = [act for act in rotation.life.acts if act.facts["step"] == "root-activated"]
    assert act.facts["reason"] == "it is off (forced over root-unacknowledged)"


def test_whoever_never_tells_is_named_and_not_waited_for(rotation: Rotation) -> None:
    rotation.issued(MESH.member("service", "silent"), 3 * DAY)
    rotation.issued(life=3 * DAY)
    rotation.issued(MESH.member("mesh", "ca"), 3 * DAY)
    rotation.says(ENDPOINT)
    prepared(rotation)
    rotation.says(ENDPOINT)
    found = rotation.do(RootStep.ACTIVATE)
    assert found.is_done
    (note,) = found.waits
    assert not note.is_blocking
    assert note.who == ("spiffe://mesh.local/service/silent",)


def test_who_rests_on_what_nobody_believes_is_not_named(rotation: Rotation) -> None:
    prepared(rotation)
    rotation.issued(MESH.member("service", "gone"), 3 * DAY)
    row = rotation.certificates.rows[-1]
    rotation.certificates.rows[-1] = evolve(row, issuer="ab" * 32)
    assert rotation.do(RootStep.ACTIVATE, dry_run=True).waits == ()


def test_who_tells_by_the_socket_is_taken_for_the_id_that_it_has_asked_for(
    rotation: Rotation,
) -> None:
    prepared(rotation)
    rotation.issued(life=3 * DAY, by="unix:uid:7")
    rotation.says("unix:uid:7")
    assert rotation.do(RootStep.ACTIVATE, dry_run=True).waits == ()
    rotation.issued(MESH.member("service", "other"), 3 * DAY, by="unix:uid:7")
    (note,) = rotation.do(RootStep.ACTIVATE, dry_run=True).waits
    assert len(note.who) == 2, "one of the two, and nobody knows which"


def test_domains_and_pins_and_a_ca_that_has_just_begun_are_told(rotation: Rotation) -> None:
    asked: list[Sequence[str]] = []

    def broken(pins: Sequence[str]) -> Sequence[str]:
        asked.append(pins)
        return ["x509:spiffe://mesh.local/service/pinned"]

    rotation.begin(RootMode.REMIND, domains=lambda: ["other.example"], broken_pins=broken)
    prepared(rotation)
    rotation.rotator.startService()
    found = result_of(rotation.rotator.waits(RootStep.ACTIVATE))
    blocking = [wait.problem.code for wait in found if wait.is_blocking]
    assert blocking == [Code.ROOT_BREAKS_PIN]
    assert "service/pinned" in rotation.refused(RootStep.ACTIVATE).problems[0].detail
    assert asked[0] == rotation.life.authorities.next_pins
    assert "other.example" in next(wait.who for wait in found if not wait.is_blocking)
    assert "has listened for" in found[-1].problem.detail
    rotation.rotator.stopService()


def test_there_is_no_room_for_all_words(
    rotation: Rotation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("twisted_mesh.ca.acknowledgements.MOST", 0)
    prepared(rotation)
    rotation.says(ENDPOINT)
    assert "no room" in rotation.refused(RootStep.ACTIVATE).problems[0].detail


def test_retirement_waits_for_what_rests_on_the_old_root(rotation: Rotation) -> None:
    rotation.issued(life=DAY)
    rotation.issued(MESH.member("service", "other"), 2 * DAY)
    rotation.issued(MESH.member("mesh", "ocsp-responder"), 7 * DAY)
    rotation.issued(MESH.member("mesh", "ca"), 7 * DAY)
    activated(rotation)
    rotation.issued(life=9 * DAY)  # by the new issuing CA, which both roots have certified
    refused = rotation.refused(RootStep.RETIRE)
    (problem,) = refused.problems
    assert problem.code == Code.ROOT_IN_USE
    assert problem.detail.startswith("2 valid certificates")
    assert str(BACKEND) in problem.detail and "service/other" in problem.detail
    assert rotation.phase is Phase.ACTIVATED
    rotation.pass_time(2 * DAY)
    assert rotation.do(RootStep.RETIRE).is_done


def test_retirement_waits_for_whoever_serves_the_old_chain(rotation: Rotation) -> None:
    activated(rotation)
    rotation.says(ENDPOINT)
    half = rotation.do(RootStep.RETIRE)
    assert not half.is_done
    assert rotation.phase is Phase.SWITCHED
    assert half.waits[0].who == (ENDPOINT,)
    assert [p.code for p in rotation.refused(RootStep.RETIRE).problems] == [
        Code.ROOT_UNACKNOWLEDGED
    ]
    rotation.says(ENDPOINT, serves_new=True)
    assert rotation.do(RootStep.RETIRE).is_done
    assert rotation.phase is Phase.SETTLED


def test_retirement_can_be_forced_and_until_then_taken_back(rotation: Rotation) -> None:
    activated(rotation)
    rotation.says(ENDPOINT)
    rotation.do(RootStep.RETIRE)
    rotation.do(RootStep.REVERT)
    assert rotation.phase is Phase.ACTIVATED
    rotation.issued(life=9 * DAY)
    assert rotation.do(RootStep.RETIRE, force=True).is_done
    with pytest.raises(OutOfTurn):
        rotation.do(RootStep.REVERT)


def test_many_certificates_are_counted_up_to_a_bound(rotation: Rotation) -> None:
    for _ in range(2600):
        rotation.issued(life=DAY)
    activated(rotation)
    (problem,) = rotation.refused(RootStep.RETIRE).problems
    assert problem.detail.startswith("2,000 or more valid certificates")


def test_a_workload_may_not(rotation: Rotation) -> None:
    with pytest.raises(Forbidden):
        result_of(rotation.rotator.do(workload(BACKEND, 7), RootStep.PREPARE))


def test_a_dry_run_of_any_step_changes_nothing(rotation: Rotation) -> None:
    for step, next_one in ((RootStep.PREPARE, prepared), (RootStep.ACTIVATE, None)):
        before = rotation.life.authorities.root_line
        assert not rotation.do(step, dry_run=True).is_done
        assert rotation.life.authorities.root_line == before
        if next_one is not None:
            next_one(rotation)
    assert [act.facts["step"] for act in rotation.life.acts] == ["prepared", "root-prepared"]


# The end of the root.


def warnings(logged: list[LogEvent], event: str = "root-waits") -> list[str]:
    return [event_text(found) for found in logged if found["event"] == event]


def test_one_is_reminded_in_time_and_not_too_often(
    rotation: Rotation, logged: list[LogEvent]
) -> None:
    root = validity_of(rotation.life.authorities.root)
    due = due_at(root, YEAR)
    assert root.not_after - due == (root.not_after - root.not_before) / 5
    rotation.rotator.startService()
    rotation.life.time = due - DAY
    rotation.pass_time(HOUR, 4)
    assert warnings(logged) == []
    rotation.life.time = due + HOUR
    rotation.pass_time(23 * HOUR, 23)
    (said,) = warnings(logged)
    assert "its successor is not prepared" in said
    assert "mesh-ctl ca root prepare" in said
    rotation.pass_time(2 * HOUR, 2)
    assert len(warnings(logged)) == 2
    rotation.do(RootStep.PREPARE)
    rotation.pass_time(DAY, 2)
    assert len(warnings(logged)) == 2
    assert rotation.rotator.trouble() is None
    rotation.rotator.stopService()


def test_a_rotation_that_stands_still_is_told(rotation: Rotation) -> None:
    prepared(rotation)
    assert rotation.rotator.trouble() is None
    rotation.life.time += 31 * DAY
    trouble = rotation.rotator.trouble()
    assert trouble is not None
    assert "prepared for 31 days" in trouble.detail
    assert "mesh-ctl ca root activate" in trouble.remedy
    assert "revert" in trouble.remedy
    found = rotation.rotator.standing()
    assert found is not None and not found.is_blocking


def test_a_root_that_has_ended_is_told_with_what_heals_it(rotation: Rotation) -> None:
    rotation.life.time = rotation.life.authorities.root.not_valid_after_utc + DAY
    found = rotation.rotator.standing()
    assert found is not None and found.is_blocking
    assert "the root has ended" in found.problem.detail
    rotation.do(RootStep.PREPARE)
    rotation.do(RootStep.ACTIVATE, force=True)
    assert rotation.phase is Phase.SWITCHED
    rotation.do(RootStep.RETIRE, force=True)
    assert rotation.rotator.standing() is None


def test_brief_roots_are_followed_at_half_of_their_lives() -> None:
    from pki.validity import Validity
    from tests.authorities import NOW

    assert due_at(Validity(NOW, NOW + YEAR), YEAR) == NOW + YEAR / 2
    assert due_at(Validity(NOW, NOW + 8 * YEAR), YEAR) == NOW + 6 * YEAR
    assert due_at(Validity(NOW, NOW + 20 * YEAR), YEAR) == NOW + 16 * YEAR


def test_it_rotates_by_itself_where_that_is_asked(rotation: Rotation) -> None:
    rotation.begin(RootMode.AUTO)
    rotation.rotator.startService()
    rotation.pass_time(HOUR, 60)
    assert rotation.life.acts == []
    old = rotation.life.authorities.root
    rotation.life.time = due_at(validity_of(old), YEAR) + HOUR
    rotation.life.start()
    rotation.life.run()
    rotation.begin(RootMode.AUTO)
    rotation.rotator.startService()
    rotation.issued(life=DAY)
    rotation.says(ENDPOINT, holds=1)
    rotation.pass_time(MINUTE, 60)
    assert rotation.phase is Phase.PREPARED
    rotation.pass_time(HOUR, 60)
    assert rotation.phase is Phase.PREPARED, "somebody has not heard of it yet"
    rotation.says(ENDPOINT)
    rotation.pass_time(2 * MINUTE, 4)
    assert rotation.phase is Phase.ACTIVATED
    rotation.pass_time(HOUR, 60)
    assert rotation.phase is Phase.ACTIVATED, "something rests on the old root"
    rotation.says(ENDPOINT)
    rotation.pass_time(DAY, 48)
    assert rotation.phase in (Phase.SWITCHED, Phase.SETTLED)
    rotation.pass_time(2 * HOUR, 4)
    assert rotation.phase is Phase.SETTLED, "who has said nothing for a day is not waited for"
    assert rotation.life.authorities.root != old
    rotation.rotator.stopService()


def test_what_cannot_be_done_by_itself_is_told_once(
    rotation: Rotation, logged: list[LogEvent]
) -> None:
    rotation.life.time = due_at(validity_of(rotation.life.authorities.root), YEAR) + HOUR
    rotation.life.start()
    rotation.life.run()
    rotation.begin(RootMode.AUTO)
    rotation.life.unrecordable.add("root-prepared")
    rotation.rotator.startService()
    rotation.pass_time(HOUR, 60)
    assert rotation.phase is Phase.SETTLED
    failed = [found for found in logged if found["event"] == "root-failed"]
    assert [found["log_level"].name for found in failed].count("warn") == 1
    assert "the disk is full" in event_text(failed[0])
    rotation.life.unrecordable.clear()
    rotation.pass_time(2 * MINUTE, 4)
    assert rotation.phase is Phase.PREPARED
    assert [act.facts["by"] for act in rotation.life.acts if "by" in act.facts] == ["self"]
    rotation.rotator.stopService()


def test_a_key_that_is_away_keeps_the_step(rotation: Rotation) -> None:
    prepared(rotation)
    (rotation.life.state.private / "root-2.key").unlink()
    rotation.life.start()
    rotation.begin(RootMode.REMIND)
    with pytest.raises(RootKeyAway, match=r"root-2\.key"):
        rotation.do(RootStep.ACTIVATE)
