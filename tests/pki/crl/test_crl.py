"""CRLs that others made: what is read out of them, and a bad vector for each reason to refuse one."""

import asyncio
import time
from datetime import timedelta

import pytest
from attrs import frozen
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import ObjectIdentifier
from hypothesis import given
from hypothesis import strategies as st

from pki.crl import crl as crl_module
from pki.crl.crl import BadCrl, Crl, crls_in, find_issuer, read_crl
from pki.crl.issue import issue_crl
from pki.errors import Malformed, PkiError
from pki.issuing.profile import ISSUING, Profile
from pki.keys import KeyAlgorithm, MemoryKey
from pki.serial import new_serial
from pki.svid.revocation_set import Reason, Revocation, RevocationSet
from tests.authorities import (
    DAY,
    ECDSA_WITH_SHA256,
    HOUR,
    NOW,
    RSA_WITH,
    forge,
    forge_issuing,
    key,
    mesh,
    pem,
    sign_crl,
    signed_anew,
    tlv,
)
from tests.pki.strategies import mutated
from twisted_mesh.testing import Extensions

ROOT_CA, CA = mesh().root, mesh().issuing
GOOD = sign_crl(CA)
MINUTE = timedelta(minutes=1)
SECOND = timedelta(seconds=1)
STRANGE = x509.UnrecognizedExtension(ObjectIdentifier("1.2.3.4"), b"\x05\0")


def scope(**limits: object) -> tuple[x509.IssuingDistributionPoint, bool]:
    settings: dict[str, object] = {
        "full_name": None,
        "relative_name": None,
        "only_contains_user_certs": False,
        "only_contains_ca_certs": False,
        "only_some_reasons": None,
        "indirect_crl": False,
        "only_contains_attribute_certs": False,
    }
    return x509.IssuingDistributionPoint(**(settings | limits)), True  # type: ignore[arg-type]


def url(text: str) -> list[x509.GeneralName]:
    return [x509.UniformResourceIdentifier(text)]


def codes(data: bytes, issuer: x509.Certificate = CA.certificate, **options: object) -> list[str]:
    with pytest.raises(BadCrl) as caught:
        read_crl(data, issuer, **{"now": NOW, **options})  # type: ignore[arg-type]
    for problem in caught.value.problems:
        assert problem.detail.isprintable()
        assert problem.remedy
        assert problem.rule.startswith("RFC 5280 section")
        assert problem.subject
    return [problem.code for problem in caught.value.problems]


# What is read


def test_a_good_crl_is_read_whole() -> None:
    found = read_crl(GOOD, CA.certificate, now=NOW)
    assert (found.issuer, found.number, len(found)) == (CA.key_id, 1, 2)
    assert (found.this_update, found.next_update) == (NOW, NOW + HOUR)
    expected = [
        Revocation(CA.key_id, serial, NOW, Reason.UNSPECIFIED, CA.validity.not_after)
        for serial in (5, 7)
    ]
    assert list(found) == expected
    assert found.find(7) == expected[1]
    assert found.find(6) is None
    assert "Revocation" not in repr(found)


def test_pem_is_read_as_der_is() -> None:
    assert list(read_crl(pem(GOOD, "X509 CRL"), CA.certificate, now=NOW)) == list(
        read_crl(GOOD, CA.certificate, now=NOW)
    )
    two = pem(GOOD, "X509 CRL") + pem(sign_crl(CA, number=2), "X509 CRL")
    assert crls_in(two) == (GOOD, crls_in(two)[1])
    with pytest.raises(Malformed, match="there are 2 CRLs"):
        read_crl(two, CA.certificate, now=NOW)


def test_what_is_listed_is_revoked_to_a_set_until_the_issuer_ends() -> None:
    found = read_crl(GOOD, CA.certificate, now=NOW)
    known = RevocationSet().merged(found, NOW)
    assert known.find(CA.key_id, 5) == found.find(5)
    assert len(known.merged([], CA.validity.not_after)) == 2
    assert len(known.merged([], CA.validity.not_after + SECOND)) == 0


def test_what_is_on_hold_or_ought_to_be_removed_is_revoked() -> None:
    reasons = [Reason.CERTIFICATE_HOLD, Reason.REMOVE_FROM_CRL, Reason.AA_COMPROMISE]
    told = [
        Revocation(CA.key_id, serial, NOW, reason, NOW + HOUR)
        for serial, reason in enumerate(reasons)
    ]
    der = asyncio.run(issue_crl(CA, told, 1, this_update=NOW, next_update=NOW + HOUR))
    found = read_crl(der, CA.certificate, now=NOW)
    assert [revocation.reason for revocation in found] == reasons
    known = RevocationSet().merged(found, NOW)
    assert all(known.find(CA.key_id, serial) for serial in range(3))


