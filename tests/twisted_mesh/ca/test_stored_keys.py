"""A CA whose keys are in a store: made there, signing there, moved there by succession, and away."""

from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from attrs import define, field
from twisted.internet.task import Clock

from pki.audit.log import LOG_ALGORITHM, Checkpoint, LogKey, LogSigner, StoredLogKey
from pki.errors import PkiError
from pki.keys import KeyAlgorithm, KeyReference, MemoryKey, UnusableKey, key_id
from pki.policy.principal import administrator
from pki.svid.path import issued_by
from pki.svid.x509svid import certificates_pem, is_certified
from pki.tlog.merkle import EMPTY_ROOT
from tests.authorities import MESH, NOW, ca_request, key, mesh
from tests.twisted_mesh.ca.lives import DAY, P256, Life
from tests.twisted_mesh.ca.rigs import result_of
from tests.twisted_mesh.ca.writes import Killed, kill_before_write
from tests.twisted_mesh.keystores.fake_store import FakeStore
from twisted_mesh.ca.first_installation import FirstInstallation
from twisted_mesh.ca.key_drawing import KeyDrawing
from twisted_mesh.keystores.errors import KeyStoreAway, KeyStoreRefused
from twisted_mesh.keystores.spec import KeySpec
from twisted_mesh.keystores.stored_key import StoredKey
from twisted_mesh.keystores.stores import KeyStores
from twisted_mesh.offline.root import OfflineRoot
from twisted_mesh.offline.signing import Wishes, carry_out, plan
from twisted_mesh.state.directory import StateDirectory, StateError
from twisted_mesh.state.key_files import KeyFiles
from twisted_mesh.taps.ca_audit_key import log_key

ADMIN = administrator("unix:uid:0")
TOKEN = "pkcs11:token=mesh"
ON_TOKEN = KeySpec(P256, TOKEN)


@define(eq=False)
class Custody:
    """A token, and the CA by it."""

    home: Path
    token: FakeStore = field(factory=FakeStore)
    stores: KeyStores = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.stores = KeyStores({TOKEN: self.token})
        self.stores.start(Clock())

    def life(self, root: KeySpec = ON_TOKEN, issuing: KeySpec = ON_TOKEN) -> Life:
        """Its next start; the files are what they were."""
        return Life(self.home, root_spec=root, issuing_spec=issuing, stores=self.stores)

    @property
    def labels(self) -> list[str]:
        return [label for _, label in self.token.keys.values()]


@pytest.fixture
def custody(tmp_path: Path) -> Custody:
    return Custody(tmp_path)


def test_keys_are_made_on_the_token_and_files_refer_to_them(custody: Custody) -> None:
    life = custody.life()
    assert custody.labels == ["mesh.local root-1", "mesh.local issuing-1"]
    for name, certificate in (
        ("root.key", life.authorities.root),
        ("issuing.key", life.authorities.issuing.certificate),
    ):
        reference = KeyReference.parse((life.state.private / name).read_bytes())
        assert reference.uri in custody.token.keys
        assert reference.key_id == key_id(certificate.public_key())
        assert b"PRIVATE" not in (life.state.private / name).read_bytes()
    assert life.svid().spiffe_id.path == "/service/backend"


def test_the_next_start_asks_the_token_nothing(custody: Custody) -> None:
    custody.life()
    custody.token.is_away = True
    signed = custody.token.signed
    life = custody.life()
    assert isinstance(life.authorities.issuing.key, StoredKey)
    assert custody.token.signed == signed
    with pytest.raises(KeyStoreAway, match="put it back"):
        life.svid()
    custody.token.is_away = False
    life.svid()


def test_the_whole_succession_is_on_the_token_and_ended_keys_go(custody: Custody) -> None:
    life = custody.life()
    life.run()
    life.pass_time(400 * DAY, steps=400)
    assert life.generations[0] == 2
    assert "mesh.local issuing-2" in custody.labels
    assert "mesh.local issuing-1" not in custody.labels, "it has ended"
    life.assert_all_keys_fit()
    life.start()
    assert life.generations[0] == 2


