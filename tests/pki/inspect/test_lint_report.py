"""Lints: a vector for each rule, our own certificates without findings, and nothing unjudged told as good."""

import asyncio
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import cache
from ipaddress import ip_address

import pytest
from attrs import evolve
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ObjectIdentifier as OID
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID, NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from pki.codes import Code
from pki.der import GENERALIZED_TIME, element, integer, pem
from pki.inspect.lint_report import LintReport, all_lints, lint_files
from pki.inspect.linted import LintProfile
from pki.issuing.profile import ISSUING, ROOT, ROOT_NAME, WORKLOAD, ca_subject
from pki.issuing.publication import Publication
from pki.keys import KeyAlgorithm
from pki.pem import CERTIFICATE, REQUEST
from pki.svid.x509svid import certificates_pem
from tests.authorities import (
    BACKEND,
    DAY,
    HOUR,
    MESH,
    NOW,
    csr_builder,
    forge,
    forge_issuing,
    forge_root,
    key,
    mesh,
    rsa_key,
    sign_crl,
    signed_anew,
)
from tests.pki.inspect.damaging import damaged
from tests.pki.inspect.oddities import BEGIN, ODDITIES, alternative_names, certificate, seq
from tests.pki.inspect.test_damaged import specimens

pytestmark = pytest.mark.filterwarnings(
    "ignore:Attribute's length", "ignore:Parsed a serial number which wasn't positive"
)
SVID, CA, WEB, ANY = LintProfile.SVID, LintProfile.CA, LintProfile.WEB, LintProfile.ANY


def lint(data: bytes, *profiles: LintProfile, beside: Sequence[bytes] = ()) -> LintReport:
    """What is found in the one thing in ``data``."""
    files = [("x", data), *(("y", more) for more in beside)]
    reports, lost = lint_files(files, profiles)
    assert not lost
    return reports[0][1]


def problems(report: LintReport) -> list[tuple[str, Code]]:
    return [(found.lint, found.problem.code) for found in report.findings]


def of(cert: x509.Certificate) -> bytes:
    return certificates_pem([cert])


def test_what_the_mesh_issues_has_no_findings_and_all_lints_are_applied() -> None:
    ca = mesh()
    responder = asyncio.run(ca.issuing.create_responder(key("responder"), NOW))
    published = evolve(
        WORKLOAD,
        publication=Publication("http://ca.example/crl", "http://ca.example/ocsp"),
    )
    certs = {
        "svid": (ca.leaf(), forge(ca.issuing, published)),
        "ca": (ca.issuing.certificate, ca.root.certificate),
        "any": (responder,),
    }
    every = [cert for group in certs.values() for cert in group]
    for profile, group in certs.items():
        for cert in group:
            report = lint(of(cert), beside=[of(other) for other in every])
            assert not report.findings
            assert not report.not_applied
            assert report.profiles == (profile,)
            wanted = {name for name, of_profile, _ in all_lints() if of_profile in (ANY, profile)}
            assert set(report.applied) == {
                name for name in wanted if not name.startswith(("csr-", "crl-"))
            }


@pytest.mark.parametrize("algorithm", KeyAlgorithm)
def test_no_key_algorithm_of_the_mesh_is_a_finding(algorithm: KeyAlgorithm) -> None:
    leaf_key = key(9, algorithm)
    assert not lint(of(mesh().leaf(leaf_key=leaf_key))).findings
    csr = csr_builder().sign(leaf_key.private_key, algorithm.hash)
    assert not lint(csr.public_bytes(Encoding.PEM)).findings


def names(*found: x509.GeneralName) -> dict[type[x509.ExtensionType], object]:
    return {x509.SubjectAlternativeName: (x509.SubjectAlternativeName(found), False)}


def dns(*found: str) -> dict[type[x509.ExtensionType], object]:
    return names(*map(x509.DNSName, found))


def usage(**bits: bool) -> dict[type[x509.ExtensionType], object]:
    return {x509.KeyUsage: (evolve_usage(**bits), True)}


def evolve_usage(**bits: bool) -> x509.KeyUsage:
    every = (
        *("digital_signature", "content_commitment", "key_encipherment", "data_encipherment"),
        *("key_agreement", "key_cert_sign", "crl_sign", "encipher_only", "decipher_only"),
    )
    return x509.KeyUsage(**{name: bits.get(name, False) for name in every})


