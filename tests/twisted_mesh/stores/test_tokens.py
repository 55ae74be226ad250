"""What every store does with join tokens: each is spent once, and with what it buys."""

import signal
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

from pki.audit.log import Act
from tests.running import CHECKOUT
from tests.twisted_mesh.stores.certificates import (
    HOUR,
    LATER,
    NOW,
    acts,
    der,
    intent,
    issued,
    names,
    outcome,
    record,
    revoke,
    signed,
    tell,
    write_off,
)
from tests.twisted_mesh.stores.registrations import (
    TEN_MINUTES,
    create_entry,
    create_token,
    opened,
    revoke_token,
    stored,
    token_of,
)
from tests.twisted_mesh.support import ThreadCalls
from twisted_mesh.stores import bulk
from twisted_mesh.stores.commands import Command, Prune, RecordCertificate
from twisted_mesh.stores.records import (
    Conflict,
    IssuedToken,
    TokenDead,
    TokenSpent,
    TokenStatus,
    Unknown,
)
from twisted_mesh.stores.sql import SqlStore

TOKEN = token_of(1, "web")
SECOND = timedelta(seconds=1)
MICROSECOND = timedelta(microseconds=1)
LONG_AGO = NOW - 1000 * HOUR


def kept(store: SqlStore, calls: ThreadCalls, token: IssuedToken = TOKEN) -> IssuedToken:
    found = calls.result(store.find_token(token.digest))
    assert found is not None
    return found


def test_a_token_is_found_by_its_digest_and_listed_the_newest_first(
    store: SqlStore, calls: ThreadCalls
) -> None:
    second = token_of(2, "web", created_at=LATER, expires_at=LATER + HOUR, key="ab" * 32)
    tell(store, calls, create_token(TOKEN, stored("web")), create_token(second))
    assert calls.result(store.find_token(TOKEN.digest)) == TOKEN
    assert calls.result(store.find_token(second.digest)) == second
    assert calls.result(store.tokens()) == (second, TOKEN)
    assert calls.result(store.entries()) == (stored("web"),)
    for unknown in (b"", TOKEN.digest[:31], TOKEN.digest[:31] + b"\0", bytes(32)):
        assert calls.result(store.find_token(unknown)) is None


def test_a_token_and_its_entry_are_made_together_or_not_at_all(
    store: SqlStore, calls: ThreadCalls, others: list[Command]
) -> None:
    tell(store, calls, create_token(TOKEN, stored("web")))
    for command, kind in (
        (create_token(token_of(2, "web"), stored("web")), Conflict),
        (create_token(token_of(1, "api"), stored("api")), Conflict),
        (create_token(token_of(2, "api")), Unknown),
    ):
        error = outcome(store, calls, command, others)
        assert type(error) is kind
        others = []
    assert calls.result(store.entries()) == (stored("web"),)
    assert calls.result(store.tokens()) == (TOKEN,)


def test_a_token_is_spent_with_the_intent_that_it_buys(
    store: SqlStore, calls: ThreadCalls, others: list[Command]
) -> None:
    tell(store, calls, create_token(TOKEN, stored("web")))
    bought = intent(
        7, requires="web", token=TOKEN.digest, at=LATER, request_key="mine", entry="web"
    )
    number = outcome(store, calls, bought, others)
    assert isinstance(number, int)
    spent = kept(store, calls)
    assert spent == evolve(TOKEN, spent_at=LATER, serial=7, request="mine")
    assert spent.status(NOW + HOUR) is TokenStatus.SPENT
    calls.result(store.apply(RecordCertificate(number, der(7))))
    assert calls.result(store.find_request("mine")) == signed(7, entry="web")


