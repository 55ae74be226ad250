"""The root's CRL: signed while the root's key is at hand, for long, and kept in a file for when it is not."""

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from pathlib import Path

from attrs import define, field
from cryptography import x509
from twisted.internet.defer import DeferredLock

from pki.audit.log import Act
from pki.codes import Code
from pki.crl.crl import Crl, crls_in, read_crl
from pki.crl.issue import issue_crl
from pki.crl.schedule import Span
from pki.errors import HOSTILE_INPUT, Malformed, PkiError, Problem
from pki.issuing.authority import Authority
from pki.keys import SigningKey, key_id
from pki.serial import serial_pairs
from pki.svid.revocation_set import Revocation
from pki.svid.x509svid import subject_of, uri_names
from pki.validity import rfc3339, spoken_duration
from twisted_mesh.ca.audit_log import AuditLog
from twisted_mesh.ca.revocation.crl import PublishedCrl
from twisted_mesh.ca.revocation.crl_numbers import CrlNumbers
from twisted_mesh.runtime.clock import Now
from twisted_mesh.runtime.log import logger, reasons
from twisted_mesh.state.directory import read_file, write_whole
from twisted_mesh.state.memory import Memory

_log = logger("ca")
_LEAST = timedelta(days=1)


@define(eq=False, repr=False)
class RootCrl:
    """What the root has revoked, and the CRL that says so. Signed rarely: each time is an act of its own."""

    root: x509.Certificate
    numbers: CrlNumbers
    log: AuditLog
    now: Now
    path: Path | None = None
    """The file; None for a CA that keeps nothing."""
    current: PublishedCrl | None = field(default=None, init=False)
    problem: PkiError | None = field(default=None, init=False)
    """Why the last attempt to sign one failed."""
    _revoked: dict[int, Revocation] = field(factory=dict, init=False)
    _told: frozenset[int] = field(default=frozenset(), init=False)
    """Serials that are on the CRL of the moment."""
    memory: Memory = field(init=False)
    """Whether the file can be written. Whoever publishes tries again twice a minute while the key is here."""
    _lock: DeferredLock = field(factory=DeferredLock, init=False)

    def __attrs_post_init__(self) -> None:
        self.memory = Memory(
            "root-crl",
            self.path,
            "The root's CRL cannot be kept, so that none is signed",
            event="root-crl-not-kept",
            log=_log,
        )

    @property
    def key_id(self) -> str:
        """The root's :func:`pki.keys.key_id`."""
        return key_id(self.root.public_key())

    @property
    def is_behind(self) -> bool:
        """Whether the root has revoked what its CRL does not say."""
        return not self._told >= self._revoked.keys()

    @property
    def unpublished(self) -> int:
        """How many revocations its CRL lacks."""
        return len(self._revoked.keys() - self._told)

    def add(self, revocations: Iterable[Revocation]) -> None:
        """Of the root. They are told when its key is at hand."""
        for revocation in revocations:
            if revocation.serial != self.root.serial_number:  # no root is believed by its own CRL
                self._revoked.setdefault(revocation.serial, revocation)

    def recall(self) -> None:
        """Take up the one in the file. One that is not the root's is told and left alone."""
        if self.path is None or not self.path.exists():
            return
        try:
            self.current = self._read(self.path)
        except PkiError as error:
            _log.warn(
                "{path} cannot be used: {reasons}. It is made anew once the root's key is here",
                event="root-crl-unusable",
                path=str(self.path),
                reasons=reasons(error.problems),
            )
            return
        self._told = frozenset(self._listed())
        self.numbers.saw(self.key_id, self.current.number)

    def is_due(self) -> bool:
        """Whether it is time for the next one, or an older one has come back, from a backup."""
        current = self.current
        if current is None or self.is_behind:
            return True
        return current.number < self.numbers.highest(self.key_id) or current.span.is_due(self.now())

    async def sign(self, key: SigningKey, until: datetime) -> None:
        """Make one that holds until then, in the record first. Raises :class:`PkiError`."""
        await self._lock.acquire()
        try:
            await self._sign(key, until)
        except PkiError as error:
            if self.problem is None:
                _log.warn(
                    "The root's CRL cannot be made: {reasons}",
                    event="crl-failed",
                    issuer=Authority(self.root, key).name,
                    reasons=reasons(error.problems),
                )
            self.problem = error
            raise
        finally:
            self._lock.release()
        self.problem = None

    async def _sign(self, key: SigningKey, until: datetime) -> None:
        now = self.now()
        span = Span.until(now, max(until, now + _LEAST))
        served = self.current.span.this_update if self.current is not None else None
        number = await self.numbers.take(self.key_id, served)
        facts = {
            "step": "root-crl-signed",
            "number": str(number),
            "next_update": rfc3339(span.next_update),
            "entries": str(len(self._revoked)),
        }
        await self.log.record(Act.ADMINISTER, self.key_id, facts)
        told = tuple(self._revoked.values())
        der = await issue_crl(
            Authority(self.root, key),
            told,
            number,
            this_update=span.this_update,
            next_update=span.next_update,
        )
        if self.path is not None:
            with self.memory.watched():
                write_whole(self.path, der, 0o644)
        crl = PublishedCrl(self.key_id, number, span, len(told), now.replace(microsecond=0), der)
        self.current = crl.after(self.current)
        self._told = frozenset(revocation.serial for revocation in told)
        _log.info(
            "The root's CRL is signed, and holds until {until}",
            event="root-crl-signed",
            until=rfc3339(span.next_update),
            number=number,
        )

    @property
    def highest(self) -> int:
        """The highest number that is known to have been used."""
        served = self.current.number if self.current is not None else 0
        return max(served, self.numbers.highest(self.key_id))

    def objections(self, crl: Crl, ours: Iterable[x509.Certificate]) -> Iterator[Problem]:
        """Why a CRL that is good by itself, made where the root's key is, is not served.

        ``ours`` are the certificates of the issuing CAs below this root.
        """
        is_ours = bool(uri_names(self.root))  # somebody else's drops what has ended
        listed = self._listed() if is_ours else set[int]()
        for serial in sorted(listed - {revoked.serial for revoked in crl}):
            yield Problem(
                Code.CRL_ROLLED_BACK,
                f"it does not list {serial_pairs(serial)} any more, which the root's CRL of now lists",
                "sign another where the root is: its directory there may have been put back from an old copy",
                "RFC 5280 section 3.3",
                "CRL",
            )
        for certificate in ours:
            serial = certificate.serial_number
            if crl.find(serial) is not None and serial not in self._revoked:
                name = key_id(certificate.public_key())
                yield Problem(
                    Code.CONFLICT,
                    f"it revokes {subject_of(certificate)}, which is in use here and was not revoked here",
                    f"have it replaced first, and everybody told: mesh-ctl ca revoke-issuing {name}",
                    subject="CRL",
                )

    async def install(self, der: bytes, by: str) -> None:
        """Serve one that was made where the root's key is. Who installs it has looked at it.

        Raises :class:`PkiError` where that cannot be recorded or kept.
        """
        made = self._parsed(der)
        await self.log.record(
            Act.ADMINISTER,
            self.key_id,
            {
                "step": "root-crl-installed",
                "number": str(made.number),
                "next_update": rfc3339(made.span.next_update),
                "entries": str(made.entries),
                "by": by,
            },
        )
        if self.path is not None:
            with self.memory.watched():
                write_whole(self.path, der, 0o644)
        self.numbers.saw(self.key_id, made.number)
        self.current = made.after(self.current)
        self._told = frozenset(self._listed())
        self.problem = None
        _log.info(
            "The root's CRL is installed, and holds until {until}",
            event="root-crl-installed",
            until=rfc3339(made.span.next_update),
            number=made.number,
        )

    def _listed(self) -> set[int]:
        """The serials on the CRL that is served."""
        if self.current is None:
            return set()
        read = read_crl(self.current.der, self.root, now=self.current.span.this_update)
        return {revoked.serial for revoked in read}

    def waiting(self, *, has_key: bool) -> Problem | None:
        """What is not well with it, and what to do."""
        remedy = (
            "bring one that was signed where the root's key is: mesh-ctl ca root sign there, then mesh-ctl ca root "
            "install; or bring the root's key back for a moment: it is signed at once, without a restart"
        )
        if not uri_names(self.root):
            remedy = f"bring that of {subject_of(self.root)}: mesh-ctl ca root install"
        current, now = self.current, self.now()
        if has_key:
            if self.problem is None:
                return None
            return Problem(
                Code.CRL_STALE,
                f"the root's CRL cannot be made: {self.problem}",
                "see to that first",
            )
        if current is None:
            return Problem(
                Code.CRL_STALE, "there is no CRL of the root, and its key is not here", remedy
            )
        if current.span.is_over(now):
            return Problem(Code.CRL_STALE, "the root's CRL is not believed any more", remedy)
        if self.is_behind:
            return Problem(Code.CRL_STALE, "the root has revoked what its CRL does not say", remedy)
        if current.span.is_late(now):
            left = spoken_duration(current.span.next_update - now)
            return Problem(Code.CRL_STALE, f"the root's CRL is believed for {left} more", remedy)
        return None

    def _read(self, path: Path) -> PublishedCrl:
        """One that has ended is served all the same: it says so itself. Raises :class:`PkiError`."""
        (der,) = crls_in(read_file(path, "the root's CRL"))
        return self._parsed(der)

    def _parsed(self, der: bytes) -> PublishedCrl:
        read = read_crl(der, self.root, now=_made_at(der))
        if read.number is None:
            raise Malformed("it has no number")
        made_at = min(read.this_update, self.now()).replace(microsecond=0)
        span = Span(read.this_update, read.next_update)
        return PublishedCrl(self.key_id, read.number, span, len(read), made_at, der)


def _made_at(der: bytes) -> datetime:
    try:
        return x509.load_der_x509_crl(der).last_update_utc
    except HOSTILE_INPUT:
        raise Malformed("it is damaged or cut short") from None
