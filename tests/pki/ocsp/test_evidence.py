"""Evidence: CRLs and OCSP answers out of files, held against a chain."""

import asyncio

import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from pki.crl.crl import BadCrl
from pki.errors import Malformed, PkiError
from pki.ocsp.evidence import Evidence, answers_from, crls_from, lists_from
from pki.ocsp.request import Issuer
from pki.ocsp.response import BadAnswer
from pki.ocsp.sign import Responder, SingleResponse, Standing
from pki.svid.revocation_set import Reason, Revocation, RevocationSet
from tests.authorities import HOUR, NOW, mesh, pem, sign_crl
from tests.pki.strategies import mutated

ROOT_CA, CA, LEAF = mesh().root, mesh().issuing, mesh().leaf()
PATH = (LEAF, CA.certificate, ROOT_CA.certificate)
REVOKED = Revocation(
    CA.key_id, LEAF.serial_number, NOW, Reason.SUPERSEDED, LEAF.not_valid_after_utc
)
OF_ROOT, OF_CA = sign_crl(ROOT_CA, serials=()), sign_crl(CA)


def answer(standing: Standing | Revocation = Standing.GOOD, cert: x509.Certificate = LEAF) -> bytes:
    issuer = CA if cert is LEAF else ROOT_CA
    told = SingleResponse(
        Issuer.of(issuer.certificate).cert_id(cert.serial_number), standing, NOW, NOW + HOUR
    )
    return asyncio.run(Responder(issuer.certificate, issuer.key).respond([told], produced_at=NOW))


def evidence(crls: tuple[bytes, ...] = (), answers: tuple[bytes, ...] = ()) -> Evidence:
    listed = tuple(crl for data in crls for crl in crls_from(data, PATH, NOW))
    said = {cert: told for data in answers for cert, told in answers_from(data, PATH, NOW).items()}
    return Evidence(listed, said)


def unknown(found: Evidence) -> list[str]:
    problems = found.problems(PATH)
    assert {problem.code for problem in problems} <= {"unknown-revocation"}
    return [problem.subject for problem in problems]


def test_what_crls_and_answers_say_is_revoked() -> None:
    other = sign_crl(CA, serials=[LEAF.serial_number])
    by_crl = evidence(crls=(other, OF_ROOT)).revocations(NOW)
    by_answer = evidence(answers=(answer(REVOKED),)).revocations(NOW)
    assert by_crl.find(CA.key_id, LEAF.serial_number)
    assert by_answer.find(CA.key_id, LEAF.serial_number) == REVOKED
    assert len(evidence(answers=(answer(),)).revocations(NOW)) == 0
    assert len(Evidence().revocations(NOW)) == 0


@pytest.mark.parametrize(
    ("found", "subjects"),
    [
        (Evidence(), []),
        (evidence(crls=(OF_ROOT, OF_CA)), []),
        (evidence(crls=(pem(OF_ROOT, "X509 CRL") + pem(OF_CA, "X509 CRL"),)), []),
        (evidence(crls=(OF_CA,)), ["CN=mtls-mesh-issuing-ca,OU=generation 1,O=mesh.local"]),
        (evidence(crls=(OF_ROOT,)), ["CN=backend"]),
        (evidence(crls=(OF_ROOT,), answers=(answer(),)), []),
        (evidence(answers=(answer(),)), []),
        (evidence(answers=(answer(cert=CA.certificate),)), ["CN=backend"]),
        (evidence(answers=(pem(answer(), "OCSP RESPONSE"),)), []),
    ],
)
def test_of_whom_nothing_is_said_is_unknown(found: Evidence, subjects: list[str]) -> None:
    assert unknown(found) == subjects


def test_a_crl_that_is_not_about_a_certificate_says_nothing_of_it() -> None:
    scope = x509.IssuingDistributionPoint(None, None, True, False, None, False, False)
    users_only = sign_crl(ROOT_CA, (scope, True), serials=())
    assert unknown(evidence(crls=(users_only, OF_CA))) == [
        "CN=mtls-mesh-issuing-ca,OU=generation 1,O=mesh.local"
    ]


