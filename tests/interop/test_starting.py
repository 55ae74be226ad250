"""Starts that cannot succeed end with one sentence that names the file or the port, and a status that is not 0."""

import errno
import os
import re
import shutil
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pki.keys import KeyAlgorithm, MemoryKey
from pki.spiffe import TrustDomain
from pki.svid.x509svid import certificates_pem
from tests.authorities import key, mesh
from tests.interop.forging import MESH, present
from tests.interop.house import House
from tests.interop.test_who_may import csr_for, sign
from tests.running import Running, free_port, until


def assert_it_ended(running: Running, *words: str) -> None:
    """Not by 0, with one sentence on standard error that has these words."""
    assert running.wait() not in (0, None)
    sentences = [line for line in running.text.splitlines() if line.startswith("mesh-")]
    assert len(sentences) == 1, running.text
    for word in words:
        assert word in sentences[0]
    assert "Traceback" not in running.text
    assert "Ready" not in running.text


@pytest.fixture
def settled(house: House) -> House:
    """A house whose CA has run once, and been stopped."""
    ca = house.start_ca()
    assert ca.stop() == 0
    return house


@pytest.fixture
def taken() -> Iterator[str]:
    """A port in use."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield str(listening.getsockname()[1])


def test_a_port_in_use_ends_the_ca(house: House, taken: str) -> None:
    ca = house.twistd("mesh-ca", "--port", taken, "--root-key", "ec-p256")
    assert_it_ended(
        ca, f"mesh-ca: the TLS address {taken} cannot be listened on", "Address already in use"
    )


def test_a_plaintext_port_in_use_ends_the_ca(house: House, taken: str) -> None:
    options = ("--port", "0", "--root-key", "ec-p256", "--insecure-http", taken)
    assert_it_ended(
        house.twistd("mesh-ca", *options), f"the plaintext port {taken}", "Address already in use"
    )


def test_a_crl_port_in_use_ends_the_ca(house: House, taken: str) -> None:
    options = ("--port", "0", "--root-key", "ec-p256", "--crl-http", taken)
    assert_it_ended(
        house.twistd("mesh-ca", *options), f"the CRL address {taken}", "Address already in use"
    )


def test_a_port_in_use_ends_the_server(house: House, taken: str) -> None:
    server = house.twistd("mesh-server", "--listen", f"127.0.0.1:{taken}")
    assert_it_ended(server, f"mesh-server: the address 127.0.0.1:{taken}", "Address already in use")


def test_a_status_port_in_use_ends_the_server(house: House, taken: str) -> None:
    server = house.twistd("mesh-server", "--listen", "127.0.0.1:0", "--status", taken)
    assert_it_ended(server, f"the status address {taken}", "Address already in use")


def test_two_servers_cannot_share_a_port(shared: House) -> None:
    second = shared.twistd("mesh-server", "--listen", f"127.0.0.1:{shared.port}")
    assert_it_ended(second, "Address already in use")
    shared.assert_it_serves()


def test_a_state_directory_that_is_a_file_is_refused(house: House) -> None:
    house.state.write_text("")
    assert_it_ended(house.start_ca(wait=False), str(house.state), "--state-dir")


def test_a_state_directory_that_cannot_be_written_is_refused(house: House) -> None:
    # Root may write everywhere but where there is no disk.
    there = "/proc/mesh" if os.getuid() == 0 else str(house.home / "locked" / "state")
    (house.home / "locked").mkdir(mode=0o500)
    ca = house.start_ca("--state-dir", there, wait=False)
    assert_it_ended(ca, there, "cannot be used", "--state-dir")


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:60])


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _garble(path: Path) -> None:
    path.write_bytes(os.urandom(300))


def _another_key(path: Path) -> None:
    path.write_bytes(MemoryKey.generate(KeyAlgorithm.EC_P256).to_pem())


def _open_to_all(path: Path) -> None:
    path.chmod(0o644)


def _another_root(path: Path) -> None:
    foreign = mesh(MESH, key("another root"), key("another CA"), present())
    path.write_bytes(certificates_pem([foreign.root.certificate]))


def _another_domains_root(path: Path) -> None:
    foreign = mesh(TrustDomain("other.example"), now=present())
    path.write_bytes(certificates_pem([foreign.root.certificate]))


def _two(path: Path) -> None:
    path.write_bytes(path.read_bytes() * 2)


def _directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


Damage = Callable[[Path], None]

DAMAGES: dict[str, tuple[str, Damage, str]] = {
    "a truncated issuing key": ("private/issuing.key", _truncate, "issuing.key"),
    "an empty issuing key": ("private/issuing.key", _empty, "issuing.key"),
    "a garbled issuing key": ("private/issuing.key", _garble, "issuing.key"),
    "another issuing key": ("private/issuing.key", _another_key, "does not fit"),
    "an issuing key for all to read": ("private/issuing.key", _open_to_all, "chmod 600"),
    "a truncated audit key": ("private/audit.key", _truncate, "audit.key"),
    "an audit key of another kind": ("private/audit.key", _another_key, "audit.key"),
    "an audit key for all to read": ("private/audit.key", _open_to_all, "chmod 600"),
    "a missing issuing key": ("private/issuing.key", Path.unlink, "issuing.key cannot be read"),
    "a missing issuing certificate": ("issuing.crt", Path.unlink, "issuing.crt cannot be read"),
    "a garbled issuing certificate": ("issuing.crt", _garble, "issuing.crt"),
    "two issuing certificates": ("issuing.crt", _two, "holds 2 certificates"),
    "a truncated root key": ("private/root.key", _truncate, "root.key"),
    "another root key": ("private/root.key", _another_key, "is not the key of"),
    "a root key for all to read": ("private/root.key", _open_to_all, "chmod 600"),
    "a truncated root": ("root.crt", _truncate, "root.crt"),
    "the root of another mesh of the same name": ("root.crt", _another_root, "restore"),
    "the root of another trust domain": ("root.crt", _another_domains_root, "other.example"),
    "a missing root": ("root.crt", Path.unlink, "restore it from a backup"),
    "a root that is a directory": ("root.crt", _directory, "root.crt cannot be read"),
    "a garbled database": ("mesh.db", _garble, "mesh.db"),
    "a database that is a directory": ("mesh.db", _directory, "mesh.db"),
}


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The state of a CA that has run once; each test damages its own copy."""
    from tests.interop.house import house as inhabited

    home = tmp_path_factory.mktemp("original")
    with inhabited(home) as house:
        assert house.start_ca().stop() == 0
    return home / "state"


