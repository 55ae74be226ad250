"""After the CA's root was replaced: an endpoint whose options name the old one starts again by what it has kept."""

from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime
from itertools import pairwise
from pathlib import Path

import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from pki.errors import PkiError
from pki.svid.bundle import BundleSet, TrustBundle
from pki.svid.pin import Fingerprint, RootPin
from pki.svid.revocation_set import RevocationSet
from pki.svid.x509svid import Purpose, X509Svid
from tests.authorities import (
    BACKEND,
    HOUR,
    MESH,
    NOW,
    forge,
    forge_root,
    key,
    overlap,
    revocation_of,
)
from tests.twisted_mesh.recording import RecordingLog
from twisted_mesh.identity import saved_svid as module
from twisted_mesh.identity.saved_svid import SavedSvid, identity_path
from twisted_mesh.identity.saved_trust import (
    MOST_FORMER,
    MOST_MET,
    MOST_REVOKED,
    SavedTrust,
)
from twisted_mesh.trust.judge import Judge
from twisted_mesh.trust.pinned_judge import PinnedJudge
from twisted_mesh.trust.trust import Trust

BOTH = overlap()
OLD, NEW = BOTH.old.certificate, BOTH.new.certificate
OLD_GONE = revocation_of(BOTH.old, OLD)
BY_OLD = X509Svid.assemble((forge(BOTH.by_old), BOTH.by_old.certificate), key(9))
BY_NEW = X509Svid.assemble((BY_OLD.leaf, BOTH.by_new.certificate), key(9))


def bundle(*roots: x509.Certificate) -> TrustBundle:
    return TrustBundle(MESH, roots)


def pinned(root: x509.Certificate = OLD) -> Judge:
    return PinnedJudge(lambda: NOW, pin=RootPin(Fingerprint.of(root), MESH))


def by_file(*roots: x509.Certificate) -> Judge:
    return Judge(lambda: NOW, Trust(BundleSet.of(bundle(*roots))))


def by_old_file() -> Judge:
    return by_file(OLD)


def revoked(*revocations: object) -> RevocationSet:
    return RevocationSet().merged(revocations, NOW)  # type: ignore[arg-type]


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> RecordingLog:
    log = RecordingLog()
    monkeypatch.setattr(module, "_log", log)
    return log


@pytest.fixture
def place(tmp_path: Path, log: RecordingLog) -> Path:
    return identity_path(tmp_path / "state", "who")


def life(place: Path, judge: Judge, now: datetime = NOW) -> tuple[SavedSvid, X509Svid | None]:
    """A start of the endpoint, whose options make that judge."""
    kept = SavedSvid(place)
    return kept, kept.recall(BACKEND, judge, now)


def lived(place: Path, *steps: tuple[X509Svid, TrustBundle], judge: Judge | None = None) -> None:
    """An earlier life, in which that was served and believed."""
    kept, _ = life(place, judge or pinned())
    for svid, roots in steps:
        kept.keep(svid, roots)


def roots_of(judge: Judge) -> list[x509.Certificate]:
    return list(judge.trust.bundles.all_roots)


@pytest.mark.parametrize("options", [pinned, by_old_file])
def test_the_old_root_in_the_options_is_answered_by_what_was_believed_last(
    place: Path, options: object
) -> None:
    both = bundle(OLD, NEW)
    lived(place, (BY_OLD, bundle(OLD)), (BY_OLD, both), (BY_NEW, both))
    judge = options()  # type: ignore[operator]
    kept, svid = life(place, judge)
    assert svid is not None and svid.chain == BY_NEW.chain
    assert (roots_of(judge), judge.pin) == ([OLD, NEW], None)
    kept.keep(BY_NEW, bundle(NEW))
    judge = options()  # type: ignore[operator]
    _, svid = life(place, judge)
    assert svid is not None
    assert roots_of(judge) == [NEW], "the retired one is not believed again"
    assert judge.verdict(BY_NEW.chain, Purpose.ANY).path[-1] == NEW
    assert "unknown-authority" in {
        p.code for p in judge.verdict(BY_OLD.chain, Purpose.ANY).problems
    }


