"""An offline root: what it signs, what it refuses, and what is left of it after a kill between any two steps."""

import asyncio
import re
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from pki.audit.log import Act
from pki.crl.crl import read_crl
from pki.errors import Malformed, PkiError, Refused
from pki.issuing.ca_request import CaRequest
from pki.issuing.upstream import IssuingChain, Wanted
from pki.keys import KeyAlgorithm, key_id
from pki.svid.revocation_set import Reason
from pki.svid.x509svid import certificates_pem
from tests.authorities import DAY, MESH, OTHER, ca_request, key, mesh, sign_crl
from tests.running import BIN, run
from twisted_mesh.cli.ctl.audit_actions import verify_file
from twisted_mesh.keystores.spec import KeySpec
from twisted_mesh.offline import log as log_module
from twisted_mesh.offline import signing
from twisted_mesh.offline.log import BrokenLog
from twisted_mesh.offline.root import OfflineRoot
from twisted_mesh.offline.signing import Signed, Wishes, carry_out, deliver, plan
from twisted_mesh.runtime.clock import RELEASE
from twisted_mesh.state.directory import StateError, write_whole

START = max(RELEASE.at, datetime(2026, 11, 23, 10, tzinfo=RELEASE.at.tzinfo)) + DAY
CSR = ca_request(key("issuing"), MESH, 2)


class Clock:
    """The clock of the offline machine."""

    def __init__(self, at: datetime = START) -> None:
        self.at = at

    def __call__(self) -> datetime:
        return self.at


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def place(tmp_path: Path, clock: Clock) -> Path:
    """A directory with an offline root in it, which nobody has open."""
    path = tmp_path / "root"
    made = OfflineRoot.create(path, MESH, KeySpec(KeyAlgorithm.EC_P256), passphrase=None, now=clock)
    asyncio.run(made).close()
    return path


@pytest.fixture
def root(place: Path, clock: Clock) -> Iterator[OfflineRoot]:
    with closing(OfflineRoot.open(place, None, clock)) as opened:
        yield opened


def sign(root: OfflineRoot, csr: bytes | None = CSR, **wishes: Any) -> Signed:
    return asyncio.run(carry_out(root, plan(root, Wishes(csr, **wishes))))


def refusals(root: OfflineRoot, csr: bytes | None = CSR, **wishes: Any) -> list[str]:
    before = len(root.log.entries)
    with pytest.raises(Refused) as refusal:
        plan(root, Wishes(csr, **wishes))
    assert len(root.log.entries) == before, "a refusal leaves nothing behind"
    return [problem.code for problem in refusal.value.problems]


def test_a_csr_becomes_a_certificate_that_may_be_installed(root: OfflineRoot) -> None:
    signed = sign(root, life=timedelta(days=100))
    request = CaRequest.parse(CSR, MESH)
    wanted = Wanted(MESH, request.subject, request.spki, DAY, root.now())
    assert signed.certificate is not None
    above = root.authority.certificate
    (chain,) = IssuingChain.among([signed.certificate], [above], wanted)
    assert (chain.certificates, chain.root) == ((signed.certificate,), above)
    assert signed.certificate.not_valid_after_utc == root.now() + timedelta(days=100)
    assert signed.generation == 2


def test_the_crl_holds_until_the_last_issuing_ca_ends_and_its_numbers_go_on(
    root: OfflineRoot, clock: Clock
) -> None:
    above = root.authority.certificate
    first = sign(root, life=timedelta(days=100))
    crl = read_crl(first.crl, above, now=clock())
    assert (len(crl), crl.next_update) == (0, clock() + timedelta(days=100))
    second = sign(root, None)
    assert second.certificate is None
    assert read_crl(second.crl, above, now=clock(), seen=first.number).number == second.number
    short = sign(root, None, crl_life=timedelta(days=7))
    assert short.crl_until == clock() + timedelta(days=7)
    long = sign(root, None, crl_life=timedelta(days=36_500))
    assert long.crl_until == above.not_valid_after_utc