@pytest.mark.parametrize("algorithm", list(KeyAlgorithm))
def test_issuers_of_every_kind_are_believed(algorithm: KeyAlgorithm) -> None:
    issuer = mesh(issuing_key=key("CRLs", algorithm)).issuing
    assert len(read_crl(sign_crl(issuer), issuer.certificate, now=NOW)) == 2


def test_a_crl_without_a_number_is_read_where_none_was_seen() -> None:
    assert read_crl(sign_crl(CA, number=None), CA.certificate, now=NOW).number is None


def test_the_first_version_is_read() -> None:
    name = CA.certificate.subject.public_bytes()
    times = tlv(0x17, b"261123100000Z") + tlv(0x17, b"261123110000Z")
    entry = tlv(0x30, tlv(0x02, b"\x05") + tlv(0x17, b"261123100000Z"))
    body = tlv(0x30, ECDSA_WITH_SHA256 + name + times + tlv(0x30, entry))
    assert isinstance(CA.key, MemoryKey)
    found = read_crl(signed_anew(body, CA.key.private_key), CA.certificate, now=NOW)
    assert [revocation.serial for revocation in found] == [5]


@pytest.mark.parametrize(
    "good",
    [
        sign_crl(CA, (STRANGE, False)),
        sign_crl(CA, serials=()),
        sign_crl(CA, scope(only_contains_user_certs=True)),
        sign_crl(CA, scope(full_name=url("http://ca.example/1.crl"))),
        sign_crl(CA, this_update=NOW + MINUTE),
        sign_crl(CA, this_update=NOW - DAY, next_update=NOW),
    ],
)
def test_what_is_unusual_and_sound_is_read(good: bytes) -> None:
    assert isinstance(read_crl(good, CA.certificate, now=NOW, seen=1), Crl)


# What is refused


@frozen
class Bad:
    """A CRL that breaks one rule, and the code for it."""

    defect: str
    der: bytes
    codes: list[str]
    issuer: x509.Certificate = CA.certificate
    seen: int | None = None

    def __str__(self) -> str:
        return self.defect


def without_next_update() -> bytes:
    name = CA.certificate.subject.public_bytes()
    body = tlv(0x30, tlv(0x02, b"\1") + ECDSA_WITH_SHA256 + name + tlv(0x17, b"261123100000Z"))
    assert isinstance(CA.key, MemoryKey)
    return signed_anew(body, CA.key.private_key)


def weak(digest: str) -> bytes:
    issuer = WEAK.certificate
    times = tlv(0x17, b"261123100000Z") + tlv(0x17, b"261123110000Z")
    body = tlv(0x30, tlv(0x02, b"\1") + RSA_WITH["sha256"] + issuer.subject.public_bytes() + times)
    assert isinstance(WEAK.key, MemoryKey)
    return signed_anew(body, WEAK.key.private_key, digest)


WEAK = mesh(issuing_key=key("weak", KeyAlgorithm.RSA_2048)).issuing
_USAGE: Extensions = {
    x509.KeyUsage: (
        Profile("", DAY, frozenset({"key_cert_sign"})).key_usage,
        True,
    )
}
MUTE = forge_issuing(ROOT_CA, 55, replace=_USAGE)
#: Another key with the issuing CA's name.
POSER = forge_issuing(ROOT_CA, 56, subject=CA.certificate.subject)
HOLDING = frozenset({x509.ReasonFlags.key_compromise})
ENTRY_ISSUER = x509.CertificateIssuer([x509.DirectoryName(ROOT_CA.certificate.subject)])


def with_entry(*extensions: tuple[x509.ExtensionType, bool]) -> bytes:
    entry = x509.RevokedCertificateBuilder().serial_number(5).revocation_date(NOW)
    for value, critical in extensions:
        entry = entry.add_extension(value, critical=critical)
    assert isinstance(CA.key, MemoryKey)
    return (
        x509.CertificateRevocationListBuilder()
        .issuer_name(CA.certificate.subject)
        .last_update(NOW)
        .next_update(NOW + HOUR)
        .add_revoked_certificate(entry.build())
        .sign(CA.key.private_key, hashes.SHA256())
        .public_bytes(serialization.Encoding.DER)
    )


