"""Lists of logs: ours and the web's, what in them is refused, and who has signed them."""

import asyncio
import base64
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from pki.ct.errors import BadLogList
from pki.ct.log_key import LogKey
from pki.ct.log_list import Log, LogList, LogState, origin_of, sign_list, verify_signature
from pki.keys import KeyAlgorithm
from pki.svid.spki_pin import SpkiHash
from tests.authorities import DAY, HOUR, NOW, key
from tests.pki.ct.logs import LOGS, ONE, THREE, TWO
from tests.pki.strategies import json_values, mutated
from tests.tools import require_tool

PINNED = evolve(ONE.log, tls_pins=(SpkiHash(bytes(32)), SpkiHash(bytes(31) + b"\1")))
OLD = Log("old", THREE.log.key, "https://ct.example/logs/old/", "", mmd=86400, operator="others")


@pytest.mark.parametrize(
    "logs",
    [
        LogList((), NOW),
        LOGS,
        LogList((PINNED, TWO.log.retired(LogState.RETIRED, NOW)), NOW + DAY),
        LogList((ONE.log, OLD), NOW),
        LogList((evolve(ONE.log, state=LogState.USABLE, state_since=NOW, mmd=0),), NOW),
    ],
    ids=["none", "two", "with pins and states", "the web's", "since"],
)
def test_a_list_is_read_back(logs: LogList) -> None:
    assert LogList.parse(logs.to_bytes()) == logs


def document(**changed: Any) -> dict[str, Any]:
    """A list of one log, with these members of it changed; None takes one away."""
    found: dict[str, Any] = json.loads(LogList((PINNED,), NOW).to_bytes())
    log = found["operators"][0]["tiled_logs"][0]
    log.update(changed)
    for name in [name for name, value in changed.items() if value is None]:
        del log[name]
    return found


def parsed(found: object) -> LogList:
    return LogList.parse(json.dumps(found).encode())


def test_what_else_a_list_of_the_web_says_is_passed_over() -> None:
    found = document(temporal_interval={"start_inclusive": "x"}, previous_operators=[])
    found["is_all_logs"] = True
    found["operators"][0]["email"] = ["log@example"]
    assert parsed(found).logs == (PINNED,)


BAD: dict[str, tuple[Any, str]] = {
    "no key": (document(key=None), "key"),
    "a key that is no base64": (document(key="!"), "no key of a log"),
    "a key that is not canonical": (document(key=str(ONE.log.key)[:-2] + "g="), "key of a log"),
    "a key that is damaged": (document(key=base64.b64encode(b"\x30\x00").decode()), "damaged"),
    "another log's ID": (
        document(log_id=base64.b64encode(TWO.log.log_id).decode()),
        "not that of the key",
    ),
    "an unknown state": (
        document(state={"dead": {"timestamp": "2026-01-01T00:00:00Z"}}),
        "one state",
    ),
    "two states": (
        document(
            state={
                "usable": {"timestamp": "2026-01-01T00:00:00Z"},
                "retired": {"timestamp": "2026-01-01T00:00:00Z"},
            }
        ),
        "one state",
    ),
    "a state of no time": (document(state={"retired": {"timestamp": "soon"}}), "cannot be used"),
    "a submission URL in the clear": (
        document(submission_url="http://one.example/"),
        "submission_url",
    ),
    "a URL with a query": (document(submission_url="https://one.example/?a"), "submission_url"),
    "a URL with a password": (
        document(submission_url="https://u:p@one.example/"),
        "submission_url",
    ),
    "a URL with a plus": (document(submission_url="https://one.example/a+b"), "submission_url"),
    "a monitoring URL of a file": (document(monitoring_url="file:///etc"), "monitoring_url"),
    "no monitoring URL": (document(monitoring_url=""), "has a monitoring_url"),
    "a pin that is none": (document(tls_pins=["sha256/x"]), "damaged"),
    "too many pins": (document(tls_pins=[str(SpkiHash(bytes(32)))] * 17), "too many"),
    "an mmd that is text": (document(mmd="60"), "mmd"),
    "an mmd below nothing": (document(mmd=-1), "mmd"),
    "a list": ([], "does not fit"),
}


@pytest.mark.parametrize(("found", "told"), BAD.values(), ids=BAD)
def test_what_is_no_list_is_refused_with_its_reason(found: object, told: str) -> None:
    with pytest.raises(BadLogList, match=told):
        parsed(found)


