"""Callers of HTTP are sent off before their connection is cut."""

from datetime import timedelta

import pytest

from tests.authorities import HOUR, NOW
from twisted_mesh.trust.ending import leave_by

MINUTE = timedelta(minutes=1)


@pytest.mark.parametrize(
    ("life", "last"),
    [(HOUR, MINUTE), (5 * MINUTE, MINUTE / 2), (timedelta(seconds=4), timedelta(seconds=0.4))],
    ids=["an hour", "minutes", "seconds"],
)
def test_the_last_part_of_a_life_is_for_leaving(life: timedelta, last: timedelta) -> None:
    assert leave_by(NOW + life, NOW) == NOW + life - last


def test_who_begins_at_the_end_leaves_at_once() -> None:
    assert leave_by(NOW, NOW) == NOW
