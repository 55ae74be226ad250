"""What is counted of the log's events, and what an endpoint tells whoever watches it."""

import json
import re
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import REGISTRY, CollectorRegistry, generate_latest
from twisted.internet.task import Clock
from twisted.logger import LogEvent, Logger, LogLevel

from pki.codes import Code
from pki.errors import Problem
from pki.svid.revocation_set import Reason, Revocation, RevocationSet
from pki.validity import Validity
from tests.authorities import NOW
from tests.twisted_mesh.ca.rigs import result_of
from tests.twisted_mesh.recording import RecordingLog
from twisted_mesh import monitoring
from twisted_mesh.monitoring import EndpointStatus, count
from twisted_mesh.runtime.meters import Readings, show
from twisted_mesh.state.memory import Memories, Memory
from twisted_mesh.trust.freshness import Freshness
from twisted_mesh.trust.judge import Judge
from twisted_mesh.trust.trust import Trust

ROOT = Path(monitoring.__file__).parent


def made(namespace: str = "mesh.server", **facts: Any) -> LogEvent:
    events: list[LogEvent] = []
    Logger(namespace=namespace, observer=events.append).emit(LogLevel.info, "happened", **facts)
    return events[0]


def sample(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


def test_events_are_counted_by_their_names() -> None:
    before = sample("mesh_events_total", event="test-event")
    count(made(event="test-event"))
    count(made(event="test-event", namespace="twisted.web"))
    count(made())
    assert sample("mesh_events_total", event="test-event") == before + 1


@pytest.mark.parametrize(
    ("event", "counter"),
    [
        ("peer-refused", "mesh_peers_refused_total"),
        ("connection-severed", "mesh_connections_severed_total"),
    ],
)
def test_refusals_are_counted_by_each_of_their_codes(event: str, counter: str) -> None:
    codes = ("revoked", "expired", "other")
    before = [sample(counter, code=code) for code in codes]
    count(made(event=event, codes="revoked, expired"))
    count(made(event=event, codes="expired, whatever a stranger says"))
    after = [sample(counter, code=code) for code in codes]
    assert after == [before[0] + 1, before[1] + 2, before[2] + 1]


@pytest.mark.parametrize("counter", ["mesh_peers_refused_total", "mesh_connections_severed_total"])
def test_every_code_is_there_before_it_is_met(counter: str) -> None:
    for code in (*monitoring.PEER_CODES, "other"):
        assert REGISTRY.get_sample_value(counter, {"code": code}) is not None


def test_an_event_that_is_worth_an_alarm_is_logged_somewhere_and_there_from_the_start() -> None:
    logged = {
        name
        for path in ROOT.rglob("*.py")
        for name in re.findall(r'event="([a-z-]+)"', path.read_text())
    }
    assert set(monitoring.WORTH_AN_ALARM) <= logged
    for name in monitoring.WORTH_AN_ALARM:
        assert REGISTRY.get_sample_value("mesh_events_total", {"event": name}) is not None


class Manager:
    """A manager's outside."""

    def __init__(self) -> None:
        self.judge = Judge(
            lambda: NOW, freshness=Freshness(timedelta(seconds=5), seconds=lambda: 9.0)
        )
        self.trust_store = SimpleNamespace(
            registry=(1, 2), judge=self.judge, freshness=self.judge.freshness
        )
        self.svid: Any = None
        self.rotations = 3
        self.seconds_left = 60.0

    def now(self) -> Any:
        return NOW


def status_of(
    manager: Manager, *memories: Memory, lack: Any = None
) -> tuple[EndpointStatus, dict[str, Any]]:
    descriptors: Any = SimpleNamespace(problem=lack)
    status = EndpointStatus(manager, descriptors, Memories(Clock(), memories))  # type: ignore[arg-type]
    page = result_of(status.readiness())
    return status, {"http": page.status, **json.loads(page.body)}


def test_the_metrics_are_those_of_the_manager_that_is_watched() -> None:
    manager: Any = Manager()
    registry = CollectorRegistry()
    registry.register(Readings(manager, monitoring.OF_IDENTITY))

    def now(name: str) -> float:
        found = registry.get_sample_value(name)
        assert found is not None
        return found

    revocation = Revocation("ab", 1, NOW, Reason.UNSPECIFIED, NOW)
    manager.judge.trust = Trust(revocations=RevocationSet().merged([revocation], NOW))
    assert now("mesh_certificate_expiry_timestamp_seconds") == 0
    manager.svid = SimpleNamespace(validity=Validity(NOW, NOW + timedelta(hours=1)))
    assert now("mesh_certificate_issue_timestamp_seconds") == NOW.timestamp()
    assert now("mesh_certificate_expiry_timestamp_seconds") == NOW.timestamp() + 3600
    assert now("mesh_certificate_rotations_total") == 3
    assert now("mesh_connections") == 2
    assert now("mesh_revocations_known") == 1
    assert now("mesh_revocation_known_timestamp_seconds") == 0
    manager.judge.freshness.refresh(6.0, NOW)
    assert now("mesh_revocation_known_timestamp_seconds") == NOW.timestamp() - 3
    assert now("mesh_revocation_stale") == 0
    manager.judge.freshness.seconds = lambda: 12.0
    assert now("mesh_revocation_stale") == 1


def test_what_is_shown_takes_the_place_of_what_was_shown_before() -> None:
    first, second = Manager(), Manager()
    second.rotations = 7
    for manager in (first, second):
        show("identity", Readings(manager, monitoring.OF_IDENTITY))  # type: ignore[arg-type]
    assert sample("mesh_certificate_rotations_total") == 7
    assert generate_latest().count(b"# TYPE mesh_certificate_rotations_total ") == 1


def test_an_endpoint_that_cannot_remember_is_ready_and_the_worse_for_it(tmp_path: Path) -> None:
    memory = Memory("witness", tmp_path / "w", "It is lost", "witness-not-kept", log=RecordingLog())
    status, told = status_of(Manager(), memory)
    assert told["http"] == 200 and "degraded" not in told
    with memory.writing():
        raise PermissionError(13, "Permission denied", str(tmp_path / "w"))
    status, told = status_of(Manager(), memory)
    assert (told["http"], told["status"]) == (200, "ready")
    ((name, detail, remedy),) = [tuple(one.values()) for one in told["degraded"]]
    assert name == "witness"
    assert detail == f"{tmp_path / 'w'} cannot be written (Permission denied)"
    assert "chown" in remedy
    status.show()
    assert sample("mesh_memory_unwritten", memory="witness") == 1
    assert sample("mesh_ready") == 1
    with memory.writing():
        pass
    assert sample("mesh_memory_unwritten", memory="witness") == 0


def test_an_endpoint_without_an_identity_is_not_ready() -> None:
    manager = Manager()
    manager.seconds_left = 0.0
    status, told = status_of(manager)
    assert (told["http"], told["code"]) == (503, "no-identity")
    status.show()
    assert sample("mesh_ready") == 0


def test_an_endpoint_without_descriptors_says_so() -> None:
    problem = Problem(Code.UNHEALTHY_DESCRIPTORS, "none is left", "raise the limit")
    _, told = status_of(Manager(), lack=problem)
    assert (told["http"], told["code"]) == (503, "unhealthy-descriptors")