def test_every_act_is_in_a_log_that_proves_itself(
    root: OfflineRoot, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sign(root)
    acts = [(entry.act, entry.facts.get("step")) for entry in root.log.entries]
    assert acts == [
        (Act.ADMINISTER, "root-made"),
        (Act.ISSUE, None),
        (Act.ADMINISTER, "root-crl-signed"),
    ]
    assert root.log.entries[1].facts["csr"] == CaRequest.parse(CSR, MESH).fingerprint
    path = root.state.ca / "audit.jsonl"
    verifier = str(root.log.key.verifier)
    assert verify_file(path, verifier, tmp_path, as_json=False) == 0
    assert "ok: 3 entries" in capsys.readouterr().out
    path.write_bytes(path.read_bytes().replace(b"root-made", b"root-fake"))
    assert verify_file(path, verifier, tmp_path, as_json=False) == 1


def test_the_same_csr_gets_the_same_certificate_and_no_second_one(root: OfflineRoot) -> None:
    first, second = sign(root), sign(root)
    assert first.certificate == second.certificate
    assert second.number > first.number
    assert [entry.act for entry in root.log.entries].count(Act.ISSUE) == 1


def test_another_csr_for_a_key_that_is_certified_is_refused(root: OfflineRoot) -> None:
    sign(root)
    another = ca_request(key("issuing"), MESH, 3)
    assert refusals(root, another) == ["already-certified"]
    sign(root, ca_request(key("issuing 3"), MESH, 3))


ODD: dict[str, tuple[Callable[[OfflineRoot], bytes], list[str]]] = {
    "another trust domain's": (
        lambda _: ca_request(key("issuing"), OTHER, 2),
        ["profile-violation", "wrong-trust-domain"],
    ),
    "the root's own key": (
        lambda root: ca_request(root.authority.key, MESH, 2),  # type: ignore[arg-type]
        ["forbidden-key"],
    ),
}


@pytest.mark.parametrize("what", ODD)
def test_what_does_not_fit_is_refused(what: str, root: OfflineRoot) -> None:
    make, codes = ODD[what]
    assert refusals(root, make(root)) == codes


def test_what_is_no_csr_is_refused(root: OfflineRoot) -> None:
    with pytest.raises(Malformed):
        plan(root, Wishes(certificates_pem([root.authority.certificate])))


def test_an_issuing_ca_is_revoked_by_its_key_id_its_serial_or_its_file(
    root: OfflineRoot, tmp_path: Path
) -> None:
    above = root.authority.certificate
    made = [sign(root, ca_request(key(f"revoked {at}"), MESH, at)).certificate for at in (2, 3, 4)]
    first, second, third = [cert for cert in made if cert is not None]
    file = tmp_path / "issuing.crt"
    file.write_bytes(certificates_pem([third]))
    revoke = (key_id(first.public_key()), f"{second.serial_number:x}", str(file))
    signed = sign(root, None, revoke=revoke, reason=Reason.KEY_COMPROMISE)
    crl = read_crl(signed.crl, above, now=root.now())
    assert {revoked.serial for revoked in crl} == {cert.serial_number for cert in made if cert}
    assert {revoked.reason for revoked in crl} == {Reason.KEY_COMPROMISE}
    again = sign(root, None, revoke=revoke)
    assert set(read_crl(again.crl, above, now=root.now())) == set(crl), "the first word counts"
    assert refusals(root, ca_request(key("revoked 2"), MESH, 2)) == ["already-certified"]


def test_a_root_that_has_ended_signs_nothing(root: OfflineRoot, clock: Clock) -> None:
    clock.at = root.authority.validity.not_after + timedelta(seconds=1)
    assert refusals(root, None) == ["issuer-expired"]
    assert set(refusals(root)) == {"issuer-expired"}


def test_what_is_unknown_cannot_be_revoked(root: OfflineRoot, tmp_path: Path) -> None:
    file = tmp_path / "other.crt"
    file.write_bytes(certificates_pem([mesh().issuing.certificate]))
    assert refusals(root, None, revoke=("ab" * 32, str(file))) == ["not-found", "not-found"]
    itself = tmp_path / "root.crt"
    itself.write_bytes(certificates_pem([root.authority.certificate]))
    assert refusals(root, None, revoke=(str(itself),)) == ["not-found"]


def test_one_is_not_certified_and_revoked_at_once(root: OfflineRoot) -> None:
    sign(root)
    known = CaRequest.parse(CSR, MESH).key_id
    assert refusals(root, CSR, revoke=(known,)) == ["already-certified"]


def test_the_files_for_the_ca_are_written(root: OfflineRoot, tmp_path: Path) -> None:
    signed = sign(root)
    files = deliver(root, signed, tmp_path / "stick")
    assert [file.name for file in files] == ["issuing-2.crt", "root.crl", "root.crt"]
    assert all(b"PRIVATE" not in file.read_bytes() for file in files)
    files = deliver(root, sign(root, None), tmp_path / "other")
    assert [file.name for file in files] == ["root.crl", "root.crt"]


# A kill between any two steps: the same command again ends where it should.


class Killed(BaseException):
    """Stands for kill -9."""


@pytest.mark.parametrize("at", range(5))
def test_a_kill_between_two_steps_costs_no_more_than_doing_it_again(
    at: int, place: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = at

    def counted(write: Callable[..., None]) -> Callable[..., None]:
        def wrapped(path: Path, data: bytes, mode: int) -> None:
            nonlocal left
            if not left:
                raise Killed
            left -= 1
            write(path, data, mode)

        return wrapped

    with monkeypatch.context() as patch:
        for module in (signing, log_module):
            patch.setattr(module, "write_whole", counted(write_whole))
        with closing(OfflineRoot.open(place, None, clock)) as root:
            if at < 4:
                with pytest.raises(Killed):
                    sign(root)
            else:
                sign(root)
    clock.at += timedelta(minutes=1)
    with closing(OfflineRoot.open(place, None, clock)) as root:
        signed = sign(root)
        assert signed.certificate is not None
        crl = read_crl(signed.crl, root.authority.certificate, now=clock())
        lost = at == 1
        assert len(crl) == lost, "what may have been signed and was never kept is revoked"
        assert crl.find(signed.certificate.serial_number) is None
        assert sign(root).certificate == signed.certificate


# The directory.


def test_one_works_at_a_time(root: OfflineRoot, place: Path, tmp_path: Path) -> None:
    command = ("ca", "root", "sign", "--root", place, "--out", tmp_path / "out", "--yes")
    done = run(BIN / "mesh-ctl", *command, cwd=tmp_path, env={})
    assert done.returncode == 2
    assert "another mesh-ctl is at work" in done.stderr


def test_the_clock_must_not_be_behind_the_log(place: Path, clock: Clock) -> None:
    clock.at -= timedelta(days=1)
    with pytest.raises(StateError, match="set this machine's clock right"):
        OfflineRoot.open(place, None, clock)


def test_no_root_is_made_by_a_clock_that_cannot_be_right(tmp_path: Path) -> None:
    early = Clock(RELEASE.at - timedelta(days=1))
    made = OfflineRoot.create(
        tmp_path / "x", MESH, KeySpec(KeyAlgorithm.EC_P256), passphrase=None, now=early
    )
    with pytest.raises(StateError, match="clock"):
        asyncio.run(made)


def test_a_directory_that_is_in_use_is_left_alone(
    place: Path, tmp_path: Path, clock: Clock
) -> None:
    for path in (place, _of_a_ca(tmp_path)):
        with pytest.raises(StateError, match="is there already"):
            asyncio.run(
                OfflineRoot.create(
                    path, MESH, KeySpec(KeyAlgorithm.EC_P256), passphrase=None, now=clock
                )
            )


def _of_a_ca(tmp_path: Path) -> Path:
    path = tmp_path / "state"
    (path / "ca").mkdir(parents=True)
    (path / "ca" / "mesh.db").touch()
    return path


def test_what_was_cut_short_is_made_anew(place: Path, clock: Clock) -> None:
    (place / "ca" / "root.crt").unlink()
    making = OfflineRoot.create(
        place, MESH, KeySpec(KeyAlgorithm.EC_P256), passphrase=None, now=clock
    )
    with pytest.raises(StateError, match="no certificate of it"):
        asyncio.run(making)
    (place / "ca" / "unfinished").touch()
    making = OfflineRoot.create(
        place, MESH, KeySpec(KeyAlgorithm.EC_P256), passphrase=None, now=clock
    )
    asyncio.run(making).close()


def test_the_keys_are_encrypted_and_open_with_the_passphrase(tmp_path: Path, clock: Clock) -> None:
    place = tmp_path / "sealed"
    made = OfflineRoot.create(
        place, MESH, KeySpec(KeyAlgorithm.EC_P256), passphrase=b"open", now=clock
    )
    asyncio.run(made).close()
    for name in ("root.key", "audit.key"):
        assert b"ENCRYPTED" in (place / "ca" / "private" / name).read_bytes()
    for wrong in (None, b"other"):
        with pytest.raises(StateError):
            OfflineRoot.open(place, wrong, clock)
    OfflineRoot.open(place, b"open", clock).close()


CHANGED: dict[str, Callable[[bytes], bytes]] = {
    "an entry is edited": lambda log: log.replace(b"root-made", b"root-fake"),
    "the last entry is gone": lambda log: b"".join(log.splitlines(keepends=True)[:-1]),
    "it is cut short": lambda log: log[:-20],
    "it is empty": lambda _: b"",
    "an entry has another place": lambda log: log.replace(b'"position":1', b'"position":7'),
    "an entry is there twice": lambda log: log + log.splitlines(keepends=True)[-1],
    "the text of one is gone": lambda log: re.sub(
        rb'"entry":"[^\n]*issue[^\n]*"}', b'"entry":null}', log
    ),
    "it is another root's": lambda log: log.replace(b"/audit/root-", b"/audit/r00t-"),
}


@pytest.mark.parametrize("what", CHANGED)
def test_a_log_that_was_changed_stops_everything(
    what: str, root: OfflineRoot, place: Path, clock: Clock
) -> None:
    sign(root)
    root.close()
    path = place / "ca" / "audit.jsonl"
    before = path.read_bytes()
    path.write_bytes(CHANGED[what](before))
    assert path.read_bytes() != before
    with pytest.raises(BrokenLog):
        OfflineRoot.open(place, None, clock)


def test_a_certificate_that_was_exchanged_is_found(root: OfflineRoot) -> None:
    signed = sign(root)
    assert signed.certificate is not None
    (kept,) = root.kept.iterdir()
    kept.write_bytes(certificates_pem([mesh().issuing.certificate]))
    assert refusals(root) == ["already-certified"]


def test_another_roots_key_is_no_key_of_it(place: Path, clock: Clock) -> None:
    (place / "ca" / "private" / "root.key").write_bytes(key("other").to_pem())
    with pytest.raises(StateError, match="is not the key"):
        OfflineRoot.open(place, None, clock)


def test_a_root_that_a_ca_had_goes_on_with_what_it_revoked(tmp_path: Path) -> None:
    made = mesh()
    now = Clock(made.root.certificate.not_valid_before_utc + timedelta(hours=1))
    files = {
        "root.key": made.root.key.to_pem(),  # type: ignore[attr-defined]
        "root.crt": certificates_pem([made.root.certificate]),
        "root.crl": sign_crl(made.root, number=9 * 10**12, next_update=now() + DAY, serials=(5, 7)),
        "issuing.crt": certificates_pem([made.issuing.certificate]),
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
        (tmp_path / name).chmod(0o600)
    place = tmp_path / "offline"
    brought = OfflineRoot.adopt(
        place,
        tmp_path / "root.key",
        tmp_path / "root.crt",
        crl_file=tmp_path / "root.crl",
        passphrase=None,
        now=now,
    )
    with closing(asyncio.run(brought)) as root:
        signed = sign(root, None, revoke=(str(tmp_path / "issuing.crt"),))
        crl = read_crl(signed.crl, made.root.certificate, now=now())
        assert {each.serial for each in crl} == {5, 7, made.issuing.certificate.serial_number}
        assert signed.number == 9 * 10**12 + 1
    with closing(OfflineRoot.open(place, None, now)) as root:
        assert root.acts.revoked.keys() == {5, 7, made.issuing.certificate.serial_number}


def test_files_of_two_roots_are_refused(tmp_path: Path, clock: Clock) -> None:
    (tmp_path / "root.crt").write_bytes(certificates_pem([mesh().root.certificate]))
    (tmp_path / "root.key").write_bytes(key("other").to_pem())
    (tmp_path / "root.key").chmod(0o600)
    making = OfflineRoot.adopt(
        tmp_path / "x",
        tmp_path / "root.key",
        tmp_path / "root.crt",
        crl_file=None,
        passphrase=None,
        now=clock,
    )
    with pytest.raises(PkiError, match="name the two of one root"):
        asyncio.run(making)
    assert not (tmp_path / "x").exists()


def test_a_directory_without_a_root_is_said_to_have_none(tmp_path: Path, clock: Clock) -> None:
    with pytest.raises(StateError, match="there is no offline root"):
        OfflineRoot.open(tmp_path, None, clock)