def test_a_root_is_rotated_on_the_token_and_the_old_key_goes(custody: Custody) -> None:
    life = custody.life()
    steps = life.root_steps
    for step in (steps.prepare, steps.activate, steps.switch, steps.retire):
        result_of(step())
        custody.life()  # which says whether the files fit
    assert "mesh.local root-2" in custody.labels
    assert "mesh.local root-1" not in custody.labels


def test_a_file_key_is_succeeded_by_one_on_the_token(custody: Custody) -> None:
    before = custody.life(KeySpec(P256), KeySpec(P256))
    former = before.authorities.issuing
    assert custody.labels == []
    life = custody.life(KeySpec(P256), ON_TOKEN)
    assert isinstance(life.authorities.issuing.key, MemoryKey), "it goes on"
    result_of(life.rotator.rotate_now(ADMIN))
    assert custody.labels == ["mesh.local issuing-2"]
    issuing = life.authorities.issuing
    assert isinstance(issuing.key, StoredKey)
    assert life.authorities.retired[0].key_id == former.key_id
    assert issuing.key_id != former.key_id, "no key was copied"
    life.svid()
    # And back again.
    back = custody.life(KeySpec(P256), KeySpec(P256))
    result_of(back.rotator.rotate_now(ADMIN))
    assert isinstance(back.authorities.issuing.key, MemoryKey)


def test_a_successor_that_was_prepared_elsewhere_is_not_taken(custody: Custody) -> None:
    before = custody.life(KeySpec(P256), KeySpec(P256))
    result_of(before.rotator.rotation_steps.prepare())
    life = custody.life(KeySpec(P256), ON_TOKEN)
    assert life.generations == (1, 2, ())
    result_of(life.rotator.rotate_now(ADMIN))
    assert life.generations[0] == 3
    assert isinstance(life.authorities.issuing.key, StoredKey)


def test_while_the_token_is_away_nothing_is_rotated_and_nothing_is_lost(custody: Custody) -> None:
    life = custody.life()
    custody.token.is_away = True
    with pytest.raises(KeyStoreAway):
        result_of(life.rotator.rotate_now(ADMIN))
    assert life.generations == (1, None, ())
    custody.token.is_away = False
    result_of(life.rotator.rotate_now(ADMIN))
    assert life.generations == (2, None, (1,))


def test_a_signer_that_lies_is_found_out(custody: Custody) -> None:
    life = custody.life()
    custody.token.lies = lambda signature: signature[::-1]
    with pytest.raises(PkiError) as caught:
        life.svid()
    assert caught.value.code == "signing-failed"


def test_a_first_start_that_was_cut_short_takes_up_its_keys(custody: Custody) -> None:
    custody.token.lies = lambda signature: b"no signature"
    with pytest.raises(PkiError):
        custody.life()
    assert custody.labels == ["mesh.local root-1"]
    custody.token.lies = lambda signature: signature
    custody.life()
    assert custody.labels == ["mesh.local root-1", "mesh.local issuing-1"]


def test_a_first_start_needs_the_token(custody: Custody) -> None:
    custody.token.is_away = True
    with pytest.raises(KeyStoreAway):
        custody.life()
    custody.token.is_away = False
    custody.life()


def test_a_key_that_is_named_is_used_and_no_other_is_made(custody: Custody) -> None:
    made = result_of(custody.token.generate(KeyAlgorithm.EC_P384, "ours"))
    named = KeySpec(P256, TOKEN, f"{TOKEN};object=ours")
    life = custody.life(KeySpec(P256), named)
    assert custody.labels == ["ours"]
    assert is_certified(made, life.authorities.issuing.certificate)
    with pytest.raises(KeyStoreRefused, match="a key of its own"):
        result_of(life.rotator.rotate_now(ADMIN))
    # Nobody deletes what somebody else has made.
    drawing = KeyDrawing(life.rotator.rotation_steps.keys, MESH, custody.stores)
    result_of(drawing.destroy(life.authorities.issuing.key))  # type: ignore[arg-type]
    assert custody.labels == ["ours"]


