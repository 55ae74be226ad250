"""Each link of a chain says who signed it, or why that cannot be said."""

from collections.abc import Sequence

from cryptography import x509

from pki.inspect.path_report import Link, links
from pki.issuing.profile import ISSUING
from pki.svid.bundle import BundleSet, TrustBundle
from pki.svid.chain import judge
from pki.svid.revocation_set import RevocationSet
from pki.svid.x509svid import Purpose
from tests.authorities import HOUR, NOW, OTHER, forge, forge_issuing, forge_root, key, mesh


def links_of(presented: Sequence[x509.Certificate], bundles: BundleSet) -> tuple[Link, ...]:
    verdict = judge(presented, bundles, RevocationSet(), now=NOW, purpose=Purpose.ANY)
    found = links(verdict, presented, bundles.all_roots, NOW)
    assert verdict.ok is (not any(link.problems for link in found))
    return found


def test_a_good_chain_has_a_good_link_for_each_certificate() -> None:
    found = links_of([mesh().leaf(), mesh().issuing.certificate], mesh().bundles)
    assert [link.certificate.what for link in found] == ["X.509-SVID", "issuing CA", "root CA"]
    assert all(link.signed and link.dates_ok and link.detail == "ok" for link in found)
    assert [link.is_root for link in found] == [False, False, True]


def test_a_missing_issuer_is_said_to_be_missing() -> None:
    (link,) = links_of([mesh().leaf()], mesh().bundles)
    assert (link.signed, link.detail) == (
        None,
        "not checked: no certificate of that name was given",
    )
    assert [problem.code for problem in link.problems] == ["incomplete-chain"]


def test_a_signature_of_another_key_is_told_from_a_missing_issuer() -> None:
    impostor = forge_issuing(forge_root(60), 61)
    (link,) = links_of([forge(impostor), mesh().issuing.certificate], mesh().bundles)
    assert (link.signed, link.detail) == (False, "its signature is not of that issuer's key")


def test_a_root_of_another_trust_domain_signs_and_is_no_help() -> None:
    other = mesh(OTHER)
    forged = forge(other.root)
    _, link = links_of([forged, other.root.certificate], BundleSet.of(mesh().bundle))
    assert link.signed
    (only,) = links_of([forged], BundleSet.of(mesh().bundle, other.bundle))
    assert only.signed
    assert only.detail == "ok, and that does not lead to a root of the leaf's trust domain"


def test_problems_stay_with_their_certificate() -> None:
    expired = forge_issuing(mesh().root, 62, start=NOW - 2 * HOUR, end=NOW - HOUR)
    found = links_of([forge(expired), expired.certificate], mesh().bundles)
    assert [[p.code for p in link.problems] for link in found] == [[], ["expired"], []]
    assert [link.dates_ok for link in found] == [True, False, True]


def test_an_issuing_ca_may_be_given_as_a_root() -> None:
    issuing = mesh().issuing.certificate
    bundles = BundleSet.of(TrustBundle(mesh().trust_domain, (issuing,)))
    _, link = links_of([mesh().leaf()], bundles)
    assert (link.is_root, link.signed, link.detail) == (True, True, "trusted as it is")


def test_a_self_issued_certificate_with_a_foreign_signature_fails() -> None:
    name = mesh().root.certificate.subject
    forged = forge(mesh().issuing, ISSUING, subject=name, issuer_name=name, subject_key=key(63))
    (link,) = links_of([forged], mesh().bundles)
    assert (link.signed, link.detail) == (False, "its signature does not verify")
