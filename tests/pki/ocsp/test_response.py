"""OCSP answers that others made: what may be believed, and a bad vector for each reason not to."""

import asyncio
import contextlib
from datetime import datetime, timedelta
from typing import Any

import pytest
from attrs import evolve, frozen
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509 import ocsp
from hypothesis import given
from hypothesis import strategies as st

from pki.errors import Malformed, PkiError
from pki.issuing.authority import Authority
from pki.issuing.profile import OCSP_RESPONDER
from pki.keys import KeyAlgorithm, MemoryKey
from pki.ocsp.request import HASHES, SHA1, Issuer
from pki.ocsp.response import (
    MAX_ANSWER_SIZE,
    BadAnswer,
    is_about,
    judge_answer,
    read_answer,
)
from pki.ocsp.sign import (
    ErrorStatus,
    Responder,
    SingleResponse,
    Standing,
    error_response,
)
from pki.svid.revocation_set import Reason, Revocation
from tests.authorities import DAY, HOUR, NOW, RSA_WITH, forge, forge_issuing, key, mesh, tlv
from tests.pki.strategies import mutated

ROOT_CA, CA, LEAF = mesh().root, mesh().issuing, mesh().leaf()
ISSUER = Issuer.of(CA.certificate)
DELEGATE = asyncio.run(CA.create_responder(key("responder"), NOW, DAY))
OWN = Responder(CA.certificate, CA.key)
DELEGATED = Responder(CA.certificate, key("responder"), DELEGATE)
SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)
NONCE = bytes(range(32))
REVOKED = Revocation(
    CA.key_id, LEAF.serial_number, NOW - HOUR, Reason.SUPERSEDED, LEAF.not_valid_after_utc
)


def single(
    standing: Standing | Revocation = Standing.GOOD,
    *,
    serial: int = LEAF.serial_number,
    issuer: Issuer = ISSUER,
    algorithm: str = SHA1,
    this_update: datetime = NOW,
    next_update: datetime = NOW + HOUR,
) -> SingleResponse:
    return SingleResponse(issuer.cert_id(serial, algorithm), standing, this_update, next_update)


def answer(*told: SingleResponse, responder: Responder = OWN, **options: Any) -> bytes:
    settings = {"produced_at": NOW, **options}
    return asyncio.run(responder.respond(told or [single()], **settings))


def posing(issuer: Authority | None = None, **overrides: Any) -> Responder:
    """A responder that our own class would not be made of."""
    responder = Responder(CA.certificate, CA.key)
    certificate = forge(issuer or CA, OCSP_RESPONDER, subject_key=key("poser"), **overrides)
    spki = forge(CA, OCSP_RESPONDER, subject_key=key("poser"))
    template = Responder(CA.certificate, key("poser"), spki)
    responder.key = key("poser")
    responder._public_key = key("poser").public_key
    responder._name = template._name
    der = certificate.public_bytes(serialization.Encoding.DER)
    responder._certificates = tlv(0xA0, tlv(0x30, der))
    return responder


def codes(der: bytes, **options: Any) -> list[str]:
    problems = judge_answer(der, LEAF, CA.certificate, **{"now": NOW, **options})
    for problem in problems:
        assert problem.detail.isprintable()
        assert problem.code == "malformed" or (problem.remedy and problem.rule and problem.subject)
    return [problem.code for problem in problems]


# What is believed


@pytest.mark.parametrize("responder", [OWN, DELEGATED], ids=["issuer", "delegate"])
@pytest.mark.parametrize("by_name", [True, False])
@pytest.mark.parametrize("algorithm", list(HASHES))
def test_a_good_answer_is_believed(responder: Responder, by_name: bool, algorithm: str) -> None:
    made = Responder(responder.issuer, responder.key, responder.certificate, by_name)
    der = answer(single(algorithm=algorithm), responder=made, nonce=NONCE)
    found = read_answer(der, LEAF, CA.certificate, now=NOW, nonce=NONCE, max_age=HOUR)
    assert found.revocation is None
    assert (found.produced_at, found.this_update, found.next_update) == (NOW, NOW, NOW + HOUR)
    assert codes(der) == codes(der, nonce=NONCE) == []
    assert is_about(der, LEAF, CA.certificate)


@pytest.mark.parametrize("algorithm", list(KeyAlgorithm))
def test_issuers_of_every_kind_are_believed(algorithm: KeyAlgorithm) -> None:
    issuer = mesh(issuing_key=key("OCSP", algorithm)).issuing
    leaf = forge(issuer)
    told = single(serial=leaf.serial_number, issuer=Issuer.of(issuer.certificate))
    for responder in (
        Responder(issuer.certificate, issuer.key),
        Responder(
            issuer.certificate,
            key("responder", algorithm),
            asyncio.run(issuer.create_responder(key("responder", algorithm), NOW)),
        ),
    ):
        der = answer(told, responder=responder)
        assert judge_answer(der, leaf, issuer.certificate, now=NOW) == ()


