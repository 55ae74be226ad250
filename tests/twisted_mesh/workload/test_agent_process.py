"""mesh-agent as a process: a real CA, an agent and workloads; what each state of the agent does to their streams."""

import json
import re
import signal
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.measuring import MEASURED
from tests.running import BIN, Mesh, mesh, until
from tests.twisted_mesh.attest.processes import only_linux
from tests.twisted_mesh.workload.estate import US, Node, status, workload

pytestmark = only_linux


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    """A CA; each test has an agent of its own."""
    with mesh(tmp_path_factory.mktemp("workloads")) as made:
        made.start_ca()
        yield made


@pytest.fixture
def node(running: Mesh, tmp_path: Path) -> Iterator[Node]:
    made = Node(running, f"node-{len(running.processes)}", tmp_path / "node")
    yield made
    if made.agent is not None:
        made.agent.stop(signal.SIGKILL)


def test_an_entry_is_in_the_workloads_hands_and_out_of_them_again(
    node: Node,
) -> None:
    node.join()
    assert stat.S_IMODE(node.socket.stat().st_mode) == 0o666
    with workload(node.socket, "again") as it:
        refused = it.told()
        assert refused["status"] == "PERMISSION_DENIED"
        assert "no entry at all" in refused["why"]
        assert f"mesh-ctl why --agent {node.name} --selector" in refused["why"]
        first = node.entry("first")
        told = it.wait_for_id("first")
        assert told["crls"] == 2
        with workload(node.socket, "token") as bearer:
            found = bearer.told()
            assert found.get("token") == found.get("valid") == told["ids"][0], found
        node.entry("second", "--ttl", "2s")
        both = it.wait_for(lambda told: len(told.get("ids", ())) == 2)
        assert set(told["serials"]) <= set(both["serials"])
        rotated = it.wait_for(lambda told: set(told["serials"]) != set(both["serials"]))
        assert len(set(rotated["serials"]) & set(both["serials"])) == 1
        gone = node.mesh.ctl("entry", "delete", first, "--yes")
        assert gone.returncode == 0, gone.stderr
        it.wait_for(lambda told: told.get("ids") == ["spiffe://mesh.local/service/second"])
    assert node.agent is not None
    assert node.agent.stop() == 0
    assert not node.socket.exists()


@pytest.mark.interop(
    "tests/twisted_mesh/workload/test_agent_process.py::test_an_entry_is_in_the_workloads_hands_and_out_of_them_again"
)
def test_without_the_ca_what_is_valid_stays_and_new_callers_are_served(
    node: Node, tmp_path: Path
) -> None:
    with mesh(tmp_path / "own") as own:
        ca = own.start_ca()
        own_node = Node(own, "alone", tmp_path / "alone")
        health = tmp_path / "status"
        own_node.join("--ttl", "4s", "--status", f"unix:{health}")
        until(lambda: status(health)[0] == 200)
        own_node.entry("web")
        with workload(own_node.socket, "again") as it:
            it.wait_for_id("web")
            ca.stop(signal.SIGKILL)
            assert own_node.agent is not None
            own_node.agent.wait_for("The CA does not tell of entries")
            with workload(own_node.socket) as other:
                assert other.told()["ids"] == ["spiffe://mesh.local/service/web"]
            degraded = status(health)[1]["degraded"]
            assert [one["name"] for one in degraded] == ["workloads"]
            metrics = status(health, "/metrics")[1]
            shown = set(
                re.findall(r"^mesh_workload_[a-z0-9_]+?(?=_bucket|_count|_sum|[ {])", metrics, re.M)
            )
            assert shown == {name for name in MEASURED if name.startswith("mesh_workload_")}
            assert "mesh_workload_ca_trouble 1.0" in metrics
            own_node.agent.wait_for(r"new work is refused|expired")
            assert status(health)[0] == 503
            with workload(own_node.socket) as other:
                assert other.told()["ids"] == ["spiffe://mesh.local/service/web"]


@pytest.mark.interop(
    "tests/twisted_mesh/workload/test_agent_process.py::test_an_entry_is_in_the_workloads_hands_and_out_of_them_again"
)
@pytest.mark.parametrize("how", ["ban", "evict"])
def test_an_agent_that_is_ended_has_nothing_for_its_workloads(node: Node, how: str) -> None:
    node.join()
    node.entry(f"of-{how}")
    with workload(node.socket) as it:
        told = it.told()
        assert told["ids"] == [f"spiffe://mesh.local/service/of-{how}"]
        done = node.mesh.ctl("agent", how, node.name, "--yes")
        assert done.returncode == 0, done.stderr
        ended = it.wait_for(lambda told: "status" in told)
        assert ended["status"] == "PERMISSION_DENIED"
        assert node.id in ended["why"]


