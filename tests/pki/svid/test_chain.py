"""The verdict on a presented chain: a row for each kind of bad peer."""

import itertools
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

import pytest
from attrs import frozen
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, ObjectIdentifier
from hypothesis import given
from hypothesis import strategies as st

from pki.errors import PkiError
from pki.issuing.authority import Authority
from pki.issuing.profile import ISSUING, WORKLOAD
from pki.keys import KeyAlgorithm, MemoryKey, key_id
from pki.spiffe import TrustDomain
from pki.svid.bundle import BundleSet, TrustBundle
from pki.svid.certificate import certificate_problems
from pki.svid.chain import Verdict, _key_id_of, judge
from pki.svid.path import issued_by
from pki.svid.revocation_set import Reason, Revocation, RevocationSet
from pki.svid.x509svid import Purpose, extension, load_certificates
from tests.authorities import (
    BACKEND,
    DAY,
    HOUR,
    MESH,
    NOW,
    OTHER,
    der,
    forge,
    forge_issuing,
    forge_root,
    key,
    mesh,
    pem,
    rsa_key,
    signed_anew,
)
from tests.pki.strategies import mutated
from twisted_mesh.testing import Extensions

Chain = Sequence[x509.Certificate]

ROOT_CA, ISSUER, LEAF = mesh().root, mesh().issuing, mesh().leaf()
BUNDLES = mesh().bundles
SECOND = HOUR / 3600
NOTHING_REVOKED = RevocationSet()
STRANGE = x509.UnrecognizedExtension(ObjectIdentifier("1.2.3.4"), b"\x05\0")
SERVER, CLIENT = ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH


def judged(
    presented: Chain,
    bundles: BundleSet = BUNDLES,
    *,
    revocations: RevocationSet = NOTHING_REVOKED,
    now: datetime = NOW,
    purpose: Purpose = Purpose.CLIENT,
    known_issuers: Sequence[bytes] = (),
) -> Verdict:
    verdict = judge(
        presented, bundles, revocations, now=now, purpose=purpose, known_issuers=known_issuers
    )
    for problem in verdict.problems:
        assert problem.detail.isprintable()
        assert problem.remedy
        assert problem.subject or problem.code == "malformed"
    assert verdict.ok == (not verdict.problems)
    return verdict


def codes(verdict: Verdict) -> list[str]:
    return [problem.code for problem in verdict.problems]


def bundle_of(*authorities: Authority) -> BundleSet:
    return BundleSet.of(TrustBundle(MESH, tuple(a.certificate for a in authorities)))


def below(root: Authority = ROOT_CA, **overrides: Any) -> tuple[x509.Certificate, ...]:
    """A good leaf below an issuing CA with those overrides."""
    issuer = forge_issuing(root, **overrides)
    return forge(issuer), issuer.certificate


@pytest.mark.parametrize("purpose", Purpose)
def test_what_the_mesh_issues_is_believed(purpose: Purpose) -> None:
    verdict = judged([LEAF, ISSUER.certificate], purpose=purpose)
    assert verdict.ok
    assert verdict.spiffe_id == BACKEND
    assert verdict.path == (LEAF, ISSUER.certificate, ROOT_CA.certificate)


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_the_order_of_the_intermediates_does_not_matter(order: tuple[int, ...]) -> None:
    others = [ISSUER.certificate, ROOT_CA.certificate, mesh(OTHER).issuing.certificate]
    assert judged([LEAF, *(others[n] for n in order)]).path == judged([LEAF, *others]).path
    assert judged([LEAF, *(others[n] for n in order)]).ok


@frozen
class Bad:
    """What a bad peer presents, and every reason that it is given."""

    defect: str
    chain: Chain
    codes: list[str]
    bundles: BundleSet = BUNDLES
    now: datetime = NOW
    revocations: RevocationSet = NOTHING_REVOKED

    def __str__(self) -> str:
        return self.defect


def leaf(**overrides: Any) -> Chain:
    return forge(ISSUER, **overrides), ISSUER.certificate


