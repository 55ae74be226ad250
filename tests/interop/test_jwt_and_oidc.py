"""JWT keys of a running CA, and OpenID Connect as a cloud asks for it: over TLS with a web certificate, strictly."""

import datetime
import json
import signal
import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from joserfc import jwt as jose
from joserfc.errors import InvalidClaimError, InvalidKeyIdError
from joserfc.jwk import KeySet

from pki.issuing.csr import build_csr
from pki.keys import KeyAlgorithm, MemoryKey
from pki.spiffe import SpiffeId, TrustDomain
from pki.svid.bundle import TrustBundle
from tests.ca_socket import CaSocket
from tests.interop.administering import answer
from tests.interop.house import House, Reply
from tests.running import Running, until

ISSUER = "https://localhost/td"
MESH = TrustDomain("mesh.local")


@pytest.fixture
def web(tmp_path: Path) -> "WebCa":
    return WebCa(tmp_path)


class WebCa:
    """A CA of the web, and the certificate of the issuer's host, as another program renews it."""

    def __init__(self, home: Path) -> None:
        self.cert, self.key, self.root = (home / n for n in ("web.pem", "web.key", "root.pem"))
        self._root_key = ec.generate_private_key(ec.SECP256R1())
        self._root = self._made("a web CA", self._root_key, is_ca=True)
        self.root.write_bytes(self._root.public_bytes(serialization.Encoding.PEM))
        self.renew()

    def renew(self, days: int = 1) -> int:
        """The serial of the new one."""
        key = ec.generate_private_key(ec.SECP256R1())
        made = self._made("localhost", key, days=days)
        pem = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        self.key.touch(0o600)
        self.key.write_bytes(pem)
        self.cert.write_bytes(made.public_bytes(serialization.Encoding.PEM))
        return made.serial_number

    @property
    def context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.root))

    def _made(
        self, name: str, key: ec.EllipticCurvePrivateKey, *, is_ca: bool = False, days: int = 1
    ) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        issuer = name if is_ca else "a web CA"
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=3))
            .not_valid_after(now + datetime.timedelta(days=days))
            .add_extension(x509.BasicConstraints(is_ca, None), critical=True)
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
            )
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._root_key.public_key()),
                critical=False,
            )
        )
        if not is_ca:
            names = x509.SubjectAlternativeName([x509.DNSName("localhost")])
            builder = builder.add_extension(names, critical=False)
        return builder.sign(self._root_key, hashes.SHA256())


def start(house: House, web: WebCa, *more: str) -> tuple[Running, int]:
    """The CA, and the port of its OIDC listener."""
    ca = house.start_ca(
        *("--oidc", "127.0.0.1:0", "--oidc-issuer", ISSUER),
        *("--oidc-cert", str(web.cert), "--oidc-key", str(web.key), *more),
        "--log-format",
        "json",
        wait=False,
    )
    port = int(ca.wait_for(r'"event": ?"oidc-listening".*"port": ?(\d+)')[1])
    ca.wait_for("Ready to issue certificates")
    return ca, port


def fetch(url: str, web: WebCa, method: str = "GET") -> Any:
    request = Request(url, method=method)
    with urlopen(request, context=web.context, timeout=10) as found:
        return json.load(found)


def keys_of(house: House) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = answer(house, "jwt", "list")["keys"]
    return found


def shown(port: int, web: WebCa, version: ssl.TLSVersion | None = None) -> tuple[int, str | None]:
    """The serial of the certificate that is shown, and the protocol."""
    context = web.context
    if version is not None:
        context.minimum_version = context.maximum_version = version
    with (
        socket.create_connection(("127.0.0.1", port), timeout=10) as raw,
        context.wrap_socket(raw, server_hostname="localhost") as tls,
    ):
        der = tls.getpeercert(binary_form=True)
        assert der is not None
        return x509.load_der_x509_certificate(der).serial_number, tls.version()