@pytest.mark.parametrize("what", DAMAGES)
def test_damaged_state_ends_the_start_and_the_file_is_named(
    what: str, house: House, original: Path
) -> None:
    name, damage, words = DAMAGES[what]
    shutil.copytree(original, house.state, ignore=shutil.ignore_patterns("ca.sock"))
    damage(house.state / "ca" / name)
    before = {
        p: p.read_bytes()
        for p in house.state.rglob("*.*")
        if p.is_file() and "mesh.db" not in p.name
    }
    assert_it_ended(house.start_ca(wait=False), words, str(house.state))
    after = {p: p.read_bytes() for p in before}
    assert after == before, "what is there is never overwritten"


def test_another_trust_domain_on_the_same_state_is_refused(settled: House) -> None:
    ca = settled.start_ca("--trust-domain", "other.example", wait=False)
    assert_it_ended(
        ca, "is the root of spiffe://mesh.local, not of spiffe://other.example", "--trust-domain"
    )


def test_a_second_ca_is_refused_and_told_the_first_ones_pid(house: House) -> None:
    first = house.start_ca()
    second = house.start_ca(wait=False)
    assert_it_ended(
        second, f"another mesh-ca, PID {first.process.pid}, owns {house.state}", "--state-dir"
    )
    assert house.ask("socket", "/livez").status == 200, "and the first has kept its socket"


def test_after_kill_9_the_next_ca_starts_at_once_and_knows_what_was_issued(house: House) -> None:
    first = house.start_ca()
    serial = sign(house, "socket", "spiffe://mesh.local/service/x").json["serial"]
    fingerprint = first.wait_for(r"fingerprint: (sha256:\w+)")[1]
    assert first.stop(signal.SIGKILL) == -signal.SIGKILL
    second = house.start_ca()
    assert second.wait_for(r"fingerprint: (sha256:\w+)")[1] == fingerprint
    listed = house.ask("socket", "/api/v1/certificates").json["certificates"]
    assert serial in [certificate["serial"] for certificate in listed]
    assert second.stop() == 0


def test_without_the_roots_key_the_ca_runs_and_says_what_has_to_wait(settled: House) -> None:
    root_key = settled.state / "ca" / "private" / "root.key"
    root_key.rename(settled.home / "root.key")
    ca = settled.start_ca()
    ca.wait_for(
        r"WARNING: The root's key is not here\. Certificates are issued for 36\d days.* more; "
        r"a new issuing CA has to wait until it is back in \S+private, or has "
        r"certified one elsewhere \(mesh-ctl ca root csr\)"
    )
    assert sign(settled, "socket", "spiffe://mesh.local/service/x").status == 201
    assert ca.stop() == 0
    assert not root_key.exists()


