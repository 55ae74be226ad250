"""CRLs and OCSP over HTTP: at the API's listeners, and at the plaintext port that serves nothing else."""

from base64 import b64encode
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any
from urllib.parse import quote

import pytest
from attrs import define, field
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from twisted.internet.task import Clock

from pki.crl.crl import read_crl
from pki.der import blocks
from pki.ocsp.evidence import lists_from
from pki.ocsp.request import SHA1, Issuer, OcspRequest, encode_get
from pki.policy.principal import anonymous
from pki.svid.revocation_set import RevocationSet
from pki.svid.x509svid import load_certificates
from tests.authorities import HOUR
from tests.twisted_mesh.ca.publishing import publishing_rig, revoke, revoked, with_root_key
from tests.twisted_mesh.ca.rigs import CaRig, Door, attestors_of, result_of
from tests.twisted_mesh.talking import Answer, Talk, read_answers
from twisted_mesh.ca.api.app import CaApi
from twisted_mesh.ca.api.public_site import PublicSite
from twisted_mesh.ca.api.routes import ROUTES
from twisted_mesh.ca.foreign_lists import issuers_in
from twisted_mesh.http.server import BoundedSite
from twisted_mesh.limits.rate_limit import Rate

SECOND = timedelta(seconds=1)
Asks = Callable[..., Answer]


@define(eq=False)
class Outlet:
    """Where it is asked for: one of the API's listeners, for a stranger, or the plaintext port."""

    rig: CaRig
    site: BoundedSite
    crl: str
    by_issuer: str
    """Before what names the issuer."""
    ocsp: str
    clock: Clock = field(factory=Clock)

    def ask(self, method: str, path: str, body: bytes = b"", **headers: str) -> Answer:
        given = {"host": "localhost", "content-length": str(len(body))}
        if method == "POST":
            given["content-type"] = "application/ocsp-request"
        given |= {name.replace("_", "-"): value for name, value in headers.items()}
        lines = [f"{method} {path} HTTP/1.1", *(f"{n}: {v}" for n, v in given.items() if v)]
        talk = Talk(self.site, self.clock)
        talk.say("\r\n".join((*lines, "", "")).encode() + body)
        (answer,) = read_answers(talk.wire.value(), to_head=method == "HEAD")
        return answer

    def get(self, path: str, **headers: str) -> Answer:
        return self.ask("GET", path, **headers)

    def post(self, request: bytes, **headers: str) -> Answer:
        return self.ask("POST", self.ocsp, request, **headers)


@pytest.fixture
def rig() -> Iterator[CaRig]:
    with publishing_rig() as made:
        with_root_key(made)
        result_of(made.ca.publisher.attend())
        yield made


def api_outlet(rig: CaRig) -> Outlet:
    api = CaApi(rig.ca, Door(anonymous("tls:no-certificate")), attestors_of(rig))
    site = BoundedSite(api, Clock())
    return Outlet(rig, site, "/api/v1/crl", "/api/v1/crl?issuer=", "/api/v1/ocsp")


def plain_outlet(rig: CaRig, rate: Rate = Rate(0, 0)) -> Outlet:  # noqa: B008 - frozen
    clock = Clock()
    site = BoundedSite(PublicSite(rig.ca, rate, clock), clock)
    return Outlet(rig, site, "/crl", "/crl/", "/ocsp", clock)


@pytest.fixture(params=[api_outlet, plain_outlet], ids=["api", "plain"])
def outlet(rig: CaRig, request: pytest.FixtureRequest) -> Outlet:
    made: Outlet = request.param(rig)
    return made


def request_for(rig: CaRig, *serials: int, nonce: bytes | None = None) -> bytes:
    identity = Issuer.of(rig.ca.authorities.issuing.certificate)
    return OcspRequest(tuple(identity.cert_id(s, SHA1) for s in serials), nonce).to_der()


def statuses(answer: Answer) -> list[str]:
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/ocsp-response"
    read = ocsp.load_der_ocsp_response(answer.body)
    if read.response_status is not ocsp.OCSPResponseStatus.SUCCESSFUL:
        return [read.response_status.name.lower()]
    return [single.certificate_status.name.lower() for single in read.responses]


# CRLs


def test_the_crl_of_the_one_that_issues_is_given_and_says_how_long_it_holds(
    outlet: Outlet,
) -> None:
    rig, serial = outlet.rig, revoked(outlet.rig)
    answer = outlet.get(outlet.crl)
    assert (answer.status, answer.headers["content-type"]) == (200, "application/pkix-crl")
    found = read_crl(answer.body, rig.ca.authorities.issuing.certificate, now=rig.time)
    assert [r.serial for r in found] == [serial]
    assert answer.headers["last-modified"] == "Mon, 23 Nov 2026 10:00:00 GMT"
    assert answer.headers["expires"] == "Mon, 23 Nov 2026 11:00:00 GMT"
    caching = answer.headers["cache-control"]
    assert caching == "public, max-age=60, no-transform, must-revalidate"


