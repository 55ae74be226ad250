"""The contract's table of who may do what at the CA, at each of its listeners."""

import os
import shutil

import pytest

from pki.issuing.csr import build_csr
from pki.keys import KeyAlgorithm, MemoryKey
from pki.serial import serial_hex
from pki.spiffe import SpiffeId
from pki.svid.x509svid import load_certificates
from tests.interop.forging import PAYMENT
from tests.interop.house import House, Identity, Reply
from tests.tools import require_tool

NOBODY = 65534
READS = (
    "/api/v1/ca",
    "/api/v1/bundle",
    "/api/v1/trust",
    "/api/v1/certificates",
    "/livez",
    "/readyz",
    "/metrics",
)
OPEN = {"/api/v1/ca", "/api/v1/bundle", "/livez"}
"""To whoever asks."""
FOR_WORKLOADS = OPEN | {"/api/v1/trust"}


def csr_for(spiffe_id: str, *dns_names: str) -> str:
    its_key = MemoryKey.generate(KeyAlgorithm.EC_P256)
    return build_csr(its_key, SpiffeId.parse(spiffe_id), dns_names).decode()


def sign(shared: House, listener: str, spiffe_id: str, *options: str | os.PathLike[str]) -> Reply:
    asked = {"csr": csr_for(spiffe_id), "requested_id": spiffe_id}
    return shared.post(listener, "/api/v1/sign", asked, *options)  # type: ignore[arg-type]


def serial_of(identity: Identity) -> str:
    (leaf, *_) = load_certificates(identity.cert.read_bytes())
    return serial_hex(leaf.serial_number)


