"""A CA that is killed again and again while it is used, and what is left to its callers each time."""

import json
import os
import random
import re
import shutil
import signal
import sqlite3
import ssl
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from http.client import HTTPSConnection
from pathlib import Path
from typing import Any

from attrs import define, field, frozen

from tests.ca_socket import CaSocket
from tests.faults import dying
from tests.faults.callers import Caller, Doors, Errand, evidence_of
from tests.faults.checker import Evidence, Record, findings
from tests.running import BIN, CHECKOUT, PATIENCE, NeverSaid, Running, until

READY = r"Ready to issue certificates\."
_CALLERS = 4
_ARGUMENTS = (
    "-n",
    "mesh-ca",
    "--port",
    "0",
    "--root-key",
    "ec-p256",
    "--insecure-http",
    "0",
    "--rate-limit",
    "off",
)


@frozen
class Outcome:
    """What an ordeal came to."""

    kills: int
    held: int
    """Certificates that clients received whole."""
    revoked: int
    """Revocations that were acknowledged."""
    lost: tuple[str, ...]
    """Everything that the checker found wrong, and every answer that nobody should get."""

    def tell(self, record: Callable[[str, object], None]) -> None:
        """For the sums at the end of the tests' report."""
        record("kills survived", self.kills)
        record("certificates held", self.held)
        record("revocations acknowledged", self.revoked)
        record("lost", len(self.lost))


@frozen
class Answer:
    """What the CA answered to one request."""

    status: int
    retry_after: str | None
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def is_try_later(self) -> bool:
        return self.status == 503 and int(self.retry_after or 0) > 0


