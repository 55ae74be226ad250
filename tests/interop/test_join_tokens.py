"""Join tokens at the CA's listeners: what each is good for, once, and what every other use is answered with."""

import json
import sqlite3
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest

from pki.issuing.csr import build_csr
from pki.keys import KeyAlgorithm, MemoryKey, key_id
from pki.policy.join_token import JoinToken
from pki.spiffe import SpiffeId
from tests.conftest import SOAK
from tests.interop.house import House, Reply, house
from tests.tools import require_tool

WEB = "spiffe://mesh.local/service/web"
CALLERS = 100
ROUNDS = 20 if SOAK else 3


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    require_tool("curl")
    with house(tmp_path_factory.mktemp("tokens")) as made:
        made.start_ca("--cert-duration", "10m", "--rate-limit", "off")
        yield made


def make(ca: House, **asked: Any) -> Any:
    reply = ca.post("socket", "/api/v1/tokens", {"spiffe_id": WEB, **asked})
    assert reply.status == HTTPStatus.CREATED, reply.text
    return reply.json


def csr(spiffe_id: str = WEB, *dns_names: str, key: MemoryKey | None = None) -> str:
    key = key or MemoryKey.generate(KeyAlgorithm.EC_P256)
    return build_csr(key, SpiffeId.parse(spiffe_id), dns_names).decode()


def join(
    ca: House, token: str, request: str | None = None, spiffe_id: str = WEB, **more: Any
) -> Reply:
    asked = {"csr": request or csr(spiffe_id), "requested_id": spiffe_id, "token": token, **more}
    return ca.post("tls", "/api/v1/sign", asked)


def refused(reply: Reply, status: int, words: str) -> None:
    assert reply.status == status, reply.text
    assert words in reply.json["detail"], reply.json["detail"]


def test_a_token_buys_the_certificate_of_its_entry(ca: House) -> None:
    made = make(ca, dns_names=["www.example.org"])
    assert set(made) >= {"token", "ca_url", "fingerprint", "expires_at"}
    assert made["ca_url"] == f"https://localhost:{ca.ca_port}"
    reply = join(ca, made["token"], csr(WEB, "www.example.org", "localhost"))
    assert reply.status == HTTPStatus.CREATED
    found = ca.ask("socket", f"/api/v1/certificates/{reply.json['serial']}").json
    assert (found["entry"], found["requester"]) == (made["entry"], f"token:{made['id']}")
    (told,) = [
        t for t in ca.ask("socket", "/api/v1/tokens").json["tokens"] if t["id"] == made["id"]
    ]
    assert (told["status"], told["serial"]) == ("spent", reply.json["serial"])


def test_an_answer_that_was_lost_is_given_again_and_no_other(ca: House) -> None:
    token, request = make(ca)["token"], csr()
    first = join(ca, token, request)
    again = join(ca, token, request)
    assert first.status == again.status == HTTPStatus.CREATED
    assert first.json == again.json
    refused(join(ca, token), HTTPStatus.CONFLICT, "another CSR")


def test_a_token_that_cannot_be_one_is_told_from_one_that_nobody_knows(ca: House) -> None:
    token = make(ca)["token"]
    for broken in ("", "x", token[:-1], token + "a", token.upper(), token.replace("mj1_", "mj2_")):
        refused(join(ca, broken), HTTPStatus.UNAUTHORIZED, "no whole join token")
    refused(join(ca, JoinToken.generate().text), HTTPStatus.UNAUTHORIZED, "")
    assert join(ca, token).status == HTTPStatus.CREATED, "none of that has burnt it"


def test_a_revoked_and_an_expired_token_buy_nothing(ca: House) -> None:
    made = make(ca)
    gone = ca.ask("socket", f"/api/v1/tokens/{made['id']}?reason=lost", method="DELETE")
    assert gone.status == HTTPStatus.OK
    assert ca.ask("socket", f"/api/v1/tokens/{made['id']}", method="DELETE").json == gone.json
    refused(join(ca, made["token"]), HTTPStatus.UNAUTHORIZED, "revoked")
    short = make(ca, ttl="1s")
    # Each look takes some hundredths of a second: asked until it is so, and not for ever.
    assert any(status_of(ca, short["id"]) == "expired" for _ in range(1000))
    refused(join(ca, short["token"]), HTTPStatus.UNAUTHORIZED, "expired")


def status_of(ca: House, token_id: str) -> str:
    tokens = ca.ask("socket", "/api/v1/tokens").json["tokens"]
    return next(str(token["status"]) for token in tokens if token["id"] == token_id)


@pytest.mark.parametrize(
    ("request_", "more", "rule"),
    [
        (
            csr("spiffe://mesh.local/service/other"),
            {"spiffe_id": "spiffe://mesh.local/service/other"},
            "ids-granted-only",
        ),
        (csr(WEB, "bank.example"), {}, "names-granted-only"),
        (csr(WEB), {"ttl": "9m"}, "ttl-granted-only"),
    ],
    ids=["another ID", "a name beyond the entry", "a life beyond the entry"],
)
def test_what_is_beyond_the_entry_is_refused_and_burns_nothing(
    request_: str, more: dict[str, Any], rule: str, ca: House
) -> None:
    token = make(ca, max_ttl="5m")["token"]
    refused(join(ca, token, request_, **more), HTTPStatus.FORBIDDEN, rule)
    assert join(ca, token).status == HTTPStatus.CREATED


