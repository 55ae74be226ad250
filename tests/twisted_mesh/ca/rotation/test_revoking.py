"""An issuing CA is revoked: which one issues then, what is told, what is left of it, whatever is cut short."""

from pathlib import Path

import pytest
from cryptography import x509

from pki.audit.log import Act, Entry
from pki.keys import key_id
from pki.policy.policy import Forbidden
from pki.policy.principal import anonymous, workload
from pki.svid.bundle import BundleSet
from pki.svid.chain import judge
from pki.svid.revocation_set import Reason, RevocationSet
from pki.svid.x509svid import Purpose, X509Svid
from tests.authorities import BACKEND
from tests.twisted_mesh.ca.lives import YEAR
from tests.twisted_mesh.ca.rigs import result_of
from tests.twisted_mesh.ca.rotation.revocations import Revocations
from tests.twisted_mesh.ca.writes import Killed, kill_before_write
from twisted_mesh.ca.authorities import IssuerRevoked
from twisted_mesh.ca.revoked_authorities import NAME, RevokedAuthorities, written
from twisted_mesh.ca.rotation.revoking import NoSuccessor
from twisted_mesh.state.directory import StateError
from twisted_mesh.stores.records import Conflict, StoreError, Unknown


@pytest.fixture
def rig(tmp_path: Path) -> Revocations:
    return Revocations(tmp_path)


def codes(rig: Revocations, svid: X509Svid) -> list[str]:
    """What a peer has against a chain, that has heard what is published."""
    published = rig.life.current.published
    revoked = RevocationSet().merged(published.revoked_authorities, rig.life.time)
    verdict = judge(svid.chain, published.bundles, revoked, now=rig.life.time, purpose=Purpose.ANY)
    return [str(problem.code) for problem in verdict.problems]


def issuing(rig: Revocations) -> str:
    return rig.life.authorities.issuing.key_id


def files_of(rig: Revocations, key: str) -> list[str]:
    """Which files have a certificate of that key."""
    return [
        path.name
        for path in rig.life.state.ca.glob("issuing*.crt")
        if key_id(x509.load_pem_x509_certificate(path.read_bytes()).public_key()) == key
    ]


def test_its_successor_issues_before_it_is_revoked(rig: Revocations) -> None:
    old, before = rig.life.svid(), issuing(rig)
    assert codes(rig, old) == []
    done = rig.revoke(before)
    assert rig.life.steps == ["prepared 2", "activated 2", "retired 1", "revoked 1"]
    assert done.issuing == issuing(rig) != before
    assert rig.renewed == [issuing(rig)], "our own port first"
    assert codes(rig, old) == ["revoked"]
    assert codes(rig, rig.life.svid()) == []
    assert [revoked.serial for revoked in rig.told] == [old.intermediates[0].serial_number]
    assert rig.publisher.signed == 1
    assert files_of(rig, before) == []
    assert before not in rig.life.current.published.issuers
    assert rig.life.current.published.withdrawn_pins == {done.revoked[0].pin}
    assert rig.life.authorities.issuer(before) is None


def test_said_again_it_is_the_first_answer(rig: Revocations) -> None:
    before = issuing(rig)
    first, again = rig.revoke(before), rig.revoke(before)
    assert again.was_revoked
    assert not first.was_revoked
    assert again.revoked == first.revoked
    assert rig.life.steps.count("revoked 1") == 1
    rig.start()
    assert [r.fingerprint for r in rig.revoke(before).revoked] == [
        r.fingerprint for r in first.revoked
    ]


def test_one_that_does_not_issue_needs_no_successor(rig: Revocations) -> None:
    first = issuing(rig)
    result_of(rig.life.rotator.rotation_steps.prepare())
    prepared = rig.life.authorities.prepared
    assert prepared is not None
    rig.revoke(prepared.key_id)
    assert issuing(rig) == first
    assert rig.life.authorities.prepared is None
    assert files_of(rig, prepared.key_id) == []
    # The next one has a number of its own: no two CAs have one name.
    result_of(rig.life.rotator.rotation_steps.prepare())
    assert rig.life.generations == (1, 3, ())


def test_one_that_is_prepared_takes_over_without_the_roots_key(rig: Revocations) -> None:
    result_of(rig.life.rotator.rotation_steps.prepare())
    rig.life.root_key.unlink()
    rig.start()
    rig.revoke(issuing(rig))
    assert rig.life.generations == (2, None, ())


