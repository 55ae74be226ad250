"""Two trust domains in OpenSSL's one pool of roots: what it lets pass, and which of it is nobody here."""

import pytest

from pki.codes import Code
from pki.spiffe import SpiffePattern
from pki.svid.bundle import BundleSet
from pki.svid.revocation_set import RevocationSet
from pki.svid.x509svid import X509Svid
from twisted_mesh.testing import Member, MemoryCa, shake_hands
from twisted_mesh.tls.veto import openssl_objection
from twisted_mesh.trust.judge import Judge
from twisted_mesh.trust.trust import Trust

THEIRS = MemoryCa("other.example")
#: What the other CA's forger calls its victim.
OURS = MemoryCa("not-other.example")
EVERYBODY = (f"{OURS.trust_domain.id}/**", f"{THEIRS.trust_domain.id}/**")
BOTH = BundleSet.of(OURS.bundle, THEIRS.bundle)


def federating(svid: X509Svid, *allow: str) -> Member:
    """Believes both, and lets in whom ``allow`` names."""
    patterns = tuple(map(SpiffePattern.parse, allow or EVERYBODY))
    return Member(svid, Judge(OURS.clock.now, Trust(BOTH, RevocationSet(), patterns)))


def minted() -> X509Svid:
    """By the other CA, of a name of ours."""
    found = THEIRS.forged("other-domain", "web")
    assert found.spiffe_id == OURS.id("web")
    return found


def test_openssl_alone_would_let_the_other_ca_be_anybody_of_ours() -> None:
    svid = minted()
    chain = (svid.leaf, *svid.intermediates)
    assert openssl_objection(chain, BOTH.all_roots, OURS.clock.now()) is None


@pytest.mark.parametrize("allow", [(), (str(OURS.id("web")),)], ids=["everybody", "that name"])
def test_a_name_of_ours_by_the_other_ca_is_refused_at_either_end(allow: tuple[str, ...]) -> None:
    ours = federating(OURS.issue("web"), *allow)
    posing = federating(minted())
    assert Code.UNKNOWN_AUTHORITY in shake_hands(server=ours, client=posing).codes
    assert shake_hands(server=ours, client=posing).client is None
    assert shake_hands(server=posing, client=ours).server is None


def test_their_own_are_let_in_where_they_are_named_and_nowhere_else() -> None:
    theirs = federating(THEIRS.issue("web"))
    assert shake_hands(federating(OURS.issue("shop")), theirs).ok
    closed = federating(OURS.issue("shop"), EVERYBODY[0])
    assert shake_hands(closed, theirs).codes == [Code.NOT_AUTHORIZED]
