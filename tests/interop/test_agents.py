"""Agents at a CA in a process: how soon they hear of an entry, and what a ban leaves of one, also after kill -9."""

import http.client
import json
import signal
import ssl
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from attrs import define, field, frozen

from pki.issuing.csr import build_csr
from pki.keys import KeyAlgorithm, MemoryKey
from pki.spiffe import SpiffeId
from tests.ca_socket import CaSocket
from tests.running import PATIENCE, Mesh, mesh

NODE = "spiffe://mesh.local/mesh/agent/node-1"
WEB = SpiffeId.parse("spiffe://mesh.local/service/web")
SEEN = ["unix:uid:7", "unix:user:web"]
AT_THE_API = "tests/twisted_mesh/ca/api/test_agents.py::"
ROUNDS = 20
#: A large machine that starts with all that runs on it.
WORKLOADS, AT_ONCE = 1200, 12
#: Seconds from an entry to its agent: the workload is to have its SVID within one.
SOON = 0.25


@frozen
class Agent:
    """What has joined as one, and asks by itself."""

    ca: Mesh
    files: tuple[Path, Path]

    def connection(self) -> http.client.HTTPSConnection:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.load_cert_chain(*self.files)
        return http.client.HTTPSConnection(
            "localhost", self.ca.ca_port, timeout=PATIENCE, context=context
        )

    def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        with closing(self.connection()) as connection:
            return asked(connection, method, path, body)

    def sign(self, entry: str) -> tuple[int, Any]:
        csr = build_csr(MemoryKey.generate(KeyAlgorithm.EC_P256), WEB).decode()
        body = {"csr": csr, "requested_id": str(WEB), "entry": entry, "selectors": SEEN}
        return self.ask("POST", "/api/v1/agent/sign", body)


@define(eq=False)
class Waiting:
    """An agent's question that is answered once its entries are others."""

    agent: Agent
    version: str
    outcome: "list[tuple[float, Any]]" = field(factory=list)
    thread: threading.Thread = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.thread = threading.Thread(target=self._wait)
        self.thread.start()
        # A question on another connection is answered after one that came before: nothing says more.
        at_the_socket(self.agent.ca, "GET", "/api/v1/agents")

    def _wait(self) -> None:
        outcome: Any
        try:
            path = f"/api/v1/agent/entries?after={self.version}&wait=45s"
            outcome = self.agent.ask("GET", path)
        except (OSError, http.client.HTTPException) as error:
            outcome = error
        self.outcome.append((time.monotonic(), outcome))

    def result(self) -> tuple[float, Any]:
        self.thread.join(PATIENCE)
        return self.outcome[0]


