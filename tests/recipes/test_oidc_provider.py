"""A real issuer of OpenID Connect, which people run: its tokens, its discovery, and a change of its keys."""

import json
import ssl
import tomllib
import urllib.parse
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from cryptography.hazmat.primitives import serialization
from jwt.algorithms import RSAAlgorithm
from twisted.internet.task import Clock

from pki.policy.selector import Selector
from pki.svid.x509svid import certificates_pem
from tests.peers.building import issuer_peer
from tests.pki.policy.kinds import own_kinds
from tests.running import Running, free_port
from tests.twisted_mesh.attest.issuers import Moment, rsa_key, shown
from tests.twisted_mesh.federation.hostile import reactor, web_certificate, web_root
from tests.twisted_mesh.grpc.sockets import run, turn_until
from twisted_mesh.attest.errors import AttestorUnavailable, BadEvidence
from twisted_mesh.attest.oidc import OidcAttestor
from twisted_mesh.attest.registry import Attestors

pytestmark = pytest.mark.recipes

TABLE = """
[ci]
issuer = "https://localhost:{port}"
audience = "urn:mesh:ca"
claims = {{ repository = "org/*" }}
selectors = {{ repository = "repository", "/realm/roles" = "role", client_id = "client" }}
ca_file = "{roots}"
"""


class Issuer:
    """The process, on one port all the time, and what a job gets of it."""

    def __init__(self, home: Path) -> None:
        self.home, self.port = home, free_port()
        shown_certificate = web_certificate("localhost")
        (home / "ca.pem").write_bytes(certificates_pem([web_root()[0]]))
        (home / "server.pem").write_bytes(certificates_pem(shown_certificate.chain))
        private: Any = shown_certificate.key.private_key
        (home / "key.pem").write_bytes(
            private.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        self.process: Running | None = None

    def start(self, kid: str, key: str = "") -> None:
        """With the key of that name."""
        private = RSAAlgorithm.to_jwk(rsa_key(key or kid), as_dict=True)
        del private["key_ops"]  # it would publish "sign" as what its public key is for
        jwks = {"keys": [{**private, "kid": kid, "use": "sig", "alg": "RS256"}]}
        (self.home / "jwks.json").write_text(json.dumps(jwks))
        files = (self.home / name for name in ("key.pem", "server.pem", "jwks.json"))
        self.process = Running.start(
            *issuer_peer(), str(self.port), *files, cwd=self.home, real=True
        )
        self.process.wait_for("ready")

    def stop(self) -> None:
        if self.process is not None:
            self.process.stop()

    def token(self, resource: str = "urn:mesh:ca") -> str:
        """As a job asks for it: by its own client's credentials."""
        trust = ssl.create_default_context(cafile=str(self.home / "ca.pem"))
        asked = {
            "grant_type": "client_credentials",
            "client_id": "deploy",
            "client_secret": "not-a-secret-of-anybody",
            "resource": resource,
        }
        request = urllib.request.Request(
            f"https://localhost:{self.port}/token", urllib.parse.urlencode(asked).encode()
        )
        with urllib.request.urlopen(request, context=trust, timeout=20) as answer:
            return str(json.load(answer)["access_token"])


@pytest.fixture
def issuer(tmp_path: Path) -> Iterator[Issuer]:
    found = Issuer(tmp_path)
    try:
        yield found
    finally:
        found.stop()


def attestor(issuer: Issuer, clock: Clock) -> OidcAttestor:
    text = TABLE.format(port=issuer.port, roots=issuer.home / "ca.pem")
    means = evolve(Moment().means, reactor=reactor(), now=lambda: datetime.now(UTC))
    found = OidcAttestor.of(OidcAttestor.read(tomllib.loads(text), "[oidc]"), means)
    for _, source in found.issuers.values():
        source.keys.clock = clock  # type: ignore[attr-defined]
    return found


def test_its_tokens_are_taken_and_its_keys_may_change(issuer: Issuer) -> None:
    clock = Clock()
    found = attestor(issuer, clock)
    with own_kinds():
        Attestors((found,))
        issuer.start("one")
        first = issuer.token()
        attested = run(found.attest(shown("oidc", first)))
        assert attested is not None
        assert attested.selectors == {
            Selector.parse(text)
            for text in (
                "oidc:ci:repository:org/api",
                "oidc:ci:role:deployer",
                "oidc:ci:client:deploy",
            )
        }
        with pytest.raises(BadEvidence, match="is for urn:other"):
            run(found.attest(shown("oidc", issuer.token("urn:other"))))
        # With another key of another name; then away, and what is known goes on.
        issuer.stop()
        issuer.start("two")
        clock.advance(60)
        second = issuer.token()
        assert run(found.attest(shown("oidc", second))) is not None
        with pytest.raises(BadEvidence, match="no such key"):
            run(found.attest(shown("oidc", first)))
        issuer.stop()
        clock.advance(600)
        assert run(found.attest(shown("oidc", second))) is not None
        # With another key of the same name: what was signed by the one before is nobody's.
        issuer.start("two", "another")
        clock.advance(600)
        run(found.attest(shown("oidc", second)))
        third = issuer.token()
        until_taken(found, third)
        with pytest.raises(BadEvidence, match="signature"):
            run(found.attest(shown("oidc", second)))


def until_taken(found: OidcAttestor, token: str) -> None:
    """The first that comes after the time has the keys asked for, and is judged by those of before."""

    def is_taken() -> bool:
        try:
            run(found.attest(shown("oidc", token)))
        except BadEvidence:
            return False
        return True

    turn_until(is_taken)


def test_an_issuer_that_never_was_there_is_a_503(issuer: Issuer) -> None:
    found = attestor(issuer, Clock())
    issuer.start("one")
    token = issuer.token()
    issuer.stop()
    with pytest.raises(AttestorUnavailable, match="nobody listens"):
        run(found.attest(shown("oidc", token)))
