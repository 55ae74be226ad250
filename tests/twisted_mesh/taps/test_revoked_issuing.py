"""A CA process whose issuing CA was revoked: who comes to its port by what that one has issued, and what he gets."""

import http.client
import json
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from attrs import define, field, frozen
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509 import ocsp

from pki.issuing.authority import Authority
from pki.issuing.csr import build_csr
from pki.issuing.profile import ISSUING
from pki.keys import MemoryKey, key_id
from pki.spiffe import SpiffeId, TrustDomain
from pki.svid.x509svid import certificates_pem
from tests.authorities import key
from tests.ca_socket import CaSocket
from tests.running import BIN, PATIENCE, Mesh, Running, mesh, until
from tests.tools import require_tool
from twisted_mesh.testing import forge

HOME = TrustDomain("mesh.local")
WEB, SHOP, ADMIN = (HOME.member("service", name) for name in ("web", "shop", "admin"))
AGENT = HOME.member("mesh", "agent", "machine")
#: Connections of the CA's port: half of them for any one peer.
MOST = 64
OWN, OTHER = key("the holder's own"), key("for the next certificate")


@frozen
class Shown:
    """A certificate with what it is shown with."""

    leaf: x509.Certificate
    above: tuple[x509.Certificate, ...]
    key: MemoryKey = OWN


@frozen
class Answer:
    status: int
    body: Any

    @property
    def rule(self) -> str:
        """Of a refusal."""
        detail: str = self.body["detail"]
        return detail.rpartition("(rule ")[2].rstrip(")")


@define(eq=False)
class Revoked:
    """A CA with a revoked issuing CA, and what that has issued, or could."""

    mesh: Mesh
    ca: Running
    issuing: Authority
    """The revoked one, as whoever has stolen its key has it."""
    issued: dict[str, Shown] = field(factory=dict)
    done: Any = None
    """What revoking it was answered with."""

    def connected(self, shown: Shown) -> http.client.HTTPSConnection:
        """Over mutual TLS; a refusal comes with the first thing that is read."""
        name = self.mesh.home / f"shown-{shown.leaf.serial_number:x}.pem"
        name.write_bytes(shown.key.to_pem() + certificates_pem([shown.leaf, *shown.above]))
        context = ssl.create_default_context(cafile=str(self.mesh.root))
        context.load_cert_chain(name)
        connection = http.client.HTTPSConnection(
            "localhost", self.mesh.ca_port, timeout=PATIENCE, context=context
        )
        connection.connect()
        return connection

    def ask(self, shown: Shown, method: str, path: str, body: object = None) -> Answer:
        """One request. Raises :class:`ssl.SSLError` where the port refuses the certificate."""
        connection = self.connected(shown)
        text = None if body is None else json.dumps(body)
        try:
            connection.request(method, path, text, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            content = answer.read()
            return Answer(answer.status, json.loads(content) if content[:1] in b"{[" else content)
        finally:
            connection.close()

    def renew(self, shown: Shown, spiffe_id: SpiffeId) -> Answer:
        return self.ask(shown, "POST", "/api/v1/sign", request_for(spiffe_id))

    def fresh(self, shown: Shown, spiffe_id: SpiffeId) -> Shown:
        """What it has got in its place."""
        return shown_of(self.renew(shown, spiffe_id).body, OTHER)


def request_for(spiffe_id: SpiffeId, by: MemoryKey = OTHER, **more: str) -> dict[str, str]:
    csr = build_csr(by, spiffe_id).decode()
    return {"csr": csr, "requested_id": str(spiffe_id), **more}


def shown_of(answer: Any, by: MemoryKey = OWN) -> Shown:
    leaf, *above = (
        x509.load_pem_x509_certificate(text.encode())
        for text in (answer["certificate"], *answer["chain"])
    )
    return Shown(leaf, tuple(above), by)


@pytest.fixture(scope="module")
def revoked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Revoked]:
    with mesh(tmp_path_factory.mktemp("revoked")) as running:
        ca = running.start_ca("--admin", str(ADMIN), "--max-connections", str(MOST))
        issued = {}
        socket = CaSocket(running.socket)
        for spiffe_id in (WEB, SHOP, ADMIN):
            made = socket.post("/api/v1/sign", request_for(spiffe_id, OWN))
            issued[spiffe_id.name] = shown_of(made)
        token = socket.post("/api/v1/agents", {"name": "machine"})["token"]
        made = socket.post("/api/v1/sign", request_for(AGENT, OWN, token=token))
        issued["agent"] = shown_of(made)
        serial = f"{issued['shop'].leaf.serial_number:x}"
        socket.post("/api/v1/revoke", {"serial": serial})
        socket.close()
        (above,) = issued["web"].above
        stolen = MemoryKey.from_pem((running.state / "ca/private/issuing.key").read_bytes())
        made_of = Revoked(running, ca, Authority(above, stolen, (above,)), issued)
        asked = running.ctl(
            "ca", "revoke-issuing", made_of.issuing.key_id, "--yes", "--format", "json"
        )
        assert asked.returncode == 0, asked.stderr
        made_of.done = json.loads(asked.stdout)
        yield made_of


