"""A signer in this process, whose thread is the caller's own, and a CA with its keys there."""

import shutil
from collections.abc import Callable, Coroutine
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

from attrs import define, field
from twisted.internet.defer import Deferred, execute
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from pki.issuing.authority import Authority
from pki.keys import KeyAlgorithm, PublicKey
from pki.signing.policy import SigningPolicy
from tests.authorities import MESH, NOW
from twisted_mesh.keystores.stores import KeyStores
from twisted_mesh.limits.rate_limit import Rate
from twisted_mesh.runtime.log import logger
from twisted_mesh.signer.judging import Judging
from twisted_mesh.signer.keyring import Keyring
from twisted_mesh.signer.messages import (
    Key,
    KeyPurpose,
    KeyWhereabouts,
    NewKey,
    SignRequest,
    WhereaboutsRequest,
)
from twisted_mesh.signer.record import Record
from twisted_mesh.signer.service import Signer
from twisted_mesh.signer.signing_log import Line, SigningLog, parse_line
from twisted_mesh.state.key_files import KeyFiles

T = TypeVar("T")
ROOT, ISSUING, AUDIT = KeyPurpose.ROOT, KeyPurpose.ISSUING, KeyPurpose.AUDIT
BY = "uid:1000"
UNLIMITED = Rate(0, 0)


def done(work: Coroutine[Any, Any, T]) -> T:
    """What it comes to, now."""
    found: list[Any] = []
    _ = Deferred.fromCoroutine(work).addBoth(found.append)
    assert found, "it waits"
    if isinstance(found[0], Failure):
        found[0].raiseException()
    result: T = found[0]
    return result


@define(eq=False)
class Rig:
    """One start of a signer."""

    home: Path
    policy: SigningPolicy = field(factory=lambda: SigningPolicy(MESH))
    certificates: Rate = UNLIMITED
    revocation: Rate = UNLIMITED
    clock: Clock = field(factory=Clock)
    ahead: timedelta = timedelta()
    refusals: Callable[[], bool] = lambda: True
    record: Record = field(init=False)
    log: SigningLog = field(init=False)
    signer: Signer = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.record = Record(self.home / "signer.db")
        self.record.open(str(self.policy.trust_domain))
        self.log = SigningLog(self.home / "signatures.log")
        try:
            self._start()
        except BaseException:
            self.close()
            raise

    def _start(self) -> None:
        self.log.open(self.record.log_end)
        told = logger("signer")
        judging = Judging(
            self.record, self.log, self.policy, self.now, execute, told, self.refusals
        )
        keyring = Keyring(KeyFiles(self.home), KeyStores(), execute)
        self.signer = Signer(
            keyring, judging, self.clock, self.now, told, self.certificates, self.revocation
        )
        self.signer.load()

    def now(self) -> datetime:
        return NOW + self.ahead + timedelta(seconds=self.clock.seconds())

    def make(
        self, purpose: KeyPurpose = ISSUING, algorithm: str = "ec-p256", label: str = "x"
    ) -> Key:
        return done(self.signer.make(NewKey(purpose, algorithm, label), BY))

    def sign(self, name: str, data: bytes) -> bytes:
        return done(self.signer.sign(SignRequest(name, data), BY)).signature

    def whereabouts(self, name: str) -> KeyWhereabouts:
        return done(self.signer.whereabouts(WhereaboutsRequest(name)))

    def lines(self) -> list[Line]:
        return [parse_line(line) for line in self.log.path.read_bytes().splitlines()]

    def close(self) -> None:
        self.log.close()
        self.record.close()

    def again(self) -> "Rig":
        """The next start, in the same place."""
        self.close()
        return Rig(self.home, self.policy, ahead=self.ahead)

    def ca(self) -> "Ca":
        """A CA that has its keys here."""
        root_key = RemoteKey(self, self.make(ROOT, "ec-p384", "mesh.local root-1"))
        issuing_key = RemoteKey(self, self.make(ISSUING, "ec-p256", "mesh.local issuing-1"))
        root = done(Authority.create_root(root_key, MESH, self.now()))
        issuing = done(root.create_issuing(issuing_key, MESH, self.now()))
        return Ca(root, issuing)


@define(eq=False)
class RemoteKey:
    """A :class:`pki.keys.SigningKey` of the rig's signer."""

    rig: Rig
    shown: Key
    is_in_memory = False

    @property
    def algorithm(self) -> KeyAlgorithm:
        return KeyAlgorithm(self.shown.algorithm)

    @property
    def public_key(self) -> PublicKey:
        return self.rig.record.key(self.shown.name).held.public_key

    async def sign(self, data: bytes) -> bytes:
        answer = await self.rig.signer.sign(SignRequest(self.shown.name, data), BY)
        return answer.signature


@define(eq=False)
class Ca:
    """A CA whose keys are at a signer."""

    root: Authority
    issuing: Authority

    @property
    def name(self) -> str:
        """Of its issuing key, at the signer."""
        key = self.issuing.key
        assert isinstance(key, RemoteKey)
        return key.shown.name


def snapshot(home: Path, to: Path) -> Path:
    """What kill -9 would leave there now."""
    with suppress(FileExistsError):
        shutil.copytree(home, to)
    return to
