"""mesh-signer as a process: who may call, what kill -9 leaves, what is read again, what its commands say."""

import base64
import hashlib
import http.client
import json
import os
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import load_der_public_key

from pki.keys import KeyAlgorithm, spki_der, verify
from pki.signing.memory import pin_of
from pki.svid.x509svid import certificates_pem
from tests.authorities import key, mesh
from tests.running import BIN, Running, free_port, run
from twisted_mesh.signer.signing_log import verified
from twisted_mesh.taps.signer_options import Options

PROBE = "twisted-mesh: does this key sign? {}"


class Local(http.client.HTTPConnection):
    """HTTP over the signer's socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=30)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(30)
        self.sock.connect(str(self.path))

    def ask(self, path: str, body: object = None) -> tuple[int, Any]:
        method = "GET" if body is None else "POST"
        self.request(method, path, None if body is None else json.dumps(body))
        answer = self.getresponse()
        return answer.status, json.loads(answer.read())

    def make(self, purpose: str = "issuing", algorithm: str = "ec-p256") -> Any:
        body = {"purpose": purpose, "algorithm": algorithm, "label": f"mesh.local {purpose}"}
        status, made = self.ask("/v1/keys", body)
        assert status == 201, made
        return made

    def sign(self, name: str, data: bytes) -> tuple[int, Any]:
        return self.ask("/v1/sign", {"key": name, "data": base64.b64encode(data).decode()})


class Signers:
    """A place for a signer, which is started again and again."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.socket = home / "signer" / "signer.sock"
        self.log = home / "signer" / "private" / "signatures.log"
        self.running: list[Running] = []
        self.callers: list[Local] = []

    def start(self, *options: str) -> Running:
        found = Running.start(
            BIN / "mesh-signer", "--state-dir", self.home, *options, cwd=self.home
        )
        self.running.append(found)
        found.wait_for("Ready to sign")
        return found

    def call(self) -> Local:
        self.callers.append(Local(self.socket))
        return self.callers[-1]

    def run(self, *words: str) -> Any:
        return run(BIN / "mesh-signer", *words, "--state-dir", self.home, cwd=self.home, env={})


@pytest.fixture
def signers(tmp_path: Path) -> Iterator[Signers]:
    made = Signers(tmp_path)
    yield made
    for caller in made.callers:
        caller.close()
    for running in made.running:
        running.stop(signal.SIGKILL)


def test_it_makes_keys_signs_refuses_and_stops(signers: Signers) -> None:
    running = signers.start()
    assert signers.socket.stat().st_mode & 0o777 == 0o600
    for directory in (signers.socket.parent, signers.log.parent):
        assert directory.stat().st_mode & 0o777 == 0o700
    caller = signers.call()
    assert caller.ask("/v1/keys") == (200, {"keys": []})
    made = caller.make()
    assert caller.ask("/v1/keys")[1]["keys"] == [made]
    data = PROBE.format("now").encode()
    status, answer = caller.sign("issuing-1", data)
    assert status == 200
    public_key = load_der_public_key(base64.b64decode(made["public_key"]))
    signature = base64.b64decode(answer["signature"])
    verify(public_key, signature, data, KeyAlgorithm.EC_P256.hash)  # type: ignore[arg-type]
    for path, body, status, code in (
        ("/v1/sign", {"key": "issuing-1", "data": "AAAA"}, 400, "not-signable"),
        ("/v1/sign", {"key": "issuing-1", "data": "A"}, 400, "malformed"),
        ("/v1/sign", {"key": "issuing-1", "data": "", "hash": "sha256"}, 400, "malformed"),
        ("/v1/sign", {"key": "issuing-9", "data": ""}, 404, "not-found"),
        ("/v1/whereabouts", {"key": "../issuing-1"}, 404, "not-found"),
        ("/v1/keys", {"purpose": "root", "algorithm": "dsa", "label": "x"}, 400, "malformed"),
        ("/v1/forget", {"key": "issuing-1"}, 404, "malformed"),
        ("/v1/nothing", None, 404, "malformed"),
    ):
        found, refusal = caller.ask(path, body)
        assert (found, refusal["code"]) == (status, code), refusal
        assert set(refusal) == {"code", "detail", "remedy", "rule"}
    assert running.stop() == 0
    with signers.log.open("rb") as file:
        assert len(list(verified(line[:-1] for line in file))) == 3


