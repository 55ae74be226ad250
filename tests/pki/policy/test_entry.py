"""Registration entries: templates that stay in their subtree, entries read whole, and how near one comes."""

from collections.abc import Collection
from contextlib import suppress
from datetime import timedelta
from ipaddress import ip_address
from typing import Any

import msgspec
import pytest
from attrs import evolve
from hypothesis import example, given
from hypothesis import strategies as st

from pki.errors import PkiError, Refused
from pki.issuing.csr import IssuanceRequest
from pki.keys import KeyAlgorithm
from pki.policy.candidates import candidates, grants_by_default, shortfalls
from pki.policy.entry import BadDocument, EntryMembers, RegistrationEntry, read_entry
from pki.policy.id_template import CannotFill, IdTemplate
from pki.policy.selector import Selector
from pki.spiffe import NotASpiffeId, SpiffeId, TrustDomain
from pki.svid.names import IPAddress
from tests.authorities import BACKEND, MESH, key
from tests.pki.strategies import segments, selectors, spiffe_ids, trust_domains

FACTS = ("unix.uid", "unix.user", "systemd.unit", "token")
ALICE = Selector("unix:user", "alice")
UID = Selector("unix:uid", "1000")


def template(text: str, trust_domain: TrustDomain = MESH) -> IdTemplate:
    return IdTemplate.parse(text, trust_domain)


def entry(*needed: str, spiffe_id: str = str(BACKEND), **more: Any) -> RegistrationEntry:
    chosen = needed or (str(UID),)
    return read_entry("e", MESH, EntryMembers(selectors=chosen, spiffe_id=spiffe_id, **more))


def request(
    spiffe_id: SpiffeId = BACKEND,
    dns_names: tuple[str, ...] = (),
    ip_addresses: tuple[IPAddress, ...] = (),
    ttl: timedelta | None = None,
    algorithm: KeyAlgorithm = KeyAlgorithm.EC_P256,
) -> IssuanceRequest:
    public_key = key(0, algorithm).public_key
    return IssuanceRequest(spiffe_id, public_key, dns_names, ip_addresses, ttl, "", "0" * 64)


# Templates

_placeholders = st.builds(
    "{}{{{}}}{}".format, st.just("") | segments, st.sampled_from(FACTS), st.just("") | segments
)
templates = st.builds(
    lambda domain, first, middle, last: IdTemplate(domain, (first, *middle, *last)),
    trust_domains,
    segments.filter(lambda segment: segment != "mesh"),
    st.lists(st.just("*") | segments | _placeholders, max_size=4),
    st.sampled_from([(), ("**",)]),
)


@given(templates)
def test_templates_read_back(made: IdTemplate) -> None:
    assert template(str(made), made.trust_domain) == made
    braces = f"spiffe://{{trust_domain}}/{'/'.join(made.segments)}"
    assert template(braces, made.trust_domain) == made


@given(
    st.text()
    | st.text(max_size=40).map("spiffe://mesh.local/".__add__)
    | st.from_regex(r"spiffe://(mesh\.local|\{trust_domain\}|x|\{token\})[/{}a-z.*]*")
    | st.lists(st.sampled_from(["a", "mesh", "*", "**", "{", "}", "/", "{token}", "."])).map(
        lambda parts: "spiffe://x/" + "".join(parts)
    ),
    st.sampled_from([MESH, TrustDomain("x"), TrustDomain("mesh")]),
)
@example("spiffe://{token}/service", TrustDomain("x"))
@example("spiffe://a{token}/service", TrustDomain("ax"))
@example("spiffe://{trust_domain}{token}/service", TrustDomain("x"))
def test_any_text_is_a_template_that_reads_back_or_is_refused(
    text: str, trust_domain: TrustDomain
) -> None:
    with suppress(PkiError):
        found = template(text, trust_domain)
        written = text.replace("spiffe://{trust_domain}/", f"spiffe://{trust_domain}/", 1)
        assert str(found) == written
        assert template(str(found), trust_domain) == found
        assert found.segments[0] not in ("mesh", "*", "**", "")
        assert "{" not in found.segments[0]


