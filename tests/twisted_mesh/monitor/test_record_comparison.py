"""The logs held against the CA's record, both ways, by a CA that answers as its API does."""

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from attrs import define, field
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256

from pki.der import element, inside, integer
from pki.errors import PkiError
from pki.keys import MemoryKey, key_id
from pki.serial import parse_serial, serial_hex
from pki.validity import rfc3339
from tests.authorities import DAY, HOUR, MESH, NOW, key, mesh
from tests.twisted_mesh.monitor.rig import Rig, here, now_done
from tests.written_log import leaves
from twisted_mesh.api.admin_client import Administration
from twisted_mesh.api.blocking_client import result_of
from twisted_mesh.api.messages import CertificateDetails, CertificatePage, CertificateRow
from twisted_mesh.api.refusal import CaRefused
from twisted_mesh.monitor.alert import AlertKind
from twisted_mesh.monitor.certificate_facts import facts_of
from twisted_mesh.monitor.record_comparison import RecordComparison, RecordRules
from twisted_mesh.monitor.watch_list import certificate_told


def row(cert: x509.Certificate, status: str = "valid", **changed: Any) -> CertificateRow:
    name = cert.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    facts = {
        "serial": serial_hex(cert.serial_number),
        "subject": "",
        "spiffe_id": name[0].value,
        "issued_at": rfc3339(NOW),
        "expires_at": rfc3339(NOW + HOUR),
        "status": status,
        "issuer": key_id(mesh().issuing.certificate.public_key()),
        "key": key_id(cert.public_key()),
    }
    return CertificateDetails(**(facts | changed))


@define(eq=False)
class Record:
    """The routes that are asked, as the CA answers them."""

    rows: list[CertificateRow] = field(factory=list)
    pages: list[CertificateRow] | None = None
    asked: list[str] = field(factory=list)
    is_away: bool = False

    async def ask(self, method: str, path: str, body: object, shape: type) -> Any:
        assert (method, body) == ("GET", None)
        if self.is_away:
            raise PkiError("the CA is away")
        self.asked.append(path)
        if shape is CertificatePage:
            return CertificatePage(list(self.rows if self.pages is None else self.pages), None)
        serial = parse_serial(path.rpartition("/")[2])
        for one in self.rows:
            if parse_serial(one.serial) == serial:
                return one
        raise CaRefused(404, ())


@define(eq=False)
class Comparing:
    rig: Rig
    record: Record = field(factory=Record)
    rules: RecordRules = field(factory=RecordRules)
    read: datetime | None = None

    def turn(self) -> bool:
        rig = self.rig
        began = rig.now
        if rig.turn():
            self.read = began
        comparison = RecordComparison(
            Administration(self.record),  # type: ignore[arg-type]
            result_of,
            here,
            rig.index,
            here,
            lambda: rig.now,
            self.rules,
        )
        return now_done(comparison.turn(self.read))

    def later(self, minutes: int = 5) -> bool:
        self.rig.now += timedelta(minutes=minutes)
        self.rig.log.sign(self.rig.now)
        return self.turn()

    @property
    def told(self) -> Mapping[str, AlertKind]:
        return {alert.facts.get("serial", ""): alert.kind for alert in self.rig.alerts()}


@pytest.fixture
def comparing(tmp_path: Path) -> Iterator[Comparing]:
    rig = Rig(tmp_path, compares=True)
    yield Comparing(rig)
    rig.database.close()


def test_what_both_have_is_no_alert_and_nobody_is_asked_about_it(comparing: Comparing) -> None:
    certs = leaves(3)
    comparing.rig.log.add(*certs)
    comparing.rig.log.sign()
    comparing.record.rows = [row(cert) for cert in certs]
    assert comparing.turn()
    assert comparing.later()
    assert not comparing.told
    assert {found.recorded for found in comparing.rig.found()} == {1}
    assert all("?" in path for path in comparing.record.asked)  # pages, and no single one


def test_a_certificate_that_the_ca_does_not_know_is_told_at_once(comparing: Comparing) -> None:
    known, forged = leaves(2)
    comparing.rig.log.add(known, forged)
    comparing.rig.log.sign()
    comparing.record.rows = [row(known)]
    assert comparing.turn()
    assert comparing.told == {serial_hex(forged.serial_number): AlertKind.NOT_ON_RECORD}
    assert comparing.later()
    assert len(comparing.rig.alerts()) == 1  # once


