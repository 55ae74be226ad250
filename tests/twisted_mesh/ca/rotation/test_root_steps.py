"""A root that follows another one: who is believed at each step, by us and by openssl, whatever is cut short."""

import subprocess
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from pki.issuing.root_line import Phase, fingerprint_of
from pki.keys import key_id, spki_der, spki_pin
from pki.svid.bundle import BundleSet, TrustBundle
from pki.svid.chain import judge
from pki.svid.revocation_set import RevocationSet
from pki.svid.x509svid import Purpose, X509Svid, certificates_pem, load_certificates
from tests.authorities import DAY, HOUR, MESH
from tests.twisted_mesh.ca.lives import YEAR, Life
from tests.twisted_mesh.ca.rigs import ADMIN, result_of
from tests.twisted_mesh.ca.writes import Killed, kill_before_write
from twisted_mesh.ca.rotation.root_keys import NoCopy
from twisted_mesh.ca.rotation.steps import RootKeyAway
from twisted_mesh.state.directory import StateError


@pytest.fixture
def life(tmp_path: Path) -> Life:
    made = Life(tmp_path)
    made.run()
    return made


def prepare(life: Life) -> None:
    result_of(life.root_steps.prepare("unix:uid:0", "a test"))


def activate(life: Life) -> None:
    result_of(life.root_steps.activate("unix:uid:0"))


def switch(life: Life) -> None:
    result_of(life.root_steps.switch("unix:uid:0"))


def retire(life: Life) -> None:
    result_of(life.root_steps.retire("unix:uid:0"))


def revert(life: Life) -> None:
    result_of(life.root_steps.revert("unix:uid:0"))


STEPS: dict[str, Callable[[Life], None]] = {
    "prepare": prepare,
    "activate": activate,
    "switch": switch,
    "retire": retire,
}


def years_later(life: Life, years: int) -> None:
    life.time += years * YEAR
    life.start()
    life.run()


def up_to(life: Life, last: str) -> None:
    for name, step in STEPS.items():
        step(life)
        if name == last:
            return


def believed_by(svid: X509Svid, life: Life, *roots: x509.Certificate) -> bool:
    """As a peer judges it that holds these roots."""
    bundles = BundleSet.of(TrustBundle(MESH, roots))
    return judge(svid.chain, bundles, RevocationSet(), now=life.time, purpose=Purpose.ANY).ok


def openssl_verifies(svid: X509Svid, life: Life, directory: Path, *roots: x509.Certificate) -> bool:
    """As ``openssl verify`` judges what is served, by these roots alone."""
    files = {"roots": roots, "above": svid.intermediates, "leaf": (svid.leaf,)}
    for name, certificates in files.items():
        (directory / name).write_bytes(certificates_pem(certificates))
    at = str(int(life.time.timestamp()))
    command = "openssl verify -x509_strict -no-CApath -CAfile roots -untrusted above -attime"
    done = subprocess.run([*command.split(), at, "leaf"], cwd=directory, capture_output=True)
    return done.returncode == 0


def test_who_verifies_what_at_each_step(life: Life, tmp_path: Path) -> None:
    """What is served is good for whoever holds the root that it leads to, the old one, the new one, or both."""
    first = life.svid()
    (old,) = life.authorities.roots
    prepare(life)
    new = life.authorities.root_line.new
    assert new is not None

    def table(svid: X509Svid) -> tuple[bool, bool, bool]:
        found = tuple(believed_by(svid, life, *roots) for roots in ((old,), (new,), (old, new)))
        by_openssl = tuple(
            openssl_verifies(svid, life, tmp_path, *roots) for roots in ((old,), (new,), (old, new))
        )
        assert found == by_openssl
        return found  # type: ignore[return-value]

    assert life.authorities.roots == (old, new)
    assert table(life.svid()) == (True, False, True)
    activate(life)
    second = life.svid()
    assert len(second.intermediates) == 1
    assert second.intermediates != first.intermediates
    assert table(second) == (True, False, True)
    switch(life)
    third = life.svid()
    assert third.intermediates[0].public_key() == second.intermediates[0].public_key()
    assert table(third) == (False, True, True)
    assert table(first) == (True, False, True), "what was issued before lives on"
    # The leaf that was issued under the old root is served below the new one without a signature.
    moved = X509Svid.assemble((second.leaf, *third.intermediates), second.key)
    assert table(moved) == (False, True, True)
    retire(life)
    assert life.authorities.roots == (new,)
    assert table(life.svid()) == (False, True, True)
    assert [ca.key_id for ca in life.authorities.every_issuing] == [
        key_id(second.intermediates[0].public_key())
    ], "what the old root alone had certified is gone"


