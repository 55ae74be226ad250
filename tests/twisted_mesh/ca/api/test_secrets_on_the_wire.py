"""A request that carries a secret, mangled, in its body, its head or its path: no piece comes back or is logged."""

import json

import pytest
from twisted.internet.task import Clock

from pki.issuing.csr import build_csr
from pki.policy.principal import Principal, anonymous
from tests.authorities import BACKEND, key
from tests.mangled import MANGLINGS, everything_logged, secret_key, secret_token
from tests.twisted_mesh.ca.rigs import ADMIN, CaRig, attestors_of
from tests.twisted_mesh.talking import Talk
from twisted_mesh.attest.evidence import Evidence
from twisted_mesh.attest.registry import Attested
from twisted_mesh.ca.api.app import CaApi
from twisted_mesh.ca.api.authentication import Account
from twisted_mesh.ca.api.request import FILTERS
from twisted_mesh.http.server import BoundedSite

SECRETS = {
    "a token": secret_token(),
    "a key": secret_key(),
}
CSR = build_csr(key(9), BACKEND).decode()


class Doorkeeper:
    """It is whoever the test says."""

    def __init__(self, caller: Principal) -> None:
        self.caller = caller

    def account(self, evidence: Evidence) -> Account:
        return Account(self.caller.proof, self.caller.kind)

    def principal(self, attested: Attested) -> Principal:
        return self.caller


def requests(secret: bytes) -> list[bytes]:
    """Each way in which a program, or a person with curl, sends it to the wrong place."""
    text = secret.decode("latin-1")
    sign = {"csr": CSR, "requested_id": str(BACKEND)}
    bodies: list[tuple[str, bytes]] = [
        ("/api/v1/sign", json.dumps({**sign, "token": text}).encode()),
        ("/api/v1/sign", json.dumps({**sign, "token": [text]}).encode()),
        ("/api/v1/sign", json.dumps({**sign, "tokn": text}).encode()),
        ("/api/v1/sign", json.dumps({**sign, text: 1}).encode()),
        ("/api/v1/sign", json.dumps({**sign, "csr": text}).encode()),
        ("/api/v1/sign", json.dumps({**sign, "requested_id": text}).encode()),
        ("/api/v1/sign", json.dumps({**sign, "ttl": text}).encode()),
        ("/api/v1/sign", secret),
        ("/api/v1/sign", b'{"token": "' + secret + b'"}'),
        ("/api/v1/revoke", json.dumps({"serial": text}).encode()),
        ("/api/v1/revoke", json.dumps({"serial": "1", "reason": text}).encode()),
        ("/api/v1/tokens", json.dumps({"entry": text}).encode()),
        ("/api/v1/entries", json.dumps({"selectors": [text], "spiffe_id": text}).encode()),
        ("/api/v1/ca/detach-root", json.dumps({"sha256": text}).encode()),
    ]
    found = [
        b"POST %b HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
        % (path.encode(), len(body), body)
        for path, body in bodies
    ]
    for line in (
        b"authorization: Bearer %b",
        b"%b: x",
        b"x-token %b",
        b"content-type: %b",
        b"idempotency-key: %b",
    ):
        found.append(
            b"POST /api/v1/sign HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n%b\r\n\r\n{}"
            % (line % secret)
        )
    for path in (
        b"/%b",
        b"/api/v1/certificates/%b",
        b"/api/v1/certificates?serial=%b",
        b"/api/v1/tokens/%b",
        b"/api/v1/ocsp/%b",
        b"/api/v1/entries/%b",
        *(b"/api/v1/certificates?%b=%%b" % name.encode() for name in sorted(FILTERS)),
        b"/api/v1/certificates?%b=1",
        b"/api/v1/certificates?%b=1&%b=2",
        b"/api/v1/trust?after=%b",
        b"/api/v1/trust?after=0&wait=%b",
        b"/api/v1/trust?after=0&log=%b",
        b"/api/v1/connections?%b=%b",
        b"/api/v1/audit/entries?start=%b",
        b"/api/v1/audit/checkpoints?limit=%b",
        b"/api/v1/audit/proof?position=%b&size=%b",
        b"/api/v1/audit/record?cursor=%b&limit=%b",
        b"/api/v1/tokens?%b=%b",
    ):
        for method in (b"GET", b"DELETE"):
            found.append(
                b"%b %b HTTP/1.1\r\nhost: x\r\n\r\n" % (method, path.replace(b"%b", secret))
            )
    found += [b"GET / HTTP/1.1\r\nhost: %b\r\n\r\n" % secret, secret + b"\r\n\r\n"]
    return found


@pytest.mark.parametrize("caller", [ADMIN, anonymous("http")], ids=["an administrator", "anybody"])
@pytest.mark.parametrize("kind", SECRETS)
def test_nothing_of_it_comes_back_or_is_logged(kind: str, caller: Principal, rig: CaRig) -> None:
    clock = Clock()
    site = BoundedSite(CaApi(rig.ca, Doorkeeper(caller), attestors_of(rig)), clock)
    found, answered = {}, 0
    for name, mangle in MANGLINGS.items():
        for request in requests(mangle(SECRETS[kind].text)):
            talk = Talk(site, clock)
            with everything_logged() as logged:
                talk.say(request)
                clock.advance(60)
            told = talk.wire.value().decode("latin-1")
            answered += told.startswith("HTTP/1.1 ")
            said = "\n".join((told, *logged))
            if SECRETS[kind].found_in(said):
                found[name, request[:60]] = said[-700:]
    assert not found
    assert answered > 100
