"""OCSP answers: what is asked, who signs, and which answers are given again.

Each issuing CA has a delegate of its own, whose key is made here and never leaves memory. It is
certified when it is first needed, replaced by itself, and forgotten with its CA.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime

from attrs import define, field, frozen
from cryptography import x509
from twisted.internet.defer import CancelledError, DeferredLock
from zope.interface import implementer

from pki.crl.schedule import ANSWER_LIFE, Span, is_worth_renewing
from pki.errors import ANY_ERROR, Malformed, PkiError
from pki.issuing.authority import Authority, IssuerExpired
from pki.keys import KeyAlgorithm, MemoryKey
from pki.ocsp.request import CertId, Issuer, OcspRequest
from pki.ocsp.sign import (
    ErrorStatus,
    Responder,
    SingleResponse,
    Standing,
    UnfitResponder,
    error_response,
    single_responses,
)
from pki.svid.revocation_set import Revocation
from twisted_mesh.ca.authorities import CurrentAuthorities
from twisted_mesh.ca.revocation.crl_publisher import CrlPublisher
from twisted_mesh.interfaces import IRevocationListener
from twisted_mesh.limits.fair_queue import FairQueue
from twisted_mesh.limits.rate_limit import TryLater
from twisted_mesh.runtime.clock import Now
from twisted_mesh.runtime.log import logger, reasons
from twisted_mesh.stores.interface import IStore
from twisted_mesh.stores.records import IssuedCertificate

_log = logger("ca")
#: Answers that are kept: each is a kilobyte.
MOST_ANSWERS = 8192
#: How often an answer is made again because a certificate was revoked meanwhile.
_TRIES = 3

Certify = Callable[[Authority, MemoryKey], Awaitable[x509.Certificate]]
"""Has a responder's key certified by that issuing CA, with all that is recorded of it."""

#: What :attr:`OcspResponder.counts` is told, besides how certificates stand.
_ERRORS = {
    ErrorStatus.MALFORMED_REQUEST: "malformed",
    ErrorStatus.INTERNAL_ERROR: "internal",
    ErrorStatus.TRY_LATER: "try-later",
    ErrorStatus.UNAUTHORIZED: "unauthorized",
}
STATUSES = ("good", "revoked", "unknown", *_ERRORS.values())


@frozen(eq=False, repr=False)
class OcspReply:
    """An OCSPResponse in DER."""

    der: bytes = field(repr=False)
    span: Span | None = None
    """For how long others may give it again; None: it is for this caller and this moment only."""

    @property
    def digest(self) -> str:
        """Tells it from others."""
        return hashlib.sha256(self.der).hexdigest()[:32]


@frozen(eq=False, repr=False)
class _Kept:
    reply: OcspReply
    certificate: tuple[str, int]
    """Its issuer's key id and its serial."""
    standing: str


@define(eq=False, repr=False)
class _Delegate:
    """Who signs for one issuing CA."""

    authority: Authority
    identity: Issuer
    lock: DeferredLock = field(factory=DeferredLock)
    responder: Responder | None = None
    is_used: bool = False
    """Whether it has signed anything since it was certified."""