def asked(
    connection: http.client.HTTPConnection, method: str, path: str, body: Any = None
) -> tuple[int, Any]:
    content = body and json.dumps(body)
    connection.request(method, path, content, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    return answer.status, json.loads(answer.read())


def at_the_socket(ca: Mesh, method: str, path: str, body: Any = None) -> Any:
    with closing(CaSocket(ca.socket)) as connection:
        status, answer = asked(connection, method, path, body)
    assert status < 300, answer
    return answer


def joined(ca: Mesh) -> Agent:
    done = ca.ctl("agent", "token", "create", "node-1", "--format", "json")
    assert done.returncode == 0, done.stderr
    token = json.loads(done.stdout)["token"]
    key = MemoryKey.generate(KeyAlgorithm.EC_P256)
    csr = build_csr(key, SpiffeId.parse(NODE)).decode()
    joining = {"csr": csr, "requested_id": NODE, "token": token}
    made = at_the_socket(ca, "POST", "/api/v1/sign", joining)
    files = ca.home / "node.pem", ca.home / "node.key"
    files[0].write_text("".join((made["certificate"], *made["chain"])))
    files[1].write_bytes(key.to_pem())
    return Agent(ca, files)


def entry(ca: Mesh) -> str:
    words = ("--parent", NODE, "--selector", "unix:uid:7", "--spiffe-id", str(WEB), "--hint", "web")
    done = ca.ctl("entry", "create", *words, "--format", "json")
    assert done.returncode == 0, done.stderr
    entry_id: str = json.loads(done.stdout)["id"]
    return entry_id


@pytest.fixture
def ca(tmp_path: Path) -> Iterator[Mesh]:
    with mesh(tmp_path / "home") as made:
        made.start_ca("--cert-duration", "10m")
        yield made


@pytest.mark.interop(f"{AT_THE_API}test_who_waits_is_told_of_an_entry_at_once")
def test_an_entry_is_with_its_agent_at_once(
    ca: Mesh, record_property: Callable[[str, object], None]
) -> None:
    agent = joined(ca)
    version = agent.ask("GET", "/api/v1/agent/entries")[1]["version"]
    heard, signed = [], []
    for _ in range(ROUNDS):
        waiting = Waiting(agent, version)
        began = time.monotonic()
        body = {"selectors": ["unix:uid:7"], "spiffe_id": str(WEB), "parent": NODE}
        made = at_the_socket(ca, "POST", "/api/v1/entries", body)
        at, (status, told) = waiting.result()
        assert status == 200
        assert made["id"] in {found["id"] for found in told["entries"]}
        assert agent.sign(made["id"])[0] == 201
        heard.append(at - began)
        signed.append(time.monotonic() - began)
        version = told["version"]
    for what, seconds in (("agent", heard), ("certificate", signed)):
        record_property(f"ms from an entry to its {what}", statistics.median(seconds) * 1000)
        record_property(f"ms from an entry to its {what}, most", max(seconds) * 1000)
    assert statistics.median(heard) < SOON


@pytest.mark.interop("tests/twisted_mesh/ca/api/test_throttle.py::test_an_agent_asks_for_many")
def test_a_thousand_workloads_of_one_agent_have_certificates_at_once(
    ca: Mesh, record_property: Callable[[str, object], None]
) -> None:
    agent, bought = joined(ca), entry(ca)
    csr = build_csr(MemoryKey.generate(KeyAlgorithm.EC_P256), WEB).decode()
    body = {"csr": csr, "requested_id": str(WEB), "entry": bought, "selectors": SEEN}

    def some(count: int) -> list[int]:
        with closing(agent.connection()) as connection:
            path = "/api/v1/agent/sign"
            return [asked(connection, "POST", path, body)[0] for _ in range(count)]

    began = time.monotonic()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        statuses = [s for some_ in pool.map(some, [WORKLOADS // AT_ONCE] * AT_ONCE) for s in some_]
    record_property(
        "certificates a second for one agent", len(statuses) / (time.monotonic() - began)
    )
    assert set(statuses) == {201}


@pytest.mark.interop(f"{AT_THE_API}test_all_that_it_obtained_is_revoked_and_it_gets_no_more")
def test_a_ban_holds_after_kill_9_and_cuts_the_agent(ca: Mesh) -> None:
    agent, bought = joined(ca), entry(ca)
    serials = [agent.sign(bought)[1]["serial"] for _ in range(3)]
    waiting = Waiting(agent, agent.ask("GET", "/api/v1/agent/entries")[1]["version"])
    dry = ca.ctl("agent", "ban", "node-1", "--dry-run", "--format", "json")
    assert {row["serial"] for row in json.loads(dry.stdout)} > set(serials)
    how = {"action": "ban", "reason": "stolen"}
    done = at_the_socket(ca, "POST", "/api/v1/agents/node-1", how)
    ca.processes[0].process.send_signal(signal.SIGKILL)
    ca.processes[0].wait()
    assert set(serials) < set(done["revoked"])
    _, outcome = waiting.result()
    assert isinstance(outcome, Exception) or outcome[0] == 403  # it was cut, or told
    ca.start_ca()
    (listed,) = json.loads(ca.ctl("agent", "list", "--format", "json").stdout)
    assert (listed["name"], listed["status"], listed["entries"]) == ("node-1", "banned", 1)
    rows = json.loads(ca.ctl("cert", "list", "--agent", NODE, "--format", "json").stdout)
    assert len(rows) == 4
    assert {row["status"] for row in rows} == {"revoked"}
    with pytest.raises((OSError, http.client.HTTPException)):
        agent.ask("GET", "/api/v1/agent/entries")
    refused = ca.ctl("agent", "token", "create", "node-1")
    assert refused.returncode == 1
    assert "agent unban node-1" in refused.stderr
    _verified(ca)
    assert ca.ctl("agent", "unban", "node-1").returncode == 0
    assert joined(ca).sign(bought)[0] == 201
    _verified(ca)


def _verified(ca: Mesh) -> None:
    done = ca.ctl("audit", "verify")
    assert done.returncode == 0, done.stdout + done.stderr
