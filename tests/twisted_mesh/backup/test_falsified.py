"""Archives that somebody has changed: each is found, and told by what was changed."""

import random
import re
import shutil
import sqlite3
import tarfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import msgspec
import pytest
from attrs import frozen
from hypothesis import given
from hypothesis import strategies as st

from pki.audit.log import LogKey
from pki.errors import PkiError
from pki.keys.pkcs8 import read_pem, write_pem
from pki.svid.pin import Fingerprint
from pki.svid.x509svid import certificates_pem
from tests.authorities import NOW, OTHER, forge, forge_issuing, forge_root, key, mesh
from tests.twisted_mesh.backup import falsifying
from tests.twisted_mesh.backup.falsifying import (
    Falsified,
    add_entry,
    edit_act,
    honest_state,
    signer,
)
from tests.twisted_mesh.backup.states import LOG_KEY, ca_state, tokens
from twisted_mesh.backup import creation
from twisted_mesh.backup.archive import Archive, Manifest, Signature
from twisted_mesh.backup.provenance import NotProven, judge
from twisted_mesh.backup.restoration import Restoration
from twisted_mesh.state.directory import StateDirectory, write_whole
from twisted_mesh.stores.records import StoreError

FINGERPRINT = Fingerprint.of(mesh().root.certificate)
STRANGER = LogKey.generate(LOG_KEY.name)


@frozen
class Honest:
    """What is made once: a CA's state, and a signed backup of it."""

    state: StateDirectory
    archive: Path
    older: Path


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Honest:
    home = tmp_path_factory.mktemp("honest")
    state = honest_state(home / "state")
    creation.create(state, home / "older.tar", NOW, signer(state))
    falsifying.tell(
        state, falsifying.CreateEntry(falsifying.entry_of("more", "unix:uid:9"), NOW, _more())
    )
    falsifying.checkpoint(state.ca / "mesh.db", LOG_KEY)
    creation.create(state, home / "ca.tar", NOW, signer(state))
    return Honest(state, home / "ca.tar", home / "older.tar")


def _more() -> falsifying.Entry:
    return falsifying.made(falsifying.entry_of("more", "unix:uid:9"))


def restoring(
    archive: Path,
    state: StateDirectory,
    fingerprint: Fingerprint | None = FINGERPRINT,
    *,
    accept_unsigned: bool = False,
) -> list[str]:
    """What keeps it from being restored: doubts, or the refusal."""
    state.prepare()
    try:
        with closing(Archive.open(archive)) as opened:
            restoration = Restoration(
                state, opened, NOW, fingerprint, accept_unsigned=accept_unsigned
            )
            restoration.prepare([])
            assert restoration.vouched is not None
            return [f"{doubt.code}: {doubt.detail}" for doubt in restoration.vouched.doubts]
    except PkiError as error:
        return [str(error)]


def test_an_honest_archive_is_signed_and_vouched_for(honest: Honest, tmp_path: Path) -> None:
    assert restoring(honest.archive, StateDirectory(tmp_path / "bare")) == []
    again = Falsified.of(honest.archive, tmp_path)
    assert again.signature is not None
    assert restoring(again.write(), StateDirectory(tmp_path / "other")) == []


Change = Callable[[Falsified, Honest], object]


def _foreign_signature(found: Falsified, honest: Honest) -> None:
    """By keys of the stranger's own, put in the place of the CA's."""
    private = found.home / "keys"
    private.mkdir()
    (private / "issuing.key").write_bytes(key("stranger").to_pem())
    (private / "issuing.key").chmod(0o600)
    found.files["ca/private/issuing.key"] = key("stranger").to_pem()
    found.write()
    keys = falsifying.KeyFiles(private)
    found.signature = falsifying.sign_here(keys, "", found.manifest.digest)


def _own_ca(found: Falsified, honest: Honest) -> None:
    """The stranger's own issuing CA, below a root of the stranger's with the same names."""
    root = forge_root("stranger's root")
    issuing = forge_issuing(root, "stranger")
    found.files["ca/issuing.crt"] = certificates_pem([issuing.certificate])
    _foreign_signature(found, honest)


