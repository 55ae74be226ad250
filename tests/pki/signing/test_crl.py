"""Whoever has the CA's process wants the list of what is revoked to be shorter, older, or believed for longer."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

import pytest

from pki.crl.entries import encode_entries
from pki.crl.issue import lay_out_crl
from pki.crl.schedule import Span
from pki.der import SEQUENCE, element, elements
from pki.issuing.profile import ISSUING_NAME, ca_subject
from pki.keys import key_identifier, spki_der
from pki.signing.errors import NotSignable, SigningRefused
from pki.signing.policy import SigningPolicy
from pki.svid.names import encoded_subject
from pki.svid.revocation_set import Reason, Revocation
from tests.authorities import BACKEND, DAY, HOUR, MESH, NOW, OTHER, key
from tests.pki.signing.conftest import Rig, done
from tests.pki.signing.remembered import JudgedKey, Remembered


def listing(
    rig: Rig,
    serials: Iterable[int],
    number: int,
    *,
    now: datetime = NOW,
    life: timedelta = HOUR,
    by: str = "issuing",
    reason: Reason = Reason.KEY_COMPROMISE,
    since: datetime = NOW,
    issuer: bytes = b"",
    identifier: bytes = b"",
) -> bytes:
    authority = getattr(rig, by)
    one: JudgedKey = authority.key
    span = Span.starting(now, life)
    revoked = [Revocation("", serial, since, reason, now) for serial in serials]
    return lay_out_crl(
        one.algorithm.identifier,
        issuer or encoded_subject(authority.certificate),
        identifier or key_identifier(spki_der(one.public_key)),
        encode_entries(revoked),
        number,
        this_update=span.this_update,
        next_update=span.next_update,
    )


def issued(rig: Rig, life: timedelta = HOUR) -> int:
    draft = rig.issuing.draft(key(1).public_key, BACKEND, rig.issuing_key.now, life)
    return done(rig.issuing.sign(draft)).serial_number


def refused(one: JudgedKey, data: bytes, rule: str) -> None:
    before = one.memory.crls.get(one.held.name), one.memory.lists.get(one.held.name)
    with pytest.raises(SigningRefused) as caught:
        one.judge(data)
    assert caught.value.rule == rule, str(caught.value)
    assert before == (one.memory.crls.get(one.held.name), one.memory.lists.get(one.held.name))


def test_no_empty_list_and_none_without_one_that_has_not_expired(rig: Rig) -> None:
    serials = [issued(rig) for _ in range(3)]
    rig.issuing_key.judge(listing(rig, serials, 1))
    refused(rig.issuing_key, listing(rig, [], 2), "crl-drops")
    refused(rig.issuing_key, listing(rig, serials[1:], 2), "crl-drops")
    refused(rig.issuing_key, listing(rig, [*serials[1:], 4711], 2), "crl-drops")
    rig.issuing_key.judge(listing(rig, [*serials, 4711], 2))


def test_not_even_in_several_steps(rig: Rig) -> None:
    """A serial that was listed before it was certified is one that was certified since."""
    serial = (1 << 100) + 5
    rig.issuing_key.judge(listing(rig, [serial], 1))
    from tests.pki.signing.test_certificate import forged

    rig.issuing_key.judge(forged(rig.issuing_key, rig.issuing.certificate.subject, serial=serial))
    refused(rig.issuing_key, listing(rig, [], 2), "crl-drops")


def test_what_has_ended_may_go_by_the_signers_clock_and_the_lists_own(rig: Rig) -> None:
    serial = issued(rig)
    rig.issuing_key.judge(listing(rig, [serial], 1))
    later = NOW + HOUR + timedelta(seconds=50)
    refused(rig.issuing_key, listing(rig, [], 2, now=later), "clock")
    rig.issuing_key.now = NOW + HOUR - timedelta(seconds=1)
    refused(
        rig.issuing_key, listing(rig, [], 2, now=NOW + HOUR + timedelta(seconds=40)), "crl-drops"
    )
    rig.issuing_key.now = NOW + HOUR + timedelta(seconds=5)
    refused(rig.issuing_key, listing(rig, [], 2, now=rig.issuing_key.now), "crl-drops")
    rig.issuing_key.now = later
    rig.issuing_key.judge(listing(rig, [], 2, now=later))


def test_of_a_key_that_was_not_made_here_nothing_unknown_is_dropped() -> None:
    rig = Rig(memory=Remembered())
    brought = JudgedKey.made(
        "issuing", key("brought"), rig.policy, rig.memory, NOW, is_made_here=False
    )
    rig.issuing = done(rig.root.create_issuing(brought, MESH, NOW))
    brought.judge(listing(rig, [99], 1))
    refused(brought, listing(rig, [], 2), "crl-drops")


def test_numbers_rise_and_none_is_used_twice(rig: Rig) -> None:
    data = listing(rig, [5], 7)
    rig.issuing_key.judge(data)
    assert rig.issuing_key.judge(data).effect is None, "the same again is the same"
    for number in (0, 6, 7):
        refused(rig.issuing_key, listing(rig, [5, 6], number), "crl-number")
    rig.issuing_key.judge(listing(rig, [5, 6], 8))
    refused(rig.issuing_key, data, "crl-number")


def test_nobody_takes_the_last_number_that_there_is(rig: Rig) -> None:
    """Else a thief signs one list, and the CA that is cleaned up after that none at all."""
    now = int(NOW.timestamp() * 1000)
    for number in (now + 2 * 3600 * 1000, (1 << 159) - 1):
        refused(rig.issuing_key, listing(rig, [], number), "crl-number")
    rig.issuing_key.judge(listing(rig, [], now + 60_000))


def test_each_key_has_numbers_of_its_own(rig: Rig) -> None:
    rig.issuing_key.judge(listing(rig, [5], 7))
    rig.root_key.judge(listing(rig, [], 1, by="root", life=300 * DAY))
    refused(rig.root_key, listing(rig, [], 1, by="root", life=299 * DAY), "crl-number")


def test_no_list_is_believed_for_long_or_at_another_time(rig: Rig) -> None:
    refused(rig.issuing_key, listing(rig, [], 1, life=3 * DAY), "crl-life")
    refused(rig.root_key, listing(rig, [], 1, by="root", life=3000 * DAY), "crl-life")
    for now in (NOW - HOUR, NOW + HOUR, NOW + 1000 * DAY):
        refused(rig.issuing_key, listing(rig, [], 1, now=now), "clock")


def test_nothing_in_a_list_takes_a_revocation_back(rig: Rig) -> None:
    """OpenSSL takes removeFromCRL for the word that a certificate is not revoked, in a complete list too."""
    serial = issued(rig)
    rig.issuing_key.judge(listing(rig, [serial], 1))
    for reason in (Reason.REMOVE_FROM_CRL, Reason.CERTIFICATE_HOLD):
        refused(rig.issuing_key, listing(rig, [serial], 2, reason=reason), "crl-reason")
    refused(rig.issuing_key, listing(rig, [serial], 2, since=NOW + DAY), "crl-future")


def test_a_list_is_of_the_ca_whose_key_signs_it(rig: Rig) -> None:
    for said in (
        {"issuer": encoded_subject(rig.root.certificate)},
        {"issuer": ca_subject(ISSUING_NAME, OTHER, 1).public_bytes()},
        {"identifier": b"i" * 20},
    ):
        refused(rig.issuing_key, listing(rig, [], 1, **said), "issuer")
    rig.memory.certificates.clear()
    for name in (ca_subject(ISSUING_NAME, OTHER, 1), ca_subject("mtls-mesh-root-ca", MESH, 1)):
        refused(rig.issuing_key, listing(rig, [], 1, issuer=name.public_bytes()), "issuer")
    never_shown = ca_subject(ISSUING_NAME, MESH, 3).public_bytes()
    rig.issuing_key.judge(listing(rig, [], 1, issuer=never_shown))


def test_no_delta_no_partial_list_and_no_entry_twice(rig: Rig) -> None:
    data = listing(rig, [5], 1)
    (whole,) = elements(data)
    parts = [part.whole for part in elements(whole.content)]
    (extensions,) = elements(parts[-1])
    (listed,) = elements(extensions.whole)
    (inner,) = elements(listed.content)
    (entry,) = elements(next(elements(parts[5])).content)
    for oid, value in (("551d1b", "0201ff"), ("551d1c", "3003840100"), ("551d1c", "3003850101")):
        known = element(0x06, bytes.fromhex(oid)) + b"\x01\x01\xff"
        more = element(SEQUENCE, known + element(0x04, bytes.fromhex(value)))
        spoiled = element(0xA0, element(SEQUENCE, inner.content + more))
        _not_signable(rig, element(SEQUENCE, b"".join([*parts[:-1], spoiled])))
    twice = element(SEQUENCE, entry.whole * 2)
    _not_signable(rig, element(SEQUENCE, b"".join([*parts[:5], twice, parts[-1]])))
    _not_signable(rig, element(SEQUENCE, b"".join(parts[:-1])))
    _not_signable(rig, data + b"\0")
    _not_signable(rig, data[:-1])


def _not_signable(rig: Rig, data: bytes) -> None:
    with pytest.raises(NotSignable):
        rig.issuing_key.judge(data)


def test_a_list_of_an_audit_key_is_nothing(rig: Rig) -> None:
    with pytest.raises(NotSignable):
        rig.audit_key.judge(listing(rig, [], 1))


def test_a_policy_may_say_how_long_lists_hold() -> None:
    said: dict[str, Any] = {"max_crl_duration": timedelta(minutes=30)}
    rig = Rig(SigningPolicy(MESH, **said))
    refused(rig.issuing_key, listing(rig, [], 1, life=HOUR), "crl-life")
    rig.issuing_key.judge(listing(rig, [], 1, life=timedelta(minutes=30)))


def test_no_list_of_the_cas_name_in_another_spelling(rig: Rig) -> None:
    """It would be a list of nobody's to those who compare names by their bytes."""
    from tests.pki.signing.test_certificate import spelt

    issuer = spelt(rig.issuing.certificate.subject).public_bytes()
    refused(rig.issuing_key, listing(rig, [5], 5, issuer=issuer), "issuer")
