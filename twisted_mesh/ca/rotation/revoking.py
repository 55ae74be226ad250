"""An issuing CA is revoked: its successor issues first, then nobody believes it, and its key is gone.

Recorded before it takes effect; the moment at which it does is when the file of revoked CAs is replaced. Done
again, or begun again after a crash, it goes on and ends the same.
"""

from collections.abc import Awaitable, Callable, Iterable, Iterator
from datetime import datetime

from attrs import define, frozen

from pki.audit.log import Act, Entry
from pki.codes import Code
from pki.errors import PkiError, Problem
from pki.issuing.authority import Authority
from pki.policy import policy
from pki.policy.policy import Action
from pki.policy.principal import Principal
from pki.serial import parse_serial, serial_hex, serial_pairs
from pki.svid.revocation_set import Reason, Revocation
from pki.validity import parse_rfc3339, rfc3339
from twisted_mesh.ca.authorities import Authorities
from twisted_mesh.ca.revocation.crl_publisher import CrlPublisher
from twisted_mesh.ca.revoked_authorities import RevokedAuthorities, RevokedAuthority, merged_rows
from twisted_mesh.ca.rotation.rotator import Rotator
from twisted_mesh.ca.rotation.steps import RotationSteps
from twisted_mesh.interfaces import IRevocationListener
from twisted_mesh.runtime.log import logger
from twisted_mesh.state.directory import StateError
from twisted_mesh.stores.records import Conflict, Unknown

_log = logger("ca")
#: Steps of the audit log by which a CA is revoked.
_REVOKED = ("revoked", "root-distrusted")


class NoSuccessor(PkiError):
    """The issuing CA that issues now cannot be followed by another, since the root's key is not here."""

    code = Code.NO_SUCCESSOR


@frozen
class AuthorityRevoked:
    """What became of one CA."""

    revoked: tuple[RevokedAuthority, ...]
    """All certificates over its key."""
    issuing: str | None
    """The key id of the CA that issues now; None where there is none until the root's key is back."""
    was_revoked: bool
    """Whether it had been before."""
    waits: Problem | None
    """What is still to be done, and with what."""


