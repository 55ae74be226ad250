"""Files that are replaced all at once, where nobody else can write: never a key beside another key's certificate."""

import os
import threading
from errno import ENOSPC
from pathlib import Path
from typing import Any

import pytest

from tests.running import PATIENCE
from tests.twisted_mesh.state.test_directory import failing, mode_of
from twisted_mesh.state.directory import StateError
from twisted_mesh.state.generation import publish

NAMES = ("svid.pem", "svid_key.pem", "svid_bundle.pem")


def generation(number: int) -> dict[str, tuple[bytes, int]]:
    modes = (0o644, 0o600, 0o644)
    return {name: (b"%d" % number * 1000, mode) for name, mode in zip(NAMES, modes, strict=True)}


def contents(directory: Path) -> set[bytes]:
    return {(directory / name).read_bytes() for name in NAMES}


def generations(directory: Path) -> list[Path]:
    return [path for path in directory.iterdir() if path.name.startswith(".generation-")]


def test_a_name_that_the_next_generation_has_not_is_gone_and_what_is_not_ours_stays(
    tmp_path: Path,
) -> None:
    publish(tmp_path, {**generation(1), "more.pem": (b"1", 0o644)})
    (tmp_path / "notes").write_text("mine")
    (tmp_path / "link").symlink_to("current/other")
    publish(tmp_path, generation(2))
    assert contents(tmp_path) == {b"2" * 1000}
    assert not (tmp_path / "more.pem").is_symlink()
    assert (tmp_path / "notes").read_text() == "mine"
    assert (tmp_path / "link").is_symlink()


def test_the_files_are_found_under_their_names_with_their_modes(tmp_path: Path) -> None:
    directory = tmp_path / "a" / "identity"
    publish(directory, generation(1))
    publish(directory, generation(2))
    assert contents(directory) == {b"2" * 1000}
    assert [mode_of(directory / name) for name in NAMES] == [0o644, 0o600, 0o644]
    assert mode_of(directory) == 0o755


def test_one_rename_switches_all_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(tmp_path, generation(1))
    seen = []
    real = os.replace

    def replace(source: str, target: str, **where: int) -> None:
        seen.append((target, contents(tmp_path)))
        real(source, target, **where)
        seen.append((target, contents(tmp_path)))

    monkeypatch.setattr(os, "replace", replace)
    publish(tmp_path, generation(2))
    assert [seen_ for seen_ in seen if seen_[0] == "current"] == [
        ("current", {b"1" * 1000}),
        ("current", {b"2" * 1000}),
    ]


def test_a_reader_that_resolves_once_sees_one_generation_whole(tmp_path: Path) -> None:
    publish(tmp_path, generation(0))
    mixed: list[Any] = []
    reads = 0
    done = threading.Event()
    started = threading.Event()

    def read() -> None:
        nonlocal reads
        while not done.is_set():
            try:
                found = contents((tmp_path / "current").resolve())
            except FileNotFoundError:
                continue  # two publications in between: resolve again
            else:
                if len(found) != 1:
                    mixed.append(found)
            reads += 1
            started.set()

    reader = threading.Thread(target=read)
    reader.start()
    assert started.wait(PATIENCE)
    for number in range(1, 60):
        publish(tmp_path, generation(number))
    done.set()
    reader.join(PATIENCE)
    assert reads > 1
    assert mixed == []


def test_a_reader_in_the_middle_of_one_generation_can_finish_it(tmp_path: Path) -> None:
    publish(tmp_path, generation(1))
    resolved = (tmp_path / "current").resolve()
    publish(tmp_path, generation(2))
    assert contents(resolved) == {b"1" * 1000}


def test_old_generations_do_not_pile_up_not_even_after_a_crash(tmp_path: Path) -> None:
    (tmp_path / ".generation-crashed").mkdir()
    (tmp_path / ".generation-crashed" / "svid_key.pem").write_text("a key")
    for number in range(5):
        publish(tmp_path, generation(number))
    assert len(generations(tmp_path)) == 2
    assert len(list(tmp_path.iterdir())) == len(NAMES) + 3


