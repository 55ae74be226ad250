"""The authority: what it issues, and that it signs nothing else."""

import asyncio
from datetime import UTC, datetime, timedelta
from functools import cache
from ipaddress import IPv4Address
from typing import Any

import pytest
from attrs import evolve, frozen
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID
from hypothesis import example, given
from hypothesis import strategies as st

from pki.issuing.authority import (
    Authority,
    IssuerExpired,
    LintFailed,
    SigningFailed,
    _lay_out,
    _period,
)
from pki.issuing.csr import IssuanceRequest
from pki.issuing.draft import Draft
from pki.issuing.lint import Draftee, lint
from pki.issuing.profile import BACKDATE, ISSUING, ROOT, WORKLOAD, Profile
from pki.issuing.publication import Publication
from pki.issuing.template import Fields, Template
from pki.issuing.unsigned import algorithm_of
from pki.keys import KeyAlgorithm, MemoryKey, PublicKey, key_id, verify
from pki.spiffe import SpiffeId, TrustDomain
from pki.svid.chain import judge
from pki.svid.names import IPAddress, alternative_names, subject_for
from pki.svid.revocation_set import RevocationSet
from pki.svid.x509svid import Purpose, extension, spiffe_id_of, subject_of
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
)
from tests.pki.strategies import spiffe_ids

ISSUER = mesh().issuing
SECOND = timedelta(seconds=1)
ALGORITHMS = list(KeyAlgorithm)


def draft(authority: Authority = ISSUER, lifetime: timedelta = HOUR, now: datetime = NOW) -> Draft:
    return authority.draft(key(9).public_key, BACKEND, now, lifetime)


def sign(authority: Authority, made: Draft) -> x509.Certificate:
    return asyncio.run(authority.sign(made))


@pytest.mark.slow
@pytest.mark.parametrize("subject", ALGORITHMS)
@pytest.mark.parametrize("issuer", ALGORITHMS)
def test_every_kind_of_key_certifies_every_other(
    issuer: KeyAlgorithm, subject: KeyAlgorithm
) -> None:
    authority = mesh(MESH, key("root", issuer), key("issuing", issuer)).issuing
    made = authority.draft(key("leaf", subject).public_key, BACKEND, NOW, HOUR)
    cert = sign(authority, made)
    assert cert.tbs_certificate_bytes == made.tbs
    assert cert.serial_number == made.serial
    assert cert.signature_hash_algorithm == issuer.hash
    cert.verify_directly_issued_by(authority.certificate)
    assert spiffe_id_of(cert) == BACKEND


def test_root_and_issuing_ca_are_as_their_profiles_say() -> None:
    made = mesh()
    for authority, profile, lifetime in (
        (made.root, ROOT, 3650 * DAY),
        (made.issuing, ISSUING, 365 * DAY),
    ):
        cert = authority.certificate
        constraints = extension(cert, x509.BasicConstraints)
        assert constraints == x509.BasicConstraints(ca=True, path_length=profile.path_length)
        assert extension(cert, x509.KeyUsage) == profile.key_usage
        assert extension(cert, x509.ExtendedKeyUsage) is None
        assert cert.not_valid_before_utc == NOW - BACKDATE
        assert cert.not_valid_after_utc == NOW + lifetime
        names = extension(cert, x509.SubjectAlternativeName)
        assert names is not None
        assert [name.value for name in names] == ["spiffe://mesh.local"]
    assert (ROOT.path_length, ISSUING.path_length) == (1, 0)
    assert made.root.certificate.issuer == made.root.certificate.subject
    made.root.certificate.verify_directly_issued_by(made.root.certificate)
    made.issuing.certificate.verify_directly_issued_by(made.root.certificate)


