"""The steps of an issuing CA's life: prepared, activated, retired, forgotten; and the root's key taken away.

Each is recorded before it takes effect. One that fails leaves what was; done again, it goes on.
"""

import hashlib
import hmac
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

from attrs import define, evolve, field, frozen
from twisted.internet.threads import deferToThread

from pki.codes import Code
from pki.errors import PkiError
from pki.issuing import rotation
from pki.issuing.authority import Authority
from pki.issuing.rotation import Rules, Step, Term
from pki.keys import KeyAlgorithm, MemoryKey, key_id
from pki.serial import serial_hex, serial_pairs
from pki.validity import rfc3339
from twisted_mesh.ca.authorities import (
    Authorities,
    CurrentAuthorities,
    load_root_key,
    tell_generating,
)
from twisted_mesh.ca.issuing_files import IssuingFiles
from twisted_mesh.runtime.clock import Now
from twisted_mesh.runtime.log import logger
from twisted_mesh.state.directory import StateDirectory
from twisted_mesh.state.key_files import KeyFiles

_log = logger("ca")

Record = Callable[[str, str, Mapping[str, str]], Awaitable[None]]
"""Makes an act durable: its name, what it is done to (an issuer's key id), and facts. Raises if it cannot."""


class CannotDetach(PkiError):
    """The root's key stays where it is."""

    code = Code.CANNOT_DETACH


class NoRootKey(CannotDetach):
    """The root's key is not here to be taken away."""

    code = Code.NO_ROOT_KEY


class NoCopy(CannotDetach):
    """The caller has not shown that it holds a copy of the root's key."""

    code = Code.NO_COPY


@frozen
class Detached:
    """What the CA can do without its root's key."""

    prepared: bool
    """Whether there is a successor already."""
    wanted_at: datetime
    """When the root's key is needed again, to make the next issuing CA."""
    issues_until: datetime
    """When certificates cannot be issued any more without it."""


