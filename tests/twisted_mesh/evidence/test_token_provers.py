"""Tokens as an endpoint fetches them: from files, variables, metadata services and CI systems, of all manners."""

import json
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from zope.interface.verify import verifyObject

from pki.errors import Malformed, PkiError
from tests.running import free_port
from tests.twisted_mesh.attest.api_server import context_of
from tests.twisted_mesh.attest.issuers import good_claims, signed
from tests.twisted_mesh.evidence.metadata_service import MetadataService, send, serving
from tests.twisted_mesh.federation.hostile import web_certificate, web_root
from twisted_mesh.evidence.interface import IProver, NoEvidence
from twisted_mesh.evidence.option import prover

TOKEN = signed(good_claims())
KEY, DOMAIN = b"key", "mesh.local"
VARIABLES = (
    "MESH_ATTEST_AUDIENCE",
    "MESH_ATTEST_TOKEN",
    "ACTIONS_ID_TOKEN_REQUEST_URL",
    "ACTIONS_ID_TOKEN_REQUEST_TOKEN",
    "GCE_METADATA_HOST",
    "AZURE_METADATA_ENDPOINT",
    "AZURE_CLIENT_ID",
)
#: What each kind is answered where all is well.
GOOD = {
    "gcp": TOKEN.encode(),
    "azure": json.dumps({"access_token": TOKEN, "token_type": "Bearer"}).encode(),
    "oidc": json.dumps({"count": 1, "value": TOKEN}).encode(),
}


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


