"""The steps of a root's rotation: prepared, activated, switched, retired, and taken back.

Each is recorded, then takes effect by the one write of ``roots.json``, then the other files follow. One that fails or
is cut short leaves what was, or goes on when it is done again; :meth:`RootSteps.settle` finishes what can be finished
without being asked. Whether a step may be done now is decided by whoever calls it.
"""

from datetime import datetime, timedelta
from typing import Any

from attrs import define, field
from cryptography import x509

from pki.issuing import rotation
from pki.issuing.authority import Authority
from pki.issuing.profile import generation_of
from pki.issuing.root_line import (
    HowItEnded,
    OutOfTurn,
    Phase,
    RootLine,
    RootStep,
    fingerprint_of,
)
from pki.issuing.rotation import Term
from pki.keys import KeptKey, SigningKey, key_id, spki_pin
from pki.serial import serial_hex
from pki.svid.bundle import TrustBundle
from pki.svid.x509svid import subject_of
from pki.validity import rfc3339
from twisted_mesh.ca.authorities import Authorities
from twisted_mesh.ca.authority_files import tell_generating_root
from twisted_mesh.ca.root_files import RootFiles
from twisted_mesh.ca.rotation.steps import RootKeyAway, RotationSteps
from twisted_mesh.keystores.spec import KeySpec
from twisted_mesh.runtime.log import logger

_log = logger("ca")
OURSELVES = "self"


