"""The issuing CAs of a CA, year after year: none is missing, each step is recorded first, and failures heal."""

import hashlib
import shutil
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from twisted.logger import LogEvent

from pki.errors import PkiError
from pki.keys import spki_der
from pki.keys.pkcs8 import is_encrypted
from pki.svid.bundle import BundleSet
from pki.svid.chain import judge
from pki.svid.revocation_set import RevocationSet
from pki.svid.x509svid import Purpose, X509Svid
from tests.authorities import DAY, HOUR, MESH, key
from tests.twisted_mesh.ca.lives import YEAR, Life
from tests.twisted_mesh.ca.rigs import ADMIN, result_of
from tests.twisted_mesh.ca.writes import Killed, kill_before_write
from twisted_mesh.ca import metrics
from twisted_mesh.ca.rotation import steps as handover_module
from twisted_mesh.ca.rotation.root_keys import Detached, NoCopy, NoRootKey
from twisted_mesh.runtime.event_text import event_text
from twisted_mesh.state.directory import StateError

SECOND = timedelta(seconds=1)
ALWAYS = ["issuing.crt", "issuing.key", "root.crt", "root.key"]


@pytest.fixture
def life(tmp_path: Path) -> Life:
    made = Life(tmp_path)
    made.run()
    return made


def names(logged: Sequence[LogEvent]) -> list[str]:
    return [event["event"] for event in logged if event["event"].startswith(("issuing", "succ"))]


def is_believed(svid: X509Svid, life: Life) -> bool:
    """As any peer would judge it, which holds the root alone."""
    bundles = BundleSet.of(life.authorities.bundle(MESH))
    none = RevocationSet()
    return judge(svid.chain, bundles, none, now=life.time, purpose=Purpose.ANY).ok


def prepared(life: Life) -> Life:
    life.pass_time(YEAR / 2 + HOUR)
    assert life.generations == (1, 2, ())
    return life


def activated(life: Life) -> Life:
    prepared(life).pass_time(YEAR / 3)
    assert life.generations == (2, None, (1,))
    return life


# The ordinary life.


def test_a_year_in_the_life_of_an_issuing_ca(life: Life, logged: list[LogEvent]) -> None:
    life.pass_time(YEAR / 2 - HOUR)
    assert life.generations == (1, None, ())
    assert life.acts == []
    life.pass_time(2 * HOUR)
    assert life.generations == (1, 2, ())
    life.pass_time(YEAR / 3)
    assert life.generations == (2, None, (1,))
    life.go_to(life.time + YEAR / 6)
    life.pass_time(3 * HOUR, steps=3)
    assert life.generations == (2, 3, ()), "half of the second one's life is over, too"
    assert life.steps == ["prepared 2", "activated 2", "retired 1", "prepared 3", "forgotten 1"]
    assert {act.name for act in life.acts} == {"rotate"}
    told = ["issuing-generating", "issuing-prepared", "issuing-activated", "issuing-retired"]
    assert names(logged) == [*told, *told[:2], "issuing-forgotten"]


def test_ten_years_leave_one_root_and_two_pairs(life: Life) -> None:
    for _ in range(9 * 73):
        life.pass_time(5 * DAY)
        assert is_believed(life.svid(), life)
        assert life.svid().validity.not_after - life.time >= DAY, "no leaf is cut short"
    active, later, retired = life.generations
    assert (active, later) == (18, None)
    assert len(retired) == 1
    numbered = [f"issuing-{g}.{kind}" for g in retired for kind in ("crt", "key")]
    assert life.files() == sorted([*ALWAYS, *numbered])


def test_the_record_says_which_ca_and_until_when(life: Life) -> None:
    act = prepared(life).acts[0]
    made = life.authorities.prepared
    assert made is not None
    assert act.target == made.key_id
    assert set(act.facts) == {"step", "generation", "serial", "not_after", "replaces"}
    assert act.facts["replaces"] == life.authorities.issuing.key_id
    assert act.facts["serial"] == f"{made.certificate.serial_number:x}"


