"""A signer: what it has let through is on the disk before it is signed, whenever it is killed; and it remembers."""

import hashlib
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred, execute

from pki.audit.log import Checkpoint
from pki.crl.issue import issue_crl
from pki.crl.schedule import Span
from pki.errors import Malformed, PkiError
from pki.keys import KeyAlgorithm, spki_der, verify
from pki.signing.errors import NotSignable, SigningRefused
from pki.signing.memory import pin_of
from pki.svid.revocation_set import Reason, Revocation
from tests.authorities import BACKEND, HOUR, MESH, NOW, OTHER, key
from tests.twisted_mesh.signer.rig import AUDIT, BY, ISSUING, ROOT, Ca, Rig, done, snapshot
from twisted_mesh.limits.rate_limit import Rate, RateLimited
from twisted_mesh.runtime.meters import Readings
from twisted_mesh.signer.errors import SignerStateError, UnknownKey
from twisted_mesh.signer.keyring import Keyring
from twisted_mesh.signer.messages import SignRequest, WhereaboutsRequest
from twisted_mesh.signer.meters import OF_A_SIGNER
from twisted_mesh.signer.record import Record
from twisted_mesh.signer.service import Signer
from twisted_mesh.signer.signing_log import SigningLog

PROBE = b"twisted-mesh: does this key sign? now"


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path)
    yield made
    made.close()


def leaf(rig: Rig, ca: Ca) -> bytes:
    draft = ca.issuing.draft(key(1).public_key, BACKEND, rig.now(), HOUR)
    return draft.tbs


def crl(ca: Ca, rig: Rig, number: int, serials: list[int]) -> bytes:
    span = Span.starting(rig.now(), HOUR)
    listed = [
        Revocation(ca.issuing.key_id, serial, rig.now(), Reason.KEY_COMPROMISE, rig.now())
        for serial in serials
    ]
    times = {"this_update": span.this_update, "next_update": span.next_update}
    return done(issue_crl(ca.issuing, listed, number, **times))


# Keys.


def test_a_key_is_made_signs_and_is_there_again_after_a_restart(rig: Rig) -> None:
    made = rig.make(label="mesh.local issuing-1")
    assert (made.name, made.purpose, made.algorithm) == ("issuing-1", ISSUING, "ec-p256")
    again = rig.again()
    try:
        (shown,) = again.signer.keys().keys
        assert shown == made
        held = again.record.key("issuing-1").held
        verify(held.public_key, again.sign("issuing-1", PROBE), PROBE, KeyAlgorithm.EC_P256.hash)
    finally:
        again.close()


def test_each_key_is_another_and_has_a_name_of_its_own(rig: Rig) -> None:
    names = [rig.make(purpose).name for purpose in (ISSUING, ISSUING, ROOT)]
    assert names == ["issuing-1", "issuing-2", "root-1"]
    assert len({k.public_key for k in rig.signer.keys().keys}) == 3


@pytest.mark.parametrize(
    ("purpose", "algorithm", "label"),
    [
        (ISSUING, "dsa", "x"),
        (ISSUING, "", "x"),
        (ISSUING, "ec-p256", ""),
        (ISSUING, "ec-p256", "a\nb"),
        (ISSUING, "ec-p256", "x" * 121),
    ],
)
def test_what_is_no_key(rig: Rig, purpose: Any, algorithm: str, label: str) -> None:
    with pytest.raises(Malformed):
        rig.make(purpose, algorithm, label)
    assert rig.signer.keys().keys == ()


def test_there_are_as_many_keys_as_the_policy_lets(tmp_path: Path) -> None:
    from pki.signing.policy import SigningPolicy

    rig = Rig(tmp_path, SigningPolicy(MESH, max_keys=2))
    rig.make(), rig.make()
    with pytest.raises(SigningRefused) as caught:
        rig.make()
    assert caught.value.rule == "max-keys"
    rig.close()