@pytest.mark.parametrize("reason", Reason)
def test_a_revoked_certificate_is_told_with_time_and_reason(reason: Reason) -> None:
    der = answer(single(evolve(REVOKED, reason=reason)))
    found = read_answer(der, LEAF, CA.certificate, now=NOW)
    assert found.revocation == evolve(REVOKED, reason=reason)
    (problem,) = judge_answer(der, LEAF, CA.certificate, now=NOW)
    assert problem.code == "revoked"
    assert problem.detail.endswith(f"was revoked at 2026-11-23T09:00:00Z ({reason})")


def test_among_several_the_newest_about_the_certificate_counts() -> None:
    old = single(this_update=NOW - HOUR)
    other = single(serial=1)
    assert codes(answer(other, old, single(REVOKED))) == ["revoked"]
    newer = single(this_update=NOW)
    assert codes(answer(single(REVOKED, this_update=NOW - HOUR), newer, other)) == []


def test_cryptographys_answers_are_believed() -> None:
    assert isinstance(CA.key, MemoryKey)
    now = datetime.now(NOW.tzinfo).replace(microsecond=0)
    der = (
        ocsp.OCSPResponseBuilder()
        .add_response(
            LEAF,
            CA.certificate,
            hashes.SHA256(),
            ocsp.OCSPCertStatus.GOOD,
            now,
            now + HOUR,
            None,
            None,
        )
        .responder_id(ocsp.OCSPResponderEncoding.HASH, CA.certificate)
        .sign(CA.key.private_key, hashes.SHA256())
        .public_bytes(serialization.Encoding.DER)
    )
    assert judge_answer(der, LEAF, CA.certificate, now=now) == ()


# What is not


def without_next_update() -> bytes:
    assert isinstance(CA.key, MemoryKey)
    builder = ocsp.OCSPResponseBuilder().add_response(
        LEAF, CA.certificate, hashes.SHA1(), ocsp.OCSPCertStatus.GOOD, NOW, None, None, None
    )
    builder = builder.responder_id(ocsp.OCSPResponderEncoding.HASH, CA.certificate)
    signed = builder.sign(CA.key.private_key, hashes.SHA256())
    return signed.public_bytes(serialization.Encoding.DER)


def signed_with_sha224() -> bytes:
    assert isinstance(CA.key, MemoryKey)
    builder = ocsp.OCSPResponseBuilder().add_response(
        LEAF, CA.certificate, hashes.SHA1(), ocsp.OCSPCertStatus.GOOD, NOW, NOW + HOUR, None, None
    )
    builder = builder.responder_id(ocsp.OCSPResponderEncoding.HASH, CA.certificate)
    signed = builder.sign(CA.key.private_key, hashes.SHA224())
    return signed.public_bytes(serialization.Encoding.DER)


def with_critical_extension() -> bytes:
    assert isinstance(CA.key, MemoryKey)
    strange = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\5\0")
    builder = ocsp.OCSPResponseBuilder().add_response(
        LEAF, CA.certificate, hashes.SHA1(), ocsp.OCSPCertStatus.GOOD, NOW, NOW + HOUR, None, None
    )
    builder = builder.responder_id(ocsp.OCSPResponderEncoding.HASH, CA.certificate)
    signed = builder.add_extension(strange, critical=True).sign(CA.key.private_key, hashes.SHA256())
    return signed.public_bytes(serialization.Encoding.DER)


@frozen
class Bad:
    """An answer that does not show that the leaf is good, and every reason."""

    defect: str
    der: bytes
    codes: list[str]
    now: datetime = NOW
    nonce: bytes | None = None
    max_age: timedelta | None = None

    def __str__(self) -> str:
        return self.defect


SERVES_TLS = {
    x509.ExtendedKeyUsage: (
        x509.ExtendedKeyUsage([x509.ExtendedKeyUsageOID.SERVER_AUTH]),
        False,
    )
}
GOOD = answer(responder=DELEGATED)
LATE = DELEGATE.not_valid_after_utc + SECOND
#: Another key with the issuing CA's name.
POSER = forge_issuing(ROOT_CA, 58, subject=CA.certificate.subject)
SHA256_WITH_ECDSA, SHA1_WITH_ECDSA = (
    bytes.fromhex("300a06082a8648ce3d040302"),
    bytes.fromhex("300906072a8648ce3d0401"),
)
UNAUTHORIZED = ["ocsp-unauthorized-responder"]