def _own_root(found: Falsified, honest: Honest) -> None:
    root = forge_root("stranger's root")
    found.files["ca/root.crt"] = certificates_pem([root.certificate])
    found.say(root=Fingerprint.of(root.certificate).digest.hex())
    _own_ca(found, honest)


def _leaf_as_ca(found: Falsified, honest: Honest) -> None:
    leaf = forge(mesh().root, subject_key=key("stranger"))
    found.files["ca/issuing.crt"] = certificates_pem([leaf])
    _foreign_signature(found, honest)


def _backdated(found: Falsified, honest: Honest) -> None:
    found.say(created_at="2001-01-01T00:00:00Z")
    found.signature = signer(honest.state)(found.manifest)


def _replayed_signature(found: Falsified, honest: Honest) -> None:
    found.signature = Falsified.of(honest.older, found.home).signature


def _replayed_manifest(found: Falsified, honest: Honest) -> None:
    older = Falsified.of(honest.older, found.home)
    found.manifest, found.signature, found.is_mended = older.manifest, older.signature, False


def _other_log_key(found: Falsified, honest: Honest) -> None:
    assert found.signature is not None
    found.signature = type(found.signature)(str(STRANGER.verifier), found.signature.signature)


def _unmended(found: Falsified, honest: Honest) -> None:
    found.is_mended = False
    found.files["ca/private/issuing.key"] = bytes(len(found.files["ca/private/issuing.key"]))


def _twice_in_manifest(found: Falsified, honest: Honest) -> None:
    found.say(members=[*found.manifest.members, found.manifest.members[0]])


def _tricky_path(found: Falsified, honest: Honest) -> None:
    name = "ca/../../etc/x.crt"
    member = msgspec.structs.replace(found.manifest.members[0], name=name)
    found.files[name] = b""
    found.say(members=[*found.manifest.members, member])


def _linked(header: tarfile.TarInfo) -> None:
    if header.name == "ca/root.crt":
        header.type, header.linkname, header.size = tarfile.SYMTYPE, "/etc/passwd", 0


def _set(**changes: object) -> Change:
    def change(found: Falsified, honest: Honest) -> None:
        for name, value in changes.items():
            setattr(found, name, value)

    return change


def _sql(*statements: str) -> Change:
    return lambda found, honest: found.sql(*statements)


def _record(change: Callable[[Path], object]) -> Change:
    return lambda found, honest: found.record(change)


UNREVOKE = (
    f"DELETE FROM feed WHERE certificate = (SELECT id FROM certificates WHERE serial = '{0x4A02:040x}')",
    "UPDATE certificates SET revoked_at = NULL, reason = NULL",
)
#: What a stranger does to an archive that is signed, restored where nothing is but the fingerprint.
SIGNED: dict[str, tuple[Change, str]] = {
    "a row is changed": (_sql("UPDATE entries SET created_at = 0"), "its signature does not hold"),
    "a key is swapped": (
        lambda found, honest: found.files.update({"ca/private/issuing.key": key(1).to_pem()}),
        "its signature does not hold",
    ),
    "a file is changed, the manifest not": (_unmended, "issuing.key is not what was saved"),
    "the signature is taken off": (_set(signature=None), "it is not signed"),
    "it is signed by another key": (_foreign_signature, "its signature does not hold"),
    "it is signed by a CA of the stranger's": (_own_ca, "was not issued by its ca/root.crt"),
    "all of it is another CA's": (_own_root, "and --fingerprint names"),
    "it is signed by a leaf": (_leaf_as_ca, "is not that of a CA"),
    "it is dated before its CA": (_backdated, "its CA was not valid at 2001-01-01"),
    "the signature is an older one's": (_replayed_signature, "its signature does not hold"),
    "the manifest is an older one's": (_replayed_manifest, "is not (where|what)"),
    "the log's key is another": (_other_log_key, "its signature does not hold"),
    "it is cut": (_set(cut=-20000), "is cut short|is larger than it can be"),
    "files change places": (_set(order=lambda names: names[::-1]), "is not where the manifest"),
    "a file comes twice": (_set(order=lambda names: [*names, names[0]]), "holds more than"),
    "a file is named twice": (_twice_in_manifest, "has a file twice"),
    "a path leads out": (_tricky_path, "is no file of a CA"),
    "a file is a link": (_set(header=_linked), "something else than a plain file"),
}


