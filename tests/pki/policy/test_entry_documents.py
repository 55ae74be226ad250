"""Registration entries as they are kept: what is written is read back, and nothing else is read."""

import json
from datetime import timedelta
from ipaddress import ip_address

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pki.errors import PkiError
from pki.keys import KeyAlgorithm
from pki.policy.entry import BadDocument, EntryMembers, RegistrationEntry, read_entry
from pki.policy.id_template import IdTemplate
from pki.policy.selector import Selector
from pki.spiffe import RESERVED_SEGMENT, SpiffeId, TrustDomain
from tests.pki.strategies import mutated, segments, trust_domains

SELECTORS = [
    "unix:uid:1000",
    "unix:gid:0",
    "unix:user:DOMAIN\\alice",
    "systemd:unit:api@1.service",
    "token:web",
    "x509:spiffe://mesh.local/service/api",
]
FIRST = segments.filter(lambda segment: segment != RESERVED_SEGMENT)
OTHERS = [TrustDomain("b.example"), TrustDomain("c.example")]
SECONDS = st.integers(1, 999_999_999)


@st.composite
def entries(draw: st.DrawFn) -> RegistrationEntry:
    domain = draw(trust_domains)
    rest = [*draw(st.lists(segments, max_size=3)), draw(st.sampled_from(["*", "**", "{token}"]))]
    template = "/".join([f"spiffe://{domain}", draw(FIRST), *rest[: draw(st.integers(0, 4))]])
    ttl, most = sorted([draw(SECONDS), draw(SECONDS)])
    some = st.sampled_from([None, 1])
    selectors = frozenset(
        map(Selector.parse, draw(st.sets(st.sampled_from(SELECTORS), min_size=1)))
    )
    return RegistrationEntry(
        draw(st.text("0123456789abcdef", min_size=16, max_size=16)),
        selectors,
        IdTemplate.parse(template, domain),
        tuple(draw(st.lists(st.sampled_from(["a.example", "b", "xn--c"]), unique=True))),
        tuple(draw(st.lists(st.ip_addresses(), max_size=3, unique=True))),
        draw(some) and timedelta(seconds=ttl),
        draw(some) and timedelta(seconds=most),
        tuple(draw(st.lists(st.sampled_from(KeyAlgorithm), unique=True))),
        draw(st.text(max_size=200).filter(str.isprintable)),
        parent=draw(st.sampled_from([None, domain.member("mesh", "agent", "node-1")])),
        hint=draw(st.text(max_size=200).filter(str.isprintable)),
        federates_with=tuple(sorted(draw(st.sets(st.sampled_from(OTHERS))))),
        reattest=any(s.kind not in ("token", "x509") for s in selectors) and draw(st.booleans()),
    )


AGENT = SpiffeId.parse("spiffe://mesh.local/mesh/agent/node-1")
GOOD = read_entry(
    "00112233aabbccdd",
    TrustDomain("mesh.local"),
    EntryMembers(
        selectors=["unix:uid:1000", "token:web"],
        spiffe_id="spiffe://{trust_domain}/service/{token}",
        dns_names=["web.example"],
        ip_addresses=["2001:db8::1"],
        ttl="30m",
        max_ttl="1h",
        keys=["ec-p256"],
        comment="für das Netz",
    ),
)


@given(entries())
def test_what_is_written_is_read_back(entry: RegistrationEntry) -> None:
    assert RegistrationEntry.from_document(entry.to_document()) == entry


@pytest.mark.parametrize("is_ban", [False, True], ids=["agent", "ban"])
def test_what_buys_and_bans_an_agent_is_read_back(is_ban: bool) -> None:
    entry = RegistrationEntry.of_agent("00112233aabbccdd", AGENT, is_ban=is_ban)
    assert (entry.agent, entry.is_of_token) == ("node-1", not is_ban)
    assert RegistrationEntry.from_document(entry.to_document()) == entry
    assert ("banned" in entry.members().facts()) is is_ban