BAD = [
    Bad("another serial", answer(single(serial=1)), ["ocsp-other-certificate"]),
    Bad(
        "another issuer",
        answer(single(issuer=Issuer.of(ROOT_CA.certificate))),
        ["ocsp-other-certificate"],
    ),
    Bad("unknown", answer(single(Standing.UNKNOWN)), ["ocsp-unknown"]),
    Bad("over", answer(), ["ocsp-stale"], now=NOW + HOUR + SECOND),
    Bad("no next update", without_next_update(), ["ocsp-stale"]),
    Bad("too old for us", answer(), ["ocsp-stale"], now=NOW + MINUTE, max_age=MINUTE - SECOND),
    Bad(
        "from the future",
        answer(single(this_update=NOW + MINUTE + SECOND)),
        ["ocsp-not-yet-valid"],
    ),
    Bad("without the nonce", answer(), ["ocsp-nonce"], nonce=NONCE),
    Bad("with another nonce", answer(nonce=b"x"), ["ocsp-nonce"], nonce=NONCE),
    Bad(
        "changed",
        GOOD.replace(b"\x80\0\x18", b"\x82\0\x18", 1),
        ["ocsp-unsigned", "ocsp-unknown"],
    ),
    Bad(
        "of a CA of the same name",
        answer(responder=Responder(POSER.certificate, POSER.key, by_name=True)),
        ["ocsp-unsigned"],
    ),
    Bad(
        "of the root",
        answer(responder=Responder(ROOT_CA.certificate, ROOT_CA.key)),
        UNAUTHORIZED,
    ),
    Bad("delegate of the root", answer(responder=posing(ROOT_CA)), UNAUTHORIZED),
    Bad("delegate for TLS", answer(responder=posing(replace=SERVES_TLS)), UNAUTHORIZED),
    Bad(
        "a workload", answer(responder=posing(replace={x509.ExtendedKeyUsage: None})), UNAUTHORIZED
    ),
    Bad("an expired delegate", answer(responder=posing(end=NOW - SECOND)), UNAUTHORIZED),
    Bad(
        "a delegate to be",
        answer(responder=posing(start=NOW + SECOND)),
        UNAUTHORIZED,
    ),
    Bad("malformedRequest", error_response(ErrorStatus.MALFORMED_REQUEST), ["ocsp-refused"]),
    Bad("tryLater", error_response(ErrorStatus.TRY_LATER), ["ocsp-refused"]),
    Bad("SHA-224", signed_with_sha224(), ["weak-signature"]),
    Bad("unknown critical extension", with_critical_extension(), ["unknown-extension"]),
    Bad(
        "several at once",
        answer(single(Standing.UNKNOWN), responder=posing(ROOT_CA), nonce=b"x"),
        ["ocsp-unauthorized-responder", "ocsp-nonce", "ocsp-unknown", "ocsp-stale"],
        now=NOW + DAY,
        nonce=NONCE,
    ),
    Bad("cut short", GOOD[:-1], ["malformed"]),
    Bad("nothing", b"", ["malformed"]),
    Bad("too large", GOOD + bytes(MAX_ANSWER_SIZE), ["malformed"]),
]


@pytest.mark.parametrize("bad", BAD, ids=str)
def test_what_shows_nothing_is_refused(bad: Bad) -> None:
    options = {"now": bad.now, "nonce": bad.nonce, "max_age": bad.max_age}
    assert codes(bad.der, **options) == bad.codes
    with pytest.raises(PkiError) as caught:
        read_answer(bad.der, LEAF, CA.certificate, **options)  # type: ignore[arg-type]
    assert isinstance(caught.value, Malformed if bad.codes == ["malformed"] else BadAnswer)


def test_a_revocation_is_not_believed_of_anybody_either() -> None:
    assert codes(answer(single(REVOKED), responder=posing(ROOT_CA))) == UNAUTHORIZED


def test_old_signatures_are_refused_by_their_name() -> None:
    issuer = mesh(issuing_key=key("weak", KeyAlgorithm.RSA_2048)).issuing
    leaf = forge(issuer)
    told = single(serial=leaf.serial_number, issuer=Issuer.of(issuer.certificate))
    der = answer(told, responder=Responder(issuer.certificate, issuer.key))
    assert der.count(RSA_WITH["sha256"]) == 1
    old = der.replace(RSA_WITH["sha256"], RSA_WITH["sha1"])
    (problem,) = judge_answer(old, leaf, issuer.certificate, now=NOW)
    assert (problem.code, problem.detail) == (
        "weak-signature",
        "the answer is signed with SHA1",
    )


def test_the_last_moment_of_an_answer_is_part_of_its_life() -> None:
    assert codes(answer(), now=NOW + HOUR) == []
    assert codes(answer(), now=NOW + MINUTE, max_age=MINUTE) == []
    assert codes(answer(single(this_update=NOW + MINUTE))) == []


def test_errors_and_other_answers_are_about_nobody_here() -> None:
    assert not is_about(error_response(ErrorStatus.TRY_LATER), LEAF, CA.certificate)
    assert not is_about(answer(), ROOT_CA.certificate, CA.certificate)
    with pytest.raises(Malformed):
        is_about(b"", LEAF, CA.certificate)


@given(st.one_of(st.binary(), mutated(GOOD), mutated(answer(single(REVOKED), nonce=NONCE))))
def test_bytes_break_nothing(der: bytes) -> None:
    problems = judge_answer(der, LEAF, CA.certificate, now=NOW)
    assert problems or der == GOOD or _is_signed(der)
    with contextlib.suppress(PkiError):
        is_about(der, LEAF, CA.certificate)


def _is_signed(der: bytes) -> bool:
    """What was changed is outside what is signed: the certificates that come along, say."""
    return (
        ocsp.load_der_ocsp_response(der).tbs_response_bytes
        == ocsp.load_der_ocsp_response(GOOD).tbs_response_bytes
    )
