"""The judge of the record finds what is to be found: each falsified record, each lost certificate."""

import hashlib
import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from attrs import evolve, frozen
from cryptography import x509

from tests.faults.checker import Evidence, findings
from tests.faults.ordeal import ordeal


@frozen
class Story:
    """A record and what clients hold of it."""

    database: Path
    evidence: Evidence


@pytest.fixture(scope="module")
def true_story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    """A CA was used, was killed once, was used again and stopped."""
    home = tmp_path_factory.mktemp("story")
    with ordeal(home, 1) as under:
        under.dies_at("elsewhere-signed", 40)
        ca = under.start()
        with under.load():
            under.wait_for_answers(60)
            while len(set(under.evidence.checkpoints)) < 2:
                under.wait_for_answers(5)
        under.lives_on(ca)
        yield Story(home / "state" / "ca" / "mesh.db", under.evidence)


@pytest.fixture
def story(true_story: Story, tmp_path: Path) -> Story:
    """A copy of it, to be falsified."""
    copy = tmp_path / "mesh.db"
    shutil.copy(true_story.database, copy)
    with closing(sqlite3.connect(copy)) as connection:
        connection.execute("INSERT INTO entries VALUES ('web', 0, x'7b7d')")
        connection.commit()
    return evolve(true_story, database=copy)


def falsify(story: Story, *statements: str) -> None:
    """As someone would who has the file and knows its tables, but not the log's key."""
    with closing(sqlite3.connect(story.database)) as connection:
        for statement in statements:
            changed = connection.execute(statement).rowcount
            assert changed, f"nothing was falsified by {statement}"
        connection.commit()


def judged(story: Story) -> str:
    return "\n".join(findings(story.database, story.evidence, settled=True))


def test_a_true_record_is_found_true(story: Story) -> None:
    assert judged(story) == ""
    assert len(story.evidence.certificates) > 10
    assert story.evidence.revoked
    assert story.evidence.idempotent
    assert len(set(story.evidence.checkpoints)) > 1


_A_HELD = "(SELECT certificate FROM bodies LIMIT 1)"
_A_REVOKED = "(SELECT min(certificate) FROM feed)"
_A_SERIAL = f"(SELECT serial FROM certificates WHERE id = {_A_HELD})"
_A_TOKEN = "INSERT INTO tokens VALUES ('id1', x'00',"
_LAST = "(SELECT max(position) FROM audit)"
FORGERIES = {
    "a certificate's row is deleted": (
        f"DELETE FROM certificates WHERE id = {_A_HELD}",
        "which is not recorded",
    ),
    "a certificate's bytes are deleted": (
        f"DELETE FROM bodies WHERE certificate = {_A_HELD}",
        "neither certificate nor intent",
    ),
    "a certificate's bytes are those of another": (
        "UPDATE bodies SET der = (SELECT der FROM bodies ORDER BY certificate DESC LIMIT 1) "
        f"WHERE certificate = {_A_HELD}",
        "with the certificate of another serial",
    ),
    "a certificate is un-revoked": (
        f"UPDATE certificates SET revoked_at = NULL, reason = NULL WHERE id = {_A_REVOKED}",
        "was revoked by the log, and counts as valid",
    ),
    "a revocation is kept from endpoints": (
        f"DELETE FROM feed WHERE certificate = {_A_REVOKED}",
        "stands in the feed 0 times",
    ),
    "a revocation is dated later": (
        "UPDATE certificates SET revoked_at = revoked_at + 60000000 WHERE id IN (SELECT certificate FROM feed)",
        "at another time by the record",
    ),
    "a certificate is revoked without an entry": (
        f"UPDATE certificates SET revoked_at = 1, reason = 'unspecified' WHERE id = {_A_HELD}",
        "is revoked, and the log does not say so",
    ),
    "an intent is left open": (
        f"INSERT INTO intents SELECT id, x'00' FROM certificates WHERE id = {_A_HELD}",
        "is still under way",
    ),
    "an entry is edited": (
        "UPDATE audit SET entry = CAST(replace(CAST(entry AS TEXT), 'unix:uid:0', 'unix:uid:1') AS BLOB) "
        "WHERE CAST(entry AS TEXT) LIKE '%unix:uid:0%'",
        "has another root",
    ),
    "an entry is cut out": (
        "DELETE FROM audit WHERE position = 3",
        "positions of the audit log are missing",
    ),
    "the end of the log is cut off": (
        f"DELETE FROM audit WHERE position = {_LAST}",
        "acts were counted",
    ),
    "an entry is put there": (
        f"INSERT INTO audit SELECT position + 1, at, entry FROM audit WHERE position = {_LAST}",
        "acts are recorded, and",
    ),
    "a tile of the tree is changed": (
        "UPDATE tiles SET hashes = zeroblob(length(hashes))",
        "the tiles of the tree are not those of its entries",
    ),
    "a checkpoint is changed": (
        "UPDATE checkpoints SET note = replace(note, 'time 2', 'time 3')",
        "is not signed by the log's key",
    ),
    "a token was spent on nothing": (
        f"{_A_TOKEN} 'web', NULL, 0, 1, NULL, 1, NULL, '{0xF:040x}')",
        "was spent on f, which is not recorded",
    ),
    "a token was spent twice": (
        f"{_A_TOKEN} 'web', NULL, 0, 1, NULL, 1, NULL, {_A_SERIAL}), ('id2', x'01', 'web', NULL, 0, 1, NULL, 1, NULL, "
        f"{_A_SERIAL})",
        "was bought with 2 tokens",
    ),
    "a token that bought something is live": (
        f"{_A_TOKEN} 'web', NULL, 0, 1, NULL, NULL, NULL, {_A_SERIAL})",
        "counts as live",
    ),
    "a token is of no entry": (
        f"{_A_TOKEN} 'nothing', NULL, 0, 1, NULL, NULL, NULL, NULL)",
        "is bound to nothing, which is not there",
    ),
    "the last checkpoint is removed": (
        "DELETE FROM checkpoints WHERE size = (SELECT max(size) FROM checkpoints)",
        "are signed",
    ),
}


