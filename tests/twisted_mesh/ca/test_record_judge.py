"""The judge of the CA's own port: what it forgives, to whom, and that it is nothing else."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from attrs import evolve
from cryptography import x509

from pki.spiffe import SpiffePattern
from pki.svid.bundle import BundleSet, TrustBundle
from pki.svid.revocation_set import Reason, Revocation, RevocationSet
from pki.svid.x509svid import Purpose
from tests.authorities import BACKEND, HOUR, MESH, NOW, forge_issuing, forge_root, mesh
from twisted_mesh.ca.record_judge import RecordJudge
from twisted_mesh.ca.revoked_authorities import RevokedAuthority
from twisted_mesh.trust.connections import Peer
from twisted_mesh.trust.trust import Trust

HOME = mesh()
ROOT, ISSUING = HOME.root.certificate, HOME.issuing.certificate
LATER = forge_root()
EVERYBODY = (SpiffePattern.parse(f"{MESH.id}/**"),)


def judge(
    *rows: RevokedAuthority,
    besides: Sequence[Revocation] = (),
    roots: Sequence[x509.Certificate] = (ROOT,),
    now: datetime = NOW,
) -> RecordJudge:
    revoked = RevocationSet().merged([*(row.revocation for row in rows), *besides], now)
    trust = Trust(BundleSet.of(TrustBundle(MESH, tuple(roots))), revoked, EVERYBODY)
    return RecordJudge(lambda: now, trust, revoked=lambda: rows)


def row(certificate: x509.Certificate) -> RevokedAuthority:
    return RevokedAuthority.of(certificate, ROOT, NOW, Reason.CA_COMPROMISE, "a test")


def only_renews(by: RecordJudge, *chain: x509.Certificate) -> bool | list[str]:
    """Whether a chain is let in for that alone; what is wrong with it where it is not let in."""
    verdict = by.verdict(chain, Purpose.CLIENT)
    if not verdict.ok:
        return [str(problem.code) for problem in verdict.problems]
    assert verdict.spiffe_id is not None
    return by.only_renews(Peer(verdict.spiffe_id, verdict.path, lambda: None, 0))  # type: ignore[arg-type,return-value]


def test_without_a_revoked_ca_it_is_a_judge_like_any_other() -> None:
    assert only_renews(judge(), HOME.leaf(), ISSUING) is False
    assert only_renews(judge(), HOME.leaf()) == ["incomplete-chain"]


def test_it_forgives_that_the_issuing_ca_is_revoked() -> None:
    assert only_renews(judge(row(ISSUING)), HOME.leaf(), ISSUING) is True


def test_it_forgives_that_the_root_is_distrusted_and_gone() -> None:
    distrusted = row(ROOT)
    assert only_renews(judge(distrusted), HOME.leaf(), ISSUING) is True
    gone = judge(distrusted, roots=[LATER.certificate])
    assert only_renews(gone, HOME.leaf(), ISSUING) is True


def test_a_root_that_is_gone_and_not_distrusted_is_unknown() -> None:
    by = judge(row(ISSUING), roots=[LATER.certificate])
    assert only_renews(by, HOME.leaf(), ISSUING) == ["unknown-authority"]


def test_a_leaf_that_is_revoked_is_not_forgiven() -> None:
    leaf = HOME.leaf()
    revoked = Revocation(
        HOME.issuing.key_id, leaf.serial_number, NOW, Reason.KEY_COMPROMISE, NOW + HOUR
    )
    found = only_renews(judge(row(ISSUING), besides=[revoked]), leaf, ISSUING)
    assert found == ["revoked", "revoked"]


def test_a_leaf_that_has_ended_is_not_forgiven() -> None:
    leaf = HOME.leaf()
    by = judge(row(ISSUING), now=NOW + 2 * HOUR)
    found = only_renews(by, leaf, ISSUING)
    assert isinstance(found, list)
    assert "expired" in found


def test_a_ca_of_another_is_not_forgiven_that_it_is_revoked() -> None:
    """Only what this CA has revoked itself: others may be revoked by whoever is heard besides."""
    other = forge_issuing(HOME.root)
    revoked = Revocation(
        HOME.root.key_id, other.certificate.serial_number, NOW, Reason.UNSPECIFIED, NOW + HOUR
    )
    leaf = evolve(HOME, issuing=other).leaf()
    by = judge(besides=[revoked])
    assert only_renews(by, leaf, other.certificate) == ["revoked"]


def test_an_impostor_of_its_name_is_unknown() -> None:
    twin = forge_root("a twin's")
    impostor = forge_issuing(twin)
    leaf = evolve(HOME, issuing=impostor).leaf()
    by = judge(row(ROOT), row(ISSUING), roots=[LATER.certificate])
    found = only_renews(by, leaf, impostor.certificate)
    assert isinstance(found, list)
    assert found


def test_what_is_open_is_held_to_it_too() -> None:
    """A connection from before the revocation is good for no more than one from after it."""
    by = judge()
    leaf = HOME.leaf()
    assert only_renews(by, leaf, ISSUING) is False
    path = by.verdict([leaf, ISSUING], Purpose.CLIENT).path
    peer = Peer(BACKEND, path, lambda: None, 0)  # type: ignore[arg-type,return-value]
    revoked = row(ISSUING)
    by.revoked = lambda: [revoked]
    merged = by.trust.revocations.merged([revoked.revocation], NOW + timedelta(seconds=1))
    by.trust = evolve(by.trust, revocations=merged)
    assert by.only_renews(peer)
