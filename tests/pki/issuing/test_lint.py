"""Lints: a bad vector for each rule, and nothing to say about what the CA drafts."""

import pytest
from attrs import evolve, frozen
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, ObjectIdentifier
from hypothesis import given

from pki.issuing.authority import Authority
from pki.issuing.lint import Draftee, lint
from pki.issuing.profile import ISSUING, OCSP_RESPONDER, ROOT, WORKLOAD, Profile
from pki.issuing.publication import Publication
from pki.keys import MemoryKey
from tests.authorities import (
    BACKEND,
    DAY,
    HOUR,
    NOW,
    der,
    forge,
    forge_issuing,
    forge_root,
    key,
    mesh,
    rsa_key,
    signed_anew,
    tlv,
)
from tests.pki.strategies import mutated
from twisted_mesh.testing import Extensions, names

ISSUER = mesh().issuing
ROOT_CA = mesh().root
SECOND = HOUR / 3600
SERVER, CLIENT = ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH
EMPTY = x509.Name([])
STRANGE = x509.UnrecognizedExtension(ObjectIdentifier("2.5.29.99"), b"\x05\0")


def details(
    cert: x509.Certificate, issuer: Authority | None = ISSUER, profile: Profile = WORKLOAD
) -> set[str]:
    signer = issuer.certificate if issuer else cert
    problems = lint(Draftee(cert, signer, profile, NOW))
    assert all(problem.rule for problem in problems)
    return {problem.detail for problem in problems}


def patched(cert: x509.Certificate, old: str, new: str) -> x509.Certificate:
    """With bytes exchanged for as many others; what lint reads does not need a valid signature."""
    body = der(cert)
    assert len(old) == len(new)
    assert body.count(bytes.fromhex(old)) == 1
    return x509.load_der_x509_certificate(body.replace(bytes.fromhex(old), bytes.fromhex(new)))


def without_version(cert: x509.Certificate) -> x509.Certificate:
    """The same as X.509 version 1, which is what no version means."""
    version = bytes.fromhex("a003020102")
    head, found, rest = cert.tbs_certificate_bytes.partition(version)
    assert (head[0], found) == (0x30, version)
    assert isinstance(ISSUER.key, MemoryKey)
    return x509.load_der_x509_certificate(signed_anew(tlv(0x30, rest), ISSUER.key.private_key))


def test_what_the_forge_makes_by_default_breaks_no_rule() -> None:
    assert details(forge(ISSUER)) == set()
    assert details(forge(ROOT_CA, ISSUING), ROOT_CA, ISSUING) == set()
    assert details(forge(None, ROOT), None, ROOT) == set()


@frozen
class Bad:
    """A leaf that breaks one rule, and what lint says of it."""

    defect: str
    cert: x509.Certificate
    said: set[str]

    def __str__(self) -> str:
        return self.defect


def replaced(replace: Extensions) -> x509.Certificate:
    return forge(ISSUER, replace=replace)


def usage(**changes: bool) -> Extensions:
    return {
        x509.KeyUsage: (
            evolve(WORKLOAD, usages=frozenset(k for k, v in changes.items() if v)).key_usage,
            True,
        )
    }


def extended(*oids: ObjectIdentifier) -> Extensions:
    return {x509.ExtendedKeyUsage: (x509.ExtendedKeyUsage(oids), False)}