@pytest.mark.parametrize("forgery", FORGERIES)
def test_a_falsified_record_is_found_out(forgery: str, story: Story) -> None:
    statement, finding = FORGERIES[forgery]
    falsify(story, statement)
    assert finding in judged(story)


def test_a_token_that_was_spent_on_what_was_written_off_is_found(story: Story) -> None:
    written_off = (
        "(SELECT serial FROM certificates WHERE revoked_at IS NOT NULL "
        "AND id NOT IN (SELECT certificate FROM bodies) LIMIT 1)"
    )
    with closing(sqlite3.connect(story.database)) as connection:
        assert connection.execute(f"SELECT {written_off}").fetchone() != (None,)
    falsify(story, f"{_A_TOKEN} 'web', NULL, 0, 1, NULL, 1, NULL, {written_off})")
    assert "was written off, and has cost the token id1" in judged(story)


def test_a_log_that_was_put_back_is_found_out_by_what_clients_saw(story: Story) -> None:
    """Cut at an old checkpoint, with everything that came later: only those who saw more can tell."""
    with closing(sqlite3.connect(story.database)) as connection:
        sizes = [s for (s,) in connection.execute("SELECT size FROM checkpoints ORDER BY size")]
        connection.execute("DELETE FROM audit WHERE position >= ?", (sizes[0],))
        connection.execute("DELETE FROM checkpoints WHERE size > ?", (sizes[0],))
        connection.execute(
            "UPDATE counters SET value = ? WHERE name IN ('audit', 'tree')", (sizes[0],)
        )
        connection.commit()
    found = judged(story)
    assert "a checkpoint that was seen has" in found


def test_a_log_that_was_signed_anew_by_another_key_is_found_out(story: Story) -> None:
    name, _, key = story.evidence.verifier.split("+", 2)
    other = evolve(story.evidence, verifier=f"{name}+00000000+{key}")
    assert "there is no signature of this key" in judged(evolve(story, evidence=other))


def test_a_certificate_that_nobody_recorded_is_found(story: Story) -> None:
    der = story.evidence.certificates[0]
    serial = x509.load_der_x509_certificate(der).serial_number
    falsify(
        story,
        f"DELETE FROM certificates WHERE serial = '{serial:040x}'",
        "DELETE FROM bodies WHERE certificate NOT IN (SELECT id FROM certificates)",
    )
    assert f"{serial:x} is held and not recorded" in judged(story)


def test_a_second_certificate_for_one_idempotency_key_is_found(story: Story) -> None:
    from tests.faults.checker import Record, public_key_of

    ders = [row.der for row in Record.read(story.database).rows if row.der and not row.revoked_at]
    key = public_key_of(x509.load_der_x509_certificate(ders[0]))
    falsify(
        story,
        "INSERT INTO bodies SELECT certificate + 100000, der FROM bodies",
        "INSERT INTO certificates SELECT id + 100000, serial || '00', issuer, spiffe_id, subject, key, issued_at, "
        "expires_at, requester, NULL, revoked_at, reason, entry, claim FROM certificates",
    )
    evidence = evolve(story.evidence, idempotent=frozenset([key]))
    assert "one Idempotency-Key bought 2 certificates that are valid" in judged(
        evolve(story, evidence=evidence)
    )


def test_a_damaged_file_is_found(story: Story) -> None:
    size = os.path.getsize(story.database)
    with story.database.open("r+b") as file:
        file.seek(4096)
        file.write(hashlib.sha512().digest() * ((size - 4096) // 64))
    assert "the record cannot be read" in judged(story)
