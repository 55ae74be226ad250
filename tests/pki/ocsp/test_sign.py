"""OCSP answers that we make: the bytes that cryptography's builder lays out, and more than one at once."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509 import ocsp
from hypothesis import given
from hypothesis import strategies as st

from pki.issuing.profile import OCSP_RESPONDER
from pki.keys import KeyAlgorithm, MemoryKey, is_strong, verify
from pki.keys.signature import SigningFailed
from pki.ocsp.request import HASHES, SHA1, SHA256, Issuer, OcspRequest
from pki.ocsp.sign import (
    ErrorStatus,
    Responder,
    SingleResponse,
    Standing,
    UnfitResponder,
    error_response,
    single_responses,
)
from pki.svid.revocation_set import Reason, Revocation
from tests.authorities import DAY, HOUR, NOW, forge, key, mesh

ROOT_CA, CA, LEAF = mesh().root, mesh().issuing, mesh().leaf()
ISSUER = Issuer.of(CA.certificate)
DELEGATE = asyncio.run(CA.create_responder(key("responder"), NOW))
OWN = Responder(CA.certificate, CA.key)
DELEGATED = Responder(CA.certificate, key("responder"), DELEGATE)
SECOND = timedelta(seconds=1)
DIGESTS: dict[str, hashes.HashAlgorithm] = {
    "sha1": hashes.SHA1(),
    "sha256": hashes.SHA256(),
    "sha384": hashes.SHA384(),
    "sha512": hashes.SHA512(),
}


def revocation(serial: int = 5, reason: Reason = Reason.KEY_COMPROMISE) -> Revocation:
    return Revocation(CA.key_id, serial, NOW - HOUR, reason, NOW + HOUR)


def single(
    standing: Standing | Revocation = Standing.GOOD, serial: int = 5, algorithm: str = SHA256
) -> SingleResponse:
    return SingleResponse(ISSUER.cert_id(serial, algorithm), standing, NOW, NOW + HOUR)


def answered(
    *responses: SingleResponse, responder: Responder = OWN, **options: Any
) -> ocsp.OCSPResponse:
    settings = {"produced_at": NOW, **options}
    return ocsp.load_der_ocsp_response(asyncio.run(responder.respond(responses, **settings)))


_STATUS = {
    Standing.GOOD: ocsp.OCSPCertStatus.GOOD,
    Standing.UNKNOWN: ocsp.OCSPCertStatus.UNKNOWN,
}


def oracle(
    response: SingleResponse, responder: Responder, nonce: bytes | None
) -> ocsp.OCSPResponse:
    standing = response.standing
    is_revoked = isinstance(standing, Revocation)
    reason = standing.reason if is_revoked else Reason.UNSPECIFIED
    builder = ocsp.OCSPResponseBuilder().add_response_by_hash(
        response.cert_id.name_hash,
        response.cert_id.key_hash,
        response.cert_id.serial,
        DIGESTS[HASHES[response.cert_id.algorithm]],
        ocsp.OCSPCertStatus.REVOKED if is_revoked else _STATUS[standing],
        response.this_update,
        response.next_update,
        standing.revoked_at if is_revoked else None,
        None if reason is Reason.UNSPECIFIED else reason.flag,
    )
    how = ocsp.OCSPResponderEncoding.NAME if responder.by_name else ocsp.OCSPResponderEncoding.HASH
    builder = builder.responder_id(how, responder.certificate or responder.issuer)
    if responder.certificate is not None:
        builder = builder.certificates([responder.certificate])
    if nonce is not None:
        builder = builder.add_extension(x509.OCSPNonce(nonce), critical=False)
    assert isinstance(responder.key, MemoryKey)
    return builder.sign(responder.key.private_key, responder.key.algorithm.hash)


moments = st.datetimes(datetime(2020, 1, 1), datetime(2060, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001
standings = st.sampled_from(Standing) | st.builds(
    Revocation,
    issuer=st.just(CA.key_id),
    serial=st.just(1),
    revoked_at=moments,
    reason=st.sampled_from(Reason),
    expires_at=moments,
)


@given(
    st.integers(1, 2**159),
    st.sampled_from(list(HASHES)),
    standings,
    st.tuples(st.booleans(), st.booleans()),
    st.none() | st.binary(min_size=1, max_size=128),
)
def test_cryptography_lays_out_the_same_bytes(
    serial: int,
    algorithm: str,
    standing: Standing | Revocation,
    options: tuple[bool, bool],
    nonce: bytes | None,
) -> None:
    is_delegated, by_name = options
    made = DELEGATED if is_delegated else OWN
    responder = Responder(made.issuer, made.key, made.certificate, by_name)
    told = single(standing, serial, algorithm)
    theirs = oracle(told, responder, nonce)
    # Its builder takes the time from the machine; ours is given that.
    now = theirs.produced_at_utc
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pki.validity.Validity.contains", lambda *_: True)
        ours = answered(told, responder=responder, produced_at=now, nonce=nonce)
    assert ours.tbs_response_bytes == theirs.tbs_response_bytes
    assert ours.certificates == theirs.certificates
    assert ours.signature_algorithm_oid == theirs.signature_algorithm_oid
    digest = ours.signature_hash_algorithm
    assert digest is not None
    verify(responder.key.public_key, ours.signature, ours.tbs_response_bytes, digest)


def test_several_certificates_are_answered_at_once() -> None:
    told = [single(Standing.GOOD, 1), single(revocation(2), 2), single(Standing.UNKNOWN, 3, SHA1)]
    found = list(answered(*told, nonce=b"once").responses)
    assert [
        (each.serial_number, each.certificate_status.name, each.hash_algorithm.name)
        for each in found
    ] == [(1, "GOOD", "sha256"), (2, "REVOKED", "sha256"), (3, "UNKNOWN", "sha1")]
    assert found[1].revocation_time_utc == NOW - HOUR
    assert found[1].revocation_reason is x509.ReasonFlags.key_compromise
    assert {(each.this_update_utc, each.next_update_utc) for each in found} == {(NOW, NOW + HOUR)}


@pytest.mark.parametrize("algorithm", list(KeyAlgorithm))
@pytest.mark.parametrize("by_name", [True, False])
def test_keys_of_every_kind_answer(algorithm: KeyAlgorithm, by_name: bool) -> None:
    issuer = mesh(issuing_key=key("OCSP", algorithm)).issuing
    delegate = asyncio.run(issuer.create_responder(key("responder", algorithm), NOW))
    for responder in (
        Responder(issuer.certificate, issuer.key, by_name=by_name),
        Responder(issuer.certificate, key("responder", algorithm), delegate, by_name),
    ):
        found = answered(single(), responder=responder)
        signer = (responder.certificate or issuer.certificate).public_key()
        assert is_strong(found)
        verify(  # type: ignore[type-var]
            signer,  # type: ignore[arg-type]
            found.signature,
            found.tbs_response_bytes,
            found.signature_hash_algorithm,
        )
        assert (found.responder_name is not None) is by_name


# What a request is answered with


def test_each_certificate_of_a_request_gets_its_answer() -> None:
    other = Issuer.of(ROOT_CA.certificate)
    asked = OcspRequest(
        (
            ISSUER.cert_id(1),
            ISSUER.cert_id(2, SHA1),
            ISSUER.cert_id(3),
            other.cert_id(1),
        )
    )
    record: dict[tuple[str, int], Standing | Revocation] = {
        (CA.key_id, 1): Standing.GOOD,
        (CA.key_id, 2): revocation(2),
    }
    calls = []

    def lookup(issuer: str, serial: int) -> Standing | Revocation:
        calls.append((issuer, serial))
        return record.get((issuer, serial), Standing.UNKNOWN)

    found = single_responses(asked, ISSUER, lookup, this_update=NOW, next_update=NOW + HOUR)
    assert [each.standing for each in found] == [
        Standing.GOOD,
        revocation(2),
        Standing.UNKNOWN,
        Standing.UNKNOWN,
    ]
    assert [each.cert_id for each in found] == list(asked.cert_ids)
    # Nobody is asked about another CA's certificates.
    assert calls == [(CA.key_id, serial) for serial in (1, 2, 3)]
    assert {(each.this_update, each.next_update) for each in found} == {(NOW, NOW + HOUR)}


def test_a_certificate_is_named_in_the_answer_byte_for_byte_as_it_was_asked_about() -> None:
    without_null = ISSUER.cert_id(5, SHA1).der.replace(
        bytes.fromhex("300906052b0e03021a0500"), bytes.fromhex("300706052b0e03021a")
    )
    # Two bytes less inside, and so in the length.
    without_null = bytes((0x30, without_null[1] - 2)) + without_null[2:]
    body = bytes((0x30, len(without_null))) + without_null
    listed = bytes((0x30, len(body))) + body
    tbs = bytes((0x30, len(listed))) + listed
    asked = OcspRequest.parse(bytes((0x30, len(tbs))) + tbs)
    responses = single_responses(
        asked, ISSUER, lambda *_: Standing.GOOD, this_update=NOW, next_update=NOW + HOUR
    )
    assert asyncio.run(OWN.respond(responses, produced_at=NOW)).count(without_null) == 1


@pytest.mark.parametrize("status", ErrorStatus)
def test_errors_are_as_cryptography_writes_them(status: ErrorStatus) -> None:
    theirs = ocsp.OCSPResponseBuilder.build_unsuccessful(
        ocsp.OCSPResponseStatus[status.name]
    ).public_bytes(serialization.Encoding.DER)
    assert error_response(status) == theirs


# Who may answer


def test_no_answer_outlives_its_responder() -> None:
    end = DELEGATE.not_valid_after_utc
    told = SingleResponse(ISSUER.cert_id(5), Standing.GOOD, NOW, end + DAY)
    (found,) = answered(told, responder=DELEGATED).responses
    assert found.next_update_utc == end
    assert DELEGATED.validity.not_after == end


@pytest.mark.parametrize("now", [NOW - DAY, DELEGATE.not_valid_after_utc + SECOND])
def test_a_responder_that_is_not_valid_does_not_answer(now: datetime) -> None:
    with pytest.raises(UnfitResponder, match="issue a new one"):
        answered(single(), responder=DELEGATED, produced_at=now)


def test_what_no_client_would_believe_is_no_responder() -> None:
    with pytest.raises(UnfitResponder, match="does not belong to"):
        Responder(CA.certificate, key(9))
    with pytest.raises(UnfitResponder, match="does not belong to"):
        Responder(CA.certificate, key(9), DELEGATE)
    with pytest.raises(UnfitResponder, match="was not made a responder"):
        Responder(CA.certificate, key(9), LEAF)
    with pytest.raises(UnfitResponder, match="was not made a responder"):
        Responder(ROOT_CA.certificate, key("responder"), DELEGATE)
    assert Responder(CA.certificate, key(9), forge(CA, OCSP_RESPONDER))


def test_a_signers_odd_answer_makes_none_of_ours() -> None:
    class Odd(MemoryKey):
        async def sign(self, data: bytes) -> bytes:
            return await key(9).sign(data)

    assert isinstance(CA.key, MemoryKey)
    with pytest.raises(SigningFailed):
        answered(
            single(),
            responder=Responder(CA.certificate, Odd(CA.key.private_key, CA.key.algorithm)),
        )


def test_no_repr_shows_a_key() -> None:
    assert "PrivateKey" not in repr(DELEGATED)
