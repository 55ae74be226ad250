"""The keys that sign JWT-SVIDs, month after month: published first, recorded first, and whole after every kill."""

import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from attrs import define, field
from twisted.internet.task import Clock
from twisted.logger import LogEvent

from pki.audit.log import Act, Entry
from pki.errors import PkiError
from pki.jwt_svid.claims import JwtClaims, sign_token
from pki.jwt_svid.rotation import PUBLISHED_FOR, KeyState, Rules
from pki.jwt_svid.validator import JwtSvidRefused, validate
from pki.keys import KeyAlgorithm, key_id
from pki.keys.pkcs8 import is_encrypted
from pki.policy.policy import Forbidden
from pki.policy.principal import Principal, administrator, workload
from pki.spiffe import SpiffeId
from pki.svid.bundle import TrustBundle
from tests.authorities import BACKEND, DAY, HOUR, MESH, NOW, mesh
from tests.twisted_mesh.ca.rigs import LIFETIMES, at_once, result_of
from tests.twisted_mesh.ca.writes import Killed, kill_before_write
from twisted_mesh.backup.archive import NAME
from twisted_mesh.ca.authorities import Authorities, CurrentAuthorities
from twisted_mesh.ca.jwt_files import JwtFiles
from twisted_mesh.ca.jwt_keys import JwtKeys, UnknownJwtKey
from twisted_mesh.ca.notifier import Notifier
from twisted_mesh.state.directory import StateDirectory, StateError
from twisted_mesh.state.key_files import KeyFiles
from twisted_mesh.stores.records import StoreError

ADMIN = administrator("unix:uid:0")
HOME = mesh()
LIFE = 8 * DAY


@define(eq=False)
class Recorder:
    """The audit log: what was to be recorded."""

    now: datetime = NOW
    acts: list[Entry] = field(factory=list)
    is_broken: bool = False

    async def record(self, act: Act, object: str, facts: dict[str, str], by: Principal) -> None:
        if self.is_broken:
            raise StoreError("store memory: the disk is full: free some space")
        self.acts.append(Entry(self.now, act, by.evidence, object, facts))


@define(eq=False)
class Life:
    """The JWT keys on one state directory, from start to start."""

    home: Path
    time: datetime = NOW
    passphrase: bytes | None = None
    algorithm: KeyAlgorithm = KeyAlgorithm.EC_P256
    longest: timedelta = HOUR
    root: str = key_id(HOME.root.certificate.public_key())
    log: Recorder = field(factory=Recorder)
    clock: Clock = field(factory=Clock)
    notifier: Notifier = field(init=False)
    current: CurrentAuthorities = field(init=False)
    keys: JwtKeys = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.state.prepare()
        self.start()

    @property
    def state(self) -> StateDirectory:
        return StateDirectory(self.home / "state")

    def start(self) -> None:
        """As after a stop, or a kill."""
        self.state.sweep()
        self.clock = Clock()
        self.notifier = Notifier(self.clock)
        authorities = Authorities(HOME.root.certificate, None, HOME.issuing)
        self.current = CurrentAuthorities(MESH, LIFETIMES, authorities, self.notifier)
        files = KeyFiles(self.state.private, self.passphrase)
        files.check()
        self.keys = JwtKeys(
            self.current,
            JwtFiles(self.state, files, self.root),
            self.log,  # type: ignore[arg-type]
            Rules(self.algorithm, LIFE, self.longest),
            lambda: self.time,
            self.clock,
            at_once,
        )
        self.keys.load()

    def run(self) -> None:
        result_of(self.keys.attend())
        self.keys.startService()

    def pass_time(self, duration: timedelta, steps: int = 1) -> None:
        for _ in range(steps):
            self.time += duration / steps
            self.clock.advance((duration / steps).total_seconds())

    @property
    def states(self) -> list[KeyState]:
        return [key.state for key in self.keys.line.keys]

    @property
    def steps(self) -> list[str]:
        return [act.facts["step"] for act in self.log.acts]

    def files(self) -> list[str]:
        """The private halves."""
        return sorted(path.name for path in self.state.private.glob("*"))

    def named(self, *kids: str) -> list[str]:
        return sorted(f"jwt_{kid[:16]}.key" for kid in kids)

    def token(self) -> str:
        claims = JwtClaims(BACKEND, ("a",), self.time, self.time + self.longest, "1")
        return str(result_of(sign_token(claims, self.keys.signer)))

    def is_good(self, token: str) -> bool:
        """As whoever has the bundle of the moment says."""
        bundle = TrustBundle.from_jwks(MESH, self.current.bundle().to_jwks())
        try:
            validate(token, "a", {MESH: bundle.to_jwt_bundle()}, self.time)
        except JwtSvidRefused:
            return False
        return True


