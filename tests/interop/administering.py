"""What the tests of ``mesh-ctl`` share: certificates made at once, and what the command answered."""

import json
import os
import shutil
import subprocess
from typing import Any

import pytest

from pki.issuing.csr import build_csr
from pki.keys import KeyAlgorithm, MemoryKey
from pki.spiffe import SpiffeId
from tests.interop.house import House, Reply, as_json, reply_of
from tests.running import until
from tests.tools import require_tool

Done = subprocess.CompletedProcess[str]
NOBODY = 65534


def issue(house: House, spiffe_id: str, ttl: str = "1h") -> str:
    """A certificate for that ID, asked for on the socket; its serial."""
    key = MemoryKey.generate(KeyAlgorithm.EC_P256)
    asked = {
        "csr": build_csr(key, SpiffeId.parse(spiffe_id)).decode(),
        "requested_id": spiffe_id,
        "ttl": ttl,
    }
    reply = house.post("socket", "/api/v1/sign", asked)
    assert reply.status == 201, reply.text
    serial: str = reply.json["serial"]
    return serial


def answer(house: House, *arguments: str, status: int = 0) -> Any:
    """What ``mesh-ctl … --format json`` prints."""
    done = house.ctl(*arguments, "--format", "json")
    assert done.returncode == status, done.stdout + done.stderr
    return json.loads(done.stdout)


def told(done: Done, status: int) -> str:
    """The sentences on stderr of a command that ended with ``status``; without the program's name."""
    assert done.returncode == status, done.stdout + done.stderr
    lines = done.stderr.splitlines()
    assert all(line.startswith("mesh-ctl: ") for line in lines), done.stderr
    return "\n".join(line.removeprefix("mesh-ctl: ") for line in lines)


def acts(house: House, object_: str, count: int) -> list[Any]:
    """What the log says of ``object_``, once it has said so much: an act is in it a moment after it was done."""
    rows: list[Any] = []

    def told() -> bool:
        rows[:] = answer(house, "audit", "show", "--object", object_)
        return len(rows) >= count

    until(told, lambda: rows)
    return rows


def statuses(house: House, *filters: str) -> dict[str, str]:
    """By serial."""
    rows = answer(house, "cert", "list", "--all", *filters)
    return {row["serial"]: row["status"] for row in rows}


def as_nobody() -> tuple[str, ...]:
    """What runs a command as a user who is neither root nor the CA's own."""
    if os.getuid() != 0:
        pytest.skip("only root can become another user")
    setpriv = str(require_tool("setpriv"))
    return setpriv, f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"


def sign_as_nobody(house: House, spiffe_id: str, *dns_names: str) -> Reply:
    """Another user's request on the socket, for a new key."""
    key = MemoryKey.generate(KeyAlgorithm.EC_P256)
    csr = build_csr(key, SpiffeId.parse(spiffe_id), dns_names).decode()
    body = json.dumps({"csr": csr, "requested_id": spiffe_id})
    curl = shutil.which("curl") or "curl"
    through = ("-sS", "-i", "--unix-socket", house.socket, *as_json(), "--data-binary", "@-")
    url = "http://localhost/api/v1/sign"
    done = house.run(*as_nobody(), curl, *through, url, stdin=body)
    assert done.returncode == 0, done.stderr
    return reply_of(done.stdout)
