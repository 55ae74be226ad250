"""Selectors: what an attestor can have seen, and nothing that only looks like it."""

from collections.abc import Iterator
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pki.errors import PkiError
from pki.policy.selector import (
    KINDS,
    Selector,
    SelectorKind,
    UnknownSelector,
    declare,
    is_label,
    spoken,
    values_of,
)
from tests.pki.policy.kinds import own_kinds
from tests.pki.strategies import selectors


@given(selectors)
def test_selectors_read_back(selector: Selector) -> None:
    assert Selector.parse(str(selector)) == selector


@given(
    st.text()
    | st.builds("{}:{}".format, st.sampled_from(sorted(KINDS)), st.text(max_size=30))
    | st.from_regex(r"(unix|systemd|token|x509)[a-z:]*:[ -~]*")
)
def test_any_text_is_a_selector_that_reads_back_or_is_refused(text: str) -> None:
    with suppress(PkiError):
        assert str(Selector.parse(text)) == text


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_shown_by_an_example_of_it(kind: str) -> None:
    assert Selector.parse(KINDS[kind].example).kind == kind


@pytest.mark.parametrize(
    ("text", "likely"),
    [
        ("uid:1000", "unix:uid:1000"),
        ("unix:uids:1000", "unix:uid:1000"),
        ("unix:userid:1000", "unix:user:alice"),
        ("unix:username:alice", "unix:user:alice"),
        ("unix-user:alice", "unix:user:alice"),
        ("systemd:units:api.service", "systemd:unit:api.service"),
        ("systemd-unit:api.service", "systemd:unit:api.service"),
        ("Token:web", "token:web"),
        ("tokens:web", "token:web"),
        ("x509svid:spiffe://mesh.local/a", "x509:spiffe://mesh.local/service/api"),
    ],
)
def test_an_unknown_kind_is_refused_with_the_likely_one(text: str, likely: str) -> None:
    with pytest.raises(UnknownSelector, match="is no selector") as refusal:
        Selector.parse(text)
    assert f"did you mean {likely}?" in str(refusal.value)
    assert refusal.value.code == "unknown-selector"


def test_a_kind_like_none_of_ours_is_refused_with_one_of_each_family() -> None:
    with pytest.raises(UnknownSelector) as refusal:
        Selector.parse("tpm:ek:default")
    assert "did you mean" not in str(refusal.value)
    families = {kind.name.partition(":")[0]: kind for kind in reversed(KINDS.values())}
    for kind in families.values():
        assert kind.example in str(refusal.value)


def test_a_kind_of_a_family_that_there_is_is_refused_with_all_of_that_family() -> None:
    with pytest.raises(UnknownSelector) as refusal:
        Selector.parse("unix:pid:1000")
    for kind in KINDS.values():
        assert (kind.example in str(refusal.value)) == kind.name.startswith("unix:")


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        "unix",
        "unix:uid",
        "unix:uid:",
        "unix:uid:-1",
        "unix:uid:+1",
        "unix:uid:01",
        "unix:uid:1_000",
        "unix:uid:1000 ",
        " unix:uid:1000",
        "unix:uid:1000\n",
        "unix:uid:\u0661",
        "unix:uid:4294967295",
        "unix:uid:99999999999",
        "unix:uid:*",
        "UNIX:UID:1000",
        "unix:gid:wheel",
        "unix:user:",
        "unix:user:a b",
        "unix:user:a:b",
        "unix:user:a\0",
        "unix:user:\u00e4",
        "unix:user:" + "a" * 257,
        "systemd:unit:api",
        "systemd:unit:.service",
        "systemd:unit:a/b.service",
        "systemd:unit:../x.service",
        "systemd:unit:api.service\n",
        "token:",
        "token:Web",
        "token:.web",
        "token:a b",
        "token:" + "a" * 65,
        "x509:",
        "x509:spiffe://mesh.local",
        "x509:spiffe://mesh.local/",
        "x509:spiffe://mesh.local/*",
        "x509:spiffe://mesh.local/a/../b",
        "x509:mesh.local/a",
    ],
)
def test_what_is_no_selector_is_refused(text: str) -> None:
    with pytest.raises(UnknownSelector, match="is no selector: "):
        Selector.parse(text)


def test_a_refusal_is_one_printable_line_however_long_the_text() -> None:
    with pytest.raises(UnknownSelector) as refusal:
        Selector.parse("unix:user:\x1b[31m\n" + "\ud800" * 5000)
    assert str(refusal.value).isprintable()
    assert len(str(refusal.value)) < 1500


@given(st.sets(selectors))
def test_all_are_told_in_the_same_order(seen: set[Selector]) -> None:
    assert spoken(seen) == spoken(sorted(seen, reverse=True))
    for kind in KINDS:
        assert all(Selector(kind, value) in seen for value in values_of(kind, seen))
    assert sum(len(values_of(kind, seen)) for kind in KINDS) == len(seen)


def test_nobody_is_told_as_nothing() -> None:
    assert spoken(()) == "nothing"
    assert spoken({Selector("unix:uid", "2"), Selector("token", "a")}) == "token:a, unix:uid:2"


# Kinds that come with an attestor.

POD = SelectorKind("lab:pod", is_label, "lab:pod:web-0")


@pytest.fixture
def _own_kinds() -> Iterator[None]:
    with own_kinds():
        yield


@pytest.mark.usefixtures("_own_kinds")
def test_a_declared_kind_is_one_like_the_others() -> None:
    with pytest.raises(UnknownSelector):
        Selector.parse("lab:pod:web-0")
    declare(POD)
    declare(SelectorKind("lab:pod", is_label, "lab:pod:web-0"))
    assert Selector.parse("lab:pod:api") == Selector("lab:pod", "api")
    assert KINDS["lab:pod"] is POD
    with pytest.raises(UnknownSelector, match="write it like lab:pod:web-0"):
        Selector.parse("lab:pod:WEB")


@pytest.mark.usefixtures("_own_kinds")
@pytest.mark.parametrize("name", ["unix", "unix:uid", "unix:uid:real", "token", "x509:uri"])
def test_a_kind_that_could_be_taken_for_another_is_not_declared(name: str) -> None:
    before = dict(KINDS)
    with pytest.raises(ValueError, match="could be taken for"):
        declare(SelectorKind(name, is_label, f"{name}:x"))
    assert before == KINDS


@pytest.mark.usefixtures("_own_kinds")
@pytest.mark.parametrize("example", ["lab:ns:NO", "other:x", "lab:ns", ""])
def test_a_kind_is_not_declared_with_an_example_that_is_none(example: str) -> None:
    with pytest.raises(ValueError, match="is no example of lab:ns"):
        declare(SelectorKind("lab:ns", is_label, example))
    assert "lab:ns" not in KINDS


@pytest.mark.usefixtures("_own_kinds")
def test_kinds_that_begin_alike_are_told_apart() -> None:
    declare(POD)
    declare(SelectorKind("lab:ns", is_label, "lab:ns:default"))
    assert Selector.parse("lab:ns:pod") == Selector("lab:ns", "pod")