def from_another_user(shared: House, path: str, *options: str) -> Reply:
    """A request on the socket by a user that is neither root nor the CA's own."""
    if os.getuid() != 0:
        pytest.skip("only root can become another user")
    become = (require_tool("setpriv"), f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")
    curl = (shutil.which("curl") or "curl", "-sS", "-i", "--unix-socket", shared.socket)
    done = shared.run(*become, *curl, *options, f"http://localhost{path}")
    assert done.returncode == 0, done.stderr
    from tests.interop.house import reply_of

    return reply_of(done.stdout)


@pytest.mark.parametrize("listener", ["socket", "plain"])
@pytest.mark.parametrize("path", READS)
def test_administrators_read_everything(path: str, listener: str, shared: House) -> None:
    assert shared.ask(listener, path).status == 200


@pytest.mark.parametrize("path", READS)
def test_without_proof_only_what_makes_trust_possible_is_read(path: str, shared: House) -> None:
    reply = shared.ask("tls", path)
    if path in OPEN:
        assert reply.status == 200
    else:
        assert (reply.status, reply.code) == (401, "no-proof")
        assert "mutual TLS" in reply.json["detail"]
        shared.ca.wait_for(f"GET {path} answered 401: no-proof")


@pytest.mark.parametrize("path", READS)
def test_workloads_read_trust_besides(path: str, shared: House) -> None:
    reply = shared.ask("tls", path, *shared.identity("payment-worker").for_curl)
    if path in FOR_WORKLOADS:
        assert reply.status == 200
    else:
        assert (reply.status, reply.code) == (403, "not-authorized")
        assert "administrators-only" in reply.json["detail"], "it names the rule"
        assert PAYMENT in reply.json["detail"]


@pytest.mark.parametrize("path", READS)
def test_another_user_on_the_socket_has_proven_nothing(path: str, shared: House) -> None:
    reply = from_another_user(shared, path)
    if path in OPEN:
        assert reply.status == 200
    else:
        assert (reply.status, reply.code) == (401, "no-proof")


@pytest.mark.parametrize("path", ["/api/v1/sign", "/api/v1/revoke"])
def test_without_proof_nothing_is_signed_or_revoked(path: str, shared: House) -> None:
    before = shared.ca.text.count("Certificate issued")
    body = {"csr": csr_for(PAYMENT), "requested_id": PAYMENT}
    assert shared.post("tls", path, body).status == 401
    # The route refuses before it reads a body: what is in it makes no difference.
    assert shared.post("tls", path, "[").status == 401
    posted = ("-X", "POST", "-H", "content-type: application/json", "-d", "{}")
    assert from_another_user(shared, path, *posted).status == 401
    assert shared.ca.text.count("Certificate issued") == before


@pytest.mark.parametrize("listener", ["socket", "plain"])
def test_administrators_have_any_workload_signed(listener: str, shared: House) -> None:
    reply = sign(shared, listener, "spiffe://mesh.local/region/eu/service/x")
    assert reply.status == 201
    answer = reply.json
    assert set(answer) == {"certificate", "chain", "expires_at", "serial", "spiffe_id"}
    assert answer["spiffe_id"] == "spiffe://mesh.local/region/eu/service/x"
    (leaf,) = load_certificates(answer["certificate"].encode())
    assert answer["serial"] == serial_hex(leaf.serial_number)
    chain = load_certificates("".join(answer["chain"]).encode())
    assert load_certificates(shared.root.read_bytes())[0] not in chain, "the root is not along"


def test_a_workload_renews_its_own_identity(shared: House) -> None:
    good = shared.identity("payment-worker")
    assert sign(shared, "tls", PAYMENT, *good.for_curl).status == 201


@pytest.mark.parametrize(
    "other",
    ["spiffe://mesh.local/service/api-server", "spiffe://mesh.local/service/payment-worker/x"],
)
def test_a_workload_renews_nobody_elses(other: str, shared: House) -> None:
    reply = sign(shared, "tls", other, *shared.identity("payment-worker").for_curl)
    assert (reply.status, reply.code) == (403, "not-authorized")
    assert "own-identity-only" in reply.json["detail"]
    assert f"requested_id {other}" not in shared.ca.text


def test_a_workload_gains_no_host_name_by_renewal(shared: House) -> None:
    good = shared.identity("payment-worker")
    asked = {"csr": csr_for(PAYMENT, "bank.example"), "requested_id": PAYMENT}
    reply = shared.post("tls", "/api/v1/sign", asked, *good.for_curl)
    assert (reply.status, reply.code) == (403, "not-authorized")
    assert "bank.example" in reply.json["detail"] and "names-granted-only" in reply.json["detail"]
    granted = {"csr": csr_for(PAYMENT, "payment-worker.mesh.local"), "requested_id": PAYMENT}
    assert shared.post("tls", "/api/v1/sign", granted, *good.for_curl).status == 201


def test_a_workload_revokes_itself_and_nobody_else(shared: House) -> None:
    victim = {"serial": serial_of(shared.identity("payment-worker")), "reason": "keyCompromise"}
    tired = shared.identity("tired")
    reply = shared.post("tls", "/api/v1/revoke", victim, *tired.for_curl)
    assert (reply.status, reply.code) == (403, "not-authorized")
    assert "own-certificate-only" in reply.json["detail"]
    own = {"serial": serial_of(tired), "reason": "cessationOfOperation"}
    reply = shared.post("tls", "/api/v1/revoke", own, *tired.for_curl)
    assert reply.status == 200
    assert reply.json["serial"] == own["serial"] and reply.json["reason"] == own["reason"]
    again = shared.post("socket", "/api/v1/revoke", {**own, "reason": "keyCompromise"})
    assert again.json == reply.json, "the first answer, whatever is said later"
    shared.assert_it_serves()


def test_what_a_workload_may_not_know_is_not_told_by_another_status(shared: House) -> None:
    unknown = {"serial": "00" * 15 + "01"}
    known = {"serial": serial_of(shared.identity("payment-worker"))}
    curious = shared.identity("curious").for_curl
    answers = [shared.post("tls", "/api/v1/revoke", body, *curious) for body in (unknown, known)]
    assert [answer.status for answer in answers] == [403, 403]
    assert answers[0].json == answers[1].json
    reply = shared.post("socket", "/api/v1/revoke", unknown)
    assert (reply.status, reply.code) == (404, "not-found")


def test_whoever_is_revoked_is_refused_by_the_ca_itself(shared: House) -> None:
    gone = shared.identity("gone")
    assert shared.ask("tls", "/api/v1/trust", *gone.for_curl).status == 200
    assert shared.post("socket", "/api/v1/revoke", {"serial": serial_of(gone)}).status == 200
    done = shared.curl(f"https://localhost:{shared.ca_port}/api/v1/trust", *gone.for_curl)
    assert done.returncode in (35, 56)
    assert "alert certificate revoked" in done.stderr
    shared.ca.wait_for(
        r"Connection from .* refused: revoked: serial .* was revoked at .* \(unspecified\)"
    )
    listed = shared.ask(
        "socket", "/api/v1/certificates?spiffe_id=spiffe://mesh.local/service/gone&status=revoked"
    )
    assert [c["serial"] for c in listed.json["certificates"]] == [serial_of(gone)]


@pytest.mark.parametrize(
    "header", ["Host: evil.example", "Host: localhost.evil.example", "Host: 10.0.0.1:80", "Host;"]
)
def test_another_host_at_the_plaintext_port_is_refused(header: str, shared: House) -> None:
    reply = shared.ask("plain", "/api/v1/certificates", "-H", header)
    assert (reply.status, reply.code) == (403, "cross-origin")


@pytest.mark.parametrize("door", ["plain", "socket"])
def test_whoever_names_no_host_is_not_served(door: str, shared: House) -> None:
    assert shared.ask(door, "/api/v1/certificates", "-H", "Host:").status == 400


@pytest.mark.parametrize("origin", ["https://evil.example", "http://localhost:8080", "null"])
def test_a_web_page_at_the_plaintext_port_is_refused(origin: str, shared: House) -> None:
    body = {"csr": csr_for(PAYMENT), "requested_id": PAYMENT}
    for reply in (
        shared.post("plain", "/api/v1/sign", body, "-H", f"Origin: {origin}"),
        shared.ask("plain", "/api/v1/ca", "-H", f"Origin: {origin}"),
        shared.ask("plain", "/api/v1/sign", "-H", f"Origin: {origin}", method="OPTIONS"),
    ):
        assert (reply.status, reply.code) == (403, "cross-origin")
        assert "access-control-allow-origin" not in reply.headers
    allowed = shared.ask("plain", "/livez", "-H", f"Host: 127.0.0.1:{shared.plain_port}")
    assert allowed.status == 200
