"""deploy/systemd/mesh-ctlog.service: what it starts is what the log reads, and systemd takes it and calls it safe."""

import subprocess
from pathlib import Path

import pytest

from tests.running import BIN, PATIENCE
from tests.test_signer_units import UNITS, started
from tests.test_unit_examples import parsed
from tests.tools import require_tool
from twisted_mesh.taps.ctlog_options import Options

UNIT = (UNITS / "mesh-ctlog.service").read_text()


def test_the_log_reads_what_its_unit_says() -> None:
    options = Options()
    options.parseOptions(started(UNIT))
    (accepted,) = options.accepted
    assert str(accepted.spiffe_id) == "spiffe://mesh.local/mesh/ca" and accepted.pin is not None
    assert options["url"] == "https://log.example:6962/2026/"
    service = parsed(UNIT)["Service"]
    assert service["Environment"].endswith(f"=/var/lib/{service['StateDirectory']}")
    # Callbacks of cffi, which pyOpenSSL's are, are written and then run.
    assert "MemoryDenyWriteExecute" not in service


@pytest.mark.interop("tests/test_ctlog_unit.py::test_the_log_reads_what_its_unit_says")
def test_systemd_takes_it_and_calls_it_safe(tmp_path: Path) -> None:
    analyze = require_tool("systemd-analyze")
    unit = tmp_path / "mesh-ctlog.service"
    unit.write_text(UNIT.replace("/opt/twisted-mesh/.venv/bin", str(BIN)))
    for words in (("--man=no", "verify"), ("security", "--offline=yes", "--threshold=20")):
        done = subprocess.run(
            [analyze, *words, str(unit)], capture_output=True, text=True, timeout=PATIENCE * 2
        )
        assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