def test_one_key_is_no_root_and_issuing_ca_at_once(custody: Custody) -> None:
    result_of(custody.token.generate(P256, "ours"))
    named = KeySpec(P256, TOKEN, f"{TOKEN};object=ours")
    with pytest.raises(KeyStoreRefused, match="a key of its own"):
        custody.life(named, named)


def test_a_reference_whose_public_half_was_changed_is_refused(custody: Custody) -> None:
    life = custody.life()
    path = life.state.private / "issuing.key"
    uri = KeyReference.parse(path.read_bytes()).uri
    path.write_text(str(KeyReference(uri, key("stranger").public_key)))
    with pytest.raises(StateError, match="does not fit"):
        custody.life()


def test_a_start_without_the_store_says_which_option_is_missing(custody: Custody) -> None:
    custody.life()
    with pytest.raises(StateError, match="--key-store pkcs11:"):
        Life(custody.home)


def test_a_root_is_detached_by_its_reference_and_its_key_stays_on_the_token(
    custody: Custody,
) -> None:
    life = custody.life()
    reference = life.root_key.read_bytes()
    with pytest.raises(PkiError):
        result_of(life.rotator.detach_root(ADMIN, "0" * 64))
    result_of(life.rotator.detach_root(ADMIN, sha256(reference).hexdigest()))
    assert not life.root_key.exists()
    assert life.authorities.root_key is None
    assert "mesh.local root-1" in custody.labels
    life.root_key.write_bytes(reference)
    life.root_key.chmod(0o600)
    result_of(life.rotator.attend())
    assert isinstance(life.authorities.root_key, StoredKey)


def test_a_key_that_cannot_be_deleted_is_told_and_left(custody: Custody) -> None:
    life = custody.life()
    stored = life.authorities.issuing.key
    assert isinstance(stored, StoredKey)
    custody.token.is_away = True
    drawing = KeyDrawing(life.rotator.rotation_steps.keys, MESH, custody.stores)
    result_of(drawing.destroy(stored))
    custody.token.is_away = False
    assert "mesh.local issuing-1" in custody.labels
    result_of(drawing.destroy(stored))
    assert "mesh.local issuing-1" not in custody.labels


# Killed between two writes.


def test_a_first_start_that_is_killed_at_each_write_leaves_one_key_of_each_kind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as counting:
        writes = kill_before_write(1000, counting)
        Custody(tmp_path / "whole").life()
    assert "root.crt" in writes
    for number in range(len(writes)):
        custody = Custody(tmp_path / f"killed-{number}")
        with monkeypatch.context() as killing, pytest.raises(Killed):
            kill_before_write(number, killing)
            custody.life()
        life = custody.life()
        life.svid()
        # The token has a key before the file says so: only a kill in between leaves one over.
        root, issuing = (
            [label for label in custody.labels if kind in label] for kind in ("root", "issuing")
        )
        assert len(root) + len(issuing) <= 3, writes[:number]


def test_a_succession_that_is_killed_at_each_write_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Custody(tmp_path / "whole").life()
    with monkeypatch.context() as counting:
        writes = kill_before_write(1000, counting)
        result_of(whole.rotator.rotate_now(ADMIN))
    for number in range(len(writes)):
        custody = Custody(tmp_path / f"killed-{number}")
        life = custody.life()
        with monkeypatch.context() as killing, pytest.raises(Killed):
            kill_before_write(number, killing)
            result_of(life.rotator.rotate_now(ADMIN))
        life = custody.life()
        life.assert_all_keys_fit()
        while life.generations[0] == 1:
            result_of(life.rotator.rotate_now(ADMIN))
        life.assert_all_keys_fit()
        assert len(custody.token.keys) <= 4, writes[:number]


