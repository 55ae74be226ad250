"""The status of a server: what it answers, and to whom: to nobody who reached it by a name that is not its own."""

from types import SimpleNamespace
from typing import Any

import pytest
from twisted.internet.task import Clock

from tests.twisted_mesh.recording import RecordingLog
from tests.twisted_mesh.talking import Talk
from twisted_mesh.http.server import BoundedSite
from twisted_mesh.runtime.descriptors import Descriptors
from twisted_mesh.taps.server import HealthResource

READY: Any = SimpleNamespace(
    seconds_left=60.0,
    trust_store=SimpleNamespace(freshness=SimpleNamespace(age=None, refuses=False)),
)


def asked(path: str, *hosts: str, version: str = "1.1") -> tuple[int, bytes]:
    clock = Clock()
    descriptors = Descriptors(clock.seconds, RecordingLog())
    talk = Talk(BoundedSite(HealthResource(READY, descriptors, ["api.mesh.local"]), clock), clock)
    heads = "".join(f"Host: {host}\r\n" for host in hosts)
    talk.say(f"GET {path} HTTP/{version}\r\n{heads}\r\n".encode())
    heard = talk.wire.value()
    return int(heard.split()[1]), heard


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LOCALHOST:9100",
        "127.0.0.1",
        "127.0.0.1:9100",
        "[::1]",
        "[::1]:9100",
        "10.1.2.3:9100",
        "api.mesh.local:9100",
    ],
)
def test_by_its_addresses_and_names_it_answers(host: str) -> None:
    assert asked("/readyz", host)[0] == 200


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/metrics", "/"])
@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:9100", "localhost.evil.example", "1.2.3.4.evil", "[x]"],
)
def test_by_the_name_of_somebody_else_nothing_is_told(path: str, host: str) -> None:
    status, heard = asked(path, host)
    assert status == 421
    assert heard.startswith(b"HTTP/1.1 421 Misdirected Request\r\n")
    assert b'"code":"cross-origin"' in heard
    assert b"ready" not in heard and b"mesh_" not in heard


def test_a_program_that_speaks_of_no_host_is_answered() -> None:
    assert asked("/livez", version="1.0")[0] == 200
