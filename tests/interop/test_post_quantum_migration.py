"""docs/POST_QUANTUM.md, the migration: from EC to ML-DSA under a running mesh, and who can follow at each step."""

import json
import ssl
from pathlib import Path

import pytest

from pki.keys import KeyAlgorithm
from pki.spiffe import TrustDomain
from pki.svid.bundle import TrustBundle
from pki.svid.x509svid import load_certificates
from tests.interop.house import Done, House
from tests.running import BIN, Running

#: Two ends in memory, for the quick suite.
SMALL = "tests/twisted_mesh/tls/test_post_quantum_keys.py::test_two_ends_talk_whatever_the_kinds_of_their_keys"
pytestmark = pytest.mark.interop(SMALL)
BRIEF = ("--cert-duration", "4s", "--max-cert-duration", "4s", "--issuing-duration", "1h")
#: The issuing CA that is made next lives for so long, and its successor issues after three quarters of that.
SOON = (*BRIEF[:-1], "60s")
MESH = TrustDomain("mesh.local")
YES = ("--yes", "--format", "json")
EC, ROOT, ISSUING, LEAF = (
    KeyAlgorithm.EC_P256,
    KeyAlgorithm.ML_DSA_87,
    KeyAlgorithm.ML_DSA_65,
    KeyAlgorithm.ML_DSA_44,
)


def step(house: House, *words: str, status: int = 0) -> Done:
    done = house.ctl("ca", *words)
    assert done.returncode == status, done.stdout + done.stderr
    return done


def public_roots(house: House, query: str = "") -> list[KeyAlgorithm | None]:
    told = house.ask("socket", f"/api/v1/bundle{query}").text
    return [KeyAlgorithm.of(root.public_key()) for root in TrustBundle.from_jwks(MESH, told).roots]


def issuing_key(house: House) -> KeyAlgorithm | None:
    """Of the CA that issues now."""
    (shown, *_) = load_certificates((house.state / "ca" / "issuing.crt").read_bytes())
    return KeyAlgorithm.of(shown.public_key())


def openssl_verifies(house: House, roots: Path) -> bool:
    target = ("-connect", f"localhost:{house.port}", "-CAfile", roots)
    done = house.run("openssl", "s_client", *target, stdin="")
    return "Verify return code: 0 (ok)" in done.stdout


def test_a_mesh_moves_to_ml_dsa_and_no_request_fails(house: House) -> None:
    knows = "ML-DSA" in house.run("openssl", "list", "-signature-algorithms").stdout
    ca = house.start_ca(*BRIEF, "--issuing-key", EC)
    server = house.start_server("--ttl", "4s")
    client = Running.start(
        *(BIN / "mesh-client", "--server", house.server_url, "--ttl", "4s"),
        *("--repeat", "100000", "--interval", "50ms", "--format", "json"),
        cwd=house.home,
        env=house.env,
    )
    house.processes.append(client)
    client.wait_for('"status": 200', count=5)

    # 1. The root first: the CA is started with another kind, and makes its next root so.
    assert ca.stop() == 0
    ca = house.start_ca(*SOON, "--root-key", ROOT, "--issuing-key", EC)
    step(house, "root", "prepare", *YES)
    assert public_roots(house) == [EC]
    assert public_roots(house, "?keys=all") == [EC, ROOT]
    both = house.home / "both.pem"
    both.write_text(house.ask("socket", "/api/v1/ca").text)
    assert len(load_certificates(both.read_bytes())) == 2
    assert openssl_verifies(house, both)

    # 2. Side by side, for as long as anybody needs the old one: all paths that are sent lead to it.
    step(house, "root", "activate", "--force", *YES)
    server.wait_for(r"Issuer: .*generation 2,")
    assert openssl_verifies(house, both)
    context = ssl.create_default_context(cafile=both)
    assert len(context.get_ca_certs()) == 2
    assert house.curl(f"https://localhost:{house.ca_port}/livez", "--cacert", both).returncode == 0

    # 3. The old root ends: from here on a library has to know ML-DSA.
    for _ in range(100):
        done = house.ctl("ca", "root", "retire", "--dry-run")
        if done.returncode == 0:
            break
    assert json.loads(step(house, "root", "retire", *YES).stdout)["done"]
    assert public_roots(house) == []
    assert public_roots(house, "?keys=all") == [ROOT]
    assert openssl_verifies(house, house.root) is knows

    # 4. What issues: the next successor is made of the other kind, when it is due.
    assert ca.stop() == 0
    ca = house.start_ca(*SOON, "--root-key", ROOT, "--issuing-key", ISSUING)
    server.wait_for(r"Issuer: .*generation [3-9],", 120.0)
    assert issuing_key(house) is ISSUING

    # 5. And whoever wants to.
    done = house.client(
        "--key", LEAF, "--require-staple", "--spiffe-id", "spiffe://mesh.local/service/new"
    )
    assert done.returncode == 0, done.stderr
    said = client.text.count('"status": 200')
    client.wait_for('"status": 200', count=said + 20)
    assert client.stop() == 130
    answers = [json.loads(line) for line in client.text.splitlines() if line.startswith("{")]
    assert {answer.get("status") for answer in answers if "status" in answer} == {200}
    for running in (ca, server):
        assert running.stop() == 0