@pytest.mark.parametrize(
    ("data", "told"),
    {
        "nothing": (b"", "no JSON"),
        "a member twice": (b'{"version": "1", "version": "2"}', "appears twice"),
        "no number": (b'{"version": NaN}', "no number"),
        "half a character": (b'{"version": "\xff"}', "no JSON"),
        "deep": (b"[" * 100_000, "no JSON"),
        "too large": (b" " * (4 * 1024 * 1024 + 1), "over 4194304 bytes"),
    }.values(),
)
def test_what_is_no_json_is_refused_with_its_reason(data: bytes, told: str) -> None:
    with pytest.raises(BadLogList, match=told):
        LogList.parse(data)


@given(mutated(LOGS.to_bytes()) | json_values.map(lambda value: json.dumps(value).encode()))
def test_damage_raises_nothing_but_bad_log_list(data: bytes) -> None:
    try:
        found = LogList.parse(data)
    except BadLogList:
        return
    assert LogList.parse(found.to_bytes()) == found


def test_no_two_logs_have_one_key_or_one_url() -> None:
    with pytest.raises(BadLogList, match="have one key, one of them 'again'"):
        LogList(
            (ONE.log, evolve(ONE.log, description="again", submission_url="https://else.example"))
        )
    with pytest.raises(BadLogList, match="have one submission URL"):
        LogList((ONE.log, evolve(TWO.log, submission_url=f"{ONE.log.submission_url}/")))


def test_a_state_that_ends_something_has_a_time() -> None:
    with pytest.raises(BadLogList, match="not said since when"):
        evolve(ONE.log, state=LogState.RETIRED)


def test_logs_are_found_by_id_and_by_origin() -> None:
    assert LOGS.log_of(TWO.log.log_id) == TWO.log == LOGS.log_at("two.example/2026")
    assert LOGS.log_of(bytes(32)) is None is LOGS.log_at("")
    assert LOGS.without([ONE.log.log_id]).logs == (TWO.log,)
    assert LOGS.without([bytes(32)]) is LOGS


def test_urls_are_put_together_whether_or_not_they_end_in_a_slash() -> None:
    assert origin_of("https://rome.ct.example.com/2024h1/") == "rome.ct.example.com/2024h1"
    for log in (ONE.log, evolve(ONE.log, submission_url=f"{ONE.log.submission_url}/")):
        assert log.submission("ct/v1/add-chain") == "https://one.example/2026/ct/v1/add-chain"
        assert log.monitoring("checkpoint") == "https://one.example/2026/checkpoint"
        assert log.origin == "one.example/2026"


@given(st.sampled_from([ONE, TWO, THREE]))
def test_a_key_is_read_back(log: Any) -> None:
    assert LogKey.parse(str(log.log.key)) == log.log.key
    assert len({log.log.key, LogKey.parse(str(log.log.key))}) == 1


@pytest.mark.parametrize(
    "algorithm",
    [KeyAlgorithm.EC_P256, KeyAlgorithm.EC_P384, KeyAlgorithm.ED25519, KeyAlgorithm.RSA_2048],
)
def test_a_list_is_signed_by_a_key_of_any_kind(algorithm: KeyAlgorithm) -> None:
    signer = key("signs lists", algorithm)
    data, signature = LOGS.to_bytes(), asyncio.run(sign_list(LOGS, signer))
    verify_signature(data, signature, signer.public_key)
    bad = [
        (data + b" ", signature, signer.public_key),
        (data, signature[4:], signer.public_key),
        (data, b"!", signer.public_key),
        (data, b"", signer.public_key),
        (data, signature * 1000, signer.public_key),
        (data, signature, key("does not").public_key),
    ]
    for changed in bad:
        with pytest.raises(BadLogList, match="not signed by the key"):
            verify_signature(*changed)


def test_openssl_verifies_the_signature_of_a_list(tmp_path: Path) -> None:
    openssl = require_tool("openssl")
    signer = key("signs lists")
    (tmp_path / "list").write_bytes(LOGS.to_bytes())
    signature = base64.b64decode(asyncio.run(sign_list(LOGS, signer)))
    (tmp_path / "sig").write_bytes(signature)
    public = signer.public_key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "key").write_bytes(public)
    command = [openssl, "dgst", "-sha256", "-verify", "key", "-signature", "sig", "list"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout == "Verified OK\n", done.stderr


def test_a_list_of_another_time_is_another() -> None:
    assert evolve(LOGS, timestamp=NOW + HOUR) != LOGS