def test_a_leaf_is_as_its_profile_says() -> None:
    cert = mesh().leaf()
    assert {e.oid: e.critical for e in cert.extensions} == {
        ExtensionOID.BASIC_CONSTRAINTS: True,
        ExtensionOID.KEY_USAGE: True,
        ExtensionOID.EXTENDED_KEY_USAGE: False,
        ExtensionOID.SUBJECT_ALTERNATIVE_NAME: False,
        ExtensionOID.SUBJECT_KEY_IDENTIFIER: False,
        ExtensionOID.AUTHORITY_KEY_IDENTIFIER: False,
    }
    assert extension(cert, x509.BasicConstraints) == x509.BasicConstraints(False, None)
    usage = extension(cert, x509.KeyUsage)
    assert usage is not None
    assert usage.digital_signature
    assert not (usage.key_encipherment or usage.key_agreement or usage.key_cert_sign)
    assert list(extension(cert, x509.ExtendedKeyUsage) or ()) == [
        ExtendedKeyUsageOID.SERVER_AUTH,
        ExtendedKeyUsageOID.CLIENT_AUTH,
    ]
    assert cert.version is x509.Version.v3
    assert cert.not_valid_before_utc == NOW - BACKDATE
    assert cert.not_valid_after_utc == NOW + HOUR


def test_names_of_hosts_follow_the_spiffe_id() -> None:
    made = ISSUER.draft(
        key(9).public_key,
        BACKEND,
        NOW,
        HOUR,
        dns_names=["backend.mesh.local"],
        ip_addresses=[IPv4Address("127.0.0.1")],
    )
    names = extension(sign(ISSUER, made), x509.SubjectAlternativeName)
    assert names is not None
    assert [name.value for name in names] == [
        str(BACKEND),
        "backend.mesh.local",
        IPv4Address("127.0.0.1"),
    ]


def test_an_id_too_long_for_a_subject_makes_the_alternative_name_critical() -> None:
    long = MESH.member("service", "x" * 65)
    cert = sign(ISSUER, ISSUER.draft(key(9).public_key, long, NOW, HOUR))
    assert not cert.subject.rdns
    assert cert.extensions.get_extension_for_class(x509.SubjectAlternativeName).critical
    assert spiffe_id_of(cert) == long


def test_a_greedy_csr_gets_a_plain_leaf() -> None:
    greedy = (
        csr_builder()
        .add_extension(ISSUING.basic_constraints, critical=True)
        .add_extension(ISSUING.key_usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.OCSP_SIGNING]), critical=True)
        .sign(key(9).private_key, KeyAlgorithm.EC_P256.hash)
    )
    request = IssuanceRequest.parse(
        greedy.public_bytes(serialization.Encoding.PEM), str(BACKEND), trust_domain=MESH
    )
    cert = sign(ISSUER, ISSUER.draft(request.public_key, request.spiffe_id, NOW, HOUR))
    plain = mesh().leaf()
    assert [(e.oid, e.critical, e.value) for e in cert.extensions] == [
        (e.oid, e.critical, e.value) for e in plain.extensions
    ]
    assert lint(Draftee(cert, ISSUER.certificate, WORKLOAD, NOW)) == []


@given(
    spiffe_ids.filter(lambda i: bool(i.path)),
    st.timedeltas(SECOND, DAY),
    st.timedeltas(timedelta(), 364 * DAY),
)
def test_whatever_is_drafted_passes_the_lints_and_stays_within_its_issuer(
    spiffe_id: SpiffeId, lifetime: timedelta, later: timedelta
) -> None:
    now = NOW + later
    unsigned = ISSUER.draft(key(9).public_key, spiffe_id, now, lifetime).unsigned
    assert lint(Draftee(unsigned, ISSUER.certificate, WORKLOAD, now)) == []
    limits = ISSUER.certificate
    assert limits.not_valid_before_utc <= unsigned.not_valid_before_utc <= now
    assert now < unsigned.not_valid_after_utc <= limits.not_valid_after_utc
    assert unsigned.not_valid_after_utc - now <= lifetime + SECOND


@given(spiffe_ids.map(lambda i: i.trust_domain), st.integers(1, 10**6))
def test_a_ca_can_be_made_for_any_trust_domain(trust_domain: TrustDomain, generation: int) -> None:
    async def make() -> Authority:
        root = await Authority.create_root(key(1), trust_domain, NOW, generation)
        return await root.create_issuing(key(2), trust_domain, NOW, generation)

    issuing = asyncio.run(make())
    assert f"generation {generation}" in issuing.name
    assert issuing.intermediates == (issuing.certificate,)


def test_the_longest_trust_domain_fits_into_a_ca() -> None:
    made = mesh(TrustDomain("a" * 255))
    assert "a" * 63 + "~" in made.root.name
    assert spiffe_id_of(made.leaf()) == made.trust_domain.member("service", "backend")


