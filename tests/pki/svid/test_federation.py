"""Which trust domains can be followed, and which of their bundles are believed."""

from itertools import pairwise

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from pki.errors import PkiError
from pki.jwt_svid.jwks import JwtAuthority
from pki.spiffe import NotASpiffeId, TrustDomain
from pki.svid.bundle import TrustBundle
from pki.svid.federated_document import ForeignRoot
from pki.svid.federation import (
    LONGEST_URL,
    AlteredBundle,
    BadFederation,
    OlderBundle,
    Profile,
    Relationship,
    accept,
    apart,
    endpoint_url,
    root_keys,
)
from tests.authorities import MESH, OTHER, key, mesh

THIRD = TrustDomain("third.example")
URL = "https://ca.other.example/bundle"
ENDPOINT = "spiffe://other.example/mesh/ca"
ROOTS = tuple(mesh(OTHER, key(f"other {n}")).root.certificate for n in range(3))
JWT_KEYS = tuple(
    JwtAuthority.of(key(f"other jwt {n}").public_key)  # type: ignore[arg-type]
    for n in range(2)
)


def parse(
    url: str = URL,
    profile: str = "https_spiffe",
    endpoint_id: str | None = ENDPOINT,
    crl_url: str | None = None,
    *,
    trust_domain: str = str(OTHER),
    held: frozenset[TrustDomain] = frozenset(),
    has_bundle: bool = True,
) -> Relationship:
    return Relationship.parse(
        trust_domain, url, profile, endpoint_id, crl_url, own=MESH, held=held, has_bundle=has_bundle
    )


def test_https_spiffe_takes_the_endpoints_id_and_a_bundle_to_begin_with() -> None:
    found = parse(crl_url="http://ca.other.example/crl")
    assert found == Relationship(
        OTHER, URL, Profile.HTTPS_SPIFFE, OTHER.member("mesh", "ca"), "http://ca.other.example/crl"
    )
    assert found.is_self_serving
    # Without another file where one is held by now: what was followed is said anew.
    assert parse(held=frozenset([OTHER]), has_bundle=False) == parse()


def test_https_web_takes_a_url_and_nothing_more() -> None:
    found = parse(profile="https_web", endpoint_id=None, has_bundle=False)
    assert found == Relationship(OTHER, URL, Profile.HTTPS_WEB)
    assert not found.is_self_serving
    for more in ({"endpoint_id": ENDPOINT, "has_bundle": False}, {"endpoint_id": None}):
        with pytest.raises(BadFederation, match="a URL and nothing more"):
            parse(profile="https_web", **more)  # type: ignore[arg-type]


def test_another_domain_whose_bundle_is_held_may_have_the_bundle() -> None:
    for held, endpoint in ((THIRD, "spiffe://third.example/hub"), (MESH, f"spiffe://{MESH}/hub")):
        found = parse(endpoint_id=endpoint, held=frozenset([held]) - {MESH}, has_bundle=False)
        assert not found.is_self_serving
    with pytest.raises(BadFederation, match=r"federate with third\.example first"):
        parse(endpoint_id="spiffe://third.example/hub")


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        ({"endpoint_id": None}, "demands the SPIFFE ID"),
        ({"has_bundle": False}, "demands a bundle of other.example"),
        ({"endpoint_id": "spiffe://other.example"}, "has no path"),
        ({"trust_domain": str(MESH)}, "our own trust domain"),
        ({"trust_domain": f"spiffe://{MESH}"}, "our own trust domain"),
        ({"profile": "https"}, "no profile"),
        ({"profile": "HTTPS_WEB"}, "no profile"),
        ({"profile": ""}, "no profile"),
        ({"crl_url": "https://other.example/crl"}, "--crl-url .* is not http"),
        ({"crl_url": "/crl"}, "--crl-url"),
    ],
    ids=str,
)
def test_what_cannot_be_followed_is_said(said: dict[str, str], answer: str) -> None:
    with pytest.raises(BadFederation, match=answer):
        parse(**said)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "said",
    [{"trust_domain": "Other"}, {"trust_domain": ""}, {"endpoint_id": "https://other.example/ca"}],
    ids=str,
)
def test_names_are_read_as_everywhere(said: dict[str, str]) -> None:
    with pytest.raises(NotASpiffeId):
        parse(**said)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("url", "host", "port"),
    [
        ("https://ca.example", "ca.example", 443),
        ("https://ca.example:8443/a/b.json?c=d", "ca.example", 8443),
        ("https://[::1]:8443/", "::1", 8443),
        ("https://192.0.2.1/bundle", "192.0.2.1", 443),
        ("HTTPS://CA.example/Bundle", "ca.example", 443),
    ],
)
def test_an_endpoints_url_names_a_host_and_a_port(url: str, host: str, port: int) -> None:
    assert endpoint_url(url) == (host, port)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "ca.example",
        "http://ca.example/",
        "https:///bundle",
        "https://",
        "https:ca.example",
        "https://user@ca.example/",
        "https://user:word@ca.example/",
        "https://@ca.example/",
        "https://ca.example/#part",
        "https://ca.example:0/",
        "https://ca.example:65536/",
        "https://ca.example:https/",
        "https://[::1/",
        "https://ca example/",
        "https://ca.example/a b",
        "https://ca.example/\r\nhost: other",
        "https://ca.example\\@other.example/",
        "https://k\u00e4se.example/",
        "https://ca.example/" + "x" * LONGEST_URL,
        "spiffe://other.example/bundle",
        "file:///bundle",
    ],
)
def test_what_is_no_endpoints_url_is_refused(url: str) -> None:
    with pytest.raises(BadFederation) as refusal:
        endpoint_url(url)
    assert str(refusal.value).isprintable()


