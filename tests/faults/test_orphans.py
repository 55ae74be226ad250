"""An endpoint whose CA is dead: it serves on, says for how long, and carries on when the CA is back."""

import json
import re
import signal
import time
import urllib.request
from http import HTTPStatus
from urllib.error import HTTPError

import pytest

from tests.interop.house import House, hears
from tests.running import free_port


def asked(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}") as response:
            return response.status, response.read().decode()
    except HTTPError as error:
        with error:
            return error.code, error.read().decode()


def seconds_left(port: int) -> tuple[float, float]:
    """As /readyz and as /metrics tell it."""
    status, ready = asked(port, "/readyz")
    assert status == HTTPStatus.OK, ready
    _, metrics = asked(port, "/metrics")
    (gauge,) = re.findall(
        r"^mesh_certificate_expiry_timestamp_seconds (\S+)$", metrics, re.MULTILINE
    )
    return json.loads(ready)["seconds_to_expiry"], float(gauge) - time.time()


@pytest.mark.slow
def test_without_its_ca_a_server_serves_on_and_says_for_how_long(house: House) -> None:
    ca = house.start_ca()
    port = free_port()
    server = house.start_server("--ttl", "7s", "--status", str(port))
    house.identity("payment-worker")
    ca.stop(signal.SIGKILL)
    server.wait_for(r"Revocations cannot be refreshed from .*")
    told = server.wait_for(r"No certificate from the CA .* \(ours is good for (\d+)s? ?.*more\)")
    assert 0 < int(told[1]) <= 7
    house.assert_it_serves()
    by_ready, by_metrics = seconds_left(port)
    assert 0 <= by_ready <= 7
    assert abs(by_ready - by_metrics) < 2
    server.wait_for(r"ERROR: Our certificate has expired and could not be renewed")
    status, ready = asked(port, "/readyz")
    assert status == HTTPStatus.SERVICE_UNAVAILABLE
    assert json.loads(ready)["seconds_to_expiry"] <= 0
    with hears(server, r"answers again: the certificate is fresh"):
        house.start_ca()
    house.assert_it_serves()
    assert server.stop() == 0