def test_another_certificate_of_a_serial_on_record_is_told(comparing: Comparing) -> None:
    cert, other = leaves(1)[0], mesh().leaf(MESH.member("admin", "x"), leaf_key=key(3))
    comparing.rig.log.add(cert)
    comparing.rig.log.sign()
    comparing.record.rows = [row(other, serial=serial_hex(cert.serial_number))]
    assert comparing.turn()
    assert comparing.told == {serial_hex(cert.serial_number): AlertKind.NOT_ON_RECORD}


def forged(cert: x509.Certificate, *more: x509.GeneralName, end: datetime) -> x509.Certificate:
    """What a thief of the issuing key makes of a certificate that he was issued: of its serial, key and SPIFFE ID."""
    names = cert.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    issuing = mesh().issuing
    assert isinstance(issuing.key, MemoryKey)
    made = x509.CertificateBuilder(
        issuing.certificate.subject,
        cert.subject,
        cert.public_key(),
        cert.serial_number,
        cert.not_valid_before_utc,
        end,
    ).add_extension(x509.SubjectAlternativeName([*names, *more]), critical=False)
    return made.sign(issuing.key.private_key, SHA256())  # type: ignore[arg-type]


FORGED: dict[str, tuple[list[x509.GeneralName], datetime]] = {
    "that lasts longer": ([], NOW + DAY),
    "of a host besides": ([x509.DNSName("db.example")], NOW + HOUR),
}


@pytest.mark.parametrize("is_later", [False, True])
@pytest.mark.parametrize("what", FORGED)
def test_one_of_the_serial_key_and_id_on_record_is_told(
    comparing: Comparing, what: str, is_later: bool
) -> None:
    (cert,), (more, end) = leaves(1), FORGED[what]
    comparing.rig.log.add(cert)
    comparing.rig.log.sign()
    comparing.record.rows = [row(cert)]
    if is_later:
        assert comparing.turn() and not comparing.told
        comparing.record.pages = []  # it was issued too long ago to be on a page again
    comparing.rig.log.add(forged(cert, *more, end=end), at=NOW + timedelta(seconds=1))
    assert comparing.later()
    assert comparing.later()
    (alert,) = comparing.rig.alerts()
    assert alert.kind is AlertKind.NOT_ON_RECORD and alert.facts["position"] == "1"


@pytest.mark.parametrize("serial", [1 << 160, 1 << 30_000], ids=["longer", "far longer"])
def test_one_of_a_serial_that_no_ca_can_be_asked_about_holds_up_nothing(
    comparing: Comparing, serial: int
) -> None:
    odd, after = leaves(2)
    comparing.rig.log.add_tbs(with_serial(odd, serial))
    comparing.rig.log.add(after)
    comparing.rig.log.sign()
    assert comparing.turn()
    assert [alert.facts["position"] for alert in comparing.rig.alerts()] == ["0", "1"]
    assert {alert.kind for alert in comparing.rig.alerts()} == {AlertKind.NOT_ON_RECORD}


@pytest.mark.parametrize("serial", [-1, -(1 << 30_000)], ids=["short", "long"])
def test_a_serial_below_zero_is_told_however_long_it_is(comparing: Comparing, serial: int) -> None:
    """Python writes no number of over 4,300 digits: the monitor would have come no further, and told nobody."""
    odd, after = leaves(2)
    tbs = with_serial(odd, serial)
    comparing.rig.log.add_tbs(tbs)
    comparing.rig.log.add(after)
    comparing.rig.log.sign()
    assert comparing.turn()
    first, second = comparing.rig.alerts()
    assert first.facts["serial"].startswith("-") and second.facts["position"] == "1"
    assert [found.position for found in comparing.rig.found()] == [1, 0]
    shown = [found.as_json()["serial"] for found in comparing.rig.found()]
    assert shown[1] == certificate_told(facts_of(tbs), bytes(32), 0)["serial"]
    assert str(shown[1]).startswith("-")