@pytest.fixture
def life(tmp_path: Path) -> Life:
    made = Life(tmp_path)
    made.run()
    return made


def test_the_first_key_is_there_at_the_first_start_and_later_starts_keep_it(life: Life) -> None:
    assert life.states == [KeyState.ACTIVE]
    assert life.steps == ["jwt-prepared", "jwt-activated"]
    token, (key,) = life.token(), life.keys.line.keys
    assert life.files() == life.named(key.kid)
    assert (life.state.private / life.files()[0]).stat().st_mode & 0o777 == 0o600
    life.start()
    life.run()
    assert life.keys.line.keys == (key,)
    assert life.is_good(token)
    assert len(life.steps) == 2


def test_months_in_which_every_token_is_good_to_its_end(life: Life) -> None:
    tokens: list[tuple[datetime, str]] = []
    sequence = 0
    for _ in range(60 * 2):
        life.pass_time(12 * HOUR, steps=12)
        end = life.time + life.longest
        tokens = [(until, token) for until, token in tokens if until > life.time]
        assert all(life.is_good(token) for _, token in tokens)
        tokens.append((end, life.token()))
        # Nothing is signed by what was not published before.
        active = life.keys.line.active
        assert active is not None
        assert active is life.keys.line.keys[0] or life.time - active.published_at >= PUBLISHED_FOR
        assert life.current.bundle().sequence >= sequence
        sequence = life.current.bundle().sequence
        assert len(life.keys.line.keys) <= 3
    assert life.steps.count("jwt-activated") in (7, 8)
    assert life.steps.count("jwt-forgotten") in (5, 6, 7)


def test_who_waits_for_the_bundle_is_told_of_a_new_key_and_not_of_its_first_signature(
    life: Life,
) -> None:
    number = life.notifier.number
    life.pass_time(6 * DAY)
    assert life.states == [KeyState.ACTIVE, KeyState.PREPARED]
    life.clock.advance(1)  # an issue comes out a little later
    assert life.notifier.number > number
    number = life.notifier.number
    life.pass_time(2 * DAY)
    life.clock.advance(1)
    assert life.states == [KeyState.RETIRED, KeyState.ACTIVE]
    assert life.notifier.number == number


def test_the_private_half_goes_when_a_key_is_retired(life: Life) -> None:
    life.pass_time(8 * DAY, steps=8)
    line = life.keys.line
    assert line.active is not None
    assert life.states == [KeyState.RETIRED, KeyState.ACTIVE]
    assert life.files() == life.named(line.active.kid)


@pytest.mark.parametrize("restart", [False, True], ids=["running", "restarted"])
def test_a_clock_that_is_ahead_for_a_moment_makes_nobodys_token_worthless(
    life: Life, restart: bool
) -> None:
    token = life.token()
    result_of(life.keys.rotate(ADMIN, at_once=True))
    life.time += 30 * DAY
    life.clock.advance(1)
    if restart:
        life.start()
        life.keys.startService()
    life.clock.advance(1)
    life.time -= 30 * DAY
    life.clock.advance(1)
    assert life.is_good(token)


def test_a_clock_that_was_ahead_for_a_day_leaves_a_key_that_rotates(life: Life) -> None:
    life.time += 9000 * DAY
    life.clock.advance(1)
    life.pass_time(PUBLISHED_FOR)
    assert life.states[-1] is KeyState.ACTIVE
    life.time -= 9000 * DAY
    life.start()
    life.run()
    token = life.token()
    life.pass_time(HOUR / 2, steps=30)
    active = life.keys.line.active
    assert active is not None
    assert active.active_at is not None
    assert active.active_at <= life.time
    assert life.is_good(token)
    assert life.is_good(life.token())
    life.pass_time(2 * HOUR, steps=120)
    assert life.states == [KeyState.ACTIVE]


