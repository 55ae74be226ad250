"""The audit log keeps up with what is recorded, signs where it stands, and cannot be filled by strangers."""

import json
from typing import Any

import pytest
from twisted.internet.task import Clock

from pki.audit.log import Act, Checkpoint, LogKey
from pki.tlog.merkle import verify_consistency, verify_inclusion
from tests.twisted_mesh.ca.rigs import ADMIN, CaRig, result_of, settled
from twisted_mesh.ca.audit_log import SAMPLING, TICK, AuditLog
from twisted_mesh.stores.commands import ExtendLog, SaveCheckpoint
from twisted_mesh.stores.records import StoreError


def record(rig: CaRig, count: int = 1) -> None:
    for number in range(count):
        result_of(rig.log.record(Act.ADMINISTER, str(number), {}, ADMIN))


def entries(rig: CaRig) -> list[Any]:
    listed, _ = result_of(settled(rig.store.log_entries(0, 10_000)))
    return [json.loads(logged.entry) for logged in listed]


def extended(rig: CaRig) -> Checkpoint:
    signed = result_of(rig.log.extend())
    assert rig.log.key.verifier.open(signed.note) == signed.checkpoint
    checkpoint: Checkpoint = signed.checkpoint
    return checkpoint


def test_an_empty_log_is_not_signed(rig: CaRig) -> None:
    assert result_of(rig.log.extend()) is None


def test_a_checkpoint_covers_every_act_that_was_recorded_before_it(rig: CaRig) -> None:
    record(rig, 3)
    assert extended(rig).size == 3
    assert [entry["object"] for entry in entries(rig)] == ["0", "1", "2"]
    record(rig)
    assert extended(rig).size == 4


def test_each_entry_is_proved_to_be_in_the_tree(rig: CaRig) -> None:
    record(rig, 5)
    checkpoint = extended(rig)
    listed, _ = result_of(settled(rig.store.log_entries(0, 10)))
    for logged in listed:
        proof = result_of(settled(rig.store.inclusion_proof(logged.position, 5)))
        verify_inclusion(logged.leaf, logged.position, 5, proof, checkpoint.root)


def test_each_checkpoint_is_proved_to_extend_the_one_before(rig: CaRig) -> None:
    seen = []
    for count in (1, 2, 300):
        record(rig, count)
        seen.append(extended(rig))
    for older in seen:
        proof = result_of(rig.log.consistency(older.size))
        verify_consistency(older.size, seen[-1].size, older.root, seen[-1].root, proof)
    assert result_of(rig.log.consistency(0)) == ()
    assert result_of(rig.log.consistency(1000)) == ()


def test_nothing_is_signed_anew_where_nothing_happened(rig: CaRig) -> None:
    record(rig)
    first = result_of(rig.log.extend())
    assert result_of(rig.log.extend()) is first


def test_the_tree_is_extended_within_a_second_and_the_disk_left_alone_in_between(
    rig: CaRig,
) -> None:
    clock = Clock()
    record(rig)
    rig.log.start(clock)
    clock.advance(TICK)
    assert rig.log.latest is not None
    assert rig.log.latest.checkpoint.size == 1
    rig.order.clear()
    clock.pump([TICK] * 10)
    assert rig.order == []
    record(rig)
    clock.advance(TICK)
    assert rig.log.latest.checkpoint.size == 2
    rig.log.stop()


def test_a_log_that_cannot_be_extended_is_told_once_and_heals(rig: CaRig, logged: Any) -> None:
    clock = Clock()
    record(rig)
    rig.log.start(clock)
    rig.store.broken = {"ExtendLog"}
    clock.pump([TICK] * 5)
    assert isinstance(rig.log.last_problem, StoreError)
    assert [event["event"] for event in logged] == ["audit-behind"]
    rig.store.broken = set()
    clock.advance(TICK)
    assert rig.log.last_problem is None
    assert [event["event"] for event in logged] == ["audit-behind", "audit-recovered"]
    assert rig.log.latest is not None
    rig.log.stop()


def test_a_signature_that_was_cut_short_is_made_at_the_next_turn(rig: CaRig) -> None:
    record(rig)
    rig.store.broken = {"SaveCheckpoint"}
    with pytest.raises(StoreError):
        result_of(rig.log.extend())
    rig.store.broken = set()
    assert extended(rig).size == 1


def test_an_act_that_cannot_be_recorded_is_an_error_for_whoever_would_do_it(rig: CaRig) -> None:
    rig.store.broken = {"RecordAct"}
    with pytest.raises(StoreError):
        record(rig)