def with_serial(cert: x509.Certificate, serial: int) -> bytes:
    """The body of a certificate, with a number that no builder takes."""
    before = integer(cert.serial_number)
    body = cert.tbs_certificate_bytes
    inner = body[slice(*inside(body, 0))]
    assert inner.count(before) == 1
    return element(0x30, inner.replace(before, integer(serial)))


def test_a_certificate_that_no_log_has_is_told_once_it_had_time(comparing: Comparing) -> None:
    known, past = leaves(2)
    comparing.rig.log.add(known)
    comparing.rig.log.sign()
    comparing.record.rows = [row(known), row(past)]
    assert comparing.turn()
    assert not comparing.told
    assert comparing.later(1)
    assert not comparing.told
    assert comparing.later(5)
    assert comparing.told == {serial_hex(past.serial_number): AlertKind.NOT_IN_LOG}
    assert comparing.later(5)
    assert len(comparing.rig.alerts()) == 1


def test_one_that_comes_into_the_log_meanwhile_is_none(comparing: Comparing) -> None:
    known, late = leaves(2)
    comparing.rig.log.add(known)
    comparing.rig.log.sign()
    comparing.record.rows = [row(known), row(late)]
    assert comparing.turn()
    comparing.rig.log.add(late)
    assert comparing.later(5)
    assert not comparing.told


def test_while_a_log_is_away_nothing_is_said_to_be_in_none(comparing: Comparing) -> None:
    known, past = leaves(2)
    comparing.rig.log.add(known)
    comparing.rig.log.sign()
    comparing.record.rows = [row(known), row(past)]
    assert comparing.turn()
    (comparing.rig.log.path / "checkpoint").unlink()
    comparing.rig.now += timedelta(minutes=30)
    comparing.turn()
    assert AlertKind.NOT_IN_LOG not in comparing.told.values()


@pytest.mark.parametrize(
    "changed",
    [
        {"status": "revoked"},
        {"status": "pending"},
        {"spiffe_id": "spiffe://mesh.local/mesh/ocsp-responder"},
        {"issued_at": rfc3339(NOW - HOUR)},
    ],
)
def test_what_no_log_has_to_have(comparing: Comparing, changed: dict[str, str]) -> None:
    known, other = leaves(2)
    comparing.rig.log.add(known)
    comparing.rig.log.sign()
    comparing.record.rows = [row(known), row(other, **changed)]
    assert comparing.turn()
    assert comparing.later()
    assert not comparing.told


def test_a_quorum_of_two_is_not_met_by_one_log(comparing: Comparing) -> None:
    (cert,) = leaves(1)
    comparing.rules = RecordRules(quorum=2)
    comparing.rig.log.add(cert)
    comparing.rig.log.sign()
    comparing.record.rows = [row(cert)]
    assert comparing.turn()
    assert comparing.later()
    assert comparing.told == {serial_hex(cert.serial_number): AlertKind.NOT_IN_LOG}


def test_a_precertificate_of_which_nothing_came_is_told(comparing: Comparing) -> None:
    (cert,) = leaves(1)
    comparing.rig.log.add(cert)
    comparing.rig.log.sign()
    comparing.record.rows = [row(cert, "pending")]
    assert comparing.turn()
    assert not comparing.told
    assert comparing.later(20)
    assert comparing.told == {serial_hex(cert.serial_number): AlertKind.NO_FINAL}
    assert comparing.later(1)
    assert len(comparing.rig.alerts()) == 1


def test_one_that_ended_so_long_ago_that_the_record_has_forgotten_it(comparing: Comparing) -> None:
    (cert,) = leaves(1)
    comparing.rig.log.add(cert)
    comparing.rig.log.sign()
    comparing.rig.now = NOW + timedelta(days=31)
    comparing.rig.log.sign(comparing.rig.now)
    assert comparing.turn()
    assert not comparing.told


def test_a_ca_that_is_away_is_told_once_and_what_was_missed_is_compared_later(
    comparing: Comparing,
) -> None:
    (cert,) = leaves(1)
    comparing.rig.log.add(cert)
    comparing.rig.log.sign()
    comparing.record.is_away = True
    assert not comparing.turn()
    assert not comparing.later()
    assert list(comparing.told.values()) == [AlertKind.CA_AWAY]
    comparing.record.is_away = False
    assert comparing.later()
    assert comparing.told[serial_hex(cert.serial_number)] is AlertKind.NOT_ON_RECORD
