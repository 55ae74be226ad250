"""A CA whose only root ended while nobody looked: what it says, and how its operator gives it another."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from tests.earlier import LEFT, unpack
from tests.interop.test_earlier_state import Earlier

STATE = max(LEFT)


@pytest.fixture
def late(tmp_path: Path) -> Iterator[Earlier]:
    """An earlier state directory, ten years and more after it was left."""
    unpack(STATE, tmp_path)
    left = Earlier(tmp_path, LEFT[STATE] + timedelta(days=4000))
    try:
        yield left
    finally:
        left.stop()


@pytest.mark.interop(
    "tests/twisted_mesh/ca/rotation/test_root_steps.py::test_a_root_that_has_ended_can_be_replaced"
)
def test_a_ca_whose_root_has_ended_is_given_another(late: Earlier) -> None:
    ca = late.ca = late.start(
        "twistd", "-n", f"--pidfile={late.home / 'twistd.pid'}", "mesh-ca", "--port", "0"
    )
    ca.wait_for(r"WARNING: root-ends: the root has ended .*mesh-ctl ca root status")
    assert "the root has ended" in late.ctl("doctor", status=1)
    before = late.listed("ca", "root", "status")
    assert before["command"] == "mesh-ctl ca root prepare"
    late.ctl("ca", "root", "prepare", "--yes")
    late.ctl("ca", "root", "activate", "--force", "--yes")
    ca.wait_for(r"Ready to issue certificates\.")
    late.ctl("ca", "root", "retire", "--force", "--yes")
    after = late.listed("ca", "root", "status")
    assert after["phase"] == "settled"
    assert after["roots"][0]["fingerprint"] != before["roots"][0]["fingerprint"]
    assert after["former"][0]["fingerprint"] == before["roots"][0]["fingerprint"]
    made = late.listed("token", "create", "--spiffe-id", "spiffe://mesh.local/service/new")
    assert made["fingerprint"] == after["roots"][0]["fingerprint"]
    assert "the root has ended" not in late.ctl("doctor", status=1)
    assert ca.stop() == 0
