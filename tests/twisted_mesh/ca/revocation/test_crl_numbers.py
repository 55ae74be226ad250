"""The numbers of CRLs never go back, whatever becomes of record, file and clock."""

from datetime import timedelta
from pathlib import Path

import pytest
from twisted.logger import LogEvent

from tests.authorities import DAY, NOW
from tests.twisted_mesh.ca.publishing import milliseconds
from tests.twisted_mesh.ca.rigs import CaRig, ca_rig, result_of
from twisted_mesh.ca.revocation.crl_numbers import CrlNumbers
from twisted_mesh.stores.records import StoreError

WHO, OTHER = "aa" * 32, "bb" * 32
SECOND = timedelta(seconds=1)


def numbers(rig: CaRig, path: Path | None = None) -> CrlNumbers:
    made = CrlNumbers(rig.store, lambda: rig.time, path)
    made.recall()
    return made


def take(of: CrlNumbers, issuer: str = WHO) -> int:
    return result_of(of.take(issuer, None))  # type: ignore[no-any-return]


def test_they_begin_with_the_time_of_day_and_grow_one_by_one(rig: CaRig) -> None:
    begun = milliseconds(NOW)
    one = numbers(rig)
    assert [take(one), take(one), take(one, OTHER), take(one)] == [
        *(begun, begun + 1, begun, begun + 2),
    ]
    rig.time += SECOND
    assert take(one) == begun + 1000


@pytest.mark.parametrize("jump", [-400 * DAY, -SECOND, timedelta(), SECOND])
def test_they_grow_across_a_restart_wherever_the_clock_is(rig: CaRig, jump: timedelta) -> None:
    last = take(numbers(rig))
    rig.time += jump
    assert take(numbers(rig)) > last


def test_a_record_from_a_backup_does_not_take_them_back(rig: CaRig, tmp_path: Path) -> None:
    path = tmp_path / "crl-numbers"
    one = numbers(rig, path)
    last = max(take(one) for _ in range(5000))
    with ca_rig() as restored:
        restored.time = NOW
        assert take(numbers(restored, path)) == last + 1
        assert take(numbers(restored, path), OTHER) == milliseconds(NOW)


def test_a_lost_disk_does_not_take_them_back(rig: CaRig) -> None:
    one = numbers(rig)
    last = max(take(one) for _ in range(50))
    with ca_rig() as elsewhere:
        elsewhere.time = NOW + SECOND
        assert take(numbers(elsewhere)) > last


@pytest.mark.parametrize("damage", [b"", b"nonsense", b'{"a": "b"}', b"[1]", b"\xff"])
def test_a_file_that_is_damaged_is_told_and_does_no_harm(
    rig: CaRig, tmp_path: Path, damage: bytes, logged: list[LogEvent]
) -> None:
    path = tmp_path / "crl-numbers"
    last = take(numbers(rig, path))
    path.write_bytes(damage)
    assert take(numbers(rig, path)) > last
    assert [event["event"] for event in logged] == ["crl-numbers-unreadable"]


def test_a_file_that_cannot_be_written_does_no_harm(rig: CaRig, tmp_path: Path) -> None:
    one = numbers(rig, tmp_path / "gone" / "crl-numbers")
    assert take(one) < take(one)


def test_without_the_record_there_is_no_number(rig: CaRig) -> None:
    rig.store.broken = {"TakeCrlNumber"}
    with pytest.raises(StoreError):
        take(numbers(rig))
