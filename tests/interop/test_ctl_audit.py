"""``mesh-ctl audit`` against a running CA: what it proves, and what it finds in a log that somebody changed."""

import json
import re
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.interop.administering import answer, issue, told
from tests.interop.house import House, house
from tests.running import Running
from twisted_mesh.backup import record

ALICE = "spiffe://mesh.local/people/alice"


def restart(house: House, ca: Running) -> Running:
    assert ca.process.poll() is not None or ca.stop() == 0
    return house.start_ca()


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A CA with some history, whose log nobody harms."""
    with house(tmp_path_factory.mktemp("watched")) as watched:
        ca = watched.start_ca()
        serial = issue(watched, ALICE)
        assert watched.ctl("cert", "revoke", "--serial", serial, "--yes").returncode == 0
        restart(watched, ca)  # which signs for all that was before
        yield watched


def test_the_first_look_trusts_and_the_next_compares(watched: House, tmp_path: Path) -> None:
    first = watched.ctl("audit", "verify")
    assert re.fullmatch(
        r"ok: \d+ entries, checkpoint of [-0-9:T]+Z, \d+ checkpoints compared, "
        r"\d+ rows of the record compared with it; "
        r"trusted from now on: mesh\.local/audit/\S+\n",
        first.stdout,
    )
    issue(watched, ALICE)
    second = watched.ctl("audit", "verify")
    assert re.search(r"consistent with the \d+ seen at [-0-9:T]+Z; signed by mesh", second.stdout)
    assert (first.returncode, second.returncode) == (0, 0)


def test_acts_are_shown_and_searched(watched: House) -> None:
    (revoked,) = answer(watched, "audit", "show", "--act", "revoke")
    serial = revoked["entry"]["object"]
    of_it = answer(watched, "audit", "show", "--object", serial)
    assert [row["entry"]["act"] for row in of_it] == ["issue", "revoke"]
    first, second = answer(watched, "audit", "show", "--start", "0", "--limit", "2")
    assert (first["position"], second["position"]) == (0, 1)
    assert first["entry"]["act"] == "start"
    newest = watched.ctl("audit", "show", "--limit", "1").stdout.splitlines()
    assert newest[0].split() == ["ENTRY", "TIME", "ACT", "OBJECT", "ACTOR", "FACTS"]
    assert len(newest) == 2


def test_one_entry_is_shown_with_the_proof_that_it_is_in_the_log(watched: House) -> None:
    shown = watched.ctl("audit", "show", "1")
    assert re.search(r"^included +yes, in the log of \d+ entries of ", shown.stdout, re.MULTILINE)
    proven = answer(watched, "audit", "show", "1")
    assert all(len(bytes.fromhex(hash)) == 32 for hash in (proven["leaf"], *proven["proof"]))
    assert "there is no entry 999999" in told(watched.ctl("audit", "show", "999999"), 1)


def test_an_export_proves_itself_without_a_ca(watched: House, tmp_path: Path) -> None:
    file = tmp_path / "log.jsonl"
    assert "entries written to" in told(watched.ctl("audit", "export", file), 0)
    lines = file.read_text().splitlines()
    verifier = json.loads(lines[0])["verifier"]
    offline = ("audit", "verify", "--state-dir", tmp_path, "--file", file)

    unproven = watched.ctl(*offline)
    assert unproven.returncode == 0
    assert "signed by a key that the file itself names" in unproven.stdout
    proven = watched.ctl(*offline, "--verifier", verifier)
    assert proven.stdout.endswith(f"; signed by {verifier.partition('+')[0]}\n")
    stranger = "mesh.local/audit/x+1b1eae4f+AQECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8g"
    assert watched.ctl(*offline, "--verifier", stranger).returncode in (1, 2)

    entry = next(i for i, line in enumerate(lines) if '"position":2' in line)
    for name, changed, code in (
        ("cut", [*lines[:entry], *lines[entry + 1 :]], "log-cut"),
        ("reordered", [*lines[:entry], lines[entry + 1], lines[entry], *lines[entry + 2 :]], "log-reordered"),
        ("edited", [line.replace(ALICE, ALICE.replace("alice", "mabel")) for line in lines], "log-edited"),
        ("shortened", lines[:-1], "log-rolled-back"),
    ):  # fmt: skip
        file.write_text("\n".join(changed) + "\n")
        found = watched.ctl(*offline)
        assert found.returncode == 1, name
        assert f"fail: {code}: " in found.stdout, found.stdout
        assert "do not trust it" in found.stdout

    file.write_text("\n".join(lines))
    assert f"line {len(lines)} of the file is not that of an export" in told(
        watched.ctl(*offline), 2
    )
    assert "cannot be read (No such file" in told(
        watched.ctl("audit", "verify", "--file", tmp_path / "none"), 2
    )


def put_back(database: Path, copy: Path) -> None:
    for tail in ("-wal", "-shm"):
        database.with_name(f"mesh.db{tail}").unlink(missing_ok=True)
    shutil.copy(copy, database)


def test_a_ca_that_was_put_back_or_edited_is_found_out(house: House) -> None:
    ca = house.start_ca()
    database = house.state / "ca" / "mesh.db"
    old, new = house.home / "old.db", house.home / "new.db"
    record.copy(database, old)
    issue(house, ALICE)
    ca = restart(house, ca)
    assert house.ctl("audit", "verify").returncode == 0
    record.copy(database, new)
    assert ca.stop() == 0

    put_back(database, old)
    ca = house.start_ca()
    rolled_back = house.ctl("audit", "verify")
    assert rolled_back.returncode == 1
    assert re.search(r"fail: log-(rolled-back|forked|rewritten): ", rolled_back.stdout)
    assert ca.stop() == 0

    put_back(database, new)
    with closing(sqlite3.connect(database)) as connection:
        connection.execute(
            "UPDATE audit SET entry = CAST(replace(CAST(entry AS TEXT), 'alice', 'mabel') AS BLOB)"
        )
        connection.commit()
    house.start_ca()
    edited = answer(house, "audit", "verify", status=1)
    (finding,) = (f for f in edited["findings"] if f["code"] == "log-edited")
    assert finding["end"] == finding["start"] + 1
    # What was remembered is not forgotten for it.
    assert answer(house, "audit", "verify", status=1)["findings"] == edited["findings"]


def test_what_was_remembered_must_be_readable(house: House) -> None:
    house.start_ca()
    assert house.ctl("audit", "verify").returncode == 0
    (remembered,) = (house.state / "witness").glob("*.json")
    assert remembered.stat().st_mode & 0o777 == 0o600
    remembered.write_text("{")
    sentence = told(house.ctl("audit", "verify"), 1)
    assert f"{remembered} is damaged" in sentence
    assert "remove it to trust the log from now on" in sentence


def test_a_log_under_another_key_is_not_believed(house: House) -> None:
    ca = house.start_ca()
    assert house.ctl("audit", "verify").returncode == 0
    (house.state / "ca" / "private" / "audit.key").unlink()
    restart(house, ca)
    replaced = house.ctl("audit", "verify")
    assert replaced.returncode == 1
    assert "fail: log-replaced: the log is signed as" in replaced.stdout
    assert "nothing in it says why" in replaced.stdout
    assert str(house.state / "witness") in replaced.stdout
