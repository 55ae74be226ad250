"""A restore un-deletes no entry, un-spends and un-revokes no token, and drops tokens of which it is not certain."""

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from pki.audit.log import Act, Checkpoint
from pki.policy.entry import RegistrationEntry
from pki.spiffe import SpiffeId
from pki.svid.revocation_set import Reason
from tests.authorities import NOW
from tests.twisted_mesh.backup.states import ca_state, entries, tell, tokens
from tests.twisted_mesh.stores.certificates import (
    KEY,
    LATER,
    OTHER_KEY,
    der,
    entry,
    intent,
    release_claim,
    revoke,
    write_off,
)
from tests.twisted_mesh.stores.registrations import (
    block_key,
    create_entry,
    create_token,
    delete_entry,
    end_federation,
    entry_of,
    federate,
    keep_bundle,
    opened,
    revoke_token,
    settle_default,
    stored,
    token_of,
    unblock_key,
)
from tests.twisted_mesh.support import ThreadCalls
from twisted_mesh.backup import creation, restoration
from twisted_mesh.backup.archive import Archive
from twisted_mesh.backup.loss import Loss
from twisted_mesh.backup.restoration import Restoration
from twisted_mesh.state.directory import StateDirectory
from twisted_mesh.stores.commands import (
    Claim,
    CreateEntry,
    Prune,
    RecordCertificate,
    RecordIntent,
    RecordIssue,
)
from twisted_mesh.stores.records import IssuedToken, TokenStatus

LIVE, SPENT, REVOKED = TokenStatus.LIVE, TokenStatus.SPENT, TokenStatus.REVOKED
A, B, C = (token_of(number, name) for number, name in enumerate("abc"))


def buy(token: IssuedToken, serial: int) -> RecordIntent:
    return intent(serial, token=token.digest, requires=token.entry, entry=token.entry)


@pytest.fixture
def state(tmp_path: Path) -> StateDirectory:
    """A CA with three tokens and an entry that somebody made."""
    state = ca_state(tmp_path / "state")
    tell(state, *(create_token(token, stored(token.entry)) for token in (A, B, C)))
    tell(state, create_entry("web", "unix:uid:1000"))
    return state


@pytest.fixture
def saved(state: StateDirectory, tmp_path: Path) -> Path:
    return save(state, tmp_path / "ca.tar")


def save(state: StateDirectory, path: Path) -> Path:
    creation.create(state, path, NOW)
    return path


def restored(state: StateDirectory, saved: Path) -> Loss:
    with closing(Archive.open(saved)) as archive:
        restoration = Restoration(state, archive, NOW, accept_unsigned=True)
        loss = restoration.prepare([])
        restoration.perform("unix:uid:0")
    return loss


def test_a_backup_of_the_present_keeps_all(state: StateDirectory, saved: Path) -> None:
    assert restored(state, saved).is_up_to_date
    assert tokens(state) == {"a": LIVE, "b": LIVE, "c": LIVE}
    assert entries(state) == {"a", "b", "c", "web"}


def test_what_was_spent_revoked_or_deleted_stays_so(state: StateDirectory, saved: Path) -> None:
    tell(state, buy(A, 1), revoke_token(B), delete_entry("web"))
    assert not restored(state, saved).is_none
    assert tokens(state) == {"a": SPENT, "b": REVOKED, "c": LIVE}
    assert entries(state) == {"a", "b", "c"}
    tell(state, buy(C, 2))


def test_what_was_spent_and_revoked_in_the_backup_stays_so(
    state: StateDirectory, tmp_path: Path
) -> None:
    tell(state, buy(A, 1), buy(B, 2), revoke_token(B), revoke_token(C))
    saved = save(state, tmp_path / "ca.tar")
    # Written off: in the record that is here the token has become live again.
    tell(state, write_off(1))
    assert tokens(state)["a"] is LIVE
    restored(state, saved)
    assert tokens(state) == {"a": SPENT, "b": REVOKED, "c": REVOKED}


def test_the_tokens_of_a_deleted_entry_go_with_it(state: StateDirectory, saved: Path) -> None:
    tell(state, delete_entry("a"))
    restored(state, saved)
    assert tokens(state) == {"b": LIVE, "c": LIVE}
    assert entries(state) == {"b", "c", "web"}


def test_an_entry_that_was_made_anew_does_not_become_what_it_was(
    state: StateDirectory, saved: Path
) -> None:
    tell(state, delete_entry("web"), create_entry("web", "unix:uid:7"))
    restored(state, saved)
    assert "web" not in entries(state)


