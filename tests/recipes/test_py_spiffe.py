"""The real py-spiffe, as a workload of the Workload API: every call, ten rotations, and the end of its identity."""

import json
import os
import select
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jwt
import pytest
from twisted.internet.task import LoopingCall

from pki.errors import PkiError
from pki.jwt_svid.validator import validate
from pki.keys import jwk_members, key_id
from tests.authorities import BACKEND, MESH, NOW, OTHER, key
from tests.recipes.pages import need
from tests.twisted_mesh.grpc.sockets import own_reactor, served, turn_until
from tests.twisted_mesh.workload.api_caller import server_of
from tests.twisted_mesh.workload.fake_workloads import (
    FakeWorkloads,
    bundles,
    identity,
    refusing,
)
from twisted_mesh.workload.interface import Bundles, JwtSvid, Snapshot, WorkloadSvid

pytestmark = pytest.mark.recipes
PEER = Path(__file__).with_name("py_spiffe_peer.py")
ROTATIONS = 10
LATER = datetime(2100, 1, 1, tzinfo=UTC)


def now(*svids: WorkloadSvid) -> Snapshot:
    public = key("jwt").public_key
    member = {"use": "jwt-svid", "kid": key_id(public), **(jwk_members(public) or {})}
    jwks = json.dumps({"keys": [member]}).encode()
    ours = bundles(OTHER)
    return Snapshot(Bundles(MESH, ours.x509, {MESH: jwks}, ours.crls), svids)


def token() -> JwtSvid:
    said = {"sub": str(BACKEND), "aud": ["web"], "iat": NOW, "exp": LATER}
    header = {"kid": key_id(key("jwt").public_key)}
    text = jwt.encode(said, key("jwt").private_key, algorithm="ES256", headers=header)
    return JwtSvid(BACKEND, text, LATER)


@contextmanager
def running(path: Path) -> Iterator[tuple[subprocess.Popen[bytes], list[dict[str, Any]]]]:
    """The peer, and what it has said."""
    said: list[dict[str, Any]] = []
    command = [sys.executable, str(PEER), f"unix://{path}", str(ROTATIONS)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd="/") as process:
        assert process.stdout is not None

        pipe, rest = process.stdout.fileno(), b""

        def read() -> None:
            nonlocal rest
            while select.select([pipe], [], [], 0)[0] and (data := os.read(pipe, 4096)):
                *lines, rest = (rest + data).split(b"\n")
                said.extend(map(json.loads, lines))

        looking = LoopingCall(read)
        looking.clock = own_reactor()
        looking.start(0.02)
        try:
            yield process, said
        finally:
            looking.stop()
            process.kill()


def test_every_call_is_answered_and_rotations_arrive() -> None:
    need("spiffe", "grpc")
    workloads = FakeWorkloads(now(identity("backend", "in"), identity("b", "out")), [token()])
    with served(server_of(workloads, validate)) as path, running(path) as (process, said):

        def told() -> dict[str, Any]:
            return {name: value for line in said for name, value in line.items()}

        turn_until(lambda: "watching" in told() or process.poll() is not None, told)
        for serial in range(1, ROTATIONS + 1):
            workloads.tell(now(identity(serial=serial)))
            _a_moment()
        turn_until(lambda: "rotations" in told() or process.poll() is not None, told)
        workloads.tell(refusing(PkiError("no entry is met; nearest: web"), final=True))
        turn_until(lambda: process.poll() is not None, told)
        turn_until(lambda: "denied" in told(), told)
    found = told()
    assert "no entry is met; nearest: web" in found.pop("denied")
    assert "web" in found.pop("invalid")
    assert found == {
        "svid": str(BACKEND),
        "svids": [str(BACKEND), str(MESH.member("service", "b"))],
        "context": str(BACKEND),
        "bundles": ["mesh.local", "other.example"],
        "jwt": str(BACKEND),
        "jwt_bundles": ["mesh.local"],
        "valid": str(BACKEND),
        "watching": True,
        "rotations": ROTATIONS,
    }


def _a_moment() -> None:
    """For the news to be read: the newest takes the place of what was not."""
    passed: list[bool] = []
    own_reactor().callLater(0.05, passed.append, True)
    turn_until(lambda: passed)