BAD = [
    Bad("signed by another key", sign_crl(POSER), ["crl-bad-signature"]),
    Bad("changed", GOOD.replace(b"\x02\x01\x05\x17", b"\x02\x01\x06\x17"), ["crl-bad-signature"]),
    Bad("another issuer's", sign_crl(ROOT_CA), ["crl-other-issuer"]),
    Bad("older than the last", sign_crl(CA, number=6), ["crl-rolled-back"], seen=7),
    Bad("no number after one", sign_crl(CA, number=None), ["crl-rolled-back"], seen=0),
    Bad("over", sign_crl(CA, this_update=NOW - DAY, next_update=NOW - SECOND), ["crl-stale"]),
    Bad("no next update", without_next_update(), ["crl-stale"]),
    Bad("from the future", sign_crl(CA, this_update=NOW + MINUTE + SECOND), ["crl-not-yet-valid"]),
    Bad("SHA-224", sign_crl(CA, digest=hashes.SHA224()), ["weak-signature"]),
    Bad("SHA-1", weak("sha1"), ["weak-signature"], WEAK.certificate),
    Bad("MD5", weak("md5"), ["weak-signature"], WEAK.certificate),
    Bad("issuer without cRLSign", sign_crl(MUTE), ["not-a-crl-issuer"], MUTE.certificate),
    Bad("unknown critical extension", sign_crl(CA, (STRANGE, True)), ["unknown-extension"]),
    Bad("delta", sign_crl(CA, (x509.DeltaCRLIndicator(1), True)), ["crl-delta"]),
    Bad("CAs only", sign_crl(CA, scope(only_contains_ca_certs=True)), ["crl-partial"]),
    Bad(
        "attribute certificates only",
        sign_crl(CA, scope(only_contains_attribute_certs=True)),
        ["crl-partial"],
    ),
    Bad("some reasons only", sign_crl(CA, scope(only_some_reasons=HOLDING)), ["crl-partial"]),
    Bad("indirect", sign_crl(CA, scope(indirect_crl=True)), ["crl-partial"]),
    Bad("entry of another issuer", with_entry((ENTRY_ISSUER, True)), ["unknown-extension"]),
    Bad("unknown critical entry", with_entry((STRANGE, True)), ["unknown-extension"]),
    Bad(
        "several at once",
        sign_crl(POSER, (STRANGE, True), this_update=NOW - DAY, next_update=NOW - HOUR),
        ["crl-bad-signature", "crl-stale", "crl-rolled-back", "unknown-extension"],
        seen=2,
    ),
]


@pytest.mark.parametrize("bad", BAD, ids=str)
def test_what_breaks_a_rule_is_refused(bad: Bad) -> None:
    assert codes(bad.der, bad.issuer, seen=bad.seen) == bad.codes


def test_the_same_number_again_is_no_roll_back() -> None:
    assert read_crl(sign_crl(CA, number=7), CA.certificate, now=NOW, seen=7).number == 7


def test_an_algorithm_inside_that_is_not_the_one_outside_is_malformed() -> None:
    body = GOOD.replace(ECDSA_WITH_SHA256, bytes.fromhex("300a06082a8648ce3d040303"), 1)
    with pytest.raises(Malformed):
        read_crl(body, CA.certificate, now=NOW)


def entry_twice(extension: str) -> bytes:
    """A v2 CRL whose extensions are those twice."""
    body = x509.load_der_x509_crl(GOOD).tbs_certlist_bytes
    found = bytes.fromhex(extension)
    assert body.count(found) == 1
    doubled = body.replace(found, found * 2)
    assert isinstance(CA.key, MemoryKey)
    return signed_anew(_relengthened(doubled, len(found)), CA.key.private_key)


def _relengthened(body: bytes, more: int) -> bytes:
    """The lengths of the three SEQUENCEs around extensions at the end, set anew."""
    at = body.rindex(b"\xa0")
    head, extensions = body[3 if body[1] == 0x81 else 2 : at], body[at + 4 :]
    return tlv(0x30, head + tlv(0xA0, tlv(0x30, extensions)))


def test_an_extension_twice_is_malformed() -> None:
    with pytest.raises(Malformed):
        read_crl(entry_twice("300a0603551d140403020101"), CA.certificate, now=NOW)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "nothing in it"),
        (b"hello", "neither PEM nor DER"),
        (GOOD[:-1], "damaged or cut short"),
        (GOOD + b"\0", "damaged or cut short"),
        (pem(mesh().leaf().public_bytes(serialization.Encoding.DER)), "no CRL"),
        (mesh().leaf().public_bytes(serialization.Encoding.DER), "no CRL but a certificate"),
    ],
)
def test_what_is_no_crl_is_malformed(data: bytes, said: str) -> None:
    with pytest.raises(Malformed, match=said):
        read_crl(data, CA.certificate, now=NOW)