def leaf(replace: object = None, **overrides: object) -> bytes:
    return of(forge(mesh().issuing, replace=replace, **overrides))  # type: ignore[arg-type]


def web(replace: object = None, **overrides: object) -> bytes:
    """A server's certificate that keeps to the BR but for what is overridden."""
    policies = x509.CertificatePolicies([x509.PolicyInformation(OID("2.23.140.1.2.1"), None)])
    access = x509.AuthorityInformationAccess(
        [
            x509.AccessDescription(
                AuthorityInformationAccessOID.CA_ISSUERS,
                x509.UniformResourceIdentifier("http://ca.example/ca.crt"),
            )
        ]
    )
    base = {
        **dns("shop.example"),
        x509.CertificatePolicies: (policies, False),
        x509.AuthorityInformationAccess: (access, False),
        x509.ExtendedKeyUsage: (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False),
        **(replace or {}),  # type: ignore[dict-item]
    }
    overrides.setdefault("subject", common_name("shop.example"))
    overrides.setdefault("issuer_name", common_name("a CA of the web"))
    return leaf(base, **overrides)


def common_name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def attribute(oid: x509.ObjectIdentifier, text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(oid, text, _validate=False)])


def unknown(oid: str, value: bytes = b"\x05\0", *, critical: bool) -> dict[object, object]:
    return {x509.UnrecognizedExtension: (x509.UnrecognizedExtension(OID(oid), value), critical)}


@cache
def dsa_key() -> dsa.DSAPrivateKey:
    return dsa.generate_private_key(1024)


def point(url: str) -> dict[type[x509.ExtensionType], object]:
    place = x509.DistributionPoint([x509.UniformResourceIdentifier(url)], None, None, None)
    return {x509.CRLDistributionPoints: (x509.CRLDistributionPoints([place]), False)}


def early_generalized_time() -> bytes:
    end = element(GENERALIZED_TIME, b"20460101000000Z")
    return pem(CERTIFICATE, certificate(dates=seq(BEGIN, end)))


def nested_ca() -> bytes:
    return of(forge(mesh().issuing, ISSUING, subject_key=key(60), subject=common_name("below")))


def forged_signature() -> bytes:
    der = bytearray(mesh().leaf().public_bytes(Encoding.DER))
    der[-1] ^= 1
    return pem(CERTIFICATE, bytes(der))


def old_signature() -> bytes:
    cert = forge(None, ROOT, subject_key=rsa_key())
    return pem(CERTIFICATE, signed_anew(cert.tbs_certificate_bytes, rsa_key(), "sha1"))


def csr(spiffe_id: str | None = None, *others: x509.GeneralName) -> bytes:
    builder = x509.CertificateSigningRequestBuilder().subject_name(common_name("x"))
    found = [*([x509.UniformResourceIdentifier(spiffe_id)] if spiffe_id else ()), *others]
    if found:
        builder = builder.add_extension(x509.SubjectAlternativeName(found), critical=False)
    return builder.sign(key().private_key, hashes.SHA256()).public_bytes(Encoding.PEM)


def forged_csr() -> bytes:
    der = bytearray(
        csr_builder().sign(key().private_key, hashes.SHA256()).public_bytes(Encoding.DER)
    )
    der[-1] ^= 1
    return pem(REQUEST, bytes(der))