def saying(
    body: bytes, status: int = 200, **headers: str
) -> Callable[[BaseHTTPRequestHandler], None]:
    return lambda request: send(request, status, body, **headers)


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[MetadataService]:
    """One for all kinds; a test gives it its answer."""
    with serving(MetadataService()) as found:
        monkeypatch.setenv("GCE_METADATA_HOST", found.url.removeprefix("http://"))
        monkeypatch.setenv("AZURE_METADATA_ENDPOINT", found.url)
        monkeypatch.setenv("ACTIONS_ID_TOKEN_REQUEST_URL", f"{found.url}/token?api=2")
        monkeypatch.setenv("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "bearer-secret")
        monkeypatch.setenv("MESH_ATTEST_AUDIENCE", "api://mesh")
        yield found


def proven(kind: str, challenge: str | None = None) -> Any:
    found = prover(kind)
    verifyObject(IProver, found)
    data = found.prove(challenge, KEY, DOMAIN)
    assert data.kind == kind.partition(":")[0]
    assert TOKEN not in repr(data) + repr(found) + found.where
    return json.loads(data.data)


def asked(service: MetadataService) -> tuple[str, dict[str, list[str]], dict[str, str]]:
    (request,) = service.asked
    url = urlsplit(request.path)
    return url.path, parse_qs(url.query), request.headers


def test_gcp_is_asked_for_a_token_with_all_of_the_instance_in_it(service: MetadataService) -> None:
    service.misbehave = saying(GOOD["gcp"])
    assert prover("gcp").wants_challenge
    assert proven("gcp", "c1") == TOKEN
    path, query, headers = asked(service)
    assert path == "/computeMetadata/v1/instance/service-accounts/default/identity"
    assert query == {"audience": ["api://mesh?nonce=c1"], "format": ["full"]}
    assert headers["metadata-flavor"] == "Google"


def test_azure_is_asked_for_the_identity_that_is_named(
    service: MetadataService, monkeypatch: pytest.MonkeyPatch
) -> None:
    service.misbehave = saying(GOOD["azure"])
    assert not prover("azure").wants_challenge
    assert proven("azure") == TOKEN
    path, query, headers = asked(service)
    assert path == "/metadata/identity/oauth2/token"
    assert query == {"api-version": ["2018-02-01"], "resource": ["api://mesh"]}
    assert headers["metadata"] == "true"
    monkeypatch.setenv("AZURE_CLIENT_ID", "1234")
    service.asked.clear()
    assert proven("azure") == TOKEN
    assert asked(service)[1]["client_id"] == ["1234"]


def test_github_actions_are_asked_with_what_the_job_was_given(service: MetadataService) -> None:
    service.misbehave = saying(GOOD["oidc"])
    assert prover("oidc").wants_challenge
    assert proven("oidc", "c1") == TOKEN
    path, query, headers = asked(service)
    assert path == "/token"
    assert query == {"api": ["2"], "audience": ["api://mesh?nonce=c1"]}
    assert headers["authorization"] == "Bearer bearer-secret"


@pytest.mark.parametrize(
    ("shown", "why"),
    [
        (("localhost", "web CA"), None),
        (("localhost", "another CA"), "certificate verify failed"),
        (("elsewhere.example", "web CA"), "certificate verify failed"),
    ],
    ids=["good", "another CA's", "another's"],
)
def test_over_https_the_jobs_secret_is_told_to_nobody_else(
    shown: tuple[str, str], why: str | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    believed = tmp_path / "believed.pem"
    believed.write_bytes(web_root("web CA")[0].public_bytes(Encoding.PEM))
    monkeypatch.setenv("SSL_CERT_FILE", str(believed))
    monkeypatch.setenv("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "bearer-secret")
    monkeypatch.setenv("MESH_ATTEST_AUDIENCE", "api://mesh")
    host, issuer = shown
    tls = context_of(web_certificate(host, issuer=issuer))
    with serving(MetadataService(misbehave=saying(GOOD["oidc"])), tls) as found:
        url = f"{found.url.replace('127.0.0.1', 'localhost')}/token?api=2"
        monkeypatch.setenv("ACTIONS_ID_TOKEN_REQUEST_URL", url)
        if why is None:
            assert proven("oidc", "c1") == TOKEN
            assert asked(found)[2]["authorization"] == "Bearer bearer-secret"
            return
        with pytest.raises(NoEvidence, match=why):
            proven("oidc", "c1")
        assert not found.asked


@pytest.mark.parametrize("kind", ["gcp", "oidc"])
def test_without_a_word_of_the_environment_a_token_is_for_the_trust_domain(
    service: MetadataService, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.delenv("MESH_ATTEST_AUDIENCE")
    service.misbehave = saying(GOOD[kind])
    assert proven(kind) == TOKEN
    assert asked(service)[1]["audience"] == ["spiffe://mesh.local"]


@pytest.mark.parametrize("kind", GOOD)
@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (saying(b"", 404), "404"),
        (saying(b"", 401), "401"),
        (saying(b"", 500), "500"),
        (saying(b"x", 302, Location="http://127.0.0.1/"), "nothing is followed"),
        (saying(b"<html>"), "no (access_)?token"),
        (saying(b""), "no (access_)?token"),
        (saying(b"a.b"), "no (access_)?token"),
        (saying(b'{"access_token": 7, "value": 7}'), "no (access_)?token"),
        (saying(b'{"access_token": "a.b", "value": "a.b"}'), "no token"),
        (saying(b'{"access_token": "x y.z.a", "value": "x y.z.a"}'), "no (access_)?token"),
        (saying(b"x" * 70_000), "more than"),
        (saying(b"[" * 30_000), "no (access_)?token"),
        (saying(b"\xff\xfe"), "no (access_)?token"),
        (lambda request: request.wfile.write(b"SSH-2.0\r\n\r\n"), "no whole answer"),
    ],
)
def test_an_answer_that_is_no_token_is_told(
    service: MetadataService, kind: str, answer: Any, words: str
) -> None:
    service.misbehave = answer
    with pytest.raises(NoEvidence, match=words) as refusal:
        proven(kind)
    assert str(refusal.value).isprintable()
    assert "bearer-secret" not in str(refusal.value)


@pytest.mark.parametrize("kind", GOOD)
def test_a_service_that_is_gone_or_slow_is_told_in_time(
    service: MetadataService, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    from twisted_mesh.evidence import metadata

    def drip(request: BaseHTTPRequestHandler) -> None:
        request.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nx")
        request.wfile.flush()
        while not stopped:
            time.sleep(0.01)

    stopped: list[bool] = []
    service.misbehave = drip
    monkeypatch.setattr(
        metadata, "Attempt", lambda _: attempt(time.monotonic() + 0.2), raising=True
    )
    from twisted_mesh.runtime.wire import Attempt as attempt

    began = time.monotonic()
    with pytest.raises(NoEvidence, match="no answer within"):
        proven(kind)
    assert time.monotonic() - began < 3
    stopped.append(True)
    nowhere = f"127.0.0.1:{free_port()}"
    monkeypatch.setenv("GCE_METADATA_HOST", nowhere)
    monkeypatch.setenv("AZURE_METADATA_ENDPOINT", f"http://{nowhere}")
    monkeypatch.setenv("ACTIONS_ID_TOKEN_REQUEST_URL", f"http://{nowhere}/x")
    with pytest.raises(NoEvidence, match="is this machine of that platform"):
        proven(kind)


@pytest.mark.parametrize("kind", GOOD)
def test_a_file_is_read_each_time_anew(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "token"
    path.write_text(f"{TOKEN}\n")
    assert proven(f"{kind}:{path}", "c1") == TOKEN
    assert not prover(f"{kind}:{path}").wants_challenge
    other = signed(good_claims(jti="2"))
    path.write_text(other)
    assert json.loads(prover(f"{kind}:{path}").prove(None, KEY, DOMAIN).data) == other
    for wrong in ("", "no token", f"{TOKEN} {TOKEN}", "a.b.c.d.e", "x" * 20_000):
        path.write_text(wrong)
        with pytest.raises(PkiError) as refusal:
            proven(f"{kind}:{path}")
        assert str(path) in str(refusal.value)
    path.unlink()
    with pytest.raises(PkiError, match="cannot be read"):
        proven(f"{kind}:{path}")


def test_a_variable_has_the_token_of_a_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MESH_ATTEST_TOKEN", TOKEN)
    assert proven("oidc", "c1") == TOKEN
    assert not prover("oidc").wants_challenge
    assert "MESH_ATTEST_TOKEN" in prover("oidc").where
    monkeypatch.setenv("MESH_ATTEST_TOKEN", "secret words")
    with pytest.raises(NoEvidence) as refusal:
        proven("oidc")
    assert "secret" not in str(refusal.value)


def test_where_no_token_can_be_it_is_said_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Malformed, match="oidc:FILE"):
        prover("oidc")
    with pytest.raises(Malformed, match="MESH_ATTEST_AUDIENCE"):
        prover("azure")
    monkeypatch.setenv("MESH_ATTEST_AUDIENCE", "api://mesh\n")
    with pytest.raises(Malformed, match="no audience"):
        prover("azure").prove(None, KEY, DOMAIN)


@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254/x",
        "http://evil.example/",
        "file:///etc/passwd",
        "x",
        "https://user@host/",
    ],
)
def test_the_jobs_secret_goes_out_over_https_only(
    monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("ACTIONS_ID_TOKEN_REQUEST_URL", url)
    with pytest.raises(Malformed, match="no https URL"):
        prover("oidc")


@pytest.mark.parametrize("host", ["", "a b", "http://x", "x/y", "user@x", "x:0"])
def test_a_metadata_host_that_is_none_is_said(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    monkeypatch.setenv("GCE_METADATA_HOST", host)
    if host:
        with pytest.raises(Malformed, match="GCE_METADATA_HOST"):
            prover("gcp")
    else:
        assert prover("gcp").where == "http://metadata.google.internal:80"