def test_each_issuers_is_given_by_its_key_id_and_the_roots_by_that_word(outlet: Outlet) -> None:
    rig = outlet.rig
    for word, certificate in (
        (rig.ca.authorities.issuing.key_id, rig.ca.authorities.issuing.certificate),
        ("root", rig.home.root.certificate),
        (rig.home.root.key_id, rig.home.root.certificate),
    ):
        answer = outlet.get(outlet.by_issuer + word)
        assert answer.status == 200
        assert read_crl(answer.body, certificate, now=rig.time).issuer


def test_another_trust_domain_is_given_all_of_them_each_after_its_issuer(rig: CaRig) -> None:
    serial = revoked(rig)
    answer = plain_outlet(rig).get("/crls")
    assert (answer.status, answer.headers["content-type"]) == (200, "application/x-pem-file")
    root, issuing = rig.home.root.certificate, rig.ca.authorities.issuing.certificate
    assert [block.label for block in blocks(answer.body)] == ["CERTIFICATE", "X509 CRL"] * 2
    assert load_certificates(answer.body) == (root, issuing)
    assert issuers_in(answer.body, [root], rig.time) == (root, issuing)
    lists, news = lists_from(answer.body, [root, issuing], rig.time, seen={}, known=RevocationSet())
    assert [r.serial for r in news] == [serial]
    assert len(lists) == 2


@pytest.mark.parametrize(
    ("issuer", "status", "code"),
    [
        ("ab" * 32, 404, "not-found"),
        ("AB" * 32, 400, "malformed"),
        ("x", 400, "malformed"),
        ("", 400, "malformed"),
    ],
)
def test_an_issuer_that_there_is_not_is_told(
    outlet: Outlet, issuer: str, status: int, code: str
) -> None:
    answer = outlet.get(outlet.by_issuer + issuer)
    assert (answer.status, answer.json["code"]) == (status, code)


def test_who_has_it_gets_a_304_until_there_is_another(outlet: Outlet) -> None:
    first = outlet.get(outlet.crl)
    tag, date = first.headers["etag"], first.headers["last-modified"]
    for held in ({"if_none_match": tag}, {"if_modified_since": date}):
        answer = outlet.get(outlet.crl, **held)
        assert (answer.status, answer.body) == (304, b"")
        assert answer.headers["etag"] == tag
        assert "expires" in answer.headers
    revoked(outlet.rig)  # in the same second
    for held in ({"if_none_match": tag}, {"if_modified_since": date}):
        answer = outlet.get(outlet.crl, **held)
        assert answer.status == 200
        assert answer.headers["etag"] != tag


def test_head_says_how_large_it_is(outlet: Outlet) -> None:
    whole = outlet.get(outlet.crl)
    head = outlet.ask("HEAD", outlet.crl)
    assert head.body == b""
    assert head.headers["content-length"] == str(len(whole.body))
    assert head.headers["etag"] == whole.headers["etag"]


def test_a_cache_is_not_told_to_keep_it_beyond_its_end(outlet: Outlet) -> None:
    outlet.rig.time += HOUR - 20 * SECOND
    assert "max-age=20," in outlet.get(outlet.crl).headers["cache-control"]


def test_one_that_cannot_be_made_is_a_503(rig: CaRig) -> None:
    with publishing_rig() as elsewhere:
        for outlet in (api_outlet(elsewhere), plain_outlet(elsewhere)):
            answer = outlet.get(outlet.by_issuer + "root")
            assert (answer.status, answer.json["code"]) == (503, "not-published")
            assert answer.headers["retry-after"] == "5"


# OCSP


def test_by_post_and_by_get_certificates_stand_the_same(outlet: Outlet) -> None:
    rig = outlet.rig
    good, *_ = rig.sign()
    bad = revoked(rig)
    for serial, standing in ((good.serial_number, "good"), (bad, "revoked"), (5, "unknown")):
        der = request_for(rig, serial)
        assert statuses(outlet.post(der)) == [standing]
        assert statuses(outlet.get(f"{outlet.ocsp}/{encode_get(der)}")) == [standing]
    several = request_for(rig, good.serial_number, bad, nonce=b"n" * 16)
    assert statuses(outlet.post(several)) == ["good", "revoked"]


def slashed(rig: CaRig) -> bytes:
    """A request whose base64 has slashes and plus signs."""
    for serial in range(1, 10_000):
        der = request_for(rig, (serial << 80) | 0xFBEFBEFFFFFF)
        text = b64encode(der)
        if b"/" in text and b"+" in text:
            return der
    raise AssertionError("no such request")


def test_the_base64_of_a_get_may_come_in_any_of_its_forms(outlet: Outlet) -> None:
    der = slashed(outlet.rig)
    plain = b64encode(der).decode()
    forms = [plain, quote(plain, safe=""), quote(plain, safe="/"), f"/{plain}"]
    forms.append(quote(plain, safe="").lower() if "%2f" in quote(plain, safe="") else forms[1])
    for form in forms:
        assert statuses(outlet.get(f"{outlet.ocsp}/{form}")) == ["unknown"]


