"""What docs/recipes/ tells users of Python to write, run as it stands there, at a real CA."""

import contextlib
import http.client
import socket
import ssl
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.recipes.pages import PAGES, need, program
from tests.running import BIN, PATIENCE, Mesh, Running, free_port, mesh, until
from tests.tools import require_tool
from twisted_mesh.stdlib import JoinedIdentity, join

pytestmark = pytest.mark.recipes

CALLER, TILL = "spiffe://mesh.local/service/caller", "spiffe://mesh.local/service/till"


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    with mesh(tmp_path_factory.mktemp("recipes")) as running:
        running.start_ca()
        running.start_server()
        yield running


@pytest.fixture(scope="module")
def caller(house: Mesh) -> Iterator[JoinedIdentity]:
    with join(CALLER, state_dir=house.state) as me:
        yield me


@contextlib.contextmanager
def running(house: Mesh, *command: str | Path, port: int, cwd: Path) -> Iterator[Running]:
    """A server of somebody's, once it takes connections."""
    server = Running.start(*command, cwd=cwd, env=house.env, real=True)
    try:
        until(lambda: is_open(port) or server.process.poll() is not None, lambda: server.text)
        assert server.process.poll() is None, server.text
        yield server
    finally:
        server.stop()


def is_open(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("localhost", port)):
        return True
    return False


def answer(port: int, context: ssl.SSLContext) -> str:
    connection = http.client.HTTPSConnection("localhost", port, context=context, timeout=30)
    with contextlib.closing(connection):
        connection.request("GET", "/")
        response = connection.getresponse()
        assert response.status == 200, response.read()
        return response.read().decode()


def assert_it_judges(house: Mesh, port: int, caller: JoinedIdentity, told: str = CALLER) -> None:
    """It answers who may call, twice, and nobody without a certificate or with a revoked one."""
    context = caller.client_context(TILL)
    for _ in range(2):
        assert told in answer(port, context)
    nobody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    nobody.load_verify_locations(house.root)
    with pytest.raises((OSError, http.client.HTTPException)):
        answer(port, nobody)
    with join("spiffe://mesh.local/service/doomed", state_dir=house.state) as doomed:
        context = doomed.client_context(TILL)
        assert answer(port, context)
        serial = f"{doomed.svid.leaf.serial_number:x}"
        done = house.ctl("cert", "revoke", "--serial", serial, "--yes")
        assert done.returncode == 0, done.stderr

        def is_refused() -> bool:
            try:
                answer(port, context)
            except (OSError, http.client.HTTPException):
                return True
            return False

        until(is_refused)
    assert told in answer(port, caller.client_context(TILL))


def assert_it_prints(house: Mesh, page: str, role: str, port: int, said: str, **env: str) -> None:
    script = house.home / f"{Path(page).stem}-{role}.py"
    script.write_text(program(page, role, port))
    done = house.run(sys.executable, "-W", "error::ResourceWarning", script, env=env)
    assert done.returncode == 0, done.stderr
    assert said in done.stdout


PYTHON = {
    "aiohttp.md",
    "asyncio.md",
    "django.md",
    "fastapi.md",
    "flask.md",
    "grpcio.md",  # by files, as psycopg.md: tried in modules of their own
    "http-client.md",
    "httpx.md",
    "psycopg.md",
    "redis-py.md",
    "requests.md",
}


def test_every_page_with_a_program_of_pythons_is_run() -> None:
    assert {page.name for page in PAGES.glob("*.md") if "```python" in page.read_text()} == PYTHON


@pytest.mark.parametrize(
    ("page", "module"),
    [("http-client.md", "http"), ("requests.md", "requests"), ("httpx.md", "httpx")],
    ids=["http-client", "requests", "httpx"],
)
def test_a_client_is_served_as_who_it_is(house: Mesh, page: str, module: str) -> None:
    need(module)
    assert_it_prints(house, page, "client", house.port, f'"caller":"{CALLER}"')


