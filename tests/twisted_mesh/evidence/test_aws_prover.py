"""The identity document of an instance, fetched by IMDSv2 from a metadata service that may be any."""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from zope.interface.verify import verifyObject

from pki.errors import Malformed, PkiError
from tests.running import free_port
from tests.twisted_mesh.evidence.metadata_service import (
    DOCUMENT,
    SESSION,
    MetadataService,
    send,
    serving,
)
from twisted_mesh.evidence.aws import AwsProver
from twisted_mesh.evidence.interface import IProver, NoEvidence
from twisted_mesh.evidence.metadata import Metadata

VARIABLE = "AWS_EC2_METADATA_SERVICE_ENDPOINT"
PAGE = b"MIAGCSqGSIb3DQEH\nAqCAMIACAQExDTAL\n"
TEXT = b'"MIAGCSqGSIb3DQEHAqCAMIACAQExDTAL"'


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[MetadataService]:
    monkeypatch.delenv("AWS_EC2_METADATA_DISABLED", raising=False)
    with serving(MetadataService({DOCUMENT: PAGE})) as service:
        monkeypatch.setenv(VARIABLE, service.url)
        yield service


def prove(prover: AwsProver | None = None) -> bytes:
    found = (prover or AwsProver.of(None)).prove(None, b"key", "mesh.local")
    assert found.kind == "aws"
    return found.data


def test_it_asks_for_a_session_and_then_for_the_document(service: MetadataService) -> None:
    prover = AwsProver.of(None)
    verifyObject(IProver, prover)
    assert prover.where == service.url
    assert prove(prover) == TEXT
    put, get = service.asked
    assert (put.method, put.path) == ("PUT", "/latest/api/token")
    assert put.headers["x-aws-ec2-metadata-token-ttl-seconds"] == "60"
    assert "x-forwarded-for" not in put.headers
    assert (get.method, get.path) == ("GET", DOCUMENT)
    assert get.headers["x-aws-ec2-metadata-token"] == SESSION


def test_without_the_variable_it_is_the_address_that_each_instance_has(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert AwsProver.of(None).where == "http://169.254.169.254:80"
    monkeypatch.setenv(VARIABLE, "http://[fd00:ec2::254]/")
    assert AwsProver.of(None).where == "http://[fd00:ec2::254]:80"


@pytest.mark.parametrize("url", ["https://127.0.0.1", "127.0.0.1", "http://", "http://a/b"])
def test_an_address_that_is_none_is_told_before_anything_is_asked(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, url)
    with pytest.raises(Malformed, match=VARIABLE):
        AwsProver.of(None)


def test_a_file_with_the_lines_of_pem_or_without(tmp_path: Path) -> None:
    for content in (PAGE, b"-----BEGIN PKCS7-----\n" + PAGE + b"-----END PKCS7-----\n"):
        (tmp_path / "iid").write_bytes(content)
        assert prove(AwsProver.of(str(tmp_path / "iid"))) == TEXT
    (tmp_path / "iid").write_bytes(b'{"accountId": "123456789012"}')
    with pytest.raises(NoEvidence, match="no instance identity document"):
        prove(AwsProver.of(str(tmp_path / "iid")))
    with pytest.raises(PkiError, match="cannot be read"):
        prove(AwsProver.of(str(tmp_path / "none")))


def test_where_it_is_switched_off_nothing_is_asked(
    service: MetadataService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(NoEvidence, match="AWS_EC2_METADATA_DISABLED"):
        prove()
    assert not service.asked


def test_nobody_there_is_told_with_the_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, f"http://127.0.0.1:{free_port()}")
    with pytest.raises(NoEvidence, match=r"PUT http://127\.0\.0\.1.*refused.*platform"):
        prove()


def _redirects(request: BaseHTTPRequestHandler) -> None:
    send(request, 302, b"", Location="http://127.0.0.1:1/")


def _is_large(request: BaseHTTPRequestHandler) -> None:
    send(request, 200, b"x" * 100_000)


def _is_endless(request: BaseHTTPRequestHandler) -> None:
    request.send_response(200)
    request.end_headers()
    try:
        while True:
            request.wfile.write(b"x" * 10_000)
    except OSError:
        pass


def _is_no_http(request: BaseHTTPRequestHandler) -> None:
    request.wfile.write(b"SSH-2.0-metadata\r\n")


def _is_cut(request: BaseHTTPRequestHandler) -> None:
    request.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")


@pytest.mark.parametrize(
    ("misbehave", "reason"),
    [
        (_redirects, "302, and nothing is followed"),
        (_is_large, "65536"),
        (_is_endless, "65536"),
        (_is_no_http, "no whole answer"),
        (_is_cut, "no whole answer"),
        (lambda request: send(request, 403, b""), "answers 403.*hop limit"),
        (lambda request: send(request, 200, b""), "session token is none"),
        (lambda request: send(request, 200, b"a\r\nX-Evil: 1"), "session token is none"),
    ],
    ids=["redirects", "large", "endless", "no HTTP", "cut", "403", "empty", "a header in it"],
)
def test_a_service_that_misbehaves_gives_no_evidence(
    service: MetadataService,
    misbehave: Callable[[BaseHTTPRequestHandler], None],
    reason: str,
) -> None:
    service.misbehave = misbehave
    with pytest.raises(NoEvidence, match=reason):
        prove()


def test_what_is_no_document_is_not_shown_to_the_ca(service: MetadataService) -> None:
    service.pages[DOCUMENT] = json.dumps({"code": "error"}).encode()
    with pytest.raises(NoEvidence, match="no instance identity document"):
        prove()


def test_a_service_that_says_nothing_is_not_waited_for() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        service = Metadata("127.0.0.1", silent.getsockname()[1], deadline=0.05)
        with pytest.raises(NoEvidence, match=r"no answer within 0\.05 s"):
            service.get("/x")


def test_a_service_that_drips_ends_by_the_deadline_too(service: MetadataService) -> None:
    def drip(request: BaseHTTPRequestHandler) -> None:
        request.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        try:
            while not over.is_set():
                request.wfile.write(b"x")
                over.wait(0.01)
        except OSError:
            pass

    over = threading.Event()
    service.misbehave = drip
    host, port = service.url.removeprefix("http://").split(":")
    try:
        with pytest.raises(NoEvidence, match="no answer within"):
            Metadata(host, int(port), deadline=0.2).get("/x")
    finally:
        over.set()