def test_a_key_file_that_was_exchanged_is_not_signed_with(rig: Rig) -> None:
    rig.make(), rig.make()
    one, other = (rig.home / f"issuing-{n}.key" for n in (1, 2))
    one.write_bytes(other.read_bytes())
    with pytest.raises(Malformed, match="not the key"):
        rig.again()


def test_there_is_no_key_of_another_name(rig: Rig) -> None:
    for name in ("issuing-1", "../issuing-1", "", "signer.db"):
        with pytest.raises(UnknownKey):
            rig.sign(name, PROBE)
        with pytest.raises(UnknownKey):
            done(rig.signer.whereabouts(WhereaboutsRequest(name)))


def test_a_key_in_a_file_says_so(rig: Rig) -> None:
    made = rig.make()
    found = done(rig.signer.whereabouts(WhereaboutsRequest(made.name)))
    assert (found.store, found.is_extractable) == ("files", True)


# What it remembers.


def test_a_ca_begins_and_issues_and_all_of_it_is_in_the_log(rig: Rig) -> None:
    ca = rig.ca()
    data = leaf(rig, ca)
    rig.sign(ca.name, data)
    crl(ca, rig, 1, [])
    assert [(line.event, line.key, line.kind) for line in rig.lines()] == [
        ("key", "root-1", "root"),
        ("key", "issuing-1", "issuing"),
        ("sign", "root-1", "certificate"),
        ("sign", "root-1", "certificate"),
        ("sign", "issuing-1", "certificate"),
        ("sign", "issuing-1", "crl"),
    ]
    last = rig.lines()[4]
    assert last.sha256 == hashlib.sha256(data).hexdigest()
    assert last.by == "uid:1000"
    assert last.facts["uri"] == str(BACKEND)


def test_a_list_shrinks_no_more_after_a_restart(rig: Rig) -> None:
    ca = rig.ca()
    serial = done(ca.issuing.sign(ca.issuing.draft(key(1).public_key, BACKEND, NOW, HOUR)))
    crl(ca, rig, 5, [serial.serial_number])
    again = rig.again()
    ca.issuing.key.rig = again  # type: ignore[attr-defined]
    try:
        for number, serials, rule in (
            (6, [], "crl-drops"),
            (5, [], "crl-number"),
            (4, [serial.serial_number], "crl-number"),
        ):
            with pytest.raises(SigningRefused) as caught:
                crl(ca, again, number, serials)
            assert caught.value.rule == rule
        again.ahead = HOUR + timedelta(minutes=2)
        crl(ca, again, 6, [])
        again.ahead = timedelta(days=30)  # what has ended long ago is forgotten
        crl(ca, again, 7, [])
        assert again.record.certified(again.record.key(ca.name).held, serial.serial_number) is None
    finally:
        again.close()


def test_a_root_certifies_what_a_person_has_approved(rig: Rig) -> None:
    ca = rig.ca()
    foreign = key("kept elsewhere").public_key
    draft = ca.root.draft_issuing(foreign, MESH, NOW, 2)
    with pytest.raises(SigningRefused) as caught:
        done(ca.root.sign(draft))
    assert caught.value.rule == "ca-key"
    pin = pin_of(spki_der(foreign))
    with rig.record.changing():
        rig.record.approve(pin, NOW + HOUR, "person:uid:0")
    done(ca.root.sign(draft))
    approved, signed = rig.lines()[-2:]
    assert (approved.event, approved.by, approved.facts["pin"]) == ("approve", "person:uid:0", pin)
    assert signed.facts["pin"] == pin
    rig.ahead = HOUR + timedelta(seconds=1)
    with pytest.raises(SigningRefused):
        done(ca.root.sign(ca.root.draft_issuing(foreign, MESH, rig.now(), 3)))