@pytest.mark.interop(
    "tests/twisted_mesh/workload/test_agent_process.py::test_an_entry_is_in_the_workloads_hands_and_out_of_them_again"
)
def test_a_second_agent_on_one_socket_is_refused_and_one_that_was_killed_is_followed(
    node: Node,
) -> None:
    agent = node.join()
    second = node.mesh.twistd(
        "mesh-agent",
        *("--name", "other", "--state-dir", str(node.home)),
        *("--ca-url", f"https://localhost:{node.mesh.ca_port}"),
        *("--ca-fingerprint", node.mesh.fingerprint),
    )
    second.wait_for(rf"the workload socket {node.socket} is another program's \(PID \d+")
    assert second.wait() == 1
    agent.stop(signal.SIGKILL)
    assert node.socket.exists()
    # By what it has kept: no token is needed.
    node.start().wait_for("entries for the workloads of this machine")


@pytest.mark.interop(
    "tests/twisted_mesh/workload/test_agent_process.py::test_an_entry_is_in_the_workloads_hands_and_out_of_them_again"
)
def test_an_agent_whose_certificate_is_revoked_withdraws_all_and_may_come_again(
    node: Node,
) -> None:
    node.join()
    node.entry("revoked")
    with workload(node.socket) as it:
        it.told()
        done = node.mesh.ctl("cert", "revoke", "--spiffe-id", node.id, "--yes")
        assert done.returncode == 0, done.stderr
        ended = it.wait_for(lambda told: "status" in told)
        assert ended["status"] == "UNAVAILABLE"
        assert "was revoked" in ended["why"]
    assert node.agent is not None
    assert node.agent.stop() == 0
    node.join()
    with workload(node.socket) as it:
        assert it.told()["ids"] == ["spiffe://mesh.local/service/revoked"]


@pytest.mark.interop(
    "tests/twisted_mesh/workload/test_agent_process.py::test_an_entry_is_in_the_workloads_hands_and_out_of_them_again"
)
def test_it_serves_workloads_and_keeps_files_side_by_side(node: Node, tmp_path: Path) -> None:
    made = node.mesh.ctl(
        "token", "create", "--spiffe-id", "spiffe://mesh.local/service/filed", "--format", "json"
    )
    assert made.returncode == 0, made.stderr
    (tmp_path / "token").write_text(json.loads(made.stdout)["token"])
    agent = node.join(
        *("--write", str(tmp_path / "files"), "--spiffe-id", "spiffe://mesh.local/service/filed"),
        *("--write-join-token-file", str(tmp_path / "token")),
    )
    agent.wait_for(r"Files in \S+ are new: svid, bundle, crl")
    node.entry("beside")
    with workload(node.socket) as it:
        assert it.told()["ids"] == ["spiffe://mesh.local/service/beside"]
    assert agent.stop() == 0


def test_a_file_in_the_sockets_place_is_not_removed(running: Mesh, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    done = running.run(
        BIN / "twistd",
        *("-n", "mesh-agent", "--name", "x", "--ca-url", "https://localhost:1"),
        *("--ca-fingerprint", running.fingerprint, "--socket", tmp_path / "file"),
    )
    assert done.returncode == 1
    assert "is no socket, but a file that would be overwritten" in done.stderr
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.interop(
    "tests/twisted_mesh/workload/test_agent_process.py::test_an_entry_is_in_the_workloads_hands_and_out_of_them_again"
)
def test_a_stopped_agent_ends_streams_as_unavailable(node: Node) -> None:
    agent = node.join()
    node.entry("stopping")
    with workload(node.socket) as it:
        it.told()
        assert agent.stop() == 0
        ended = it.told()
        assert ended["status"] == "UNAVAILABLE"
        assert "is being stopped" in ended["why"]
    with socket.socket(socket.AF_UNIX) as probe, pytest.raises(FileNotFoundError):
        probe.connect(str(node.socket))


def test_the_ca_serves_its_own_machine(tmp_path: Path) -> None:
    """By entries that have no parent, without an agent; what an agent's entries buy is not for its processes."""
    socket_path = tmp_path / "workload.sock"
    with mesh(tmp_path / "ca") as own:
        ca = own.start_ca("--workload-socket", str(socket_path))
        with workload(socket_path, "again") as it:
            refused = it.told()
            assert refused["status"] == "PERMISSION_DENIED"
            assert "mesh-ctl why --selector" in refused["why"]
            Node(own, "node-1", tmp_path / "node").entry("of-another")
            made = own.ctl(
                *("entry", "create", "--selector", US, "--hint", "inside"),
                *("--spiffe-id", "spiffe://mesh.local/service/own", "--format", "json"),
            )
            assert made.returncode == 0, made.stderr
            told = it.wait_for(lambda told: "ids" in told)
            assert told["ids"] == ["spiffe://mesh.local/service/own"]
            assert told["hints"] == ["inside"]
            assert told["crls"] == 2
            with workload(socket_path, "token") as bearer:
                found = bearer.told()
                assert found.get("token") == found.get("valid") == told["ids"][0], found
                assert found["hint"] == "inside"
            done = own.ctl("cert", "revoke", "--serial", told["serials"][0], "--yes")
            assert done.returncode == 0, done.stderr
            again = it.wait_for(lambda now: now.get("serials", told["serials"]) != told["serials"])
            assert again["ids"] == told["ids"]
            assert ca.stop() == 0
            assert it.wait_for(lambda told: "status" in told)["status"] == "UNAVAILABLE"
