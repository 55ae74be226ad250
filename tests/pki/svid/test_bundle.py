"""Trust bundles, as PEM and as SPIFFE JWKS."""

import base64
import json
from functools import cache
from typing import Any

import pytest
from attrs import evolve
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed448
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

from pki.errors import Malformed, PkiError
from pki.issuing.csr import build_csr
from pki.issuing.profile import ROOT
from pki.jwt_svid.jwks import JwtAuthority, read_jwks
from pki.keys import KeyAlgorithm, jwk_members
from pki.svid.bundle import BadBundle, BundleSet, TrustBundle
from pki.svid.x509svid import certificates_pem
from tests.authorities import (
    BACKEND,
    MESH,
    NOW,
    OTHER,
    der,
    forge,
    forge_root,
    key,
    mesh,
    pem,
    rsa_key,
    sign_crl,
)
from tests.pki.strategies import json_values, mutated


@cache
def root_of(algorithm: KeyAlgorithm) -> x509.Certificate:
    return mesh(MESH, key(f"root {algorithm}", algorithm)).root.certificate


#: But for that of RSA-4096: whoever only collects these tests does not wait for its key.
ROOTS = tuple(
    root_of(algorithm) for algorithm in KeyAlgorithm if algorithm is not KeyAlgorithm.RSA_4096
)
P256 = root_of(KeyAlgorithm.EC_P256)
BUNDLE = TrustBundle(MESH, ROOTS, sequence=7, refresh_hint=300)

#: What verifies tokens, and certifies nothing.
AUTHORITIES = tuple(
    JwtAuthority.of(key(f"jwt {n}", algorithm).public_key)  # type: ignore[arg-type]
    for n, algorithm in enumerate((KeyAlgorithm.EC_P256, KeyAlgorithm.EC_P384))
)

bundles = st.builds(
    TrustBundle,
    st.just(MESH),
    st.deferred(
        lambda: st.lists(
            st.sampled_from([*ROOTS, root_of(KeyAlgorithm.RSA_4096)]), unique=True
        ).map(tuple)
    ),
    st.integers(0, 2**63),
    st.none() | st.integers(0, 2**31),
    st.lists(st.sampled_from(AUTHORITIES), unique=True).map(tuple),
)


def jwks(**members: object) -> bytes:
    return json.dumps({**BUNDLE.to_jwks_object(), **members}).encode()


def first_key(**members: object) -> dict[str, Any]:
    return {**BUNDLE.to_jwks_object()["keys"][1], **members}


def test_a_bundle_reads_back_from_pem() -> None:
    assert TrustBundle.from_pem(MESH, BUNDLE.to_pem()).roots == ROOTS


@given(bundles)
def test_a_bundle_reads_back_from_jwks(bundle: TrustBundle) -> None:
    assert TrustBundle.from_jwks(MESH, bundle.to_jwks()) == bundle
    assert TrustBundle.from_jwks_object(MESH, bundle.to_jwks_object()) == bundle
    assert TrustBundle.from_jwks(MESH, bundle.to_jwks().decode()) == bundle


def test_keys_for_tokens_are_no_roots_and_do_the_roots_no_harm() -> None:
    both = evolve(BUNDLE, jwt_authorities=AUTHORITIES)
    read = TrustBundle.from_jwks(MESH, both.to_jwks())
    assert (read.roots, read.jwt_authorities) == (ROOTS, AUTHORITIES)
    assert TrustBundle.from_pem(MESH, read.to_pem()).roots == ROOTS
    assert read_jwks(read.to_jwt_bundle()) == AUTHORITIES
    assert [jwk["use"] for jwk in json.loads(read.to_jwt_bundle())["keys"]] == ["jwt-svid"] * 2
    # A certificate beside such a key makes no root of it.
    certified = {**AUTHORITIES[0].to_jwk(), "x5c": first_key()["x5c"]}
    assert TrustBundle.from_jwks(MESH, jwks(keys=[first_key(), certified])).roots == (P256,)


def test_a_damaged_key_for_tokens_keeps_no_root_from_being_believed() -> None:
    for damaged in ({"use": "jwt-svid"}, {"use": "jwt-svid", "kid": 1, "kty": "EC", "x5c": [1, 2]}):
        found = TrustBundle.from_jwks(MESH, jwks(keys=[first_key(), damaged]))
        assert (found.roots, found.jwt_authorities) == ((P256,), ())