def test_killed_under_load_it_has_a_line_for_each_signature(signers: Signers) -> None:
    running = signers.start("--certificate-rate", "off")
    signers.call().make()
    seen: list[bytes] = []

    def load(who: int) -> None:
        caller = signers.call()
        try:
            for number in range(200):
                data = PROBE.format(f"{who}-{number}").encode()
                status, _ = caller.sign("issuing-1", data)
                if status == 200:
                    seen.append(data)
                if len(seen) == 60:
                    running.process.send_signal(signal.SIGKILL)
        except (OSError, http.client.HTTPException):
            pass  # it is killed

    threads = [threading.Thread(target=load, args=(who,)) for who in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert running.wait() == -signal.SIGKILL
    assert len(seen) >= 60
    signers.start()
    with signers.log.open("rb") as file:
        logged = {line.sha256 for line, _ in verified(line[:-1] for line in file)}
    assert {hashlib.sha256(data).hexdigest() for data in seen} <= logged
    assert signers.call().sign("issuing-1", seen[0])[0] == 200
    assert signers.run("log", "verify").returncode == 0


def test_another_one_on_its_state_is_refused(signers: Signers) -> None:
    signers.start()
    again = run(
        BIN / "mesh-signer", "--state-dir", signers.home, "--socket", "s", cwd=signers.home, env={}
    )
    assert again.returncode == 1
    assert "another mesh-signer, PID" in again.stderr


def test_a_policy_is_read_again_and_a_broken_one_is_not_taken(signers: Signers) -> None:
    policy = signers.home / "signer.toml"
    policy.write_text('version = 1\ntrust-domain = "mesh.local"\nmax-keys = 1\n')
    policy.chmod(0o600)
    running = signers.start("--policy", "signer.toml")
    caller = signers.call()
    caller.make()
    body = {"purpose": "issuing", "algorithm": "ec-p256", "label": "x"}
    status, refusal = caller.ask("/v1/keys", body)
    assert (status, refusal["rule"]) == (403, "max-keys")
    policy.write_text('version = 1\ntrust-domain = "mesh.local"\nmax-keys = 2\n')
    running.process.send_signal(signal.SIGHUP)
    running.wait_for("signer.toml.*changed")
    assert caller.ask("/v1/keys", body)[0] == 201
    for broken in ("version = 1\n", 'version = 1\ntrust-domain = "other.example"\n'):
        policy.write_text(broken)
        running.process.send_signal(signal.SIGHUP)
    running.wait_for("is for other.example now")
    assert caller.ask("/v1/keys", body)[1]["rule"] == "max-keys"


def test_users_who_are_not_named_are_refused_by_what_the_kernel_says(signers: Signers) -> None:
    signers.start("--allow-uid", str(os.geteuid() + 1))
    assert signers.socket.stat().st_mode & 0o777 == 0o666
    assert signers.socket.parent.stat().st_mode & 0o777 == 0o711
    assert signers.log.parent.stat().st_mode & 0o777 == 0o700
    status, refusal = signers.call().ask("/v1/keys")
    assert (status, refusal["code"]) == (403, "not-authorized")
    assert "--allow-uid" in refusal["detail"]


def test_over_tls_it_prints_the_pin_of_its_key_which_stays(signers: Signers) -> None:
    client = pin_of(spki_der(key("a caller").public_key))
    pins = []
    for _ in range(2):
        running = signers.start("--listen", f"127.0.0.1:{free_port()}", "--client-pin", client)
        pins.append(running.wait_for(r"is (sha256/\S+)")[1])
        assert running.stop() == 0
    assert pins[0] == pins[1]


def test_its_commands_list_keys_approve_adopt_and_verify(signers: Signers) -> None:
    assert signers.run("keys").returncode == 2
    running = signers.start()
    caller = signers.call()
    made = caller.make()
    pin = pin_of(base64.b64decode(made["public_key"]))
    assert pin in signers.run("keys").stdout
    (told,) = json.loads(signers.run("keys", "--format", "json").stdout)["keys"]
    assert (told["name"], told["pin"]) == ("issuing-1", pin)
    assert signers.run("approve", "sha256/AA").returncode == 2
    assert signers.run("listed", "issuing-1").returncode == 0
    assert signers.run("listed", "issuing-9").returncode == 2
    approved = signers.run("approve", pin, "--for", "1h")
    assert approved.returncode == 0 and pin in approved.stdout
    foreign = signers.home / "ca.pem"
    foreign.write_bytes(certificates_pem([mesh().issuing.certificate]))
    refused = signers.run("adopt", str(foreign))
    assert refused.returncode == 2 and "no key of this signer" in refused.stderr
    assert caller.sign("issuing-1", PROBE.format("x").encode())[0] == 200
    assert running.stop() == 0
    whole = signers.run("log", "verify")
    assert whole.returncode == 0 and "1 approve, 1 key, 1 sign" in whole.stdout
    lines = signers.log.read_bytes().splitlines(keepends=True)
    signers.log.write_bytes(b"".join([lines[0].replace(b"uid:", b"uid:1"), *lines[1:]]))
    damaged = signers.run("log", "verify", "--format", "json")
    assert damaged.returncode == 1 and json.loads(damaged.stdout)["ok"] is False
    signers.log.write_bytes(b"".join(lines[:-1]))
    assert "cut or replaced" in signers.run("log", "verify").stderr


def options(*words: str) -> Options:
    made = Options()
    made.parseOptions(list(words))
    return made


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--listen", "9444"], "--listen needs --client-pin"),
        (["--client-pin", "sha256/AA"], "pin"),
        (["--client-pin", "sha256/" + "A" * 43 + "="], "not given"),
        (["--allow-uid", "nobody knows this one"], "no user of this machine"),
        (["--key-store", "signer:unix:/run/other.sock"], "no other signer"),
        (["--key-store", "ec-p256"], "URI"),
        (["--key-store", "pkcs11:token=a?pin-value=1234"], "pin-value"),
        (["--certificate-rate", "fast"], "no rate"),
        (["--token-pin-file", "a", "--token-pin-fd", "3"], "one of them"),
        (["--policy", "/nonexistent/signer.toml"], "--policy"),
        (["stray"], "not an option"),
    ],
)
def test_options_that_cannot_be_used(words: list[str], why: str) -> None:
    with pytest.raises(SystemExit, match=why) as refused:
        options(*words)
    assert str(refused.value).startswith("mesh-signer: ")


def test_a_policy_for_another_trust_domain_is_refused(tmp_path: Path) -> None:
    policy = tmp_path / "signer.toml"
    policy.write_text('version = 1\ntrust-domain = "mesh.local"\n')
    policy.chmod(0o600)
    with pytest.raises(SystemExit, match="say one of them"):
        options("--policy", str(policy), "--trust-domain", "other.example")
    assert str(options("--policy", str(policy))["signing-policy"].trust_domain) == "mesh.local"
