"""The revocation set."""

import gc
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from pki.errors import Malformed
from pki.svid import revocation_set
from pki.svid.revocation_set import GIVEN_REASONS, Reason, Revocation, RevocationSet

NOW = datetime(2026, 11, 23, 10, 0, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)

revocations = st.builds(
    Revocation,
    issuer=st.sampled_from(["a" * 64, "b" * 64]),
    serial=st.integers(1, 20),
    revoked_at=st.just(NOW),
    reason=st.sampled_from(Reason),
    expires_at=st.integers(-3, 3).map(lambda hours: NOW + hours * HOUR),
)


def revoked(issuer: str, serial: int, expires_at: datetime = NOW + HOUR) -> Revocation:
    return Revocation(issuer, serial, NOW, Reason.KEY_COMPROMISE, expires_at)


def test_an_empty_set_revokes_nothing() -> None:
    assert len(RevocationSet()) == 0
    assert RevocationSet().find("a", 1) is None


def test_a_serial_is_revoked_for_its_issuer_only() -> None:
    found = RevocationSet().merged([revoked("a", 1)], NOW)
    assert found.find("a", 1) == revoked("a", 1)
    assert found.find("b", 1) is None
    assert found.find("a", 2) is None


def test_merging_leaves_the_old_set_as_it_was() -> None:
    old = RevocationSet().merged([revoked("a", 1)], NOW)
    new = old.merged([revoked("a", 2)], NOW)
    assert (len(old), len(new)) == (1, 2)
    assert old.find("a", 2) is None


def test_the_first_word_on_a_certificate_stands() -> None:
    first = revoked("a", 1)
    later = Revocation("a", 1, NOW + HOUR, Reason.SUPERSEDED, NOW + HOUR)
    assert RevocationSet().merged([first], NOW).merged([later], NOW).find("a", 1) == first


def test_what_has_expired_is_forgotten_and_not_a_moment_before() -> None:
    found = RevocationSet().merged([revoked("a", 1)], NOW)
    assert found.merged([], NOW + HOUR).find("a", 1)
    assert len(found.merged([], NOW + HOUR + timedelta(seconds=1))) == 0


@given(st.lists(revocations), st.lists(revocations))
def test_a_set_is_what_was_told_and_has_not_expired(
    first: list[Revocation], second: list[Revocation]
) -> None:
    found = RevocationSet().merged(first, NOW - 4 * HOUR).merged(second, NOW)
    told = {(r.issuer, r.serial) for r in (*first, *second) if r.expires_at >= NOW}
    for issuer in ("a" * 64, "b" * 64):
        for serial in range(1, 21):
            known = found.find(issuer, serial)
            if known:
                assert (issuer, serial) in told
                assert known.expires_at >= NOW
    assert len(found) <= len(told)


@given(st.lists(revocations, unique_by=lambda r: (r.issuer, r.serial)))
def test_every_certificate_that_is_revoked_and_alive_is_found(told: list[Revocation]) -> None:
    found = RevocationSet().merged(told, NOW)
    alive = [r for r in told if r.expires_at >= NOW]
    assert all(found.find(r.issuer, r.serial) == r for r in alive)
    assert len(found) == len(alive)


# IssuingFiles: any of them may be merged with more, at any time


