"""Monitoring of a running mesh: who may read what, what the metrics are, and that each alert fires when it should."""

import http.client
import json
import re
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from attrs import frozen

from tests.measuring import MEASURED
from tests.promql import Labels, Query, Rule, Scrape, rules_in, scrape_of, together
from tests.running import PATIENCE, Mesh, mesh, until
from twisted_mesh.attest.meters import VERDICTS
from twisted_mesh.attest.platforms import PLATFORMS
from twisted_mesh.ca.check import CHECKS
from twisted_mesh.ca.meters import REQUEST_CODES
from twisted_mesh.ca.revocation.ocsp_responder import STATUSES
from twisted_mesh.monitoring import PEER_CODES

ROOT = Path(__file__).resolve().parent.parent
RULES = rules_in((ROOT / "docs" / "alerts.yml").read_text())
MONITORING = ("/livez", "/readyz", "/metrics", "/api/v1/health")
#: What only administrators may read, and what nobody may.
OTHERS = (
    "/api/v1/certificates",
    "/api/v1/audit/entries",
    "/api/v1/audit/checkpoints",
    "/api/v1/entries",
    "/api/v1/tokens",
    "/api/v1/connections",
)
DAY = 86400.0


@frozen
class Watched:
    """A CA, a server and a sidecar that are watched."""

    mesh: Mesh
    ca: Path
    server: Path
    sidecar: Path
    """Their status sockets."""
    prometheus: Path
    worker: Path
    """Identities: of a monitor, and of anybody else."""

    def scrape(self) -> Scrape:
        return together(
            scrape_of(by_socket(self.ca, "/metrics")[1], "ca"),
            scrape_of(by_socket(self.server, "/metrics")[1], "server"),
            scrape_of(by_socket(self.sidecar, "/metrics")[1], "sidecar"),
        )

    def by_tls(self, path: str, identity: Path | None, method: str = "GET") -> int:
        context = ssl.create_default_context(cafile=str(self.mesh.root))
        if identity is not None:
            context.load_cert_chain(identity / "svid.pem", identity / "svid_key.pem")
        connection = http.client.HTTPSConnection(
            "localhost", self.mesh.ca_port, timeout=PATIENCE, context=context
        )
        try:
            connection.request(method, path)
            return connection.getresponse().status
        finally:
            connection.close()


def by_socket(
    path: Path, question: str, host: str = "localhost", method: str = "GET"
) -> tuple[int, str]:
    connection = http.client.HTTPConnection(host, timeout=PATIENCE)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.settimeout(PATIENCE)
    try:
        connection.sock.connect(str(path))
        connection.request(method, question)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    home = tmp_path_factory.mktemp("watched")
    ca, server, sidecar = home / "ca.sock", home / "server.sock", home / "sidecar.sock"
    with mesh(home) as running:
        running.start_ca(
            "--monitor", "spiffe://mesh.local/service/prometheus", "--status", f"unix:{ca}"
        )
        running.start_server(
            "--status", f"unix:{server}", "--allow", "spiffe://mesh.local/service/**"
        )
        who = ("--verify", "spiffe://mesh.local/service/api-server")
        target = f"localhost:{running.port}"
        running.start_proxy("client", target, *who, "--status", f"unix:{sidecar}")
        yield Watched(
            running,
            ca,
            server,
            sidecar,
            running.export("--spiffe-id", "spiffe://mesh.local/service/prometheus"),
            running.export("--spiffe-id", "spiffe://mesh.local/service/worker"),
        )


# Who may read what.


def test_a_monitor_reads_health_and_metrics_and_nothing_else(watched: Watched) -> None:
    for path in MONITORING:
        assert watched.by_tls(path, watched.prometheus) == 200, path
        assert watched.by_tls(path, None) == (200 if path == "/livez" else 401), path
        assert watched.by_tls(path, watched.worker) == (200 if path == "/livez" else 403), path
    for path in OTHERS:
        assert watched.by_tls(path, watched.prometheus) == 403, path
    assert watched.by_tls("/metrics", watched.prometheus, "POST") == 405


