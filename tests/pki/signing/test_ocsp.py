"""Whoever has the CA's process wants OCSP to call good what is revoked, or what was never issued."""

from datetime import datetime, timedelta

import pytest

from pki.der import ENUMERATED, OCTET_STRING, SEQUENCE, element, elements, generalized_time
from pki.keys import key_identifier, spki_der
from pki.ocsp.request import SHA1, Issuer, nonce_extensions
from pki.signing.errors import NotSignable, SigningRefused
from tests.authorities import DAY, HOUR, NOW
from tests.pki.signing.conftest import Rig
from tests.pki.signing.test_crl import issued, listing

GOOD, UNKNOWN = b"\x80\0", b"\x82\0"
REVOKED = element(0xA1, generalized_time(NOW) + element(0xA0, element(ENUMERATED, b"\1")))


def answer(
    rig: Rig,
    serial: int,
    told: bytes,
    *,
    at: datetime = NOW,
    since: datetime = NOW,
    life: timedelta = HOUR,
    responder: bytes = b"",
    of: str = "issuing",
    nonce: bytes | None = None,
) -> bytes:
    issuer = Issuer.of(getattr(rig, of).certificate)
    own = responder or key_identifier(spki_der(rig.issuing_key.public_key))
    times = generalized_time(since) + element(0xA0, generalized_time(since + life))
    single = element(SEQUENCE, issuer.cert_id(serial, SHA1).der + told + times)
    data = (
        element(0xA2, element(OCTET_STRING, own))
        + generalized_time(at)
        + element(SEQUENCE, single)
        + (element(0xA1, nonce_extensions(nonce)) if nonce is not None else b"")
    )
    return element(SEQUENCE, data)


def refused(rig: Rig, data: bytes, rule: str) -> None:
    with pytest.raises(SigningRefused) as caught:
        rig.issuing_key.judge(data)
    assert caught.value.rule == rule, str(caught.value)


def test_good_is_what_was_issued_and_is_not_on_the_last_list(rig: Rig) -> None:
    serial = issued(rig)
    for told in (GOOD, REVOKED, UNKNOWN):
        rig.issuing_key.judge(answer(rig, serial, told, nonce=b"n" * 32))
    refused(rig, answer(rig, 4711, GOOD), "ocsp-good")
    refused(rig, answer(rig, serial, GOOD, of="root"), "ocsp-good")
    rig.issuing_key.judge(listing(rig, [serial], 1))
    rig.issuing_key.judge(answer(rig, serial, REVOKED))
    refused(rig, answer(rig, serial, GOOD), "ocsp-good")
    refused(rig, answer(rig, serial, UNKNOWN), "ocsp-good")


def test_an_answer_is_of_now_and_holds_for_an_hour(rig: Rig) -> None:
    serial = issued(rig)
    refused(rig, answer(rig, serial, GOOD, life=DAY), "ocsp-life")
    refused(rig, answer(rig, serial, GOOD, since=NOW + 2 * HOUR), "ocsp-life")
    refused(rig, answer(rig, serial, GOOD, since=NOW - DAY), "ocsp-life")
    # Good for an hour that is to come: nobody knows yet what is revoked then.
    refused(rig, answer(rig, serial, GOOD, since=NOW + HOUR / 2), "ocsp-life")
    refused(rig, answer(rig, serial, GOOD, at=NOW + HOUR), "clock")


def test_an_answer_is_of_the_issuing_cas_own_key(rig: Rig) -> None:
    serial = issued(rig)
    refused(rig, answer(rig, serial, GOOD, responder=b"r" * 20), "issuer")
    with pytest.raises(SigningRefused) as caught:
        rig.root_key.judge(answer(rig, serial, GOOD))
    assert caught.value.rule == "purpose"
    rig.memory.certificates.clear()
    refused(rig, answer(rig, serial, GOOD), "issuer")


def test_no_answer_that_another_reader_may_read_otherwise(rig: Rig) -> None:
    data = answer(rig, issued(rig), GOOD, nonce=b"n" * 16)
    (whole,) = elements(data)
    responder, at, singles, extensions = elements(whole.content)
    name = element(0xA1, rig.issuing.certificate.subject.public_bytes())
    (single,) = elements(singles.content)
    cert_id, told, *times = elements(single.content)
    version = element(0xA0, b"\2\1\0")

    def with_single(content: bytes) -> bytes:
        body = responder.whole + at.whole + element(SEQUENCE, element(SEQUENCE, content))
        return element(SEQUENCE, body)

    tail = b"".join(time.whole for time in times)
    for spoiled in (
        data + b"\0",
        data[:-1],
        element(SEQUENCE, name + at.whole + singles.whole),
        element(SEQUENCE, version + whole.content),
        element(SEQUENCE, responder.whole + at.whole + element(SEQUENCE, b"")),
        element(SEQUENCE, whole.content + extensions.whole),
        with_single(cert_id.whole + b"\x80\1\0" + tail),
        with_single(cert_id.whole + told.whole + times[0].whole),
        with_single(cert_id.whole + told.whole + tail + element(0xA1, b"")),
        with_single(cert_id.whole + element(0xA1, b"") + tail),
        with_single(element(SEQUENCE, cert_id.content + b"\5\0") + told.whole + tail),
    ):
        with pytest.raises(NotSignable):
            rig.issuing_key.judge(spoiled)