def test_what_was_believed_counts_also_once_the_certificate_has_ended(
    place: Path, log: RecordingLog
) -> None:
    lived(place, (BY_NEW, bundle(OLD, NEW)))
    judge = pinned()
    _, svid = life(place, judge, NOW + 2 * HOUR)
    assert svid is None
    assert "expired" in log.text("identity-unusable")
    assert roots_of(judge) == [OLD, NEW]


def test_who_was_off_from_before_the_new_root_on_knows_the_old_one_alone(place: Path) -> None:
    lived(place, (BY_OLD, bundle(OLD)))
    judge = pinned()
    life(place, judge)
    assert roots_of(judge) == [OLD]


def test_a_new_line_replaces_what_was_kept_and_no_file_is_in_its_way(
    place: Path, log: RecordingLog
) -> None:
    lived(place, (BY_OLD, bundle(OLD)))
    judge = pinned(NEW)
    kept, svid = life(place, judge)
    assert svid is None and judge.pin is not None
    assert "it is of another root than" in log.text("identity-unusable")
    kept.keep(BY_NEW, bundle(NEW))
    judge = pinned(NEW)
    _, svid = life(place, judge)
    assert svid is not None
    assert roots_of(judge) == [NEW]
    judge = pinned(OLD)
    life(place, judge)
    assert judge.pin is not None, "the line before leads nowhere any more"


@pytest.mark.parametrize("options", [pinned, by_old_file])
def test_a_distrusted_root_opens_nothing_whatever_the_options_say(
    place: Path, options: object, log: RecordingLog
) -> None:
    lived(place, (BY_OLD, bundle(OLD, NEW)))
    kept, _ = life(place, pinned())
    kept.keep(BY_NEW, bundle(NEW), revoked(OLD_GONE))
    judge = options()  # type: ignore[operator]
    _, svid = life(place, judge)
    verdict = judge.verdict((*BY_OLD.chain, OLD), Purpose.ANY)
    assert "revoked" in {problem.code for problem in verdict.problems}
    assert svid is None
    assert "was distrusted since: start it with a new join line" in log.text("identity-unusable")
    judge = by_file(OLD, NEW)
    _, svid = life(place, judge)
    assert svid is not None, "there is one among them that is good"
    assert roots_of(judge) == [NEW]


def test_a_pin_of_a_distrusted_root_is_met_by_nobody(place: Path) -> None:
    lived(place, (BY_OLD, bundle(OLD, NEW)))
    kept, _ = life(place, pinned())
    kept.keep(BY_OLD, bundle(OLD, NEW), revoked(OLD_GONE))
    judge = pinned()
    life(place, judge)
    assert judge.pin is not None
    assert not judge.verdict((*BY_OLD.chain, OLD), Purpose.ANY).ok
    assert judge.pin is not None, "it was not met by that"


def test_the_certificate_of_a_revoked_issuer_is_still_shown_to_the_ca(place: Path) -> None:
    """The CA renews it, as it has it on record."""
    lived(place, (BY_OLD, bundle(OLD, NEW)))
    kept, _ = life(place, pinned())
    gone = revocation_of(BOTH.old, BOTH.by_old.certificate)
    kept.keep(BY_OLD, bundle(OLD, NEW), revoked(gone))
    judge = pinned()
    _, svid = life(place, judge)
    assert svid is not None
    assert "revoked" in {p.code for p in judge.verdict(BY_OLD.chain, Purpose.ANY).problems}


def test_another_root_that_the_file_names_by_now_is_believed_too(place: Path) -> None:
    lived(place, (BY_OLD, bundle(OLD, NEW)), judge=by_file(OLD))
    third = forge_root().certificate
    judge = by_file(OLD, third)
    life(place, judge)
    assert roots_of(judge) == [OLD, NEW, third]


