"""A mesh that requires hybrid groups everywhere, and callers that have none: openssl, curl and Python."""

import re
import socket
import ssl
import tempfile
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.first_lines.openssl_conf import configured
from tests.interop.house import House, Identity
from tests.interop.house import house as inhabited
from tests.interop.test_forged_clients import REQUEST
from tests.running import BIN, free_port

REQUIRE = "--require-pq"
CLASSICAL = "classical-key-exchange"
#: OpenSSL's words for the alert, before 3.2 and since.
_ALERT = re.compile(r"(sslv3|tls) alert handshake failure|handshake_failure|handshake failure")


@pytest.fixture(scope="module")
def strict() -> Iterator[House]:
    """A CA with its TLS port, a server, and a proxy before a plain echo: all of them require it."""
    with tempfile.TemporaryDirectory(prefix="mesh-") as name, inhabited(Path(name)) as house:
        ca = house.start_ca(REQUIRE, "--federation", "127.0.0.1:0")
        server = house.start_server(REQUIRE)
        house.identity("payment-worker", REQUIRE)
        yield house
        assert server.stop() == 0
        assert ca.stop() == 0


@pytest.fixture
def identity(strict: House) -> Identity:
    return strict.identity("payment-worker")


def is_classical() -> bool:
    """Whether openssl and curl of this machine have no hybrid group."""
    found = re.match(r"OpenSSL (\d+)\.(\d+)", ssl.OPENSSL_VERSION)
    return found is not None and (int(found[1]), int(found[2])) < (3, 5)


def over_https(strict: House) -> tuple[str, ...]:
    return ("--ca-url", f"https://localhost:{strict.ca_port}", "--ca-file", str(strict.root))


def test_its_own_are_served_and_see_by_which_group(strict: House) -> None:
    for options in ((REQUIRE,), ()):
        done = strict.client(*options)
        assert done.returncode == 0, done.stderr
        assert "Key Exchange: X25519MLKEM768" in done.stdout


def test_a_client_asks_the_ca_over_tls_by_the_same_rule(strict: House) -> None:
    token = strict.ctl(
        "token", "create", "--spiffe-id", "spiffe://mesh.local/service/payment-worker"
    )
    assert token.returncode == 0, token.stderr
    made = re.search(r"mj1_\S+", token.stdout)
    assert made is not None, token.stdout
    done = strict.client(REQUIRE, *over_https(strict), "--join-token", made[0])
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("groups", ["X25519", "P-256", "P-384:P-521:X448"])
@pytest.mark.parametrize("door", ["server", "CA"])
def test_openssl_without_them_is_refused_with_an_alert(
    strict: House, identity: Identity, groups: str, door: str
) -> None:
    port = strict.port if door == "server" else strict.ca_port
    done = strict.s_client(port, "-groups", groups, *identity.for_openssl, stdin=REQUEST)
    assert _ALERT.search(done.stderr + done.stdout)
    assert "HTTP/1.1" not in done.stdout
    process = strict.server if door == "server" else strict.ca
    said = process.wait_for(
        rf"refused: {CLASSICAL}: the peer offers to exchange keys by (.*), and a"
    )
    assert "MLKEM" not in said[1]


@pytest.mark.skipif(not is_classical(), reason="curl has hybrid groups here")
def test_curl_without_them_is_refused(strict: House, identity: Identity) -> None:
    for url in (strict.status_url(), f"https://localhost:{strict.ca_port}/api/v1/ca"):
        done = strict.curl(url, *identity.for_curl)
        assert done.returncode == 35, done.stdout
        assert not done.stdout
        assert "handshake failure" in done.stderr


@pytest.mark.skipif(not is_classical(), reason="this Python's ssl has hybrid groups")
@pytest.mark.parametrize("door", ["server", "CA", "federation"])
def test_no_byte_comes_by_any_door(strict: House, identity: Identity, door: str) -> None:
    found = re.search(
        r"other trust domains \(https_spiffe\) at https://[^:]+:(\d+)", strict.ca.text
    )
    assert found is not None
    port = {"server": strict.port, "CA": strict.ca_port, "federation": int(found[1])}[door]
    context = ssl.create_default_context(cafile=str(strict.root))
    context.check_hostname = False
    context.load_cert_chain(identity.cert, identity.key)
    with (
        socket.create_connection(("127.0.0.1", port), timeout=10) as wire,
        pytest.raises(ssl.SSLError, match=r"(?i)handshake failure"),
    ):
        context.wrap_socket(wire)


