"""Health that tells the truth: what is looked at really signs, and really writes."""

import os
import resource
import shutil
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from attrs import define, field
from cryptography.exceptions import InvalidSignature

from pki.errors import PkiError, Problem
from pki.issuing.root_conditions import Wait, following
from pki.issuing.root_line import Phase
from pki.keys import verify
from pki.keys.probe import probe
from pki.svid.x509svid import validity_of
from pki.validity import rfc3339, spoken_duration
from twisted_mesh.ca.audit_log import AuditLog
from twisted_mesh.ca.authorities import CurrentAuthorities
from twisted_mesh.ca.check import CHECKS, Check, Standing
from twisted_mesh.ca.transparency.standing import SHOWN_TO_NOBODY, LogsStanding
from twisted_mesh.keystores.standing import DO_THAT, KEPT_IN_FILES
from twisted_mesh.keystores.stored_key import StoredKey
from twisted_mesh.runtime.clock import Now
from twisted_mesh.state.memory import Memory
from twisted_mesh.stores.commands import Probe
from twisted_mesh.stores.interface import IStore

#: Where the check of keys stands among those that are looked at before it is.
_KEYS_AT = CHECKS.index("keys")
#: Seconds between two signatures that are made only to see whether a key in a store signs: each costs somebody.
_PROBE_STORED = 30.0
#: Seconds for which an answer is given again: whoever asks often must not wear out the disk.
_FRESH = 1.0
_SKEW = timedelta(seconds=60)
_MANY_INTENTS = 100
#: The share of its file descriptors from which on it is told.
_MANY_DESCRIPTORS = 0.8
NO_PLATFORMS = "evidence is taken of no platform"
RULED_BY_ENTRIES = "no policy is given: entries alone decide what is issued"
FEDERATES_WITH_NOBODY = "no other trust domain is federated with"
_LITTLE_SPACE = 256 * 1024 * 1024