def revoked(issuer: Authority, cert: x509.Certificate) -> RevocationSet:
    revocation = Revocation(
        issuer.key_id, cert.serial_number, NOW - HOUR, Reason.KEY_COMPROMISE, NOW + HOUR
    )
    return RevocationSet().merged([revocation], NOW)


def without(kind: type[x509.ExtensionType]) -> Extensions:
    return {kind: None}


def extra(critical: bool) -> Extensions:
    return {x509.UnrecognizedExtension: (STRANGE, critical)}


def forged_by_another_domain() -> Chain:
    """``other.example``'s own CA mints a name of ``mesh.local``."""
    minting = mesh(OTHER).issuing
    return forge(minting, uris=[str(BACKEND)]), minting.certificate


SHORT_ROOT = forge_root(end=NOW + HOUR / 2)
TIGHT_ROOT = forge_root(
    replace={x509.BasicConstraints: (x509.BasicConstraints(ca=True, path_length=0), True)}
)
LOOSE: Extensions = {
    x509.BasicConstraints: (x509.BasicConstraints(ca=True, path_length=None), True)
}
LOOSE_CA: dict[str, Any] = {"replace": LOOSE}
BOTH = BundleSet.of(mesh().bundle, mesh(OTHER).bundle)

TABLE = [
    Bad("no certificate", [], ["no-certificate"]),
    Bad("expired leaf", [LEAF, ISSUER.certificate], ["expired"], now=NOW + HOUR + SECOND),
    Bad("leaf not valid yet", leaf(start=NOW + SECOND), ["not-yet-valid"]),
    Bad("expired intermediate", below(end=NOW - SECOND), ["expired"]),
    Bad("intermediate not valid yet", below(start=NOW + SECOND), ["not-yet-valid"]),
    Bad(
        "expired root",
        below(SHORT_ROOT),
        ["expired"],
        bundles=bundle_of(SHORT_ROOT),
        now=NOW + HOUR / 2 + SECOND,
    ),
    Bad("another CA with the same names", below(forge_root(70)), ["unknown-authority"]),
    Bad(
        "a self-signed leaf",
        [forge(None)],
        ["unknown-authority"],
    ),
    Bad(
        "a trust domain that is not held",
        [mesh(OTHER).leaf(), mesh(OTHER).issuing.certificate],
        ["unknown-trust-domain"],
    ),
    Bad("no trust domain is held", leaf(), ["unknown-trust-domain"], bundles=BundleSet()),
    Bad(
        "an emptied bundle",
        leaf(),
        ["unknown-authority"],
        bundles=BundleSet.of(TrustBundle(MESH, ())),
    ),
    Bad(
        "forged by a trust domain that is held",
        forged_by_another_domain(),
        ["unknown-authority"],
        bundles=BOTH,
    ),
    Bad(
        "no clientAuth",
        leaf(replace={x509.ExtendedKeyUsage: (x509.ExtendedKeyUsage([SERVER]), False)}),
        ["wrong-usage"],
    ),
    Bad("no extended key usage", leaf(replace=without(x509.ExtendedKeyUsage)), ["wrong-usage"]),
    Bad("no key usage", leaf(replace=without(x509.KeyUsage)), ["wrong-usage"]),
    Bad("two URIs", leaf(uris=[str(BACKEND), f"{BACKEND}2"]), ["not-an-svid"]),
    Bad("no URI", leaf(uris=[]), ["not-an-svid"]),
    Bad("not a SPIFFE ID", leaf(uris=["spiffe://mesh.local:1/a"]), ["not-an-svid"]),
    Bad("an https URI", leaf(uris=["https://mesh.local/"]), ["not-an-svid"]),
    Bad("an ID without a path", leaf(uris=["spiffe://mesh.local"]), ["not-an-svid"]),
    Bad(
        "a CA as leaf",
        [forge(ROOT_CA, ISSUING, uris=[str(BACKEND)])],
        ["not-an-svid", "wrong-usage", "not-an-svid", "wrong-usage"],
    ),
    Bad(
        "a CA flag in the leaf",
        leaf(replace={x509.BasicConstraints: (ISSUING.basic_constraints, True)}),
        ["not-an-svid"],
    ),
    Bad("no intermediate", [LEAF], ["incomplete-chain"]),
    Bad(
        "revoked leaf",
        [LEAF, ISSUER.certificate],
        ["revoked"],
        revocations=revoked(ISSUER, LEAF),
    ),
    Bad(
        "revoked root",
        [LEAF, ISSUER.certificate],
        ["revoked"],
        revocations=revoked(ROOT_CA, ROOT_CA.certificate),
    ),
    Bad(
        "revoked root directly above",
        [forge(ROOT_CA)],
        ["revoked"],
        revocations=revoked(ROOT_CA, ROOT_CA.certificate),
    ),
    Bad(
        "revoked root that the peer sent along",
        [LEAF, ISSUER.certificate, ROOT_CA.certificate],
        ["revoked"],
        revocations=revoked(ROOT_CA, ROOT_CA.certificate),
    ),
    Bad(
        "revoked intermediate",
        [LEAF, ISSUER.certificate],
        ["revoked"],
        revocations=revoked(ROOT_CA, ISSUER.certificate),
    ),
    Bad("path too long", below(TIGHT_ROOT), ["path-too-long"], bundles=bundle_of(TIGHT_ROOT)),
    Bad("an intermediate that is a leaf", below(profile=WORKLOAD), ["not-a-ca", "not-a-ca"]),
    Bad(
        "an intermediate without basic constraints",
        below(replace=without(x509.BasicConstraints)),
        ["not-a-ca"],
    ),
    Bad("an intermediate without key usage", below(replace=without(x509.KeyUsage)), ["not-a-ca"]),
    Bad(
        "an intermediate for servers only",
        below(replace={x509.ExtendedKeyUsage: (x509.ExtendedKeyUsage([SERVER]), False)}),
        ["wrong-usage"],
    ),
    Bad("unknown critical extension in the leaf", leaf(replace=extra(True)), ["unknown-extension"]),
    Bad("unknown critical extension in a CA", below(replace=extra(True)), ["unknown-extension"]),
    Bad("a weak key in the leaf", leaf(subject_key=rsa_key(1024)), ["weak-key"]),
    Bad("eleven certificates", [LEAF, *[ISSUER.certificate] * 10], ["malformed"]),
    Bad(
        "everything at once",
        [
            forge(
                ISSUER,
                end=NOW - SECOND,
                subject_key=rsa_key(1024),
                replace={**extra(True), **without(x509.ExtendedKeyUsage)},
            )
        ],
        ["wrong-usage", "incomplete-chain", "expired", "weak-key", "unknown-extension"],
    ),
]