def test_status_of_the_ca_is_those_four_and_nothing_else(watched: Watched) -> None:
    for path in MONITORING:
        assert by_socket(watched.ca, path)[0] == 200, path
        assert by_socket(watched.ca, path, host="evil.example")[0] == 421, path
        assert by_socket(watched.ca, path, method="POST")[0] == 405, path
    for path in (*OTHERS, "/", "/api/v1/ca", "/api/v1/trust", "/api/v1/sign", "/livez/x"):
        assert by_socket(watched.ca, path)[0] == 404, path
    assert json.loads(by_socket(watched.ca, "/readyz")[1]) == {"status": "ready"}
    assert json.loads(by_socket(watched.ca, "/api/v1/health")[1])["status"] == "ok"


def test_status_of_a_server_is_three_of_them(watched: Watched) -> None:
    for path in MONITORING:
        expected = 404 if path == "/api/v1/health" else 200
        assert by_socket(watched.server, path)[0] == expected, path


@pytest.mark.parametrize("address", ["0.0.0.0:0", ":0", "tcp:0", "tcp:0:interface=0.0.0.0"])
def test_status_of_the_ca_is_refused_where_others_can_reach_it(
    tmp_path: Path, address: str
) -> None:
    with mesh(tmp_path) as running:
        ca = running.start_ca("--status", address, wait=False)
        assert ca.wait() == 1
        (line,) = [line for line in ca.text.splitlines() if line.startswith("mesh-ca: ")]
        assert f"--status {address} can be reached from other machines" in line
        assert "--monitor" in line


@pytest.mark.parametrize("program", ["mesh-ca", "mesh-server"])
def test_a_status_socket_whose_path_is_too_long_is_refused(tmp_path: Path, program: str) -> None:
    address = f"unix:{tmp_path}/{'long' * 30}"
    with mesh(tmp_path) as running:
        start = running.start_ca if program == "mesh-ca" else running.start_server
        started = start("--status", address, wait=False)
        assert started.wait() == 1
        (line,) = [line for line in started.text.splitlines() if line.startswith(program)]
        assert "is too long for a unix socket" in line and "choose a shorter --status" in line


def test_a_socket_that_a_killed_ca_left_is_no_hindrance(tmp_path: Path) -> None:
    left = tmp_path / "status.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(left))
    with mesh(tmp_path) as running:
        running.start_ca("--status", f"unix:{left}")
        assert by_socket(left, "/livez")[0] == 200


# What the metrics are.


def ours(scrape: Scrape) -> set[str]:
    ends = re.compile(r"_(bucket|sum|count)$")
    return {ends.sub("", name) for name in scrape if name.startswith("mesh_")}


_OF_ONE_PROGRAM = (
    "mesh_ca_",
    "mesh_files_",
    "mesh_proxy_",
    "mesh_signer_",
    "mesh_work",
    "mesh_ct",
    "mesh_witness_",
)


def test_the_metrics_are_those_that_there_are_and_the_cas_are_in_the_ca_alone(
    watched: Watched,
) -> None:
    ca = scrape_of(by_socket(watched.ca, "/metrics")[1], "ca")
    server = scrape_of(by_socket(watched.server, "/metrics")[1], "server")
    of_both = {name for name in MEASURED if not name.startswith(_OF_ONE_PROGRAM)}
    assert ours(ca) == of_both | {name for name in MEASURED if name.startswith("mesh_ca_")}
    assert ours(server) == of_both
    assert not [name for name in (*ca, *server) if name.endswith("_created")]


def test_names_are_by_prometheus_convention(watched: Watched) -> None:
    text = by_socket(watched.ca, "/metrics")[1]
    for name, kind in re.findall(r"^# TYPE (mesh_\w+) (\w+)$", text, re.MULTILINE):
        assert (kind == "counter") == name.endswith("_total"), name
        assert kind != "histogram" or name.endswith("_seconds"), name
        assert not re.search(r"_(age|left)", name), name
        assert f"# HELP {name} " in text


