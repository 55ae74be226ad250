"""How the options lead to a CA, and what is demanded of whoever answers there."""

from pathlib import Path

import pytest
from twisted.internet.testing import MemoryReactorClock

from pki.errors import Malformed, PkiError
from pki.svid import Purpose, certificates_pem
from tests.authorities import HOUR, MESH, OTHER, Mesh, key, mesh
from twisted_mesh.clock import wall_clock
from twisted_mesh.joining import ca_client, ca_security
from twisted_mesh.state import StateError

ROOT = certificates_pem([mesh().root.certificate])


@pytest.fixture
def root(tmp_path: Path) -> str:
    (tmp_path / "root.crt").write_bytes(ROOT)
    return str(tmp_path / "root.crt")


def test_without_options_it_is_the_socket_in_the_state_directory() -> None:
    client = ca_client(MemoryReactorClock(), None, None, Path("/state"), MESH)
    assert str(client.address) == "unix:/state/ca/ca.sock"
    assert client.security is None


def test_a_ca_at_https_is_believed_by_the_root_that_is_named(root: str) -> None:
    client = ca_client(MemoryReactorClock(), "https://ca:1", root, Path("/x"), MESH, timeout=3)
    assert client.security is not None
    assert client.timeout == 3


@pytest.mark.parametrize(
    ("url", "file", "kind", "words"),
    [
        ("https://ca", None, Malformed, "--ca-file"),
        ("unix:/x", "root.crt", Malformed, "--ca-file is for a CA at https://, not at unix:/x"),
        (None, "root.crt", Malformed, "--ca-file is for a CA at https://"),
        ("nonsense", None, Malformed, "no CA address"),
        ("https://ca", "/gone", StateError, "--ca-file /gone cannot be read"),
        ("https://ca", "setup.cfg", Malformed, "no certificates in PEM"),
    ],
)
def test_options_that_lead_nowhere_are_told_so(
    url: str | None, file: str | None, kind: type[PkiError], words: str
) -> None:
    if file and not file.startswith("/"):
        file = str(Path(__file__).parents[2] / file)
    with pytest.raises(kind, match=words):
        ca_client(MemoryReactorClock(), url, file, Path("/state"), MESH)


def test_only_the_ca_itself_may_answer_as_the_ca() -> None:
    ours = mesh(now=wall_clock())
    security = ca_security(MemoryReactorClock(), ours.bundle)

    def answers(ca: Mesh, *path: str) -> list[str]:
        leaf = ca.leaf(MESH.member(*path), wall_clock(), HOUR, key(9))
        verdict = security.judge.verdict((leaf, *ca.issuing.intermediates), Purpose.SERVER)
        return [problem.code for problem in verdict.problems]

    assert answers(ours, "mesh", "ca") == []
    assert answers(ours, "service", "ca") == ["not-authorized"]
    assert "unknown-authority" in answers(mesh(OTHER, now=wall_clock()), "mesh", "ca")