def test_the_jwks_has_the_members_of_its_specifications() -> None:
    document = json.loads(BUNDLE.to_jwks())
    assert (document["spiffe_sequence"], document["spiffe_refresh_hint"]) == (7, 300)
    rsa_jwk, p256, p384, ed, *of_ml_dsa = document["keys"]
    assert set(rsa_jwk) == {"use", "kty", "n", "e", "x5c"}
    assert (rsa_jwk["kty"], rsa_jwk["e"]) == ("RSA", "AQAB")
    for jwk, curve, size in ((p256, "P-256", 32), (p384, "P-384", 48)):
        assert set(jwk) == {"use", "kty", "crv", "x", "y", "x5c"}
        assert (jwk["use"], jwk["kty"], jwk["crv"]) == ("x509-svid", "EC", curve)
        assert len(base64.urlsafe_b64decode(jwk["x"] + "==")) == size
    assert base64.b64decode(p256["x5c"][0]) == der(P256)
    assert set(ed) == {"use", "kty", "crv", "x", "x5c"}
    assert (ed["kty"], ed["crv"], len(ed["x"])) == ("OKP", "Ed25519", 43)
    assert len(of_ml_dsa) == 3
    for jwk, size in zip(of_ml_dsa, (44, 65, 87), strict=True):
        assert set(jwk) == {"use", "kty", "alg", "pub", "x5c"}
        assert (jwk["kty"], jwk["alg"]) == ("AKP", f"ML-DSA-{size}")


def test_others_are_shown_the_roots_whose_keys_every_library_knows() -> None:
    both = evolve(BUNDLE, jwt_authorities=AUTHORITIES)
    shown = both.for_others()
    assert shown == evolve(both, roots=ROOTS[:4])
    assert {jwk["kty"] for jwk in json.loads(shown.to_jwks())["keys"]} == {"RSA", "EC", "OKP"}
    assert shown.for_others() is shown
    assert evolve(both, roots=ROOTS[4:]).for_others().roots == ()


def test_a_post_quantum_key_is_one_only_with_the_alg_that_its_root_has() -> None:
    """RFC 9964 section 3: without alg nobody knows which of the three it is."""
    jwk = BUNDLE.to_jwks_object()["keys"][-1]
    assert TrustBundle.from_jwks(MESH, jwks(keys=[jwk])).roots == (ROOTS[-1],)
    without = {name: value for name, value in jwk.items() if name != "alg"}
    for bad in (without, {**jwk, "alg": "ML-DSA-65"}, {**jwk, "pub": jwk["pub"][:-4]}):
        assert TrustBundle.from_jwks(MESH, jwks(keys=[first_key(), bad])).roots == (P256,)


def test_a_jwk_is_written_as_rfc_8037_appendix_a_writes_it() -> None:
    raw = bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")
    assert jwk_members(Ed25519PublicKey.from_public_bytes(raw)) == {
        "kty": "OKP",
        "crv": "Ed25519",
        "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
    }


def test_coordinates_keep_their_leading_zeros() -> None:
    while True:  # one point in 128 has a short coordinate
        private_key = ec.generate_private_key(ec.SECP256R1())
        numbers = private_key.public_key().public_numbers()
        if min(numbers.x, numbers.y) < 2**248:
            break
    root = forge(None, ROOT, subject_key=private_key)
    (jwk,) = TrustBundle(MESH, (root,)).to_jwks_object()["keys"]
    assert (len(jwk["x"]), len(jwk["y"])) == (43, 43)


def test_a_key_with_two_certificates_is_refused_aloud() -> None:
    two = first_key(x5c=[*first_key()["x5c"], *x5c(root_of(KeyAlgorithm.EC_P384))])
    for keys in ([two], [first_key(), two]):
        with pytest.raises(BadBundle, match=r"has 2 certificates in x5c: a root stands alone"):
            TrustBundle.from_jwks(MESH, jwks(keys=keys))


def test_a_bundle_of_which_nothing_is_left_is_not_an_empty_one() -> None:
    with pytest.raises(BadBundle, match=r"none of the 2 keys for X.509"):
        TrustBundle.from_jwks(MESH, jwks(keys=[first_key(x5c=["AAAA"]), first_key(x="AAAA")]))
    assert TrustBundle.from_jwks(MESH, jwks(keys=[first_key(use="jwt-svid")])).roots == ()


def test_without_a_hint_the_jwks_has_none() -> None:
    assert "spiffe_refresh_hint" not in TrustBundle(MESH, ROOTS).to_jwks_object()


def test_an_empty_bundle_is_a_bundle() -> None:
    assert TrustBundle.from_jwks(MESH, b'{"keys": []}') == TrustBundle(MESH, ())


