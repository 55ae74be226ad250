"""The CRLs that a Workload API sends along (its ``crl`` field): what they list is revoked, until they are stale."""

import hashlib
from collections.abc import Sequence

from attrs import define, field
from cryptography import x509
from twisted.internet.threads import deferToThread
from twisted.logger import Logger

from pki.codes import Code
from pki.crl.crl import find_issuer, issuer_name
from pki.errors import Malformed, PkiError, Problem
from pki.ocsp.evidence import ListInForce, lists_from
from pki.svid.revocation_set import Revocation, RevocationSet
from pki.svid.x509svid import certificates_pem
from pki.validity import rfc3339
from twisted_mesh.api.messages import IssuerCrl, PublishedCrls
from twisted_mesh.runtime.clock import Now
from twisted_mesh.runtime.log import codes, reasons
from twisted_mesh.runtime.tasks import Defer

_NOTHING = RevocationSet()


@define(eq=False)
class _Held:
    """One list of the latest answer."""

    der: bytes
    issuer: x509.Certificate | None = None
    """None where it was refused, or where its issuer is not known yet."""
    in_force: ListInForce | None = None


@define(eq=False)
class SourceCrls:
    """Reads each list once, believes it if its issuer has signed it, and tells once what is wrong with it."""

    now: Now
    log: Logger
    where: str
    issuers: Sequence[x509.Certificate] = ()
    """Besides those above our own identities and the roots: ``--crl-issuer``."""
    defer: Defer = deferToThread
    _learnt: tuple[x509.Certificate, ...] = field(default=(), init=False)
    _roots: tuple[x509.Certificate, ...] = field(default=(), init=False)
    _held: dict[bytes, _Held] = field(factory=dict, init=False)
    """By the SHA-256 of the list."""
    _numbers: dict[str, int] = field(factory=dict, init=False)
    """The highest that was seen, by issuer."""

    async def read(
        self,
        lists: Sequence[bytes],
        above: Sequence[x509.Certificate],
        roots: Sequence[x509.Certificate],
    ) -> Sequence[Revocation]:
        """What is revoked by ``lists``, which replace those before, and was not told yet. Raises nothing."""
        # Of our last issuing CAs too: peers have leaves of those for a while.
        self._learnt = tuple(dict.fromkeys((*above, *self._learnt)))
        self._roots = tuple(roots)
        before, self._held = self._held, {}
        news: list[Revocation] = []
        for der in dict.fromkeys(lists):
            digest = hashlib.sha256(der).digest()
            held = before.get(digest)
            if held is None or (held.issuer is None and _knows(self._candidates, der)):
                held = await self._take(der, self._candidates, news, is_new=held is None)
            self._held[digest] = held
        return news

    async def learn(self, issuers: Sequence[x509.Certificate]) -> Sequence[Revocation]:
        """What is revoked by lists that are theirs and were nobody's that is known. Raises nothing.

        ``issuers`` have been judged: they stand above a peer. Nothing is done where no list waits for its issuer.
        """
        waiting = [(at, held) for at, held in self._held.items() if held.issuer is None]
        fresh = [issuer for issuer in issuers if issuer not in self._candidates]
        news: list[Revocation] = []
        if waiting and fresh:
            self._learnt = (*fresh, *self._learnt)
            for digest, held in waiting:
                if _knows(fresh, held.der):
                    taken = await self._take(held.der, fresh, news, is_new=True)
                    if self._held.get(digest) is held:
                        self._held[digest] = taken
        return news

    @property
    def _candidates(self) -> tuple[x509.Certificate, ...]:
        return (*self.issuers, *self._learnt, *self._roots)

    async def _take(
        self,
        der: bytes,
        candidates: Sequence[x509.Certificate],
        news: list[Revocation],
        *,
        is_new: bool,
    ) -> _Held:
        try:
            issuer = find_issuer(der, candidates)
            if issuer is None:
                if is_new:
                    self._tell_of_a_stranger(der)
                return _Held(der)
            (in_force,), listed = await self.defer(
                lists_from, der, (issuer,), self.now(), seen=self._numbers, known=_NOTHING
            )
        except PkiError as error:
            # One that comes again and again is told of once.
            if is_new:
                self.log.warn(
                    "A CRL from the Workload API at {place} refused: {reasons}",
                    event="crl-refused",
                    place=self.where,
                    codes=codes(error.problems),
                    reasons=reasons(error.problems),
                )
            return _Held(der)
        if in_force.number is not None:
            self._numbers[in_force.issuer] = in_force.number
        news.extend(listed)
        (self.log.info if listed else self.log.debug)(
            "CRL of {issuer} from the Workload API at {place} believed: number {number}, {entries} revoked",
            event="crl-believed",
            place=self.where,
            issuer=in_force.subject,
            number="none" if in_force.number is None else in_force.number,
            entries=in_force.size,
            next_update=rfc3339(in_force.next_update),
        )
        return _Held(der, issuer, in_force)

    def _tell_of_a_stranger(self, der: bytes) -> None:
        self.log.warn(
            "A CRL from the Workload API at {place} waits for its issuer, {issuer}, of which no certificate is known "
            "here: it counts once a peer shows that, or with --crl-issuer",
            event="crl-stranger",
            place=self.where,
            issuer=issuer_name(der),
            codes=Code.CRL_OTHER_ISSUER,
        )

    def doubt(self) -> Problem | None:
        """Why it may not be known who is revoked: a list that is in force was to be replaced, and was not."""
        now = self.now()
        for held in self._held.values():
            late = held.in_force
            if late is not None and late.next_update < now:
                return Problem(
                    Code.STALE_REVOCATION,
                    f"the CRL of {late.subject} from the Workload API at {self.where} was to be replaced by "
                    f"{rfc3339(late.next_update)}, and was not",
                    "see that its CA can be reached from there; --on-stale grace goes on without it",
                )
        return None

    def published(self) -> PublishedCrls:
        """Those in force, as a CA would publish them."""
        return PublishedCrls(
            [
                IssuerCrl(certificates_pem([held.issuer]).decode(), held.der)
                for held in self._held.values()
                if held.issuer is not None
            ]
        )


def _knows(candidates: Sequence[x509.Certificate], der: bytes) -> bool:
    try:
        return find_issuer(der, candidates) is not None
    except Malformed:
        return False
