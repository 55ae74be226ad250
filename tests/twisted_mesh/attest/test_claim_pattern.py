"""What claims must be: paths, patterns and their bounds."""

import fnmatch
import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pki.errors import Malformed
from twisted_mesh.attest.claim_pattern import ClaimPath, ClaimPattern, claim_rules


@pytest.mark.parametrize(
    ("pattern", "value", "is_so"),
    [
        ("org/api", "org/api", True),
        ("org/api", "org/API", False),
        ("org/api", "org/api\n", False),
        ("org/*", "org/api", True),
        ("org/*", "org/", True),
        ("org/*", "org/a/b", False),
        ("org/*", "organisation/api", False),
        ("org/*", "evil/org/api", False),
        ("org*", "org-evil/api", False),
        ("*", "anything", True),
        ("*", "any/thing", False),
        ("**", "any/thing", True),
        ("**", "", True),
        ("refs/**", "refs/heads/x/y", True),
        ("refs/**", "refs", False),
        ("refs/**", "refs/", False),
        ("refs/heads/v*.*-x", "refs/heads/v1.2-x", True),
        ("refs/heads/v*.*-x", "refs/heads/v12-x", False),
        ("aa*aa", "aaa", False),
        ("a*b*b", "ab", False),
        ("repo:org/*:ref:refs/heads/main", "repo:org/api:ref:refs/heads/main", True),
        ("[a-z]", "b", False),
        ("?", "b", False),
    ],
)
def test_a_star_is_anything_without_a_slash(pattern: str, value: str, is_so: bool) -> None:
    assert ClaimPattern.parse(pattern, "x").matches(value) is is_so


@given(
    st.text("ab*", min_size=1, max_size=8).filter(lambda text: "**" not in text),
    st.text("ab", max_size=10),
)
def test_without_slashes_it_is_what_everybody_means(pattern: str, value: str) -> None:
    assert ClaimPattern.parse(pattern, "x").matches(value) is fnmatch.fnmatchcase(value, pattern)


@given(
    st.lists(
        st.text("a*", max_size=4).filter(lambda text: "**" not in text), min_size=1, max_size=4
    ),
    st.booleans(),
    st.text("a/", max_size=12),
)
def test_it_says_what_a_regular_expression_says(parts: list[str], below: bool, value: str) -> None:
    text = "/".join([*parts, *(["**"] if below else [])])
    if not text:
        return
    body = "/".join(re.escape(part).replace(r"\*", "[^/]*") for part in parts)
    expression = f"{body}(/[^/]+)+" if below else body
    wanted = re.fullmatch(expression, value) is not None
    assert ClaimPattern.parse(text, "x").matches(value) is wanted


def test_no_value_makes_it_look_for_long() -> None:
    pattern = ClaimPattern.parse("*a" * 200, "x")
    started = time.process_time()
    assert not pattern.matches("a" * 16_000 + "b")
    assert time.process_time() - started < 0.5


@pytest.mark.parametrize("text", ["", "a**", "**/a", "a/**/b", "***", "a/***"])
def test_what_is_no_pattern_is_refused(text: str) -> None:
    with pytest.raises(Malformed, match=r"^here: "):
        ClaimPattern.parse(text, "here")


CLAIMS = {
    "repository": "org/api",
    "protected": True,
    "run": 7,
    "share": 0.5,
    "nothing": None,
    "groups": ["ops", "dev", 3, None, {"a": 1}],
    "realm_access": {"roles": ["admin"]},
    "https://example/team": "mesh",
    "a/b": "slash",
    "a~b": "tilde",
    "long": "x" * 513,
    "many": ["x"] * 65,
}


@pytest.mark.parametrize(
    ("path", "values"),
    [
        ("repository", ("org/api",)),
        ("protected", ("true",)),
        ("run", ("7",)),
        ("share", ()),
        ("nothing", ()),
        ("missing", ()),
        ("groups", ("ops", "dev", "3")),
        ("/realm_access/roles", ("admin",)),
        ("/realm_access/roles/x", ()),
        ("realm_access", ()),
        ("https://example/team", ("mesh",)),
        ("/a~1b", ("slash",)),
        ("/a~0b", ("tilde",)),
        ("long", ()),
        ("many", ()),
    ],
)
def test_what_a_claim_says(path: str, values: tuple[str, ...]) -> None:
    found = ClaimPath.parse(path, "x")
    assert (str(found), found.values(CLAIMS)) == (path, values)


@pytest.mark.parametrize("text", ["", "/", "//", "/a//b", "/a" * 9])
def test_what_names_no_claim_is_refused(text: str) -> None:
    with pytest.raises(Malformed, match=r"^here: "):
        ClaimPath.parse(text, "here")


def test_one_of_its_values_has_to_be_one_of_these() -> None:
    (rule,) = claim_rules({"groups": ["admin", "op*"]}, "x")
    assert rule.allows(CLAIMS)
    assert not rule.allows({**CLAIMS, "groups": ["dev"]})
    assert not rule.allows({})
    (truth,) = claim_rules({"protected": "true"}, "x")
    assert truth.allows(CLAIMS) and not truth.allows({"protected": "yes"})


def test_a_claim_that_allows_nothing_is_a_mistake() -> None:
    with pytest.raises(Malformed, match="groups: it allows nothing"):
        claim_rules({"groups": []}, "[oidc.x] claims")
