"""Who may do what at the CA: the whole table, and what is granted."""

from datetime import timedelta
from ipaddress import IPv4Address, ip_address
from typing import Any

import pytest
from attrs import evolve
from hypothesis import event, given
from hypothesis import strategies as st

from pki.errors import PkiError
from pki.issuing.csr import IssuanceRequest
from pki.keys import KeyAlgorithm
from pki.policy.entry import EntryMembers, RegistrationEntry, read_entry
from pki.policy.id_template import IdTemplate
from pki.policy.lifetimes import Lifetimes, TtlOutOfRange
from pki.policy.policy import (
    MONITORING,
    Action,
    Certificate,
    Forbidden,
    Grant,
    NoProof,
    demand_entry,
    grant,
    permit,
)
from pki.policy.principal import Kind, Principal, administrator, anonymous, workload
from pki.policy.selector import Selector
from pki.spiffe import SpiffeId
from pki.svid.names import IPAddress
from tests.authorities import BACKEND, HOUR, MESH, OTHER, key

FRONTEND = MESH.member("service", "frontend")
ALICES = MESH.member("user", "alice")

ADMINISTRATOR = administrator("unix:uid:0")
WORKLOAD = workload(BACKEND, 1)
ANONYMOUS = anonymous("tcp:127.0.0.1")


def request(
    spiffe_id: SpiffeId = BACKEND,
    dns_names: tuple[str, ...] = (),
    ip_addresses: tuple[IPAddress, ...] = (),
    ttl: timedelta | None = None,
    algorithm: KeyAlgorithm = KeyAlgorithm.EC_P256,
) -> IssuanceRequest:
    public_key = key(0, algorithm).public_key
    return IssuanceRequest(spiffe_id, public_key, dns_names, ip_addresses, ttl, "", "0" * 64)


OWN = Certificate(1, BACKEND)
OTHERS = Certificate(2, FRONTEND)
OF_A_CA = Certificate(3, None)
TARGETS = {
    "nothing yet": None,
    "own certificate": OWN,
    "another's certificate": OTHERS,
    "a CA's certificate": OF_A_CA,
}
#: For each action, the targets to which a workload may do it; "all" and "none" for short.
WORKLOADS_MAY: dict[Action, set[str] | str] = {
    Action.SIGN: "all",
    Action.READ_CA: "all",
    Action.ATTEST: "all",
    Action.READ_BUNDLE: "all",
    Action.READ_CRL: "all",
    Action.ASK_OCSP: "all",
    Action.READ_TRUST: "all",
    Action.REVOKE: {"nothing yet", "own certificate"},
    Action.LIST: "none",
    Action.TELL_CONNECTIONS: "all",
    Action.READ_CONNECTIONS: "none",
    Action.READ_CHECKPOINT: "all",
    Action.READ_AUDIT: "none",
    Action.READ_HEALTH: "none",
    Action.DETACH_ROOT: "none",
    Action.REVOKE_ISSUING: "none",
    Action.ROTATE_ISSUING: "none",
    Action.PROVE_KEYS: "none",
    Action.CERTIFY_ISSUING: "none",
    Action.SIGN_BACKUP: "none",
    Action.READ_ROOTS: "none",
    Action.CHANGE_ROOTS: "none",
    Action.READ_FEDERATION: "none",
    Action.CHANGE_FEDERATION: "none",
    Action.READ_BLOCKED_KEYS: "none",
    Action.CHANGE_BLOCKED_KEYS: "none",
    Action.READ_ENTRIES: "none",
    Action.CHANGE_ENTRIES: "none",
    Action.READ_TOKENS: "none",
    Action.CHANGE_TOKENS: "none",
    Action.LIVENESS: "all",
    Action.READINESS: "none",
    Action.METRICS: "none",
    Action.READ_JWT_KEYS: "none",
    Action.CHANGE_JWT_KEYS: "none",
    Action.SERVE_WORKLOADS: "none",
    Action.READ_AGENTS: "none",
    Action.CHANGE_AGENTS: "none",
    Action.READ_POLICY: "none",
    Action.CHANGE_POLICY: "none",
}
NO_PROOF_NEEDED = {
    Action.READ_CA,
    Action.READ_BUNDLE,
    Action.READ_CRL,
    Action.ASK_OCSP,
    Action.LIVENESS,
    Action.ATTEST,
}


