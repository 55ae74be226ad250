"""SVIDs: the rules for a leaf, and a leaf with its key."""

from collections.abc import Sequence

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given
from hypothesis import strategies as st

from pki.errors import Malformed, PkiError
from pki.issuing.profile import ISSUING, WORKLOAD
from pki.spiffe import SpiffeId
from pki.svid.x509svid import (
    Purpose,
    X509Svid,
    certificates_pem,
    issuer_of,
    leaf_problems,
    load_certificates,
    spiffe_id_of,
    subject_of,
)
from pki.validity import Validity
from tests.authorities import BACKEND, HOUR, NOW, der, forge, key, mesh, pem, signed_anew
from tests.pki.strategies import mutated, spiffe_ids
from twisted_mesh.testing import Extensions

ISSUER = mesh().issuing
LEAF = mesh().leaf()
SERVER, CLIENT = ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH
EMAIL = ExtendedKeyUsageOID.EMAIL_PROTECTION


def codes(cert: x509.Certificate, purpose: Purpose = Purpose.ANY) -> list[str]:
    problems = leaf_problems(cert, purpose)
    assert all(p.rule and p.remedy and p.detail.isprintable() for p in problems)
    return [problem.code for problem in problems]


def extended(*oids: x509.ObjectIdentifier) -> Extensions:
    return {x509.ExtendedKeyUsage: (x509.ExtendedKeyUsage(oids), False)}


@pytest.mark.parametrize("purpose", Purpose)
def test_what_the_ca_issues_is_an_svid(purpose: Purpose) -> None:
    assert codes(LEAF, purpose) == []
    assert spiffe_id_of(LEAF) == BACKEND


@given(spiffe_ids.filter(lambda i: bool(i.path)))
def test_the_id_that_is_put_into_a_certificate_is_read_from_it(spiffe_id: SpiffeId) -> None:
    assert spiffe_id_of(forge(ISSUER, uris=[str(spiffe_id)])) == spiffe_id


@pytest.mark.parametrize(
    "uris",
    [
        [],
        [str(BACKEND), str(BACKEND)],
        [str(BACKEND), "https://mesh.local/"],
        ["https://mesh.local/service/backend"],
        ["spiffe://mesh.local"],
        ["spiffe://mesh.local/"],
        ["spiffe://mesh.local:8443/service/backend"],
        ["spiffe://user@mesh.local/service/backend"],
        ["spiffe://mesh.local/service/../admin"],
        ["spiffe://mesh.local/%2e%2e/admin"],
        ["spiffe://mesh.local/service/backend?admin"],
        ["spiffe://mesh.local/service/backend#admin"],
        ["spiffe://mesh.local/service/backend\n"],
        ["SPIFFE://mesh.local/service/backend"],
        [f"spiffe://mesh.local/{n}" for n in range(50)],
    ],
)
def test_a_leaf_names_exactly_one_spiffe_id_with_a_path(uris: Sequence[str]) -> None:
    cert = forge(ISSUER, uris=uris)
    assert spiffe_id_of(cert) is None
    found = codes(cert)
    assert set(found) == {"not-an-svid"}
    assert len(found) <= 5


def test_a_leaf_without_alternative_names_is_no_svid() -> None:
    cert = forge(ISSUER, replace={x509.SubjectAlternativeName: None})
    assert spiffe_id_of(cert) is None
    assert codes(cert) == ["not-an-svid"]


@pytest.mark.parametrize(
    ("eku", "server", "client", "both"),
    [
        ([SERVER, CLIENT], [], [], []),
        ([SERVER], [], ["wrong-usage"], ["wrong-usage"]),
        ([CLIENT], ["wrong-usage"], [], ["wrong-usage"]),
        ([EMAIL], ["wrong-usage"], ["wrong-usage"], ["wrong-usage"]),
        ([SERVER, CLIENT, EMAIL], [], [], []),
    ],
)
def test_a_leaf_serves_only_the_purposes_that_it_names(
    eku: list[x509.ObjectIdentifier], server: list[str], client: list[str], both: list[str]
) -> None:
    cert = forge(ISSUER, replace=extended(*eku))
    assert codes(cert, Purpose.SERVER) == server
    assert codes(cert, Purpose.CLIENT) == client
    assert codes(cert, Purpose.ANY) == both


@pytest.mark.parametrize("purpose", Purpose)
def test_a_leaf_without_purposes_serves_none(purpose: Purpose) -> None:
    cert = forge(ISSUER, replace={x509.ExtendedKeyUsage: None})
    assert codes(cert, purpose) == ["wrong-usage"]


def test_a_ca_is_no_leaf() -> None:
    assert codes(forge(mesh().root, ISSUING, uris=[str(BACKEND)])) == [
        "not-an-svid",
        "wrong-usage",
        "not-an-svid",
        "wrong-usage",
    ]


def test_a_leaf_without_key_usage_may_not_sign() -> None:
    assert codes(forge(ISSUER, replace={x509.KeyUsage: None})) == ["wrong-usage"]