@pytest.mark.parametrize("bad", TABLE, ids=str)
def test_a_bad_peer_is_refused_for_every_reason(bad: Bad) -> None:
    verdict = judged(bad.chain, bad.bundles, revocations=bad.revocations, now=bad.now)
    assert not verdict.ok
    assert codes(verdict) == bad.codes


def test_ten_certificates_are_not_too_many() -> None:
    assert judged([LEAF, *[ISSUER.certificate] * 9]).ok


def test_an_unknown_extension_that_is_not_critical_is_passed_over() -> None:
    assert judged(leaf(replace=extra(False))).ok


def test_an_intermediate_may_be_restricted_to_mutual_tls() -> None:
    both, any_of_them = (
        below(replace={x509.ExtendedKeyUsage: (x509.ExtendedKeyUsage(eku), False)})
        for eku in ([SERVER, CLIENT], [ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE])
    )
    assert judged(both).ok
    # OpenSSL wants them named, in the handshake too.
    assert codes(judged(any_of_them)) == ["wrong-usage"]


def test_each_end_is_judged_for_what_it_does() -> None:
    server_only = leaf(replace={x509.ExtendedKeyUsage: (x509.ExtendedKeyUsage([SERVER]), False)})
    assert judged(server_only, purpose=Purpose.SERVER).ok
    assert codes(judged(server_only, purpose=Purpose.CLIENT)) == ["wrong-usage"]


def test_both_domains_are_believed_for_their_own_names() -> None:
    assert judged([LEAF, ISSUER.certificate], BOTH).ok
    assert judged([mesh(OTHER).leaf(), mesh(OTHER).issuing.certificate], BOTH).ok