def test_an_answer_without_nonce_may_be_given_again_by_caches(outlet: Outlet) -> None:
    leaf, *_ = outlet.rig.sign()
    path = f"{outlet.ocsp}/{encode_get(request_for(outlet.rig, leaf.serial_number))}"
    first = outlet.get(path)
    assert first.headers["expires"] == "Mon, 23 Nov 2026 11:00:00 GMT"
    assert outlet.get(path, if_none_match=first.headers["etag"]).status == 304
    revoke(outlet.rig, leaf.serial_number)
    after = outlet.get(path, if_none_match=first.headers["etag"])
    assert statuses(after) == ["revoked"]


def test_by_post_and_with_a_nonce_no_cache_keeps_it(outlet: Outlet) -> None:
    leaf, *_ = outlet.rig.sign()
    by_post = outlet.post(request_for(outlet.rig, leaf.serial_number))
    der = request_for(outlet.rig, leaf.serial_number, nonce=b"n" * 16)
    with_nonce = outlet.get(f"{outlet.ocsp}/{encode_get(der)}")
    for answer in (by_post, with_nonce):
        assert statuses(answer) == ["good"]
        assert answer.headers["cache-control"] == "no-store"
        assert "etag" not in answer.headers


@pytest.mark.parametrize("text", ["nonsense", "%", "MA%3D%3D", "%ff%fe", "MAA=", "a" * 9000])
def test_a_get_that_is_no_request_is_malformed_and_not_an_error_of_http(
    outlet: Outlet, text: str
) -> None:
    assert statuses(outlet.get(f"{outlet.ocsp}/{text}")) == ["malformed_request"]


def test_a_post_that_is_no_request_is_malformed_and_one_that_is_too_large_a_413(
    outlet: Outlet,
) -> None:
    assert statuses(outlet.post(b"nonsense")) == ["malformed_request"]
    assert statuses(outlet.post(b"")) == ["malformed_request"]
    assert outlet.post(bytes(64 * 1024 + 1)).status == 413
    assert outlet.post(b"{}", content_type="application/json").status == 415


# The plaintext port, and nothing else there.


def test_the_issuing_cas_certificate_is_there(rig: CaRig) -> None:
    outlet, issuing = plain_outlet(rig), rig.ca.authorities.issuing
    der = issuing.certificate.public_bytes(Encoding.DER)
    for path in ("/issuer", f"/issuer/{issuing.key_id}"):
        answer = outlet.get(path)
        assert answer.body == der
        assert answer.headers["content-type"] == "application/pkix-cert"
        assert x509.load_der_x509_certificate(answer.body) == issuing.certificate
    assert outlet.get(f"/issuer/{'ab' * 32}").status == 404
    assert outlet.get("/issuer/root").status == 404


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "OPTIONS"])
@pytest.mark.parametrize(
    "path", ["/", "/crl/", "/livez", "/crl/root/x", "/ocsp", "/metrics", "/../crl", "//crl"]
)
def test_nothing_else_is(rig: CaRig, method: str, path: str) -> None:
    if (method, path) == ("POST", "/ocsp"):
        return
    answer = plain_outlet(rig).ask(method, path)
    expected = 400 if (method, path) == ("GET", "/crl/") else 404
    assert answer.status == expected


@pytest.mark.parametrize("route", ROUTES, ids=" ".join)
def test_no_route_of_the_api_is(rig: CaRig, route: tuple[str, str]) -> None:
    rig.order.clear()
    method, path = route
    answer = plain_outlet(rig).ask(method, path.replace("*", "ab"), content_type="application/json")
    assert answer.status == 404
    assert rig.order == []


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_nothing_is_done_to_what_is_read(rig: CaRig, method: str) -> None:
    outlet = plain_outlet(rig)
    for path in ("/crl", "/crl/root", "/issuer"):
        assert outlet.ask(method, path).status == 404


def test_who_asks_too_often_is_told_when_to_come_again(rig: CaRig) -> None:
    outlet = plain_outlet(rig, Rate(1, 3))
    assert [outlet.get("/crl").status for _ in range(4)] == [200, 200, 200, 429]
    refused = outlet.post(request_for(rig, 1))
    assert (refused.status, refused.headers["retry-after"]) == (429, "1")
    outlet.clock.advance(1)
    assert outlet.get("/crl").status == 200


@pytest.mark.filterwarnings("ignore")
def test_a_bug_shows_nothing_of_itself(rig: CaRig, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_: Any) -> None:
        raise RuntimeError("secret words")

    monkeypatch.setattr("twisted_mesh.ca.api.published.crl", broken)
    answer = plain_outlet(rig).get("/crl")
    assert (answer.status, answer.json["code"]) == (500, "internal")
    assert b"secret" not in answer.body