def test_a_cloud_finds_the_keys_by_the_issuer_and_a_renewed_certificate_is_taken_up(
    house: House, web: WebCa
) -> None:
    serial = web.renew()
    ca, port = start(house, web)
    base = f"https://localhost:{port}/td"
    # The issuer has the usual port, which a web server would pass on.
    told = fetch(f"{base}/.well-known/openid-configuration", web)
    assert (told["issuer"], told["jwks_uri"]) == (ISSUER, f"{ISSUER}/keys")
    client = jwt.PyJWKClient(f"{base}/keys", ssl_context=web.context)
    (active,) = keys_of(house)
    assert [key.key_id for key in client.get_signing_keys()] == [active["kid"]]
    assert shown(port, web) == (serial, "TLSv1.3")
    assert shown(port, web, ssl.TLSVersion.TLSv1_2) == (serial, "TLSv1.2")
    renewed = web.renew()
    ca.process.send_signal(signal.SIGHUP)
    ca.wait_for(r"oidc-cert .* was read again: CN=localhost")
    assert shown(port, web)[0] == renewed
    web.renew(days=-1)
    ca.process.send_signal(signal.SIGHUP)
    ca.wait_for(r"oidc-cert .* is not taken up.*get a fresh one")
    assert shown(port, web)[0] == renewed
    assert ca.stop() == 0


class Agent:
    """An agent that has joined: its certificate and key, as curl takes them."""

    def __init__(self, house: House, name: str) -> None:
        self.house, self.id = house, f"spiffe://mesh.local/mesh/agent/{name}"
        self.pem, self.key = house.home / f"{name}.pem", house.home / f"{name}.key"
        token = answer(house, "agent", "token", "create", name)["token"]
        key = MemoryKey.generate(KeyAlgorithm.EC_P256)
        csr = build_csr(key, SpiffeId.parse(self.id)).decode()
        asked = {"csr": csr, "requested_id": self.id, "token": token}
        signed = house.post("tls", "/api/v1/sign", asked).json
        self.pem.write_text(signed["certificate"] + "".join(signed["chain"]))
        self.key.write_bytes(key.to_pem())

    def token(self, entry: str, audience: str) -> Reply:
        asked = {"entry": entry, "selectors": ["unix:uid:7"], "audience": [audience]}
        shown = ("--cert", self.pem, "--key", self.key)
        return self.house.post("tls", "/api/v1/agent/jwt", asked, *shown)


def as_a_cloud(base: str, token: str, web: WebCa) -> dict[str, Any]:
    """Whose token it is, by what the issuer serves and nothing else, for AWS's audience."""
    told = fetch(f"{base}/.well-known/openid-configuration", web)
    keys = KeySet.import_key_set(fetch(f"{base}/keys", web))
    algorithms = told["id_token_signing_alg_values_supported"]
    decoded = jose.decode(token, keys, algorithms=algorithms)
    jose.JWTClaimsRegistry(
        iss={"essential": True, "value": told["issuer"]},
        aud={"essential": True, "value": "sts.amazonaws.com"},
        sub={"essential": True},
        exp={"essential": True},
        iat={"essential": True},
    ).validate(decoded.claims)
    return dict(decoded.claims)