def test_a_root_that_is_presented_is_not_believed_for_that() -> None:
    stranger = forge_root(70)
    assert codes(judged([*below(stranger), stranger.certificate])) == ["unknown-authority"]


def test_an_unknown_trust_domain_is_told_beside_those_that_are_held() -> None:
    (problem,) = judged([mesh(OTHER).leaf(), mesh(OTHER).issuing.certificate]).problems
    assert "no bundle is held for other.example (held: mesh.local)" in problem.detail
    (problem,) = judged([LEAF], BundleSet()).problems
    assert "(held: none)" in problem.detail


def test_a_peer_that_forgot_its_intermediates_is_told_from_a_stranger() -> None:
    identifier = extension(ISSUER.certificate, x509.SubjectKeyIdentifier)
    assert identifier is not None
    ours = [identifier.digest]
    stranger, _ = below(forge_root(70), name=71)
    assert codes(judged([LEAF], known_issuers=ours)) == ["incomplete-chain"]
    assert codes(judged([stranger], known_issuers=ours)) == ["unknown-authority"]
    # Without knowing our issuers, names have to do.
    assert codes(judged([stranger])) == ["incomplete-chain"]
    (problem,) = judged([LEAF]).problems
    assert "did not present its issuer CN=mtls-mesh-issuing-ca" in problem.detail
    assert "curl" in problem.remedy
    bare = forge(ISSUER, replace=without(x509.AuthorityKeyIdentifier))
    assert codes(judged([bare], known_issuers=ours)) == ["unknown-authority"]


def test_a_leaf_of_the_root_with_a_foreign_signature_is_a_stranger() -> None:
    # It names our root as its issuer, and no intermediate could complete that.
    faker = Authority(forge_root(70).certificate, key(70))
    cert = forge(faker, issuer_name=ROOT_CA.certificate.subject)
    assert codes(judged([cert])) == ["unknown-authority"]


def test_an_unknown_authority_is_named_in_one_printable_line() -> None:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "x\n2026 accepted")])
    (problem,) = judged([forge(None, subject=name)]).problems
    assert r"signed by an unknown authority, CN=x\n2026 accepted" in problem.detail
    problem, *_ = judged([forge(None, subject=x509.Name([]))]).problems
    assert "an unknown authority, without a name" in problem.detail


def test_a_revocation_is_told_with_its_serial_time_and_reason() -> None:
    (problem,) = judged([LEAF, ISSUER.certificate], revocations=revoked(ISSUER, LEAF)).problems
    assert problem.detail.endswith("was revoked at 2026-11-23T09:00:00Z (keyCompromise)")
    assert f"{LEAF.serial_number:X}"[:2] + ":" in problem.detail


@pytest.mark.slow
def test_a_million_revoked_certificates_delay_no_verdict() -> None:
    others = (
        Revocation(issuer.key_id, serial, NOW, Reason.SUPERSEDED, NOW + HOUR)
        for issuer in (ISSUER, ROOT_CA)
        for serial in range(1, 500_001)
    )
    known = RevocationSet().merged(others, NOW)
    for bad in (LEAF, ISSUER.certificate):
        issuer = ISSUER if bad is LEAF else ROOT_CA
        news = Revocation(issuer.key_id, bad.serial_number, NOW, Reason.SUPERSEDED, NOW + HOUR)
        verdict = judged([LEAF, ISSUER.certificate], revocations=known.merged([news], NOW))
        assert codes(verdict) == ["revoked"]
    seconds = []
    for revocations in (NOTHING_REVOKED, known):
        start = time.process_time()
        for _ in range(300):
            assert judged([LEAF, ISSUER.certificate], revocations=revocations).ok
        seconds.append(time.process_time() - start)
    assert seconds[1] < 2 * seconds[0]


def test_a_serial_that_another_issuer_revoked_is_not_revoked() -> None:
    assert judged([LEAF, ISSUER.certificate], revocations=revoked(ROOT_CA, LEAF)).ok