def test_a_leaf_is_cut_to_the_end_of_its_issuer() -> None:
    short = forge_issuing(mesh().root, end=NOW + 600 * SECOND)
    assert draft(short, lifetime=HOUR).unsigned.not_valid_after_utc == NOW + 600 * SECOND
    assert draft(short, lifetime=HOUR / 12).unsigned.not_valid_after_utc == NOW + HOUR / 12


def test_a_leaf_begins_no_sooner_than_its_issuer() -> None:
    young = forge_issuing(mesh().root, start=NOW - SECOND)
    assert draft(young).unsigned.not_valid_before_utc == NOW - SECOND


@pytest.mark.parametrize("now", [NOW - DAY, NOW + DAY + SECOND])
def test_an_issuer_out_of_its_time_issues_nothing(now: datetime) -> None:
    issuer = forge_issuing(forge_root(), end=NOW + DAY)
    with pytest.raises(
        IssuerExpired, match=r"is not valid now: check .* clock, or renew the CA"
    ) as e:
        draft(issuer, now=now)
    assert e.value.code == "issuer-expired"


def test_a_draft_that_breaks_a_rule_is_not_made() -> None:
    with pytest.raises(LintFailed, match="the life is longer than the profile") as refusal:
        draft(lifetime=25 * HOUR)
    assert refusal.value.code == "lint"
    with pytest.raises(LintFailed, match="has a path"):
        ISSUER.draft(key(9).public_key, MESH.id, NOW, HOUR)
    with pytest.raises(IssuerExpired, match="could be valid"):
        draft(lifetime=-SECOND)


def test_a_leaf_key_with_a_weakness_is_not_certified() -> None:
    with pytest.raises(LintFailed, match="1024"):
        ISSUER.draft(rsa_key(1024).public_key(), BACKEND, NOW, HOUR)


def test_a_ca_below_an_issuing_ca_is_not_made() -> None:
    with pytest.raises(LintFailed, match="leaves no room"):
        asyncio.run(ISSUER.create_issuing(key(3), MESH, NOW))


def test_an_issuing_ca_signs_no_draft_but_its_own() -> None:
    made = mesh()
    twin = Authority(made.issuing.certificate, made.issuing.key, made.issuing.intermediates)
    for other in (made.root, twin, mesh(TrustDomain("other.example")).issuing):
        with pytest.raises(SigningFailed, match="not made by this authority"):
            sign(other, draft(made.issuing))


def test_a_draft_from_elsewhere_is_not_signed() -> None:
    own = draft()
    for fake in (evolve(own, seal=object()), evolve(own, seal=None)):
        with pytest.raises(SigningFailed):
            sign(ISSUER, fake)


def test_a_signer_sees_the_bytes_of_each_certificate_once_and_nothing_else() -> None:
    seen: list[bytes] = []

    class Recording(Forwarding):
        async def sign(self, data: bytes) -> bytes:
            seen.append(data)
            return await self.inner.sign(data)

    signer = Recording(key("root"))
    root = asyncio.run(Authority.create_root(signer, MESH, NOW))
    issuing = asyncio.run(root.create_issuing(key("issuing"), MESH, NOW))
    assert seen == [
        root.certificate.tbs_certificate_bytes,
        issuing.certificate.tbs_certificate_bytes,
    ]


@frozen
class Forwarding:
    """A signer that is no MemoryKey: on a token, say."""

    inner: MemoryKey

    @property
    def algorithm(self) -> KeyAlgorithm:
        return self.inner.algorithm

    @property
    def public_key(self) -> PublicKey:
        return self.inner.public_key

    async def sign(self, data: bytes) -> bytes:
        await asyncio.sleep(0)
        return await self.inner.sign(data)


