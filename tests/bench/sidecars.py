"""The sidecars beside ours, both hops of each: plain in and mutual TLS 1.3 out, then mutual TLS in and plain out.

Each hop is a process of its own, as on two machines, with the same identity; both logs go to files, a line for each
connection. Those that are not installed are skipped, with a word that says where they come from.
"""

import json
import shutil
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

from attrs import frozen

from pki.issuing.csr import build_csr
from pki.keys import KeyAlgorithm, MemoryKey
from pki.spiffe import SpiffeId
from tests.bench.meshes import Identity, MeshOnStage
from tests.bench.peers import (
    ENVOY,
    NGINX,
    Absent,
    envoy_program,
    envoy_secrets,
    wait_until_open,
)
from tests.bench.processes import Service, Stage
from tests.ca_socket import CaSocket
from tests.running import free_port

OURS, HAPROXY, STUNNEL = "mesh-proxy", "haproxy", "stunnel"
#: Who all of them are.
ID = "spiffe://mesh.local/service/proxy"
#: Connections that each is told to take, where it has to be told.
_MOST = 8192
_NGINX_MODULE = Path("/usr/lib/nginx/modules/ngx_stream_module.so")
_NGINX_HEAD = """
load_module {module};
daemon off; master_process off; worker_processes 1; pid {home}/{name}.pid; error_log stderr warn;
worker_rlimit_nofile 20000;
events {{ worker_connections 16384; }}
stream {{
  log_format line '$remote_addr $status $bytes_sent $bytes_received $session_time';
  access_log {home}/{name}-access.log line;
  server {{ {server} }}
}}
"""
_NGINX_INSIDE = """
    listen 127.0.0.1:{port} ssl backlog=1024; proxy_pass 127.0.0.1:{target}; proxy_timeout 1h;
    ssl_protocols TLSv1.3; ssl_session_tickets off; ssl_session_cache off;
    ssl_certificate {identity.certificate}; ssl_certificate_key {identity.key};
    ssl_client_certificate {identity.roots}; ssl_verify_client on; ssl_verify_depth 3;
"""
_NGINX_OUTSIDE = """
    listen 127.0.0.1:{port} backlog=1024; proxy_pass 127.0.0.1:{target}; proxy_timeout 1h;
    proxy_ssl on; proxy_ssl_protocols TLSv1.3; proxy_ssl_session_reuse off;
    proxy_ssl_certificate {identity.certificate}; proxy_ssl_certificate_key {identity.key};
    proxy_ssl_trusted_certificate {identity.roots}; proxy_ssl_verify on; proxy_ssl_verify_depth 3;
    proxy_ssl_name localhost; proxy_ssl_server_name on;
"""
_HAPROXY = """
global
  nbthread 1
  maxconn {most}
  log stdout format raw local0
defaults
  mode tcp
  log global
  option tcplog
  timeout connect 10s
  timeout client 1h
  timeout server 1h
listen one
  {lines}
"""
_HAPROXY_INSIDE = """
  bind 127.0.0.1:{port} backlog 1024 ssl crt {both} ca-file {identity.roots} verify required \
ssl-min-ver TLSv1.3 no-tls-tickets
  server one 127.0.0.1:{target}
"""
_HAPROXY_OUTSIDE = """
  bind 127.0.0.1:{port} backlog 1024
  server one 127.0.0.1:{target} ssl crt {both} ca-file {identity.roots} verify required verifyhost localhost \
sni str(localhost) ssl-min-ver TLSv1.3 no-ssl-reuse
"""
_STUNNEL = """
foreground = yes
syslog = no
debug = notice
pid =
[one]
accept = 127.0.0.1:{port}
connect = 127.0.0.1:{target}
cert = {identity.certificate}
key = {identity.key}
CAfile = {identity.roots}
verifyChain = yes
sslVersionMin = TLSv1.3
options = NO_TICKET
{more}
"""


@frozen
class Sidecar:
    """Both hops of one, running."""

    name: str
    outside: Service
    """Plain in, mutual TLS out."""
    inside: Service
    """Mutual TLS in, plain out."""
    port: int
    """Where plain connections go in."""

    @property
    def hops(self) -> tuple[Service, Service]:
        """Both."""
        return self.outside, self.inside


