"""SPIFFE IDs, trust domains and patterns, by the vectors of the SPIFFE-ID specification."""

import re
from contextlib import suppress
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pki.errors import PkiError
from pki.spiffe import NotASpiffeId, SpiffeId, SpiffePattern, TrustDomain
from tests.pki.strategies import segments, spiffe_ids, trust_domains

BOUND = "spiffe://mesh.local/"

patterns = st.builds(
    lambda domain, wanted, rest: SpiffePattern(domain, (*wanted, *rest)),
    trust_domains,
    st.lists(st.just("*") | segments, max_size=4),
    st.sampled_from([(), ("**",)]),
)


@given(spiffe_ids)
def test_spiffe_ids_read_back(spiffe_id: SpiffeId) -> None:
    assert SpiffeId.parse(str(spiffe_id)) == spiffe_id
    if spiffe_id.path:
        assert spiffe_id.trust_domain.member(*spiffe_id.segments) == spiffe_id


@given(trust_domains)
def test_trust_domains_read_back(trust_domain: TrustDomain) -> None:
    assert TrustDomain.parse(str(trust_domain)) == trust_domain
    assert TrustDomain.parse(str(trust_domain.id)) == trust_domain
    assert SpiffeId.parse(str(trust_domain.id)) == trust_domain.id


@given(patterns)
def test_patterns_read_back(pattern: SpiffePattern) -> None:
    assert SpiffePattern.parse(str(pattern)) == pattern


@given(
    st.text()
    | st.text(max_size=40).map(BOUND.__add__)
    | st.from_regex(r"spiffe://[a-z.@:]*/[ -~]*")
)
def test_any_text_is_a_spiffe_id_that_reads_back_or_is_refused(text: str) -> None:
    for kind in (SpiffeId, SpiffePattern):
        with suppress(PkiError):
            assert str(kind.parse(text)) == text
    with suppress(PkiError):
        assert str(TrustDomain.parse(text)) == text.removeprefix("spiffe://")


