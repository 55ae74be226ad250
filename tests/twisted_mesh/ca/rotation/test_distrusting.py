"""A root is distrusted, wherever its rotation is: who is believed then, what is left, whatever is cut short."""

from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509

from pki.issuing.authority import Authority
from pki.issuing.profile import ISSUING
from pki.issuing.remnants import Remains
from pki.issuing.root_line import Phase, fingerprint_of
from pki.keys import MemoryKey, key_id
from pki.svid.bundle import BundleSet, TrustBundle
from pki.svid.chain import judge
from pki.svid.pin import BadFingerprint
from pki.svid.revocation_set import Reason, RevocationSet
from pki.svid.x509svid import Purpose, X509Svid, certificates_pem
from tests.authorities import MESH
from tests.twisted_mesh.ca.rigs import ADMIN, result_of
from tests.twisted_mesh.ca.rotation.revocations import Revocations
from tests.twisted_mesh.ca.writes import Killed, kill_before_write
from twisted_mesh.ca.revoked_authorities import NAME, RevokedAuthority
from twisted_mesh.stores.records import Conflict, Unknown
from twisted_mesh.testing import forge

PHASES = ("settled", "prepared", "activated", "switched")


def at(home: Path, phase: str) -> Revocations:
    """A rotation that has come so far."""
    rig = Revocations(home)
    for step in ("prepare", "activate", "switch")[: PHASES.index(phase)]:
        result_of(getattr(rig.life.root_steps, step)())
    return rig


@pytest.fixture
def rig(tmp_path: Path) -> Revocations:
    return Revocations(tmp_path)


def verdict(rig: Revocations, svid: X509Svid, *besides: x509.Certificate) -> list[str]:
    """Of a peer that has heard what is published; ``besides`` are roots that it still holds."""
    published = rig.life.current.published
    roots = (*published.bundles.all_roots, *besides)
    revoked = RevocationSet().merged(published.revoked_authorities, rig.life.time)
    bundles = BundleSet.of(TrustBundle(MESH, roots))
    found = judge(svid.chain, bundles, revoked, now=rig.life.time, purpose=Purpose.ANY)
    return [str(problem.code) for problem in found.problems]


def demand_gone(rig: Revocations, root: x509.Certificate) -> None:
    """Nobody believes it, nothing of it is left, and what is issued now is good without it."""
    authorities = rig.life.authorities
    assert root not in authorities.roots
    assert authorities.root_line.phase is Phase.SETTLED
    assert verdict(rig, rig.life.svid()) == []
    assert key_id(root.public_key()) not in authorities.root_keys
    for path in rig.life.state.private.glob("*.key"):
        held = MemoryKey.from_known_pem(path.read_bytes())
        assert key_id(held.public_key) != key_id(root.public_key()), path
    rig.life.assert_all_keys_fit()


@pytest.mark.parametrize("phase", PHASES)
def test_the_old_root_is_replaced_wherever_its_rotation_is(tmp_path: Path, phase: str) -> None:
    rig = at(tmp_path, phase)
    root, old = rig.life.authorities.root_line.old, rig.life.svid()
    done = rig.distrust(fingerprint_of(root))
    assert done.is_proven
    demand_gone(rig, root)
    assert rig.life.authorities.root_line.former[0].how == "distrusted"
    # Who has not heard of the new bundle yet refuses it as well.
    if old.intermediates[0].issuer == root.subject:
        assert verdict(rig, old) == ["unknown-authority"]
        assert "revoked" in verdict(rig, old, root)
    (told,) = rig.told
    assert (told.issuer, told.serial) == (key_id(root.public_key()), root.serial_number)
    assert rig.life.steps[-1].startswith("root-distrusted")
    again = rig.distrust(fingerprint_of(root))
    assert again.row.revocation == done.row.revocation
    assert again.is_proven
    assert len(rig.told) == 1


