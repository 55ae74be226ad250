"""A disk that fills up and heals, a database that goes away, clocks that are an hour apart."""

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.interop.house import House, hears
from tests.interop.test_client_refuses import assert_refused
from tests.interop.test_who_may import sign
from tests.running import BIN, Running, until
from tests.tools import require_tool

SERVICE = "spiffe://mesh.local/service/x"
AN_HOUR_BEHIND, AN_HOUR_AHEAD = "-1h", "+1h"


@pytest.fixture
def small_disk(house: House) -> Iterator[Path]:
    """The house's state directory, on a disk of one megabyte."""
    house.state.mkdir()
    if os.getuid() != 0:
        pytest.skip("only root can mount a small disk")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", house.state],
        capture_output=True,
        text=True,
    )
    if mounted.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {mounted.stderr.strip()}")
    try:
        yield house.state
    finally:
        house.stop()
        subprocess.run(["umount", "-l", house.state], check=True)


def fill(disk: Path) -> Path:
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass
    return ballast


def test_a_full_disk_means_503_and_no_certificate_and_heals_by_itself(
    house: House, small_disk: Path
) -> None:
    ca = house.start_ca()
    assert sign(house, "socket", SERVICE).status == 201
    ballast = fill(small_disk)
    # What is left in a page already there may take one more; then it is over.
    replies = [sign(house, "socket", SERVICE) for _ in range(12)]
    refused = [reply for reply in replies if reply.status != 201]
    assert len(refused) >= 8
    for reply in refused:
        assert reply.status == 503, reply
        assert int(reply.headers["retry-after"]) > 0
        assert "the disk is full: free some space" in reply.json["detail"]
        assert "certificate" not in reply.json
    assert house.ask("socket", "/livez").status == 200
    assert house.ask("socket", "/api/v1/ca").status == 200
    serials = {r.json["serial"] for r in replies if r.status == 201}
    ballast.unlink()
    assert sign(house, "socket", SERVICE).status == 201
    assert house.ask("socket", "/readyz").status == 200
    listed = house.ask("socket", "/api/v1/certificates?limit=1000&status=valid").json[
        "certificates"
    ]
    assert serials <= {certificate["serial"] for certificate in listed}, "nothing was lost"
    issued = re.findall(r"Certificate issued:\n  Serial: (\S+)", ca.text)
    assert {s.replace(":", "").lower() for s in issued} == {c["serial"] for c in listed}
    assert ca.stop() == 0


def test_a_full_disk_at_the_first_start_ends_it_in_words(house: House, small_disk: Path) -> None:
    ballast = fill(small_disk)
    ca = house.start_ca(wait=False)
    assert ca.wait() != 0
    assert "No space left on device" in ca.text or "the disk is full" in ca.text
    assert "Ready" not in ca.text
    ballast.unlink()
    assert house.start_ca().stop() == 0


def test_a_server_lives_through_its_cas_full_disk(house: House, small_disk: Path) -> None:
    house.start_ca()
    server = house.start_server("--ttl", "4s", "--drain", "1s")
    house.identity("payment-worker")
    ballast = fill(small_disk)
    server.wait_for(r"No certificate from the CA at .*: .*the disk is full", patience=30)
    ballast.unlink()
    with hears(server, r"The CA at .* answers again|Certificate rotation complete\."):
        pass
    house.assert_it_serves()
    assert server.stop() == 0


def test_a_database_that_is_taken_away_means_503_in_words(house: House) -> None:
    ca = house.start_ca()
    database = house.state / "ca" / "mesh.db"
    database.rename(database.with_suffix(".gone"))
    reply = sign(house, "socket", SERVICE)
    assert reply.status == 503
    assert "moved, deleted or replaced" in reply.json["detail"]
    assert house.ask("socket", "/readyz").status == 503
    database.with_suffix(".gone").rename(database)
    assert sign(house, "socket", SERVICE).status == 201
    assert ca.stop() == 0


def test_an_issuance_log_that_cannot_be_written_ends_the_start(house: House) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full here")
    ca = house.start_ca("--issuance-log", "/dev/full", wait=False)
    assert ca.wait() == 1
    assert (
        "mesh-ca: the issuance log /dev/full cannot be written (No space left on device)" in ca.text
    )


def test_what_the_issuance_log_cannot_take_is_not_handed_out(
    house: House, small_disk: Path
) -> None:
    ca = house.start_ca("--store", "memory:", "--issuance-log", str(small_disk / "issued.log"))
    assert sign(house, "socket", SERVICE).status == 201
    ballast = fill(small_disk)
    refused = [
        reply
        for reply in (sign(house, "socket", SERVICE) for _ in range(40))
        if reply.status != 201
    ]
    assert refused
    for reply in refused:
        assert (reply.status, "certificate" in reply.json) == (503, False)
        assert "issued.log cannot be written" in reply.json["detail"]
    ballast.unlink()
    assert sign(house, "socket", SERVICE).status == 201
    assert ca.stop() == 0


def skewed(by: str) -> dict[str, str]:
    """The environment of a command that lives in another hour. Its timers are left alone."""
    # faketime itself would stand between us and the process: it passes no signals on.
    shown = subprocess.run(
        [require_tool("faketime"), "-f", by, "env"], capture_output=True, text=True, check=True
    )
    preload = re.search(r"^LD_PRELOAD=(.*)$", shown.stdout, re.MULTILINE)
    assert preload is not None
    return {"LD_PRELOAD": preload[1], "FAKETIME": by, "FAKETIME_DONT_FAKE_MONOTONIC": "1"}


