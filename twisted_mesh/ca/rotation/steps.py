"""The steps of an issuing CA's life: prepared, activated, retired, forgotten.

Each is recorded before it takes effect. One that fails leaves what was; done again, it goes on.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, Self

from attrs import define, field
from cryptography import x509
from twisted.internet.threads import deferToThread

from pki.codes import Code
from pki.errors import PkiError
from pki.issuing import rotation
from pki.issuing.authority import Authority, IssuerExpired
from pki.issuing.root_line import RootLine
from pki.issuing.rotation import Rules, Step, Term
from pki.keys import KeptKey, MemoryKey, SigningKey
from pki.serial import serial_hex, serial_pairs
from pki.svid.x509svid import subject_of, uri_names
from pki.validity import rfc3339
from twisted_mesh.ca.authorities import Authorities, CurrentAuthorities
from twisted_mesh.ca.authority_files import tell_generating
from twisted_mesh.ca.issuing_files import ACTIVE, IssuingFiles
from twisted_mesh.ca.key_drawing import KeyDrawing
from twisted_mesh.ca.root_files import RootFiles
from twisted_mesh.keystores.spec import KeySpec
from twisted_mesh.keystores.stored_key import StoredKey
from twisted_mesh.keystores.stores import KeyStores
from twisted_mesh.runtime.clock import Now
from twisted_mesh.runtime.log import logger
from twisted_mesh.state.directory import StateDirectory
from twisted_mesh.state.key_files import KeyFiles

_log = logger("ca")

Record = Callable[[str, str, Mapping[str, str]], Awaitable[None]]
"""Makes an act durable: its name, what it is done to (an issuer's key id), and facts. Raises if it cannot."""


class RootKeyAway(PkiError):
    """A root whose key is not here would have to sign."""

    code = Code.ROOT_KEY_AWAY

    @classmethod
    def at(cls, paths: Iterable[Path]) -> Self:
        """``paths`` are where the keys are to be brought back to."""
        wanted = " and ".join(map(str, paths))
        return cls(
            f"a root's key is wanted and is not here: bring it back as {wanted}, mode 0600, or have the issuing CA "
            "certified where the key is first (mesh-ctl ca root csr, sign and install)"
        )


@define(eq=False, repr=False)
class RotationSteps:
    """Does what :mod:`pki.issuing.rotation` says is due, to the authorities and their files. One caller at a time."""

    current: CurrentAuthorities
    """Takes up what each step has changed."""
    state: StateDirectory
    keys: KeyFiles
    record: Record
    issuing_key: KeySpec
    """What the keys are of the issuing CAs that are made from now on, and where."""
    life: timedelta
    """Theirs."""
    now: Now
    aside: Callable[..., Awaitable[Any]] = deferToThread
    """Runs what writes files or makes keys, off the reactor."""
    stores: KeyStores = field(factory=KeyStores)
    """Where keys are that are in no file."""
    is_untidy: bool = field(default=False, init=False)
    """Whether files do not follow the line of roots yet: :meth:`follow_line` has failed."""
    _made: tuple[Authority, tuple[x509.Certificate, ...]] | None = field(default=None, init=False)
    """A successor whose certificates could not be kept yet: the next attempt keeps these."""
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
        return IssuingFiles(self.state, self.keys, self.authorities.root_line)

    @property
    def root_files(self) -> RootFiles:
        """Those of the roots."""
        return RootFiles(self.state, self.keys)

    def keys_away(self, roots: Iterable[x509.Certificate] | None = None) -> tuple[Path, ...]:
        """Where the keys of ``roots`` are wanted that are not here; by default of those that certify what is made now.

        A root that has ended certifies nothing any more: its key is not missed.
        """
        authorities, now = self.authorities, self.now()
        return tuple(
            self.root_key_path(root)
            for root in (authorities.root_line.certifying if roots is None else roots)
            if authorities.key_of(root) is None and now <= root.not_valid_after_utc
        )

    def how_to_certify(self, away: Iterable[Path]) -> str:
        """What to do where the next issuing CA is due and those keys are not here."""
        root = self.authorities.root
        elsewhere = "mesh-ctl ca root csr, then sign on the root's own machine, then mesh-ctl ca root install here"
        if not uri_names(root):
            return f"have it certified by {subject_of(root)}: mesh-ctl ca root csr, then mesh-ctl ca root install"
        if self._files.has_request():
            return f"its CSR waits for a certificate: {elsewhere}"
        paths = " and ".join(map(str, away))
        return (
            f"have it certified where the root's key is: {elsewhere}; or bring the key back as {paths}, mode 0600: it "
            "is picked up without a restart"
        )

    def root_key_path(self, root: x509.Certificate) -> Path:
        """Where the key of a root is, or is to be brought back to."""
        return self.keys.path(self.root_files.key_name(self.authorities.root_line, root))

    def next_step(self) -> Step:
        """What is due now."""
        return rotation.next_step(self.authorities.line, self.rules, self.now())

    async def prepare(self, roots: tuple[x509.Certificate, ...] | None = None) -> None:
        """Make the next issuing CA. It exists once its certificate is kept; nobody sees it sooner.

        ``roots`` are to certify it, by default those that certify whatever is made now.
        Raises :class:`RootKeyAway`, and what signing and keeping raise.
        """
        authorities = self.authorities
        wanted = authorities.root_line.certifying if roots is None else roots
        made, self._made = self._made or await self._make(wanted), None
        successor, certificates = made
        await self._prove(successor)
        self._made = made
        await self._record_prepared(successor)
        if len(certificates) > 1:
            # First: a certificate that nothing refers to does no harm, and a CA that lacks one would.
            await self.keep_line(authorities.root_line.certified(certificates))
        await self.take(successor)
        self._made = None

    async def take(self, successor: Authority) -> None:
        """Have an issuing CA that is certified and proven be the prepared one, from the write of its certificate on."""
        authorities = self.authorities
        await self._record_prepared(successor)
        await self.aside(self._files.keep_certificate, successor)
        self.current.adopt(self.authorities.with_prepared(successor))
        self.done("prepared")
        active_until = authorities.line.active.activate_at(self.current.lifetimes.maximum)
        _tell(
            "The next issuing CA is prepared, and takes over at {when}",
            successor,
            event="issuing-prepared",
            when=rfc3339(active_until),
        )

    async def _record_prepared(self, successor: Authority) -> None:
        await self.record_once(
            "rotate",
            successor.key_id,
            step="prepared",
            replaces=self.authorities.issuing.key_id,
            **_facts(successor),
        )

    async def _make(
        self, roots: tuple[x509.Certificate, ...]
    ) -> tuple[Authority, tuple[x509.Certificate, ...]]:
        """The next issuing CA, and its certificates by each of the roots, as far as they have not ended."""
        if away := self.keys_away(roots):
            raise RootKeyAway.at(away)
        generation = await self.next_number()
        key = await self.draw_key(generation)
        made = [
            await self.certify(root, key, generation)
            for root in roots
            if self.now() <= root.not_valid_after_utc
        ]
        if not made:
            raise IssuerExpired(
                "every root that is to certify the next issuing CA has ended: mesh-ctl ca root status says what to do"
            )
        return made[0], tuple(one.certificate for one in made)

    async def certify(self, root: x509.Certificate, key: SigningKey, generation: int) -> Authority:
        """An issuing CA with that key below that root. Raises :class:`RootKeyAway`, and what signing raises."""
        root_key = self.authorities.key_of(root)
        if root_key is None:
            raise RootKeyAway.at([self.root_key_path(root)])
        return await Authority(root, root_key).create_issuing(
            key, self.current.trust_domain, self.now(), generation, self.life
        )

    async def keep_line(self, line: RootLine, more: Mapping[str, KeptKey] | None = None) -> None:
        """Have a line of roots on disk, and believe it. The commit of whatever has led there.

        ``more`` are keys of roots that come in with it, by key id.
        """
        authorities = self.authorities
        document = await self.root_files.signed(line, authorities.issuing)
        await self.aside(self.root_files.commit, document)
        self.current.adopt(authorities.along(line, more))
        await self.follow_line()

    async def follow_line(self) -> None:
        """Have the other files follow the line of roots. Done again after a failure, it ends where it should."""
        authorities = self.authorities
        self.is_untidy = True
        gone = await self.aside(self.root_files.tidy, authorities.root_line, authorities.root_keys)
        await self.aside(self._files.follow, authorities.issuing, authorities.every_issuing[1:])
        self.is_untidy = False
        await self.destroy(gone)

    async def next_number(self) -> int:
        """The generation of the issuing CA that comes next."""
        number: int = await self.aside(self._files.next_number)
        # No number twice, though the files of one that is revoked are gone.
        used = [row.generation for row in self.authorities.revoked if not row.is_root]
        return max(number, *(1 + generation for generation in used), 1)

    async def draw_key(self, generation: int) -> KeptKey:
        """Kept before the certificate is made: a crash in between takes up the same key again."""
        name = f"{ACTIVE}-{generation}"
        return await self.drawing.draw(
            f"{name}.key", self.issuing_key, name, tell_generating, self.authorities.key_ids
        )

    def is_as_wanted(self, successor: Authority) -> bool:
        """Whether its key is of the kind, and in the place, that the options want now."""
        key, spec = successor.key, self.issuing_key
        if not isinstance(key, MemoryKey | StoredKey) or spec.key is not None:
            return False
        return key.algorithm is spec.algorithm and self.stores.are_made_in(spec, key)

    @property
    def drawing(self) -> KeyDrawing:
        """Where keys come from, and where they go."""
        return KeyDrawing(self.keys, self.current.trust_domain, self.stores, self.aside)

    async def destroy(self, keys: Iterable[KeptKey]) -> None:
        """Delete keys whose files are gone, where they are in a store. Never raises."""
        for key in keys:
            await self.drawing.destroy(key)

    async def activate(self, successor: Authority, step: str = "activated") -> None:
        """Have ``successor`` issue from now on, and retire the one that did so far."""
        authorities, replaced = self.authorities, self.authorities.issuing
        await self._prove(successor)
        await self.record_once(
            "rotate", successor.key_id, step=step, replaces=replaced.key_id, **_facts(successor)
        )
        await self.record_once(
            "rotate",
            replaced.key_id,
            step="retired",
            replaced_by=successor.key_id,
            **_facts(replaced),
        )
        await self.aside(self._files.switch, replaced, successor)
        self.current.adopt(authorities.with_active(successor))
        self.done(step, "retired")
        await self.forget_revoked()
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
        await self.record_once("rotate", retired.key_id, step="forgotten", **_facts(retired))
        await self.reseal(retired)
        await self.aside(self._files.forget, retired)
        self.current.adopt(self.authorities.without(retired))
        self.done("forgotten")
        if isinstance(retired.key, StoredKey):
            await self.destroy([retired.key])
        _tell(
            "A retired issuing CA is wanted no more, and its key is deleted",
            retired,
            event="issuing-forgotten",
        )

    async def forget_revoked(self) -> None:
        """Delete the keys of issuing CAs that are revoked, but for the active one's that has no successor yet."""
        authorities = self.authorities
        keys = {row.key_id for row in authorities.revoked} - {authorities.issuing.key_id}
        if not keys or not await self.aside(self._files.have, keys):
            return
        if await self.aside(self.root_files.signer) in keys:
            await self._seal()
        await self.destroy(await self.aside(self._files.forget_keys, keys))

    async def reseal(self, leaving: Authority) -> None:
        """Have the active one sign which roots there are, where an issuing CA did so whose key is about to go."""
        if await self.aside(self.root_files.signer) == leaving.key_id:
            await self._seal()

    async def _seal(self) -> None:
        line = self.authorities.root_line
        document = await self.root_files.signed(line, self.authorities.issuing)
        await self.aside(self.root_files.commit, document)

    async def _prove(self, candidate: Authority) -> None:
        await rotation.prove(candidate, self.current.bundle(), self.now())

    async def record_once(self, act: str, target: str, *, step: str, **facts: str) -> None:
        """Have a step in the record before it takes effect; one that is done again after a failure is there already."""
        # A key has two certificates in an overlap of roots: an act for each.
        which = f"{target} {facts.get('serial', '')}"
        if (step, which) not in self._recorded:
            await self.record(act, target, {"step": step, **facts})
            self._recorded.add((step, which))

    def done(self, *steps: str) -> None:
        """These have taken effect: the next ones of that name are recorded anew."""
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
