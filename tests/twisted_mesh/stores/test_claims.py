"""A claim buys one certificate for one key, once, whatever happens; what it has bought ends with it."""

from pathlib import Path

import pytest
from attrs import evolve

from pki.audit.log import Act
from pki.policy.entry import RegistrationEntry
from pki.spiffe import SpiffeId
from pki.svid.revocation_set import Reason
from tests.twisted_mesh.stores.certificates import (
    DIGEST,
    HOUR,
    KEY,
    NOW,
    OTHER_KEY,
    WEB,
    acts,
    entry,
    intent,
    issue,
    issued,
    names,
    record,
    release_claim,
    revoke,
    tell,
    write_off,
)
from tests.twisted_mesh.stores.registrations import opened
from tests.twisted_mesh.support import ThreadCalls
from twisted_mesh.stores.commands import Admission, Claim, EndAgent, Prune, RecordIntent
from twisted_mesh.stores.records import (
    AlreadyAttested,
    Conflict,
    EntryGone,
    Query,
    Revoked,
    StoredEntry,
    Unknown,
)
from twisted_mesh.stores.sql import SqlStore

CLAIM = Claim("aws_iid:1234:eu-west-1:i-1")
AGENT = SpiffeId.parse("spiffe://mesh.local/mesh/agent/prod.i-1")
OWN = StoredEntry(RegistrationEntry.of_agent("own", AGENT), NOW)
AGAIN = StoredEntry(RegistrationEntry.of_agent("own", AGENT), NOW + HOUR)
MADE, GONE = entry(Act.ADMINISTER, 7), entry(Act.ADMINISTER, 8)
ADMISSION = Admission(OWN, MADE)


@pytest.mark.parametrize("wants", [intent, issue])
def test_of_two_keys_at_once_one_wins(store: SqlStore, calls: ThreadCalls, wants: object) -> None:
    told = tell(store, calls, wants(1, claim=CLAIM), wants(2, claim=CLAIM, key=OTHER_KEY))
    assert names(told)[1] == "AlreadyAttested"
    assert "mesh-ctl agent evict 'aws_iid:1234:eu-west-1:i-1'" in str(told[1])
    assert str(WEB).replace("web", "api") in str(told[1])
    used = calls.result(store.find_claim(CLAIM.text))
    assert (used.serial, used.key, used.at) == (1, KEY, NOW)
    assert calls.result(store.find(2)) is None
    assert calls.result(store.find(1)).claim == CLAIM.text


def test_the_same_key_at_the_same_moment_asks_again(store: SqlStore, calls: ThreadCalls) -> None:
    told = tell(store, calls, intent(1, claim=CLAIM), intent(2, claim=CLAIM))
    assert type(told[1]) is Conflict
    assert "ask again" in str(told[1])


def test_who_got_nothing_has_used_nothing(store: SqlStore, calls: ThreadCalls) -> None:
    number = calls.result(store.apply(intent(1, claim=CLAIM)))
    calls.result(store.apply(write_off(number)))
    assert calls.result(store.find_claim(CLAIM.text)) is None
    assert tell(store, calls, intent(2, claim=CLAIM, key=OTHER_KEY)) == [2]


def test_it_moves_to_another_key_only_for_its_holder(store: SqlStore, calls: ThreadCalls) -> None:
    calls.result(store.apply(issue(1, claim=CLAIM)))
    wrong, right = evolve(CLAIM, replaces=9), evolve(CLAIM, replaces=1)
    told = tell(
        store,
        calls,
        intent(2, claim=wrong, key=OTHER_KEY),
        intent(3, claim=right, key=OTHER_KEY),
        intent(4, claim=right, key="03" * 32),
    )
    assert names(told) == ["AlreadyAttested", "int", "AlreadyAttested"]
    assert calls.result(store.find_claim(CLAIM.text)).serial == 3
    calls.result(store.apply(write_off(told[1])))
    used = calls.result(store.find_claim(CLAIM.text))
    assert (used.serial, used.key) == (1, KEY)  # and not free


def test_a_release_revokes_what_it_has_bought_and_its_renewals(
    store: SqlStore, calls: ThreadCalls
) -> None:
    calls.result(store.apply(issue(1, claim=CLAIM)))
    record(
        store,
        calls,
        issued(2, claim=CLAIM.text, der=b"x"),
        issued(3, claim=CLAIM.text),  # still to be signed
        issued(4, claim="aws_iid:1234:eu-west-1:i-2", der=b"x"),
        issued(5, claim=CLAIM.text, der=b"x", issued_at=NOW - 2 * HOUR, expires_at=NOW - HOUR),
    )
    revoked = calls.result(store.apply(release_claim(CLAIM.text)))
    assert [found.serial for found in revoked] == [1, 2, 3]
    assert calls.result(store.find_claim(CLAIM.text)) is None
    assert (Act.ADMINISTER, "9") in acts(store, calls)
    renewal = intent(6, renews=2, key=OTHER_KEY)
    told = tell(store, calls, renewal, release_claim(CLAIM.text), intent(7, claim=CLAIM))
    assert [type(one) for one in told] == [Revoked, Unknown, int]