@given(templates, st.sets(selectors))
def test_no_caller_leads_a_template_out_of_its_subtree(
    made: IdTemplate, seen: set[Selector]
) -> None:
    with suppress(CannotFill):
        filled = made.fill(seen)
        assert filled.trust_domain == made.trust_domain
        assert len(filled.segments) == len(made.segments)
        for given_, found in zip(made.segments, filled.segments, strict=True):
            if "{" not in given_:
                assert found == given_
                continue
            head, _, rest = given_.partition("{")
            tail = rest.partition("}")[2]
            assert found.startswith(head) and found.endswith(tail)
            assert not set(found) & set("/%*{}\0\n ")
            assert found not in (".", "..", "*", "**")
        # It is a pattern that could have been written down as it is.
        assert type(filled).parse(str(filled)) == filled


@given(templates, st.sets(selectors), st.sets(selectors))
def test_two_callers_who_differ_in_what_is_asked_for_get_different_ids(
    made: IdTemplate, one: set[Selector], other: set[Selector]
) -> None:
    with suppress(CannotFill):
        first, second = made.fill(one), made.fill(other)
        kinds = {name.replace(".", ":") for name in FACTS if f"{{{name}}}" in str(made)}
        values = [{s for s in seen if s.kind in kinds} for seen in (one, other)]
        assert (first == second) == (values[0] == values[1])


@pytest.mark.parametrize(
    "value",
    [
        "",
        ".",
        "..",
        "...",
        ".hidden",
        "a/b",
        "/a",
        "a/",
        "a/../b",
        "../mesh/ca",
        "%2e",
        "%2e%2e",
        "a%2fb",
        "a\0",
        "\0",
        "a\n",
        "\n",
        "a\rb",
        "Alice",
        "ALICE",
        "a b",
        " a",
        "a*",
        "*",
        "**",
        "{token}",
        "a{unix.uid}",
        "DOMAIN\\alice",
        "alice@realm",
        "\u00e4",
        "\u0131",
        "\u0430lice",
        "a?b",
        "a#b",
        "\ud800",
    ],
)
@pytest.mark.parametrize("text", ["user/{unix.user}", "user/a{unix.user}", "user/{unix.user}/**"])
def test_a_value_that_no_path_segment_may_have_fills_nothing(text: str, value: str) -> None:
    with pytest.raises(CannotFill) as refusal:
        template(f"spiffe://mesh.local/{text}").fill({Selector("unix:user", value)})
    assert str(refusal.value).isprintable()


@pytest.mark.parametrize(
    ("text", "seen", "filled"),
    [
        ("user/{unix.user}", ["unix:user:alice"], "user/alice"),
        ("user/{unix.user}", ["unix:user:_a-b.c", "unix:uid:0"], "user/_a-b.c"),
        ("u/id-{unix.uid}/**", ["unix:uid:1000"], "u/id-1000/**"),
        ("job/{systemd.unit}", ["systemd:unit:api-2.service"], "job/api-2.service"),
        ("edge/{token}/*", ["token:web.1"], "edge/web.1/*"),
        ("u/.{unix.user}.", ["unix:user:a"], "u/.a."),
        ("u/{unix.uid}/{unix.user}", ["unix:user:a", "unix:uid:7"], "u/7/a"),
    ],
)
def test_what_was_seen_is_put_in_place(text: str, seen: list[str], filled: str) -> None:
    found = template(f"spiffe://{{trust_domain}}/{text}").fill(set(map(Selector.parse, seen)))
    assert str(found) == f"spiffe://mesh.local/{filled}"


@pytest.mark.parametrize(
    ("seen", "words"),
    [
        ([], "{token} has no value: no token selector was seen"),
        (["unix:user:alice"], "{token} has no value"),
        (["token:b", "token:a"], "{token} has several values: a, b"),
    ],
)
def test_a_placeholder_without_one_value_fills_nothing(seen: list[str], words: str) -> None:
    with pytest.raises(CannotFill) as refusal:
        template("spiffe://mesh.local/edge/{token}").fill(set(map(Selector.parse, seen)))
    assert words in str(refusal.value)


