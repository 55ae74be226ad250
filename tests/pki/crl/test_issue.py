"""CRLs that we make: the same bytes as cryptography's builder makes, and sooner."""

import asyncio
import time
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from hypothesis import given
from hypothesis import strategies as st

from pki.crl.crl import read_crl
from pki.crl.entries import encode_entries
from pki.crl.issue import issue_crl, sign_crl
from pki.issuing.authority import Authority
from pki.issuing.lint import LintFailed
from pki.issuing.profile import Profile
from pki.keys import KeyAlgorithm, MemoryKey
from pki.keys.signature import SigningFailed
from pki.serial import new_serial
from pki.svid.revocation_set import GIVEN_REASONS, Reason, Revocation
from tests.authorities import DAY, HOUR, NOW, forge_issuing, key, mesh, tlv
from twisted_mesh.testing import Extensions

CA = mesh().issuing
SECOND = timedelta(seconds=1)

revocations = st.builds(
    Revocation,
    issuer=st.just(CA.key_id),
    serial=st.integers(1, 2**159 - 1),
    revoked_at=st.datetimes(datetime(1950, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001
    reason=st.sampled_from(GIVEN_REASONS),
    expires_at=st.just(NOW + HOUR),
)


def revoked(serial: int, issuer: Authority = CA) -> Revocation:
    return Revocation(issuer.key_id, serial, NOW, Reason.KEY_COMPROMISE, NOW + HOUR)


def issued(
    told: Iterable[Revocation] = (), number: int = 1, issuer: Authority = CA, **options: Any
) -> x509.CertificateRevocationList:
    times = {"this_update": NOW, "next_update": NOW + HOUR, **options}
    return x509.load_der_x509_crl(asyncio.run(issue_crl(issuer, told, number, **times)))


def oracle(told: Iterable[Revocation], number: int) -> x509.CertificateRevocationList:
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(CA.certificate.subject)
        .last_update(NOW)
        .next_update(NOW + HOUR)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(CA.key.public_key), critical=False
        )
        .add_extension(x509.CRLNumber(number), critical=False)
    )
    for one in sorted(told, key=lambda r: r.serial):
        entry = x509.RevokedCertificateBuilder().serial_number(one.serial)
        entry = entry.revocation_date(one.revoked_at)
        if one.reason is not Reason.UNSPECIFIED:
            entry = entry.add_extension(x509.CRLReason(one.reason.flag), critical=False)
        builder = builder.add_revoked_certificate(entry.build())
    assert isinstance(CA.key, MemoryKey)
    return builder.sign(CA.key.private_key, CA.key.algorithm.hash)


@given(st.lists(revocations, max_size=8, unique_by=lambda r: r.serial), st.integers(0, 2**159 - 1))
def test_cryptography_lays_out_the_same_bytes(told: list[Revocation], number: int) -> None:
    ours, theirs = issued(told, number), oracle(told, number)
    assert ours.tbs_certlist_bytes == theirs.tbs_certlist_bytes
    assert ours.is_signature_valid(CA.certificate.public_key())  # type: ignore[arg-type]


@pytest.mark.parametrize("algorithm", list(KeyAlgorithm))
def test_keys_of_every_kind_sign(algorithm: KeyAlgorithm) -> None:
    issuer = forge_issuing(mesh().root, 51)
    made = mesh(issuing_key=key("CRLs", algorithm)).issuing
    crl = issued([revoked(5, made)], issuer=made)
    assert crl.is_signature_valid(made.certificate.public_key())  # type: ignore[arg-type]
    assert not crl.is_signature_valid(issuer.certificate.public_key())  # type: ignore[arg-type]
    assert read_crl(crl.public_bytes(serialization.Encoding.DER), made.certificate, now=NOW)


def test_a_root_signs_too() -> None:
    root = mesh().root
    crl = issued([revoked(CA.certificate.serial_number, root), revoked(6)], issuer=root)
    (entry,) = crl
    assert entry.serial_number == CA.certificate.serial_number


def test_an_empty_list_is_left_out() -> None:
    crl = issued()
    assert len(crl) == 0
    assert crl.tbs_certlist_bytes == oracle([], 1).tbs_certlist_bytes


