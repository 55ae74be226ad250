"""The keys of the roots: taken away, once a copy is held elsewhere, and taken up again where they are brought back."""

import hashlib
import hmac
from collections.abc import Awaitable, Callable
from datetime import datetime

from attrs import define, frozen
from cryptography import x509

from pki.codes import Code
from pki.errors import PkiError
from pki.issuing import rotation
from pki.keys import KeptKey, key_id
from pki.validity import rfc3339
from twisted_mesh.ca.rotation.steps import RotationSteps
from twisted_mesh.runtime.log import logger

_log = logger("ca")


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
class RootKeys:
    """Those that are here, and where they would be."""

    steps: RotationSteps
    farewell: Callable[[KeptKey], Awaitable[None]] | None = None
    """What is still to be done with a root's key before it goes: its CRL, for as long as it is away."""

    def is_attachable(self) -> bool:
        """Whether there is a file where the key of a root is missed."""
        authorities = self.steps.authorities
        return any(
            authorities.key_of(root) is None and self.steps.root_key_path(root).exists()
            for root in authorities.roots
        )

    async def attach(self) -> None:
        """Take up a root's key that was brought back."""
        if not self.is_attachable():
            return
        authorities = self.steps.authorities
        found = await self.steps.aside(self.steps.root_files.load_keys, authorities.root_line)
        await self.steps.aside(self.steps.keys.seal)
        for root in authorities.roots:
            if authorities.key_of(root) is None and key_id(root.public_key()) in found:
                _log.info(
                    "The root's key is back, in {path}",
                    event="root-attached",
                    path=str(self.steps.root_key_path(root)),
                )
        self.steps.current.adopt(authorities.with_root_keys({**authorities.root_keys, **found}))

    async def detach(self, sha256: str, by: str) -> Detached:
        """Delete the root's key here, and forget it, once the caller has shown that it holds a copy of the file.

        ``sha256`` is the digest of the file's bytes, in hex; ``by`` is who asked, for the record.
        A successor is prepared before, where that
        puts off the day on which the key is needed again. Raises :class:`NoRootKey`, :class:`NoCopy`,
        and whatever keeps the act from being recorded or the file from being removed.
        """
        name, root, root_key = await self._held(sha256)
        if not self.steps.keys_away() and rotation.is_worth_preparing(
            self.steps.authorities.line, self.steps.rules, self.steps.now()
        ):
            await self.steps.prepare()
        if self.farewell is not None:
            await self.farewell(root_key)
        whose = key_id(root.public_key())
        await self.steps.record_once("administer", whose, step="root-detached", by=by)
        await self.steps.aside(self.steps.keys.remove, name)
        left = {
            held: key for held, key in self.steps.authorities.root_keys.items() if held != whose
        }
        self.steps.current.adopt(self.steps.authorities.with_root_keys(left))
        self.steps.done("root-detached")
        detached = self._without()
        _log.info(
            "The root's key is deleted here. Certificates can be issued until {issues_until}; it is wanted again at "
            "{wanted_at}, to make the next issuing CA",
            event="root-taken-away",
            issues_until=rfc3339(detached.issues_until),
            wanted_at=rfc3339(detached.wanted_at),
        )
        return detached

    async def _held(self, sha256: str) -> tuple[str, x509.Certificate, KeptKey]:
        """The file, the root and the key, where ``sha256`` is the digest of that file."""
        authorities, found = self.steps.authorities, 0
        for root in authorities.roots:
            name = self.steps.root_key_path(root).name
            if not self.steps.keys.exists(name):
                continue
            found += 1
            held = hashlib.sha256(await self.steps.aside(self.steps.keys.read, name)).hexdigest()
            if hmac.compare_digest(held.encode(), sha256.lower().encode()):
                # Also that it is the root's key: who copied something else has no copy.
                keys = await self.steps.aside(
                    self.steps.root_files.load_keys, authorities.root_line
                )
                return name, root, keys[key_id(root.public_key())]
        path = self.steps.keys.path("root.key")
        if not found:
            raise NoRootKey(f"{path} is not here: the root's key has been taken away already")
        raise NoCopy(
            f"sha256 is not the digest of {path}: copy the file, read the copy back, and send the digest of that"
        )

    def _without(self) -> Detached:
        line = self.steps.authorities.line
        last = line.prepared or line.active
        return Detached(line.prepared is not None, last.prepare_at, last.ends_at)
