"""Whether logs keep their promises, looked into in the background: what is found, and what it costs nobody."""

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from attrs import define, field
from twisted.internet.defer import maybeDeferred
from twisted.internet.task import Clock

from pki.codes import Code
from pki.ct.errors import LogAway
from pki.ct.evidence import parse_evidence
from pki.ct.log_list import Log, LogList
from tests.authorities import mesh
from tests.twisted_mesh.ct.paper_log import NOW, PaperLog, filler, logged, promised, served
from tests.twisted_mesh.federation.hostile import answer, reactor
from tests.twisted_mesh.grpc.sockets import turn_until
from tests.twisted_mesh.recording import RecordingLog
from twisted_mesh.ct import inclusion_auditor
from twisted_mesh.ct.audit_memory import AuditMemory, audit_path
from twisted_mesh.ct.evidence_files import MOST_OF_A_KIND, EvidenceFiles
from twisted_mesh.ct.inclusion_auditor import InclusionAuditor
from twisted_mesh.ct.reader import LogReader

ISSUER = mesh().issuing.certificate


@define(eq=False)
class Place:
    """An endpoint's auditor, that may be started again and again; its timers go by the test's clock."""

    home: Path
    paper: PaperLog
    clock: Clock = field(factory=Clock)
    auditors: list[InclusionAuditor] = field(factory=list)
    log: RecordingLog = field(factory=RecordingLog)

    def start(self, *, draw: Callable[[], float] = lambda: 0.5) -> InclusionAuditor:
        auditor = InclusionAuditor(
            lambda: LogList((self.paper.log,)),
            self.clock,  # type: ignore[arg-type]
            lambda: self.paper.at,
            EvidenceFiles(self.home / "ct-evidence", self.log),
            AuditMemory(audit_path(self.home, "spiffe://mesh.local/service/x"), self.log),
            maybeDeferred,  # type: ignore[arg-type]
            lambda log: LogReader(log, reactor()),
            draw=draw,
            log=self.log,
        )
        auditor.startService()
        self.auditors.append(auditor)
        return auditor

    def pass_by(self, seconds: float, until: Callable[[], object] | None = None) -> None:
        """Let that time pass, and what was begun by it come to its end."""
        for _ in range(int(seconds)):
            self.clock.advance(1)
        auditor = self.auditors[-1]
        turn_until(lambda: not any(audit.is_running for audit in auditor._audits.values()))

    def evidence(self) -> list[Path]:
        return sorted((self.home / "ct-evidence").glob("*"))


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    paper = PaperLog("audited")
    paper.fill(300)
    with served(paper):
        found = Place(tmp_path, paper)
        yield found
        for auditor in found.auditors:
            if auditor.running:
                auditor.stopService()


def code_of(place: Place) -> list[Code]:
    """What the files prove, to anybody who has the list of logs."""
    logs = LogList((place.paper.log,))
    return [parse_evidence(path.read_bytes()).verify(logs).code for path in place.evidence()]


def test_entries_that_are_there_are_found_and_nothing_is_said(place: Place) -> None:
    met = [logged(place.paper) for _ in range(3)]
    place.paper.sign()
    auditor = place.start()
    for leaf in (*met, *met):
        auditor.saw((leaf, ISSUER))
    assert not place.paper.asked and auditor.pending == 3
    place.pass_by(40)
    assert auditor.verified == 3 and auditor.pending == 0
    assert auditor.troubles() == () and not place.evidence()
    assert len(place.paper.asked) == len(set(place.paper.asked)) == 3
    auditor.saw((met[0], ISSUER))
    place.pass_by(200)
    assert auditor.verified == 3


def test_an_entry_that_is_another_is_an_alarm_with_a_proof(place: Place) -> None:
    hidden = promised(place.paper, 17)
    place.paper.sign()
    auditor = place.start()
    place.log.events.clear()
    auditor.saw((hidden, ISSUER))
    place.pass_by(40)
    assert code_of(place) == [Code.CT_ENTRY_MISSING]
    (alarm,) = [event for event in place.log.events if event["event"] == "ct-alarm"]
    assert alarm["log_level"].name == "error" and str(place.evidence()[0]) == alarm["path"]
    assert place.evidence()[0].stat().st_mode & 0o777 == 0o600
    ((name, problem),) = auditor.troubles()
    assert name == "ct" and problem.code == Code.CT_ENTRY_MISSING
    assert auditor.pending == 0 and auditor.verified == 0


def test_an_entry_beyond_the_tree_is_waited_for_and_then_an_alarm(place: Place) -> None:
    hidden = promised(place.paper, 300)
    place.paper.sign()
    auditor = place.start()
    auditor.saw((hidden, ISSUER))
    place.pass_by(40)
    assert auditor.pending == 1 and not place.evidence()
    place.paper.tick(59)
    place.paper.sign()
    place.pass_by(70)
    assert auditor.pending == 1 and not place.evidence()
    place.paper.tick(2)
    place.paper.sign()
    place.pass_by(70)
    assert code_of(place) == [Code.CT_ENTRY_MISSING] and auditor.pending == 0