def test_the_table_has_a_line_for_every_action() -> None:
    assert set(WORKLOADS_MAY) == set(Action)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("action", [a for a in Action if a is not Action.SERVE_WORKLOADS])
def test_an_administrator_may_do_everything(action: Action, target: str) -> None:
    permit(ADMINISTRATOR, action, TARGETS[target])


def test_an_agent_alone_serves_workloads() -> None:
    agent = SpiffeId.parse("spiffe://mesh.local/mesh/agent/rack-7")
    permit(workload(agent, 1), Action.SERVE_WORKLOADS)
    for other in (ADMINISTRATOR, WORKLOAD, workload(SpiffeId.parse(f"{agent}/x"), 1)):
        with pytest.raises(Forbidden) as refusal:
            permit(other, Action.SERVE_WORKLOADS)
        assert refusal.value.rule == "agents-only"


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("action", Action)
@pytest.mark.parametrize("seen", [frozenset(), frozenset({Selector("unix:uid", "1000")})])
def test_a_caller_without_proof_may_read_what_is_public(
    action: Action, target: str, seen: frozenset[Selector]
) -> None:
    asking = anonymous("unix:uid:1000", seen)
    # Whoever something was seen of may ask for a signature: grant looks at what of.
    if action in NO_PROOF_NEEDED or (action is Action.SIGN and seen):
        permit(asking, action, TARGETS[target])
        return
    with pytest.raises(NoProof, match=f"{action} needs proof of who you are") as refusal:
        permit(asking, action, TARGETS[target])
    assert refusal.value.code == "no-proof"


@pytest.mark.parametrize("action", Action)
def test_a_monitor_may_read_how_the_ca_is_and_else_what_each_workload_may(action: Action) -> None:
    caller = evolve(workload(BACKEND, 1), monitors=True)
    if action in MONITORING or WORKLOADS_MAY[action] == "all" or action is Action.REVOKE:
        permit(caller, action)
        return
    with pytest.raises(Forbidden):
        permit(caller, action)


def test_what_a_monitor_may_read_is_four_things() -> None:
    assert {
        Action.LIVENESS,
        Action.READINESS,
        Action.METRICS,
        Action.READ_HEALTH,
    } == MONITORING
    with pytest.raises(Forbidden, match="for administrators and whoever a --monitor"):
        permit(workload(BACKEND, 1), Action.METRICS)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("action", Action)
def test_a_workload_may_do_what_the_table_says(action: Action, target: str) -> None:
    may = WORKLOADS_MAY[action]
    if may == "all" or target in may:
        permit(WORKLOAD, action, TARGETS[target])
        return
    with pytest.raises(Forbidden) as refusal:
        permit(WORKLOAD, action, TARGETS[target])
    assert refusal.value.code == "not-authorized"
    assert refusal.value.rule in str(refusal.value)


@pytest.mark.parametrize(
    ("action", "target", "rule"),
    [
        (Action.REVOKE, OTHERS, "own-certificate-only"),
        (Action.REVOKE, OF_A_CA, "own-certificate-only"),
        (Action.LIST, None, "administrators-only"),
        (Action.CHANGE_ENTRIES, None, "administrators-only"),
        (Action.CHANGE_TOKENS, None, "administrators-only"),
    ],
)
def test_a_refusal_names_its_rule(action: Action, target: Certificate | None, rule: str) -> None:
    with pytest.raises(Forbidden) as refusal:
        permit(WORKLOAD, action, target)
    assert refusal.value.rule == rule


def test_a_workload_without_a_name_owns_no_certificate_without_a_name() -> None:
    nameless = Principal(Kind.WORKLOAD, "x509:?")
    with pytest.raises(Forbidden):
        permit(nameless, Action.REVOKE, OF_A_CA)


