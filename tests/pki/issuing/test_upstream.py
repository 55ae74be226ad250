"""What may stand above our leaves: certificates of an offline root of ours, and of CAs of somebody else's."""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from attrs import evolve
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.name import _ASN1Type
from cryptography.x509.oid import ExtendedKeyUsageOID, ObjectIdentifier

from pki.errors import Refused
from pki.issuing.authority import Authority
from pki.issuing.ca_above import is_ours, root_problems
from pki.issuing.profile import ISSUING, ISSUING_NAME, ROOT, WORKLOAD, ca_subject
from pki.issuing.rotation import prove
from pki.issuing.upstream import IssuingChain, Wanted
from pki.keys import KeyAlgorithm, spki_der
from pki.svid.bundle import TrustBundle
from tests.authorities import (
    DAY,
    HOUR,
    MESH,
    NOW,
    OTHER,
    forge,
    forge_issuing,
    forge_root,
    key,
    mesh,
    rsa_key,
)

OURS = key("the key that waits")
SUBJECT = ca_subject(ISSUING_NAME, MESH, 2)
YEAR = 365 * DAY
WANTED = Wanted(MESH, SUBJECT, spki_der(OURS.public_key), DAY, NOW)


def name(text: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, "Example Corp"),
            x509.NameAttribute(x509.NameOID.COMMON_NAME, text),
        ]
    )


def certified(issuer: Authority, **overrides: Any) -> x509.Certificate:
    """Ours, by somebody's CA; good but for what is overridden."""
    made = {"subject_key": OURS, "subject": SUBJECT, "end": NOW + 300 * DAY, **overrides}
    return forge(issuer, ISSUING, **made)


def foreign(constraints: x509.BasicConstraints | None = None, **overrides: Any) -> Authority:
    """A root of somebody else's, with no name of ours."""
    replace = {
        x509.SubjectAlternativeName: None,
        x509.BasicConstraints: (constraints or x509.BasicConstraints(True, None), True),
        **overrides.pop("replace", {}),
    }
    return forge_root(
        "their root",
        subject=name("Root"),
        end=NOW + 10 * YEAR,
        **{"replace": replace, **overrides},
    )


def between(root: Authority, length: int | None = 0, **overrides: Any) -> Authority:
    """An intermediate of theirs."""
    replace = {
        x509.SubjectAlternativeName: None,
        x509.BasicConstraints: (x509.BasicConstraints(True, length), True),
        **overrides.pop("replace", {}),
    }
    return forge_issuing(
        root,
        overrides.pop("key_name", "their intermediate"),
        NOW + 5 * YEAR,
        subject=overrides.pop("subject", name("Issuing")),
        replace=replace,
        **overrides,
    )


def chain_of(
    found: list[x509.Certificate], roots: list[x509.Certificate], wanted: Wanted = WANTED
) -> IssuingChain:
    """The only chain that there is."""
    (chain,) = IssuingChain.among(found, roots, wanted)
    return chain


def refused(
    found: list[x509.Certificate], roots: list[Authority], wanted: Wanted = WANTED
) -> list[str]:
    with pytest.raises(Refused) as refusal:
        chain_of(found, [root.certificate for root in roots], wanted)
    for problem in refusal.value.problems:
        assert problem.remedy, problem
    return [problem.code for problem in refusal.value.problems]


def drafted(root: Authority, **overrides: Any) -> x509.Certificate:
    """As an offline root of ours signs it."""
    asked = {"generation": 2, "lifetime": 300 * DAY, **overrides}
    draft = root.draft_issuing(OURS.public_key, MESH, NOW, **asked)
    return asyncio.run(root.sign(draft))


def test_a_certificate_of_our_own_root_is_good() -> None:
    root = mesh().root
    cert = drafted(root)
    chain = chain_of([cert], [root.certificate], WANTED)
    assert (chain.certificates, chain.root) == ((cert,), root.certificate)


