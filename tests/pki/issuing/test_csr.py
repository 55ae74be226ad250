"""Certificate signing requests: what is read from them, and what gets one refused."""

import hashlib
from collections.abc import Callable
from datetime import timedelta
from ipaddress import IPv4Address, IPv4Network, IPv6Address

import pytest
from attrs import evolve
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, rsa
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.x509.oid import AttributeOID, ExtendedKeyUsageOID, ObjectIdentifier
from hypothesis import given
from hypothesis import strategies as st

from pki.der import blocks, elements
from pki.errors import Malformed, PkiError, Refused
from pki.issuing import csr as csr_module
from pki.issuing import request_key
from pki.issuing.csr import (
    MAX_CSR_SIZE,
    IPAddress,
    IssuanceRequest,
    alternative_names,
    build_csr,
    load_csr,
)
from pki.issuing.profile import ISSUING
from pki.keys import KeyAlgorithm, spki_der
from pki.spiffe import SpiffeId
from tests.authorities import BACKEND, MESH, csr_builder, key, pem, rsa_key, signed_anew, tlv
from tests.pki.strategies import mutated, spiffe_ids

PEM = serialization.Encoding.PEM
CSR = build_csr(key(), BACKEND, ["backend.mesh.local"], [IPv4Address("127.0.0.1")])
INFO = load_csr(CSR).info


def parse(
    csr: bytes, requested_id: str = str(BACKEND), ttl: timedelta | None = None
) -> IssuanceRequest:
    return IssuanceRequest.parse(
        csr,
        requested_id,
        ttl,
        trust_domain=MESH,
        forbidden_keys={spki_der(key("a CA's").public_key)},
    )


def refusals(
    csr: bytes, requested_id: str = str(BACKEND), ttl: timedelta | None = None
) -> list[str]:
    with pytest.raises(Refused) as refusal:
        parse(csr, requested_id, ttl)
    return [problem.code for problem in refusal.value.problems]


def signed(builder: x509.CertificateSigningRequestBuilder) -> bytes:
    return builder.sign(key().private_key, hashes.SHA256()).public_bytes(PEM)


def with_names(*names: x509.GeneralName) -> bytes:
    return signed(
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([]))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
    )


def as_csr(body: bytes) -> bytes:
    """A CertificationRequestInfo, however broken, with a valid signature of ``key()``."""
    return pem(signed_anew(body, key().private_key), "CERTIFICATE REQUEST")


@pytest.mark.parametrize("algorithm", list(KeyAlgorithm))
def test_a_csr_gives_its_key_and_its_names(algorithm: KeyAlgorithm) -> None:
    requester = key("csr", algorithm)
    addresses: list[IPAddress] = [IPv4Address("127.0.0.1"), IPv6Address("::1")]
    csr = build_csr(requester, BACKEND, ["localhost", "backend.mesh.local"], addresses)
    request = parse(csr, ttl=timedelta(hours=1))
    assert request.spiffe_id == BACKEND
    assert request.spki == spki_der(request.public_key) == spki_der(requester.public_key)
    assert request.dns_names == ("localhost", "backend.mesh.local")
    assert request.ip_addresses == tuple(addresses)
    assert request.ttl == timedelta(hours=1)
    assert request.subject == "CN=backend"
    assert request.digest == hashlib.sha256(load_csr(csr).der).hexdigest()


@pytest.mark.parametrize("algorithm", list(KeyAlgorithm))
def test_a_key_of_a_kind_that_the_ca_does_not_certify_is_refused(algorithm: KeyAlgorithm) -> None:
    allowed = (KeyAlgorithm.EC_P256, KeyAlgorithm.ML_DSA_44)
    csr = build_csr(key("csr", algorithm), BACKEND)
    if algorithm in allowed:
        IssuanceRequest.parse(csr, str(BACKEND), trust_domain=MESH, allowed=allowed)
        return
    with pytest.raises(Refused) as refusal:
        IssuanceRequest.parse(csr, str(BACKEND), trust_domain=MESH, allowed=allowed)
    (problem,) = refusal.value.problems
    assert problem.code == "forbidden-key"
    assert problem.detail == (
        f"this CA certifies keys of ec-p256, ml-dsa-44 only, and the CSR's is {algorithm.label}"
    )


