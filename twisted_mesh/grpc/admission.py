"""Who may be connected and call: at most so many, and of one caller at most so many."""

import time
from collections import Counter
from collections.abc import Awaitable, Callable, Hashable
from functools import partial

from attrs import define, field
from twisted.internet.interfaces import ITransport

from twisted_mesh.grpc.call import Call
from twisted_mesh.grpc.connection import Limits, log
from twisted_mesh.grpc.status import GrpcError, Status
from twisted_mesh.limits.rate_limit import LimitedLog, Rate

#: Who is hung up on may come again at once, any number of times.
_LOGGED = Rate(1, 10)
#: How many times its connections a caller may have, of which those beyond once are only told so; and how much of all
#: connections one group of callers may.
_TOLD, _OF_GROUP = 2, 0.75


@define(eq=False)
class Admission:
    """Counts connections and calls. A caller is known by a key, once it is attested."""

    limits: Limits
    admit: Callable[[ITransport], Awaitable[object]]
    key_of: Callable[[object], Hashable]
    group_of: Callable[[object], Hashable]
    """Which callers share most of all connections, and leave the rest to others; None for no such bound."""
    farewell: GrpcError
    """What calls are told that come too late."""
    is_draining: bool = False
    connections: int = 0
    _log: LimitedLog = field(factory=lambda: LimitedLog(log, _LOGGED, time.monotonic), init=False)
    _calls: Counter[Hashable] = field(factory=Counter, init=False)
    _connections: Counter[Hashable] = field(factory=Counter, init=False)
    _groups: Counter[Hashable] = field(factory=Counter, init=False)

    def enter(self) -> bool:
        """Take a connection in, where there is room."""
        if self.is_draining or self.connections >= self.limits.connections:
            self._log.warn(
                "a gRPC connection was hung up on: {count} are open",
                event="grpc-full",
                count=self.connections,
            )
            return False
        self.connections += 1
        return True

    def leave(self, key: Hashable, group: Hashable) -> None:
        """A connection is over that was let in; it was of that caller, where one was counted."""
        self.connections -= 1
        if key in self._connections:
            _less(self._connections, key)
        if group in self._groups:
            _less(self._groups, group)

    def is_flood(self, key: Hashable, group: Hashable) -> bool:
        """Whether another connection of that caller is to be hung up on: who is told why holds a place meanwhile."""
        if self._connections[key] >= _TOLD * self.limits.connections_of_caller:
            who = "process"
        elif group is not None and self._groups[group] >= self.limits.connections * _OF_GROUP:
            who = "user"
        else:
            return False
        self._log.warn(
            "a gRPC connection was hung up on: its {who} has too many open",
            event="grpc-flood",
            who=who,
        )
        return True

    def too_many_connections(self, key: Hashable, group: Hashable) -> GrpcError | None:
        """Count a connection as that caller's; what to say where that has more than it may."""
        self._connections[key] += 1
        self._groups[group] += 1
        if self._connections[key] <= self.limits.connections_of_caller:
            return None
        return GrpcError(
            Status.RESOURCE_EXHAUSTED,
            f"this process has {self.limits.connections_of_caller} connections open already: use one for all calls",
        )

    def too_many_calls(self, key: Hashable, call: Call) -> GrpcError | None:
        """Count a call as that caller's; what to say where that has as many as it may."""
        if self._calls[key] >= self.limits.calls_of_caller:
            return GrpcError(
                Status.RESOURCE_EXHAUSTED,
                f"this process has {self.limits.calls_of_caller} calls open already: end some, or share a stream",
            )
        self._calls[key] += 1
        call.released = partial(_less, self._calls, key)
        return None


def _less(counts: Counter[Hashable], key: Hashable) -> None:
    counts[key] -= 1
    if counts[key] <= 0:
        del counts[key]
