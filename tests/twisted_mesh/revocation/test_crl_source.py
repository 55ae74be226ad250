"""Where CRLs come from: what ``--crl`` means, and files that change while nobody looks."""

import os
from pathlib import Path

import pytest
from twisted.internet.defer import Deferred, maybeDeferred

from pki.crl.crl import MAX_CRL_SIZE
from pki.errors import Malformed, PkiError
from pki.svid.x509svid import certificates_pem
from tests.authorities import mesh
from twisted_mesh.revocation.crl_numbers import SeenCrlNumbers, crl_numbers_path
from twisted_mesh.revocation.crl_source import CrlSource, FileContent, crl_issuers
from twisted_mesh.state.directory import StateError


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("root.crl", "root.crl"),
        ("/etc/mesh/root.crl", "/etc/mesh/root.crl"),
        ("file:///etc/mesh/root.crl", "/etc/mesh/root.crl"),
        ("file:/etc/mesh/a%20b.crl", "/etc/mesh/a b.crl"),
        ("file://localhost/etc/root.crl", "/etc/root.crl"),
        ("C:root.crl", "C:root.crl"),
    ],
)
def test_a_file_is_named_by_its_path_or_url(text: str, path: str) -> None:
    place = CrlSource.parse(text)
    assert (place.path, place.url, str(place)) == (Path(path), None, text)


def test_a_url_is_one() -> None:
    place = CrlSource.parse("http://ca.example/crl")
    assert (place.path, str(place.url)) == (None, "http://ca.example/crl")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("https://ca.example/crl", "over plain http only"),
        ("ldap://ca.example/crl", "neither a file nor"),
        ("file://elsewhere/root.crl", "another machine"),
        ("file:", "names no file"),
        ("", "names no file"),
        ("a\0b", "names no file"),
        ("http://", "is no URL"),
    ],
)
def test_what_is_neither_is_refused(text: str, words: str) -> None:
    with pytest.raises(Malformed, match=words):
        CrlSource.parse(text)


def test_issuers_come_from_files(tmp_path: Path) -> None:
    ca = mesh()
    (tmp_path / "ca.pem").write_bytes(
        certificates_pem([ca.issuing.certificate, ca.root.certificate])
    )
    found = crl_issuers([str(tmp_path / "ca.pem")])
    assert found == (ca.issuing.certificate, ca.root.certificate)
    with pytest.raises(StateError, match="--crl-issuer"):
        crl_issuers([str(tmp_path / "none")])


def fetched(content: FileContent) -> bytes | None:
    outcome: list[bytes | None] = []
    failed: list[BaseException] = []
    Deferred.fromCoroutine(content.fetch()).addCallbacks(
        outcome.append, lambda failure: failed.append(failure.value)
    )
    if failed:
        raise failed[0]
    return outcome[0]


def test_a_file_is_read_when_it_is_another_one(tmp_path: Path) -> None:
    path = tmp_path / "crl"
    content = FileContent(path, maybeDeferred)
    path.write_bytes(b"one")
    assert [fetched(content) for _ in range(3)] == [b"one", None, None]
    fresh = tmp_path / "new"
    fresh.write_bytes(b"two")
    os.utime(fresh, ns=(path.stat().st_mtime_ns,) * 2)
    fresh.rename(path)
    assert [fetched(content), fetched(content)] == [b"two", None]
    content.forget()
    assert fetched(content) == b"two"
    path.unlink()
    with pytest.raises(StateError, match="cannot be read"):
        fetched(content)
    path.write_bytes(b"three")
    assert fetched(content) == b"three"


@pytest.mark.parametrize("what", ["a directory", "a pipe", "a device"])
def test_what_is_no_file_is_refused_at_once(what: str, tmp_path: Path) -> None:
    path = tmp_path / "crl"
    if what == "a directory":
        path.mkdir()
    elif what == "a pipe":
        os.mkfifo(path)
    else:
        path = Path("/dev/zero")
    with pytest.raises(PkiError):
        fetched(FileContent(path, maybeDeferred))


def test_no_more_of_a_file_is_read_than_a_crl_can_have(tmp_path: Path) -> None:
    path = tmp_path / "crl"
    with path.open("wb") as file:
        file.truncate(MAX_CRL_SIZE * 2)
    content = fetched(FileContent(path, maybeDeferred))
    assert content is not None and len(content) == MAX_CRL_SIZE + 1


def test_numbers_are_remembered_for_each_place_and_issuer_also_by_the_next_process(
    tmp_path: Path,
) -> None:
    path = crl_numbers_path(tmp_path, "who")
    assert path != crl_numbers_path(tmp_path, "whoever")
    memory = SeenCrlNumbers(path)
    memory.recall()
    huge = 1 << 158
    memory.remember("a", {"issuer": huge, "other": 1})
    memory.remember("b", {"issuer": 5})
    memory.remember("a", {"other": 2})
    again = SeenCrlNumbers(path)
    again.recall()
    assert again.seen("a") == {"issuer": huge, "other": 2}
    assert again.seen("b") == {"issuer": 5}
    assert again.seen("c") == {}
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"a":{"b":5}}', b'{"a":{"b":"xyz"}}'])
def test_numbers_that_are_damaged_are_begun_anew(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "numbers"
    path.write_bytes(content)
    memory = SeenCrlNumbers(path)
    memory.recall()
    assert memory.seen("a") == {}
    memory.remember("a", {"b": 1})
    assert memory.seen("a") == {"b": 1}


def test_numbers_that_cannot_be_written_are_kept_in_memory(tmp_path: Path) -> None:
    (tmp_path / "crls").write_bytes(b"a file where a directory should be")
    memory = SeenCrlNumbers(crl_numbers_path(tmp_path, "who"))
    memory.recall()
    memory.remember("a", {"b": 1})
    assert memory.seen("a") == {"b": 1}
