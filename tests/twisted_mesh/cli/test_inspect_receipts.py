"""``pki-inspect`` and receipts of logs: shown, verified by a list of logs, and demanded."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click import unstyle
from click.testing import CliRunner, Result

from pki.ct.sct import milliseconds
from pki.spiffe import TrustDomain
from pki.svid.x509svid import certificates_pem
from pki.validity import rfc3339
from tests.authorities import HOUR, NOW, key, mesh
from tests.looked_at import plain_server, served
from tests.pki.ct.logs import LOGS, ONE, THREE, TWO, entry_of, logged
from twisted_mesh.cli.inspect import cli
from twisted_mesh.cli.program import Unusable

LEAF, ISSUER = mesh().leaf(), mesh().issuing.certificate
ENTRY = entry_of(LEAF)
AT = ("--at", rfc3339(NOW))
LISTED = ("--ct-logs", "logs.json")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: certificates with receipts of one, of two, of none, and the logs that are known."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "logs.json").write_bytes(LOGS.to_bytes())
    (tmp_path / "root.crt").write_bytes(mesh().bundle.to_pem())
    (tmp_path / "issuing.pem").write_bytes(certificates_pem([ISSUER]))
    for name, scts in {
        "two": (ONE.sct(ENTRY, index=7), TWO.sct(ENTRY)),
        "mixed": (ONE.sct(ENTRY), THREE.sct(ENTRY, index=3)),
    }.items():
        chain = logged(LEAF, *scts), ISSUER
        (tmp_path / f"{name}.pem").write_bytes(certificates_pem(chain))
        (tmp_path / f"{name}-alone.pem").write_bytes(certificates_pem(chain[:1]))
    (tmp_path / "none.pem").write_bytes(certificates_pem((LEAF, ISSUER)))
    return tmp_path


def run(*arguments: str) -> Result:
    result = CliRunner().invoke(cli, arguments, standalone_mode=False)
    if isinstance(result.exception, Unusable):
        result.exit_code = result.exception.exit_code
        result.stderr_bytes = result.exception.message.encode()
    elif result.exception:
        raise result.exception
    else:
        result.exit_code = result.return_value
    return result


def shown(*things: str, listed: tuple[str, ...] = LISTED) -> tuple[str, list[dict[str, Any]]]:
    """For people, and for programs."""
    words = ("show", *things, *listed, *AT)
    text, encoded = run(*words), run(*words, "--format", "json")
    assert (text.exit_code, encoded.exit_code) == (0, 0), text.stderr
    found: list[dict[str, Any]] = json.loads(encoded.stdout)
    return unstyle(text.stdout), found


def test_receipts_are_shown_with_the_word_of_the_list_on_each() -> None:
    text, (leaf, issuer) = shown("mixed.pem")
    assert leaf["receipts"] == [
        {
            "log": "one",
            "log_id": ONE.log.log_id.hex(),
            "at": rfc3339(NOW),
            "index": 0,
            "counts": True,
            "why": None,
        },
        {
            "log": None,
            "log_id": THREE.log.log_id.hex(),
            "at": rfc3339(NOW),
            "index": 3,
            "counts": False,
            "why": "that log is not known here, or does not count any more",
        },
    ]
    assert "one, 2026-11-23T10:00:00Z, entry 0: good" in text
    assert (
        f"log {THREE.log.log_id.hex()[:16]}…, 2026-11-23T10:00:00Z, entry 3: that log is not"
        in text
    )
    assert "receipts" not in issuer


def test_the_issuer_may_be_in_another_file() -> None:
    _, (leaf, _) = shown("two-alone.pem", "issuing.pem")
    assert [receipt["counts"] for receipt in leaf["receipts"]] == [True, True]


def test_without_the_issuer_nothing_is_verified_and_that_is_said() -> None:
    text, (leaf,) = shown("two-alone.pem")
    assert [receipt["counts"] for receipt in leaf["receipts"]] == [None, None]
    assert "not verified: give the certificate of its issuer as well" in text


def test_without_a_list_receipts_are_shown_as_an_extension() -> None:
    text, (leaf, _) = shown("two.pem", listed=())
    assert "receipts" not in leaf
    assert "2026-11-23T10:00:00Z by log" in text and ", entry 7" in text


def test_a_certificate_without_receipts_has_none() -> None:
    _, found = shown("none.pem")
    assert all("receipts" not in item for item in found)


@pytest.mark.parametrize(
    ("name", "more", "refused"),
    [
        ("two.pem", ("--require-sct", "2"), False),
        ("two.pem", (), False),
        ("mixed.pem", (), False),
        ("mixed.pem", ("--require-sct", "2"), True),
        ("none.pem", (), True),
        ("none.pem", ("--require-sct", "0"), False),
    ],
)
def test_a_verdict_demands_receipts(name: str, more: tuple[str, ...], refused: bool) -> None:
    words = ("verify", name, "--roots", "root.crt", *LISTED, *more, *AT, "--format", "json")
    result = run(*words)
    assert result.exit_code == int(refused)
    assert [p["code"] for p in json.loads(result.stdout)["problems"]] == ["no-sct"] * refused


def test_a_number_alone_says_nothing() -> None:
    result = run("verify", "two.pem", "--roots", "root.crt", "--require-sct", "1")
    assert result.exit_code == 2 and b"--ct-logs" in result.stderr_bytes


@pytest.mark.parametrize("content", ["", "{}", "[1]"])
def test_a_list_that_is_none_is_said_to_be_none(content: str, here: Path) -> None:
    (here / "logs.json").write_text(content)
    result = run("show", "two.pem", *LISTED)
    assert result.exit_code == 2
    assert b"logs.json: the list of logs cannot be used" in result.stderr_bytes


@pytest.mark.parametrize(("number", "status"), [(1, 0), (2, 1)])
def test_a_server_is_asked_for_receipts(number: int, status: int, here: Path) -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    home = mesh(TrustDomain("probed.example"), now=now - HOUR)
    leaf = home.leaf(now=now)
    entry = entry_of(leaf, home)
    final = logged(leaf, ONE.sct(entry, at=milliseconds(now)), THREE.sct(entry), home=home)
    (here / "root.crt").write_bytes(home.bundle.to_pem())
    chain, private = (final, home.issuing.certificate), key(9).private_key
    with served(plain_server(chain, private)) as port:  # type: ignore[arg-type]
        target = ("probe", f"127.0.0.1:{port}", "--roots", "root.crt", *LISTED)
        result = run(*target, "--require-sct", str(number), "--format", "json")
        text = unstyle(run(*target, "--require-sct", str(number)).stdout)
    said = json.loads(result.stdout)
    assert result.exit_code == status
    assert [receipt["counts"] for receipt in said["chain"][0]["receipts"]] == [True, False]
    assert [problem["code"] for problem in said["problems"]] == ["no-sct"] * status
    assert "receipts (SCTs)" in text and "one, " in text