def test_without_the_roots_key_it_is_refused_or_forced(rig: Revocations) -> None:
    kept, before, old = rig.life.root_key.read_bytes(), issuing(rig), rig.life.svid()
    rig.life.root_key.unlink()
    rig.start()
    with pytest.raises(NoSuccessor, match=str(rig.life.root_key)):
        rig.revoke(before)
    assert codes(rig, old) == []
    done = rig.revoke(before, force=True)
    assert done.issuing is None
    assert "root's key is not here" in str(done.waits)
    assert codes(rig, old) == ["revoked"]
    rig.start()
    with pytest.raises(IssuerRevoked):
        rig.life.authorities.demand_in_use(rig.life.authorities.issuing)
    assert rig.life.authorities.in_use == ()
    assert rig.life.current.published.issuers == {}
    rig.life.root_key.write_bytes(kept)
    rig.life.root_key.chmod(0o600)
    result_of(rig.life.rotator.attend())
    assert rig.life.generations == (2, None, ())
    assert files_of(rig, before) == []
    assert codes(rig, rig.life.svid()) == []


def test_in_an_overlap_both_its_certificates_are_revoked(rig: Revocations) -> None:
    result_of(rig.life.root_steps.prepare())
    result_of(rig.life.root_steps.activate())
    old, key = rig.life.svid(), issuing(rig)
    done = rig.revoke(key)
    assert len({row.revocation.issuer for row in done.revoked}) == 2
    result_of(rig.life.root_steps.switch())
    other = next(row.certificate for row in done.revoked if row.certificate not in old.chain)
    assert codes(rig, X509Svid.assemble((old.leaf, other), old.key)) == ["revoked"]
    assert codes(rig, old) == ["revoked"]
    assert codes(rig, rig.life.svid()) == []


def test_what_is_no_issuing_ca_of_ours(rig: Revocations) -> None:
    with pytest.raises(Unknown):
        rig.revoke("0" * 64)
    root = key_id(rig.life.authorities.root.public_key())
    with pytest.raises(Conflict, match="ca root distrust"):
        rig.revoke(root)
    for stranger in (workload(BACKEND, 1), anonymous("tls:no-certificate")):
        with pytest.raises((Forbidden, Exception)) as refusal:
            result_of(rig.revoker.revoke(stranger, issuing(rig), Reason.CA_COMPROMISE))
        assert type(refusal.value).__name__ in ("Forbidden", "NoProof")
    assert rig.life.acts == []


def test_what_cannot_be_recorded_is_not_done(rig: Revocations) -> None:
    before, old = issuing(rig), rig.life.svid()
    rig.life.unrecordable.add("revoked")
    with pytest.raises(StoreError):
        rig.revoke(before)
    assert codes(rig, old) == []
    assert rig.told == []
    assert not (rig.life.state.ca / NAME).exists()
    rig.life.unrecordable.clear()
    rig.revoke(before)
    assert codes(rig, old) == ["revoked"]


def test_killed_at_each_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fresh(number: int) -> Revocations:
        return Revocations(tmp_path / str(number))

    counted = fresh(-1)
    with monkeypatch.context() as patch:
        writes = kill_before_write(10_000, patch)
        counted.revoke(issuing(counted))
    assert NAME in writes
    for number in range(len(writes)):
        rig = fresh(number)
        old, before = rig.life.svid(), issuing(rig)
        with monkeypatch.context() as patch:
            kill_before_write(number, patch)
            with pytest.raises(Killed):
                rig.revoke(before)
        rig.start()
        is_revoked = number > writes.index(NAME)
        assert codes(rig, old) == (["revoked"] if is_revoked else []), writes[:number]
        assert codes(rig, rig.life.svid()) == []
        assert (files_of(rig, before) == []) == is_revoked, "its key is gone once it is revoked"
        rig.life.assert_all_keys_fit()
        rig.revoke(before)
        rig.start()
        assert codes(rig, old) == ["revoked"]
        assert codes(rig, rig.life.svid()) == []
        assert files_of(rig, before) == []


def test_files_that_come_back_are_removed_again(rig: Revocations) -> None:
    """As a backup from before brings them."""
    saved = {
        path: path.read_bytes() for path in rig.life.state.ca.rglob("issuing*") if path.is_file()
    }
    before, old = issuing(rig), rig.life.svid()
    rig.revoke(before)
    for path in rig.life.state.ca.rglob("issuing*"):
        path.unlink()
    for path, data in saved.items():
        path.write_bytes(data)
        path.chmod(0o600)
    rig.start()
    assert codes(rig, old) == ["revoked"]
    assert issuing(rig) != before
    assert codes(rig, rig.life.svid()) == []
    assert files_of(rig, before) == []