@pytest.mark.parametrize("phase", PHASES[1:])
def test_the_new_root_is_taken_back_wherever_its_rotation_is(tmp_path: Path, phase: str) -> None:
    rig = at(tmp_path, phase)
    line = rig.life.authorities.root_line
    old, new = line.old, line.new
    assert new is not None
    done = rig.distrust(fingerprint_of(new))
    assert done.is_proven
    demand_gone(rig, new)
    assert rig.life.authorities.roots == (old,)


def alone(home: Path) -> Revocations:
    """Chains lead to the new root, and the old one, which had ended, has not certified what issues."""
    rig = at(home, "prepared")
    result_of(rig.life.root_steps.activate(alone=True))
    return rig


def test_a_root_that_no_way_leads_back_from_is_replaced_and_not_taken_back(tmp_path: Path) -> None:
    rig = alone(tmp_path)
    new = rig.life.authorities.root
    plan = rig.distruster.plan(ADMIN, fingerprint_of(new))
    assert plan.steps == ("retire", "prepare", "activate", "distrust", "retire")
    assert rig.distrust(fingerprint_of(new)).is_proven
    demand_gone(rig, new)


def test_what_is_distrusted_and_has_no_successor_gets_one_at_the_next_start(tmp_path: Path) -> None:
    """However it came about: nothing that is issued would be believed."""
    rig = alone(tmp_path)
    new = rig.life.authorities.root
    row = RevokedAuthority.of(new, new, rig.life.time, Reason.CA_COMPROMISE, "self")
    rig.revoker.file.add([row])
    rig.start()
    demand_gone(rig, new)
    assert rig.distrust(fingerprint_of(new)).is_proven


def test_the_only_root_has_a_successor_that_it_has_not_certified(rig: Revocations) -> None:
    (root,) = rig.life.authorities.roots
    done = rig.distrust(fingerprint_of(root))
    assert done.plan.steps == ("prepare", "activate", "distrust", "retire")
    assert len(done.plan.alone) == 1
    assert [remnant.remains for remnant in done.remnants] == [Remains.DEAD]
    (certificate,) = rig.life.svid().intermediates
    assert rig.life.authorities.root_line.root_of(certificate) == rig.life.authorities.root


def test_an_issuing_key_that_both_have_certified_survives(tmp_path: Path) -> None:
    """Who has the root's key has not that one, and the other root speaks for it."""
    rig = at(tmp_path, "switched")
    root, issuing = rig.life.authorities.root_line.old, rig.life.authorities.issuing.key_id
    by_old = next(
        one
        for one in rig.life.authorities.certificates_of(rig.life.authorities.issuing)
        if rig.life.authorities.root_line.root_of(one) == root
    )
    (rig.life.state.ca / "kept.crt").write_bytes(certificates_pem([by_old]))
    done = rig.distrust(fingerprint_of(root))
    assert rig.life.authorities.issuing.key_id == issuing
    found = {(remnant.remains, remnant.certificate.issuer) for remnant in done.remnants}
    assert (Remains.SURVIVES, rig.life.authorities.root.subject) in found
    assert (Remains.DEAD, root.subject) in found
    assert done.is_proven
    # The old root over the new issuing key brings nobody in.
    leaf = rig.life.svid()
    assert verdict(rig, leaf) == []
    revived = X509Svid.assemble((leaf.leaf, by_old), leaf.key)
    assert verdict(rig, revived) == ["unknown-authority"]
    assert "revoked" in verdict(rig, revived, root)


