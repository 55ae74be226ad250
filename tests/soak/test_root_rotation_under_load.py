"""A root that is rotated while many requests go round: none fails, and the steps take moments."""

import json
import re
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.interop.house import READY, house
from tests.running import BIN, Running

CLIENTS, SERVERS, REQUESTS = 8, 12, 1_500
LIVES = ("--cert-duration", "20s", "--max-cert-duration", "20s", "--issuing-duration", "1h")
YES = ("--yes", "--format", "json")


@pytest.mark.soak
@pytest.mark.endurance
def test_no_request_of_thousands_fails_while_the_root_is_rotated(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    with house(tmp_path / "house") as home:
        ca = home.start_ca(*LIVES)
        servers = []
        for _ in range(SERVERS):
            server = home.twistd("mesh-server", "--listen", "127.0.0.1:0", "--ttl", "20s")
            server.wait_for(READY)
            servers.append(int(server.wait_for(r"Starting mTLS server on \S*:(\d+)")[1]))
        clients = [
            Running.start(
                *(BIN / "mesh-client", "--server", f"https://localhost:{servers[n % SERVERS]}"),
                *("--repeat", str(REQUESTS), "--interval", "10ms", "--ttl", "20s"),
                *("--format", "json"),
                cwd=home.home,
                env=home.env,
            )
            for n in range(CLIENTS)
        ]
        home.processes += clients
        for client in clients:
            client.wait_for('"status": 200', count=50)
        took = {}
        for step in ("prepare", "activate", "retire"):
            if step == "retire":
                while home.ctl("ca", "root", "retire", "--dry-run").returncode != 0:
                    time.sleep(1)
            began = time.monotonic()
            done = home.ctl("ca", "root", step, *(["--force"] if step == "activate" else []), *YES)
            assert done.returncode == 0, done.stdout + done.stderr
            assert json.loads(done.stdout)["done"]
            took[step] = round(time.monotonic() - began, 2)
        answers: Counter[object] = Counter()
        for client in clients:
            assert client.wait(600) == 0, client.text[-2000:]
            told = [json.loads(line) for line in client.text.splitlines() if line[:1] == "{"]
            answers.update(answer.get("status") for answer in told)
        issued = Counter(re.findall(r"^(\S+) \[CA\] Certificate issued:", ca.text, re.MULTILINE))
        record_property("requests over a root's rotation", answers.total())
        record_property("longest step of a root's rotation, seconds", max(took.values()))
        record_property("longest second's signatures over a root's rotation", max(issued.values()))
        assert answers == {200: CLIENTS * REQUESTS}
