"""What is at hand though a peer has not sent it: it mends a path to a root that is believed no more, and no other."""

import asyncio
from collections.abc import Sequence

import pytest
from cryptography import x509

from pki.issuing.authority import Authority
from pki.spiffe import TrustDomain
from pki.svid.bundle import BundleSet, TrustBundle
from pki.svid.chain import Verdict, judge
from pki.svid.revocation_set import RevocationSet
from pki.svid.x509svid import Purpose
from tests.authorities import BACKEND, HOUR, MESH, NOW, forge, key, mesh, overlap, revocation_of

BOTH = overlap()
LEAF = asyncio.run(BOTH.by_old.sign(BOTH.by_old.draft(key(9).public_key, BACKEND, NOW, HOUR)))
BY_OLD, BY_NEW = BOTH.by_old.certificate, BOTH.by_new.certificate
AS_SENT = (LEAF, BY_OLD)


def judged(
    sent: Sequence[x509.Certificate],
    roots: Sequence[Authority],
    beside: Sequence[x509.Certificate],
    revoked: RevocationSet | None = None,
    trust_domain: TrustDomain = MESH,
) -> Verdict:
    bundle = TrustBundle(trust_domain, tuple(root.certificate for root in roots))
    return judge(
        sent,
        BundleSet.of(bundle),
        revoked or RevocationSet(),
        now=NOW,
        purpose=Purpose.CLIENT,
        beside=beside,
    )


def codes(verdict: Verdict) -> list[str]:
    return [problem.code for problem in verdict.problems]


def test_a_path_to_a_root_that_has_gone_is_mended_by_the_other_certificate_of_the_same_key() -> (
    None
):
    assert codes(judged(AS_SENT, [BOTH.new], ())) == ["unknown-authority"]
    verdict = judged(AS_SENT, [BOTH.new], [BY_NEW])
    assert verdict.ok
    assert verdict.path == (LEAF, BY_NEW, BOTH.new.certificate)


@pytest.mark.parametrize("roots", [[BOTH.old], [BOTH.old, BOTH.new]])
def test_what_was_sent_comes_first(roots: list[Authority]) -> None:
    assert judged(AS_SENT, roots, [BY_NEW]).path == (LEAF, BY_OLD, BOTH.old.certificate)


def test_it_is_no_root() -> None:
    assert codes(judged(AS_SENT, [mesh().root], [BY_NEW, BY_OLD])) == ["unknown-authority"]


def test_nobody_is_believed_by_it_whose_leaf_another_key_has_signed() -> None:
    for sent in ((forge(mesh().issuing), mesh().issuing.certificate), (forge(mesh().issuing),)):
        without = judged(sent, [BOTH.new], ())
        assert judged(sent, [BOTH.new], [BY_NEW]).problems == without.problems
        assert not without.ok


@pytest.mark.parametrize("sent", [(LEAF,), (LEAF, mesh().issuing.certificate)])
def test_who_has_not_sent_the_issuer_is_not_helped(sent: tuple[x509.Certificate, ...]) -> None:
    verdict = judged(sent, [BOTH.new], [BY_NEW])
    assert not verdict.ok
    assert verdict.problems == judged(sent, [BOTH.new], ()).problems


def test_it_may_be_revoked_like_any_other() -> None:
    revoked = RevocationSet().merged([revocation_of(BOTH.new, BY_NEW)], NOW)
    assert codes(judged(AS_SENT, [BOTH.new], [BY_NEW], revoked)) == ["revoked"]


def test_a_revoked_path_is_not_mended() -> None:
    revoked = RevocationSet().merged([revocation_of(BOTH.old, BOTH.old.certificate)], NOW)
    assert codes(judged(AS_SENT, [BOTH.old, BOTH.new], [BY_NEW], revoked)) == ["revoked"]


def test_it_vouches_for_nobody_of_another_trust_domain() -> None:
    other = TrustDomain("other.example")
    assert codes(judged(AS_SENT, [BOTH.new], [BY_NEW], trust_domain=other)) == [
        "unknown-trust-domain"
    ]
