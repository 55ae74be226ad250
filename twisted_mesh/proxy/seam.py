"""What a protocol that is carried may add: bytes before the first, and a reader of both directions in between.

Whatever stands here is given bytes and values, and answers with bytes: it knows no socket. Without it bytes go
through as they come.
"""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Protocol

from attrs import frozen
from OpenSSL import SSL
from twisted.internet.interfaces import IAddress

from pki.errors import Problem
from twisted_mesh.proxy.listener import Listener
from twisted_mesh.trust.connections import Peer


@frozen
class Caller:
    """Who has called a listener, and where."""

    listener: Listener
    address: IAddress
    """Where it calls from."""
    local: IAddress
    """Where it was taken."""
    peer: Peer | None = None
    """What it has proven; None where it speaks no TLS."""
    tls: SSL.Connection | None = None
    """OpenSSL's end, to be asked and never to read or write; None where it speaks no TLS."""
    objections: Callable[[], Sequence[Problem]] = tuple
    """Judges it again: every reason why it would not be let in now."""
    now: Callable[[], datetime] | None = None
    """The time of day that it is judged by; None where it is not."""


@frozen
class ToTarget:
    """Send this to the target."""

    data: bytes


@frozen
class ToCaller:
    """Send this to the caller."""

    data: bytes


@frozen
class EndTarget:
    """Say to the target that nothing more comes."""


@frozen
class EndCaller:
    """Say to the caller that nothing more comes."""


@frozen
class PauseCaller:
    """Have the caller say no more for now: what it has said already waits."""


@frozen
class ResumeCaller:
    """Go on hearing the caller."""


@frozen
class Close:
    """Send what is still to be sent, and close both sides."""

    reason: str = "done"
    """A short word, for counters."""


Step = ToTarget | ToCaller | EndTarget | EndCaller | PauseCaller | ResumeCaller | Close


class IFilter(Protocol):
    """Reads both directions of one connection. Whatever it raises aborts both sides, and is logged."""

    @property
    def half_told(self) -> int:
        """Which thing the caller has begun that means nothing before it is whole, counted from 1; 0 for none.

        It has a moment for the rest.
        """

    def from_caller(self, data: bytes) -> Sequence[Step]:
        """The caller says this."""

    def from_target(self, data: bytes) -> Sequence[Step]:
        """The target says this."""

    def caller_ended(self) -> Sequence[Step]:
        """The caller says no more; it may still listen."""

    def target_ended(self) -> Sequence[Step]:
        """The target says no more; it may still listen."""

    def target_lost(self) -> Sequence[Step] | None:
        """The target broke off, by a reset say; None has the caller hear that as it is."""

    def unreachable(self, problem: Problem) -> Sequence[Step]:
        """There is no target, because of ``problem``; both sides are closed after this."""

    def too_slow(self) -> Sequence[Step]:
        """The rest of what was :attr:`half_told` has not come in time."""

    def finish(self) -> Sequence[Step]:
        """The proxy stops: begin nothing new, and close where nothing is under way."""


#: From who has called to what the target is told first.
Opening = Callable[[Caller], bytes]
#: From who has called to what reads its connection.
FilterFactory = Callable[[Caller], IFilter]


@frozen
class Protocols:
    """What one listener adds to the bytes that it carries."""

    opening: Opening | None = None
    filter: FilterFactory | None = None