@given(st.sampled_from(Action), st.sampled_from(sorted(TARGETS)), st.sampled_from(Kind))
def test_what_a_weaker_proof_allows_a_stronger_one_does_too(
    action: Action, target: str, kind: Kind
) -> None:
    asking = evolve(WORKLOAD, kind=kind)
    try:
        permit(asking, action, TARGETS[target])
    except (NoProof, Forbidden):
        return
    permit(ADMINISTRATOR, action, TARGETS[target])
    if kind is Kind.ANONYMOUS:
        permit(WORKLOAD, action, TARGETS[target])


# What a signature is granted of

LIFETIMES = Lifetimes(default=HOUR, maximum=timedelta(hours=24))
SEEN = frozenset(map(Selector.parse, ("unix:uid:1000", "unix:user:alice", "unix:gid:100")))
ALICE = anonymous("unix:uid:1000", SEEN)


def entry(
    entry_id: str = "e", spiffe_id: str = str(BACKEND), *needed: str, **more: Any
) -> RegistrationEntry:
    chosen = needed or ("unix:uid:1000",)
    return read_entry(entry_id, MESH, EntryMembers(selectors=chosen, spiffe_id=spiffe_id, **more))


def refused(principal: Principal, asked: IssuanceRequest, *entries: RegistrationEntry) -> Forbidden:
    with pytest.raises(Forbidden) as refusal:
        grant(principal, asked, entries, LIFETIMES)
    assert f"(rule {refusal.value.rule})" in str(refusal.value)
    return refusal.value


def test_an_entry_whose_selectors_were_seen_buys_its_id() -> None:
    assert grant(ALICE, request(), [entry()], LIFETIMES) == Grant("e", HOUR)


def test_without_an_entry_nothing_is_granted() -> None:
    refusal = refused(ALICE, request())
    assert refusal.rule == "no-entry"
    assert "seen: unix:gid:100, unix:uid:1000, unix:user:alice" in str(refusal)
    assert "mesh-ctl why" in str(refusal)


def test_without_anything_seen_nothing_is_granted() -> None:
    with pytest.raises(NoProof, match="sign needs proof of who you are"):
        grant(ANONYMOUS, request(), [entry()], LIFETIMES)
    assert refused(administrator("?", issues=False), request(), entry()).rule == "no-entry"


@pytest.mark.parametrize(
    "needed",
    [
        ("unix:uid:1001",),
        ("unix:uid:1000", "unix:uid:1001"),
        ("unix:uid:1000", "systemd:unit:api.service"),
        ("unix:uid:1000", "token:web"),
        ("unix:gid:1000",),
        ("x509:spiffe://mesh.local/service/backend",),
    ],
)
def test_every_selector_of_an_entry_must_have_been_seen(needed: tuple[str, ...]) -> None:
    assert refused(ALICE, request(), entry("e", str(BACKEND), *needed)).rule == "no-entry"


def test_an_administrator_who_does_not_issue_needs_an_entry_too() -> None:
    root = administrator("unix:uid:0", frozenset({Selector("unix:uid", "0")}), issues=False)
    assert refused(root, request(), entry()).rule == "no-entry"
    for_root = entry("r", str(BACKEND), "unix:uid:0")
    assert grant(root, request(), [entry(), for_root], LIFETIMES).entry == "r"
    assert refused(root, request(FRONTEND), for_root).rule == "ids-granted-only"


def test_an_administrator_by_svid_may_renew_its_own_id_and_no_other() -> None:
    admin = evolve(WORKLOAD, kind=Kind.ADMINISTRATOR)
    assert refused(admin, request(FRONTEND), entry()).rule == "own-identity-only"
    assert grant(evolve(admin, entry="e"), request(), [entry()], LIFETIMES).entry == "e"


@pytest.mark.parametrize("seen", [frozenset(), SEEN])
def test_an_administrator_who_issues_needs_no_entry(seen: frozenset[Selector]) -> None:
    issuer = administrator("insecure-http", seen)
    wanted = request(FRONTEND, ("bank.example",), ttl=2 * HOUR)
    assert grant(issuer, wanted, [], LIFETIMES) == Grant(None, 2 * HOUR)
    assert grant(issuer, wanted, [entry(max_ttl="1h")], LIFETIMES) == Grant(None, 2 * HOUR)
    with pytest.raises(TtlOutOfRange):
        grant(issuer, request(ttl=timedelta(days=2)), [], LIFETIMES)


