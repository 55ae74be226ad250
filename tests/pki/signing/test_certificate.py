"""Whoever has the CA's process asks for certificates: each rule has a forged one that it alone refuses."""

from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import Any

import pytest
from attrs import evolve
from cryptography import x509
from cryptography.x509.name import _ASN1Type
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID, NameOID

from pki.der import INTEGER, SEQUENCE, element, elements
from pki.issuing.profile import (
    ISSUING,
    ISSUING_NAME,
    OCSP_RESPONDER,
    ROOT,
    ROOT_NAME,
    WORKLOAD,
    Profile,
    ca_subject,
    responder_subject,
)
from pki.issuing.unsigned import assemble, lay_out
from pki.keys import PublicKey, key_identifier, spki_der
from pki.serial import new_serial
from pki.signing.errors import NotSignable, SigningRefused
from pki.signing.policy import SigningPolicy
from pki.spiffe import SpiffePattern
from pki.svid.names import alternative_names, subject_for
from pki.svid.spki_pin import SpkiHash
from tests.authorities import BACKEND, DAY, HOUR, MESH, NOW, OTHER, key
from tests.pki.signing.conftest import Rig
from tests.pki.signing.remembered import JudgedKey

BACK = timedelta(seconds=30)
THIEF = key("the thief's").public_key
_NAMES = alternative_names(BACKEND)


def forged(
    by: JudgedKey,
    issuer: x509.Name,
    profile: Profile = WORKLOAD,
    *,
    subject: x509.Name | None = None,
    public_key: PublicKey = THIEF,
    names: x509.SubjectAlternativeName | None = _NAMES,
    begins: datetime = NOW - BACK,
    ends: datetime = NOW + HOUR,
    serial: int = 0,
    identifier: bytes = b"",
    more: tuple[x509.ExtensionType, ...] = (),
) -> bytes:
    """What is to be signed, as a CA of ours would write it but for what is said."""
    subject = subject_for(BACKEND) if subject is None else subject
    own = identifier or key_identifier(spki_der(by.public_key))
    builder = (
        x509.CertificateBuilder()
        .serial_number(serial or new_serial())
        .issuer_name(issuer)
        .subject_name(subject)
        .public_key(public_key)
        .not_valid_before(begins)
        .not_valid_after(ends)
        .add_extension(profile.basic_constraints, critical=True)
        .add_extension(profile.key_usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier(own, None, None), critical=False)
    )
    if names is not None:
        builder = builder.add_extension(names, critical=not subject.rdns)
    if profile.extended:
        builder = builder.add_extension(x509.ExtendedKeyUsage(profile.extended), critical=False)
    if profile.is_responder:
        builder = builder.add_extension(x509.OCSPNoCheck(), critical=False)
    for value in more:
        builder = builder.add_extension(value, critical=False)
    return lay_out(builder, by).tbs_certificate_bytes


def leaf(rig: Rig, **said: Any) -> bytes:
    return forged(rig.issuing_key, rig.issuing.certificate.subject, **said)


def ca(rig: Rig, **said: Any) -> bytes:
    said = {
        "subject": ca_subject(ISSUING_NAME, MESH, 2),
        "names": alternative_names(MESH.id),
        "ends": NOW + 300 * DAY,
        **said,
    }
    return forged(rig.root_key, rig.root.certificate.subject, ISSUING, **said)


def refused(rig: Rig, key: JudgedKey, data: bytes, rule: str) -> None:
    before = dict(rig.memory.known)
    with pytest.raises(SigningRefused) as caught:
        key.judge(data)
    assert caught.value.rule == rule, str(caught.value)
    assert caught.value.problems[0].rule == rule
    assert rig.memory.known == before


def test_what_is_forged_below_would_be_good_otherwise(rig: Rig) -> None:
    rig.issuing_key.judge(leaf(rig))
    own = JudgedKey.made("issuing", key("next"), rig.policy, rig.memory, NOW)
    rig.root_key.judge(ca(rig, public_key=own.public_key))


# By an issuing CA's key.


def test_no_ca_for_the_thiefs_key(rig: Rig) -> None:
    issuer = rig.issuing.certificate.subject
    said: dict[str, Any] = {
        "subject": ca_subject(ISSUING_NAME, MESH, 2),
        "names": alternative_names(MESH.id),
    }
    refused(rig, rig.issuing_key, forged(rig.issuing_key, issuer, ISSUING, **said), "no-ca")
    certifies = evolve(WORKLOAD, usages=frozenset({"digital_signature", "key_cert_sign"}))
    refused(rig, rig.issuing_key, forged(rig.issuing_key, issuer, certifies), "no-ca")
    # Nor one that nobody has said to be a CA or not.
    lists = evolve(WORKLOAD, usages=frozenset({"digital_signature", "crl_sign"}))
    refused(rig, rig.issuing_key, forged(rig.issuing_key, issuer, lists), "profile")