@given(st.text() | st.text().map("https://{}".format))
def test_any_text_is_an_endpoints_url_or_refused(text: str) -> None:
    try:
        host, port = endpoint_url(text)
    except BadFederation:
        return
    assert host
    assert 0 < port < 65536


def bundle(sequence: int, *roots: int, jwt: int = 0, hint: int | None = None) -> TrustBundle:
    return TrustBundle(OTHER, tuple(ROOTS[n] for n in roots), sequence, hint, JWT_KEYS[:jwt])


def test_the_first_bundle_is_believed() -> None:
    assert accept(None, bundle(0)) == bundle(0)


def test_a_sequence_number_never_goes_back_by_itself() -> None:
    for sequence in (6, 0):
        older = bundle(sequence, 1)
        with pytest.raises(OlderBundle, match=f"from number 7 to {sequence}") as refusal:
            accept(bundle(7, 0), older)
        assert refusal.value.code == "older-bundle"
        assert accept(bundle(7, 0), older, accept_older=True) == older


def test_one_number_has_one_content() -> None:
    held = bundle(7, 0, 1, jwt=1)
    assert accept(held, bundle(7, 1, 0, jwt=1, hint=60)) == bundle(7, 1, 0, jwt=1, hint=60)
    for other in (bundle(7, 0, jwt=1), bundle(7, 0, 1, 2, jwt=1), bundle(7, 0, 1), bundle(7)):
        with pytest.raises(AlteredBundle, match="the same number 7") as refusal:
            accept(held, other)
        assert refusal.value.code == "altered-bundle"
        assert accept(held, other, accept_older=True) == other


def test_without_a_number_the_last_that_came_is_the_newest() -> None:
    assert accept(bundle(0, 0), bundle(0, 1)) == bundle(0, 1)
    assert accept(bundle(0, 0), bundle(3, 1)) == bundle(3, 1)


def test_no_keys_at_all_are_an_answer_too() -> None:
    assert accept(bundle(7, 0, 1), bundle(8)) == bundle(8)


published = st.builds(
    lambda sequence, roots, jwt: bundle(sequence, *sorted(roots), jwt=jwt),
    st.integers(0, 4),
    st.sets(st.integers(0, 2)),
    st.integers(0, 2),
)


@given(st.lists(published, min_size=1))
def test_what_is_held_has_never_a_smaller_number_than_before(fetched: list[TrustBundle]) -> None:
    held: TrustBundle | None = None
    seen = []
    for found in fetched:
        try:
            held = accept(held, found)
        except PkiError:
            assert accept(held, found, accept_older=True) is found
        else:
            assert held is found
            seen.append(found)
    for before, after in pairwise(seen):
        assert before.sequence <= after.sequence
        if before.sequence == after.sequence != 0:
            assert set(before.roots) == set(after.roots)


def test_what_is_nobody_elses_is_believed() -> None:
    own = root_keys(mesh().bundle)
    assert apart(bundle(7, 0, 1), own, {}) == (bundle(7, 0, 1), ())
    holders = dict.fromkeys(root_keys(bundle(7, 0, 1)), OTHER)
    assert apart(bundle(8, 0, 1, 2), own, holders) == (bundle(8, 0, 1, 2), ())


def test_a_root_that_names_another_domain_has_the_bundle_refused_wherever_it_comes_from() -> None:
    """From a file in PEM, say, which nobody has read key by key."""
    third = TrustBundle(OTHER, (ROOTS[0], mesh(THIRD).root.certificate))
    with pytest.raises(ForeignRoot, match=r"says that it is third\.example's"):
        apart(third, frozenset(), {})


def test_our_own_root_under_another_name_has_the_bundle_refused() -> None:
    """By its key: a certificate is soon made anew."""
    ours = mesh(MESH)
    own = root_keys(ours.bundle)
    anew = mesh(OTHER, key(f"root of {MESH}")).root.certificate
    for root in (ours.root.certificate, anew):
        with pytest.raises(ForeignRoot, match="one of our own"):
            apart(evolve(bundle(7, 0), roots=(ROOTS[0], root)), own, {})


def test_a_third_domains_root_loses_its_place_and_no_more() -> None:
    holders = dict.fromkeys(root_keys(bundle(7, 1)), THIRD)
    believed, problems = apart(bundle(7, 0, 1), frozenset(), holders)
    assert believed == bundle(7, 0)
    assert [problem.code for problem in problems] == ["foreign-root"]
    assert "held for third.example already" in problems[0].detail
    assert apart(bundle(7, 1), frozenset(), holders)[0] == bundle(7)
