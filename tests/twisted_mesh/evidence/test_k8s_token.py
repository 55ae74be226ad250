"""The token of a pod, as an endpoint reads it to show it."""

import json
from pathlib import Path

import pytest
from zope.interface.verify import verifyObject

from pki.errors import PkiError
from twisted_mesh.evidence.interface import IProver, NoEvidence
from twisted_mesh.evidence.k8s import USUAL_FILE, K8sProver
from twisted_mesh.evidence.option import prover


def test_the_token_is_read_again_each_time(tmp_path: Path) -> None:
    path = tmp_path / "mesh"
    found = prover(f"k8s:{path}")
    verifyObject(IProver, found)
    assert str(path) in found.where
    for token in ("a.b.c", "d.e.f"):
        path.write_text(f"{token}\n")
        shown = found.prove(None, b"", "mesh.test")
        assert (shown.kind, json.loads(shown.data)) == ("k8s", token)
        assert token not in repr(shown)


def test_it_is_where_pods_have_it_by_default() -> None:
    assert prover("k8s").where.endswith(USUAL_FILE)


@pytest.mark.parametrize(
    "content", [b"", b"\n", b"a.b", b"a.b.c.d", b"a.b.c d", b"a.b.\xff", b"a.b.c\nd", b"x" * 20_000]
)
def test_what_is_no_token_is_shown_to_nobody(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "mesh"
    path.write_bytes(content)
    with pytest.raises(NoEvidence, match="projected volume") as refused:
        K8sProver.of(str(path)).prove(None, b"", "mesh.test")
    assert str(refused.value).isprintable()


def test_a_file_that_is_not_there_or_is_none_is_said_so(tmp_path: Path) -> None:
    for path in (tmp_path / "none", tmp_path, tmp_path / "x\0y"):
        with pytest.raises(PkiError):
            K8sProver.of(str(path)).prove(None, b"", "mesh.test")
