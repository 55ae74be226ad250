"""A CA that shows its certificates to two logs dies at each step of that: what they have is on record, and settled."""

import random
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509

from pki.ct.entry import parse_data_tile
from pki.ct.log_list import LogList
from tests.faults import dying
from tests.faults.ordeal import Ordeal, ordeal
from tests.faults.test_kills import SEED, passes
from tests.interop.logged_mesh import DOMAIN, LogProcess
from twisted_mesh.ca.transparency.submitter import submitter
from twisted_mesh.state.key_files import KeyFiles


def shown(log: LogProcess) -> Iterator[int]:
    """The serials of all precertificates that a log has."""
    for path in sorted((log.home / "state" / "ctlog" / "public" / "tile" / "data").rglob("*")):
        if path.is_file():
            for entry in parse_data_tile(path.read_bytes()):
                yield x509.load_der_x509_certificate(entry.submitted).serial_number


def on_record(under: Ordeal) -> dict[int, tuple[bool, bool]]:
    """By serial: whether there is the certificate, and whether it is revoked."""
    sql = (
        "SELECT c.serial, b.certificate IS NOT NULL, c.revoked_at IS NOT NULL FROM certificates c "
        "LEFT JOIN bodies b ON b.certificate = c.id"
    )
    with closing(sqlite3.connect(under.database)) as connection:
        rows = connection.execute(sql).fetchall()
    return {int(serial, 16): (bool(there), bool(revoked)) for serial, there, revoked in rows}


@pytest.mark.parametrize(
    "steps",
    [
        pytest.param(("signed", "log-unasked", "log-answered"), marks=pytest.mark.slow, id="some"),
        pytest.param(dying.LOGGED, marks=pytest.mark.soak, id="all"),
    ],
)
def test_nothing_that_logs_have_seen_is_unrecorded_wherever_it_dies(
    steps: Sequence[str], tmp_path: Path
) -> None:
    home = tmp_path / "home"
    private = home / "state" / "ca" / "private"
    private.mkdir(parents=True)
    private.chmod(0o700)
    pin = str(submitter(KeyFiles(private), DOMAIN, datetime.now(UTC)).pin)
    root = home / "state" / "ca" / "root.crt"
    logs = [LogProcess(tmp_path / f"log-{number}", pin, root) for number in (1, 2)]
    known = tmp_path / "logs.json"
    draw = random.Random(SEED)
    with ExitStack() as stack:
        for log in logs:
            stack.callback(log.kill)
            log.start()
        known.write_bytes(LogList(tuple(log.entry.logs[0] for log in logs)).to_bytes())
        known.chmod(0o644)
        options = ("--ct-logs", str(known), "--ct-quorum", "2")
        with ordeal(home, SEED, *options) as under:
            for step in draw.sample(steps, len(steps)):
                under.dies_at(step, passes(step, draw))
            under.lives()
    assert under.outcome.lost == ()
    assert under.outcome.kills == len(steps)
    record = on_record(under)
    for log in logs:
        seen = set(shown(log))
        assert seen, "certificates were shown to it"
        assert seen <= record.keys(), "what it has is on record"
        assert all(record[serial] != (False, False) for serial in seen), "and is settled"