@pytest.mark.parametrize(
    "text", [b"", b"{}", b"[]", b'{"format": 1, "revoked": [{}]}', b"\xff", b"[" * 100_000]
)
def test_a_damaged_file_ends_the_start(rig: Revocations, text: bytes) -> None:
    rig.revoke(issuing(rig))
    (rig.life.state.ca / NAME).write_bytes(text)
    with pytest.raises(StateError, match=r"revoked-authorities\.json is damaged"):
        rig.start()


def test_the_bundle_stays_as_it_was(rig: Revocations) -> None:
    before = rig.life.current.published.bundles
    rig.revoke(issuing(rig))
    assert rig.life.current.published.bundles.all_roots == before.all_roots
    assert isinstance(before, BundleSet)


# Held against the audit log.


def logged(rig: Revocations) -> list[bytes]:
    """What was recorded of CAs, as the audit log has it."""
    return [
        Entry(rig.life.time, Act.ROTATE, "unix:uid:0", act.target, act.facts).to_bytes()
        for act in rig.life.acts
    ]


def test_what_the_log_says_the_file_says_too(rig: Revocations) -> None:
    first = issuing(rig)
    rig.revoke(first)
    rig.revoke(issuing(rig))
    rig.start()
    before = rig.life.authorities.revoked
    result_of(rig.revoker.hold_against([*logged(rig), b"{}", b"", b"damaged"]))
    assert rig.life.authorities.revoked == before


@pytest.mark.parametrize("how", ["removed", "without it"])
def test_a_file_that_lacks_one_ends_the_start(rig: Revocations, how: str) -> None:
    rig.revoke(issuing(rig))
    path = rig.life.state.ca / NAME
    if how == "removed":
        path.unlink()
    else:
        path.write_bytes(written([]))
    rig.start()
    with pytest.raises(StateError, match="does not say that the CA certificate"):
        result_of(rig.revoker.hold_against(logged(rig)))
    rig.life.time += 20 * YEAR  # nobody could use it any more
    result_of(rig.revoker.hold_against(logged(rig)))


def test_what_was_recorded_and_not_written_is_done_at_the_start(
    rig: Revocations, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The act is the operator's word; a kill has come before the file."""
    before, old = issuing(rig), rig.life.svid()
    with monkeypatch.context() as patch:
        patch.setattr(RevokedAuthorities, "add", killed)
        with pytest.raises(Killed):
            rig.revoke(before)
    rig.start()
    assert codes(rig, old) == []
    result_of(rig.revoker.hold_against(logged(rig)))
    assert codes(rig, old) == ["revoked"]
    assert len(rig.told) == 1
    result_of(rig.life.rotator.attend())
    assert files_of(rig, before) == []


@pytest.mark.parametrize("is_between", [False, True], ids=["both acts", "one act"])
@pytest.mark.parametrize("step", ["activate", "switch"])
def test_both_certificates_of_a_key_are_revoked_at_the_start(
    rig: Revocations, monkeypatch: pytest.MonkeyPatch, step: str, *, is_between: bool
) -> None:
    """In an overlap of roots a stolen key has two, and each is good without the other."""
    for done in ("prepare", "activate", "switch")[: 3 if step == "switch" else 2]:
        result_of(getattr(rig.life.root_steps, done)())
    stolen = rig.life.authorities.issuing
    serials = {one.serial_number for one in rig.life.authorities.certificates_of(stolen)}
    assert len(serials) == 2
    with monkeypatch.context() as patch:
        patch.setattr(RevokedAuthorities, "add", killed)
        with pytest.raises(Killed):
            rig.revoke(stolen.key_id)
    rig.start()
    acts = logged(rig)
    result_of(rig.revoker.hold_against(acts[:-1] if is_between else acts))
    assert {row.revocation.serial for row in rig.life.authorities.revoked} == serials


def test_a_file_that_lacks_one_of_two_certificates_of_a_key_ends_the_start(
    rig: Revocations,
) -> None:
    for done in ("prepare", "activate"):
        result_of(getattr(rig.life.root_steps, done)())
    rig.revoke(issuing(rig))
    first, _ = rig.life.authorities.revoked
    (rig.life.state.ca / NAME).write_bytes(written([first]))
    rig.start()
    with pytest.raises(StateError, match="does not say that the CA certificate"):
        result_of(rig.revoker.hold_against(logged(rig)))


def killed(file: object, rows: object) -> None:
    raise Killed
