"""Full mutual TLS 1.3 handshakes, a new connection and one request each."""

import shutil
import socket
from collections.abc import Callable
from pathlib import Path

from tests.bench.meshes import Identity, MeshOnStage
from tests.bench.processes import Stage, stage
from tests.bench.rounds import Contestant, busy, compete
from tests.bench.tables import Table, beside

_ASYNCIO = "asyncio + ssl"
_CLIENTS = 8
_NGINX = """
daemon off; master_process off; worker_processes 1; pid {home}/nginx.pid; error_log stderr warn;
events {{ worker_connections 1024; }}
http {{
  access_log {home}/nginx-access.log;
  client_body_temp_path {home}/nginx-a; proxy_temp_path {home}/nginx-b; fastcgi_temp_path {home}/nginx-c;
  uwsgi_temp_path {home}/nginx-d; scgi_temp_path {home}/nginx-e;
  server {{
    listen 127.0.0.1:{port} ssl backlog=1024;
    ssl_protocols TLSv1.3; ssl_session_tickets off; ssl_session_cache off;
    ssl_certificate {identity.certificate}; ssl_certificate_key {identity.key};
    ssl_client_certificate {identity.roots}; ssl_verify_client on; ssl_verify_depth 3;
    default_type application/json;
    location / {{ return 200 '{{"status":"healthy"}}'; }}
  }}
}}
"""


def measure(home: Path, rounds: int, say: Callable[[str], None], seconds: float = 2.0) -> Table:
    with stage(home) as running:
        mesh = MeshOnStage(running)
        mesh.start_ca()
        server, port = mesh.start_server()
        identity = mesh.export(port)

        def job(to: int) -> dict[str, object]:
            return {
                "kind": "handshakes",
                "port": to,
                "path": "/api/status",
                "clients": _CLIENTS,
                **identity.job(),
            }

        contestants = [Contestant("mesh-server", server, job(port))]
        peer = running.module(
            "asyncio",
            "tests.bench.asyncio_server",
            *(identity.certificate, identity.key, identity.roots),
        )
        peers_port = int(peer.wait_for(r"listening on (\d+)")[1])
        contestants.append(Contestant(_ASYNCIO, peer, job(peers_port)))
        notes = [
            "mesh-server judges the SPIFFE ID, names the caller and logs every connection and request to a file;",
            f"{_ASYNCIO} does none of it. Neither sends session tickets. The load offers X25519, no hybrid group.",
        ]
        nginx = _start_nginx(running, identity)
        if nginx is None:
            notes.append("nginx: not installed, skipped (apt-get install nginx-light)")
        else:
            contestants.append(nginx(job))
        compete(contestants, rounds, seconds, say)
        rows = [contestant.row("handshakes") for contestant in contestants]
    return Table(
        "handshakes",
        "full mutual TLS 1.3 handshakes, P-256, chain of two, new connection and one request each",
        beside(rows, "CPU us each", _ASYNCIO, f"CPU beside {_ASYNCIO}"),
        (*notes, *busy(contestants)),
    )


def _start_nginx(
    running: Stage, identity: Identity
) -> Callable[[Callable[[int], dict[str, object]]], Contestant] | None:
    nginx = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/sbin")
    if nginx is None:
        return None
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = int(free.getsockname()[1])
    settings = running.home / "nginx.conf"
    settings.write_text(_NGINX.format(home=running.home, identity=identity, port=port))
    service = running.start("nginx", nginx, "-p", running.home, "-c", settings)
    return lambda job: Contestant("nginx", service, job(port))