# What wants evidence each time.

POD = frozenset({Selector("unix:uid", "1000"), Selector("unix:user", "alice")})


def renewing(*seen: Selector, entry_id: str = "e") -> Principal:
    return evolve(WORKLOAD, selectors=WORKLOAD.selectors | set(seen), entry=entry_id)


def test_an_svid_alone_renews_nothing_where_the_entry_wants_all_of_its_selectors() -> None:
    lasting, demanding = entry(), entry(reattest=True)
    assert grant(renewing(), request(), [lasting], LIFETIMES).entry == "e"
    refusal = refused(renewing(), request(), demanding)
    assert (refusal.rule, refusal.code) == ("reattest", "reattest-required")
    assert "unix:uid:1000 was not seen now" in str(refusal)
    with pytest.raises(Forbidden) as early:
        demand_entry(renewing(), str(BACKEND), iter([demanding]))
    assert early.value.code == "reattest-required"


def test_with_the_evidence_beside_it_it_renews() -> None:
    demanding = entry(reattest=True)
    assert grant(renewing(*POD), request(), [demanding], LIFETIMES).entry == "e"
    assert grant(ALICE, request(), [demanding], LIFETIMES).entry == "e"


def test_what_a_template_was_filled_with_must_be_seen_again_too() -> None:
    demanding = entry("e", "spiffe://mesh.local/user/{unix.user}", "unix:uid:1000", reattest=True)
    alice = evolve(renewing(*POD), spiffe_id=ALICES)
    assert grant(alice, request(ALICES), [demanding], LIFETIMES).entry == "e"
    bob = evolve(
        alice, selectors=frozenset({Selector("unix:uid", "1000"), Selector("unix:user", "bob")})
    )
    assert refused(bob, request(ALICES), demanding).rule == "ids-granted-only"


def test_another_entry_without_that_wish_renews_nothing_that_it_has_not_bought() -> None:
    other = entry("other")
    refusal = refused(renewing(), request(), entry(reattest=True), other)
    assert refusal.code == "reattest-required"
    assert refused(renewing(), request(FRONTEND), entry(reattest=True)).rule == "own-identity-only"


def test_an_entry_is_named_also_where_none_is_needed() -> None:
    made = entry(ttl="5m")
    assert grant(administrator("root", SEEN), request(), [made], LIFETIMES) == Grant("e", HOUR / 12)


@pytest.mark.parametrize("kind", [Kind.ANONYMOUS, Kind.WORKLOAD])
def test_only_who_is_said_to_issue_needs_no_entry(kind: Kind) -> None:
    assert not evolve(ALICE, kind=kind).issues
    assert refused(evolve(ALICE, kind=kind), request()).rule == "no-entry"


@pytest.mark.parametrize(
    ("more", "asked", "rule", "words"),
    [
        ({"spiffe_id": str(FRONTEND)}, {}, "ids-granted-only", str(FRONTEND)),
        (
            {"spiffe_id": "spiffe://mesh.local/service/*"},
            {"spiffe_id": ALICES},
            "ids-granted-only",
            "not spiffe://mesh.local/user/alice",
        ),
        (
            {"spiffe_id": "spiffe://mesh.local/service/**"},
            {"spiffe_id": OTHER.member("service", "backend")},
            "ids-granted-only",
            "other.example",
        ),
        (
            {"spiffe_id": "spiffe://mesh.local/job/{systemd.unit}"},
            {},
            "ids-granted-only",
            "no systemd:unit selector was seen",
        ),
        (
            {},
            {"dns_names": ("localhost", "a.example", "b.example")},
            "names-granted-only",
            "a.example, b.example",
        ),
        (
            {"dns_names": ["a.example"]},
            {"dns_names": ("b.a.example",)},
            "names-granted-only",
            "b.a.example",
        ),
        ({}, {"ip_addresses": (IPv4Address("192.0.2.1"),)}, "names-granted-only", "192.0.2.1"),
        (
            {"max_ttl": "1h"},
            {"ttl": HOUR + timedelta(seconds=1)},
            "ttl-granted-only",
            "it grants 1h at most",
        ),
        ({"keys": ["ec-p384"]}, {}, "keys-granted-only", "ec-p384 only"),
    ],
)
def test_what_is_beyond_an_entry_is_refused_by_its_rule(
    more: dict[str, Any], asked: dict[str, Any], rule: str, words: str
) -> None:
    refusal = refused(ALICE, request(**asked), entry(**more))
    assert refusal.rule == rule
    assert words in str(refusal)
    assert "matches the entry e, but" in str(refusal)