def test_the_roots_never_certify_each_other(life: Life) -> None:
    up_to(life, "switch")
    line = life.authorities.root_line
    for root in line.roots:
        assert root.issuer == root.subject
    for certificate in line.both:
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
        assert constraints.path_length == 0
    assert len(line.both) == 2
    assert {one.subject for one in line.both} == {line.both[0].subject}
    assert len({spki_der(one.public_key()) for one in line.both}) == 1


def test_what_is_recorded(life: Life) -> None:
    up_to(life, "retire")
    revertible = [act for act in life.acts if act.facts["step"].startswith("root-")]
    assert [act.facts["step"] for act in revertible] == [
        *("root-prepared", "root-activated", "root-switched", "root-retired")
    ]
    assert {act.facts["by"] for act in revertible} == {"unix:uid:0"}
    assert revertible[0].facts["reason"] == "a test"
    former = life.authorities.root_line.former
    assert revertible[-1].facts["fingerprint"] == former[0].fingerprint
    assert revertible[0].facts["fingerprint"] == life.authorities.fingerprint


def test_the_fingerprint_and_the_file_change_with_the_switch_and_not_before(life: Life) -> None:
    old = life.authorities.fingerprint
    seen = []
    for step in STEPS.values():
        step(life)
        (kept,) = load_certificates(life.state.root_certificate.read_bytes())
        assert fingerprint_of(kept) == life.authorities.fingerprint
        seen.append(life.authorities.fingerprint == old)
    assert seen == [True, True, False, False]


def test_the_next_keys_are_announced_before_they_are_used(life: Life) -> None:
    assert life.current.bundle().next_keys == ()
    prepare(life)
    pins = life.current.bundle().next_keys
    assert len(pins) == 2
    assert b"mesh_next_keys" in life.current.bundle().to_jwks()
    assert TrustBundle.from_jwks(MESH, life.current.bundle().to_jwks()).next_keys == pins
    life.start()
    assert life.current.bundle().next_keys == pins
    activate(life)
    assert pins[0] == spki_pin(life.authorities.issuing.certificate.public_key())
    assert pins[1:] == life.current.bundle().next_keys, "the root is not served yet"
    switch(life)
    assert life.current.bundle().next_keys == ()


def test_another_key_is_announced_once_the_first_one_issues(life: Life) -> None:
    """An ordinary succession may come between: what is activated later was announced all the same."""
    prepare(life)
    early, root = life.current.bundle().next_keys
    sequence = life.current.bundle().sequence
    life.pass_time(YEAR / 2 + HOUR)
    first, same = life.current.bundle().next_keys
    assert first != early, "which would end as soon as the one that issues"
    assert same == root
    life.pass_time(YEAR / 3)
    life.pass_time(HOUR, steps=3)
    assert spki_pin(life.authorities.issuing.certificate.public_key()) == first
    second, same = life.current.bundle().next_keys
    assert (second != first, same) == (True, root)
    assert life.current.bundle().sequence > sequence
    activate(life)
    assert spki_pin(life.authorities.issuing.certificate.public_key()) == second


def test_the_sequence_grows_with_each_change_of_roots_and_over_restarts(life: Life) -> None:
    seen = [life.current.bundle().sequence]
    prepare(life)
    seen.append(life.current.bundle().sequence)
    revert(life)
    seen.append(life.current.bundle().sequence)
    prepare(life)
    activate(life)
    switch(life)
    retire(life)
    seen.append(life.current.bundle().sequence)
    assert seen == sorted(set(seen))
    life.start()
    assert life.current.bundle().sequence == seen[-1]


def test_each_step_can_be_taken_back_until_the_old_root_is_retired(life: Life) -> None:
    before, key = life.authorities.issuing, life.authorities.fingerprint
    up_to(life, "switch")
    for phase in (Phase.ACTIVATED, Phase.PREPARED, Phase.SETTLED):
        revert(life)
        assert life.authorities.root_line.phase is phase
        assert believed_by(life.svid(), life, life.authorities.root_line.old)
        assert life.authorities.fingerprint == key
        life.start()
        life.run()
        assert life.authorities.root_line.phase is phase
    assert life.authorities.issuing.certificate == before.certificate
    assert len(life.authorities.root_line.former) == 1
    prepare(life)
    assert life.authorities.root_line.new is not None
    assert "generation 3" in life.authorities.root_line.new.subject.rfc4514_string()
    up = [activate, switch, retire]
    for step in up:
        step(life)
    assert len(life.authorities.root_line.former) == 2