def test_a_kind_that_has_no_name_here_is_none_of_those_that_are_certified() -> None:
    csr = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([]))
        .sign(rsa_key(3072), hashes.SHA256())
        .public_bytes(PEM)
    )
    assert parse(csr).public_key.key_size == 3072  # type: ignore[union-attr]
    with pytest.raises(Refused, match="and the CSR's is of a kind or size that has no name here"):
        IssuanceRequest.parse(
            csr, str(BACKEND), trust_domain=MESH, allowed=(KeyAlgorithm.RSA_2048,)
        )


@given(spiffe_ids.filter(lambda i: i.path and not i.is_reserved))
def test_what_is_built_for_an_id_is_read_as_a_request_for_it(spiffe_id: SpiffeId) -> None:
    request = IssuanceRequest.parse(
        build_csr(key(), spiffe_id), str(spiffe_id), trust_domain=spiffe_id.trust_domain
    )
    assert request.spiffe_id == spiffe_id


def test_a_csr_without_extensions_gets_the_id_that_was_requested() -> None:
    csr = signed(x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])))
    request = parse(csr)
    assert (request.spiffe_id, request.dns_names, request.subject) == (BACKEND, (), "")


def test_names_given_twice_are_taken_once() -> None:
    local, address = x509.DNSName("localhost"), x509.IPAddress(IPv4Address("127.0.0.1"))
    request = parse(with_names(local, address, local, address))
    assert request.dns_names == ("localhost",)
    assert request.ip_addresses == (IPv4Address("127.0.0.1"),)


def test_what_else_a_csr_asks_for_is_read_nowhere() -> None:
    greedy = (
        csr_builder()
        .add_extension(ISSUING.basic_constraints, critical=True)
        .add_extension(ISSUING.key_usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]), critical=True)
        .add_attribute(AttributeOID.CHALLENGE_PASSWORD, b"secret")
    )
    request = parse(signed(greedy))
    assert request == evolve(parse(signed(csr_builder())), digest=request.digest)


@pytest.mark.parametrize(
    ("requested_id", "code"),
    [
        ("spiffe://other.example/service/backend", "wrong-trust-domain"),
        ("spiffe://mesh.local", "not-an-svid"),
        ("spiffe://mesh.local/mesh/ca", "reserved-id"),
        ("spiffe://mesh.local/mesh", "reserved-id"),
        ("spiffe://mesh.local/service/backend\n", "not-a-spiffe-id"),
        ("spiffe://mesh.local/\ud800", "not-a-spiffe-id"),
        ("https://mesh.local/service/backend", "not-a-spiffe-id"),
        ("", "not-a-spiffe-id"),
    ],
)
def test_an_id_that_this_ca_cannot_give_is_refused(requested_id: str, code: str) -> None:
    csr = signed(x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])))
    assert refusals(csr, requested_id) == [code]


@pytest.mark.parametrize(
    "uris",
    [
        ["spiffe://mesh.local/service/frontend"],
        [str(BACKEND), "spiffe://mesh.local/service/frontend"],
        [str(BACKEND) + "/"],
        ["https://mesh.local/"],
    ],
)
def test_a_uri_other_than_the_requested_id_is_refused(uris: list[str]) -> None:
    assert refusals(with_names(*map(x509.UniformResourceIdentifier, uris))) == ["wrong-uri"]


