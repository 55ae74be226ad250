"""What a CA publishes as its issuing CAs come and go, and as it comes and goes itself."""

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from attrs import define
from cryptography.hazmat.primitives.serialization import Encoding
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from pki.issuing.authority import Authority
from pki.svid.revocation_set import Reason
from tests.authorities import DAY, HOUR, MESH, key
from tests.twisted_mesh.ca.publishing import (
    listed,
    publishing_rig,
    reborn,
    relied_on,
    revoke,
    revoked,
    served,
)
from tests.twisted_mesh.ca.rigs import ADMIN, CaRig, Listener, ca_rig, housekeeping, result_of
from twisted_mesh.ca.revocation.crl_publisher import TICK
from twisted_mesh.stores.records import StoreError, Unknown

MINUTE = timedelta(minutes=1)
_DER = Encoding.DER


@pytest.fixture
def rig() -> Iterator[CaRig]:
    with publishing_rig() as made:
        yield made


@define(eq=False)
class SlowFeed:
    """A store whose feed is read at once and given later."""

    store: Any
    gate: "Deferred[None]"

    async def feed(self, after: int) -> Any:
        found = await self.store.feed(after)
        await self.gate
        return found

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)


def next_issuing(rig: CaRig, generation: int = 2) -> Authority:
    made = rig.home.root.create_issuing(key(f"generation {generation}"), MESH, rig.time, generation)
    return asyncio.run(made)


# Before and after a restart.


def test_what_was_revoked_in_earlier_lives_is_on_the_first_crl(rig: CaRig) -> None:
    serials = {revoked(rig) for _ in range(3)}
    last = served(rig).number
    reborn(rig)
    assert listed(rig) == serials
    assert served(rig).number > last


def test_others_hear_at_the_start_what_was_revoked(rig: CaRig) -> None:
    serial = revoked(rig)
    earlier = Listener()
    reborn(rig, earlier)
    result_of(rig.ca.publisher.ready())
    result_of(rig.ca.publisher.ready())
    assert [revocation.serial for revocation in earlier.told] == [serial]


def test_who_revokes_while_the_record_is_read_waits_for_the_crl_too(rig: CaRig) -> None:
    before = revoked(rig)
    leaf, *_ = rig.sign()
    gate: Deferred[None] = Deferred()
    reborn(rig).store = SlowFeed(rig.store, gate)
    reading = Deferred.fromCoroutine(rig.ca.publisher.ready())
    answered: list[Any] = []
    outcome = Deferred.fromCoroutine(
        rig.ca.certificates.revoke(ADMIN, leaf.serial_number, Reason.SUPERSEDED)
    )
    outcome.addCallback(answered.append)
    assert not answered
    gate.callback(None)
    assert answered
    assert listed(rig) == {before, leaf.serial_number}
    assert reading.called


def test_a_record_that_cannot_be_read_is_asked_again(rig: CaRig) -> None:
    serial = revoked(rig)
    reborn(rig)
    rig.store.broken = {"feed"}
    with pytest.raises(StoreError):
        served(rig)
    rig.store.broken = set()
    assert listed(rig) == {serial}


def test_a_ca_that_publishes_nothing_revokes_at_once() -> None:
    with ca_rig() as rig:
        leaf, *_ = rig.sign()
        rig.order.clear()
        revoke(rig, leaf.serial_number)
        assert rig.order == ["find", "Revoke"]
        assert rig.ca.publisher.waiting() is None
        assert listed(rig) == {leaf.serial_number}, "but whoever asks is told"


# As issuing CAs come and go.


def test_each_issuing_ca_has_its_own_with_what_it_issued(rig: CaRig) -> None:
    first, by_first = rig.ca.authorities.issuing, revoked(rig)
    successor = next_issuing(rig)
    rig.ca.current.adopt(rig.ca.authorities.with_prepared(successor))
    result_of(rig.ca.publisher.attend())
    assert relied_on(rig, served(rig, successor.key_id), successor.certificate).number is not None
    rig.ca.current.adopt(rig.ca.authorities.with_active(successor))
    by_second = revoked(rig)
    assert listed(rig) == {by_second}
    told = relied_on(rig, served(rig, first.key_id), first.certificate)
    assert {r.serial for r in told} == {by_first}
    leaf, *_ = rig.sign()
    revoke(rig, leaf.serial_number)
    assert listed(rig) == {by_second, leaf.serial_number}


