"""A machine whose OpenSSL is configured to older TLS: the mesh speaks TLS 1.3 all the same."""

from pathlib import Path

import pytest

from tests.first_lines.openssl_conf import configured
from tests.running import BIN, Running, mesh


@pytest.mark.parametrize(
    "setting", ["MaxProtocol = TLSv1.2", "MaxProtocol = TLSv1.2\nMinProtocol = TLSv1"]
)
def test_a_machine_capped_at_older_tls_speaks_tls_1_3_in_the_mesh(
    setting: str, tmp_path: Path
) -> None:
    with mesh(tmp_path) as ours:
        env = {**ours.env, **configured(tmp_path, setting)}

        def start(*arguments: str) -> Running:
            running = Running.start(BIN / "twistd", "-n", *arguments, cwd=tmp_path, env=env)
            ours.processes.append(running)
            return running

        ca = start("mesh-ca", "--port", "0", "--root-key", "ec-p256")
        ca.wait_for(r"Ready to issue certificates\.")
        server = start("mesh-server", "--listen", "127.0.0.1:0")
        server.wait_for(r"Ready to accept mTLS connections\.")
        ours.port = int(server.wait_for(r"Starting mTLS server on \S*:(\d+)")[1])
        words = [f"{name}={value}" for name, value in env.items()]
        done = ours.run("env", *words, BIN / "mesh-client", "--server", ours.server_url)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "TLS Version: TLS 1.3" in done.stdout