def test_a_start_that_was_killed_half_way_is_begun_anew(settled: House) -> None:
    # root.crt is written last: without it and the issuing CA nothing was ever handed out.
    for name in ("root.crt", "issuing.crt", "mesh.db"):
        (settled.state / "ca" / name).unlink()
    ca = settled.start_ca()
    assert sign(settled, "socket", "spiffe://mesh.local/service/x").status == 201
    assert ca.stop() == 0


def test_who_may_read_what_in_the_state_directory(settled: House) -> None:
    modes = {
        re.sub(
            r"jwt_[0-9a-f]{16}", "jwt_N", str(path.relative_to(settled.home))
        ): path.stat().st_mode & 0o777
        for path in settled.home.rglob("*")
        if path.suffix in (".key", ".crt", ".db") or path.is_dir()
    }
    assert modes == {
        "state": 0o711,
        "state/ca": 0o711,
        "state/ca/private": 0o700,
        "state/ca/private/root.key": 0o600,
        "state/ca/private/issuing.key": 0o600,
        "state/ca/private/audit.key": 0o600,
        "state/ca/private/jwt_N.key": 0o600,
        "state/ca/root.crt": 0o644,
        "state/ca/issuing.crt": 0o644,
        "state/ca/mesh.db": 0o600,
    }


def test_servers_wait_for_a_ca_that_is_not_there_yet(house: House) -> None:
    server = house.start_server(wait=False)
    server.wait_for(
        r"No certificate from the CA at unix:.*: unreachable: no CA answers .*trying again in"
    )
    house.start_ca()
    server.wait_for(r"Ready to accept mTLS connections\.")
    assert server.stop() == 0


def is_refused(port: int) -> bool:
    """By the kernel: nobody listens there, which is not the same as being hung up on."""
    with socket.socket() as caller:
        return caller.connect_ex(("127.0.0.1", port)) == errno.ECONNREFUSED


def test_a_server_has_its_port_at_once_and_opens_it_when_it_can_serve(house: House) -> None:
    port = free_port()
    server = house.twistd("mesh-server", "--listen", f"127.0.0.1:{port}")
    server.wait_for("trying again in")
    assert is_refused(port)
    second = house.twistd("mesh-server", "--listen", f"127.0.0.1:{port}")
    assert_it_ended(second, f"the address 127.0.0.1:{port}", "Address already in use")
    house.start_ca()
    server.wait_for(r"Ready to accept mTLS connections\.")
    house.port = port
    house.assert_it_serves()
    assert server.stop() == 0
    assert is_refused(port)


def test_of_two_servers_that_start_at_once_one_has_the_port(house: House) -> None:
    house.start_ca()
    port = free_port()
    both = [house.twistd("mesh-server", "--listen", f"127.0.0.1:{port}") for _ in range(2)]
    until(lambda: any(server.process.poll() is not None for server in both))
    (loser,) = [server for server in both if server.process.poll() is not None]
    assert_it_ended(loser, f"the address 127.0.0.1:{port}", "Address already in use")
    (winner,) = [server for server in both if server is not loser]
    winner.wait_for(r"Ready to accept mTLS connections\.")
    house.port = port
    house.assert_it_serves()


def test_whoever_a_ca_lets_in_it_serves(house: House) -> None:
    house.ca_port, house.plain_port, crls = free_port(), free_port(), free_port()
    ports = ("--port", str(house.ca_port), "--insecure-http", str(house.plain_port))
    house.twistd("mesh-ca", *ports, "--crl-http", str(crls), "--root-key", "ec-p256")
    until(lambda: not is_refused(house.ca_port))
    assert house.ask("tls", "/livez").status == 200
    for listener in ("plain", "socket"):
        assert house.ask(listener, "/readyz").status == 200
    assert not is_refused(crls)


def test_a_server_with_an_id_that_the_ca_refuses_says_so(house: House) -> None:
    house.start_ca()
    server = house.start_server("--spiffe-id", "spiffe://mesh.local/mesh/ca", wait=False)
    server.wait_for(r"No certificate from the CA at unix:.*: \S+: .*reserved")
    assert server.stop() == 0
    body = {"csr": csr_for("spiffe://mesh.local/x"), "requested_id": "spiffe://mesh.local/x"}
    assert house.post("socket", "/api/v1/sign", body).status == 201
