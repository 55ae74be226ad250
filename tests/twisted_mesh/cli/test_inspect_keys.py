"""``pki-inspect fingerprint``, ``match`` and ``needs-renewal``: answers for scripts, and for people."""

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    PublicFormat,
)

from pki.issuing.csr import build_csr
from pki.issuing.profile import BACKDATE
from pki.svid.pin import Fingerprint
from pki.svid.x509svid import certificates_pem
from pki.validity import rfc3339
from tests.authorities import BACKEND, HOUR, NOW, key, mesh
from tests.twisted_mesh.cli import test_inspect
from tests.twisted_mesh.cli.test_inspect import refused, run

here = test_inspect.here


def answer(*arguments: str, status: int, stdin: bytes = b"") -> tuple[str, Any]:
    """The text and the JSON, which have one status."""
    text = run(*arguments, stdin=stdin)
    encoded = run(*arguments, "--format", "json", stdin=stdin)
    assert (text.exit_code, encoded.exit_code) == (status, status)
    return text.stdout, json.loads(encoded.stdout)


# fingerprint


def test_the_root_of_a_bundle_is_told_as_the_ca_prints_it() -> None:
    text, (found,) = answer("fingerprint", "root.crt", status=0)
    assert found["fingerprint"] == str(Fingerprint.of(mesh().root.certificate))
    assert set(found) == {"source", "what", "subject", "fingerprint", "pin"}
    for value in found.values():
        assert value in text


def test_a_pin_is_of_the_key_whatever_holds_it() -> None:
    _, found = answer("fingerprint", "svid.pem", "key.pem", status=0)
    assert [one["what"] for one in found] == ["certificate", "certificate", "private key"]
    assert found[0]["pin"] == found[2]["pin"] != found[1]["pin"]
    assert found[2]["fingerprint"] is None
    assert found[0]["pin"].startswith("sha256/")


def test_what_cannot_be_read_hides_nothing_else(here: Path) -> None:
    (here / "empty.pem").touch()
    result = run("fingerprint", "empty.pem", "root.crt")
    assert result.exit_code == 2
    assert "sha256:" in result.stdout
    assert result.stderr.startswith("empty.pem: ")
    assert "nowhere.pem cannot be read" in refused("fingerprint", "nowhere.pem")


# match


def test_a_chain_its_key_and_its_csr_belong_together(here: Path) -> None:
    (here / "request.csr").write_bytes(build_csr(key(9), BACKEND))
    public = key(9).public_key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    text, found = answer("match", "svid.pem", "key.pem", "request.csr", "-", status=0, stdin=public)
    assert (found["verdict"], found["differences"]) == ("match", [])
    kinds = [thing["what"] for thing in found["things"]]
    assert kinds == ["certificate", "private key", "CSR", "public key"]
    assert "verdict: they belong together" in text
    secret = "".join(key(9).to_pem().decode().splitlines()[1:-1])
    assert secret[:40] not in text


def test_another_key_is_told_with_whose_it_is(here: Path) -> None:
    (here / "other.pem").write_bytes(key(8).to_pem())
    text, found = answer("match", "svid.pem", "key.pem", "other.pem", status=1)
    assert found["verdict"] == "no match"
    said = "the private key in other.pem is not of the key of the certificate in svid.pem"
    assert found["differences"] == [said]
    assert text.endswith(f"verdict: they do not belong together\n{said}\n")
    chain = certificates_pem([mesh().issuing.certificate, mesh().leaf()])
    (here / "turned.pem").write_bytes(chain)
    _, found = answer("match", "turned.pem", "key.pem", status=1)
    assert found["differences"] == [
        "the private key in key.pem is not of the key of the certificate in turned.pem, but of CN=backend, which "
        "stands further down in turned.pem"
    ]


def test_one_file_may_hold_both(here: Path) -> None:
    (here / "both.pem").write_bytes((here / "svid.pem").read_bytes() + key(9).to_pem())
    assert answer("match", "both.pem", status=0)[1]["verdict"] == "match"
    assert refused("match", "svid.pem") == (
        "svid.pem holds a certificate alone: name what it is to be compared with too"
    )


def test_an_encrypted_key_is_not_compared(here: Path) -> None:
    closed = key(9).private_key.private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"correct horse")
    )
    (here / "closed.pem").write_bytes(closed)
    said = refused("match", "svid.pem", "closed.pem")
    assert said == (
        "closed.pem: the private key is encrypted, so that nothing can be told of it: give its public half "
        "(openssl pkey -in FILE -pubout)"
    )


# needs-renewal


def renewal(*options: str, after: timedelta, status: int) -> dict[str, Any]:
    at = rfc3339(NOW + after)
    text, found = answer("needs-renewal", "svid.pem", *options, "--at", at, status=status)
    assert found["needs_renewal"] is (status == 0)
    assert text.startswith("renew  svid.pem: " if status == 0 else "not yet  svid.pem: ")
    assert set(found) == {
        "needs_renewal", "source", "subject", "not_before", "not_after", "seconds_left", "due_at"
    }  # fmt: skip
    return dict(found)


SECOND = timedelta(seconds=1)
HALF = (HOUR - BACKDATE) / 2


@pytest.mark.parametrize(
    ("options", "due"),
    [
        ((), HALF),
        (("--share", "0.5"), HALF),
        (("--share", "1"), HOUR),
        (("--within", "10m"), HOUR - timedelta(minutes=10)),
        (("--within", "0s"), HOUR),
        (("--within", "999999999d"), timedelta(days=-300 * 365)),
    ],
    ids=["half", "share", "all of it", "10m", "0s", "always"],
)
def test_it_is_time_from_one_second_on(options: tuple[str, ...], due: timedelta) -> None:
    found = renewal(*options, after=due, status=0)
    assert found["seconds_left"] == (HOUR - due).total_seconds()
    if due > timedelta():
        assert found["due_at"] == rfc3339(NOW + due)
        renewal(*options, after=due - SECOND, status=1)


def test_what_has_expired_is_to_be_renewed_and_what_begins_is_not() -> None:
    found = renewal(after=2 * HOUR, status=0)
    assert found["seconds_left"] == -3600
    assert (
        "it expired 1h 0m ago"
        in run("needs-renewal", "svid.pem", "--at", rfc3339(NOW + 2 * HOUR)).stdout
    )
    renewal(after=-HOUR, status=1)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--within", "soon"), "--within: 'soon' is not a duration"),
        (("--within", "1h", "--share", "0.5"), "--within and --share are two ways"),
        (("--at", "noon"), "--at: 'noon' is not a time"),
    ],
    ids=["no duration", "both", "no time"],
)
def test_options_that_cannot_be_used_are_no_answer(options: tuple[str, ...], said: str) -> None:
    assert refused("needs-renewal", "svid.pem", *options).startswith(said)


def test_a_key_has_no_life() -> None:
    assert refused("needs-renewal", "key.pem").startswith(
        "key.pem: it holds no certificate, but private key"
    )
