"""The disk under a running CA is full, read-only, broken or slow: what stops, what goes on, how it heals."""

import re
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest

from tests.ca_socket import CaSocket
from tests.faults.ordeal import READY, Answer, Ordeal
from tests.faults.tracing import interfered
from tests.faults.watched import PAUSE
from tests.interop.house import House, hears
from tests.interop.test_who_may import serial_of
from tests.running import Running

#: Seconds that a commit takes on the slow disk.
SLOW = 1.2
#: Milliseconds for which the reactor may do nothing, on a machine that other tests use too.
LONGEST_PAUSE = 400.0


def refused(under: Ordeal) -> Answer:
    """The first refusal of a certificate: a page that is there already may take a few more."""
    for _ in range(30):
        answer = under.sign()
        if answer.status != 201:
            return answer
        under.callers[0].held.append(der_of(answer))
    raise AssertionError("it goes on issuing")


def use_up(ballast: Path) -> None:
    """Take all that is left."""
    with ballast.open("ab", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))


def der_of(answer: Answer) -> bytes:
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization

    certificate = x509.load_pem_x509_certificate(answer.json["certificate"].encode())
    return certificate.public_bytes(serialization.Encoding.DER)


def revoke(under: Ordeal, serial: str) -> Answer:
    answer = under.ask("/api/v1/revoke", {"serial": serial, "reason": "keyCompromise"})
    if answer.status == 200:
        under.callers[0].revoked[int(serial, 16)] = answer.json["revoked_at"]
    return answer


@pytest.mark.slow
def test_on_a_full_disk_revoking_works_and_endpoints_carry_on(
    under: Ordeal, small_disk: Path
) -> None:
    ca = under.start(wait=True)
    house = House(under.home)
    try:
        server = house.start_server()
        house.identity("payment-worker")
        gone = house.identity("gone")
        assert under.ask("/readyz").status == 200
        ballast = small_disk / "ballast"

        def is_full() -> bool:
            if (small_disk / "ca" / "reserve").exists():  # at first it finds room in its own files
                use_up(ballast)
            answer = refused(under)
            assert answer.is_try_later, answer
            assert "the disk is full" in answer.json["detail"]
            return under.ask("/readyz").status == 503

        under.until(is_full)
        assert "the disk is full" in under.ask("/readyz").json["detail"]
        health = {check["name"]: check for check in under.ask("/api/v1/health").json["checks"]}
        assert (health["store"]["status"], health["signing"]["status"]) == ("fail", "ok")
        with hears(server, r"revocation|refused: revoked"):
            assert revoke(under, serial_of(gone)).status == 200
            under.until(lambda: house.curl(house.status_url(), *gone.for_curl).returncode != 0)
        house.assert_it_serves()
        # What was acknowledged on the full disk is there, whatever becomes of the process.
        ca.stop(signal.SIGKILL)
        under.check("after it was killed on a full disk", settled=False)
        ca = under.start()
        waiting = r"No certificate from the CA at itself: .*the disk is full"
        ca.wait_for(f"{waiting}|{READY}")
        assert refused(under).is_try_later
        assert revoke(under, serial_of(house.identity("payment-worker"))).status == 200
        ballast.unlink()
        ca.wait_for(READY)
        under.until(lambda: under.ask("/readyz").status == 200)
        assert under.sign().status == 201
        assert server.stop() == 0
    finally:
        house.stop()
    under.lives_on(ca)


@pytest.mark.slow
@pytest.mark.parametrize("error", ["EROFS", "EIO"])
def test_on_a_disk_that_takes_nothing_nothing_is_half_done(error: str, under: Ordeal) -> None:
    """As after the kernel has remounted it read-only: files that are open already are told so too."""
    ca = under.start(wait=True)
    with under.load():
        under.wait_for_answers(20)
    with interfered(ca, "pwrite64,fdatasync,fsync,ftruncate", f"error={error}"):
        answer = under.sign()
        assert answer.is_try_later, answer
        assert re.search("the disk reports errors|cannot be written", answer.json["detail"])
        ready = under.ask("/readyz")
        assert ready.status == 503
        assert re.search("the disk reports errors|cannot be written", ready.json["detail"])
        serial = f"{int.from_bytes(b'nobody'):x}"
        assert under.ask("/api/v1/revoke", {"serial": serial}).status == 404, "reading goes on"
        for path in ("/livez", "/api/v1/trust", "/api/v1/certificates", "/api/v1/bundle"):
            assert under.ask(path).status == 200, path
        with under.load():
            under.wait_for_answers(20)
    under.until(lambda: under.ask("/readyz").status == 200)
    assert under.sign().status == 201
    under.lives_on(ca)
    assert sum(caller.unavailable for caller in under.callers) > 5


@contextmanager
def slow_disk(ca: Running, gate: Path, by: str) -> Iterator[None]:
    if by == "strace":
        with interfered(ca, "fdatasync", f"delay_exit={int(SLOW * 1e6)}"):
            yield
    else:
        gate.write_text(str(SLOW))
        try:
            yield
        finally:
            gate.unlink()


@pytest.mark.slow
@pytest.mark.parametrize("by", ["strace", pytest.param("gate", marks=pytest.mark.soak)])
def test_a_slow_disk_holds_up_nobody_who_does_not_write(
    by: str, under: Ordeal, record_property: Callable[[str, object], None]
) -> None:
    gate = under.home / "gate"
    ca = under.start("tests.faults.watched", str(gate), wait=True)
    with under.load():
        under.wait_for_answers(40)
    with slow_disk(ca, gate, by), under.load():
        started = time.monotonic()
        ca.process.send_signal(signal.SIGUSR1)
        quick = {
            "/livez": slowest(2 * SLOW, lambda: under.ask("/livez").status),
            "trust": slowest(2 * SLOW, lambda: under.ask("/api/v1/trust?after=0&log=0").status),
            "a handshake": slowest(2 * SLOW, lambda: under.shake_hands("/livez")),
        }
        ca.process.send_signal(signal.SIGUSR2)
        pause = float(ca.wait_for(PAUSE)[1])
        assert under.sign().status == 201
        assert time.monotonic() - started > SLOW, "so it was slow"
    told = ", ".join(f"{what} {seconds * 1000:.0f} ms" for what, seconds in quick.items())
    print(
        f"while a commit takes {SLOW} s (by {by}): {told}, longest pause of the reactor {pause} ms"
    )
    record_property("longest pause in ms", pause)
    assert pause < LONGEST_PAUSE
    assert max(quick.values()) < SLOW / 2
    under.lives_on(ca)


def slowest(seconds: float, ask: Callable[[], int]) -> float:
    """The longest that an answer took, of as many as there was time for."""
    longest, end = 0.0, time.monotonic() + seconds
    while (began := time.monotonic()) < end:
        assert ask() == 200
        longest = max(longest, time.monotonic() - began)
    return longest


@pytest.mark.slow
def test_a_connection_that_waits_for_the_disk_is_answered_in_the_end(under: Ordeal) -> None:
    gate = under.home / "gate"
    ca = under.start("tests.faults.watched", str(gate), wait=True)
    gate.write_text(str(SLOW))
    with closing(CaSocket(under.state / "ca" / "ca.sock")) as connection:
        connection.request("GET", "/readyz")
        assert connection.getresponse().status == 200, "slow is not ill"
    gate.unlink()
    under.lives_on(ca)
