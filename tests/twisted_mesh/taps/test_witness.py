"""mesh-witness as a process: whom it answers, what kill -9 leaves, and what it says when it cannot start."""

import http.client
import signal
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
from attrs import define, field

from pki.ct.log_list import LogList
from pki.ct.tree_head import WitnessKey, cosignatures_of, with_signatures
from pki.tlog import merkle
from pki.tlog.note import read_signatures
from tests.running import BIN, Running, free_port, run
from tests.twisted_mesh.ct.paper_log import NOW, PaperLog
from twisted_mesh.witness.request import AddCheckpoint


@define(eq=False)
class Witnesses:
    """A place for a witness, which is started again and again."""

    home: Path
    paper: PaperLog
    port: int = field(factory=free_port)
    running: list[Running] = field(factory=list)

    @property
    def words(self) -> list[str]:
        logs = str(self.home / "logs.json")
        address = f"127.0.0.1:{self.port}"
        return ["--state-dir", str(self.home), "--ct-logs", logs, "--listen", address]

    def start(self, *options: str) -> Running:
        found = Running.start(BIN / "mesh-witness", *self.words, *options, cwd=self.home)
        self.running.append(found)
        found.wait_for("Ready to cosign")
        return found

    def ask(self, method: str, path: str, body: bytes | None = None) -> tuple[int, str]:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        caller = http.client.HTTPSConnection("127.0.0.1", self.port, timeout=30, context=context)
        try:
            caller.request(method, path, body)
            reply = caller.getresponse()
            return reply.status, reply.read().decode()
        finally:
            caller.close()

    def grow(self) -> tuple[int, str]:
        old = len(self.paper.entries)
        self.paper.fill(5)
        note = self.paper.sign()
        proof = merkle.consistency_proof(old, old + 5, self.paper._read) if old else ()
        found = AddCheckpoint.parse(f"old 0\n\n{note}".encode())
        asked = AddCheckpoint(old, proof, found.note, found.head)
        return self.ask("POST", "/add-checkpoint", asked.to_bytes())


@pytest.fixture
def witnesses(tmp_path: Path) -> Iterator[Witnesses]:
    paper = PaperLog("process")
    (tmp_path / "logs.json").write_bytes(LogList((paper.log,), NOW).to_bytes())
    made = Witnesses(tmp_path, paper)
    yield made
    for running in made.running:
        running.stop(signal.SIGKILL)


def test_it_cosigns_survives_and_stops(witnesses: Witnesses) -> None:
    running = witnesses.start("--name", "w.example/1")
    status, said = witnesses.ask("GET", "/witness.pub")
    public = WitnessKey.parse(said.strip())
    assert status == 200 and public.name == "w.example/1" and str(public) in running.text
    assert (witnesses.home / "log-witness" / "witness.pub").read_text() == said
    where = f"/checkpoint/{witnesses.paper.log.log_id.hex()}"
    assert witnesses.ask("GET", where)[0] == 404
    status, line = witnesses.grow()
    assert status == 200
    note = with_signatures(witnesses.paper.note, read_signatures(line))
    assert [one.witness for one in cosignatures_of(note, (public,))] == [public]
    for method, path, status in (
        ("GET", "/add-checkpoint", 405),
        ("POST", "/witness.pub", 405),
        ("GET", "/checkpoint/" + "0" * 64, 404),
        ("GET", "/", 404),
        ("POST", "/add-checkpoint", 400),
    ):
        assert witnesses.ask(method, path, b"x" if method == "POST" else None)[0] == status, path
    refused = run(BIN / "mesh-witness", *witnesses.words, cwd=witnesses.home, env={})
    assert refused.returncode == 1 and "another mesh-witness, PID" in refused.stderr
    running.process.send_signal(signal.SIGKILL)
    running.wait()
    # It goes on from what it has cosigned, and from nothing else.
    again = witnesses.start("--name", "w.example/1")
    assert witnesses.ask("GET", where) == (200, note)
    assert witnesses.grow()[0] == 200
    assert again.stop() == 0
    other = run(BIN / "mesh-witness", *witnesses.words, "--name", "x", cwd=witnesses.home, env={})
    assert other.returncode == 1 and "one name" in other.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "--ct-logs FILE says which logs"),
        (("--ct-logs", "absent.json"), "absent.json cannot be read"),
        (("--ct-logs", "logs.json", "--ct-logs-key", "sha256/x"), "sha256/"),
        (("--ct-logs", "logs.json", "--name", "a b"), "--name"),
        (("--ct-logs", "logs.json", "--name", "a+b"), "--name"),
        (("--ct-logs", "logs.json", "--interval", "0s"), "--interval"),
        (("--ct-logs", "logs.json", "--compare", "http://w.example"), "--compare"),
        (("--ct-logs", "logs.json", "--key-passphrase-fd", "x"), "--key-passphrase-fd"),
    ],
)
def test_what_keeps_it_from_starting_is_said(
    witnesses: Witnesses, words: tuple[str, ...], said: str
) -> None:
    state = ("--state-dir", witnesses.home)
    refused = run(BIN / "mesh-witness", *state, *words, cwd=witnesses.home, env={})
    assert refused.returncode == 1 and said in refused.stderr, refused.stderr
    assert "Traceback" not in refused.stderr
    assert not (witnesses.home / "log-witness").exists()
