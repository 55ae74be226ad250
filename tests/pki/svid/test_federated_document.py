"""SPIFFE bundles as other trust domains publish them."""

import base64
import json

import pytest
from attrs import evolve
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from pki.errors import PkiError
from pki.issuing.profile import ROOT
from pki.jwt_svid.jwks import JwtAuthority
from pki.keys import KeyAlgorithm
from pki.svid.bundle import BadBundle, TrustBundle
from pki.svid.federated_document import (
    LARGEST_DOCUMENT,
    MOST_ROOTS,
    FederatedDocument,
    ForeignRoot,
)
from tests.authorities import MESH, OTHER, der, forge, key, mesh
from tests.pki.strategies import json_values, mutated

ROOTS = tuple(mesh(MESH, key(f"peer {n}", KeyAlgorithm.EC_P256)).root.certificate for n in range(2))
AUTHORITIES = tuple(
    JwtAuthority.of(key(f"peer jwt {n}", KeyAlgorithm.EC_P256).public_key)  # type: ignore[arg-type]
    for n in range(2)
)
BUNDLE = TrustBundle(MESH, ROOTS, 7, 300, AUTHORITIES, (f"sha256/{'A' * 43}=",))
#: As RFC 7517 writes them.
JWKS = BUNDLE.to_jwks_object()
FIRST, SECOND, TOKEN_KEY, _ = JWKS["keys"]  # type: ignore[misc]


def published(**members: object) -> bytes:
    return json.dumps({**JWKS, **members}).encode()


def read(*keys: object) -> FederatedDocument:
    return FederatedDocument.parse(MESH, published(keys=keys))


def x5c(*certificates: x509.Certificate) -> list[str]:
    return [base64.b64encode(der(cert)).decode() for cert in certificates]


def test_what_is_published_is_read_and_nothing_is_passed_over() -> None:
    assert FederatedDocument.parse(MESH, BUNDLE.to_jwks()) == FederatedDocument(BUNDLE)


@pytest.mark.parametrize(
    "bad",
    [
        {**FIRST, "x5c": ["AAAA"]},
        {**FIRST, "x5c": []},
        {**FIRST, "x5c": "text"},
        {**FIRST, "x": SECOND["x"]},
        {**FIRST, "kty": "unheard-of"},
        {**FIRST, "x5c": x5c(mesh().leaf())},
        {**TOKEN_KEY, "kid": ""},
        {**TOKEN_KEY, "x": "AAAA"},
        {**TOKEN_KEY, "kid": "\ud800"},
    ],
    ids=["damaged", "empty", "text", "other-key", "kty", "leaf", "no-kid", "point", "surrogate"],
)
def test_a_bad_key_loses_that_key_and_is_told(bad: object) -> None:
    found = read(bad, SECOND, TOKEN_KEY)
    assert (found.bundle.roots, found.bundle.jwt_authorities) == (ROOTS[1:], AUTHORITIES[:1])
    (problem,) = found.passed_over
    assert problem.code == "bad-bundle-key"
    assert problem.detail.startswith("key 1 of the bundle")


def test_a_key_in_which_a_member_appears_twice_is_lost_and_the_rest_stays() -> None:
    text = json.dumps({"keys": [FIRST, SECOND]})
    twice = text.replace('"use": ', '"use": "x509-svid", "use": ', 1).encode()
    found = FederatedDocument.parse(MESH, twice)
    assert (found.bundle.roots, len(found.passed_over)) == (ROOTS[1:], 1)


def test_a_member_that_appears_twice_in_the_bundle_itself_has_it_refused() -> None:
    text = json.dumps({"keys": [FIRST]})[:-1]
    with pytest.raises(BadBundle, match="appears twice"):
        FederatedDocument.parse(MESH, f'{text}, "keys": []}}'.encode())


def test_a_number_that_is_null_is_not_there() -> None:
    nothing = published(spiffe_sequence=None, spiffe_refresh_hint=None)
    found = FederatedDocument.parse(MESH, nothing).bundle
    assert found == evolve(BUNDLE, sequence=0, refresh_hint=None)


def test_an_issuing_ca_is_no_root_and_the_root_beside_it_is() -> None:
    """OpenSSL would end no chain there: better said once than at each connection."""
    ca = mesh()
    found = FederatedDocument.parse(
        MESH, TrustBundle(MESH, (ca.issuing.certificate, ca.root.certificate)).to_jwks()
    )
    assert found.bundle.roots == (ca.root.certificate,)
    (problem,) = found.passed_over
    assert "have signed themselves" in problem.detail


def test_the_same_key_twice_is_held_once() -> None:
    assert read(FIRST, FIRST, TOKEN_KEY, TOKEN_KEY) == read(FIRST, TOKEN_KEY)


def test_of_a_name_that_two_keys_for_jwt_have_neither_is_believed() -> None:
    other = {**AUTHORITIES[1].to_jwk(), "kid": TOKEN_KEY["kid"]}
    found = read(FIRST, TOKEN_KEY, other)
    assert (found.bundle.roots, found.bundle.jwt_authorities) == (ROOTS[:1], ())
    assert "2 keys for JWT have the name" in found.passed_over[0].detail


def test_of_several_certificates_all_but_the_first_are_ignored() -> None:
    several = {**FIRST, "x5c": x5c(ROOTS[0], ROOTS[1], mesh().leaf())}
    assert read(several) == read(FIRST)


