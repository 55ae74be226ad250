"""What the tests of ``mesh-ctl`` share: certificates made at once, and what the command answered."""

import json
import subprocess
from typing import Any

from pki.csr import build_csr
from pki.keys import KeyAlgorithm, MemoryKey
from pki.spiffe import SpiffeId
from tests.interop.house import House

Done = subprocess.CompletedProcess[str]


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


def statuses(house: House, *filters: str) -> dict[str, str]:
    """By serial."""
    rows = answer(house, "cert", "list", "--all", *filters)
    return {row["serial"]: row["status"] for row in rows}
