"""One issuing CA's CRL: fresh before anybody is told that it is, one build at a time, nothing forgotten too soon."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.logger import LogEvent

from pki.svid.revocation_set import GIVEN_REASONS, Reason, Revocation
from tests.authorities import DAY, HOUR, NOW
from tests.twisted_mesh.ca.publishing import (
    at_once,
    listed,
    publishing_rig,
    relied_on,
    revoke,
    revoked,
    served,
)
from tests.twisted_mesh.ca.rigs import ADMIN, CaRig, result_of
from twisted_mesh.ca.revocation import crl
from twisted_mesh.ca.revocation.crl import IssuingCrl, NotPublished
from twisted_mesh.ca.revocation.crl_numbers import CrlNumbers

MINUTE, SECOND = timedelta(minutes=1), timedelta(seconds=1)


@pytest.fixture
def rig() -> Iterator[CaRig]:
    with publishing_rig() as made:
        yield made


def list_of(rig: CaRig) -> IssuingCrl:
    (found,) = rig.ca.publisher.lists
    return found


def revocation(rig: CaRig, serial: int, lives: timedelta = HOUR) -> Revocation:
    issuer = rig.ca.authorities.issuing.key_id
    return Revocation(issuer, serial, rig.time, Reason.SUPERSEDED, rig.time + lives)


def crls(rig: CaRig) -> int:
    return rig.order.count("TakeCrlNumber")


# What is in it.


def test_whoever_revokes_is_answered_when_it_is_on_the_crl(rig: CaRig) -> None:
    leaf, *_ = rig.sign()
    assert listed(rig) == set()
    rig.order.clear()
    revoke(rig, leaf.serial_number)
    assert rig.order == ["find", "Revoke", "TakeCrlNumber", "sign"]
    current = list_of(rig).current
    assert current is not None
    assert listed(rig, current) == {leaf.serial_number}


def test_every_reason_is_told_and_when(rig: CaRig) -> None:
    given = {}
    # A compromised key is certified no more, and all have the same one here.
    for reason in sorted(GIVEN_REASONS, key=lambda one: one is Reason.KEY_COMPROMISE):
        leaf, *_ = rig.sign()
        revoke(rig, leaf.serial_number, reason)
        given[leaf.serial_number] = reason
    told = {r.serial: (r.reason, r.revoked_at) for r in relied_on(rig, served(rig))}
    assert told == {serial: (reason, NOW) for serial, reason in given.items()}


def test_numbers_grow_with_each(rig: CaRig) -> None:
    numbers = [served(rig).number]
    for _ in range(5):
        revoked(rig)
        numbers.append(served(rig).number)
    assert numbers == sorted(set(numbers))


def test_what_is_revoked_already_is_answered_without_another_crl(rig: CaRig) -> None:
    serial = revoked(rig)
    rig.order.clear()
    revoke(rig, serial)
    assert rig.order == ["find", "Revoke"]


@pytest.mark.usefixtures("elsewhere")
def test_what_is_written_off_is_on_the_crl_too(rig: CaRig) -> None:
    rig.store.broken = {"RecordCertificate"}
    with pytest.raises(Exception, match="disk is full"):
        rig.sign()
    rig.store.broken = set()
    assert result_of(rig.ca.write_offs.resolve()) == 1
    assert len(listed(rig, list_of(rig).current)) == 1


# When it is made.


def test_it_is_made_anew_at_half_of_its_life(rig: CaRig) -> None:
    first = served(rig)
    assert first.span.next_update == NOW + HOUR
    rig.time += 29 * MINUTE
    result_of(rig.ca.publisher.attend())
    assert served(rig) is first
    rig.time += MINUTE
    result_of(rig.ca.publisher.attend())
    second = served(rig)
    assert second.number > first.number
    assert second.span.next_update == rig.time + HOUR


def test_it_is_made_anew_when_the_clock_was_ahead(rig: CaRig) -> None:
    first = served(rig)
    rig.time -= DAY
    result_of(rig.ca.publisher.attend())
    second = served(rig)
    assert second.number == first.number + 1
    assert second.span.next_update == rig.time + HOUR


def held(rig: CaRig) -> "Deferred[None]":
    rig.signer.held = Deferred()
    return rig.signer.held


def test_a_thousand_at_once_take_two_builds_and_nobody_is_answered_too_soon(rig: CaRig) -> None:
    serials = [rig.sign()[0].serial_number for _ in range(40)]
    rig.order.clear()
    gate, answered = held(rig), []
    for serial in serials:
        outcome = Deferred.fromCoroutine(
            rig.ca.certificates.revoke(ADMIN, serial, Reason.SUPERSEDED)
        )
        outcome.addCallback(lambda known: answered.append(known.serial))
    assert len(rig.told) == len(serials), "endpoints do not wait for the CRL"
    assert (answered, crls(rig)) == ([], 1)
    rig.signer.held = second = Deferred()
    gate.callback(None)
    assert answered == serials[:1]
    assert listed(rig, list_of(rig).current) == set(serials[:1])
    assert crls(rig) == 2
    rig.signer.held = None
    second.callback(None)
    assert sorted(answered) == sorted(serials)
    assert listed(rig, list_of(rig).current) == set(serials)
    assert crls(rig) == 2


def test_what_is_there_is_served_while_the_next_is_made(rig: CaRig) -> None:
    first, (leaf, *_) = served(rig), rig.sign()
    gate = held(rig)
    Deferred.fromCoroutine(rig.ca.certificates.revoke(ADMIN, leaf.serial_number, Reason.SUPERSEDED))
    assert served(rig) is first
    gate.callback(None)
    assert served(rig) is not first


# What goes wrong.


def test_a_signer_that_breaks_is_told_to_who_waits_and_tried_again(
    rig: CaRig, logged: list[LogEvent]
) -> None:
    leaf, *_ = rig.sign()
    rig.signer.breaks = lambda: bytes(70)
    with pytest.raises(NotPublished, match="no signature of its key"):
        revoke(rig, leaf.serial_number)
    assert [r.serial for r in rig.told] == [leaf.serial_number], "endpoints know all the same"
    result_of(rig.ca.publisher.attend())
    assert [e.get("event") for e in logged].count("crl-failed") == 1, "it is told once"
    problem = rig.ca.publisher.waiting()
    assert problem is not None
    assert problem.code == "crl-stale"
    rig.signer.breaks = None
    result_of(rig.ca.publisher.attend())
    assert listed(rig, list_of(rig).current) == {leaf.serial_number}
    assert "crl-recovered" in [e.get("event") for e in logged]
    revoke(rig, leaf.serial_number)


def test_without_a_number_there_is_no_crl(rig: CaRig) -> None:
    leaf, *_ = rig.sign()
    first = served(rig)
    rig.store.broken = {"TakeCrlNumber"}
    with pytest.raises(NotPublished, match="disk is full"):
        revoke(rig, leaf.serial_number)
    assert served(rig) is first
    rig.store.broken = set()
    revoke(rig, leaf.serial_number)
    assert listed(rig) == {leaf.serial_number}


def test_a_bug_is_told_to_who_waits_and_tried_again(
    rig: CaRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    leaf, *_ = rig.sign()

    def broken(*_: object) -> None:
        raise MemoryError("nothing left")

    with monkeypatch.context() as patch:
        patch.setattr(crl, "encode_entries", broken)
        with pytest.raises(NotPublished, match="MemoryError: nothing left"):
            revoke(rig, leaf.serial_number)
    result_of(rig.ca.publisher.attend())
    assert listed(rig) == {leaf.serial_number}


# What expires.


def test_what_has_expired_stays_for_a_whole_life_of_a_crl_more(rig: CaRig) -> None:
    serial = revoked(rig, ttl=10 * MINUTE)
    on = []
    for minutes in range(0, 121, 10):
        rig.time = NOW + minutes * MINUTE
        result_of(rig.ca.publisher.attend())
        on.append((minutes, serial in listed(rig)))
    assert all(is_on for minutes, is_on in on if minutes <= 70)
    assert not on[-1][1]


def test_what_expired_while_the_ca_was_away_is_on_the_next_crl_once_more(rig: CaRig) -> None:
    serial = revoked(rig, ttl=10 * MINUTE)
    rig.time += 20 * DAY
    result_of(rig.ca.publisher.attend())
    assert serial in listed(rig)
    rig.time += 30 * MINUTE
    result_of(rig.ca.publisher.attend())
    assert serial not in listed(rig)


def test_what_expired_long_ago_is_not_listed_when_it_is_revoked(rig: CaRig) -> None:
    leaf, *_ = rig.sign(ttl=10 * MINUTE)
    rig.time += DAY
    result_of(rig.ca.publisher.attend())
    revoke(rig, leaf.serial_number)
    assert listed(rig) == set()


# Long ones.


def long_list(rig: CaRig, size: int) -> IssuingCrl:
    issuing = rig.home.issuing
    numbers = CrlNumbers(rig.store, lambda: rig.time)
    made = IssuingCrl(issuing, numbers, lambda: rig.time, HOUR, at_once)
    made.add(revocation(rig, 1 + n) for n in range(size))
    return made


def test_a_long_one_is_made_on_a_thread(rig: CaRig) -> None:
    aside: list[Any] = []

    async def noted(work: Any) -> Any:
        aside.append(work)
        return work()

    made = long_list(rig, crl.LARGE)
    made.aside = noted
    assert result_of(made.up_to_date()).entries == crl.LARGE
    assert not aside
    made.add([revocation(rig, 10**6)])
    current = result_of(made.up_to_date())
    assert len(aside) == 1
    assert len(relied_on(rig, current, rig.home.issuing.certificate)) == crl.LARGE + 1


def test_what_is_written_is_not_written_again(rig: CaRig, monkeypatch: pytest.MonkeyPatch) -> None:
    made = long_list(rig, 3000)
    result_of(made.up_to_date())
    encode, written = crl.encode_entries, []

    def counted(revocations: Any) -> bytes:
        fresh = list(revocations)
        written.append(len(fresh))
        return encode(fresh)

    monkeypatch.setattr(crl, "encode_entries", counted)
    for n in range(5):
        made.add([revocation(rig, 10**6 + n)])
        result_of(made.up_to_date())
    assert written == [1] * 5
    assert made.current is not None
    told = relied_on(rig, made.current, rig.home.issuing.certificate)
    assert {r.serial for r in told} == {*range(1, 3001), *range(10**6, 10**6 + 5)}


def test_where_some_are_forgotten_all_are_written_anew(rig: CaRig) -> None:
    made = long_list(rig, 10)
    made.add(revocation(rig, 100 + n, DAY) for n in range(5))
    result_of(made.up_to_date())
    for _ in range(4):
        rig.time += 40 * MINUTE
        made.build()
    assert made.current is not None
    told = relied_on(rig, made.current, rig.home.issuing.certificate)
    assert {r.serial for r in told} == set(range(100, 105))
    made.add([revocation(rig, 7)])
    assert result_of(made.up_to_date()).entries == 6


def test_one_serial_is_listed_once(rig: CaRig) -> None:
    made = long_list(rig, 3)
    made.add([revocation(rig, 2), revocation(rig, 50), revocation(rig, 50)])
    assert result_of(made.up_to_date()).entries == 4


def test_two_of_one_second_say_so(rig: CaRig) -> None:
    assert not served(rig).shares_its_second
    revoked(rig)
    first = served(rig)
    assert first.shares_its_second
    rig.time += SECOND
    revoked(rig)
    assert not served(rig).shares_its_second
    assert served(rig).etag != first.etag
