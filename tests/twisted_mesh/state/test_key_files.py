"""Keys on disk: whole, for their owner alone, encrypted when there is a passphrase; and the copy that is taken away."""

import errno
import hashlib
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from twisted.logger import LogEvent, globalLogPublisher

from pki.keys import MemoryKey, spki_der
from pki.keys.pkcs8 import is_encrypted
from tests.authorities import key
from twisted_mesh.runtime.event_text import event_text
from twisted_mesh.state import key_files as key_files_module
from twisted_mesh.state.directory import StateError
from twisted_mesh.state.key_files import KeyFiles, copy_out

SECRET = b"correct horse"
NAME = "some.key"


@pytest.fixture
def private(tmp_path: Path) -> Path:
    directory = tmp_path / "state" / "ca" / "private"
    directory.mkdir(parents=True)
    directory.chmod(0o700)
    return directory


def kept(directory: Path, passphrase: bytes | None = None, name: str = NAME) -> Path:
    KeyFiles(directory, passphrase).write(name, key(1))
    return directory / name


def refusal(files: KeyFiles, name: str = NAME) -> str:
    with pytest.raises(StateError) as refused:
        files.load(name, MemoryKey.from_pem)
    text = str(refused.value)
    assert text.isprintable()
    assert SECRET.decode() not in text
    assert refused.value.__cause__ is None
    return text


def is_the_key(found: MemoryKey) -> bool:
    return spki_der(found.public_key) == spki_der(key(1).public_key)


@pytest.mark.parametrize("passphrase", [None, SECRET, b"\xff\x00binary", b"x" * 1023])
def test_what_is_written_is_read_back(private: Path, passphrase: bytes | None) -> None:
    path = kept(private, passphrase)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert is_encrypted(path.read_bytes()) is (passphrase is not None)
    assert is_the_key(KeyFiles(private, passphrase).load(NAME, MemoryKey.from_pem))
    assert KeyFiles(private, passphrase).read(NAME) == path.read_bytes()


def test_the_passphrase_is_not_shown(private: Path) -> None:
    files = KeyFiles(private, SECRET)
    kept(private)
    files.load(NAME, MemoryKey.from_pem)
    assert SECRET.decode() not in repr(files)
    assert "PRIVATE" not in repr(files)


def test_an_encrypted_key_without_a_passphrase_names_the_option(private: Path) -> None:
    path = kept(private, SECRET)
    text = refusal(KeyFiles(private))
    assert text.startswith(f"{path} is encrypted: ")
    assert "--key-passphrase-file" in text


def test_a_wrong_passphrase_names_the_option(private: Path) -> None:
    path = kept(private, SECRET)
    text = refusal(KeyFiles(private, b"battery staple"))
    assert text.startswith(f"{path} cannot be decrypted: ")
    assert "--key-passphrase-fd" in text
    assert "battery" not in text


def test_openssls_older_encryption_is_read_too(private: Path) -> None:
    old = key(1).private_key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.BestAvailableEncryption(SECRET),
    )
    (private / NAME).touch(0o600)
    (private / NAME).write_bytes(old)
    assert is_the_key(KeyFiles(private, SECRET).load(NAME, MemoryKey.from_pem))
    assert "is encrypted" in refusal(KeyFiles(private))


def test_a_plain_key_is_encrypted_only_once_it_is_known_to_fit(private: Path) -> None:
    path = kept(private)
    plain = path.read_bytes()
    events: list[LogEvent] = []
    files = KeyFiles(private, SECRET)
    files.load(NAME, MemoryKey.from_pem)
    assert path.read_bytes() == plain
    globalLogPublisher.addObserver(events.append)
    try:
        files.seal()
        files.seal()
    finally:
        globalLogPublisher.removeObserver(events.append)
    assert is_encrypted(path.read_bytes())
    assert is_the_key(KeyFiles(private, SECRET).load(NAME, MemoryKey.from_pem))
    (event,) = events
    assert event["event"] == "key-encrypted"
    assert str(path) in event_text(event)
    assert SECRET.decode() not in repr(event)


def test_without_a_passphrase_nothing_is_rewritten(private: Path) -> None:
    path = kept(private)
    before = path.stat()
    files = KeyFiles(private)
    files.load(NAME, MemoryKey.from_pem)
    files.seal()
    assert path.stat() == before