def test_what_happens_is_measured(watched: Watched) -> None:
    found = watched.scrape()
    assert value(found, "mesh_handshake_seconds_count", "server", outcome="accepted") >= 2
    assert value(found, "mesh_ca_sign_seconds_count", "ca") >= 4
    assert value(found, "mesh_ca_sign_seconds_bucket", "ca", le="+Inf") >= 4
    assert value(found, "mesh_ready", "ca") == value(found, "mesh_ready", "server") == 1
    for name in ("witness", "crls", "identity"):
        assert value(found, "mesh_memory_write_failures_total", "server", memory=name) == 0
    for name in ("checkpoints", "crl-numbers", "root-crl"):
        assert value(found, "mesh_memory_unwritten", "ca", memory=name) == 0


def test_every_value_of_a_label_is_there_before_it_is_met(watched: Watched) -> None:
    found = watched.scrape()
    for metric, instance, label, values in (
        ("mesh_peers_refused_total", "server", "code", (*PEER_CODES, "other")),
        ("mesh_connections_severed_total", "server", "code", (*PEER_CODES, "other")),
        ("mesh_ca_requests_refused_total", "ca", "code", (*REQUEST_CODES, "other")),
        ("mesh_ca_ocsp_answers_total", "ca", "status", STATUSES),
        ("mesh_ca_attestations_total", "ca", "kind", PLATFORMS),
        ("mesh_ca_attestations_total", "ca", "code", VERDICTS),
        ("mesh_handshake_seconds_count", "ca", "outcome", ("accepted", "refused")),
        ("mesh_ca_health", "ca", "check", CHECKS),
    ):
        there = {dict(k)[label] for k in found[metric] if ("instance", instance) in k}
        assert there == {str(one) for one in values}, metric


def test_a_refused_request_is_counted_by_its_code(watched: Watched) -> None:
    before = watched.scrape()
    watched.by_tls("/api/v1/tokens", watched.prometheus)
    watched.by_tls("/api/v1/nothing-here", watched.prometheus)
    after = watched.scrape()
    for code in ("not-authorized", "not-found"):
        name, labels = "mesh_ca_requests_refused_total", {"code": code}
        assert value(after, name, "ca", **labels) == value(before, name, "ca", **labels) + 1


def value(scrape: Scrape, metric: str, instance: str, **labels: str) -> float:
    return scrape[metric][frozenset({**labels, "instance": instance}.items())]


# The alerts.


def firing(rule: Rule, before: Scrape, after: Scrape, now: float | None = None) -> Any:
    return Query(rule.expr).ask(before, after, time.time() if now is None else now)


def test_every_name_in_the_rules_is_one_of_a_running_mesh(watched: Watched) -> None:
    found = watched.scrape()
    for rule in RULES:
        query = Query(rule.expr)
        query.ask(found, found, time.time())
        assert query.selectors, rule.name
        for selector in query.selectors:
            assert selector.of(found), f"{rule.name}: {selector} is nothing here"
            for name, pattern in selector.like:
                there = {dict(labels).get(name) for labels in found[selector.metric]}
                assert set(pattern.split("|")) <= there, rule.name
        for label in re.findall(r"\$labels\.(\w+)", rule.summary):
            fields = {name for s in query.selectors for key in s.of(found) for name, _ in key}
            assert label in fields, f"{rule.name} tells of {label}"


def test_nothing_fires_in_a_mesh_that_is_well(watched: Watched) -> None:
    before = watched.scrape()
    after = watched.scrape()
    assert {rule.name: found for rule in RULES if (found := firing(rule, before, after))} == {}


