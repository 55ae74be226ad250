"""Somebody who can write ``mesh.db`` and nothing else: what they change there is found, and named."""

import sqlite3
from collections.abc import Callable
from contextlib import closing

import pytest

from pki.issuing.csr import build_csr
from pki.keys import KeyAlgorithm, MemoryKey
from pki.spiffe import SpiffeId
from tests.interop.administering import answer, issue
from tests.interop.house import House, Reply
from tests.running import until
from tests.twisted_mesh.stores.test_indices import SERIALS, empty, page_of

ALICE, BOB = "spiffe://mesh.local/people/alice", "spiffe://mesh.local/people/bob"


def falsify(house: House, *statements: str) -> None:
    with closing(sqlite3.connect(house.state / "ca" / "mesh.db")) as database, database:
        for statement in statements:
            database.execute(statement)


def serials(house: House) -> list[str]:
    """One that is revoked, and one that is not."""
    revoked, good = issue(house, ALICE), issue(house, BOB)
    assert house.ctl("cert", "revoke", "--serial", revoked, "--yes").returncode == 0
    return [serial.replace(":", "").lower() for serial in (revoked, good)]


@pytest.mark.interop("tests/pki/audit/test_record_check.py::test_each_falsification_is_named")
def test_who_changes_the_tables_is_found(house: House) -> None:
    ca = house.start_ca()
    revoked, good = serials(house)
    entry = ("entry", "create", "--selector", "unix:uid:1001", "--spiffe-id", ALICE)
    made = answer(house, *entry)["id"]
    token = answer(house, "token", "create", "--spiffe-id", BOB)["id"]
    assert house.ctl("token", "revoke", token, "--yes").returncode == 0
    assert ca.stop() == 0
    ca = house.start_ca()
    honest = answer(house, "audit", "verify")
    assert honest["record"]["differences"] == []
    assert honest["record"]["judged"] >= 6
    assert honest["record"]["unjudged"] == 0
    assert ca.stop() == 0

    falsify(
        house,
        "DELETE FROM feed",
        "UPDATE certificates SET revoked_at = NULL, reason = NULL",
        f"UPDATE certificates SET expires_at = expires_at - 1000000 WHERE serial LIKE '%{good}'",
        "UPDATE tokens SET revoked_at = NULL",
        "UPDATE entries SET document = CAST(replace(CAST(document AS TEXT), 'uid:1001', 'uid:1002') AS BLOB)",
    )
    house.start_ca()
    found = answer(house, "audit", "verify", status=1)
    assert found["findings"] == []
    named = {(d["code"], d["name"]) for d in found["record"]["differences"]}
    assert named == {
        ("record-unrevoked", revoked),
        ("record-changed", good),
        ("record-unrevoked", token),
        ("record-changed", made),
    }
    spoken = house.ctl("audit", "verify")
    assert spoken.returncode == 1
    assert f"fail: record-unrevoked: the certificate {revoked} for {ALICE} is not" in spoken.stdout


@pytest.mark.interop(
    "tests/pki/audit/test_record_check.py::test_what_is_revoked_must_be_what_endpoints_are_told"
)
def test_who_keeps_a_revocation_from_endpoints_is_found(house: House) -> None:
    ca = house.start_ca()
    revoked, _ = serials(house)
    assert ca.stop() == 0
    falsify(house, "DELETE FROM feed")
    house.start_ca()
    (found,) = answer(house, "audit", "verify", status=1)["record"]["differences"]
    assert (found["code"], found["name"]) == ("record-unrevoked", revoked)


@pytest.mark.interop(
    "tests/twisted_mesh/stores/test_indices.py::test_who_is_filed_under_another_serial_is_named",
    "tests/twisted_mesh/stores/test_indices.py::test_no_start_on_an_index_that_hides_rows",
)
def test_who_hides_a_certificate_from_revoke_is_found(house: House) -> None:
    ca = house.start_ca()
    _, good = serials(house)
    last = issue(house, BOB).replace(":", "").lower()
    assert ca.stop() == 0
    path = house.state / "ca" / "mesh.db"
    falsify(house)  # which leaves all of the record in the one file
    data, page = bytearray(path.read_bytes()), page_of(path, SERIALS)
    honest = bytes(data)
    numbers = sorted({f"{int(s, 16):040x}" for s in (good, last)})
    hidden = numbers[0]
    other = f"{int(hidden, 16) + 1:040x}"
    data[page] = bytes(data[page]).replace(hidden.encode(), other.encode())
    path.write_bytes(data)
    ca = house.start_ca()
    refused = house.ctl("cert", "revoke", "--serial", hidden, "--yes")
    assert "no certificate has the serial" in refused.stderr
    (found,) = answer(house, "audit", "verify", status=1)["record"]["differences"]
    assert found["code"] == "record-changed"
    assert f"{int(hidden, 16):X}" in found["name"].replace(":", "").upper()
    assert f"is not found by {SERIALS}" in found["detail"]
    assert ca.stop() == 0

    path.write_bytes(honest)
    empty(path, SERIALS)
    refusing = house.start_ca(wait=False)
    refusing.wait_for(f"not all that is on record is found by {SERIALS}")
    assert refusing.wait() == 1