def test_a_current_that_was_not_ours_loses_no_files(tmp_path: Path) -> None:
    (tmp_path / "release-5").mkdir()
    (tmp_path / "release-5" / "app").write_text("precious")
    (tmp_path / "current").symlink_to("release-5")
    publish(tmp_path, generation(1))
    publish(tmp_path, generation(2))
    assert (tmp_path / "release-5" / "app").read_text() == "precious"


@pytest.mark.parametrize("after", range(7))
def test_a_publication_that_fails_leaves_the_old_one_and_no_keys_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    publish(tmp_path, generation(1))
    before = set(tmp_path.iterdir())
    monkeypatch.setattr(os, "fsync", failing(ENOSPC, after))
    with pytest.raises(StateError, match="cannot be written to"):
        publish(tmp_path, generation(2))
    if after < 6:  # two a file; the last one is for the links
        assert contents(tmp_path) == {b"1" * 1000}
        assert set(tmp_path.iterdir()) == before
    else:
        assert contents(tmp_path) == {b"2" * 1000}


def test_plain_files_of_the_same_names_are_replaced_by_links(tmp_path: Path) -> None:
    (tmp_path / "svid.pem").write_text("from somewhere else")
    publish(tmp_path, generation(1))
    publish(tmp_path, generation(2))
    assert contents(tmp_path) == {b"2" * 1000}


def test_leftovers_of_a_crash_between_link_and_rename_do_not_matter(tmp_path: Path) -> None:
    (tmp_path / ".current.new").symlink_to("nowhere")
    publish(tmp_path, generation(1))
    assert contents(tmp_path) == {b"1" * 1000}


def test_a_place_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StateError, match="/file cannot be written to"):
        publish(tmp_path / "file", generation(1))


# Where others can write.

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
NOBODY = 65534


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o757])
def test_a_directory_that_others_can_write_to_gets_no_key(tmp_path: Path, mode: int) -> None:
    tmp_path.chmod(mode)
    with pytest.raises(StateError, match=r"can be changed by others: chmod go-w"):
        publish(tmp_path, generation(1))
    assert os.listdir(tmp_path) == []


@needs_root
def test_a_directory_of_another_user_gets_no_key(tmp_path: Path) -> None:
    os.chown(tmp_path, NOBODY, -1)
    with pytest.raises(StateError, match=r"belongs to another user"):
        publish(tmp_path, generation(1))
    assert os.listdir(tmp_path) == []


@needs_root
def test_root_writes_nothing_below_another_users_directory(tmp_path: Path) -> None:
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    theirs.mkdir()
    ours.mkdir(mode=0o700)
    (theirs / "export").symlink_to(ours)
    os.chown(theirs, NOBODY, -1)
    with pytest.raises(StateError, match=r"theirs is another user's"):
        publish(theirs / "export", generation(1))
    assert os.listdir(ours) == []
    assert mode_of(ours) == 0o700


@needs_root
def test_a_link_that_somebody_left_in_a_shared_directory_is_not_followed(tmp_path: Path) -> None:
    ours = tmp_path / "ours"
    ours.mkdir(mode=0o700)
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    (shared / "export").symlink_to(ours)
    os.lchown(shared / "export", NOBODY, -1)
    with pytest.raises(StateError, match=r"export"):
        publish(shared / "export", generation(1))
    assert os.listdir(ours) == []


def test_names_that_are_given_to_others_meanwhile_lead_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fault as it was: the new directory is put away and a link is put in its place, before its mode is set."""
    victim, export, away = tmp_path / "victim", tmp_path / "export", tmp_path / "away"
    victim.mkdir(mode=0o700)
    real = os.mkdir

    def mkdir(path: Any, *args: Any, **where: Any) -> None:
        real(path, *args, **where)
        if str(path).startswith(".generation-"):
            export.rename(away)
            export.symlink_to(victim)

    monkeypatch.setattr(os, "mkdir", mkdir)
    publish(export, generation(1))
    assert mode_of(victim) == 0o700
    assert os.listdir(victim) == []
    assert contents(away) == {b"1" * 1000}