@pytest.mark.parametrize("use", ["wit-svid", "X509-SVID", "", None, 7, ["x509-svid"]])
def test_keys_of_another_use_are_none_of_ours(use: object) -> None:
    assert read({**FIRST, "use": use}, {"kty": "odd"}, "text", None, SECOND) == read(SECOND)


def test_without_any_key_nobody_is_believed() -> None:
    assert read().bundle.roots == ()
    assert read(TOKEN_KEY).bundle == evolve(BUNDLE, roots=(), jwt_authorities=AUTHORITIES[:1])


def test_where_no_key_for_x509_is_usable_nobody_is_believed_and_it_is_told() -> None:
    """What the document does not have any more is not believed, whatever stands in its place."""
    found = read({**FIRST, "kty": "PQ"}, {**SECOND, "x5c": ["AAAA"]})
    assert (found.bundle.roots, len(found.passed_over)) == ((), 2)


def test_of_many_bad_keys_only_some_are_told_one_by_one() -> None:
    found = read(*[{"use": "jwt-svid"}] * 500, FIRST)
    assert found.bundle.roots == ROOTS[:1]
    assert len(found.passed_over) == 21
    assert found.passed_over[-1].detail.startswith("480 more")


def named(*uris: str) -> x509.Certificate:
    return forge(None, ROOT, subject_key=key("peer 0"), uris=uris)


@pytest.mark.parametrize(
    "uris", [[str(OTHER.id)], [str(MESH.id), str(OTHER.id)], [f"{OTHER.id}/service/ca"]]
)
def test_a_root_that_says_it_is_another_domains_has_the_bundle_refused(uris: list[str]) -> None:
    foreign = TrustBundle(MESH, (ROOTS[1], named(*uris)))
    with pytest.raises(ForeignRoot, match=f"says that it is {OTHER}'s") as refusal:
        FederatedDocument.parse(MESH, foreign.to_jwks())
    assert refusal.value.code == "foreign-root"


@pytest.mark.parametrize("uris", [[str(MESH.id)], ["https://example.org/ca"], ["spiffe://NOT ONE"]])
def test_a_root_that_says_whose_it_is_or_nothing_is_believed(uris: list[str]) -> None:
    mine = TrustBundle(MESH, (named(*uris),))
    assert FederatedDocument.parse(MESH, mine.to_jwks()).bundle == mine


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"<!doctype html><title>Sign in</title>",
        BUNDLE.to_jwks()[:-1],
        BUNDLE.to_jwks().decode().encode("utf-16"),
        b"\xef\xbb\xbf" + BUNDLE.to_jwks(),
        b"[]",
        b"{}",
        b'{"keys": {}}',
        b"[" * 100_000,
        published(spiffe_sequence=-1),
        published(spiffe_sequence=2**63),
        published(spiffe_sequence=1.0),
        published(spiffe_sequence=True),
        published(spiffe_refresh_hint="300"),
        b'{"keys": [], "spiffe_sequence": NaN}',
        b'{"keys": [], "spiffe_sequence": ' + b"9" * 5000 + b"}",
        published(keys=[None] * 1001),
        published(keys=[FIRST] * (MOST_ROOTS + 1)),
        published(more="x" * LARGEST_DOCUMENT),
    ],
    ids=lambda document: document[:40],
)
def test_what_is_no_bundle_as_a_whole_is_refused(document: bytes) -> None:
    with pytest.raises(BadBundle) as refusal:
        FederatedDocument.parse(MESH, document)
    assert (refusal.value.code, str(refusal.value).isprintable()) == ("bad-bundle", True)


@given(
    st.binary()
    | mutated(BUNDLE.to_jwks())
    | json_values.map(lambda value: json.dumps(value).encode())
    | st.dictionaries(
        st.sampled_from(["use", "kty", "crv", "x", "y", "x5c", "kid", "alg"]), json_values
    ).map(lambda changed: published(keys=[{**FIRST, **changed}, {**TOKEN_KEY, **changed}, SECOND]))
)
def test_any_document_is_read_or_refused_and_is_written_again(document: bytes) -> None:
    try:
        found = FederatedDocument.parse(MESH, document)
    except PkiError:
        return
    again = FederatedDocument.parse(MESH, found.bundle.to_jwks())
    assert again == FederatedDocument(found.bundle)


def test_a_root_whose_key_anybody_may_have_loses_that_key_alone() -> None:
    weak = forge(None, ROOT, subject_key=ec.derive_private_key(2, ec.SECP384R1()))
    (described, *_) = TrustBundle(MESH, (weak,)).to_jwks_object()["keys"]  # type: ignore[misc]
    found = read(described, FIRST)
    assert found.bundle.roots == ROOTS[:1]
    (problem,) = found.passed_over
    assert "key 1 of the bundle has" in problem.detail
    assert "whose key anybody may have: the private half" in problem.detail


def test_a_jwt_key_whose_private_half_is_guessed_is_not_believed() -> None:
    private = ec.derive_private_key(1, ec.SECP256R1())
    weak = JwtAuthority.of(private.public_key())
    assert weak is not None
    found = read(FIRST, weak.to_jwk())
    assert found.bundle.jwt_authorities == ()
    assert "holds no usable key" in found.passed_over[0].detail