@pytest.mark.parametrize("what", SIGNED)
def test_a_signed_archive_that_was_changed_is_refused(
    honest: Honest, tmp_path: Path, what: str
) -> None:
    change, words = SIGNED[what]
    found = Falsified.of(honest.archive, tmp_path)
    change(found, honest)
    (told,) = restoring(found.write(), StateDirectory(tmp_path / "bare"))
    assert_told(told, words)
    assert not (tmp_path / "bare" / "ca" / "mesh.db").exists()


def assert_told(told: str, words: str) -> None:
    assert re.search(words, told), told


#: What a stranger does to the record in an archive that is not signed, and is accepted so.
UNSIGNED: dict[str, tuple[Change, str]] = {
    "a trigger": (
        _sql(
            "CREATE TRIGGER undo AFTER UPDATE ON certificates BEGIN "
            "UPDATE certificates SET revoked_at = NULL; END"
        ),
        "the trigger 'undo'",
    ),
    "a view": (_sql("CREATE VIEW v AS SELECT * FROM entries"), "the view 'v'"),
    "a table": (_sql("CREATE TABLE t (x)"), "the table 't'"),
    "a virtual table": (_sql("CREATE VIRTUAL TABLE f USING fts5(x)"), "the table 'f'"),
    "an index": (_sql("CREATE INDEX i ON entries (id)"), "the index 'i'"),
    "an index of ours, made otherwise": (
        _sql(
            "DROP INDEX certificates_by_request",
            "CREATE INDEX certificates_by_request ON certificates (serial)",
        ),
        "the index 'certificates_by_request', which is not as this program makes it",
    ),
    "a generated column": (
        _sql("ALTER TABLE entries ADD COLUMN g TEXT GENERATED ALWAYS AS (id) VIRTUAL"),
        "the table 'entries', which is not as this program makes it",
    ),
    "a user_version": (_sql("PRAGMA user_version = 7"), "the user_version 7"),
    "an application_id": (_sql("PRAGMA application_id = 7"), "the application_id 7"),
    "text for a number": (
        _sql("UPDATE certificates SET expires_at = 'never'"),
        "certificates.expires_at has 3 values that are not integer",
    ),
    "a counter that was set back": (
        _sql("UPDATE counters SET value = 0 WHERE name = 'feed'"),
        "its counter feed is behind",
    ),
    "a revocation that no endpoint hears of": (
        _sql("DELETE FROM feed"),
        "1 certificates are revoked and no endpoint would hear of it",
    ),
    "an entry without an act": (_record(add_entry), "record-unknown: the entry bad"),
    "an entry with an act that nobody signed": (
        _record(lambda path: add_entry(path, with_act=True)),
        "record-unknown: the entry bad",
    ),
    "an entry, its act and a checkpoint by another key": (
        _record(lambda path: add_entry(path, with_act=True, key=STRANGER)),
        "log-unvouched: the last checkpoint of its audit log is not signed by the log's key",
    ),
    "an entry that says something else": (
        _sql(
            "UPDATE entries SET document = "
            "cast(replace(cast(document AS TEXT), 'unix:uid:7', 'unix:uid:8') AS BLOB)"
        ),
        "record-changed: the entry web",
    ),
    "an act that says something else": (
        _record(lambda path: edit_act(path, rehashed=False)),
        "log-edited: entry 1 is not what was taken into the tree",
    ),
    "an act and the tree over it": (
        _record(lambda path: edit_act(path, rehashed=True)),
        "log-rewritten",
    ),
    "a token that was spent": (
        _sql("UPDATE tokens SET spent_at = NULL, request = NULL, serial = NULL"),
        "record-unspent",
    ),
    "a certificate that was revoked": (_sql(*UNREVOKE), "record-unrevoked"),
    "the issuer of a revoked certificate": (
        _sql(f"UPDATE certificates SET issuer = '{'ab' * 32}'"),
        "record-changed: .* its issuer is none of the CA's",
    ),
    "the end of a revoked certificate": (
        _sql("UPDATE certificates SET expires_at = expires_at - 3599000000"),
        "record-changed: .* its serial or its end is not",
    ),
    "a revoked certificate in the place of another": (
        _sql("UPDATE bodies SET der = (SELECT der FROM bodies WHERE certificate = 1)"),
        "record-changed: .* its serial or its end is not",
    ),
    "a revoked certificate itself is gone": (
        _sql("DELETE FROM bodies"),
        "record-changed: .* it is not there itself",
    ),
    "a certificate that is gone": (
        _sql(
            "PRAGMA foreign_keys = ON", f"DELETE FROM certificates WHERE serial = '{0x4A02:040x}'"
        ),
        "record-missing",
    ),
    "the log's tables emptied": (
        _sql(
            "DELETE FROM tiles",
            "DELETE FROM checkpoints",
            "UPDATE counters SET value = 0 WHERE name = 'tree'",
        ),
        "log-unvouched: its audit log of [0-9]+ acts has no checkpoint",
    ),
}


