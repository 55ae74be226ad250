"""What ``--store`` takes."""

from pathlib import Path

import pytest

from tests.twisted_mesh.stores import scratch
from tests.twisted_mesh.support import ThreadCalls
from twisted_mesh import stores
from twisted_mesh.stores.opening import STORES, open_store
from twisted_mesh.stores.records import StoreError


@pytest.mark.parametrize("spec", ["", "sqlite"])
def test_the_default_is_a_file_in_the_state_directory(
    spec: str, tmp_path: Path, calls: ThreadCalls
) -> None:
    store = open_store(spec, tmp_path, calls)
    assert list(tmp_path.iterdir()) == []
    store.start()
    calls.result(store.stop())
    assert (tmp_path / "ca" / "mesh.db").is_file()


def test_memory_leaves_no_trace(tmp_path: Path, calls: ThreadCalls) -> None:
    store = open_store("memory:", tmp_path, calls)
    store.start()
    calls.result(store.stop())
    assert list(tmp_path.iterdir()) == []


def test_postgresql_is_announced_and_its_password_not_repeated(
    tmp_path: Path, calls: ThreadCalls
) -> None:
    with pytest.raises(StoreError, match="comes in a later version") as raised:
        open_store("postgresql://mesh:secret@db/mesh", tmp_path, calls)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("spec", ["mysql://x", "memory", "/var/lib/mesh.db", "a\nb"])
def test_anything_else_is_refused_with_what_there_is(
    spec: str, tmp_path: Path, calls: ThreadCalls
) -> None:
    with pytest.raises(StoreError, match="sqlite") as raised:
        open_store(spec, tmp_path, calls)
    assert "\n" not in str(raised.value)


def test_one_more_kind_of_store_is_one_file_and_a_line() -> None:
    """That of the drill runs the conformance suite as the others do; nothing of ours knows that it is there."""
    assert STORES["scratch:"].__module__ == scratch.__name__
    house = Path(stores.__file__).resolve().parents[1]
    assert [path for path in house.rglob("*.py") if b"scratch:" in path.read_bytes()] == []
