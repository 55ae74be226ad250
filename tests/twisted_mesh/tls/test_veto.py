"""Every bad chain of the tests, before us, before OpenSSL at its strictest, and in a handshake.

We are never kinder than they are. Where we are stricter, or the judge alone is kinder than the
whole, the reason stands here, and in docs/SECURITY.md.
"""

import subprocess
import warnings
from collections.abc import Sequence
from pathlib import Path

import pytest
from attrs import frozen
from cryptography import x509
from OpenSSL import SSL, crypto

from pki.issuing.profile import ISSUING
from pki.keys import MemoryKey, spki_der
from pki.svid.bundle import BundleSet, TrustBundle
from pki.svid.chain import judge
from pki.svid.revocation_set import RevocationSet
from pki.svid.x509svid import Purpose, certificates_pem, load_certificates
from tests.authorities import HOUR, MESH, NOW, forge, forge_issuing, key, mesh
from tests.earlier import LEFT, unpack
from tests.pki.svid import test_certificate, test_chain
from tests.pki.svid.test_chain import below, damaged, leaf
from tests.tools import require_tool
from tests.twisted_mesh.tls.wires import End, converse, svid_of
from twisted_mesh.cli import inspect_verify
from twisted_mesh.tls.veto import openssl_objection

ISSUER, LEAF = mesh().issuing, mesh().leaf()


@frozen
class Vector:
    """A chain, and whom whoever judges it believes."""

    name: str
    chain: Sequence[x509.Certificate]
    bundles: BundleSet = mesh().bundles

    def __str__(self) -> str:
        return self.name


def ring() -> Vector:
    """Two issuing CAs of one name, of which the first has another key than the leaf's issuer."""
    true, other = forge_issuing(mesh().root, 71), forge_issuing(mesh().root, 72)
    bare = forge(true, replace={x509.AuthorityKeyIdentifier: None})
    return Vector("the wrong issuer first", (bare, other.certificate, true.certificate))


def vectors() -> list[Vector]:
    found = [Vector("good", (LEAF, ISSUER.certificate)), ring()]
    found += [
        Vector(bad.defect, bad.chain, bad.bundles)
        for bad in test_chain.TABLE
        if bad.chain and bad.now == NOW and not len(bad.revocations)
    ]
    for rule in test_certificate.RULES:
        if rule.name.startswith("critical"):
            continue  # made for the leaf below, once
        found.append(Vector(f"leaf: {rule}", leaf(replace=rule.replace)))
        found.append(Vector(f"issuer: {rule}", below(replace=rule.replace)))
    for rule in test_certificate.RULES:
        if rule.name.startswith("critical"):
            found.append(Vector(f"leaf: {rule}", leaf(replace=rule.replace)))
    for what, replace in test_chain.MISMATCHES.items():
        found.append(Vector(f"another {what}", leaf(replace=replace)))
    for edit in test_certificate.EDITS:
        bad = test_certificate.breaking(edit, LEAF, ISSUER)
        found.append(Vector(f"leaf: {edit}", (bad, ISSUER.certificate)))
        bad = test_certificate.breaking(edit, ISSUER.certificate, mesh().root)
        found.append(Vector(f"issuer: {edit}", (LEAF, bad)))
    any_eku = x509.ExtendedKeyUsage([x509.oid.ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE])
    self_issued = forge_issuing(ISSUER, 90, subject=ISSUER.certificate.subject)
    weak = test_chain.weak_ca_key()
    found += [
        Vector("issuer: any purpose", below(replace={x509.ExtendedKeyUsage: (any_eku, False)})),
        Vector("damaged leaf", (damaged(LEAF), ISSUER.certificate)),
        Vector("damaged issuer", (LEAF, damaged(ISSUER.certificate))),
        Vector(
            "self-issued CA",
            (forge(self_issued), self_issued.certificate, ISSUER.certificate),
        ),
        Vector("weak CA", (forge(weak), weak.certificate)),
        Vector(
            "an issuing CA as root",
            (LEAF,),
            BundleSet.of(TrustBundle(MESH, (ISSUER.certificate,))),
        ),
        Vector("a leaf of the root", (forge(mesh().root),)),
        Vector("twelve certificates", (LEAF, ISSUER.certificate, *unrelated(10))),
    ]
    return found


def unrelated(count: int) -> list[x509.Certificate]:
    return [
        forge(
            None,
            ISSUING,
            subject_key=key(51),
            subject=x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, f"beside {n}")]),
        )
        for n in range(count)
    ]


with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # cryptography tells of serial numbers that are not positive
    VECTORS = vectors()
pytestmark = pytest.mark.filterwarnings("ignore:Parsed a serial number")

#: Codes by which we refuse what OpenSSL, which knows no SPIFFE, lets pass; and why we do.
STRICTER = {
    "not-an-svid": "X509-SVID: one URI name, no CA as leaf",
    "wrong-usage": "X509-SVID: a leaf needs digitalSignature and the purpose, its CAs both purposes",
    "unknown-trust-domain": "OpenSSL keeps one pool of roots for all trust domains",
    "unknown-authority": "the same: another trust domain's root does not vouch",
    "unknown-extension": "name and policy constraints are refused rather than judged",
    "profile-violation": "the same, where they are not critical; serial numbers by RFC 5280 section 4.1.2.2",
    "weak-key": "CA/Browser Forum BR section 6.1.6; OpenSSL judges keys by its security level, in TLS only",
    "malformed": "more than 10 certificates, or larger than any of a mesh",
}
#: What the judge alone lets pass and an endpoint does not, so that pki-inspect verify asks OpenSSL too.
KINDER = {
    "an issuing CA as root": "a root of the bundle is trusted as it is (RFC 5280 section 6.1.1 (d)); OpenSSL "
    "wants it signed by itself",
}