def test_a_path_of_one_needs_nothing() -> None:
    assert evidence(crls=(OF_CA,)).problems(PATH[:1]) == []


@pytest.mark.parametrize(
    ("data", "error", "said"),
    [
        (OF_ROOT, None, ""),
        (sign_crl(CA, next_update=NOW, this_update=NOW - HOUR), None, ""),
        (
            sign_crl(CA, next_update=NOW - HOUR / 2, this_update=NOW - HOUR),
            BadCrl,
            "crl-stale: the next one was due",
        ),
        (b"hello", Malformed, "neither PEM nor DER"),
        (OF_CA[:-1], Malformed, "damaged or cut short"),
    ],
)
def test_a_crl_is_relied_on_or_refused(
    data: bytes, error: type[PkiError] | None, said: str
) -> None:
    if error is None:
        assert crls_from(data, PATH, NOW)
    else:
        with pytest.raises(error, match=said):
            crls_from(data, PATH, NOW)


def test_a_crl_of_a_ca_that_was_not_given_is_refused() -> None:
    with pytest.raises(Malformed, match=r"of CN=mtls-mesh-root-ca.*no certificate was given"):
        crls_from(OF_ROOT, PATH[:2], NOW)


@pytest.mark.parametrize(
    ("data", "error", "said"),
    [
        (answer()[:-1], Malformed, "damaged or cut short"),
        (b"hello", Malformed, "neither PEM nor DER"),
        (pem(OF_CA, "X509 CRL"), Malformed, "no OCSP response"),
        (b"\x30\x03\x0a\x01\x03", Malformed, "about no certificate of this chain"),
        (answer(Standing.UNKNOWN), BadAnswer, "ocsp-unknown"),
    ],
)
def test_an_answer_is_relied_on_or_refused(data: bytes, error: type[PkiError], said: str) -> None:
    with pytest.raises(error, match=said):
        answers_from(data, PATH, NOW)


def test_an_answer_about_others_is_refused() -> None:
    with pytest.raises(Malformed, match="about no certificate of this chain"):
        answers_from(answer(cert=CA.certificate), PATH[:2], NOW)


@given(st.one_of(st.binary(), mutated(answer()), mutated(OF_CA)))
def test_bytes_break_only_as_errors_of_ours(data: bytes) -> None:
    for read in (crls_from, answers_from):
        try:
            read(data, PATH, NOW)
        except PkiError as error:
            assert str(error).isprintable()


def test_who_reads_a_place_again_hears_only_what_is_new() -> None:
    both = pem(sign_crl(CA, serials=(5, 7), number=3), "X509 CRL") + pem(OF_ROOT, "X509 CRL")
    lists, news = lists_from(both, PATH, NOW, seen={}, known=RevocationSet())
    assert [(found.issuer, found.number, found.size) for found in lists] == [
        (CA.key_id, 3, 2),
        (ROOT_CA.key_id, 1, 0),
    ]
    assert sorted(revocation.serial for revocation in news) == [5, 7]
    known = RevocationSet().merged(news, NOW)
    grown = sign_crl(CA, serials=(5, 6, 7), number=4)
    _, news = lists_from(grown, PATH, NOW, seen={CA.key_id: 3}, known=known)
    assert [revocation.serial for revocation in news] == [6]


def test_a_number_that_was_passed_refuses_the_list_of_that_issuer_only() -> None:
    older = sign_crl(CA, number=2)
    with pytest.raises(BadCrl) as caught:
        lists_from(older, PATH, NOW, seen={CA.key_id: 3}, known=RevocationSet())
    assert [problem.code for problem in caught.value.problems] == ["crl-rolled-back"]
    lists_from(older, PATH, NOW, seen={ROOT_CA.key_id: 3}, known=RevocationSet())


def test_the_list_of_nobody_who_is_known_is_refused_with_his_name() -> None:
    with pytest.raises(BadCrl, match="crl-other-issuer: it is the CRL of CN=mtls-mesh-root-ca"):
        lists_from(OF_ROOT, PATH[1:2], NOW, seen={}, known=RevocationSet())
