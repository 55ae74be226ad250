"""OCSP requests: read as cryptography reads them where it can, and several certificates at once."""

import base64
import contextlib
import hashlib
from urllib.parse import quote

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509 import ocsp
from hypothesis import example, given
from hypothesis import strategies as st

from pki.errors import Malformed, PkiError
from pki.issuing.profile import OCSP_RESPONDER, Profile
from pki.keys import KeyAlgorithm
from pki.ocsp.request import (
    HASHES,
    MAX_CERT_IDS,
    MAX_REQUEST_SIZE,
    SHA1,
    SHA256,
    CertId,
    Issuer,
    OcspRequest,
    decode_get,
    encode_get,
    is_delegate,
)
from tests.authorities import DAY, forge, key, mesh, tlv
from tests.pki.strategies import mutated
from twisted_mesh.testing import Extensions

ROOT_CA, CA, LEAF = mesh().root, mesh().issuing, mesh().leaf()
ISSUER = Issuer.of(CA.certificate)
DIGESTS: dict[str, hashes.HashAlgorithm] = {
    "sha1": hashes.SHA1(),
    "sha256": hashes.SHA256(),
    "sha384": hashes.SHA384(),
    "sha512": hashes.SHA512(),
}
NONCE = bytes(range(32))

serials = st.integers(0, 2**160)
cert_ids = st.builds(ISSUER.cert_id, serials, st.sampled_from(list(HASHES)))
requests = st.builds(
    OcspRequest,
    st.lists(cert_ids, min_size=1, max_size=5).map(tuple),
    st.none() | st.binary(min_size=1, max_size=128),
)


def asked(digest: str = "sha256", nonce: bytes | None = None) -> bytes:
    """About the leaf, as cryptography asks."""
    builder = ocsp.OCSPRequestBuilder().add_certificate(LEAF, CA.certificate, DIGESTS[digest])
    if nonce is not None:
        builder = builder.add_extension(x509.OCSPNonce(nonce), critical=False)
    return builder.build().public_bytes(serialization.Encoding.DER)


@given(requests)
def test_a_request_is_read_back(request: OcspRequest) -> None:
    assert OcspRequest.parse(request.to_der()) == request


@pytest.mark.parametrize("digest", DIGESTS)
@pytest.mark.parametrize("nonce", [None, b"x", NONCE, bytes(128)])
def test_cryptographys_requests_are_read_and_ours_are_the_same(
    digest: str, nonce: bytes | None
) -> None:
    theirs = asked(digest, nonce)
    found = OcspRequest.parse(theirs)
    (cert_id,) = found.cert_ids
    assert HASHES[cert_id.algorithm] == digest
    assert (cert_id.serial, found.nonce) == (LEAF.serial_number, nonce)
    assert ISSUER.issued(cert_id)
    ours = OcspRequest((ISSUER.cert_id(LEAF.serial_number, cert_id.algorithm),), nonce)
    oracle = ocsp.load_der_ocsp_request(ours.to_der())
    assert oracle.serial_number == LEAF.serial_number
    assert oracle.issuer_name_hash == cert_id.name_hash
    assert oracle.issuer_key_hash == cert_id.key_hash
    assert ours.to_der() == theirs


@pytest.mark.parametrize("algorithm", list(KeyAlgorithm))
@pytest.mark.parametrize("digest", DIGESTS)
def test_issuers_of_every_kind_are_named_as_cryptography_names_them(
    algorithm: KeyAlgorithm, digest: str
) -> None:
    issuer = mesh(issuing_key=key("OCSP", algorithm)).issuing.certificate
    theirs = ocsp.OCSPRequestBuilder().add_certificate_by_hash
    oracle = ocsp.OCSPRequestBuilder().add_certificate(LEAF, issuer, DIGESTS[digest]).build()
    (name_hash, key_hash) = Issuer.of(issuer).hashes[
        next(oid for oid, name in HASHES.items() if name == digest)
    ]
    assert (oracle.issuer_name_hash, oracle.issuer_key_hash) == (name_hash, key_hash)
    assert theirs(name_hash, key_hash, 1, DIGESTS[digest]).build()


def test_several_certificates_are_asked_about_in_order() -> None:
    many = tuple(ISSUER.cert_id(serial) for serial in range(MAX_CERT_IDS))
    assert OcspRequest.parse(OcspRequest(many).to_der()).cert_ids == many
    with pytest.raises(NotImplementedError):
        ocsp.load_der_ocsp_request(OcspRequest(many).to_der())
    with pytest.raises(Malformed, match="1 to 64 certificates"):
        OcspRequest.parse(OcspRequest((*many, many[0])).to_der())


