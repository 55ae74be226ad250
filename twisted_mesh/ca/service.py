"""The certificate authority: decides by :mod:`pki`, hands out what it has on record, and tells who must know."""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from contextlib import AsyncExitStack
from datetime import timedelta
from functools import partial

from attrs import define, evolve, field

from pki.errors import PkiError, Problem, Refused
from pki.issuing.csr import IssuanceRequest
from pki.keys import KeyAlgorithm, key_id
from pki.policy import policy
from pki.policy.entry import RegistrationEntry
from pki.policy.policy import Forbidden
from pki.policy.principal import Principal
from pki.policy.selector import Selector
from pki.spiffe import SpiffeId
from pki.svid.revocation_set import Reason
from twisted_mesh.ca.admissions import Admissions
from twisted_mesh.ca.authorities import CurrentAuthorities
from twisted_mesh.ca.blocked_keys import BlockedKeys
from twisted_mesh.ca.first_use import FirstUse, demand_one_claim
from twisted_mesh.ca.issuance import Issuance, Issued, Purchase
from twisted_mesh.ca.policy.gate import PolicyGate
from twisted_mesh.ca.policy.input import input_of
from twisted_mesh.ca.policy.source import NOWHERE, Source
from twisted_mesh.ca.revocation.crl_publisher import CrlPublisher
from twisted_mesh.ca.revoker import Revoker
from twisted_mesh.ca.turns import Turns
from twisted_mesh.interfaces import IRevocationListener
from twisted_mesh.limits.fair_queue import FairQueue
from twisted_mesh.limits.quota import Quota
from twisted_mesh.runtime.clock import Now
from twisted_mesh.runtime.log import logger
from twisted_mesh.stores.interface import IStore
from twisted_mesh.stores.records import (
    Conflict,
    IssuedCertificate,
    IssuedToken,
    Status,
    StoreError,
    TokenSpent,
)

_log = logger("ca")
#: A join token takes the place of an Idempotency-Key: its bearer repeats a request with it.
_JOINING = "join token"


