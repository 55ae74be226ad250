"""Whose bucket a request is charged to."""

import pytest
from attrs import define, evolve, field
from twisted.internet.address import IPv4Address
from twisted.internet.task import Clock

from pki.policy.policy import Action, Kind, Principal, administrator, anonymous, workload
from pki.spiffe import SpiffeId
from twisted_mesh.ca.api.throttle import Throttle
from twisted_mesh.limits.rate_limit import Rate, RateLimited

HERE, THERE = (IPv4Address("TCP", f"192.0.2.{n}", 4) for n in (1, 2))
ONE, OTHER = (workload(SpiffeId.parse(f"spiffe://mesh.local/{n}"), 1) for n in ("one", "other"))
NOBODY = anonymous("tls:no-certificate")
ADMINISTRATOR = administrator("unix:uid:0")
USER = Principal(Kind.ANONYMOUS, "unix:uid:65534")


@define(eq=False)
class Gate:
    """A throttle of one request a second."""

    throttle: Throttle = field(factory=lambda: Throttle(Clock(), Rate(1, 1)))

    def passes(self, who: Principal, where: object = HERE, action: Action = Action.SIGN) -> bool:
        try:
            self.throttle.charge(who, action, where)
        except RateLimited:
            return False
        return True


def test_whoever_has_proof_is_charged_for_itself_wherever_it_calls_from() -> None:
    gate = Gate()
    assert gate.passes(ONE)
    assert not gate.passes(ONE, THERE)
    assert not gate.passes(evolve(ONE, serial=2)), "renewed, it is the same caller"
    assert gate.passes(OTHER)


def test_strangers_are_charged_by_where_they_are() -> None:
    gate = Gate()
    assert gate.passes(NOBODY)
    assert not gate.passes(NOBODY)
    assert not gate.passes(anonymous("tls:no-longer-valid"))
    assert gate.passes(NOBODY, THERE)
    assert gate.passes(ONE), "and nobody with proof pays for them"


def test_users_of_this_machine_are_told_apart() -> None:
    gate = Gate()
    assert gate.passes(USER, None)
    assert not gate.passes(USER, None)
    assert gate.passes(evolve(USER, proof="unix:uid:65533"), None)


@pytest.mark.parametrize("action", [action for action in Action if action is not Action.SIGN])
def test_what_administrators_do_is_never_limited_but_for_signing(action: Action) -> None:
    gate = Gate()
    assert all(gate.passes(ADMINISTRATOR, action=action) for _ in range(10))
    assert gate.passes(ADMINISTRATOR)
    assert not gate.passes(ADMINISTRATOR)
