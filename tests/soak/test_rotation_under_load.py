"""A server whose certificate rotates every second loses no request and holds on to nothing."""

from pathlib import Path

import pytest

from tests.bench.rotation import Endured, endure


def check(came: Endured, requests: int, rotations: int, growth_kib: int) -> None:
    assert came.failures.total() == 0, came.failures
    assert came.requests == requests
    assert came.handshakes >= requests // 10
    assert came.rotations >= rotations
    assert came.complaints == ()
    if came.start.descriptors is not None and came.end.descriptors is not None:
        assert came.end.descriptors <= came.start.descriptors
    if came.start.resident_kib is not None and came.end.resident_kib is not None:
        assert came.end.resident_kib - came.start.resident_kib < growth_kib


@pytest.mark.slow
@pytest.mark.parametrize(
    ("requests", "seconds", "ttl", "rotations"),
    [(400, 4.0, "6s", 1), pytest.param(1_600, 6.0, "2s", 3, marks=pytest.mark.interop)],
)
def test_a_rotating_server_fails_no_request(
    requests: int, seconds: float, ttl: str, rotations: int, tmp_path: Path
) -> None:
    came = endure(tmp_path, requests=requests, seconds=seconds, seed=20261123, ttl=ttl)
    check(came, requests=requests, rotations=rotations, growth_kib=16 * 1024)


@pytest.mark.soak
@pytest.mark.endurance
def test_ten_thousand_requests_under_rotation_leave_nothing_behind(tmp_path: Path) -> None:
    came = endure(tmp_path, requests=10_000, seconds=20.0, seed=20261124)
    check(came, requests=10_000, rotations=12, growth_kib=16 * 1024)
