"""What the pages for Python say of rotations and revocations, under load: nobody notices, and soon."""

import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from types import ModuleType
from typing import Any

import pytest

from tests.recipes.pages import need, program
from tests.running import PATIENCE, Mesh, Running, free_port, mesh, until
from twisted_mesh.stdlib import JoinedIdentity, join, peer_id

pytestmark = pytest.mark.recipes

CALLER, TILL = "spiffe://mesh.local/service/caller", "spiffe://mesh.local/service/till"
ROTATIONS = pytest.mark.parametrize(
    ("rotations", "least"),
    [(2, 50), pytest.param(10, 1000, marks=pytest.mark.soak)],
    ids=["a few", "a thousand"],
)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    with mesh(tmp_path_factory.mktemp("rotations")) as running:
        running.start_ca()
        yield running


@pytest.fixture(scope="module")
def httpx() -> ModuleType:
    need("httpx")
    import httpx as module

    return module


class Greeting(BaseHTTPRequestHandler):
    """Says who is calling."""

    def do_GET(self) -> None:
        said = peer_id(self.connection).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


@contextmanager
def greeting(me: JoinedIdentity) -> Iterator[int]:
    """A server of the standard library under that identity; its port."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Greeting)
    server.handle_error = lambda *_: None  # type: ignore[method-assign]
    context = me.server_context(allow=[CALLER])
    server.socket = context.wrap_socket(
        server.socket, server_side=True, do_handshake_on_connect=False
    )
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()
    thread.join(PATIENCE)


def revoke(house: Mesh, me: JoinedIdentity) -> float:
    done = house.ctl("cert", "revoke", "--serial", f"{me.svid.leaf.serial_number:x}", "--yes")
    assert done.returncode == 0, done.stderr
    return time.monotonic()


def seconds_to_error(ask: Any, kinds: tuple[type[Exception], ...], since: float) -> float:
    took = 0.0

    def is_refused() -> bool:
        nonlocal took
        took = time.monotonic() - since
        try:
            ask()
        except kinds:
            return True
        return False

    until(is_refused)
    return took


def is_open(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("localhost", port)):
        return True
    return False


@contextmanager
def uvicorn(house: Mesh, home: Path, ttl: str) -> Iterator[int]:
    """The server of fastapi.md; its port."""
    need("uvicorn", "fastapi")
    port, script = free_port(), home / "server.py"
    text = program("fastapi.md", "server", port)
    assert 'dns="localhost")' in text
    script.write_text(text.replace('dns="localhost")', f'dns="localhost", ttl="{ttl}")'))
    server = Running.start(sys.executable, script, cwd=home, env=house.env, real=True)
    try:
        until(lambda: is_open(port) or server.process.poll() is not None, lambda: server.text)
        assert server.process.poll() is None, server.text
        yield port
        assert "Traceback" not in server.text
    finally:
        server.stop()


@ROTATIONS
def test_no_request_to_uvicorn_fails_over_its_rotations(
    house: Mesh, httpx: ModuleType, rotations: int, least: int, tmp_path: Path
) -> None:
    seen: set[bytes] = set()
    asked = 0
    with uvicorn(house, tmp_path, "4s") as port, join(CALLER, state_dir=house.state) as me:
        context = me.client_context(TILL)
        with httpx.Client(verify=context, headers={"Connection": "close"}) as client:
            while len(seen) <= rotations or asked < least:
                with client.stream("GET", f"https://localhost:{port}/") as response:
                    tls = response.extensions["network_stream"].get_extra_info("ssl_object")
                    seen.add(tls.getpeercert(True))
                    assert response.status_code == 200
                    assert CALLER in response.read().decode()
                asked += 1
    print(f"{asked} requests over {len(seen) - 1} rotations")


def test_uvicorn_refuses_who_is_revoked(house: Mesh, httpx: ModuleType, tmp_path: Path) -> None:
    doomed = "spiffe://mesh.local/service/doomed"
    with (
        uvicorn(house, tmp_path, "1h") as port,
        join(doomed, state_dir=house.state) as me,
        httpx.Client(verify=me.client_context(TILL)) as client,  # by one connection
    ):

        def ask() -> None:
            client.get(f"https://localhost:{port}/").raise_for_status()

        ask()
        took = seconds_to_error(ask, (httpx.TransportError,), revoke(house, me))
        print(f"refused {took:.2f} s after the revocation")
        with pytest.raises(httpx.TransportError):
            ask()


@ROTATIONS
def test_no_request_of_httpx_fails_over_its_rotations(
    house: Mesh, httpx: ModuleType, rotations: int, least: int
) -> None:
    asked = 0
    with (
        join(TILL, state_dir=house.state, dns="localhost") as till,
        greeting(till) as port,
        join(CALLER, state_dir=house.state, ttl="4s") as me,
        httpx.Client(verify=me.client_context(TILL), headers={"Connection": "close"}) as client,
    ):
        while me.rotations < rotations or asked < least:
            response = client.get(f"https://localhost:{port}/")
            assert (response.status_code, response.text) == (200, CALLER)
            asked += 1
        print(f"{asked} requests over {me.rotations} rotations")


def test_httpx_refuses_a_server_that_is_revoked(house: Mesh, httpx: ModuleType) -> None:
    with (
        join(TILL, state_dir=house.state, dns="localhost") as till,
        greeting(till) as port,
        join(CALLER, state_dir=house.state) as me,
        httpx.Client(verify=me.client_context(TILL)) as client,
    ):

        def ask() -> None:
            assert client.get(f"https://localhost:{port}/").status_code == 200

        ask()
        took = seconds_to_error(ask, (httpx.TransportError,), revoke(house, till))
        print(f"refused {took:.2f} s after the revocation")
        with pytest.raises(httpx.TransportError):
            ask()
