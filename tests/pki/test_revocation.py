"""The revocation set."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from pki.revocation import Reason, Revocation, RevocationSet

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
