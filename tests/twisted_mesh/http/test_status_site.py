"""Health in plaintext: what is answered, and to whom: to nobody who came by a name that is not ours."""

import pytest
from twisted.internet.task import Clock

from tests.twisted_mesh.talking import Talk
from twisted_mesh.http.server import BoundedSite
from twisted_mesh.http.status_site import LIVENESS, Page, StatusSite


async def ready() -> Page:
    return Page(b'{"status":"ready"}')


async def broken() -> Page:
    raise RuntimeError("secret words")


QUESTIONS = {"/livez": LIVENESS, "/readyz": ready, "/metrics": broken}


def asked(path: str, *hosts: str, version: str = "1.1", method: str = "GET") -> tuple[int, bytes]:
    clock = Clock()
    talk = Talk(BoundedSite(StatusSite(QUESTIONS, ["api.mesh.local"]), clock), clock)
    heads = "".join(f"Host: {host}\r\n" for host in hosts)
    talk.say(f"{method} {path} HTTP/{version}\r\n{heads}\r\n".encode())
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


@pytest.mark.parametrize(
    "path", ["/", "/api/v1/certificates", "/livez/", "/livez/x", "//livez", "/../livez", "/LIVEZ"]
)
def test_there_is_nothing_else(path: str) -> None:
    status, heard = asked(path, "localhost")
    assert status == 404
    assert b"there is nothing here but /livez, /readyz, /metrics" in heard


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_nothing_is_changed_by_it(method: str) -> None:
    status, heard = asked("/livez", "localhost", method=method)
    assert status == 405
    assert b"allow: get, head\r\n" in heard.lower()


def test_a_bug_is_a_500_without_details() -> None:
    status, heard = asked("/metrics", "localhost")
    assert status == 500
    assert b"secret" not in heard