LEAVES = [
    Bad(
        "version 1",
        without_version(forge(ISSUER)),
        {"a certificate with extensions has version 3"},
    ),
    Bad(
        "serial of 63 bits",
        forge(ISSUER, serial=2**63 - 1),
        {"a serial is positive, of 64 or more bits and under 20 bytes"},
    ),
    Bad(
        "negative serial",
        patched(forge(ISSUER, serial=0x41 << 120), "021041" + "00" * 15, "0210c1" + "00" * 15),
        {"a serial is positive, of 64 or more bits and under 20 bytes"},
    ),
    Bad(
        "SHA-224",
        forge(ISSUER, digest=hashes.SHA224()),
        {"signatures are made with SHA-256 or better"},
    ),
    Bad(
        "another issuer's name",
        forge(ISSUER, issuer_name=ROOT_CA.certificate.subject),
        {"the issuer's name is not the issuer's subject"},
    ),
    Bad(
        "no issuer's name",
        forge(ISSUER, issuer_name=EMPTY),
        {"the issuer's name is not the issuer's subject"},
    ),
    Bad("begins in the future", forge(ISSUER, start=NOW + SECOND), {"the draft is not valid now"}),
    Bad(
        "has ended",
        forge(ISSUER, end=NOW - SECOND),
        {"the draft is not valid now"},
    ),
    Bad(
        "backdated by a minute",
        forge(ISSUER, start=NOW - 60 * SECOND),
        {"notBefore is earlier than the issuer's", "notBefore is more than 30 s back"},
    ),
    Bad(
        "lives for two days",
        forge(ISSUER, end=NOW + 2 * DAY),
        {"the life is longer than the profile workload allows"},
    ),
    Bad(
        "RSA of 1024 bits",
        forge(ISSUER, subject_key=rsa_key(1024)),
        {"an RSA modulus has 2048 to 8192 bits in whole bytes, this one 1024"},
    ),
    Bad(
        "P-521",
        forge(ISSUER, subject_key=ec.generate_private_key(ec.SECP521R1())),
        {"keys of kind secp521r1 are not used in the mesh"},
    ),
    Bad(
        "an extension too many",
        replaced({x509.UnrecognizedExtension: (STRANGE, False)}),
        {"extension 2.5.29.99 does not belong here"},
    ),
    Bad(
        "no alternative name",
        replaced({x509.SubjectAlternativeName: None}),
        {"extension 2.5.29.17 is missing", "an SVID has exactly one URI name, this one 0"},
    ),
    Bad(
        "no basic constraints",
        replaced({x509.BasicConstraints: None}),
        {"extension 2.5.29.19 is missing", "basic constraints are not the profile's"},
    ),
    Bad(
        "no key usage",
        replaced({x509.KeyUsage: None}),
        {
            "extension 2.5.29.15 is missing",
            "key usages are not the profile's",
            "key usage does not allow digitalSignature",
        },
    ),
    Bad(
        "no extended key usage",
        replaced({x509.ExtendedKeyUsage: None}),
        {
            "extension 2.5.29.37 is missing",
            "extended key usages are not the profile's",
            "extended key usage does not allow serverAuth and clientAuth",
        },
    ),
    Bad(
        "no subject key identifier",
        replaced({x509.SubjectKeyIdentifier: None}),
        {"extension 2.5.29.14 is missing", "the subject key identifier is not that of the key"},
    ),
    Bad(
        "no authority key identifier",
        replaced({x509.AuthorityKeyIdentifier: None}),
        {"extension 2.5.29.35 is missing", "the authority key identifier is not the issuer's"},
    ),
    Bad(
        "uncritical basic constraints",
        replaced({x509.BasicConstraints: (WORKLOAD.basic_constraints, False)}),
        {"extension 2.5.29.19 must be critical"},
    ),
    Bad(
        "uncritical key usage",
        replaced({x509.KeyUsage: (WORKLOAD.key_usage, False)}),
        {"extension 2.5.29.15 must be critical"},
    ),
    Bad(
        "critical extended key usage",
        replaced({x509.ExtendedKeyUsage: (x509.ExtendedKeyUsage([SERVER, CLIENT]), True)}),
        {"extension 2.5.29.37 must not be critical"},
    ),
    Bad(
        "critical alternative name beside a subject",
        replaced({x509.SubjectAlternativeName: (names(str(BACKEND)), True)}),
        {"the alternative name is critical exactly when the subject is empty"},
    ),
    Bad(
        "uncritical alternative name without a subject",
        forge(
            ISSUER,
            subject=EMPTY,
            replace={x509.SubjectAlternativeName: (names(str(BACKEND)), False)},
        ),
        {"the alternative name is critical exactly when the subject is empty"},
    ),
    Bad(
        "another key's subject key identifier",
        replaced(
            {
                x509.SubjectKeyIdentifier: (
                    x509.SubjectKeyIdentifier.from_public_key(key(1).public_key),
                    False,
                )
            }
        ),
        {"the subject key identifier is not that of the key"},
    ),
    Bad(
        "another issuer's key identifier",
        replaced(
            {
                x509.AuthorityKeyIdentifier: (
                    x509.AuthorityKeyIdentifier.from_issuer_public_key(key(1).public_key),
                    False,
                )
            }
        ),
        {"the authority key identifier is not the issuer's"},
    ),
    Bad(
        "a CA flag",
        replaced({x509.BasicConstraints: (ISSUING.basic_constraints, True)}),
        {
            "basic constraints are not the profile's",
            "a CA certificate is no workload's identity",
        },
    ),
    Bad(
        "keyEncipherment",
        replaced(usage(digital_signature=True, key_encipherment=True)),
        {"key usages are not the profile's"},
    ),
    Bad(
        "keyCertSign",
        replaced(usage(digital_signature=True, key_cert_sign=True)),
        {"key usages are not the profile's", "a leaf must not have keyCertSign or cRLSign"},
    ),
    Bad(
        "client only",
        replaced(extended(CLIENT)),
        {
            "extended key usages are not the profile's",
            "extended key usage does not allow serverAuth",
        },
    ),
    Bad(
        "code signing too",
        replaced(extended(SERVER, CLIENT, ExtendedKeyUsageOID.CODE_SIGNING)),
        {"extended key usages are not the profile's"},
    ),
    Bad(
        "two URIs",
        forge(ISSUER, uris=[str(BACKEND), f"{BACKEND}2"]),
        {"an SVID has exactly one URI name, this one 2"},
    ),
    Bad(
        "a trust domain's ID",
        forge(ISSUER, uris=["spiffe://mesh.local"]),
        {"spiffe://mesh.local names a trust domain: a workload's ID has a path"},
    ),
    Bad(
        "an https URI",
        forge(ISSUER, uris=["https://mesh.local/"]),
        {"'https://mesh.local/' is not a SPIFFE ID: it begins with spiffe://"},
    ),
]


