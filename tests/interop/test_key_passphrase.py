"""Key files encrypted at rest, by real processes: in the foreground, as a daemon, with systemd's credentials."""

import os
import signal
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from tests.interop.house import House
from tests.interop.test_starting import assert_it_ended
from tests.interop.test_who_may import sign
from tests.running import BIN, Running, until

SECRET = "correct horse"
WRONG = "battery staple"


@pytest.fixture
def passphrase(house: House) -> Path:
    path = house.home / "passphrase"
    path.touch(0o600)
    path.write_text(SECRET + "\n")
    return path


def keys(house: House) -> list[Path]:
    return sorted((house.state / "ca" / "private").glob("*.key"))


def assert_encrypted(house: House) -> None:
    names = [path.name for path in keys(house)]
    assert [name.partition("_")[0] for name in names] == [
        "audit.key",
        "issuing.key",
        "jwt",
        "root.key",
    ]
    for path in keys(house):
        load_pem_private_key(path.read_bytes(), SECRET.encode())
        with pytest.raises(TypeError, match="encrypted"):
            load_pem_private_key(path.read_bytes(), None)
        assert path.stat().st_mode & 0o777 == 0o600


def assert_it_issues(house: House) -> None:
    assert sign(house, "socket", "spiffe://mesh.local/service/x").status == 201


def open_files(pid: int) -> set[Path]:
    """Of a process; none where there is no /proc."""
    return {link.resolve() for link in Path(f"/proc/{pid}/fd").glob("*")}


def test_keys_are_made_encrypted_and_read_again(house: House, passphrase: Path) -> None:
    for _ in range(2):
        ca = house.start_ca("--key-passphrase-file", str(passphrase))
        assert_it_issues(house)
        assert ca.stop() == 0
        assert_encrypted(house)
        assert SECRET not in ca.text


def test_plain_keys_are_encrypted_and_that_is_said(house: House, passphrase: Path) -> None:
    assert house.start_ca().stop() == 0
    ca = house.start_ca("--key-passphrase-file", str(passphrase))
    for path in keys(house):
        ca.wait_for(f"The key {path} was not encrypted, and is now")
    assert_it_issues(house)
    assert ca.stop() == 0
    assert_encrypted(house)


def test_without_it_or_with_another_the_start_ends(house: House, passphrase: Path) -> None:
    assert house.start_ca("--key-passphrase-file", str(passphrase)).stop() == 0
    before = [path.read_bytes() for path in keys(house)]
    ca = house.start_ca(wait=False)
    assert_it_ended(ca, "root.key is encrypted", "--key-passphrase-file or --key-passphrase-fd")
    passphrase.write_text(WRONG)
    ca = house.start_ca("--key-passphrase-file", str(passphrase), wait=False)
    assert_it_ended(ca, "root.key cannot be decrypted", "--key-passphrase-file")
    assert WRONG not in ca.text
    assert [path.read_bytes() for path in keys(house)] == before


def test_a_passphrase_for_all_to_read_ends_the_start(house: House, passphrase: Path) -> None:
    passphrase.chmod(0o644)
    ca = house.start_ca("--key-passphrase-file", str(passphrase), wait=False)
    assert_it_ended(ca, f"chmod 600 {passphrase}")
    assert not house.state.exists()


def test_a_credential_of_systemd_is_found(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    credentials = house.home / "credentials"
    credentials.mkdir()
    (credentials / "mesh-ca.passphrase").write_text(SECRET)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(credentials))
    ca = house.start_ca()
    assert_it_issues(house)
    assert ca.stop() == 0
    assert_encrypted(house)


@pytest.mark.parametrize(
    ("descriptor", "foreground"),
    [
        ("0", False),
        ("7", False),
        pytest.param("0", True, marks=pytest.mark.interop),
        pytest.param("7", True, marks=pytest.mark.interop),
    ],
)
def test_a_descriptor_is_read_before_the_daemon_lets_go_of_it(
    house: House, passphrase: Path, descriptor: str, foreground: bool
) -> None:
    """Twistd forks, and gives its daemon another standard input."""
    pidfile, logfile = house.home / "ca.pid", house.home / "ca.log"
    command = (
        f'exec "$0" {"--nodaemon" if foreground else ""} --pidfile "$1" --logfile "$2" mesh-ca --port 0 '
        f'--root-key ec-p256 --key-passphrase-fd {descriptor} {descriptor}<"$3"'
    )
    started = ("sh", "-c", command, BIN / "twistd", pidfile, logfile, passphrase)
    if foreground:
        running = Running.start(*started, cwd=house.home, env=house.env)
        house.processes.append(running)
    else:
        done = house.run(*started)
        assert done.returncode == 0, done.stderr
    until(lambda: logfile.exists() and "Ready to issue certificates." in logfile.read_text())
    pid = int(pidfile.read_text())
    try:
        assert_it_issues(house)
        assert descriptor == "0" or passphrase not in open_files(pid), "closed once it is read"
    finally:
        os.kill(pid, signal.SIGTERM)
        until(lambda: not pidfile.exists())
    until(lambda: logfile.read_text().rstrip().endswith("Stopped"))
    assert SECRET not in logfile.read_text()
    assert_encrypted(house)


def test_a_descriptor_that_is_not_open_ends_the_start(house: House) -> None:
    ca = house.start_ca("--key-passphrase-fd", "99", wait=False)
    assert_it_ended(ca, "--key-passphrase-fd 99 cannot be read")


@pytest.mark.parametrize("tail", ["", "-wal", "-shm"])
def test_a_record_that_others_may_change_ends_the_start(house: House, tail: str) -> None:
    assert house.start_ca().stop() == 0
    record = house.state / "ca" / f"mesh.db{tail}"
    record.touch()
    record.chmod(0o666)
    assert_it_ended(house.start_ca(wait=False), f"chmod go-w {record}")


def test_an_issuance_log_that_others_may_change_ends_the_start(house: House) -> None:
    log = house.home / "issued.jsonl"
    log.touch()
    log.chmod(0o662)
    ca = house.start_ca("--issuance-log", str(log), wait=False)
    assert_it_ended(ca, f"chmod go-w {log}")