def test_an_agent_that_is_banned_stays_banned(state: StateDirectory, saved: Path) -> None:
    agent = SpiffeId.parse("spiffe://mesh.local/mesh/agent/node-1")
    ban = RegistrationEntry.of_agent("ban", agent, is_ban=True)
    tell(state, CreateEntry(ban, NOW, entry(Act.ADMINISTER, 1)))
    restored(state, saved)
    assert entries(state) == {"a", "b", "c", "web", "ban"}


def test_a_ban_that_was_taken_back_does_not_come_again(
    state: StateDirectory, tmp_path: Path
) -> None:
    agent = SpiffeId.parse("spiffe://mesh.local/mesh/agent/node-1")
    ban = RegistrationEntry.of_agent("ban", agent, is_ban=True)
    tell(state, CreateEntry(ban, NOW, entry(Act.ADMINISTER, 1)))
    saved = save(state, tmp_path / "ca.tar")
    tell(state, delete_entry("ban"))
    restored(state, saved)
    assert "ban" not in entries(state)


def federations(state: StateDirectory) -> dict[str, int]:
    calls = ThreadCalls()
    with opened(state.ca / "mesh.db", calls) as store:
        return {str(f.trust_domain): f.sequence for f in calls.result(store.federations())}


def test_who_is_federated_with_is_so_after_a_restore_and_who_is_no_more_is_not(
    state: StateDirectory, tmp_path: Path
) -> None:
    tell(state, federate("b.example"), federate("c.example"), keep_bundle("b.example", 3))
    saved = save(state, tmp_path / "ca.tar")
    tell(state, end_federation("c.example"), federate("d.example"), keep_bundle("b.example", 7))
    restored(state, saved)
    # What was seen here of a bundle is not unseen by a restore.
    assert federations(state) == {"b.example": 7}


def test_who_was_removed_and_added_anew_does_not_come_back_as_before(
    state: StateDirectory, tmp_path: Path
) -> None:
    tell(state, federate("b.example"), keep_bundle("b.example", 3))
    saved = save(state, tmp_path / "ca.tar")
    later = {"relationship": b"other", "created_at": LATER}
    tell(state, end_federation("b.example"), federate("b.example", **later))
    restored(state, saved)
    assert federations(state) == {}


def test_what_was_pruned_stays_forgotten(state: StateDirectory, saved: Path) -> None:
    tell(state, Prune(A.expires_at.replace(year=2027), A.created_at.replace(year=2020)))
    assert entries(state) == {"web"}
    tell(state, create_entry("later", "unix:uid:1"))
    restored(state, saved)
    assert tokens(state) == {}
    assert entries(state) == {"web"}


def test_a_token_whose_intent_was_under_way_is_not_given_back_after_a_restore(
    state: StateDirectory, tmp_path: Path
) -> None:
    tell(state, buy(A, 1))
    saved = save(state, tmp_path / "ca.tar")
    tell(state, RecordCertificate(1, der(1)))
    tell(state, create_entry("later", "unix:uid:1"))
    restored(state, saved)
    # What the CA does at its start.
    tell(state, write_off(1))
    assert tokens(state)["a"] is SPENT


def used(state: StateDirectory) -> dict[str, tuple[int, str]]:
    calls = ThreadCalls()
    with opened(state.ca / "mesh.db", calls) as store:
        return {one.claim: (one.serial, one.key) for one in calls.result(store.claims())}


def test_no_claim_is_free_by_a_restore(state: StateDirectory, tmp_path: Path) -> None:
    first, second, third = (Claim(name) for name in ("i-1", "i-2", "i-3"))
    tell(state, RecordIssue(intent(1, claim=first), der(1)), intent(2, claim=second))
    saved = save(state, tmp_path / "ca.tar")
    # Meanwhile one was let go and used anew, another came, and what was under way has ended.
    tell(
        state,
        release_claim("i-1"),
        RecordIssue(intent(3, claim=first, key=OTHER_KEY), der(3)),
        RecordIssue(intent(4, claim=third), der(4)),
        RecordCertificate(2, der(2)),
    )
    restored(state, saved)
    tell(state, write_off(2))  # what the CA does at its start
    assert used(state) == {"i-1": (3, OTHER_KEY), "i-2": (0, KEY), "i-3": (4, KEY)}


def test_what_was_blocked_since_stays_so_and_what_was_let_go_is_blocked_again(
    state: StateDirectory, tmp_path: Path
) -> None:
    tell(state, block_key("aa" * 32), block_key("bb" * 32), RecordIssue(intent(1), der(1)))
    saved = save(state, tmp_path / "ca.tar")
    tell(state, unblock_key("aa" * 32), block_key("cc" * 32))
    tell(state, revoke(1, reason=Reason.KEY_COMPROMISE))
    restored(state, saved)
    with closing(sqlite3.connect(state.ca / "mesh.db")) as record:
        rows = record.execute("SELECT spki, serial IS NOT NULL FROM blocked_keys").fetchall()
    digests = {digit * 32: False for digit in ("aa", "bb", "cc")}
    assert {spki: bool(is_for_good) for spki, is_for_good in rows} == digests | {KEY: True}