def forged(
    revoked: Revoked, spiffe_id: SpiffeId, by: Authority | None = None, **overrides: Any
) -> Shown:
    """A certificate that the stolen key has signed, good in every way."""
    like, issuer = revoked.issued["web"].leaf, by or revoked.issuing
    leaf = forge(
        issuer,
        subject_key=OWN,
        trust_domain=HOME,
        uris=[str(spiffe_id)],
        start=like.not_valid_before_utc,
        end=like.not_valid_after_utc + timedelta(minutes=1),
        **overrides,
    )
    return Shown(leaf, (issuer.certificate,))


def test_whose_certificate_is_on_record_may_renew_it_and_read_trust(revoked: Revoked) -> None:
    web = revoked.issued["web"]
    told = revoked.ask(web, "GET", "/api/v1/trust")
    assert told.status == 200
    (row,) = told.body["revoked_authorities"]
    assert int(row["serial"], 16) == revoked.issuing.certificate.serial_number
    assert revoked.issuing.key_id not in told.body["issuers"]
    answer = revoked.renew(web, WEB)
    assert answer.status == 201
    fresh = shown_of(answer.body, OTHER)
    assert fresh.above[0].public_key() != web.above[0].public_key()
    # With that one it is a workload as before.
    assert revoked.ask(fresh, "POST", "/api/v1/connections", report()).status == 200


def report() -> dict[str, object]:
    return {"instance": "0" * 16, "connections": {}}


@pytest.mark.parametrize(
    ("name", "method", "path", "body"),
    [
        ("web", "POST", "/api/v1/connections", report()),
        ("web", "GET", "/api/v1/audit/checkpoint", None),
        ("web", "POST", "/api/v1/revoke", {"serial": "1"}),
        ("admin", "GET", "/api/v1/certificates", None),
        ("admin", "POST", "/api/v1/entries", {"selectors": ["unix:uid:7"], "spiffe_id": str(WEB)}),
        ("admin", "POST", "/api/v1/tokens", {"spiffe_id": str(WEB)}),
        ("admin", "POST", "/api/v1/ca/revoke-issuing", {"issuer": "0" * 64}),
        ("admin", "GET", "/metrics", None),
        ("agent", "GET", "/api/v1/agent/entries", None),
        ("agent", "POST", "/api/v1/agent/sign", request_for(WEB) | {"entry": "default", "selectors": []}),
    ],
)  # fmt: skip
def test_nothing_else_is_done_for_it(
    revoked: Revoked, name: str, method: str, path: str, body: object
) -> None:
    answer = revoked.ask(revoked.issued[name], method, path, body)
    assert (answer.status, answer.rule) == (403, "renew-first")


@pytest.mark.parametrize("name", ["web", "admin"])
def test_it_gets_no_other_id(revoked: Revoked, name: str) -> None:
    answer = revoked.renew(revoked.issued[name], SHOP)
    assert (answer.status, answer.rule) == (403, "renew-first")


def test_an_administrator_and_an_agent_are_what_they_were_once_renewed(revoked: Revoked) -> None:
    admin = revoked.fresh(revoked.issued["admin"], ADMIN)
    assert revoked.ask(admin, "GET", "/api/v1/certificates").status == 200
    agent = revoked.fresh(revoked.issued["agent"], AGENT)
    assert revoked.ask(agent, "GET", "/api/v1/agent/entries").status == 200


