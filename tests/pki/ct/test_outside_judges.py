"""OpenSSL looks at our receipts in a handshake, and thinks of each what we think."""

import base64
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from attrs import evolve

from pki.ct.receipt import judge_receipts
from pki.ct.sct import SignedCertificateTimestamp, milliseconds
from pki.keys import KeyAlgorithm
from pki.spiffe import TrustDomain
from pki.svid.x509svid import certificates_pem
from tests.authorities import Mesh, key, mesh
from tests.looked_at import plain_server, served
from tests.pki.ct.logs import LOGS, ONE, THREE, TWO, TestLog, entry_of, logged
from tests.tools import require_tool

#: OpenSSL takes the time of the machine.
NOW = datetime.now(UTC).replace(microsecond=0)
HOME = mesh(TrustDomain("logged.example"), now=NOW)
RSA = TestLog("four", key("a log", KeyAlgorithm.RSA_2048))
KNOWN = (ONE, TWO, RSA)


def log_file(logs: Sequence[TestLog]) -> str:
    """As OpenSSL wants it: CONF format."""
    sections = (
        f"[{log.name}]\ndescription = {log.name}\n"
        f"key = {base64.b64encode(log.log.key.spki).decode()}\n"
        for log in logs
    )
    names = ",".join(log.name for log in logs)
    return f"enabled_logs = {names}\n" + "".join(sections)


def openssl_says(home: Mesh, chain: Sequence[object], directory: Path) -> list[str]:
    """How s_client calls each receipt, in their order."""
    (directory / "root.pem").write_bytes(certificates_pem([home.root.certificate]))
    (directory / "logs.cnf").write_text(log_file(KNOWN))
    private = key(9).private_key
    with served(plain_server(chain, private)) as port:  # type: ignore[arg-type]
        done = subprocess.run(
            [
                *(require_tool("openssl"), "s_client", "-connect", f"127.0.0.1:{port}"),
                *("-ct", "-ctlogfile", "logs.cnf", "-CAfile", "root.pem", "-verify", "3"),
            ],
            cwd=directory,
            input="",
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert "Verify return code: 0 (ok)" in done.stdout, done.stdout + done.stderr
    marker = "SCT validation status: "
    said = [line.strip()[len(marker) :] for line in done.stdout.splitlines() if marker in line]
    return said[::-1]  # s_client takes them from the end


def test_openssl_says_of_each_receipt_what_we_say(tmp_path: Path) -> None:
    leaf, issuer = HOME.leaf(now=NOW), HOME.issuing.certificate
    entry, at = entry_of(leaf, HOME), milliseconds(NOW)
    flipped = TWO.sct(entry, at=at)
    scts: list[SignedCertificateTimestamp] = [
        ONE.sct(entry, index=2**40 - 1, at=at),
        RSA.sct(entry, index=1, at=at),
        THREE.sct(entry, at=at),
        evolve(flipped, timestamp=at - 1),
    ]
    final = logged(leaf, *scts, home=HOME)
    said = openssl_says(HOME, (final, issuer), tmp_path)
    assert said == ["valid", "valid", "unknown log", "invalid"]
    logs = evolve(LOGS, logs=tuple(log.log for log in KNOWN))
    ours = [receipt.counts for receipt in judge_receipts(final, issuer, logs, NOW)]
    assert ours == [True, True, False, False]


@pytest.mark.parametrize("other", ["another certificate", "another issuer"])
def test_neither_takes_a_receipt_for_another(other: str, tmp_path: Path) -> None:
    leaf, issuer = HOME.leaf(now=NOW), HOME.issuing.certificate
    entry = entry_of(HOME.leaf(now=NOW + timedelta(seconds=1)), HOME)
    if other == "another issuer":
        entry = evolve(entry_of(leaf, HOME), issuer_key_hash=bytes(32))
    final = logged(leaf, ONE.sct(entry, at=milliseconds(NOW)), home=HOME)
    assert openssl_says(HOME, (final, issuer), tmp_path) == ["invalid"]
    (receipt,) = judge_receipts(final, issuer, LOGS, NOW)
    assert not receipt.counts
