"""Tokens end to end: a CA, programs as a user starts them, and a platform on loopback that mints tokens for both."""

import json
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from attrs import define, field

from tests.running import BIN, Running
from tests.twisted_mesh.attest.issuers import good_claims, jwk, jwks, rsa_key, signed
from tests.twisted_mesh.attest.token_cases import CLAIMS, TENANT
from tests.twisted_mesh.evidence.metadata_service import MetadataService, send, serving
from twisted_mesh.cli.status import REFUSED, UNREACHABLE

WEB = "spiffe://mesh.local/service/web"
#: The selector that each kind's entry asks for.
KINDS = {
    "oidc": "oidc:ci:repository:org/api",
    "gcp": "gcp_iit:instance-name:blog-7",
    "azure": "azure_msi:vm-name:front:blog",
}


@define(eq=False)
class Platform:
    """Everything that is asked at ``service``: an issuer's keys, and the tokens of all kinds."""

    service: MetadataService
    key: str = "one"
    """Which one signs; only ``one`` is known to the CA."""
    minted: list[str] = field(factory=list)
    has_keys: bool = True

    def mint(self, claims: dict[str, Any], audience: str) -> str:
        now = int(time.time())
        said = good_claims(iss=self.service.url, iat=now, nbf=now, exp=now + 300, aud=audience)
        self.minted.append(signed({**said, **claims}, rsa_key(self.key)))
        return self.minted[-1]

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        url = urlsplit(request.path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        if url.path == "/keys":
            send(request, 200 if self.has_keys else 503, jwks(jwk(rsa_key(), "one")))
        elif url.path == "/job":
            told = {"value": self.mint(CLAIMS["oidc"], query["audience"])}
            send(request, 200, json.dumps(told).encode())
        elif url.path.startswith("/computeMetadata/"):
            send(request, 200, self.mint(CLAIMS["gcp"], query["audience"]).encode())
        else:
            told = {"access_token": self.mint(CLAIMS["azure"], query["resource"])}
            send(request, 200, json.dumps(told).encode())


@define(eq=False)
class Place:
    path: Path
    platform: Platform
    start: Callable[..., Running]
    ca_url: str = ""

    @property
    def state(self) -> Path:
        return self.path / "state"

    def ca(self) -> Running:
        keys = f'jwks_url = "{self.platform.service.url}/keys"\n'
        attestors = self.path / "attestors.toml"
        attestors.write_text(
            f'[oidc.ci]\nissuer = "{self.platform.service.url}"\n{keys}'
            'claims = { repository = "org/*" }\nselectors = ["repository"]\nnonce = true\n'
            f'[gcp]\nprojects = ["shop"]\n{keys}'
            f'[azure]\naudience = "api://mesh"\ntenants = ["{TENANT}"]\n{keys}'
        )
        ca = self.start(
            *(BIN / "twistd", "-n", "--pidfile=", "mesh-ca", "--port", "0"),
            *("--root-key", "ec-p256", "--attestors", str(attestors)),
        )
        ca.wait_for(r"Ready to issue certificates\.")
        port = ca.wait_for(r"listening on https://[^:]+:([0-9]+)")[1]
        self.ca_url = f"https://localhost:{port}"
        return ca

    def entry(self, kind: str) -> None:
        made = self.start(
            *(BIN / "mesh-ctl", "entry", "create", "--selector", KINDS[kind]),
            *("--spiffe-id", f"{WEB}-{kind}"),
        )
        assert made.wait() == 0, made.text

    def join(self, kind: str, evidence: str = "", out: str = "out") -> Running:
        url = self.platform.service.url
        env = {
            "ACTIONS_ID_TOKEN_REQUEST_URL": f"{url}/job?v=1",
            "GCE_METADATA_HOST": url.removeprefix("http://"),
            "AZURE_METADATA_ENDPOINT": url,
            **({"MESH_ATTEST_AUDIENCE": "api://mesh"} if kind == "azure" else {}),
        }
        root = str(self.state / "ca" / "root.crt")
        return self.start(
            *(BIN / "mesh-client", "--export", str(self.path / out), "--ca-url", self.ca_url),
            *("--ca-file", root, "--attest", evidence or kind, "--spiffe-id", f"{WEB}-{kind}"),
            *("--state-dir", str(self.path / f"{out}-state"), "--timeout", "2s"),
            env=env,
        )


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    started: list[Running] = []

    def start(*command: str, env: dict[str, str] | None = None) -> Running:
        whole = {"MESH_STATE_DIR": str(tmp_path / "state"), "NO_COLOR": "1", **(env or {})}
        started.append(Running.start(*command, cwd=tmp_path, env=whole))
        return started[-1]

    service = MetadataService()
    with serving(service):
        platform = Platform(service)
        service.misbehave = platform.answer
        yield Place(tmp_path, platform, start)
        for running in reversed(started):
            running.stop()
            assert "Traceback" not in running.text
            assert not any(token in running.text for token in platform.minted)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_service_joins_by_what_its_platform_says(place: Place, kind: str) -> None:
    place.ca()
    place.entry(kind)
    place.join(kind).wait_for(
        "Identity exported to"
    )  # then it looks for a server, of which there is none
    assert (place.path / "out" / "svid.pem").exists()
    place.platform.key = "two"
    forged = place.join(kind, out="forged")
    assert forged.wait() == REFUSED
    assert "bad-evidence: the token's signature is not that of its issuer's key" in forged.text
    assert not (place.path / "forged").exists()


@pytest.mark.slow
def test_a_stolen_token_with_a_challenge_gets_nobody_in(place: Place) -> None:
    place.ca()
    place.entry("oidc")
    place.join("oidc").wait_for("Identity exported to")
    stolen = place.path / "stolen"
    stolen.write_text(place.platform.minted[-1])
    thief = place.join("oidc", f"oidc:{stolen}", out="thief")
    assert thief.wait() == REFUSED
    assert "no-proof" in thief.text and "answered before" in thief.text


@pytest.mark.slow
def test_while_the_issuer_is_away_nobody_is_let_in_by_it(place: Place) -> None:
    place.platform.has_keys = False
    place.ca()
    place.entry("oidc")
    waiting = place.join("oidc")
    assert waiting.wait() == UNREACHABLE
    assert "attestor-unavailable" in waiting.text