def test_the_bytes_that_are_signed_are_those_that_were_linted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    linted: list[bytes] = []
    read = Template._read

    def spy(draftee: Draftee) -> list[object]:
        linted.append(draftee.cert.tbs_certificate_bytes)
        return []

    def spy_gaps(template: Template, tbs: bytes) -> Fields:
        linted.append(tbs)
        return read(template, tbs)

    issuer = Authority(ISSUER.certificate, ISSUER.key)
    monkeypatch.setattr("pki.issuing.authority.lint", spy)
    monkeypatch.setattr(Template, "_read", spy_gaps)
    first, second = draft(issuer), draft(issuer)
    # The throwaway draft in full and as a template; the first one's gaps, and it in full; the second one's gaps.
    assert linted[2:] == [first.tbs, first.tbs, second.tbs]
    assert linted[0] == linted[1] != first.tbs
    for made in (first, second):
        cert = sign(issuer, made)
        assert cert.tbs_certificate_bytes == made.tbs
        verify(issuer.key.public_key, cert.signature, made.tbs, issuer.key.algorithm.hash)


def test_a_shape_is_linted_in_full_once_and_again_for_another_profile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    linted: list[str] = []

    def spy(draftee: Draftee) -> list[object]:
        linted.append(draftee.profile.name)
        return []

    monkeypatch.setattr("pki.issuing.authority.lint", spy)
    issuer = Authority(ISSUER.certificate, ISSUER.key)
    long = MESH.member("service", "x" * 65)

    def fresh(**asked: Any) -> int:
        before = len(linted)
        for _ in range(2):
            issuer.draft(
                **{"public_key": key(9).public_key, "spiffe_id": BACKEND, **asked},
                now=NOW,
                lifetime=HOUR,
            )
        return len(linted) - before

    assert fresh() == 2  # one for a throwaway key, and the first one itself
    assert fresh(dns_names=["a"]) == 1
    assert fresh(ip_addresses=[IPv4Address("127.0.0.1")]) == 1
    assert fresh(public_key=key(9, KeyAlgorithm.EC_P384).public_key) == 1
    assert fresh(spiffe_id=long) == 2
    assert fresh(spiffe_id=long) == fresh() == 0
    issuer.workload = evolve(WORKLOAD, name="other")
    assert fresh() == 2
    assert linted[-1] == "other"


def test_a_profile_that_breaks_a_rule_gives_no_draft() -> None:
    greedy = Authority(ISSUER.certificate, ISSUER.key, workload=evolve(WORKLOAD, extended=()))
    with pytest.raises(LintFailed, match="does not allow serverAuth"):
        draft(greedy)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_draft_tells_what_the_store_keeps_of_it(algorithm: KeyAlgorithm) -> None:
    public_key = key("leaf", algorithm).public_key
    for spiffe_id in (BACKEND, MESH.member("service", "x" * 65)):
        made = ISSUER.draft(public_key, spiffe_id, NOW, HOUR)
        assert made.serial == made.unsigned.serial_number
        assert made.subject == subject_of(made.unsigned)
        assert made.not_after == made.unsigned.not_valid_after_utc
        assert made.spki_digest == key_id(made.unsigned.public_key())


