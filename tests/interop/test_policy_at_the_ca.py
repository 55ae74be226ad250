"""A real CA under a policy: who gets a certificate, what a broken one changes, who is locked out and gets back in."""

import json
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from pki.issuing.csr import build_csr
from pki.keys import KeyAlgorithm, MemoryKey
from pki.spiffe import SpiffeId
from tests.ca_socket import CaSocket
from tests.interop.administering import acts, answer, told
from tests.interop.house import House
from tests.running import until

WEB, SHOP = (f"spiffe://mesh.local/service/{name}" for name in ("web", "shop"))
POLICY = """
version = 1
[[rule]]
name = "by-name"
effect = "allow"
on = ["issue", "renew", "issue-jwt"]
when = '''request.spiffe_id in [{names}]'''
"""
EXTERNAL = """
[[external]]
name = "opa"
url = "{url}"
timeout = 0.5
on = ["issue"]
"""


def ask(house: House, spiffe_id: str) -> tuple[int, str]:
    """The status of a request for a certificate, and its code where it is refused."""
    key = MemoryKey.generate(KeyAlgorithm.EC_P256)
    asked = {
        "csr": build_csr(key, SpiffeId.parse(spiffe_id)).decode(),
        "requested_id": spiffe_id,
    }
    caller = CaSocket(house.socket)
    try:
        caller.request(
            "POST", "/api/v1/sign", json.dumps(asked), {"Content-Type": "application/json"}
        )
        reply = caller.getresponse()
        said = json.loads(reply.read())
        if reply.status == 503:
            assert int(reply.headers["retry-after"]) > 0
        return reply.status, said.get("code", "")
    finally:
        caller.close()


GRANTED, DENIED, UNDECIDED = (201, ""), (403, "policy-denied"), (503, "policy-unavailable")


def write(house: House, *names: str, more: str = "") -> Path:
    """The policy's file: these IDs and no others."""
    path = house.home / "policy.toml"
    path.write_text(POLICY.format(names=", ".join(f'"{name}"' for name in names)) + more)
    path.chmod(0o600)
    return path


def decisions(house: House) -> list[tuple[str, str]]:
    caller = CaSocket(house.socket)
    try:
        caller.request("GET", "/api/v1/policy/decisions?last=100")
        found = json.loads(caller.getresponse().read())["decisions"]
        return [(one["outcome"], one["rule"]) for one in found]
    finally:
        caller.close()


def standing(house: House) -> str:
    checks = answer(house, "doctor")["checks"]
    (found,) = [check["status"] for check in checks if check["name"] == "policy"]
    return str(found)


def test_a_policy_from_its_start_to_a_lockout_and_back(house: House) -> None:
    path = write(house, WEB)
    ca = house.start_ca("--policy", str(path))
    assert [ask(house, WEB), ask(house, SHOP)] == [GRANTED, DENIED]
    ctl = ("policy", "reload")
    # One that is broken changes nothing, however it is read again.
    path.write_text(path.read_text().replace("spiffe_id in", "spiffe_idd in"))
    refused = told(house.ctl(*ctl), 1)
    assert "spiffe_idd" in refused and refused.count("bad-policy") == 1
    assert refused.count("stays in force") == 1
    ca.process.send_signal(signal.SIGHUP)
    ca.wait_for(
        r"--policy \S+ is not taken up, and what was read before stays in force: policy\.toml"
    )
    assert [ask(house, WEB), ask(house, SHOP)] == [GRANTED, DENIED]
    assert standing(house) == "warn"
    # A good one counts at once.
    write(house, SHOP)
    assert answer(house, *ctl)["changed"] is True
    assert [ask(house, WEB), ask(house, SHOP)] == [DENIED, GRANTED]
    write(house, WEB, SHOP)
    ca.process.send_signal(signal.SIGHUP)
    ca.wait_for(r"--policy \S+ was read again: now sha256:")
    assert [ask(house, WEB), ask(house, SHOP)] == [GRANTED, GRANTED]
    # What locks everybody out, the CA's own socket takes back.
    write(house)
    path.write_text(path.read_text().replace("in []", '== "nobody"'))
    answer(house, *ctl)
    assert [ask(house, WEB), ask(house, SHOP)] == [DENIED, DENIED]
    withdrawn = answer(house, "policy", "withdraw", "--reason", "locked out", "--yes")
    assert withdrawn["state"] == "withdrawn"
    ca.wait_for("THE POLICY IS WITHDRAWN by unix:uid:")
    assert [ask(house, WEB), ask(house, SHOP)] == [GRANTED, GRANTED]
    assert standing(house) == "warn" and house.ctl("policy", "show").returncode == 1
    # kill -9: it is in force again, and what was decided is still known.
    before = decisions(house)
    assert ("allow", "by-name") in before and ("deny", "") in before
    ca.process.kill()
    ca.wait()
    house.processes.remove(ca)
    house.start_ca("--policy", str(path))
    assert ask(house, WEB) == DENIED
    assert decisions(house) == [*before, ("deny", "")]
    did = [act["entry"]["facts"]["did"] for act in acts(house, "policy", 8)]
    assert did == [
        "load-policy", "refuse-policy", "refuse-policy", "reload-policy", "reload-policy",
        "reload-policy", "withdraw-policy", "load-policy",
    ]  # fmt: skip
    # What the policy before would have said of all that.
    other = house.home / "other"
    other.mkdir(mode=0o700)
    (other / "a.toml").write_text(POLICY.format(names=f'"{WEB}"'))
    found = answer(house, "policy", "dry-run", other, status=1)
    changed = {(one["was"]["outcome"], one["outcome"]) for one in found["changes"]}
    assert changed == {("allow", "deny"), ("deny", "allow")}
    assert found["asked"] == len(before) + 1 and found["left_out"] == 0
    assert "would" not in told(house.ctl("policy", "dry-run", path), 1)


