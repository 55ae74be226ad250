"""--ct-audit: who is met is looked for, unless nobody is to look."""

from pathlib import Path

import pytest
from twisted.internet.task import Clock as Reactor

from pki.ct.receipt import SctDemand
from pki.spiffe import SpiffePattern
from pki.svid.bundle import BundleSet
from pki.svid.x509svid import Purpose
from tests.twisted_mesh.recording import RecordingLog
from twisted_mesh.taps.sct_options import audited, troubles_of
from twisted_mesh.taps.server_options import Options
from twisted_mesh.testing import Clock, MemoryCa, MemoryLog, list_of
from twisted_mesh.trust.connections import ConnectionRegistry
from twisted_mesh.trust.judge import Judge
from twisted_mesh.trust.store import TrustStore
from twisted_mesh.trust.trust import Trust


def options_of(home: Path, logs: Path | None, *words: str) -> Options:
    found = Options()
    demanded = ["--require-sct", "1", "--ct-logs", str(logs)] if logs else []
    found.parseOptions(["--state-dir", str(home), *demanded, *words])
    return found


@pytest.fixture
def log() -> MemoryLog:
    return MemoryLog("audited")


@pytest.fixture
def path(tmp_path: Path, log: MemoryLog) -> Path:
    found = tmp_path / "logs.json"
    found.write_bytes(list_of((log,), Clock().now()).to_bytes())
    return found


def test_whoever_is_let_in_is_looked_for(tmp_path: Path, path: Path, log: MemoryLog) -> None:
    clock = Clock()
    ca = MemoryCa(clock=clock, logs=(log,))
    judge = Judge(
        clock.now,
        Trust(BundleSet.of(ca.bundle), allow=(SpiffePattern.parse("spiffe://mesh.test/**"),)),
    )
    store = TrustStore(judge, ConnectionRegistry(), clock, clock.now, RecordingLog())
    store.require_scts(SctDemand(1, list_of((log,), clock.now())))
    auditor = options_of(tmp_path, path).audit(Reactor(), store)  # type: ignore[arg-type]
    assert auditor is not None and auditor.logs() == list_of((log,), clock.now())
    assert judge.verdict(ca.issue("shop").chain, Purpose.CLIENT).ok
    assert not judge.verdict(ca.issue("shop", logs=()).chain, Purpose.CLIENT).ok
    assert auditor.pending == 1
    assert [memory.name for memory in audited(auditor)] == ["ct-audit"]
    assert troubles_of(auditor) == ()
    store.require_scts(None)
    assert auditor.logs().logs == ()


def test_nobody_looks_where_nothing_is_demanded_or_it_is_off(tmp_path: Path, path: Path) -> None:
    clock = Clock()
    store = TrustStore(
        Judge(clock.now, Trust()), ConnectionRegistry(), clock, clock.now, RecordingLog()
    )
    for options in (options_of(tmp_path, None), options_of(tmp_path, path, "--ct-audit", "off")):
        assert options.audit(Reactor(), store) is None  # type: ignore[arg-type]
    assert audited(None) == [] and troubles_of(None) == ()


def test_it_is_on_or_off(tmp_path: Path, path: Path) -> None:
    with pytest.raises(SystemExit, match="on or off"):
        options_of(tmp_path, path, "--ct-audit", "perhaps")