def test_a_root_given_twice_is_held_once() -> None:
    assert TrustBundle.from_jwks(MESH, jwks(keys=[first_key(), first_key()])).roots == (P256,)


def x5c(cert: x509.Certificate) -> list[str]:
    return [base64.b64encode(der(cert)).decode()]


LEAF = mesh().leaf(leaf_key=key("root 2"))
ODD = forge(None, ROOT, subject_key=ec.generate_private_key(ec.SECP521R1()))


@pytest.mark.parametrize(
    "bad",
    [
        first_key(use="jwt-svid"),
        {k: v for k, v in first_key().items() if k != "use"},
        {k: v for k, v in first_key().items() if k != "kty"},
        {k: v for k, v in first_key().items() if k != "x5c"},
        first_key(x5c=[]),
        first_key(x5c=first_key()["x5c"][0]),
        first_key(x5c=[None]),
        first_key(x5c=["*"]),
        first_key(x5c=["\u00e9"]),
        first_key(x5c=["AAAA"]),
        first_key(x5c=[base64.b64encode(der(ROOTS[0])).decode()]),
        first_key(x="AAAA"),
        first_key(x=1),
        first_key(crv="P-384"),
        first_key(x5c=x5c(LEAF)),
        {"use": "x509-svid", "x5c": x5c(ODD)},
        first_key(crv="P-521", x5c=x5c(ODD)),
        {},
        [],
        None,
        "key",
        7,
    ],
)
def test_a_bad_key_is_passed_over_and_the_rest_stay(bad: object) -> None:
    bundle = TrustBundle.from_jwks(MESH, jwks(keys=[bad, first_key(), bad]))
    assert bundle.roots == (P256,)


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[]",
        b"null",
        b"{}",
        b'{"keys": null}',
        b'{"keys": {}}',
        b"[" * 100_000,
        b'{"keys": [], "spiffe_sequence": ' + b"9" * 5000 + b"}",
        jwks(spiffe_sequence=-1),
        jwks(spiffe_sequence=1.5),
        jwks(spiffe_sequence="1"),
        jwks(spiffe_sequence=True),
        jwks(spiffe_sequence=None),
        jwks(spiffe_refresh_hint=-1),
        jwks(spiffe_refresh_hint=0.0),
        jwks(spiffe_refresh_hint=False),
        jwks(spiffe_refresh_hint=""),
        jwks(spiffe_refresh_hint=[]),
    ],
    ids=lambda document: document[:40],
)
def test_what_is_no_bundle_is_refused(document: bytes) -> None:
    with pytest.raises(BadBundle) as refusal:
        TrustBundle.from_jwks(MESH, document)
    assert refusal.value.code == "bad-bundle"


@given(
    st.binary()
    | mutated(TrustBundle(MESH, ROOTS[1:]).to_jwks())
    | json_values.map(lambda value: json.dumps(value).encode())
    | st.dictionaries(st.sampled_from(["use", "kty", "crv", "x", "y", "x5c"]), json_values).map(
        lambda changed: jwks(keys=[first_key(**changed), first_key()])
    )
)
def test_any_document_is_a_bundle_or_refused(document: bytes) -> None:
    try:
        bundle = TrustBundle.from_jwks(MESH, document)
    except PkiError:
        return
    assert TrustBundle.from_jwks(MESH, bundle.to_jwks()).roots == bundle.roots


@given(mutated(der(P256)))
def test_a_damaged_root_is_read_or_refused_and_nothing_else(data: bytes) -> None:
    encoded = base64.b64encode(data).decode()
    keys = [first_key(x5c=[encoded]), first_key()]
    assert P256 in TrustBundle.from_jwks(MESH, jwks(keys=keys)).roots
    try:
        TrustBundle.from_pem(MESH, pem(data))
    except PkiError as error:
        assert str(error).isprintable()


def test_a_certificate_that_is_no_ca_is_no_root() -> None:
    with pytest.raises(BadBundle, match=r"CN=backend is no CA certificate"):
        TrustBundle.from_pem(MESH, certificates_pem([ROOTS[0], mesh().leaf()]))
    bare = forge(None, ROOT, replace={x509.BasicConstraints: None})
    with pytest.raises(BadBundle):
        TrustBundle.from_pem(MESH, certificates_pem([bare]))


def test_a_file_without_certificates_is_no_bundle() -> None:
    with pytest.raises(Malformed, match="the trust bundle holds no certificates"):
        TrustBundle.from_pem(MESH, key().to_pem())