def test_the_same_request_is_told_so_and_another_that_the_token_is_spent(
    store: SqlStore, calls: ThreadCalls, others: list[Command]
) -> None:
    tell(store, calls, create_token(TOKEN, stored("web")))
    bought = intent(7, requires="web", token=TOKEN.digest, request_key="mine")
    calls.result(store.apply(bought))
    again = outcome(store, calls, evolve(bought, certificate=issued(8)), others)
    assert type(again) is Conflict
    assert calls.result(store.find_request("mine")) == issued(7)
    for other in (
        intent(9, requires="web", token=TOKEN.digest, request_key="yours"),
        intent(9, token=TOKEN.digest),
    ):
        error = calls.outcome(store.apply(other))
        assert type(error) is TokenSpent
        assert isinstance(error, Conflict)
        assert error.code == "conflict"
        assert TOKEN.id in str(error)
        assert TOKEN.digest.hex() not in str(error)
    assert calls.result(store.find(9)) is None
    assert kept(store, calls).serial == 7


@pytest.mark.parametrize(
    ("at", "outcome_of"),
    [
        (NOW - HOUR, "int"),
        (NOW + TEN_MINUTES, "int"),
        (NOW + TEN_MINUTES + MICROSECOND, "TokenDead"),
        (NOW + HOUR, "TokenDead"),
    ],
)
def test_a_token_lives_as_long_as_it_says(
    store: SqlStore, calls: ThreadCalls, at: Any, outcome_of: str
) -> None:
    tell(store, calls, create_token(TOKEN, stored("web")))
    assert names(tell(store, calls, intent(1, token=TOKEN.digest, at=at))) == [outcome_of]
    assert TOKEN.status(at) is (TokenStatus.LIVE if outcome_of == "int" else TokenStatus.EXPIRED)


def test_without_a_time_of_its_own_a_token_is_spent_at_that_of_the_act(
    store: SqlStore, calls: ThreadCalls
) -> None:
    tell(store, calls, create_token(TOKEN, stored("web")))
    command = intent(1, token=TOKEN.digest)
    calls.result(store.apply(evolve(command, entry=evolve(command.entry, at=LATER))))
    assert kept(store, calls).spent_at == LATER


def test_what_is_unknown_expired_or_revoked_buys_nothing(
    store: SqlStore, calls: ThreadCalls, others: list[Command]
) -> None:
    revoked, expired = token_of(2, "web"), token_of(3, "web", expires_at=NOW - SECOND)
    tell(store, calls, create_token(TOKEN, stored("web")), create_token(revoked))
    tell(store, calls, create_token(expired), revoke_token(revoked))
    for token in (token_of(4, "web"), revoked, expired):
        error = outcome(store, calls, intent(1, requires="web", token=token.digest), others)
        assert type(error) is TokenDead
        assert error.code == "no-proof"
        others = []
    almost = TOKEN.digest[:31] + b"\0"
    assert names(tell(store, calls, intent(1, token=almost))) == ["TokenDead"]
    assert calls.result(store.find(1)) is None
    assert kept(store, calls) == TOKEN


def test_a_token_counts_for_the_entry_that_it_is_bound_to_and_for_no_other(
    store: SqlStore, calls: ThreadCalls
) -> None:
    tell(store, calls, create_token(TOKEN, stored("web")), create_entry("api"))
    wrong = intent(1, requires="api", token=TOKEN.digest)
    gone = intent(1, requires="gone", token=TOKEN.digest)
    assert names(tell(store, calls, wrong, gone)) == ["EntryGone", "EntryGone"]
    assert kept(store, calls) == TOKEN


def test_a_token_whose_intent_fails_is_not_burnt(
    store: SqlStore, calls: ThreadCalls, monkeypatch: pytest.MonkeyPatch
) -> None:
    tell(store, calls, create_token(TOKEN, stored("web")), intent(1), intent(2, request_key="mine"))
    record(store, calls, signed(3))
    tell(store, calls, revoke(3))
    failing = [
        intent(1, token=TOKEN.digest),
        intent(4, token=TOKEN.digest, request_key="mine"),
        intent(4, token=TOKEN.digest, renews=3),
        intent(-4, token=TOKEN.digest),
        intent(4, token=TOKEN.digest, subject="\ud800"),
    ]
    assert names(tell(store, calls, *failing)) == [
        "Conflict",
        "Conflict",
        "Revoked",
        "ValueError",
        "UnicodeEncodeError",
    ]
    with monkeypatch.context() as patch:
        patch.setattr(bulk, "_insert", lambda *_: 1 / 0)
        told = tell(store, calls, intent(4, token=TOKEN.digest))
    assert names(told) == ["ZeroDivisionError"]
    assert kept(store, calls) == TOKEN
    assert names(tell(store, calls, intent(4, token=TOKEN.digest))) == ["int"]