#: What makes each fire: a series by metric and labels, and what it is then, by what it was.
FIRES: dict[str, list[tuple[str, dict[str, str], Any]]] = {
    "MeshNotReady": [("mesh_ready", {"instance": "server"}, 0)],
    "MeshCertificateNotRenewed": [
        ("mesh_certificate_issue_timestamp_seconds", {"instance": "server"}, -2600),
        ("mesh_certificate_expiry_timestamp_seconds", {"instance": "server"}, -2600),
    ],
    "MeshRevocationsStale": [("mesh_revocation_stale", {"instance": "server"}, 1)],
    "MeshRevokedPeerReturns": [
        ("mesh_peers_refused_total", {"instance": "server", "code": "revoked"}, 1)
    ],
    "MeshPeersRefused": [
        ("mesh_peers_refused_total", {"instance": "server", "code": "expired"}, 101)
    ],
    "MeshRevocationCutSlowly": [
        ("mesh_revocation_cut_seconds_sum", {"instance": "server"}, 130),
        ("mesh_revocation_cut_seconds_count", {"instance": "server"}, 2),
    ],
    "MeshMemoryUnwritten": [
        ("mesh_memory_unwritten", {"instance": "server", "memory": "witness"}, 1)
    ],
    "MeshLogContradicts": [
        ("mesh_events_total", {"instance": "server", "event": "log-contradicts"}, 1)
    ],
    "MeshNoDescriptors": [("mesh_events_total", {"instance": "ca", "event": "no-descriptors"}, 1)],
    "MeshWorkerDied": [("mesh_events_total", {"instance": "server", "event": "worker-died"}, 1)],
    "MeshLogLinesLost": [("mesh_log_lines_lost_total", {"instance": "server"}, 1)],
    "MeshRereadFailed": [("mesh_events_total", {"instance": "ca", "event": "reread-failed"}, 1)],
    "MeshPins": [("mesh_events_total", {"instance": "server", "event": "pins-expired"}, 1)],
    "MeshDoorOpen": [("mesh_events_total", {"instance": "ca", "event": "insecure-http"}, 1)],
    "MeshBug": [("mesh_events_total", {"instance": "ca", "event": "request-broke"}, 1)],
    "MeshProxyTargetDown": [
        ("mesh_proxy_target_up", {"instance": "sidecar", "listener": "127.0.0.1:0"}, -1)
    ],
    "MeshProxyTargetRefuses": [
        (
            "mesh_proxy_ended_total",
            {"instance": "sidecar", "listener": "127.0.0.1:0", "reason": "target-refused"},
            1,
        )
    ],
    "MeshProxyFull": [
        ("mesh_proxy_waiting", {"instance": "sidecar", "listener": "127.0.0.1:0"}, 1)
    ],
    "MeshProxyPlaintext": [
        ("mesh_proxy_plaintext_total", {"instance": "sidecar", "listener": "127.0.0.1:0"}, 1)
    ],
    "MeshCtAlarm": [("mesh_events_total", {"instance": "server", "event": "ct-alarm"}, 1)],
    "MeshCtLogContradicted": [
        ("mesh_events_total", {"instance": "server", "event": "ctlog-halted"}, 1)
    ],
    "MeshCtLogUnwritable": [
        ("mesh_events_total", {"instance": "server", "event": "ctlog-unwritable"}, 1)
    ],
    "MeshCaGone": [("mesh_ca_audit_entries", {"instance": "ca"}, None)],
    "MeshCaKeyStoreAway": [("mesh_ca_key_store_up", {"instance": "ca", "store": "files"}, -1)],
    "MeshCaUnwell": [("mesh_ca_health", {"instance": "ca", "check": "crls"}, 1)],
    "MeshCaIssuingEnds": [
        (
            "mesh_ca_issuer_expiry_timestamp_seconds",
            {"instance": "ca", "issuer": "issuing"},
            -340 * DAY,
        )
    ],
    "MeshCaRootEnds": [
        (
            "mesh_ca_issuer_expiry_timestamp_seconds",
            {"instance": "ca", "issuer": "root"},
            -3300 * DAY,
        )
    ],
    "MeshCaRootKeyNeeded": [("mesh_ca_succession_waits", {"instance": "ca"}, 1)],
    "MeshCaRootHalfWay": [("mesh_ca_root_phase", {"instance": "ca", "phase": "activated"}, 1)],
    "MeshCaFederationNotBelieved": [
        ("mesh_ca_federated_domains", {"instance": "ca", "bundle": "not-believed"}, 1)
    ],
    "MeshCaPlatformAway": [
        (
            "mesh_ca_attestations_total",
            {"instance": "ca", "kind": "k8s", "code": "attestor-unavailable"},
            1,
        )
    ],
    "MeshCaEvidenceForged": [
        (
            "mesh_ca_attestations_total",
            {"instance": "ca", "kind": "oidc", "code": "bad-evidence"},
            101,
        )
    ],
    "MeshCaPolicySilent": [
        (
            "mesh_ca_policy_decisions_total",
            {"instance": "ca", "outcome": "unavailable", "rule": ""},
            1,
        )
    ],
    "MeshCaCrlEnds": [
        ("mesh_ca_crl_expiry_timestamp_seconds", {"instance": "ca", "issuer": "issuing"}, -2800)
    ],
    "MeshCaRootCrlEnds": [
        (
            "mesh_ca_crl_expiry_timestamp_seconds",
            {"instance": "ca", "issuer": "root"},
            -3640 * DAY,
        )
    ],
    "MeshCaSignsSlowly": [
        ("mesh_ca_sign_seconds_sum", {"instance": "ca"}, 5),
        ("mesh_ca_sign_seconds_count", {"instance": "ca"}, 3),
    ],
    "MeshCaRecordInDoubt": [("mesh_events_total", {"instance": "ca", "event": "record-lost"}, 1)],
    "MeshCaLimitsCallers": [
        ("mesh_ca_requests_refused_total", {"instance": "ca", "code": "rate-limited"}, 101)
    ],
}


