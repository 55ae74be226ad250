"""From another machine: another user with a state directory of its own, over TLS, by a fingerprint and a token."""

import json
import os
import pwd
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from attrs import define
from cryptography import x509

from pki.policy.join_token import JoinToken
from pki.svid.pin import Fingerprint
from tests.interop.house import READY, Done, House
from tests.interop.wires import listening, recorder
from tests.running import BIN, CHECKOUT, PATIENCE, Running

ID = "spiffe://mesh.local/service/far-away"
#: Becomes another user and goes on as Python with these arguments, also where that user may not go to the interpreter.
_AS_NOBODY = """
import os, sys
python = os.open(sys.base_prefix, os.O_PATH)
os.set_inheritable(python, True)
os.setgroups([])
os.setgid(int(sys.argv[2]))
os.setuid(int(sys.argv[1]))
os.umask(0o077)
home = f"/proc/self/fd/{python}"
os.environ.update(PYTHONHOME=home, LD_LIBRARY_PATH=f"{home}/lib")
os.execv(f"{home}/bin/python3", ["python3", *sys.argv[3:]])
"""


@define(eq=False)
class Elsewhere:
    """What another machine has: a user of its own where that can be had, a home, and what was copied to it."""

    house: House
    home: Path
    ca_url: str
    fingerprint: str

    def command(self, program: str, *arguments: str) -> list[str]:
        words = [str(BIN / program), *arguments]
        if os.geteuid() != 0:
            return words
        nobody = pwd.getpwnam("nobody")
        ids = str(nobody.pw_uid), str(nobody.pw_gid)
        return [sys.executable, "-c", _AS_NOBODY, *ids, *words]

    @property
    def env(self) -> dict[str, str]:
        return {
            "MESH_STATE_DIR": str(self.home / "state"),
            "HOME": str(self.home),
            "NO_COLOR": "1",
            "PYTHONUNBUFFERED": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONPATH": os.pathsep.join((str(CHECKOUT), sysconfig.get_path("purelib"))),
        }

    @property
    def reaching(self) -> tuple[str, ...]:
        return "--ca-url", self.ca_url, "--ca-fingerprint", self.fingerprint, "--spiffe-id", ID

    def client(self, *arguments: str, stdin: str = "") -> Done:
        server = ("--server", self.house.server_url)
        done = subprocess.run(
            self.command("mesh-client", *server, *arguments),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=PATIENCE * 2,
            cwd=self.home,
            env={**os.environ, **self.env},
        )
        self.house.said.append(done.stdout + done.stderr)
        return done

    def server(self, *arguments: str) -> Running:
        running = Running.start(
            *self.command("twistd", "-n", "mesh-server", "--listen", "127.0.0.1:0", *arguments),
            cwd=self.home,
            env=self.env,
        )
        self.house.processes.append(running)
        return running

    @property
    def kept(self) -> list[Path]:
        return sorted(self.home.glob("state/identity/*/svid.pem"))


@pytest.fixture
def elsewhere(shared: House) -> Iterator[Elsewhere]:
    # Not in pytest's own directory, which is for one user alone.
    with tempfile.TemporaryDirectory(prefix="mesh-elsewhere-") as name:
        home = Path(name)
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            os.chown(home, nobody.pw_uid, nobody.pw_gid)
        yield Elsewhere(shared, home, f"https://localhost:{shared.ca_port}", _fingerprint(shared))


def _fingerprint(house: House) -> str:
    return str(Fingerprint.of(x509.load_pem_x509_certificate(house.root.read_bytes())))


def token(house: House, *options: str, spiffe_id: str = ID) -> str:
    done = house.ctl("token", "create", "--spiffe-id", spiffe_id, "--format", "json", *options)
    assert done.returncode == 0, done.stderr
    text: str = json.loads(done.stdout)["token"]
    return text


def assert_untold(house: House, secret: str) -> None:
    """No process has printed it."""
    said = (text for text in house.said if '"token":' not in text)  # but the one that made it
    for text in (*said, *(running.text for running in house.processes)):
        assert secret not in text


def test_what_token_create_prints_is_all_that_is_needed(
    shared: House, elsewhere: Elsewhere
) -> None:
    made = shared.ctl("token", "create", "--spiffe-id", ID, "--format", "json")
    told = json.loads(made.stdout)
    assert told["fingerprint"] == elsewhere.fingerprint
    assert told["ca_url"].startswith("https://")
    options = ("--ca-url", elsewhere.ca_url, "--ca-fingerprint", told["fingerprint"])
    done = elsewhere.client(*options, "--spiffe-id", ID, "--join-token", told["token"])
    assert done.returncode == 0, done.stderr
    assert ID in done.stdout
    assert_untold(shared, told["token"])


