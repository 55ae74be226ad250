"""OCSP answers judged: what a client, or whoever staples one, may believe of it (RFC 6960 section 3.2)."""

import hmac
from collections.abc import Iterator
from datetime import datetime, timedelta

from attrs import frozen
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.hashes import HashAlgorithm
from cryptography.x509 import ocsp

from pki.codes import Code
from pki.errors import HOSTILE_INPUT, Malformed, Problem, Refused
from pki.keys import PublicKey, is_strong, key_id, key_identifier, spki_der, verify, weaknesses
from pki.ocsp.request import HASHES, Issuer, is_delegate
from pki.serial import serial_pairs
from pki.svid.revocation_set import Reason, Revocation
from pki.svid.x509svid import subject_of, validity_of
from pki.validity import rfc3339, spoken_duration

#: More is refused before it is parsed.
MAX_ANSWER_SIZE = 64 * 1024
#: How far a responder's clock may be ahead of ours.
_AHEAD = timedelta(minutes=1)
#: How many of the certificates in an answer are looked at.
_MAX_CERTIFICATES = 8
_SUCCESSFUL = ocsp.OCSPResponseStatus.SUCCESSFUL


class BadAnswer(Refused):
    """An OCSP answer that decodes and cannot be relied on; ``problems`` say why."""

    code = Code.BAD_OCSP_ANSWER


@frozen
class Answer:
    """An answer that was read and can be relied on."""

    revocation: Revocation | None
    """None: the certificate is good."""
    produced_at: datetime
    this_update: datetime
    next_update: datetime


def read_answer(
    der: bytes,
    cert: x509.Certificate,
    issuer: x509.Certificate,
    *,
    now: datetime,
    nonce: bytes | None = None,
    max_age: timedelta | None = None,
) -> Answer:
    """What an OCSPResponse in DER says of ``cert``, which ``issuer`` has issued, if it can be relied on ``now``.

    ``nonce`` is what was sent with the request; ``max_age`` is how old the answer may be where its
    own next update allows for more. Raises :class:`Malformed`, and :class:`BadAnswer` with every reason.
    """
    found = _load(der)
    try:
        if found.response_status is not _SUCCESSFUL:
            said = found.response_status.name.lower().replace("_", " ")
            detail = f"the responder says: {said}"
            raise BadAnswer([_problem(Code.OCSP_REFUSED, detail, "4.2.1", cert, "ask again later")])
        single = _about(found, cert, issuer)
        problems = [
            *_responder_problems(found, cert, issuer, now),
            *_content_problems(found, cert, nonce),
            *_single_problems(single, cert, now, max_age),
        ]
        if single is None or problems:
            raise BadAnswer(problems)
        return _relied_on(found, single, cert, issuer)
    except HOSTILE_INPUT:
        raise Malformed("the OCSP answer's extensions or names cannot be decoded") from None


def judge_answer(
    der: bytes,
    cert: x509.Certificate,
    issuer: x509.Certificate,
    *,
    now: datetime,
    nonce: bytes | None = None,
    max_age: timedelta | None = None,
) -> tuple[Problem, ...]:
    """Every reason why the answer does not show that ``cert`` is good, ``revoked`` among them. Never raises."""
    try:
        answer = read_answer(der, cert, issuer, now=now, nonce=nonce, max_age=max_age)
    except (Malformed, BadAnswer) as error:
        return error.problems
    if answer.revocation is None:
        return ()
    return (answer.revocation.problem(subject_of(cert)),)


def is_about(der: bytes, cert: x509.Certificate, issuer: x509.Certificate) -> bool:
    """Whether an answer in DER speaks of ``cert``, however it does. Raises :class:`Malformed`."""
    found = _load(der)
    try:
        return found.response_status is _SUCCESSFUL and bool(_about(found, cert, issuer))
    except HOSTILE_INPUT:
        raise Malformed("the OCSP answer cannot be decoded") from None


def _load(der: bytes) -> ocsp.OCSPResponse:
    if len(der) > MAX_ANSWER_SIZE:
        raise Malformed(f"an OCSP answer has at most {MAX_ANSWER_SIZE} bytes, this one {len(der)}")
    try:
        return ocsp.load_der_ocsp_response(der)
    except HOSTILE_INPUT:
        raise Malformed("the OCSP answer cannot be decoded: it is damaged or cut short") from None


def _about(
    found: ocsp.OCSPResponse, cert: x509.Certificate, issuer: x509.Certificate
) -> ocsp.OCSPSingleResponse | None:
    """The newest of those about ``cert``."""
    names = {HASHES[oid]: hashed for oid, hashed in Issuer.of(issuer).hashes.items()}
    about = [
        single
        for single in found.responses
        if single.serial_number == cert.serial_number
        and names.get(_hash_of(single)) == (single.issuer_name_hash, single.issuer_key_hash)
    ]
    return max(about, key=lambda single: single.this_update_utc, default=None)


def _hash_of(single: ocsp.OCSPSingleResponse) -> str:
    try:
        return single.hash_algorithm.name
    except HOSTILE_INPUT:
        return ""