def test_what_either_issues_is_believed_by_who_holds_the_root(life: Life) -> None:
    before = prepared(life)
    life.pass_time(YEAR / 3 - 2 * HOUR)
    old = before.svid()
    life.pass_time(3 * HOUR)
    new = life.svid()
    assert old.intermediates != new.intermediates
    assert is_believed(old, life)
    assert is_believed(new, life)


def test_the_longest_life_of_leaves_goes_on_to_the_next_ca(tmp_path: Path) -> None:
    life = Life(tmp_path, longest_leaf=30 * DAY)
    life.run()
    activated(life)
    assert life.svid().validity.not_after == life.time + 30 * DAY


def test_the_retired_one_can_sign_and_no_ones_key_is_certified(life: Life) -> None:
    activated(life)
    life.assert_all_keys_fit()
    authorities = life.authorities
    certificates = [authorities.root, *(ca.certificate for ca in authorities.every_issuing)]
    assert authorities.forbidden_keys() == {spki_der(c.public_key()) for c in certificates}
    assert len(authorities.forbidden_keys()) == 3


def test_all_of_it_is_found_again_after_a_restart(life: Life) -> None:
    for until, generations in ((prepared, (1, 2, ())), (activated, (2, None, (1,)))):
        if until is activated:
            life.pass_time(YEAR / 3)
        else:
            prepared(life)
        before = [ca.certificate for ca in life.authorities.every_issuing]
        life.start()
        assert life.generations == generations
        assert [ca.certificate for ca in life.authorities.every_issuing] == before
        life.assert_all_keys_fit()
        life.run()


def test_lives_of_seconds_keep_their_order(tmp_path: Path) -> None:
    life = Life(tmp_path, life=60 * SECOND, longest_leaf=5 * SECOND)
    life.run()
    for _ in range(300):
        life.pass_time(SECOND)
        assert life.svid().validity.not_after - life.time >= 5 * SECOND
    kinds = [step.split()[0] for step in life.steps]
    assert kinds[:4] == ["prepared", "activated", "retired", "prepared"]
    made = [int(act.facts["generation"]) for act in life.acts if act.facts["step"] == "prepared"]
    assert made == list(range(2, len(made) + 2))


def test_a_ca_that_was_off_for_years_catches_up_at_its_start(life: Life) -> None:
    life.time += 3 * YEAR
    life.start()
    assert life.generations == (1, None, ())
    life.run()
    assert life.generations == (2, None, (1,))
    assert is_believed(life.svid(), life)


def test_one_that_was_off_while_it_had_a_successor_uses_it(life: Life) -> None:
    prepared(life)
    life.time += YEAR * 6 / 10
    life.start()
    life.run()
    assert life.generations == (2, 3, (1,))


# Records that fail, and other trouble.


@pytest.mark.parametrize("step", ["prepared", "activated", "retired", "forgotten"])
def test_what_cannot_be_recorded_is_not_done_until_it_can(
    life: Life, logged: list[LogEvent], step: str
) -> None:
    life.unrecordable.add(step)
    life.pass_time(YEAR / 2 + HOUR)
    life.pass_time(YEAR / 3)
    life.pass_time(YEAR / 6 + DAY)
    life.pass_time(2 * HOUR, steps=7200)
    happened = {"prepared": (1, None, ()), "forgotten": (2, 3, (1,))}
    assert life.generations == happened.get(step, (1, 2, ()))
    warnings = [event for event in logged if event["event"] == "succession-failed"]
    assert len([w for w in warnings if w["log_level"].name == "warn"]) == 1
    assert "the disk is full" in event_text(warnings[0])
    assert len(warnings) < 7200 / 10, "not at each tick"
    assert isinstance(life.rotator.last_problem, PkiError)
    trouble = life.rotator.trouble()
    assert trouble is not None and "the disk is full" in trouble.detail
    assert trouble.remedy
    life.unrecordable.clear()
    life.pass_time(2 * HOUR, steps=240)
    assert life.generations == (2, 3, ())
    assert life.rotator.last_problem is None
    assert life.rotator.trouble() is None
    assert sorted(life.steps) == sorted(set(life.steps)), "each step is recorded once"


