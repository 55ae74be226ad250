"""A real API server of Kubernetes with etcd, without nodes: nothing runs in it, and everything is judged in it.

Its programs are ``$KUBE_APISERVER`` and ``$ETCD``, or are built of their Go modules, which takes five minutes of two
cores the first time: so it is done where ``$MESH_KUBERNETES`` is set, and what was built is found again without.
"""

import json
import os
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from attrs import frozen
from cryptography.hazmat.primitives import serialization

from tests.peers.building import go_peer, is_built
from tests.running import Running, free_port, until
from tests.twisted_mesh.federation.hostile import web_certificate, web_root

ISSUER = "https://kubernetes.default.svc.cluster.local"
_ADMINISTRATOR = "of-the-administrator"
_PEM = serialization.Encoding.PEM


def programs() -> tuple[Path, Path]:
    """etcd and kube-apiserver, or a skip with the reason."""
    given = os.environ.get("ETCD"), os.environ.get("KUBE_APISERVER")
    if given[0] and given[1]:
        return Path(given[0]), Path(given[1])
    names = "etcd", "kube-apiserver"
    if not os.environ.get("MESH_KUBERNETES") and not all(map(is_built, names)):
        pytest.skip("a kube-apiserver takes minutes to build: MESH_KUBERNETES=1 has it done, once")
    return go_peer(names[0], names[0]), go_peer(names[1], names[1])


@frozen
class ControlPlane:
    """One that runs."""

    port: int
    home: Path

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}"

    @property
    def ca_file(self) -> Path:
        return self.home / "ca.crt"

    def ask(
        self, method: str, path: str, body: Any = None, token: str = _ADMINISTRATOR
    ) -> tuple[int, Any]:
        """Status and answer."""
        request = urllib.request.Request(
            f"{self.url}{path}",
            None if body is None else json.dumps(body).encode(),
            {"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
            method=method,
        )
        trusted = ssl.create_default_context(cafile=str(self.ca_file))
        try:
            with urllib.request.urlopen(request, context=trusted, timeout=30) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    def make(self, path: str, body: Any) -> Any:
        """An object, as it is kept."""
        status, made = self.ask("POST", path, body)
        assert status == 201, made
        return made

    def kubectl(self, *words: str | Path) -> list[str]:
        """The words of a command, as the administrator."""
        server = ["--server", self.url, "--certificate-authority", str(self.ca_file)]
        return ["kubectl", *server, "--token", _ADMINISTRATOR, *map(str, words)]

    def is_ready(self) -> bool:
        with suppress(OSError, ValueError):
            return self.ask("GET", "/api/v1/namespaces/default")[0] == 200
        return False


@contextmanager
def control_plane(home: Path) -> Iterator[ControlPlane]:
    """etcd and kube-apiserver with their usual admission and RBAC, on this machine alone."""
    etcd, apiserver = programs()
    plane = ControlPlane(free_port(), home)
    _write_files(home)
    client, peer = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
    running: list[Running] = []
    try:
        running.append(
            Running.start(
                etcd,
                f"--data-dir={home / 'etcd'}",
                f"--listen-client-urls={client}",
                f"--advertise-client-urls={client}",
                f"--listen-peer-urls={peer}",
                f"--initial-advertise-peer-urls={peer}",
                f"--initial-cluster=default={peer}",
                "--unsafe-no-fsync",
                "--log-level=error",
                cwd=home,
                real=True,
            )
        )
        running.append(
            Running.start(
                apiserver,
                f"--etcd-servers={client}",
                "--bind-address=127.0.0.1",
                f"--secure-port={plane.port}",
                f"--tls-cert-file={home / 'server.crt'}",
                f"--tls-private-key-file={home / 'server.key'}",
                f"--service-account-issuer={ISSUER}",
                f"--service-account-key-file={home / 'accounts.pub'}",
                f"--service-account-signing-key-file={home / 'accounts.key'}",
                f"--token-auth-file={home / 'tokens.csv'}",
                "--authorization-mode=RBAC",
                "--allow-privileged=true",
                "--service-cluster-ip-range=10.0.0.0/24",
                cwd=home,
                real=True,
            )
        )
        until(plane.is_ready, lambda: running[-1].text[-3000:])
        yield plane
    finally:
        for one in reversed(running):
            one.stop()


def _write_files(home: Path) -> None:
    shown, (root, _), accounts = web_certificate("localhost"), web_root(), web_root("accounts")[1]
    files = {
        "ca.crt": root.public_bytes(_PEM),
        "server.crt": shown.chain[0].public_bytes(_PEM),
        "server.key": _private(shown.key.private_key),
        "accounts.key": _private(accounts.private_key),
        "accounts.pub": accounts.public_key.public_bytes(  # type: ignore[union-attr]
            _PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        ),
        "tokens.csv": f'{_ADMINISTRATOR},admin,admin,"system:masters"\n'.encode(),
    }
    for name, content in files.items():
        (home / name).write_bytes(content)
        (home / name).chmod(0o600)


def _private(key: Any) -> bytes:
    return key.private_bytes(_PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())  # type: ignore[no-any-return]