def test_a_ca_whose_root_is_elsewhere_is_shown_to_the_signer(rig: Rig) -> None:
    from tests.authorities import mesh
    from tests.twisted_mesh.signer.rig import RemoteKey

    there = mesh()
    issuing = done(there.root.create_issuing(RemoteKey(rig, rig.make()), MESH, NOW))
    with rig.record.changing():
        assert rig.record.adopt(issuing.certificate, "person:uid:0") == "issuing-1"
        rig.record.adopt(issuing.certificate, "person:uid:0")
        with pytest.raises(UnknownKey):
            rig.record.adopt(there.issuing.certificate, "person:uid:0")
    held = rig.record.key("issuing-1").held
    assert rig.record.certificates_of(held) == [issuing.certificate]
    rig.sign("issuing-1", PROBE)
    assert [(line.event, line.by) for line in rig.lines()[-2:]] == [
        ("adopt", "person:uid:0"),
        ("sign", BY),
    ]


# Refused.


def test_a_refusal_is_in_the_log_and_changes_nothing(rig: Rig) -> None:
    ca = rig.ca()
    draft = ca.issuing.draft(key(1).public_key, OTHER.member("service", "a"), NOW, HOUR)
    with pytest.raises(SigningRefused) as caught:
        done(ca.issuing.sign(draft))
    assert caught.value.rule == "trust-domain"
    last = rig.lines()[-1]
    assert (last.event, last.facts["rule"]) == ("refuse", "trust-domain")
    with pytest.raises(NotSignable):
        rig.sign(ca.name, hashlib.sha256(b"a digest").digest())
    assert rig.lines()[-1].facts["rule"] == "not-signable"


def test_whoever_is_refused_again_and_again_does_not_fill_the_disk(tmp_path: Path) -> None:
    left = [True] * 3
    rig = Rig(tmp_path, refusals=lambda: bool(left and left.pop()))
    made = rig.make()
    for _ in range(10):
        with pytest.raises(NotSignable):
            rig.sign(made.name, b"x")
    assert [line.event for line in rig.lines()] == ["key", *["refuse"] * 3]
    rig.close()


def test_certificates_use_up_their_rate_and_not_that_of_lists(tmp_path: Path) -> None:
    rig = Rig(tmp_path, certificates=Rate(1, 5), revocation=Rate(1, 2))
    ca = rig.ca()  # whose two CA certificates count
    for _ in range(3):
        rig.sign(ca.name, leaf(rig, ca))
    with pytest.raises(RateLimited) as caught:
        rig.sign(ca.name, leaf(rig, ca))
    assert caught.value.retry_after == 1
    crl(ca, rig, 1, []), crl(ca, rig, 2, [])
    with pytest.raises(RateLimited):
        crl(ca, rig, 3, [])
    rig.clock.advance(1)
    rig.sign(ca.name, leaf(rig, ca))
    crl(ca, rig, 3, [])
    rig.close()


def test_a_flood_of_nonsense_uses_up_no_rate_of_certificates(tmp_path: Path) -> None:
    rig = Rig(tmp_path, certificates=Rate(1, 3), revocation=Rate(1, 2))
    ca = rig.ca()
    for _ in range(50):
        with pytest.raises(NotSignable):
            rig.sign(ca.name, b"nonsense")
    rig.sign(ca.name, leaf(rig, ca))
    rig.close()


# Killed.