def test_the_root_may_be_among_the_files_and_the_order_does_not_count() -> None:
    root = foreign()
    theirs = between(root, 1)
    cert = certified(theirs)
    given = [root.certificate, theirs.certificate, cert]
    chain = chain_of(given, [mesh().root.certificate, root.certificate], WANTED)
    assert chain.certificates == (cert, theirs.certificate)
    assert chain.root == root.certificate


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("depth", [0, 1, 2])
def test_a_chain_of_somebody_elses_is_good_for_our_judge_too(depth: int, named: bool) -> None:
    root = above = foreign()
    chain = []
    for at in range(depth):
        above = between(above, depth - at, key_name=f"theirs {at}", subject=name(f"CA {at}"))
        chain.insert(0, above.certificate)
    replace = {} if named else {x509.SubjectAlternativeName: None}
    cert = certified(above, replace=replace)
    found = chain_of([cert, *chain], [root.certificate], WANTED)
    candidate = Authority(cert, OURS, found.certificates)
    asyncio.run(prove(candidate, TrustBundle(MESH, (root.certificate,)), NOW))


def altered(**replace: Any) -> Callable[[Authority], x509.Certificate]:
    kinds = {getattr(x509, kind): value for kind, value in replace.items()}
    return lambda issuer: certified(issuer, replace=kinds)


_MUST_STAPLE = x509.TLSFeature([x509.TLSFeatureType.status_request])
#: What is wrong with our own certificate, whoever made it.
ODD: dict[str, tuple[Callable[[Authority], x509.Certificate], list[str]]] = {
    "another key": (
        lambda issuer: certified(issuer, subject_key=key("another")),
        ["credentials-do-not-fit"],
    ),
    "another subject": (
        lambda issuer: certified(issuer, subject=name("x")),
        ["profile-violation"],
    ),
    "another trust domain": (
        lambda issuer: certified(issuer, uris=[str(OTHER.id)]),
        ["wrong-trust-domain"],
    ),
    "a workload's name": (
        lambda issuer: certified(issuer, uris=[str(MESH.member("service", "x"))]),
        ["wrong-trust-domain"],
    ),
    "no CA": (
        altered(BasicConstraints=(x509.BasicConstraints(False, None), True)),
        ["not-a-ca"],
    ),
    "a path length of one": (
        altered(BasicConstraints=(x509.BasicConstraints(True, 1), True)),
        ["path-too-long"],
    ),
    "no path length": (
        altered(BasicConstraints=(x509.BasicConstraints(True, None), True)),
        ["path-too-long"],
    ),
    "constraints that are not critical": (
        altered(BasicConstraints=(x509.BasicConstraints(True, 0), False)),
        ["profile-violation"],
    ),
    "a leaf's usages": (
        altered(KeyUsage=(WORKLOAD.key_usage, True)),
        ["not-a-crl-issuer", "not-a-ca"],
    ),
    "no subject key identifier": (altered(SubjectKeyIdentifier=None), ["profile-violation"]),
    "another subject key identifier": (
        altered(SubjectKeyIdentifier=(x509.SubjectKeyIdentifier(b"x" * 20), False)),
        ["profile-violation"],
    ),
    "no authority key identifier": (altered(AuthorityKeyIdentifier=None), ["profile-violation"]),
    "servers only": (
        altered(ExtendedKeyUsage=(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False)),
        ["wrong-usage"],
    ),
    "what nobody understands": (altered(TLSFeature=(_MUST_STAPLE, True)), ["unknown-extension"]),
    "name constraints": (
        altered(
            NameConstraints=(
                x509.NameConstraints([x509.UniformResourceIdentifier("example.org")], None),
                True,
            )
        ),
        ["unknown-extension"],
    ),
    "an end that is near": (
        lambda issuer: certified(issuer, end=NOW + 3 * DAY),
        ["ttl-out-of-range"],
    ),
    "an end that was": (
        lambda issuer: certified(issuer, start=NOW - 2 * DAY, end=NOW - DAY),
        ["expired"],
    ),
    "a beginning that is to come": (
        lambda issuer: certified(issuer, start=NOW + DAY),
        ["not-yet-valid"],
    ),
    "an end after its issuer's": (
        lambda issuer: certified(issuer, end=NOW + 20 * YEAR),
        ["issuer-expired"],
    ),
    "SHA-224": (
        lambda issuer: certified(issuer, digest=hashes.SHA224()),
        ["weak-signature"],
    ),
    "several at once": (
        lambda issuer: certified(
            issuer,
            subject=name("x"),
            uris=[str(OTHER.id)],
            replace={x509.BasicConstraints: (x509.BasicConstraints(True, 3), True)},
        ),
        ["profile-violation", "wrong-trust-domain", "path-too-long"],
    ),
}