def test_a_leaf_without_basic_constraints_is_no_ca() -> None:
    assert codes(forge(ISSUER, replace={x509.BasicConstraints: None})) == []


def test_an_svid_is_a_leaf_with_its_intermediates_and_its_key() -> None:
    svid = X509Svid.assemble([LEAF, ISSUER.certificate], key(9))
    assert svid.spiffe_id == BACKEND
    assert svid.chain == (LEAF, ISSUER.certificate)
    assert svid.intermediates == (ISSUER.certificate,)
    assert svid.validity == Validity(LEAF.not_valid_before_utc, NOW + HOUR)
    assert load_certificates(svid.chain_pem()) == svid.chain
    assert "private" not in repr(svid).lower()


def test_an_svid_of_parts_that_do_not_belong_together_is_not_assembled() -> None:
    with pytest.raises(Malformed, match="there is none"):
        X509Svid.assemble([], key(9))
    with pytest.raises(Malformed, match="issued for another key"):
        X509Svid.assemble([LEAF], key(1))
    with pytest.raises(Malformed, match="names no SPIFFE ID"):
        X509Svid.assemble([ISSUER.certificate], key(9))


@pytest.mark.parametrize(
    ("replace", "said"),
    [
        ({x509.BasicConstraints: (ISSUING.basic_constraints, True)}, "a CA certificate is no work"),
        ({x509.KeyUsage: (ISSUING.key_usage, True)}, "key usage does not allow digitalSignature"),
        ({x509.KeyUsage: None}, "key usage does not allow digitalSignature"),
        (extended(CLIENT), "does not allow serverAuth"),
    ],
)
def test_a_leaf_that_no_svid_may_have_is_not_assembled(replace: Extensions, said: str) -> None:
    with pytest.raises(Malformed, match=f"is no SVID: .*{said}"):
        X509Svid.assemble([forge(ISSUER, replace=replace), ISSUER.certificate], key(9))


@pytest.mark.parametrize(
    "above",
    [LEAF, forge(mesh().root, ISSUING, replace={x509.KeyUsage: (WORKLOAD.key_usage, True)})],
)
def test_what_stands_above_a_leaf_may_issue(above: x509.Certificate) -> None:
    with pytest.raises(Malformed, match="is no CA that may sign certificates"):
        X509Svid.assemble([LEAF, ISSUER.certificate, above], key(9))


def test_certificates_read_back_in_their_order() -> None:
    chain = (LEAF, ISSUER.certificate, mesh().root.certificate)
    assert load_certificates(certificates_pem(chain)) == chain
    assert load_certificates(b"prose\n" + certificates_pem(chain[::-1])) == chain[::-1]


@given(st.binary() | st.binary().map(pem) | mutated(certificates_pem([LEAF, LEAF])))
def test_arbitrary_bytes_are_certificates_or_malformed(data: bytes) -> None:
    try:
        assert load_certificates(data, "the chain")
    except PkiError as error:
        assert str(error).startswith(
            ("the chain holds no certificates", "the chain: the certificate")
        )
        assert str(error).isprintable()


def test_a_subject_is_one_printable_line() -> None:
    def subject(text: str) -> str:
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])
        return subject_of(forge(ISSUER, subject=name, serial=0xABC))

    assert subject("backend") == "CN=backend"
    assert subject("x\n2026 peer accepted") == r"CN=x\n2026 peer accepted"
    assert subject_of(forge(ISSUER, subject=x509.Name([]), serial=0xABC)) == "serial abc"
    assert issuer_of(LEAF) == ISSUER.name


SVID_LIKE = st.one_of(
    mutated(der(LEAF)),
    mutated(LEAF.tbs_certificate_bytes).map(lambda tbs: signed_anew(tbs, key(9).private_key)),
)


@given(SVID_LIKE, st.sampled_from(Purpose))
def test_a_damaged_certificate_is_judged_and_breaks_nothing(data: bytes, purpose: Purpose) -> None:
    try:
        (cert,) = load_certificates(pem(data))
    except PkiError:
        return
    for problem in leaf_problems(cert, purpose):
        assert problem.code in ("not-an-svid", "wrong-usage")
        assert str(problem).isprintable()
    assert subject_of(cert).isprintable()
    assert issuer_of(cert).isprintable()
    spiffe_id = spiffe_id_of(cert)
    assert spiffe_id is None or SpiffeId.parse(str(spiffe_id)) == spiffe_id
    try:
        assert X509Svid.assemble([cert], key(9)).spiffe_id == spiffe_id
    except PkiError as error:
        assert str(error).isprintable()


def test_a_subject_that_cannot_be_decoded_is_named_by_its_serial() -> None:
    body = der(forge(ISSUER, serial=0xABC)).replace(b"\x0c\x07backend", b"\x0c\x07back\xff\xfe\xfd")
    (cert,) = load_certificates(pem(body))
    assert subject_of(cert) == "serial abc"
