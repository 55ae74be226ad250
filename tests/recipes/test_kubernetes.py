"""Tokens that a real kube-apiserver has made, and what it says of them; and what it makes of deploy/kubernetes."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pki.spiffe import TrustDomain
from tests.peers.kubernetes import ISSUER, ControlPlane, control_plane
from tests.pki.policy.kinds import own_kinds
from tests.running import mesh, until
from tests.twisted_mesh.attest.records import Record
from tests.twisted_mesh.attest.test_k8s import attested, refusal, texts
from tests.twisted_mesh.attest.test_k8s_joining import WEB, joining, meet, start_ca
from tests.twisted_mesh.attest.tokens import Tokens
from tests.twisted_mesh.federation.hostile import reactor
from twisted_mesh.attest.errors import AttestorUnavailable, BadEvidence
from twisted_mesh.attest.interface import Means
from twisted_mesh.attest.k8s import K8sAttestor
from twisted_mesh.attest.registry import declare_kinds
from twisted_mesh.cli.status import REFUSED
from twisted_mesh.runtime.clock import wall_clock

pytestmark = pytest.mark.recipes
TREE = Path(__file__).resolve().parent.parent.parent / "deploy" / "kubernetes"


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """With what deploy/kubernetes makes in it, and a node."""
    with control_plane(tmp_path_factory.mktemp("plane")) as plane:
        applied(plane, "-k", TREE)
        applied(plane, "-k", TREE / "sample")
        plane.make("/api/v1/nodes", {"metadata": {"name": "node7", "labels": {"tier": "front"}}})
        yield plane


@pytest.fixture(autouse=True)
def _kinds() -> Iterator[None]:
    with own_kinds():
        declare_kinds()
        yield


def applied(plane: ControlPlane, *words: str | Path) -> str:
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed")
    done = subprocess.run(
        plane.kubectl("apply", *words), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def pod(plane: ControlPlane, name: str, account: str = "web") -> Any:
    """One of that account, on a node, with nobody to run it."""
    body = {
        "metadata": {"name": name, "labels": {"app.kubernetes.io/name": "web", "other": "x"}},
        "spec": {
            "serviceAccountName": account,
            "nodeName": "node7",
            "automountServiceAccountToken": False,
            "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [
                {
                    "name": "web",
                    "image": "twisted-mesh",
                    "securityContext": {
                        "allowPrivilegeEscalation": False,
                        "capabilities": {"drop": ["ALL"]},
                    },
                }
            ],
        },
    }
    return plane.make("/api/v1/namespaces/shop/pods", body)


def token(
    plane: ControlPlane,
    bound: Any = None,
    audience: str = "mesh",
    account: str = "web",
    namespace: str = "shop",
) -> str:
    """What the kubelet has made and mounts into a pod (TokenRequest)."""
    spec: dict[str, Any] = {"audiences": [audience] if audience else [], "expirationSeconds": 3600}
    if bound is not None:
        meta = bound["metadata"]
        spec["boundObjectRef"] = {
            "kind": "Pod",
            "apiVersion": "v1",
            "name": meta["name"],
            "uid": meta["uid"],
        }
    path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token"
    made = plane.make(path, {"spec": spec})
    return str(made["status"]["token"])


def table(plane: ControlPlane, directory: Path, **other: Any) -> dict[str, Any]:
    """``[k8s]`` as deploy/kubernetes has it, with the rights that it gives the CA and no others."""
    own = directory / "token"
    own.write_text(token(plane, audience="", account="mesh-ca", namespace="mesh"))
    own.chmod(0o600)
    usual = {
        "cluster": "prod",
        "audience": ["mesh"],
        "service_account_allow_list": ["shop:*"],
        "server": plane.url,
        "ca_file": str(plane.ca_file),
        "token_file": str(own),
    }
    return {**usual, **other}


def attestor(plane: ControlPlane, directory: Path, **other: Any) -> K8sAttestor:
    found = Tokens().find, {}.get, wall_clock, Record().find
    means = Means(reactor(), *found, trust_domain=TrustDomain("mesh.local"))  # type: ignore[arg-type]
    read = K8sAttestor.read(table(plane, directory, **other), "[k8s]")
    return K8sAttestor.of(read, means)


def test_a_pod_is_known_by_the_token_that_kubernetes_has_made(
    plane: ControlPlane, tmp_path: Path
) -> None:
    made = pod(plane, "web-1")
    judge = attestor(
        plane,
        tmp_path,
        allowed_pod_label_keys=["app.kubernetes.io/name"],
        allowed_node_label_keys=["tier"],
    )
    shown = token(plane, made)
    found = attested(judge, shown)
    node = plane.ask("GET", "/api/v1/nodes/node7")[1]["metadata"]["uid"]
    assert texts(found) >= {
        "k8s_psat:cluster:prod",
        "k8s_psat:agent_ns:shop",
        "k8s_psat:agent_sa:web",
        "k8s_psat:agent_pod_name:web-1",
        f"k8s_psat:agent_pod_uid:{made['metadata']['uid']}",
        "k8s_psat:agent_node_name:node7",
        f"k8s_psat:agent_node_uid:{node}",
        "k8s_psat:agent_node_label:tier:front",
        "k8s:ns:shop",
        "k8s:sa:web",
        "k8s:pod-label:app.kubernetes.io/name:web",
    }
    assert not any("other" in text for text in texts(found))
    assert attested(judge, shown) == found
    # By its key alone it is the same pod, as far as the token itself goes.
    alone = attested(attestor(plane, tmp_path, by_keys_alone=True), shown)
    assert alone.proof == found.proof
    assert texts(alone) < texts(found)


def test_the_token_of_a_deleted_pod_proves_nothing(plane: ControlPlane, tmp_path: Path) -> None:
    made = pod(plane, "web-2")
    judge, shown = attestor(plane, tmp_path), token(plane, made)
    looking = attestor(plane, tmp_path, look_up_pods=True)
    alone = attestor(plane, tmp_path, by_keys_alone=True)

    def is_good() -> bool:
        try:
            return attested(judge, shown) is not None
        except BadEvidence:
            return False

    assert is_good()
    path = "/api/v1/namespaces/shop/pods/web-2?gracePeriodSeconds=0"
    assert plane.ask("DELETE", path)[0] == 200
    # kube-apiserver remembers for ten seconds what it has said of a token: who looks up the pod does not.
    assert isinstance(refusal(looking, shown), BadEvidence)
    until(lambda: not is_good())
    # Nor is it that of the pod that came in its place.
    again = pod(plane, "web-2")
    assert isinstance(refusal(judge, shown), BadEvidence)
    assert attested(judge, token(plane, again))
    # The keys alone notice nothing of it.
    assert attested(alone, shown)


@pytest.mark.parametrize("looks", [False, True])
def test_what_kubernetes_has_made_for_something_else_is_refused(
    plane: ControlPlane, tmp_path: Path, looks: bool
) -> None:
    made = pod(plane, f"web-{3 + looks}")
    judge = attestor(plane, tmp_path, look_up_pods=looks)
    for wrong in (
        token(plane, made, audience="vault"),
        token(plane, made, audience=""),
        token(plane, audience="mesh"),
        token(plane, audience="mesh", account="mesh-ca", namespace="mesh"),
    ):
        assert isinstance(refusal(judge, wrong), BadEvidence)
    good = token(plane, made)
    head, body, signature = good.split(".")
    # Not its last letter, which has bits that nobody reads.
    flipped = ("B" if signature[0] == "A" else "A") + signature[1:]
    assert isinstance(refusal(judge, f"{head}.{body}.{flipped}"), BadEvidence)
    assert attested(judge, good)


def test_without_its_rights_the_ca_lets_nobody_in(plane: ControlPlane, tmp_path: Path) -> None:
    shown = token(plane, pod(plane, "web-5"))
    judge = attestor(plane, tmp_path, look_up_pods=True)
    (tmp_path / "token").write_text(token(plane, audience=""))
    assert isinstance(refusal(judge, shown), AttestorUnavailable)
    (tmp_path / "token").write_text("nobody's")
    assert isinstance(refusal(judge, shown), AttestorUnavailable)


def test_two_pods_meet_by_the_tokens_that_kubernetes_has_made(
    plane: ControlPlane, tmp_path: Path
) -> None:
    api, web = pod(plane, "api-6", "api"), pod(plane, "web-6")
    with mesh(tmp_path) as made:
        start_ca(made, table(plane, tmp_path, look_up_pods=True))
        meet(made, token(plane, api, account="api"), token(plane, web))
        gone = token(plane, web)
        assert (
            plane.ask("DELETE", "/api/v1/namespaces/shop/pods/web-6?gracePeriodSeconds=0")[0] == 200
        )
        out = tmp_path / "out"
        refused = made.client(*joining(made, "late", WEB, gone), "--export", str(out))
        assert (refused.returncode, out.exists()) == (REFUSED, False)
        assert "bad-evidence" in refused.stderr


def test_its_issuer_is_the_one_that_is_usual(plane: ControlPlane) -> None:
    status, found = plane.ask("GET", "/.well-known/openid-configuration")
    assert (status, found["issuer"]) == (200, ISSUER)


def test_what_is_deployed_is_admitted_by_the_levels_of_pod_security(plane: ControlPlane) -> None:
    """As the controllers would make the pods: none of them runs here."""
    for group, kind, namespace, name in (
        ("statefulsets", "StatefulSet", "mesh", "mesh-ca"),
        ("daemonsets", "DaemonSet", "mesh-agent", "mesh-agent"),
        ("deployments", "Deployment", "shop", "api"),
        ("deployments", "Deployment", "shop", "web"),
    ):
        status, found = plane.ask("GET", f"/apis/apps/v1/namespaces/{namespace}/{group}/{name}")
        assert (status, found["kind"]) == (200, kind)
        template = found["spec"]["template"]
        body = {"metadata": {**template["metadata"], "name": name}, "spec": template["spec"]}
        if kind == "StatefulSet":
            claim = {"name": "state", "persistentVolumeClaim": {"claimName": "state"}}
            body["spec"]["volumes"].append(claim)
        assert plane.make(f"/api/v1/namespaces/{namespace}/pods?dryRun=All", body)
