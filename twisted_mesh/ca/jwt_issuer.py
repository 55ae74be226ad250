"""JWT-SVIDs, signed for what entries buy: permitted by whoever calls, recorded, then signed."""

import json
import uuid
from collections.abc import Callable, Collection, Sequence
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

from attrs import define

from pki.audit.log import Act
from pki.jwt_svid.claims import JwtClaims, demand_audience, sign_token
from pki.keys import key_id
from pki.policy.entry import RegistrationEntry
from pki.policy.id_template import CannotFill
from pki.policy.lifetimes import Lifetimes
from pki.policy.policy import Forbidden
from pki.policy.principal import Principal
from pki.policy.selector import Selector
from pki.spiffe import SpiffeId, SpiffePattern
from pki.validity import rfc3339
from twisted_mesh.ca.issuance import Issuance
from twisted_mesh.ca.jwt_keys import JwtKeys
from twisted_mesh.ca.policy.gate import Approval, PolicyGate
from twisted_mesh.ca.policy.input import token_input_of
from twisted_mesh.ca.policy.source import NOWHERE, Source
from twisted_mesh.limits.fair_queue import FairQueue
from twisted_mesh.limits.quota import Quota
from twisted_mesh.runtime.log import logger

if TYPE_CHECKING:
    from twisted_mesh.workload.interface import JwtSvid

_log = logger("ca")
#: How long a token lives unless it is asked for otherwise, and at most.
DEFAULT_LIFETIMES = Lifetimes(timedelta(minutes=5), timedelta(hours=1))


@define(eq=False, repr=False)
class JwtIssuer:
    """Signs tokens. Who may have one is decided before: by the entry, and by whose entry it is."""

    keys: JwtKeys
    issuance: Issuance
    """What the clock, the log and the entries are taken from."""
    fair_queue: FairQueue
    """What is signed for callers, each in turn."""
    quota: Quota
    """How many tokens callers have, and may have."""
    policy: PolicyGate
    """What is asked of each."""
    lifetimes: Lifetimes = DEFAULT_LIFETIMES
    issuer: str | None = None
    """``iss`` of all tokens; None for none."""

    async def issue(  # noqa: PLR0917
        self,
        principal: Principal,
        entry: RegistrationEntry,
        selectors: Collection[Selector],
        audience: Sequence[str],
        ttl: timedelta | None = None,
        source: Source = NOWHERE,
        *,
        look_again: Callable[[], object],
    ) -> "JwtSvid":
        """A token for the one ID that ``entry`` buys a caller of these selectors, asked for by ``principal``.

        That the entry counts, and is ``principal``'s to use, the caller has seen to; ``look_again`` raises what says
        that it is so no more. It is asked before anything is recorded or signed: whom a policy asks may have taken
        seconds, and nobody can revoke a token. Raises
        :class:`pki.jwt_svid.claims.BadAudience`, :class:`Forbidden`, :class:`TtlOutOfRange`,
        :class:`PolicyDenied`, :class:`PolicyUnavailable`, :class:`QuotaUsedUp`, :class:`Busy`,
        :class:`ClockBehind`, and what the store and the signer raise.
        """
        issuance, now = self.issuance, self.issuance.now()
        wanted = demand_audience(audience)
        spiffe_id = bought_id(entry, selectors)
        lifetime = self._lifetime(entry, ttl)
        issuance.log.demand_intact()
        # Whole seconds: what is told is what the token says.
        issued_at = now.replace(microsecond=0)
        expires_at = issued_at + whole(lifetime)
        issuance.record_clock.demand_life(expires_at)
        asked = partial(
            token_input_of,
            principal,
            entry,
            frozenset(selectors),
            spiffe_id,
            wanted,
            lifetime,
            source,
            issuance.now,
        )
        approval = await self.policy.ask(asked)
        claims = JwtClaims(spiffe_id, wanted, issued_at, expires_at, str(uuid.uuid4()), self.issuer)
        charged = str(spiffe_id), entry.id
        self.quota.charge(*charged)
        try:
            async with self.fair_queue.enter(principal.proof, entry.id):
                # Another policy may be in force by now: what is signed is allowed by that.
                approval = await self.policy.confirm(approval)
                look_again()
                issuance.log.demand_intact()
                issuance.record_clock.demand_life(expires_at)
                return await self._sign(principal, entry, selectors, claims, approval)
        except BaseException:  # a caller that hangs up, too
            self.quota.give_back(*charged)
            raise

    async def _sign(
        self,
        principal: Principal,
        entry: RegistrationEntry,
        selectors: Collection[Selector],
        claims: JwtClaims,
        approval: Approval,
    ) -> "JwtSvid":
        """Recorded first: no crash leaves a token of which the log says nothing."""
        key = self.keys.signer
        facts = {
            "spiffe_id": str(claims.spiffe_id),
            "audience": json.dumps(list(claims.audience), ensure_ascii=False),
            "expires_at": rfc3339(claims.expires_at),
            "kid": key_id(key.public_key),
            "entry": entry.id,
            "selectors": ", ".join(map(str, sorted(selectors))),
            **approval.facts,
        }
        await self.issuance.log.record(Act.ISSUE_JWT, claims.token_id, facts, principal)
        token = await sign_token(claims, key)
        _log.info(
            "JWT-SVID issued:\n  Id: {jti}\n  SPIFFE ID: {spiffe_id}\n  Audience: {audience}\n  Expires: {expires_at}\n"
            "  For: {requester}",
            event="jwt-signed",
            jti=claims.token_id,
            requester=str(principal),
            **{name: facts[name] for name in ("spiffe_id", "audience", "expires_at")},
        )
        from twisted_mesh.workload.interface import JwtSvid

        return JwtSvid(claims.spiffe_id, token, claims.expires_at)

    def _lifetime(self, entry: RegistrationEntry, ttl: timedelta | None) -> timedelta:
        """What was asked for, or the default; never more than the entry's certificates may live."""
        granted = self.lifetimes.grant(ttl)
        if entry.max_ttl is None or granted <= entry.max_ttl:
            return granted
        if ttl is None:
            return entry.max_ttl
        raise Forbidden("ttl-granted-only", f"the entry {entry.id} grants less than that")


def bought_id(entry: RegistrationEntry, selectors: Collection[Selector]) -> SpiffeId:
    """The one ID that ``entry`` buys whoever has these selectors. Raises :class:`Forbidden`."""
    if not entry.is_met_by(selectors):
        missing = ", ".join(map(str, entry.missing(selectors)))
        raise Forbidden("no-entry", f"the entry {entry.id} wants {missing}, which was not seen")
    try:
        pattern: SpiffePattern = entry.spiffe_id.fill(selectors)
    except CannotFill as error:
        raise Forbidden(
            "ids-granted-only", f"the entry {entry.id} buys {entry.spiffe_id}, and {error}"
        ) from None
    if any(segment in ("*", "**") for segment in pattern.segments):
        raise Forbidden(
            "ids-granted-only",
            f"the entry {entry.id} buys {pattern}, which is many IDs: a token is for one",
        )
    spiffe_id = SpiffeId.parse(str(pattern))
    if spiffe_id.is_reserved:
        raise Forbidden(
            "ids-granted-only",
            f"the entry {entry.id} buys {spiffe_id}: there are no tokens for the mesh's own components",
        )
    return spiffe_id


def whole(lifetime: timedelta) -> timedelta:
    """In whole seconds."""
    return timedelta(seconds=int(lifetime.total_seconds()))