def test_no_other_name_space(rig: Rig) -> None:
    for names, rule in (
        (alternative_names(OTHER.member("service", "admin")), "trust-domain"),
        (alternative_names(MESH.id), "profile"),
        (x509.SubjectAlternativeName([x509.DNSName("mesh.local")]), "spiffe-id"),
        (
            x509.SubjectAlternativeName(
                [x509.UniformResourceIdentifier(str(t.member("a"))) for t in (MESH, OTHER)]
            ),
            "spiffe-id",
        ),
        (
            x509.SubjectAlternativeName([x509.UniformResourceIdentifier("https://mesh.local/a")]),
            "spiffe-id",
        ),
        (
            x509.SubjectAlternativeName(
                [x509.UniformResourceIdentifier("spiffe://mesh.local/a/%2e%2e/b")]
            ),
            "spiffe-id",
        ),
        (
            x509.SubjectAlternativeName(
                [*alternative_names(BACKEND), x509.RFC822Name("root@mesh.local")]
            ),
            "host-names",
        ),
        (None, "spiffe-id"),
    ):
        refused(rig, rig.issuing_key, leaf(rig, names=names), rule)


def test_only_the_names_that_the_policy_has() -> None:
    rig = Rig(
        SigningPolicy(
            MESH,
            names=(SpiffePattern.parse("spiffe://mesh.local/service/*"),),
            dns_names=("localhost", "*.mesh.local"),
            ip_addresses=False,
            publication=("https://ca.mesh.local/",),
        )
    )
    for allowed in ("localhost", "a.mesh.local", "a.b.mesh.local"):
        rig.issuing_key.judge(leaf(rig, names=alternative_names(BACKEND, [allowed])))
    for names, rule in (
        (alternative_names(MESH.member("mesh", "ca")), "names"),
        (alternative_names(BACKEND, ["bank.example"]), "host-names"),
        (alternative_names(BACKEND, ["mesh.local"]), "host-names"),
        (alternative_names(BACKEND, ["evilmesh.local"]), "host-names"),
        (alternative_names(BACKEND, [], [ip_address("192.0.2.1")]), "host-names"),
    ):
        refused(rig, rig.issuing_key, leaf(rig, names=names), rule)
    point = x509.UniformResourceIdentifier("https://evil.example/crl")
    points = x509.CRLDistributionPoints([x509.DistributionPoint([point], None, None, None)])
    refused(rig, rig.issuing_key, leaf(rig, more=(points,)), "publication")
    method = AuthorityInformationAccessOID.OCSP
    access = x509.AuthorityInformationAccess([x509.AccessDescription(method, point)])
    refused(rig, rig.issuing_key, leaf(rig, more=(access,)), "publication")


def test_no_long_life_and_no_other_time(rig: Rig) -> None:
    minute = timedelta(minutes=1)
    for begins, ends, rule in (
        (NOW - BACK, NOW + DAY + 2 * minute, "profile"),
        (NOW - BACK, NOW + 3650 * DAY, "profile"),
        (NOW - BACK, NOW + 366 * DAY, "profile"),  # past its issuer
        (NOW - HOUR, NOW + HOUR, "clock"),
        (NOW + HOUR, NOW + 2 * HOUR, "clock"),
        (NOW - 2 * HOUR, NOW - HOUR, "clock"),
        (NOW - BACK, NOW - timedelta(seconds=1), "profile"),
    ):
        refused(rig, rig.issuing_key, leaf(rig, begins=begins, ends=ends), rule)


def test_the_signers_clock_counts_and_not_the_cas(rig: Rig) -> None:
    """A thief keeps what was drafted today, or drafts for tomorrow."""
    data = leaf(rig)
    for now in (NOW - 10 * DAY, NOW + 2 * HOUR, NOW + 10 * DAY):
        rig.issuing_key.now = now
        with pytest.raises(SigningRefused):
            rig.issuing_key.judge(data)