@pytest.mark.parametrize("size", [1, 7, 100])
def test_of_100_that_have_one_token_one_wins(
    store: SqlStore, calls: ThreadCalls, size: int
) -> None:
    tell(store, calls, create_token(TOKEN, stored("web")))
    commands = [
        intent(n, requires="web", token=TOKEN.digest, request_key=f"of {n}") for n in range(100)
    ]
    told: list[Any] = []
    for start in range(0, 100, size):
        told += tell(store, calls, *commands[start : start + size])
    assert sorted(names(told)) == ["TokenSpent"] * 99 + ["int"]
    (winner,) = (n for n, answer in enumerate(told) if isinstance(answer, int))
    assert kept(store, calls).serial == winner
    assert [act for act, _ in acts(store, calls)] == [Act.ADMINISTER, Act.ISSUE]


def test_among_others_one_token_wins_once(store: SqlStore, calls: ThreadCalls) -> None:
    tell(store, calls, create_token(TOKEN, stored("web")))
    commands = [
        intent(n, token=TOKEN.digest) if n % 3 else intent(n, requires="web") for n in range(90)
    ]
    told = tell(store, calls, *commands)
    assert [n for n, answer in enumerate(told) if n % 3 and isinstance(answer, int)] == [1]
    assert all(isinstance(answer, int) for answer in told[::3])


def test_two_stores_on_one_file_do_not_both_spend_a_token(
    tmp_path: Path, calls: ThreadCalls
) -> None:
    with opened(tmp_path / "mesh.db", calls) as one, opened(tmp_path / "mesh.db", calls) as two:
        for number in range(20):
            token = token_of(number, f"e{number}")
            tell(one, calls, create_token(token, stored(token.entry)))
            answers = [
                store.apply(intent(10 * number + n, token=token.digest))
                for n, store in enumerate((one, two, one, two))
            ]
            told = [calls.outcome(answer) for answer in answers]
            assert sorted(names(told)) == ["TokenSpent"] * 3 + ["int"]


def test_a_token_whose_intent_is_written_off_can_be_used_again(
    store: SqlStore, calls: ThreadCalls
) -> None:
    tell(store, calls, create_token(TOKEN, stored("web")))
    bought = intent(7, requires="web", token=TOKEN.digest, request_key="mine")
    number = calls.result(store.apply(bought))
    assert names(tell(store, calls, intent(8, token=TOKEN.digest))) == ["TokenSpent"]
    calls.result(store.apply(write_off(number)))
    assert kept(store, calls) == TOKEN
    again = evolve(bought, certificate=issued(8))
    assert names(tell(store, calls, again, intent(9, token=TOKEN.digest))) == ["int", "TokenSpent"]
    assert kept(store, calls).serial == 8


def test_a_token_whose_intent_is_written_off_lives_no_longer_for_it(
    store: SqlStore, calls: ThreadCalls
) -> None:
    revoked = token_of(2, "web")
    tell(store, calls, create_token(TOKEN, stored("web")), create_token(revoked))
    numbers = tell(store, calls, intent(1, token=TOKEN.digest), intent(2, token=revoked.digest))
    tell(store, calls, revoke_token(revoked), *map(write_off, numbers))
    late = intent(3, token=TOKEN.digest, at=NOW + HOUR)
    assert names(tell(store, calls, late, intent(3, token=revoked.digest))) == ["TokenDead"] * 2