#: The lint, what it finds, by which code, and the profiles that are asked for.
VECTORS: dict[str, tuple[str, Callable[[], bytes], Code, tuple[LintProfile, ...]]] = {
    "serial number 0": ("form", lambda: ODDITIES["serial number 0"].pem, Code.PROFILE_VIOLATION, ()),
    "RSA of 1024 bits": ("public-key", lambda: leaf(subject_key=rsa_key(1024)), Code.WEAK_KEY, (ANY,)),
    "signed with SHA-1": ("signature-algorithm", old_signature, Code.WEAK_SIGNATURE, (ANY,)),
    "no issuer": (
        "issuer-name", lambda: leaf(issuer_name=x509.Name([])), Code.PROFILE_VIOLATION, (ANY,)
    ),
    "common name of 65": (
        "name-lengths",
        lambda: leaf(subject=attribute(NameOID.COMMON_NAME, "x" * 65)),
        Code.PROFILE_VIOLATION, (ANY,),
    ),
    "country of 3": (
        "name-lengths",
        lambda: leaf(subject=attribute(NameOID.COUNTRY_NAME, "GER")),
        Code.PROFILE_VIOLATION, (ANY,),
    ),
    "GeneralizedTime before 2050": (
        "validity-encoding", early_generalized_time, Code.PROFILE_VIOLATION, (ANY,)
    ),
    "critical AIA": (
        "extension-criticality",
        lambda: leaf({x509.SubjectKeyIdentifier: (x509.SubjectKeyIdentifier(b"x"), True)}),
        Code.PROFILE_VIOLATION, (ANY,),
    ),
    "nameless": (
        "alternative-name",
        lambda: leaf({x509.SubjectAlternativeName: None}, subject=x509.Name([])),
        Code.PROFILE_VIOLATION, (ANY,),
    ),
    "names not critical": (
        "alternative-name",
        lambda: leaf(names(x509.UniformResourceIdentifier(str(BACKEND))), subject=x509.Name([])),
        Code.PROFILE_VIOLATION, (ANY,),
    ),
    "underscore": (
        "alternative-name-forms", lambda: leaf(dns("a_b.example")), Code.PROFILE_VIOLATION, (ANY,)
    ),
    "relative URI": (
        "alternative-name-forms",
        lambda: leaf(names(x509.UniformResourceIdentifier("shop"))),
        Code.PROFILE_VIOLATION, (ANY,),
    ),
    "no mailbox": (
        "alternative-name-forms",
        lambda: leaf(names(x509.RFC822Name._init_without_validation("shop"))),
        Code.PROFILE_VIOLATION, (ANY,),
    ),
    "path length without keyCertSign": (
        "basic-constraints",
        lambda: of(forge(None, ROOT, replace=usage(crl_sign=True))),  # type: ignore[arg-type]
        Code.PROFILE_VIOLATION, (ANY,),
    ),
    "keyCertSign of no CA": (
        "key-usage", lambda: leaf(usage(key_cert_sign=True)), Code.PROFILE_VIOLATION, (ANY,)
    ),
    "keyEncipherment of EC": (
        "key-usage-of-key",
        lambda: leaf(usage(digital_signature=True, key_encipherment=True)),
        Code.PROFILE_VIOLATION, (ANY,),
    ),
    "keyAgreement of Ed25519": (
        "key-usage-of-key",
        lambda: leaf(
            usage(digital_signature=True, key_agreement=True),
            subject_key=key(3, KeyAlgorithm.ED25519),
        ),
        Code.PROFILE_VIOLATION, (ANY,),
    ),
    "keyAgreement of ML-DSA": (
        "key-usage-of-key",
        lambda: leaf(
            usage(digital_signature=True, key_agreement=True),
            subject_key=key(3, KeyAlgorithm.ML_DSA_65),
        ),
        Code.PROFILE_VIOLATION, (ANY,),
    ),
    "clientAuth that cannot sign": (
        "extended-key-usage", lambda: leaf(usage(content_commitment=True)),
        Code.PROFILE_VIOLATION, (ANY,),
    ),
    "no authority key identifier": (
        "key-identifiers", lambda: leaf({x509.AuthorityKeyIdentifier: None}),
        Code.PROFILE_VIOLATION, (ANY,),
    ),
    "CRL at no URL": ("places", lambda: leaf(point("file:crl")), Code.PROFILE_VIOLATION, (ANY,)),
    "name constraints of no CA": (
        "ca-extensions",
        lambda: leaf(
            {x509.NameConstraints: (x509.NameConstraints([x509.DNSName("example")], None), True)}
        ),
        Code.PROFILE_VIOLATION, (ANY,),
    ),
    "changed signature": ("issuer-signature", forged_signature, Code.BAD_SIGNATURE, (ANY,)),
    "another issuer's key": (
        "issuer-identifier",
        lambda: leaf(
            {x509.AuthorityKeyIdentifier: (x509.AuthorityKeyIdentifier(b"x", None, None), False)}
        ),
        Code.ISSUER_MISMATCH, (ANY,),
    ),
    "a CA below an issuing CA": ("issuer-may-sign", nested_ca, Code.PATH_TOO_LONG, (ANY,)),
    "no SPIFFE ID": ("svid-leaf", lambda: leaf(dns("x.example")), Code.NOT_AN_SVID, (SVID,)),
    "usage not critical": (
        "svid-key-usage",
        lambda: leaf({x509.KeyUsage: (evolve_usage(digital_signature=True), False)}),
        Code.PROFILE_VIOLATION, (),
    ),
    "critical extension": (
        "svid-endpoint", lambda: leaf(unknown("1.2.3.4", critical=True)), Code.UNKNOWN_EXTENSION, ()
    ),
    "short serial number": ("mesh-serial", lambda: leaf(serial=5), Code.PROFILE_VIOLATION, ()),
    "another extension": (
        "mesh-extensions", lambda: leaf(unknown("1.2.3.4", critical=False)),
        Code.PROFILE_VIOLATION, (),
    ),
    "contentCommitment": (
        "mesh-usages", lambda: leaf(usage(digital_signature=True, content_commitment=True)),
        Code.PROFILE_VIOLATION, (),
    ),
    "outlives its issuer": (
        "mesh-issuer", lambda: leaf(end=NOW + 9000 * DAY), Code.PROFILE_VIOLATION, ()
    ),
    "no CA": ("ca-flag", leaf, Code.NOT_A_CA, (CA,)),
    "a CA whose constraints are not critical": (
        "ca-issuing",
        lambda: of(
            forge(mesh().root, ISSUING, replace={
                x509.BasicConstraints: (x509.BasicConstraints(ca=True, path_length=0), False)
            })
        ),
        Code.PROFILE_VIOLATION, (),
    ),
    "a CA without key usage": (
        "ca-key-usage",
        lambda: of(forge(mesh().root, ISSUING, replace={x509.KeyUsage: None})),
        Code.PROFILE_VIOLATION, (),
    ),
    "a CA with a workload's ID": (
        "ca-spiffe-id",
        lambda: of(forge(mesh().root, ISSUING, uris=[str(BACKEND)])),
        Code.NOT_AN_SVID, (),
    ),
    "a CA with name constraints": (
        "ca-endpoint",
        lambda: of(forge(mesh().root, ISSUING, replace={
            x509.NameConstraints: (x509.NameConstraints([x509.DNSName("example")], None), True)
        })),
        Code.UNKNOWN_EXTENSION, (),
    ),
    "no alternative names": (
        "web-names", lambda: web({x509.SubjectAlternativeName: None}), Code.PROFILE_VIOLATION, ()
    ),
    "an address as a DNS name": (
        "web-names", lambda: web(dns("shop.example", "192.0.2.1")), Code.PROFILE_VIOLATION, ()
    ),
    "a wildcard within": (
        "web-names", lambda: web(dns("shop.example", "a*.example")), Code.PROFILE_VIOLATION, ()
    ),
    "a mail address": (
        "web-names",
        lambda: web(names(x509.DNSName("shop.example"), x509.RFC822Name("a@b.example"))),
        Code.PROFILE_VIOLATION, (),
    ),
    "another common name": (
        "web-common-name", lambda: web(subject=common_name("other.example")),
        Code.PROFILE_VIOLATION, (),
    ),
    "201 days": ("web-life", lambda: web(end=NOW + 201 * DAY), Code.PROFILE_VIOLATION, ()),
    "any extended key usage": (
        "web-usages",
        lambda: web({x509.ExtendedKeyUsage: (x509.ExtendedKeyUsage(
            [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE]
        ), False)}),
        Code.PROFILE_VIOLATION, (),
    ),
    "no extended key usage": (
        "web-usages", lambda: web({x509.ExtendedKeyUsage: None}), Code.WRONG_USAGE, (WEB,)
    ),
    "Ed25519 on the web": (
        "web-key", lambda: web(subject_key=key(3, KeyAlgorithm.ED25519)), Code.PROFILE_VIOLATION, ()
    ),
    "secp256k1": (
        "web-key",
        lambda: web(subject_key=ec.generate_private_key(ec.SECP256K1())),
        Code.PROFILE_VIOLATION, (),
    ),
    "a guessable serial number": ("web-serial", lambda: web(serial=5), Code.PROFILE_VIOLATION, ()),
    "no policies": (
        "web-policies", lambda: web({x509.CertificatePolicies: None}), Code.PROFILE_VIOLATION, ()
    ),
    "no way to its issuer": (
        "web-places", lambda: web({x509.AuthorityInformationAccess: None}),
        Code.PROFILE_VIOLATION, (),
    ),
    "a CRL by ldap": (
        "web-places", lambda: web(point("ldap://ca.example/crl")), Code.PROFILE_VIOLATION, ()
    ),
    "changed CSR": ("csr-proof", forged_csr, Code.NO_POSSESSION, ()),
    "CSR for a mail address": (
        "csr-acceptable", lambda: csr(str(BACKEND), x509.RFC822Name("a@b.example")),
        Code.UNSUPPORTED_NAME, (),
    ),
    "CSR for no SPIFFE ID": (
        "csr-acceptable", lambda: csr("spiffe://MESH/x"), Code.NOT_A_SPIFFE_ID, ()
    ),
    "CRL that ends before it begins": (
        "crl-times",
        lambda: sign_crl(mesh().issuing, this_update=NOW, next_update=NOW + timedelta(0)),
        Code.BAD_CRL, (),
    ),
    "CRL without number": (
        "crl-extensions", lambda: sign_crl(mesh().issuing, number=None), Code.BAD_CRL, ()
    ),
}  # fmt: skip