def test_another_cas_certificates_are_told_apart() -> None:
    other = Issuer.of(ROOT_CA.certificate)
    assert not ISSUER.issued(other.cert_id(1))
    # The same key under another name, and the same name with another key, are other issuers.
    own, foreign = ISSUER.hashes[SHA1], other.hashes[SHA1]
    for name_hash, key_hash in ((own[0], foreign[1]), (foreign[0], own[1])):
        assert not ISSUER.issued(CertId(SHA1, name_hash, key_hash, 1, b""))
    assert not ISSUER.issued(CertId(SHA256, *own, 1, b""))
    assert not ISSUER.issued(CertId("1.2.3", *own, 1, b""))


# What else a request may hold, and what it may not


def cert_id_der(
    *, oid: str = "06052b0e03021a", parameters: str = "0500", serial: bytes = b"\x05"
) -> bytes:
    algorithm = tlv(0x30, bytes.fromhex(oid + parameters))
    digest = tlv(0x04, bytes(20))
    return tlv(0x30, algorithm + digest + digest + tlv(0x02, serial))


def one(der: bytes = cert_id_der(), *rest: bytes) -> bytes:
    return tlv(0x30, der + b"".join(rest))


def extension(oid: str, value: bytes, critical: str = "") -> bytes:
    return tlv(0x30, bytes.fromhex(oid + critical) + tlv(0x04, value))


NONCE_ID, OTHER_ID = "06092b0601050507300102", "06032a0304"
CRITICAL = "0101ff"


def extensions(*listed: bytes, tag: int = 0xA2) -> bytes:
    return tlv(tag, tlv(0x30, b"".join(listed)))


def request(*fields: bytes, signature: bytes = b"") -> bytes:
    return tlv(0x30, tlv(0x30, b"".join(fields)) + signature)


LISTED = tlv(0x30, one())
REQUESTOR = tlv(0xA1, tlv(0xA4, CA.certificate.subject.public_bytes()))
SIGNATURE = tlv(
    0xA0, tlv(0x30, tlv(0x30, bytes.fromhex("06082a8648ce3d040302")) + tlv(0x03, bytes(9)))
)
SOME_NONCE = extension(NONCE_ID, tlv(0x04, NONCE))


@pytest.mark.parametrize(
    ("der", "nonce"),
    [
        (request(LISTED), None),
        (request(REQUESTOR, LISTED), None),
        (request(LISTED, signature=SIGNATURE), None),
        (request(REQUESTOR, LISTED, extensions(SOME_NONCE), signature=SIGNATURE), NONCE),
        (request(LISTED, extensions(extension(OTHER_ID, b"\5\0"))), None),
        (request(LISTED, extensions(extension(NONCE_ID, tlv(0x04, NONCE), CRITICAL))), NONCE),
        (request(tlv(0x30, one(cert_id_der(parameters="")))), None),
        (
            request(tlv(0x30, one(cert_id_der(), extensions(extension(OTHER_ID, b""), tag=0xA0)))),
            None,
        ),
    ],
)
def test_what_others_send_is_read(der: bytes, nonce: bytes | None) -> None:
    found = OcspRequest.parse(der)
    assert [cert_id.serial for cert_id in found.cert_ids] == [5]
    assert found.nonce == nonce
    assert ocsp.load_der_ocsp_request(der).serial_number == 5


def test_a_hash_that_nobody_knows_is_read_and_is_no_issuers() -> None:
    (cert_id,) = OcspRequest.parse(request(tlv(0x30, one(cert_id_der(oid=OTHER_ID))))).cert_ids
    assert cert_id.algorithm == "1.2.3.4"
    assert not ISSUER.issued(cert_id)


@pytest.mark.parametrize(
    "der",
    [
        b"",
        b"\x30\x00",
        request(),
        request(tlv(0x30, b"")),
        request(LISTED)[:-1],
        request(LISTED) + b"\0",
        request(tlv(0xA0, b"\2\1\0"), LISTED),  # DER leaves the default version out
        request(tlv(0xA0, b"\2\1\1"), LISTED),
        request(LISTED, REQUESTOR),
        request(LISTED, LISTED),
        request(LISTED, extensions(SOME_NONCE), extensions(SOME_NONCE)),
        request(LISTED, extensions()),
        request(LISTED, extensions(SOME_NONCE, SOME_NONCE)),
        request(LISTED, extensions(extension(NONCE_ID, NONCE))),
        request(LISTED, extensions(extension(NONCE_ID, tlv(0x04, b"")))),
        request(LISTED, extensions(extension(NONCE_ID, tlv(0x04, bytes(129))))),
        request(LISTED, extensions(extension(NONCE_ID, tlv(0x04, b"x") * 2))),
        request(LISTED, extensions(extension(OTHER_ID, b"", CRITICAL))),
        request(LISTED, extensions(extension(OTHER_ID, b"", "010101"))),
        request(LISTED, extensions(extension(OTHER_ID, b"", "010100"))),
        request(LISTED, extensions(SOME_NONCE, tag=0xA3)),
        request(LISTED, signature=tlv(0xA1, b"")),
        request(LISTED, signature=SIGNATURE * 2),
        request(tlv(0x30, one(cert_id_der(), tlv(0xA1, b"")))),
        request(tlv(0x30, one(cert_id_der(), extensions(SOME_NONCE, tag=0xA0) * 2))),
        request(
            tlv(
                0x30,
                one(cert_id_der(), extensions(extension(OTHER_ID, b"", CRITICAL), tag=0xA0)),
            )
        ),
        request(tlv(0x30, one(cert_id_der(parameters="020101")))),
        request(tlv(0x30, one(cert_id_der(serial=b"")))),
        request(tlv(0x30, one(cert_id_der(serial=b"\0\5")))),
        request(tlv(0x31, one())),
        request(tlv(0x30, tlv(0x31, cert_id_der()))),
        b"\x30\x81" + request(LISTED)[1:],  # a length of one octet, written in two
        request(tlv(0x30, one() * 3000)),
    ],
)
def test_what_breaks_a_rule_is_malformed(der: bytes) -> None:
    with pytest.raises(Malformed):
        OcspRequest.parse(der)