@implementer(IRevocationListener)
@define(eq=False, repr=False)
class OcspResponder:
    """Answers for every issuing CA that has its key here."""

    authorities: CurrentAuthorities
    store: IStore
    publisher: CrlPublisher
    now: Now
    certify: Certify
    fair_queue: FairQueue
    """What is signed, with all else that the CA signs for callers, each in turn."""
    counts: Callable[[str], object] = lambda status: None
    """Is told each of :data:`STATUSES` as it is answered."""
    _is_failing: bool = field(default=False, init=False)
    _delegates: dict[str, _Delegate] = field(factory=dict, init=False)
    _kept: "OrderedDict[bytes, _Kept]" = field(factory=OrderedDict, init=False)
    """By the CertID in DER, as it was asked; the one that was asked for longest ago first."""
    _good: "OrderedDict[tuple[str, int], None]" = field(factory=OrderedDict, init=False)
    """Those that the record was asked about, and that stand well for as long as nobody revokes them."""
    _kept_of: dict[tuple[str, int], set[bytes]] = field(factory=dict, init=False)

    def __len__(self) -> int:
        """How many answers are kept."""
        return len(self._kept)

    async def answer(self, request: bytes, caller: str) -> OcspReply:
        """Whatever ``request`` is, an OCSPResponse. ``caller`` is who waits in line for a signature."""
        try:
            return await self._answer(request, caller)
        except Malformed:
            return self._refusal(ErrorStatus.MALFORMED_REQUEST)
        except TryLater:
            return self._refusal(ErrorStatus.TRY_LATER)
        except (IssuerExpired, UnfitResponder) as error:
            self._tell(error)
            return self._refusal(ErrorStatus.UNAUTHORIZED)
        except PkiError as error:
            self._tell(error)
            return self._refusal(ErrorStatus.TRY_LATER)
        except CancelledError:
            raise  # whoever asked does not wait any more, or the CA stops
        except ANY_ERROR:
            _log.failure("an OCSP request could not be answered", event="request-broke")
            return self._refusal(ErrorStatus.INTERNAL_ERROR)

    def revoked(self, revocations: Sequence[Revocation]) -> None:
        """These are revoked: what was answered about them is not answered again."""
        for revocation in revocations:
            certificate = revocation.issuer, revocation.serial
            self._good.pop(certificate, None)
            for der in self._kept_of.pop(certificate, ()):
                del self._kept[der]
            self._replace_if_own(certificate)

    async def attend(self) -> None:
        """Replace the delegates that are due; one that has signed nothing is forgotten. Raises :class:`PkiError`."""
        self._follow()
        for delegate in tuple(self._delegates.values()):
            responder, authority = delegate.responder, delegate.authority
            if responder is None or not is_worth_renewing(
                responder.validity, authority.validity, self.now()
            ):
                continue
            if delegate.is_used:
                await self._certified(delegate, instead_of=responder)
            else:
                self._dismiss(delegate)

    # One answer.

    async def _answer(self, request: bytes, caller: str) -> OcspReply:
        asked = OcspRequest.parse(request)
        delegate = self._delegate_for(asked.cert_ids)
        if delegate is None:
            return self._refusal(ErrorStatus.UNAUTHORIZED)
        is_plain = asked.nonce is None and len(asked.cert_ids) == 1
        if is_plain and (kept := self._recalled(asked.cert_ids[0].der)) is not None:
            self.counts(kept.standing)
            return kept.reply
        async with self.fair_queue.enter(caller):
            responses, reply = await self._signed(delegate, asked)
        standings = [_word(response.standing) for response in responses]
        for standing in standings:
            self.counts(standing)
        # What nobody knows is asked for by whoever wants to push out what is known.
        if is_plain and standings != [Standing.UNKNOWN]:
            self._keep(delegate, asked.cert_ids[0], reply, standings[0])
        return reply

    async def _signed(
        self, delegate: _Delegate, asked: OcspRequest
    ) -> tuple[tuple[SingleResponse, ...], OcspReply]:
        await self.publisher.ready()
        for _ in range(_TRIES):
            responder = await self._certified(delegate)
            delegate.is_used = True
            now = self.now()
            span = _within(Span.starting(now, ANSWER_LIFE), responder)
            self.publisher.demand_life(span.next_update)
            responses = await self._responses(delegate, asked, span)
            nonce = asked.nonce
            der = await responder.respond(responses, produced_at=now, nonce=nonce)
            self._is_failing = False
            if not any(self._is_revoked_since(delegate, response) for response in responses):
                self._remember_good(delegate, responses)
                is_public = nonce is None
                return responses, OcspReply(der, span if is_public else None)
        raise TryLater("certificates are revoked faster than they are asked for", 1)

    async def _responses(
        self, delegate: _Delegate, asked: OcspRequest, span: Span
    ) -> tuple[SingleResponse, ...]:
        whose = delegate.authority.key_id
        serials = {c.serial for c in asked.cert_ids if delegate.identity.issued(c)}
        good = {serial for serial in serials if (whose, serial) in self._good}
        on_record: Sequence[IssuedCertificate] = ()
        if serials - good:
            on_record = await self.store.find_all(sorted(serials - good))
        found = {certificate.serial: certificate for certificate in on_record}

        def lookup(issuer: str, serial: int) -> Standing | Revocation:
            if (revocation := self.publisher.find(issuer, serial)) is not None:
                return revocation
            return Standing.GOOD if serial in good else _standing(found.get(serial), issuer)

        return single_responses(
            asked,
            delegate.identity,
            lookup,
            this_update=span.this_update,
            next_update=span.next_update,
        )

    def _remember_good(self, delegate: _Delegate, responses: Sequence[SingleResponse]) -> None:
        for response in responses:
            if response.standing is Standing.GOOD:
                certificate = delegate.authority.key_id, response.cert_id.serial
                self._good[certificate] = None
                self._good.move_to_end(certificate)
        while len(self._good) > MOST_ANSWERS:
            self._good.popitem(last=False)

    def _is_revoked_since(self, delegate: _Delegate, response: SingleResponse) -> bool:
        """Whether an answer says good of what has been revoked while it was made."""
        if response.standing is not Standing.GOOD:
            return False
        serial = response.cert_id.serial
        return self.publisher.find(delegate.authority.key_id, serial) is not None

    def _tell(self, error: PkiError) -> None:
        """Once, until an answer can be signed again: strangers must not be able to fill the log."""
        (_log.debug if self._is_failing else _log.warn)(
            "An OCSP request cannot be answered: {reasons}",
            event="ocsp-failed",
            codes=error.code,
            reasons=reasons(error.problems),
        )
        self._is_failing = True

    def _refusal(self, status: ErrorStatus) -> OcspReply:
        self.counts(_ERRORS[status])
        return OcspReply(error_response(status))

    # Who signs.

    def _delegate_for(self, cert_ids: Sequence[CertId]) -> _Delegate | None:
        """That of the issuing CA of the first certificate that is one of ours."""
        self._follow()
        for cert_id in cert_ids:
            for delegate in self._delegates.values():
                if delegate.identity.issued(cert_id):
                    return delegate
        return None

    def _follow(self) -> None:
        """The issuing CAs come and go."""
        there = self.authorities.current.in_use
        if [a.key_id for a in there] == list(self._delegates):
            for authority in there:
                # Chains may lead to another root by now: the same key, by another certificate.
                self._delegates[authority.key_id].authority = authority
            return
        former, self._delegates = self._delegates, {}
        for authority in there:
            known = former.pop(authority.key_id, None)
            self._delegates[authority.key_id] = known or _Delegate(
                authority, Issuer.of(authority.certificate)
            )
        for gone in former.values():
            self._dismiss(gone)

    async def _certified(
        self, delegate: _Delegate, instead_of: Responder | None = None
    ) -> Responder:
        """Who signs now: whoever can, and not ``instead_of``. Raises what keeps a certificate from being issued."""
        await delegate.lock.acquire()
        try:
            present = delegate.responder
            if present is instead_of or present is None or not self._can_sign(present):
                key = MemoryKey.generate(_algorithm_below(delegate.authority))
                certificate = await self.certify(delegate.authority, key)
                present = Responder(delegate.authority.certificate, key, certificate)
                self._dismiss(delegate)
                delegate.responder, delegate.is_used = present, False
            return present
        finally:
            delegate.lock.release()

    def _can_sign(self, responder: Responder) -> bool:
        return responder.validity.contains(self.now())

    def _dismiss(self, delegate: _Delegate) -> None:
        """Forget a delegate's key, and all that it has signed."""
        delegate.responder = None
        for der, kept in tuple(self._kept.items()):
            if kept.certificate[0] == delegate.authority.key_id:
                self._drop(der)

    def _replace_if_own(self, certificate: tuple[str, int]) -> None:
        """Who is told that a delegate is revoked wants another one, though clients do not look."""
        issuer, serial = certificate
        delegate = self._delegates.get(issuer)
        own = delegate.responder.certificate if delegate and delegate.responder else None
        if delegate is not None and own is not None and own.serial_number == serial:
            self._dismiss(delegate)

    # What is answered again.

    def _recalled(self, der: bytes) -> _Kept | None:
        kept = self._kept.get(der)
        if kept is None:
            return None
        if kept.reply.span is None or kept.reply.span.is_due(self.now()):
            self._drop(der)
            return None
        self._kept.move_to_end(der)
        return kept

    def _keep(self, delegate: _Delegate, asked: CertId, reply: OcspReply, standing: str) -> None:
        certificate = delegate.authority.key_id, asked.serial
        self._drop(asked.der)
        self._kept[asked.der] = _Kept(reply, certificate, standing)
        self._kept_of.setdefault(certificate, set()).add(asked.der)
        if len(self._kept) > MOST_ANSWERS:
            self._drop(next(iter(self._kept)))

    def _drop(self, der: bytes) -> None:
        kept = self._kept.pop(der, None)
        if kept is None:
            return
        others = self._kept_of[kept.certificate]
        others.discard(der)
        if not others:
            del self._kept_of[kept.certificate]


def _standing(known: IssuedCertificate | None, issuer: str) -> Standing | Revocation:
    """By the record. A signature that is only intended may never be made: nobody knows it."""
    if known is None or known.issuer != issuer:
        return Standing.UNKNOWN
    if known.revoked_at is not None and known.reason is not None:
        return Revocation(issuer, known.serial, known.revoked_at, known.reason, known.expires_at)
    return Standing.UNKNOWN if known.is_pending else Standing.GOOD


def _word(standing: Standing | Revocation) -> str:
    return "revoked" if isinstance(standing, Revocation) else str(standing)


def _algorithm_below(authority: Authority) -> KeyAlgorithm:
    """Of a delegate's key: small and quick, unless its issuer was chosen to withstand quantum computers."""
    issuers = KeyAlgorithm.of(authority.certificate.public_key())
    return issuers if issuers and issuers.kind.is_post_quantum else KeyAlgorithm.EC_P256


def _within(span: Span, responder: Responder) -> Span:
    """No answer outlives its responder."""
    end: datetime = min(span.next_update, responder.validity.not_after)
    return Span(span.this_update, end)
