"""The whole way, with real processes: a CA, a server, a client."""

from pathlib import Path

from tests.running import mesh


def test_two_services_prove_to_each_other_who_they_are(tmp_path: Path) -> None:
    with mesh(tmp_path) as running:
        ca = running.start_ca()
        server = running.start_server()
        done = running.client()
        assert done.returncode == 0, done.stderr
        assert (
            '{"status":"healthy","caller":"spiffe://mesh.local/service/payment-worker"}'
            in done.stdout
        )
        server.wait_for("Client identity verified: spiffe://mesh.local/service/payment-worker")
        assert server.stop() == 0
        assert ca.stop() == 0
