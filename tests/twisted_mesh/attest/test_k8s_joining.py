"""Pods that know nothing but where the CA is and their own tokens: they meet, and an agent serves its node."""

import json
import os
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from tests.running import PATIENCE, Mesh, Running, mesh, until
from tests.twisted_mesh.attest.api_server import ApiServer, serving, uid, written
from tests.twisted_mesh.attest.processes import only_linux
from tests.twisted_mesh.workload.estate import workload
from twisted_mesh.cli.status import REFUSED

pytestmark = pytest.mark.slow
API, WEB = (f"spiffe://mesh.local/ns/shop/sa/{name}" for name in ("api", "web"))
ENTRIES = Path(__file__).resolve().parents[3] / "deploy" / "kubernetes" / "ca" / "entries.toml"


def filed(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o600)
    return path


def start_ca(mesh: Mesh, table: dict[str, Any]) -> None:
    """With the entries of deploy/kubernetes, but for the name by which the test calls."""
    # Texts, numbers and lists of them TOML writes as JSON does.
    members = (f"{name} = {json.dumps(value)}" for name, value in table.items())
    attestors = "\n".join(["[k8s]", *members])
    entries = ENTRIES.read_text()
    assert "api.shop.svc" in entries
    mesh.start_ca(
        *("--attestors", str(filed(mesh.home / "attestors.toml", attestors))),
        *(
            "--entries",
            str(filed(mesh.home / "entries.toml", entries.replace("api.shop.svc", "localhost"))),
        ),
        "--no-default-entry",
    )


def joining(mesh: Mesh, name: str, who: str, token: str) -> tuple[str, ...]:
    """What a pod is started with."""
    file = filed(mesh.home / f"{name}.token", token)
    return (
        *("--ca-url", f"https://localhost:{mesh.ca_port}", "--ca-fingerprint", mesh.fingerprint),
        *("--attest", f"k8s:{file}", "--spiffe-id", who),
        *("--state-dir", str(mesh.home / name)),
    )


def meet(mesh: Mesh, api: str, web: str) -> None:
    """The sample of deploy/kubernetes with these tokens."""
    mesh.start_server(*joining(mesh, "api", API, api), "--dns", "localhost", "--allow", WEB)
    called = mesh.client(*joining(mesh, "web", WEB, web), "--server-id", API, "--format", "json")
    assert called.returncode == 0, called.stderr
    assert API in called.stdout


@pytest.fixture
def place(tmp_path: Path) -> Iterator[tuple[Mesh, ApiServer]]:
    api = ApiServer(accounts={("shop", "api"): uid("sa"), ("shop", "web"): uid("web")})
    api.run_pod("web-1", "web", "web pod")
    with serving(api), mesh(tmp_path) as made:
        start_ca(made, written(api, tmp_path))
        yield made, api


def of_web(api: ApiServer, node: str | None = None) -> str:
    """Of the pod web-1, on a node perhaps."""
    bound: dict[str, Any] = {
        "namespace": "shop",
        "pod": {"name": "web-1", "uid": uid("web pod")},
        "serviceaccount": {"name": "web", "uid": uid("web")},
    }
    if node is not None:
        bound["node"] = {"name": node, "uid": uid("node")}
    return api.token(sub="system:serviceaccount:shop:web", **{"kubernetes.io": bound})


def test_two_pods_meet_by_their_tokens(place: tuple[Mesh, ApiServer]) -> None:
    made, api = place
    tokens = api.token(), of_web(api)
    meet(made, *tokens)
    # Each has only what is its own.
    other = made.client(*joining(made, "thief", API, of_web(api)))
    assert other.returncode == REFUSED
    assert "ids-granted-only" in other.stderr
    proof = f"k8s:prod/shop/web/{uid('web pod')}"
    # Its log takes up once a second what was done.
    until(lambda: proof in made.ctl("audit", "show", "--format", "json").stdout)
    for process in made.processes:
        assert not any(token in process.text for token in tokens)


def test_a_deleted_pod_gets_nothing_and_is_told_why(place: tuple[Mesh, ApiServer]) -> None:
    made, api = place
    out = made.home / "out"
    words = (*joining(made, "web", WEB, of_web(api)), "--export", str(out))
    nowhere = ("--server", "https://localhost:9443")
    del api.pods["shop", "web-1"]
    refused = made.client(*words, *nowhere)
    assert refused.returncode == REFUSED
    assert "bad-evidence: the API server does not know this token" in refused.stderr
    api.fault = lambda handler: handler.refuse(500, "etcd is away")
    away = made.client(*words, *nowhere, "--timeout", "1s")
    assert away.returncode != 0
    assert "attestor-unavailable" in away.stderr
    assert not out.exists()
    # Why, the CA's log says, and nobody else.
    assert "etcd is away" in made.processes[0].text
    assert "etcd is away" not in away.stderr


