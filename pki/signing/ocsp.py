"""OCSP answers that an issuing CA's own key is asked to sign: read, laid out anew, held against what the key has done.

Our CAs have delegates sign theirs; whoever has none asks here. Whatever the last CRL lists is never called good.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta

from attrs import frozen

from pki.crl.schedule import ANSWER_LIFE
from pki.der import (
    ENUMERATED,
    GENERALIZED_TIME,
    OBJECT_IDENTIFIER,
    OCTET_STRING,
    SEQUENCE,
    Element,
    element,
    elements,
    generalized_time,
    integer,
    oid_text,
    parse_time,
)
from pki.errors import HOSTILE_INPUT, Malformed
from pki.keys import key_identifier
from pki.ocsp.request import HASHES, MAX_CERT_IDS, MAX_NONCE, Issuer, nonce_extensions
from pki.serial import serial_hex
from pki.signing.errors import NotSignable, SigningRefused
from pki.signing.memory import HeldKey, Memory, Verdict
from pki.signing.policy import SigningPolicy

_BY_KEY, _FIRST, _SECOND = 0xA2, 0xA0, 0xA1
_GOOD, _REVOKED, _UNKNOWN = 0x80, 0xA1, 0x82
_MOST_BYTES = 64 * 1024
_UNREADABLE: tuple[type[BaseException], ...] = (*HOSTILE_INPUT, Malformed, IndexError)


@frozen
class Said:
    """What is said of one certificate."""

    algorithm: str
    """The OID of the hash that its issuer is named by."""
    hashes: tuple[bytes, bytes]
    serial: int
    standing: int
    """The tag of CertStatus."""
    this_update: datetime
    next_update: datetime


@frozen(eq=False, repr=False)
class ReadAnswer:
    """A ResponseData (RFC 6960 section 4.2.1) that is written as we write them."""

    responder: bytes
    produced_at: datetime
    said: Sequence[Said]


def read_answer_data(tbs: bytes) -> ReadAnswer:
    """What is to be signed. Raises :class:`NotSignable`."""
    try:
        if len(tbs) > _MOST_BYTES:
            raise Malformed(f"it has more than {_MOST_BYTES} bytes")
        (whole,) = elements(tbs)
        responder, produced, listed, *rest = elements(whole.content)
        (identifier,) = elements(responder.content)
        at = parse_time(produced.tag, produced.content)
        singles = list(elements(listed.content))
        said = [_read(single) for single in singles]
        nonce = _nonce(rest)
        data = (
            element(_BY_KEY, element(OCTET_STRING, identifier.content))
            + generalized_time(at)
            + element(SEQUENCE, b"".join(map(_written, singles, said)))
            + (element(_SECOND, nonce_extensions(nonce)) if nonce is not None else b"")
        )
    except _UNREADABLE as error:
        raise NotSignable(f"it begins as an OCSP answer and cannot be decoded ({error})") from None
    if element(SEQUENCE, data) != tbs or not 1 <= len(said) <= MAX_CERT_IDS:
        raise NotSignable(
            "the OCSP answer is not written as its own content would be: another reader might see another one in it"
        )
    return ReadAnswer(identifier.content, at, said)


def _read(single: Element) -> Said:
    cert_id, status, this_update, until = elements(single.content)
    algorithm, name_hash, key_hash, serial = elements(cert_id.content)
    oid = next(elements(algorithm.content))
    (next_update,) = elements(until.content)
    return Said(
        oid_text(oid.content),
        (name_hash.content, key_hash.content),
        int.from_bytes(serial.content, "big", signed=True),
        status.tag,
        parse_time(this_update.tag, this_update.content),
        parse_time(next_update.tag, next_update.content),
    )


def _written(single: Element, said: Said) -> bytes:
    """The same, laid out anew."""
    cert_id, status, _, _ = elements(single.content)
    algorithm, _, _, _ = elements(cert_id.content)
    oid, *parameters = elements(algorithm.content)
    if said.algorithm not in HASHES or [each.whole for each in parameters] not in ([], [b"\x05\0"]):
        raise Malformed("its issuer is named by an unknown hash")
    null = b"".join(each.whole for each in parameters)
    identifier = (
        element(SEQUENCE, element(OBJECT_IDENTIFIER, oid.content) + null)
        + b"".join(element(OCTET_STRING, each) for each in said.hashes)
        + integer(said.serial)
    )
    times = generalized_time(said.this_update) + element(_FIRST, generalized_time(said.next_update))
    return element(SEQUENCE, element(SEQUENCE, identifier) + _status(status) + times)


def _status(status: Element) -> bytes:
    if status.tag in (_GOOD, _UNKNOWN):
        return bytes((status.tag, 0))
    if status.tag != _REVOKED:
        raise Malformed("a certificate is good, revoked or unknown")
    since, *reasons = elements(status.content)
    if since.tag != GENERALIZED_TIME:
        raise Malformed("a certificate is revoked since a GeneralizedTime")
    told = generalized_time(parse_time(since.tag, since.content))
    for reason in reasons:
        (code,) = elements(reason.content)
        if code.tag != ENUMERATED or len(code.content) != 1:
            raise Malformed("a reason is one number")
        told += element(_FIRST, element(ENUMERATED, code.content))
    return element(_REVOKED, told)


def _nonce(rest: Sequence[Element]) -> bytes | None:
    if not rest:
        return None
    (extensions,) = rest
    (listed,) = elements(extensions.content)
    (single,) = elements(listed.content)
    _, value = elements(single.content)
    (nonce,) = elements(value.content)
    if not 1 <= len(nonce.content) <= MAX_NONCE or nonce.tag != OCTET_STRING:
        raise Malformed("a nonce has 1 to 128 bytes")
    return nonce.content


def judge_answer_data(
    tbs: bytes, key: HeldKey, policy: SigningPolicy, memory: Memory, now: datetime
) -> Verdict:
    """Whether ``key`` signs it. Raises :class:`NotSignable` and :class:`SigningRefused`."""
    found = read_answer_data(tbs)
    if key.purpose != "issuing":
        raise SigningRefused("purpose", "only an issuing CA's key signs OCSP answers here")
    if found.responder != key_identifier(key.spki):
        raise SigningRefused("issuer", "the OCSP answer names another responder than its key")
    if abs(found.produced_at - now) > policy.clock_skew + timedelta(minutes=1):
        raise SigningRefused(
            "clock",
            f"the OCSP answer is of {found.produced_at.isoformat()}, and here it is {now.isoformat()}",
            "compare the two machines' clocks; nothing is backdated",
        )
    issuers = [Issuer.of(certificate) for certificate in memory.certificates_of(key)]
    if not issuers:
        raise SigningRefused(
            "issuer",
            "the CA's certificate is not known here, so nothing can be said about what it has issued",
            "show it to the signer: mesh-signer adopt FILE",
        )
    listed = memory.listed(key)
    for said in found.said:
        ours = any(issuer.hashes.get(said.algorithm) == said.hashes for issuer in issuers)
        shown = serial_hex(abs(said.serial))
        if said.standing == _GOOD:
            if not ours or memory.certified(key, said.serial) is None:
                raise SigningRefused("ocsp-good", f"{shown} was not issued by this key")
            if said.serial in listed:
                raise SigningRefused("ocsp-good", f"{shown} is on the last CRL, and so not good")
        elif said.standing == _UNKNOWN and ours and said.serial in listed:
            raise SigningRefused("ocsp-good", f"{shown} is on the last CRL, and so not unknown")
        life = said.next_update - said.this_update
        early = said.this_update - now
        if not timedelta() < life <= ANSWER_LIFE + policy.clock_skew + timedelta(minutes=1) or (
            not -(ANSWER_LIFE + policy.clock_skew)
            <= early
            <= policy.clock_skew + timedelta(minutes=1)
        ):
            raise SigningRefused(
                "ocsp-life", f"an OCSP answer holds for {ANSWER_LIFE} at most, from now on"
            )
    return Verdict("ocsp", {"certificates": len(found.said)})