@pytest.mark.parametrize("vector", VECTORS)
def test_each_broken_rule_is_found_by_its_lint(vector: str) -> None:
    name, make, code, profiles = VECTORS[vector]
    report = lint(
        make(), *profiles, beside=[mesh().bundle.to_pem(), of(mesh().issuing.certificate)]
    )
    assert (name, code) in problems(report)
    for found in report.findings:
        problem = found.problem
        assert problem.detail and problem.rule and problem.remedy
        assert problem.detail.isprintable()
        assert name not in [unjudged.lint for unjudged in report.not_applied]


def test_each_lint_has_a_vector() -> None:
    # Of CRLs over SHA-1 none can be made here: cryptography does not sign so.
    assert {name for name, _, _ in all_lints()} - {"crl-signature"} == {
        name for name, *_ in VECTORS.values()
    }


def test_a_good_server_of_the_web_has_no_findings() -> None:
    assert lint(web()).profiles == (WEB,)
    assert not lint(web()).findings
    assert not lint(web(dns("shop.example", "*.shop.example"), end=NOW + 199 * DAY)).findings
    addressed = names(x509.DNSName("shop.example"), x509.IPAddress(ip_address("192.0.2.1")))
    assert not lint(web(addressed)).findings


def test_what_other_cas_do_is_no_finding_for_not_being_as_ours() -> None:
    root = forge_root(subject=common_name("SPIRE"))
    issuing = forge_issuing(root, subject=common_name("SPIRE's issuing CA"))
    cert = forge(issuing, serial=5, replace=usage(digital_signature=True, content_commitment=True))  # type: ignore[arg-type]
    report = lint(of(cert), beside=[of(issuing.certificate), of(root.certificate)])
    assert not report.findings
    assert {found.lint for found in report.not_applied} == {
        "mesh-serial", "mesh-extensions", "mesh-usages", "mesh-issuer"
    }  # fmt: skip


