"""A file that cannot be read is told with the component that is to blame, and nothing holds the reader up."""

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from twisted_mesh.state import reading
from twisted_mesh.state.directory import StateDirectory, StateError, read_file
from twisted_mesh.state.generation import publish
from twisted_mesh.state.key_files import KeyFiles
from twisted_mesh.state.passphrase import read_passphrase
from twisted_mesh.state.reading import read_whole

_NOBODY = 65534


@contextmanager
def as_nobody() -> Iterator[None]:
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(_NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def told(path: Path, most: int = 1000) -> str:
    with pytest.raises(StateError) as refused:
        read_file(path, "--ca-file", most)
    said = str(refused.value)
    assert said.startswith(f"--ca-file {path} cannot be read (")
    assert said.isprintable()
    return said


def link_to_nothing(home: Path) -> Path:
    (home / "link").symlink_to("gone.pem")
    return home / "link"


def below_a_file(home: Path) -> Path:
    (home / "file").touch()
    return home / "file" / "sub" / "root.crt"


def too_large(home: Path) -> Path:
    (home / "large").write_bytes(bytes(1001))
    return home / "large"


def a_socket(home: Path) -> Path:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(home / "socket"))
    return home / "socket"


KINDS: dict[str, tuple[Callable[[Path], Path], str]] = {
    "not there": (lambda home: home / "gone", "No such file or directory)"),
    "no directory": (
        lambda home: home / "no" / "such" / "root.crt",
        "there is no directory {}/no: correct the name)",
    ),
    "a link to nothing": (
        link_to_nothing,
        "it is a link to gone.pem, which is not there: mend the link",
    ),
    "a directory": (lambda home: home, "Is a directory: name the file in it"),
    "below a file": (below_a_file, "{}/file is a file and no directory"),
    "a device without end": (lambda home: Path("/dev/zero"), "a device or a socket: name a file"),
    "a socket": (a_socket, "it is a socket: name a file"),
    "huge": (too_large, "over 1000 bytes: it is another file than is meant"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_cannot_be_read_is_told_with_its_cause(kind: str, tmp_path: Path) -> None:
    make, words = KINDS[kind]
    assert words.format(tmp_path) in told(make(tmp_path))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can leave files of others behind")
def test_the_component_without_rights_is_named(tmp_path: Path) -> None:
    for directory in (tmp_path, *tmp_path.parents):
        if directory.stat().st_uid == 0 and directory != Path("/"):
            directory.chmod(directory.stat().st_mode | 0o011)
    closed = tmp_path / "closed"
    (closed / "sub").mkdir(parents=True)
    (closed / "sub" / "root.crt").touch()
    secret = tmp_path / "root.key"
    secret.touch(0o600)
    closed.chmod(0o700)
    with as_nobody():
        said = told(closed / "sub" / "root.crt")
        assert f"may not enter the directory {closed} (mode 0700, of root)" in said
        assert "chmod o+x" in said
        assert "may not read it (mode 0600, of root)" in told(secret)
        with pytest.raises(
            StateError, match=rf"may not make it in {tmp_path} \(mode 0\d+, of root"
        ):
            StateDirectory(tmp_path / "state").prepare()


def test_a_pipe_is_read_to_its_end(tmp_path: Path) -> None:
    reading_end, writing_end = os.pipe()
    try:
        os.write(writing_end, b"first ")
        os.set_blocking(reading_end, False)
        path = Path(f"/proc/self/fd/{reading_end}")
        later = threading.Thread(
            target=lambda: (os.write(writing_end, b"last"), os.close(writing_end))
        )
        later.start()
        assert read_whole(path) == b"first last"
        later.join()
    finally:
        os.close(reading_end)


def test_a_pipe_that_nobody_opens_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "_PATIENCE", 0.01)
    (tmp_path / "pipe").touch()
    (tmp_path / "pipe").unlink()
    os.mkfifo(tmp_path / "pipe", 0o600)
    assert "it is a pipe, and nobody has opened it" in told(tmp_path / "pipe")
    with pytest.raises(StateError, match="it is a pipe"):
        KeyFiles(tmp_path).read("pipe")
    with pytest.raises(Exception, match="it is a pipe"):
        read_passphrase(tmp_path / "pipe")


def test_a_key_that_is_huge_is_no_key(tmp_path: Path) -> None:
    (tmp_path / "root.key").write_bytes(bytes(100_000))
    (tmp_path / "root.key").chmod(0o600)
    with pytest.raises(StateError, match="over 65536 bytes: it is no key"):
        KeyFiles(tmp_path).read("root.key")


def test_a_file_in_a_directorys_place_is_told(tmp_path: Path) -> None:
    (tmp_path / "state").touch()
    meant = r"\(File exists: it is a file, and a directory is meant: name another\)"
    with pytest.raises(StateError, match=meant):
        StateDirectory(tmp_path / "state").prepare()
    with pytest.raises(StateError, match=meant):
        publish(tmp_path / "state", {"a": (b"", 0o600)})
    with pytest.raises(StateError, match="/state is a file and no directory"):
        StateDirectory(tmp_path / "state" / "below").prepare()