@pytest.mark.parametrize(
    "text",
    [
        "spiffe://mesh.local",
        "spiffe://mesh.local/service/backend",
        "spiffe://mesh.local/Service/Back-End_1.2",
        "spiffe://mesh.local/...",
        "spiffe://mesh.local/.hidden/..b",
        "spiffe://10.0.0.1/x",
        "spiffe://a_b-c.d/x",
        "spiffe://mesh.local/9eebccd2-12bf-40a6-b262-65fe0487d453",
    ],
)
def test_good_vectors_are_accepted_as_they_stand(text: str) -> None:
    assert str(SpiffeId.parse(text)) == text


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("", "begins with spiffe://"),
        ("mesh.local/service", "begins with spiffe://"),
        ("https://mesh.local/service", "begins with spiffe://"),
        ("SPIFFE://mesh.local/service", "begins with spiffe://"),
        ("Spiffe://mesh.local/service", "begins with spiffe://"),
        ("spiffe:/mesh.local/service", "begins with spiffe://"),
        ("spiffe:mesh.local/service", "begins with spiffe://"),
        (" spiffe://mesh.local/service", "begins with spiffe://"),
        ("spiffe://", "trust domain is empty"),
        ("spiffe:///service", "trust domain is empty"),
        ("spiffe://Mesh.local/service", "lower-case"),
        ("spiffe://mesh.local:8443/service", "a trust domain has only"),
        ("spiffe://mesh.local:/service", "a trust domain has only"),
        ("spiffe://user@mesh.local/service", "a trust domain has only"),
        ("spiffe://user:pass@mesh.local/service", "a trust domain has only"),
        ("spiffe://mesh%2elocal/service", "a trust domain has only"),
        ("spiffe://[::1]/service", "a trust domain has only"),
        ("spiffe://m\u00e9sh.local/service", "a trust domain has only"),
        ("spiffe://\u0455pirit/service", "a trust domain has only"),
        ("spiffe://mesh.local\n", "a trust domain has only"),
        ("spiffe://mesh.local?query", "a trust domain has only"),
        ("spiffe://mesh.local#fragment", "a trust domain has only"),
        ("spiffe://mesh.local\\service", "a trust domain has only"),
        ("spiffe://spiffe://mesh.local/service", "a trust domain has only"),
        ("spiffe://a: b/service", "a trust domain has only"),
        ("spiffe://mesh.local/", "no slash at the end"),
        ("spiffe://mesh.local/service/", "no slash at the end"),
        ("spiffe://mesh.local//service", "no empty segments"),
        ("spiffe://mesh.local/a//b", "no empty segments"),
        ("spiffe://mesh.local/.", "no . or .. segments"),
        ("spiffe://mesh.local/a/./b", "no . or .. segments"),
        ("spiffe://mesh.local/a/../b", "no . or .. segments"),
        ("spiffe://mesh.local/..", "no . or .. segments"),
        ("spiffe://mesh.local/service\n", "letters, digits, dots"),
        ("spiffe://mesh.local/service?x=1", "letters, digits, dots"),
        ("spiffe://mesh.local/service#top", "letters, digits, dots"),
        ("spiffe://mesh.local/%2e%2e/service", "letters, digits, dots"),
        ("spiffe://mesh.local/a%20b", "letters, digits, dots"),
        ("spiffe://mesh.local/a b", "letters, digits, dots"),
        ("spiffe://mesh.local/a;b", "letters, digits, dots"),
        ("spiffe://mesh.local/serv\u0456ce", "letters, digits, dots"),
        ("spiffe://mesh.local/\u0661", "letters, digits, dots"),
        ("spiffe://mesh.local/a\0b", "letters, digits, dots"),
        ("spiffe://mesh.local/*", "letters, digits, dots"),
    ],
)
def test_bad_vectors_are_refused_by_the_rule_that_they_break(text: str, rule: str) -> None:
    with pytest.raises(
        NotASpiffeId, match=f"is not a SPIFFE ID: [^:]*{re.escape(rule)}"
    ) as refusal:
        SpiffeId.parse(text)
    assert refusal.value.code == "not-a-spiffe-id"
    assert str(refusal.value).isprintable()


def test_a_spiffe_id_of_2048_bytes_is_the_longest() -> None:
    longest = BOUND + "a" * (2048 - len(BOUND))
    assert str(SpiffeId.parse(longest)) == longest
    with pytest.raises(NotASpiffeId, match="at most 2048 bytes"):
        SpiffeId.parse(longest + "a")


def test_the_length_is_counted_in_bytes() -> None:
    with pytest.raises(NotASpiffeId, match="at most 2048 bytes"):
        SpiffeId.parse(BOUND + "\u00e9" * 1100)
    with pytest.raises(NotASpiffeId):
        SpiffeId.parse(BOUND + "\ud800")


def test_a_trust_domain_of_255_bytes_is_the_longest() -> None:
    assert TrustDomain.parse("a" * 255).name == "a" * 255
    for text in ("a" * 256, "spiffe://" + "a" * 256):
        with pytest.raises(NotASpiffeId, match="at most 255 bytes"):
            TrustDomain.parse(text)
    with pytest.raises(NotASpiffeId, match="at most 255 bytes"):
        SpiffeId.parse("spiffe://" + "a" * 256 + "/x")


@pytest.mark.parametrize(
    "text", ["spiffe://mesh.local/service", "mesh.local/", "MESH.local", "a b"]
)
def test_what_is_no_trust_domain_is_refused(text: str) -> None:
    with pytest.raises(NotASpiffeId):
        TrustDomain.parse(text)


def test_a_member_is_checked_like_any_other_id() -> None:
    assert str(TrustDomain("mesh.local").member("service", "a")) == "spiffe://mesh.local/service/a"
    for segment in ("", "..", "a/../b", "a b"):
        with pytest.raises(NotASpiffeId):
            TrustDomain("mesh.local").member("service", segment)


