"""What the CA's API answers to requests that cannot be used, at every listener that takes them."""

import json
import re

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from tests.authorities import key
from tests.interop.forging import PAYMENT
from tests.interop.house import House, Reply, as_json
from tests.interop.test_who_may import csr_for
from tests.interop.wires import talk

MILLION = 1_000_000

#: Bodies that are no request, with the words of the answer.
BODIES: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "not JSON"),
    "truncated": (b'{"csr": "x", "requested_id"', "not JSON"),
    "not UTF-8": (b'{"csr": "\xff\xfe"}', "not JSON"),
    "UTF-16": ('{"csr": "x"}'.encode("utf-16"), "not JSON"),
    "an array": (b"[]", "not an object"),
    "a string": (b'"csr"', "not an object"),
    "null": (b"null", "not an object"),
    "a number": (b"1e999", "not an object"),
    "duplicate keys": (b'{"csr": "a", "csr": "b", "requested_id": "c"}', "appears twice"),
    "duplicate keys below": (b'{"csr": {"a": 1, "a": 2}, "requested_id": "c"}', "appears twice"),
    "10,000 arrays deep": (b"[" * 10_000 + b"]" * 10_000, "too deep"),
    "10,000 objects deep": (b'{"csr":' * 8_000 + b"1" + b"}" * 8_000, "too deep"),
    "two objects": (b"{}{}", "not JSON"),
    "a missing field": (b'{"csr": "x"}', "requested_id"),
    "a wrong type": (b'{"csr": 1, "requested_id": "x"}', "csr"),
    "a list for a text": (b'{"csr": ["x"], "requested_id": "x"}', "csr"),
    "a number for a lifetime": (b'{"csr": "x", "requested_id": "x", "ttl": 60}', "ttl"),
    "NaN": (b'{"csr": NaN, "requested_id": "x"}', ""),
}


def send(shared: House, path: str, body: bytes, *options: str) -> Reply:
    sent = shared.home / "bytes"
    sent.write_bytes(body)
    given = (*as_json(), "--data-binary", f"@{sent}", *options)
    return shared.ask("plain", path, *given, method="POST")


@pytest.mark.parametrize("what", BODIES)
@pytest.mark.parametrize("path", ["/api/v1/sign", "/api/v1/revoke"])
def test_a_body_that_is_no_request_is_400(what: str, path: str, shared: House) -> None:
    body, words = BODIES[what]
    reply = send(shared, path, body)
    assert (reply.status, reply.code) == (400, "malformed")
    if path.endswith("sign"):
        assert words in reply.json["detail"]
    assert shared.ask("plain", "/livez").status == 200


@pytest.mark.parametrize("opening", [b"[", b'{"a":', b"[[{"])
@pytest.mark.parametrize("chunked", [False, True])
def test_json_a_million_deep_is_too_large(opening: bytes, chunked: bool, shared: House) -> None:
    coding = ("-H", "transfer-encoding: chunked") if chunked else ()
    reply = send(shared, "/api/v1/sign", opening * MILLION, *coding)
    assert (reply.status, reply.code) == (413, "too-large")
    assert shared.ask("plain", "/livez").status == 200


def test_what_a_request_does_not_know_is_no_error(shared: House) -> None:
    body = {"csr": csr_for(PAYMENT), "requested_id": PAYMENT, "from": "the future"}
    assert shared.post("plain", "/api/v1/sign", body).status == 201


@pytest.mark.parametrize(
    "media_type",
    [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data",
        "application/jsonp",
        "",
    ],
)
def test_another_media_type_is_415(media_type: str, shared: House) -> None:
    given = ("-H", f"content-type: {media_type}" if media_type else "content-type;", "-d", "{}")
    reply = shared.ask("plain", "/api/v1/sign", *given, method="POST")
    assert (reply.status, reply.code) == (415, "unsupported-media-type")