def test_a_forged_certificate_gets_what_a_stranger_gets(revoked: Revoked) -> None:
    web = revoked.issued["web"].leaf
    forgeries = {
        "of somebody who has one": forged(revoked, WEB),
        "of an administrator": forged(revoked, ADMIN),
        "of the CA itself": forged(revoked, HOME.member("mesh", "ca")),
        "of an agent": forged(revoked, AGENT),
        "with the serial and the key of one that is on record": forged(
            revoked, WEB, serial=web.serial_number
        ),
        "the same, with an administrator's name": forged(revoked, ADMIN, serial=web.serial_number),
    }
    for what, shown in forgeries.items():
        name = next(
            uri
            for uri in shown.leaf.extensions.get_extension_for_class(
                x509.SubjectAlternativeName
            ).value.get_values_for_type(x509.UniformResourceIdentifier)
        )
        for method, path, body in (
            ("GET", "/api/v1/trust", None),
            ("POST", "/api/v1/sign", request_for(SpiffeId.parse(name))),
            ("GET", "/api/v1/certificates", None),
            ("GET", "/api/v1/agent/entries", None),
        ):
            answer = revoked.ask(shown, method, path, body)
            assert answer.status == 401, (what, path, answer)
        # What needs no proof is for everybody.
        assert revoked.ask(shown, "GET", "/api/v1/ca").status == 200


def test_below_an_issuing_ca_of_the_same_name_it_does_not_come_in(revoked: Revoked) -> None:
    real = revoked.issuing.certificate
    impostor = key("an impostor's")
    twin = forge(
        None,
        ISSUING,
        subject_key=impostor,
        trust_domain=HOME,
        subject=real.subject,
        issuer_name=real.issuer,
        serial=real.serial_number,
        start=real.not_valid_before_utc,
        end=real.not_valid_after_utc,
    )
    shown = forged(revoked, WEB, Authority(twin, impostor, (twin,)))
    with pytest.raises((ssl.SSLError, ConnectionError)):
        revoked.ask(shown, "GET", "/api/v1/trust")
    # The certificate that is on record, with a chain that leads nowhere.
    web = revoked.issued["web"].leaf
    with pytest.raises((ssl.SSLError, ConnectionError)):
        revoked.ask(Shown(web, (twin,)), "GET", "/api/v1/trust")


def test_who_is_revoked_himself_does_not_come_in(revoked: Revoked) -> None:
    with pytest.raises((ssl.SSLError, ConnectionError)) as refusal:
        revoked.ask(revoked.issued["shop"], "GET", "/api/v1/trust")
    assert "revoked" in str(refusal.value)


def test_the_port_shows_a_certificate_of_the_successor(revoked: Revoked) -> None:
    socket = CaSocket(revoked.mesh.socket)
    socket.request("GET", f"/api/v1/certificates?issuer={revoked.done['issuing']}&status=valid")
    names = {row["spiffe_id"] for row in json.loads(socket.getresponse().read())["certificates"]}
    socket.close()
    assert "spiffe://mesh.local/mesh/ca" in names
    assert revoked.done["waits"] is None
    assert not revoked.done["was_revoked"]


def test_said_again_it_is_the_same(revoked: Revoked) -> None:
    again = revoked.mesh.ctl(
        "ca", "revoke-issuing", revoked.issuing.key_id, "--yes", "--format", "json"
    )
    told = json.loads(again.stdout)
    assert told["was_revoked"]
    assert told["revoked"] == revoked.done["revoked"]


def test_its_key_is_gone_and_answers_nothing(revoked: Revoked) -> None:
    held = [
        MemoryKey.from_pem(path.read_bytes()).public_key
        for path in (revoked.mesh.state / "ca/private").glob("issuing*.key")
    ]
    assert revoked.issuing.key.public_key not in held
    shown = revoked.issued["web"]
    crl = revoked.ask(shown, "GET", f"/api/v1/crl?issuer={revoked.issuing.key_id}")
    assert crl.status == 404