def test_everything_beyond_an_entry_is_told_at_once() -> None:
    wanted = request(dns_names=("a.example",), ttl=2 * HOUR)
    refusal = refused(ALICE, wanted, entry(max_ttl="1h", keys=["ec-p384"]))
    for words in ("a.example", "1h at most", "ec-p384 only"):
        assert words in str(refusal)


def test_what_an_entry_names_is_granted() -> None:
    made = entry(dns_names=["a.example"], ip_addresses=["192.0.2.1"], keys=["rsa-2048", "ec-p384"])
    wanted = request(
        dns_names=("a.example", "localhost", "backend.mesh.local"),
        ip_addresses=(ip_address("192.0.2.1"), ip_address("127.0.0.1")),
        algorithm=KeyAlgorithm.EC_P384,
    )
    assert grant(ALICE, wanted, [made], LIFETIMES).entry == "e"


@pytest.mark.parametrize(
    ("more", "asked", "given_"),
    [
        ({}, None, HOUR),
        ({}, 2 * HOUR, 2 * HOUR),
        ({"ttl": "5m"}, None, HOUR / 12),
        ({"ttl": "5m"}, HOUR, HOUR),
        ({"ttl": "5m", "max_ttl": "10m"}, None, HOUR / 12),
        ({"max_ttl": "10m"}, None, HOUR / 6),
        ({"max_ttl": "10m"}, HOUR / 6, HOUR / 6),
        ({"max_ttl": "30d"}, None, HOUR),
        ({"ttl": "30d"}, None, 24 * HOUR),
    ],
)
def test_a_certificate_lives_as_the_entry_says(
    more: dict[str, Any], asked: timedelta | None, given_: timedelta
) -> None:
    assert grant(ALICE, request(ttl=asked), [entry(**more)], LIFETIMES).lifetime == given_


def test_no_entry_grants_more_than_the_ca() -> None:
    with pytest.raises(TtlOutOfRange, match="ask for 1s to 1d"):
        grant(ALICE, request(ttl=timedelta(days=2)), [entry(max_ttl="30d")], LIFETIMES)


def test_the_entry_that_grants_all_is_found_and_the_most_exact_one_is_named() -> None:
    entries = [
        entry("a", str(FRONTEND)),
        entry("b", "spiffe://mesh.local/service/*", max_ttl="1m"),
        entry("c", "spiffe://mesh.local/service/**"),
        entry("d"),
    ]
    assert grant(ALICE, request(), entries, LIFETIMES).entry == "d"
    assert grant(ALICE, request(ttl=HOUR), entries[:3], LIFETIMES).entry == "c"
    assert refused(ALICE, request(ttl=HOUR), *entries[:2]).rule == "ids-granted-only"


def test_a_workload_renews_under_the_entry_that_bought_it() -> None:
    holder = evolve(WORKLOAD, entry="e")
    made = entry("e", str(BACKEND), "unix:uid:1000", "token:web", dns_names=["a.example"])
    assert grant(holder, request(), [made], LIFETIMES).entry == "e"
    assert grant(holder, request(dns_names=("a.example",)), [made], LIFETIMES).entry == "e"
    assert refused(holder, request(dns_names=("b.example",)), made).rule == "names-granted-only"


