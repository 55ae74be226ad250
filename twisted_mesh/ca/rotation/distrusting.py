"""A root is distrusted: another is put in its place at once, then nobody believes it, and that is proven.

No step waits for anybody. Each is recorded first; the moment at which the root is distrusted is when the file of
revoked CAs is replaced. Begun again after a crash it goes on; from that moment on the next start does so by itself.
"""

from collections.abc import Iterator
from pathlib import Path

from attrs import define, frozen
from cryptography import x509

from pki.errors import PkiError, Problem
from pki.issuing.remnants import Remains, Remnant, examine
from pki.issuing.root_line import HowItEnded, Phase, RootLine, fingerprint_of
from pki.keys import key_id
from pki.policy import policy
from pki.policy.policy import Action
from pki.policy.principal import Principal
from pki.serial import serial_hex
from pki.svid.pin import Fingerprint
from pki.svid.revocation_set import Reason
from pki.svid.x509svid import subject_of
from pki.validity import rfc3339
from twisted_mesh.ca.authorities import Authorities
from twisted_mesh.ca.issuing_files import read_certificate
from twisted_mesh.ca.revoked_authorities import RevokedAuthority
from twisted_mesh.ca.rotation.revoking import AuthorityRevoker
from twisted_mesh.ca.rotation.root_steps import RootSteps
from twisted_mesh.runtime.log import logger
from twisted_mesh.stores.interface import IStore
from twisted_mesh.stores.records import Conflict, Query, Unknown

_log = logger("ca")
#: So many steps back there are at most from a root that was switched to.
_MOST_STEPS = 3


@frozen
class Plan:
    """What is to be done about one root."""

    root: x509.Certificate
    steps: tuple[str, ...]
    """In their order; none where it was distrusted before."""
    alone: tuple[str, ...]
    """The key ids of issuing CAs that no other root has certified: whatever they have issued is cut off."""


@frozen
class Distrusted:
    """What became of it."""

    row: RevokedAuthority
    plan: Plan
    remnants: tuple[Remnant, ...]
    """All certificates of CAs that have to do with it, wherever they are."""
    leaves: int
    """Certificates on record over its key: there can be none."""
    waits: Problem | None
    """What is still to be done, and with what."""

    @property
    def is_proven(self) -> bool:
        """Whether nothing is left that would bring its key back to life."""
        revived = any(remnant.remains is Remains.REVIVES for remnant in self.remnants)
        return not revived and not self.leaves


