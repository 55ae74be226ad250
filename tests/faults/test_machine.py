"""The machine under a running CA: no file descriptors left, a clock that jumps, a stop in the middle of it all."""

import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from tests.ca_socket import CaSocket
from tests.faults.ordeal import Ordeal
from tests.flooding import descriptors
from tests.interop.test_disk_and_clock import skewed
from tests.running import PATIENCE

#: A CA that listens at its three listeners has about 20 open.
FEW = 64


@contextmanager
def crowd(path: Path, number: int) -> Iterator[None]:
    """So many connections that say nothing."""
    with ExitStack() as stack:
        for _ in range(number):
            idle = stack.enter_context(socket.socket(socket.AF_UNIX))
            idle.settimeout(PATIENCE)
            idle.connect(str(path))
        yield


@pytest.mark.slow
def test_out_of_descriptors_it_serves_who_is_there_and_heals_when_they_go(under: Ordeal) -> None:
    few = ("sh", "-c", f'ulimit -n {FEW}; exec "$@"', "sh")
    # By itself it takes no more connections than it has descriptors for.
    ca = under.start(before=few, wait=True, options=("--max-connections", str(8 * FEW)))
    listener = under.state / "ca" / "ca.sock"
    with closing(CaSocket(listener)) as early:
        early.request("GET", "/livez")
        assert early.getresponse().read() == b'{"status":"alive"}'
        with crowd(listener, 2 * FEW):
            under.until(lambda: descriptors(ca.process.pid) >= FEW - 1)
            ca.wait_for(r"No file descriptor is left: whoever connects is hung up on")
            early.request("GET", "/readyz")
            response = early.getresponse()
            assert (response.status, b"unhealthy-descriptors" in response.read()) == (503, True)
            for path in ("/livez", "/api/v1/trust", "/api/v1/certificates"):
                early.request("GET", path)
                response = early.getresponse()
                assert (response.status, bool(response.read())) == (200, True), path
            with (
                under.load(),
                closing(CaSocket(listener)) as late,
                pytest.raises(OSError, match=r"."),
            ):
                late.request("GET", "/livez")
                late.getresponse()
        with under.load():
            under.wait_for_answers(20)
    assert under.ask("/readyz").status == 200
    under.lives_on(ca)


class Clock:
    """The time in which a CA lives; it can be moved."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.set(0)

    def set(self, hours: float) -> None:
        self._path.write_text(f"{hours * 3600:+.0f}\n")

    @property
    def env(self) -> dict[str, str]:
        env = {**skewed("+0"), "FAKETIME_TIMESTAMP_FILE": str(self._path), "FAKETIME_NO_CACHE": "1"}
        del env["FAKETIME"]
        return env


@pytest.mark.slow
def test_a_clock_that_steps_is_told_and_never_stops_the_ca_for_good(under: Ordeal) -> None:
    clock = Clock(under.home / "clock")
    ca = under.start(env=clock.env, wait=True)

    def health(name: str) -> str:
        checks = under.ask("/api/v1/health").json["checks"]
        return next(f"{c['status']}: {c['detail']}" for c in checks if c["name"] == name)

    def issued_at() -> datetime:
        answer = under.sign()
        assert answer.status == 201, answer
        certificate = x509.load_pem_x509_certificate(answer.json["certificate"].encode())
        return certificate.not_valid_after_utc - timedelta(hours=1)

    def off_by(time: datetime) -> float:
        return (time - datetime.now(UTC)).total_seconds() / 3600

    assert health("clock").startswith("ok")
    assert abs(off_by(issued_at())) < 0.1

    clock.set(+6)
    under.until(lambda: health("clock").startswith("warn: the clock was moved by"))
    assert under.ask("/readyz").status == 200, "it may have been wrong before"
    assert abs(off_by(issued_at()) - 6) < 0.1

    clock.set(+3)
    under.until(lambda: health("clock").startswith("fail: the clock is "))
    told = under.ask("/readyz")
    assert told.status == 503
    assert "behind the last act on record" in told.json["detail"]
    assert abs(off_by(issued_at()) - 3) < 0.1, "issuing goes on"
    under.until(lambda: under.ask("/readyz").status == 200)

    clock.set(-6)
    answer = under.sign()
    assert answer.status != 201, "before the CA itself began nothing can be issued"
    assert "check this machine's clock" in answer.json["detail"]
    under.until(lambda: under.ask("/readyz").status == 503)
    assert health("issuer").startswith("fail: the issuing CA is not valid yet")
    assert under.ask("/livez").status == 200

    clock.set(0)
    assert abs(off_by(issued_at())) < 0.1
    under.until(lambda: under.ask("/readyz").status == 200)
    assert health("clock").startswith("ok")
    under.lives_on(ca)


@pytest.mark.slow
def test_a_stop_under_load_loses_nothing_that_was_acknowledged(under: Ordeal) -> None:
    for _ in range(2):
        ca = under.start(wait=True)
        with under.load():
            under.wait_for_answers(60)
            assert ca.stop(signal.SIGTERM) == 0, ca.text
        assert ca.text.rstrip().endswith("Stopped")
        assert "Traceback" not in ca.text
        assert "stop-unrecorded" not in ca.text
        assert "is not in the audit log" not in ca.text
        under.check("after it was stopped under load", settled=True)
        assert under.last_act == "stop"
    under.lives_on(under.start())