@pytest.mark.parametrize("what", UNSIGNED)
def test_what_was_put_into_an_unsigned_record_is_named(
    honest: Honest, tmp_path: Path, what: str
) -> None:
    change, words = UNSIGNED[what]
    found = Falsified.of(honest.archive, tmp_path)
    found.signature = None
    change(found, honest)
    state = _like(honest, tmp_path)
    told = restoring(found.write(), state, accept_unsigned=True)
    assert_told("\n".join(told), words)


def _like(honest: Honest, tmp_path: Path) -> StateDirectory:
    """The CA's own state, in another place: its root and its log's key are known there."""
    state = StateDirectory(tmp_path / "state")
    shutil.copytree(honest.state.root, state.root)
    return state


def test_the_unsigned_archive_itself_is_vouched_for_where_the_logs_key_is_known(
    honest: Honest, tmp_path: Path
) -> None:
    found = Falsified.of(honest.archive, tmp_path)
    found.signature = None
    assert restoring(found.write(), _like(honest, tmp_path), accept_unsigned=True) == []
    (told,) = restoring(found.write(), StateDirectory(tmp_path / "bare"), accept_unsigned=True)
    assert_told(told, "log-unvouched: no key of its audit log is known here")


def test_an_older_archive_is_the_cas_and_what_it_lacks_is_told(
    honest: Honest, tmp_path: Path
) -> None:
    state = _like(honest, tmp_path)
    with closing(Archive.open(honest.older)) as opened:
        restoration = Restoration(state, opened, NOW)
        loss = restoration.prepare([])
    assert restoration.provenance is not None
    assert restoration.provenance.is_signed
    assert (loss.acts, loss.is_bearable) == (1, False)


def test_a_signature_proves_nothing_where_no_root_is_known(honest: Honest, tmp_path: Path) -> None:
    (told,) = restoring(honest.archive, StateDirectory(tmp_path / "bare"), None)
    assert_told(told, f"signed by the CA whose root has the fingerprint {FINGERPRINT}")
    assert restoring(honest.archive, _like(honest, tmp_path), None) == []


def test_another_cas_state_and_another_cas_archive_do_not_meet(
    honest: Honest, tmp_path: Path
) -> None:
    state = ca_state(tmp_path / "state", mesh(OTHER))
    (told,) = restoring(honest.archive, state, None)
    assert_told(told, "is another CA's than the backup's")


def test_an_archive_is_signed_by_who_has_the_passphrase(honest: Honest, tmp_path: Path) -> None:
    state = _like(honest, tmp_path)
    for path in state.private.glob("*.key"):
        found = read_pem(path.read_bytes())
        write_whole(path, write_pem(found, b"secret"), 0o600)
    keys = falsifying.KeyFiles(state.private, b"secret")
    created = creation.create(
        state,
        tmp_path / "sealed.tar",
        NOW,
        lambda manifest: falsifying.sign_here(keys, LOG_KEY.name, manifest.digest),
    )
    assert created.signature is not None
    assert created.manifest.plain_keys == []
    assert restoring(tmp_path / "sealed.tar", StateDirectory(tmp_path / "bare")) == []