def test_what_is_too_large_is_not_even_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crl_module, "MAX_CRL_SIZE", len(GOOD))
    assert read_crl(GOOD, CA.certificate, now=NOW)
    monkeypatch.setattr(crl_module, "MAX_CRL_SIZE", len(GOOD) - 1)
    with pytest.raises(Malformed, match="at most"):
        read_crl(GOOD, CA.certificate, now=NOW)


@given(st.one_of(st.binary(), mutated(GOOD), st.binary().map(lambda b: pem(b, "X509 CRL"))))
def test_bytes_break_only_as_errors_of_ours(data: bytes) -> None:
    try:
        found = list(read_crl(data, CA.certificate, now=NOW, seen=1))
    except PkiError:
        return
    assert data == GOOD
    assert len(found) == 2


# Whose it is, and what it covers


def test_the_signer_is_found_among_others_of_its_name() -> None:
    candidates = [ROOT_CA.certificate, POSER.certificate, CA.certificate]
    assert find_issuer(GOOD, candidates) == CA.certificate
    assert find_issuer(GOOD, candidates[:2]) == POSER.certificate
    assert find_issuer(GOOD, candidates[:1]) is None
    with pytest.raises(Malformed):
        find_issuer(GOOD[:-1], candidates)


def at(*urls: str) -> x509.Certificate:
    points = [x509.DistributionPoint(url(text), None, None, None) for text in urls]
    return forge(
        CA, replace={x509.CRLDistributionPoints: (x509.CRLDistributionPoints(points), False)}
    )


HERE = "http://ca.example/1.crl"
SUB_CA = forge(ROOT_CA, ISSUING)


@pytest.mark.parametrize(
    ("der", "cert", "covered"),
    [
        (GOOD, at(), True),
        (GOOD, SUB_CA, True),
        (sign_crl(CA, scope(only_contains_user_certs=True)), at(), True),
        (sign_crl(CA, scope(only_contains_user_certs=True)), SUB_CA, False),
        (sign_crl(CA, scope(full_name=url(HERE))), at(HERE), True),
        (sign_crl(CA, scope(full_name=url(HERE))), at("http://ca.example/2.crl"), False),
        (sign_crl(CA, scope(full_name=url(HERE))), mesh().leaf(), False),
        (
            sign_crl(
                CA,
                scope(
                    relative_name=x509.RelativeDistinguishedName(
                        [x509.NameAttribute(x509.NameOID.COMMON_NAME, "1")]
                    )
                ),
            ),
            at(HERE),
            False,
        ),
    ],
)
def test_a_crl_covers_what_it_is_about(der: bytes, cert: x509.Certificate, covered: bool) -> None:
    assert read_crl(der, CA.certificate, now=NOW).covers(cert) is covered


def test_an_issuer_without_key_usage_may_sign() -> None:
    """RFC 5280 section 6.3.3 (f): the bit is looked at where the extension is there."""
    issuer = forge_issuing(ROOT_CA, 57, replace={x509.KeyUsage: None})
    assert read_crl(sign_crl(issuer), issuer.certificate, now=NOW)


# Beside cryptography, and how long it takes


@pytest.mark.slow
def test_fifty_thousand_entries_are_read_as_cryptography_reads_them() -> None:
    reasons = list(Reason)
    told = [
        Revocation(CA.key_id, new_serial(), NOW - n * SECOND, reasons[n % 10], NOW + HOUR)
        for n in range(50_000)
    ]
    made = asyncio.run(issue_crl(CA, told, 1, this_update=NOW, next_update=NOW + HOUR))
    start = time.process_time()
    found = read_crl(made, CA.certificate, now=NOW)
    assert time.process_time() - start < 2  # an eighth of a second on an idle machine
    assert len(found) == 50_000
    oracle = x509.load_der_x509_crl(made)
    for ours, theirs in list(zip(found, oracle, strict=True))[::50]:
        assert ours.serial == theirs.serial_number
        assert ours.revoked_at == theirs.revocation_date_utc
        flags = [e.value.reason for e in theirs.extensions]  # type: ignore[attr-defined]
        assert ours.reason.flag == (flags[0] if flags else x509.ReasonFlags.unspecified)
