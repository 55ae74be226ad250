"""``--require-pq``: what it reaches, what it contradicts, and where it cannot be had."""

from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from twisted.internet.testing import MemoryReactorClock

from pki.errors import Malformed
from tests.twisted_mesh.tls.wires import home
from twisted_mesh.taps import agent_options, ca_options, proxy_options, server_options
from twisted_mesh.tls import groups

PROXY = (
    "--mode",
    "server",
    "--listen",
    "8444",
    "--target",
    "127.0.0.1:8080",
    "--allow",
    "spiffe://mesh.local/**",
)
PERMISSIVE = """
[[listener]]
mode = "server"
listen = "127.0.0.1:0"
target = "127.0.0.1:8080"
allow = ["spiffe://mesh.local/**"]
permissive = {permissive}
"""
SERVICES: dict[str, tuple[Any, tuple[str, ...]]] = {
    "mesh-ca": (ca_options.Options, ()),
    "mesh-server": (server_options.Options, ()),
    "mesh-agent": (
        agent_options.Options,
        ("--write", "d", "--spiffe-id", "spiffe://mesh.local/service/x"),
    ),
    "mesh-proxy": (proxy_options.Options, PROXY),
}


def parsed(kind: Any, *words: str) -> Any:
    options = kind()
    options.parseOptions(list(words))
    return options


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MESH_STATE_DIR", str(tmp_path))


@pytest.mark.parametrize("program", SERVICES)
def test_every_service_has_it_and_it_is_off(program: str) -> None:
    kind, words = SERVICES[program]
    assert not parsed(kind, *words)["require-pq"]
    assert parsed(kind, *words, "--require-pq")["require-pq"]


@pytest.mark.parametrize("program", SERVICES)
def test_where_openssl_cannot_nothing_starts(program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(groups, "HYBRID", ("Frodo976",))
    kind, words = SERVICES[program]
    with pytest.raises(SystemExit, match=r"--require-pq: OpenSSL .* has none of X25519MLKEM768"):
        parsed(kind, *words, "--require-pq")


@pytest.mark.parametrize("required", [True, False])
def test_it_reaches_the_ca_that_is_asked_and_the_peers(tmp_path: Path, required: bool) -> None:
    (tmp_path / "root.crt").write_bytes(home().bundles.all_roots[0].public_bytes(Encoding.PEM))
    ca = ("--ca-url", "https://ca.example:8443", "--ca-file", str(tmp_path / "root.crt"))
    options = parsed(server_options.Options, *ca, *(["--require-pq"] if required else []))
    assert options.wanted().requires_pq is required
    client = options.ca_client(MemoryReactorClock())
    assert client.security.contexts.role.requires_pq is required


def test_a_permissive_listener_contradicts_it() -> None:
    with pytest.raises(SystemExit, match="takes callers without TLS"):
        parsed(proxy_options.Options, *PROXY, "--permissive", "--require-pq")


def test_so_does_one_that_a_file_comes_to_have(tmp_path: Path) -> None:
    config = tmp_path / "proxy.toml"
    config.write_text(PERMISSIVE.format(permissive="false"))
    options = parsed(proxy_options.Options, "--config", str(config), "--require-pq")
    config.write_text(PERMISSIVE.format(permissive="true"))
    with pytest.raises(Malformed, match="leave out permissive"):
        options.read_listeners()


def test_a_token_that_python_would_fetch_over_tls_contradicts_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("MESH_ATTEST_TOKEN", raising=False)
    monkeypatch.setenv("ACTIONS_ID_TOKEN_REQUEST_URL", "https://token.example/?x=1")
    assert parsed(server_options.Options, "--attest", "oidc")["attest"]
    with pytest.raises(SystemExit, match="by Python's own ssl"):
        parsed(server_options.Options, "--attest", "oidc", "--require-pq")
    (tmp_path / "token").write_text("a.b.c")
    words = ("--attest", f"oidc:{tmp_path}/token", "--require-pq")
    assert parsed(server_options.Options, *words)["attest"]