@pytest.mark.parametrize(
    ("path", "rule"),
    [
        ("", "a workload's ID has a path"),
        ("/", "no empty segments"),
        ("/a/", "no slash at the end"),
        ("/a//b", "no empty segments"),
        ("/a/./b", "no . or .. segments"),
        ("/a/../mesh/ca", "no . or .. segments"),
        ("/a/%2e%2e/b", "letters, digits"),
        ("/a/**/b", "letters, digits"),
        ("/a/b*", "letters, digits"),
        ("/a/*{token}", "letters, digits"),
        ("/a/b\n", "letters, digits"),
        ("/a/b\0", "letters, digits"),
        ("/*", "its first path segment is a word"),
        ("/**", "its first path segment is a word"),
        ("/*/mesh", "its first path segment is a word"),
        ("/{token}", "its first path segment is a word"),
        ("/{unix.user}/x", "its first path segment is a word"),
        ("/m{token}", "its first path segment is a word"),
        ("/mesh{token}/ca", "its first path segment is a word"),
        ("/mesh", "names the mesh itself"),
        ("/mesh/ca", "names the mesh itself"),
        ("/mesh/*", "names the mesh itself"),
        ("/mesh/**", "names the mesh itself"),
        ("/mesh/{unix.user}", "names the mesh itself"),
        ("/mesh/{token}/**", "names the mesh itself"),
        ("/{trust_domain}", "in braces stands one of"),
        ("/{trust_domain}/ca", "in braces stands one of"),
        ("/a/{trust_domain}", "in braces stands one of"),
        ("/a/{}", "in braces stands one of"),
        ("/a/{unix.gid}", "in braces stands one of"),
        ("/a/{Unix.User}", "in braces stands one of"),
        ("/a/{ unix.user }", "in braces stands one of"),
        ("/a/{unix.user", "letters, digits"),
        ("/a/unix.user}", "letters, digits"),
        ("/a/{{unix.user}}", "letters, digits"),
        ("/a/{unix.user}{token}", "one fact of the caller at most"),
        ("/a/{unix.user}-{token}", "one fact of the caller at most"),
    ],
)
@pytest.mark.parametrize("domain", ["mesh.local", "{trust_domain}"])
def test_a_template_that_breaks_a_rule_is_refused(path: str, rule: str, domain: str) -> None:
    with pytest.raises(NotASpiffeId) as refusal:
        template(f"spiffe://{domain}{path}")
    assert rule in str(refusal.value)


@pytest.mark.parametrize(
    "text",
    [
        "spiffe://other.example/service/a",
        "spiffe://{trust_domain}.example/service/a",
        "spiffe://{token}/service/a",
        "spiffe://{unix.user}.local/service/a",
        "spiffe://*/service/a",
        "spiffe:///service/a",
        "{trust_domain}/service/a",
        "/service/a",
        "",
    ],
)
def test_a_template_of_another_trust_domain_is_refused(text: str) -> None:
    with pytest.raises(NotASpiffeId):
        template(text)


@pytest.mark.parametrize("domain", ["mesh", "x", "a"])
def test_a_trust_domain_may_be_called_what_it_likes(domain: str) -> None:
    named = TrustDomain(domain)
    assert str(template(f"spiffe://{domain}/a", named)) == f"spiffe://{domain}/a"
    for text in ("spiffe://{token}/a", "spiffe://{trust_domain}/mesh/a"):
        with pytest.raises(NotASpiffeId):
            template(text, named)


@given(templates, st.sets(selectors))
def test_what_a_caller_can_get_is_covered(made: IdTemplate, seen: set[Selector]) -> None:
    with suppress(CannotFill, NotASpiffeId):
        filled = str(made.fill(seen)).replace("/**", "/x/y").replace("*", "x")
        assert made.covers(SpiffeId.parse(filled))


@given(templates, spiffe_ids)
def test_a_template_without_placeholders_covers_what_it_matches(
    made: IdTemplate, spiffe_id: SpiffeId
) -> None:
    with suppress(CannotFill):
        assert made.covers(spiffe_id) == made.fill(()).matches(spiffe_id)


@pytest.mark.parametrize(
    ("path", "covered"),
    [
        ("/user/a-alice.x/y", True),
        ("/user/a-alice.x/y/z", False),
        ("/user/a-alice.x", False),
        ("/user/a-.x/y", False),
        ("/user/a-..x/y", False),
        ("/user/a-Alice.x/y", False),
        ("/user/a-alice/y", False),
        ("/user/b-alice.x/y", False),
        ("/users/a-alice.x/y", False),
        ("/user/a-/alice.x/y", False),
        ("/mesh/ca", False),
    ],
)
def test_what_no_caller_can_get_is_not_covered(path: str, covered: bool) -> None:
    made = template("spiffe://mesh.local/user/a-{unix.user}.x/*")
    assert made.covers(SpiffeId(MESH, path)) is covered
    assert not made.covers(SpiffeId(TrustDomain("other.example"), path))


