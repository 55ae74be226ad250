"""docs/recipes/sidecar-*.md, with the real programs."""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

import pytest

from tests.recipes.estate import DOCUMENTS, Estate, estate, is_open
from tests.recipes.pages import need
from tests.recipes.postgres import POSTGRES, as_postgres, become, needs_root, program
from tests.recipes.sidecars import CUT_OFF, Open, Program, Reader, connection
from tests.running import PATIENCE, is_listening, until
from tests.tools import require_tool

pytestmark = pytest.mark.recipes

HTTP = connection(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", b"HTTP/1.1 200")
REDIS = connection(b"PING\r\n", b"+PONG")


@pytest.fixture
def made() -> Iterator[Estate]:
    with estate() as found:
        yield found


def reader(
    made: Estate,
    name: str,
    programs: Mapping[str, Program],
    opened: Open,
    places: Mapping[str, str | Path] | None = None,
) -> Reader:
    page = DOCUMENTS / f"sidecar-{name}.md"
    return Reader(made, page, programs, opened, places or {})


def test_node(made: Estate) -> None:
    def run(reader: Reader, text: str) -> None:
        script = reader.home / "service.js"
        script.write_text(text)
        made.start(require_tool("node"), script)
        until(lambda: is_open(reader.port("8080")))

    reader(made, "node", {"js": run}, HTTP).read()


def test_http_server(made: Estate) -> None:
    places = {"/srv/pages": pages_of(made)}
    reader(made, "http-server", {"sh": http_server}, HTTP, places).read()


def http_server(reader: Reader, text: str) -> None:
    reader.estate.start("sh", "-c", f"exec {text.replace('python ', f'{sys.executable} ')}")
    until(lambda: is_open(reader.port("8080")))


def pages_of(made: Estate) -> Path:
    pages = made.home / "pages"
    pages.mkdir()
    (pages / "hello.txt").write_text("hello\n")
    return pages


def test_moving_in(made: Estate) -> None:
    config = made.home / "web.toml"
    places = {
        "/srv/pages": pages_of(made),
        "/etc/mesh/web.toml": config,
        "/run/mesh/web.pid": made.home / "web.pid",
    }
    programs = {"sh": http_server, "toml": keep(config), "ini": lambda reader, text: None}
    Reader(made, DOCUMENTS.parent / "SIDECAR.md", programs, HTTP, places).read()


def test_stunnel_on_the_other_side(made: Estate) -> None:
    stunnel = require_tool("stunnel")
    config = made.home / "stunnel.conf"

    def run(reader: Reader, text: str) -> None:
        config.write_text(text)
        made.start(stunnel, config)
        until(lambda: is_open(reader.port("8081")))

    pages = pages_of(made)
    places = {"/etc/stunnel/mesh": made.home / "mesh", "/run/stunnel.pid": made.home / "pid"}
    programs = {"sh": lambda reader, text: None, "stunnel": run}
    page = Reader(made, DOCUMENTS.parent / "COMING_FROM.md", programs, HTTP, places)
    serve = f"python -m http.server --bind 127.0.0.1 --directory {pages} {page.port('8080')}"
    http_server(page, serve)
    page.read()


def test_grpc_goes_through_as_bytes(made: Estate) -> None:
    need("grpc")
    peer, where = Path(__file__).with_name("grpcio_peer.py"), made.home / "grpc.sock"
    name = "spiffe://mesh.local/service/proxy"
    serve = [sys.executable, str(peer), "serve", f"unix:{where}"]
    with subprocess.Popen(serve, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == b"serving\n"
        _, port = made.mesh.start_proxy("server", f"unix:{where}", "--allow", name)
        _, door = made.mesh.start_proxy("client", f"localhost:{port}", "--verify", name)
        with import_module("grpc").insecure_channel(f"127.0.0.1:{door}") as channel:
            large = b"x" * 1_000_000
            assert channel.unary_unary("/a.A/Echo")(large, timeout=PATIENCE) == large
            talk = channel.stream_stream("/a.A/Talk")(iter([b"a", b"b"]), timeout=PATIENCE)
            assert list(talk) == [b"A", b"B"]
        server.communicate()


def keep(config: Path) -> Program:
    """The block goes into that file."""

    def write(reader: Reader, text: str) -> None:
        config.write_text(text)
        config.chmod(0o600)

    return write


def test_redis(made: Estate) -> None:
    socket = made.home / "redis.sock"

    def run(reader: Reader, text: str) -> None:
        config = reader.home / "redis.conf"
        config.write_text(f'{text}save ""\n')
        made.start(require_tool("redis-server"), config)
        until(lambda: is_listening(socket))

    require_tool("redis-cli")
    reader(made, "redis", {"redis": run}, REDIS, {"/run/redis/redis.sock": socket}).read()


@needs_root
def test_postgresql(made: Estate) -> None:
    home = made.home / POSTGRES
    data, shop = home / "data", made.home / "shop"
    files = {"ini": "postgresql.conf", "hba": "pg_hba.conf", "ident": "pg_ident.conf"}

    def configure(language: str) -> Program:
        def add(reader: Reader, text: str) -> None:
            with (data / files[language]).open("a") as file:
                file.write(text)
            if language == "ident":  # the last one
                start(reader)

        return add

    def start(reader: Reader) -> None:
        port = reader.port("5432")
        with (data / "postgresql.conf").open("a") as file:
            file.write(f"port = {port}\nfsync = off\n")
        made.start(*become(), program("postgres"), "-D", data)
        socket = home / f".s.PGSQL.{port}"
        until(lambda: socket.exists() and is_listening(socket))
        ask(reader, "create role app login")

    def ask(reader: Reader, query: str) -> str:
        words = ("psql", "-h", home, "-p", reader.port("5432"), "-U", "postgres", "-Atqc", query)
        done = subprocess.run([*become(), *map(str, words)], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    @contextmanager
    def long_query(reader: Reader) -> Iterator[None]:
        """By a psql that has an answer to wait for, through the sidecars."""
        count = "select count(*) from pg_stat_activity where query = 'select pg_sleep(3600)'"
        to = f"host=127.0.0.1 port={reader.doors[0]} user=app dbname=postgres sslmode=disable"
        psql = made.start("psql", to, "-Atc", "select pg_sleep(3600)")
        until(lambda: ask(reader, count) == "1\n")
        yield
        assert psql.wait(CUT_OFF) == 2
        until(lambda: ask(reader, count) == "0\n")

    require_tool("psql")
    shop.mkdir()
    home.mkdir()
    shutil.chown(home, POSTGRES, POSTGRES)
    as_postgres(
        program("initdb"), "-D", data, "-A", "peer", "-U", "postgres", "--no-sync", cwd=home
    )
    (data / "pg_hba.conf").write_text("local all postgres peer\n")
    places = {
        "/var/run/postgresql": home,
        "/run/shop": shop,
        "mesh mesh-proxy app": "mesh root app",
    }
    programs = {language: configure(language) for language in files}
    reader(made, "postgresql", programs, long_query, places).read()


def test_nginx(made: Estate) -> None:
    nginx = require_tool("nginx")
    config = made.home / "web.toml"

    def run(reader: Reader, text: str) -> None:
        home = reader.home / f"nginx-{len(made.processes)}"
        home.mkdir()
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        places = "\n".join(f"{kind}_temp_path {home}/{kind};" for kind in kinds)
        (home / "nginx.conf").write_text(
            f"daemon off; worker_processes 1; pid {home}/pid; error_log {home}/error.log;\n"
            f"events {{ }}\nhttp {{ access_log off; {places}\n{text}\n}}\n"
        )
        made.start(nginx, "-c", home / "nginx.conf", "-e", home / "error.log")
        for port in re.findall(r"listen 127\.0\.0\.1:(\d+)", text):
            until(lambda port=int(port): is_open(port))

    reader(
        made, "nginx", {"nginx": run, "toml": keep(config)}, HTTP, {"/etc/mesh/web.toml": config}
    ).read()