def test_a_key_that_cannot_be_encrypted_stays_as_it_was(
    private: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = kept(private)
    plain = path.read_bytes()
    files = KeyFiles(private, SECRET)
    files.load(NAME, MemoryKey.from_pem)

    def full(*_: Any) -> None:
        raise StateError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(key_files_module, "write_whole", full)
        with pytest.raises(StateError, match="full"):
            files.seal()
    assert path.read_bytes() == plain
    files.seal()
    assert is_encrypted(path.read_bytes())


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o610])
def test_a_key_for_others_is_refused_wherever_it_lies(private: Path, mode: int) -> None:
    path = kept(private)
    path.chmod(mode)
    assert f"chmod 600 {path}" in refusal(KeyFiles(private))
    with pytest.raises(StateError, match="can be read by others"):
        KeyFiles(private).check()


def test_a_key_of_another_user_is_refused(private: Path) -> None:
    kept(private)
    theirs = os.stat_result([*os.stat(private / NAME)[:4], 65534, *os.stat(private / NAME)[5:]])
    with pytest.raises(StateError, match=r"belongs to another user.*chown.*chmod 600"):
        key_files_module.refuse_readable(private / NAME, theirs)


def test_keys_that_are_in_order_pass(private: Path) -> None:
    kept(private)
    kept(private, SECRET, "other.key")
    KeyFiles(private).check()


def test_a_key_that_is_not_there_is_named(private: Path) -> None:
    assert f"the key {private / NAME} cannot be read" in refusal(KeyFiles(private))
    assert not KeyFiles(private).exists(NAME)
    KeyFiles(private).remove(NAME)


def test_a_removed_key_is_gone_and_is_not_written_again(private: Path) -> None:
    path = kept(private)
    files = KeyFiles(private, SECRET)
    files.load(NAME, MemoryKey.from_pem)
    files.remove(NAME)
    files.seal()
    assert not path.exists()


# The copy that is taken away.


def copied(private: Path, destination: Path) -> key_files_module.Copy:
    return copy_out(private / NAME, destination, state=private.parent.parent)


@pytest.mark.parametrize("passphrase", [None, SECRET])
def test_a_copy_is_the_same_bytes_for_its_owner_alone(
    private: Path, tmp_path: Path, passphrase: bytes | None
) -> None:
    path = kept(private, passphrase)
    copy = copied(private, tmp_path / "stick.key")
    assert copy.path == tmp_path / "stick.key"
    assert copy.path.read_bytes() == path.read_bytes()
    assert copy.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert stat.S_IMODE(copy.path.stat().st_mode) == 0o600


def test_into_a_directory_it_keeps_its_name(private: Path, tmp_path: Path) -> None:
    kept(private)
    assert copied(private, tmp_path).path == tmp_path / NAME


def test_a_copy_overwrites_nothing(private: Path, tmp_path: Path) -> None:
    kept(private)
    there = tmp_path / "there"
    there.write_text("of somebody")
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "nowhere")
    for destination in (there, link):
        with pytest.raises(StateError, match="exists already"):
            copied(private, destination)
    assert there.read_text() == "of somebody"
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("where", ["", "ca", "ca/private", "ca/private/copy.key", "../state/x"])
def test_a_copy_beside_the_original_is_no_copy(private: Path, where: str) -> None:
    kept(private)
    with pytest.raises(StateError, match="elsewhere"):
        copied(private, private.parent.parent / where)


def test_a_copy_that_cannot_be_flushed_is_removed(
    private: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept(private)

    def fails(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fails)
    with pytest.raises(StateError, match="No space left"):
        copied(private, tmp_path / "stick.key")
    assert not (tmp_path / "stick.key").exists()


def test_a_copy_that_reads_back_otherwise_is_removed(
    private: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = kept(private)
    target = tmp_path / "stick.key"
    read = Path.read_bytes
    monkeypatch.setattr(
        Path, "read_bytes", lambda self: b"garbage" if self == target else read(self)
    )
    with pytest.raises(StateError, match="read back"):
        copied(private, target)
    assert not target.exists()
    assert path.exists()


def test_there_is_no_copy_of_nothing(private: Path, tmp_path: Path) -> None:
    with pytest.raises(StateError, match="cannot be read"):
        copied(private, tmp_path / "stick.key")
    kept(private)
    with pytest.raises(StateError, match="cannot be written"):
        copied(private, tmp_path / "nowhere" / "stick.key")