@define(eq=False)
class Ordeal:
    """One state directory, the CAs that lived and died on it, and their callers."""

    home: Path
    draw: random.Random
    options: tuple[str, ...] = ()
    """What each of its CAs is started with besides."""
    callers: list[Caller] = field(factory=list, init=False)
    kills: int = field(default=0, init=False)
    lost: list[str] = field(factory=list, init=False)
    _ca: Running | None = field(default=None, init=False)
    _ports: dict[str, int] = field(factory=dict, init=False)

    @property
    def database(self) -> Path:
        return self.state / "ca" / "mesh.db"

    @property
    def state(self) -> Path:
        return self.home / "state"

    def __attrs_post_init__(self) -> None:
        listeners = Doors(
            self.state / "ca" / "ca.sock",
            self.state / "ca" / "root.crt",
            lambda: self._port(r"at http://localhost:(\d+)"),
            self._tls_port,
        )
        self.callers = [
            Caller(f"c{i}", listeners, self.home, random.Random(self.draw.random()))
            for i in range(_CALLERS)
        ]

    def _tls_port(self) -> int:
        return self._port(r"listening on https://[^:]+:(\d+)")

    def _port(self, pattern: str) -> int:
        if pattern not in self._ports:
            found = re.search(pattern, self._ca.text) if self._ca else None
            if found is None:
                raise ConnectionRefusedError("it does not listen there yet")
            self._ports[pattern] = int(found[1])
        return self._ports[pattern]

    def start(
        self,
        *wrapper: str,
        before: tuple[str, ...] = (),
        env: Mapping[str, str] | None = None,
        wait: bool = False,
        options: tuple[str, ...] = (),
    ) -> Running:
        """The CA, or with ``wrapper`` a CA as that module makes it; ``before`` stands before its command."""
        command = (BIN / "python", "-m", *wrapper, "--") if wrapper else (BIN / "twistd",)
        environment = {
            "MESH_STATE_DIR": str(self.state),
            "PYTHONPATH": str(CHECKOUT),
            "PYTHONUNBUFFERED": "1",
            **(env or {}),
        }
        whole = (*before, *command, *_ARGUMENTS, *self.options, *options)
        self._ca = Running.start(*whole, cwd=self.home, env=environment)
        self._ports.clear()
        if wait:
            self._ca.wait_for(READY)
        return self._ca

    def dies_at(self, step: str, number: int) -> None:
        """One life, under load, that ends at the ``number``-th pass of ``step``."""
        ca = self.start("tests.faults.dying", step, str(number))
        with self.load():
            if step in dying.STOP:
                self.wait_for_answers(10)
                ca.process.send_signal(signal.SIGTERM)
            try:
                status = ca.wait()
            except NeverSaid as error:
                raise AssertionError(f"it never came to {step}, pass {number}: {error}") from None
        words = dying.LAST_WORDS.format(step=step, number=number)
        assert (status, words in ca.text) == (-signal.SIGKILL, True), (step, status, ca.text)
        assert "Traceback" not in ca.text, ca.text
        self.kills += 1
        # What was signed in memory has left nothing that would have to be resolved.
        is_resolved = step in dying.ISSUANCE and not self.options
        self.check(
            f"after it died at {step}, pass {number}", settled=False, is_resolved=is_resolved
        )

    def lives(self) -> None:
        """One ordinary life: what was left open is finished, and the end is orderly."""
        self.lives_on(self.start())

    def lives_on(self, ca: Running) -> None:
        """The rest of an ordinary life."""
        try:
            ca.wait_for(READY)
            self.check("when it was ready again", settled=False, is_resolved=True)
            for _ in range(3):  # whose intent is just being resolved comes later
                left = [caller for caller in self.callers if not _finishes(caller)]
            assert not left, [(c.name, c.open, c.revoking, c.complaints) for c in left]
        finally:
            status = ca.stop()
        assert status == 0, ca.text
        assert "Traceback" not in ca.text, ca.text
        self.check("at the end", settled=True)

    @contextmanager
    def load(self) -> Iterator[None]:
        """All callers at work."""
        stop = threading.Event()
        threads = [threading.Thread(target=c.live, args=(stop,), daemon=True) for c in self.callers]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            stop.set()
            for thread in threads:
                thread.join(PATIENCE)
        assert not any(thread.is_alive() for thread in threads)

    def wait_for_answers(self, number: int) -> None:
        """Until the callers have been answered so many times more."""
        enough = self.answers + number
        self.until(lambda: self.answers >= enough)

    @property
    def answers(self) -> int:
        return sum(caller.answers for caller in self.callers)

    def check(self, when: str, *, settled: bool, is_resolved: bool = False) -> None:
        """Judge a copy of the record: to read what a dead CA left is to tidy it up."""
        if not self.database.exists():
            assert not any(caller.held for caller in self.callers)
            return
        with tempfile.TemporaryDirectory(dir=self.home) as name:
            copy = Path(name) / "mesh.db"
            for tail in ("", "-wal"):
                with suppress(FileNotFoundError):
                    shutil.copy(f"{self.database}{tail}", f"{copy}{tail}")
            found = [] if _is_blank(copy) else findings(copy, self.evidence, settled=settled)
            if is_resolved and not settled:
                found += _left_open(copy)
        self.lost += [f"{when}: {finding}" for finding in found]

    @property
    def evidence(self) -> Evidence:
        return evidence_of(self.callers)

    @property
    def outcome(self) -> Outcome:
        complaints = [said for caller in self.callers for said in caller.complaints]
        return Outcome(
            kills=self.kills,
            held=sum(len(caller.held) for caller in self.callers),
            revoked=sum(len(caller.revoked) for caller in self.callers),
            lost=(*self.lost, *complaints),
        )

    def ask(self, path: str, body: object = None) -> Answer:
        """One request of an administrator's, on a connection of its own."""
        with closing(CaSocket(self.state / "ca" / "ca.sock")) as connection:
            if body is None:
                connection.request("GET", path)
            else:
                sent = json.dumps(body)
                connection.request("POST", path, sent, {"Content-Type": "application/json"})
            response = connection.getresponse()
            return Answer(response.status, response.headers.get("Retry-After"), response.read())

    def shake_hands(self, path: str) -> int:
        """The status of a request on a TLS connection of its own, by nobody."""
        context = ssl.create_default_context(cafile=self.state / "ca" / "root.crt")
        connection = HTTPSConnection(
            "localhost", self._tls_port(), timeout=PATIENCE, context=context
        )
        with closing(connection):
            connection.request("GET", path)
            return connection.getresponse().status

    def sign(self) -> Answer:
        """A certificate for somebody."""
        errand = Errand.make("spiffe://mesh.local/service/x", None)
        return self.ask("/api/v1/sign", {"csr": errand.csr, "requested_id": errand.spiffe_id})

    def count(self) -> dict[str, int]:
        """How many rows each table of the record has."""
        with closing(sqlite3.connect(self.database)) as connection:
            tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            return {
                table: connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
                for (table,) in tables.fetchall()
            }

    @property
    def last_act(self) -> str:
        """The newest in the audit log."""
        return Record.read(self.database).acts[-1].act

    def until(self, is_so: Callable[[], bool]) -> None:
        """Wait for what no log tells, with a deadline."""
        until(is_so, lambda: self._ca and self._ca.text)

    def end(self) -> None:
        if self._ca is not None and self._ca.process.poll() is None:
            self._ca.process.kill()
            self._ca.wait()


def _finishes(caller: Caller) -> bool:
    try:
        return caller.finish()
    finally:
        caller.hang_up()


def _is_blank(database: Path) -> bool:
    """Whether it died before its tables were made."""
    with closing(sqlite3.connect(database)) as connection:
        return not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]


def _left_open(database: Path) -> list[str]:
    with closing(sqlite3.connect(database)) as connection:
        (count,) = connection.execute("SELECT count(*) FROM intents").fetchone()
    return [f"{count} intents are open, which nobody has to resolve"] if count else []


@contextmanager
def ordeal(home: Path, seed: int, *options: str) -> Iterator[Ordeal]:
    """An ordeal in ``home`` that can be had again with the same ``seed``, but for when threads run."""
    home.mkdir(parents=True, exist_ok=True)
    os.chmod(home, 0o700)
    begun = Ordeal(home, random.Random(seed), options)
    try:
        yield begun
    finally:
        begun.end()
