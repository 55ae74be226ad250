"""``mesh-ctl why`` against a running CA: what it says is what the CA does, and what it suggests helps."""

import json
import os
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pki.issuing.csr import build_csr
from pki.keys import KeyAlgorithm, MemoryKey
from pki.spiffe import SpiffeId
from tests.interop.administering import NOBODY, answer, as_nobody, sign_as_nobody, told
from tests.interop.house import House
from tests.running import BIN

WEB = "spiffe://mesh.local/service/why-web"


@pytest.fixture
def nobody() -> Iterator[int]:
    """The PID of a process of another user."""
    with subprocess.Popen(
        [*as_nobody(), "cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as it:
        assert it.stdin is not None and it.stdout is not None
        it.stdin.write(b"here\n")  # once it answers, it is who it will be
        it.stdin.flush()
        it.stdout.readline()
        yield it.pid


def saved(tmp_path: Path, **more: str) -> tuple[str, dict[str, Any]]:
    key = MemoryKey.generate(KeyAlgorithm.EC_P256)
    csr = build_csr(key, SpiffeId.parse(WEB)).decode()
    body = {"csr": csr, "requested_id": WEB, **more}
    path = tmp_path / "sign.json"
    path.write_text(json.dumps(body))
    return str(path), body


def test_a_process_of_the_cas_own_user_is_let_in(shared: House) -> None:
    found = answer(shared, "why", "--spiffe-id", WEB)
    assert found["let_in"]
    assert f"unix:uid:{os.getuid()}" in found["selectors"]
    assert [entry["id"] for entry in found["entries"]] == ["default"]
    assert found["command"] is None
    text = shared.ctl("why").stdout
    assert "ok: let in by the entry default" in text


def test_another_users_process_is_let_in_by_what_is_suggested(shared: House, nobody: int) -> None:
    asked = ("why", "--pid", str(nobody), "--spiffe-id", WEB, "--dns", "why.example")
    found = answer(shared, *asked, status=1)
    assert f"unix:uid:{NOBODY}" in found["selectors"]
    assert sign_as_nobody(shared, WEB, "why.example").status in (401, 403)
    missing = {entry["id"]: entry["missing"] for entry in found["entries"]}
    assert missing["default"] == [f"unix:uid:{os.getuid()}"]

    program, *words = shlex.split(found["command"])
    assert program == "mesh-ctl"
    made = answer(shared, *words)
    try:
        after = answer(shared, *asked)
        assert after["let_in"]
        assert [entry["id"] for entry in after["entries"]] == [made["id"]]
        assert sign_as_nobody(shared, WEB, "why.example").status == 201
    finally:
        assert shared.ctl("entry", "delete", made["id"], "--yes").returncode == 0
    assert not answer(shared, *asked, status=1)["let_in"]


def test_a_process_that_is_gone_is_one_sentence(shared: House) -> None:
    with subprocess.Popen(["true"]) as gone:
        gone.wait()
    sentence = told(shared.ctl("why", "--pid", str(gone.pid)), 2)
    assert sentence.startswith(f"--pid {gone.pid}: ")


def test_a_token_in_a_saved_request_is_told_by_its_id(shared: House, tmp_path: Path) -> None:
    made = answer(shared, "token", "create", "--spiffe-id", WEB)
    file, body = saved(tmp_path, token=made["token"])

    def why(status: int) -> Any:
        text = shared.ctl("why", "--request", file)
        assert text.returncode == status, text.stderr
        found = answer(shared, "why", "--request", file, status=status)
        for shown in (text.stdout, text.stderr, json.dumps(found)):
            assert made["token"][4:] not in shown
        assert found["token"]["id"] == made["id"]
        return found

    live = why(0)
    assert live["token"]["status"] == "live"
    assert live["selectors"] == [f"token:{made['entry']}"]
    assert shared.post("tls", "/api/v1/sign", body).status == 201
    spent = why(1)
    assert [problem["code"] for problem in spent["problems"]] == ["conflict"]
    assert spent["command"] == f"mesh-ctl token create --spiffe-id {WEB}"
    assert shared.ctl("token", "revoke", made["id"], "--yes").returncode == 0
    assert why(1)["token"]["status"] == "revoked"
    assert shared.ctl("entry", "delete", made["entry"], "--yes").returncode == 0
    assert why(1)["token"]["status"] == "unknown"


def test_a_request_comes_from_standard_input_too(shared: House, tmp_path: Path) -> None:
    file, _ = saved(tmp_path)
    done = shared.ctl(
        "why", "--request", "-", "--selector", "unix:uid:7", stdin=Path(file).read_text()
    )
    assert done.returncode == 1
    assert f"mesh-ctl entry create --selector unix:uid:7 --spiffe-id {WEB}" in done.stdout


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (("--spiffe-id", "spiffe://mesh.local/mesh/ca"), "reserved-id"),
        (("--spiffe-id", "spiffe://other.example/service/x"), "wrong-trust-domain"),
        (("--spiffe-id", WEB, "--ttl", "25h"), "ttl-out-of-range"),
    ],
)
def test_the_cas_other_rules_are_told(options: tuple[str, ...], code: str, shared: House) -> None:
    found = answer(shared, "why", *options, status=1)
    assert [problem["code"] for problem in found["problems"]] == [code]


def test_whoever_has_a_certificate_renews_by_its_entry(shared: House, tmp_path: Path) -> None:
    made = answer(shared, "token", "create", "--spiffe-id", WEB)
    _, body = saved(tmp_path, token=made["token"])
    assert shared.post("tls", "/api/v1/sign", body).status == 201
    asked = ("why", "--selector", f"x509:{WEB}", "--spiffe-id", WEB)
    assert [entry["id"] for entry in answer(shared, *asked)["entries"]] == [made["entry"]]
    assert shared.ctl("entry", "delete", made["entry"], "--yes").returncode == 0
    answer(shared, *asked, status=1)


def test_a_workload_may_not_ask(shared: House) -> None:
    own = str(shared.identity("payment-worker").directory)
    url = f"https://localhost:{shared.ca_port}"
    sentence = told(
        shared.ctl("why", "--ca-url", url, "--svid", own, "--selector", "unix:uid:0"), 1
    )
    assert sentence.startswith("not-authorized: ")
    assert "administrators-only" in sentence


def test_without_a_ca_it_says_so(shared: House, tmp_path: Path) -> None:
    assert "no CA answers at" in told(shared.ctl("why", "--state-dir", tmp_path), 3)


def test_as_another_user_it_is_refused_like_all_else(shared: House) -> None:
    done = shared.run(
        *as_nobody(), BIN / "python", BIN / "mesh-ctl", "why", "--selector", "unix:uid:7",
        "--state-dir", shared.state,
    )  # fmt: skip
    if "Permission denied" in done.stderr or "No module" in done.stderr:
        pytest.skip("the other user may not read this checkout")
    assert "no-proof" in told(done, 1)