def test_what_a_version_before_this_has_kept_is_used(place: Path) -> None:
    lived(place, (BY_OLD, bundle(OLD)))
    (place / "current" / "svid_trust.json").unlink()
    judge = pinned()
    _, svid = life(place, judge)
    assert svid is not None
    assert roots_of(judge) == [OLD]


def test_the_roots_of_somebody_else_are_not_believed_for_standing_there(place: Path) -> None:
    lived(place, (BY_OLD, bundle(OLD)))
    foreign = bundle(forge_root(66).certificate)
    (place / "current" / "svid_bundle.pem").write_bytes(foreign.to_pem())
    judge = pinned()
    _, svid = life(place, judge)
    assert svid is None and judge.pin is not None


def test_only_what_is_new_is_written(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept, _ = life(place, pinned())
    written: list[object] = []
    monkeypatch.setattr(module, "publish", lambda *a: written.append(a))
    for _ in range(3):
        kept.keep(BY_OLD, bundle(OLD), revoked(revocation_of(BOTH.by_old, BY_OLD.leaf)))
    assert len(written) == 1
    kept.keep(BY_OLD, bundle(OLD), revoked(revocation_of(BOTH.old, BOTH.by_old.certificate)))
    kept.keep(BY_NEW, bundle(OLD))
    kept.keep(BY_NEW, bundle(OLD, NEW))
    assert len(written) == 4


def test_what_is_remembered_is_bounded() -> None:
    trust = SavedTrust()
    fingerprints = [Fingerprint(bytes([n]) * 32) for n in range(MOST_MET + 5)]
    assert trust.leading_from(fingerprints).met == tuple(fingerprints[-MOST_MET:])
    roots = [forge_root(100 + n).certificate for n in range(MOST_FORMER + 2)]
    for before, after in pairwise(roots):
        trust = trust.followed_by(bundle(before), bundle(after), RevocationSet())
    assert trust.former == tuple(roots[-MOST_FORMER - 1 : -1])
    assert len(trust.former) == MOST_FORMER
    assert len(trust.met) <= MOST_MET


@given(
    met=st.lists(st.builds(Fingerprint, st.binary(min_size=32, max_size=32)), max_size=MOST_MET),
    former=st.lists(st.sampled_from([OLD, NEW]), max_size=2, unique=True),
)
def test_it_is_read_as_it_was_written(
    met: list[Fingerprint], former: list[x509.Certificate]
) -> None:
    trust = SavedTrust(tuple(met), tuple(former), (OLD_GONE,))
    assert SavedTrust.parse(trust.to_json(), "it") == trust


def too_many(name: str, count: int, one: str) -> bytes:
    lists: dict[str, Iterable[str]] = {"met": [], "former": [], "revoked": []}
    lists[name] = [one] * count
    inner = ", ".join(f'"{key}": [{", ".join(value)}]' for key, value in lists.items())
    return f"{{{inner}}}".encode()


ROW = '{"issuer": "a", "serial": "1", "revoked_at": "2026-01-01T00:00:00Z", "reason": "x", "expires_at": "X"}'
NONSENSE = [
    b"",
    b"[]",
    b"{}",
    b"[" * 100_000,
    b'{"met": ["sha256:12"], "former": [], "revoked": []}',
    b'{"met": [], "former": ["nothing"], "revoked": []}',
    too_many("revoked", 1, ROW),
    too_many("met", MOST_MET + 1, f'"sha256:{"0" * 64}"'),
    too_many("former", MOST_MET + 1, '"x"'),
    too_many("revoked", MOST_REVOKED + 1, ROW.replace('"X"', '"2026-01-01T00:00:00Z"')),
]


@pytest.mark.parametrize("data", NONSENSE)
def test_nonsense_is_no_trust(data: bytes) -> None:
    with pytest.raises(PkiError, match="it is not what was kept there"):
        SavedTrust.parse(data, "it")


@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_but_what_is_expected(data: bytes) -> None:
    with suppress(PkiError):
        SavedTrust.parse(data, "it")
