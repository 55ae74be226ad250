"""A log's days: its own log is rotated, nobody has a home, two CAs share it, and strangers knock."""

import signal
import socket
import ssl
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509

from pki.ct.receipt import verify_sct
from pki.spiffe import TrustDomain
from pki.svid.x509svid import certificates_pem
from tests.authorities import HOUR, key, mesh
from tests.ctlogs import RunningLog, chain_of, entry_of, precertificate, receipt, running_log
from tests.flooding import KINDS, descriptors
from tests.running import BIN, PATIENCE, Running, until
from twisted_mesh.tls.self_signed import SelfSigned


def test_its_own_log_is_rotated_by_either_signal_and_none_of_habit_ends_it(
    tmp_path: Path,
) -> None:
    made = RunningLog(tmp_path / "log")
    file = made.home / "text"
    running = Running.start(
        *(BIN / "twistd", "-n", "--logfile", file, "mesh-ctlog"), *made.words, cwd=made.home
    )
    made.running = running
    try:
        until(lambda: file.exists() and "Ready to log" in file.read_text())
        for number in (signal.SIGWINCH, signal.SIGPIPE, signal.SIGUSR2):
            running.process.send_signal(number)
        until(lambda: "SIGUSR2 means nothing here" in file.read_text())
        for number, name in ((signal.SIGUSR1, "text.1"), (signal.SIGHUP, "text.2")):
            file.rename(made.home / name)
            running.process.send_signal(number)
            until(lambda: file.exists() and "Log reopened" in file.read_text())
        made.log_one()
        assert made.verified_size() == 1
        assert running.stop() == 0
        assert file.read_text().rstrip().endswith("Stopped")
    finally:
        made.stop()


def test_it_needs_no_home(tmp_path: Path) -> None:
    made = RunningLog(tmp_path / "log")
    command = ("/usr/bin/env", "-u", "HOME", "-u", "USER", "-u", "LOGNAME", BIN / "mesh-ctlog")
    running = Running.start(*command, *made.words, cwd=made.home)
    made.running = running
    try:
        running.wait_for(r"Ready to log certificates\.")
        made.log_one()
        assert running.stop() == 0
    finally:
        made.stop()
    left = sorted(path.name for path in made.home.iterdir())
    assert left == ["roots.pem", "state", "submitter.pem"]


def test_two_cas_share_a_log_and_neither_speaks_for_the_other_or_uses_up_its_share(
    tmp_path: Path,
) -> None:
    other_domain = TrustDomain("other.example")
    now = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - HOUR
    other = mesh(other_domain, now=now)
    with running_log(tmp_path / "log") as log:
        assert log.running is not None and log.running.stop() == 0
        name = other_domain.member("mesh", "ca")
        uri = [x509.UniformResourceIdentifier(str(name))]
        own = SelfSigned.of(key("another submitter"), "a CA", datetime.now(UTC), uri)
        (log.home / "other.pem").write_bytes(own.key.to_pem() + certificates_pem([own.certificate]))
        roots = log.home / "other-roots.pem"
        roots.write_bytes(certificates_pem([other.root.certificate]))
        running = log.start(
            *("--accept-ca", f"{name}={own.pin}", "--roots", f"{other_domain}={roots}"),
            *("--submission-rate", "1:6"),
        )
        context = ssl.create_default_context(cafile=str(log.state / "ctlog" / "tls.crt"))
        context.load_cert_chain(log.home / "other.pem")
        theirs = log.connect()
        theirs._context = context  # type: ignore[attr-defined]
        first, second = (precertificate(of, now=datetime.now(UTC)) for of in (log.of, other))
        mine = log.connect()
        got = log.submit(first, mine)
        status, answer = log.post(chain_of(other, second), connection=theirs)
        assert status == 200, answer
        verify_sct(receipt(answer), entry_of(other, second), log.log.key)
        assert [got.leaf_index, receipt(answer).leaf_index] == [0, 1]
        for chain, connection in (
            (chain_of(log.of, first), theirs),
            (chain_of(other, second), mine),
        ):
            status, refusal = log.post(chain, connection=connection)
            assert (status, refusal["code"]) == (400, "not-accepted-here")
            assert "is not of the trust domain of" in refusal["detail"]
        # Of one domain, below the root of the other: as whoever has stolen one of the CAs would.
        forged = mesh(other_domain, log.of.root.key, key("a stolen CA"), now)
        status, refusal = log.post(
            chain_of(forged, precertificate(forged, now=datetime.now(UTC))), connection=theirs
        )
        assert (status, refusal["code"]) == (400, "not-accepted-here")
        assert "below none of the roots" in refusal["detail"]
        for _ in range(100):
            status, refusal = log.post(chain_of(other, second), connection=theirs)
            if status != 200:
                break
        assert (status, refusal["code"]) == (429, "rate-limited")
        assert log.submit(first, mine).leaf_index == 0
        assert log.verified_size() == 2
        for connection in (mine, theirs):
            connection.close()
        assert running.stop() == 0


def test_strangers_bytes_at_its_door_cost_it_nothing_and_hold_up_nobody(tmp_path: Path) -> None:
    with running_log(tmp_path / "log") as log, ExitStack() as held:
        assert log.running is not None
        pid = log.running.process.pid
        log.log_one()
        before = descriptors(pid)
        for kind in KINDS.values():
            for _ in range(20):
                wire = socket.create_connection(("127.0.0.1", log.port), PATIENCE)
                held.callback(wire.close)
                kind(wire)
        for body in (
            b"\x16\x03\x01\xff\xff",
            b"GET / HTTP/1.1\r\n\r\n",
            b"\x16\x03\x01\0\x05\x01\0\0\x01\0",
        ):
            with socket.create_connection(("127.0.0.1", log.port), PATIENCE) as wire:
                wire.sendall(body)
                wire.shutdown(socket.SHUT_WR)
                with suppress(ConnectionResetError):
                    while wire.recv(4096):
                        pass
        context = ssl.create_default_context(cafile=str(log.state / "ctlog" / "tls.crt"))
        for request in (
            b"\x00" * 100 + b"\r\n\r\n",
            b"POST /ct/v1/add-chain HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n",
            b"POST /ct/v1/add-chain HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n[[[[[",
            b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n",
        ):
            with (
                socket.create_connection(("127.0.0.1", log.port), PATIENCE) as wire,
                context.wrap_socket(wire, server_hostname="localhost") as secured,
                suppress(OSError),
            ):
                secured.sendall(request)
                told = secured.recv(4096)
                assert told == b"" or told.split()[1] in {b"400", b"403", b"413", b"414", b"431"}
        log.log_one("honest")
        held.close()
        until(lambda: descriptors(pid) <= before + 2)
        assert log.verified_size() == 2
        assert "Traceback" not in log.running.text
        assert log.running.stop() == 0
