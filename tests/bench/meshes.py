"""The mesh that is measured: its services as a user starts them, their log in a file."""

import os
import subprocess
from pathlib import Path
from typing import Any

from attrs import frozen

from tests.bench.processes import LOAD_CORE, SERVER_CORE, Service, Stage
from tests.running import BIN, PATIENCE

CLIENT_ID = "spiffe://mesh.local/service/payment-worker"


@frozen
class Identity:
    """The files of one, as ``mesh-client --export`` writes them."""

    directory: Path

    @property
    def certificate(self) -> str:
        return str(self.directory / "svid.pem")

    @property
    def key(self) -> str:
        return str(self.directory / "svid_key.pem")

    @property
    def roots(self) -> str:
        return str(self.directory / "svid_bundle.pem")

    def job(self) -> dict[str, Any]:
        """What a load job needs of it."""
        return {"certificate": self.certificate, "key": self.key, "roots": self.roots}


@frozen
class MeshOnStage:
    """A CA, and servers and clients beside it."""

    stage: Stage

    @property
    def env(self) -> dict[str, str]:
        return {"MESH_STATE_DIR": str(self.stage.home / "state"), "NO_COLOR": "1"}

    def start_ca(
        self, *options: str, name: str = "mesh-ca", core: int | None = LOAD_CORE
    ) -> Service:
        """With P-256 keys throughout."""
        ca = self.begin_ca(*options, name=name, core=core)
        ca.wait_for(r"Ready to issue certificates\.")
        return ca

    def begin_ca(
        self, *options: str, name: str = "mesh-ca", core: int | None = LOAD_CORE
    ) -> Service:
        """The same, without waiting for it."""
        words = ("--port", "0", "--root-key", "ec-p256", "--rate-limit", "off", *options)
        command = (BIN / "twistd", "-n", "mesh-ca", *words)
        return self.stage.start(name, *command, env=self.env, core=core)

    def start_server(
        self, *options: str, core: int | None = SERVER_CORE, name: str = "mesh-server"
    ) -> tuple[Service, int]:
        """The server and its port."""
        server = self.begin_server(*options, core=core, name=name)
        server.wait_for(r"Ready to accept mTLS connections\.")
        return server, int(server.wait_for(r"Starting mTLS server on \S*:(\d+)")[1])

    def begin_server(
        self, *options: str, core: int | None = SERVER_CORE, name: str = "mesh-server"
    ) -> Service:
        """The same, without waiting for it."""
        command = (BIN / "twistd", "-n", "mesh-server", "--listen", "127.0.0.1:0", *options)
        return self.stage.start(name, *command, env=self.env, core=core)

    def start_proxy(self, *options: str, name: str) -> Service:
        """mesh-proxy, carrying."""
        command = (BIN / "twistd", "-n", "mesh-proxy", *options)
        proxy = self.stage.start(name, *command, env=self.env)
        proxy.wait_for(r"Ready to carry connections\.")
        return proxy

    def export(self, port: int) -> Identity:
        """An identity of the default client, proven by one request to the server."""
        identity = Identity(self.stage.home / "identity")
        self.client("--export", str(identity.directory), port=port)
        return identity

    def client(self, *options: str, port: int) -> str:
        """``bin/mesh-client``, end to end; what it printed."""
        done = subprocess.run(
            [BIN / "mesh-client", "--server", f"https://localhost:{port}", *options],
            capture_output=True,
            text=True,
            timeout=PATIENCE * 2,
            cwd=self.stage.home,
            env={**os.environ, **self.env},
        )
        if done.returncode:
            raise AssertionError(done.stdout + done.stderr)
        return done.stdout