@pytest.mark.interop(
    "tests/twisted_mesh/ca/api/test_oidc_site.py::test_strict_readers_verify_a_token_by_the_keys_as_a_cloud_does"
)
@pytest.mark.parametrize("algorithm", ["ec-p256", "rsa-2048"])
def test_a_token_from_an_agent_to_a_cloud_over_a_rotation_until_its_key_is_retired(
    house: House, web: WebCa, algorithm: str
) -> None:
    ca, port = start(house, web, "--jwt-key", algorithm)
    house.ca_port = int(ca.wait_for(r"API server listening on https://[^:]+:(\d+)")[1])
    base, subject = f"https://localhost:{port}/td", "spiffe://mesh.local/service/web"
    agent = Agent(house, "one")
    entry = answer(
        *(house, "entry", "create", "--selector", "unix:uid:7"),
        *("--spiffe-id", subject, "--parent", agent.id),
    )["id"]
    token = agent.token(entry, "sts.amazonaws.com").json["token"]
    assert as_a_cloud(base, token, web)["sub"] == subject
    client = jwt.PyJWKClient(f"{base}/keys", ssl_context=web.context, cooldown_duration=0)
    assert client.get_signing_key_from_jwt(token).key_id == keys_of(house)[0]["kid"]
    assert house.ctl("jwt", "rotate", "--now", "--yes").returncode == 0
    later = agent.token(entry, "sts.amazonaws.com").json["token"]
    for good in (token, later):
        assert as_a_cloud(base, good, web)["sub"] == subject
        # It has the old keys in its memory, and looks for the new one by itself.
        found = client.get_signing_key_from_jwt(good)
        taken = {"audience": "sts.amazonaws.com", "issuer": ISSUER}
        assert jwt.decode(good, found, algorithms=["ES256", "RS256"], **taken)["sub"] == subject
    with pytest.raises(InvalidClaimError, match="aud"):
        as_a_cloud(base, agent.token(entry, "somebody-else").json["token"], web)
    retired = keys_of(house)[0]["kid"]
    assert house.ctl("jwt", "retire", retired, "--yes").returncode == 0
    with pytest.raises(InvalidKeyIdError):
        as_a_cloud(base, token, web)
    assert as_a_cloud(base, later, web)["sub"] == subject
    # The log is signed once a second.
    until(lambda: len(answer(house, "audit", "show", "--act", "issue-jwt")) == 3)
    for act in answer(house, "audit", "show", "--act", "issue-jwt"):
        assert agent.id in json.dumps(act)
    assert token not in ca.text
    assert house.ctl("agent", "ban", "one", "--yes").returncode == 0
    with pytest.raises(AssertionError, match="certificate revoked"):  # it does not even get in
        agent.token(entry, "sts.amazonaws.com")
    verified = house.ctl("audit", "verify")
    assert verified.returncode == 0, verified.stdout


def test_keys_rotate_and_outlive_a_kill(house: House) -> None:
    path = house.home / "oidc"
    options = ("--oidc", f"unix:{path}", "--oidc-issuer", "https://mesh.example")
    ca = house.start_ca(*options)
    (first,) = keys_of(house)
    assert house.ctl("jwt", "rotate", "--yes").returncode == 0
    assert house.ctl("jwt", "rotate", "--now", "--yes", "--reason", "a test").returncode == 0
    before = keys_of(house)
    assert [key["state"] for key in before] == ["retired", "active"]
    assert before[0]["kid"] == first["kid"]
    ca.process.kill()
    ca.wait()
    house.start_ca(*options)
    assert keys_of(house) == before
    published = TrustBundle.from_jwks(MESH, house.ask("socket", "/api/v1/bundle").text)
    assert [authority.kid for authority in published.jwt_authorities] == [
        key["kid"] for key in before
    ]
    assert len(published.roots) == 1
    done = house.ctl("jwt", "retire", first["kid"][:10], "--yes")
    assert done.returncode == 0
    with over(path) as oidc:
        oidc.request("GET", "/keys")
        served = json.loads(oidc.getresponse().read())["keys"]
    assert [key["kid"] for key in served] == [before[1]["kid"]]
    assert house.ctl("jwt", "retire", "0" * 8, "--yes").returncode == 1
    assert house.ctl("jwt", "retire", "x", "--yes").returncode == 2


@contextmanager
def over(path: Path) -> Iterator[CaSocket]:
    connection = CaSocket(path)
    try:
        yield connection
    finally:
        connection.close()


def refused(house: House, *options: str) -> subprocess.CompletedProcess[str]:
    ca = house.start_ca(*options, wait=False)
    assert ca.wait() == 1
    return subprocess.CompletedProcess((), 1, ca.text)


@pytest.mark.interop(
    "tests/twisted_mesh/tls/test_web.py::test_what_cannot_be_used_is_named_and_what_was_read_before_stays"
)
def test_a_start_that_cannot_be_ends_in_one_sentence(house: House, web: WebCa) -> None:
    served = ("--oidc", "127.0.0.1:0", "--oidc-issuer", ISSUER)
    certificate = ("--oidc-cert", str(web.cert), "--oidc-key", str(web.key))
    web.key.chmod(0o644)
    assert "chmod o-rwx" in refused(house, *served, *certificate).stdout
    web.key.chmod(0o600)
    web.cert.write_bytes(web.root.read_bytes())
    assert "is not the key of" in refused(house, *served, *certificate).stdout
    web.cert.write_text("nonsense")
    assert "cannot be used" in refused(house, *served, *certificate).stdout