def test_a_signature_of_somebody_else_is_not_put_into_an_archive(
    honest: Honest, tmp_path: Path
) -> None:
    """Whoever answers on the socket in the CA's place makes no backup that looks signed."""
    state = _like(honest, tmp_path)
    other = Falsified.of(honest.older, tmp_path).signature
    with pytest.raises(PkiError, match="is not of the CA in"):
        creation.create(state, tmp_path / "forged.tar", NOW, lambda manifest: other)
    assert not (tmp_path / "forged.tar").exists()


@pytest.mark.parametrize("seed", range(12))
def test_a_record_with_other_bytes_ends_in_a_sentence(
    honest: Honest, tmp_path: Path, seed: int
) -> None:
    found, chance = Falsified.of(honest.archive, tmp_path), random.Random(seed)
    found.signature = None
    data = bytearray(found.files["ca/mesh.db"])
    for _ in range(chance.choice((1, 5, 20))):
        page = chance.randrange(len(data) // 4096) * 4096
        data[page + chance.randrange(120)] = chance.choice((0, 1, 127, 128, 255))
    found.files["ca/mesh.db"] = bytes(data)
    # Whatever it is, it is a PkiError or a doubt, or has changed nothing that is read.
    restoring(found.write(), StateDirectory(tmp_path / "bare"), accept_unsigned=True)


def test_a_live_token_with_another_secret_does_not_come_back(
    honest: Honest, tmp_path: Path
) -> None:
    """The log knows twelve digits of a token's digest, and who wrote the backup may have found others like it."""
    states = [honest_state(tmp_path / name) for name in ("state", "saved")]
    unspent = "UPDATE tokens SET spent_at = NULL, request = NULL, serial = NULL"
    for state in states:
        with closing(sqlite3.connect(state.ca / "mesh.db")) as connection, connection:
            connection.execute(unspent)
            connection.execute("UPDATE meta SET value = 'one-store' WHERE name = 'store'")
    creation.create(states[1], tmp_path / "ca.tar", NOW, signer(states[1]))
    found = Falsified.of(tmp_path / "ca.tar", tmp_path)
    found.signature = None
    found.sql("UPDATE tokens SET digest = cast(substr(digest, 1, 6) || zeroblob(26) AS BLOB)")
    with closing(Archive.open(found.write())) as opened:
        restoration = Restoration(states[0], opened, NOW, accept_unsigned=True)
        restoration.prepare([])
        restoration.perform("unix:uid:0")
    assert tokens(states[0]) == {}


def test_a_record_with_a_trigger_is_not_saved(honest: Honest, tmp_path: Path) -> None:
    state = _like(honest, tmp_path)
    with closing(sqlite3.connect(state.ca / "mesh.db")) as connection, connection:
        connection.execute("CREATE TRIGGER undo AFTER UPDATE ON crls BEGIN SELECT 1; END")
    with pytest.raises(StoreError, match="the trigger 'undo'"):
        creation.create(state, tmp_path / "ca.tar", NOW, signer(state))
    assert not (tmp_path / "ca.tar").exists()


@given(st.text(max_size=200), st.text(max_size=200))
def test_no_signature_raises_anything_but_a_refusal(log_key: str, signature: str) -> None:
    chain = {
        "ca/root.crt": certificates_pem([mesh().root.certificate]),
        "ca/issuing.crt": certificates_pem([mesh().issuing.certificate]),
    }
    manifest = Manifest(
        format=3,
        created_at="2026-11-23T10:00:00Z",
        version="",
        root="",
        store="",
        certificates=0,
        revoked=0,
        checkpoint=None,
        log_size=0,
        encrypted=[],
        members=[],
    )
    with pytest.raises(NotProven):
        judge(manifest, Signature(log_key, signature), chain, is_root_known=True)
