"""The rule for every kind of state: saved, restored, in the audit log, checked and counted, or it is said why not.

Whoever adds a table to the record or a file to the state directory is stopped here until each of the five is answered.
"""

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from attrs import frozen

from pki.audit.log import Act
from tests.earlier import LEFT, unpack
from tests.measuring import MEASURED
from tests.twisted_mesh.stores.registrations import opened
from tests.twisted_mesh.support import ThreadCalls
from twisted_mesh.backup import creation
from twisted_mesh.backup.archive import Archive
from twisted_mesh.backup.restoration import Restoration
from twisted_mesh.ca.check import CHECKS
from twisted_mesh.state.directory import StateDirectory
from twisted_mesh.stores import schema

#: What ``mesh-ctl doctor`` looks at besides what the CA does.
DOCTORS = {"state", "modes", "ca", "clocks"}
#: What a CA does with no kind of state in particular.
OF_ALL = {Act.START, Act.STOP, Act.REFUSE}
AS_SAVED = "every row comes back as it was saved"


@frozen
class Table:
    """Where one table is looked after. What is left empty has its reason in ``because``."""

    restored: str
    """:data:`AS_SAVED`, or how what comes back differs."""
    acts: tuple[Act, ...] = ()
    checks: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    because: str = ""


TABLES = {
    "meta": Table(
        "the store has another id, and remembers those before",
        (Act.RESTORE, Act.ADMINISTER),
        ("store",),
        because="nothing in it can be counted",
    ),
    "counters": Table(
        AS_SAVED,
        (Act.RESTORE,),
        ("store",),
        ("mesh_ca_audit_entries",),
    ),
    "certificates": Table(
        AS_SAVED,
        (Act.ISSUE, Act.RENEW, Act.REVOKE),
        ("signing", "issuer"),
        ("mesh_events_total",),
    ),
    "bodies": Table(AS_SAVED, (Act.ISSUE, Act.RENEW), ("store",), ("mesh_events_total",)),
    "intents": Table(AS_SAVED, (Act.WRITE_OFF,), ("intents",), ("mesh_ca_signatures_under_way",)),
    "feed": Table(AS_SAVED, (Act.REVOKE,), ("crls",), ("mesh_revocations_known",)),
    "crls": Table(
        AS_SAVED,
        (),
        ("crls",),
        ("mesh_ca_crl_number",),
        because="a CRL is no act: it says again what revocations have said",
    ),
    "entries": Table(
        "that of a token that is gone goes with it",
        (Act.ADMINISTER,),
        ("store",),
        ("mesh_events_total",),
    ),
    "tokens": Table(
        "those that might be spent twice are gone",
        (Act.ADMINISTER,),
        ("store",),
        ("mesh_events_total",),
    ),
    "claims": Table(
        AS_SAVED,
        (Act.ISSUE, Act.RENEW, Act.ADMINISTER),
        ("audit",),
        ("mesh_events_total",),
    ),
    "blocked_keys": Table(
        AS_SAVED,
        (Act.REVOKE, Act.ADMINISTER),
        ("audit",),
        ("mesh_ca_blocked_keys",),
    ),
    "federation": Table(
        AS_SAVED,
        (Act.ADMINISTER,),
        ("federation",),
        ("mesh_ca_federated_domains", "mesh_ca_federated_oldest_seconds"),
    ),
    "audit": Table(AS_SAVED, tuple(Act), ("audit",), ("mesh_ca_audit_entries",)),
    "tiles": Table(
        AS_SAVED,
        (),
        ("audit",),
        ("mesh_ca_audit_entries",),
        because="it is the audit log's own tree",
    ),
    "checkpoints": Table(
        AS_SAVED,
        (),
        ("audit",),
        ("mesh_ca_audit_entries",),
        because="it is the audit log's own signature",
    ),
}