def changed(scrape: Scrape, changes: list[tuple[str, dict[str, str], Any]]) -> Scrape:
    """With the series moved by so much; a state is what it is moved to; None takes it away."""
    found = {name: dict(series) for name, series in scrape.items()}
    for metric, labels, by in changes:
        key: Labels = frozenset(labels.items())
        if by is None:
            del found[metric]
        elif metric == "mesh_ready":
            found[metric][key] = by
        else:
            found[metric][key] += by
    return found


def test_each_alert_fires_when_its_condition_is_made_true_and_no_other_does(
    watched: Watched,
) -> None:
    assert set(FIRES) == {rule.name for rule in RULES}
    before = watched.scrape()
    for name, changes in FIRES.items():
        after = changed(before, changes)
        fired = {rule.name for rule in RULES if firing(rule, before, after)}
        assert fired == {name}


def test_a_revoked_peer_that_comes_back_fires_and_the_cut_is_measured(watched: Watched) -> None:
    running, gone = watched.mesh, watched.worker
    before = watched.scrape()
    context = ssl.create_default_context(cafile=str(running.root))
    context.load_cert_chain(gone / "svid.pem", gone / "svid_key.pem")
    with connected(running, context) as connection:
        connection.sendall(b"GET /api/status HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b"200 OK" in connection.recv(4096)
        done = running.ctl(
            "cert", "revoke", "--spiffe-id", "spiffe://mesh.local/service/worker", "--yes"
        )
        assert done.returncode == 0, done.stderr
        while connection.recv(4096):
            pass
    with connected(running, context) as connection, pytest.raises(ssl.SSLError):
        connection.recv(1)
    until(lambda: bool(firing(rule("MeshRevokedPeerReturns"), before, watched.scrape())))
    after = watched.scrape()
    assert value(after, "mesh_revocation_cut_seconds_count", "server") == 1
    assert value(after, "mesh_revocation_cut_seconds_sum", "server") < PATIENCE
    assert value(after, "mesh_connections_severed_total", "server", code="revoked") == 1
    assert value(after, "mesh_handshake_seconds_count", "server", outcome="refused") >= 1
    assert not firing(rule("MeshRevocationCutSlowly"), before, after)


@contextmanager
def connected(running: Mesh, context: ssl.SSLContext) -> Iterator[ssl.SSLSocket]:
    with (
        socket.create_connection(("127.0.0.1", running.port), timeout=PATIENCE) as tcp,
        context.wrap_socket(tcp, server_hostname="localhost") as connection,
    ):
        yield connection


def test_an_endpoint_whose_memory_cannot_be_written_says_so_at_once_and_heals(
    tmp_path: Path,
) -> None:
    status = tmp_path / "status.sock"
    with mesh(tmp_path) as running:
        running.start_ca()
        in_the_way = running.state / "witness"
        in_the_way.write_text("no directory")
        server = running.start_server("--status", f"unix:{status}", wait=False)
        (told,) = server.wait_for(r"WARNING: What was seen of the CA's audit log (.*)").groups()
        assert str(in_the_way) in told and "out of the way" in told
        server.wait_for(r"Ready to accept mTLS connections\.")
        code, ready = by_socket(status, "/readyz")
        assert (code, json.loads(ready)["status"]) == (200, "ready")
        assert json.loads(ready)["degraded"][0]["name"] == "witness"
        found = scrape_of(by_socket(status, "/metrics")[1], "server")
        assert firing(rule("MeshMemoryUnwritten"), found, found)
        assert value(found, "mesh_memory_write_failures_total", "server", memory="witness") >= 1
        in_the_way.unlink()
        server.wait_for(r"witness/\w+\.json can be written again, and is up to date")
        assert "degraded" not in by_socket(status, "/readyz")[1]
        found = scrape_of(by_socket(status, "/metrics")[1], "server")
        assert not firing(rule("MeshMemoryUnwritten"), found, found)


def fired(scrape: Scrape) -> set[str]:
    """What fires by what is, and not by what has become of it since."""
    return {rule.name for rule in RULES if firing(rule, scrape, scrape)}


def test_a_record_that_is_lost_and_a_door_that_is_open_fire(tmp_path: Path) -> None:
    status = tmp_path / "status.sock"
    with mesh(tmp_path) as running:
        ca = running.start_ca()
        assert ca.stop() == 0
        for left in (running.state / "ca").glob("mesh.db*"):
            left.unlink()
        running.start_ca("--status", f"unix:{status}", "--insecure-http", "0", wait=False).wait_for(
            "does not go on from what was signed|is not what was signed|log-contradicts"
        )
        until(lambda: status.is_socket() and by_socket(status, "/readyz")[0] == 503)
        found = scrape_of(by_socket(status, "/metrics")[1], "ca")
        assert {"MeshNotReady", "MeshCaUnwell", "MeshCaRecordInDoubt", "MeshDoorOpen"} <= fired(
            found
        )
        assert "MeshCaGone" not in fired(found)
        assert fired({}) == {"MeshCaGone"}


def test_a_ca_that_may_not_write_its_issuance_log_is_not_ready_until_it_may(
    tmp_path: Path,
) -> None:
    status, log = tmp_path / "status.sock", tmp_path / "kept" / "issued.jsonl"
    log.parent.mkdir()
    with mesh(tmp_path) as running:
        ca = running.start_ca("--status", f"unix:{status}", "--issuance-log", str(log))
        aside = log.parent.rename(tmp_path / "aside")
        running.start_server(wait=False)
        ca.wait_for(r"WARNING: Certificates are signed and not given out.*issued\.jsonl")
        until(lambda: by_socket(status, "/readyz")[0] == 503)
        assert "unhealthy-memories" in by_socket(status, "/readyz")[1]
        found = scrape_of(by_socket(status, "/metrics")[1], "ca")
        assert firing(rule("MeshNotReady"), found, found)
        aside.rename(log.parent)
        ca.wait_for(r"issued\.jsonl can be written again")
        until(lambda: by_socket(status, "/readyz")[0] == 200)


def rule(name: str) -> Rule:
    (found,) = [rule for rule in RULES if rule.name == name]
    return found