def test_whenever_it_is_killed_no_signature_is_without_its_line(
    rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the disk holds at each step is what kill -9 leaves; each is started from again."""
    ca, out = rig.ca(), tmp_path.parent / f"{tmp_path.name}-left"
    data = leaf(rig, ca)
    left: list[tuple[Path, bool]] = []
    signatures: list[bytes] = []

    def watch(owner: type, name: str) -> None:
        real = getattr(owner, name)

        def around(*words: Any, **named: Any) -> Any:
            left.append((snapshot(rig.home, out / f"{len(left)}"), bool(signatures)))
            found = real(*words, **named)
            left.append((snapshot(rig.home, out / f"{len(left)}"), bool(signatures)))
            return found

        patched.setattr(owner, name, around)

    real_sign = Keyring.sign

    async def signing(*words: Any) -> bytes:
        left.append((snapshot(rig.home, out / f"{len(left)}"), False))
        made = await real_sign(*words)
        signatures.append(made)
        left.append((snapshot(rig.home, out / f"{len(left)}"), True))
        return made

    with monkeypatch.context() as patched:
        watch(SigningLog, "append")
        watch(Record, "apply")
        watch(Record, "forget_ended")
        patched.setattr(Keyring, "sign", signing)
        rig.sign(ca.name, data)
    assert [is_signed for _, is_signed in left] == [False] * 7 + [True]
    digest = hashlib.sha256(data).hexdigest()
    with_line = 0
    for home, is_signed in left:
        again = Rig(home)
        logged = [line.sha256 for line in again.lines() if line.event == "sign"]
        assert not is_signed or digest in logged
        with_line += digest in logged
        # It goes on from there: the same is signed, and is in the log.
        assert again.sign(ca.name, data)
        assert digest in [line.sha256 for line in again.lines()]
        again.close()
        again = Rig(home)
        again.close()
    assert 0 < with_line < len(left)


def test_while_nothing_can_be_written_nothing_is_signed(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os

    ca = rig.ca()
    signed = []
    real = Keyring.sign

    async def signing(*words: Any) -> bytes:
        signed.append(words)
        return await real(*words)

    monkeypatch.setattr(Keyring, "sign", signing)

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    data = leaf(rig, ca)
    with monkeypatch.context() as patched:
        patched.setattr(os, "write", full)
        with pytest.raises(SignerStateError, match="No space left"):
            rig.sign(ca.name, data)
        assert rig.signer.problem is not None
        assert not signed
        # Whoever only looks hears of it too, and so does not take the signer for one that signs.
        assert "No space left" in rig.whereabouts(ca.name).problem
    assert rig.whereabouts(ca.name).problem == ""
    assert rig.signer.problem is None
    assert rig.sign(ca.name, data)
    assert signed
    assert rig.signer.problem is None


def test_what_was_signed_and_refused_is_counted(rig: Rig) -> None:
    ca = rig.ca()
    rig.sign(ca.name, leaf(rig, ca))
    foreign = ca.issuing.draft(key(1).public_key, OTHER.member("service", "a"), NOW, HOUR)
    with pytest.raises(SigningRefused):
        rig.sign(ca.name, foreign.tbs)
    shown = {
        (sample.name, *sample.labels.values()): sample.value
        for family in Readings(rig.signer, OF_A_SIGNER).collect()
        for sample in family.samples
    }
    assert shown["mesh_signer_ready",] == 1
    assert shown["mesh_signer_keys", "root"] == shown["mesh_signer_keys", "issuing"] == 1
    assert shown["mesh_signer_signatures_total", "certificate"] == 3
    assert shown["mesh_signer_refused_total", "trust-domain"] == 1


def test_an_older_record_is_not_gone_on_with(rig: Rig, tmp_path: Path) -> None:
    """It would let a list shrink that was signed since."""
    ca = rig.ca()
    old = snapshot(rig.home, tmp_path.parent / f"{tmp_path.name}-old")
    for number in (1, 2):
        crl(ca, rig, number, [7])
    rig.close()
    for name in ("signer.db", "signer.db-wal", "signer.db-shm"):
        (rig.home / name).unlink(missing_ok=True)
        if (old / name).exists():
            (rig.home / name).write_bytes((old / name).read_bytes())
    with pytest.raises(SignerStateError, match="put back by an older one"):
        Rig(rig.home)


@pytest.mark.parametrize(
    "sql",
    [
        "CREATE TRIGGER undo AFTER INSERT ON crls BEGIN DELETE FROM listed; END",
        "CREATE VIEW shown AS SELECT * FROM keys",
        "DROP TABLE approvals",
    ],
)
def test_a_record_that_acts_by_itself_is_refused(rig: Rig, sql: str) -> None:
    import sqlite3

    rig.close()
    connection = sqlite3.connect(rig.home / "signer.db")
    connection.execute(sql)
    connection.close()
    with pytest.raises(SignerStateError, match="not as this program makes them"):
        Rig(rig.home)


def test_a_record_of_an_earlier_version_gets_what_it_lacks(rig: Rig) -> None:
    import sqlite3

    ca = rig.ca()
    rig.close()
    connection = sqlite3.connect(rig.home / "signer.db", isolation_level=None)
    connection.execute("DROP TABLE precertificates")
    connection.execute("UPDATE meta SET value = '1' WHERE name = 'version'")
    connection.close()
    again = Rig(rig.home)
    try:
        assert again.record.key(ca.name).held.name == ca.name
        assert again.record.precertified(again.record.key(ca.name).held, 1) is None
    finally:
        again.close()
    connection = sqlite3.connect(rig.home / "signer.db", isolation_level=None)
    connection.execute("CREATE TABLE more (x TEXT) STRICT")
    connection.execute("UPDATE meta SET value = '1' WHERE name = 'version'")
    connection.close()
    with pytest.raises(SignerStateError, match="not as this program makes them"):
        Rig(rig.home)


def test_what_was_a_precertificate_only_leaves_the_list_when_it_has_ended(rig: Rig) -> None:
    ca = rig.ca()
    shown = done(
        ca.issuing.sign(ca.issuing.draft(key(1).public_key, BACKEND, NOW, HOUR).precertificate())
    )
    held = rig.record.key(ca.name).held
    assert rig.record.certified(held, shown.serial_number) is None
    crl(ca, rig, 1, [shown.serial_number])
    with pytest.raises(SigningRefused, match="crl-drops"):
        crl(ca, rig, 2, [])
    rig.ahead = HOUR + timedelta(minutes=2)
    crl(ca, rig, 2, [])
    rig.ahead = timedelta(days=30)
    crl(ca, rig, 3, [])
    assert rig.record.precertified(held, shown.serial_number) is None


def test_a_record_is_of_one_trust_domain(rig: Rig) -> None:
    from pki.signing.policy import SigningPolicy

    rig.close()
    with pytest.raises(SignerStateError, match="other"):
        Rig(rig.home, SigningPolicy(OTHER))


def test_many_that_ask_at_once_are_judged_one_after_the_other(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two lists of one number: one of them is signed."""
    ca = rig.ca()
    waiting: list[Deferred[None]] = []

    def later(call: Any, *words: Any, **named: Any) -> Any:
        gate: Deferred[None] = Deferred()
        waiting.append(gate)
        return gate.addCallback(lambda _: call(*words, **named))

    rig.signer.judging.defer = later
    datas: list[bytes] = []

    async def capture(_: Signer, asked: SignRequest, by: str) -> Any:
        datas.append(asked.data)
        raise Malformed("captured")

    with monkeypatch.context() as patched:
        patched.setattr(Signer, "sign", capture)
        for serials in ([1], [2]):
            with pytest.raises(PkiError):
                crl(ca, rig, 1, serials)
    outcomes: list[Any] = []
    for data in datas:
        work = Deferred.fromCoroutine(rig.signer.sign(SignRequest(ca.name, data), "uid:0"))
        work.addBoth(outcomes.append)
    rig.signer.keyring.defer = execute  # type: ignore[assignment]
    while waiting:
        waiting.pop().callback(None)
    assert len(outcomes) == 2
    refused = [one for one in outcomes if hasattr(one, "check")]
    assert len(refused) == 1
    assert refused[0].value.rule == "crl-number"


def test_a_log_key_remains_that_of_its_log_whatever_another_key_signs(rig: Rig) -> None:
    """A thief has a second key made: the first one is not free to sign for another log after that."""
    first, second = (rig.make(AUDIT, "ed25519", str(number)).name for number in (1, 2))

    def checkpoint(size: int, origin: str = "mesh.local/audit") -> bytes:
        return Checkpoint(origin, size, bytes(32), NOW).text.encode()

    rig.sign(first, checkpoint(5))
    rig.sign(second, checkpoint(7))
    for data, rule in (
        (checkpoint(9, "mesh.local/other"), "log-origin"),
        (checkpoint(6), "log-shrinks"),
    ):
        with pytest.raises(SigningRefused) as caught:
            rig.sign(first, data)
        assert caught.value.rule == rule
    rig.sign(first, checkpoint(8))
