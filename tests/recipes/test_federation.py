"""SPIFFE Federation with the libraries of others: go-spiffe's client and server, and py-spiffe's parsers."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from cryptography.hazmat.primitives.hashes import SHA256

from pki.jwt_svid.jwks import JwtAuthority
from pki.keys import KeyAlgorithm
from pki.spiffe import TrustDomain
from pki.svid.bundle import BundleSet, TrustBundle
from pki.svid.federated_document import FederatedDocument
from pki.svid.federation import Profile, Relationship
from pki.svid.x509svid import certificates_pem
from tests.authorities import NOW, key, mesh
from tests.peers.building import go_peer
from tests.recipes.pages import need
from tests.running import Running
from tests.twisted_mesh.federation.hostile import Shown, reactor, svid, web_certificate, web_root
from tests.twisted_mesh.grpc.sockets import run, turn_until
from twisted_mesh.ca.api.bundle_site import BundleSite
from twisted_mesh.federation.fetcher import BundleFetcher
from twisted_mesh.http.server import BoundedSite
from twisted_mesh.limits.rate_limit import Rate
from twisted_mesh.runtime.clock import wall_clock
from twisted_mesh.testing import MemoryCa
from twisted_mesh.tls.web import over_web_tls

pytestmark = pytest.mark.recipes
PEER = TrustDomain("peer.example")
JWT_KEYS = tuple(
    JwtAuthority.of(key(f"jwt of {algorithm}", algorithm).public_key)  # type: ignore[arg-type]
    for algorithm in (KeyAlgorithm.EC_P256, KeyAlgorithm.EC_P384, KeyAlgorithm.RSA_2048)
)
#: Of every kind of key that a root of ours may have.
OTHER_ROOTS = tuple(
    mesh(PEER, key(f"peer's root {algorithm}", algorithm), now=NOW).root.certificate
    for algorithm in KeyAlgorithm
)


@pytest.fixture(scope="module")
def ca() -> MemoryCa:
    return MemoryCa(PEER)


def whole(ca: MemoryCa) -> TrustBundle:
    """All that a bundle can hold."""
    return TrustBundle(PEER, (*ca.bundle.roots, *OTHER_ROOTS), 2**62, 300, JWT_KEYS)


@contextmanager
def served(bundle: TrustBundle, shown: Shown) -> Iterator[str]:
    """Where our site serves it."""
    site = BoundedSite(BundleSite(lambda: bundle, Rate(100, 100), reactor()), reactor())
    port = reactor().listenTCP(
        0,
        over_web_tls(shown, site, reactor()),  # type: ignore[arg-type]
        interface="127.0.0.1",
    )
    try:
        yield f"https://localhost:{port.getHost().port}/bundle"
    finally:
        run(_closed(port))
        run(site.drain(1.0))


async def _closed(port: Any) -> None:
    await port.stopListening()


def fetched_by_go(*words: str | Path) -> dict[str, Any]:
    """What go-spiffe has fetched; the test's reactor serves it meanwhile."""
    with subprocess.Popen(
        [go_peer(), "fetch", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        turn_until(lambda: process.poll() is not None)
        out, err = process.communicate()
    assert process.returncode == 0, err
    found: dict[str, Any] = json.loads(out)
    return found


def shown_to_go(bundle: TrustBundle) -> TrustBundle:
    """What our CA shows to anybody."""
    shown = bundle.for_others()
    assert 0 < len(shown.roots) < len(bundle.roots)
    return shown


def as_go_tells(bundle: TrustBundle) -> dict[str, object]:
    return {
        "roots": [root.fingerprint(SHA256()).hex() for root in bundle.roots],
        "keys": sorted(authority.kid for authority in bundle.jwt_authorities),
        "sequence": bundle.sequence,
        "hint": bundle.refresh_hint,
    }


def test_go_spiffe_fetches_our_bundle_by_both_profiles_and_we_read_what_it_writes(
    ca: MemoryCa, tmp_path: Path
) -> None:
    bundle, endpoint = shown_to_go(whole(ca)), ca.issue("spiffe://peer.example/mesh/ca")
    (tmp_path / "held.json").write_bytes(ca.bundle.to_jwks())
    (tmp_path / "web.pem").write_bytes(certificates_pem([web_root()[0]]))
    with served(bundle, svid(endpoint)) as url:
        by_spiffe = fetched_by_go(url, str(PEER), tmp_path / "held.json", str(endpoint.spiffe_id))
    with served(bundle, web_certificate("localhost")) as url:
        by_web = fetched_by_go(url, str(PEER), tmp_path / "web.pem")
    for found in (by_spiffe, by_web):
        written = FederatedDocument.parse(PEER, found.pop("written").encode())
        assert {**found, "keys": sorted(found["keys"])} == as_go_tells(bundle)
        assert written.passed_over == ()
        again = written.bundle
        assert set(again.jwt_authorities) == set(bundle.jwt_authorities)
        assert evolve(again, jwt_authorities=()) == evolve(bundle, jwt_authorities=())


def test_go_spiffe_drops_a_bundle_for_one_key_that_it_does_not_know(
    ca: MemoryCa, tmp_path: Path
) -> None:
    """Why such roots are left out: once this fails, they need not be."""
    (tmp_path / "web.pem").write_bytes(certificates_pem([web_root()[0]]))
    known = ca.bundle.roots[0]
    (pq,) = (
        root
        for root, algorithm in zip(OTHER_ROOTS, KeyAlgorithm, strict=True)
        if algorithm is KeyAlgorithm.ML_DSA_65
    )
    with (
        served(TrustBundle(PEER, (known, pq)), web_certificate("localhost")) as url,
        pytest.raises(AssertionError, match=r"unable to parse JWKS: .*unsupported key type"),
    ):
        fetched_by_go(url, str(PEER), tmp_path / "web.pem")
    with served(TrustBundle(PEER, (known, pq)).for_others(), web_certificate("localhost")) as url:
        found = fetched_by_go(url, str(PEER), tmp_path / "web.pem")
    assert found["roots"] == [known.fingerprint(SHA256()).hex()]


def test_we_fetch_what_go_spiffe_serves_by_both_profiles(ca: MemoryCa, tmp_path: Path) -> None:
    bundle, endpoint = shown_to_go(whole(ca)), ca.issue("spiffe://peer.example/bundle-server")
    (tmp_path / "bundle.json").write_bytes(bundle.to_jwks())
    fetcher = BundleFetcher(reactor(), wall_clock, (web_root()[0],))
    held = BundleSet.of(ca.bundle)
    for shown, endpoint_id in (
        (svid(endpoint), endpoint.spiffe_id),
        (web_certificate("localhost"), None),
    ):
        (tmp_path / "shown.pem").write_bytes(certificates_pem(shown.chain))
        (tmp_path / "shown.key").write_bytes(shown.key.to_pem())
        go = Running.start(
            go_peer(),
            *("endpoint", str(PEER), "bundle.json", "shown.pem", "shown.key"),
            cwd=tmp_path,
            real=True,
        )
        try:
            port = go.wait_for(r"listening (\d+)")[1]
            profile = Profile.HTTPS_SPIFFE if endpoint_id else Profile.HTTPS_WEB
            url = f"https://localhost:{port}/"
            found = run(fetcher.fetch_bundle(Relationship(PEER, url, profile, endpoint_id), held))
        finally:
            go.stop()
        assert found.passed_over == ()
        assert set(found.bundle.jwt_authorities) == set(bundle.jwt_authorities)
        assert evolve(found.bundle, jwt_authorities=()) == evolve(bundle, jwt_authorities=())


def test_py_spiffe_reads_what_of_a_bundle_it_reads(ca: MemoryCa) -> None:
    """It has no parser of whole bundles: its JWT bundle is a JWKS, and its X.509 bundle is PEM."""
    need("spiffe")
    from spiffe import JwtBundle, X509Bundle
    from spiffe import TrustDomain as PyTrustDomain

    bundle, domain = whole(ca), PyTrustDomain(str(PEER))
    tokens = JwtBundle.parse(domain, bundle.to_jwt_bundle())
    assert set(tokens.jwt_authorities) == {authority.kid for authority in JWT_KEYS}
    roots = X509Bundle.parse(domain, bundle.to_pem())
    assert set(roots.x509_authorities) == set(bundle.roots)