def test_a_charset_beside_the_media_type_is_well(shared: House) -> None:
    given = ("-H", "content-type: Application/JSON; charset=utf-8", "-d", "{}")
    assert shared.ask("plain", "/api/v1/sign", *given, method="POST").status == 400


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/api/v1/sign", "POST"),
        ("PUT", "/api/v1/sign", "POST"),
        ("POST", "/api/v1/ca", "GET"),
        ("DELETE", "/api/v1/certificates", "GET"),
        ("OPTIONS", "/livez", "GET"),
        ("BREW", "/livez", "GET"),
    ],
)
def test_a_wrong_method_is_405_and_told_the_right_one(
    method: str, path: str, allowed: str, shared: House
) -> None:
    reply = shared.ask("socket", path, *as_json(), method=method)
    assert (reply.status, reply.code) == (405, "method-not-allowed")
    assert allowed in reply.headers["allow"].split(", ")


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/api/v1/",
        "/api/v1/signs",
        "/api/v2/sign",
        "/api/v1/sign/",
        "//livez",
        "/api/v1/../v1/ca",
        "/%61pi/v1/ca",
    ],
)
def test_an_unknown_path_is_404(path: str, shared: House) -> None:
    reply = shared.ask("socket", path, "--path-as-is")
    assert (reply.status, reply.code) == (404, "not-found")


@pytest.mark.parametrize("path", ["/livez", "/api/v1/ca", "/api/v1/bundle", "/api/v1/nowhere"])
def test_head_is_get_without_a_body(path: str, shared: House) -> None:
    get, head = shared.ask("socket", path), shared.ask("socket", path, method="HEAD")
    assert head.status == get.status
    assert head.text == ""
    assert head.headers["content-length"] == str(len(get.text.encode()))


def test_answers_are_not_kept_by_caches(shared: House) -> None:
    assert shared.ask("socket", "/api/v1/bundle").headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    "query",
    [
        "limit=0", "limit=1001", "limit=-1", "limit=1.5", "limit=%D9%A3", "limit=" + "9" * 5000, "limit=1&limit=2",
        "status=good", "status=", "cursor=x", "cursor=%00", "spiffe_id=payment-worker", "spiffe_id=",
        "expires_before=tomorrow", "expires_before=2026-11-23T10:00:00", "limit=%FF",
    ],
)  # fmt: skip
def test_a_parameter_that_cannot_be_used_is_400(query: str, shared: House) -> None:
    reply = shared.ask("socket", f"/api/v1/certificates?{query}")
    assert reply.status == 400
    assert reply.code in ("malformed", "not-a-spiffe-id", "bad-cursor")


@pytest.mark.parametrize("after", ["-1", "x", "1" * 30, "0x10"])
def test_a_position_that_is_none_is_400(after: str, shared: House) -> None:
    assert shared.ask("socket", f"/api/v1/trust?after={after}").status == 400


def test_pages_follow_one_another_without_gap_or_repetition(shared: House) -> None:
    for number in range(5):
        spiffe_id = f"spiffe://mesh.local/page/{number}"
        body = {"csr": csr_for(spiffe_id), "requested_id": spiffe_id}
        assert shared.post("socket", "/api/v1/sign", body).status == 201
    everything = shared.ask("socket", "/api/v1/certificates?limit=1000").json
    assert everything["next"] is None
    found, cursor = [], ""
    while cursor is not None:
        page = shared.ask(
            "socket", f"/api/v1/certificates?limit=2{cursor and '&cursor=' + cursor}"
        ).json
        assert 0 < len(page["certificates"]) <= 2
        found += page["certificates"]
        cursor = page["next"]
    assert [c["serial"] for c in found] == [c["serial"] for c in everything["certificates"]]
    assert {c["spiffe_id"] for c in found} >= {f"spiffe://mesh.local/page/{n}" for n in range(5)}


@pytest.mark.parametrize(
    "serial", ["", "xyz", "0x10", "-1", "1" * 1000, "00:1", "1 2", "\u0661\u0662", "01\n02"]
)
def test_a_serial_that_is_none_is_400(serial: str, shared: House) -> None:
    reply = shared.post("socket", "/api/v1/revoke", {"serial": serial})
    assert reply.status == 400, reply


