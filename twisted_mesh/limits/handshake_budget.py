"""How much of the reactor's time goes to handshakes of those whose handshakes fail: a share, and in turn."""

from collections import OrderedDict, deque
from collections.abc import Callable

from attrs import define, field, frozen
from twisted.internet.interfaces import IDelayedCall, IReactorTime

#: Accounts at most; whoever comes when all are in use shares one.
MOST_ACCOUNTS = 8192
_SHARED = ""
#: How many of the oldest accounts a new one may have looked at, for one that is paid.
_LOOKS = 4


@frozen
class Share:
    """Of the reactor's time: so much of each second, and so many seconds at once after a pause."""

    of_time: float
    burst: float

    @property
    def depth(self) -> float:
        """Seconds that it takes to pay for a whole burst."""
        return self.burst / self.of_time


#: Nobody is kept waiting for more seconds than this beyond the burst: what others of its network or of all have
#: cost at once, before they could be put off, is not for those who come later to pay.
MOST_WAIT = 2.0
#: For so many seconds after it has paid, a network stands in line with all others that have failed.
REMEMBERED = 60.0
#: A quarter of a second is some 50 refused handshakes of the dearest kind, and some hundred ordinary ones.
OF_NETWORK = Share(0.1, 0.25)
#: However many networks there are, three quarters of the reactor are for everybody else.
OF_ALL = Share(0.25, 1.0)


@define(eq=False)
class Turn:
    """Somebody who is put off."""

    network: str
    go: Callable[[], None]
    _budget: "HandshakeBudget"

    def cancel(self) -> None:
        """It has gone, or has been told to."""
        self._budget.forget(self)


@define(eq=False)
class HandshakeBudget:
    """Who owes for failed handshakes waits until that is paid; who owes nothing waits for nobody.

    A handshake that succeeds costs its peer nothing here. One that fails is charged to its network
    (:func:`~twisted_mesh.limits.rate_limit.network_of`) with the time it took; time pays, at the
    network's share. Beyond the burst, each step of a handshake from there waits for its turn: one at
    a time, in the order in which they came, the networks by turns. So nobody is shut out: an honest
    peer behind the address of an attacker waits for as long as those before it cost, divided by the
    share. With 24 attackers that cost 5 ms each that is 1.2 s.
    """

    clock: IReactorTime
    of_network: Share = OF_NETWORK
    of_all: Share = OF_ALL
    most: int = MOST_ACCOUNTS
    put_off: int = field(default=0, init=False)
    """How many steps have had to wait, for the metrics."""
    _paid_at: OrderedDict[str, float] = field(factory=OrderedDict, init=False)
    """When all that a network owes will have been paid."""
    _all_paid_at: float = field(default=0.0, init=False)
    _waiting: OrderedDict[str, deque[Turn]] = field(factory=OrderedDict, init=False)
    """By network; the one whose turn was longest ago is first."""
    _timer: IDelayedCall | None = field(default=None, init=False)

    def enter(self, network: str, go: Callable[[], None]) -> Turn | None:
        """None for whoever may go on at once; else ``go`` is called when it is its turn."""
        if network not in self._waiting and not self.wait(network):
            return None
        self.put_off += 1
        turn = Turn(network, go, self)
        self._waiting.setdefault(network, deque()).append(turn)
        self._arm()
        return turn

    def charge(self, network: str, seconds: float) -> None:
        """A handshake from there has failed, and took so much of the reactor's time."""
        now = self.clock.seconds()
        account = self._account(network, now)
        self._paid_at[account] = _later(
            self._paid_at.get(account, 0.0), now, seconds, self.of_network
        )
        self._all_paid_at = _later(self._all_paid_at, now, seconds, self.of_all)

    def wait(self, network: str) -> float:
        """The seconds until a step of a handshake from there may be taken; 0.0 for now."""
        now = self.clock.seconds()
        paid_at = self._paid_at.get(self._account(network, now))
        if paid_at is None or paid_at + REMEMBERED <= now:
            return 0.0
        own = paid_at - now - self.of_network.depth
        others = self._all_paid_at - now - self.of_all.depth
        # Without a tolerance, whoever is woken on time is early by a rounding.
        return wait if (wait := max(own, others)) > 1e-9 else 0.0

    def forget(self, turn: Turn) -> None:
        """It will not come any more. May be said more than once."""
        turns = self._waiting.get(turn.network)
        if turns is not None and turn in turns:
            turns.remove(turn)
            if not turns:
                del self._waiting[turn.network]
        if not self._waiting and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _account(self, network: str, now: float) -> str:
        """Whose debt counts: its own, or that of all for whom there is no place."""
        accounts = self._paid_at
        if network in accounts or len(accounts) < self.most:
            return network
        for _ in range(min(_LOOKS, len(accounts))):
            known, paid_at = accounts.popitem(last=False)
            if paid_at + REMEMBERED <= now and known != _SHARED:
                return network
            accounts[known] = paid_at  # to the end: the next look is at another
        return _SHARED

    def _arm(self) -> None:
        if self._waiting and self._timer is None:
            soonest = min(map(self.wait, self._waiting))
            self._timer = self.clock.callLater(soonest, self._next)

    def _next(self) -> None:
        """Let one go on whose network has paid; what it costs is charged before the next."""
        self._timer = None
        for network, turns in self._waiting.items():
            if not self.wait(network):
                turn = turns.popleft()
                if turns:
                    self._waiting.move_to_end(network)
                else:
                    del self._waiting[network]
                try:
                    turn.go()
                finally:
                    self._arm()
                return
        self._arm()


def _later(paid_at: float, now: float, seconds: float, share: Share) -> float:
    return min(max(paid_at, now) + seconds / share.of_time, now + share.depth + MOST_WAIT)
