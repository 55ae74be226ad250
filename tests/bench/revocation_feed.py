"""From the answer to ``revoke`` until the peer is out: a real CA, a real server, and a thousand open connections.

The server asks the CA over mutual TLS. In the end all who are connected are revoked in one burst.
"""

import json
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

from cryptography import x509

from pki.issuing.csr import build_csr
from pki.serial import serial_hex
from pki.svid.x509svid import load_certificates
from tests.authorities import MESH
from tests.bench.meshes import MeshOnStage
from tests.bench.processes import LOAD_CORE, SERVER_CORE, stage
from tests.bench.revocation_live import CLIENT_KEY, Peers, Unanswered, Watch, opened, row
from tests.bench.tables import Table
from tests.ca_socket import CaSocket
from tests.running import BIN

_OPEN = 1000
_TRIALS = 200
_CALLERS = 8
_SERVER = MESH.member("service", "api-server")


class SocketCa(CaSocket):
    """The CA, asked for certificates and to revoke them."""

    def certify(self, number: int) -> Sequence[x509.Certificate]:
        name = str(MESH.member("service", f"s{number}"))
        csr = build_csr(CLIENT_KEY, MESH.member("service", f"s{number}")).decode()
        answer = self.post("/api/v1/sign", {"csr": csr, "requested_id": name})
        return load_certificates("".join((answer["certificate"], *answer["chain"])).encode())

    def revoke(self, serial: int) -> float:
        """When it had answered."""
        self.post("/api/v1/revoke", {"serial": serial_hex(serial)})
        return time.monotonic()


def measure(home: Path, rounds: int, say: Callable[[str], None]) -> Table:
    """Once, of many trials: ``rounds`` are for what is slow."""
    with stage(home) as staged:
        mesh = MeshOnStage(staged)
        ca = mesh.start_ca(core=LOAD_CORE)
        url = "https://localhost:" + ca.wait_for(r"listening on https://[^:]+:(\d+)")[1]
        state = home / "state" / "ca"
        (home / "root.pem").write_bytes((state / "root.crt").read_bytes())
        options = ("--ca-url", url, "--ca-file", state / "root.crt", "--join-token", token(mesh))
        server, port = mesh.start_server(*map(str, options), core=SERVER_CORE)
        with closing(SocketCa(state / "ca.sock")) as asked:
            peers, watch = Peers(asked.certify, home, port), Watch()
            watcher = threading.Thread(target=watch.look, daemon=True)
            open_ones = [opened(peers, watch) for _ in range(_OPEN)]
            watcher.start()
            say(f"{_OPEN:,} connections are open")
            refused, cut, let_in = [], [], 0
            for _ in range(_TRIALS):
                context, leaf = open_ones.pop(0)
                done = asked.revoke(leaf.serial_number)
                while True:
                    try:
                        let_in += 1
                        peers.connect(context).close()
                    except Unanswered:
                        continue  # it was cut as soon as it was there
                    except ssl.SSLError as error:
                        assert "REVOKED" in str(error).upper(), error
                        let_in -= 1
                        break
                refused.append((time.monotonic() - done) * 1000)
                cut.append((watch.wait_for(leaf.serial_number) - done) * 1000)
                open_ones.append(opened(peers, watch))
            say(f"{_TRIALS} have been revoked one by one")
            serials = [leaf.serial_number for _, leaf in open_ones]
            began = time.monotonic()
            answered = _burst(state / "ca.sock", serials)
            took = max(answered.values()) - began
            burst = [(watch.wait_for(serial) - answered[serial]) * 1000 for serial in serials]
            watch.stop()
            watcher.join()
        assert "Traceback" not in ca.text + server.text
    return Table(
        "revocation-feed",
        f"{_OPEN:,} open connections at a real server, which asks a real CA; {_TRIALS} are revoked one by one",
        (
            row("one revoked: a new handshake of it is refused, ms", refused, 100.0),
            row("one revoked: its open connection is closed, ms", cut, 1000.0),
            {
                **row(f"{_OPEN:,} revoked in a burst: each is closed, ms", burst, 0.0),
                "must be under": "",
            },
        ),
        (
            "From the answer to revoke until the client saw it; less than 0 where it saw it before.",
            f"New handshakes that were let in between the answer and the refusal: {let_in}.",
            f"The burst took the CA {took:.2f} s, with {_CALLERS} callers at a time.",
        ),
    )


def _burst(path: Path, serials: list[int]) -> dict[int, float]:
    """When each was answered."""

    def revoke(some: list[int]) -> dict[int, float]:
        with closing(SocketCa(path)) as asked:
            return {serial: asked.revoke(serial) for serial in some}

    answered: dict[int, float] = {}
    with ThreadPoolExecutor(_CALLERS) as pool:
        for found in pool.map(revoke, [serials[n::_CALLERS] for n in range(_CALLERS)]):
            answered |= found
    return answered


def token(mesh: MeshOnStage) -> str:
    command = (BIN / "mesh-ctl", "token", "create", "--spiffe-id", str(_SERVER), "--format", "json")
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=True,
        cwd=mesh.stage.home,
        env={**mesh.env, "PATH": ""},
    )
    token: str = json.loads(done.stdout)["token"]
    return token
