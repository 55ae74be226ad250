"""An agent's end is one step: its entry, its certificates and all that it has obtained, or nothing."""

from pathlib import Path

import pytest

from pki.audit.log import Act
from pki.policy.entry import RegistrationEntry
from pki.spiffe import SpiffeId
from pki.svid.revocation_set import Reason
from tests.twisted_mesh.stores.certificates import HOUR, NOW, entry, intent, issued, record
from tests.twisted_mesh.stores.registrations import create_entry, create_token, opened, token_of
from tests.twisted_mesh.support import ThreadCalls
from twisted_mesh.stores.commands import EndAgent, Prune
from twisted_mesh.stores.records import (
    Conflict,
    EntryGone,
    Query,
    Revoked,
    StoredEntry,
    TokenDead,
)
from twisted_mesh.stores.sql import SqlStore

AGENT = SpiffeId.parse("spiffe://mesh.local/mesh/agent/node-1")
OTHER = SpiffeId.parse("spiffe://mesh.local/mesh/agent/node-12")
OWN = StoredEntry(RegistrationEntry.of_agent("own", AGENT), NOW)
BAN = StoredEntry(RegistrationEntry.of_agent("ban", AGENT, is_ban=True), NOW)
TOKEN = token_of(1, "own")


def by(agent: SpiffeId) -> str:
    return f"x509:{agent} serial 2a"


def end(*, ban: bool = False) -> EndAgent:
    made = (BAN, entry(Act.ADMINISTER, 8)) if ban else None
    deletion = ("own", entry(Act.ADMINISTER, 7))
    template = entry(Act.REVOKE)
    return EndAgent(AGENT, NOW, Reason.CESSATION_OF_OPERATION, (deletion,), template, made)


@pytest.fixture
def known(store: SqlStore, calls: ThreadCalls) -> SqlStore:
    """With an agent, what it has obtained, and what others have."""
    for command in (create_token(TOKEN, OWN), create_entry("web", "unix:uid:7")):
        calls.result(store.apply(command))
    record(
        store,
        calls,
        issued(1, spiffe_id=AGENT, der=b"x"),
        issued(2, requester=by(AGENT), der=b"x"),
        issued(3, requester=by(AGENT)),  # still to be signed
        issued(4, requester=by(OTHER), der=b"x"),
        issued(5, spiffe_id=OTHER, der=b"x"),
        issued(6, requester=by(AGENT), der=b"x", expires_at=NOW - HOUR, issued_at=NOW - 2 * HOUR),
        issued(7, requester=f"x509:{AGENT}", der=b"x"),
    )
    return store


@pytest.mark.parametrize("ban", [False, True], ids=["evict", "ban"])
def test_all_that_it_has_goes_at_once(known: SqlStore, calls: ThreadCalls, ban: bool) -> None:
    position = calls.result(known.feed(0)).position
    revoked = calls.result(known.apply(end(ban=ban)))
    assert [found.serial for found in revoked] == [1, 2, 3]
    assert {found.reason for found in revoked} == {Reason.CESSATION_OF_OPERATION}
    told = calls.result(known.feed(position)).revocations
    assert {one.serial for one in told} == {1, 2, 3}
    left = {kept.entry.id for kept in calls.result(known.entries())}
    assert left == ({"web", "ban"} if ban else {"web"})
    assert calls.result(known.tokens()) == ()


def test_each_revocation_is_an_act_of_its_own(known: SqlStore, calls: ThreadCalls) -> None:
    before, _ = calls.result(known.last_act())
    calls.result(known.apply(end(ban=True)))
    after, _ = calls.result(known.last_act())
    assert after - before == 1 + 1 + 3  # the entry that goes, the ban that comes, the certificates


def test_done_again_it_changes_nothing_more(known: SqlStore, calls: ThreadCalls) -> None:
    calls.result(known.apply(end()))
    acts = calls.result(known.last_act())
    assert calls.result(known.apply(end())) == ()
    assert calls.result(known.last_act()) == acts


def test_what_fails_keeps_nothing(known: SqlStore, calls: ThreadCalls) -> None:
    calls.result(known.apply(end(ban=True)))
    calls.result(known.apply(create_token(token_of(2, "own"), OWN)))
    record(known, calls, issued(11, spiffe_id=AGENT, der=b"x"))
    with pytest.raises(Conflict):
        calls.result(known.apply(end(ban=True)))  # the ban's id is taken
    assert calls.result(known.find(11)).revoked_at is None
    assert "own" in {kept.entry.id for kept in calls.result(known.entries())}


def test_nothing_is_recorded_for_it_any_more(known: SqlStore, calls: ThreadCalls) -> None:
    calls.result(known.apply(end()))
    with pytest.raises(Revoked):
        calls.result(known.apply(intent(12, renews=1, requester=by(AGENT), requires="web")))
    with pytest.raises(EntryGone):
        calls.result(known.apply(intent(13, spiffe_id=AGENT, requires="own")))
    with pytest.raises((TokenDead, EntryGone)):
        calls.result(known.apply(intent(14, spiffe_id=AGENT, token=TOKEN.digest, requires="own")))


def test_what_it_has_obtained_is_found(known: SqlStore, calls: ThreadCalls) -> None:
    found = calls.result(known.list(Query(NOW, agent=AGENT))).certificates
    assert [one.serial for one in found] == [6, 3, 2, 1]


def test_a_ban_is_not_pruned(known: SqlStore, calls: ThreadCalls) -> None:
    calls.result(known.apply(end(ban=True)))
    later = NOW + 1000 * HOUR
    calls.result(known.apply(Prune(later, later)))
    assert "ban" in {kept.entry.id for kept in calls.result(known.entries())}


def test_it_is_the_same_after_a_restart(tmp_path: Path, calls: ThreadCalls) -> None:
    with opened(tmp_path / "mesh.db", calls) as store:
        calls.result(store.apply(create_token(TOKEN, OWN)))
        told = [store.apply(intent(n, requester=by(AGENT))) for n in range(1, 1502)]
        told.append(store.apply(end(ban=True)))
        *_, revoked = map(calls.result, told)
        assert len(revoked) == 1501  # more than one statement revokes
    with opened(tmp_path / "mesh.db", calls) as store:
        assert [kept.entry for kept in calls.result(store.entries())] == [BAN.entry]
        assert len(calls.result(store.feed(0)).revocations) == 1501