def test_a_policy_that_cannot_be_used_is_no_start(house: House) -> None:
    path = write(house, WEB)
    path.write_text(path.read_text().replace("allow", "alow"))
    ca = house.twistd("mesh-ca", "--port", "0", "--policy", str(path))
    assert ca.wait() != 0
    assert "effect is neither allow nor deny" in ca.text
    assert "Traceback" not in ca.text
    assert not (house.state / "ca" / "root.crt").exists()


class Opa(BaseHTTPRequestHandler):
    """A decision point that does what the test says."""

    protocol_version = "HTTP/1.1"
    does: Callable[["Opa"], None]
    asked: list[Any]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        type(self).asked.append(json.loads(body)["input"])
        type(self).does(self)

    def log_message(self, *_: object) -> None:
        """Nobody reads it."""


def says(body: bytes) -> Callable[[Opa], None]:
    def say(opa: Opa) -> None:
        opa.send_response(200)
        opa.send_header("content-length", str(len(body)))
        opa.end_headers()
        opa.wfile.write(body)

    return say


def loops(opa: Opa) -> None:
    """A byte now and then, until it is hung up on."""
    opa.send_response(200)
    opa.send_header("content-length", "100000")
    opa.end_headers()
    try:
        while True:
            opa.wfile.write(b" ")
            time.sleep(0.02)
    except OSError:
        pass


def is_slow(opa: Opa) -> None:
    opa.rfile.read(1)  # until it is hung up on


@contextmanager
def deciding() -> Iterator[tuple[type[Opa], str]]:
    class Point(Opa):
        asked: list[Any] = []  # noqa: RUF012

    server = ThreadingHTTPServer(("127.0.0.1", 0), Point)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield Point, f"http://127.0.0.1:{server.server_port}/v1/data/mesh"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_a_decision_point_outside_is_asked_and_never_waited_for_long(house: House) -> None:
    with deciding() as (point, url):
        path = write(house, WEB, more=EXTERNAL.format(url=url))
        point.does = says(b'{"result": true}')
        house.start_ca("--policy", str(path))
        assert ask(house, WEB) == GRANTED
        assert point.asked[-1]["request"]["spiffe_id"] == WEB
        assert point.asked[-1]["source"]["transport"] == "unix"
        count = len(point.asked)
        assert ask(house, SHOP) == DENIED and len(point.asked) == count
        point.does = says(b'{"result": {"allow": false, "reason": "not in the inventory"}}')
        assert ask(house, WEB) == DENIED
        for does in (says(b"garbage"), says(b'{"result": 1}'), loops, is_slow):
            point.does = does
            began = time.monotonic()
            assert ask(house, WEB) == UNDECIDED
            assert time.monotonic() - began < 5
        point.does = says(b'{"result": true}')
        assert ask(house, WEB) == GRANTED
    assert ask(house, WEB) == UNDECIDED  # it is gone
    answer(house, "policy", "withdraw", "--reason", "opa is gone", "--yes")
    assert ask(house, WEB) == GRANTED


def test_others_are_served_while_a_decision_point_is_slow(house: House) -> None:
    with deciding() as (point, url):
        path = write(house, WEB, SHOP, more=EXTERNAL.format(url=url))
        point.does = is_slow
        house.start_ca("--policy", str(path))
        outcomes: list[tuple[int, str]] = []
        asking = [
            threading.Thread(target=lambda: outcomes.append(ask(house, WEB))) for _ in range(20)
        ]
        for thread in asking:
            thread.start()
        until(lambda: point.asked)
        began = time.monotonic()
        caller = CaSocket(house.socket)
        caller.request("GET", "/livez")
        assert caller.getresponse().status == 200
        caller.close()
        assert time.monotonic() - began < 0.4
        for thread in asking:
            thread.join()
    assert outcomes == [UNDECIDED] * 20
