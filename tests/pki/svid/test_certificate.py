"""What RFC 5280 asks of each certificate of a chain, a row for each rule: leaf and issuers alike."""

from ipaddress import ip_network
from typing import Any

import pytest
from attrs import field, frozen
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given

from pki.errors import PkiError
from pki.issuing.authority import Authority
from pki.issuing.profile import ISSUING
from pki.keys import MemoryKey, key_bits, spki_der
from pki.svid.certificate import oversized
from pki.svid.chain import judge
from pki.svid.revocation_set import RevocationSet
from pki.svid.x509svid import Purpose, load_certificates
from tests.authorities import (
    BACKEND,
    NOW,
    der,
    forge,
    forge_issuing,
    key,
    mesh,
    pem,
    signed_anew,
    tlv,
)
from tests.pki.strategies import mutated

ROOT, ISSUER, LEAF = mesh().root, mesh().issuing, mesh().leaf()


def codes(*chain: x509.Certificate) -> list[str]:
    verdict = judge(chain, mesh().bundles, RevocationSet(), now=NOW, purpose=Purpose.ANY)
    assert verdict.ok is (not verdict.problems)
    return [problem.code for problem in verdict.problems]


def edited(signer: Authority, cert: x509.Certificate, old: bytes, new: bytes) -> x509.Certificate:
    """``cert`` with its TBSCertificate's content changed, and signed anew."""
    body = cert.tbs_certificate_bytes
    content = body[4:] if body[1] == 0x82 else body[3:]
    assert content.count(old) == 1
    assert isinstance(signer.key, MemoryKey)
    private_key = signer.key.private_key
    assert isinstance(private_key, ec.EllipticCurvePrivateKey)
    made = signed_anew(tlv(0x30, content.replace(old, new)), private_key)
    (loaded,) = load_certificates(pem(made))
    return loaded


def constraint(oid: str, value: bytes = b"\x30\0") -> x509.UnrecognizedExtension:
    return x509.UnrecognizedExtension(x509.ObjectIdentifier(oid), value)


@frozen
class Rule:
    """How a certificate breaks it: by another extension, or by an edit of its bytes."""

    name: str
    replace: dict[Any, Any] = field(factory=dict)
    code: str = "profile-violation"

    def __str__(self) -> str:
        return self.name


def plain(value: x509.ExtensionType, critical: bool = False) -> dict[Any, Any]:
    return {type(value): (value, critical)}


AKI = x509.AuthorityKeyIdentifier.from_issuer_public_key(ISSUER.key.public_key)
SKI = x509.SubjectKeyIdentifier.from_public_key(key(9).public_key)
URI = x509.UniformResourceIdentifier("mesh.local")
OUR_IPS = x509.IPAddress(ip_network("127.0.0.0/8"))

RULES = [
    Rule("name constraints: URI", plain(x509.NameConstraints([URI], None))),
    Rule("name constraints: DNS", plain(x509.NameConstraints(None, [x509.DNSName("a.example")]))),
    Rule("name constraints: IP", plain(x509.NameConstraints([OUR_IPS], None))),
    Rule(
        "name constraints, critical",
        plain(x509.NameConstraints([URI], None), True),
        "unknown-extension",
    ),
    Rule("policy constraints", plain(x509.PolicyConstraints(0, None))),
    Rule("inhibitAnyPolicy", plain(x509.InhibitAnyPolicy(0))),
    Rule("proxy certificate", plain(constraint("1.3.6.1.5.5.7.1.14"))),
    Rule("RFC 3779 addresses", plain(constraint("1.3.6.1.5.5.7.1.7"))),
    Rule("Netscape's type", plain(constraint("2.16.840.1.113730.1.1", b"\x03\x02\x07\x80"))),
    Rule("critical authority key identifier", plain(AKI, True)),
    Rule("critical subject key identifier", plain(SKI, True)),
    Rule("no authority key identifier", {x509.AuthorityKeyIdentifier: None}),
]


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_a_leaf_that_breaks_the_profile_is_refused(rule: Rule) -> None:
    assert codes(forge(ISSUER, replace=rule.replace), ISSUER.certificate) == [rule.code]


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_an_issuer_that_breaks_the_profile_is_refused(rule: Rule) -> None:
    replace = dict(rule.replace)
    if replace.get(x509.AuthorityKeyIdentifier):
        replace = plain(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(ROOT.key.public_key), True
        )
    if x509.SubjectKeyIdentifier in replace:
        replace = plain(x509.SubjectKeyIdentifier.from_public_key(key(51).public_key), True)
    issuer = forge_issuing(ROOT, replace=replace)
    assert codes(forge(issuer), issuer.certificate) == [rule.code]