def test_certificates_are_listed_by_it(store: SqlStore, calls: ThreadCalls) -> None:
    record(store, calls, issued(1, claim="a"), issued(2), issued(3, claim="a"))
    page = calls.result(store.list(Query(NOW, claim="a")))
    assert [found.serial for found in page.certificates] == [3, 1]


def test_they_are_told_a_page_at_a_time(store: SqlStore, calls: ThreadCalls) -> None:
    tell(store, calls, *(intent(n, claim=Claim(f"c{n}")) for n in range(1, 6)))
    first = calls.result(store.claims("", 2))
    rest = calls.result(store.claims(first[-1].claim, 10))
    assert [used.claim for used in (*first, *rest)] == ["c1", "c2", "c3", "c4", "c5"]


def test_what_nobody_can_show_any_more_is_forgotten_and_nothing_else(
    store: SqlStore, calls: ThreadCalls
) -> None:
    tell(store, calls, intent(1, claim=CLAIM), intent(2, claim=Claim("once", until=NOW)))
    assert calls.result(store.apply(Prune(NOW + HOUR, NOW))) == 1
    assert [used.claim for used in calls.result(store.claims())] == [CLAIM.text]


def test_it_is_there_after_a_restart(tmp_path: Path, calls: ThreadCalls) -> None:
    with opened(tmp_path / "mesh.db", calls) as store:
        calls.result(store.apply(issue(1, claim=CLAIM)))
    with opened(tmp_path / "mesh.db", calls) as store:
        (told,) = tell(store, calls, intent(2, claim=CLAIM, key=OTHER_KEY))
        assert isinstance(told, AlreadyAttested)


def test_a_claim_without_what_is_bought_is_not_used(store: SqlStore, calls: ThreadCalls) -> None:
    calls.result(store.apply(issue(1)))
    (told,) = tell(store, calls, intent(1, claim=CLAIM))
    assert isinstance(told, Conflict)  # the serial is taken
    (told,) = tell(store, calls, intent(2, claim=CLAIM, requires="gone"))
    assert isinstance(told, EntryGone)
    assert calls.result(store.find_claim(CLAIM.text)) is None


def test_an_agent_comes_with_its_entry_its_claim_and_its_certificate_or_not_at_all(
    store: SqlStore, calls: ThreadCalls
) -> None:
    comes = intent(1, spiffe_id=AGENT, claim=CLAIM, admits=ADMISSION, requires="own", entry="own")
    (told,) = tell(store, calls, evolve(comes, rests_on=("allowed",)))
    assert isinstance(told, EntryGone)
    assert calls.result(store.entries()) == calls.result(store.claims()) == ()
    assert tell(store, calls, comes) == [1]
    assert [kept.entry.id for kept in calls.result(store.entries())] == ["own"]


def test_an_agents_entry_is_replaced_only_as_it_was(store: SqlStore, calls: ThreadCalls) -> None:
    assert tell(store, calls, intent(1, admits=ADMISSION)) == [1]
    (twice,) = tell(store, calls, intent(2, admits=ADMISSION))
    other = StoredEntry(RegistrationEntry.of_agent("own", AGENT, is_ban=True), NOW)
    (another,) = tell(store, calls, intent(3, admits=Admission(AGAIN, MADE, other, GONE)))
    assert [type(twice), type(another)] == [Conflict, Conflict]
    assert tell(store, calls, intent(4, admits=Admission(AGAIN, MADE, OWN, GONE))) == [2]
    assert calls.result(store.entries()) == (AGAIN,)


@pytest.mark.parametrize("frees", [True, False])
def test_an_agents_claims_are_free_once_it_is_evicted_and_not_once_it_is_banned(
    store: SqlStore, calls: ThreadCalls, frees: bool
) -> None:
    calls.result(store.apply(issue(1, spiffe_id=AGENT, claim=CLAIM)))
    calls.result(store.apply(issue(2, claim=Claim("another's"))))
    release = entry(Act.ADMINISTER, 9) if frees else None
    command = EndAgent(
        AGENT, NOW, Reason.CESSATION_OF_OPERATION, (), entry(Act.REVOKE), release=release
    )
    assert [found.serial for found in calls.result(store.apply(command))] == [1]
    left = [used.claim for used in calls.result(store.claims())]
    assert left == ["another's"] + [CLAIM.text] * (not frees)
    assert ((Act.ADMINISTER, f"claim {CLAIM.text}") in acts(store, calls)) is frees


def test_revoking_by_hand_frees_nothing(store: SqlStore, calls: ThreadCalls) -> None:
    calls.result(store.apply(issue(1, claim=CLAIM)))
    calls.result(store.apply(revoke(1)))
    (told,) = tell(
        store,
        calls,
        RecordIntent(
            issued(2, key=OTHER_KEY, claim=CLAIM.text), DIGEST, entry(Act.ISSUE, 2), claim=CLAIM
        ),
    )
    assert isinstance(told, AlreadyAttested)