def test_a_thousand_refusals_are_one_entry_a_minute(rig: CaRig) -> None:
    clock = Clock()
    rig.log.start(clock)
    for number in range(1000):
        rig.log.refused("no-proof", f"unix:uid:{number}")
    clock.pump([TICK] * int(SAMPLING))
    (entry,) = entries(rig)
    assert entry["act"] == "refuse"
    assert sum(map(int, entry["facts"].values())) == 1000
    assert entry["facts"]["no-proof unix:uid:0"] == "1"
    assert len(entry["facts"]) <= 51
    clock.pump([TICK] * int(SAMPLING))
    assert len(entries(rig)) == 1
    rig.log.stop()


def test_refusals_that_could_not_be_told_are_told_later(rig: CaRig) -> None:
    rig.log.refused("no-proof", "unix:uid:1")
    rig.store.broken = {"RecordAct"}
    with pytest.raises(StoreError):
        result_of(rig.log.tell_refusals())
    rig.store.broken = set()
    rig.log.refused("no-proof", "unix:uid:1")
    result_of(rig.log.tell_refusals())
    result_of(rig.log.extend())
    (entry,) = entries(rig)
    assert entry["facts"] == {"no-proof unix:uid:1": "2"}


def test_a_long_backlog_is_taken_in_by_strides(rig: CaRig, monkeypatch: Any) -> None:
    monkeypatch.setattr("twisted_mesh.stores.log._STRIDE", 4)
    record(rig, 10)
    assert extended(rig).size == 10
    assert [type(command) for command in rig.store.told].count(ExtendLog) == 4


# The next life.


def next_life(rig: CaRig, key: LogKey | None = None) -> AuditLog:
    log = AuditLog(rig.store, key or rig.log.key, lambda: rig.time)
    result_of(log.recall())
    return log


def test_what_was_signed_is_known_in_the_next_life(rig: CaRig, logged: Any) -> None:
    record(rig, 3)
    signed = result_of(rig.log.extend())
    assert next_life(rig).latest == signed
    assert logged == []


def test_an_act_that_was_not_in_the_tree_yet_is_in_it_in_the_next_life(
    rig: CaRig, logged: Any
) -> None:
    record(rig, 3)
    extended(rig)
    record(rig)
    log = next_life(rig)
    assert result_of(log.extend()).checkpoint.size == 4
    assert logged == []


def test_another_key_in_the_next_life_is_told(rig: CaRig, logged: Any) -> None:
    record(rig)
    extended(rig)
    log = next_life(rig, LogKey.generate(rig.log.key.name))
    assert log.latest is None
    assert [event["code"] for event in logged] == ["bad-checkpoint"]


def test_a_log_that_was_put_back_is_told_in_the_next_life(rig: CaRig, logged: Any) -> None:
    record(rig)
    at = rig.time
    note = result_of(rig.log.key.sign(Checkpoint(rig.log.key.name, 5, b"x" * 32, at)))
    result_of(rig.log.extend())
    result_of(settled(rig.store.apply(SaveCheckpoint(5, at, note))))
    next_life(rig)
    assert [event["code"] for event in logged] == ["log-rolled-back"]


def test_what_was_signed_under_another_name_is_of_the_time_before_a_restore(
    rig: CaRig, logged: Any
) -> None:
    record(rig)
    extended(rig)
    renamed = LogKey("mesh.local/audit/restored", rig.log.key.private_key)
    log = AuditLog(rig.store, renamed, lambda: rig.time)
    result_of(log.recall(is_restored=True))
    assert log.latest is not None
    assert (log.latest.checkpoint.origin, log.latest.checkpoint.size) == (renamed.name, 1)
    assert logged == []


def test_another_name_without_a_restore_is_told(rig: CaRig, logged: Any) -> None:
    record(rig)
    extended(rig)
    next_life(rig, LogKey("mesh.local/audit/other", rig.log.key.private_key))
    assert [event["code"] for event in logged] == ["log-unvouched"]


def test_who_has_seen_a_larger_log_is_told_once(rig: CaRig, logged: Any) -> None:
    rig.log.was_seen(7, "early")
    record(rig, 3)
    extended(rig)
    for size in (2, 3, 5, 5, 4):
        rig.log.was_seen(size, "x509:spiffe://mesh.local/a")
    assert [(event["event"], event["seen"], event["size"]) for event in logged] == [
        ("log-seen-larger", 5, 3)
    ]
    assert rig.log.seen_elsewhere == 5
