"""From the command until the last of a thousand is out: a root is distrusted, or an issuing CA revoked.

A real CA and a real server, which asks it over mutual TLS; each connection has a certificate of its own.
``python -m tests.bench.distrust DIRECTORY [HOW_MANY]`` measures it without the rest.
"""

import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from attrs import frozen

from pki.issuing.root_line import fingerprint_of
from pki.keys import key_id
from pki.svid.x509svid import load_certificates
from tests.bench.meshes import MeshOnStage
from tests.bench.processes import LOAD_CORE, SERVER_CORE, stage
from tests.bench.revocation_feed import SocketCa, token
from tests.bench.revocation_live import Peers, Unanswered, Watch, opened, row
from tests.bench.tables import Table
from tests.running import until

_OPEN = 1000


@frozen
class Cut:
    """What came of it. Milliseconds, from the question to the CA."""

    answered: float
    closed: list[float]
    server_seconds: float | None
    """The server's processor time until the last was closed; None where that is not known."""
    is_back: float
    """Until the server lets in who has a certificate by what took the place."""


def _root(state: Path) -> tuple[str, dict[str, str]]:
    (root,) = load_certificates((state / "root.crt").read_bytes())
    return "/api/v1/ca/root/distrust", {"fingerprint": fingerprint_of(root)}


def _issuing(state: Path) -> tuple[str, dict[str, str]]:
    issuing, *_ = load_certificates((state / "issuing.crt").read_bytes())
    return "/api/v1/ca/revoke-issuing", {
        "issuer": key_id(issuing.public_key()),
        "reason": "keyCompromise",
    }


_QUESTIONS = {"root": _root, "issuing": _issuing}


def _is_let_in(peers: Peers) -> bool:
    try:
        peers.connect(peers.new()[0]).close()
    except (OSError, Unanswered):
        return False
    return True


def cut(home: Path, what: str, count: int) -> Cut:
    """``what`` is ``root`` or ``issuing``."""
    with stage(home) as staged:
        mesh = MeshOnStage(staged)
        ca = mesh.start_ca("--quota", "off", core=LOAD_CORE)
        url = "https://localhost:" + ca.wait_for(r"listening on https://[^:]+:(\d+)")[1]
        state = home / "state" / "ca"
        root = (state / "root.crt").read_bytes()
        (home / "root.pem").write_bytes(root)
        (home / "ca.pem").write_bytes(root)
        options = ("--ca-url", url, "--ca-file", home / "ca.pem", "--join-token", token(mesh))
        server, port = mesh.start_server(*map(str, options), core=SERVER_CORE)
        with closing(SocketCa(state / "ca.sock", timeout=120.0)) as asked:
            peers, watch = Peers(asked.certify, home, port), Watch()
            watcher = threading.Thread(target=watch.look, daemon=True)
            leaves = [opened(peers, watch)[1] for _ in range(count)]
            watcher.start()
            path, body = _QUESTIONS[what](state)
            spent, began = server.cpu_seconds(), time.monotonic()
            asked.post(path, body)
            answered = time.monotonic()
            closed = [(watch.wait_for(leaf.serial_number) - began) * 1000 for leaf in leaves]
            after = server.cpu_seconds()
            watch.stop()
            watcher.join()
            (home / "root.pem").write_bytes((state / "root.crt").read_bytes())
            until(lambda: _is_let_in(peers))
            is_back = time.monotonic() - began
        assert "Traceback" not in ca.text + server.text
    return Cut(
        (answered - began) * 1000,
        closed,
        after - spent if after and spent else None,
        is_back * 1000,
    )


def measure(home: Path, rounds: int, say: Callable[[str], None]) -> Table:
    """Once each: ``rounds`` are for what is slow."""
    words = {"root": "the root is distrusted", "issuing": "the issuing CA is revoked"}
    found = {what: cut(home / what, what, _OPEN) for what in _QUESTIONS}
    return Table(
        "distrust",
        f"{_OPEN:,} open connections at a real server, each with a certificate, when all that they rest on goes",
        tuple(row(f"{words[what]}: closed, ms", one.closed, 5000.0) for what, one in found.items()),
        tuple(
            f"{words[what]}: the CA answered after {one.answered:.0f} ms; who had a certificate by its successor was "
            f"let in after {one.is_back:.0f} ms; the server's processor time was {one.server_seconds} s."
            for what, one in found.items()
        ),
    )


if __name__ == "__main__":
    where = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(tempfile.mkdtemp())
    how_many = int(sys.argv[2]) if len(sys.argv) > 2 else _OPEN
    for which in _QUESTIONS:
        came = cut(where / which, which, how_many)
        print(which, row("", came.closed, 0.0), came.answered, came.is_back, came.server_seconds)