@pytest.mark.parametrize("bad", LEAVES, ids=str)
def test_a_leaf_that_breaks_a_rule_is_told_which(bad: Bad) -> None:
    assert details(bad.cert) == bad.said


PLACES = Publication("http://ca.example/crl", "http://ca.example/ocsp", "http://ca.example/ca")
PUBLISHED = evolve(WORKLOAD, publication=PLACES)
POINTS, ACCESS = PLACES.distribution_points, PLACES.information_access
assert POINTS is not None
assert ACCESS is not None
RESPONDER: Extensions = {
    x509.SubjectAlternativeName: (names("spiffe://mesh.local/service/backend"), False)
}


def test_what_publishes_and_what_answers_breaks_no_rule() -> None:
    assert details(forge(ISSUER, PUBLISHED), profile=PUBLISHED) == set()
    assert details(forge(ISSUER, OCSP_RESPONDER), profile=OCSP_RESPONDER) == set()
    issuing = evolve(ISSUING, publication=PLACES)
    assert details(forge(ROOT_CA, issuing), ROOT_CA, issuing) == set()


@pytest.mark.parametrize(
    ("profile", "forged", "replace", "said"),
    [
        (
            PUBLISHED,
            WORKLOAD,
            {},
            {
                "extension 2.5.29.31 is missing",
                "extension 1.3.6.1.5.5.7.1.1 is missing",
                "the CRL distribution points are not the profile's",
                "the authority information access is not the profile's",
            },
        ),
        (
            WORKLOAD,
            PUBLISHED,
            {x509.AuthorityInformationAccess: None},
            {
                "extension 2.5.29.31 does not belong here",
                "the CRL distribution points are not the profile's",
            },
        ),
        (
            PUBLISHED,
            evolve(WORKLOAD, publication=evolve(PLACES, crl_url="http://else.example/crl")),
            {},
            {"the CRL distribution points are not the profile's"},
        ),
        (
            PUBLISHED,
            evolve(WORKLOAD, publication=evolve(PLACES, ocsp_url=None)),
            {},
            {"the authority information access is not the profile's"},
        ),
        (
            PUBLISHED,
            PUBLISHED,
            {x509.CRLDistributionPoints: (POINTS, True)},
            {"extension 2.5.29.31 must not be critical"},
        ),
        (
            PUBLISHED,
            PUBLISHED,
            {x509.AuthorityInformationAccess: (ACCESS, True)},
            {"extension 1.3.6.1.5.5.7.1.1 must not be critical"},
        ),
        (
            OCSP_RESPONDER,
            OCSP_RESPONDER,
            {x509.OCSPNoCheck: None},
            {"extension 1.3.6.1.5.5.7.48.1.5 is missing"},
        ),
        (
            OCSP_RESPONDER,
            OCSP_RESPONDER,
            {x509.OCSPNoCheck: (x509.OCSPNoCheck(), True)},
            {"extension 1.3.6.1.5.5.7.48.1.5 must not be critical"},
        ),
        (
            OCSP_RESPONDER,
            OCSP_RESPONDER,
            RESPONDER,
            {"extension 2.5.29.17 does not belong here"},
        ),
        (
            OCSP_RESPONDER,
            OCSP_RESPONDER,
            {
                x509.ExtendedKeyUsage: (
                    x509.ExtendedKeyUsage([*OCSP_RESPONDER.extended, CLIENT]),
                    False,
                )
            },
            {"extended key usages are not the profile's"},
        ),
        (
            OCSP_RESPONDER,
            OCSP_RESPONDER,
            {x509.BasicConstraints: (ISSUING.basic_constraints, True)},
            {"basic constraints are not the profile's"},
        ),
    ],
)
def test_what_is_published_and_who_answers_is_as_the_profile_says(
    profile: Profile, forged: Profile, replace: Extensions, said: set[str]
) -> None:
    assert details(forge(ISSUER, forged, replace=replace), profile=profile) == said