@pytest.mark.parametrize("what", ODD)
def test_what_does_not_fit_is_refused_with_every_reason_and_a_remedy(what: str) -> None:
    make, codes = ODD[what]
    root = foreign()
    assert refused([make(root)], [root]) == codes


@pytest.mark.parametrize("what", ODD)
def test_our_own_root_is_held_to_no_less(what: str) -> None:
    make, codes = ODD[what]
    root = mesh().root
    assert set(codes) <= set(refused([make(root)], [root]))


def test_what_a_foreign_ca_adds_is_no_fault_and_of_our_own_root_it_is() -> None:
    usage = x509.KeyUsage(True, *[False] * 4, True, True, False, False)
    template = x509.UnrecognizedExtension(
        ObjectIdentifier("1.3.6.1.4.1.311.20.2"), b"\x1e\x0a\0S\0u\0b\0C\0A"
    )
    added = {x509.KeyUsage: (usage, True), x509.UnrecognizedExtension: (template, False)}
    root = foreign()
    chain_of([certified(root, replace=added)], [root.certificate], WANTED)
    assert set(refused([certified(mesh().root, replace=added)], [mesh().root])) == {"lint"}


def test_what_ad_cs_makes_of_the_csr_is_good() -> None:
    """The shape of a certificate of its template SubCA: other string types, its own extensions, LDAP's URLs."""
    printable = x509.Name(
        [
            x509.NameAttribute(each.oid, str(each.value), _type=_ASN1Type.PrintableString)
            for each in SUBJECT
        ]
    )
    url = x509.UniformResourceIdentifier("ldap:///CN=Root,CN=CDP,DC=corp?certificateRevocationList")
    usage = x509.KeyUsage(True, *[False] * 4, True, True, False, False)
    root = foreign(x509.BasicConstraints(True, None))
    replace = {
        x509.KeyUsage: (usage, True),
        x509.SubjectAlternativeName: None,
        x509.CRLDistributionPoints: (
            x509.CRLDistributionPoints([x509.DistributionPoint([url], None, None, None)]),
            False,
        ),
        x509.MSCertificateTemplate: (
            x509.MSCertificateTemplate(ObjectIdentifier("1.3.6.1.4.1.311.21.8.1"), 100, 3),
            False,
        ),
        x509.UnrecognizedExtension: (
            x509.UnrecognizedExtension(ObjectIdentifier("1.3.6.1.4.1.311.21.1"), b"\x02\x01\x00"),
            False,
        ),
        x509.CertificatePolicies: (
            x509.CertificatePolicies(
                [x509.PolicyInformation(ObjectIdentifier("2.5.29.32.0"), None)]
            ),
            False,
        ),
    }
    cert = certified(root, subject=printable, replace=replace)
    found = chain_of([cert], [root.certificate])
    candidate = Authority(cert, OURS, found.certificates)
    asyncio.run(prove(candidate, TrustBundle(MESH, (root.certificate,)), NOW))


def test_one_of_another_root_is_refused_and_the_roots_are_named() -> None:
    cert = certified(foreign())
    with pytest.raises(
        Refused, match=r"(?s)nothing .* has signed .*believed: .*sha256:"
    ) as refusal:
        chain_of([cert], [mesh().root.certificate], WANTED)
    assert [problem.code for problem in refusal.value.problems] == ["unknown-authority"]
    with pytest.raises(Refused, match=r"it ends in the root CN=Root.*ca root prepare --root-cert"):
        chain_of([cert, foreign().certificate], [mesh().root.certificate], WANTED)


def test_a_forged_signature_leads_nowhere() -> None:
    root = mesh().root
    impostor = Authority(
        forge(None, ROOT, subject_key=key("x"), subject=root.certificate.subject), key("x")
    )
    assert refused([certified(impostor)], [root]) == ["unknown-authority"]


def test_an_intermediate_that_is_missing_is_asked_for() -> None:
    root = foreign()
    assert refused([certified(between(root))], [root]) == ["unknown-authority"]


def test_two_certificates_for_our_key_are_one_too_many() -> None:
    root = foreign()
    assert refused([certified(root), certified(root)], [root]) == ["conflict"]
    once = certified(root)
    assert chain_of([once, once], [root.certificate], WANTED).certificate == once


def test_one_key_may_be_certified_by_two_roots() -> None:
    roots = [foreign().certificate, mesh().root.certificate]
    found = [certified(foreign()), drafted(mesh().root)]
    chains = IssuingChain.among(found, roots, WANTED)
    assert [(chain.certificates, chain.root) for chain in chains] == [
        ((found[0],), roots[0]),
        ((found[1],), roots[1]),
    ]


