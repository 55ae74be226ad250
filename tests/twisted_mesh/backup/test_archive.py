"""An archive is read as if a stranger had written it."""

import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pki.errors import PkiError
from tests.authorities import NOW
from tests.twisted_mesh.backup.states import ca_state
from twisted_mesh.backup import creation
from twisted_mesh.backup.archive import Archive, BadBackup, Manifest
from twisted_mesh.state.directory import StateError


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    home = tmp_path_factory.mktemp("good")
    creation.create(ca_state(home / "state"), home / "ca.tar", NOW)
    return (home / "ca.tar").read_bytes()


def read(path: Path, into: Path | None = None) -> Manifest:
    archive = Archive.open(path)
    try:
        archive.read(into)
    finally:
        archive.close()
    return archive.manifest


Change = Callable[[list[tuple[tarfile.TarInfo, bytes]]], object]


def changed(good: bytes, path: Path, change: Change) -> Path:
    """A tar with the same files but for what ``change`` does to their list."""
    with tarfile.open(fileobj=io.BytesIO(good)) as tar:
        files = [(member, tar.extractfile(member).read()) for member in tar]  # type: ignore[union-attr]
    change(files)
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as tar:
        for header, data in files:
            tar.addfile(header, io.BytesIO(data))
    return path


def test_what_was_saved_is_read_back(good: bytes, tmp_path: Path) -> None:
    (tmp_path / "ca.tar").write_bytes(good)
    manifest = read(tmp_path / "ca.tar", tmp_path / "new")
    assert {str(p.relative_to(tmp_path / "new")) for p in (tmp_path / "new").rglob("*.*")} == {
        member.name for member in manifest.members
    }
    assert manifest.plain_keys == manifest.keys
    assert tarfile.is_tarfile(tmp_path / "ca.tar")


def _with_manifest(**facts: object) -> Change:
    def change(files: list[tuple[tarfile.TarInfo, bytes]]) -> None:
        header, data = files[0]
        new = msgspec.json.encode({**msgspec.json.decode(data), **facts})
        header.size = len(new)
        files[0] = header, new

    return change


def _renamed(name: str) -> Change:
    def change(files: list[tuple[tarfile.TarInfo, bytes]]) -> None:
        header, data = files[0]
        manifest = msgspec.json.decode(data)
        manifest["members"][0]["name"] = name
        new = msgspec.json.encode(manifest)
        header.size = len(new)
        files[0] = header, new
        files[1][0].name = name

    return change


def _as(kind: bytes) -> Change:
    def change(files: list[tuple[tarfile.TarInfo, bytes]]) -> None:
        files[1][0].type = kind
        files[1][0].linkname = "/etc/passwd"

    return change


def _edited(files: list[tuple[tarfile.TarInfo, bytes]]) -> None:
    header, data = files[1]
    files[1] = header, bytes([data[0] ^ 1]) + data[1:]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda files: files.pop(0), "its first file is not the manifest"),
        (lambda files: files.clear(), "its first file is not the manifest"),
        (lambda files: files.pop(1), "is not where the manifest has it"),
        (lambda files: files.pop(), "is larger than it can be"),
        (lambda files: files.reverse(), "its first file is not the manifest"),
        (lambda files: files.append(files[1]), "it holds more than its manifest says"),
        (_edited, "is not what was saved"),
        (_with_manifest(format=5), "it is of format 5, and this program reads 4"),
        (_with_manifest(members=[]), "lacks the root or the record"),
        (_with_manifest(more=1), "its manifest is damaged"),
        (_with_manifest(created_at="\x1b[2J"), "does not say when it was made"),
        (_with_manifest(version="0.1\x1b[2J"), "does not say by which version"),
        (_with_manifest(root="A" * 64), "or of which root"),
        (_with_manifest(members="x"), "its manifest is damaged"),
        (_renamed("../../etc/passwd"), "is no file of a CA"),
        (_renamed("/etc/passwd"), "is no file of a CA"),
        (_renamed("ca/private/../x.key"), "is no file of a CA"),
        (_renamed("ca/ca.sock"), "is no file of a CA"),
        (_renamed("ca/x.crt\n"), "is no file of a CA"),
        (_as(tarfile.SYMTYPE), "something else than a plain file"),
        (_as(tarfile.LNKTYPE), "something else than a plain file"),
        (_as(tarfile.DIRTYPE), "something else than a plain file"),
        (_as(tarfile.FIFOTYPE), "something else than a plain file"),
        (_as(tarfile.GNUTYPE_SPARSE), "something else than a plain file"),
    ],
)
def test_each_defect_is_named(good: bytes, tmp_path: Path, change: Change, words: str) -> None:
    path = changed(good, tmp_path / "bad.tar", change)
    with pytest.raises(BadBackup, match=words):
        read(path, tmp_path / "new")
    assert not (tmp_path / "etc").exists()


def test_sizes_are_bounded_before_anything_is_read(good: bytes, tmp_path: Path) -> None:
    def grow(files: list[tuple[tarfile.TarInfo, bytes]]) -> None:
        manifest = msgspec.json.decode(files[0][1])
        for member in manifest["members"]:
            member["size"] += 1 << 40
        new = msgspec.json.encode(manifest)
        files[0][0].size = len(new)
        files[0] = files[0][0], new

    with pytest.raises(BadBackup, match="is larger than it can be"):
        read(changed(good, tmp_path / "bad.tar", grow))


@pytest.mark.parametrize("part", [0, 100, 511, 512, 1000, 5000, -20000])
def test_what_is_cut_short_is_no_backup(good: bytes, tmp_path: Path, part: int) -> None:
    (tmp_path / "cut.tar").write_bytes(good[:part])
    with pytest.raises(BadBackup):
        read(tmp_path / "cut.tar")


def test_a_file_that_cannot_be_read_is_told_apart(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="cannot be read"):
        Archive.open(tmp_path / "gone")
    with pytest.raises(StateError, match="cannot be read"):
        Archive.open(tmp_path)


@given(st.binary(max_size=3000), st.integers(0, 3000))
def test_nothing_but_our_own_errors_is_raised(noise: bytes, at: int) -> None:
    import tempfile

    with tempfile.NamedTemporaryFile() as file:
        file.write(_SAMPLE[:at] + noise + _SAMPLE[at + len(noise) :])
        file.flush()
        try:
            read(Path(file.name))
        except PkiError as error:
            assert file.name in str(error)


def _sample() -> bytes:
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w", format=tarfile.GNU_FORMAT) as tar:
        data = b'{"format":1,"members":[]}'
        header = tarfile.TarInfo("manifest.json")
        header.size = len(data)
        tar.addfile(header, io.BytesIO(data))
    return written.getvalue()[:3000]


_SAMPLE = _sample()


def test_a_pipe_in_the_place_of_an_archive_keeps_nobody_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "ca.tar")
    with pytest.raises(StateError, match="is no regular file"):
        Archive.open(tmp_path / "ca.tar")