@given(
    spiffe_ids.filter(lambda i: bool(i.path)),
    st.tuples(st.sampled_from(ALGORITHMS), st.sampled_from(ALGORITHMS)),
    st.tuples(
        st.lists(st.from_regex(r"[a-z0-9.-]{1,200}", fullmatch=True), max_size=5),
        st.lists(st.ip_addresses(), max_size=5),
    ),
    st.datetimes(datetime(2027, 1, 1), datetime(2060, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001
    st.timedeltas(SECOND, DAY),
)
@example(BACKEND, (ALGORITHMS[0],) * 2, ([], []), datetime(2049, 12, 31, 23, tzinfo=UTC), DAY)
@example(BACKEND, (ALGORITHMS[0],) * 2, ([], []), datetime(2050, 1, 1, tzinfo=UTC), DAY)
def test_a_template_and_the_builder_lay_out_the_same_bytes(
    spiffe_id: SpiffeId,
    algorithms: tuple[KeyAlgorithm, KeyAlgorithm],
    hosts: tuple[list[str], list[IPAddress]],
    now: datetime,
    lifetime: timedelta,
) -> None:
    issuer, public_key = lasting(algorithms[0]), key("leaf", algorithms[1]).public_key
    dns_names, ip_addresses = hosts
    made = issuer.draft(
        public_key, spiffe_id, now, lifetime, dns_names=dns_names, ip_addresses=ip_addresses
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pki.issuing.authority.new_serial", lambda: made.serial)
        built = _lay_out(
            WORKLOAD,
            issuer.certificate,
            issuer.key,
            subject=subject_for(spiffe_id),
            public_key=public_key,
            names=alternative_names(spiffe_id, dns_names, ip_addresses),
            period=_period(issuer, now, lifetime),
            now=now,
        )
    assert made.tbs == built.tbs_certificate_bytes
    assert made.algorithm == algorithm_of(built)
    assert made.unsigned == built


@cache
def lasting(algorithm: KeyAlgorithm) -> Authority:
    """An issuing CA that lives beyond 2049."""
    end = datetime(2070, 1, 1, tzinfo=UTC)
    root = forge_root(end=end)
    issuing_key = key("lasting", algorithm)
    certificate = forge(root, ISSUING, subject_key=issuing_key, end=end)
    return Authority(certificate, issuing_key, (certificate,))


@pytest.mark.parametrize(
    "answer",
    [b"", b"garbage", bytes(64), b"\x30\x06\x02\x01\x01\x02\x01\x01", b"\0" * 256],
    ids=len,
)
@pytest.mark.parametrize("algorithm", [KeyAlgorithm.EC_P256, KeyAlgorithm.RSA_2048])
def test_a_signer_that_lies_issues_nothing(algorithm: KeyAlgorithm, answer: bytes) -> None:
    class Lying(Forwarding):
        async def sign(self, data: bytes) -> bytes:
            return answer

    liar = Lying(key("root", algorithm))
    with pytest.raises(SigningFailed, match="no signature of its key: nothing was issued") as e:
        asyncio.run(Authority.create_root(liar, MESH, NOW))
    assert e.value.code == "signing-failed"


def test_a_signer_that_signs_something_else_issues_nothing() -> None:
    class Meddling(Forwarding):
        async def sign(self, data: bytes) -> bytes:
            return await self.inner.sign(data + b"\0")

    with pytest.raises(SigningFailed):
        asyncio.run(Authority.create_root(Meddling(key()), MESH, NOW))


def test_an_authority_needs_the_key_of_its_certificate() -> None:
    with pytest.raises(
        SigningFailed, match=r"does not belong to the certificate of .*mtls-mesh-root-ca"
    ):
        Authority(mesh().root.certificate, key(1))


def test_an_authority_is_named_by_its_subject_and_its_key() -> None:
    assert ISSUER.name == "CN=mtls-mesh-issuing-ca,OU=generation 1,O=mesh.local"
    assert ISSUER.key_id == key_id(ISSUER.certificate.public_key())


def test_an_issuer_without_a_key_identifier_lends_leaves_the_hash_of_its_key() -> None:
    issuer = forge_issuing(mesh().root, replace={x509.SubjectKeyIdentifier: None})
    with pytest.raises(LintFailed, match="authority key identifier is not the issuer's"):
        draft(issuer)


def test_no_secret_shows_in_an_authority_or_a_draft() -> None:
    assert "seal" not in repr(draft())
    assert "private" not in repr(ISSUER).lower()


@pytest.mark.parametrize("profile", [ROOT, ISSUING, WORKLOAD], ids=lambda p: p.name)
def test_profiles_tell_cas_from_leaves(profile: Profile) -> None:
    assert profile.is_ca == (profile is not WORKLOAD)
    assert profile.basic_constraints.ca == profile.is_ca


def test_serials_never_repeat() -> None:
    assert len({draft().serial for _ in range(50)}) == 50


# What is published, and who answers for the CA

PLACES = Publication("http://ca.example/crl", "http://ca.example/ocsp", "https://ca.example/ca")


def values(cert: x509.Certificate) -> dict[str, bool]:
    return {type(e.value).__name__: e.critical for e in cert.extensions}


@pytest.mark.parametrize(
    ("publication", "added"),
    [
        (PLACES, {"CRLDistributionPoints", "AuthorityInformationAccess"}),
        (Publication(crl_url="http://ca.example/crl"), {"CRLDistributionPoints"}),
        (Publication(ocsp_url="http://ca.example/ocsp"), {"AuthorityInformationAccess"}),
        (Publication(), set()),
    ],
)
def test_a_leaf_says_where_its_ca_publishes(publication: Publication, added: set[str]) -> None:
    issuer = Authority(
        ISSUER.certificate, ISSUER.key, workload=evolve(WORKLOAD, publication=publication)
    )
    plain = sign(ISSUER, draft(ISSUER))
    for _ in range(2):  # of which the second comes out of the template
        cert = sign(issuer, draft(issuer))
        assert set(values(cert)) - set(values(plain)) == added
        assert not any(values(cert)[name] for name in added)
        if points := publication.distribution_points:
            found = cert.extensions.get_extension_for_class(x509.CRLDistributionPoints)
            assert found.value == points
        if access := publication.information_access:
            told = cert.extensions.get_extension_for_class(x509.AuthorityInformationAccess)
            assert told.value == access
        verdict = judge(
            [cert, ISSUER.certificate],
            mesh().bundles,
            RevocationSet(),
            now=NOW,
            purpose=Purpose.ANY,
        )
        assert verdict.ok


def test_a_ca_that_moves_its_crl_writes_the_new_place_at_once() -> None:
    issuer = Authority(ISSUER.certificate, ISSUER.key)
    draft(issuer)
    issuer.workload = evolve(WORKLOAD, publication=PLACES)
    assert b"http://ca.example/crl" in draft(issuer).tbs
    issuer.workload = evolve(WORKLOAD, publication=evolve(PLACES, crl_url="http://b.example/crl"))
    assert b"http://b.example/crl" in draft(issuer).tbs
    issuer.workload = WORKLOAD
    assert b"http" not in draft(issuer).tbs


def test_an_issuing_ca_says_where_the_root_publishes() -> None:
    made = asyncio.run(mesh().root.create_issuing(key("published"), MESH, NOW, publication=PLACES))
    assert {"CRLDistributionPoints", "AuthorityInformationAccess"} <= set(values(made.certificate))
    leaf = sign(made, draft(made))
    assert "CRLDistributionPoints" not in values(leaf)
    verdict = judge(
        [leaf, made.certificate], mesh().bundles, RevocationSet(), now=NOW, purpose=Purpose.ANY
    )
    assert verdict.ok


@pytest.mark.parametrize("issuer", [ISSUER, mesh().root])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_responder_may_answer_and_nothing_else(
    issuer: Authority, algorithm: KeyAlgorithm
) -> None:
    cert = asyncio.run(issuer.create_responder(key("responder", algorithm), NOW))
    cert.verify_directly_issued_by(issuer.certificate)
    assert subject_of(cert) == "CN=mtls-mesh-ocsp-responder,OU=generation 1,O=mesh.local"
    assert values(cert) == {
        "BasicConstraints": True,
        "KeyUsage": True,
        "SubjectKeyIdentifier": False,
        "AuthorityKeyIdentifier": False,
        "ExtendedKeyUsage": False,
        "OCSPNoCheck": False,
    }
    assert cert.not_valid_after_utc == NOW + 7 * DAY
    for purpose in Purpose:
        verdict = judge(
            [cert, ISSUER.certificate],
            mesh().bundles,
            RevocationSet(),
            now=NOW,
            purpose=purpose,
        )
        assert not verdict.ok
        assert {problem.code for problem in verdict.problems} >= {"not-an-svid", "wrong-usage"}


def test_a_responder_lives_no_longer_than_it_may() -> None:
    with pytest.raises(LintFailed, match="longer than the profile ocsp-responder"):
        asyncio.run(ISSUER.create_responder(key("responder"), NOW, 8 * DAY))
    with pytest.raises(IssuerExpired):
        asyncio.run(ISSUER.create_responder(key("responder"), NOW + 400 * DAY))
    late = ISSUER.validity.not_after - HOUR
    cert = asyncio.run(ISSUER.create_responder(key("responder"), late))
    assert cert.not_valid_after_utc == ISSUER.validity.not_after


def test_a_responder_is_drafted_before_it_is_signed() -> None:
    draft = ISSUER.draft_responder(key("responder").public_key, NOW, DAY)
    cert = asyncio.run(ISSUER.sign(draft))
    assert cert.tbs_certificate_bytes == draft.tbs
    assert (cert.serial_number, cert.not_valid_after_utc) == (draft.serial, NOW + DAY)
