"""The record itself is damaged, or takes no entry: no act without its entry, no certificate without its record."""

import sqlite3
from contextlib import closing

import pytest

from tests.faults.ordeal import Ordeal


def as_another(under: Ordeal, statement: str) -> None:
    """A statement of another process's."""
    with closing(sqlite3.connect(under.database, timeout=10)) as connection:
        connection.execute(statement).fetchall()


@pytest.mark.slow
def test_where_the_log_takes_no_entry_the_act_does_not_happen(under: Ordeal) -> None:
    ca = under.start(wait=True)
    with under.load():
        under.wait_for_answers(20)
    serial = under.sign().json["serial"]
    before = under.count()
    as_another(under, "ALTER TABLE audit RENAME TO hidden")
    for answer in (under.sign(), under.ask("/api/v1/revoke", {"serial": serial})):
        assert answer.is_try_later, answer
        assert "its tables are not those of this program" in answer.json["detail"]
    with under.load():
        under.wait_for_answers(20)
    under.until(lambda: under.ask("/readyz").status == 503)
    after = under.count()
    for table in ("certificates", "intents", "bodies", "feed"):
        assert after[table] == before[table], table
    assert after["hidden"] == before["audit"]
    known = under.ask(f"/api/v1/certificates/{serial}").json
    assert known["status"] == "valid", "it is not revoked either"
    as_another(under, "ALTER TABLE hidden RENAME TO audit")
    assert under.sign().status == 201
    assert under.ask("/api/v1/revoke", {"serial": serial}).status == 200
    under.until(lambda: under.ask("/readyz").status == 200)
    under.lives_on(ca)


@pytest.mark.slow
def test_a_database_that_is_overwritten_gives_out_nothing_more(under: Ordeal) -> None:
    ca = under.start(wait=True)
    with under.load():
        under.wait_for_answers(40)
    held = len(under.evidence.certificates)
    # What is in the file, and not in SQLite's memory, is what will be read next.
    as_another(under, "PRAGMA wal_checkpoint(TRUNCATE)")
    size = under.database.stat().st_size
    with under.database.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xa5" * (size - 4096))
    answers = [under.sign() for _ in range(5)]
    assert all(answer.is_try_later for answer in answers), answers
    assert "restore the last backup" in answers[0].json["detail"]
    under.until(lambda: under.ask("/readyz").status == 503)
    assert "restore the last backup" in under.ask("/readyz").json["detail"]
    assert under.ask("/livez").status == 200
    assert under.ask("/api/v1/bundle").status == 200
    with under.load():
        under.wait_for_answers(20)
    assert len(under.evidence.certificates) == held, "no certificate left it since"
    assert ca.stop() == 0
    assert "The stop is not in the audit log" in ca.text
    assert "Traceback" not in ca.text
    # Nobody starts on what is left of it.
    again = under.start()
    assert again.wait() == 1
    assert "restore the last backup" in again.text