@frozen
class Hops:
    """Where both hops of one come from, and between whom."""

    running: Stage
    mesh: MeshOnStage
    identity: Identity
    backend: int


def sidecars(
    running: Stage, backend: int, names: Sequence[str] = ()
) -> tuple[list[Sidecar], list[str]]:
    """Those that are there, of ``names`` if any, and what is to be said of the others; there is a mesh for them."""
    mesh = MeshOnStage(running)
    mesh.start_ca()
    hops = Hops(running, mesh, _identity(running), backend)
    found = [start(hops) for name, start in _STARTS.items() if not names or name in names]
    there = [sidecar for sidecar in found if isinstance(sidecar, Sidecar)]
    return there, [f"{peer.name}: {peer.why}" for peer in found if isinstance(peer, Absent)]


def _identity(running: Stage) -> Identity:
    """Of all but ours, which get their own: one that is good for the name localhost too."""
    home = running.home / "identity"
    home.mkdir()
    identity = Identity(home)
    key = MemoryKey.generate(KeyAlgorithm.EC_P256)
    ca = running.home / "state" / "ca"
    with closing(CaSocket(ca / "ca.sock")) as asked:
        csr = build_csr(key, SpiffeId.parse(ID), ("localhost",)).decode()
        answer = asked.post("/api/v1/sign", {"csr": csr, "requested_id": ID})
    Path(identity.key).write_bytes(key.to_pem())
    Path(identity.certificate).write_text("".join((answer["certificate"], *answer["chain"])))
    Path(identity.roots).write_bytes((ca / "root.crt").read_bytes())
    return identity


def _ours(hops: Hops) -> Sidecar:
    services, target = [], hops.backend
    for mode, rule in (("server", "--allow"), ("client", "--verify")):
        service = hops.mesh.start_proxy(
            *("--mode", mode, "--listen", "127.0.0.1:0", "--target", f"127.0.0.1:{target}"),
            *(rule, ID, "--max-connections", str(_MOST)),
            name=f"{OURS}-{mode}",
        )
        target = int(service.wait_for(r"carries \S+:(\d+) to")[1])
        services.append(service)
    inside, outside = services
    return Sidecar(OURS, outside, inside, target)


def _peer(name: str, hops: Hops, start: Callable[[str, int, int], Service]) -> "Sidecar | Absent":
    """By what starts one hop, ``inside`` or ``outside``, at a port with a target."""
    ports = free_port(), free_port()
    inside = start("inside", ports[0], hops.backend)
    outside = start("outside", ports[1], ports[0])
    for service, port in ((inside, ports[0]), (outside, ports[1])):
        try:
            wait_until_open(port)
        except OSError:
            return Absent(name, f"it does not start here, skipped: {service.text[-300:]!r}")
    return Sidecar(name, outside, inside, ports[1])


def _nginx(hops: Hops) -> "Sidecar | Absent":
    nginx = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
    if nginx is None or not _NGINX_MODULE.exists():
        why = "not installed, skipped (apt-get install nginx-light libnginx-mod-stream)"
        return Absent(f"{NGINX} stream", why)
    home, identity = hops.running.home, hops.identity

    def start(hop: str, port: int, target: int) -> Service:
        name = f"nginx-{hop}"
        lines = _NGINX_INSIDE if hop == "inside" else _NGINX_OUTSIDE
        server = lines.format(port=port, target=target, identity=identity)
        settings = home / f"{name}.conf"
        settings.write_text(
            _NGINX_HEAD.format(module=_NGINX_MODULE, home=home, name=name, server=server)
        )
        return hops.running.start(name, nginx, "-p", home, "-c", settings)

    return _peer(f"{NGINX} stream", hops, start)


