"""How often the CA's callers may ask: each caller with proof for itself, the others by where they are."""

from attrs import define, field
from twisted.internet.interfaces import IAddress, IReactorTime

from pki.policy.policy import Action
from pki.policy.principal import Kind
from twisted_mesh.ca.api.authentication import Account
from twisted_mesh.limits.rate_limit import DEFAULT_RATE, Rate, TokenBuckets, address_key

_A_USER = "unix:uid:"
#: An entry with a ``*`` buys as many IDs as its holder likes, and an agent asks for many workloads: together they
#: may ask as often as so many.
_IDS = 10


@define(eq=False, repr=False)
class Throttle:
    """One for all listeners of a CA, asked before any attestor is.

    Users of this machine, and strangers, have a set of their own each: no flood of them costs others a place.
    """

    clock: IReactorTime
    rate: Rate = DEFAULT_RATE
    """Of one caller."""
    _held: TokenBuckets = field(init=False)
    _agents: TokenBuckets = field(init=False)
    """Each asks for all workloads of its machine."""
    _renewing: TokenBuckets = field(init=False)
    """By where they are, those whose CA is revoked: strangers cost them nothing, and they cost nobody else."""
    _known: TokenBuckets = field(init=False)
    _users: TokenBuckets = field(init=False)
    _strangers: TokenBuckets = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._known, self._users, self._strangers = (
            TokenBuckets(self.rate, self.clock.seconds) for _ in range(3)
        )
        of_many = Rate(self.rate.per_second * _IDS, self.rate.burst * _IDS)
        self._held = TokenBuckets(of_many, self.clock.seconds)
        self._agents = TokenBuckets(of_many, self.clock.seconds)
        self._renewing = TokenBuckets(of_many, self.clock.seconds)

    def charge(
        self,
        account: Account,
        action: Action | None,
        address: IAddress | None,
        holder: str | None = None,
    ) -> None:
        """Raises :class:`RateLimited`. What administrators do is never limited, but for signing.

        ``holder`` is who has several names, and answers for all of them, where that is known.
        """
        if account.only_renews:
            # All whom a CA had issued for come at once, many of them from one place.
            self._renewing.charge(address_key(address))
        elif account.kind is Kind.ANONYMOUS:
            if account.proof.startswith(_A_USER):
                self._users.charge(account.proof)
            else:
                self._strangers.charge(address_key(address))
        elif account.is_agent:
            self._agents.charge(account.proof)
        elif account.kind is not Kind.ADMINISTRATOR or action is Action.SIGN:
            self._known.charge(account.proof)
            if holder is not None:
                self._held.charge(holder)
