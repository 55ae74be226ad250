"""A log as the world meets it: its directory behind nginx, and a crowd of endpoints at its own door."""

import gzip
import http.client
import re
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import pytest
from attrs import define, evolve, field

from pki.ct.log_list import Log
from pki.ct.tile_path import TilePath
from pki.ct.tree_head import open_note
from tests.ctlogs import RunningLog, chain_of, der, precertificate, running_log
from tests.flooding import descriptors, resident
from tests.running import CHECKOUT, PATIENCE, Running, free_port, until
from tests.tools import require_tool
from tests.twisted_mesh.federation.hostile import reactor
from tests.twisted_mesh.grpc.sockets import run
from twisted_mesh.ct.reader import LogReader
from twisted_mesh.ct.view import LogView


@pytest.fixture
def log(tmp_path: Path) -> Iterator[RunningLog]:
    with running_log(tmp_path / "log") as running:
        yield running


def fill(log: RunningLog, count: int) -> None:
    """So many entries."""
    now = datetime.now(UTC)
    with closing(log.connect()) as connection:
        for number in range(count):
            log.submit(precertificate(log.of, f"s{number}", now), connection)


# Served by nginx.


@define(eq=False)
class Nginx:
    """The configuration of docs/CTLOG.md, adapted to this machine: another place, port and certificate."""

    log: RunningLog
    port: int = field(factory=free_port)

    def configuration(self) -> str:
        text = (CHECKOUT / "docs" / "CTLOG.md").read_text()
        (server,) = re.findall(r"^```nginx\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
        for theirs, here in (
            ("listen 443 ssl;", f"listen 127.0.0.1:{self.port};"),
            ("/var/lib/mesh/ctlog/public", str(self.log.public)),
        ):
            assert theirs in server
            server = server.replace(theirs, here)
        home = self.log.home
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        temporary = " ".join(f"{kind}_temp_path {home}/{kind};" for kind in kinds)
        return (
            f"user root; daemon off; worker_processes 1; pid {home}/nginx.pid; error_log {home}/error.log;\n"
            f"events {{ }}\nhttp {{ access_log off; {temporary}\n{server}\n}}\n"
        )

    def get(self, path: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        try:
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            told = {name.lower(): value for name, value in answer.getheaders()}
            return answer.status, told, answer.read()
        finally:
            connection.close()

    @property
    def listed(self) -> Log:
        return evolve(self.log.log, monitoring_url=f"http://127.0.0.1:{self.port}/")


def is_open(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        connection.connect()
    except OSError:
        return False
    connection.close()
    return True


@pytest.mark.interop(
    "tests/twisted_mesh/ctlog/test_log.py::test_who_may_submit_and_what_readers_get"
)
def test_nginx_serves_it_as_the_documentation_says_and_our_readers_believe_it(
    log: RunningLog,
) -> None:
    program = require_tool("nginx")
    fill(log, 260)
    nginx = Nginx(log)
    (log.home / "nginx.conf").write_text(nginx.configuration())
    running = Running.start(
        *(program, "-c", log.home / "nginx.conf", "-e", log.home / "error.log"), cwd=log.home
    )
    try:
        until(lambda: is_open(nginx.port))
        status, told, note = nginx.get("/checkpoint")
        assert (status, told["content-type"]) == (200, "text/plain; charset=utf-8")
        assert told["cache-control"] == "no-cache"
        assert open_note(note.decode(), log.log).size == 260
        status, told, tile = nginx.get(f"/{TilePath(0, 0)}")
        assert (status, len(tile)) == (200, 256 * 32)
        assert told["content-type"] == "application/octet-stream"
        assert "immutable" in told["cache-control"]
        plain = nginx.get(f"/{TilePath(None, 0)}")[2]
        _, told, packed = nginx.get(f"/{TilePath(None, 0)}", **{"Accept-Encoding": "gzip"})
        assert told["content-encoding"] == "gzip" and gzip.decompress(packed) == plain
        assert "immutable" in told["cache-control"]
        assert told["vary"] == "Accept-Encoding"
        issuer = der(log.of.issuing.certificate)
        status, told, body = nginx.get(f"/issuer/{sha256(issuer).hexdigest()}")
        assert (status, told["content-type"], body) == (200, "application/pkix-cert", issuer)
        for path in ("/.new/0", "/.new/", "/../private/log.key", "/private/log.key", "/tile/", "/"):
            assert nginx.get(path)[0] in {400, 403, 404}, path
        reader = LogReader(nginx.listed, reactor())
        view = LogView(reader, run(reader.checkpoint()))
        assert run(view.entries(0, 260)) == log.entries()
        reader.hang_up()
        assert running.stop() == 0
    finally:
        if running.process.poll() is None:
            running.process.kill()
            running.wait()


# A crowd.


@define(eq=False)
class Crowd:
    """Endpoints that ask for tiles at once, each over a connection of its own, held open."""

    log: RunningLog
    size: int
    statuses: dict[int | str, int] = field(factory=dict)
    opened: int = 0
    _lock: threading.Lock = field(factory=threading.Lock)
    _go: threading.Barrier = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._go = threading.Barrier(min(self.size, 50) + 1)

    def ask(self, share: int) -> None:
        """One of the threads that the crowd is in: it connects for all of its share, and then all of them ask."""
        context = ssl.create_default_context(cafile=str(self.log.state / "ctlog" / "tls.crt"))
        wires: list[http.client.HTTPSConnection] = []
        self._go.wait()
        for _ in range(share):
            wire = http.client.HTTPSConnection(
                "localhost", self.log.port, timeout=PATIENCE, context=context
            )
            wires.append(wire)
            try:
                wire.request("GET", "/tile/data/000", headers={"accept-encoding": "gzip"})
            except OSError as error:
                self._count(type(error).__name__)
        for wire in wires:
            try:
                answer = wire.getresponse()
                answer.read()
                self._count(answer.status)
            except (OSError, http.client.HTTPException) as error:
                self._count(type(error).__name__)
        for wire in wires:
            wire.close()

    def _count(self, what: int | str) -> None:
        with self._lock:
            self.statuses[what] = self.statuses.get(what, 0) + 1

    def come(self) -> list[threading.Thread]:
        """All of them, under way."""
        threads = min(self.size, 50)
        found = [
            threading.Thread(target=self.ask, args=(self.size // threads,)) for _ in range(threads)
        ]
        for thread in found:
            thread.start()
        self._go.wait()
        return found


@pytest.mark.slow
@pytest.mark.parametrize(
    "size", [100, pytest.param(1000, marks=pytest.mark.interop)], ids=["a hundred", "a thousand"]
)
def test_endpoints_that_ask_for_tiles_at_once_hold_up_no_receipt(
    size: int, log: RunningLog
) -> None:
    fill(log, 257)
    honest = log.connect()
    assert log.running is not None
    pid = log.running.process.pid
    before = descriptors(pid), resident(pid)
    crowd = Crowd(log, size)
    threads = crowd.come()
    waits: list[float] = []
    most = 0
    while any(thread.is_alive() for thread in threads):
        began = time.monotonic()
        status, answer = log.post(
            chain_of(log.of, precertificate(log.of, f"later{len(waits)}", datetime.now(UTC))),
            connection=honest,
        )
        waits.append(time.monotonic() - began)
        assert status == 200, answer
        most = max(most, descriptors(pid))
    for thread in threads:
        thread.join()
    honest.close()
    print(
        f"{size} readers: {crowd.statuses}; a receipt took {max(waits) * 1000:.0f} ms at most of {len(waits)}; "
        f"{most - before[0]} descriptors, {resident(pid) - before[1]:.0f} MB more"
    )
    assert crowd.statuses.get(200, 0) >= size * 0.9
    assert max(waits) < 5
    assert resident(pid) - before[1] < 120
    until(lambda: descriptors(pid) <= before[0] + 2)
    newcomer = log.log_one("newcomer")
    assert newcomer.serial_number and log.verified_size() == 257 + len(waits) + 1