def _responder_problems(
    found: ocsp.OCSPResponse, cert: x509.Certificate, issuer: x509.Certificate, now: datetime
) -> Iterator[Problem]:
    """Who has signed it: the issuer itself, or a delegate of it that is valid now (section 4.2.2.2)."""
    digest = found.signature_hash_algorithm
    if not is_strong(found):
        name = digest.name.upper() if digest else "an unknown hash"
        yield _problem(Code.WEAK_SIGNATURE, f"the answer is signed with {name}", "4.3", cert)
        return
    named = [
        candidate
        for candidate in (issuer, *found.certificates[:_MAX_CERTIFICATES])
        if _is_responder(found, candidate)
    ]
    signers = [candidate for candidate in named if _has_signed(found, candidate, digest)]
    if not named:
        yield _unauthorized("its responder is not the issuer, and brings no certificate", cert)
    elif not signers:
        detail = "the answer is not signed by the responder that it names"
        yield _problem(Code.OCSP_UNSIGNED, detail, "3.2 (2)", cert)
    elif issuer not in signers:
        delegates = [signer for signer in signers if is_delegate(signer, issuer)]
        if not delegates:
            detail = f"{subject_of(issuer)} did not make {subject_of(signers[0])} its responder"
            yield _unauthorized(detail, cert)
        elif not any(validity_of(delegate).contains(now) for delegate in delegates):
            yield _unauthorized("the responder's own certificate is not valid now", cert)


def _is_responder(found: ocsp.OCSPResponse, candidate: x509.Certificate) -> bool:
    try:
        if found.responder_key_hash is not None:
            return key_identifier(spki_der(candidate.public_key())) == found.responder_key_hash
        return candidate.subject == found.responder_name
    except HOSTILE_INPUT:
        return False


def _has_signed(
    found: ocsp.OCSPResponse, candidate: x509.Certificate, digest: HashAlgorithm | None
) -> bool:
    key = candidate.public_key()
    if not isinstance(key, PublicKey) or weaknesses(key):
        return False
    try:
        verify(key, found.signature, found.tbs_response_bytes, digest)
    except InvalidSignature:
        return False
    return True


def _content_problems(
    found: ocsp.OCSPResponse, cert: x509.Certificate, nonce: bytes | None
) -> Iterator[Problem]:
    given = None
    for extension in found.extensions:
        if isinstance(extension.value, x509.OCSPNonce):
            given = extension.value.nonce
        elif extension.critical:
            detail = f"critical extension {extension.oid.dotted_string} is not understood here"
            yield _problem(Code.UNKNOWN_EXTENSION, detail, "4.4", cert)
    if nonce is not None and (given is None or not hmac.compare_digest(nonce, given)):
        said = "the nonce of the request is not in it" if given is None else "its nonce is another"
        yield _problem(Code.OCSP_NONCE, said, "4.4.1", cert)


def _single_problems(
    single: ocsp.OCSPSingleResponse | None,
    cert: x509.Certificate,
    now: datetime,
    max_age: timedelta | None,
) -> Iterator[Problem]:
    if single is None:
        detail = f"it says nothing about serial {serial_pairs(cert.serial_number)} of that issuer"
        yield _problem(Code.OCSP_OTHER_CERTIFICATE, detail, "3.2 (1)", cert)
        return
    if single.certificate_status is ocsp.OCSPCertStatus.UNKNOWN:
        detail = f"the responder does not know serial {serial_pairs(cert.serial_number)}"
        yield _problem(Code.OCSP_UNKNOWN, detail, "2.2", cert, "find out who issued it")
    since, until = single.this_update_utc, single.next_update_utc
    if since - now > _AHEAD:  # a sum could lead out of the years
        detail = f"it is of {rfc3339(since)}, and here it is {rfc3339(now)}"
        remedy = "compare the two machines' clocks"
        yield _problem(Code.OCSP_NOT_YET_VALID, detail, "3.2 (5)", cert, remedy)
    if until is None:
        yield _stale("it does not say when the next answer comes", cert)
    elif now > until:
        yield _stale(f"it held until {rfc3339(until)}, and here it is {rfc3339(now)}", cert)
    elif max_age is not None and now - since > max_age:
        yield _stale(f"it is {spoken_duration(now - since)} old", cert)


def _relied_on(
    found: ocsp.OCSPResponse,
    single: ocsp.OCSPSingleResponse,
    cert: x509.Certificate,
    issuer: x509.Certificate,
) -> Answer:
    revocation = None
    if single.certificate_status is ocsp.OCSPCertStatus.REVOKED:
        reason = single.revocation_reason
        revocation = Revocation(
            key_id(issuer.public_key()),
            cert.serial_number,
            single.revocation_time_utc or single.this_update_utc,
            Reason.of(reason) if reason else Reason.UNSPECIFIED,
            cert.not_valid_after_utc,
        )
    until = single.next_update_utc
    if until is None:
        raise AssertionError("an answer without an end was not refused")
    return Answer(revocation, found.produced_at_utc, single.this_update_utc, until)


def _unauthorized(detail: str, cert: x509.Certificate) -> Problem:
    remedy = "ask the responder that the issuer names"
    return _problem(Code.OCSP_UNAUTHORIZED_RESPONDER, detail, "4.2.2.2", cert, remedy)


def _stale(detail: str, cert: x509.Certificate) -> Problem:
    return _problem(Code.OCSP_STALE, detail, "4.2.2.1", cert)


def _problem(
    code: Code,
    detail: str,
    section: str,
    cert: x509.Certificate,
    remedy: str = "fetch the answer again",
) -> Problem:
    return Problem(
        code, detail, remedy, f"RFC 6960 section {section}", f"OCSP answer for {subject_of(cert)}"
    )