@pytest.mark.parametrize(
    "reason", ["", "because", "certificateHold", "KEYCOMPROMISE", "removeFromCRL"]
)
def test_a_reason_that_is_none_is_400_and_the_known_ones_are_listed(
    reason: str, shared: House
) -> None:
    reply = shared.post("socket", "/api/v1/revoke", {"serial": "01", "reason": reason})
    assert reply.status == 400, reply
    assert "keyCompromise" in reply.json["detail"]


def knock(shared: House, path: bytes, agent: bytes = b"x") -> None:
    """A request that no tool would send."""
    words = b"GET %s HTTP/1.1\r\nHost: localhost\r\nUser-Agent: %s\r\nConnection: close\r\n\r\n"
    assert b"200 OK" not in talk(shared.plain_port, words % (path, agent), hang_up=False)


def test_no_value_of_a_stranger_forges_a_line_of_the_log(shared: House) -> None:
    forged = "2026-01-01T00:00:00Z [CA] Certificate revoked: everything"
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, f"x\n{forged}\r\x1b[2J")])
    builder = x509.CertificateSigningRequestBuilder().subject_name(name)
    csr = builder.sign(key().private_key, hashes.SHA256())
    pem = csr.public_bytes(serialization.Encoding.PEM).decode()
    spiffe_id = "spiffe://mesh.local/service/forger"
    assert (
        shared.post("socket", "/api/v1/sign", {"csr": pem, "requested_id": spiffe_id}).status == 201
    )
    for body in (
        {"csr": pem, "requested_id": f"spiffe://mesh.local/x\n{forged}"},
        {"csr": f"x\n{forged}", "requested_id": spiffe_id},
        {"csr": pem, "requested_id": spiffe_id, "ttl": f"1h\n{forged}"},
    ):
        assert shared.post("socket", "/api/v1/sign", body).status in (400, 422)
    shared.post("socket", "/api/v1/revoke", {"serial": f"01\n{forged}"})
    shared.post("socket", "/api/v1/revoke", {"serial": "01", "reason": f"x\n{forged}\x1b[0m"})
    escaped = forged.replace(" ", "%20")
    for path in (
        f"/api/v1/ca%0a{escaped}",
        f"/x%0d%0a{escaped}",
        f"/api/v1/certificates?status=%0a{escaped}",
    ):
        assert shared.ask("socket", path, "--globoff").status in (400, 404)
    for raw in (
        b"/\x1b[2J\x7f",
        b"/\xc2\x85\xe2\x80\xa8x",
        b"/x\x0b\x0c\x1c\x00y",
        b"/x\ry",
        b"/x\ny",
    ):
        knock(shared, raw, forged.encode())
    for running in (shared.ca, shared.server):
        lines = running.text.splitlines()
        assert not [line for line in lines if line.startswith(forged)]
        assert not [
            line
            for line in lines
            if not re.match(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ \[[A-Z]+\] |  ", line)
        ]
        assert "\x1b" not in running.text and "\r" not in running.text
    shared.ca.wait_for(re.escape("\\n2026-01-01T00:00:00Z [CA] Certificate revoked: everything"))


def test_one_object_of_json_is_printed_a_line_whatever_is_asked(house: House) -> None:
    ca = house.start_ca("--log-format", "json", "--insecure-http", "0", wait=False)
    ca.wait_for("Ready to issue certificates")
    house.plain_port = int(ca.wait_for(r"at http://localhost:(\d+)")[1])
    knock(house, b"/%1b[2J%0a{}")
    ca.wait_for("request-refused")
    assert ca.stop() == 0
    lines = [json.loads(line) for line in ca.text.splitlines()]
    assert {"time", "level", "system", "event", "message"} <= set(lines[-1])
    assert "request-refused" in {line["event"] for line in lines}
