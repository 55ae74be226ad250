"""A thousand endpoints wait for news at a real CA: what that costs it, and whether a burst of them is answered.

``python -m tests.bench.waiting DIRECTORY [HOW_MANY]`` measures it without the rest.
"""

import json
import selectors
import socket
import ssl
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from attrs import define, field

from pki.issuing.csr import build_csr
from tests.authorities import MESH
from tests.bench.meshes import MeshOnStage
from tests.bench.processes import LOAD_CORE, SERVER_CORE, pinned, stage
from tests.bench.revocation_live import CLIENT_KEY
from tests.bench.tables import Table
from tests.ca_socket import CaSocket
from tests.running import PATIENCE
from twisted_mesh.revocation.feed import WAIT

_WAITING = 1000
#: Whole rounds of questions: after each answer they come back together.
_SECONDS = 2.0 * WAIT


@define(eq=False)
class Waiters:
    """Endpoints in one thread, each with a connection on which it asks again as soon as it is answered."""

    port: int
    context: ssl.SSLContext
    statuses: "Counter[int]" = field(factory=Counter)
    is_asking: bool = True
    _where: str = "after=0"
    _selector: selectors.BaseSelector = field(factory=selectors.DefaultSelector)

    def connect(self, count: int) -> None:
        """Each asks once, since a connection on which nothing is said is dropped, and is answered."""
        for _ in range(count):
            plain = socket.create_connection(("127.0.0.1", self.port), PATIENCE)
            connection = self.context.wrap_socket(plain)
            self._selector.register(connection, selectors.EVENT_READ, bytearray())
            _ask(connection, "after=0")
        self.go_on(PATIENCE, lambda: self.statuses.total() >= count)
        self.statuses.clear()

    def ask_all(self, query: str) -> None:
        for key in tuple(self._selector.get_map().values()):
            _ask(key.fileobj, query)

    def go_on(self, seconds: float, enough: Callable[[], bool] = lambda: False) -> None:
        """Read answers, and ask for the next ones, for so many seconds or until it is enough."""
        deadline = time.monotonic() + seconds
        while not enough() and (left := deadline - time.monotonic()) > 0:
            for key, _ in self._selector.select(min(left, 0.5)):
                connection: Any = key.fileobj
                said = connection.recv(65536)
                if not said:
                    self._selector.unregister(connection)
                    connection.close()
                    continue
                key.data.extend(said)
                self._answered(connection, key.data)

    def _answered(self, connection: Any, data: bytearray) -> None:
        head, mark, body = bytes(data).partition(b"\r\n\r\n")
        if not mark:
            return
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        if len(body) < length:
            return
        self.statuses[int(head[9:12])] += 1
        data.clear()
        if self.is_asking:
            told = json.loads(body)
            log = told.get("log")
            size = f"&log={log['checkpoint'].splitlines()[1]}" if log else "&log=0"
            where = f"after={told['generation']}&store={told['store']}{size}"
            _ask(connection, f"{where}&wait={WAIT}s")


def _ask(connection: Any, query: str) -> None:
    connection.sendall(f"GET /api/v1/trust?{query} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())


def measured(home: Path, count: int, say: Callable[[str], None]) -> tuple[float, "Counter[int]"]:
    """The share of a core that so many who wait cost; how a burst of as many questions was answered."""
    with stage(home) as staged:
        mesh = MeshOnStage(staged)
        ca = mesh.start_ca("--rate-limit", "off", core=SERVER_CORE)
        port = int(ca.wait_for(r"listening on https://[^:]+:(\d+)")[1])
        with closing(CaSocket(home / "state" / "ca" / "ca.sock")) as asked:
            name = MESH.member("service", "waits")
            csr = build_csr(CLIENT_KEY, name).decode()
            answer = asked.post("/api/v1/sign", {"csr": csr, "requested_id": str(name)})
        (home / "client.key").write_bytes(CLIENT_KEY.to_pem())
        (home / "client.pem").write_text("".join((answer["certificate"], *answer["chain"])))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(home / "state" / "ca" / "root.crt")
        context.check_hostname = False
        context.load_cert_chain(home / "client.pem", home / "client.key")
        with pinned(LOAD_CORE):
            waiters = Waiters(port, context)
            waiters.is_asking = False
            waiters.connect(count)
            say(f"{count:,} are connected")
            waiters.ask_all("after=0&log=0&wait=1s")
            waiters.go_on(PATIENCE, lambda: waiters.statuses.total() >= count)
            burst, waiters.statuses = waiters.statuses, Counter()
            waiters.is_asking = True
            waiters.ask_all("after=0&log=0")
            waiters.go_on(PATIENCE, lambda: waiters.statuses.total() >= count)
            waiters.go_on(3.0)
            say("all of them wait")
            before, began = ca.cpu_seconds(), time.monotonic()
            waiters.go_on(_SECONDS)
            after, took = ca.cpu_seconds(), time.monotonic() - began
        assert "Traceback" not in ca.text
    assert before is not None
    assert after is not None
    return (after - before) / took, burst + waiters.statuses


def measure(home: Path, rounds: int, say: Callable[[str], None]) -> Table:
    """Once: ``rounds`` are for what is slow."""
    share, statuses = measured(home, _WAITING, say)
    return Table(
        "waiting",
        f"{_WAITING:,} endpoints that wait for news over mutual TLS",
        ({"": "share of a core, %", "found": round(share * 100, 2), "must be under": 1.0},),
        (f"How they were answered: {dict(statuses)}; all have to be 200.",),
    )


if __name__ == "__main__":
    where = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(tempfile.mkdtemp())
    how_many = int(sys.argv[2]) if len(sys.argv) > 2 else _WAITING
    print(measured(where, how_many, print))