def test_dates_are_told_in_a_way_that_points_at_clocks() -> None:
    (late,) = judged([LEAF, ISSUER.certificate], now=NOW + HOUR + 90 * SECOND).problems
    assert (
        "expired at 2026-11-23T11:00:00Z, 1m 30s ago; here it is 2026-11-23T11:01:30Z"
        in late.detail
    )
    assert "clocks" in late.remedy
    early = judged([LEAF, ISSUER.certificate], now=NOW - HOUR).problems
    assert {problem.code for problem in early} == {"not-yet-valid"}
    assert len(early) == 3
    assert "clocks" in early[0].remedy


def test_a_verdict_holds_until_the_first_certificate_of_its_path_ends() -> None:
    verdict = judged([LEAF, ISSUER.certificate])
    assert verdict.holds_at(NOW)
    assert verdict.holds_at(NOW + HOUR)
    assert not verdict.holds_at(NOW + HOUR + SECOND)
    assert not verdict.holds_at(NOW - DAY)
    short = forge_issuing(ROOT_CA, end=NOW + HOUR / 2)
    verdict = judged([forge(short, end=NOW + HOUR), short.certificate])
    assert not verdict.holds_at(NOW + HOUR / 2 + SECOND)


def test_a_verdict_without_a_name_is_never_good() -> None:
    assert not Verdict(None, (), ()).ok


def weak_ca_key() -> Authority:
    private_key = rsa_key(1024)
    cert = forge(ROOT_CA, ISSUING, subject_key=private_key, end=NOW + DAY)
    return Authority(cert, MemoryKey(private_key, KeyAlgorithm.RSA_2048), (cert,))


def test_a_weak_key_in_a_ca_is_told() -> None:
    weak = weak_ca_key()
    (problem,) = judged([forge(weak), weak.certificate]).problems
    assert problem.code == "weak-key"
    assert "1024" in problem.detail


@pytest.mark.parametrize("old_hash", ["sha1", "md5", "sha224"])
def test_a_signature_over_an_old_hash_is_not_believed(old_hash: str) -> None:
    signer = MemoryKey(rsa_key(), KeyAlgorithm.RSA_2048)
    issuer = Authority(forge(ROOT_CA, ISSUING, subject_key=signer, end=NOW + DAY), signer)
    body = forge(issuer).tbs_certificate_bytes
    (cert,) = load_certificates(pem(signed_anew(body, rsa_key(), old_hash)))
    verdict = judged([cert, issuer.certificate])
    assert "weak-signature" in codes(verdict)


def test_a_certificate_is_issued_by_the_name_and_the_key() -> None:
    assert issued_by(LEAF, ISSUER.certificate)
    assert not issued_by(LEAF, ROOT_CA.certificate)
    assert not issued_by(LEAF, forge_issuing(forge_root(70), 71).certificate)
    assert issued_by(ROOT_CA.certificate, ROOT_CA.certificate)


def authority_key(**values: Any) -> Extensions:
    value = {
        "key_identifier": None,
        "authority_cert_issuer": None,
        "authority_cert_serial_number": None,
    }
    return {
        x509.AuthorityKeyIdentifier: (x509.AuthorityKeyIdentifier(**{**value, **values}), False)
    }


def issuer_and_serial(name: x509.Name, serial: int) -> dict[str, Any]:
    return {
        "authority_cert_issuer": [x509.DirectoryName(name)],
        "authority_cert_serial_number": serial,
    }


ISSUER_KEY = extension(ISSUER.certificate, x509.SubjectKeyIdentifier)
assert ISSUER_KEY is not None
MISMATCHES = {
    "key": authority_key(key_identifier=b"another key"),
    "serial": authority_key(
        key_identifier=ISSUER_KEY.digest, **issuer_and_serial(ROOT_CA.certificate.subject, 99)
    ),
    "issuer": authority_key(
        key_identifier=ISSUER_KEY.digest,
        **issuer_and_serial(ISSUER.certificate.subject, ISSUER.certificate.serial_number),
    ),
}