@define(eq=False, repr=False)
class Health:
    """Looks at everything that issuing and revoking rest on."""

    authorities: CurrentAuthorities
    store: IStore
    log: AuditLog
    now: Now
    directory: Path | None = None
    """Where the state lives; None for a CA that keeps nothing."""
    waiting: Callable[[], Problem | None] = lambda: None
    """What the CAs' succession waits for."""
    publishing: Callable[[], Problem | None] = lambda: None
    """What cannot be published as it should be."""
    unpublished: Callable[[], int] = lambda: 0
    """How many revocations are on record and on no CRL, though one should say so by now."""
    lacking: Callable[[], Problem | None] = lambda: None
    """Whether there are no file descriptors left."""
    memories: Sequence[Memory] = ()
    """What is remembered in files beside the record."""
    seconds: Callable[[], float] = time.monotonic
    behind: Callable[[], Problem | None] = lambda: None
    """Whether the clock is behind what earlier lives have recorded."""
    federation: Callable[[], tuple[str, Problem | None]] = lambda: (FEDERATES_WITH_NOBODY, None)
    """How those stand that are federated with, in words, and what is wrong with any."""
    ruled: Callable[[], tuple[str, Problem | None]] = lambda: (RULED_BY_ENTRIES, None)
    """What is in force of a policy, in words, and what is wrong with it."""
    attested: Callable[[], tuple[str, Problem | None]] = lambda: (NO_PLATFORMS, None)
    """Of which platforms evidence is taken, in words, and what is wrong with any."""
    kept: Callable[[], tuple[str, Problem | None]] = lambda: (KEPT_IN_FILES, None)
    """Where keys are that are in no file, in words, and what is wrong there."""
    logged: Callable[[], LogsStanding] = lambda: LogsStanding(SHOWN_TO_NOBODY)
    """How the logs stand that certificates are shown to."""
    own_blocked: Callable[[], Problem | None] = lambda: None
    """Which of the CA's own keys is blocked."""
    rooted: Callable[[], Wait | None] = lambda: None
    """What is to be told of the roots: what blocks has ended."""
    _last: tuple[float, tuple[Check, ...]] | None = field(default=None, init=False)
    _signed: tuple[str, float] = field(default=("", 0.0), init=False)
    """Whose key signed when it was last asked to, and when."""
    _offset: float | None = field(default=None, init=False)
    """Wall clock less steady clock, when first looked at."""

    def watch_platforms(self, attested: Callable[[], tuple[str, Problem | None]]) -> None:
        """Tell of these from now on: what takes their evidence is made once the CA listens."""
        self.attested = attested

    async def examine(self) -> tuple[Check, ...]:
        """Every check; answers of the last second are given again, but for descriptors: they come and go."""
        at = self.seconds()
        if self._last is not None and at - self._last[0] < _FRESH:
            return self._with_lack(self._last[1])
        found = []
        for name, look in (
            ("signing", self._signing),
            ("store", self._store),
            ("clock", self._clock),
            ("issuer", self._issuer),
            ("root", self._root),
            ("intents", self._intents),
            ("audit", self._audit),
            ("crls", self._crls),
        ):
            found.append(await _looked(name, look))
        found.insert(_KEYS_AT, _told("keys", *self.kept()))
        found.append(_told("federation", *self.federation()))
        found.append(_told("policy", *self.ruled()))
        found.append(_told("platforms", *self.attested()))
        found.append(_logs(self.logged()))
        found.append(_descriptors(self.lacking()))
        if self.directory is not None:
            found.append(self._space(self.directory))
        found.append(_memories(self.memories))
        self._last = at, tuple(found)
        return self._last[1]

    def _with_lack(self, checks: tuple[Check, ...]) -> tuple[Check, ...]:
        """The same checks, unless descriptors have gone or come since."""
        lack = self.lacking()
        (before,) = (check for check in checks if check.name == "descriptors")
        if (lack is not None) == (before.standing is Standing.FAIL):
            return checks
        return tuple(_descriptors(lack) if check is before else check for check in checks)

    @property
    def last(self) -> tuple[Check, ...]:
        """How each check came out when it was last looked at; none before that."""
        return self._last[1] if self._last else ()

    async def _signing(self) -> Check:
        current = self.authorities.current
        current.demand_in_use(current.issuing)
        if (taint := self.own_blocked()) is not None:
            return Check("signing", Standing.FAIL, taint.detail, taint.remedy)
        key = current.issuing.key
        signs = Check("signing", Standing.OK, f"the issuing key ({key.algorithm.label}) signs")
        if isinstance(key, StoredKey):
            key.demand_store()
            if self._has_signed(current.issuing.key_id):
                return signs
        told = probe(rfc3339(self.now()))
        try:
            verify(key.public_key, await key.sign(told), told, key.algorithm.hash)
        except InvalidSignature:
            return Check(
                "signing",
                Standing.FAIL,
                "the issuing CA's key gives wrong signatures",
                "look at where the key is kept",
            )
        self._signed = current.issuing.key_id, self.seconds()
        return signs

    def _has_signed(self, issuer: str) -> bool:
        """Whether that key was seen to sign a moment ago."""
        known, at = self._signed
        return known == issuer and self.seconds() - at < _PROBE_STORED

    async def _store(self) -> Check:
        await self.store.apply(Probe(self.now()))
        return Check("store", Standing.OK, "the record can be written and read")

    async def _clock(self) -> Check:
        now = self.now()
        if (problem := self.behind()) is not None:
            return Check("clock", Standing.FAIL, problem.detail, problem.remedy)
        _, last = await self.store.last_act()
        if last is not None:
            behind = datetime.fromtimestamp(last / 1e6, UTC) - now
            if behind > _SKEW:
                return Check(
                    "clock",
                    Standing.FAIL,
                    f"the clock is {spoken_duration(behind)} behind the last act on record",
                    "set this machine's clock right; certificates would begin in the past",
                )
        offset = now.timestamp() - self.seconds()
        if self._offset is None:
            self._offset = offset
        stepped = timedelta(seconds=abs(offset - self._offset))
        if stepped > _SKEW:
            return Check(
                "clock",
                Standing.WARN,
                f"the clock was moved by {spoken_duration(stepped)} since the start",
                "compare it with another machine's; restart the CA once it is right",
            )
        return Check("clock", Standing.OK, f"it is {rfc3339(now)}")

    async def _issuer(self) -> Check:
        validity, now = validity_of(self.authorities.current.issuing.certificate), self.now()
        if now < validity.not_before:
            return Check(
                "issuer",
                Standing.FAIL,
                f"the issuing CA is not valid yet (from {rfc3339(validity.not_before)})",
                "set this machine's clock right",
            )
        if not validity.contains(now):
            return Check(
                "issuer",
                Standing.FAIL,
                f"the issuing CA has ended ({rfc3339(validity.not_after)})",
                "check the clock; bring the root's key back, so that a new one can be made",
            )
        left = f"the issuing CA is good for {spoken_duration(validity.not_after - now)} more"
        waiting = self.waiting()
        if waiting is not None:
            return Check("issuer", Standing.WARN, f"{left}; {waiting.detail}", waiting.remedy)
        return Check("issuer", Standing.OK, left)

    async def _root(self) -> Check:
        found = self.rooted()
        if found is not None:
            standing = Standing.FAIL if found.is_blocking else Standing.WARN
            return Check("root", standing, found.problem.detail, found.problem.remedy)
        current = self.authorities.current
        told = f"the root is good for {spoken_duration(current.root.not_valid_after_utc - self.now())} more"
        line = current.root_line
        if line.phase is not Phase.SETTLED:
            told += f"; its rotation is {line.phase}, and goes on by {following(line)}"
        return Check("root", Standing.OK, told)

    async def _intents(self) -> Check:
        count = len(await self.store.open_intents(_MANY_INTENTS + 1))
        if count > _MANY_INTENTS:
            return Check(
                "intents",
                Standing.WARN,
                f"more than {_MANY_INTENTS} signatures are under way or were cut short",
                "look at the store and at the key: one of them is slow",
            )
        return Check("intents", Standing.OK, f"{count} signatures are under way")

    async def _audit(self) -> Check:
        if self.log.contradiction is not None:
            return Check(
                "audit",
                Standing.FAIL,
                f"the audit log is not what was signed, and nothing is signed or issued: {self.log.contradiction}",
                "find out who changed the record (mesh-ctl audit verify), and restore a backup; revoking works",
            )
        if self.log.last_problem is not None:
            return Check(
                "audit",
                Standing.WARN,
                f"the audit log could not be signed: {self.log.last_problem}",
                "acts are recorded all the same, and are signed once that is mended",
            )
        size = self.log.latest.checkpoint.size if self.log.latest else 0
        if self.log.seen_elsewhere:
            return Check(
                "audit",
                Standing.WARN,
                f"an endpoint says that it has seen {self.log.seen_elsewhere} entries, and there were fewer",
                "look in the CA's log which, and for log-contradicts in that endpoint's: an older state was put back",
            )
        return Check("audit", Standing.OK, f"the audit log is signed up to entry {size}")

    async def _crls(self) -> Check:
        waiting, count = self.publishing(), self.unpublished()
        if waiting is not None and count:
            are = "revocation is" if count == 1 else "revocations are"
            told = f"{count} {are} on record and on no CRL: {waiting.detail}"
            # Whoever asks us hears of them all the same.
            return Check("crls", Standing.FAIL, told, waiting.remedy, stops=False)
        if waiting is not None:
            return Check("crls", Standing.WARN, waiting.detail, waiting.remedy)
        return Check(
            "crls", Standing.OK, "the CRLs say what is revoked, and will be believed for long"
        )

    def _space(self, directory: Path) -> Check:
        try:
            free = shutil.disk_usage(directory).free
        except OSError as error:
            return Check("disk", Standing.FAIL, f"{directory}: {error.strerror}", "mount it again")
        detail = f"{free // (1024 * 1024):,} MiB are free at {directory}"
        if free < _LITTLE_SPACE:
            return Check("disk", Standing.WARN, detail, "free some space before it is used up")
        return Check("disk", Standing.OK, detail)