@pytest.mark.parametrize(
    ("name", "code"),
    [
        (x509.DNSName("*.mesh.local"), "malformed-dns-name"),
        (x509.DNSName("Backend.mesh.local"), "malformed-dns-name"),
        (x509.DNSName("backend.mesh.local."), "malformed-dns-name"),
        (x509.DNSName("backend\nforged line"), "malformed-dns-name"),
        (x509.DNSName(""), "malformed-dns-name"),
        (x509.RFC822Name("root@mesh.local"), "unsupported-name"),
        (x509.DirectoryName(x509.Name([])), "unsupported-name"),
        (x509.RegisteredID(ObjectIdentifier("1.2.3")), "unsupported-name"),
        (x509.OtherName(ObjectIdentifier("1.2.3"), b"\x05\0"), "unsupported-name"),
        (x509.IPAddress(IPv4Network("10.0.0.0/8")), "unsupported-name"),
    ],
)
def test_a_name_that_no_svid_carries_is_refused(name: x509.GeneralName, code: str) -> None:
    with pytest.raises(Refused) as refusal:
        parse(with_names(name))
    assert [problem.code for problem in refusal.value.problems] == [code]
    assert str(refusal.value).isprintable()


def test_more_names_than_anybody_needs_are_refused() -> None:
    names = [x509.DNSName(f"n{n}.mesh.local") for n in range(64)]
    assert len(parse(with_names(*names)).dns_names) == 64
    assert refusals(with_names(*names, x509.DNSName("last.mesh.local"))) == ["too-many-names"]


@pytest.mark.parametrize("ttl", [timedelta(), timedelta(seconds=-1), timedelta.min])
def test_a_lifetime_below_a_second_is_refused(ttl: timedelta) -> None:
    assert refusals(CSR, ttl=ttl) == ["ttl-out-of-range"]


def test_every_reason_is_given_at_once() -> None:
    csr = csr_builder(MESH.member("service", "frontend")).sign(rsa_key(1024), hashes.SHA256())
    assert refusals(csr.public_bytes(PEM), "spiffe://other.example/a", timedelta()) == [
        "wrong-trust-domain",
        "weak-key",
        "wrong-uri",
        "ttl-out-of-range",
    ]


def test_a_signature_of_another_key_proves_nothing() -> None:
    csr = pem(signed_anew(INFO, key(1).private_key), "CERTIFICATE REQUEST")
    assert refusals(csr) == ["no-possession"]


@pytest.mark.parametrize("old_hash", ["sha1", "md5"])
def test_a_signature_over_an_old_hash_proves_nothing(old_hash: str) -> None:
    csr = csr_builder().sign(rsa_key(), hashes.SHA256())
    body = signed_anew(csr.tbs_certrequest_bytes, rsa_key(), old_hash)
    assert refusals(pem(body, "CERTIFICATE REQUEST")) == ["weak-signature"]


@pytest.mark.parametrize("digest", [hashes.SHA224(), hashes.SHA3_256()])
def test_a_signature_over_an_uncommon_hash_is_refused(
    digest: hashes.SHA224 | hashes.SHA3_256,
) -> None:
    csr = csr_builder().sign(key().private_key, digest).public_bytes(PEM)
    assert refusals(csr) == ["weak-signature"]


@pytest.mark.parametrize(
    "made",
    [
        lambda: rsa_key(1024),
        lambda: rsa_key(2050),
        lambda: rsa_key(exponent=3),
        lambda: ec.generate_private_key(ec.SECP521R1()),
    ],
    ids=["1024", "2050", "exponent 3", "P-521"],
)
def test_a_weak_key_or_a_curve_of_others_is_refused(
    made: Callable[[], rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey],
) -> None:
    csr = csr_builder().sign(made(), hashes.SHA256()).public_bytes(PEM)
    assert refusals(csr) == ["weak-key"]


def test_an_edwards_key_of_another_curve_is_refused() -> None:
    csr = csr_builder().sign(ed448.Ed448PrivateKey.generate(), None).public_bytes(PEM)
    assert refusals(csr) == ["weak-key", "weak-signature"]


