"""The file that says whose receipts count: whole, signed where it has to be, and never replaced by an older."""

import base64
import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from pki.ct.log_list import LogList, LogState, sign_list
from pki.ct.receipt import SctDemand
from pki.errors import PkiError
from pki.keys import KeyAlgorithm, MemoryKey, signature_over, spki_pin
from tests.twisted_mesh.recording import RecordingLog
from twisted_mesh.testing import MemoryCa, MemoryLog, at_once, list_of
from twisted_mesh.trust.sct_options import SctOptions

A, B = MemoryLog("a"), MemoryLog("b")
NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)
KEY, OTHER = (MemoryKey.generate(KeyAlgorithm.EC_P256) for _ in "ab")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "logs.json"
    path.write_bytes(list_of((A, B), NOW).to_bytes())
    return path


def pem(key: MemoryKey) -> bytes:
    return key.public_key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def sign(file: Path, key: MemoryKey = KEY) -> None:
    logs = LogList.parse(file.read_bytes())
    file.with_name("logs.json.sig").write_bytes(at_once(sign_list(logs, key)))


def read(file: Path, number: str = "2", key: str | Path | None = None) -> SctDemand:
    options = SctOptions.parse(number, file, key)
    assert options is not None
    return options.now()


@pytest.mark.parametrize(
    ("number", "logs", "key", "words"),
    [
        ("0", "f", None, "from 1 to"),
        ("17", "f", None, "from 1 to"),
        ("two", "f", None, "from 1 to"),
        ("-1", "f", None, "from 1 to"),
        ("²", "f", None, "from 1 to"),
        ("1", None, None, "needs --ct-logs"),
        (None, "f", None, "nobody is asked for"),
        (None, None, "k", "nobody is asked for"),
    ],
)
def test_half_a_demand_is_none(
    number: str | None, logs: str | None, key: str | None, words: str
) -> None:
    with pytest.raises(PkiError, match=words):
        SctOptions.parse(number, logs, key)


def test_nothing_said_is_nothing_demanded() -> None:
    assert SctOptions.parse(None, None, None) is None


def test_a_list_is_read(file: Path) -> None:
    demand = read(file)
    assert (demand.required, demand.logs) == (2, list_of((A, B), NOW))


def test_a_signed_list_is_read_by_a_key_a_certificate_or_a_hash(file: Path) -> None:
    sign(file)
    key = file.with_name("key.pem")
    key.write_bytes(pem(KEY))
    assert read(file, key=key) == read(file)
    file.with_name("logs.json.pub").write_bytes(pem(KEY))
    assert read(file, key=spki_pin(KEY.public_key)) == read(file)
    root = MemoryCa().root
    assert isinstance(root.key, MemoryKey)
    sign(file, root.key)
    key.write_bytes(root.certificate.public_bytes(Encoding.PEM))
    assert read(file, key=key) == read(file)


def edited(file: Path) -> None:
    sign(file)
    file.write_bytes(file.read_bytes() + b"\n")


def signed_by_another(file: Path) -> None:
    sign(file, OTHER)


def unsigned(file: Path) -> None:
    """As it is."""


def missing(file: Path) -> None:
    file.unlink()


def damaged(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-9])
    file.with_name("logs.json.sig").write_bytes(base64.b64encode(b"x" * 70))


def too_few(file: Path) -> None:
    file.write_bytes(list_of((A,), NOW).to_bytes())
    sign(file)


def too_few_that_count(file: Path) -> None:
    logs = LogList((A.log, B.log.retired(LogState.REJECTED, NOW)), NOW)
    file.write_bytes(logs.to_bytes())
    sign(file)


def one_twice(file: Path) -> None:
    text = file.read_text()
    key, log_id = str(B.log.key), base64.b64encode(B.log.log_id).decode()
    own = str(A.log.key), base64.b64encode(A.log.log_id).decode()
    file.write_text(text.replace(key, own[0]).replace(log_id, own[1]))
    sign_raw(file)


def sign_raw(file: Path) -> None:
    made = at_once(signature_over(file.read_bytes(), KEY, KEY.public_key))
    file.with_name("logs.json.sig").write_bytes(base64.b64encode(made))


def of_everybody(file: Path) -> None:
    sign(file)
    os.chmod(file, 0o666)