def test_a_log_that_signs_no_head_any_more_is_told(place: Place) -> None:
    """Nothing proves it, as it may only be a cache: but what it promises would be waited for in silence for ever."""
    hidden = promised(place.paper, 300)
    place.paper.sign()
    auditor = place.start()
    auditor.saw((hidden, ISSUER))
    place.paper.tick(12 * 60)
    place.pass_by(40)
    ((name, problem),) = auditor.troubles()
    assert name == "ct-audit" and "has signed none since" in problem.detail
    assert auditor.pending == 1 and not place.evidence()
    place.paper.add(filler(b"late"))
    place.paper.sign()
    place.pass_by(200)
    assert code_of(place) == [Code.CT_ENTRY_MISSING]
    assert [name for name, _ in auditor.troubles()] == ["ct"]


def test_a_log_that_is_away_takes_no_other_s_room(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that lies could be away for as long as another is not to be looked into."""
    monkeypatch.setattr(inclusion_auditor, "MOST_PENDING", 3)
    away = PaperLog("away")
    auditor = place.start()
    auditor.logs = lambda: LogList((away.log, place.paper.log))
    opens = auditor.opens

    def opened(log: Log) -> LogReader:
        if log.origin == away.log.origin:
            raise LogAway("it is")
        return opens(log)

    auditor.opens = opened
    for number in range(5):
        leaf = mesh().leaf(lifetime=timedelta(seconds=600 + number))
        auditor.saw((logged(away, place.paper, leaf=leaf), ISSUER))
        place.paper.sign()
        place.pass_by(70)
        assert auditor.verified == number + 1
    assert auditor.pending == 3 and auditor.dropped == 2


def test_a_log_that_goes_on_another_way_is_forked(place: Place) -> None:
    fork = place.paper.fork()
    met = logged(place.paper)
    place.paper.sign()
    auditor = place.start()
    auditor.saw((met, ISSUER))
    place.pass_by(40)
    assert auditor.verified == 1
    fork.fill(5, b"another")
    fork.tick(5)
    other = logged(fork)
    fork.sign()
    place.paper.entries, place.paper.tiles, place.paper.note = fork.entries, fork.tiles, fork.note
    auditor.saw((other, ISSUER))
    place.pass_by(70)
    assert code_of(place) == [Code.CT_LOG_FORKED]
    # Each head is another contradiction: a few of them are enough.
    for number in range(MOST_OF_A_KIND + 3):
        place.paper.fill(1)
        place.paper.sign(place.paper.at)
        auditor.saw((promised(place.paper, len(place.paper.entries) + number), ISSUER))
        place.pass_by(70)
    assert len(place.evidence()) <= 2 * MOST_OF_A_KIND


def test_a_log_that_was_put_back_is_rolled_back(place: Place) -> None:
    before = place.paper.fork()
    met = logged(place.paper)
    place.paper.sign()
    auditor = place.start()
    auditor.saw((met, ISSUER))
    place.pass_by(40)
    place.paper.entries, place.paper.tiles = before.entries, before.tiles
    place.paper.tick(5)
    place.paper.sign()
    auditor.saw((promised(place.paper, 3), ISSUER))
    place.pass_by(70)
    assert Code.CT_LOG_ROLLED_BACK in code_of(place)


def test_an_older_head_from_a_cache_is_no_alarm(place: Place) -> None:
    old = place.paper.sign()
    met = logged(place.paper)
    place.paper.tick(5)
    place.paper.sign()
    auditor = place.start()
    auditor.saw((met, ISSUER))
    place.pass_by(40)
    place.paper.note = old
    auditor.saw((logged(place.paper), ISSUER))
    place.pass_by(70)
    assert not place.evidence() and auditor.pending == 1


def test_while_a_log_is_away_it_is_asked_less_and_less_and_nothing_forgotten(place: Place) -> None:
    hidden = promised(place.paper, 17)
    place.paper.sign()
    place.paper.wrong["checkpoint"] = answer(503, b"away")
    auditor = place.start()
    auditor.saw((hidden, ISSUER))
    asked = []
    for _ in range(8):
        place.pass_by(600)
        asked.append(len(place.paper.asked))
    assert asked[-1] < 14 and auditor.pending == 1
    assert [name for name, _ in auditor.troubles()] == ["ct-audit"]
    auditor.stopService()
    again = place.start()
    assert again.pending == 1
    place.paper.wrong.clear()
    place.pass_by(40)
    assert code_of(place) == [Code.CT_ENTRY_MISSING] and again.pending == 0


def test_an_alarm_and_a_head_outlive_a_restart(place: Place) -> None:
    fork = place.paper.fork()
    hidden, met = promised(place.paper, 17), logged(place.paper)
    place.paper.sign()
    auditor = place.start()
    for leaf in (hidden, met):
        auditor.saw((leaf, ISSUER))
    place.pass_by(60)
    auditor.stopService()
    place.log.events.clear()
    again = place.start()
    assert [event["code"] for event in place.log.events] == [Code.CT_ENTRY_MISSING]
    assert [problem.code for _, problem in again.troubles()] == [Code.CT_ENTRY_MISSING]
    # What was seen before is what the log is held against.
    fork.tick()
    fork.fill(7, b"another")
    place.paper.entries, place.paper.tiles, place.paper.at = fork.entries, fork.tiles, fork.at
    place.paper.sign()
    again.saw((logged(place.paper), ISSUER))
    place.paper.sign()
    place.pass_by(60)
    assert Code.CT_LOG_FORKED in code_of(place)
    # Until somebody has looked at the file, and taken it away.
    for path in place.evidence():
        path.unlink()
    assert again.troubles() == ()


def test_killed_it_knows_what_was_written(place: Place) -> None:
    hidden = promised(place.paper, 17)
    place.paper.sign()
    place.paper.wrong["checkpoint"] = answer(503)
    auditor = place.start()
    auditor.saw((hidden, ISSUER))
    place.pass_by(16)
    auditor.running = 0  # and nothing else is done by it
    assert place.start().pending == 1


def test_evidence_that_cannot_be_written_is_tried_again(place: Place) -> None:
    hidden = promised(place.paper, 17)
    place.paper.sign()
    (place.home / "ct-evidence").write_bytes(b"in the way")
    auditor = place.start()
    place.log.events.clear()
    auditor.saw((hidden, ISSUER))
    place.pass_by(40)
    assert "ct-alarm" in [event["event"] for event in place.log.events]
    assert auditor.pending == 1
    (place.home / "ct-evidence").unlink()
    place.pass_by(300)
    assert code_of(place) == [Code.CT_ENTRY_MISSING] and auditor.pending == 0


@pytest.mark.parametrize("kept", [b"{", b'{"promises":[{}]}', b'{"heads":{"x":"y"}}', b"[" * 9999])
def test_what_was_kept_and_is_damaged_is_begun_anew(place: Place, kept: bytes) -> None:
    path = audit_path(place.home, "spiffe://mesh.local/service/x")
    path.parent.mkdir(mode=0o700)
    path.write_bytes(kept)
    assert place.start().pending == 0


def test_what_is_met_takes_microseconds_and_a_bounded_place(place: Place) -> None:
    leaf = logged(place.paper)
    auditor = place.start()
    begin = time.perf_counter()
    for _ in range(10_000):
        auditor.saw((leaf, ISSUER))
    assert time.perf_counter() - begin < 2
    assert not place.paper.asked
    auditor.most_met = 10
    many = [mesh().leaf(lifetime=timedelta(seconds=600 + number)) for number in range(30)]
    place.log.events.clear()
    for one in many:
        auditor.saw((one, ISSUER))
    assert auditor.dropped == 30 - 9 and auditor.pending == 10
    assert [event["event"] for event in place.log.events] == ["ct-audit-overflow"]


def test_what_has_no_receipt_that_counts_is_not_asked_about(place: Place) -> None:
    auditor = place.start()
    other = PaperLog("another")
    for path in (
        (mesh().leaf(), ISSUER),
        (logged(other), ISSUER),
        (logged(place.paper), mesh().root.certificate),
        (mesh().root.certificate,),
        (),
    ):
        auditor.saw(path)
    place.pass_by(120)
    assert not place.paper.asked and auditor.pending == 0


def test_a_log_that_does_not_count_any_more_is_not_asked(place: Place) -> None:
    auditor = place.start()
    auditor.saw((logged(place.paper), ISSUER))
    place.pass_by(1)
    assert auditor.pending == 1
    auditor.logs = lambda: LogList(())
    place.pass_by(120)
    assert not place.paper.asked and auditor.pending == 0


def test_a_thousand_endpoints_do_not_come_at_once() -> None:
    """All meet one certificate at one moment: no second has more than a few of them."""
    paper = PaperLog("crowded")
    leaf, logs = logged(paper), LogList((paper.log,))
    at: list[float] = []
    chance, log = random.Random(19), RecordingLog()

    for _ in range(1000):
        clock = Clock()

        def opens(_: Any, clock: Clock = clock) -> Any:
            at.append(clock.seconds())
            raise LogAway("it is")

        auditor = InclusionAuditor(
            lambda: logs,
            clock,  # type: ignore[arg-type]
            lambda: NOW,
            EvidenceFiles(Path("/nonexistent"), log),
            AuditMemory(None, log),
            maybeDeferred,  # type: ignore[arg-type]
            opens,
            draw=chance.random,
            log=log,
        )
        auditor.startService()
        auditor.saw((leaf, ISSUER))
        for _ in range(62):
            clock.advance(1)
        auditor.stopService()
        assert not clock.getDelayedCalls()
    first = [moment for moment in at if moment <= 61]
    assert len(first) == 1000
    a_second = Counter(int(moment) for moment in first)
    assert max(a_second.values()) < 45 and len(a_second) >= 55
