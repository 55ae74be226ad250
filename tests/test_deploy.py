"""deploy/: what is written there is what our programs read, and what kubectl takes."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pki.policy.selector import Selector
from pki.spiffe import TrustDomain
from tests.pki.policy.kinds import own_kinds
from tests.test_documentation import PROGRAMS, options
from tests.tools import require_tool
from twisted_mesh.attest.k8s import K8sAttestor
from twisted_mesh.attest.kubelet import KubeletSettings
from twisted_mesh.attest.workload_attestors import WorkloadAttestors
from twisted_mesh.ca.entries_file import read_entries

#: Of kubectl, from which its kustomize is a newer one than of 2019.
_LEAST_MINOR = 21
TREE = Path(__file__).resolve().parent.parent / "deploy" / "kubernetes"


def toml(path: Path) -> Any:
    return msgspec.toml.decode(path.read_bytes())


def test_the_attestors_are_such_as_the_ca_reads() -> None:
    table = toml(TREE / "ca" / "attestors.toml")
    assert table.keys() == {"k8s"}
    (cluster,) = K8sAttestor.read(table["k8s"], "[k8s]")
    assert cluster.is_default
    assert cluster.accounts.has("shop", "api")
    assert cluster.accounts.has("mesh-agent", "mesh-agent")
    assert not cluster.accounts.has("default", "default")


def test_the_entries_are_such_as_the_ca_reads(tmp_path: Path) -> None:
    path = tmp_path / "entries.toml"
    shutil.copyfile(TREE / "ca" / "entries.toml", path)
    path.chmod(0o600)
    with own_kinds():
        found = read_entries(path, TrustDomain("mesh.local"))
        assert {str(entry.spiffe_id) for entry in found} == {
            "spiffe://mesh.local/ns/{k8s.ns}/sa/{k8s.sa}",
            "spiffe://mesh.local/ns/shop/sa/api",
        }
        seen = frozenset(map(Selector.parse, ("k8s:ns:shop", "k8s:sa:web")))
        (met,) = (entry for entry in found if entry.is_met_by(seen))
        assert str(met.spiffe_id).endswith("/ns/{k8s.ns}/sa/{k8s.sa}")


@pytest.mark.parametrize("path", ["ca/statefulset", "agent/daemonset", "sample/api", "sample/web"])
def test_programs_are_started_with_options_that_they_have(path: str) -> None:
    text = (TREE / f"{path}.yaml").read_text()
    # The first of a list of arguments; other people's programs beside it have one dash.
    (program,) = re.findall(r"^ +args:\n +- (mesh-[a-z]+)$", text, re.MULTILINE)
    told = re.findall(r"^ +- (--[a-z-]+)=", text, re.MULTILINE)
    assert told
    known = program if program in PROGRAMS else f"twistd {program}"
    assert set(told) <= options(known)


def test_the_agent_asks_the_kubelet_as_its_file_says(tmp_path: Path) -> None:
    path = tmp_path / "workload-attestors.toml"
    shutil.copyfile(TREE / "agent" / "workload-attestors.toml", path)
    path.chmod(0o600)
    (found,) = WorkloadAttestors.read(path).settings
    assert isinstance(found, KubeletSettings)
    text = (TREE / "agent" / "daemonset.yaml").read_text()
    assert f"--workload-attestors=/etc/mesh/{path.name}" in text


@pytest.mark.parametrize("part", ["", "ca", "agent", "sample"])
def test_kubectl_builds_it(part: str) -> None:
    kubectl = require_tool("kubectl")
    told = subprocess.run(
        [kubectl, "version", "--client", "-o", "json"], capture_output=True, timeout=60, check=True
    )
    minor = int(msgspec.json.decode(told.stdout)["clientVersion"]["minor"].rstrip("+"))
    if minor < _LEAST_MINOR:
        pytest.skip(f"the kustomize of kubectl 1.{minor} takes no directory for a resource")
    done = subprocess.run(
        [kubectl, "kustomize", TREE / part], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "kind: " in done.stdout
    # No name of a registry, and no version that moves, but for the image that is built here.
    images = {line.split()[-1] for line in done.stdout.splitlines() if " image: " in line}
    assert all("/" not in image for image in images)