def test_without_its_issuer_nothing_is_said_of_it() -> None:
    report = lint(of(mesh().leaf()))
    assert not report.findings
    assert {found.lint for found in report.not_applied} == {
        "issuer-signature", "issuer-identifier", "issuer-may-sign", "mesh-issuer"
    }  # fmt: skip
    assert {found.why for found in report.not_applied} == {
        "its issuer's certificate is not among what was given"
    }


def test_an_issuer_is_found_among_others_of_its_name() -> None:
    name = ca_subject(ROOT_NAME, MESH, 1)
    others = [of(forge_root(n, subject=name).certificate) for n in (70, 71, 72)]
    report = lint(of(mesh().issuing.certificate), beside=[*others, mesh().bundle.to_pem()])
    assert not report.findings and not report.not_applied


def test_another_ca_of_the_issuers_name_is_not_taken_for_the_issuer() -> None:
    other = forge_root(73, subject=ca_subject(ROOT_NAME, MESH, 1)).certificate
    report = lint(of(mesh().issuing.certificate), beside=[of(other)])
    assert not report.findings
    assert "issuer-signature" in {found.lint for found in report.not_applied}


def test_a_key_that_is_not_looked_at_is_not_told_as_good() -> None:
    other = ec.generate_private_key(ec.BrainpoolP256R1())
    report = lint(of(forge(mesh().issuing, subject_key=other)), ANY)
    assert "public-key" in {found.lint for found in report.not_applied}
    assert ("svid-endpoint", Code.WEAK_KEY) in problems(
        lint(of(forge(mesh().issuing, subject_key=other)))
    )


