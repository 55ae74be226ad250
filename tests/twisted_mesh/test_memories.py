"""Every memory that a program has: what is said where its file cannot be written, and that it heals by itself."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from attrs import frozen
from prometheus_client import REGISTRY
from twisted.internet.task import Clock
from twisted.logger import LogEvent, LogLevel, globalLogPublisher

from pki.svid.x509svid import X509Svid
from tests.authorities import BACKEND, HOUR, NOW, key, mesh
from tests.twisted_mesh.ca.rigs import CaRig, ca_rig, result_of
from tests.twisted_mesh.trust.test_log_witness import Log, hear
from twisted_mesh.ca.check import Standing
from twisted_mesh.ca.issuance_log import IssuanceLog
from twisted_mesh.ca.revocation.crl_numbers import CrlNumbers
from twisted_mesh.identity.saved_svid import SavedSvid
from twisted_mesh.revocation.crl_numbers import SeenCrlNumbers
from twisted_mesh.runtime.event_text import event_text
from twisted_mesh.state.directory import StateError
from twisted_mesh.state.memory import AGAIN, Memories, Memory
from twisted_mesh.trust.log_witness import LogWitness


@frozen
class Case:
    """One that remembers at ``path``, and how it is made to write there."""

    memory: Memory
    write: Callable[[], object]


def witness(path: Path, rig: CaRig) -> Case:
    made, log = LogWitness(path), Log().grow(b"a")
    return Case(made.memory, lambda: hear(made, log))


def crls(path: Path, rig: CaRig) -> Case:
    made, number = SeenCrlNumbers(path), iter(range(1, 9))
    return Case(made.memory, lambda: made.remember("file:a", {"issuer": next(number)}))


def identity(path: Path, rig: CaRig) -> Case:
    made = SavedSvid(path)
    svid = X509Svid.assemble(
        (mesh().leaf(BACKEND, NOW, HOUR, key(9)), *mesh().issuing.intermediates), key(9)
    )
    return Case(made.memory, lambda: made.keep(svid, mesh().bundle))


def crl_numbers(path: Path, rig: CaRig) -> Case:
    made = CrlNumbers(rig.store, lambda: rig.time, path)
    return Case(made.memory, lambda: result_of(made.take("issuer", None)))


def issuance_log(path: Path, rig: CaRig) -> Case:
    made = IssuanceLog(path)

    def write() -> None:
        with suppress(StateError):
            made.open()

    return Case(made.memory, write)


KINDS = (witness, crls, identity, crl_numbers, issuance_log)


@pytest.fixture
def rig() -> Iterator[CaRig]:
    with ca_rig() as rig:
        yield rig


@pytest.fixture
def told() -> Iterator[list[LogEvent]]:
    events: list[LogEvent] = []
    globalLogPublisher.addObserver(events.append)
    yield events
    globalLogPublisher.removeObserver(events.append)


def warnings(told: list[LogEvent]) -> list[str]:
    return [event_text(e) for e in told if e["log_level"] is LogLevel.warn]


def failures(memory: Memory) -> float:
    found = REGISTRY.get_sample_value("mesh_memory_write_failures_total", {"memory": memory.name})
    assert found is not None, "it is there before anything fails"
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_what_cannot_be_written_is_a_warning_at_once_and_heals(
    kind: Callable[[Path, CaRig], Case], rig: CaRig, told: list[LogEvent], tmp_path: Path
) -> None:
    home = tmp_path / "state" / "kept"
    home.parent.mkdir(mode=0o700)
    case = kind(home / "memory", rig)
    before = failures(case.memory)
    clock = Clock()
    memories = Memories(clock, [case.memory])
    memories.startService()
    home.write_text("no directory")
    case.write()
    (warning,) = warnings(told)
    assert str(home) in warning and "tried again by itself" in warning
    assert case.memory.problem is not None
    assert failures(case.memory) == before + 1
    clock.advance(AGAIN)
    assert failures(case.memory) == before + 2
    assert len(warnings(told)) == 1
    home.unlink()
    home.mkdir(mode=0o700)
    clock.advance(AGAIN)
    assert case.memory.problem is None
    assert (home / "memory").exists()
    assert [e["memory"] for e in told if e.get("event") == "memory-kept-again"] == [
        case.memory.name
    ]


def test_a_ca_is_ready_and_the_worse_without_most_of_them(rig: CaRig, tmp_path: Path) -> None:
    lost = Memory("crl-numbers", tmp_path, "It is lost", "crl-numbers-not-kept")
    needed = Memory(
        "issuance-log", tmp_path, "It is lost", "issuance-log-not-written", is_needed=True
    )
    rig.ca.health.memories = [lost, needed]

    def check() -> tuple[Standing, str]:
        rig.ca.health._last = None
        (found,) = [c for c in result_of(rig.ca.health.examine()) if c.name == "memories"]
        return found.standing, f"{found.detail}; {found.remedy}"

    assert check()[0] is Standing.OK
    with lost.writing():
        raise OSError(28, "No space left on device", "/a/crl-numbers")
    standing, text = check()
    assert standing is Standing.WARN
    assert "/a/crl-numbers cannot be written (No space left on device)" in text
    assert "free some space" in text
    with needed.writing():
        raise OSError(30, "Read-only file system", "/b/log")
    standing, text = check()
    assert standing is Standing.FAIL
    assert "mount it" in text and "free some space" in text


def test_checkpoints_that_cannot_be_kept_are_told_until_they_can(
    rig: CaRig, told: list[LogEvent], tmp_path: Path
) -> None:
    rig.log._memory.path = tmp_path / "gone" / "checkpoints"
    rig.sign()
    with pytest.raises(StateError):
        result_of(rig.log.extend())
    assert rig.log.memory.problem is not None
    assert "The audit log is not signed" in warnings(told)[0]
    (tmp_path / "gone").mkdir()
    result_of(rig.log.extend())
    assert rig.log.memory.problem is None


def test_a_revoked_identity_that_cannot_be_removed_is_removed_later(
    tmp_path: Path, rig: CaRig, told: list[LogEvent]
) -> None:
    kept = SavedSvid(tmp_path / "state" / "identity" / "who")
    (tmp_path / "state").mkdir()
    svid = X509Svid.assemble(
        (mesh().leaf(BACKEND, NOW, HOUR, key(9)), *mesh().issuing.intermediates), key(9)
    )
    kept.keep(svid, mesh().bundle)
    home = tmp_path / "state" / "identity" / "who"
    home.chmod(0o755)
    kept.forget()
    assert "A revoked identity is still kept" in warnings(told)[0]
    home.chmod(0o700)
    kept.memory.again()
    assert not home.exists()
    assert kept.memory.problem is None
