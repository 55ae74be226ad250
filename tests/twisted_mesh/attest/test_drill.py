"""An attestor is one new file and one line of registration: a CA of which nothing else is changed grants by it."""

import json
import ssl
from collections.abc import Callable, Iterator
from http.client import HTTPSConnection
from pathlib import Path
from typing import Any

import pytest
from cryptography.x509 import SubjectAlternativeName, UniformResourceIdentifier
from twisted.internet.task import Clock

from pki.errors import Refused
from pki.issuing.csr import build_csr
from pki.policy.selector import KINDS, Selector
from pki.spiffe import SpiffeId
from pki.svid.x509svid import load_certificates
from tests.authorities import BACKEND, MESH, key
from tests.pki.policy.kinds import own_kinds
from tests.running import CHECKOUT
from tests.twisted_mesh.attest.programs import Starting, programs_of
from tests.twisted_mesh.attest.shared_secret import HEADER, NAME, SECRET, SharedSecretAttestor
from tests.twisted_mesh.ca.rigs import ADMIN, CaRig, attestors_of, ca_rig, entry, result_of, settled
from tests.twisted_mesh.talking import Answer, Talk, read_answers
from twisted_mesh.attest import registry
from twisted_mesh.ca.api.app import CaApi
from twisted_mesh.ca.api.authentication import (
    Authenticator,
    PlaintextAuthenticator,
    SocketAuthenticator,
    TlsAuthenticator,
)
from twisted_mesh.cli.ctl.why_caller import seen
from twisted_mesh.http.server import BoundedSite
from twisted_mesh.stores.records import Query

BUILD = MESH.member("service", "build")
GOOD = {HEADER: SECRET.decode()}


@pytest.fixture
def _registered(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(registry, "ATTESTORS", (*registry.ATTESTORS, SharedSecretAttestor))
    with own_kinds():
        yield


@pytest.fixture
def rig(_registered: None) -> Iterator[CaRig]:
    """A CA with the attestor, and with an entry for who knows the secret."""
    with ca_rig() as made:
        attestors_of(made)  # as at the start, before entries are read
        bought = entry("a" * 16, f"secret:{NAME}", BUILD)
        result_of(made.ca.entries.create(ADMIN, bought, ""))
        yield made


def ask(rig: CaRig, authenticator: Authenticator, request: str, **headers: str) -> Answer:
    """A request at the listener of that authenticator, by somebody who has no certificate and no user."""
    method, path, *body = request.split(" ", 2)
    sent = "".join(body).encode()
    lines = {
        "host": "localhost",
        "content-type": "application/json",
        "content-length": str(len(sent)),
    }
    lines |= headers
    clock = Clock()
    talk = Talk(BoundedSite(CaApi(rig.ca, authenticator, attestors_of(rig)), clock), clock)
    head = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in lines.items())]
    talk.say("\r\n".join((*head, "", "")).encode() + sent)
    (answer,) = read_answers(talk.wire.value())
    return answer


def signing(spiffe_id: SpiffeId = BUILD, **more: str) -> str:
    asked = {"csr": build_csr(key(9), spiffe_id).decode(), "requested_id": str(spiffe_id), **more}
    return f"POST /api/v1/sign {json.dumps(asked)}"


def test_whoever_shows_the_secret_gets_what_its_entry_buys(rig: CaRig) -> None:
    answer = ask(rig, TlsAuthenticator(), signing(), **GOOD)
    assert answer.status == 201
    assert answer.json["spiffe_id"] == str(BUILD)
    page = result_of(settled(rig.store.list(Query(now=rig.time))))
    (listed,) = page.certificates
    assert (listed.requester, listed.entry) == (f"secret:{NAME}", "a" * 16)


def test_it_buys_nothing_else(rig: CaRig) -> None:
    answer = ask(rig, TlsAuthenticator(), signing(BACKEND), **GOOD)
    assert (answer.status, answer.json["code"]) == (403, "not-authorized")


def test_without_it_a_caller_is_who_he_was(rig: CaRig) -> None:
    answer = ask(rig, TlsAuthenticator(), signing())
    assert (answer.status, answer.json["code"]) == (401, "no-proof")


LISTENERS: dict[str, Callable[[CaRig], Authenticator]] = {
    "tls": lambda rig: TlsAuthenticator(),
    "socket": lambda rig: SocketAuthenticator(rig.ca.entries),
    "plaintext": lambda rig: PlaintextAuthenticator(),
}