def done(mesh: Mesh, *words: str) -> str:
    made = mesh.ctl(*words)
    assert made.returncode == 0, made.stderr
    return made.stdout


def allow_agents(mesh: Mesh, *options: str) -> None:
    """Agents of the account web are let in, each as its node; what counts through them is web's, for this user."""
    done(
        mesh,
        *("agent", "allow", "prod.{k8s_psat.agent_node_name}", "--selector"),
        *("k8s_psat:cluster:prod", "--selector", "k8s_psat:agent_sa:web", *options),
    )
    done(mesh, "agent", "alias", "prod-nodes", "--selector", "k8s_psat:cluster:prod")
    done(
        mesh,
        *("entry", "create", "--parent", "spiffe://mesh.local/mesh/alias/prod-nodes"),
        *("--selector", f"unix:uid:{os.getuid()}", "--spiffe-id", WEB),
    )


def start_agent(mesh: Mesh, name: str, token: str, *options: str) -> tuple[Running, Path]:
    """What runs, and where workloads ask."""
    words = list(joining(mesh, f"of-{name}", "", token))
    where = words.index("--spiffe-id")
    del words[where : where + 2]
    socket = mesh.home / f"{name}.sock"
    return mesh.twistd(
        "mesh-agent", "--name", name, "--socket", str(socket), *words, *options
    ), socket


@only_linux
def test_an_agent_comes_by_its_node_and_serves_workloads_by_an_alias(
    place: tuple[Mesh, ApiServer],
) -> None:
    made, api = place
    allow_agents(made)
    agent, socket = start_agent(made, "prod.node7", of_web(api, "node7"))
    agent.wait_for(r"\[AGENT\] Showing the CA evidence of this platform \(k8s\)")
    with workload(socket) as it:
        assert it.wait_for(lambda told: told.get("ids") == [WEB])
    (row,) = json.loads(done(made, "agent", "list", "--format", "json"))
    assert row["status"] == "joined"
    assert row["aliases"] == ["spiffe://mesh.local/mesh/alias/prod-nodes"]
    assert "k8s_psat:agent_node_name:node7" in row["selectors"]
    other, _ = start_agent(made, "prod.node8", of_web(api, "node7"))
    other.wait_for("ids-granted-only|no-entry")
    done(made, "agent", "evict", "prod.node7", "--yes")
    agent.wait_for("evicted")


@only_linux
def test_an_agent_that_must_proves_its_node_again_for_each_certificate(
    place: tuple[Mesh, ApiServer],
) -> None:
    made, api = place
    allow_agents(made, "--reattest")
    agent, _ = start_agent(made, "prod.node7", of_web(api, "node7"), "--ttl", "4s")
    agent.wait_for("Showing the CA evidence", count=3)
    made.processes[0].wait_for("reattest-required")
    api.pods.clear()
    agent.wait_for("bad-evidence: the API server does not know this token")


@only_linux
def test_an_agents_evidence_is_its_own_where_its_files_have_a_token(
    place: tuple[Mesh, ApiServer],
) -> None:
    made, api = place
    allow_agents(made)
    told = done(made, "token", "create", "--spiffe-id", API, "--format", "json")
    token = filed(made.home / "join-token", json.loads(told)["token"])
    agent, _ = start_agent(
        made,
        *("prod.node7", of_web(api, "node7"), "--write", str(made.home / "files")),
        *("--spiffe-id", API, "--write-join-token-file", str(token)),
    )
    agent.wait_for(r"Files in \S+ are new: svid, bundle, crl")
    agent.wait_for(r"Known entries for the workloads of this machine: 1")
    assert agent.text.count("Showing the CA evidence") == 1


def test_a_sidecar_joins_by_its_pod_and_carries(place: tuple[Mesh, ApiServer]) -> None:
    made, api = place
    made.start_server(*joining(made, "api", API, api.token()), "--dns", "localhost", "--allow", WEB)
    of_sidecar = joining(made, "sidecar", WEB, of_web(api))
    proxy, port = made.start_proxy("client", f"localhost:{made.port}", *of_sidecar, "--verify", API)
    assert "[PROXY] Showing the CA evidence of this platform (k8s)" in proxy.text
    with closing(HTTPConnection("127.0.0.1", port, timeout=PATIENCE)) as connection:
        connection.request("GET", "/api/status")
        answer = connection.getresponse().read().decode()
    assert WEB in answer