@pytest.mark.parametrize("where", ["ca/of-a-visitor.crt", "ca/replaced-2026/root-9.crt"])
def test_what_would_bring_its_key_back_to_life_is_found(rig: Revocations, where: str) -> None:
    (root,) = rig.life.authorities.roots
    stolen = MemoryKey.from_known_pem(rig.life.root_key.read_bytes())
    first = rig.distrust(fingerprint_of(root))
    assert first.is_proven
    authorities = rig.life.authorities
    new_key = authorities.root_key
    assert new_key is not None
    crossed = forge(
        Authority(authorities.root, new_key),
        ISSUING,
        subject_key=stolen,
        trust_domain=MESH,
        start=rig.life.time,
        end=authorities.root.not_valid_after_utc,
    )
    path = rig.life.home / "state" / where
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(certificates_pem([crossed]))
    again = rig.distrust(fingerprint_of(root))
    assert not again.is_proven
    (revived,) = [one for one in again.remnants if one.remains is Remains.REVIVES]
    assert revived.where == where.removeprefix("ca/")


def test_a_leaf_over_its_key_is_no_proof_either(rig: Revocations) -> None:
    (root,) = rig.life.authorities.roots
    rig.record.found = ("a row",)
    assert not rig.distrust(fingerprint_of(root)).is_proven


def test_what_is_no_root_of_ours(rig: Revocations) -> None:
    with pytest.raises(Unknown):
        rig.distrust("sha256:" + "0" * 64)
    with pytest.raises(BadFingerprint):
        rig.distrust("the old one")
    result_of(rig.life.root_steps.prepare())
    left = rig.life.authorities.root_line.new
    assert left is not None
    result_of(rig.life.root_steps.revert())
    with pytest.raises(Conflict, match="has left the bundle"):
        rig.distrust(fingerprint_of(left))
    assert rig.told == []


def test_without_the_roots_key_it_is_distrusted_too(rig: Revocations) -> None:
    """It may be destroyed already: it has to certify nothing any more."""
    (root,) = rig.life.authorities.roots
    rig.life.root_key.unlink()
    rig.start()
    assert rig.distrust(fingerprint_of(root)).is_proven
    demand_gone(rig, root)


def long(*phases: str) -> list[object]:
    """The first at every run of the tests; the others take long."""
    first, *others = phases
    return [first, *(pytest.param(one, marks=pytest.mark.soak) for one in others)]


@pytest.mark.parametrize("phase", long(*PHASES))
def test_killed_at_each_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, phase: str) -> None:
    killed_at_each_write(
        tmp_path, monkeypatch, phase, lambda rig: rig.life.authorities.root_line.old
    )


@pytest.mark.parametrize("phase", long(*PHASES[1:]))
def test_killed_at_each_write_where_it_is_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, phase: str
) -> None:
    def new(rig: Revocations) -> x509.Certificate:
        found = rig.life.authorities.root_line.new
        assert found is not None
        return found

    killed_at_each_write(tmp_path, monkeypatch, phase, new)


def killed_at_each_write(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    phase: str,
    choose: Callable[[Revocations], x509.Certificate],
) -> None:
    counted = at(tmp_path / "counted", phase)
    with monkeypatch.context() as patch:
        writes = kill_before_write(10_000, patch)
        counted.distrust(fingerprint_of(choose(counted)))
    assert NAME in writes
    for number in range(len(writes)):
        rig = at(tmp_path / str(number), phase)
        root = choose(rig)
        with monkeypatch.context() as patch:
            kill_before_write(number, patch)
            with pytest.raises(Killed):
                rig.distrust(fingerprint_of(root))
        rig.start()
        if number > writes.index(NAME):
            demand_gone(rig, root)  # the start has finished it, without a word of anybody
        assert verdict(rig, rig.life.svid()) == []
        assert rig.distrust(fingerprint_of(root)).is_proven
        demand_gone(rig, root)
        rig.start()
        demand_gone(rig, root)


def test_a_plan_changes_nothing(rig: Revocations) -> None:
    (root,) = rig.life.authorities.roots
    before = rig.life.files()
    plan = rig.distruster.plan(ADMIN, fingerprint_of(root))
    assert plan.alone == (rig.life.authorities.issuing.key_id,)
    assert rig.life.files() == before
    assert rig.life.acts == []