def test_no_other_subject_issuer_or_key_identifier(rig: Rig) -> None:
    common = x509.NameAttribute(NameOID.COMMON_NAME, "backend")
    organisation = x509.NameAttribute(NameOID.ORGANIZATION_NAME, "A Bank")
    for said, rule in (
        ({"subject": x509.Name([common, organisation])}, "subject"),
        ({"subject": x509.Name([organisation])}, "subject"),
        ({"subject": rig.issuing.certificate.subject}, "subject"),
        ({"identifier": b"i" * 20}, "profile"),
        ({"serial": 1}, "profile"),
        ({"serial": (1 << 159) - 1}, None),
        ({"more": (x509.InhibitAnyPolicy(0),)}, "profile"),
        ({"public_key": _small()}, "profile"),
    ):
        if rule is None:
            rig.issuing_key.judge(leaf(rig, **said))
        else:
            refused(rig, rig.issuing_key, leaf(rig, **said), rule)
    for issuer in (
        rig.root.certificate.subject,
        ca_subject(ISSUING_NAME, OTHER, 1),
        ca_subject(ISSUING_NAME, MESH, 7),
    ):
        refused(rig, rig.issuing_key, forged(rig.issuing_key, issuer), "issuer")


def _small() -> PublicKey:
    from tests.authorities import rsa_key

    return rsa_key(1024).public_key()


def test_a_ca_that_was_never_shown_is_one_of_the_trust_domain(rig: Rig) -> None:
    rig.memory.certificates.clear()
    rig.issuing_key.judge(forged(rig.issuing_key, ca_subject(ISSUING_NAME, MESH, 7)))
    for issuer in (
        ca_subject(ISSUING_NAME, OTHER, 1),
        ca_subject(ROOT_NAME, MESH, 1),
        ca_subject(ISSUING_NAME, MESH, 0),
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "A Bank's CA")]),
    ):
        refused(rig, rig.issuing_key, forged(rig.issuing_key, issuer), "issuer")


def test_no_serial_twice(rig: Rig) -> None:
    """Else one certificate is revoked, and the other called so too, or neither."""
    serial = new_serial()
    data = leaf(rig, serial=serial)
    rig.issuing_key.judge(data)
    assert rig.issuing_key.judge(data).effect is None, "the same again is the same"
    refused(rig, rig.issuing_key, leaf(rig, serial=serial, ends=NOW + 2 * HOUR), "serial-reuse")


def test_a_responder_lives_for_a_day_and_is_nothing_else(rig: Rig) -> None:
    issuer = rig.issuing.certificate.subject
    named = {"subject": responder_subject(issuer), "names": None}
    responder = forged(rig.issuing_key, issuer, OCSP_RESPONDER, **named)  # type: ignore[arg-type]
    rig.issuing_key.judge(responder)
    both = evolve(
        OCSP_RESPONDER,
        extended=(ExtendedKeyUsageOID.OCSP_SIGNING, ExtendedKeyUsageOID.CLIENT_AUTH),
    )
    for profile, said, rule in (
        (OCSP_RESPONDER, {"ends": NOW + 2 * DAY}, "profile"),
        (OCSP_RESPONDER, {"subject": subject_for(BACKEND)}, "subject"),
        (OCSP_RESPONDER, {"names": alternative_names(BACKEND)}, "profile"),
        (both, {}, "profile"),
    ):
        data = forged(rig.issuing_key, issuer, profile, **{**named, **said})  # type: ignore[arg-type]
        refused(rig, rig.issuing_key, data, rule)


# By a root's key.


def test_a_root_certifies_no_key_that_can_be_taken_away(rig: Rig) -> None:
    refused(rig, rig.root_key, ca(rig), "ca-key")
    refused(rig, rig.root_key, ca(rig, public_key=rig.audit_key.public_key), "ca-key")
    refused(rig, rig.root_key, ca(rig, public_key=rig.root_key.public_key), "trust-domain")


def test_but_one_that_a_person_has_approved(rig: Rig) -> None:
    rig.memory.approved.add(spki_der(THIEF))
    rig.root_key.judge(ca(rig))
    refused(rig, rig.root_key, ca(rig, public_key=key("another").public_key), "ca-key")


def test_the_pin_is_told_that_is_to_be_approved(rig: Rig) -> None:
    with pytest.raises(SigningRefused, match=r"mesh-signer approve sha256/") as caught:
        rig.root_key.judge(ca(rig))
    assert str(SpkiHash.of_spki(spki_der(THIEF))) in caught.value.remedy