@pytest.mark.skipif(not is_classical(), reason="this Python's ssl has hybrid groups")
def test_a_client_refuses_a_server_without_them_and_sends_nothing(
    strict: House, identity: Identity
) -> None:
    heard: list[bytes] = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(identity.cert, identity.key)

    def serve(listening: socket.socket) -> None:
        wire, _ = listening.accept()
        with closing(wire):
            try:
                with context.wrap_socket(wire, server_side=True) as tls:
                    heard.append(tls.recv(100))
            except OSError:
                pass

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve, args=(listening,))
        thread.start()
        url = f"https://localhost:{listening.getsockname()[1]}"
        done = strict.client(REQUIRE, "--server", url, "--server-id", "spiffe://mesh.local/**")
        thread.join(10)
    assert done.returncode == 1, done.stdout
    assert "most likely no hybrid group: we offer X25519MLKEM768" in done.stderr
    assert heard in ([], [b""])


def test_what_a_machine_configures_openssl_to_makes_no_difference(
    strict: House, tmp_path: Path
) -> None:
    env = configured(tmp_path, "Groups = P-256")
    done = strict.run(BIN / "mesh-client", "--server", strict.server_url, REQUIRE, env=env)
    assert done.returncode == 0, done.stderr
    assert "Key Exchange: X25519MLKEM768" in done.stdout
    done = strict.run(BIN / "mesh-client", "--server", strict.server_url, env=env)
    assert done.returncode == 1, done.stdout
    strict.server.wait_for("offers to exchange keys by secp256r1, and a hybrid")


def test_each_of_several_processes_requires_it(strict: House, identity: Identity) -> None:
    with strict.serving(REQUIRE, "--workers", "2") as (server, port):
        done = strict.s_client(port, "-groups", "X25519", *identity.for_openssl, stdin=REQUEST)
        assert _ALERT.search(done.stderr + done.stdout)
        server.wait_for(f"refused: {CLASSICAL}")
        assert strict.client(REQUIRE, "--server", f"https://localhost:{port}").returncode == 0


@pytest.mark.parametrize("mode", ["server", "client"])
def test_a_proxy_requires_it_at_its_tls_side(strict: House, identity: Identity, mode: str) -> None:
    if mode == "client":
        verify = ("--verify", "spiffe://mesh.local/service/api-server")
        proxy, port = strict.start_proxy("client", f"localhost:{strict.port}", REQUIRE, *verify)
        done = strict.curl(f"http://localhost:{port}/api/status", "-H", "Host: localhost")
        assert '"status":"healthy"' in done.stdout
    else:
        options = ("--allow", "spiffe://mesh.local/**", REQUIRE)
        proxy, port = strict.start_proxy("server", "127.0.0.1:9", *options)
        done = strict.s_client(port, "-groups", "X25519", *identity.for_openssl, stdin=REQUEST)
        assert _ALERT.search(done.stderr + done.stdout)
        proxy.wait_for(CLASSICAL)
    assert proxy.stop() == 0


def test_a_permissive_proxy_contradicts_it(strict: House) -> None:
    words = ("--mode", "server", "--listen", "127.0.0.1:0", "--target", "127.0.0.1:9")
    allow = ("--allow", "spiffe://mesh.local/**", "--permissive")
    done = strict.run(BIN / "mesh-proxy", *words, *allow, REQUIRE)
    assert done.returncode == 1
    assert "a permissive listener takes callers without TLS" in done.stderr


def test_it_is_counted(strict: House) -> None:
    status = f"127.0.0.1:{free_port()}"
    with strict.serving(REQUIRE, "--status", status) as (_, port):
        done = strict.client(REQUIRE, "--server", f"https://localhost:{port}")
        assert done.returncode == 0, done.stderr
        text = strict.curl(f"http://{status}/metrics").stdout
    assert 'mesh_handshakes_total{group="X25519MLKEM768"} 1.0' in text
    assert 'mesh_handshakes_total{group="x25519"} 0.0' in text


def test_github_actions_tokens_are_fetched_in_no_way_that_can_be_seen(strict: House) -> None:
    variables = {"ACTIONS_ID_TOKEN_REQUEST_URL": "https://token.example/?x=1"}
    done = strict.run(BIN / "mesh-client", REQUIRE, "--attest", "oidc", env=variables)
    assert done.returncode == 2
    assert "Python's own ssl" in done.stderr