def test_what_an_id_says_about_itself() -> None:
    backend = SpiffeId.parse("spiffe://mesh.local/service/backend")
    assert (backend.name, backend.segments) == ("backend", ("service", "backend"))
    assert not backend.is_reserved
    assert not backend.is_ca
    domain = backend.trust_domain.id
    assert (domain.name, domain.segments, domain.is_reserved) == ("", (), False)


@pytest.mark.parametrize(
    ("path", "reserved", "ca"),
    [
        ("/mesh/ca", True, True),
        ("/mesh", True, False),
        ("/mesh/observer/1", True, False),
        ("/mesh/ca/2", True, False),
        ("/meshes/ca", False, False),
        ("/service/mesh", False, False),
    ],
)
def test_the_mesh_keeps_its_own_names_to_itself(path: str, reserved: bool, ca: bool) -> None:
    spiffe_id = SpiffeId.parse(f"spiffe://mesh.local{path}")
    assert (spiffe_id.is_reserved, spiffe_id.is_ca) == (reserved, ca)


@pytest.mark.parametrize(
    ("pattern", "path", "matches"),
    [
        ("/service/backend", "/service/backend", True),
        ("/service/backend", "/service/Backend", False),
        ("/service/*", "/service/backend", True),
        ("/service/*", "/service", False),
        ("/service/*", "/service/a/b", False),
        ("/*/backend", "/service/backend", True),
        ("/*", "/service", True),
        ("/**", "/service/a/b", True),
        ("/**", "/service", True),
        ("/**", "", False),
        ("/service/**", "/service", False),
        ("/service/**", "/service/a", True),
        ("/service/**", "/service/a/b/c", True),
        ("/service/**", "/services/a", False),
        ("/*/a/**", "/x/a/b", True),
        ("/*/a/**", "/x/b/a", False),
        ("", "", True),
        ("", "/service", False),
    ],
)
def test_patterns_match_whole_segments(pattern: str, path: str, matches: bool) -> None:
    wanted = SpiffePattern.parse(f"spiffe://mesh.local{pattern}")
    assert wanted.matches(SpiffeId.parse(f"spiffe://mesh.local{path}")) is matches
    assert not wanted.matches(SpiffeId.parse(f"spiffe://mesh.locals{path}"))


@pytest.mark.parametrize("path", ["/**/a", "/a*", "/*a", "/***", "/a/**/", "/%2a", "/a/?"])
def test_wildcards_elsewhere_are_refused(path: str) -> None:
    with pytest.raises(NotASpiffeId):
        SpiffePattern.parse(f"spiffe://mesh.local{path}")


def test_a_trust_domain_is_never_a_wildcard() -> None:
    with pytest.raises(NotASpiffeId):
        SpiffePattern.parse("spiffe://*/service/a")


@given(spiffe_ids)
def test_an_id_matches_itself_and_two_stars_match_all_below(spiffe_id: SpiffeId) -> None:
    assert SpiffePattern.parse(str(spiffe_id)).matches(spiffe_id)
    below = SpiffePattern(spiffe_id.trust_domain, ("**",))
    assert below.matches(spiffe_id) is bool(spiffe_id.path)


_SEGMENTS = st.lists(st.sampled_from(["a", "b", "*"]), max_size=3)
_PATTERNS = st.builds(
    lambda domain, segments, rest: SpiffePattern(
        TrustDomain(domain), (*segments, *(["**"] if rest else []))
    ),
    st.sampled_from(["mesh.local", "other.example"]),
    _SEGMENTS,
    st.booleans(),
)
_FEW_IDS = [
    SpiffeId(TrustDomain(domain), "".join(f"/{segment}" for segment in segments))
    for domain in ("mesh.local", "other.example")
    for length in range(6)
    for segments in product("abc", repeat=length)
]


@given(_PATTERNS, _PATTERNS)
def test_patterns_overlap_where_there_is_an_id_that_both_mean(
    one: SpiffePattern, other: SpiffePattern
) -> None:
    both = any(one.matches(some) and other.matches(some) for some in _FEW_IDS)
    assert one.overlaps(other) is other.overlaps(one) is both