@pytest.mark.interop(
    "tests/twisted_mesh/ca/api/test_record.py::test_each_odd_form_is_named",
    "tests/twisted_mesh/ca/test_rewritten_log.py::test_checkpoints_that_are_gone_from_the_record_are_told",
)
def test_what_is_written_in_odd_forms_is_found(house: House) -> None:
    ca = house.start_ca()
    _, good = serials(house)
    others = [issue(house, BOB).replace(":", "").lower() for _ in range(3)]
    for serial in others[:2]:
        assert house.ctl("cert", "revoke", "--serial", serial, "--yes").returncode == 0
    assert ca.stop() == 0
    of = "WHERE serial LIKE '%{}'"
    falsify(
        house,
        f"UPDATE certificates SET key = '{'ab' * 32}', serial = upper(serial) {of.format(good)}",
        f"UPDATE certificates SET issued_at = expires_at + 1 {of.format(others[2])}",
        f"DELETE FROM bodies WHERE certificate = (SELECT id FROM certificates {of.format(others[0])})",
        "UPDATE feed SET position = 900 - position",
        "UPDATE feed SET position = 900 - position WHERE position < 899",
        "UPDATE counters SET value = 900 WHERE name = 'feed'",
        "DELETE FROM checkpoints",
    )
    house.start_ca()
    found = answer(house, "audit", "verify", status=1)["record"]["differences"]
    named = {(d["code"], d["kind"], d["name"]) for d in found}
    assert ("record-missing", "checkpoint") in {(code, kind) for code, kind, _ in named}
    assert ("record-changed", "certificate", good) in named
    assert ("record-changed", "certificate", others[2]) in named
    assert ("record-missing", "certificate", others[0]) in named
    said = " ".join(d["detail"] for d in found)
    for words in (
        "its serial written as",
        "has the key ab",
        "after its end",
        "where the log revokes it",
    ):
        assert words in said, said


@pytest.mark.interop(
    "tests/pki/audit/test_record_check.py::test_what_the_log_cannot_tell_any_more_is_not_judged"
)
def test_who_deletes_what_the_log_said_is_told_of(house: House) -> None:
    ca = house.start_ca()
    serials(house)
    assert ca.stop() == 0
    ca = house.start_ca()
    assert ca.stop() == 0
    falsify(
        house,
        "UPDATE certificates SET revoked_at = NULL, reason = NULL",
        "DELETE FROM feed",
        "DELETE FROM audit WHERE position < (SELECT max(position) FROM audit)",
    )
    house.start_ca()
    found = answer(house, "audit", "verify")
    (warning,) = found["findings"]
    assert (warning["code"], warning["breach"]) == ("log-cut", False)
    assert found["record"]["unjudged"] >= 3


def sign(house: House) -> Reply:
    key = MemoryKey.generate(KeyAlgorithm.EC_P256)
    csr = build_csr(key, SpiffeId.parse(ALICE)).decode()
    return house.post("socket", "/api/v1/sign", {"csr": csr, "requested_id": ALICE})


def emptied(house: House) -> None:
    """The revocation is gone from rows and log, and the CA is to sign that."""
    falsify(
        house,
        "DELETE FROM tiles",
        "DELETE FROM checkpoints",
        "DELETE FROM feed",
        "UPDATE certificates SET revoked_at = NULL, reason = NULL",
        'UPDATE audit SET entry = CAST(replace(CAST(entry AS TEXT), \'"act":"revoke"\', \'"act":"refuse"\') AS BLOB)',
        "UPDATE counters SET value = 0 WHERE name = 'tree'",
    )


def begun_anew(house: House) -> None:
    for tail in ("", "-wal", "-shm"):
        (house.state / "ca" / f"mesh.db{tail}").unlink(missing_ok=True)


@pytest.mark.parametrize(
    "how",
    [emptied, pytest.param(begun_anew, marks=pytest.mark.interop)],
    ids=lambda how: how.__name__,
)
def test_a_rewritten_log_is_not_signed_and_nothing_is_issued(
    house: House, how: Callable[[House], None]
) -> None:
    ca = house.start_ca()
    _, good = serials(house)
    assert ca.stop() == 0
    how(house)
    house.start_ca()
    found = answer(house, "audit", "verify", status=1)
    assert "unhealthy-audit" in {finding["code"] for finding in found["findings"]}
    checks = {check["name"]: check for check in answer(house, "doctor", status=1)["checks"]}
    assert checks["audit"]["status"] == "fail"
    ready = house.ask("socket", "/readyz")
    assert ready.status == 503
    assert "unhealthy-audit" in ready.text
    assert sign(house).status == 503
    if how is emptied:
        done = house.ctl("cert", "revoke", "--serial", good, "--yes")
        assert done.returncode == 0, done.stderr

    (house.state / "ca" / "accept-log").touch()
    until(lambda: house.ask("socket", "/readyz").status == 200)
    # A record that is begun anew has no entry, and lets nobody in by that.
    assert sign(house).status == (201 if how is emptied else 403)
    assert not (house.state / "ca" / "accept-log").exists()