def _haproxy(hops: Hops) -> "Sidecar | Absent":
    haproxy = shutil.which("haproxy", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
    if haproxy is None:
        return Absent(HAPROXY, "not installed, skipped (apt-get install haproxy)")
    home, identity = hops.running.home, hops.identity
    both = home / "both.pem"
    both.write_text(Path(identity.certificate).read_text() + Path(identity.key).read_text())

    def start(hop: str, port: int, target: int) -> Service:
        lines = _HAPROXY_INSIDE if hop == "inside" else _HAPROXY_OUTSIDE
        told = lines.format(port=port, target=target, both=both, identity=identity)
        settings = home / f"haproxy-{hop}.cfg"
        settings.write_text(_HAPROXY.format(most=_MOST, lines=told.strip()))
        return hops.running.start(f"haproxy-{hop}", haproxy, "-db", "-f", settings)

    return _peer(HAPROXY, hops, start)


def _stunnel(hops: Hops) -> "Sidecar | Absent":
    stunnel = shutil.which("stunnel") or shutil.which("stunnel4")
    if stunnel is None:
        return Absent(STUNNEL, "not installed, skipped (apt-get install stunnel4)")

    def start(hop: str, port: int, target: int) -> Service:
        more = "" if hop == "inside" else "client = yes\ncheckHost = localhost\nsni = localhost"
        settings = hops.running.home / f"stunnel-{hop}.conf"
        settings.write_text(
            _STUNNEL.format(port=port, target=target, identity=hops.identity, more=more)
        )
        return hops.running.start(f"stunnel-{hop}", stunnel, settings)

    return _peer(STUNNEL, hops, start)


def _envoy(hops: Hops) -> "Sidecar | Absent":
    program = envoy_program()
    if program is None or not program.exists():
        return Absent(ENVOY, "not installed, skipped (make .venv/.recipes installs it)")

    def start(hop: str, port: int, target: int) -> Service:
        settings = hops.running.home / f"envoy-{hop}.json"
        log = str(hops.running.home / f"envoy-{hop}-access.log")
        settings.write_text(
            json.dumps(_envoy_settings(hops.identity, log, port, target, serves=hop == "inside"))
        )
        return hops.running.start(
            f"envoy-{hop}",
            *(program, "-c", settings, "--concurrency", "1", "--disable-hot-restart"),
            *("--log-level", "warning"),
        )

    return _peer(ENVOY, hops, start)


def _envoy_settings(
    identity: Identity, log: str, port: int, target: int, *, serves: bool
) -> dict[str, object]:
    extensions = "type.googleapis.com/envoy.extensions"
    common = envoy_secrets(identity, {"exact": ID})
    sockets = f"{extensions}.transport_sockets.tls.v3"
    down = {
        "@type": f"{sockets}.DownstreamTlsContext",
        "require_client_certificate": True,
        "disable_stateless_session_resumption": True,
        "disable_stateful_session_resumption": True,
        "common_tls_context": common,
    }
    up = {
        "@type": f"{sockets}.UpstreamTlsContext",
        "sni": "localhost",
        "max_session_keys": 0,
        "common_tls_context": common,
    }
    access = {"@type": f"{extensions}.access_loggers.file.v3.FileAccessLog", "path": log}
    proxy = {
        "@type": f"{extensions}.filters.network.tcp_proxy.v3.TcpProxy",
        "stat_prefix": "bench",
        "cluster": "target",
        "access_log": [{"name": "file", "typed_config": access}],
    }
    chain: dict[str, object] = {"filters": [{"name": "tcp", "typed_config": proxy}]}
    cluster: dict[str, object] = {
        "name": "target",
        "type": "STATIC",
        "connect_timeout": "10s",
        "circuit_breakers": {
            "thresholds": [{"max_connections": _MOST, "max_pending_requests": _MOST}]
        },
        "load_assignment": {
            "cluster_name": "target",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _address(target)}}]}],
        },
    }
    secured = chain if serves else cluster
    secured["transport_socket"] = {"name": "tls", "typed_config": down if serves else up}
    listener = {"name": "bench", "address": _address(port), "filter_chains": [chain]}
    return {"static_resources": {"listeners": [listener], "clusters": [cluster]}}


def _address(port: int) -> dict[str, object]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


_STARTS: dict[str, Callable[[Hops], Sidecar | Absent]] = {
    OURS: _ours,
    ENVOY: _envoy,
    NGINX: _nginx,
    HAPROXY: _haproxy,
    STUNNEL: _stunnel,
}
