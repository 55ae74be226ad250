"""JWT-SVIDs of this machine's processes: one for each entry, ID and audience, until half of its life is over."""

from collections import OrderedDict
from collections.abc import Container, Sequence
from datetime import datetime, timedelta

from attrs import define, field, frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from pki.errors import PkiError
from pki.jwt_svid.compact import kid_of
from pki.jwt_svid.jwks import read_jwks
from pki.policy.selector import Selector
from pki.spiffe import SpiffeId
from twisted_mesh.limits.rate_limit import Rate, RateLimited, TokenBuckets
from twisted_mesh.runtime.clock import Now
from twisted_mesh.runtime.log import logger
from twisted_mesh.runtime.tasks import spawn
from twisted_mesh.workload import meters
from twisted_mesh.workload.interface import IWorkloadIssuer, JwtSvid
from twisted_mesh.workload.rights import Bought

_log = logger("workload")

#: Tokens that are kept at most; the one that was asked for longest ago goes first.
_MOST = 4096
#: How often one identity may have a token made that is not there yet: each is a signature and a line in the audit log.
RATE = Rate(20, 200)

_Key = tuple[str, SpiffeId, tuple[str, ...]]


@frozen
class _Kept:
    token: JwtSvid
    until: datetime
    kid: str | None


@define(eq=False)
class HeldTokens:
    """All of them, in memory only. Whoever an entry lets in shares its tokens, as it does its SVID."""

    issuer: IWorkloadIssuer
    clock: IReactorTime
    now: Now
    rate: Rate = RATE
    _kept: OrderedDict[_Key, _Kept] = field(factory=OrderedDict, init=False)
    _waiting: dict[_Key, list[Deferred[JwtSvid]]] = field(factory=dict, init=False)
    _entries: Container[str] | None = field(default=None, init=False)
    """Those that count; None before anybody has said which. What comes too late for them is not kept."""
    _buckets: TokenBuckets = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._buckets = TokenBuckets(self.rate, self.clock.seconds)

    def __len__(self) -> int:
        return len(self._kept)

    async def get(
        self,
        bought: Bought,
        selectors: frozenset[Selector],
        audience: Sequence[str],
        ttl: timedelta | None,
    ) -> JwtSvid:
        """The one that is kept, or a fresh one; who asks for the same at once gets the same.

        Raises :class:`PkiError`, :class:`RateLimited` for too many new ones.
        """
        key = (*bought.key, tuple(audience))
        kept = self._kept.get(key)
        if kept is not None and self.now() < kept.until and self._is_believed(kept):
            self._kept.move_to_end(key)
            return kept.token
        waiter: Deferred[JwtSvid] = Deferred()
        waiters = self._waiting.get(key)
        if waiters is None:
            wait = self._buckets.take(f"{bought.entry.id} {bought.spiffe_id}")
            if wait > 0:
                raise RateLimited(
                    f"tokens of {bought.spiffe_id} for new audiences are asked for too often: keep those that you have",
                    wait,
                )
            self._waiting[key] = [waiter]
            _ = spawn(self._make(key, bought, selectors, audience, ttl), "a token", _log)
        else:
            waiters.append(waiter)
        return await waiter

    def _is_believed(self, kept: _Kept) -> bool:
        """Whether its key is in the bundle still: one that was stolen is taken out, and makes its tokens worthless."""
        bundles = self.issuer.sources().bundles
        jwks = None if bundles is None else bundles.jwks.get(kept.token.spiffe_id.trust_domain)
        if jwks is None or kept.kid is None:
            return True
        return any(authority.kid == kept.kid for authority in read_jwks(jwks))

    def keep(self, entries: Container[str]) -> None:
        """Forget those that were bought by any other entry."""
        self._entries = entries
        for key in [key for key in self._kept if key[0] not in entries]:
            del self._kept[key]

    def forget_all(self) -> None:
        """Have none any more."""
        self.keep(())

    async def _make(
        self,
        key: _Key,
        bought: Bought,
        selectors: frozenset[Selector],
        audience: Sequence[str],
        ttl: timedelta | None,
    ) -> None:
        asked_at = self.now()
        outcome: JwtSvid | Exception
        try:
            outcome = await self.issuer.issue_jwt(bought.entry, selectors, audience, ttl)
        except Exception as error:
            meters.FAILURES.labels("jwt").inc()
            if not isinstance(error, PkiError):
                _log.failure("a workload's token could not be made", event="workload-broke")
            outcome = error
        else:
            meters.ISSUED.labels("jwt").inc()
            if self._entries is None or bought.entry.id in self._entries:
                until = asked_at + (outcome.expires_at - asked_at) / 2
                self._kept[key] = _Kept(outcome, until, kid_of(outcome.token))
                while len(self._kept) > _MOST:
                    self._kept.popitem(last=False)
        for waiter in self._waiting.pop(key):
            if waiter.called:
                continue
            if isinstance(outcome, Exception):
                waiter.errback(outcome)
            else:
                waiter.callback(outcome)