def client_elsewhen(house: House, by: str) -> subprocess.CompletedProcess[str]:
    environment = [f"{name}={value}" for name, value in skewed(by).items()]
    return house.run("env", *environment, BIN / "mesh-client", "--server", house.server_url)


def twistd_elsewhen(house: House, by: str, *arguments: str) -> Running:
    environment = {**house.env, **skewed(by)}
    running = Running.start(BIN / "twistd", "-n", *arguments, cwd=house.home, env=environment)
    house.processes.append(running)
    return running


def test_a_client_an_hour_behind_is_told_to_compare_clocks(shared: House) -> None:
    done = client_elsewhen(shared, AN_HOUR_BEHIND)
    assert_refused(done, "not-yet-valid: the certificate is valid from ")
    assert "compare the two machines' clocks" in done.stderr
    assert shared.client().returncode == 0


def test_a_client_half_a_day_ahead_is_told_to_compare_clocks(shared: House) -> None:
    done = client_elsewhen(shared, "+12h")
    assert_refused(done, "expired: the certificate expired at ")
    assert "compare the two machines' clocks" in done.stderr


@pytest.mark.parametrize(("by", "code"), [(AN_HOUR_BEHIND, "not-yet-valid"), ("+2h", "expired")])
def test_a_server_with_another_clock_serves_nobody_and_says_why(
    by: str, code: str, shared: House
) -> None:
    server = twistd_elsewhen(shared, by, "mesh-server", "--listen", "127.0.0.1:0")
    server.wait_for(
        rf"No certificate from the CA at .*: {code}: .*compare the two machines' clocks.*trying again in"
    )
    assert "Ready" not in server.text
    assert server.stop() == 0


def test_no_root_is_made_by_a_clock_that_cannot_be_right(house: House) -> None:
    began = ("mesh-ca", "--port", "0", "--root-key", "ec-p256")
    ca = twistd_elsewhen(house, "-20000d", *began)
    assert ca.wait() == 1
    assert re.search(
        r"mesh-ca: here it is 19\d\d-.*, and this program came out on 20\d\d-\d\d-\d\d: no root is made",
        ca.text,
    )
    assert "set this machine's clock" in ca.text
    assert not house.root.exists()
    assert house.start_ca().stop() == 0


def test_a_ca_behind_its_own_record_is_not_ready_and_heals_with_its_clock(
    house: House, tmp_path: Path
) -> None:
    began = ("mesh-ca", "--port", "0", "--root-key", "ec-p256", "--cert-duration", "5m")
    first = house.start_ca("--cert-duration", "5m")
    assert first.stop() == 0
    ahead = twistd_elsewhen(house, "+2d", *began)
    ahead.wait_for(r"Ready to issue certificates\.")
    assert ahead.stop() == 0
    # The clock comes right while it runs: faketime reads the file anew each time.
    hand = tmp_path / "hand"
    hand.write_text("+0d")
    environment = {**house.env, **skewed("+0d"), "FAKETIME_NO_CACHE": "1"}
    del environment["FAKETIME"]
    environment["FAKETIME_TIMESTAMP_FILE"] = str(hand)
    ca = Running.start(BIN / "twistd", "-n", *began, cwd=house.home, env=environment)
    house.processes.append(ca)
    ca.wait_for(
        r"This machine's clock is (1 days 23h|2 days).* behind the record: .*set this machine's clock right"
    )
    ca.wait_for(
        "No certificate from the CA at itself: clock-behind: the CA's clock is behind its own"
    )
    until(lambda: house.curl("http://a/livez", "--unix-socket", house.socket).returncode == 0)
    assert house.ask("socket", "/readyz").status == 503
    reply = sign(house, "socket", SERVICE)
    assert (reply.status, reply.json["code"]) == (503, "clock-behind")
    assert "Ready to issue" not in ca.text
    hand.write_text("+2d")
    ca.wait_for(r"Ready to issue certificates\.")
    ca.wait_for("This machine's clock is not behind the record any more")
    assert sign(house, "socket", SERVICE).status == 201
    until(lambda: house.ask("socket", "/readyz").status == 200)  # an answer holds for a second
    assert ca.stop() == 0
    # Where the clock was ahead and is right now, somebody has to say so.
    assert house.start_ca("--clock-is-right").stop() == 0


def test_identities_of_a_ca_an_hour_ahead_are_not_yet_valid_here(house: House) -> None:
    ca = twistd_elsewhen(house, AN_HOUR_AHEAD, "mesh-ca", "--port", "0", "--root-key", "ec-p256")
    ca.wait_for(r"Ready to issue certificates\.")
    server = house.start_server(wait=False)
    server.wait_for(
        r"not-yet-valid: the certificate is valid from .*compare the two machines' clocks"
    )
    done = house.client("--server", "https://localhost:1")
    assert_refused(done, "compare the two machines' clocks")
    assert (server.stop(), ca.stop()) == (0, 0)
    # With the root of an hour to come, the CA does not start today.
    late = house.start_ca(wait=False)
    assert late.wait() == 1
    assert "check this machine's clock" in late.text
