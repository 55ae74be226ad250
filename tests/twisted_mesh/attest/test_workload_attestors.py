"""Who is asked about containers, as the command line and a file say it; what is no good is told by its table."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pki.errors import Malformed, PkiError
from tests.twisted_mesh.attest.processes import only_linux, outcome
from tests.twisted_mesh.workload.fake_issuer import Turning
from twisted_mesh.attest import workload_attestors
from twisted_mesh.attest.container_runtime import RuntimeSettings
from twisted_mesh.attest.kubelet import KubeletSettings
from twisted_mesh.attest.workload_attestors import WorkloadAttestors
from twisted_mesh.taps.agent_options import Options as AgentOptions
from twisted_mesh.taps.ca_options import Options as CaOptions
from twisted_mesh.taps.workload_attestor_options import WorkloadAttestorOptions

POD = Path("/run/secrets/kubernetes.io/serviceaccount")
SECURE = KubeletSettings("https", "127.0.0.1", 10250, POD / "ca.crt", "", POD / "token")

WORDS = {
    "docker": RuntimeSettings(Path("/run/docker.sock")),
    "docker:/x/docker.sock": RuntimeSettings(Path("/x/docker.sock")),
    "docker:unix:///x/docker.sock": RuntimeSettings(Path("/x/docker.sock")),
    "podman": RuntimeSettings(Path("/run/podman/podman.sock")),
    "podman:/run/user/1000/podman/podman.sock": RuntimeSettings(
        Path("/run/user/1000/podman/podman.sock"), 1000
    ),
    "k8s": SECURE,
    "k8s:https://node7": KubeletSettings(
        "https", "node7", 10250, SECURE.ca_file, "", SECURE.token_file
    ),
    "k8s:http://127.0.0.1:10255": KubeletSettings("http", "127.0.0.1", 10255),
    "k8s:http://[::1]": KubeletSettings("http", "::1", 10255),
}


@pytest.mark.parametrize("word", WORDS)
def test_a_word_of_the_command_line(word: str) -> None:
    assert WorkloadAttestors.parse([word, "docker"]).settings == (WORDS[word], WORDS["docker"])


@pytest.mark.parametrize(
    ("word", "why"),
    [
        ("", "write docker"),
        ("containerd", "write docker"),
        ("docker:", "write docker"),
        ("docker:run/docker.sock", "no absolute path"),
        ("docker:tcp://127.0.0.1:2375", "no absolute path"),
        (f"docker:/{'x' * 200}", "the socket's path"),
        ("k8s:node7:10250", "is no kubelet"),
        ("k8s:https://node7/pods", "is no kubelet"),
        ("k8s:http://node7:10255", "on this machine only"),
        ("k8s:http://127.0.0.1@node7", "is no kubelet"),
    ],
)
def test_a_word_that_is_none(word: str, why: str) -> None:
    with pytest.raises(Malformed, match=why):
        WorkloadAttestors.parse([word])


@pytest.fixture
def written(tmp_path: Path) -> Callable[[str], Path]:
    def write(text: str) -> Path:
        path = tmp_path / "attestors.toml"
        path.write_text(text)
        path.chmod(0o600)
        return path

    return write


def test_a_file_says_more(written: Callable[[str], Path]) -> None:
    path = written("""