def test_a_root_signs_nothing_else(rig: Rig) -> None:
    issuer = rig.root.certificate.subject
    held = {"public_key": rig.issuing_key.public_key}
    refused(rig, rig.root_key, forged(rig.root_key, issuer), "root-signs-cas")
    for said, rule in (
        ({"subject": ca_subject(ISSUING_NAME, OTHER, 2)}, "trust-domain"),
        ({"names": alternative_names(OTHER.id)}, "trust-domain"),
        ({"names": alternative_names(BACKEND)}, "trust-domain"),
        ({"names": None}, "trust-domain"),
        ({"names": alternative_names(MESH.id, ["bank.example"])}, "trust-domain"),
        ({"ends": NOW + 367 * DAY}, "profile"),
        ({"begins": NOW - DAY}, "clock"),
    ):
        refused(rig, rig.root_key, ca(rig, **{**held, **said}), rule)
    deep = evolve(ISSUING, path_length=1)
    said = {"subject": ca_subject(ISSUING_NAME, MESH, 2), "names": alternative_names(MESH.id)}
    refused(rig, rig.root_key, forged(rig.root_key, issuer, deep, **held, **said), "profile")  # type: ignore[arg-type]


def test_a_root_is_its_own_and_lives_ten_years(rig: Rig) -> None:
    name = ca_subject(ROOT_NAME, MESH, 1)
    own: dict[str, Any] = {
        "subject": name,
        "names": alternative_names(MESH.id),
        "public_key": rig.root_key.public_key,
    }
    rig.root_key.judge(forged(rig.root_key, name, ROOT, **{**own, "ends": NOW + 3650 * DAY}))
    for said, rule in (
        ({"public_key": THIEF}, "ca-key"),
        ({"ends": NOW + 3700 * DAY}, "profile"),
        ({"names": alternative_names(OTHER.id)}, "trust-domain"),
        ({"subject": ca_subject(ROOT_NAME, OTHER, 1)}, "trust-domain"),
    ):
        refused(rig, rig.root_key, forged(rig.root_key, name, ROOT, **{**own, **said}), rule)
    # A root that another root has certified would bring a stolen one back to life.
    other = JudgedKey.made("root", key("other root"), rig.policy, rig.memory, NOW)
    cross = forged(other, name, ROOT, **own)
    refused(rig, other, cross, "ca-key")


# What it is written like.


def test_nothing_is_signed_that_another_reader_may_read_otherwise(rig: Rig) -> None:
    data = leaf(rig, serial=(1 << 100) + 1)
    (whole,) = elements(data)
    version, serial, *rest = elements(whole.content)
    tail = b"".join(part.whole for part in rest)
    padded = element(INTEGER, b"\0" + serial.content)
    unique = element(0x81, b"\0id")
    spoiled: tuple[bytes, ...] = (
        data + b"\0",
        element(SEQUENCE, version.whole + padded + tail),
        element(SEQUENCE, version.whole + serial.whole + tail + unique),
        element(SEQUENCE, serial.whole + tail),
        b"\x30\x83\x00" + len(whole.content).to_bytes(2, "big") + whole.content,
        data[:-1],
        element(SEQUENCE, whole.content + whole.content),
        data.replace(
            b"\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x02",
            b"\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x03",
            1,
        ),
    )
    for forged_data in spoiled:
        with pytest.raises(NotSignable):
            rig.issuing_key.judge(forged_data)
    rig.issuing_key.judge(data)


def test_an_extension_that_is_marked_otherwise_is_refused(rig: Rig) -> None:
    usage = bytes.fromhex("0603551d0f0101ff")
    data = leaf(rig)
    assert usage in data
    with pytest.raises((NotSignable, SigningRefused)):
        rig.issuing_key.judge(data.replace(usage, bytes.fromhex("0603551d0f010100")))


@pytest.mark.parametrize("purpose", ["audit_key", "root_key"])
def test_each_key_has_one_purpose(rig: Rig, purpose: str) -> None:
    wrong: JudgedKey = getattr(rig, purpose)
    with pytest.raises((NotSignable, SigningRefused)):
        wrong.judge(forged(rig.issuing_key, rig.issuing.certificate.subject))


# What others read otherwise than the judge.


def spelt(name: x509.Name) -> x509.Name:
    """The same text in strings of another type, which cryptography takes for the same name."""
    other = x509.Name(
        [x509.NameAttribute(each.oid, each.value, _ASN1Type.PrintableString) for each in name]
    )
    assert other == name and other.public_bytes() != name.public_bytes()
    return other


def test_no_name_in_another_spelling(rig: Rig) -> None:
    """Go compares names by their bytes and OpenSSL does not: whoever revokes by one spelling misses the other."""
    issuer = rig.issuing.certificate.subject
    refused(rig, rig.issuing_key, forged(rig.issuing_key, spelt(issuer)), "issuer")
    refused(rig, rig.issuing_key, leaf(rig, subject=spelt(subject_for(BACKEND))), "subject")
    own = JudgedKey.made("issuing", key("next"), rig.policy, rig.memory, NOW)
    data = ca(rig, public_key=own.public_key, subject=spelt(ca_subject(ISSUING_NAME, MESH, 2)))
    refused(rig, rig.root_key, data, "trust-domain")
    fresh = forged(own, spelt(ca_subject(ISSUING_NAME, MESH, 2)))
    refused(rig, own, fresh, "issuer")