SAVED = "saved"
#: Each file below the state directory: saved in a backup, or why not.
FILES = {
    r"ca/root\.crt|ca/issuing(-\d+)?\.crt|ca/root\.crl": SAVED,
    r"ca/private/(root|issuing(-\d+)?|audit|signer-client|ct-submitter)\.key": SAVED,
    r"ca/mesh\.db": SAVED,
    r"ca/mesh\.db-(wal|shm)": "SQLite's own: what is in it is saved with mesh.db",
    r"ca/crl-numbers": "it is kept beside the record because it must not go back with it",
    r"ca/jwt-keys|ca/private/jwt_[0-9a-f]{16}\.key": "a JWT key that was retired must not come back with it",
    r"ca/checkpoints": "it is kept beside the record because it must not go back with it",
    r"ca/required-scts\.json": "what endpoints demand now, which they say again soon",
    r"ca/ct-submitter\.pin": "of the key beside it, written at each start",
    r"ca/accept-log": "a word to the CA of this machine, gone once it is heard",
    r"ca/lock|ca/ca\.sock": "of the process that runs",
    r"ca/reserve": "empty room, made anew",
    r"witness/.*": "what endpoints saw, kept apart from what a restore puts back",
    r"identity/.*": "an endpoint's, which gets another by its CA",
    r"crls/.*": "an endpoint's memory of other people's lists",
}


@pytest.fixture
def state(tmp_path: Path) -> StateDirectory:
    """One that a CA and endpoints have left, with a row in every table."""
    (version, _) = next(iter(LEFT.items()))
    found = StateDirectory(unpack(version, tmp_path))
    calls = ThreadCalls()
    with opened(found.ca / "mesh.db", calls):
        pass  # its tables are those of this version now
    with closing(sqlite3.connect(found.ca / "mesh.db")) as connection, connection:
        connection.execute("INSERT INTO intents SELECT max(id), x'00' FROM certificates")
        connection.execute(
            "INSERT INTO claims VALUES ('aws_iid:1:a:i-1', 'k', 's', '0', NULL, 0, NULL)"
        )
        connection.execute("INSERT INTO blocked_keys VALUES ('00', NULL, 0, NULL, '')")
        connection.execute("INSERT INTO federation VALUES ('b', 0, x'00', 0, NULL, NULL)")
    return found


def rows(database: Path) -> dict[str, set[tuple[object, ...]]]:
    with closing(sqlite3.connect(database)) as connection:
        return {name: set(connection.execute(f"SELECT * FROM {name}")) for name in TABLES}


def restored(state: StateDirectory, elsewhere: Path) -> StateDirectory:
    now = next(iter(LEFT.values()))
    backup = elsewhere / "backup.tar"
    creation.create(state, backup, now)
    home = StateDirectory(elsewhere / "restored")
    home.prepare()
    with closing(Archive.open(backup)) as archive:
        restoration = Restoration(home, archive, now, accept_unsigned=True)
        restoration.prepare([])
        restoration.perform("a test")
    return home


def files(state: StateDirectory) -> Iterator[str]:
    for path in state.root.rglob("*"):
        if not path.is_dir() or path.is_symlink():
            yield str(path.relative_to(state.root))


def test_every_table_is_looked_after() -> None:
    assert set(TABLES) == set(schema.metadata.tables)
    for name, table in TABLES.items():
        assert set(table.checks) <= {*CHECKS, *DOCTORS}, name
        assert set(table.metrics) <= MEASURED, name
        missing = [part for part in (table.acts, table.checks, table.metrics) if not part]
        assert bool(missing) == bool(table.because), name


def test_every_act_is_of_some_kind_of_state() -> None:
    told = {act for name, table in TABLES.items() if name != "audit" for act in table.acts}
    # Those two are of files: a new issuing CA or JWT key, and what such a key has signed, which is kept by nobody.
    assert told | OF_ALL == set(Act) - {Act.ROTATE, Act.ISSUE_JWT}


def test_every_table_is_saved_and_restored(state: StateDirectory, tmp_path: Path) -> None:
    before = rows(state.ca / "mesh.db")
    assert all(before.values()), "a table without a row proves nothing"
    after = rows(restored(state, tmp_path).ca / "mesh.db")
    for name, table in TABLES.items():
        assert (after[name] == before[name]) == (table.restored == AS_SAVED), name


def test_every_file_is_saved_or_it_is_said_why_not(state: StateDirectory, tmp_path: Path) -> None:
    home = restored(state, tmp_path)
    there = set(files(home))
    for name in files(state):
        (kept,) = (why for pattern, why in FILES.items() if re.fullmatch(pattern, name))
        assert (name in there) == (kept == SAVED), name