def test_a_key_that_was_compromised_since_is_so_for_good(
    state: StateDirectory, tmp_path: Path
) -> None:
    tell(state, block_key(KEY))
    saved = save(state, tmp_path / "ca.tar")
    tell(state, unblock_key(KEY), RecordIssue(intent(1), der(1)))
    tell(state, revoke(1, reason=Reason.KEY_COMPROMISE))
    restored(state, saved)
    with closing(sqlite3.connect(state.ca / "mesh.db")) as record:
        ((serial,),) = record.execute("SELECT serial FROM blocked_keys").fetchall()
    assert int(serial, 16) == 1


def lose(state: StateDirectory) -> None:
    (state.ca / "mesh.db").unlink()


def damage(state: StateDirectory) -> None:
    (state.ca / "mesh.db").write_bytes(b"none")


def begin_anew(state: StateDirectory) -> None:
    """Its record vanished, and it was started without."""
    lose(state)
    elsewhere = ca_state(state.root.with_name("elsewhere"))
    shutil.copy(elsewhere.ca / "mesh.db", state.ca / "mesh.db")


@pytest.mark.parametrize("happen", [lose, damage, begin_anew])
def test_where_nobody_knows_what_happened_no_token_is_live(
    state: StateDirectory, tmp_path: Path, happen: Callable[[StateDirectory], None]
) -> None:
    tell(state, buy(B, 1), RecordCertificate(1, der(1)))
    saved = save(state, tmp_path / "ca.tar")
    happen(state)
    assert not restored(state, saved).is_up_to_date
    # What is spent can still be asked for again by whoever spent it.
    assert tokens(state) == {"b": SPENT}
    assert entries(state) == {"b", "web"}, "nobody can say that one was deleted"


def test_where_a_witness_has_seen_more_no_token_is_live(
    state: StateDirectory, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    later = Checkpoint("mesh.local", 1000, bytes(32), NOW)
    monkeypatch.setattr(restoration, "_largest", lambda *_: later)
    assert not restored(state, saved).is_up_to_date
    assert tokens(state) == {}


def test_a_record_that_is_older_than_the_backup_deletes_nothing(
    state: StateDirectory, tmp_path: Path
) -> None:
    shutil.copy(state.ca / "mesh.db", tmp_path / "older.db")
    tell(state, create_entry("later", "unix:uid:1"))
    saved = save(state, tmp_path / "ca.tar")
    shutil.copy(tmp_path / "older.db", state.ca / "mesh.db")
    restored(state, saved)
    assert entries(state) == {"web", "later"}
    assert tokens(state) == {}


def test_what_was_deleted_after_a_restore_stays_so_at_the_next(
    state: StateDirectory, saved: Path
) -> None:
    for name in ("first", "second"):
        tell(state, create_entry(name, "unix:uid:1"))
        restored(state, saved)
    tell(state, delete_entry("web"), buy(A, 1))
    loss = restored(state, saved)
    assert loss.lost is not None
    assert not loss.lost.is_same_log
    assert loss.lost.is_successor
    assert entries(state) == {"a", "b", "c"}
    assert tokens(state) == {"a": SPENT, "b": LIVE, "c": LIVE}


def test_what_another_branch_made_is_not_taken_for_deleted(
    state: StateDirectory, saved: Path, tmp_path: Path
) -> None:
    tell(state, create_entry("later", "unix:uid:1"))
    after = save(state, tmp_path / "after.tar")
    restored(state, saved)
    assert entries(state) == {"a", "b", "c", "web"}
    tell(state, create_entry("other", "unix:uid:2"), create_entry("another", "unix:uid:2"))
    loss = restored(state, after)
    assert loss.lost is not None
    assert not loss.lost.is_successor
    assert entries(state) == {"web", "later"}


@pytest.mark.parametrize("choice", ["made", "made and deleted", "declined"])
def test_the_default_entry_is_not_settled_again(
    state: StateDirectory, saved: Path, choice: str
) -> None:
    default = entry_of("default", "unix:uid:1000")
    tell(state, settle_default(None if choice == "declined" else default))
    if choice == "made and deleted":
        tell(state, delete_entry("default"))
    restored(state, saved)
    expected = {"default"} if choice == "made" else set()
    assert entries(state) - {"a", "b", "c", "web"} == expected
    tell(state, settle_default(default))
    assert entries(state) - {"a", "b", "c", "web"} == expected