@pytest.mark.parametrize(
    "changes",
    [
        {"selectors": ["unix:uid:0"]},
        {"selectors": []},
        {"spiffe_id": "spiffe://mesh.local/mesh/ca"},
        {"spiffe_id": "spiffe://mesh.local/mesh/agent/*"},
        {"spiffe_id": "spiffe://mesh.local/service/web"},
        {"agent": "node-2"},
        {"agent": ""},
        {"agent": None},
        {"dns_names": ["a.example"]},
        {"parent": "spiffe://mesh.local/mesh/agent/node-2"},
        {"banned": False},
        {"banned": "true"},
        {"id": "ffffffffffffffff"},
    ],
    ids=str,
)
def test_nothing_else_is_made_an_agents_by_what_it_says(changes: dict[str, object]) -> None:
    document = json.loads(RegistrationEntry.of_agent("00112233aabbccdd", AGENT).to_document())
    forged = json.dumps(document | changes, sort_keys=True, separators=(",", ":")).encode()
    with pytest.raises(BadDocument):
        RegistrationEntry.from_document(forged)


def test_the_document_is_canonical_json() -> None:
    assert GOOD.to_document().decode() == (
        '{"comment":"für das Netz","dns_names":["web.example"],"id":"00112233aabbccdd",'
        '"ip_addresses":["2001:db8::1"],"keys":["ec-p256"],"max_ttl":"1h",'
        '"selectors":["token:web","unix:uid:1000"],'
        '"spiffe_id":"spiffe://mesh.local/service/{token}","ttl":"30m"}'
    )


def test_its_members_are_what_an_entry_is_read_from() -> None:
    members = GOOD.members()
    assert read_entry(members.id, TrustDomain("mesh.local"), members) == GOOD


@given(st.one_of(st.binary(max_size=300), mutated(GOOD.to_document())))
def test_nothing_else_is_read(document: bytes) -> None:
    try:
        entry = RegistrationEntry.from_document(document)
    except PkiError as error:
        assert isinstance(error, BadDocument)
    else:
        assert entry.to_document() == document


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("selectors", []),
        ("selectors", ["unix:shoe:44"]),
        ("selectors", ["unix:uid:1000", "token:web"]),
        ("spiffe_id", "spiffe://mesh.local/mesh/ca"),
        ("spiffe_id", "spiffe://mesh.local"),
        ("spiffe_id", "http://mesh.local/service/web"),
        ("spiffe_id", "spiffe://{trust_domain}/service/web"),
        ("dns_names", ["web.example", "web.example"]),
        ("ip_addresses", ["2001:DB8::1"]),
        ("ttl", "2h"),
        ("ttl", "1800s"),
        ("keys", ["dsa"]),
        ("comment", "two\nlines"),
        ("until", "tomorrow"),
        ("ttl", 30),
    ],
)
def test_what_breaks_a_rule_is_refused(name: str, value: object) -> None:
    members = msgspec.to_builtins(GOOD.members()) | {name: value}
    document = json.dumps(
        members, sort_keys=True, separators=(",", ":"), ensure_ascii=False
    ).encode()
    with pytest.raises(BadDocument, match="registration entry"):
        RegistrationEntry.from_document(document)


def test_deep_nesting_is_refused() -> None:
    with pytest.raises(BadDocument):
        RegistrationEntry.from_document(b"[" * 100_000)


def test_an_entry_of_a_token_is_one_that_nothing_else_opens() -> None:
    def entry(*selectors: str) -> RegistrationEntry:
        return RegistrationEntry(
            "00",
            frozenset(map(Selector.parse, selectors)),
            GOOD.spiffe_id,
            (),
            (ip_address("::1"),),
        )

    assert entry("token:00").is_of_token
    assert not entry("token:01").is_of_token
    assert not entry("token:00", "unix:uid:0").is_of_token