# Entries


def test_an_entry_is_read_as_people_write_it() -> None:
    found = read_entry(
        "e1",
        MESH,
        EntryMembers(
            selectors=["unix:uid:1000", "systemd:unit:api.service", "unix:uid:1000"],
            spiffe_id="spiffe://{trust_domain}/service/api",
            dns_names=["api.example", "api.example"],
            ip_addresses=["192.0.2.1", "2001:db8::1"],
            ttl="30m",
            max_ttl="1h",
            keys=["ec-p256", "ec-p384"],
            comment="the API",
        ),
    )
    assert found.selectors == {UID, Selector("systemd:unit", "api.service")}
    assert str(found.spiffe_id) == "spiffe://mesh.local/service/api"
    assert found.dns_names == ("api.example",)
    assert found.ip_addresses == (ip_address("192.0.2.1"), ip_address("2001:db8::1"))
    assert (found.ttl, found.max_ttl) == (timedelta(minutes=30), timedelta(hours=1))
    assert found.keys == (KeyAlgorithm.EC_P256, KeyAlgorithm.EC_P384)
    assert (found.id, found.comment) == ("e1", "the API")


def test_an_entry_without_selectors_is_refused() -> None:
    with pytest.raises(Refused, match="without a selector it would let everybody in"):
        read_entry("e", MESH, EntryMembers(selectors=[], spiffe_id=str(BACKEND)))
    with pytest.raises(ValueError, match="selectors"):
        RegistrationEntry("e", frozenset(), template(str(BACKEND)))


def test_all_problems_of_an_entry_are_told_at_once() -> None:
    with pytest.raises(Refused) as refusal:
        read_entry(
            "e",
            MESH,
            EntryMembers(
                selectors=["unix:uid:1000", "uid:7", "unix:user:"],
                spiffe_id="spiffe://mesh.local/mesh/ca",
                dns_names=["good.example", "*.example", "UPPER.example"],
                ip_addresses=["192.0.2.1", "192.0.2.256", "fe80::1%eth0"],
                ttl="2",
                max_ttl="0s",
                keys=["ec-p256", "ed448"],
                comment="two\nlines",
            ),
        )
    found = [(problem.subject, problem.code) for problem in refusal.value.problems]
    assert found == [
        ("selectors", "unknown-selector"),
        ("selectors", "unknown-selector"),
        ("spiffe_id", "not-a-spiffe-id"),
        ("dns_names", "malformed-dns-name"),
        ("dns_names", "malformed-dns-name"),
        ("ip_addresses", "malformed"),
        ("ip_addresses", "malformed"),
        ("ttl", "malformed"),
        ("max_ttl", "malformed"),
        ("keys", "malformed"),
        ("comment", "malformed"),
    ]
    assert str(refusal.value).isprintable()


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"ttl": "2h", "max_ttl": "1h"}, "2h is more than max_ttl, 1h"),
        ({"selectors": ["unix:uid:1"] * 65}, "there are at most 64 of them, here 65"),
        ({"dns_names": ["a.example"] * 65}, "there are at most 64 of them, here 65"),
        ({"comment": "x" * 201}, "one line of at most 200 characters"),
        ({"comment": "\x1b[31m"}, "one line of at most 200 characters"),
    ],
)
def test_an_entry_beyond_reason_is_refused(more: dict[str, Any], words: str) -> None:
    asked = {"selectors": [str(UID)], "spiffe_id": str(BACKEND), **more}
    with pytest.raises(Refused) as refusal:
        read_entry("e", MESH, EntryMembers(**asked))
    assert words in str(refusal.value)


_texts = st.lists(st.text(max_size=20), max_size=3)


