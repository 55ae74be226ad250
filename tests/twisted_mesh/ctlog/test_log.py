"""mesh-ctlog as a process: it takes precertificates, gives receipts that hold, and shows what it has."""

from collections.abc import Iterator
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import pytest

from pki.ct.entry import parse_data_tile
from pki.ct.log_list import LogList
from pki.ct.receipt import SctDemand, verify_sct
from pki.tlog.merkle import inclusion_proof, verify_inclusion
from tests.ctlogs import RunningLog, chain_of, der, entry_of, final, precertificate, running_log


@pytest.fixture
def log(tmp_path: Path) -> Iterator[RunningLog]:
    with running_log(tmp_path / "log") as running:
        yield running


def test_a_receipt_holds_and_its_entry_is_there_at_once(log: RunningLog) -> None:
    now = datetime.now(UTC)
    pre = precertificate(log.of, now=now)
    sct = log.submit(pre)
    verify_sct(sct, entry_of(log.of, pre), log.log.key)
    assert sct.leaf_index == 0
    cert = final(log.of, pre, [sct])
    demand = SctDemand(1, LogList((log.log,)))
    assert demand.problems([cert, log.of.issuing.certificate], datetime.now(UTC)) == ()
    head = log.head
    assert (head.size, head.origin) == (1, f"localhost:{log.port}")
    (entry,) = parse_data_tile(log.get("tile/data/000.p/1")[1])
    assert entry.signed == entry_of(log.of, pre)
    assert entry.pre_certificate == der(pre)
    assert entry.timestamp == sct.timestamp <= head.timestamp
    _, hashes = log.get("tile/0/000.p/1")
    assert hashes == entry.leaf_hash
    proof = inclusion_proof(0, 1, lambda *_: hashes)
    verify_inclusion(entry.leaf_hash, 0, 1, proof, head.root)
    issuers = [log.of.issuing.certificate, log.of.root.certificate]
    assert entry.chain == tuple(sha256(der(one)).digest() for one in issuers)
    for one in issuers:
        status, body = log.get(f"issuer/{sha256(der(one)).hexdigest()}")
        assert (status, body) == (200, der(one))
    again = log.submit(pre)
    assert (again.timestamp, again.extensions) == (sct.timestamp, sct.extensions)
    assert log.head.size == 1
    status, answer = log.post(chain_of(log.of, cert), "add-chain")
    assert status == 200, answer
    assert log.head.size == 2