def test_another_issuing_ca_during_the_overlap_has_both_certificates(life: Life) -> None:
    up_to(life, "activate")
    old, new = life.authorities.root_line.roots
    life.pass_time(YEAR / 2 + HOUR)
    assert life.authorities.prepared is not None
    life.pass_time(YEAR / 3)
    assert life.generations[0] == 3
    assert believed_by(life.svid(), life, old)
    switch(life)
    assert believed_by(life.svid(), life, new)
    life.start()
    life.run()
    assert believed_by(life.svid(), life, new)
    life.assert_all_keys_fit()
    retire(life)
    life.start()
    assert believed_by(life.svid(), life, new)


def test_an_issuing_ca_that_was_prepared_before_gets_its_second_certificate(life: Life) -> None:
    life.pass_time(YEAR / 2 + HOUR)
    waiting = life.authorities.prepared
    assert waiting is not None
    up_to(life, "activate")
    assert life.authorities.issuing.key_id == waiting.key_id
    switch(life)
    assert believed_by(life.svid(), life, life.authorities.root)


def test_a_root_that_ended_before_its_successor_was_activated(life: Life) -> None:
    years_later(life, 5)
    prepare(life)
    life.time = life.authorities.root.not_valid_after_utc + DAY
    life.start()
    life.run()
    activate(life)
    line = life.authorities.root_line
    assert line.phase is Phase.SWITCHED
    assert believed_by(life.svid(), life, line.served)
    retire(life)
    assert believed_by(life.svid(), life, life.authorities.root)


@pytest.mark.parametrize("days", [30, 3 * 365])
def test_a_root_that_ends_while_nobody_looks_is_switched_from(life: Life, days: int) -> None:
    years_later(life, 5)
    up_to(life, "activate")
    line = life.authorities.root_line
    life.time = line.old.not_valid_after_utc - DAY * days
    life.start()
    life.run()
    life.time = line.old.not_valid_after_utc + HOUR
    life.start()
    life.run()
    assert life.authorities.root_line.phase is Phase.SWITCHED
    assert life.authorities.root == line.new
    assert believed_by(life.svid(), life, life.authorities.root)
    switched = [act for act in life.acts if act.facts["step"] == "root-switched"]
    assert [act.facts["reason"] for act in switched] == ["the old root has ended"]


def test_a_root_that_has_ended_can_be_replaced(life: Life) -> None:
    life.time = life.authorities.root.not_valid_after_utc + DAY
    life.start()
    life.run()
    prepare(life)
    activate(life)
    assert life.authorities.root_line.phase is Phase.SWITCHED
    retire(life)
    assert believed_by(life.svid(), life, life.authorities.root)


# Keys that are away.


def test_the_next_issuing_ca_is_there_before_it_issues(life: Life) -> None:
    """Whoever judges by CRLs needs its list by then."""
    prepare(life)
    prepared = life.authorities.prepared
    assert prepared is not None
    assert life.authorities.rests_on(prepared, life.authorities.root)
    (life.root_key).rename(life.home / "kept.key")
    life.start()
    activate(life)
    assert life.authorities.issuing.key_id == prepared.key_id, "and needs the old root no more"


def test_a_key_that_is_away_is_named(life: Life) -> None:
    life.root_key.rename(life.home / "kept.key")
    life.start()
    prepare(life)
    assert life.authorities.prepared is None
    life.start()
    assert life.authorities.root_key is None
    assert life.authorities.other_root_key is not None
    with pytest.raises(RootKeyAway, match=r"root\.key"):
        activate(life)
    (life.home / "kept.key").rename(life.root_key)
    life.run()
    life.pass_time(HOUR, steps=3)
    assert life.authorities.root_key is not None
    other = life.state.private / "root-2.key"
    other.rename(life.home / "kept.key")
    life.start()
    with pytest.raises(RootKeyAway, match=r"root-2\.key"):
        activate(life)
    (life.home / "kept.key").rename(other)
    life.start()
    activate(life)
    switch(life)
    retire(life)
    assert not other.exists()


@pytest.mark.parametrize("name", ["root.key", "root-2.key"])
def test_either_key_can_be_taken_away_by_the_digest_of_its_file(life: Life, name: str) -> None:
    prepare(life)
    path = life.state.private / name
    data = path.read_bytes()
    result_of(life.rotator.detach_root(ADMIN, sha256(data).hexdigest()))
    assert not path.exists()
    away = [life.authorities.key_of(root) is None for root in life.authorities.roots]
    assert away == [name == "root.key", name == "root-2.key"]
    assert life.acts[-1].facts["step"] == "root-detached"
    with pytest.raises(NoCopy):
        result_of(life.rotator.detach_root(ADMIN, sha256(data).hexdigest()))
    path.write_bytes(data)
    path.chmod(0o600)
    life.pass_time(HOUR, steps=3)
    assert all(life.authorities.key_of(root) for root in life.authorities.roots)