def test_a_leaf_of_a_retired_ca_is_revoked_on_that_cas_crl(rig: CaRig) -> None:
    first = rig.ca.authorities.issuing
    leaf, *_ = rig.sign()
    rig.ca.current.adopt(rig.ca.authorities.with_active(next_issuing(rig)))
    revoke(rig, leaf.serial_number)
    told = relied_on(rig, served(rig, first.key_id), first.certificate)
    assert {r.serial for r in told} == {leaf.serial_number}
    assert listed(rig) == set()


def test_one_that_was_activated_at_once_has_one_before_it_is_asked_for(rig: CaRig) -> None:
    successor = next_issuing(rig)
    rig.ca.current.adopt(rig.ca.authorities.with_active(successor))
    serial = revoked(rig)
    assert listed(rig, rig.ca.publisher.current(successor.key_id)) == {serial}


def test_one_that_is_forgotten_has_none(rig: CaRig) -> None:
    first = rig.ca.authorities.issuing
    rig.ca.current.adopt(rig.ca.authorities.with_active(next_issuing(rig)))
    rig.ca.current.adopt(rig.ca.authorities.without(first))
    result_of(rig.ca.publisher.attend())
    with pytest.raises(Unknown):
        served(rig, first.key_id)
    assert rig.ca.publisher.find(first.key_id, 1) is None


def test_nobody_elses_is_here(rig: CaRig) -> None:
    with pytest.raises(Unknown):
        served(rig, "ab" * 32)


# By itself.


def test_a_tick_a_second_keeps_them_fresh(rig: CaRig) -> None:
    clock = Clock()
    first = served(rig)
    rig.ca.publisher.start(clock)
    rig.time += HOUR
    clock.advance(TICK)
    assert served(rig).number > first.number
    rig.ca.publisher.stop()
    rig.ca.publisher.stop()
    assert clock.getDelayedCalls() == []


def test_a_tick_that_fails_is_not_the_last(rig: CaRig) -> None:
    clock, publisher = Clock(), reborn(rig)
    rig.store.broken = {"feed"}
    publisher.start(clock)
    assert publisher.current(rig.ca.authorities.issuing.key_id) is None
    rig.store.broken = set()
    clock.advance(TICK)
    assert publisher.current(rig.ca.authorities.issuing.key_id) is not None
    publisher.stop()


# What must stay on record.


def test_what_a_crl_lists_is_not_pruned(rig: CaRig) -> None:
    keeping = housekeeping(rig, Clock(), timedelta(), 100 * DAY)
    serial = revoked(rig, ttl=10 * MINUTE)
    leaf, *_ = rig.sign(ttl=10 * MINUTE)
    rig.time += 20 * MINUTE
    assert result_of(keeping.prune()) >= 1
    with pytest.raises(Unknown):
        result_of(rig.ca.record.certificate(leaf.serial_number))
    reborn(rig)
    keeping = housekeeping(rig, Clock(), timedelta(), 100 * DAY)
    assert listed(rig) == {serial}
    for _ in range(6):
        rig.time += 35 * MINUTE
        result_of(rig.ca.publisher.attend())
    assert listed(rig) == set()
    assert result_of(keeping.prune()) >= 1
    with pytest.raises(Unknown):
        result_of(rig.ca.record.certificate(serial))


def test_certificates_say_where_it_is_once_that_is_known(rig: CaRig) -> None:
    issuing = rig.ca.authorities.issuing
    bare, *_ = rig.sign()
    rig.ca.current.publish_at("http://ca.example:8080")
    leaf, *_ = rig.sign()
    names = [extension.oid._name for extension in leaf.extensions]
    assert {"cRLDistributionPoints", "authorityInfoAccess"} <= set(names)
    assert not {"cRLDistributionPoints", "authorityInfoAccess"} & {
        extension.oid._name for extension in bare.extensions
    }
    text = leaf.public_bytes(_DER)
    for url in (f"/crl/{issuing.key_id}", "/ocsp", f"/issuer/{issuing.key_id}"):
        assert f"http://ca.example:8080{url}".encode() in text
    successor = next_issuing(rig)
    rig.ca.current.adopt(rig.ca.authorities.with_active(successor))
    leaf, *_ = rig.sign()
    assert f"/crl/{successor.key_id}".encode() in leaf.public_bytes(_DER)