@pytest.mark.parametrize(
    "replace",
    [
        {x509.SubjectKeyIdentifier: None},
        {x509.BasicConstraints: (ISSUING.basic_constraints, False)},
    ],
    ids=["no subject key identifier", "basic constraints not critical"],
)
def test_a_ca_that_breaks_the_profile_of_cas_is_refused(replace: dict[Any, Any]) -> None:
    issuer = forge_issuing(ROOT, replace=replace)
    leaf = forge(forge_issuing(ROOT))  # of the same name and key
    assert codes(leaf, issuer.certificate) == ["profile-violation"]


VERSION_3 = bytes.fromhex("a003020102")
NAMED_P256 = bytes.fromhex("06082a8648ce3d030107")
EXPLICIT_P256 = bytes.fromhex(
    "3081e0020101302c06072a8648ce3d0101022100ffffffff00000001000000000000000000000000ffffffff"
    "ffffffffffffffff30440420ffffffff00000001000000000000000000000000fffffffffffffffffffffffc"
    "04205ac635d8aa3a93e7b3ebbd55769886bc651d06b0cc53b0f63bce3c3e27d2604b0441046b17d1f2e12c42"
    "47f8bce6e563a440f277037d812deb33a0f4a13945d898c2964fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33"
    "576b315ececbb6406837bf51f5022100ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2"
    "fc632551020101"
)


def serial_of(cert: x509.Certificate) -> bytes:
    size = cert.serial_number.bit_length() // 8 + 1
    return tlv(0x02, cert.serial_number.to_bytes(size, "big"))


def spki(key_bits: bytes, curve: bytes) -> bytes:
    algorithm = tlv(0x30, bytes.fromhex("06072a8648ce3d0201") + curve)
    return tlv(0x30, algorithm + tlv(0x03, b"\0" + key_bits))


EDITS = ["version 1", "serial 0", "serial -1", "serial of 21 octets", "explicit curve"]


def breaking(edit: str, good: x509.Certificate, signer: Authority) -> x509.Certificate:
    """``good`` with that edit, signed anew by ``signer``."""
    bits = key_bits(spki_der(good.public_key()))
    old, new = {
        "version 1": (VERSION_3, b""),
        "serial 0": (serial_of(good), b"\x02\1\0"),
        "serial -1": (serial_of(good), b"\x02\1\xff"),
        "serial of 21 octets": (serial_of(good), tlv(0x02, b"\1" * 21)),
        "explicit curve": (spki(bits, NAMED_P256), spki(bits, EXPLICIT_P256)),
    }[edit]
    return edited(signer, good, old, new)


@pytest.mark.filterwarnings("ignore:Parsed a serial number")
@pytest.mark.parametrize("edit", EDITS)
def test_old_versions_odd_serials_and_spelt_out_curves_are_refused(edit: str) -> None:
    bad = breaking(edit, LEAF, ISSUER)
    assert "profile-violation" in codes(bad, ISSUER.certificate)
    bad = breaking(edit, ISSUER.certificate, ROOT)
    assert "profile-violation" in codes(LEAF, bad)


def test_a_certificate_that_is_too_large_is_not_looked_at() -> None:
    many = [x509.UniformResourceIdentifier(str(BACKEND)), *[x509.DNSName("")] * 2_000]
    huge = constraint("1.2.3.4", b"\x04" * 30_000)
    crowded = forge(ISSUER, replace=plain(x509.SubjectAlternativeName(many)))
    large = forge(ISSUER, replace=plain(huge))
    assert codes(crowded, ISSUER.certificate) == ["malformed"]
    assert codes(large, ISSUER.certificate) == ["malformed"]
    assert codes(LEAF, ISSUER.certificate, crowded) == ["malformed"]
    assert "names and extensions" in oversized([crowded])
    assert "bytes was presented" in oversized([large])
    assert "more than 65536 bytes" in oversized(
        [forge(ISSUER, replace=plain(constraint("1.2.3.4", bytes(22_000))))] * 3
    )


def test_as_many_names_as_the_ca_puts_in_are_not_too_many() -> None:
    hosts = [x509.DNSName(f"{'a' * 60}.{'b' * 60}.{'c' * 60}.{n}.example") for n in range(64)]
    names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(str(BACKEND)), *hosts])
    assert codes(forge(ISSUER, replace=plain(names)), ISSUER.certificate) == []


@given(mutated(der(LEAF)))
def test_whatever_is_decoded_has_been_measured(data: bytes) -> None:
    try:
        (cert,) = load_certificates(pem(data))
    except PkiError:
        return
    assert oversized([cert] * 10) == ""