def test_what_has_its_certificate_is_not_written_off_and_its_token_stays_spent(
    store: SqlStore, calls: ThreadCalls
) -> None:
    tell(store, calls, create_token(TOKEN, stored("web")))
    number = calls.result(store.apply(intent(7, token=TOKEN.digest)))
    told = tell(store, calls, RecordCertificate(number, der(7)), write_off(number), revoke(7))
    assert names(told) == ["NoneType", "Unknown", "IssuedCertificate"]
    assert names(tell(store, calls, intent(8, token=TOKEN.digest))) == ["TokenSpent"]


def test_revoking_a_token_is_for_good(store: SqlStore, calls: ThreadCalls) -> None:
    tell(store, calls, create_token(TOKEN, stored("web")))
    first = calls.result(store.apply(revoke_token(TOKEN)))
    assert first == evolve(TOKEN, revoked_at=NOW) == kept(store, calls)
    assert first.status(NOW + HOUR) is TokenStatus.REVOKED
    assert calls.result(store.apply(revoke_token(TOKEN, at=LATER))) == first
    error = calls.outcome(store.apply(revoke_token(token_of(2, "web"))))
    assert isinstance(error, Unknown)
    assert acts(store, calls) == [(Act.ADMINISTER, "3"), (Act.ADMINISTER, "4")]


def test_a_spent_token_can_be_revoked(store: SqlStore, calls: ThreadCalls) -> None:
    tell(store, calls, create_token(TOKEN, stored("web")), intent(7, token=TOKEN.digest))
    revoked = calls.result(store.apply(revoke_token(TOKEN)))
    assert (revoked.status(NOW), revoked.serial) == (TokenStatus.REVOKED, 7)
    assert names(tell(store, calls, intent(8, token=TOKEN.digest))) == ["TokenDead"]


def test_neither_repr_nor_error_shows_a_digest(store: SqlStore, calls: ThreadCalls) -> None:
    tell(store, calls, create_token(TOKEN, stored("web")))
    for token in (TOKEN, token_of(2, "web", expires_at=LONG_AGO)):
        told = tell(store, calls, create_token(token), create_token(token))
        told += tell(store, calls, intent(1, token=token.digest, at=NOW + HOUR))
        assert not any(token.digest.hex() in f"{outcome} {outcome!r}" for outcome in told)
        assert str(token.digest) not in repr(token)


def test_dead_tokens_are_forgotten_and_with_the_last_of_it_what_was_made_for_them(
    store: SqlStore, calls: ThreadCalls
) -> None:
    unused, used, living = (token_of(n, f"e{n}") for n in range(3))
    living = evolve(living, expires_at=NOW + 9 * HOUR)
    for token in (unused, used, living):
        tell(store, calls, create_token(token, stored(token.entry)))
    tell(store, calls, create_entry("kept", "token:kept", "unix:uid:0"))
    tell(store, calls, create_token(token_of(3, "kept")))
    number = calls.result(store.apply(intent(1, token=used.digest, requires="e1", entry="e1")))
    calls.result(store.apply(RecordCertificate(number, der(1))))

    assert calls.result(store.apply(Prune(NOW + TEN_MINUTES, LONG_AGO))) == 0
    # Three tokens, and the entry that bought nothing.
    assert calls.result(store.apply(Prune(NOW + TEN_MINUTES + MICROSECOND, LONG_AGO))) == 4
    assert calls.result(store.tokens()) == (living,)
    assert {s.entry.id for s in calls.result(store.entries())} == {"e1", "e2", "kept"}
    # The certificate can be renewed under the entry as long as it is there.
    renewal = intent(2, renews=1, requires="e1", entry="e1", expires_at=NOW + 2 * HOUR)
    number = calls.result(store.apply(renewal))
    calls.result(store.apply(RecordCertificate(number, der(2))))
    assert calls.result(store.apply(Prune(NOW + HOUR + MICROSECOND, LONG_AGO))) == 1
    assert {s.entry.id for s in calls.result(store.entries())} == {"e1", "e2", "kept"}
    assert calls.result(store.apply(Prune(NOW + 3 * HOUR, LONG_AGO))) == 2
    assert {s.entry.id for s in calls.result(store.entries())} == {"e2", "kept"}