def test_profiles_add_up_and_what_is_chosen_holds() -> None:
    report = lint(of(mesh().leaf()), SVID, WEB)
    assert {"svid-leaf", "web-names"} <= set(report.applied)
    assert ("web-names", Code.PROFILE_VIOLATION) in problems(report)
    plain = lint(of(mesh().leaf()), ANY)
    assert not any(name.startswith(("svid", "mesh", "web", "ca-flag")) for name in plain.applied)


def test_a_certificate_of_which_it_cannot_be_told_what_it_is_for_says_so() -> None:
    broken = x509.UnrecognizedExtension(x509.BasicConstraints.oid, b"\xde\xad")
    cert = forge(mesh().issuing, replace={x509.BasicConstraints: (broken, True)})
    report = lint(of(cert))
    assert ("form", Code.MALFORMED) in problems(report)
    assert ("svid, ca, web") in {found.lint for found in report.not_applied}


def test_things_that_are_not_looked_at_have_no_lint() -> None:
    (_, report), *_ = lint_files([("x", key(9).to_pem())])[0]
    assert report.what == "private key"
    assert not report.applied
    assert [found.lint for found in report.not_applied] == ["all"]


def expected(what: str, profiles: Sequence[LintProfile]) -> set[str]:
    kinds = {"CSR": "csr-", "CRL": "crl-"}
    if what in kinds:
        return {"form", *(n for n, _, _ in all_lints() if n.startswith(kinds[what]))}
    if what == "OCSP response":
        return {"form", "all others"}
    wanted = {n for n, p, _ in all_lints() if p is ANY or p in profiles}
    return {n for n in wanted if not n.startswith(("csr-", "crl-"))}


def check(data: bytes) -> None:
    """Nothing is raised, each lint was applied or says why not, and what no strict reader takes has a finding."""
    reports, lost = lint_files([("x", data)])
    assert reports or lost
    assert all(text.isprintable() for text in lost)
    for _, report in reports:
        if not report.applied:
            continue
        told = {found.lint for found in report.not_applied}
        assert set(report.applied) | told - {"svid, ca, web"} == expected(
            report.what, report.profiles
        )
        assert not set(report.applied) & told
        if any("decoded" in found.why or "strict" in found.why for found in report.not_applied):
            assert report.findings
        for found in report.findings:
            assert found.problem.rule and found.problem.detail.isprintable()


@pytest.mark.parametrize("which", ODDITIES)
def test_what_is_odd_is_a_finding(which: str) -> None:
    oddity = ODDITIES[which]
    check(oddity.pem)
    (_, report), *_ = lint_files([("x", oddity.pem)])[0]
    # Nothing is odd about a name in T61String but that strict readers do not take it.
    is_odd = bool(oddity.remark) or which == "T61String"
    assert any(found.lint == "form" for found in report.findings) is is_odd


@settings(deadline=timedelta(seconds=20))  # of a busy machine; it takes milliseconds
@given(st.data())
def test_no_damage_raises_or_is_told_as_good(data: st.DataObject) -> None:
    label, der = data.draw(st.sampled_from(specimens()))
    hurt = data.draw(damaged((der,)))
    check(hurt)
    check(pem(label, hurt))
    check(pem(label, hurt) + of(mesh().issuing.certificate))


@given(st.binary(max_size=200))
def test_no_bytes_raise(data: bytes) -> None:
    check(data)


def test_many_certificates_of_one_name_take_no_square_of_time() -> None:
    many = b"".join(
        pem(CERTIFICATE, certificate(serial=integer(n), extensions=(alternative_names(),)))
        for n in range(1, 300)
    )
    reports, _ = lint_files([("x", many)])
    assert len(reports) == 299


def test_an_hour_is_within_every_rule_of_the_web() -> None:
    assert not lint(web(end=NOW + HOUR)).findings
