"""The passphrase of the key files: one line, from where it was said to be, or a sentence why not."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pki.errors import PkiError
from twisted_mesh.state.directory import StateError
from twisted_mesh.state.passphrase import CREDENTIAL, LONGEST, UnusablePassphrase, read_passphrase


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "passphrase"
    path.touch(0o600)
    return path


def piped(text: bytes) -> int:
    """The reading end of a pipe whose writer is done."""
    reading, writing = os.pipe()
    os.write(writing, text)
    os.close(writing)
    return reading


def refusal(path: Path | None = None, descriptor: int | None = None) -> str:
    with pytest.raises(PkiError) as refused:
        read_passphrase(path, descriptor)
    assert str(refused.value).isprintable()
    return str(refused.value)


GOOD = [
    (b"secret\n", b"secret"),
    (b"secret", b"secret"),
    (b"secret\r\n", b"secret"),
    (b"with spaces \t\n", b"with spaces \t"),
    ("ünïcode\n".encode(), "ünïcode".encode()),
    (b"x" * LONGEST + b"\r\n", b"x" * LONGEST),
]


@pytest.mark.parametrize(("text", "passphrase"), GOOD)
def test_a_passphrase_is_a_line(file: Path, text: bytes, passphrase: bytes) -> None:
    file.write_bytes(text)
    assert read_passphrase(file) == passphrase
    assert read_passphrase(None, piped(text)) == passphrase


BAD = [
    (b"", "empty"),
    (b"\n", "empty"),
    (b"\r\n", "empty"),
    (b"one\ntwo", "more than one line"),
    (b"one\ntwo\n", "more than one line"),
    (b"x" * (LONGEST + 1), "too long"),
    (b"x" * 100_000, "too long"),
]


@pytest.mark.parametrize(("text", "words"), BAD)
def test_what_is_no_passphrase_is_refused_and_not_shown(
    file: Path, text: bytes, words: str
) -> None:
    file.write_bytes(text)
    for refused in (refusal(file), refusal(None, piped(text[:5000]))):
        assert words in refused
        assert "two" not in refused
        assert "xx" not in refused
    assert str(file) in refusal(file)


@given(st.binary(max_size=1100))
def test_any_bytes_are_a_passphrase_or_refused(text: bytes) -> None:
    try:
        passphrase = read_passphrase(None, piped(text))
    except UnusablePassphrase:
        return
    assert passphrase
    assert b"\n" not in passphrase


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o622])
def test_a_passphrase_for_others_is_refused_like_a_key(file: Path, mode: int) -> None:
    file.write_bytes(b"secret\n")
    file.chmod(mode)
    with pytest.raises(StateError, match=f"chmod 600 {file}"):
        read_passphrase(file)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    assert f"{tmp_path / 'nowhere'} cannot be read" in refusal(tmp_path / "nowhere")
    assert "Is a directory" in refusal(tmp_path)


def test_a_descriptor_that_is_not_open_is_named() -> None:
    assert "--key-passphrase-fd 9999 cannot be read" in refusal(None, 9999)


def test_a_descriptor_is_closed_afterwards() -> None:
    reading = piped(b"secret\n")
    read_passphrase(None, reading)
    with pytest.raises(OSError, match="descriptor"):
        os.fstat(reading)


def test_of_a_pipe_that_stays_open_one_line_is_read() -> None:
    reading, writing = os.pipe()
    os.write(writing, b"secret\n")
    assert read_passphrase(None, reading) == b"secret"
    os.close(writing)


def test_systemd_keeps_a_credential_and_its_mode_is_systemds_affair(tmp_path: Path) -> None:
    assert read_passphrase(credentials=str(tmp_path)) is None
    credential = tmp_path / CREDENTIAL
    credential.write_bytes(b"secret\n")
    credential.chmod(0o440)
    assert read_passphrase(credentials=str(tmp_path)) == b"secret"


def test_an_option_counts_more_than_a_credential(file: Path, tmp_path: Path) -> None:
    file.write_bytes(b"from the option\n")
    (tmp_path / CREDENTIAL).write_bytes(b"from systemd\n")
    assert read_passphrase(file, None, str(tmp_path)) == b"from the option"


def test_without_any_there_is_none() -> None:
    assert read_passphrase() is None
    assert read_passphrase(credentials="") is None
