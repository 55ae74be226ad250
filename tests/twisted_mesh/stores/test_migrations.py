"""A store of an older version comes up under this version, whole or not at all."""

import re
import signal
import sqlite3
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from pki.keys import key_id, number_digest
from pki.spiffe import SpiffeId
from pki.svid.revocation_set import Reason
from tests.running import CHECKOUT
from tests.twisted_mesh.stores.certificates import (
    HOUR,
    OTHER_KEY,
    intent,
    revoke,
    tell,
    write_off,
)
from tests.twisted_mesh.stores.registrations import (
    create_token,
    federate,
    federated,
    settle_default,
    stored,
    token_of,
)
from tests.twisted_mesh.support import ThreadCalls
from twisted_mesh.stores import migrations, schema
from twisted_mesh.stores.commands import Claim, RecordCertificate, TakeCrlNumber
from twisted_mesh.stores.records import (
    AlreadyAttested,
    IssuedCertificate,
    KeyBlocked,
    LastCrl,
    Query,
    Status,
)
from twisted_mesh.stores.sql import SqlStore
from twisted_mesh.stores.sqlite import Sqlite

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
#: The name that ends each SPIFFE ID, and the serial.
EXPIRED, VALID, PENDING, REVOKED, BOTH = 0xA1, 0x7F << 152 | 1, 3, 4, 5
VERSION_1, VERSION_2, VERSION_3, VERSION_4, VERSION_5, VERSION_6 = (
    Path(__file__).with_name(f"version_{version}.sql").read_text() for version in (1, 2, 3, 4, 5, 6)
)


