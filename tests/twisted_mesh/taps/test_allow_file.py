"""Who may connect, from a file: all of it, or nothing."""

from pathlib import Path

import pytest

from twisted_mesh.state.directory import StateError
from twisted_mesh.taps.allow_file import read_allowed


def test_there_is_a_pattern_a_line_and_remarks(tmp_path: Path) -> None:
    file = tmp_path / "allow"
    file.write_text("# who may\nspiffe://a.example/x\n\n  spiffe://a.example/y/** # and below\r\n")
    assert [str(pattern) for pattern in read_allowed(file)] == [
        "spiffe://a.example/x",
        "spiffe://a.example/y/**",
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "names nobody"),
        ("# nobody\n", "names nobody"),
        ("spiffe://a/x\nhttp://b\nspiffe://a/../c", "line 2: .*line 3: "),
        ("\ufeff\x00", "line 1: "),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "allow"
    file.write_text(text)
    with pytest.raises(StateError, match=words) as refused:
        read_allowed(file)
    assert str(refused.value).isprintable()


def test_a_file_that_others_may_change_says_nothing(tmp_path: Path) -> None:
    file = tmp_path / "allow"
    file.write_text("spiffe://a/x\n")
    file.chmod(0o666)
    with pytest.raises(StateError, match=r"--allow-file|chmod"):
        read_allowed(file)