def test_nobody_answers_ocsp_for_it(revoked: Revoked) -> None:
    """Its delegate could speak for it only by its key (RFC 6960 section 4.2.2.2), which signs nothing any more."""
    web = revoked.issued["web"]
    asked = ocsp.OCSPRequestBuilder().add_certificate(web.leaf, web.above[0], hashes.SHA1())
    socket = CaSocket(revoked.mesh.socket)
    body = asked.build().public_bytes(serialization.Encoding.DER)
    socket.request("POST", "/api/v1/ocsp", body, {"Content-Type": "application/ocsp-request"})
    answer = ocsp.load_der_ocsp_response(socket.getresponse().read())
    socket.close()
    assert answer.response_status is ocsp.OCSPResponseStatus.UNAUTHORIZED


def test_who_comes_by_it_takes_no_place_of_whom_he_claims_to_be(revoked: Revoked) -> None:
    """More connections of a forged certificate than one peer may have, and then the holder of the name."""
    thief = forged(revoked, WEB)
    with ExitStack() as stack:
        for _ in range(MOST):
            with suppress(
                OSError, http.client.HTTPException
            ):  # one place has some room for strangers
                connection = revoked.connected(thief)
                stack.callback(connection.close)
                connection.request("GET", "/api/v1/ca")
                assert connection.getresponse().read()
        fresh = revoked.fresh(revoked.issued["web"], WEB)
        assert revoked.ask(fresh, "POST", "/api/v1/connections", report()).status == 200


def test_openssl_and_our_own_tool_refuse_it_by_the_roots_crl(
    revoked: Revoked, tmp_path: Path
) -> None:
    web, root = revoked.issued["web"], revoked.mesh.root
    leaf, above, crl = (tmp_path / name for name in ("leaf.pem", "above.pem", "root.crl.pem"))
    leaf.write_bytes(certificates_pem([web.leaf]))
    above.write_bytes(certificates_pem(web.above))
    der = (revoked.mesh.state / "ca/root.crl").read_bytes()
    crl.write_bytes(x509.load_der_x509_crl(der).public_bytes(serialization.Encoding.PEM))
    openssl = [require_tool("openssl"), "verify", "-CAfile", root, "-CRLfile", crl]
    for check, said in (
        (["-crl_check", above], "certificate revoked"),
        # Nobody signs CRLs for what it has issued any more, and without one this is refused too.
        (["-crl_check_all", "-untrusted", above, leaf], "verification failed"),
    ):
        done = subprocess.run([*openssl, *check], capture_output=True, text=True, check=False)
        assert done.returncode != 0
        assert said in done.stderr + done.stdout
    chain = tmp_path / "chain.pem"
    chain.write_bytes(certificates_pem([web.leaf, *web.above]))
    ours = revoked.mesh.run(
        BIN / "pki-inspect", "verify", chain, "--roots", root, "--crl", crl
    )  # fmt: skip
    assert ours.returncode == 1
    assert "was revoked" in ours.stdout + ours.stderr


def test_the_audit_log_has_it_and_fits_the_record(revoked: Revoked) -> None:
    def acts() -> list[tuple[str, str]]:
        shown = revoked.mesh.ctl("audit", "show", "--act", "rotate", "--format", "json")
        rows = [row["entry"] for row in json.loads(shown.stdout)]
        return [(row["facts"]["step"], row["object"]) for row in rows]

    until(lambda: ("revoked", revoked.issuing.key_id) in acts(), acts)
    verified = revoked.mesh.ctl("audit", "verify")
    assert verified.returncode == 0, verified.stdout + verified.stderr


def test_a_start_without_what_was_revoked_ends_with_one_sentence(tmp_path: Path) -> None:
    with mesh(tmp_path) as running:
        ca = running.start_ca()
        issuing = x509.load_pem_x509_certificate((running.state / "ca/issuing.crt").read_bytes())
        words = ("ca", "revoke-issuing", key_id(issuing.public_key()), "--yes")
        assert running.ctl(*words).returncode == 0
        assert ca.stop() == 0
        path = running.state / "ca/revoked-authorities.json"
        kept = path.read_bytes()
        path.unlink()
        again = running.start_ca(wait=False)
        again.wait_for("and the audit log says that it was")
        assert again.wait() != 0
        path.write_bytes(kept)
        running.start_ca()
