"""Whose bucket a request is charged to."""

import pytest
from attrs import define, field
from twisted.internet.address import IPv4Address
from twisted.internet.task import Clock

from pki.policy.policy import Action
from pki.policy.principal import Kind
from twisted_mesh.ca.api.authentication import Account
from twisted_mesh.ca.api.throttle import Throttle
from twisted_mesh.limits.rate_limit import MOST_BUCKETS, Rate, RateLimited

HERE, THERE = (IPv4Address("TCP", f"192.0.2.{n}", 4) for n in (1, 2))
ONE, OTHER = (
    Account(f"x509:spiffe://mesh.local/{name}", Kind.WORKLOAD) for name in ("one", "other")
)
NOBODY = Account("tls:no-certificate", Kind.ANONYMOUS)
ADMINISTRATOR = Account("unix:uid:0", Kind.ADMINISTRATOR)
USER = Account("unix:uid:65534", Kind.ANONYMOUS)


@define(eq=False)
class Gate:
    """A throttle of one request a second."""

    throttle: Throttle = field(factory=lambda: Throttle(Clock(), Rate(1, 1)))

    def passes(self, who: Account, where: object = HERE, action: Action = Action.SIGN) -> bool:
        try:
            self.throttle.charge(who, action, where)
        except RateLimited:
            return False
        return True


def test_whoever_has_proof_is_charged_for_itself_wherever_it_calls_from() -> None:
    gate = Gate()
    assert gate.passes(ONE)
    assert not gate.passes(ONE, THERE)
    assert gate.passes(OTHER)


def test_an_agent_asks_for_many() -> None:
    gate = Gate()
    agent, other = (
        Account(f"x509:spiffe://mesh.local/mesh/agent/{name}", Kind.WORKLOAD, is_agent=True)
        for name in ("a", "b")
    )
    assert [gate.passes(agent) for _ in range(11)] == [True] * 10 + [False]
    assert gate.passes(other)
    assert gate.passes(ONE)


def test_whose_ca_is_revoked_is_charged_by_where_it_is_and_apart_from_strangers() -> None:
    gate = Gate()
    back = Account("tls:revoked-issuer", Kind.ANONYMOUS, only_renews=True)
    assert gate.passes(NOBODY)
    assert not gate.passes(NOBODY)
    assert [gate.passes(back) for _ in range(11)] == [True] * 10 + [False]
    assert gate.passes(back, THERE)
    assert gate.passes(ONE)


def test_strangers_are_charged_by_where_they_are() -> None:
    gate = Gate()
    assert gate.passes(NOBODY)
    assert not gate.passes(NOBODY)
    assert not gate.passes(Account("tls:no-longer-valid", Kind.ANONYMOUS))
    assert gate.passes(NOBODY, THERE)
    assert gate.passes(ONE), "and nobody with proof pays for them"


def test_users_of_this_machine_are_told_apart() -> None:
    gate = Gate()
    assert gate.passes(USER, None)
    assert not gate.passes(USER, None)
    assert gate.passes(Account("unix:uid:65533", Kind.ANONYMOUS), None)


def test_no_flood_of_strangers_costs_a_user_of_this_machine_a_place() -> None:
    gate = Gate()
    for number in range(2 * MOST_BUCKETS):
        place = IPv4Address("TCP", f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", 4)
        gate.passes(NOBODY, place)
    assert not gate.passes(NOBODY), "a new stranger shares a bucket that is empty"
    assert gate.passes(USER, None)
    assert gate.passes(ONE)


@pytest.mark.parametrize("action", [action for action in Action if action is not Action.SIGN])
def test_what_administrators_do_is_never_limited_but_for_signing(action: Action) -> None:
    gate = Gate()
    assert all(gate.passes(ADMINISTRATOR, action=action) for _ in range(10))
    assert gate.passes(ADMINISTRATOR)
    assert not gate.passes(ADMINISTRATOR)


def test_what_lets_many_ids_in_has_a_share_of_its_own() -> None:
    throttle = Throttle(Clock(), Rate(1, 1))

    def passes(number: int, holder: str | None) -> bool:
        who = Account(f"x509:spiffe://mesh.local/{number}", Kind.WORKLOAD)
        try:
            throttle.charge(who, Action.READ_TRUST, HERE, holder)
        except RateLimited:
            return False
        return True

    assert [passes(number, "entry:any") for number in range(12)] == [True] * 10 + [False] * 2
    assert passes(20, "entry:other")
    assert passes(21, None)