@pytest.mark.parametrize(
    "host", ["bank.example\0.mesh.local", ".mesh.local", "*.mesh.local", "bank.example/.mesh.local"]
)
def test_no_host_name_that_is_none(host: str) -> None:
    """Many a reader in C ends a name where there is a zero."""
    for policy in (SigningPolicy(MESH), SigningPolicy(MESH, dns_names=("*.mesh.local",))):
        rig = Rig(policy)
        names = x509.SubjectAlternativeName([*_NAMES, x509.DNSName(host)])
        refused(rig, rig.issuing_key, leaf(rig, names=names), "host-names")


def test_a_common_name_is_no_way_around_the_policys_hosts() -> None:
    """OpenSSL and curl look for a host there, where a certificate has no DNS name."""
    rig = Rig(SigningPolicy(MESH, dns_names=("*.mesh.local",), ip_addresses=False))
    for common in ("bank.example", "Bank.Example", "10.0.0.1"):
        data = leaf(rig, subject=subject_for(BACKEND, common))
        refused(rig, rig.issuing_key, data, "host-names")
    for common in ("backend", "db.mesh.local", "reads: a.b"):
        rig.issuing_key.judge(leaf(rig, subject=subject_for(BACKEND, common)))
    free = Rig()
    free.issuing_key.judge(leaf(free, subject=subject_for(BACKEND, "bank.example")))
    refused(free, free.issuing_key, leaf(free, subject=subject_for(BACKEND, "a\0b")), "subject")


def test_publication_at_a_host_is_not_at_one_that_begins_so() -> None:
    rig = Rig(SigningPolicy(MESH, publication=("http://ca.mesh", "http://crl.mesh/crl-")))

    def points(url: str) -> bytes:
        name = [x509.UniformResourceIdentifier(url)]
        return leaf(
            rig,
            more=(x509.CRLDistributionPoints([x509.DistributionPoint(name, None, None, None)]),),
        )

    for url in (
        "http://ca.mesh.evil.example/",
        "http://ca.mesh@evil.example/",
        "http://ca.mesh:1/",
    ):
        refused(rig, rig.issuing_key, points(url), "publication")
    for url in ("http://ca.mesh", "http://ca.mesh/crl", "http://crl.mesh/crl-7"):
        rig.issuing_key.judge(points(url))


def test_the_authority_is_known_by_its_key_and_nothing_else(rig: Rig) -> None:
    found = x509.load_der_x509_certificate(
        assemble(leaf(rig), rig.issuing_key.algorithm.identifier)
    )
    builder = (
        x509.CertificateBuilder()
        .serial_number(found.serial_number)
        .issuer_name(found.issuer)
        .subject_name(found.subject)
        .public_key(THIEF)
        .not_valid_before(found.not_valid_before_utc)
        .not_valid_after(found.not_valid_after_utc)
    )
    own = key_identifier(spki_der(rig.issuing_key.public_key))
    named = x509.AuthorityKeyIdentifier(own, [x509.DirectoryName(found.issuer)], 5)
    for each in found.extensions:
        value = named if isinstance(each.value, x509.AuthorityKeyIdentifier) else each.value
        builder = builder.add_extension(value, critical=each.critical)
    refused(
        rig, rig.issuing_key, lay_out(builder, rig.issuing_key).tbs_certificate_bytes, "profile"
    )


def test_dates_at_the_end_of_time_are_refused_as_others_are(rig: Rig) -> None:
    """And end nothing else: what is judged with them in one batch would have gone under."""
    end = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
    fresh = JudgedKey.made("issuing", key("next"), rig.policy, rig.memory, NOW)
    for one, issuer in (
        (rig.issuing_key, rig.issuing.certificate.subject),
        (fresh, ca_subject(ISSUING_NAME, MESH, 2)),
    ):
        refused(rig, one, forged(one, issuer, begins=end - BACK, ends=end), "clock")


def test_a_generation_of_ten_thousand_digits_is_no_crash(rig: Rig) -> None:
    fresh = JudgedKey.made("issuing", key("next"), rig.policy, rig.memory, NOW)
    unit = x509.NameAttribute(
        NameOID.ORGANIZATIONAL_UNIT_NAME, "generation " + "9" * 10_000, _validate=False
    )
    with pytest.raises(NotSignable):
        fresh.judge(forged(fresh, x509.Name([unit])))