def test_another_issuers_certificates_are_left_out() -> None:
    crl = issued([revoked(5), revoked(6, mesh().root)])
    assert [entry.serial_number for entry in crl] == [5]


def test_the_issuers_name_is_the_subject_byte_for_byte() -> None:
    # The same name in another of the string types that X.520 allows.
    printable = x509.NameAttribute(
        x509.NameOID.COMMON_NAME, "x", _type=x509.name._ASN1Type.T61String
    )
    issuer = forge_issuing(mesh().root, 52, subject=x509.Name([printable]))
    crl = asyncio.run(issue_crl(issuer, [], 1, this_update=NOW, next_update=NOW + HOUR))
    name = tlv(0x30, tlv(0x31, tlv(0x30, bytes.fromhex("0603550403") + tlv(0x14, b"x"))))
    assert crl.count(name) == 1


def test_a_key_identifier_of_another_kind_is_repeated() -> None:
    odd: Extensions = {x509.SubjectKeyIdentifier: (x509.SubjectKeyIdentifier(b"odd"), False)}
    crl = issued(issuer=forge_issuing(mesh().root, 53, replace=odd))
    found = crl.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    assert found.key_identifier == b"odd"
    without: Extensions = {x509.SubjectKeyIdentifier: None}
    made = forge_issuing(mesh().root, 53, replace=without)
    found = (
        issued(issuer=made).extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    )
    assert found == x509.AuthorityKeyIdentifier.from_issuer_public_key(made.key.public_key)


def usage(*usages: str) -> Extensions:
    return {x509.KeyUsage: (Profile("", DAY, frozenset(usages)).key_usage, True)}


@pytest.mark.parametrize(
    ("replace", "options", "said"),
    [
        (usage("key_cert_sign"), {}, "may not sign CRLs"),
        ({x509.KeyUsage: None}, {}, "may not sign CRLs"),
        ({}, {"number": -1}, "positive"),
        ({}, {"number": 2**159}, "at most 20 bytes"),
        ({}, {"next_update": NOW}, "comes after this one"),
    ],
)
def test_what_breaks_a_rule_is_not_signed(
    replace: Extensions, options: dict[str, Any], said: str
) -> None:
    issuer = forge_issuing(mesh().root, 54, replace=replace)
    with pytest.raises(LintFailed, match=said) as caught:
        issued(issuer=issuer, **options)
    assert [problem.code for problem in caught.value.problems] == ["lint"]


def test_a_signers_odd_answer_makes_no_crl() -> None:
    class Odd(MemoryKey):
        async def sign(self, data: bytes) -> bytes:
            return await key(9).sign(data)

    assert isinstance(CA.key, MemoryKey)
    odd = Authority(CA.certificate, Odd(CA.key.private_key, CA.key.algorithm))
    with pytest.raises(SigningFailed, match="nothing was issued"):
        issued(issuer=odd)


@pytest.mark.slow
def test_a_hundred_thousand_entries_take_no_time() -> None:
    told = [revoked(new_serial()) for _ in range(20_000)]
    start = time.process_time()
    issued(told)
    few = time.process_time() - start
    assert few < 2
    start = time.process_time()
    crl = issued([*told, *(revoked(new_serial()) for _ in range(80_000))])
    assert time.process_time() - start < 12 * few + 1  # not quadratic
    assert len(crl) == 100_000


@given(st.lists(st.lists(st.integers(1, 2**159 - 1), max_size=3), max_size=4))
def test_a_list_that_grew_piece_by_piece_says_the_same(serials: list[list[int]]) -> None:
    known: set[int] = set()
    pieces = b""
    for piece in serials:
        fresh = set(piece) - known
        pieces += encode_entries(revoked(serial) for serial in fresh)
        known |= fresh
    times = {"this_update": NOW, "next_update": NOW + HOUR}
    grown = asyncio.run(sign_crl(CA, pieces, 7, **times))
    read = read_crl(grown, CA.certificate, now=NOW)
    assert {found.serial for found in read} == known
    grown_tbs = x509.load_der_x509_crl(grown).tbs_certlist_bytes
    assert len(grown_tbs) == len(issued(map(revoked, known), 7).tbs_certlist_bytes)