@given(
    _texts,
    st.text(max_size=40),
    _texts,
    _texts,
    st.none() | st.text(max_size=9),
    st.none() | st.from_regex(r"[0-9]{1,9}[smhd]", fullmatch=True),
    _texts,
    st.text(max_size=20),
)
def test_an_entry_of_any_texts_is_read_or_refused(  # noqa: PLR0917
    needed: list[str],
    spiffe_id: str,
    dns_names: list[str],
    ip_addresses: list[str],
    ttl: str | None,
    max_ttl: str | None,
    keys: list[str],
    comment: str,
) -> None:
    with suppress(Refused):
        read_entry(
            "e",
            MESH,
            EntryMembers(
                selectors=needed,
                spiffe_id=spiffe_id,
                dns_names=dns_names,
                ip_addresses=ip_addresses,
                ttl=ttl,
                max_ttl=max_ttl,
                keys=keys,
                comment=comment,
            ),
        )


@given(st.sets(selectors, min_size=1), st.sets(selectors))
def test_all_selectors_must_have_been_seen(needed: set[Selector], seen: set[Selector]) -> None:
    made = RegistrationEntry("e", frozenset(needed), template(str(BACKEND)))
    assert made.is_met_by(seen) == (needed <= seen)
    assert set(made.missing(seen)) == needed - seen
    assert made.is_met_by(seen | needed)


# What an entry buys


@pytest.mark.parametrize(
    ("more", "asked", "rule", "words"),
    [
        (
            {"spiffe_id": "spiffe://mesh.local/service/a"},
            {},
            "ids-granted-only",
            "it buys spiffe://mesh.local/service/a, not",
        ),
        (
            {"spiffe_id": "spiffe://mesh.local/user/{unix.user}"},
            {},
            "ids-granted-only",
            "no unix:user selector was seen",
        ),
        (
            {},
            {"dns_names": ("a.example", "localhost", "b.example")},
            "names-granted-only",
            "the names a.example, b.example",
        ),
        ({}, {"ip_addresses": (ip_address("192.0.2.1"),)}, "names-granted-only", "192.0.2.1"),
        (
            {"dns_names": ["192.example"]},
            {"ip_addresses": (ip_address("2001:db8::1"),)},
            "names-granted-only",
            "2001:db8::1",
        ),
        (
            {"max_ttl": "1h"},
            {"ttl": timedelta(hours=2)},
            "ttl-granted-only",
            "it grants 1h at most, not 2h",
        ),
        ({"keys": ["ec-p384"]}, {}, "keys-granted-only", "it takes keys of ec-p384 only"),
    ],
)
def test_each_shortfall_has_its_rule(
    more: dict[str, Any], asked: dict[str, Any], rule: str, words: str
) -> None:
    (found,) = shortfalls(entry(**more), request(**asked), {UID})
    assert found.rule == rule
    assert words in found.detail


def test_all_shortfalls_are_told_at_once() -> None:
    made = entry(spiffe_id="spiffe://mesh.local/service/a", max_ttl="1h", keys=["ec-p384"])
    asked = request(dns_names=("a.example",), ttl=timedelta(hours=2))
    found = [shortfall.rule for shortfall in shortfalls(made, asked, {UID})]
    assert found == ["ids-granted-only", "names-granted-only", "ttl-granted-only", "keys-granted-only"]  # fmt: skip


def test_what_an_entry_names_is_no_shortfall() -> None:
    made = entry(
        spiffe_id="spiffe://mesh.local/service/**",
        dns_names=["a.example"],
        ip_addresses=["192.0.2.1"],
        max_ttl="1h",
        keys=["ec-p256"],
    )
    asked = request(
        dns_names=("a.example", "localhost", "backend.mesh.local"),
        ip_addresses=(ip_address("192.0.2.1"), ip_address("::1")),
        ttl=timedelta(hours=1),
    )
    assert not list(shortfalls(made, asked, {UID}))
    assert not list(shortfalls(made, None, {UID}))


def test_without_a_request_only_a_template_that_cannot_be_filled_is_told() -> None:
    made = entry(spiffe_id="spiffe://mesh.local/user/{unix.user}", keys=["ec-p384"])
    assert [found.rule for found in shortfalls(made, None, {UID})] == ["ids-granted-only"]
    assert not list(shortfalls(made, None, {UID, ALICE}))