def test_a_key_is_recorded_before_it_counts(life: Life) -> None:
    before = life.keys.line
    life.log.is_broken = True
    life.pass_time(6 * DAY)
    assert life.keys.line == before
    assert isinstance(life.keys.last_problem, StoreError)
    life.pass_time(3 * DAY, steps=10)
    assert life.token()  # by the one that there is, whatever its age
    life.log.is_broken = False
    life.pass_time(HOUR, steps=60)
    assert life.states == [KeyState.RETIRED, KeyState.ACTIVE]
    assert life.keys.last_problem is None


def test_without_any_key_nothing_is_signed_and_the_reason_is_told(tmp_path: Path) -> None:
    life = Life(tmp_path)
    life.log.is_broken = True
    with pytest.raises(PkiError, match="no JWT key"):
        life.token()
    life.run()
    with pytest.raises(StoreError, match="disk is full"):
        life.token()


@pytest.mark.parametrize("number", range(8))
def test_a_kill_between_any_two_writes_leaves_a_state_that_loads(
    life: Life, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a rotation at once: a key is drawn, published, put to use; its predecessor's private half goes."""
    token = life.token()
    with monkeypatch.context() as patch:
        done = kill_before_write(number, patch)
        killed = False
        try:
            result_of(life.keys.rotate(ADMIN, at_once=True))
        except Killed:
            killed = True
    assert killed == (number < 4), done
    life.start()
    life.run()
    assert life.is_good(token)
    assert life.is_good(life.token())
    wanted = [k.kid for k in life.keys.line.keys if k.state is not KeyState.RETIRED]
    assert life.files() == life.named(*wanted)
    document = json.loads((life.state.ca / "jwt-keys").read_text())
    assert document["sequence"] == life.current.bundle().sequence


def test_rotating_publishes_first_and_no_token_is_refused(life: Life) -> None:
    token = life.token()
    result_of(life.keys.rotate(ADMIN, reason="why"))
    assert life.states == [KeyState.ACTIVE, KeyState.PREPARED]
    assert life.log.acts[-1].facts["reason"] == "why"
    assert life.log.acts[-1].actor == "unix:uid:0"
    prepared = life.keys.line.prepared
    assert prepared is not None
    assert life.keys.planned(prepared) == life.time + PUBLISHED_FOR
    count = len(life.steps)
    result_of(life.keys.rotate(ADMIN))
    assert len(life.steps) == count, "what is on its way already is not asked for twice"
    life.start()
    life.run()
    life.pass_time(PUBLISHED_FOR)
    assert life.states == [KeyState.RETIRED, KeyState.ACTIVE]
    assert life.is_good(token)


@pytest.mark.parametrize("number", range(3), ids=["retired", "active", "prepared"])
def test_a_key_that_is_retired_by_hand_makes_its_tokens_worthless_at_once(
    life: Life, number: int
) -> None:
    token = life.token()
    result_of(life.keys.rotate(ADMIN, at_once=True))
    second = life.token()
    result_of(life.keys.rotate(ADMIN))
    victim = life.keys.line.keys[number]
    result_of(life.keys.retire(ADMIN, victim.kid, "stolen"))
    assert [life.is_good(token), life.is_good(second)] == [number != 0, number != 1]
    assert life.is_good(life.token())
    assert life.keys.line.find(victim.kid) is None
    assert life.log.acts[-1].facts["step"] == "jwt-withdrawn"
    assert life.named(victim.kid)[0] not in life.files()
    life.start()
    assert life.keys.line.find(victim.kid) is None


def test_only_an_administrator_changes_keys_and_only_those_that_there_are(life: Life) -> None:
    somebody = workload(SpiffeId.parse(str(BACKEND)), 1)
    for asked in (life.keys.rotate(somebody), life.keys.retire(somebody, "0" * 64)):
        with pytest.raises(Forbidden):
            result_of(asked)
    with pytest.raises(UnknownJwtKey, match="mesh-ctl jwt list"):
        result_of(life.keys.retire(ADMIN, "0" * 64))


def test_another_algorithm_is_published_and_then_signs(life: Life) -> None:
    life.algorithm = KeyAlgorithm.EC_P384
    life.start()
    life.run()
    assert [key.algorithm for key in life.keys.line.keys] == [
        KeyAlgorithm.EC_P256,
        KeyAlgorithm.EC_P384,
    ]
    life.pass_time(PUBLISHED_FOR)
    assert life.keys.signer.algorithm is KeyAlgorithm.EC_P384


def test_longer_tokens_keep_the_key_published_for_longer(life: Life) -> None:
    life.longest = 3 * HOUR
    life.start()
    life.run()
    token = life.token()
    result_of(life.keys.rotate(ADMIN, at_once=True))
    life.longest = HOUR
    life.start()
    life.run()
    life.pass_time(3 * HOUR - timedelta(seconds=1), steps=100)
    assert life.is_good(token)


def test_keys_are_sealed_with_the_passphrase(life: Life) -> None:
    token = life.token()
    life.passphrase = b"correct horse"
    life.start()
    (name,) = life.files()
    assert is_encrypted((life.state.private / name).read_bytes())
    assert life.is_good(token)
    assert life.is_good(life.token())
    life.passphrase = None
    with pytest.raises(StateError, match="--key-passphrase-file"):
        life.start()


def test_a_key_whose_private_half_is_gone_is_replaced_and_its_tokens_stay_good(
    life: Life, logged: Sequence[LogEvent]
) -> None:
    token = life.token()
    (life.state.private / life.files()[0]).unlink()
    life.start()
    life.run()
    assert life.states == [KeyState.RETIRED, KeyState.ACTIVE]
    assert life.is_good(token)
    assert life.is_good(life.token())
    assert "jwt-key-gone" in [event["event"] for event in logged]


def test_a_prepared_key_without_its_private_half_is_dropped(life: Life) -> None:
    result_of(life.keys.rotate(ADMIN))
    prepared = life.keys.line.prepared
    assert prepared is not None
    (life.state.private / life.named(prepared.kid)[0]).unlink()
    life.start()
    assert life.states == [KeyState.ACTIVE]


def test_keys_of_another_root_are_nobodys(life: Life, logged: Sequence[LogEvent]) -> None:
    token = life.token()
    life.root = "0" * 64
    life.start()
    life.run()
    assert not life.is_good(token)
    assert life.states == [KeyState.ACTIVE]
    assert len(life.files()) == 1
    assert "jwt-keys-foreign" in [event["event"] for event in logged]


DAMAGED = {
    "empty": "",
    "no JSON": "{",
    "a later format": '{"format":2,"root":"","sequence":1,"keys":[]}',
    "another member": '{"format":1,"root":"","sequence":1,"keys":[],"more":1}',
    "no key": '{"format":1,"root":"ROOT","sequence":1,"keys":[{"jwk":{},"algorithm":"ec-p256",'
    '"published_at":"2026-11-23T10:00:00Z","active_at":null,"retired_at":null,"longest":1,"hurried":false}]}',
}


@pytest.mark.parametrize("document", DAMAGED.values(), ids=DAMAGED.keys())
def test_a_list_that_is_damaged_ends_the_start_and_is_named(life: Life, document: str) -> None:
    (life.state.ca / "jwt-keys").write_text(document.replace("ROOT", life.root))
    with pytest.raises(StateError, match="jwt-keys"):
        life.start()


def test_a_key_of_another_name_or_that_others_can_read_ends_the_start(life: Life) -> None:
    first = life.state.private / life.files()[0]
    pem = first.read_bytes()
    result_of(life.keys.rotate(ADMIN, at_once=True))
    second = life.state.private / life.files()[0]
    second.write_bytes(pem)
    with pytest.raises(StateError, match="is not the JWT key"):
        life.start()
    second.chmod(0o644)
    with pytest.raises(StateError, match="can be read by others"):
        life.start()


def test_a_start_that_changes_nothing_writes_nothing(
    life: Life, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a full disk the CA starts all the same, and revokes."""
    done = kill_before_write(0, monkeypatch)
    life.start()
    life.run()
    assert done == []


def test_no_backup_has_them(life: Life) -> None:
    assert life.files() != []
    assert not any(NAME.fullmatch(f"ca/private/{name}") for name in life.files())
    assert not NAME.fullmatch("ca/jwt-keys")