@pytest.mark.parametrize("what", MISMATCHES)
def test_an_identifier_that_names_another_issuer_is_a_mismatch(what: str) -> None:
    (problem,) = judged(leaf(replace=MISMATCHES[what])).problems
    assert problem.code == "issuer-mismatch"
    assert f"signed it, and its authority key identifier names another {what}" in problem.detail


def test_an_issuing_ca_that_identifies_another_root_is_a_mismatch() -> None:
    assert codes(judged(below(replace=authority_key(key_identifier=b"x")))) == ["issuer-mismatch"]


def test_an_identifier_may_also_name_issuer_and_serial() -> None:
    told = issuer_and_serial(ROOT_CA.certificate.subject, ISSUER.certificate.serial_number)
    assert judged(leaf(replace=authority_key(key_identifier=ISSUER_KEY.digest, **told))).ok


def damaged(cert: x509.Certificate) -> x509.Certificate:
    (made,) = load_certificates(pem(der(cert)[:-1] + bytes((der(cert)[-1] ^ 1,))))
    return made


def test_a_damaged_signature_is_told_from_a_missing_issuer() -> None:
    (problem,) = judged([damaged(LEAF), ISSUER.certificate]).problems
    assert problem.code == "bad-signature"
    assert "not of the key of CN=mtls-mesh-issuing-ca" in problem.detail
    assert codes(judged([LEAF, damaged(ISSUER.certificate)])) == ["bad-signature"]
    assert codes(judged([damaged(LEAF)])) == ["incomplete-chain"]


def test_cas_that_are_self_issued_do_not_count_in_a_path() -> None:
    """RFC 5280 section 4.2.1.9: a CA that replaces its own key does not lengthen the path."""
    new = forge_issuing(ISSUER, 90, subject=ISSUER.certificate.subject)
    assert judged([forge(new), new.certificate, ISSUER.certificate]).ok
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "another")])
    other = forge_issuing(ISSUER, 90, subject=name)
    near, far = judged([forge(other), other.certificate, ISSUER.certificate]).problems
    assert near.code == far.code == "path-too-long"
    assert "1 CAs stand below it, 0 may" in near.detail
    assert "2 CAs stand below it, 1 may" in far.detail


def cross_signed(count: int) -> list[x509.Certificate]:
    """``count`` CAs of one name and key that all certify each other, and lead nowhere."""
    return [forge_issuing(forge_issuing(forge_root(80), 81, **LOOSE_CA), 81, **LOOSE_CA).certificate
            for _ in range(count)]  # fmt: skip


def test_cas_that_certify_each_other_in_circles_end_quickly() -> None:
    circle = cross_signed(9)
    signer = Authority(circle[0], key(81))
    assert all(issued_by(one, other) for one in circle for other in circle)
    start = time.perf_counter()
    verdict = judged([forge(signer), *circle])
    assert codes(verdict) == ["unknown-authority"]
    assert time.perf_counter() - start < 2


def test_a_good_path_is_found_beside_a_circle() -> None:
    good = forge_issuing(ROOT_CA, 81, **LOOSE_CA)
    chain = [forge(good), *cross_signed(3), good.certificate]
    assert judged(chain).ok


def test_of_two_paths_the_one_without_fault_is_taken() -> None:
    stale = forge_issuing(ROOT_CA, 82, end=NOW - SECOND)
    fresh = forge_issuing(ROOT_CA, 82)
    for chain in ((stale, fresh), (fresh, stale)):
        assert judged([forge(fresh), *(ca.certificate for ca in chain)]).ok


def test_during_a_rollover_either_root_vouches() -> None:
    new_root = forge_root(83)
    held = bundle_of(ROOT_CA, new_root)
    assert judged([LEAF, ISSUER.certificate], held).ok
    assert judged(below(new_root), held).ok


def two_paths() -> tuple[Authority, Authority, Chain, BundleSet]:
    """A root that is to go and its successor, both above one issuing key; and a leaf with both certificates of it."""
    old, new = forge_root(90), forge_root(91)
    above = [forge_issuing(root, 92) for root in (old, new)]
    return (
        old,
        new,
        [forge(above[0]), *(ca.certificate for ca in above)],
        bundle_of(old, new),
    )


