"""The root is replaced while everybody is at work, and no request fails."""

from pathlib import Path

import pytest

from tests.bench.root_rotation import WHOLE, Rotated, Scale, rotate

SHORT = Scale(
    requests=1_000,
    seconds=7.0,
    life=4,
    servers=1,
    crowd=3,
    clients=4,
    after=1.0,
    envoy=False,
    peer=False,
)
#: Minutes, with a federated trust domain, and with the Envoy where its program is.
LONG = Scale(requests=10_000, seconds=60.0, life=20, servers=3, crowd=7, clients=8)


def check(came: Rotated, scale: Scale) -> None:
    assert came.failures.total() == 0, came.failures
    assert came.requests >= scale.requests * 0.99
    assert [step.name for step in came.steps] == ["prepare", "activate", "retire"]
    # Nobody polls but the federated trust domain.
    forced = () if scale.peer else ("root-too-soon",)
    assert [step.passed_over for step in came.steps] == [(), forced, ()]
    assert all((step.heard is not None) == scale.peer for step in came.steps)
    assert came.still_asked >= scale.after
    assert not [line for line in came.complaints if "Traceback" in line], came.complaints


@pytest.mark.slow
def test_no_request_fails_while_the_root_is_replaced(tmp_path: Path) -> None:
    check(rotate(tmp_path, SHORT), SHORT)


@pytest.mark.soak
@pytest.mark.endurance
def test_no_request_of_ten_thousand_fails_while_the_root_is_replaced(tmp_path: Path) -> None:
    check(rotate(tmp_path, LONG), LONG)


@pytest.mark.soak
@pytest.mark.endurance
def test_no_request_of_a_hundred_thousand_fails_while_the_root_is_replaced(tmp_path: Path) -> None:
    check(rotate(tmp_path, WHOLE), WHOLE)