[docker]
env = ["ENVIRONMENT"]
[[podman]]
[[podman]]
socket = "/run/user/7/podman/podman.sock"
[[podman]]
socket = "/srv/podman.sock"
user = 8
[k8s]
kubelet = "https://127.0.0.1:1"
ca_file = "/var/lib/kubelet/pki/kubelet.crt"
token_file = "/t"
node_name = "node7"
""")
    assert WorkloadAttestors.read(path).settings == (
        RuntimeSettings(Path("/run/docker.sock"), 0, ("ENVIRONMENT",)),
        RuntimeSettings(Path("/run/podman/podman.sock")),
        RuntimeSettings(Path("/run/user/7/podman/podman.sock"), 7),
        RuntimeSettings(Path("/srv/podman.sock"), 8),
        KubeletSettings(
            "https",
            "127.0.0.1",
            1,
            Path("/var/lib/kubelet/pki/kubelet.crt"),
            "node7",
            Path("/t"),
        ),
    )


def test_the_kubelet_may_be_believed_without_its_certificate_on_this_machine(
    written: Callable[[str], Path],
) -> None:
    (found,) = WorkloadAttestors.read(written("[k8s]\nskip_verification = true")).settings
    assert isinstance(found, KubeletSettings)
    assert (found.ca_file, found.skip_verification, found.is_verified) == (None, True, False)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[containerd]", r"no table \[containerd\] here: there are docker, podman, k8s"),
        ("[docker]\nsock = 1", r"\[docker\]: .*there are socket, user, env"),
        ("docker = 1", r"\[docker\]"),
        ("[[podman]]\n[[podman]]\nuser = -1", r"\[\[podman\]\] 2: user is the number"),
        ('[docker]\nenv = ["A=B"]', "'A=B' is no name of a variable"),
        ('[docker]\nsocket = "docker.sock"', "no absolute path"),
        ('[k8s]\nca_file = "ca.crt"', "no absolute path"),
        ("[k8s]\nskip_verification = 1", r"\[k8s\]"),
        ('[k8s]\nskip_verification = true\nca_file = "/x"', "contradict"),
        ('[k8s]\nskip_verification = true\nkubelet = "https://node7"', "on this machine only"),
        (
            '[k8s]\nkubelet = "http://127.0.0.1"\ntoken_file = "/x"',
            "knows no certificates and no tokens",
        ),
        ("[[docker]]\n" * 65, "at most 64"),
        ("[docker", "workload-attestors"),
        ("\x00", "workload-attestors"),
        ("a = " + "[" * 5000, "workload-attestors"),
        ("x" * 70_000, "bytes"),
    ],
)
def test_a_file_that_is_no_good(text: str, why: str, written: Callable[[str], Path]) -> None:
    with pytest.raises(PkiError, match=why) as caught:
        WorkloadAttestors.read(written(text))
    assert "--workload-attestors" in str(caught.value)


def test_all_that_is_wrong_is_told_at_once(written: Callable[[str], Path]) -> None:
    with pytest.raises(Malformed, match=r"\[a\].*\[docker\].*\[k8s\]"):
        WorkloadAttestors.read(written("[a]\n[docker]\nx = 1\n[k8s]\ny = 2"))


def test_a_file_that_others_may_change_is_refused(written: Callable[[str], Path]) -> None:
    path = written("[docker]")
    path.chmod(0o666)
    with pytest.raises(PkiError, match="can be changed by others"):
        WorkloadAttestors.read(path)


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_an_error_of_ours_or_a_file(data: bytes) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "x.toml")
        path.write_bytes(data)
        path.chmod(0o600)
        try:
            WorkloadAttestors.read(path)
        except PkiError as error:
            assert str(error).isprintable()


@only_linux
def test_nobody_named_is_nobody_asked_and_an_old_kernel_is_told_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reactor: Any = Turning()
    assert WorkloadAttestors().local_workloads(reactor) is None
    both = WorkloadAttestors.parse(["docker", "k8s"]).local_workloads(reactor)
    assert both is not None
    assert [source.where for source in both.sources] == [
        "unix:/run/docker.sock",
        "the kubelet at https://127.0.0.1:10250",
    ]
    monkeypatch.setattr(workload_attestors, "has_peer_handles", lambda: False)
    assert WorkloadAttestors().local_workloads(reactor) is None
    with pytest.raises(Malformed, match=r"Linux 6\.5"):
        WorkloadAttestors.parse(["docker"]).local_workloads(reactor)


@only_linux
def test_a_file_may_name_somebody_later(written: Callable[[str], Path]) -> None:
    reactor: Any = Turning()
    said = {"containers": WorkloadAttestors.read(written("")), "require-pq": None}
    workloads = said["containers"].local_workloads(reactor)
    assert workloads is not None
    assert not workloads.sources
    (reread,) = WorkloadAttestorOptions.reread_workload_attestors(said, workloads, reactor)
    assert outcome(reread.again()) == ""
    written("[docker]")
    assert outcome(reread.again()) == "asked about containers is unix:/run/docker.sock"
    asked = workloads.sources
    written("[dokcer]")
    with pytest.raises(Malformed, match=r"there is no table \[dokcer\]"):
        outcome(reread.again())
    assert workloads.sources is asked
    written("")
    assert outcome(reread.again()) == "asked about containers is nobody"
    assert not workloads.sources


AGENT = [
    "--name",
    "web-1",
    "--ca-url",
    "https://ca.example:8443",
    "--ca-fingerprint",
    f"sha256:{'0' * 64}",
]


def options(kind: Any, *words: str) -> Any:
    found = kind()
    found.parseOptions(words)
    return found


def test_agent_and_ca_take_the_same_options(
    written: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MESH_STATE_DIR", str(tmp_path))
    path = str(written("[docker]"))
    for kind, more in ((AgentOptions, AGENT), (CaOptions, [])):
        assert options(kind, *more)["containers"] is None
        twice = ("--workload-attestor", "docker", "--workload-attestor", "k8s")
        assert len(options(kind, *more, *twice)["containers"].settings) == 2
        assert len(options(kind, *more, "--workload-attestors", path)["containers"].settings) == 1
        with pytest.raises(SystemExit, match="give one of them"):
            options(kind, *more, *twice, "--workload-attestors", path)
        with pytest.raises(SystemExit, match="write docker"):
            options(kind, *more, "--workload-attestor", "lxc")


def test_an_agent_that_serves_nobody_is_told_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MESH_STATE_DIR", str(tmp_path))
    with pytest.raises(SystemExit, match="for an agent that has a --name"):
        options(
            *(AgentOptions, "--write", str(tmp_path), "--spiffe-id", "spiffe://mesh.local/x"),
            *("--workload-attestor", "docker"),
        )