def test_a_renewal_needs_nothing_that_was_seen_at_first() -> None:
    made = entry("unix:user:alice", spiffe_id="spiffe://mesh.local/user/{unix.user}")
    svid = {Selector.parse("x509:spiffe://mesh.local/user/alice")}
    asked = request(SpiffeId.parse("spiffe://mesh.local/user/alice"))
    (renewal,) = candidates([made], asked, svid, "e")
    assert renewal.lets_in
    (stranger,) = candidates([made], asked, svid)
    assert stranger.missing == (ALICE,)
    assert "no unix:user selector was seen" in stranger.shortfalls[0].detail
    # An entry of a file may have another template by now.
    (moved,) = candidates([evolve(made, spiffe_id=template(str(BACKEND)))], asked, svid, "e")
    assert [found.rule for found in moved.shortfalls] == ["ids-granted-only"]


def test_the_nearest_entry_comes_first() -> None:
    entries = [
        evolve(made, id=name)
        for name, made in {
            "a-far": entry("unix:user:bob", "token:x", spiffe_id="spiffe://mesh.local/service/a"),
            "b-missing-one": entry("unix:uid:1000", "token:x"),
            "c-other-id": entry(spiffe_id="spiffe://mesh.local/service/a"),
            "d-wildcard": entry(spiffe_id="spiffe://mesh.local/service/*"),
            "e-literal": entry(),
            "f-literal": entry(),
        }.items()
    ]
    found = candidates(entries, request(), {UID})
    assert [candidate.entry.id for candidate in found] == [
        "e-literal",
        "f-literal",
        "d-wildcard",
        "c-other-id",
        "b-missing-one",
        "a-far",
    ]
    assert [candidate.lets_in for candidate in found] == [True] * 3 + [False] * 3
    assert not candidates([], request(), {UID})


@given(st.sets(selectors, min_size=1, max_size=3), st.sets(selectors, max_size=3))
def test_a_candidate_lets_in_exactly_whom_its_entry_does(
    needed: set[Selector], seen: Collection[Selector]
) -> None:
    made = RegistrationEntry("e", frozenset(needed), template(str(BACKEND)))
    (found,) = candidates([made], request(), seen)
    assert found.lets_in == made.is_met_by(seen)


@pytest.mark.parametrize(
    ("path", "name", "granted"),
    [
        ("/service/backend", "localhost", True),
        ("/service/backend", "backend.mesh.local", True),
        ("/service/backend", "frontend.mesh.local", False),
        ("/service/backend", "backend", False),
        ("/service/backend", "mesh.local", False),
        ("/service/backend", "x.backend.mesh.local", False),
        ("/service/a.b", "a.b.mesh.local", False),
        ("/service/backend/1", "backend.mesh.local", False),
        ("/service", "service.mesh.local", False),
        ("/job/backend", "backend.mesh.local", False),
        ("/service/backend", "127.0.0.1", True),
        ("/service/backend", "127.8.8.8", True),
        ("/service/backend", "::1", True),
        ("/service/backend", "192.0.2.1", False),
        ("/service/backend", "0.0.0.0", False),
        ("/service/backend", "2001:db8::1", False),
    ],
)
def test_names_that_come_without_anybodys_say_so(path: str, name: str, granted: bool) -> None:
    is_address = name[0].isdigit() or ":" in name
    wanted = ip_address(name) if is_address else name
    assert grants_by_default(SpiffeId(MESH, path), wanted) is granted


def test_an_entry_may_name_the_subject_of_the_one_id_that_it_buys() -> None:
    members = EntryMembers(
        selectors=["unix:uid:1"], spiffe_id=f"spiffe://{MESH}/service/db", common_name="db.main"
    )
    named = read_entry("e", MESH, members)
    assert named.common_name == "db.main"
    assert RegistrationEntry.from_document(named.to_document()) == named
    assert named.members().facts()["common_name"] == "db.main"


def test_documents_from_before_there_were_common_names_are_read() -> None:
    members = EntryMembers(selectors=["unix:uid:1"], spiffe_id=f"spiffe://{MESH}/service/db")
    entry = read_entry("e", MESH, members)
    assert b"common_name" not in entry.to_document()
    assert RegistrationEntry.from_document(entry.to_document()) == entry


