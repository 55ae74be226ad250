"""PKCS #7 documents: what openssl makes is read, and nothing is that was changed in any way."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any

import pytest
from asn1crypto import cms, core
from asn1crypto.crl import CertificateList
from asn1crypto.x509 import Certificate
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import example, given
from hypothesis import strategies as st

from tests.authorities import key
from tests.twisted_mesh.attest.aws_documents import (
    Signer,
    aws,
    aws_elsewhere,
    document,
    impostor,
    usual,
)
from twisted_mesh.attest.errors import BadEvidence
from twisted_mesh.attest.pkcs7 import MOST_BYTES, SignedDocument

DETACHED = ("-nocerts", "-md", "sha256")


def verified(data: bytes, detached: bytes | None = None) -> bytes:
    pinned = (aws_elsewhere().certificate, aws().certificate)
    content, signer = SignedDocument.read(data).verified(pinned, detached)
    assert signer == aws().certificate
    return content


@pytest.mark.parametrize(
    "options",
    [
        ("-nodetach", "-nocerts", "-nosmimecap", "-stream", "-md", "sha256"),
        ("-nodetach", "-nocerts", "-md", "sha256"),
        ("-nodetach", "-md", "sha256"),
    ],
    ids=["as AWS does", "DER", "with its own certificate"],
)
def test_what_openssl_signs_is_read(options: tuple[str, ...]) -> None:
    assert verified(aws().sign(document(), *options)) == document()


def test_of_several_pieces_the_whole_is_read() -> None:
    large = document(comment="x" * 9000)
    assert verified(aws().sign(large)) == large


def test_a_detached_document_is_verified_beside_it() -> None:
    data = aws().sign(document(), *DETACHED)
    assert verified(data, document()) == document()
    with pytest.raises(BadEvidence, match="not the one that was signed"):
        verified(data, document(instanceId="i-00000000"))
    with pytest.raises(BadEvidence, match="no document in it"):
        verified(data)


def _with(signer: Callable[[], Signer], *options: str) -> Callable[[], bytes]:
    return lambda: signer().sign(document(), *options)


def _tampered() -> bytes:
    return usual().replace(b"i-1234567890abcdef0", b"i-1234567890abcdef1")


def _changed(change: Callable[[Any], None], *, signs: bool = False) -> Callable[[], bytes]:
    """A good one with ``change`` made to its SignedData, whose attributes AWS may have signed so."""

    def make() -> bytes:
        whole = cms.ContentInfo.load(aws().sign(document(), "-nodetach", *DETACHED))
        signer = whole["content"]["signer_infos"][0]
        change(whole["content"])
        if signs:
            key = aws().key
            assert isinstance(key, RSAPrivateKey)
            attributes = signer["signed_attrs"].untag().dump(force=True)
            signer["signature"] = key.sign(attributes, PKCS1v15(), SHA256())
        made: bytes = whole.dump(force=True)
        return made

    return make


def _signer(signed: Any) -> Any:
    return signed["signer_infos"][0]


def _repeats_digest(signed: Any) -> None:
    attributes = _signer(signed)["signed_attrs"]
    attributes.append({"type": "message_digest", "values": [bytes(32)]})


def _has_two_digests(signed: Any) -> None:
    for attribute in _signer(signed)["signed_attrs"]:
        if attribute["type"].native == "message_digest":
            attribute["values"].append(bytes(32))


def _has_many(signed: Any) -> None:
    attributes = _signer(signed)["signed_attrs"]
    for number in range(100):
        attributes.append({"type": f"1.2.3.{number}", "values": [core.Null()]})


def _lacks_digest(signed: Any) -> None:
    attributes = _signer(signed)["signed_attrs"]
    kept = [a for a in attributes if a["type"].native != "message_digest"]
    _signer(signed)["signed_attrs"] = cms.CMSAttributes(kept)


def _moves_digest(signed: Any) -> None:
    """To where nobody has signed it, for the digest of another document."""
    _lacks_digest(signed)
    digest = sha256(b"another").digest()
    _signer(signed)["unsigned_attrs"] = [{"type": "message_digest", "values": [digest]}]


def _has_unsigned(signed: Any) -> None:
    digest = sha256(b"another").digest()
    _signer(signed)["unsigned_attrs"] = [{"type": "message_digest", "values": [digest]}]


def _is_of_other_content(signed: Any) -> None:
    for attribute in _signer(signed)["signed_attrs"]:
        if attribute["type"].native == "content_type":
            attribute["values"] = ["enveloped_data"]


def _replaces_content(signed: Any) -> None:
    signed["encap_content_info"]["content"] = document(accountId="210987654321")


def _has_no_signer(signed: Any) -> None:
    signed["signer_infos"] = []


def _names_sha1(signed: Any) -> None:
    _signer(signed)["digest_algorithm"] = {"algorithm": "sha1"}


def _is_of_dsa(signed: Any) -> None:
    _signer(signed)["signature_algorithm"] = {"algorithm": "dsa"}


def _has_parameters(signed: Any) -> None:
    signed["digest_algorithms"][0]["parameters"] = core.Null()


def _has_crl(signed: Any) -> None:
    ended = datetime(2026, 11, 23, tzinfo=UTC)
    builder = x509.CertificateRevocationListBuilder().issuer_name(aws().certificate.issuer)
    crl = (
        builder.last_update(ended).next_update(ended + timedelta(days=1)).sign(aws().key, SHA256())
    )
    der = crl.public_bytes(Encoding.DER)
    signed["crls"] = [cms.RevocationInfoChoice("crl", CertificateList.load(der))]


def _has_empty_set(signed: Any) -> None:
    _signer(signed)["unsigned_attrs"] = cms.CMSAttributes([])


def _carries_nothing(signed: Any) -> None:
    signed["certificates"] = cms.CertificateSet([])


def _carries_another(signed: Any) -> None:
    der = impostor().certificate.public_bytes(Encoding.DER)
    signed["certificates"] = [cms.CertificateChoices("certificate", Certificate.load(der))]


FORGED: dict[str, tuple[Callable[[], bytes], str]] = {
    "displayed bytes are not the signed ones": (_tampered, "not the one that was signed"),
    "another document in its place": (_changed(_replaces_content), "not the one that was signed"),
    "same issuer and serial, another key": (_with(impostor), "not signed by a certificate of AWS"),
    "two signers": (lambda: aws().sign(document(), beside=impostor()), "2 signers"),
    "no signer": (_changed(_has_no_signer), "0 signers"),
    "SHA-1": (
        _with(aws, "-nodetach", "-nocerts", "-md", "sha1"),
        "SHA1, which is not taken.*rsa2048",
    ),
    "SHA-1 of the signer alone": (_changed(_names_sha1), "SHA1, which is not taken"),
    "SHA-512": (_with(aws, "-nodetach", "-nocerts", "-md", "sha512"), "SHA512"),
    "DSA": (_changed(_is_of_dsa), "DSA, which is not taken"),
    "RSA-PSS": (
        _with(aws, "-keyopt", "rsa_padding_mode:pss", "-nodetach", *DETACHED),
        "RSASSA_PSS",
    ),
    "a digest with parameters": (
        lambda: _changed(_has_parameters)().replace(b"\x05\0", b"\x80\0", 1),
        "has parameters|damaged",
    ),
    "no signed attributes": (
        _with(aws, "-nodetach", "-nocerts", "-noattr", "-md", "sha256"),
        "no signed attributes",
    ),
    "attributes that are not signed": (_changed(_has_unsigned), "not signed"),
    "a digest that is not signed": (_changed(_moves_digest), "not signed"),
    "no digest": (_changed(_lacks_digest, signs=True), "MESSAGE_DIGEST is not there once"),
    "a digest twice": (_changed(_repeats_digest, signs=True), "there twice"),
    "a hundred attributes": (_changed(_has_many, signs=True), "512 at most are looked at"),
    "two digests": (_changed(_has_two_digests, signs=True), "MESSAGE_DIGEST is not there once"),
    "attributes of other content": (_changed(_is_of_other_content, signs=True), "no data"),
    "attributes changed": (_changed(_is_of_other_content), "no data"),
    "a wrong signature": (lambda: usual()[:-7] + bytes(7), "not signed by|damaged"),
    "signer by key identifier": (
        lambda: _with_identifier().sign(document(), "-keyid", "-nodetach", *DETACHED),
        "unknown|not named by issuer",
    ),
    "other content type": (
        _with(aws, "-econtent_type", "1.2.3.4", "-nodetach", *DETACHED),
        "is not data|version",
    ),
    "a CRL in it": (_changed(_has_crl), "CRLs"),
    "another certificate in it": (_changed(_carries_another), "certificates in it beside"),
    "a set of no certificates in it": (_changed(_carries_nothing), "0 certificates"),
    "a set of no attributes in it": (_changed(_has_empty_set), "not signed"),
    "truncated": (lambda: usual()[:-1], "damaged"),
    "something behind it": (lambda: usual() + b"\0\0", "damaged"),
    "oversize": (lambda: usual() + bytes(MOST_BYTES), "bytes, and .* at most"),
    "empty": (lambda: b"", "damaged"),
    "a bare signature": (lambda: bytes(range(128)), "damaged"),
    "deeply nested": (lambda: b"\x30\x80" * 4000, "damaged"),
}


def _with_identifier() -> Signer:
    key = aws().key
    identified = x509.SubjectKeyIdentifier(bytes(20))
    return Signer.make(key, identifier=identified)


@pytest.mark.parametrize("what", FORGED)
def test_a_forged_one_is_refused_with_its_reason(what: str) -> None:
    make, reason = FORGED[what]
    with pytest.raises(BadEvidence, match=reason):
        verified(make())


def test_what_is_changed_and_signed_again_is_good_unless_a_rule_is_broken() -> None:
    """Else the table above would prove nothing."""
    assert verified(_changed(lambda signed: None, signs=True)()) == document()


def test_a_document_that_is_in_it_does_not_come_beside_it_too() -> None:
    with pytest.raises(BadEvidence, match="only one of them"):
        verified(usual(), document())


@given(at=st.integers(0, 5000), by=st.integers(1, 255))
@example(at=19, by=2)
def test_a_changed_byte_is_refused_wherever_it_is(at: int, by: int) -> None:
    changed = bytearray(usual())
    changed[at % len(changed)] ^= by
    with pytest.raises(BadEvidence):
        verified(bytes(changed))


@given(st.binary(max_size=300) | st.binary(max_size=200).map(lambda tail: usual()[:60] + tail))
def test_no_bytes_make_it_raise_anything_else(data: bytes) -> None:
    with pytest.raises(BadEvidence):
        verified(data)


def test_a_key_that_is_not_rsa_signs_nothing() -> None:
    of_ec = Signer.make(key("aws").private_key)
    with pytest.raises(BadEvidence, match="not signed by"):
        SignedDocument.read(usual()).verified([of_ec.certificate])