@contextlib.contextmanager
def tunnelling(port: int) -> Iterator[tuple[int, list[bytes]]]:
    """An HTTP proxy that leads one caller to ``port``, whatever it asks for: its own port, and what was asked."""
    asked: list[bytes] = []

    def carry(one: socket.socket, other: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while said := one.recv(65536):
                other.sendall(said)
        for end in (one, other):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def serve(listening: socket.socket) -> None:
        with contextlib.suppress(OSError), listening.accept()[0] as caller:
            asked.append(caller.recv(65536))
            with socket.create_connection(("localhost", port)) as server:
                caller.sendall(b"HTTP/1.1 200 here you are\r\n\r\n")
                back = threading.Thread(target=carry, args=(server, caller), daemon=True)
                back.start()
                carry(caller, server)
                back.join(PATIENCE)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve, args=(listening,), daemon=True)
        thread.start()
        yield listening.getsockname()[1], asked
        with contextlib.suppress(OSError):
            listening.shutdown(socket.SHUT_RDWR)
        thread.join(PATIENCE)


@pytest.mark.parametrize(
    ("page", "module"),
    [("requests.md", "requests"), ("httpx.md", "httpx")],
    ids=["requests", "httpx"],
)
def test_behind_a_proxy_that_the_environment_names_the_server_is_judged_as_well(
    house: Mesh, page: str, module: str
) -> None:
    need(module)
    with tunnelling(house.port) as (proxy, asked):
        env = {"HTTPS_PROXY": f"http://127.0.0.1:{proxy}", "NO_PROXY": "", "no_proxy": ""}
        assert_it_prints(house, page, "client", house.port, f'"caller":"{CALLER}"', **env)
    assert asked and asked[0].startswith(b"CONNECT localhost:")


def test_asyncio_streams(house: Mesh) -> None:
    said = "hello spiffe://mesh.local/service/shop, you said good day"
    assert_it_prints(house, "asyncio.md", "whole", 0, said)


@pytest.mark.parametrize("page", ["aiohttp.md", "fastapi.md"])
def test_a_server_tells_who_is_calling(
    house: Mesh, caller: JoinedIdentity, page: str, tmp_path: Path
) -> None:
    need("aiohttp", "uvicorn", "fastapi")
    port = free_port()
    script = tmp_path / "server.py"
    script.write_text(program(page, "server", port))
    with running(house, sys.executable, script, port=port, cwd=tmp_path) as server:
        assert_it_judges(house, port, caller)
        if page == "aiohttp.md":
            assert_it_prints(house, page, "client-of-till", port, CALLER)
        assert "Traceback" not in server.text


@pytest.mark.parametrize(
    "options",
    [(), ("--workers", "2", "--preload"), ("--workers", "2", "--threads", "4")],
    ids=["as-it-is", "prefork", "threads"],
)
def test_gunicorn_with_flask(
    house: Mesh, caller: JoinedIdentity, options: tuple[str, ...], tmp_path: Path
) -> None:
    need("gunicorn", "flask")
    port = free_port()
    (tmp_path / "app.py").write_text(program("flask.md", "app"))
    (tmp_path / "gunicorn.conf.py").write_text(program("flask.md", "config", port))
    command = (BIN / "gunicorn", "app:app", *options)
    with running(house, *command, port=port, cwd=tmp_path) as server:
        assert_it_judges(house, port, caller)
        assert "Traceback" not in server.text


def test_django_under_daphne(house: Mesh, caller: JoinedIdentity, tmp_path: Path) -> None:
    need("daphne", "django")
    port = free_port()
    (tmp_path / "site_asgi.py").write_text(program("django.md", "app"))
    endpoint = f"mesh:{port}:interface=127.0.0.1:spiffe-id=" + TILL.replace(":", "\\:")
    command = (BIN / "daphne", "-e", endpoint, "site_asgi:application")
    with running(house, *command, port=port, cwd=tmp_path):
        assert_it_judges(house, port, caller, "served")


def test_redis_py(house: Mesh, tmp_path: Path) -> None:
    need("redis")
    redis = require_tool("redis-server")
    port = free_port()
    with join("spiffe://mesh.local/service/redis", dns="localhost", state_dir=house.state) as me:
        (tmp_path / "svid.pem").write_bytes(me.svid.chain_pem())
        (tmp_path / "key.pem").write_bytes(me.svid.key.to_pem())
    files = ("--tls-cert-file", "svid.pem", "--tls-key-file", "key.pem")
    demands = ("--tls-ca-cert-file", house.root, "--tls-auth-clients", "yes")
    places = ("--port", "0", "--tls-port", str(port), "--bind", "127.0.0.1", "--save", "")
    with running(house, redis, *places, *files, *demands, port=port, cwd=tmp_path):
        assert_it_prints(house, "redis-py.md", "client-of-redis", port, "hello")