@pytest.mark.parametrize(
    ("common_name", "path"),
    [
        ("x" * 65, "service/db"),
        (" db", "service/db"),
        ("db\n", "service/db"),
        ("a,CN=b", "service/db"),
        ("d\u00e9", "service/db"),
        ("db", "service/*"),
        ("db", "user/{unix.user}"),
    ],
)
def test_a_common_name_that_none_can_have_is_refused(common_name: str, path: str) -> None:
    members = EntryMembers(
        selectors=["unix:uid:1"], spiffe_id=f"spiffe://{MESH}/{path}", common_name=common_name
    )
    with pytest.raises(Refused) as caught:
        read_entry("e", MESH, members)
    assert [problem.subject for problem in caught.value.problems] == ["common_name"]


NODE = f"spiffe://{MESH}/mesh/agent/node-1"


def test_an_entry_may_count_through_an_agent() -> None:
    members = EntryMembers(
        selectors=["unix:uid:1"], spiffe_id=f"spiffe://{MESH}/service/db", parent=NODE, hint="main"
    )
    entry = read_entry("e", MESH, members)
    assert (str(entry.parent), entry.hint) == (NODE, "main")
    assert entry.members().facts()["parent"] == NODE
    assert RegistrationEntry.from_document(entry.to_document()) == entry


def test_an_entry_may_federate_with_other_trust_domains() -> None:
    members = EntryMembers(
        selectors=["unix:uid:1"],
        spiffe_id=f"spiffe://{MESH}/service/db",
        federates_with=["c.example", "b.example", "c.example"],
    )
    entry = read_entry("e", MESH, members)
    assert entry.federates_with == (TrustDomain("b.example"), TrustDomain("c.example"))
    assert entry.members().facts()["federates_with"] == "b.example, c.example"
    document = entry.to_document()
    assert RegistrationEntry.from_document(document) == entry
    # Whoever federates with nobody is written as before there was federation.
    plain = evolve(entry, federates_with=()).to_document()
    assert b"federates_with" not in plain
    assert RegistrationEntry.from_document(plain).federates_with == ()
    with pytest.raises(BadDocument):
        RegistrationEntry.from_document(document.replace(b'["b.example","c.example"]', b"[]"))


def test_an_entry_may_want_its_selectors_each_time() -> None:
    members = EntryMembers(
        selectors=["unix:uid:1"], spiffe_id=f"spiffe://{MESH}/service/db", reattest=True
    )
    entry = read_entry("e", MESH, members)
    assert entry.reattest and entry.members().facts()["reattest"] == "true"
    document = entry.to_document()
    assert RegistrationEntry.from_document(document) == entry
    assert b"reattest" not in evolve(entry, reattest=False).to_document()
    with pytest.raises(BadDocument):
        RegistrationEntry.from_document(document.replace(b'"reattest":true', b'"reattest":false'))


@pytest.mark.parametrize("selectors", [["token:web"], ["x509:spiffe://mesh.local/a", "token:web"]])
def test_what_is_seen_once_for_all_is_not_wanted_each_time(selectors: list[str]) -> None:
    said = EntryMembers(selectors=selectors, spiffe_id=f"spiffe://{MESH}/service/db", reattest=True)
    with pytest.raises(Refused, match="nothing to be seen anew"):
        read_entry("e", MESH, said)
    with pytest.raises(BadDocument):
        read = read_entry("e", MESH, msgspec.structs.replace(said, reattest=msgspec.UNSET))
        RegistrationEntry.from_document(evolve(read, reattest=True).to_document())


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("parent", "spiffe://other.example/mesh/agent/node-1"),
        ("parent", f"spiffe://{MESH}/service/db"),
        ("parent", f"spiffe://{MESH}/mesh/agent"),
        ("parent", f"{NODE}/x"),
        ("parent", f"{NODE} {NODE}"),
        ("parent", "node-1"),
        ("hint", "x" * 201),
        ("hint", "two\nlines"),
        ("federates_with", [str(MESH)]),
        ("federates_with", ["b.example", "b.example/x"]),
        ("federates_with", [""]),
        ("federates_with", [f"{number}.example" for number in range(65)]),
    ],
)
def test_what_is_no_parent_no_hint_and_no_other_trust_domain_is_refused(
    member: str, value: str | list[str]
) -> None:
    said = {"selectors": ["unix:uid:1"], "spiffe_id": f"spiffe://{MESH}/service/db", member: value}
    with pytest.raises(Refused) as refusal:
        read_entry("e", MESH, EntryMembers(**said))  # type: ignore[arg-type]
    assert [problem.subject for problem in refusal.value.problems] == [member]