def test_the_succession_says_which_key_is_wanted(life: Life) -> None:
    up_to(life, "activate")
    (life.state.private / "root-2.key").rename(life.home / "kept.key")
    life.start()
    life.run()
    life.pass_time(YEAR / 2 + HOUR)
    waits = life.rotator.waiting()
    assert waits is not None
    assert "root-2.key" in waits.remedy
    assert "root.key" not in waits.remedy
    (life.home / "kept.key").rename(life.state.private / "root-2.key")
    life.pass_time(HOUR, steps=3)
    assert life.rotator.waiting() is None
    assert life.authorities.prepared is not None


# Killed at each write.


def counted(life: Life, step: Callable[[Life], None], monkeypatch: pytest.MonkeyPatch) -> int:
    with monkeypatch.context() as patch:
        done = kill_before_write(10_000, patch)
        step(life)
    return len(done)


def invariants(life: Life, tmp_path: Path) -> None:
    """Whatever was cut short: what is served is believed by who holds the bundle, and every file loads."""
    bundle = life.current.bundle()
    assert believed_by(life.svid(), life, *bundle.roots)
    assert believed_by(life.svid(), life, life.authorities.root), "by the root that it leads to"
    assert openssl_verifies(life.svid(), life, tmp_path, *bundle.roots)
    assert (
        life.current.published.issuers[life.authorities.issuing.key_id] == life.svid().intermediates
    )
    (kept,) = load_certificates(life.state.root_certificate.read_bytes())
    assert kept == life.authorities.root
    life.assert_all_keys_fit()
    for root in life.authorities.roots:
        assert life.authorities.key_of(root) is not None


@pytest.mark.parametrize("name", STEPS)
def test_killed_at_each_write_of_a_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def fresh(number: int) -> Life:
        life = Life(tmp_path / f"{name}-{number}")
        life.run()
        for earlier, step in STEPS.items():
            if earlier == name:
                return life
            step(life)
        raise AssertionError

    writes = counted(fresh(-1), STEPS[name], monkeypatch)
    assert writes > 0
    for number in range(writes):
        life = fresh(number)
        leaf = life.svid()
        roots = life.current.bundle().roots
        sequence = life.current.bundle().sequence
        with monkeypatch.context() as patch:
            kill_before_write(number, patch)
            with pytest.raises(Killed):
                STEPS[name](life)
        life.start()
        life.run()
        invariants(life, tmp_path)
        if name != "retire":
            assert believed_by(leaf, life, *life.current.bundle().roots), "nobody is cut off"
        assert life.current.bundle().sequence >= sequence
        if life.current.bundle().roots != roots and name in ("prepare", "retire"):
            assert life.current.bundle().sequence > sequence
        # Done again, it ends where it would have ended.
        expected = {
            "prepare": Phase.PREPARED,
            "activate": Phase.ACTIVATED,
            "switch": Phase.SWITCHED,
            "retire": Phase.SETTLED,
        }[name]
        if life.authorities.root_line.phase is not expected:
            STEPS[name](life)
        assert life.authorities.root_line.phase is expected
        assert life.root_steps.unsettled() is None
        invariants(life, tmp_path)
        life.start()
        invariants(life, tmp_path)
        left = {path.name for path in life.state.ca.rglob("root*")}
        assert left == {
            Phase.SETTLED: {"root.crt", "root.key", "roots.json"},
            Phase.SWITCHED: {"root.crt", "root.key", "roots.json", "root-1.crt", "root-1.key"},
        }.get(expected, {"root.crt", "root.key", "roots.json", "root-2.crt", "root-2.key"})


@pytest.mark.parametrize("steps", range(1, 4))
def test_killed_at_each_write_of_a_reversal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    def fresh(number: int) -> Life:
        life = Life(tmp_path / f"{steps}-{number}")
        life.run()
        for step in tuple(STEPS.values())[:steps]:
            step(life)
        return life

    writes = counted(fresh(-1), revert, monkeypatch)
    expected = (Phase.SETTLED, Phase.PREPARED, Phase.ACTIVATED)[steps - 1]
    for number in range(writes):
        life = fresh(number)
        leaf = life.svid()
        with monkeypatch.context() as patch:
            kill_before_write(number, patch)
            with pytest.raises(Killed):
                revert(life)
        life.start()
        life.run()
        invariants(life, tmp_path)
        assert believed_by(leaf, life, *life.current.bundle().roots)
        if life.authorities.root_line.phase is not expected:
            revert(life)
        assert life.authorities.root_line.phase is expected
        assert life.root_steps.unsettled() is None
        invariants(life, tmp_path)