@define(eq=False, repr=False)
class RootDistruster:
    """Distrusts roots. It has the succession to itself while it does."""

    revoker: AuthorityRevoker
    root_steps: RootSteps
    store: IStore

    @property
    def _authorities(self) -> Authorities:
        return self.root_steps.authorities

    def plan(self, principal: Principal, fingerprint: str) -> Plan:
        """What :meth:`distrust` would do. Raises :class:`Unknown`, :class:`Conflict` and refusals."""
        policy.permit(principal, Action.CHANGE_ROOTS)
        return self._plan(fingerprint)

    async def distrust(self, principal: Principal, fingerprint: str, reason: Reason) -> Distrusted:
        """Have nobody believe that root any more, for good; repeated, the first answer again.

        Raises :class:`Unknown`, :class:`Conflict`, refusals, and what keeps a step from being recorded or done.
        """
        policy.permit(principal, Action.CHANGE_ROOTS)
        alone = self.revoker.rotator.alone
        return await alone(lambda: self._distrust(principal, fingerprint, reason))

    async def finish(self) -> None:
        """Take a root out of the bundle that is distrusted and still there: it was cut short. One caller at a time."""
        for row in self._authorities.revoked:
            if row.is_root and row.certificate in self._authorities.roots:
                await self._replace(row.certificate, row.by)
                await self._part(row.certificate, row.by)

    # What is asked for.

    def _plan(self, fingerprint: str) -> Plan:
        named = str(Fingerprint.parse(fingerprint))
        authorities = self._authorities
        line = authorities.root_line
        for row in authorities.revoked:
            if row.is_root and fingerprint_of(row.certificate) == named:
                steps = self._steps(row.certificate) if row.certificate in line.roots else ()
                return Plan(row.certificate, steps, ())
        for root in line.roots:
            if fingerprint_of(root) == named:
                return Plan(root, self._steps(root), tuple(self._alone(root)))
        for former in line.former:
            if former.fingerprint == named:
                raise Conflict(
                    f"{former.subject} has left the bundle at {rfc3339(former.at)} ({former.how}): nobody believes it"
                )
        raise Unknown(
            "no root of this CA has this fingerprint: mesh-ctl ca show has those that are believed"
        )

    def _steps(self, root: x509.Certificate) -> tuple[str, ...]:
        if self._is_alone(root):
            return ("retire", "prepare", "activate", "distrust", "retire")
        return _steps(self.root_steps.line, root)

    def _alone(self, root: x509.Certificate) -> Iterator[str]:
        authorities = self._authorities
        others = [one for one in authorities.roots if one != root]
        for issuing in authorities.every_issuing:
            if not any(authorities.rests_on(issuing, other) for other in others):
                yield issuing.key_id

    # What is done.

    async def _distrust(self, principal: Principal, fingerprint: str, reason: Reason) -> Distrusted:
        plan, by = self._plan(fingerprint), principal.evidence
        before = next(
            (row for row in self._authorities.revoked if row.certificate == plan.root), None
        )
        if plan.root in self._authorities.roots:
            await self._replace(plan.root, by)
        if before is None:
            before = await self._revoke(plan.root, principal, reason)
        await self._part(plan.root, by)
        return Distrusted(
            before,
            plan,
            await self._remnants(plan.root),
            await self._leaves(plan.root),
            self.revoker.rotator.waiting() or self.revoker.publisher.waiting(),
        )

    async def _replace(self, root: x509.Certificate, by: str) -> None:
        """Have chains lead to another root, which alone certifies what issues."""
        if self._is_alone(root):
            await self.root_steps.retire(by, "no way leads back to it")
        line = self.root_steps.line
        if root != line.old:
            return  # nothing of another root's rests on it: it is taken back once nobody believes it
        if line.phase is Phase.SETTLED:
            await self.root_steps.prepare(by, "the present one is distrusted", alone=True)
        if self.root_steps.line.phase is Phase.PREPARED:
            await self.root_steps.activate(by, "the present one is distrusted", alone=True)
        if self.root_steps.line.phase is Phase.ACTIVATED:
            await self.root_steps.switch(by, "the present one is distrusted")
        await self.revoker.renew_own()

    def _is_alone(self, root: x509.Certificate) -> bool:
        """Whether chains lead to that new root, and the old one has not certified what issues: it had ended."""
        line, issuing = self.root_steps.line, self._authorities.issuing
        is_served = root == line.new and line.phase is Phase.SWITCHED
        return is_served and not self._authorities.rests_on(issuing, line.old)

    async def _revoke(
        self, root: x509.Certificate, principal: Principal, reason: Reason
    ) -> RevokedAuthority:
        steps, whose = self.root_steps.rotation_steps, key_id(root.public_key())
        row = RevokedAuthority.of(root, root, steps.now(), reason, principal.evidence)
        await steps.record_once(
            "rotate",
            whose,
            step="root-distrusted",
            fingerprint=fingerprint_of(root),
            serial=serial_hex(root.serial_number),
            not_after=rfc3339(root.not_valid_after_utc),
            reason=str(reason),
            by=principal.evidence,
        )
        rows = await steps.aside(self.revoker.file.add, [row])
        steps.current.adopt(self._authorities.with_revoked(rows))
        self.revoker.listener.revoked([row.revocation])
        steps.done("root-distrusted")
        _log.warn(
            "Root distrusted:\n  Subject: {subject}\n  Fingerprint: {fingerprint}\n  Reason: {reason}\n"
            "  By: {requester}",
            event="root-distrusted",
            subject=subject_of(root),
            fingerprint=fingerprint_of(root),
            reason=str(reason),
            requester=str(principal),
        )
        return row

    async def _part(self, root: x509.Certificate, by: str) -> None:
        """Take it out of the bundle, with what it alone has certified."""
        for _ in range(_MOST_STEPS):
            line = self.root_steps.line
            if root not in line.roots:
                break
            if root == line.old:
                await self.root_steps.retire(by, "it is distrusted", HowItEnded.DISTRUSTED)
            else:
                await self.root_steps.revert(by, "it is distrusted", HowItEnded.DISTRUSTED)
        await self.revoker.renew_own()

    # What is proven.

    async def _remnants(self, root: x509.Certificate) -> tuple[Remnant, ...]:
        authorities = self._authorities
        aside = self.root_steps.rotation_steps.aside
        found: list[tuple[str, x509.Certificate]] = await aside(self._files)
        for issuing in authorities.every_issuing:
            found += (("memory", one) for one in authorities.certificates_of(issuing))
        found += (("revoked-authorities.json", row.certificate) for row in authorities.revoked)
        found += (("roots.json", one) for one in (*authorities.roots, *authorities.root_line.both))
        return examine(root, authorities.roots, found)

    def _files(self) -> list[tuple[str, x509.Certificate]]:
        """Every certificate in the CA's directory, whatever it is called."""
        directory: Path = self.root_steps.rotation_steps.state.ca
        found = []
        for path in sorted(directory.rglob("*.crt")):
            try:
                found.append((str(path.relative_to(directory)), read_certificate(path)))
            except PkiError as error:
                _log.warn(
                    "{path} cannot be looked at: {error}",
                    event="remnant-unreadable",
                    path=str(path),
                    error=str(error),
                )
        return found

    async def _leaves(self, root: x509.Certificate) -> int:
        """Certificates on record over the root's own key: no CSR for it is accepted, so that there is none."""
        steps = self.root_steps.rotation_steps
        page = await self.store.list(
            Query(now=steps.now(), key=key_id(root.public_key()), limit=10)
        )
        return len(page.certificates)


def _steps(line: RootLine, root: x509.Certificate) -> tuple[str, ...]:
    """What is to be done from where the rotation is."""
    if root != line.old:
        back = {Phase.PREPARED: 1, Phase.ACTIVATED: 2, Phase.SWITCHED: 3}[line.phase]
        return ("distrust", *("revert",) * back)
    ahead = {
        Phase.SETTLED: ("prepare", "activate"),
        Phase.PREPARED: ("activate",),
        Phase.ACTIVATED: ("switch",),
        Phase.SWITCHED: (),
    }[line.phase]
    return (*ahead, "distrust", "retire")