WRONG = {
    edited: "not signed by the key",
    signed_by_another: "not signed by the key",
    unsigned: "cannot be read",
    missing: "cannot be read",
    damaged: "not signed by the key",
    too_few: "nobody could connect",
    too_few_that_count: "nobody could connect",
    one_twice: "count twice",
    of_everybody: "can be changed by others",
}


@pytest.mark.parametrize("spoil", WRONG, ids=lambda spoil: spoil.__name__)
def test_a_list_that_is_not_what_was_signed_is_none(
    file: Path, spoil: Callable[[Path], None]
) -> None:
    key = file.with_name("key.pem")
    key.write_bytes(pem(KEY))
    spoil(file)
    with pytest.raises(PkiError, match=WRONG[spoil]):
        read(file, key=key)


def test_a_key_that_is_not_the_one_named_signs_nothing(file: Path) -> None:
    sign(file, OTHER)
    file.with_name("logs.json.pub").write_bytes(pem(OTHER))
    with pytest.raises(PkiError, match="is not the one that --ct-logs-key names"):
        read(file, key=spki_pin(KEY.public_key))
    file.with_name("logs.json.pub").write_bytes(b"nothing")
    with pytest.raises(PkiError, match="no public key"):
        read(file, key=spki_pin(KEY.public_key))


def test_what_a_parent_has_read_is_judged_without_the_files(file: Path) -> None:
    """A worker has the text alone: its signature is verified there too."""
    sign(file)
    key = file.with_name("key.pem")
    key.write_bytes(pem(KEY))
    options = SctOptions.parse("2", file, key)
    assert options is not None
    text = options.read()
    for path in (file, key, file.with_name("logs.json.sig")):
        path.unlink()
    assert options.demand(text).logs == list_of((A, B), NOW)
    with pytest.raises(PkiError, match="not signed"):
        options.demand(text.replace(b'"signature":"', b'"signature":"QUFB'))


def test_an_earlier_list_is_not_put_back(file: Path) -> None:
    before = read(file)
    options = SctOptions.parse("2", file, None)
    assert options is not None
    for at in (NOW - timedelta(seconds=1), None):
        logs = LogList((A.log, B.log), at)
        file.write_bytes(logs.to_bytes())
        with pytest.raises(PkiError, match="an earlier list was put back"):
            options.demand(options.read(), before)
    file.write_bytes(list_of((A, B), NOW + timedelta(seconds=1)).to_bytes())
    assert options.demand(options.read(), before).logs.timestamp == NOW + timedelta(seconds=1)


def held(file: Path, home: Path, log: RecordingLog, key: Path | None) -> None:
    """One life of an endpoint that has its state in ``home``."""
    options = SctOptions.parse("2", file, key)
    assert options is not None
    options.hold_to_newest(options.now(), home, log)


def test_an_earlier_signed_list_is_refused_in_a_later_life(file: Path, tmp_path: Path) -> None:
    key, log, home = file.with_name("key.pem"), RecordingLog(), tmp_path / "state"
    key.write_bytes(pem(KEY))
    sign(file)
    earlier, signature = file.read_bytes(), file.with_name("logs.json.sig").read_bytes()
    held(file, home, log, key)
    held(file, home, log, key)
    file.write_bytes(list_of((A, B, MemoryLog("c")), NOW + timedelta(hours=1)).to_bytes())
    sign(file)
    held(file, home, log, key)
    file.write_bytes(earlier)
    file.with_name("logs.json.sig").write_bytes(signature)
    with pytest.raises(PkiError, match="an earlier list was put back; sign the list anew"):
        held(file, home, log, key)
    held(file, tmp_path / "another", log, key)
    held(file, home, log, None)  # whoever writes an unsigned one says which counts
    (kept,) = (home / "ct-logs-seen").iterdir()
    kept.write_bytes(b"soon")
    with pytest.raises(PkiError, match="remove it if you know that the list is the newest"):
        held(file, home, log, key)
    kept.unlink()
    held(file, home, log, key)
    assert not log.events


def test_where_it_cannot_be_kept_is_said_and_holds_nobody_up(file: Path, tmp_path: Path) -> None:
    key, log, home = file.with_name("key.pem"), RecordingLog(), tmp_path / "state"
    key.write_bytes(pem(KEY))
    sign(file)
    home.mkdir()
    (home / "ct-logs-seen").write_text("a file in its place")
    held(file, home, log, key)
    assert [event["event"] for event in log.events] == ["ct-logs-not-kept"]
