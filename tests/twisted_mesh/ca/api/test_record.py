"""The record as it stands: what another hand has written into its tables is named, and an honest one has nothing."""

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from attrs import frozen

from pki.serial import serial_hex
from pki.svid.revocation_set import Reason
from tests.twisted_mesh.ca.api.test_wire import Api
from tests.twisted_mesh.ca.rigs import ADMIN, CaRig, ca_rig, result_of
from twisted_mesh.api.log_messages import RecordRow, RecordRows


@frozen
class Falsified:
    """A CA that has issued three certificates and revoked one."""

    rig: CaRig
    good: str
    revoked: str

    def change(self, *statements: str) -> None:
        def write(connection: Any) -> None:
            # The file may be written by whatever program, with whatever rules.
            database = connection.connection.driver_connection
            database.execute("PRAGMA foreign_keys = OFF")
            for statement in statements:
                database.execute(statement)

        self.rig.calls.result(self.rig.store.store._read(write))

    def shown(self) -> RecordRows:
        answer = Api(self.rig).ask("all", "GET", "/api/v1/audit/record", rest="?limit=1000")
        return msgspec.json.decode(answer.body, type=RecordRows)

    def odd(self) -> list[tuple[str, str]]:
        shown = self.shown()
        rows = [(row.serial, oddity) for row in shown.certificates for oddity in row.oddities]
        return [*rows, *((f"{o.table} {o.name}", o.detail) for o in shown.oddities)]

    def row(self, serial: str) -> RecordRow:
        return next(row for row in self.shown().certificates if row.serial == serial)


@pytest.fixture
def falsified() -> Iterator[Falsified]:
    with ca_rig() as rig:
        good = rig.sign()[0].serial_number
        revoked = rig.sign()[0].serial_number
        result_of(rig.ca.certificates.revoke(ADMIN, revoked, Reason.SUPERSEDED))
        rig.sign()
        yield Falsified(rig, serial_hex(good), serial_hex(revoked))


def test_an_honest_record_has_nothing_odd(falsified: Falsified) -> None:
    shown = falsified.shown()
    assert falsified.odd() == []
    assert (len(shown.certificates), shown.next, shown.lost_checkpoints) == (3, None, [])
    assert falsified.row(falsified.revoked).position == 1
    assert all(row.tbs and not row.is_without_body for row in shown.certificates)


IN_CAPITALS = "UPDATE certificates SET serial = upper(serial) WHERE id = 1"
ODD = {
    "serial-in-capitals": (IN_CAPITALS, "has its serial written as"),
    "longer-serial": ("UPDATE certificates SET serial = '00' || serial WHERE id = 1", "its serial written"),
    "shorter-serial": ("UPDATE certificates SET serial = ltrim(serial, '0') WHERE id = 1", "its serial written"),
    "serial-of-bytes": ("UPDATE certificates SET serial = CAST(serial AS BLOB) WHERE id = 1", "is no text"),
    "issued-after-its-end": ("UPDATE certificates SET issued_at = expires_at + 1 WHERE id = 1", "after its end"),
    "other-key": (f"UPDATE certificates SET key = '{'ab' * 32}' WHERE id = 1", "has the key ab"),
    "no-key": ("UPDATE certificates SET key = upper(key) WHERE id = 1", "which is none"),
    "other-subject": ("UPDATE certificates SET subject = 'CN=x' WHERE id = 1", "has the subject CN=x"),
    "other-body": ("UPDATE bodies SET der = (SELECT der FROM bodies WHERE certificate = 3) WHERE certificate = 1",
                   "as another certificate"),
    "no-body": ("UPDATE bodies SET der = x'00' WHERE certificate = 1", "that is no certificate"),
    "text-for-a-time": ("UPDATE certificates SET issued_at = 'x' WHERE id = 1", "is no integer"),
    "no-reason": ("UPDATE certificates SET reason = 'none' WHERE id = 2", "which is none"),
    "reason-alone": ("UPDATE certificates SET reason = 'superseded' WHERE id = 1", "not both"),
    "told-and-good": ("INSERT INTO feed VALUES (9, 1)", "as revoked, and is not"),
    "signed-and-pending": ("INSERT INTO intents VALUES (1, x'00')", "to be signed too"),
    "counter-set-back": ("UPDATE counters SET value = 0 WHERE name = 'feed'", "has been counted already"),
    "counter-gone": ("DELETE FROM counters WHERE name = 'thinned'", "it is missing"),
    "more-in-the-tree": ("UPDATE counters SET value = 99 WHERE name = 'tree'", "than there are"),
    "never-given-out": ("UPDATE certificates SET id = -5 WHERE id = 3", "never given out"),
    "orphan": ("DELETE FROM certificates WHERE id = 2", "no certificate of that number"),
    "counter-of-text": ("UPDATE counters SET value = 'x' WHERE name = 'thinned'", "is no integer"),
}  # fmt: skip


@pytest.mark.parametrize("how", ODD)
def test_each_odd_form_is_named(falsified: Falsified, how: str) -> None:
    statement, words = ODD[how]
    falsified.change(statement)
    found = falsified.odd()
    assert [name for name, detail in found if words in detail], found


def test_a_certificate_that_is_not_kept_is_told(falsified: Falsified) -> None:
    falsified.change("DELETE FROM bodies WHERE certificate = 1")
    assert falsified.row(falsified.good).is_without_body
    assert not falsified.row(falsified.revoked).is_without_body


def test_a_place_in_the_feed_is_told_as_it_is(falsified: Falsified) -> None:
    falsified.change("UPDATE feed SET position = 7")
    assert falsified.row(falsified.revoked).position == 7