@define(eq=False, repr=False)
class RotationSteps:
    """Does what :mod:`pki.issuing.rotation` says is due, to the authorities and their files. One caller at a time."""

    current: CurrentAuthorities
    """Takes up what each step has changed."""
    state: StateDirectory
    keys: KeyFiles
    record: Record
    algorithm: KeyAlgorithm
    """Of the issuing CAs that are made from now on."""
    life: timedelta
    """Theirs."""
    now: Now
    aside: Callable[..., Awaitable[Any]] = deferToThread
    """Runs what writes files or makes keys, off the reactor."""
    farewell: Callable[[MemoryKey], Awaitable[None]] | None = None
    """What is still to be done with the root's key before it goes: its CRL, for as long as it is away."""
    _made: Authority | None = field(default=None, init=False)
    """A successor whose certificate could not be kept yet: the next attempt keeps this one."""
    _recorded: set[tuple[str, str]] = field(factory=set, init=False)
    """Steps that are recorded and could not be finished; they are not recorded twice."""

    @property
    def authorities(self) -> Authorities:
        """Those of the moment."""
        return self.current.current

    @property
    def rules(self) -> Rules:
        """What the lives of issuing CAs are decided by."""
        root = self.authorities.root
        return Rules(self.current.lifetimes.maximum, self.life, root.not_valid_after_utc)

    @property
    def _files(self) -> IssuingFiles:
        return IssuingFiles(self.state, self.keys, self.authorities.root)

    def next_step(self) -> Step:
        """What is due now."""
        return rotation.next_step(self.authorities.line, self.rules, self.now())

    async def prepare(self, root_key: MemoryKey) -> None:
        """Make the next issuing CA. It exists once its certificate is kept; nobody sees it sooner."""
        authorities = self.authorities
        made, self._made = self._made or await self._make(root_key), None
        await self._prove(made)
        self._made = made
        await self._record_once(
            "rotate",
            made.key_id,
            step="prepared",
            replaces=authorities.issuing.key_id,
            **_facts(made),
        )
        await self.aside(self._files.keep_certificate, made)
        self._made = None
        self.current.adopt(authorities.with_prepared(made))
        self._done("prepared")
        active_until = authorities.line.active.activate_at(self.current.lifetimes.maximum)
        _tell(
            "The next issuing CA is prepared, and takes over at {when}",
            made,
            event="issuing-prepared",
            when=rfc3339(active_until),
        )

    async def _make(self, root_key: MemoryKey) -> Authority:
        generation: int = await self.aside(self._files.next_number)
        key = await self._key_for(generation)
        root = Authority(self.authorities.root, root_key)
        return await root.create_issuing(
            key, self.current.trust_domain, self.now(), generation, self.life
        )

    async def _key_for(self, generation: int) -> MemoryKey:
        """On disk before the certificate is made: a crash in between takes up the same key again."""
        drawn: MemoryKey | None = await self.aside(
            self._files.drawn_key, generation, self.algorithm
        )
        if drawn is not None:
            await self.aside(self.keys.seal)
            return drawn
        tell_generating(self.algorithm)
        made: MemoryKey = await self.aside(MemoryKey.generate, self.algorithm)
        await self.aside(self._files.keep_key, generation, made)
        return made

    async def activate(self, successor: Authority, step: str = "activated") -> None:
        """Have ``successor`` issue from now on, and retire the one that did so far."""
        authorities, replaced = self.authorities, self.authorities.issuing
        await self._prove(successor)
        await self._record_once(
            "rotate", successor.key_id, step=step, replaces=replaced.key_id, **_facts(successor)
        )
        await self._record_once(
            "rotate",
            replaced.key_id,
            step="retired",
            replaced_by=successor.key_id,
            **_facts(replaced),
        )
        await self.aside(self._files.switch, replaced, successor)
        self.current.adopt(authorities.with_active(successor))
        self._done(step, "retired")
        if step == "resumed":
            _tell(
                "The clock was ahead and is right again: the earlier issuing CA issues again",
                successor,
                event="issuing-resumed",
            )
            return
        _tell("A new issuing CA issues from now on", successor, event="issuing-activated")
        _tell(
            "The issuing CA before it is retired, and answers for what it issued until {when}",
            replaced,
            event="issuing-retired",
            when=rfc3339(replaced.certificate.not_valid_after_utc),
        )

    async def resume(self) -> None:
        """Go back to a retired one that is valid, after a time in which the clock was ahead."""
        term = rotation.resumable(self.authorities.line.retired, self.now())
        for retired in self.authorities.retired:
            if Term.of(retired.certificate) == term:
                await self.activate(retired, "resumed")
                return

    async def forget(self, retired: Authority) -> None:
        """Delete the key of one that has ended."""
        await self._record_once("rotate", retired.key_id, step="forgotten", **_facts(retired))
        await self.aside(self._files.forget, retired)
        self.current.adopt(self.authorities.without(retired))
        self._done("forgotten")
        _tell(
            "A retired issuing CA has ended, and its key is deleted",
            retired,
            event="issuing-forgotten",
        )

    async def attach_root(self) -> None:
        """Take up a root's key that was brought back."""
        if self.authorities.root_key is not None or not self.keys.exists("root.key"):
            return
        root_key = await self.aside(load_root_key, self.keys, self.authorities.root)
        await self.aside(self.keys.seal)
        self.current.adopt(evolve(self.authorities, root_key=root_key))
        _log.info(
            "The root's key is back, in {path}",
            event="root-attached",
            path=str(self.keys.path("root.key")),
        )

    async def detach_root(self, sha256: str, by: str) -> Detached:
        """Delete the root's key here, and forget it, once the caller has shown that it holds a copy of the file.

        ``sha256`` is the digest of the file's bytes, in hex; ``by`` is who asked, for the record.
        A successor is prepared before, where that
        puts off the day on which the key is needed again. Raises :class:`NoRootKey`, :class:`NoCopy`,
        and whatever keeps the act from being recorded or the file from being removed.
        """
        root_key = await self._held_root_key(sha256)
        if rotation.is_worth_preparing(self.authorities.line, self.rules, self.now()):
            await self.prepare(root_key)
        if self.farewell is not None:
            await self.farewell(root_key)
        await self._record_once(
            "administer", key_id(self.authorities.root.public_key()), step="root-detached", by=by
        )
        await self.aside(self.keys.remove, "root.key")
        self.current.adopt(evolve(self.authorities, root_key=None))
        self._done("root-detached")
        detached = self._without_root()
        _log.info(
            "The root's key is deleted here. Certificates can be issued until {issues_until}; it is wanted again at "
            "{wanted_at}, to make the next issuing CA",
            event="root-taken-away",
            issues_until=rfc3339(detached.issues_until),
            wanted_at=rfc3339(detached.wanted_at),
        )
        return detached

    async def _held_root_key(self, sha256: str) -> MemoryKey:
        """The root's key from its file, if ``sha256`` is that file's digest."""
        path = self.keys.path("root.key")
        if not self.keys.exists("root.key"):
            raise NoRootKey(f"{path} is not here: the root's key has been taken away already")
        held = hashlib.sha256(await self.aside(self.keys.read, "root.key")).hexdigest()
        if not hmac.compare_digest(held.encode(), sha256.lower().encode()):
            raise NoCopy(
                f"sha256 is not the digest of {path}: copy the file, read the copy back, and send the digest of that"
            )
        # Also that it is the root's key: who copied something else has no copy.
        key: MemoryKey | None = await self.aside(load_root_key, self.keys, self.authorities.root)
        if key is None:
            raise NoRootKey(f"{path} is not here: the root's key has been taken away already")
        return key

    def _without_root(self) -> Detached:
        line = self.authorities.line
        last = line.prepared or line.active
        return Detached(line.prepared is not None, last.prepare_at, last.ends_at)

    async def _prove(self, candidate: Authority) -> None:
        await rotation.prove(candidate, self.current.bundle(), self.now())

    async def _record_once(self, act: str, target: str, *, step: str, **facts: str) -> None:
        if (step, target) not in self._recorded:
            await self.record(act, target, {"step": step, **facts})
            self._recorded.add((step, target))

    def _done(self, *steps: str) -> None:
        self._recorded = {(step, target) for step, target in self._recorded if step not in steps}


def _facts(authority: Authority) -> dict[str, str]:
    """What the record says of an issuing CA."""
    certificate = authority.certificate
    return {
        "generation": str(Term.of(certificate).generation),
        "serial": serial_hex(certificate.serial_number),
        "not_after": rfc3339(certificate.not_valid_after_utc),
    }


def _tell(title: str, authority: Authority, *, event: str, **facts: str) -> None:
    certificate = authority.certificate
    _log.info(
        title + ":\n  Subject: {subject}\n  Serial: {serial}\n  Valid: {not_before} to {not_after}",
        event=event,
        subject=authority.name,
        serial=serial_pairs(certificate.serial_number),
        not_before=rfc3339(certificate.not_valid_before_utc),
        not_after=rfc3339(certificate.not_valid_after_utc),
        **facts,
    )