def test_a_step_that_is_recorded_and_fails_is_not_recorded_again(
    life: Life, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise StateError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(handover_module.IssuingFiles, "keep_certificate", full)
        life.pass_time(YEAR / 2 + HOUR)
        life.pass_time(HOUR, steps=60)
        assert life.generations == (1, None, ())
        assert life.steps == ["prepared 2"]
    life.pass_time(HOUR, steps=60)
    assert life.generations == (1, 2, ())
    assert life.steps == ["prepared 2"]
    made = life.authorities.prepared
    assert made is not None
    assert life.acts[0].facts["serial"] == f"{made.certificate.serial_number:x}", "the same one"


def test_a_bug_does_not_end_the_loop(
    life: Life, monkeypatch: pytest.MonkeyPatch, logged: list[LogEvent]
) -> None:
    def broken(*_: Any) -> None:
        raise ZeroDivisionError("a bug")

    with monkeypatch.context() as patch:
        patch.setattr(handover_module.IssuingFiles, "next_number", broken)
        life.pass_time(YEAR / 2 + HOUR)
    with monkeypatch.context() as patch:
        patch.setattr(handover_module.RotationSteps, "next_step", broken)
        life.pass_time(HOUR)
    assert {"succession-broke", "tick-broke"} <= {event["event"] for event in logged}
    life.pass_time(HOUR, steps=60)
    assert life.generations == (1, 2, ())


def test_one_that_fails_its_proof_is_not_put_to_use(
    life: Life, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Life(life.home / "other").authorities
    prepared(life)
    made = life.authorities.prepared
    assert made is not None
    with monkeypatch.context() as patch:
        patch.setattr(made, "intermediates", (other.issuing.certificate,))
        life.pass_time(YEAR / 3)
        life.pass_time(HOUR, steps=60)
        assert life.generations == (1, 2, ())
        assert life.steps == ["prepared 2"]
        assert life.rotator.last_problem is not None
        assert life.rotator.last_problem.code == "proof-failed"
    life.pass_time(HOUR, steps=60)
    assert life.generations == (2, None, (1,))


# Clocks that are set.


def test_a_clock_that_was_ahead_costs_nothing_once_it_is_right_again(
    life: Life, logged: list[LogEvent]
) -> None:
    life.jump(3 * YEAR)
    assert life.generations == (2, None, (1,))
    life.pass_time(timedelta(minutes=50), steps=50)
    life.jump(-3 * YEAR)
    assert life.generations == (1, 2, ())
    assert "issuing-resumed" in names(logged)
    assert is_believed(life.svid(), life)
    life.pass_time(YEAR / 2)
    assert life.generations == (1, 3, (2,)), (
        "what comes from the future is of no use at half of the life"
    )
    life.pass_time(YEAR / 3)
    assert life.generations == (3, None, (2, 1))
    life.start()
    assert life.generations == (3, None, (2, 1))


def test_the_same_over_a_restart(life: Life) -> None:
    life.jump(3 * YEAR)
    life.time -= 3 * YEAR
    life.start()
    assert life.generations == (2, None, (1,))
    life.run()
    assert life.generations == (1, 2, ())
    life.start()
    assert life.generations == (1, 2, ())
    life.assert_all_keys_fit()


def test_a_clock_that_is_behind_does_nothing(life: Life) -> None:
    prepared(life)
    life.jump(-YEAR / 4)
    life.pass_time(HOUR, steps=10)
    assert life.generations == (1, 2, ())
    assert life.steps == ["prepared 2"]


# Killed between two writes.

PREPARING = ["issuing-2.key", "issuing-2.crt"]
SWITCHING = [
    *("issuing-1.key", "issuing-1.crt", "issuing.key", "issuing.crt"),
    *("issuing-2.crt", "issuing-2.key"),
]
FORGETTING = ["issuing-1.crt", "issuing-1.key"]


def killed(life: Life, number: int, writes: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        done = kill_before_write(number, patch)
        with pytest.raises(Killed):
            result_of(life.rotator.attend())
    assert done == writes[:number]


@pytest.mark.parametrize("number", range(len(PREPARING)))
def test_killed_while_preparing(life: Life, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    life.time += YEAR / 2
    killed(life, number, PREPARING, monkeypatch)
    drawn = life.state.private / "issuing-2.key"
    before = drawn.read_bytes() if drawn.exists() else None
    life.start()
    assert life.generations == (1, None, ())
    life.run()
    assert life.generations == (1, 2, ())
    assert before in (None, drawn.read_bytes()), "the key that was drawn is taken up again"
    assert len({act.target for act in life.acts}) == 1, "one generation, one key"
    assert set(life.files()) == {*ALWAYS, *PREPARING}


@pytest.mark.parametrize("number", range(len(SWITCHING)))
def test_killed_while_activating(life: Life, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    prepared(life)
    before = [ca.certificate for ca in life.authorities.every_issuing]
    life.time += YEAR / 3
    killed(life, number, SWITCHING, monkeypatch)
    life.start()
    assert life.generations == ((1, 2, ()) if number < 4 else (2, None, (1,)))
    life.assert_all_keys_fit()
    life.run()
    assert life.generations == (2, None, (1,))
    assert [ca.certificate for ca in life.authorities.every_issuing] == before[::-1]
    assert set(life.files()) == {*ALWAYS, "issuing-1.crt", "issuing-1.key"}
    life.start()
    life.assert_all_keys_fit()


@pytest.mark.parametrize("number", range(len(FORGETTING)))
def test_killed_while_forgetting(life: Life, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    activated(life)
    life.unrecordable.add("forgotten")
    life.pass_time(YEAR / 6 + DAY)
    life.pass_time(2 * HOUR, steps=2)
    life.unrecordable.clear()
    killed(life, number, FORGETTING, monkeypatch)
    life.start()
    assert life.generations[0] == 2
    life.run()
    life.pass_time(2 * HOUR, steps=2)
    assert life.generations == (2, 3, ())


def test_killed_between_prepared_and_activated_no_number_is_lost_or_used_twice(
    life: Life,
) -> None:
    for _ in range(5):
        life.pass_time(YEAR / 4)
        life.start()
        life.run()
    made = [act.facts["generation"] for act in life.acts if act.facts["step"] == "prepared"]
    assert made == ["2", "3"]


def test_a_switch_that_fails_half_way_is_finished_without_a_restart(
    life: Life, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(len(SWITCHING)):
        rig = Life(life.home / str(number))
        rig.run()
        prepared(rig)
        rig.time += YEAR / 3
        with monkeypatch.context() as patch:
            kill_before_write(number, patch)
            with pytest.raises(Killed):
                result_of(rig.rotator.attend())
        result_of(rig.rotator.attend())
        assert rig.generations == (2, None, (1,))
        left = {name for name in rig.files() if not name.startswith(".")}
        assert left == {*ALWAYS, "issuing-1.crt", "issuing-1.key"}


# Files of others' making.


def test_what_an_earlier_version_set_aside_is_loaded_and_later_removed(life: Life) -> None:
    """It kept an ended issuing CA as issuing-N, after it had replaced it."""
    activated(life)
    life.time += YEAR / 6
    life.start()
    assert life.generations == (2, None, (1,))
    life.run()
    life.pass_time(2 * HOUR, steps=2)
    assert life.generations == (2, 3, ())
    assert "issuing-1.key" not in life.files()


def test_a_replacement_that_an_earlier_version_was_killed_in_is_made_anew(life: Life) -> None:
    """It wrote the new key over the old one, which it had set aside before."""
    for path in (life.state.ca / "issuing.crt", life.state.private / "issuing.key"):
        shutil.copy(path, path.with_name(path.name.replace("issuing", "issuing-1")))
    (life.state.private / "issuing.key").write_bytes(key(5).to_pem())
    life.time += 2 * YEAR
    life.start()
    assert life.generations == (1, None, ())
    life.run()
    assert life.generations == (2, None, (1,))
    life.assert_all_keys_fit()


@pytest.mark.parametrize("broken", ["issuing-2.key", "issuing-2.crt"])
def test_a_prepared_one_that_is_damaged_is_told_and_another_is_made(
    life: Life, logged: list[LogEvent], broken: str
) -> None:
    prepared(life)
    (path,) = life.state.ca.rglob(broken)
    path.write_bytes(b"garbage")
    life.start()
    assert life.generations == (1, None, ())
    (event,) = [event for event in logged if event["event"] == "issuing-unusable"]
    assert broken in event_text(event)
    life.run()
    assert life.generations == (1, 3, ())


def test_a_copy_under_a_wrong_number_is_not_believed(life: Life, logged: list[LogEvent]) -> None:
    prepared(life)
    for suffix in ("crt", "key"):
        (path,) = life.state.ca.rglob(f"issuing-2.{suffix}")
        path.rename(path.with_name(f"issuing-7.{suffix}"))
    life.start()
    assert life.generations == (1, None, ())
    assert "another generation" in event_text(logged[-1])


# The root's key away.


def test_with_the_roots_key_away_it_says_in_time_what_waits(
    life: Life, logged: list[LogEvent]
) -> None:
    life.root_key.unlink()
    life.start()
    life.run()
    life.pass_time(YEAR / 2 - HOUR)
    assert life.rotator.waiting() is None
    assert "succession-waits" not in names(logged)
    life.pass_time(2 * HOUR)
    waits = life.rotator.waiting()
    assert waits is not None
    assert waits.code == "succession-waits"
    assert "182 days 11h" in waits.detail
    assert str(life.root_key) in waits.remedy
    assert "without a restart" in waits.remedy
    (event,) = [event for event in logged if event["event"] == "succession-waits"]
    assert "182 days 11h" in event_text(event)
    assert event["log_level"].name == "warn"


def test_it_is_repeated_daily_and_in_the_last_week_hourly(
    life: Life, logged: list[LogEvent]
) -> None:
    life.root_key.unlink()
    life.start()
    life.run()

    def reminders(duration: timedelta, steps: int) -> int:
        logged.clear()
        life.pass_time(duration, steps)
        return names(logged).count("succession-waits")

    life.pass_time(YEAR / 2 + HOUR)
    assert reminders(10 * DAY, 10 * 24 * 6) == 10
    life.go_to(life.authorities.line.active.ends_at - 6 * DAY)
    assert reminders(DAY, 24 * 6) == 24


def test_a_root_key_that_is_brought_back_is_picked_up_at_the_next_tick(
    life: Life, logged: list[LogEvent]
) -> None:
    kept = life.root_key.read_bytes()
    life.root_key.unlink()
    life.start()
    life.run()
    life.pass_time(YEAR * 9 / 10)
    assert life.generations == (1, None, ())
    life.root_key.touch(0o600)
    life.root_key.write_bytes(kept)
    life.pass_time(SECOND)
    assert life.generations == (2, None, (1,))
    assert life.rotator.waiting() is None
    assert "root-attached" in {event["event"] for event in logged}


@pytest.mark.parametrize("content", ["issuing.key", "garbage", "for all"])
def test_a_file_that_is_not_the_roots_key_is_told_and_holds_nothing_up(
    life: Life, logged: list[LogEvent], content: str
) -> None:
    kept = life.root_key.read_bytes()
    prepared(life)
    life.root_key.unlink()
    life.start()
    life.run()
    life.root_key.touch(0o644 if content == "for all" else 0o600)
    other = (life.state.private / "issuing.key").read_bytes()
    life.root_key.write_bytes({"issuing.key": other, "for all": kept}.get(content, b"garbage"))
    life.pass_time(YEAR / 3)
    life.pass_time(HOUR, steps=60)
    assert life.generations == (2, None, (1,)), "the prepared one needs no root"
    assert life.authorities.root_key is None
    warned = [e for e in logged if e["event"] == "succession-failed"]
    assert "root.key" in event_text(warned[0])


def test_an_ended_one_without_a_successor_and_without_the_root_ends_the_start(life: Life) -> None:
    life.root_key.unlink()
    life.time += 2 * YEAR
    with pytest.raises(StateError, match=r"root\.key back"):
        life.start()


def test_the_metrics_show_the_lives(life: Life) -> None:
    def left(name: str) -> float:
        return metrics.ends(life.authorities)[name] - life.time.timestamp()

    assert set(metrics.ends(life.authorities)) == {"root", "issuing"}
    assert left("issuing") == YEAR.total_seconds()
    assert left("root") == 10 * YEAR.total_seconds()
    prepared(life)
    assert left("prepared") == pytest.approx(YEAR.total_seconds(), abs=3600)
    assert life.rotator.waiting() is None
    life.root_key.unlink()
    life.start()
    life.run()
    life.pass_time(YEAR)
    assert life.rotator.waiting() is not None


# The root's key taken away by a command.


def detach(life: Life, sha256: str | None = None) -> Detached:
    held = hashlib.sha256(life.root_key.read_bytes()).hexdigest() if sha256 is None else sha256
    found: Detached = result_of(life.rotator.detach_root(ADMIN, held))
    return found


def test_the_roots_key_goes_once_a_copy_is_held(life: Life, logged: list[LogEvent]) -> None:
    detached = detach(life)
    assert not life.root_key.exists()
    assert life.authorities.root_key is None
    ends_at = life.authorities.line.active.ends_at
    assert detached == Detached(False, ends_at - YEAR / 2, ends_at)
    assert life.steps == ["root-detached"]
    assert life.acts[0].name == "administer"
    assert "root-taken-away" in {event["event"] for event in logged}
    life.pass_time(YEAR / 4)
    assert life.generations == (1, None, ())


def test_a_successor_is_prepared_before_where_that_puts_off_the_next_need(life: Life) -> None:
    life.pass_time(YEAR / 3)
    detached = detach(life)
    assert life.generations == (1, 2, ())
    assert life.steps == ["prepared 2", "root-detached"]
    assert detached.prepared
    assert detached.issues_until == life.time + YEAR
    assert detached.wanted_at == life.time + YEAR / 2
    life.pass_time(YEAR / 2)
    assert life.generations == (2, None, (1,)), "all that follows needs no root for half a year"


@pytest.mark.parametrize("sha256", ["", "0" * 64, "no digest", "ü"])
def test_without_a_copy_nothing_goes(life: Life, sha256: str) -> None:
    with pytest.raises(NoCopy, match="read the copy back"):
        detach(life, sha256)
    assert life.root_key.exists()
    assert life.authorities.root_key is not None
    assert life.acts == []


def test_a_copy_of_something_else_is_no_copy_of_the_root(life: Life) -> None:
    life.root_key.write_bytes(b"garbage")
    with pytest.raises(StateError, match="no private key"):
        detach(life)
    assert life.authorities.root_key is not None


def test_a_key_that_is_away_cannot_be_taken_away(life: Life) -> None:
    detach(life)
    with pytest.raises(NoRootKey):
        detach(life, "0" * 64)


def test_what_cannot_be_recorded_takes_no_key_away(life: Life) -> None:
    life.unrecordable.add("root-detached")
    with pytest.raises(PkiError, match="disk is full"):
        detach(life)
    assert life.root_key.exists()
    assert life.authorities.root_key is not None
    life.unrecordable.clear()
    detach(life)


def test_a_key_that_was_brought_back_early_can_be_taken_away_again(life: Life) -> None:
    kept = life.root_key.read_bytes()
    detach(life)
    life.root_key.touch(0o600)
    life.root_key.write_bytes(kept)
    detach(life)
    assert not life.root_key.exists()


# Encrypted.


def test_what_is_made_later_is_encrypted_too(tmp_path: Path) -> None:
    life = Life(tmp_path, passphrase=b"correct horse")
    life.run()
    activated(life)
    life.pass_time(YEAR / 4)
    assert life.generations == (2, 3, (1,))
    keys = list(life.state.private.glob("*.key"))
    assert len(keys) == 4
    assert all(is_encrypted(path.read_bytes()) for path in keys)
    life.start()
    life.assert_all_keys_fit()


def test_a_root_key_that_comes_back_plain_is_encrypted(tmp_path: Path) -> None:
    life = Life(tmp_path)
    kept = life.root_key.read_bytes()
    life.root_key.unlink()
    life.passphrase = b"correct horse"
    life.start()
    life.run()
    life.root_key.touch(0o600)
    life.root_key.write_bytes(kept)
    life.pass_time(SECOND)
    assert is_encrypted(life.root_key.read_bytes())
