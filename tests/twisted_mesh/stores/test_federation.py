"""What every store does with the trust domains that are federated with."""

import sqlite3
from pathlib import Path

import pytest

from pki.audit.log import Act, Entry
from tests.twisted_mesh.stores.certificates import LATER, NOW, acts, entry, outcome, tell
from tests.twisted_mesh.stores.registrations import (
    end_federation,
    federate,
    federated,
    keep_bundle,
    opened,
)
from tests.twisted_mesh.support import ThreadCalls
from twisted_mesh.stores.commands import Command, RecordAct
from twisted_mesh.stores.records import Conflict, StoreError, Unknown
from twisted_mesh.stores.sql import SqlStore

B, C = "b.example", "c.example"


def test_federations_are_kept_whole_and_told_by_name(store: SqlStore, calls: ThreadCalls) -> None:
    assert calls.result(store.federations()) == ()
    whole = {"bundle": b"{}", "sequence": 2**62, "fetched_at": LATER, "relationship": b"x"}
    assert tell(store, calls, federate(C), federate(B, **whole)) == [None, None]
    assert calls.result(store.federations()) == (federated(B, **whole), federated(C))


def test_a_trust_domain_is_federated_with_once(
    store: SqlStore, calls: ThreadCalls, others: list[Command]
) -> None:
    calls.result(store.apply(federate(B)))
    error = outcome(store, calls, federate(B, relationship=b"other"), others)
    assert isinstance(error, Conflict)
    assert "b.example is federated with already" in str(error)
    assert calls.result(store.federations()) == (federated(B),)


def test_a_bundle_is_kept_with_its_sequence_and_time(store: SqlStore, calls: ThreadCalls) -> None:
    tell(store, calls, federate(B), keep_bundle(B, 4), keep_bundle(B, 4, fetched_at=LATER))
    kept = federated(B, bundle=b"4", sequence=4, fetched_at=LATER)
    assert calls.result(store.federations()) == (kept,)


def test_a_sequence_goes_back_only_where_somebody_says_so(
    store: SqlStore, calls: ThreadCalls, others: list[Command]
) -> None:
    tell(store, calls, federate(B), keep_bundle(B, 4))
    error = outcome(store, calls, keep_bundle(B, 3), others)
    assert isinstance(error, Conflict)
    assert "--accept-older" in str(error)
    assert calls.result(store.federations())[0].sequence == 4
    assert calls.outcome(store.apply(keep_bundle(B, 3, accepts_older=True))) is None
    assert calls.result(store.federations())[0].sequence == 3


def test_what_is_ended_is_gone_and_can_begin_anew(store: SqlStore, calls: ThreadCalls) -> None:
    tell(store, calls, federate(B), federate(C), end_federation(B))
    assert calls.result(store.federations()) == (federated(C),)
    for told in (end_federation(B), keep_bundle(B, 1)):
        error = calls.outcome(store.apply(told))
        assert isinstance(error, Unknown)
        assert "b.example is not federated with" in str(error)
    assert tell(store, calls, federate(B)) == [None]


def test_each_act_is_in_the_log_and_a_bundle_that_only_stands_is_not(
    store: SqlStore, calls: ThreadCalls
) -> None:
    told = entry(Act.ADMINISTER, 7)
    tell(store, calls, federate(B), keep_bundle(B, 1, act=told), keep_bundle(B, 1))
    tell(store, calls, keep_bundle(B, 0, act=told), end_federation(B), end_federation(C))
    assert [name for _, name in acts(store, calls)] == ["6", "7", "8"]


@pytest.mark.parametrize(
    "spoilt",
    [
        "relationship = 'text'",
        "bundle = 7",
        "trust_domain = 'NOT A DOMAIN'",
        "created_at = 'soon'",
        "fetched_at = 'soon'",
    ],
)
def test_a_row_that_another_hand_has_changed_is_named(
    tmp_path: Path, calls: ThreadCalls, spoilt: str
) -> None:
    with opened(tmp_path / "mesh.db", calls) as store:
        tell(store, calls, federate(B))
        with sqlite3.connect(tmp_path / "mesh.db") as other:
            other.execute(f"UPDATE federation SET {spoilt}")
        error = calls.outcome(store.federations())
        assert type(error) is StoreError
        assert "mesh-ctl federation remove" in str(error)
        assert calls.result(store.entries()) == ()


def test_it_is_there_again_after_a_restart(tmp_path: Path, calls: ThreadCalls) -> None:
    with opened(tmp_path / "mesh.db", calls) as store:
        tell(store, calls, federate(B), keep_bundle(B, 9))
    with opened(tmp_path / "mesh.db", calls) as store:
        (kept,) = calls.result(store.federations())
    assert (kept.bundle, kept.sequence, kept.fetched_at) == (b"9", 9, NOW)


def test_the_acts_about_them_and_restores_are_read_in_their_order(
    store: SqlStore, calls: ThreadCalls
) -> None:
    told = [
        Entry(NOW, act, "self", target, {"reason": quoted})
        for act, target, quoted in (
            (Act.ADMINISTER, "federation b.example", "why"),
            (Act.ADMINISTER, "entry 1", ',"object":"federation b.example"'),
            (Act.RESTORE, "mesh.local", ""),
            (Act.START, "mesh.local", '{"act":"restore"'),
            (Act.ADMINISTER, "federation c.example", ""),
        )
    ]
    for one in told:
        calls.result(store.apply(RecordAct(one)))
    assert calls.result(store.federation_acts()) == tuple(told[n].to_bytes() for n in (0, 2, 4))
