"""Bundles fetched at real sockets: from whom they are taken, and what else may answer there."""

import gzip
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import pytest
from attrs import evolve
from OpenSSL import SSL
from twisted.internet.defer import maybeDeferred

from pki.errors import PkiError
from pki.keys import key_id
from pki.spiffe import SpiffeId, TrustDomain
from pki.svid.bundle import BundleSet, TrustBundle
from pki.svid.federation import Profile, Relationship
from pki.svid.revocation_set import Reason, Revocation, RevocationSet
from tests.twisted_mesh.federation.hostile import (
    Endpoint,
    Shown,
    answer,
    ok,
    reactor,
    redirect,
    serving,
    svid,
    web_certificate,
    web_root,
)
from tests.twisted_mesh.grpc.sockets import run, turn_until
from tests.twisted_mesh.tls.test_groups import without_setter
from twisted_mesh.federation.fetcher import MOST_REDIRECTIONS, BundleFetcher
from twisted_mesh.runtime.clock import wall_clock
from twisted_mesh.testing import FORGERIES, MemoryCa

PEER, THIRD = TrustDomain("peer.example"), TrustDomain("third.example")
ENDPOINT = PEER.member("mesh", "ca")


@cache
def ca(trust_domain: TrustDomain = PEER) -> MemoryCa:
    return MemoryCa(trust_domain)


def bundle(sequence: int = 7) -> TrustBundle:
    return evolve(ca().bundle, sequence=sequence, refresh_hint=300)


@cache
def good() -> Shown:
    return svid(ca().issue(str(ENDPOINT)))


def fetched(
    url: str,
    endpoint_id: SpiffeId | None = ENDPOINT,
    bundles: BundleSet | None = None,
    *,
    timeout: float = 2.0,
    revoked: RevocationSet | None = None,
    requires_pq: bool = False,
) -> TrustBundle:
    """By ``https_spiffe``; without an ID by ``https_web``, believing one CA of the web."""
    profile = Profile.HTTPS_WEB if endpoint_id is None else Profile.HTTPS_SPIFFE
    relationship = Relationship(PEER, url, profile, endpoint_id)
    fetcher = BundleFetcher(
        reactor(), wall_clock, (web_root()[0],), timeout, maybeDeferred, requires_pq
    )
    held = BundleSet.of(ca().bundle) if bundles is None else bundles
    return run(fetcher.fetch_bundle(relationship, held, revoked)).bundle


def refused(url: str, *args: Any, **kwargs: Any) -> tuple[str, str]:
    """The code, and the words."""
    with pytest.raises(PkiError) as refusal:
        fetched(url, *args, **kwargs)
    assert str(refusal.value).isprintable()
    return refusal.value.problems[0].code, str(refusal.value)


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    """A good one; a test gives it its answers."""
    with serving(ok(bundle().to_jwks()), good()) as found:
        yield found


def test_by_https_spiffe_it_is_the_id_that_counts_and_no_name(endpoint: Endpoint) -> None:
    """The certificate names localhost and 127.0.0.1 too; one without a name of a host does as well."""
    assert fetched(endpoint.url()) == bundle()
    (head,) = endpoint.asked
    lines = head.decode().lower().split("\r\n")
    assert lines[0] == "get /bundle http/1.1"
    assert not [line for line in lines if line.startswith(("accept-encoding", "cookie", "author"))]
    nameless = svid(ca().issue(str(ENDPOINT), dns=(), ip=()))
    with serving(ok(bundle().to_jwks()), nameless) as other:
        assert fetched(other.url("/a?b=c")) == bundle()
        assert other.asked[0].startswith(b"GET /a?b=c HTTP/1.1")


def test_by_https_web_it_is_the_host_that_counts() -> None:
    with serving(ok(bundle().to_jwks()), web_certificate("localhost", "127.0.0.1")) as endpoint:
        assert fetched(endpoint.url(), None) == bundle()
        assert fetched(endpoint.url(host="127.0.0.1"), None) == bundle()


def test_by_https_web_an_older_tls_will_do() -> None:
    shown = evolve(web_certificate("localhost"), newest=SSL.TLS1_2_VERSION)
    with serving(ok(bundle().to_jwks()), shown) as endpoint:
        assert fetched(endpoint.url(), None) == bundle()


