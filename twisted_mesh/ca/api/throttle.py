"""How often the CA's callers may ask: each caller with proof for itself, the others by where they are."""

from typing import Any

from attrs import define, field

from pki.policy.policy import Action, Kind, Principal
from twisted_mesh.limits.rate_limit import DEFAULT_RATE, Rate, TokenBuckets, address_key

_A_USER = "unix:uid:"


@define(eq=False)
class Throttle:
    """One for all listeners of a CA. Strangers have a set of their own: no flood of them costs others a place."""

    clock: Any
    """An ``IReactorTime``."""
    rate: Rate = DEFAULT_RATE
    _known: TokenBuckets = field(init=False)
    _strangers: TokenBuckets = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._known, self._strangers = (
            TokenBuckets(self.rate, self.clock.seconds) for _ in range(2)
        )

    def charge(self, principal: Principal, action: Action | None, address: Any) -> None:
        """Raises :class:`RateLimited`. What administrators do is never limited, but for signing."""
        if principal.kind is Kind.ANONYMOUS:
            is_user = principal.proof.startswith(_A_USER)
            self._strangers.charge(principal.proof if is_user else address_key(address))
        elif principal.kind is not Kind.ADMINISTRATOR or action is Action.SIGN:
            self._known.charge(principal.proof)
