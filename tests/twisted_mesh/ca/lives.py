"""A CA whose issuing CAs come and go on a clock that the test moves, with files that outlive it."""

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from attrs import define, field, frozen
from twisted.internet.task import Clock

from pki.keys import KeyAlgorithm
from pki.policy.lifetimes import Lifetimes
from pki.svid.x509svid import X509Svid
from tests.authorities import BACKEND, DAY, HOUR, MESH, NOW, key
from tests.twisted_mesh.ca.rigs import result_of
from twisted_mesh.ca.authorities import Authorities, CurrentAuthorities
from twisted_mesh.ca.authority_files import load_or_create
from twisted_mesh.ca.rotation.root_steps import RootSteps
from twisted_mesh.ca.rotation.rotator import Rotator
from twisted_mesh.ca.rotation.steps import RotationSteps
from twisted_mesh.keystores.spec import KeySpec
from twisted_mesh.keystores.stores import KeyStores
from twisted_mesh.state.directory import StateDirectory
from twisted_mesh.state.key_files import KeyFiles
from twisted_mesh.stores.records import StoreError

P256 = KeyAlgorithm.EC_P256
YEAR = 365 * DAY
IN_FILE = KeySpec(P256)


@frozen
class Act:
    """What was to be recorded."""

    name: str
    target: str
    facts: Mapping[str, str]

    @property
    def step(self) -> str:
        return f"{self.facts['step']} {self.facts.get('generation', '')}".strip()


async def at_once(function: Callable[..., Any], *arguments: Any) -> Any:
    return function(*arguments)


@define(eq=False)
class Life:
    """One CA on one state directory, from start to start."""

    home: Path
    time: datetime = NOW
    passphrase: bytes | None = None
    longest_leaf: timedelta = DAY
    life: timedelta = YEAR
    root_spec: KeySpec = IN_FILE
    issuing_spec: KeySpec = IN_FILE
    stores: KeyStores = field(factory=KeyStores)
    acts: list[Act] = field(factory=list)
    unrecordable: set[str] = field(factory=set)
    """Steps whose record fails."""
    clock: Clock = field(factory=Clock)
    current: CurrentAuthorities = field(init=False)
    rotator: Rotator = field(init=False)
    root_steps: RootSteps = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.state.prepare()
        self.start()

    @property
    def authorities(self) -> Authorities:
        return self.current.current

    @property
    def state(self) -> StateDirectory:
        return StateDirectory(self.home / "state")

    @property
    def root_key(self) -> Path:
        return self.state.private / "root.key"

    def start(self) -> None:
        """As after a stop, or a kill. It looks at what is due, and begins to tick."""
        keys = KeyFiles(self.state.private, self.passphrase, self.stores.key)
        authorities = result_of(
            load_or_create(
                self.state,
                keys,
                MESH,
                self.time,
                root_key=self.root_spec,
                issuing_key=self.issuing_spec,
                issuing_life=self.life,
                stores=self.stores,
            )
        )
        lifetimes = Lifetimes(min(HOUR, self.longest_leaf), self.longest_leaf)
        self.current = CurrentAuthorities(MESH, lifetimes, authorities)
        rotation_steps = RotationSteps(
            self.current,
            self.state,
            keys,
            self.record,
            self.issuing_spec,
            self.life,
            lambda: self.time,
            at_once,
            self.stores,
        )
        self.root_steps = RootSteps(rotation_steps, self.root_spec)
        self.clock = Clock()
        self.rotator = Rotator(rotation_steps, self.clock, root_steps=self.root_steps)

    def run(self) -> None:
        """What the service does at its start."""
        result_of(self.rotator.attend())
        self.rotator.startService()

    async def record(self, name: str, target: str, facts: Mapping[str, str]) -> None:
        if facts["step"] in self.unrecordable:
            raise StoreError("store memory: the disk is full: free some space")
        self.acts.append(Act(name, target, facts))

    def pass_time(self, duration: timedelta, steps: int = 1) -> None:
        """Both clocks go on; the loop looks ``steps`` times."""
        for _ in range(steps):
            self.time += duration / steps
            self.clock.advance((duration / steps).total_seconds())

    def go_to(self, moment: datetime) -> None:
        self.pass_time(moment - self.time)

    def jump(self, duration: timedelta) -> None:
        """Somebody sets the wall clock; the other one does not notice."""
        self.time += duration
        self.clock.advance(1)

    @property
    def generations(self) -> tuple[int, int | None, tuple[int, ...]]:
        """Active, prepared, retired."""
        line = self.authorities.line
        prepared = line.prepared.generation if line.prepared else None
        return line.active.generation, prepared, tuple(t.generation for t in line.retired)

    @property
    def steps(self) -> list[str]:
        """What was recorded."""
        return [act.step for act in self.acts]

    def files(self) -> list[str]:
        """Certificates and keys, without their directories."""
        found = (path.name for path in self.state.ca.rglob("*") if path.is_file())
        return sorted(name for name in found if name != "lock")

    def svid(self) -> X509Svid:
        """A leaf that the active one issues now."""
        issuing = self.authorities.issuing
        draft = issuing.draft(key(9).public_key, BACKEND, self.time, self.current.lifetimes.maximum)
        return X509Svid.assemble((result_of(issuing.sign(draft)), *issuing.intermediates), key(9))

    def assert_all_keys_fit(self) -> None:
        """Each issuing CA that there is can sign."""
        for authority in self.authorities.every_issuing:
            assert result_of(authority.key.sign(b"x"))