def test_an_entry_with_an_open_intent_is_kept(store: SqlStore, calls: ThreadCalls) -> None:
    tell(store, calls, create_token(TOKEN, stored("web")))
    number = calls.result(store.apply(intent(1, token=TOKEN.digest, entry="web")))
    everything = Prune(NOW + 1000 * HOUR, LONG_AGO)
    assert calls.result(store.apply(everything)) == 1
    assert calls.result(store.entries()) == (stored("web"),)
    calls.result(store.apply(write_off(number)))
    assert calls.result(store.apply(everything)) == 2
    assert calls.result(store.entries()) == ()


def test_a_little_is_forgotten_at_a_time(store: SqlStore, calls: ThreadCalls) -> None:
    for number in range(7):
        token = token_of(number, f"e{number}", expires_at=NOW + number * SECOND)
        tell(store, calls, create_token(token, stored(token.entry)))
    command = Prune(NOW + HOUR, LONG_AGO, limit=3)
    assert [calls.result(store.apply(command)) for _ in range(4)] == [6, 6, 2, 0]
    assert calls.result(store.entries()) == calls.result(store.tokens()) == ()


#: Spends a token on what is told at once, and is killed in the midst of it or once it is acknowledged.
KILLED = (
    "import os, sys; from pathlib import Path\n"
    "from tests.twisted_mesh.stores.certificates import intent\n"
    "from tests.twisted_mesh.stores.test_tokens import TOKEN\n"
    "from tests.twisted_mesh.support import ThreadCalls\n"
    "from twisted_mesh.stores import bulk, log, tokens\n"
    "from twisted_mesh.stores.sql import SqlStore; from twisted_mesh.stores.sqlite import Sqlite\n"
    "kill = lambda *_, **__: os.kill(os.getpid(), 9)\n"
    "where = sys.argv[2]\n"
    "if where == 'after the token': bulk.record_intents = kill\n"
    "if where == 'after the certificate': insert = bulk._insert; "
    "bulk._insert = lambda c, into, *rest: kill() if 'audit' in into else insert(c, into, *rest)\n"
    "calls = ThreadCalls(); store = SqlStore(Sqlite(Path(sys.argv[1])), calls); store.start()\n"
    "told = [store.apply(intent(n, requires='web', token=TOKEN.digest)) for n in range(3)]\n"
    "calls.result(told[0]); kill()\n"
)


@pytest.mark.parametrize(
    "where", ["after the token", "after the certificate", "after the acknowledgement"]
)
def test_killed_at_any_point_a_token_and_what_it_buys_are_of_one_mind(
    tmp_path: Path, calls: ThreadCalls, where: str
) -> None:
    with opened(tmp_path / "mesh.db", calls) as store:
        tell(store, calls, create_token(TOKEN, stored("web")))
    command = [sys.executable, "-c", KILLED, tmp_path / "mesh.db", where]
    assert subprocess.run(command, cwd=CHECKOUT).returncode == -signal.SIGKILL
    with opened(tmp_path / "mesh.db", calls) as store:
        left = calls.result(store.open_intents())
        if where == "after the acknowledgement":
            assert [i.certificate.serial for i in left] == [0]
            assert kept(store, calls) == evolve(TOKEN, spent_at=NOW, serial=0)
            assert names(tell(store, calls, intent(7, token=TOKEN.digest))) == ["TokenSpent"]
            # What the CA does at its start: the caller of before has got nothing.
            calls.result(store.apply(write_off(left[0].id)))
        else:
            assert left == ()
        assert kept(store, calls) == TOKEN
        assert names(tell(store, calls, intent(8, token=TOKEN.digest))) == ["int"]
