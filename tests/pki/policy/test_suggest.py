"""Suggestions: an entry that is offered lets its caller in, and nobody else."""

from datetime import timedelta
from ipaddress import ip_address

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from pki.issuing.csr import IssuanceRequest
from pki.policy.entry import EntryMembers, read_entry
from pki.policy.lifetimes import Lifetimes
from pki.policy.policy import grant
from pki.policy.principal import anonymous
from pki.policy.selector import Selector
from pki.policy.suggest import suggested, telling
from pki.spiffe import SpiffeId
from tests.authorities import BACKEND, HOUR, MESH, key
from tests.pki.strategies import selectors, spiffe_ids

LIFETIMES = Lifetimes(HOUR, 24 * HOUR)
_names = st.lists(st.sampled_from(["localhost", "a.example", "backend.mesh.local"]), unique=True)
_addresses = st.lists(st.sampled_from(["127.0.0.1", "192.0.2.1", "2001:db8::1"]), unique=True)
requests = st.builds(
    lambda spiffe_id, names, addresses, ttl: IssuanceRequest(
        spiffe_id,
        key().public_key,
        tuple(names),
        tuple(map(ip_address, addresses)),
        ttl,
        "",
        "0" * 64,
    ),
    st.just(BACKEND) | spiffe_ids.filter(lambda spiffe_id: bool(spiffe_id.path)),
    _names,
    _addresses,
    st.none() | st.timedeltas(timedelta(seconds=1), 24 * HOUR),
)


def request(spiffe_id: SpiffeId = BACKEND) -> IssuanceRequest:
    return IssuanceRequest(spiffe_id, key().public_key, (), (), None, "", "0" * 64)


@given(requests, st.sets(selectors, min_size=1), st.sets(selectors))
def test_what_is_suggested_lets_the_caller_in_and_others_not(
    asked: IssuanceRequest, seen: set[Selector], others: set[Selector]
) -> None:
    entry = suggested(asked, seen)
    if entry is None:
        assert asked.spiffe_id.is_reserved
        return
    caller = anonymous("?", frozenset(seen))
    assert grant(caller, asked, [evolve(entry, id="new")], LIFETIMES).entry == "new"
    assert entry.is_met_by(others) == (entry.selectors <= others)
    assert entry.spiffe_id.is_literal


@given(requests, st.sets(selectors, min_size=1))
def test_what_is_suggested_can_be_typed(asked: IssuanceRequest, seen: set[Selector]) -> None:
    entry = suggested(asked, seen)
    if entry is not None:
        typed = read_entry(
            "",
            asked.spiffe_id.trust_domain,
            EntryMembers(
                selectors=list(map(str, entry.selectors)),
                spiffe_id=str(entry.spiffe_id),
                dns_names=entry.dns_names,
                ip_addresses=list(map(str, entry.ip_addresses)),
            ),
        )
        assert typed == entry


@pytest.mark.parametrize(
    ("seen", "chosen"),
    [
        (
            "unix:uid:7 unix:gid:7 unix:user:api systemd:unit:api.service",
            "unix:uid:7 systemd:unit:api.service",
        ),
        ("unix:uid:7 unix:gid:7 unix:user:api systemd:unit:session-3.scope", "unix:user:api"),
        ("unix:uid:7 unix:gid:7 unix:user:api systemd:unit:user@7.service", "unix:user:api"),
        ("unix:uid:7 unix:gid:7 unix:user:api", "unix:user:api"),
        ("unix:uid:7 unix:gid:7 unix:gid:8", "unix:uid:7"),
        ("x509:spiffe://mesh.local/a token:t", "x509:spiffe://mesh.local/a"),
        ("token:t", "token:t"),
        ("unix:gid:7", "unix:gid:7"),
        ("", ""),
    ],
)
def test_the_narrowest_sensible_selectors_are_chosen(seen: str, chosen: str) -> None:
    def read(text: str) -> set[Selector]:
        return set(map(Selector.parse, text.split()))

    assert telling(read(seen)) == read(chosen)


def test_nothing_is_suggested_where_no_entry_helps() -> None:
    assert suggested(request(), ()) is None
    reserved = request(MESH.member("mesh", "ca"))
    assert suggested(reserved, {Selector("unix:uid", "0")}) is None


@pytest.mark.parametrize(
    ("seen", "chosen"),
    [
        (
            {("k8s:ns", "shop"), ("k8s:sa", "api"), ("k8s:pod-name", "api-x"), ("unix:uid", "0")},
            {("k8s:ns", "shop"), ("k8s:sa", "api")},
        ),
        (
            {("docker:image_id", "tiny:1"), ("docker:label", "a:b"), ("unix:uid", "0")},
            {("docker:image_id", "tiny:1"), ("unix:uid", "0")},
        ),
        (
            {("docker:image_id", "tiny:1"), ("systemd:unit", "web.service"), ("unix:uid", "0")},
            {("systemd:unit", "web.service"), ("unix:uid", "0")},
        ),
        ({("k8s:ns", "shop"), ("unix:uid", "0")}, {("unix:uid", "0")}),
    ],
    ids=["a pod", "a container", "a container of a unit", "half of a pod"],
)
def test_a_pod_is_known_by_its_service_account_and_a_container_by_its_image(
    seen: set[tuple[str, str]], chosen: set[tuple[str, str]]
) -> None:
    assert telling([Selector(*one) for one in seen]) == {Selector(*one) for one in chosen}