@define(eq=False, repr=False)
class CertificateAuthority:
    """Signs for callers, and revokes: permit, draft, sign, record, notify.

    Every method asks :mod:`pki.policy.policy` first.
    """

    issuance: Issuance
    """What is signed and recorded."""
    publisher: CrlPublisher
    """What a revocation waits for: a CRL that says so."""
    listener: IRevocationListener
    """Hears of each revocation, when it is durable and before it is published."""
    fair_queue: FairQueue
    """What is signed for callers, each in turn; what the CA needs for itself does not queue."""
    quota: Quota
    """How many certificates callers have, and may have."""
    policy: PolicyGate
    """What is asked of all that is issued, once an entry has bought it."""
    blocked: BlockedKeys
    """Keys that nothing is certified for."""
    leaf_keys: Collection[KeyAlgorithm] = ()
    """The kinds of keys that callers may have; all if there are none."""
    _turns: Turns = field(factory=Turns, init=False)
    """Requests under way for what can be had once."""
    _revoker: Revoker = field(init=False)

    def __attrs_post_init__(self) -> None:
        issuance, told = self.issuance, (self.listener, self.publisher, self.blocked)
        self._revoker = Revoker(issuance.store, issuance.log, issuance.now, *told)

    @property
    def authorities(self) -> CurrentAuthorities:
        """Who issues now."""
        return self.issuance.authorities

    @property
    def store(self) -> IStore:
        """Where all is kept."""
        return self.issuance.store

    @property
    def now(self) -> Now:
        """The wall clock."""
        return self.issuance.now

    async def sign(
        self,
        principal: Principal,
        csr: bytes,
        requested_id: str,
        ttl: timedelta | None,
        idempotency_key: str | None = None,
        *,
        token: IssuedToken | None = None,
        source: Source = NOWHERE,
    ) -> Issued:
        """Raises :class:`PkiError` with every reason.

        The same ``idempotency_key`` from the same caller with the same CSR is answered with the same
        certificate, as long as that is good; so is the same ``token``, which buys only one.
        """
        self.issuance.log.demand_intact()
        presented: IssuedCertificate | None = None
        if token is None and principal.serial is not None:
            presented = await self.store.find(principal.serial)
            principal = evolve(principal, entry=presented.entry if presented else None)
        entries = tuple(
            self.issuance.entries.candidates(principal, only=token.entry if token else None)
        )
        policy.demand_entry(principal, requested_id, entries)
        request = self._request(csr, requested_id, ttl)
        _log.info(
            "Received CSR:\n  Subject: {subject}\n  Requested SAN: {spiffe_id}\n  From: {requester}",
            event="csr-received",
            subject=request.subject or "(empty)",
            spiffe_id=str(request.spiffe_id),
            requester=str(principal),
        )
        if token is not None:
            idempotency_key = _JOINING
            _refuse_other_key(token, request)
        granted = policy.grant(principal, request, entries, self.authorities.lifetimes)
        descends_from = None if presented is None else presented.claim
        demand_one_claim(
            principal,
            descends_from,
            lambda alone: policy.is_granted(alone, request, entries, self.authorities.lifetimes),
        )
        bought_by = _entry_of(granted, entries)
        asked = partial(input_of, principal, request, granted, bought_by, source, self.now)
        request_key = None
        if idempotency_key is not None:
            request_key = _request_key(principal, request, idempotency_key)
        claim = principal.claim if token is None else None
        is_agent = request.spiffe_id.agent is not None
        async with AsyncExitStack() as stack:
            # Always in this order: nobody waits for who waits for him.
            for turn in (
                f"agent {request.spiffe_id}" if is_agent else None,
                None if claim is None else f"claim {claim}",
                request_key,
            ):
                if turn is not None:
                    await stack.enter_async_context(self._turns.take(turn))
            if request_key is not None:
                known = await self.store.find_request(request_key)
                if known is not None:
                    return self._signed_before(known)
                _refuse_spent(token, request)
            purchase = Purchase(principal, granted, request_key, token, descends_from=descends_from)
            if claim is not None:
                first_use = FirstUse(self.store, self.now)
                found = await first_use.judge(claim, principal, request, presented)
                if isinstance(found, IssuedCertificate):
                    return self._signed_before(found)
                purchase = evolve(purchase, claim=found)
            if is_agent and token is None:
                purchase = self._admitting(purchase, request.spiffe_id, entries)
            purchase = evolve(purchase, approval=await self.policy.ask(asked))
            return await self._sign(request, purchase)

    def _admitting(
        self, purchase: Purchase, agent: SpiffeId, offered: Sequence[RegistrationEntry]
    ) -> Purchase:
        """With the own entry of an agent that comes by its platform. Raises :class:`Forbidden`, :class:`AgentTaken`."""
        admitted = Admissions(self.issuance.entries).admit(
            purchase.principal, agent, offered, purchase.grant.entry, self.now()
        )
        if admitted is None:
            return purchase
        return evolve(
            purchase,
            grant=evolve(purchase.grant, entry=admitted.own.id),
            admits=admitted.admission,
            rests_on=(admitted.by.id,),
        )

    async def sign_through(
        self,
        agent: Principal,
        entry: RegistrationEntry,
        stated: frozenset[Selector],
        csr: bytes,
        requested_id: str,
        *,
        ttl: timedelta | None,
        source: Source = NOWHERE,
    ) -> Issued:
        """For a workload of which ``agent`` states those selectors. Raises :class:`PkiError` with every reason."""
        self.issuance.log.demand_intact()
        aliases = self._aliases_of(agent)
        policy.demand_through(agent, entry, stated, aliases)
        request = self._request(csr, requested_id, ttl)
        granted = policy.grant_through(
            agent, entry, request, stated, self.authorities.lifetimes, aliases=aliases
        )
        alias = None if entry.parent is None else aliases.get(entry.parent)
        rests_on = () if alias is None else (alias.id,)
        asked = partial(input_of, agent, request, granted, entry, source, self.now, stated=stated)
        approval = await self.policy.ask(asked)
        purchase = Purchase(agent, granted, stated=stated, rests_on=rests_on, approval=approval)
        return await self._sign(request, purchase)

    def _aliases_of(self, agent: Principal) -> Mapping[SpiffeId, RegistrationEntry]:
        known = agent.spiffe_id
        return {} if known is None else self.issuance.entries.aliases_of(known)

    async def sign_by(
        self,
        principal: Principal,
        entry: RegistrationEntry,
        csr: bytes,
        requested_id: str,
        source: Source = NOWHERE,
    ) -> Issued:
        """By that entry and no other, where ``principal`` meets it. Raises :class:`PkiError` with every reason."""
        self.issuance.log.demand_intact()
        request = self._request(csr, requested_id, None)
        granted = policy.grant(principal, request, [entry], self.authorities.lifetimes)
        asked = partial(input_of, principal, request, granted, entry, source, self.now)
        approval = await self.policy.ask(asked)
        return await self._sign(request, Purchase(principal, granted, approval=approval))

    async def _sign(self, request: IssuanceRequest, purchase: Purchase) -> Issued:
        """When it is the caller's turn. Raises :class:`QuotaUsedUp`, :class:`Busy`."""
        charged = str(request.spiffe_id), purchase.grant.entry
        self.quota.charge(*charged)
        try:
            # An agent is one, whatever entries it asks by.
            holder = charged[1] if purchase.stated is None else None
            async with self.fair_queue.enter(purchase.principal.proof, holder):
                if purchase.approval is not None:
                    # Another policy may be in force by now: what is signed is allowed by that.
                    approval = await self.policy.confirm(purchase.approval)
                    purchase = evolve(purchase, approval=approval)
                return await self._sign_now(request, purchase)
        except BaseException:  # a caller that hangs up, too
            self.quota.give_back(*charged)
            raise

    async def _sign_now(self, request: IssuanceRequest, purchase: Purchase) -> Issued:
        issuer = self.authorities.current.issuing
        draft = issuer.draft(
            request.public_key,
            request.spiffe_id,
            self.now(),
            purchase.grant.lifetime,
            dns_names=request.dns_names,
            ip_addresses=request.ip_addresses,
            common_name=purchase.grant.common_name,
            spki=request.spki,
        )
        return await self.issuance.issue(draft, request.spiffe_id, purchase, issuer)

    def _signed_before(self, known: IssuedCertificate) -> Issued:
        """The answer to a request that has been answered."""
        status = known.status(self.now())
        if status is Status.PENDING:
            raise StoreError("this request was interrupted and is being resolved: ask again later")
        issuer = self.authorities.current.issuer(known.issuer)
        if status is not Status.VALID or known.der is None or issuer is None:
            raise Conflict(
                f"the certificate that this request has bought is {status}: use another Idempotency-Key or join token"
            )
        return Issued(known.der, known.serial, known.expires_at, issuer.intermediates)

    async def revoke(self, principal: Principal, serial: int, reason: Reason) -> IssuedCertificate:
        """See :meth:`Revoker.revoke`."""
        return await self._revoker.revoke(principal, serial, reason)

    async def revoke_all(
        self, principal: Principal, serials: Sequence[int], reason: Reason
    ) -> tuple[IssuedCertificate, ...]:
        """See :meth:`Revoker.revoke_all`."""
        return await self._revoker.revoke_all(principal, serials, reason)

    async def tell_revoked(self, revoked: Sequence[IssuedCertificate]) -> None:
        """See :meth:`Revoker.tell`."""
        await self._revoker.tell(revoked)

    def _request(self, csr: bytes, requested_id: str, ttl: timedelta | None) -> IssuanceRequest:
        """Every rule that the request breaks, the lifetime's among them."""
        problems: list[Problem] = []
        try:
            self.authorities.lifetimes.grant(ttl)
        except PkiError as error:
            problems += error.problems
        try:
            request = IssuanceRequest.parse(
                csr,
                requested_id,
                None if problems else ttl,
                trust_domain=self.authorities.trust_domain,
                forbidden_keys=self.authorities.current.forbidden_keys(),
                allowed=self.leaf_keys,
            )
        except Refused as error:
            raise Refused((*problems, *error.problems)) from None
        blocked = self.blocked.problem(request.public_key, request.spki)
        if blocked is not None:
            problems.append(blocked)
        if problems:
            raise Refused(problems)
        return request


def _refuse_spent(token: IssuedToken | None, request: IssuanceRequest) -> None:
    if token is None or token.spent_at is None:
        return
    agent = request.spiffe_id.agent
    how = "mesh-ctl token create" if agent is None else f"mesh-ctl agent token create {agent}"
    raise TokenSpent(
        f"this join token has bought a certificate for another CSR: have a new one made ({how})"
    )


def _entry_of(
    granted: policy.Grant, entries: Sequence[RegistrationEntry]
) -> RegistrationEntry | None:
    return next((entry for entry in entries if entry.id == granted.entry), None)


def _refuse_other_key(token: IssuedToken, request: IssuanceRequest) -> None:
    if token.key is not None and token.key != key_id(request.public_key):
        raise Forbidden(
            "token-key-only",
            "this join token is for one key, and the CSR has another: send that CSR",
        )


def _request_key(principal: Principal, request: IssuanceRequest, key: str) -> str:
    """What a repeated request is known by: the caller, what it asks for, and its word that it is the same."""
    parts = (principal.proof, request.digest, str(request.spiffe_id), key)
    return hashlib.sha256("\n".join(parts).encode("utf-8", "replace")).hexdigest()