def test_a_token_of_another_entry_buys_what_its_own_entry_says(ca: House) -> None:
    others = make(ca, spiffe_id="spiffe://mesh.local/service/other")
    refused(join(ca, others["token"]), HTTPStatus.FORBIDDEN, others["entry"])


def test_a_token_for_one_key_takes_no_other(ca: House) -> None:
    key = MemoryKey.generate(KeyAlgorithm.EC_P256)
    token = make(ca, key=key_id(key.public_key))["token"]
    refused(join(ca, token), HTTPStatus.FORBIDDEN, "token-key-only")
    assert join(ca, token, csr(key=key)).status == HTTPStatus.CREATED


@pytest.mark.parametrize(
    "spiffe_id",
    [
        "spiffe://mesh.local/mesh/ca",
        "spiffe://mesh.local/mesh/**",
        "spiffe://mesh.local/**",
        "spiffe://mesh.local/*/ca",
        "spiffe://mesh.local/{unix.user}/ca",
        "spiffe://{trust_domain}/mesh/x",
        "spiffe://other.local/service/x",
        "spiffe://mesh.local/service/{unix.home}",
        "spiffe://mesh.local/service/%2e%2e/mesh",
        "spiffe://mesh.local/service/../mesh/ca",
        "spiffe://mesh.local",
    ],
)
def test_no_entry_and_no_token_reaches_the_mesh_itself(spiffe_id: str, ca: House) -> None:
    for path, body in (
        ("/api/v1/tokens", {"spiffe_id": spiffe_id}),
        ("/api/v1/entries", {"spiffe_id": spiffe_id, "selectors": ["unix:uid:7"]}),
    ):
        reply = ca.post("socket", path, body)
        assert reply.status == HTTPStatus.UNPROCESSABLE_ENTITY, reply.text
        assert reply.json["problems"][0]["subject"] == "spiffe_id"


def test_an_entry_that_is_deleted_takes_its_tokens_along(ca: House) -> None:
    made = make(ca)
    deleted = ca.ask("socket", f"/api/v1/entries/{made['entry']}?reason=moved", method="DELETE")
    assert deleted.status == HTTPStatus.OK
    assert join(ca, made["token"]).status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)


def test_a_renewal_needs_the_entry_that_bought_the_certificate(ca: House, tmp_path: Path) -> None:
    made = make(ca)
    key = MemoryKey.generate(KeyAlgorithm.EC_P256)
    reply = join(ca, made["token"], csr(key=key))
    svid, its_key = tmp_path / "svid.pem", tmp_path / "key.pem"
    svid.write_text(reply.json["certificate"] + "".join(reply.json["chain"]))
    its_key.write_bytes(key.to_pem())
    presented = ("--cert", svid, "--key", its_key)
    asked = {"csr": csr(), "requested_id": WEB}
    renewed = ca.post("tls", "/api/v1/sign", asked, *presented)
    assert renewed.status == HTTPStatus.CREATED, "renewing and rekeying need nothing else"
    other = {
        **asked,
        "csr": csr("spiffe://mesh.local/service/x"),
        "requested_id": "spiffe://mesh.local/service/x",
    }
    refused(ca.post("tls", "/api/v1/sign", other, *presented), 403, "own-identity-only")
    ca.ask("socket", f"/api/v1/entries/{made['entry']}", method="DELETE")
    refused(ca.post("tls", "/api/v1/sign", asked, *presented), 403, "no-entry")


def test_no_token_is_kept_logged_or_told(ca: House) -> None:
    token = make(ca)["token"]
    join(ca, token, csr("spiffe://mesh.local/service/other"), "spiffe://mesh.local/service/other")
    join(ca, token)
    ca.ctl("audit", "show")
    secret = token.removeprefix("mj1_")
    assert secret not in ca.ca.text
    for path in (ca.state / "ca").glob("mesh.db*"):
        assert secret.encode() not in path.read_bytes()
    assert secret not in ca.ask("socket", "/api/v1/audit/entries?limit=1000").text


@pytest.mark.slow
def test_a_hundred_callers_with_one_token_and_a_hundred_keys_get_one_certificate(
    ca: House, tmp_path: Path
) -> None:
    requests = [csr() for _ in range(CALLERS)]
    for number in range(ROUNDS):
        token = make(ca)["token"]
        before = issued(ca)
        with ThreadPoolExecutor(CALLERS) as pool:
            statuses = list(pool.map(partial(raw_join, ca, token), requests))
        assert statuses.count(201) == 1, (number, statuses)
        assert statuses.count(409) == CALLERS - 1, (number, statuses)
        assert issued(ca) == before + 1


def issued(ca: House) -> int:
    with sqlite3.connect(f"file:{ca.state / 'ca' / 'mesh.db'}?mode=ro", uri=True) as record:
        ((count,),) = record.execute("SELECT count(*) FROM certificates").fetchall()
    return int(count)


def raw_join(ca: House, token: str, request: str) -> int:
    """By a connection of its own, without the detour of a shared file."""
    asked = json.dumps({"csr": request, "requested_id": WEB, "token": token})
    done = subprocess.run(
        [
            "curl", "-sS", "--cacert", ca.root, "-o", "/dev/null", "-w", "%{http_code}",
            "-H", "content-type: application/json", "--data-binary", "@-",
            f"https://localhost:{ca.ca_port}/api/v1/sign",
        ],
        input=asked.encode(),
        capture_output=True,
        timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return int(done.stdout)