async def _looked(name: str, look: Callable[[], Awaitable[Check]]) -> Check:
    """What ``look`` finds; where it cannot look, that is what is wrong."""
    try:
        return await look()
    except PkiError as error:
        problem = error.problems[0]
        remedy = problem.remedy or (DO_THAT if name == "signing" else "")
        return Check(name, Standing.FAIL, problem.detail, remedy)


def _told(name: str, told: str, problem: Problem | None) -> Check:
    if problem is None:
        return Check(name, Standing.OK, told)
    return Check(name, Standing.WARN, f"{told}; {problem.detail}", problem.remedy)


def _logs(found: LogsStanding) -> Check:
    if found.problem is None:
        return Check("logs", Standing.OK, found.told)
    detail = f"{found.told}; {found.problem.detail}"
    standing = Standing.FAIL if found.is_blocking else Standing.WARN
    return Check("logs", standing, detail, found.problem.remedy)


def _memories(memories: Sequence[Memory]) -> Check:
    """What a CA remembers beside its record: it goes on without most of that, until the next start."""
    lost = [memory for memory in memories if memory.problem is not None]
    if not lost:
        return Check("memories", Standing.OK, "what is remembered in files is up to date")
    problems = [memory.problem for memory in lost if memory.problem is not None]
    needed = any(memory.is_needed for memory in lost)
    return Check(
        "memories",
        Standing.FAIL if needed else Standing.WARN,
        "; ".join(
            f"{memory.name}: {problem.detail}"
            for memory, problem in zip(lost, problems, strict=True)
        ),
        "; ".join(dict.fromkeys(problem.remedy for problem in problems if problem.remedy)),
    )


def _descriptors(lack: Problem | None) -> Check:
    """A process that has no file descriptor left lets nobody in."""
    if lack is not None:
        return Check("descriptors", Standing.FAIL, lack.detail, lack.remedy)
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        used = len(os.listdir("/dev/fd"))
    except OSError:
        used = most
    detail = f"{used} of {most} file descriptors are in use"
    if used > most * _MANY_DESCRIPTORS:
        return Check(
            "descriptors",
            Standing.WARN,
            detail,
            "raise the limit (ulimit -n, or LimitNOFILE=), or look who opens so many connections",
        )
    return Check("descriptors", Standing.OK, detail)
