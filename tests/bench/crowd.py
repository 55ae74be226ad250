"""Many callers in one thread, who keep a mutual TLS connection each and come back as soon as they have lost it.

Where nobody listens any more they wait until somebody does, and are there in the same moment.
They are pyOpenSSL's, since they speak hybrid groups too: the standard library's OpenSSL may be too old for these.
"""

import heapq
import random
import re
import selectors
import socket
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from attrs import define, field
from OpenSSL import SSL

#: Seconds between two looks whether somebody listens again.
_SCOUT = 0.02
#: Seconds until the next try after one that failed otherwise, drawn anew each time.
_PAUSE = (0.05, 0.25)
#: Seconds from a try to its answer, after which it is given up.
_PATIENCE = 30.0
#: So many dial at once while they come for the first time; when they come back, all of them do.
_FIRST = 200
_REFUSED = "ECONNREFUSED"
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)


@define(eq=False)
class Caller:
    """One endpoint: what it shows and asks, and the connection that it has."""

    context: SSL.Context
    host: str
    """The address that it calls from."""
    request: bytes
    """Asked once over each connection."""
    connection: Any = None
    began_at: float = 0.0
    """This try."""
    lost_at: float = 0.0
    """The connection before."""
    has_shaken_hands: bool = False
    is_back: bool = False
    answer: bytes = b""


class Lost(Exception):
    """A connection that is no more, or that has brought another answer than the one that was asked for."""


@define(eq=False)
class Crowd:
    """Callers of one port of this machine."""

    port: int
    callers: Sequence[Caller]
    failures: "Counter[str]" = field(factory=Counter)
    """Tries that came to nothing, by why."""
    waits: list[float] = field(factory=list)
    """Of each who is back: seconds from the loss of its connection to its answer over the next one."""
    back: int = 0
    first_back_at: float = 0.0
    last_back_at: float = 0.0
    _selector: selectors.BaseSelector = field(factory=selectors.DefaultSelector)
    _due: list[tuple[float, int]] = field(factory=list)
    """When who tries again."""
    _refused: list[int] = field(factory=list)
    """Who found nobody listening."""
    _scout_at: float = 0.0
    _look_at: float = 0.0
    _draw: random.Random = field(factory=lambda: random.Random(18))

    def come(self, seconds: float) -> None:
        """For the first time, one after the other. Raises :class:`AssertionError` where one of them is not let in."""
        left = list(range(len(self.callers)))

        def are_there() -> bool:
            while left and len(self.callers) - len(left) - self.back < _FIRST:
                at = left.pop()
                self.callers[at].lost_at = time.monotonic()
                heapq.heappush(self._due, (0.0, at))
            return self.are_back()

        self.go_on(seconds, are_there)
        assert self.are_back(), f"{self.back} of {len(self.callers)}: {dict(self.failures)}"

    def are_back(self) -> bool:
        """Each once, and none of them lost since."""
        return self.back == len(self.callers) <= len(self.waits)

    def forget(self) -> None:
        """Count anew: who is there now is to come back too."""
        self.failures, self.waits = Counter(), []
        self.first_back_at = self.last_back_at = 0.0

    def go_on(self, seconds: float, is_enough: Callable[[], bool]) -> None:
        """For so long, or until it is enough."""
        deadline = time.monotonic() + seconds
        while not is_enough() and (now := time.monotonic()) < deadline:
            if self._refused and now >= self._scout_at:
                self._scout(now)
            while self._due and self._due[0][0] <= now:
                self._dial(heapq.heappop(self._due)[1])
            for key, _ in self._selector.select(0.02):
                self._go_on_with(key.data)
            if now >= self._look_at:
                self._look_at = now + 1.0
                self._give_up(now - _PATIENCE)

    def close(self) -> None:
        for caller in self.callers:
            self._drop(caller)
        self._selector.close()

    def _scout(self, now: float) -> None:
        self._scout_at = now + _SCOUT
        with socket.socket() as scout:
            if scout.connect_ex(("127.0.0.1", self.port)) == 0:
                for at in self._refused:
                    heapq.heappush(self._due, (now, at))
                self._refused.clear()

    def _dial(self, at: int) -> None:
        caller = self.callers[at]
        plain = socket.socket()
        plain.setblocking(False)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        plain.bind((caller.host, 0))
        plain.connect_ex(("127.0.0.1", self.port))
        caller.connection = SSL.Connection(caller.context, plain)
        caller.connection.set_connect_state()
        caller.began_at, caller.has_shaken_hands, caller.answer = time.monotonic(), False, b""
        self._selector.register(caller.connection, selectors.EVENT_WRITE, at)

    def _go_on_with(self, at: int) -> None:
        caller = self.callers[at]
        try:
            if not caller.has_shaken_hands:
                caller.connection.do_handshake()
                caller.has_shaken_hands = True
                caller.connection.sendall(caller.request)
            while True:
                self._read(caller, caller.connection.recv(65536))
        except SSL.WantReadError:
            self._selector.modify(caller.connection, selectors.EVENT_READ, at)
        except SSL.WantWriteError:
            self._selector.modify(caller.connection, selectors.EVENT_WRITE, at)
        except (SSL.Error, Lost) as error:
            self._lost(at, _why(error))

    def _read(self, caller: Caller, data: bytes) -> None:
        caller.answer += data
        head, mark, body = caller.answer.partition(b"\r\n\r\n")
        if caller.is_back or not mark:
            return
        if not head.startswith(b"HTTP/1.1 2"):
            raise Lost(f"{head.splitlines()[0].decode()} {body[:80].decode()}")
        length = _LENGTH.search(head + b"\r\n")
        if length is not None and len(body) >= int(length[1]):
            now = time.monotonic()
            caller.is_back = True
            self.back += 1
            self.waits.append(now - caller.lost_at)
            self.first_back_at = self.first_back_at or now
            self.last_back_at = now

    def _lost(self, at: int, why: str) -> None:
        caller, now = self.callers[at], time.monotonic()
        self._drop(caller)
        if caller.is_back:
            caller.is_back = False
            self.back -= 1
            caller.lost_at = now
            heapq.heappush(self._due, (now, at))
        elif why == _REFUSED:
            self._refused.append(at)
        else:
            self.failures[why] += 1
            heapq.heappush(self._due, (now + self._draw.uniform(*_PAUSE), at))

    def _give_up(self, before: float) -> None:
        for at, caller in enumerate(self.callers):
            if caller.connection is not None and not caller.is_back and caller.began_at < before:
                self._lost(at, f"no answer in {_PATIENCE:.0f} s")

    def _drop(self, caller: Caller) -> None:
        if caller.connection is not None:
            self._selector.unregister(caller.connection)
            caller.connection.close()
            caller.connection = None


def _why(error: Exception) -> str:
    if isinstance(error, SSL.SysCallError):
        return str(error.args[-1])
    if isinstance(error, SSL.ZeroReturnError):
        return "closed"
    if error.args and isinstance(error.args[0], list) and error.args[0]:
        return str(error.args[0][0][-1])
    return str(error) or type(error).__name__