def test_a_token_may_come_by_standard_input_or_a_file(shared: House, elsewhere: Elsewhere) -> None:
    done = elsewhere.client(
        *elsewhere.reaching, "--join-token-file", "-", stdin=token(shared) + "\n"
    )
    assert done.returncode == 0, done.stderr
    shutil.rmtree(elsewhere.home / "state")
    file = elsewhere.home / "token"
    file.write_text(token(shared))
    file.chmod(0o644)
    done = elsewhere.client(*elsewhere.reaching, "--join-token-file", str(file))
    assert done.returncode == 0, done.stderr


def test_a_spent_token_buys_nothing_and_a_kept_identity_does(
    shared: House, elsewhere: Elsewhere
) -> None:
    options = (*elsewhere.reaching, "--join-token", token(shared))
    assert elsewhere.client(*options).returncode == 0
    assert len(elsewhere.kept) == 1
    again = elsewhere.client(*options)
    assert again.returncode == 0, again.stderr
    assert elsewhere.client(*elsewhere.reaching).returncode == 0
    shutil.rmtree(elsewhere.home / "state")
    spent = elsewhere.client(*options)
    assert spent.returncode == 1
    assert spent.stderr.startswith("mesh-client: ")
    assert len(spent.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "secret", ["mj1_" + "a" * 40, "", "nonsense"], ids=["mistyped", "empty", "nonsense"]
)
def test_what_is_no_token_is_not_even_sent(secret: str, elsewhere: Elsewhere) -> None:
    done = elsewhere.client(*elsewhere.reaching, f"--join-token={secret}")
    assert done.returncode == 2
    assert "no whole join token" in done.stderr


def test_a_token_for_another_id_is_refused(shared: House, elsewhere: Elsewhere) -> None:
    other = token(shared, spiffe_id="spiffe://mesh.local/service/another")
    done = elsewhere.client(*elsewhere.reaching, "--join-token", other)
    assert done.returncode == 1
    assert_untold(shared, other)


def test_without_a_token_there_is_no_first_certificate(elsewhere: Elsewhere) -> None:
    done = elsewhere.client(*elsewhere.reaching)
    assert done.returncode == 1
    assert "no-proof" in done.stderr


def test_mesh_ctl_meets_the_ca_in_the_same_way(shared: House, elsewhere: Elsewhere) -> None:
    def lists(fingerprint: str) -> Done:
        at = ("--ca-url", elsewhere.ca_url, "--ca-fingerprint", fingerprint)
        return shared.ctl("cert", "list", *at)

    for fingerprint, words in ((elsewhere.fingerprint, "no-proof"), ("ab" * 32, "wrong-finger")):
        done = lists(fingerprint)
        assert done.returncode == 1
        assert words in done.stderr
    assert lists("ab").returncode == 2


def test_a_server_outlives_its_token(shared: House, elsewhere: Elsewhere) -> None:
    options = (*elsewhere.reaching, "--join-token", token(shared))
    for life in range(2):
        server = elsewhere.server(*options)
        server.wait_for(READY)
        recalled = "it shows the CA who we are" in server.text
        assert recalled == bool(life)
        assert server.stop() == 0
    assert_untold(shared, options[-1])


def test_a_server_whose_identity_was_revoked_does_not_go_on_by_it(
    shared: House, elsewhere: Elsewhere
) -> None:
    options = (*elsewhere.reaching, "--join-token", token(shared))
    server = elsewhere.server(*options)
    server.wait_for(READY)
    assert server.stop() == 0
    revoked = shared.ctl("cert", "revoke", "--spiffe-id", ID, "--yes")
    assert revoked.returncode == 0, revoked.stderr
    server = elsewhere.server(*options)
    server.wait_for(
        r"No certificate from the CA at https://localhost:\d+: .*trying again in", count=1
    )
    assert server.stop() == 0
    assert "Ready" not in server.text
    assert elsewhere.kept == []
    server = elsewhere.server(*elsewhere.reaching, "--join-token", token(shared))
    server.wait_for(READY)
    assert server.stop() == 0


def test_with_a_wrong_fingerprint_nothing_of_ours_is_sent(
    shared: House, elsewhere: Elsewhere
) -> None:
    wrong = "sha256:" + "ab" * 32
    secret = JoinToken.generate().text
    with listening(recorder(shared.ca_port)) as wire:
        done = elsewhere.client(
            *("--ca-url", wire.url, "--ca-fingerprint", wrong, "--spiffe-id", ID),
            *("--join-token", secret),
        )
    assert done.returncode == 1
    assert "wrong-fingerprint" in done.stderr
    assert wrong in done.stderr
    assert elsewhere.fingerprint in done.stderr
    assert wire.callers == 1
    assert _records(bytes(wire.heard)) <= {20, 21, 22}, "no application data, and no certificate"


def _records(heard: bytes) -> set[int]:
    """The types of the TLS records (RFC 8446 section 5.1)."""
    found = set()
    while heard:
        found.add(heard[0])
        heard = heard[5 + int.from_bytes(heard[3:5], "big") :]
    return found
