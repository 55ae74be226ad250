"""mesh-ca --require-sct: a stolen issuing key mints no administrator whom the CA's own port believes."""

import signal
from pathlib import Path

import pytest

from tests.interop import forging
from tests.interop.forging import present
from tests.interop.house import House
from tests.interop.test_stolen_issuing_key import LOGS, THIEVES_OWN, Minter
from twisted_mesh.testing import MemoryLog, list_of

ADMIN = "spiffe://mesh.local/service/admin"
ISSUED = "/api/v1/certificates"
#: Logs that are not there: what this CA issues has no receipts, and what is minted with the logs' keys has.
AWAY = ("--ct-away", "issue", "--ct-timeout", "1s", "--ct-quorum", "2")


def test_no_administrator_is_believed_past_the_logs(house: House, tmp_path: Path) -> None:
    file = tmp_path / "logs.json"
    file.write_bytes(list_of(LOGS, present()).to_bytes())
    logs = ("--ct-logs", str(file), "--require-sct", "2", *AWAY)
    ca = house.start_ca("--admin", ADMIN, *logs)
    minter = Minter(forging.issuing_authority(house.state), tmp_path)
    stolen, logged = (minter.identity(ADMIN, by) for by in (THIEVES_OWN, LOGS))
    url = f"https://localhost:{house.ca_port}{ISSUED}"
    assert house.curl(url, *stolen.for_curl).returncode != 0
    ca.wait_for(r"refused: no-sct: receipts \(SCTs\) of 2 logs")
    assert house.ask("tls", ISSUED, *logged.for_curl).status == 200
    assert house.ask("socket", ISSUED).status == 200, "no certificate is judged there"
    # The list moves, and an older one does not come back.
    later = MemoryLog("three"), MemoryLog("four")
    before = file.read_bytes()
    file.write_bytes(list_of(later, present() + forging.HOUR).to_bytes())
    ca.process.send_signal(signal.SIGHUP)
    ca.wait_for(r"whose receipts callers need, by --ct-logs \S+ was read again: .*new: ")
    assert house.curl(url, *logged.for_curl).returncode != 0
    file.write_bytes(before)
    ca.process.send_signal(signal.SIGHUP)
    ca.wait_for("is older than what was read there before")
    assert house.curl(url, *logged.for_curl).returncode != 0
    assert ca.stop() == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--require-sct", "2"), "needs --ct-logs"),
        (("--require-sct", "2", "--ct-logs", "logs.json", "--ct-quorum", "1"), "nobody could call"),
        (("--ct-logs-key", "sha256/x"), "who must have signed the list"),
    ],
)
def test_what_would_lock_everybody_out_is_no_start(
    house: House, words: tuple[str, ...], said: str
) -> None:
    file = house.home / "logs.json"
    file.write_bytes(list_of(LOGS, present()).to_bytes())
    words = tuple(str(file) if word == file.name else word for word in words)
    ca = house.start_ca(*words, wait=False)
    ca.wait_for(said)
    assert ca.wait() == 1