@pytest.mark.parametrize("by", [ENDPOINT, None], ids=["https_spiffe", "https_web"])
@pytest.mark.parametrize("lock", ["both", "second"])
def test_by_either_profile_hybrid_groups_may_be_required(
    by: SpiffeId | None, lock: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if lock == "second":
        without_setter(monkeypatch)
    shown = good() if by else web_certificate("localhost")
    with serving(ok(bundle().to_jwks()), shown) as endpoint:
        assert fetched(endpoint.url(), by, requires_pq=True) == bundle()
    with serving(ok(bundle().to_jwks()), evolve(shown, groups="x25519")) as endpoint:
        assert refused(endpoint.url(), by, requires_pq=True)[0] == "classical-key-exchange"
        assert endpoint.asked == []


def test_by_https_spiffe_only_tls_13_is_spoken() -> None:
    with serving(b"", evolve(good(), newest=SSL.TLS1_2_VERSION)) as endpoint:
        assert refused(endpoint.url())[0] == "protocol-version"


@pytest.mark.parametrize(
    ("shown", "code"),
    [
        (lambda: web_certificate("other.example"), "name-mismatch"),
        (web_certificate, "name-mismatch"),
        (lambda: web_certificate("127.0.0.1"), "name-mismatch"),
        (lambda: web_certificate("localhost", issuer="nobody's CA"), "unknown-authority"),
        (
            lambda: web_certificate("localhost", since=datetime.now(UTC) - timedelta(days=9)),
            "expired",
        ),
        (
            lambda: web_certificate("localhost", since=datetime.now(UTC) + timedelta(days=9)),
            "not-yet-valid",
        ),
        # Of the mesh, and of no CA of the web.
        (good, "unknown-authority"),
    ],
)
def test_by_https_web_nobody_else_is_believed(shown: Callable[[], Shown], code: str) -> None:
    with serving(ok(bundle().to_jwks()), shown()) as endpoint:
        assert refused(endpoint.url(), None)[0] in (code, "incomplete-chain")
        assert endpoint.asked == []


@pytest.mark.parametrize(
    ("shown", "code"),
    [
        (lambda: svid(ca().issue("spiffe://peer.example/mesh/cb")), "name-mismatch"),
        (lambda: svid(ca(THIRD).issue("spiffe://third.example/mesh/ca")), "unknown-trust-domain"),
        # A CA of another trust domain that mints the endpoint's name.
        (lambda: svid(MemoryCa(PEER).issue(str(ENDPOINT))), "unknown-authority"),
        (lambda: web_certificate("localhost"), "not-an-svid"),
        *((lambda f=f: svid(ca().forged(f, str(ENDPOINT))), None) for f in FORGERIES),
    ],
)
def test_by_https_spiffe_nobody_else_is_believed(
    shown: Callable[[], Shown], code: str | None
) -> None:
    with serving(ok(bundle().to_jwks()), shown()) as endpoint:
        found, words = refused(endpoint.url(), revoked=ca().revoked)
        assert code in (None, found), words
        assert endpoint.asked == []


def test_another_id_is_told_with_the_one_that_was_configured() -> None:
    with serving(b"", svid(ca().issue("spiffe://peer.example/mesh/cb"))) as endpoint:
        _, words = refused(endpoint.url())
    assert "spiffe://peer.example/mesh/cb" in words
    assert f"to come from {ENDPOINT}" in words


def test_a_third_domain_may_have_the_bundle_and_is_judged_by_its_own() -> None:
    hub = ca(THIRD).issue("spiffe://third.example/hub")
    with serving(ok(bundle().to_jwks()), svid(hub)) as endpoint:
        both = BundleSet.of(ca().bundle, ca(THIRD).bundle)
        assert fetched(endpoint.url(), hub.spiffe_id, both) == bundle()
        code, words = refused(endpoint.url(), hub.spiffe_id)
        assert (code, "federate with that trust domain first" in words) == ("bad-federation", True)
    # The peer itself is not believed under the third's name.
    with serving(b"", good()) as endpoint:
        assert refused(endpoint.url(), hub.spiffe_id, both)[0] == "unknown-trust-domain"


def test_a_revoked_endpoint_is_refused(endpoint: Endpoint) -> None:
    stolen = good().chain[0]

    revocation = Revocation(
        key_id(ca().issuing.certificate.public_key()),
        stolen.serial_number,
        wall_clock(),
        Reason.KEY_COMPROMISE,
        stolen.not_valid_after_utc,
    )
    revoked = RevocationSet().merged([revocation], wall_clock())
    assert refused(endpoint.url(), revoked=revoked)[0] == "revoked"
    assert endpoint.asked == []


def test_an_endpoint_survives_the_change_of_the_root_that_it_rests_on() -> None:
    """The new root comes while the old one is held; what was fetched verifies the next connection."""
    anew = MemoryCa(PEER)
    both = evolve(bundle(8), roots=(*ca().bundle.roots, *anew.bundle.roots))
    only = evolve(anew.bundle, sequence=9)
    with serving(ok(both.to_jwks()), good()) as endpoint:
        held = fetched(endpoint.url())
    with serving(ok(only.to_jwks()), svid(anew.issue(str(ENDPOINT)))) as endpoint:
        assert refused(endpoint.url())[0] == "unknown-authority"
        assert fetched(endpoint.url(), bundles=BundleSet.of(held)) == only


HTML = b"<!doctype html><html><title>Sign in</title></html>"


@pytest.mark.parametrize(
    ("said", "code", "words"),
    [
        (ok(HTML, "text/html"), "bad-bundle", "(text/html): it is no SPIFFE bundle"),
        (ok(b"", "application/json"), "bad-bundle", "it begins ''"),
        (ok(bundle().to_jwks()[:-1]), "bad-bundle", "it is no SPIFFE bundle"),
        (answer(404), "not-served", "answers 404"),
        (answer(204), "not-served", "answers 204"),
        (answer(206, bundle().to_jwks()), "not-served", "answers 206"),
        (answer(304), "not-served", "answers 304"),
        (answer(401), "not-served", "answers 401"),
        (answer(500), "not-served", "answers 500"),
        (answer(302), "not-served", "does not say where to"),
        (ok(gzip.compress(bundle().to_jwks()), Content_Encoding="gzip"), "not-served", "'gzip'"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n{", "interrupted", "closed"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1073741824\r\n\r\n{", "not-served", "more than"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\n{}  ", "not-http", ""),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n{}", "not-http", ""),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nZ\r\n{}", "not-http", ""),
        (b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 50_000 + b"\r\n", "not-http", ""),
        (b"HTTP/1.1 100 Go on\r\n\r\n" * 5_000, "not-http", ""),
        (b"SSH-2.0-OpenSSH_9.9\r\n\r\n", "not-http", ""),
        (b"", "interrupted", "closed"),
    ],
    ids=lambda value: str(value[:30]) if isinstance(value, bytes) else None,
)
def test_what_is_no_bundle_is_refused(
    endpoint: Endpoint, said: bytes, code: str, words: str
) -> None:
    endpoint.answers = lambda _: said
    found, told = refused(endpoint.url())
    assert (found, words in told) == (code, True), told


def test_the_media_type_is_not_looked_at(endpoint: Endpoint) -> None:
    for media_type in ("text/plain", "application/jwk-set+json", "", "\xff"):
        endpoint.answers = lambda _, said=media_type: ok(bundle().to_jwks(), said)
        assert fetched(endpoint.url()) == bundle()


def test_a_gigabyte_is_left_after_a_megabyte(endpoint: Endpoint) -> None:
    sent = []

    def without_end(transport: Any) -> None:
        transport.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        more(transport)

    def more(transport: Any) -> None:
        if transport.connected and len(sent) < 1024:
            sent.append(transport.write(b"100000\r\n" + b" " * 0x100000 + b"\r\n"))
            reactor().callLater(0, more, transport)

    endpoint.answers = lambda _: without_end
    assert refused(endpoint.url())[0] == "not-served"
    assert len(sent) < 64


@pytest.mark.parametrize("more", [b"", b"HTTP/1.1 200 OK\r\n\r\n{}", b"\0" * 1000])
def test_who_does_not_hang_up_is_hung_up_on(endpoint: Endpoint, more: bytes) -> None:
    said = ok(bundle().to_jwks(), Connection="keep-alive") + more
    endpoint.answers = lambda _: lambda transport: transport.write(said)
    assert fetched(endpoint.url()) == bundle()
    turn_until(lambda: not endpoint.open)


def drip(transport: Any) -> None:
    """A byte now and then, for ever."""
    transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")

    def byte() -> None:
        if transport.connected:
            transport.write(b" ")
            reactor().callLater(0.05, byte)

    byte()


@pytest.mark.parametrize(
    "slow", [drip, lambda _: None, lambda transport: transport.write(b"HTTP/1.1 200 OK\r\na: b")]
)
def test_who_takes_too_long_is_left(endpoint: Endpoint, slow: Callable[[Any], object]) -> None:
    endpoint.answers = lambda _: slow
    code, words = refused(endpoint.url(), timeout=0.4)
    assert (code, "within 0.4 s" in words) == ("unreachable", True)


def test_who_never_shakes_hands_is_left() -> None:
    with serving(lambda _: lambda _: None, None) as endpoint:
        assert refused(endpoint.url(), timeout=0.4)[0] == "unreachable"
        assert refused(endpoint.url(), None, timeout=0.4)[0] == "unreachable"


def test_a_reset_and_nobody_there_are_told() -> None:
    with serving(lambda _: lambda transport: transport.abortConnection(), good()) as endpoint:
        assert refused(endpoint.url())[0] == "interrupted"
        url = endpoint.url()
    code, words = refused(url)
    assert (code, "no bundle endpoint answers" in words) == ("unreachable", True)


def test_plain_http_is_told() -> None:
    with serving(ok(bundle().to_jwks()), None) as endpoint:
        assert refused(endpoint.url(), timeout=0.4)[0] in ("not-tls", "interrupted", "unreachable")


def test_a_redirection_is_followed_to_whom_the_profile_believes(endpoint: Endpoint) -> None:
    pages = {"/bundle": redirect("a/b?c=d#part"), "/a/b?c=d": ok(bundle().to_jwks())}
    endpoint.answers = lambda path: pages[path]
    assert fetched(endpoint.url()) == bundle()
    with serving(ok(bundle(8).to_jwks()), good()) as elsewhere:
        for status in (301, 302, 303, 307, 308):
            pages["/bundle"] = redirect(elsewhere.url("/there"), status)
            assert fetched(endpoint.url()) == bundle(8)
    # Never stored: the next time the configured place is asked.
    pages["/bundle"] = ok(bundle(9).to_jwks())
    assert fetched(endpoint.url()) == bundle(9)


def test_a_redirection_must_lead_to_the_same_id(endpoint: Endpoint) -> None:
    with serving(ok(bundle().to_jwks()), svid(ca().issue("spiffe://peer.example/cdn"))) as other:
        endpoint.answers = lambda _: redirect(other.url())
        assert refused(endpoint.url())[0] == "name-mismatch"
        assert other.asked == []


def test_by_https_web_a_redirection_must_lead_to_the_host_that_it_names() -> None:
    with (
        serving(ok(bundle().to_jwks()), web_certificate("127.0.0.1")) as other,
        serving(ok(b""), web_certificate("localhost")) as endpoint,
    ):
        endpoint.answers = lambda _: redirect(other.url())
        assert refused(endpoint.url(), None)[0] == "name-mismatch"
        endpoint.answers = lambda _: redirect(other.url(host="127.0.0.1"))
        assert fetched(endpoint.url(), None) == bundle()


@pytest.mark.parametrize(
    ("location", "code"),
    [
        ("http://localhost/bundle", "bad-federation"),
        ("https://user@localhost/", "bad-federation"),
        ("ftp://localhost/", "bad-federation"),
        ("https://[", "not-served"),
        ("https://localhost/\xe4", "bad-federation"),
        ("https://localhost/" + "x" * 3000, "bad-federation"),
        ("https://:1/", "bad-federation"),
        ("data:application/json,{}", "bad-federation"),
    ],
    ids=lambda text: text[:30],
)
def test_a_redirection_leads_only_to_what_could_be_configured(
    endpoint: Endpoint, location: str, code: str
) -> None:
    endpoint.answers = lambda _: redirect(location).decode().encode("latin-1")
    assert refused(endpoint.url())[0] == code
    assert len(endpoint.asked) == 1


def test_redirections_come_to_an_end(endpoint: Endpoint) -> None:
    endpoint.answers = lambda _: redirect("/bundle")
    code, words = refused(endpoint.url())
    assert (code, "3 redirections are followed" in words) == ("not-served", True)
    assert len(endpoint.asked) == MOST_REDIRECTIONS + 1


def test_a_long_bundle_is_read_too(endpoint: Endpoint) -> None:
    long = bundle().to_jwks_object() | {"more": "x" * 100_000}

    endpoint.answers = lambda _: ok(json.dumps(long).encode())
    assert fetched(endpoint.url()) == bundle()
