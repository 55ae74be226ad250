"""Whoever is met is looked for in logs, in the background: one that lost an entry is found out, and holds up nobody."""

import asyncio
import re
from pathlib import Path

import pytest

from pki.ct.entry import signed_entry_of
from pki.ct.evidence import parse_evidence
from pki.ct.log_list import LogList
from pki.ct.receipt import sign_sct
from pki.ct.sct import milliseconds
from pki.issuing.authority import Authority
from pki.keys import MemoryKey
from pki.spiffe import SpiffeId
from pki.svid.x509svid import X509Svid
from tests.authorities import forge, key
from tests.interop import forging
from tests.interop.forging import API_SERVER, HOUR, PAYMENT, present, server_names
from tests.interop.house import House, Identity
from tests.interop.test_stolen_issuing_key import LOGS, Minter, answer, calls
from tests.interop.wires import impostor, listening
from tests.running import BIN, Running, free_port, until
from tests.twisted_mesh.ct.paper_log import PaperLog, served
from tests.twisted_mesh.grpc.sockets import turn_until
from twisted_mesh.testing import list_of, with_receipts


@pytest.fixture
def minter(issuing: Authority, tmp_path: Path) -> Minter:
    assert isinstance(issuing.key, MemoryKey)
    return Minter(issuing, tmp_path)


def promised(minter: Minter, paper: PaperLog, index: int) -> Identity:
    """A server whose receipt names an entry that the log has another at."""
    now, own, issuer = present(), key("of whoever is hidden"), minter.issuing
    leaf = forge(
        issuer,
        subject_key=own,
        uris=[API_SERVER],
        start=now - HOUR / 60,
        end=now + HOUR,
        replace=server_names(API_SERVER),
    )
    entry = signed_entry_of(leaf, issuer.certificate)
    sct = asyncio.run(sign_sct(entry, milliseconds(paper.at), index, paper.key))
    svid = X509Svid(leaf, issuer.intermediates, own, SpiffeId.parse(API_SERVER))
    return forging.write(minter.home / "hidden", with_receipts(svid, issuer, [sct]).chain, own)


def test_a_client_finds_out_a_log_that_has_lost_an_entry(
    shared: House, minter: Minter, tmp_path: Path
) -> None:
    paper = PaperLog("loses", at=present())
    paper.fill(20)
    state, file = tmp_path / "state", tmp_path / "logs.json"
    hidden = promised(minter, paper, 17)
    with served(paper), listening(impostor(hidden, answer())) as fake:
        paper.sign()
        logs = LogList((paper.log,), present())
        file.write_bytes(logs.to_bytes())
        client = Running.start(
            BIN / "mesh-client",
            *("--server", fake.url, "--require-sct", "1", "--ct-logs", str(file)),
            *("--state-dir", str(state), "--ca-url", f"unix:{shared.socket}"),
            *("--repeat", "100", "--interval", "100ms"),
            cwd=shared.home,
            env=shared.env,
            real=shared.real,
        )
        shared.processes.append(client)
        found = state / "ct-evidence"
        turn_until(
            lambda: found.is_dir() and bool(list(found.glob("*.json"))),
            lambda: client.text,
        )
        client.wait_for("mTLS mesh communication successful", count=2)
        client.wait_for("anybody can verify that by")
        client.stop()
    (evidence,) = found.glob("ct-entry-missing-*.json")
    assert parse_evidence(evidence.read_bytes()).verify(logs).code == "ct-entry-missing"


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.interop)])
def test_a_server_looks_for_whoever_it_lets_in(
    shared: House, minter: Minter, tmp_path: Path, workers: int
) -> None:
    file = tmp_path / "logs.json"
    file.write_bytes(list_of(LOGS, present()).to_bytes())
    status = free_port()
    options = ("--require-sct", "2", "--ct-logs", str(file), "--workers", str(workers))
    own = ("--spiffe-id", API_SERVER, "--status", str(status))
    pending = "mesh_ct_audit_pending"

    def told() -> str:
        return shared.curl(f"http://127.0.0.1:{status}/metrics").stdout

    def demands() -> str:
        return shared.ctl("ct", "status", "--ct-logs", str(file)).stdout

    with shared.serving(*options, *own) as (server, port):
        assert calls(shared, port, minter.identity(PAYMENT, LOGS))
        until(
            lambda: any(
                line.startswith(pending) and line.endswith(" 2.0") for line in told().splitlines()
            ),
            told,
        )
        until(lambda: re.search(r"^2 +one, two +\d+$", demands(), re.M), demands)
    with shared.serving(*options, *own, "--ct-audit", "off") as (server, port):
        server.wait_for("--ct-audit is off")
        assert calls(shared, port, minter.identity(PAYMENT, LOGS))
        assert pending not in told()