@given(
    st.lists(
        st.tuples(
            st.integers(0, 30),
            st.lists(revocations, max_size=4),
            st.integers(-4, 5).map(lambda hours: NOW + hours * HOUR),
        ),
        max_size=12,
    ),
    st.sampled_from([0, 3, 1024]),
)
def test_each_generation_answers_as_a_dict_of_its_own_would(
    steps: list[tuple[int, list[Revocation], datetime]], small: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(revocation_set, "_SMALL", small)
        generations: list[tuple[RevocationSet, dict[tuple[str, int], Revocation]]] = [
            (RevocationSet(), {})
        ]
        for which, news, now in steps:
            found, model = generations[which % len(generations)]
            merged = dict(model)
            for told in news:
                if told.expires_at >= now:
                    # Of what has expired, the first word may be forgotten by now or not.
                    known = merged.get((told.issuer, told.serial))
                    if known is None or known.expires_at < now:
                        merged[told.issuer, told.serial] = told
            generations.append((found.merged(news, now), merged))
            for each, expected in generations:
                answers_like(each, expected, now)


def answers_like(
    found: RevocationSet, model: dict[tuple[str, int], Revocation], now: datetime
) -> None:
    held = [r for issuer in ("a" * 64, "b" * 64) for r in found.of(issuer)]
    assert len(held) == len(found)
    for told in held:
        assert found.find(told.issuer, told.serial) == told
    alive = {key for key, told in model.items() if told.expires_at >= NOW + 5 * HOUR}
    assert alive <= {(told.issuer, told.serial) for told in held}
    assert {(told.issuer, told.serial) for told in held} <= set(model)


def test_an_old_generation_stays_while_others_grow_and_forget() -> None:
    old = RevocationSet().merged([revoked("a", 1), revoked("b", 2)], NOW)
    one = old.merged([revoked("a", 3)], NOW)
    other = old.merged([revoked("a", 4)], NOW)
    later = one.merged([], NOW + 2 * HOUR)
    assert [len(each) for each in (old, one, other, later)] == [2, 3, 3, 0]
    assert old.find("a", 3) is None
    assert one.find("a", 4) is None
    assert other.find("a", 3) is None
    assert [r.serial for r in other.of("a")] == [1, 4]
    assert [r.serial for r in old.of("a")] == [1]
    assert old.find("b", 2)


def test_merging_nothing_new_makes_no_other_set() -> None:
    found = RevocationSet().merged([revoked("a", 1)], NOW)
    assert found.merged([revoked("a", 1)], NOW) is found
    assert found.merged([], NOW) is found


def test_a_large_set_forgets_within_the_hour(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(revocation_set, "_SMALL", 1)
    minutes = timedelta(minutes=1)
    told = [revoked("a", n, NOW + n * minutes) for n in range(100)]
    found = RevocationSet().merged(told, NOW)
    swept = found.merged([], NOW + 10 * minutes)
    assert len(swept) == 90
    assert len(swept.merged([], NOW + 69 * minutes)) == 90
    assert len(swept.merged([], NOW + 70 * minutes)) == 30
    assert len(swept.merged([], NOW - minutes)) == 90


def test_news_that_break_off_change_nothing() -> None:
    found = RevocationSet().merged([revoked("a", 1)], NOW)

    def broken() -> Iterator[Revocation]:
        yield revoked("a", 2)
        raise RuntimeError

    with pytest.raises(RuntimeError):
        found.merged(broken(), NOW)
    assert found.find("a", 2) is None
    grown = found.merged([revoked("a", 3)], NOW)
    assert (len(found), len(grown), grown.find("a", 2)) == (1, 2, None)


@given(
    st.datetimes(timezones=st.just(UTC)),
    st.datetimes(timezones=st.just(UTC)),
    st.integers(-(2**160), 2**160),
    st.sampled_from(Reason),
)
def test_what_is_packed_comes_out_as_it_went_in(
    revoked_at: datetime, expires_at: datetime, serial: int, reason: Reason
) -> None:
    told = Revocation("a", serial, revoked_at, reason, expires_at)
    found = RevocationSet().merged([told], datetime.min.replace(tzinfo=UTC))
    assert found.find("a", serial) == told


# Reasons


@pytest.mark.parametrize("flag", x509.ReasonFlags)
def test_every_reason_of_cryptography_is_one_of_ours(flag: x509.ReasonFlags) -> None:
    reason = Reason.of(flag)
    assert reason.flag is flag
    assert Reason.numbered(reason.number) is reason
    entry = x509.CRLReason(flag).public_bytes()
    assert entry == bytes((0x0A, 1, reason.number))


def test_there_are_no_others() -> None:
    assert {reason.flag for reason in Reason} == set(x509.ReasonFlags)
    for number in (7, 11, -1):
        with pytest.raises(Malformed, match="no reason"):
            Reason.numbered(number)


def test_what_others_give_is_not_given_here() -> None:
    foreign = {Reason.CERTIFICATE_HOLD, Reason.REMOVE_FROM_CRL, Reason.AA_COMPROMISE}
    assert set(GIVEN_REASONS) == set(Reason) - foreign


# Size and speed


@pytest.mark.slow
def test_a_million_fit_into_150_mb_and_grow_by_a_thousand_at_once() -> None:
    count = 1_000_000
    first = 1 << 126
    found = RevocationSet().merged((revoked("a", first + n) for n in range(count)), NOW)
    assert len(found) == count
    packed = found._ledger.packed["a"]
    # What the allocator hands out comes in steps of 16 bytes.
    numbers = sum(-(-sys.getsizeof(n) // 16) * 16 for pair in packed.items() for n in pair)
    assert numbers + sys.getsizeof(packed) < 150e6
    if sys.version_info < (3, 14):  # which tracks every dict
        assert not gc.is_tracked(packed)

    def find() -> None:
        for n in range(0, count, 100):
            assert found.find("a", first + n)
            assert not found.find("a", first - n - 1)

    # The best of three: others use the machine too.
    assert min(seconds_of(find) for _ in range(3)) < 20_000 * 6e-6
    grown = found
    start = time.process_time()
    for n in range(1000):
        grown = grown.merged([revoked("a", n)], NOW)
    assert time.process_time() - start < 0.5  # a copy of all takes longer than that
    assert (len(found), len(grown)) == (count, count + 1000)


def seconds_of(job: Callable[[], None]) -> float:
    start = time.process_time()
    job()
    return time.process_time() - start