def test_a_key_that_signs_without_a_hash_proves_itself_and_no_other() -> None:
    made = x509.load_pem_x509_csr(build_csr(key("ed", KeyAlgorithm.ED25519), BACKEND))
    body, signature = made.tbs_certrequest_bytes, bytearray(made.signature)
    signature[0] ^= 1
    algorithm = KeyAlgorithm.ED25519.identifier
    forged = pem(tlv(0x30, body + algorithm + tlv(0x03, b"\0" + signature)), "CERTIFICATE REQUEST")
    assert refusals(forged) == ["no-possession"]
    ec_body = x509.load_pem_x509_csr(build_csr(key(), BACKEND)).tbs_certrequest_bytes
    mixed = tlv(0x30, ec_body + algorithm + tlv(0x03, b"\0" + made.signature))
    assert refusals(pem(mixed, "CERTIFICATE REQUEST")) in (["no-possession"], ["weak-key"])


def rsa_spki(exponent: int) -> bytes:
    n = rsa_key().public_key().public_numbers().n
    numbers = [tlv(0x02, i.to_bytes(i.bit_length() // 8 + 1, "big")) for i in (n, exponent)]
    algorithm = bytes.fromhex("300d06092a864886f70d0101010500")
    return tlv(0x30, algorithm + tlv(0x03, b"\0" + tlv(0x30, b"".join(numbers))))


def off_the_curve() -> bytes:
    spki = spki_der(key().public_key)
    return spki[:-1] + bytes((spki[-1] ^ 1,))


@pytest.mark.parametrize(
    "spki",
    [off_the_curve(), rsa_spki(65538), rsa_spki(1), rsa_spki(0)],
    ids=["point off the curve", "even exponent", "exponent 1", "exponent 0"],
)
def test_a_key_that_is_no_key_is_refused(spki: bytes) -> None:
    version, subject, rest = tlv(0x02, b"\0"), tlv(0x30, b""), tlv(0xA0, b"")
    assert refusals(as_csr(tlv(0x30, version + subject + spki + rest))) == ["weak-key"]


def test_a_ca_key_is_nobody_elses() -> None:
    assert refusals(build_csr(key("a CA's"), BACKEND)) == ["forbidden-key"]


def test_an_extension_given_twice_is_refused() -> None:
    extensions = tlv(0x30, extension("551d13", "3000") * 2)
    assert refusals(as_csr(info(extensions))) == ["malformed"]


def test_a_subject_that_cannot_be_decoded_is_only_shown_as_it_stands() -> None:
    """It is not copied into the certificate."""
    cn = tlv(0x30, bytes.fromhex("0603550403") + tlv(0x0C, b"\xff\xfe"))
    assert parse(as_csr(info(None, tlv(0x30, tlv(0x31, cn))))).subject == "CN=#0c02fffe"


def extension(oid: str, value: str) -> bytes:
    return tlv(0x30, tlv(0x06, bytes.fromhex(oid)) + tlv(0x04, bytes.fromhex(value)))


def info(extensions: bytes | None, subject: bytes = b"\x30\0") -> bytes:
    """A CertificationRequestInfo for ``key()``."""
    request = bytes.fromhex("06092a864886f70d01090e")
    attributes = tlv(0x30, request + tlv(0x31, extensions)) if extensions else b""
    return tlv(
        0x30, tlv(0x02, b"\0") + subject + spki_der(key().public_key) + tlv(0xA0, attributes)
    )


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"garbage",
        CSR + CSR,
        CSR + key().to_pem(),
        key().to_pem(),
        CSR.replace(b"CERTIFICATE REQUEST", b"CERTIFICATE"),
        CSR.replace(b"-----END", b""),
        CSR[: len(CSR) // 2],
        pem(b"", "CERTIFICATE REQUEST"),
        pem(load_csr(CSR).der + b"\0", "CERTIFICATE REQUEST"),
        b" " * MAX_CSR_SIZE + CSR,
    ],
)
def test_what_is_no_csr_is_malformed(data: bytes) -> None:
    with pytest.raises(Malformed, match="CSR"):
        load_csr(data)


def test_a_csr_is_read_in_der_too() -> None:
    assert load_csr(load_csr(CSR).der) == load_csr(CSR)


def test_the_old_label_of_a_csr_is_read_too() -> None:
    assert parse(CSR.replace(b"CERTIFICATE REQUEST", b"NEW CERTIFICATE REQUEST")).dns_names


@given(st.binary() | st.binary().map(lambda data: pem(data, "CERTIFICATE REQUEST")))
def test_arbitrary_bytes_are_no_csr(data: bytes) -> None:
    with pytest.raises(Malformed):
        parse(data)


@given(
    mutated(CSR)
    | mutated(load_csr(CSR).der).map(lambda data: pem(data, "CERTIFICATE REQUEST"))
    | mutated(INFO).map(as_csr)
)
def test_a_damaged_csr_is_read_or_refused_and_nothing_else(data: bytes) -> None:
    try:
        request = parse(data)
    except PkiError as error:
        assert str(error).isprintable()
        assert error.problems
    else:
        assert request.spiffe_id == BACKEND
        assert request.subject.isprintable()


@given(st.text(), st.none() | st.timedeltas())
def test_any_requested_id_and_lifetime_are_granted_or_refused(
    requested_id: str, ttl: timedelta | None
) -> None:
    try:
        parse(CSR, requested_id, ttl)
    except Refused as error:
        assert str(error).isprintable()


def test_alternative_names_begin_with_the_one_uri() -> None:
    names = list(alternative_names(BACKEND, ["a", "b"], [IPv4Address("127.0.0.1")]))
    assert [name.value for name in names] == [str(BACKEND), "a", "b", IPv4Address("127.0.0.1")]


def with_key(public_key: PublicKeyTypes) -> bytes:
    """A CSR that names that key, and is signed by another."""
    info = blocks(CSR)[0].der
    (whole,) = elements(info)
    (body, *_) = elements(whole.content)
    parts = [
        spki_der_of(public_key) if at == 2 else part.whole
        for at, part in enumerate(elements(body.content))
    ]
    return pem(signed_anew(tlv(0x30, b"".join(parts)), rsa_key()), "CERTIFICATE REQUEST")


def spki_der_of(public_key: PublicKeyTypes) -> bytes:
    return public_key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def odd_rsa(bits: int, exponent: int) -> rsa.RSAPublicKey:
    """Nobody has to hold its other half."""
    return rsa.RSAPublicNumbers(exponent, (1 << bits) - 159).public_key()


@pytest.mark.parametrize(
    "weak",
    [
        odd_rsa(3072, (1 << 3070) | 1),
        odd_rsa(8192, (1 << 8190) | 1),
        odd_rsa(16384, 65537),
        ec.generate_private_key(ec.SECP521R1()).public_key(),
    ],
)
def test_what_a_check_costs_is_no_strangers_choice(
    weak: PublicKeyTypes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With an exponent as long as its modulus one check takes as long as a hundred others."""
    checked: list[object] = []

    def check(*given: object) -> bool:
        checked.append(given)
        return True

    monkeypatch.setattr(request_key, "_is_proven", check)
    assert set(refusals(with_key(weak))) == {"weak-key"}
    assert checked == []
    assert parse(with_key(key().public_key))
    assert len(checked) == 1


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"], ids=["lf", "crlf", "cr"])
@pytest.mark.parametrize("after", [b"", b"\n\n"], ids=["whole", "blank-lines"])
@given(body=st.text("ABCabc019+/=\n", max_size=40))
def test_the_short_way_through_pem_reads_what_the_long_one_does(
    end: bytes, after: bytes, body: str
) -> None:
    lines = [b"-----BEGIN CERTIFICATE REQUEST-----", *body.encode().split(b"\n")]
    data = end.join([*lines, b"-----END CERTIFICATE REQUEST-----", after])

    def read() -> bytes | str:
        try:
            return csr_module._der_of(data)
        except Malformed as error:
            return str(error)

    short = read()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(csr_module, "_BEGIN", b"\0")
        assert read() == short
