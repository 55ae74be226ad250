"""What a strict reader refuses is read where it is harmless, and else refused by its rule, with what to do."""

import re
import subprocess

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given

from pki.der import pem
from pki.errors import HOSTILE_INPUT, PkiError
from pki.inspect.describe import describe
from pki.issuing.csr import IssuanceRequest, build_csr, load_csr
from pki.keys import spki_der
from pki.pem import REQUEST
from tests.authorities import BACKEND, MESH, NOW, key, mesh, signed_anew
from tests.pki.inspect.damaging import damaged
from tests.pki.issuing.odd_csrs import ECDSA, GRANTED, LOCAL, REFUSED, Odd, requested, with_names
from tests.tools import require_tool

ALL = {**dict.fromkeys(GRANTED), **dict.fromkeys(REFUSED)}
#: No UTF-8, and openssl reads it nowhere.
ONLY_HERE = "a subject of UTF-8 that is Latin-1"
GOOD = [
    load_csr(build_csr(key(), BACKEND, ["localhost"])).info,
    load_csr(pem(REQUEST, Odd(attributes=requested(LOCAL)).der())).info,
]


def made(kind: str) -> bytes:
    return (GRANTED[kind] if kind in GRANTED else REFUSED[kind][0]()).der()


def parse(der: bytes) -> IssuanceRequest:
    return IssuanceRequest.parse(pem(REQUEST, der), str(BACKEND), trust_domain=MESH)


@pytest.mark.parametrize("kind", GRANTED)
def test_what_is_harmless_is_read(kind: str) -> None:
    request = parse(made(kind))
    assert spki_der(request.public_key) == spki_der(key().public_key)
    assert request.subject.isprintable()
    assert set(request.dns_names) <= {"localhost"}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_refused_is_so_by_its_rule_and_told_what_to_do(kind: str) -> None:
    _, code, words = REFUSED[kind]
    with pytest.raises(PkiError) as refused:
        parse(made(kind))
    assert code in [problem.code for problem in refused.value.problems]
    assert re.search(words, str(refused.value)), str(refused.value)
    assert "damaged" not in str(refused.value)


@pytest.mark.parametrize("kind", GRANTED)
def test_what_is_odd_is_no_proof_of_a_key_that_did_not_sign_it(kind: str) -> None:
    if GRANTED[kind].outer is not bytes:
        return
    der = bytearray(made(kind))
    der[-1] ^= 1
    with pytest.raises(PkiError) as refused:
        parse(bytes(der))
    assert [problem.code for problem in refused.value.problems] == ["no-possession"]


@pytest.mark.parametrize("kind", ALL)
def test_what_is_odd_is_shown_and_never_called_damaged(kind: str) -> None:
    (shown,) = describe(pem(REQUEST, made(kind)), NOW)
    assert shown.what == "CSR"
    assert shown.is_shown
    assert shown.signed_by_itself is not False
    if kind in GRANTED:
        assert shown.signed_by_itself, shown.not_checked
    if kind != "another extension that is none":
        assert "damaged" not in " ".join(shown.remarks)


@pytest.mark.interop(
    "tests/pki/issuing/test_odd_csrs.py::test_a_few_that_are_odd_here_openssl_verifies"
)
@pytest.mark.parametrize("kind", ALL)
def test_what_is_odd_here_openssl_reads_and_verifies(kind: str) -> None:
    assert (b"verify OK" in openssl_says(made(kind))) is (kind != ONLY_HERE)


@pytest.mark.parametrize("kind", ["no attributes", "Latin-1"])
def test_a_few_that_are_odd_here_openssl_verifies(kind: str) -> None:
    assert b"verify OK" in openssl_says(made(kind))


def openssl_says(der: bytes) -> bytes:
    command = (require_tool("openssl"), "req", "-noout", "-verify")
    return subprocess.run(command, input=pem(REQUEST, der), capture_output=True).stderr


@given(damaged(GOOD))
def test_however_it_is_changed_it_is_read_or_refused_in_a_sentence(info: bytes) -> None:
    """The signature is made anew, so that nothing hides behind it."""
    der = signed_anew(info, key().private_key)
    try:
        request = parse(der)
    except PkiError as error:
        told = [f"{problem.detail} {problem.remedy}" for problem in error.problems]
        assert all(text.isprintable() and "damaged" not in text for text in told)
        assert all(problem.detail for problem in error.problems)
    else:
        assert spki_der(request.public_key) == spki_der(key().public_key)
        assert request.subject.isprintable()
        assert set(strict_names(der, request.dns_names)) == set(request.dns_names)


def strict_names(der: bytes, otherwise: tuple[str, ...]) -> tuple[str, ...]:
    """The DNS names that a strict reader finds, where it reads them at all."""
    try:
        asked = x509.load_der_x509_csr(der).extensions
        names = asked.get_extension_for_class(x509.SubjectAlternativeName).value
        return tuple(names.get_values_for_type(x509.DNSName))
    except x509.ExtensionNotFound:
        return otherwise
    except HOSTILE_INPUT:
        return otherwise


@given(damaged([Odd(attributes=requested(LOCAL)).der()]))
def test_however_its_outline_is_changed_it_is_refused_in_a_sentence(der: bytes) -> None:
    try:
        request = parse(der)
    except PkiError as error:
        assert str(error).isprintable()
        assert "damaged" not in str(error)
    else:
        assert spki_der(request.public_key) == spki_der(key().public_key)


def test_a_cut_is_called_one() -> None:
    whole = made("no attributes")
    for size in range(1, len(whole)):
        with pytest.raises(PkiError, match="cut short"):
            parse(whole[:size])


def test_something_else_in_its_block_is_named() -> None:
    for der, words in (
        (mesh().leaf().public_bytes(Encoding.DER), "the block holds a certificate"),
        (spki_der(key().public_key), "the block holds a public key"),
        (b"", "nothing between its BEGIN and END lines"),
        (b"\x02\x01\0", "no SEQUENCE"),
    ):
        with pytest.raises(PkiError, match=words):
            parse(der)


def test_an_address_has_another_tag_than_its_text() -> None:
    told = []
    for content in (b"\x7f\0\0\x01", b"127.0.0.1", b"::1", b"fe80::1%eth0"):
        try:
            told.append(str(parse(with_names((0x87, content)).der()).ip_addresses[0]))
        except PkiError as error:
            told.append(error.problems[0].detail)
    assert told[0] == "127.0.0.1"
    assert "the IP address 127.0.0.1 as text" in told[1]
    assert "the IP address ::1 as text" in told[2]
    assert "an IP address of 12 bytes" in told[3]


def test_many_bad_names_are_told_of_in_part() -> None:
    with pytest.raises(PkiError) as refused:
        parse(with_names(*[(0x82, b"A.")] * 64).der())
    assert len(refused.value.problems) == 16


def test_the_parameters_of_an_algorithm_are_no_part_of_the_proof() -> None:
    """They are outside of what is signed, and none of them is heeded."""
    for parameters in (b"\x05\0", b"\x04\x01x", b"\x30\0"):
        odd = Odd(algorithm=bytes((0x30, 10 + len(parameters))) + ECDSA + b"\x02" + parameters)
        assert parse(odd.der()).spiffe_id == BACKEND
