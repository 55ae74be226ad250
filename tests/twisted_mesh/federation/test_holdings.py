"""Bundles of many trust domains, each by itself."""

from collections.abc import Sequence
from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from pki.errors import PkiError
from pki.spiffe import TrustDomain
from pki.svid.bundle import TrustBundle
from pki.svid.federation import root_keys
from tests.authorities import MESH, nameless_root
from twisted_mesh.federation.holdings import Holdings

DOMAINS = tuple(TrustDomain(f"d{n}.example") for n in range(3))
ROOTS = tuple(nameless_root(f"shared {n}") for n in range(4))
OWN = TrustBundle(MESH, ROOTS[:1])

acts = st.lists(
    st.tuples(
        st.sampled_from(DOMAINS),
        st.none() | st.sets(st.integers(0, 3)).map(sorted),
        st.booleans(),
    ),
    max_size=12,
)


@given(acts)
def test_no_root_is_held_for_two_whoever_comes_first(
    acts: Sequence[tuple[TrustDomain, list[int] | None, bool]],
) -> None:
    holdings = Holdings(lambda: OWN)
    for domain, roots, is_too_old in acts:
        before = holdings.latest(domain)
        if roots is None:
            holdings.release(domain)
            assert holdings.latest(domain) is None
            continue
        published = TrustBundle(domain, tuple(ROOTS[n] for n in roots))
        try:
            foreign = holdings.hold(published, is_too_old=is_too_old)
        except PkiError:
            assert 0 in roots
            assert holdings.latest(domain) == before
            continue
        held = holdings.latest(domain)
        assert held is not None
        assert set(held.roots) <= set(published.roots)
        assert len(held.roots) + len(foreign) == len(published.roots)
        assert holdings.believed(domain) == (None if is_too_old else held)
    keys = [root_keys(held) for domain in DOMAINS if (held := holdings.latest(domain))]
    assert all(one.isdisjoint(other) for one, other in combinations([*keys, root_keys(OWN)], 2))
    assert holdings.latest(MESH) == OWN
    believed = {bundle.trust_domain for bundle in holdings.all_believed}
    assert believed == {domain for domain in DOMAINS if holdings.believed(domain)}