def test_what_is_too_large_is_not_even_parsed() -> None:
    with pytest.raises(Malformed, match="at most"):
        OcspRequest.parse(request(LISTED, extensions(extension(OTHER_ID, bytes(MAX_REQUEST_SIZE)))))


@given(
    st.one_of(st.binary(), *(mutated(good) for good in (asked(), asked("sha1", NONCE)))),
)
@example(b"\x30\x80")
@example(b"\x30\x84\xff\xff\xff\xff")
def test_bytes_break_only_as_malformed_and_are_read_as_cryptography_reads_them(
    der: bytes,
) -> None:
    ours = None
    with contextlib.suppress(PkiError):
        ours = OcspRequest.parse(der)
    try:
        theirs = ocsp.load_der_ocsp_request(der)
        nonces = [e.value.nonce for e in theirs.extensions if isinstance(e.value, x509.OCSPNonce)]
    except Exception:
        return
    if ours is not None:
        (cert_id,) = ours.cert_ids
        assert cert_id.serial == theirs.serial_number
        assert (cert_id.name_hash, cert_id.key_hash) == (
            theirs.issuer_name_hash,
            theirs.issuer_key_hash,
        )
        assert [ours.nonce] == (nonces or [None])


# GET


@given(st.binary(min_size=1, max_size=300))
def test_a_path_is_read_back(der: bytes) -> None:
    assert decode_get(encode_get(der).encode()) == der
    # A client may leave unescaped what a path may hold.
    assert decode_get(base64.b64encode(der)) == der
    assert decode_get(quote(base64.b64encode(der)).encode()) == der


@pytest.mark.parametrize(
    "path",
    [
        b"",
        b"MA==\n",
        b"MA",
        b"MA=",
        b"MA===",
        b"MB==",  # bits that mean nothing, and are not zero
        b"M A=",
        b"MA%3",
        b"MA%3D%3",
        b"MA%0A%3D%3D",
        b"MA%20==",
        b"MA-_",
        "MÄ==".encode(),
        b"MA==?x",
        b"TUFB" * MAX_REQUEST_SIZE,
    ],
)
def test_other_paths_are_malformed(path: bytes) -> None:
    with pytest.raises(Malformed):
        decode_get(path)


@given(st.binary())
def test_paths_break_only_as_malformed(path: bytes) -> None:
    with contextlib.suppress(PkiError):
        assert base64.b64encode(decode_get(path))


# Delegates


def extended(*usages: x509.ObjectIdentifier) -> Extensions:
    return {x509.ExtendedKeyUsage: (x509.ExtendedKeyUsage(usages), False)}


def test_a_delegate_is_whom_the_issuer_itself_made_one() -> None:
    good = forge(CA, OCSP_RESPONDER)
    assert is_delegate(good, CA.certificate)
    assert not is_delegate(good, ROOT_CA.certificate)
    assert not is_delegate(LEAF, CA.certificate)
    assert not is_delegate(forge(ROOT_CA, OCSP_RESPONDER), CA.certificate)
    anything = extended(x509.ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE)
    assert not is_delegate(forge(CA, OCSP_RESPONDER, replace=anything), CA.certificate)
    mute: Extensions = {
        x509.KeyUsage: (Profile("", DAY, frozenset({"key_agreement"})).key_usage, True)
    }
    assert not is_delegate(forge(CA, OCSP_RESPONDER, replace=mute), CA.certificate)
    # By a CA of the same name, with another key.
    poser = mesh(issuing_key=key("poser")).issuing
    assert not is_delegate(forge(poser, OCSP_RESPONDER), CA.certificate)


def test_key_hashes_are_of_the_bits_alone() -> None:
    bits = CA.key.public_key.public_bytes(
        serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint
    )
    assert ISSUER.hashes[SHA1][1] == hashlib.sha1(bits).digest()