@pytest.mark.parametrize("listener", LISTENERS)
def test_a_wrong_secret_is_refused_whatever_else_there_is(listener: str, rig: CaRig) -> None:
    for path in ("/livez", "/api/v1/ca", "/api/v1/health"):
        answer = ask(rig, LISTENERS[listener](rig), f"GET {path}", **{HEADER: "guessed"})
        assert (answer.status, answer.json["code"]) == (401, "no-proof")


def test_it_makes_a_workload_whom_an_entry_names(rig: CaRig) -> None:
    for headers, status in (({}, 401), (GOOD, 200)):
        assert ask(rig, TlsAuthenticator(), "GET /api/v1/trust", **headers).status == status
    assert ask(rig, TlsAuthenticator(), "GET /api/v1/health", **GOOD).status == 403


def test_mesh_ctl_knows_its_kind(_registered: None) -> None:
    given = seen(None, [f"secret:{NAME}"], has_token=False, is_near=True)
    assert given.selectors == {Selector("secret", NAME)}


def test_nobody_knows_its_kind_who_has_not_registered_it() -> None:
    assert "secret" not in KINDS
    with pytest.raises(Refused, match="is no selector"):
        entry("a" * 16, f"secret:{NAME}", BUILD)


def test_it_took_one_file_and_one_line() -> None:
    """Nothing of the product knows the drill; the file knows only what the product offers to attestors."""
    drill = Path(__file__).with_name("shared_secret.py")
    for package in ("pki", "twisted_mesh"):
        for path in (CHECKOUT / package).rglob("*.py"):
            text = path.read_text().lower()
            assert not any(
                word in text for word in ("shared_secret", "sharedsecret", HEADER.lower())
            )
            assert '"secret:' not in text, path
    ours = {line.split()[1] for line in drill.read_text().splitlines() if line[:5] == "from "}
    assert {name for name in ours if name.startswith(("pki", "twisted_mesh", "tests"))} == {
        "pki.policy.policy",
        "pki.policy.selector",
        "twisted_mesh.attest.evidence",
        "twisted_mesh.attest.interface",
    }
    registered = Path(__file__).with_name("with_shared_secret.py").read_text().splitlines()
    (line,) = [
        line for line in registered if "SharedSecretAttestor" in line and "import" not in line
    ]
    assert line == "registry.ATTESTORS = (*registry.ATTESTORS, SharedSecretAttestor)"


# A whole CA, over TLS.


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Starting]:
    """Starts a program of ours, with the attestor registered; ends it."""
    with programs_of("with_shared_secret", tmp_path) as start:
        yield start


def post(port: int, root: Path, headers: dict[str, str], spiffe_id: SpiffeId) -> tuple[int, Any]:
    context = ssl.create_default_context(cafile=root)
    connection = HTTPSConnection("localhost", port, context=context, timeout=30)
    method, path, body = signing(spiffe_id).split(" ", 2)
    connection.request(method, path, body, {"Content-Type": "application/json", **headers})
    answer = connection.getresponse()
    found = answer.status, json.loads(answer.read())
    connection.close()
    return found


def test_a_whole_ca_grants_a_certificate_by_it(run: Starting, tmp_path: Path) -> None:
    filed = tmp_path / "entries.toml"
    filed.write_text(f'[entries.build]\nselectors = ["secret:{NAME}"]\nspiffe_id = "{BUILD}"\n')
    pid_file = f"--pidfile={tmp_path / 'twistd.pid'}"
    ca = run(
        *("twistd", "-n", pid_file, "mesh-ca", "--port", "0", "--root-key", "ec-p256"),
        *("--entries", str(filed)),
    )
    ca.wait_for(r"Ready to issue certificates\.")
    port = int(ca.wait_for(r"listening on https://[^:]+:(\d+)")[1])
    other = MESH.member("service", "other")
    made = run(
        "mesh-ctl", "entry", "create", "--selector", "secret:build", "--spiffe-id", str(other)
    )
    assert made.wait() == 0, made.text
    root = tmp_path / "state" / "ca" / "root.crt"
    for spiffe_id in (BUILD, other):
        status, answer = post(port, root, GOOD, spiffe_id)
        assert (status, answer.get("spiffe_id")) == (201, str(spiffe_id)), answer
        (leaf,) = load_certificates(answer["certificate"].encode())
        names = leaf.extensions.get_extension_for_class(SubjectAlternativeName).value
        assert names.get_values_for_type(UniformResourceIdentifier) == [str(spiffe_id)]
    assert post(port, root, {}, BUILD)[0] == 401
    assert post(port, root, {HEADER: "guessed"}, BUILD)[0] == 401
    assert "Traceback" not in ca.text
