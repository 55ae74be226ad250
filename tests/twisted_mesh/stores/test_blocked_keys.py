"""What every store does with keys that nothing is certified for."""

import sqlite3
from pathlib import Path

import pytest
from attrs import evolve

from pki.audit.log import Act
from pki.keys import key_id, number_digest
from pki.svid.revocation_set import Reason
from tests.authorities import der, forge_root
from tests.twisted_mesh.stores.certificates import (
    KEY,
    LATER,
    NOW,
    OTHER_KEY,
    acts,
    intent,
    issue,
    issued,
    outcome,
    record,
    revoke,
    revoke_all,
    signed,
    tell,
)
from tests.twisted_mesh.stores.registrations import block_key, opened, unblock_key
from tests.twisted_mesh.support import ThreadCalls
from twisted_mesh.stores.commands import Command
from twisted_mesh.stores.records import BlockedKey, Conflict, KeyBlocked, StoreError, Unknown
from twisted_mesh.stores.sql import SqlStore

COMPROMISED = Reason.KEY_COMPROMISE


def blocked(store: SqlStore, calls: ThreadCalls) -> tuple[BlockedKey, ...]:
    return calls.result(store.blocked_keys())


def test_a_key_is_blocked_once_and_let_go(
    store: SqlStore, calls: ThreadCalls, others: list[Command]
) -> None:
    assert blocked(store, calls) == ()
    whole = BlockedKey(OTHER_KEY, NOW, "ab" * 15, None, "found on a wall")
    first = block_key(OTHER_KEY, number="ab" * 15, reason="found on a wall")
    assert outcome(store, calls, first, others) == whole
    before = len(acts(store, calls))
    assert tell(store, calls, block_key(OTHER_KEY, blocked_at=LATER)) == [whole]
    assert len(acts(store, calls)) == before, "nothing was done"
    assert blocked(store, calls) == (whole,)
    assert tell(store, calls, unblock_key(OTHER_KEY)) == [None]
    assert blocked(store, calls) == ()
    assert isinstance(calls.outcome(store.apply(unblock_key(OTHER_KEY))), Unknown)


@pytest.mark.parametrize("command", [intent(9), issue(9)], ids=["intent", "issue"])
def test_nothing_is_recorded_for_a_key_that_is_blocked(
    store: SqlStore, calls: ThreadCalls, others: list[Command], command: Command
) -> None:
    tell(store, calls, block_key(KEY))
    known = len(acts(store, calls))
    error = calls.outcome(store.apply(command))
    assert isinstance(error, KeyBlocked)
    assert error.code == "blocked-key"
    assert (calls.result(store.find(9)), len(acts(store, calls))) == (None, known)
    tell(store, calls, intent(10, key=OTHER_KEY), unblock_key(KEY))
    assert calls.outcome(store.apply(command)) in {None, 2}


def test_one_blocked_key_among_many_stops_no_other(store: SqlStore, calls: ThreadCalls) -> None:
    tell(store, calls, block_key(KEY))
    told = tell(store, calls, intent(1, key=OTHER_KEY), intent(2), intent(3, key=OTHER_KEY))
    assert [type(each) for each in told] == [int, KeyBlocked, int]


@pytest.mark.parametrize("reason", list(Reason))
@pytest.mark.parametrize("many", [False, True], ids=["one", "many"])
def test_only_what_is_revoked_as_compromised_blocks_its_key(
    store: SqlStore, calls: ThreadCalls, reason: Reason, many: bool
) -> None:
    record(store, calls, signed(1), signed(2, key=OTHER_KEY))
    commands = (
        [revoke_all(1, 2, reason=reason, at=LATER)]
        if many
        else [revoke(serial, reason=reason, at=LATER) for serial in (1, 2)]
    )
    tell(store, calls, *commands)
    expected = {(KEY, 1, LATER), (OTHER_KEY, 2, LATER)} if reason is COMPROMISED else set()
    assert {(b.spki, b.serial, b.blocked_at) for b in blocked(store, calls)} == expected


def test_a_key_that_was_compromised_is_so_for_good(store: SqlStore, calls: ThreadCalls) -> None:
    record(store, calls, signed(1), signed(2))
    tell(store, calls, block_key(KEY, reason="a rumour"), revoke(2, reason=COMPROMISED))
    error = calls.outcome(store.apply(unblock_key(KEY)))
    assert isinstance(error, Conflict)
    assert "that is for good" in str(error)
    assert blocked(store, calls) == (BlockedKey(KEY, NOW, None, 2, "a rumour"),)
    tell(store, calls, revoke(1, reason=COMPROMISED))
    assert blocked(store, calls)[0].serial == 2


def test_what_was_revoked_before_blocks_nothing_when_it_is_revoked_again(
    store: SqlStore, calls: ThreadCalls
) -> None:
    record(store, calls, signed(1))
    tell(store, calls, revoke(1), revoke(1, reason=COMPROMISED))
    assert blocked(store, calls) == ()


def test_the_key_itself_is_seen_in_the_certificate(store: SqlStore, calls: ThreadCalls) -> None:
    cert = forge_root(7).certificate
    digest = number_digest(cert.public_key())
    body = evolve(signed(1, key=key_id(cert.public_key())), der=der(cert))
    record(store, calls, body, issued(2))
    tell(store, calls, revoke_all(1, 2, reason=COMPROMISED))
    numbers = {found.serial: found.number for found in blocked(store, calls)}
    assert digest is not None
    assert numbers == {1: digest.hex(), 2: None}


@pytest.mark.parametrize("spoilt", ["spki = 'x'", "blocked_at = 'never'", "serial = 'zz'"])
def test_one_that_cannot_be_read_is_told(tmp_path: Path, calls: ThreadCalls, spoilt: str) -> None:
    path = tmp_path / "mesh.db"
    with opened(path, calls) as store:
        tell(store, calls, block_key(KEY))
        with sqlite3.connect(path) as other:
            other.execute(f"UPDATE blocked_keys SET {spoilt}")
        other.close()
        error = calls.outcome(store.blocked_keys())
        assert isinstance(error, StoreError)
        assert "restore the last backup" in str(error)


def test_an_act_goes_with_each(store: SqlStore, calls: ThreadCalls) -> None:
    tell(store, calls, block_key(KEY), unblock_key(KEY))
    assert acts(store, calls) == [(Act.ADMINISTER, "a"), (Act.ADMINISTER, "b")]