def test_nothing_at_all_is_refused() -> None:
    assert refused([], [mesh().root]) == ["credentials-do-not-fit"]


def test_a_ca_above_without_room_is_refused() -> None:
    root = foreign()
    theirs = between(root, 0)
    assert refused([certified(theirs), theirs.certificate], [root]) == ["path-too-long"]
    narrow = foreign(x509.BasicConstraints(True, 1))
    theirs = between(narrow, 1)
    assert refused([certified(theirs), theirs.certificate], [narrow]) == ["path-too-long"]


def test_a_ca_above_with_constraints_on_names_is_refused() -> None:
    narrowed = x509.NameConstraints([x509.DNSName("example.org")], None)
    root = foreign()
    theirs = between(root, 1, replace={x509.NameConstraints: (narrowed, True)})
    assert refused([certified(theirs), theirs.certificate], [root]) == ["unknown-extension"]
    constrained = foreign(replace={x509.NameConstraints: (narrowed, True)})
    assert refused([certified(constrained)], [constrained]) == ["unknown-extension"]


def test_a_chain_that_costs_too_much_is_refused() -> None:
    root = foreign()
    above, chain = root, []
    for at in range(4):
        slow = key(f"slow {at}", KeyAlgorithm.EC_P384)
        cert = forge(
            above,
            ISSUING,
            subject_key=slow,
            subject=name(f"CA {at}"),
            end=NOW + 4 * YEAR,
            replace={
                x509.SubjectAlternativeName: None,
                x509.BasicConstraints: (x509.BasicConstraints(True, None), True),
            },
        )
        above = Authority(cert, slow)
        chain.append(cert)
    assert refused([certified(above), *chain], [root]) == ["path-too-long"]


def test_four_times_the_longest_leaf_is_enough() -> None:
    root = mesh().root
    cert = drafted(root, lifetime=5 * HOUR)
    chain_of([cert], [root.certificate], evolve(WANTED, longest_leaf=HOUR))
    late = evolve(WANTED, longest_leaf=HOUR, now=NOW + timedelta(minutes=61))
    assert refused([cert], [root], late) == ["ttl-out-of-range"]


def test_roots_of_ours_and_of_others_may_be_brought_in() -> None:
    ours, theirs = mesh().root.certificate, foreign().certificate
    assert root_problems(ours, MESH, NOW) == root_problems(theirs, MESH, NOW) == []
    assert is_ours(ours, MESH)
    assert not is_ours(theirs, MESH)
    assert not is_ours(ours, OTHER)


BAD_ROOTS: dict[str, tuple[Callable[[], x509.Certificate], list[str]]] = {
    "an issuing CA": (lambda: mesh().issuing.certificate, ["not-a-root", "path-too-long"]),
    "another mesh's": (lambda: mesh(OTHER).root.certificate, ["wrong-trust-domain"]),
    "one that has ended": (
        lambda: forge_root(end=NOW - HOUR, start=NOW - DAY).certificate,
        ["expired"],
    ),
    "a leaf": (
        lambda: forge(None, WORKLOAD, subject_key=key()),
        ["wrong-trust-domain", "not-a-ca", "not-a-ca"],
    ),
    "a weak key": (
        lambda: forge(None, ROOT, subject_key=rsa_key(1024)),
        ["weak-key"],
    ),
    "without an identifier": (
        lambda: forge_root(replace={x509.SubjectKeyIdentifier: None}).certificate,
        ["profile-violation"],
    ),
    "constraints that are not critical": (
        lambda: (
            forge_root(
                replace={x509.BasicConstraints: (x509.BasicConstraints(True, 1), False)}
            ).certificate
        ),
        ["profile-violation"],
    ),
    "signed by another of its name": (
        lambda: forge(forge_root("a"), ROOT, subject_key=key("b")),
        ["not-a-root"],
    ),
}


@pytest.mark.parametrize("what", BAD_ROOTS)
def test_a_root_that_cannot_stand_above_us_is_refused_with_every_reason(what: str) -> None:
    make, codes = BAD_ROOTS[what]
    found = root_problems(make(), MESH, NOW)
    assert [problem.code for problem in found] == codes
    assert all(problem.remedy for problem in found)