def by_judge(vector: Vector) -> list[str]:
    verdict = judge(vector.chain, vector.bundles, RevocationSet(), now=NOW, purpose=Purpose.CLIENT)
    return [problem.code for problem in verdict.problems]


def by_inspect(vector: Vector) -> bool:
    roots = [bundle.roots for bundle in vector.bundles]
    verdict, _ = inspect_verify.verify(
        vector.chain[0],
        vector.chain[1:],
        roots,
        now=NOW,
        purpose=Purpose.CLIENT,
        sent=len(vector.chain),
    )
    return verdict.ok


def by_endpoint(vector: Vector) -> bool | None:
    """Whether a server lets the peer in whose chain that is; None where no client can present it."""
    server = End(True, time=NOW)
    server.judge.trust = server.judge.trust.__class__(
        vector.bundles, allow=server.judge.trust.allow
    )
    server.contexts.replace(server.svid, vector.bundles.all_roots)
    (context, _) = server.contexts.current() or pytest.fail("a server without a context")
    store = context.get_cert_store()
    assert store is not None
    store.set_time(NOW)
    known = {spki_der(key(n).public_key): key(n) for n in (9, 51)}
    try:
        leaf_key: MemoryKey = known[spki_der(vector.chain[0].public_key())]
        client = End(False, svid_of(vector.chain[0], vector.chain[1:], leaf_key))
    except (KeyError, ValueError, SSL.Error, crypto.Error):
        return None
    converse(client, server)
    return len(server.registry) == 1


@pytest.mark.parametrize("vector", VECTORS, ids=str)
def test_what_we_call_valid_is_let_in_and_is_valid_to_openssl(vector: Vector) -> None:
    codes, inspected = by_judge(vector), by_inspect(vector)
    objection = openssl_objection(vector.chain, vector.bundles.all_roots, NOW)
    let_in = by_endpoint(vector)
    if inspected:
        assert objection is None
        assert let_in in (True, None)
    if not codes and not inspected:
        assert vector.name in KINDER
    if let_in:
        assert not codes, "an endpoint asks the judge"
    if objection is None and codes:
        assert set(codes) & STRICTER.keys(), codes


def test_every_difference_that_is_listed_is_one() -> None:
    judged = {vector.name: by_judge(vector) for vector in VECTORS}
    assert all(judged[name] == [] for name in KINDER)
    stricter = {
        code
        for vector in VECTORS
        if openssl_objection(vector.chain, vector.bundles.all_roots, NOW) is None
        for code in judged[vector.name]
    }
    assert stricter - STRICTER.keys() == set()


@pytest.mark.parametrize("version", LEFT)
def test_what_earlier_versions_issued_is_still_valid(version: str, tmp_path: Path) -> None:
    """To us and to OpenSSL's strictest, at the moment each leaf was issued."""
    state = unpack(version, tmp_path)
    roots = load_certificates((state / "ca" / "root.crt").read_bytes())
    chains = [*tmp_path.glob("me/svid.pem"), *state.glob("identity/*/svid.pem")]
    assert len(chains) == 2
    for path in chains:
        leaf, *others = load_certificates(path.read_bytes())
        verdict, _ = inspect_verify.verify(
            leaf,
            others,
            [roots],
            now=leaf.not_valid_before_utc + HOUR / 60,
            purpose=Purpose.ANY,
            sent=1 + len(others),
        )
        assert verdict.problems == ()


@pytest.mark.interop(
    "tests/twisted_mesh/tls/test_veto.py::test_what_we_call_valid_is_let_in_and_is_valid_to_openssl"
)
@pytest.mark.parametrize("vector", VECTORS, ids=str)
def test_what_we_call_valid_is_valid_to_the_program_openssl(vector: Vector, tmp_path: Path) -> None:
    """Of whatever version it is: 3.0 does not refuse all that 4.0 refuses, and the other way round."""
    for name, content in (
        ("leaf.pem", vector.chain[:1]),
        ("others.pem", vector.chain[1:]),
        ("roots.pem", vector.bundles.all_roots),
    ):
        (tmp_path / name).write_bytes(certificates_pem(content))
    done = subprocess.run(
        [
            *(require_tool("openssl"), "verify", "-x509_strict", "-purpose", "sslclient"),
            *("-attime", str(int(NOW.timestamp())), "-CAfile", "roots.pem"),
            *(("-untrusted", "others.pem") if vector.chain[1:] else ()),
            "leaf.pem",
        ],
        cwd=tmp_path,
        capture_output=True,
        check=False,
    )
    if by_inspect(vector):
        assert done.returncode == 0, done.stderr


def test_twelve_certificates_are_too_many_in_a_handshake_too() -> None:
    (vector,) = (vector for vector in VECTORS if vector.name == "twelve certificates")
    assert by_judge(Vector("the chain", vector.chain[:2])) == []
    assert by_endpoint(vector) is False
    assert not by_inspect(vector)
    ten = Vector("ten", vector.chain[:10])
    assert by_endpoint(ten)
    assert by_inspect(ten)