# Files that somebody has changed who has no key.


def refusal(life: Life) -> str:
    with pytest.raises(StateError) as refused:
        life.start()
    return str(refused.value)


def edited(life: Life, old: str, new: str) -> None:
    text = life.state.roots.read_text()
    assert old in text
    life.state.roots.write_text(text.replace(old, new))


def test_a_document_that_is_changed_is_refused(life: Life) -> None:
    up_to(life, "activate")
    edited(life, '"phase": "activated"', '"phase": "switched"')
    text = refusal(life)
    assert "roots.json was not signed by an issuing CA" in text
    assert "restore it from a backup" in text


def test_a_document_of_another_ca_is_refused(life: Life, tmp_path: Path) -> None:
    other = Life(tmp_path / "other")
    other.run()
    prepare(other)
    prepare(life)
    life.state.roots.write_bytes(other.state.roots.read_bytes())
    assert "restore" in refusal(life)


def test_a_root_of_a_stranger_in_the_document_is_refused(life: Life, tmp_path: Path) -> None:
    other = Life(tmp_path / "other")
    other.run()
    prepare(other)
    prepare(life)
    ours, theirs = life.authorities.root_line.new, other.authorities.root_line.new
    assert ours is not None and theirs is not None
    escaped = [certificates_pem([root]).decode().replace("\n", "\\n") for root in (ours, theirs)]
    edited(life, *escaped)
    text = refusal(life)
    assert "root-2" in text or "signed" in text
    assert "restore" in text


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda life: life.state.roots.unlink(), "roots.json"),
        (lambda life: life.state.roots.write_bytes(b"{}"), "is damaged"),
        (lambda life: life.state.roots.write_bytes(b"["), "is damaged"),
        (lambda life: life.state.roots.write_bytes(b"[" * 100_000), "is damaged"),
        (lambda life: edited(life, '"format": 1', '"format": 2'), "later version"),
        (lambda life: edited(life, '"activated"', '"settled"'), "is damaged"),
        (lambda life: edited(life, '"activated"', '"gone"'), "is damaged"),
        (
            lambda life: swap(life.state.ca / "root.crt", life.state.ca / "issuing.crt"),
            "none of the roots",
        ),
        (
            lambda life: swap(
                life.state.private / "root-2.key", life.state.private / "issuing.key"
            ),
            "restore both from one backup",
        ),
    ],
)
def test_what_does_not_fit_is_refused_with_what_to_restore(
    life: Life, damage: Callable[[Life], Any], words: str
) -> None:
    up_to(life, "activate")
    damage(life)
    text = refusal(life)
    assert words in text
    assert str(life.state.ca) in text


def swap(one: Path, other: Path) -> None:
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)


def test_the_document_is_needed_after_a_rotation_too(life: Life) -> None:
    up_to(life, "retire")
    life.state.roots.unlink()
    assert "roots.json, which says what was before it, is gone" in refusal(life)


def test_roots_files_that_lie_crosswise_are_put_right(life: Life) -> None:
    """Each certificate and key is known by itself, whatever the file is called."""
    up_to(life, "activate")
    swap(life.state.ca / "root.crt", life.state.ca / "root-2.crt")
    swap(life.state.private / "root.key", life.state.private / "root-2.key")
    life.start()
    life.run()
    (kept,) = load_certificates(life.state.root_certificate.read_bytes())
    assert kept == life.authorities.root
    assert life.authorities.root_key is not None


def test_a_state_of_an_earlier_version_is_as_it_was(life: Life) -> None:
    before = {path: path.read_bytes() for path in life.state.ca.rglob("*") if path.is_file()}
    life.start()
    life.run()
    assert {p: p.read_bytes() for p in life.state.ca.rglob("*") if p.is_file()} == before
    assert life.authorities.root_line.phase is Phase.SETTLED
    assert life.authorities.root_line.sequence == 0


def test_a_document_is_signed_anew_before_its_signer_goes(life: Life) -> None:
    """The issuing CA that signed it ends one day."""
    up_to(life, "activate")
    revert(life)
    revert(life)
    for _ in range(40):
        life.pass_time(YEAR / 10)
        life.pass_time(2 * HOUR, steps=2)
    assert life.generations[0] > 3
    life.start()
    assert life.authorities.root_line.former