@define(eq=False, repr=False)
class AuthorityRevoker:
    """Revokes issuing CAs. It has the succession to itself while it does."""

    rotator: Rotator
    file: RevokedAuthorities
    publisher: CrlPublisher
    listener: IRevocationListener
    """Hears of each revocation once it is durable."""
    renew_own: Callable[[], Awaitable[None]]
    """Has the CA's own TLS certificate issued by the CA that issues now. Bounds its time and raises nothing."""

    @property
    def _steps(self) -> RotationSteps:
        return self.rotator.rotation_steps

    @property
    def _authorities(self) -> Authorities:
        return self.rotator.authorities

    async def revoke(
        self, principal: Principal, issuer: str, reason: Reason, *, force: bool = False
    ) -> AuthorityRevoked:
        """Revoke the issuing CA of that key id for good; repeated, the first answer again.

        ``force``: also the one that issues, with no successor. Raises :class:`Unknown`, :class:`Conflict`,
        :class:`NoSuccessor`, refusals, and what keeps the act from being recorded or the files from being written.
        """
        policy.permit(principal, Action.REVOKE_ISSUING)
        return await self.rotator.alone(lambda: self._revoke(principal, issuer, reason, force))

    async def hold_against(self, acts: Iterable[bytes]) -> None:
        """Hold the file against what the audit log says was revoked: ``acts`` are its entries about CAs.

        What a crash has kept out of the file is revoked now, as far as its certificate is here. Raises
        :class:`StateError` where the file lacks anything else: somebody has changed or removed it.
        """
        held = {(row.revocation.issuer, row.revocation.serial) for row in self.file.rows}
        present = {
            certificate.serial_number: certificate
            for authority in self._authorities.every_issuing
            for certificate in self._authorities.certificates_of(authority)
        } | {root.serial_number: root for root in self._authorities.roots}
        rows = []
        for act in acts:
            said = _said(act)
            is_over = said is None or said.expires_at < self._steps.now()
            if said is None or is_over or (said.issuer, said.serial) in held:
                continue
            certificate = present.get(said.serial)
            if certificate is None:
                raise StateError(
                    f"{self.file.path} does not say that the CA certificate with the serial "
                    f"{serial_hex(said.serial)} is revoked, and the audit log says that it was, at "
                    f"{rfc3339(said.revoked_at)}: restore the file from a backup"
                )
            rows.append(RevokedAuthority(certificate, said, "the audit log"))
        rows = list(merged_rows(rows, self._others_of(rows)))
        if rows:
            known = await self._steps.aside(self.file.add, rows)
            self._steps.current.adopt(self._authorities.with_revoked(known))
            self.listener.revoked([row.revocation for row in rows])

    def _others_of(self, rows: Iterable[RevokedAuthority]) -> Iterator[RevokedAuthority]:
        """Of the same issuing CAs: in an overlap of roots a key has two certificates, each with an act of its own."""
        for row in rows:
            issuing = self._authorities.issuer(row.key_id)
            if issuing is not None:
                said = row.revocation
                yield from self._rows(issuing, said.revoked_at, said.reason, row.by)

    async def _revoke(
        self, principal: Principal, issuer: str, reason: Reason, force: bool
    ) -> AuthorityRevoked:
        before = tuple(row for row in self._authorities.revoked if row.key_id == issuer)
        if before:
            await self._tidy()
            return await self._answer(before, was_revoked=True)
        revoked = self._named(issuer)
        if revoked is self._authorities.issuing:
            await self._succeed(revoked, force=force)
        rows = self._rows(revoked, self._steps.now(), reason, principal.evidence)
        for row in rows:
            await self._steps.record_once(
                "rotate", issuer, step="revoked", by=principal.evidence, **_facts(row)
            )
        rows_by_now = await self._steps.aside(self.file.add, rows)
        self._steps.current.adopt(self._authorities.with_revoked(rows_by_now))
        self.listener.revoked([row.revocation for row in rows])
        self._steps.done("revoked")
        for row in rows:
            _log.warn(
                "Issuing CA revoked:\n  Subject: {subject}\n  Serial: {serial}\n  Reason: {reason}\n  By: {requester}",
                event="issuing-revoked",
                subject=row.name,
                serial=serial_pairs(row.revocation.serial),
                reason=str(row.revocation.reason),
                requester=str(principal),
            )
        await self._tidy()
        return await self._answer(rows, was_revoked=False)

    def _named(self, issuer: str) -> Authority:
        authorities = self._authorities
        if issuer in authorities.known_roots:
            raise Conflict(
                "this is the key of the root, which no CA above it can revoke: mesh-ctl ca root distrust takes it out "
                "of the bundle"
            )
        found = authorities.issuer(issuer)
        if found is None:
            raise Unknown("no issuing CA here has this key id: mesh-ctl ca show has each one's")
        return found

    async def _succeed(self, revoked: Authority, *, force: bool) -> None:
        """Have another issue, and the CA's own port show a certificate of that one, before this one is revoked."""
        prepared, now = self._authorities.prepared, self._steps.now()
        if prepared is None or not prepared.validity.contains(now):
            if away := self._steps.keys_away():
                if force:
                    return
                raise NoSuccessor(
                    f"{revoked.name} issues now, and the root's key is not here to make its successor: "
                    f"{self._steps.how_to_certify(away)}; then say this again. With --force it is revoked now, and "
                    "nothing is issued or renewed until there is a successor"
                )
            await self._steps.prepare()
            prepared = self._authorities.prepared
        if prepared is None:
            raise AssertionError("a successor was prepared and is not there")
        await self._steps.activate(prepared)
        await self.renew_own()

    def _rows(
        self, revoked: Authority, at: datetime, reason: Reason, by: str
    ) -> tuple[RevokedAuthority, ...]:
        authorities = self._authorities
        found = []
        for certificate in authorities.certificates_of(revoked):
            root = authorities.root_line.root_of(certificate)
            if root is not None:
                found.append(RevokedAuthority.of(certificate, root, at, reason, by))
        return tuple(found)

    async def _tidy(self) -> None:
        """The root's CRL says so, if its key is here; the revoked CA's files go, if it has a successor."""
        try:
            await self.publisher.sign_roots()
        except PkiError as error:  # it is tried again twice a minute, and /readyz says so
            _log.debug("the root's CRL has to wait: {error}", error=str(error))
        await self._steps.forget_revoked()

    async def _answer(
        self, rows: tuple[RevokedAuthority, ...], *, was_revoked: bool
    ) -> AuthorityRevoked:
        issuing = self._authorities.issuing.key_id
        return AuthorityRevoked(
            rows,
            None if self._authorities.is_revoked(issuing) else issuing,
            was_revoked,
            self.rotator.waiting() or self.publisher.waiting(),
        )


def _said(act: bytes) -> Revocation | None:
    """What an entry says was revoked of a CA; None for one that is about something else."""
    try:
        entry = Entry.parse(act)
        if entry.act is not Act.ROTATE or entry.facts.get("step") not in _REVOKED:
            return None
        serial = parse_serial(entry.facts["serial"])
        issuer = entry.facts.get("issuer", entry.object)  # a root is its own
        ends_at = parse_rfc3339(entry.facts["not_after"])
        at = entry.at.replace(microsecond=0)
        return Revocation(issuer, serial, at, Reason(entry.facts["reason"]), ends_at)
    except (PkiError, KeyError, ValueError):
        return None  # a log that is damaged is for whoever verifies it


def _facts(row: RevokedAuthority) -> dict[str, str]:
    return {
        "reason": str(row.revocation.reason),
        "serial": serial_hex(row.revocation.serial),
        "generation": str(row.generation),
        "issuer": row.revocation.issuer,
        "not_after": rfc3339(row.revocation.expires_at),
    }
