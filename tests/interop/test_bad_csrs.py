"""CSRs and lifetimes that the CA does not grant: 422 with every rule that was broken."""

import datetime
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import NameOID

from pki.svid.x509svid import load_certificates
from tests.authorities import csr_builder, der, key, pem, rsa_key
from tests.interop.forging import PAYMENT
from tests.interop.house import House, Reply
from tests.interop.test_who_may import csr_for


def sign(shared: House, csr: str, requested_id: str = PAYMENT, **more: object) -> Reply:
    asked = {"csr": csr, "requested_id": requested_id, **more}
    return shared.post("socket", "/api/v1/sign", asked)


def codes(reply: Reply) -> list[str]:
    assert reply.status == 422, reply
    assert reply.headers["content-type"] == "application/problem+json"
    return [problem["code"] for problem in reply.json["problems"]]


def text_of(csr: x509.CertificateSigningRequest) -> str:
    return csr.public_bytes(serialization.Encoding.PEM).decode()


def test_a_csr_whose_signature_does_not_match_is_refused(shared: House) -> None:
    raw = bytearray(der(csr_builder().sign(key().private_key, hashes.SHA256())))
    raw[-1] ^= 1
    reply = sign(shared, pem(bytes(raw), "CERTIFICATE REQUEST").decode())
    assert "possession" in reply.text or "signature" in reply.text
    assert codes(reply)


@pytest.mark.parametrize(
    ("requested", "words"),
    [
        ("spiffe://other.example/service/x", "mesh.local"),
        ("spiffe://mesh.local.evil.example/service/x", "mesh.local"),
        ("spiffe://mesh.local/mesh/ca", "reserved"),
        ("spiffe://mesh.local/mesh/anything/below", "reserved"),
        ("spiffe://mesh.local/mesh", "reserved"),
        ("spiffe://mesh.local", "path"),
        ("spiffe://mesh.local/", "path"),
        ("spiffe://MESH.local/service/x", "lower-case"),
        ("spiffe://mesh.local/../mesh/ca", "segments"),
        ("spiffe://mesh.local/%6desh/ca", "path"),
        ("spiffe://mesh.local:8443/x", "trust domain"),
        ("https://mesh.local/service/x", "spiffe://"),
        ("spiffe://mesh.local/service/x\n", "path"),
        ("spiffe://mesh.local/" + "x" * 3000, "2048"),
        ("", "spiffe://"),
    ],
)
def test_an_id_that_may_not_be_given_is_refused(requested: str, words: str, shared: House) -> None:
    before = shared.ca.text.count("Certificate issued")
    reply = sign(shared, csr_for(PAYMENT), requested)
    assert codes(reply)
    assert words in reply.text
    assert shared.ca.text.count("Certificate issued") == before


def test_the_csr_may_name_no_other_uri(shared: House) -> None:
    reply = sign(shared, csr_for("spiffe://mesh.local/service/api-server"))
    assert codes(reply)
    assert "service/api-server" in reply.text


def test_a_csr_is_a_csr(shared: House) -> None:
    certificate = shared.root.read_text()
    private = key().to_pem().decode()
    for nonsense in (
        "",
        "hello",
        "\x00",
        certificate,
        private,
        pem(b"\x30\x00", "CERTIFICATE REQUEST").decode(),
    ):
        reply = sign(shared, nonsense)
        assert reply.status in (400, 422), reply
        assert reply.headers["content-type"] == "application/problem+json"
    assert "PRIVATE" not in shared.ca.text


def test_two_csrs_in_one_are_refused(shared: House) -> None:
    assert sign(shared, csr_for(PAYMENT) + csr_for(PAYMENT)).status in (400, 422)


def test_a_weak_key_is_refused(shared: House) -> None:
    small = csr_builder().sign(rsa_key(1024), hashes.SHA256())
    reply = sign(shared, text_of(small))
    assert codes(reply)
    assert "1024" in reply.text or "2048" in reply.text


def test_the_cas_own_key_is_refused(shared: House) -> None:
    private = (shared.state / "ca" / "private" / "issuing.key").read_bytes()
    stolen: Any = serialization.load_pem_private_key(private, None)
    reply = sign(shared, text_of(csr_builder().sign(stolen, hashes.SHA256())))
    assert codes(reply)


def test_every_broken_rule_is_told_at_once(shared: House) -> None:
    small = csr_builder().sign(rsa_key(1024), hashes.SHA256())
    reply = sign(shared, text_of(small), "spiffe://other.example/service/x", ttl="9000h")
    assert len(set(codes(reply))) >= 3
    assert "ttl-out-of-range" in codes(reply)


def test_what_else_a_csr_wishes_for_is_never_granted(shared: House) -> None:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "root of everything")])
    wishes = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(name)
        .add_extension(x509.BasicConstraints(ca=True, path_length=9), critical=True)
    )
    reply = sign(shared, text_of(wishes.sign(key().private_key, hashes.SHA256())))
    if reply.status == 201:
        (leaf,) = load_certificates(reply.json["certificate"].encode())
        constraints = leaf.extensions.get_extension_for_class(x509.BasicConstraints).value
        assert not constraints.ca
        assert "root of everything" not in leaf.subject.rfc4514_string()
    else:
        assert codes(reply)


@pytest.mark.parametrize(
    "ttl",
    ["25h", "1441m", "0s", "0h", "999999999d", "2d"],
)
def test_a_lifetime_out_of_range_is_422(ttl: str, shared: House) -> None:
    reply = sign(shared, csr_for(PAYMENT), ttl=ttl)
    assert "ttl-out-of-range" in codes(reply)
    assert "1s to" in reply.text


@pytest.mark.parametrize(
    "ttl",
    [
        "-1h",
        "1.5h",
        "1e3s",
        "",
        "h",
        "60",
        "1 h",
        "forever",
        "1h30m",
        "\u0661h",
        "9" * 40 + "s",
        "0x10s",
        "1h\n",
    ],
)
def test_a_lifetime_that_is_none_is_400(ttl: str, shared: House) -> None:
    reply = sign(shared, csr_for(PAYMENT), ttl=ttl)
    assert (reply.status, reply.code) == (400, "malformed")
    assert "duration" in reply.json["detail"]


@pytest.mark.parametrize(
    ("ttl", "seconds"), [("1s", 1), ("90s", 90), ("15m", 900), ("24h", 86400), ("1d", 86400)]
)
def test_a_lifetime_within_the_range_is_given_to_the_second(
    ttl: str, seconds: int, shared: House
) -> None:
    earliest = datetime.datetime.now(datetime.UTC)
    reply = sign(shared, csr_for(PAYMENT), ttl=ttl)
    latest = datetime.datetime.now(datetime.UTC)
    assert reply.status == 201, reply
    (leaf,) = load_certificates(reply.json["certificate"].encode())
    life = datetime.timedelta(seconds=seconds)
    second = datetime.timedelta(seconds=1)
    assert earliest + life - second <= leaf.not_valid_after_utc <= latest + life + second