def test_a_workload_whose_name_came_from_what_was_seen_renews_without_that() -> None:
    made = entry("e", "spiffe://mesh.local/user/{unix.user}")
    assert grant(ALICE, request(ALICES), [made], LIFETIMES).entry == "e"
    holder = evolve(workload(ALICES, 7), entry="e")
    assert grant(holder, request(ALICES), [made], LIFETIMES).entry == "e"
    refusal = refused(holder, request(MESH.member("user", "bob")), made)
    assert refusal.rule == "own-identity-only"


@pytest.mark.parametrize("wanted", [FRONTEND, MESH.member("service", "backend", "x"), ALICES])
def test_a_workload_renews_its_own_id_only(wanted: SpiffeId) -> None:
    holder = evolve(WORKLOAD, entry="e")
    wide = entry("e", "spiffe://mesh.local/service/**")
    assert refused(holder, request(wanted), wide).rule == "own-identity-only"


def test_a_workload_whose_entry_is_gone_or_another_does_not_renew() -> None:
    other = entry("f")
    for holder in (WORKLOAD, evolve(WORKLOAD, entry="e")):
        refusal = refused(holder, request(), other)
        assert refusal.rule == "no-entry"
        assert "is gone, or there never was one" in str(refusal)
    # An entry of the file keeps its id, and may be for somebody else now.
    moved = entry("e", str(FRONTEND))
    assert refused(evolve(WORKLOAD, entry="e"), request(), moved).rule == "ids-granted-only"


def test_an_entry_may_name_those_who_have_a_certificate_already() -> None:
    for_holders = entry("x", "spiffe://mesh.local/job/*", f"x509:{BACKEND}")
    job = MESH.member("job", "nightly")
    assert grant(WORKLOAD, request(job), [for_holders], LIFETIMES).entry == "x"
    assert refused(workload(FRONTEND, 2), request(job), for_holders).rule == "own-identity-only"


def test_a_token_is_no_right_to_renew() -> None:
    bearer = evolve(anonymous("token:abc", frozenset({Selector("token", "web")})), entry="e")
    with_both = entry("e", str(BACKEND), "token:web", "unix:uid:1000")
    assert refused(bearer, request(), with_both).rule == "no-entry"
    assert grant(bearer, request(), [entry("e", str(BACKEND), "token:web")], LIFETIMES).entry == "e"


# Whatever is granted, an oracle that knows none of the code above agrees.

_POOL = [Selector.parse(text) for text in ("unix:uid:1", "unix:user:al", "token:t", "unix:gid:2")]
_IDS = [MESH.member(*path.split("/")) for path in ("a/al", "a/bo", "a/al/x", "b/1")]
_DNS = ("localhost", "a.example", "b.example")
_ADDRESSES = tuple(map(ip_address, ("127.0.0.1", "192.0.2.1")))
_TTLS = (None, *(timedelta(minutes=minutes) for minutes in (1, 60, 1440, 1441)))
_EC = (KeyAlgorithm.EC_P256, KeyAlgorithm.EC_P384)


def _some(of: Any) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.lists(st.sampled_from(of), unique=True, max_size=2).map(tuple)


_entries = st.builds(
    RegistrationEntry,
    st.sampled_from("mnop"),
    st.sets(st.sampled_from(_POOL), min_size=1, max_size=2).map(frozenset),
    st.sampled_from(["a/{unix.user}", "a/**", "a/*", "a/al", "b/{unix.uid}"]).map(
        lambda path: IdTemplate.parse(f"spiffe://mesh.local/{path}", MESH)
    ),
    _some(_DNS[1:]),
    _some(_ADDRESSES[1:]),
    st.sampled_from(_TTLS),
    st.sampled_from(_TTLS),
    _some(_EC),
)
_requests = st.builds(
    request,
    st.sampled_from(_IDS),
    _some(_DNS),
    _some(_ADDRESSES),
    st.sampled_from(_TTLS),
    st.sampled_from(_EC),
)
_principals = st.builds(
    lambda kind, seen, spiffe_id, serial, entry: Principal(
        kind, "proof", spiffe_id, serial, seen, entry
    ),
    st.sampled_from(Kind),
    st.sets(st.sampled_from(_POOL)).map(frozenset),
    st.none() | st.sampled_from(_IDS),
    st.none() | st.just(1),
    st.none() | st.sampled_from("mnop"),
)


