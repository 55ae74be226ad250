"""No stranger's chain is dear: what is verified of it is paid for from one budget, in microseconds' worth."""

import time
from collections.abc import Callable, Sequence
from functools import cache
from unittest.mock import patch

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given
from hypothesis import strategies as st

from pki.errors import PkiError
from pki.issuing.authority import Authority
from pki.issuing.profile import ISSUING, ROOT
from pki.keys import KeyAlgorithm, MemoryKey, verify_cost
from pki.svid.bundle import BundleSet, TrustBundle
from pki.svid.chain import Verdict, judge
from pki.svid.path import BUDGET, CHECK, PathSearch, signed_by
from pki.svid.revocation_set import Reason, Revocation, RevocationSet
from pki.svid.x509svid import Purpose, load_certificates
from tests.authorities import (
    DAY,
    MESH,
    NOW,
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
Seen = list[tuple[x509.Certificate, x509.Certificate]]
LOOSE: Extensions = {
    x509.BasicConstraints: (x509.BasicConstraints(ca=True, path_length=None), True)
}
UNIDENTIFIED: Extensions = {**LOOSE, x509.AuthorityKeyIdentifier: None}


def judged(chain: Chain) -> Verdict:
    return judge(chain, mesh().bundles, RevocationSet(), now=NOW, purpose=Purpose.CLIENT)


def verified_by(chain: Chain) -> tuple[Verdict, Seen]:
    """The verdict, and each signature that was verified for it: the certificate and the issuer that was tried."""
    seen: Seen = []

    def noted(cert: x509.Certificate, issuer: x509.Certificate) -> bool:
        seen.append((cert, issuer))
        return signed_by(cert, issuer)

    with patch("pki.svid.path.signed_by", noted):
        return judged(chain), seen


def cost_of(seen: Seen) -> int:
    costs = [verify_cost(issuer.public_key()) for _, issuer in seen]
    assert None not in costs, "nothing is verified with a key that is weak at a glance"
    return sum(CHECK + (cost or 0) for cost in costs)


@cache
def huge_exponent() -> rsa.RSAPrivateKey:
    """A sound key of RSA-3072 whose public exponent has 3,071 bits: 150 times as dear as 65537."""
    numbers = rsa_key(3072).private_numbers()
    p, q = numbers.p, numbers.q
    phi = (p - 1) * (q - 1)
    e = (1 << 3071) - 1
    while True:
        e -= 2
        try:
            d = pow(e % phi, -1, phi)
        except ValueError:
            continue
        break
    public = rsa.RSAPublicNumbers(e % numbers.public_numbers.n, numbers.public_numbers.n)
    return rsa.RSAPrivateNumbers(
        p, q, d, d % (p - 1), d % (q - 1), rsa.rsa_crt_iqmp(p, q), public
    ).private_key(unsafe_skip_rsa_key_validation=True)


def strangers(keys: Sequence[MemoryKey], replace: Extensions = UNIDENTIFIED) -> Chain:
    """Ten certificates of one subject: a leaf, and CAs each of which is certified by the next, in a ring."""
    signers = [Authority(forge(None, ISSUING, subject_key=each.private_key), each) for each in keys]
    ring = [
        forge(above, ISSUING, subject_key=below.private_key, replace=replace, end=NOW + DAY)
        for below, above in zip(keys, [*signers[1:], signers[0]], strict=True)
    ]
    return [forge(signers[-1], replace={**replace, x509.BasicConstraints: None}), *ring]


def nine(make: Callable[[int], MemoryKey]) -> list[MemoryKey]:
    return [make(n) for n in range(9)]


def identifiers(own: int, issuers: int) -> Extensions:
    """Such as OpenSSL follows from one certificate to the next, whatever keys they have."""
    return {
        **LOOSE,
        x509.SubjectKeyIdentifier: (x509.SubjectKeyIdentifier(b"%d" % own), False),
        x509.AuthorityKeyIdentifier: (
            x509.AuthorityKeyIdentifier(b"%d" % issuers, None, None),
            False,
        ),
    }


def staircase(keys: Sequence[MemoryKey]) -> Chain:
    """Ten certificates of one subject that name each other by identifiers, none signed by what it names."""
    name = forge_root(80).certificate.subject
    signer = forge_root(82, subject=name)
    cas = [
        forge(
            signer,
            ISSUING,
            subject=name,
            subject_key=each.private_key,
            replace=identifiers(step, step + 1),
            end=NOW + DAY,
        )
        for step, each in enumerate(keys)
    ]
    return [forge(signer, replace={**identifiers(99, 0), x509.BasicConstraints: None}), *cas]


DEAR: dict[str, Callable[[], Chain]] = {
    "P-384, no identifiers": lambda: strangers(
        nine(lambda n: key(f"dear {n}", KeyAlgorithm.EC_P384))
    ),
    "RSA, no identifiers": lambda: strangers(
        nine(lambda n: MemoryKey(rsa_key(2048 + 8 * n), KeyAlgorithm.RSA_2048))
    ),
    "P-384, each certified by the next": lambda: strangers(
        nine(lambda n: key(f"dear {n}", KeyAlgorithm.EC_P384)), LOOSE
    ),
    "P-384 twice, P-256 above": lambda: strangers(
        [
            key(f"dear {n}", KeyAlgorithm.EC_P384 if n in (0, 8) else KeyAlgorithm.EC_P256)
            for n in range(9)
        ],
        LOOSE,
    ),
    "P-256, each certified by the next": lambda: strangers(nine(lambda n: key(f"dear {n}")), LOOSE),
    "P-384, identifiers without signatures": lambda: staircase(
        nine(lambda n: key(f"dear {n}", KeyAlgorithm.EC_P384))
    ),
    "RSA, exponents of 3,071 bits": lambda: staircase(
        [MemoryKey(huge_exponent(), KeyAlgorithm.RSA_4096)] * 9
    ),
    "P-256 in circles": lambda: [
        forge(forge_issuing(forge_root(80), 81)),
        *(
            forge_issuing(forge_issuing(forge_root(80), 81), 81, replace=LOOSE).certificate
            for _ in range(9)
        ),
    ],
}


@pytest.mark.parametrize("kind", DEAR)
def test_what_is_verified_stays_within_the_budget(kind: str) -> None:
    verdict, seen = verified_by(DEAR[kind]())
    assert not verdict.ok
    assert cost_of(seen) <= BUDGET


def test_nothing_is_verified_with_a_key_that_is_weak_at_a_glance() -> None:
    weak = MemoryKey(huge_exponent(), KeyAlgorithm.RSA_4096)
    assert verify_cost(weak.public_key) is None
    verdict, seen = verified_by(strangers([weak] * 9))
    assert seen == []
    assert not verdict.ok
    assert "weak-key" in {problem.code for problem in verdict.problems}


def test_a_key_that_a_certificate_contradicts_is_not_verified_with_for_the_path() -> None:
    other = x509.AuthorityKeyIdentifier(b"x", None, None)
    chain = strangers(
        nine(lambda n: key(f"other {n}")), {**LOOSE, x509.AuthorityKeyIdentifier: (other, False)}
    )
    search = PathSearch(chain, mesh().bundle.roots)
    assert search.paths() == []
    assert search.furthest == (chain[0],)
    _, seen = verified_by(chain)
    assert cost_of(seen) <= BUDGET


def test_an_issuer_whose_key_cannot_be_read_is_on_no_path() -> None:
    """It has no name by which its revocations could be looked up."""
    issuing = mesh().issuing.certificate
    body = issuing.tbs_certificate_bytes.replace(
        bytes.fromhex("06072a8648ce3d0201"), bytes.fromhex("0607008648ce3d0201")
    )
    assert isinstance(mesh().root.key, MemoryKey)
    (odd,) = load_certificates(pem(signed_anew(body, mesh().root.key.private_key)))  # type: ignore[arg-type]
    revoked = Revocation(
        mesh().root.key_id, issuing.serial_number, NOW, Reason.KEY_COMPROMISE, NOW + DAY
    )
    verdict = judge(
        [mesh().leaf(), odd],
        mesh().bundles,
        RevocationSet().merged([revoked], NOW),
        now=NOW,
        purpose=Purpose.CLIENT,
    )
    assert len(verdict.path) == 1
    assert not verdict.ok


def test_a_search_that_ends_before_its_end_says_so() -> None:
    verdict, _ = verified_by(DEAR["P-384, no identifiers"]())
    (told,) = (p for p in verdict.problems if p.code == "unknown-authority")
    assert "as far as was looked" in told.detail


def test_a_good_chain_is_cheap() -> None:
    below = [forge_issuing(mesh().root, "cheap")]
    for leaves, verified in enumerate((2, 1, 1)):
        verdict, seen = verified_by([forge(below[0], serial=leaves + 1), below[0].certificate])
        assert verdict.ok
        assert len(seen) == verified, "what its root has signed is verified once"


def test_what_no_root_has_signed_is_verified_each_time() -> None:
    root = mesh().root.certificate
    other = forge_root("no root", subject=root.subject)
    replaced = x509.AuthorityKeyIdentifier.from_issuer_public_key(mesh().root.key.public_key)  # type: ignore[arg-type]
    forged = forge_issuing(
        other, "forged", replace={x509.AuthorityKeyIdentifier: (replaced, False)}
    )
    for _ in range(2):
        verdict, seen = verified_by([forge(forged), forged.certificate])
        assert not verdict.ok
        assert len(seen) == 2


def below(root: KeyAlgorithm, above: KeyAlgorithm, issuing: int) -> tuple[Authority, Chain]:
    """A root, and a chain to it with so many issuing CAs: the lowest has P-256, all others ``above``."""
    signer = top = Authority(
        forge(None, ROOT, subject_key=key("pem", root), replace=LOOSE, end=NOW + DAY),
        key("pem", root),
    )
    for step in reversed(range(issuing)):
        own = key(step, above if step else KeyAlgorithm.EC_P256)
        cert = forge(signer, ISSUING, subject_key=own, replace=LOOSE, end=NOW + DAY)
        signer = Authority(cert, own, (cert, *signer.intermediates))
    return top, [forge(signer), *signer.intermediates]


@pytest.mark.parametrize(
    ("root", "above", "issuing"),
    [
        (KeyAlgorithm.EC_P384, KeyAlgorithm.EC_P384, 2),
        (KeyAlgorithm.EC_P384, KeyAlgorithm.EC_P256, 4),
        (KeyAlgorithm.RSA_4096, KeyAlgorithm.EC_P256, 4),
        (KeyAlgorithm.ED25519, KeyAlgorithm.ED25519, 4),
    ],
)
def test_chains_longer_than_any_of_a_mesh_are_affordable(
    root: KeyAlgorithm, above: KeyAlgorithm, issuing: int
) -> None:
    """Also beside four roots of other keys, as while roots are changed."""
    top, chain = below(root, above, issuing)
    roots = (*(forge_root(f"other {n}").certificate for n in range(4)), top.certificate)
    verdict = judge(
        [*chain, *roots],
        BundleSet.of(TrustBundle(MESH, roots)),
        RevocationSet(),
        now=NOW,
        purpose=Purpose.CLIENT,
    )
    assert verdict.problems == ()
    assert len(verdict.path) == issuing + 2


def test_the_dearest_chain_costs_little_beside_an_ordinary_refusal() -> None:
    """In one run, so that it does not matter how fast the machine is."""

    def seconds(chain: Chain) -> float:
        encoded = [der(cert) for cert in chain]
        best = 1.0
        for _ in range(5):
            fresh = [x509.load_der_x509_certificate(each) for each in encoded]
            start = time.process_time()
            judged(fresh)
            best = min(best, time.process_time() - start)
        return best

    stranger = forge_issuing(forge_root(70), 71)
    ordinary = seconds([forge(stranger), stranger.certificate])
    verifying = seconds([mesh().leaf(), mesh().issuing.certificate])
    for chain in (make() for make in DEAR.values()):
        # The budget is for no more than 16 signatures of P-256; a good chain has two of them.
        assert seconds(chain) < 10 * ordinary + 20 * verifying


@cache
def pool() -> Chain:
    ours = (mesh().leaf(), mesh().issuing.certificate, mesh().root.certificate)
    return [*DEAR["P-256 in circles"](), *ours]


@st.composite
def tangled(draw: st.DrawFn) -> list[bytes]:
    """Up to ten certificates of a few names and keys, some damaged, some signed by what they do not name."""
    chosen = draw(st.lists(st.sampled_from(pool()), min_size=1, max_size=10))
    signers = [key(81), mesh().issuing.key, mesh().root.key]
    made = []
    for cert in chosen:
        kind = draw(st.integers(0, 3))
        signer = draw(st.sampled_from(signers))
        assert isinstance(signer, MemoryKey)
        if kind == 0:
            made.append(draw(mutated(der(cert))))
        elif kind == 1:
            body = draw(mutated(cert.tbs_certificate_bytes))
            made.append(signed_anew(body, signer.private_key))  # type: ignore[arg-type]
        elif kind == 2:
            made.append(signed_anew(cert.tbs_certificate_bytes, signer.private_key))  # type: ignore[arg-type]
        else:
            made.append(der(cert))
    return made


@given(tangled())
def test_no_tangle_of_certificates_costs_more_than_the_budget(encoded: list[bytes]) -> None:
    chain = []
    for each in encoded:
        try:
            chain += load_certificates(pem(each))
        except PkiError:
            continue
    if chain:
        verdict, seen = verified_by(chain)
        assert cost_of(seen) <= BUDGET
        assert verdict.ok is (not verdict.problems)
