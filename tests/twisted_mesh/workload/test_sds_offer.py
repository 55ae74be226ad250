from attrs import evolve

from pki.der import blocks
from pki.errors import PkiError
from pki.keys import MemoryKey
from pki.pem import CERTIFICATE, CRL
from pki.spiffe import TrustDomain
from pki.svid.bundle import TrustBundle
from pki.svid.x509svid import certificates_pem, load_certificates
from tests.authorities import MESH, OTHER, mesh
from tests.twisted_mesh.workload.fake_workloads import (
    bundles,
    crl,
    identity,
    refusing,
    snapshot,
)
from twisted_mesh.workload.interface import Bundles, Snapshot
from twisted_mesh.workload.sds_messages import Content
from twisted_mesh.workload.sds_offer import Offer

BACKEND, SHOP = "spiffe://mesh.local/service/backend", "spiffe://mesh.local/service/shop"


def content(offer: Offer, name: str) -> Content:
    secret = offer.get(name)
    assert secret is not None
    read = Content.parse(secret.data)
    assert read.name == secret.name == name
    return read


def test_an_identity_has_its_id_and_the_first_is_the_default() -> None:
    first, second = identity("shop"), identity("backend")
    offer = Offer.of(snapshot(first, second))
    for name, held in ((SHOP, first), (BACKEND, second), ("default", first)):
        read = content(offer, name)
        assert load_certificates(read.chain) == held.svid.chain
        assert MemoryKey.from_pem(read.key).public_key == held.svid.key.public_key
        assert not read.bundles


def test_a_bundle_has_its_trust_domain_with_and_without_the_scheme_and_own_and_all_have_names() -> (
    None
):
    offer = Offer.of(snapshot(foreign=[OTHER]))
    for name, domains in (
        ("spiffe://mesh.local", [MESH]),
        ("mesh.local", [MESH]),
        ("ROOTCA", [MESH]),
        ("spiffe://other.example", [OTHER]),
        ("ALL", [MESH, OTHER]),
    ):
        read = content(offer, name)
        assert list(read.bundles) == [str(domain) for domain in domains]
        assert not read.chain
    assert offer.names == (BACKEND, "spiffe://mesh.local", "spiffe://other.example")


def test_crls_stand_beside_the_roots_of_their_own_trust_domain_alone() -> None:
    known = bundles(OTHER)
    read = content(Offer.of(Snapshot(evolve(known, crls={MESH: [crl(MESH), b"another"]}))), "ALL")
    held = [(block.label, block.der) for block in blocks(read.bundles["mesh.local"])]
    assert [label for label, _ in held] == [CERTIFICATE, CRL, CRL]
    assert [der for _, der in held[1:]] == [crl(MESH), b"another"]
    roots = mesh(OTHER).bundle.roots
    assert read.bundles["other.example"] == certificates_pem(roots)


def test_a_trust_domain_without_roots_is_not_told_of() -> None:
    """Envoy refuses a validator of which one bundle is empty, and all its other domains with it."""
    empty = TrustDomain("empty.example")
    known = bundles()
    known = evolve(known, x509=known.x509.with_bundle(TrustBundle(empty, ())))
    offer = Offer.of(Snapshot(known))
    assert offer.get(str(empty)) is None
    assert list(content(offer, "ALL").bundles) == ["mesh.local"]
    nobody = Offer.of(Snapshot(Bundles(empty, known.x509.without(MESH))))
    assert [nobody.get(name) for name in ("ROOTCA", "ALL")] == [None, None]


def test_a_version_is_that_of_the_content_alone() -> None:
    one, same = Offer.of(snapshot(foreign=[OTHER])), Offer.of(snapshot(foreign=[OTHER]))
    rotated = Offer.of(snapshot(identity(serial=1)))
    for name in ("default", "ROOTCA", "ALL"):
        assert one.get(name) == same.get(name)
    assert [
        name
        for name in ("default", BACKEND, "ROOTCA", "ALL")
        if getattr(one.get(name), "version", "") != getattr(rotated.get(name), "version", "")
    ] == ["default", BACKEND, "ALL"]


def test_what_is_not_there_is_known_not_to_be_there_only_where_nothing_is_amiss() -> None:
    away = PkiError("the CA is away")
    assert Offer.of(snapshot()).is_whole
    assert not Offer().is_whole
    assert not Offer.of(refusing(away, final=False)).is_whole
    offer = Offer.of(refusing(away, final=False, known=bundles()))
    assert not offer.is_whole
    assert offer.get("ROOTCA")
    assert offer.get("default") is None


def test_what_there_is_is_named_for_people() -> None:
    assert str(Offer()) == "nothing"
    assert str(Offer.of(snapshot())) == f"{BACKEND}, spiffe://mesh.local"
    many = Offer.of(snapshot(*(identity(f"number-{number}") for number in range(12))))
    assert str(many).endswith("number-7, 5 more")