def _buys(made: RegistrationEntry, asked: IssuanceRequest, who: Principal, lifetime: Any) -> bool:
    """By the words of the documentation, with nothing but sets and strings."""
    holds = who.entry == made.id and who.spiffe_id == asked.spiffe_id
    values = {s.kind.replace(":", "."): s.value for s in who.selectors or ()}
    wanted, found = str(made.spiffe_id).split("/")[3:], str(asked.spiffe_id).split("/")[3:]
    if wanted[-1] == "**":
        wanted[-1:] = ["*"] * max(1, len(found) - len(wanted) + 1)
    named = len(wanted) == len(found) and all(
        w in ("*", f) or (w.startswith("{") and (holds or values.get(w[1:-1]) == f))
        for w, f in zip(wanted, found, strict=True)
    )
    longest = min(made.max_ttl or LIFETIMES.maximum, LIFETIMES.maximum)
    usual = min(made.ttl or LIFETIMES.default, longest)
    return (
        (holds or set(made.selectors) <= set(who.selectors or ()))
        and named
        and set(asked.dns_names) <= {"localhost", *made.dns_names}
        and set(map(str, asked.ip_addresses)) <= {"127.0.0.1", *map(str, made.ip_addresses)}
        and lifetime == (asked.ttl or usual)
        and lifetime <= longest
        and (not made.keys or KeyAlgorithm.of(asked.public_key) in made.keys)
    )


@given(_principals, _requests, st.lists(_entries, max_size=4, unique_by=lambda made: made.id))
def test_what_is_granted_satisfies_every_clause_of_the_entry(
    who: Principal, asked: IssuanceRequest, entries: list[RegistrationEntry]
) -> None:
    try:
        granted = grant(who, asked, entries, LIFETIMES)
    except (NoProof, Forbidden, TtlOutOfRange) as refusal:
        event(refusal.code)
        # Nobody is refused whom an entry lets in, unless they ask for more than the CA gives.
        if who.selectors and not isinstance(refusal, TtlOutOfRange):
            usual = (
                [asked.ttl] if asked.ttl else {made.ttl or LIFETIMES.default for made in entries}
            )
            assert not any(_buys(made, asked, who, life) for made in entries for life in usual)
    else:
        event("granted")
        assert who.selectors or who.kind is Kind.ADMINISTRATOR
        (named,) = [made for made in entries if made.id == granted.entry]
        assert _buys(named, asked, who, granted.lifetime)


@given(_principals, _requests, st.lists(_entries, max_size=3), _entries)
def test_another_entry_takes_nothing_away(
    who: Principal, asked: IssuanceRequest, entries: list[RegistrationEntry], one: RegistrationEntry
) -> None:
    try:
        grant(who, asked, entries, LIFETIMES)
    except PkiError:
        return
    grant(who, asked, [*entries, evolve(one, id="z")], LIFETIMES)


def test_callers_are_named_for_the_log() -> None:
    assert str(ADMINISTRATOR) == "administrator (unix:uid:0)"
    assert str(WORKLOAD) == "spiffe://mesh.local/service/backend"
    assert WORKLOAD.proof == "x509:spiffe://mesh.local/service/backend"
    assert str(ANONYMOUS) == "anonymous (tcp:127.0.0.1)"


def test_who_asks_for_no_lifetime_gets_the_default() -> None:
    assert LIFETIMES.grant(None) == timedelta(hours=1)


@given(st.timedeltas() | st.timedeltas(timedelta(), timedelta(hours=25)))
def test_a_lifetime_is_granted_as_asked_or_refused(asked: timedelta) -> None:
    if timedelta(seconds=1) <= asked <= timedelta(hours=24):
        assert LIFETIMES.grant(asked) == asked
        return
    with pytest.raises(TtlOutOfRange, match=r"ask for 1s to 1d$"):
        LIFETIMES.grant(asked)