# Where no CA runs.


def test_an_offline_root_has_its_key_in_a_store(custody: Custody) -> None:
    place = custody.home / "root"
    made = result_of(
        OfflineRoot.create(
            place, MESH, ON_TOKEN, passphrase=None, now=lambda: NOW, stores=custody.stores
        )
    )
    made.close()
    assert custody.labels == ["mesh.local root-1"]
    with pytest.raises(StateError, match="--key-store"):
        OfflineRoot.open(place, None, lambda: NOW)
    root = OfflineRoot.open(place, None, lambda: NOW, custody.stores)
    request = ca_request(key("issuing"), MESH, 1)
    signed = result_of(carry_out(root, plan(root, Wishes(request))))
    root.close()
    assert signed.certificate is not None
    assert issued_by(signed.certificate, root.authority.certificate)


def test_a_ca_that_never_has_a_roots_key_begins_in_a_store(custody: Custody) -> None:
    state = StateDirectory(custody.home / "state")
    files = KeyFiles(state.private, None, custody.stores.key)
    first = FirstInstallation(state, files, lambda: NOW)
    first.open()
    try:
        csr, request = result_of(first.request(MESH, ON_TOKEN, custody.stores))
        again, _ = result_of(first.request(MESH, ON_TOKEN, custody.stores))
        assert again == csr
        assert custody.labels == ["mesh.local issuing-1"]
        root = mesh().root
        draft = root.draft_issuing(request.public_key, MESH, NOW, 1)
        pem = certificates_pem([result_of(root.sign(draft)), root.certificate])
        first.install(result_of(first.look_at(pem, [])), "unix:uid:0")
    finally:
        first.close()
    life = custody.life()
    assert life.authorities.root_key is None
    life.svid()


# The audit log's key.


@define
class Kept:
    """A store of the record, as the log's key sees it."""

    id: str = "0123456789abcdef"
    is_kept: bool = True


def of_log(custody: Custody, files: KeyFiles, spec: KeySpec | None, store: Kept) -> LogSigner:
    options: Any = {"trust-domain": MESH, "audit-key": spec}
    asked: Any = store
    found: LogSigner = result_of(log_key(options, files, custody.stores, asked))
    return found


def test_the_log_is_signed_where_it_began(custody: Custody) -> None:
    files = KeyFiles(custody.home, None, custody.stores.key)
    spec = KeySpec(LOG_ALGORITHM, TOKEN)
    began = of_log(custody, files, spec, Kept())
    assert isinstance(began, StoredLogKey)
    assert custody.labels == ["mesh.local audit"]
    checkpoint = Checkpoint(began.name, 0, EMPTY_ROOT, NOW)
    assert began.verifier.open(result_of(began.sign(checkpoint))) == checkpoint
    for told in (spec, None):
        assert of_log(custody, files, told, Kept()).verifier == began.verifier
    assert len(custody.labels) == 1
    assert isinstance(of_log(custody, files, spec, Kept(is_kept=False)), LogKey)


def test_a_log_in_a_file_stays_there(custody: Custody) -> None:
    files = KeyFiles(custody.home, None, custody.stores.key)
    began = of_log(custody, files, None, Kept())
    assert isinstance(began, LogKey)
    again = of_log(custody, files, KeySpec(LOG_ALGORITHM, TOKEN), Kept())
    assert again.verifier == began.verifier
    assert custody.labels == []


def test_no_other_kind_of_key_signs_a_log(custody: Custody) -> None:
    made = result_of(custody.token.generate(P256, "ours"))
    with pytest.raises(UnusableKey, match="witnesses verify nothing else"):
        StoredLogKey("mesh.local/audit/x", made)