def test_trust_domains_are_held_apart() -> None:
    mine, others = mesh().bundle, mesh(OTHER).bundle
    held = BundleSet.of(mine, others)
    assert held.get(MESH) is mine
    assert held.get(OTHER) is others
    assert BundleSet().get(MESH) is None
    assert list(held) == [mine, others]
    assert held.all_roots == [*mine.roots, *others.roots]


def test_a_bundle_is_replaced_or_removed_without_touching_the_others() -> None:
    mine, others = mesh().bundle, mesh(OTHER).bundle
    held = BundleSet.of(mine, others)
    emptied = TrustBundle(MESH, ())
    assert held.with_bundle(emptied) == BundleSet.of(emptied, others)
    assert BundleSet.of(mine).with_bundle(others) == held
    assert held.without(OTHER) == BundleSet.of(mine)
    assert held.without(OTHER).without(OTHER) == BundleSet.of(mine)
    assert held == BundleSet.of(mine, others), "a value"


@pytest.mark.parametrize(
    ("root", "why"),
    [(LEAF, "CN=backend is no CA certificate"), (ODD, "is of a kind that the mesh")],
)
def test_what_the_reader_would_pass_over_is_not_written(root: x509.Certificate, why: str) -> None:
    bundle = TrustBundle(MESH, (ROOTS[0], root))
    for write in (bundle.to_jwks, bundle.to_jwks_object):
        with pytest.raises(BadBundle, match=why):
            write()


@cache
def foreign_roots() -> list[x509.Certificate]:
    """As other CAs make them: of sizes, curves and kinds that we make no keys of, and a leaf."""
    keys = (
        rsa_key(3072),
        rsa_key(exponent=3),
        ec.generate_private_key(ec.SECP256K1()),
        ed448.Ed448PrivateKey.generate(),
    )
    return [ODD, LEAF, *(forge(None, ROOT, subject_key=private_key) for private_key in keys)]


@given(
    st.deferred(
        lambda: st.lists(st.sampled_from([*ROOTS, *foreign_roots()]), unique=True).map(tuple)
    )
)
def test_a_bundle_is_read_back_whole_or_not_written(roots: tuple[x509.Certificate, ...]) -> None:
    bundle = TrustBundle(MESH, roots)
    try:
        document = bundle.to_jwks()
    except BadBundle:
        assert not set(roots) <= set(ROOTS)
    else:
        assert TrustBundle.from_jwks(MESH, document) == bundle


def test_every_algorithm_has_members_of_its_own_in_a_jwk() -> None:
    told = [jwk_members(key("root", algorithm).public_key) for algorithm in KeyAlgorithm]
    assert all(members and members["kty"] for members in told)
    assert len({tuple(sorted(members.items())) for members in told if members}) == len(KeyAlgorithm)
    assert jwk_members(ed448.Ed448PrivateKey.generate().public_key()) is None


def test_a_forged_root_is_good_for_these_tests() -> None:
    assert forge_root().certificate.not_valid_after_utc > NOW


ISSUING, A_ROOT = mesh().issuing.certificate, mesh().root.certificate


def test_roots_are_read_in_der_and_beside_what_they_have_certified() -> None:
    assert TrustBundle.from_pem(MESH, der(A_ROOT)).roots == (A_ROOT,)
    assert TrustBundle.from_pem(MESH, certificates_pem([ISSUING, A_ROOT])).roots == (A_ROOT,)


NO_ROOTS = {
    "a leaf": (certificates_pem([mesh().leaf()]), r"it is the workload spiffe://.*/backend's"),
    "an issuing CA": (certificates_pem([ISSUING]), "is an issuing CA, which .* has certified"),
    "a key": (key().to_pem(), "no certificates but a private key"),
    "a CSR": (
        build_csr(key(), BACKEND),
        "no certificates but a CSR: name the file .* a CA has made",
    ),
    "a CRL": (pem(sign_crl(mesh().issuing), "X509 CRL"), "no certificates but a CRL"),
    "a CRL in DER": (sign_crl(mesh().issuing), "no certificates but a CRL"),
    "a PKCS #7": (pem(b"0\0", "PKCS7"), "openssl pkcs7 -print_certs"),
    "nothing": (b"", "there is nothing in it"),
    "JSON": (b'{"keys": []}', "it is JSON"),
}


@pytest.mark.parametrize("kind", NO_ROOTS)
def test_what_is_no_root_is_told_by_what_it_is(kind: str) -> None:
    data, words = NO_ROOTS[kind]
    with pytest.raises(PkiError, match=rf"^--ca-file /x:? ?.*{words}"):
        TrustBundle.from_pem(MESH, data, "--ca-file /x")