def test_a_responder_has_a_subject_and_a_short_life() -> None:
    nameless = forge(ISSUER, OCSP_RESPONDER, subject=EMPTY)
    assert details(nameless, profile=OCSP_RESPONDER) == {
        "a responder has a subject",
        "the alternative name is critical exactly when the subject is empty",
    }
    lasting = forge(ISSUER, OCSP_RESPONDER, end=NOW + 8 * DAY)
    assert details(lasting, profile=OCSP_RESPONDER) == {
        "the life is longer than the profile ocsp-responder allows"
    }


def test_an_extension_given_twice_cannot_be_decoded() -> None:
    # 2.5.29.99 becomes a second 2.5.29.14.
    twice = patched(
        replaced({x509.UnrecognizedExtension: (STRANGE, False)}),
        "0603551d63",
        "0603551d0e",
    )
    said = details(twice)
    assert said
    assert any("cannot be decoded (Duplicate" in detail for detail in said)


def test_a_leaf_never_outlives_its_issuer() -> None:
    short = forge_issuing(ROOT_CA, end=NOW + HOUR)
    assert details(forge(short, end=NOW + HOUR), short) == set()
    assert details(forge(short, end=NOW + HOUR + SECOND), short) == {
        "notAfter is later than the issuer's"
    }


@pytest.mark.parametrize(
    ("replace", "said"),
    [
        ({x509.BasicConstraints: (WORKLOAD.basic_constraints, True)}, {"the issuer is no CA"}),
        ({x509.BasicConstraints: None}, {"the issuer is no CA"}),
        ({x509.KeyUsage: (WORKLOAD.key_usage, True)}, {"the issuer is no CA"}),
        ({x509.KeyUsage: None}, {"the issuer is no CA"}),
        (
            {x509.SubjectKeyIdentifier: None},
            {"the authority key identifier is not the issuer's"},
        ),
    ],
)
def test_an_issuer_that_may_not_sign_is_told(replace: Extensions, said: set[str]) -> None:
    issuer = forge_issuing(ROOT_CA, replace=replace)
    ski = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.key.public_key)
    leaf = forge(
        Authority(forge_issuing(ROOT_CA).certificate, issuer.key),
        replace={x509.AuthorityKeyIdentifier: (ski, False)},
    )
    assert details(leaf, issuer) == said


def test_a_ca_below_a_ca_whose_path_length_is_used_up_is_told() -> None:
    below = forge(ISSUER, ISSUING, subject_key=key(60))
    assert details(below, ISSUER, ISSUING) == {
        "the issuer's path length leaves no room for this CA"
    }


def test_any_number_of_cas_may_stand_below_a_ca_without_a_path_length() -> None:
    unlimited = forge_root(
        replace={x509.BasicConstraints: (x509.BasicConstraints(ca=True, path_length=None), True)}
    )
    assert details(forge(unlimited, ISSUING, subject_key=key(61)), unlimited, ISSUING) == set()


def test_a_ca_has_a_subject() -> None:
    nameless = forge(ROOT_CA, ISSUING, subject=EMPTY)
    assert details(nameless, ROOT_CA, ISSUING) == {"a CA has a subject"}


@pytest.mark.parametrize("uri", [str(BACKEND), "https://mesh.local"])
def test_a_cas_spiffe_id_is_its_trust_domains(uri: str) -> None:
    assert details(forge(ROOT_CA, ISSUING, uris=[uri]), ROOT_CA, ISSUING) == {
        "a CA's SPIFFE ID is its trust domain's, without a path"
    }


def test_a_root_that_lives_for_eleven_years_is_told() -> None:
    assert details(forge(None, ROOT, end=NOW + 11 * 365 * DAY), None, ROOT) == {
        "the life is longer than the profile root allows"
    }


def test_every_rule_that_is_broken_is_told_at_once() -> None:
    cert = forge(ISSUER, serial=1, subject_key=rsa_key(1024), uris=[], end=NOW + 2 * DAY)
    assert len(details(cert)) == 4


def test_no_name_in_a_lint_forges_a_log_line() -> None:
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "x\n2026 all is well")])
    (problem,) = lint(
        Draftee(forge(ISSUER, subject=subject, serial=1), ISSUER.certificate, WORKLOAD, NOW)
    )
    assert problem.subject.isprintable()


@given(mutated(der(mesh().leaf())))
def test_a_damaged_draft_is_told_and_never_breaks_the_lints(data: bytes) -> None:
    try:
        cert = x509.load_der_x509_certificate(data)
    except Exception:
        return
    for problem in lint(Draftee(cert, ISSUER.certificate, WORKLOAD, NOW)):
        assert problem.rule