@pytest.mark.parametrize("which", [0, 1])
def test_a_revoked_root_revives_no_path_and_spoils_no_other(which: int) -> None:
    *roots, chain, bundles = two_paths()
    gone, left = roots[which], roots[1 - which]
    revocations = revoked(gone, gone.certificate)
    verdict = judged(chain, bundles, revocations=revocations)
    assert verdict.ok
    assert verdict.path[-1] == left.certificate
    through_it = [chain[0], chain[1 + which]]
    assert codes(judged(through_it, bundles, revocations=revocations)) == ["revoked"]
    assert judged([chain[0], chain[2 - which]], bundles, revocations=revocations).ok


def test_a_root_that_another_key_calls_revoked_is_not() -> None:
    assert judged([LEAF, ISSUER.certificate], revocations=revoked(ISSUER, ROOT_CA.certificate)).ok


def test_a_deep_chain_is_followed_only_so_far() -> None:
    def deep(levels: int) -> Verdict:
        root = forge_root(84, **LOOSE_CA)
        issuer, presented = root, []
        for level in range(levels):
            name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, f"level {level}")])
            issuer = forge_issuing(issuer, f"level {level}", subject=name, **LOOSE_CA)
            presented.append(issuer.certificate)
        return judged([forge(issuer), *presented[::-1]], bundle_of(root))

    assert deep(5).ok
    assert codes(deep(6)) == ["unknown-authority"]


DAMAGE: dict[str, Callable[[x509.Certificate], Chain]] = {
    "leaf": lambda cert: [cert, ISSUER.certificate],
    "leaf alone": lambda cert: [cert],
    "intermediate": lambda cert: [LEAF, cert],
    "beside the others": lambda cert: [LEAF, cert, ISSUER.certificate],
}
PARTS = [LEAF, ISSUER.certificate, ROOT_CA.certificate]


@st.composite
def damaged_certificates(draw: st.DrawFn) -> bytes:
    part = draw(st.sampled_from(PARTS))
    if draw(st.booleans()):
        return draw(mutated(der(part)))
    signer = draw(st.sampled_from([ISSUER.key, ROOT_CA.key, key(9)]))
    assert isinstance(signer, MemoryKey)
    return signed_anew(draw(mutated(part.tbs_certificate_bytes)), signer.private_key)


@given(damaged_certificates(), st.sampled_from(sorted(DAMAGE)), st.booleans())
def test_a_damaged_chain_is_judged_and_breaks_nothing(data: bytes, where: str, known: bool) -> None:
    try:
        (cert,) = load_certificates(pem(data))
    except PkiError:
        return
    verdict = judged(
        DAMAGE[where](cert),
        BOTH,
        revocations=revoked(ISSUER, LEAF),
        known_issuers=[b"some CA"] if known else [],
    )
    assert verdict.spiffe_id is None or isinstance(verdict.spiffe_id.trust_domain, TrustDomain)
    anchored = BundleSet.of(TrustBundle(MESH, (cert,)))
    judged([LEAF, ISSUER.certificate], anchored)
    for problem in certificate_problems(cert, NOW):
        assert problem.detail.isprintable()


@given(st.data())
def test_no_change_to_a_certificate_makes_it_another_good_one(data: st.DataObject) -> None:
    position = data.draw(st.sampled_from([0, 1]))
    chain = [LEAF, ISSUER.certificate]
    original = der(chain[position])
    damaged = data.draw(mutated(original))
    try:
        (chain[position],) = load_certificates(pem(damaged))
    except PkiError:
        return
    verdict = judged(chain)
    if der(chain[position]) != original:
        assert not verdict.ok


def test_the_revocations_of_one_issuer_are_not_those_of_another_with_its_signature() -> None:
    """Names of issuers are remembered, and anybody can copy a signature onto another certificate."""

    class Posing:
        signature = ISSUER.certificate.signature

        def public_key(self) -> object:
            return key("posing").public_key

    posing: Any = Posing()
    for _ in range(2):
        assert _key_id_of(posing) == key_id(key("posing").public_key)
        assert _key_id_of(ISSUER.certificate) == ISSUER.key_id
