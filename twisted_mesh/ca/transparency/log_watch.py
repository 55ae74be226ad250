"""Looks after logs between certificates: whether each is there, and whether it takes what this CA issues."""

from collections.abc import Callable, Collection

from attrs import define, field
from cryptography import x509
from twisted.internet.error import TimeoutError
from twisted.internet.interfaces import IReactorTime

from pki.ct.errors import LogAway
from pki.errors import PkiError
from pki.svid.pin import Fingerprint
from twisted_mesh.ca.transparency.receipts import Receipts
from twisted_mesh.ca.transparency.standing import LogStanding
from twisted_mesh.runtime.log import logger
from twisted_mesh.runtime.tasks import Ticker, spawn, within

_log = logger("ca")
#: Seconds between two looks, and between two questions to a log that is well.
TICK, WELL = 2.0, 300.0


@define(eq=False, repr=False)
class LogWatch:
    """A loop beside issuance. A log that is away is asked for its roots, so that no certificate is spent on that."""

    receipts: Receipts
    roots: Callable[[], Collection[x509.Certificate]]
    """Those that our chains lead to now."""
    clock: IReactorTime
    _asked_at: dict[LogStanding, float] = field(factory=dict, init=False)
    _under_way: set[LogStanding] = field(factory=set, init=False)
    _ticker: Ticker = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._ticker = Ticker(self.clock, TICK, self._tick, "logs", _log)

    def start(self) -> None:
        """Look at once, and again and again."""
        self._ticker.start()

    def stop(self) -> None:
        """Look no more. May be said more than once."""
        self._ticker.stop()

    def _tick(self) -> None:
        at = self.clock.seconds()
        self._asked_at = {log: self._asked_at.get(log, -WELL) for log in self.receipts.logs}
        for log in self.receipts.logs:
            is_well = log.problem is None and not log.roots_problem
            if log in self._under_way or (is_well and at - self._asked_at[log] < WELL):
                continue
            self._asked_at[log] = at
            self._under_way.add(log)
            _ = spawn(self.look_at(log), "looking at a log", _log)

    async def look_at(self, log: LogStanding) -> None:
        """Ask one for its roots. Raises nothing of :class:`PkiError`."""
        try:
            taken = await within(self.clock, self.receipts.timeout, log.door.get_roots())
        except TimeoutError:
            late = LogAway(f"it does not answer within {self.receipts.timeout:g} s")
            self.receipts.unreachable(log, late)
        except PkiError as error:
            self.receipts.unreachable(log, error)
        else:
            self.receipts.reachable(log)
            self._compare(log, taken)
        finally:
            self._under_way.discard(log)

    def _compare(self, log: LogStanding, taken: Collection[x509.Certificate]) -> None:
        """Whether it takes chains to the roots of the moment: after a rotation, say, it may not have heard of one."""
        ours = {Fingerprint.of(root): root for root in self.roots()}
        missing = ours.keys() - {Fingerprint.of(root) for root in taken}
        problem = ""
        if missing:
            root = min(map(str, missing))
            problem = (
                f"it takes no chain to the root {root}: give it that root (mesh-ctlog --roots)"
            )
        if log.takes_roots(problem) and problem:
            _log.warn(
                "The log {log} would refuse what this CA issues: {error}",
                event="log-without-root",
                log=log.name,
                error=problem,
            )