@define(eq=False, repr=False)
class RootSteps:
    """Does what is asked to the line of roots and its files. One caller at a time."""

    rotation_steps: RotationSteps
    root_key: KeySpec
    """What the keys are of the roots that are made from now on, and where."""
    _made: x509.Certificate | None = field(default=None, init=False)
    """A root that could not be kept yet: the next attempt keeps this one."""

    @property
    def authorities(self) -> Authorities:
        """Those of the moment."""
        return self.rotation_steps.authorities

    @property
    def line(self) -> RootLine:
        """The roots of the moment."""
        return self.authorities.root_line

    @property
    def _files(self) -> RootFiles:
        return RootFiles(self.rotation_steps.state, self.rotation_steps.keys)

    async def prepare(
        self,
        by: str = OURSELVES,
        reason: str = "",
        root: x509.Certificate | None = None,
        *,
        alone: bool = False,
    ) -> None:
        """Publish the next root; ``root`` where it was made elsewhere, and its key is not here.

        The next issuing CA is made too, unless the new root ``alone`` is to certify it: whoever asks for CRLs has its
        list then before it issues, and with the new root's.
        Raises :class:`OutOfTurn`, and what making and keeping it raise.
        """
        line, steps = self.line, self.rotation_steps
        line.demand(RootStep.PREPARE)
        await steps.follow_line()
        made, keys = root, dict[str, KeptKey]()
        if made is None:
            key = await self._draw_key(line.next_generation)
            made = self._made
            if made is None or key_id(made.public_key()) != key_id(key.public_key):
                made = await self._make(key)
            self._made = made
            keys[key_id(key.public_key)] = key
        has_ended = steps.now() > line.old.not_valid_after_utc
        if not alone and not has_ended and not steps.keys_away([line.old]):
            await self._successor((line.old,))
        announced = await self._announce()
        await self._record("prepared", made, by, reason, announced=announced)
        await steps.keep_line(line.prepared(made, steps.now(), announced), keys)
        self._made = None
        self._done("prepared")
        self._tell("The next root is published beside the present one", made, event="root-prepared")

    async def activate(self, by: str = OURSELVES, reason: str = "", *, alone: bool = False) -> None:
        """Have an issuing CA issue that both roots certify. Where the old one has ended, or ``alone``, the new one.

        Raises :class:`OutOfTurn`, :class:`RootKeyAway`, and what making and keeping it raise.
        """
        steps, line = self.rotation_steps, self.line
        line.demand(RootStep.ACTIVATE)
        new = _new(line)
        prepared = self.authorities.prepared
        is_certified = prepared is not None and self.authorities.rests_on(prepared, new)
        if not is_certified and (away := steps.keys_away([new])):
            raise RootKeyAway.at(away)
        await steps.follow_line()
        has_ended = alone or steps.now() > line.old.not_valid_after_utc
        wanted = (new,) if has_ended else (line.old, new)
        successor = await self._successor(wanted)
        both = await self._certified(successor, wanted)
        facts = {"issuing": successor.key_id, "replaces": self.authorities.issuing.key_id}
        await self._record("activated", new, by, reason, **facts)
        activated = self.line.activated(both, self.authorities.issuing.key_id, steps.now())
        if has_ended:
            activated = activated.switched(steps.now())
        await steps.keep_line(activated)
        self._done("activated")
        self._tell(
            "The new root has certified what issues from now on", new, event="root-activated"
        )
        await self.settle()

    async def switch(self, by: str = OURSELVES, reason: str = "") -> None:
        """Have chains lead to the new root. Raises :class:`OutOfTurn`, and what keeping it raises."""
        line, steps = self.line, self.rotation_steps
        if line.phase is not Phase.ACTIVATED:
            line.demand(RootStep.RETIRE)
            return
        await self.settle()
        await steps.follow_line()
        new = _new(line)
        await self._record("switched", new, by, reason)
        await steps.keep_line(self.line.switched(steps.now()))
        self._done("switched")
        self._tell("Chains lead to the new root from now on", new, event="root-switched")

    async def retire(
        self,
        by: str = OURSELVES,
        reason: str = "",
        how: HowItEnded = HowItEnded.RETIRED,
    ) -> None:
        """Believe the old root no more, and delete its key and the issuing CAs that it alone has certified.

        Chains must lead to the new one. Raises :class:`OutOfTurn`, and what keeping it raises.
        """
        steps, line = self.rotation_steps, self.line
        if line.phase is not Phase.SWITCHED:
            raise OutOfTurn(
                "chains do not lead to the new root yet, so that the old one cannot be retired: "
                "mesh-ctl ca root status says what comes next"
            )
        await self.settle()
        await steps.follow_line()
        for issuing in self.authorities.every_issuing:
            if not self.authorities.rests_on(issuing, _new(line)):
                await steps.forget(issuing)
        old = line.old
        await self._record(str(how), old, by, reason)
        await steps.keep_line(self.line.retired(steps.now(), how))
        self._done(str(how))
        self._tell(
            "The old root is believed no more, and its key is deleted here",
            old,
            event="root-retired",
        )

    async def revert(
        self,
        by: str = OURSELVES,
        reason: str = "",
        how: HowItEnded = HowItEnded.REVERTED,
    ) -> None:
        """One step back. Raises :class:`OutOfTurn`, and what keeping it raises."""
        steps, line = self.rotation_steps, self.line
        line.demand(RootStep.REVERT)
        new = _new(line)
        await self.settle()
        await steps.follow_line()
        if line.phase is Phase.SWITCHED and not self.authorities.rests_on(
            self.authorities.issuing, line.old
        ):
            raise OutOfTurn(
                f"what issues was not certified by {subject_of(line.old)}, which had ended: there is no way back to it"
            )
        await self._record("reverted", new, by, reason, was=str(line.phase))
        await steps.keep_line(self.line.reverted(steps.now(), how))
        self._done("reverted")
        self._tell("A step of the root's rotation is taken back", new, event="root-reverted")
        await self.settle()

    # What needs no question.

    def unsettled(self) -> Authority | None:
        """The issuing CA that a step has chosen, where another still issues: the step was cut short."""
        authorities, line, now = self.authorities, self.line, self.rotation_steps.now()
        others = authorities.every_issuing[1:]
        if line.new is not None and line.both and line.phase is not Phase.PREPARED:
            if authorities.rests_on(authorities.issuing, line.new):
                return None
            found = [ca for ca in others if authorities.rests_on(ca, line.new)]
            return next((ca for ca in found if ca.validity.contains(now)), None)
        if line.phase is Phase.PREPARED and line.replaced not in ("", authorities.issuing.key_id):
            longest = self.rotation_steps.current.lifetimes.maximum
            for ca in others:
                is_good = ca.validity.contains(now) and now < _activate_at(ca, longest)
                if ca.key_id == line.replaced and is_good:
                    return ca
        return None

    def is_due(self) -> bool:
        """Whether :meth:`heal` has anything to do."""
        unfinished = self.rotation_steps.is_untidy or self.unsettled() is not None
        return unfinished or self.is_over() or self._has_nothing_announced()

    def _has_nothing_announced(self) -> bool:
        """Whether the key that was announced is not the next one: the ordinary succession has gone on meanwhile."""
        if self.line.phase is not Phase.PREPARED:
            return False
        if (prepared := self.authorities.prepared) is not None:
            return self.line.announced != spki_pin(prepared.certificate.public_key())
        return self.line.announced in (
            "",
            spki_pin(self.authorities.issuing.certificate.public_key()),
        )

    def is_over(self) -> bool:
        """Whether chains lead to a root that has ended, and another one stands by."""
        line, now = self.line, self.rotation_steps.now()
        has_ended = now > line.old.not_valid_after_utc
        return line.phase is Phase.ACTIVATED and has_ended and now <= _new(line).not_valid_after_utc

    async def settle(self) -> None:
        """Finish a step that was cut short."""
        if (chosen := self.unsettled()) is not None:
            await self.rotation_steps.activate(
                chosen, "activated" if self.line.phase is not Phase.PREPARED else "resumed"
            )

    async def heal(self) -> None:
        """:meth:`settle`; and lead chains to the new root where the old one has ended, so that they lead nowhere."""
        if self.rotation_steps.is_untidy:
            await self.rotation_steps.follow_line()
        await self.settle()
        if self._has_nothing_announced():
            steps, announced = self.rotation_steps, await self._announce()
            await steps.keep_line(self.line.announcing(announced, steps.now()))
        if self.is_over():
            await self.switch(reason="the old root has ended")

    # Pieces of steps.

    async def _draw_key(self, generation: int) -> KeptKey:
        """Kept before the root is made: a crash in between takes up the same key again."""
        name, steps = f"root-{generation}", self.rotation_steps
        return await steps.drawing.draw(
            f"{name}.key", self.root_key, name, tell_generating_root, self.authorities.key_ids
        )

    async def _make(self, key: SigningKey) -> x509.Certificate:
        steps = self.rotation_steps
        trust_domain = steps.current.trust_domain
        generation = self.line.next_generation
        root = await Authority.create_root(key, trust_domain, steps.now(), generation)
        return root.certificate

    async def _announce(self) -> str:
        """The pin of the key that issues next, drawn where it is not."""
        if (prepared := self.authorities.prepared) is not None:
            return spki_pin(prepared.certificate.public_key())
        steps = self.rotation_steps
        key = await steps.draw_key(await steps.next_number())
        return spki_pin(key.public_key)

    async def _successor(self, wanted: tuple[x509.Certificate, ...]) -> Authority:
        """The prepared issuing CA, or one that is made now."""
        steps, prepared = self.rotation_steps, self.authorities.prepared
        if prepared is None or not prepared.validity.contains(steps.now()):
            await steps.prepare(wanted)
            prepared = self.authorities.prepared
        if prepared is None:
            raise AssertionError("what was prepared is not there")
        return prepared

    async def _certified(
        self, successor: Authority, wanted: tuple[x509.Certificate, ...]
    ) -> tuple[x509.Certificate, ...]:
        """The certificates of ``successor`` by each of the roots; each is proven to hold by itself."""
        steps, found = self.rotation_steps, []
        for root in wanted:
            held = self.authorities.certificates_of(successor)
            present = [one for one in held if self.line.root_of(one) == root]
            if present:
                chain = self.line.chain_of(present[0])
                authority = Authority(present[0], successor.key, chain)
            else:
                generation = generation_of(successor.certificate.subject)
                authority = await steps.certify(root, successor.key, generation)
            bundle = TrustBundle(steps.current.trust_domain, (root,))
            await rotation.prove(authority, bundle, steps.now())
            found.append(authority.certificate)
        return tuple(found)

    async def _record(
        self, step: str, root: x509.Certificate, by: str, reason: str, **facts: str
    ) -> None:
        told = {
            "fingerprint": fingerprint_of(root),
            "generation": str(generation_of(root.subject)),
            "serial": serial_hex(root.serial_number),
            "not_after": rfc3339(root.not_valid_after_utc),
            "by": by,
            **{name: value for name, value in facts.items() if value},
            **({"reason": reason} if reason else {}),
        }
        target = key_id(root.public_key())
        await self.rotation_steps.record_once("rotate", target, step=f"root-{step}", **told)

    def _done(self, step: str) -> None:
        self.rotation_steps.done(f"root-{step}")

    def _tell(self, title: str, root: x509.Certificate, *, event: str) -> None:
        facts: dict[str, Any] = {
            "subject": subject_of(root),
            "fingerprint": fingerprint_of(root),
            "until": rfc3339(root.not_valid_after_utc),
        }
        _log.info(
            title + ":\n  Subject: {subject}\n  Fingerprint: {fingerprint}\n  Valid: to {until}",
            event=event,
            **facts,
        )


def _new(line: RootLine) -> x509.Certificate:
    if line.new is None:
        raise AssertionError("there is no next root in this phase")
    return line.new


def _activate_at(authority: Authority, longest: timedelta) -> datetime:
    return Term.of(authority.certificate).activate_at(longest)
