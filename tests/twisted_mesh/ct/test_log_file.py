"""The list of logs in a file: what is believed of it, and what goes on to count."""

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest
from attrs import evolve
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from twisted.logger import Logger

from pki.ct.errors import BadLogList
from pki.ct.log_list import LogList, sign_list
from pki.errors import PkiError
from pki.keys import spki_der
from pki.svid.spki_pin import SpkiHash
from tests.authorities import key, mesh
from tests.twisted_mesh.ct.paper_log import NOW, PaperLog
from twisted_mesh.ct.log_file import LogFile, logs_key

SIGNER = key("who signs lists")
ONE = LogList((PaperLog("one").log,), NOW)
TWO = LogList((PaperLog("one").log, PaperLog("two").log), NOW + timedelta(hours=1))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    found = tmp_path / "logs.json"
    found.write_bytes(ONE.to_bytes())
    return found


def sign(path: Path, logs: LogList) -> None:
    path.write_bytes(logs.to_bytes())
    path.with_name("logs.json.sig").write_bytes(asyncio.run(sign_list(logs, SIGNER)))


def test_it_is_read_and_read_again_when_it_changes(path: Path) -> None:
    log = Logger(observer=[].append)  # type: ignore[arg-type]
    file = LogFile(path)
    assert file.load() and file.logs == ONE and not file.load()
    assert not file.look(log)
    path.write_bytes(TWO.to_bytes())
    assert file.look(log) and file.logs == TWO


def test_what_cannot_be_used_changes_nothing_and_is_said_once(path: Path) -> None:
    said: list[dict[str, object]] = []
    log = Logger(observer=said.append)
    file = LogFile(path)
    file.load()
    for text in (b"{}", b"[]", TWO.to_bytes()[:-9]):
        path.write_bytes(text)
        assert not file.look(log) and not file.look(log) and file.logs == ONE
    assert [event["event"] for event in said] == ["reread-failed"] * len(said) and len(said) == 3
    path.unlink()
    assert not file.look(log) and file.logs == ONE


def test_an_earlier_list_does_not_come_back(path: Path) -> None:
    file = LogFile(path)
    path.write_bytes(TWO.to_bytes())
    file.load()
    path.write_bytes(ONE.to_bytes())
    with pytest.raises(BadLogList, match="older"):
        file.load()
    assert file.logs == TWO


def test_with_a_key_it_has_to_be_signed(path: Path) -> None:
    file = LogFile(path, SIGNER.public_key)
    with pytest.raises(PkiError, match=r"logs\.json\.sig"):
        file.load()
    sign(path, ONE)
    assert file.load()
    path.write_bytes(TWO.to_bytes())
    with pytest.raises(BadLogList, match="not signed"):
        file.load()
    sign(path, TWO)
    assert file.load() and file.logs == TWO
    with pytest.raises(BadLogList):
        LogFile(path, key("another").public_key).load()


def test_what_others_can_write_is_not_believed(path: Path) -> None:
    path.chmod(0o666)
    with pytest.raises(PkiError, match="chmod"):
        LogFile(path).load()


def test_the_key_is_named_by_a_file_or_by_its_hash(path: Path) -> None:
    public = SIGNER.public_key
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    file = path.with_name("signer.pub")
    file.write_bytes(pem)
    assert spki_der(logs_key(str(file), path)) == spki_der(public)
    root = mesh().root.certificate
    file.write_bytes(root.public_bytes(Encoding.PEM))
    assert spki_der(logs_key(str(file), path)) == spki_der(mesh().root.key.public_key)
    pin = str(SpkiHash.of_spki(spki_der(public)))
    with pytest.raises(PkiError, match=r"logs\.json\.pub"):
        logs_key(pin, path)
    path.with_name("logs.json.pub").write_bytes(pem)
    assert spki_der(logs_key(pin, path)) == spki_der(public)
    path.with_name("logs.json.pub").write_bytes(root.public_bytes(Encoding.PEM))
    with pytest.raises(BadLogList, match="not the one"):
        logs_key(pin, path)
    file.write_bytes(b"words")
    with pytest.raises(BadLogList):
        logs_key(str(file), path)


def test_lists_differ_by_their_logs() -> None:
    assert evolve(ONE, logs=TWO.logs) != ONE