def database(tmp_path: Path, script: str) -> Path:
    path = tmp_path / "ca" / "mesh.db"
    path.parent.mkdir(mode=0o700)
    with sqlite3.connect(path) as old:
        old.executescript(script)
    old.close()
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A database as version 1 left it."""
    return database(tmp_path, VERSION_1)


@pytest.fixture
def path_2(tmp_path: Path) -> Path:
    """A database as version 2 left it, with the same certificates."""
    return database(tmp_path, VERSION_2)


@pytest.fixture
def path_3(tmp_path: Path) -> Path:
    """A database as version 3 left it, with the same certificates, two entries and a token."""
    return database(tmp_path, VERSION_3)


#: Migrates, and is killed at the step that it is given.
KILLED = (
    "import os, sys; from pathlib import Path\n"
    "from twisted_mesh.stores import migrations\n"
    "from twisted_mesh.stores.sql import SqlStore; from twisted_mesh.stores.sqlite import Sqlite\n"
    "setattr(migrations, sys.argv[2], lambda *_, **__: os.kill(os.getpid(), 9))\n"
    "SqlStore(Sqlite(Path(sys.argv[1])), None).start()\n"
)


@pytest.fixture
def store(path: Path, calls: ThreadCalls) -> SqlStore:
    return SqlStore(Sqlite(path), calls)


def content(path: Path) -> list[str]:
    with sqlite3.connect(path) as found:
        dump = list(found.iterdump())
    found.close()
    return dump


def tables(path: Path) -> set[str]:
    """How they were made; white space is not part of it."""
    lines = (re.sub(r"\s+", " ", line) for line in content(path) if line.startswith("CREATE"))
    return {line.replace(" ,", ",") for line in lines}


def tables_of_a_new_store(path: Path, calls: ThreadCalls) -> set[str]:
    new = SqlStore(Sqlite(path.with_name("new.db")), calls)
    new.start()
    calls.result(new.stop())
    return tables(path.with_name("new.db"))


def old_certificate(serial: int) -> bytes:
    """As the file of version 1 has it, in hex."""
    (text,) = re.findall(rf"VALUES\('{serial:040x}'.*X'([0-9A-F]+)'\)", VERSION_1)
    return bytes.fromhex(text)


def expected(serial: int, name: str, issued_at: datetime, expires_at: datetime, **facts: object):
    issuer = "39db5972de26bd12d3c1ebac9e563f0cadb1dc233a5dfec522692f658ea4d05e"
    found = {
        "issuer": issuer,
        "serial": serial,
        "spiffe_id": SpiffeId.parse(f"spiffe://mesh.local/service/{name}"),
        "subject": f"CN={name}",
        "key": "",
        "issued_at": issued_at,
        "expires_at": expires_at,
        "requester": "unix:uid:1000",
    }
    if not facts.get("is_pending"):
        der = old_certificate(serial)
        key = key_id(x509.load_der_x509_certificate(der).public_key())
        found |= {"is_pending": False, "der": der, "key": key}
    return IssuedCertificate(**found | facts)


def test_nothing_is_lost(store: SqlStore, calls: ThreadCalls) -> None:
    store.start()
    assert store.id == "00112233445566778899aabbccddeeff"
    assert not store.is_new
    everything = [
        expected(EXPIRED, "expired", NOON - 3 * HOUR, NOON - 2 * HOUR),
        expected(
            REVOKED,
            "revoked",
            NOON - HOUR,
            NOON + HOUR,
            revoked_at=NOON,
            reason=Reason.KEY_COMPROMISE,
        ),
        expected(PENDING, "pending", NOON, NOON + HOUR, is_pending=True),
        expected(VALID, "valid", NOON, NOON + HOUR),
        expected(
            BOTH,
            "pending-and-revoked",
            NOON + SECOND,
            NOON + HOUR,
            is_pending=True,
            revoked_at=NOON + 2 * SECOND,
            reason=Reason.SUPERSEDED,
        ),
    ]
    assert [calls.result(store.find(c.serial)) for c in everything] == everything
    listed = calls.result(store.list(Query(NOON))).certificates
    assert [c.serial for c in listed] == [BOTH, VALID, PENDING, REVOKED, EXPIRED]
    by_key = Query(NOON, key=everything[3].key)
    assert [c.serial for c in calls.result(store.list(by_key)).certificates] == [VALID]
    pending = Query(NOON, status=Status.PENDING)
    assert [c.serial for c in calls.result(store.list(pending)).certificates] == [PENDING]
    calls.result(store.stop())


def test_the_feed_keeps_its_positions(store: SqlStore, calls: ThreadCalls) -> None:
    store.start()
    feed = calls.result(store.feed(0))
    assert (feed.position, [r.serial for r in feed.revocations]) == (3, [BOTH, REVOKED])
    assert [r.serial for r in calls.result(store.feed(2)).revocations] == [REVOKED]
    calls.result(store.apply(revoke(VALID)))
    feed = calls.result(store.feed(3))
    assert (feed.position, [r.serial for r in feed.revocations]) == (4, [VALID])
    calls.result(store.stop())


def test_what_was_open_can_be_resolved_and_work_goes_on(
    store: SqlStore, calls: ThreadCalls
) -> None:
    store.start()
    first, second = calls.result(store.open_intents())
    assert [first.certificate.serial, second.certificate.serial] == [PENDING, BOTH]
    assert first.digest == b""
    calls.result(store.apply(write_off(first.id)))
    assert calls.result(store.find(PENDING)).status(NOON) is Status.REVOKED
    number = calls.result(store.apply(intent(1)))
    assert number > second.id
    calls.result(store.apply(RecordCertificate(number, b"0")))
    assert calls.result(store.last_act())[0] == 2
    calls.result(store.stop())


def test_it_comes_to_the_tables_of_a_new_store(
    store: SqlStore, path: Path, calls: ThreadCalls
) -> None:
    store.start()
    calls.result(store.stop())
    assert tables(path) == tables_of_a_new_store(path, calls)
    counters = sorted(line for line in content(path) if 'INTO "counters"' in line)
    assert [re.findall(r"'(\w+)',(\d+)", line)[0] for line in counters] == [
        ("audit", "0"),
        ("certificate", "5"),
        ("feed", "3"),
        ("thinned", "0"),
        ("tree", "0"),
    ]


def test_a_certificate_that_cannot_be_read_has_no_key(
    store: SqlStore, path: Path, calls: ThreadCalls
) -> None:
    with sqlite3.connect(path) as old:
        old.execute("UPDATE certificates SET der = X'3000' WHERE serial LIKE '7f%'")
    old.close()
    store.start()
    found = calls.result(store.find(VALID))
    assert (found.key, found.der) == ("", b"0\0")
    calls.result(store.stop())


def test_many_are_brought_over_a_stride_at_a_time(
    store: SqlStore, calls: ThreadCalls, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrations, "_STRIDE", 2)
    store.start()
    listed = calls.result(store.list(Query(NOON))).certificates
    assert [c.serial for c in listed] == [BOTH, VALID, PENDING, REVOKED, EXPIRED]
    calls.result(store.stop())


@pytest.mark.parametrize("step", ["_key_of", "create", "update"])
def test_what_breaks_off_leaves_version_1(
    store: SqlStore,
    path: Path,
    calls: ThreadCalls,
    monkeypatch: pytest.MonkeyPatch,
    step: str,
) -> None:
    before = content(path)

    def broken(*_: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        if step == "create":
            patch.setattr(schema.metadata, "create_all", broken)
        else:
            patch.setattr(migrations, step, broken)
        with pytest.raises(Exception, match="store"):
            store.start()
    assert content(path) == before
    store.start()
    assert calls.result(store.find(VALID)).spiffe_id.path == "/service/valid"
    calls.result(store.stop())


@pytest.mark.parametrize("step", ["_key_of", "next_numbers", "update"])
def test_kill_9_half_way_leaves_version_1(
    store: SqlStore, path: Path, calls: ThreadCalls, step: str
) -> None:
    before = content(path)
    killed = subprocess.run([sys.executable, "-c", KILLED, path, step], cwd=CHECKOUT)
    assert killed.returncode == -signal.SIGKILL
    assert content(path) == before
    store.start()
    assert calls.result(store.find(REVOKED)).revoked_at == NOON
    calls.result(store.stop())


def test_version_2_loses_nothing(path_2: Path, calls: ThreadCalls) -> None:
    store = SqlStore(Sqlite(path_2), calls)
    store.start()
    assert store.id == "00112233445566778899aabbccddeeff"
    assert not store.is_new
    listed = calls.result(store.list(Query(NOON))).certificates
    assert [c.serial for c in listed] == [BOTH, VALID, PENDING, REVOKED, EXPIRED]
    assert {c.entry for c in listed} == {None}
    for serial in (EXPIRED, VALID, REVOKED):
        assert calls.result(store.find(serial)).der == old_certificate(serial)
    assert calls.result(store.find_request("a request")).serial == VALID
    first, second = calls.result(store.open_intents())
    assert [first.certificate.serial, second.certificate.serial] == [PENDING, BOTH]
    feed = calls.result(store.feed(0))
    assert (feed.position, [r.serial for r in feed.revocations]) == (2, [BOTH, REVOKED])
    assert calls.result(store.last_checkpoint()) == (7, "a note")
    assert calls.result(store.last_act())[0] == 8
    assert calls.result(store.entries()) == calls.result(store.tokens()) == ()
    calls.result(store.stop())


def test_version_2_comes_to_the_tables_of_a_new_store(path_2: Path, calls: ThreadCalls) -> None:
    store = SqlStore(Sqlite(path_2), calls)
    store.start()
    calls.result(store.stop())
    assert tables(path_2) == tables_of_a_new_store(path_2, calls)


@pytest.mark.parametrize("version", [1, 2])
def test_entries_and_tokens_come_into_what_is_older(
    tmp_path: Path, calls: ThreadCalls, version: int
) -> None:
    store = SqlStore(Sqlite(database(tmp_path, (VERSION_1, VERSION_2)[version - 1])), calls)
    store.start()
    token = token_of(1, "web")
    bought = intent(9, requires="web", entry="web", token=token.digest)
    assert tell(store, calls, create_token(token, stored("web")), settle_default(None), bought) == [
        None,
        True,
        6,
    ]
    assert calls.result(store.find_token(token.digest)).serial == 9
    calls.result(store.stop())


@pytest.mark.parametrize("step", ["update", "create_all", "by_entry"])
def test_what_breaks_off_leaves_version_2(
    path_2: Path, calls: ThreadCalls, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    before = content(path_2)
    store = SqlStore(Sqlite(path_2), calls)

    def broken(*_: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        if step == "create_all":
            patch.setattr(schema.metadata, step, broken)
        else:
            patch.setattr(migrations, step, broken)
        with pytest.raises(Exception, match="store"):
            store.start()
    assert content(path_2) == before
    store.start()
    assert calls.result(store.find(VALID)).spiffe_id.path == "/service/valid"
    calls.result(store.stop())


def test_kill_9_half_way_leaves_version_2(path_2: Path, calls: ThreadCalls) -> None:
    before = content(path_2)
    killed = subprocess.run([sys.executable, "-c", KILLED, path_2, "update"], cwd=CHECKOUT)
    assert killed.returncode == -signal.SIGKILL
    assert content(path_2) == before
    store = SqlStore(Sqlite(path_2), calls)
    store.start()
    assert calls.result(store.find(REVOKED)).revoked_at == NOON
    calls.result(store.stop())


def test_version_3_loses_nothing(path_3: Path, calls: ThreadCalls) -> None:
    store = SqlStore(Sqlite(path_3), calls)
    store.start()
    assert store.id == "00112233445566778899aabbccddeeff"
    assert not store.is_new
    listed = calls.result(store.list(Query(NOON))).certificates
    assert [c.serial for c in listed] == [BOTH, VALID, PENDING, REVOKED, EXPIRED]
    for serial in (EXPIRED, VALID, REVOKED):
        assert calls.result(store.find(serial)).der == old_certificate(serial)
    feed = calls.result(store.feed(0))
    assert (feed.position, [r.serial for r in feed.revocations]) == (2, [BOTH, REVOKED])
    assert calls.result(store.last_act())[0] == 11
    found = calls.result(store.entries())
    assert sorted(known.entry.id for known in found) == ["api", "web"]
    (token,) = calls.result(store.tokens())
    assert (token.entry, token.digest) == ("web", token_of(1, "web").digest)
    assert calls.result(store.last_crl("39" * 32)) is None
    calls.result(store.stop())


def test_version_3_comes_to_the_tables_of_a_new_store(path_3: Path, calls: ThreadCalls) -> None:
    store = SqlStore(Sqlite(path_3), calls)
    store.start()
    calls.result(store.stop())
    assert tables(path_3) == tables_of_a_new_store(path_3, calls)


def test_version_4_loses_nothing_and_comes_to_the_tables_of_a_new_store(
    tmp_path: Path, calls: ThreadCalls
) -> None:
    path = database(tmp_path, VERSION_4)
    store = SqlStore(Sqlite(path), calls)
    store.start()
    assert store.id == "00112233445566778899aabbccddeeff"
    listed = calls.result(store.list(Query(NOON))).certificates
    assert [c.serial for c in listed] == [BOTH, VALID, PENDING, REVOKED, EXPIRED]
    assert sorted(known.entry.id for known in calls.result(store.entries())) == ["api", "web"]
    assert calls.result(store.last_crl("39" * 32)) == LastCrl(2, None)
    assert calls.result(store.federations()) == ()
    calls.result(store.stop())
    assert tables(path) == tables_of_a_new_store(path, calls)


@pytest.mark.parametrize("version", [1, 2, 3, 4])
def test_what_is_older_federates(tmp_path: Path, calls: ThreadCalls, version: int) -> None:
    script = (VERSION_1, VERSION_2, VERSION_3, VERSION_4)[version - 1]
    store = SqlStore(Sqlite(database(tmp_path, script)), calls)
    store.start()
    assert tell(store, calls, federate("partner.example")) == [None]
    assert calls.result(store.federations()) == (federated("partner.example"),)
    calls.result(store.stop())


def test_version_5_loses_nothing_and_comes_to_the_tables_of_a_new_store(
    tmp_path: Path, calls: ThreadCalls
) -> None:
    path = database(tmp_path, VERSION_5)
    store = SqlStore(Sqlite(path), calls)
    store.start()
    listed = calls.result(store.list(Query(NOON))).certificates
    assert [c.serial for c in listed] == [BOTH, VALID, PENDING, REVOKED, EXPIRED]
    assert {c.claim for c in listed} == {None}
    assert [str(f.trust_domain) for f in calls.result(store.federations())] == ["b"]
    assert calls.result(store.claims()) == ()
    calls.result(store.stop())
    assert tables(path) == tables_of_a_new_store(path, calls)


@pytest.mark.parametrize("version", [1, 2, 3, 4, 5, 6])
def test_what_was_compromised_before_blocks_its_key_from_now_on(
    tmp_path: Path, calls: ThreadCalls, version: int
) -> None:
    script = (VERSION_1, VERSION_2, VERSION_3, VERSION_4, VERSION_5, VERSION_6)[version - 1]
    path = database(tmp_path, script)
    store = SqlStore(Sqlite(path), calls)
    store.start()
    (blocked,) = calls.result(store.blocked_keys())
    cert = x509.load_der_x509_certificate(old_certificate(REVOKED))
    assert (blocked.serial, blocked.spki) == (REVOKED, key_id(cert.public_key()))
    assert (blocked.blocked_at, blocked.reason) == (NOON, "")
    digest = number_digest(cert.public_key())
    assert digest is not None
    assert blocked.number == digest.hex()
    (refused,) = tell(store, calls, intent(9, key=blocked.spki))
    assert isinstance(refused, KeyBlocked)
    calls.result(store.stop())
    assert tables(path) == tables_of_a_new_store(path, calls)


@pytest.mark.parametrize("version", [1, 2, 3, 4, 5])
def test_what_is_older_takes_claims(tmp_path: Path, calls: ThreadCalls, version: int) -> None:
    script = (VERSION_1, VERSION_2, VERSION_3, VERSION_4, VERSION_5)[version - 1]
    store = SqlStore(Sqlite(database(tmp_path, script)), calls)
    store.start()
    first, second = tell(
        store, calls, intent(9, claim=Claim("i-1")), intent(10, claim=Claim("i-1"), key=OTHER_KEY)
    )
    assert (first, type(second)) == (6, AlreadyAttested)
    calls.result(store.stop())


@pytest.mark.parametrize("script", [VERSION_4, VERSION_5, VERSION_6], ids=["4", "5", "6"])
def test_kill_9_half_way_leaves_version_4(tmp_path: Path, calls: ThreadCalls, script: str) -> None:
    path = database(tmp_path, script)
    before = content(path)
    killed = subprocess.run([sys.executable, "-c", KILLED, path, "update"], cwd=CHECKOUT)
    assert killed.returncode == -signal.SIGKILL
    assert content(path) == before
    store = SqlStore(Sqlite(path), calls)
    store.start()
    assert calls.result(store.find(REVOKED)).revoked_at == NOON
    calls.result(store.stop())


@pytest.mark.parametrize("version", [1, 2, 3])
def test_what_is_older_counts_crls(tmp_path: Path, calls: ThreadCalls, version: int) -> None:
    script = (VERSION_1, VERSION_2, VERSION_3)[version - 1]
    store = SqlStore(Sqlite(database(tmp_path, script)), calls)
    store.start()
    assert tell(store, calls, TakeCrlNumber("39" * 32), TakeCrlNumber("39" * 32)) == [1, 2]
    calls.result(store.stop())


@pytest.mark.parametrize("step", ["update", "create_all"])
def test_what_breaks_off_leaves_version_3(
    path_3: Path, calls: ThreadCalls, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    before = content(path_3)
    store = SqlStore(Sqlite(path_3), calls)

    def broken(*_: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(schema.metadata if step == "create_all" else migrations, step, broken)
        with pytest.raises(Exception, match="store"):
            store.start()
    assert content(path_3) == before
    store.start()
    assert calls.result(store.find(VALID)).spiffe_id.path == "/service/valid"
    calls.result(store.stop())


def test_kill_9_half_way_leaves_version_3(path_3: Path, calls: ThreadCalls) -> None:
    before = content(path_3)
    killed = subprocess.run([sys.executable, "-c", KILLED, path_3, "update"], cwd=CHECKOUT)
    assert killed.returncode == -signal.SIGKILL
    assert content(path_3) == before
    store = SqlStore(Sqlite(path_3), calls)
    store.start()
    assert calls.result(store.find(REVOKED)).revoked_at == NOON
    calls.result(store.stop())
