"""The watch over one carried connection: it lives, is silent or half-closed, or says goodbye no longer than it may."""

from typing import Protocol

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from twisted_mesh.proxy.listener import Bounds

#: Seconds in which a side takes what was said before an end that a bound has set, or is reset.
_LAST_WORDS = 5.0
#: Seconds for what means nothing before it is whole: the head of a request.
_REST = 10.0


class IWatched(Protocol):
    """A connection that is carried."""

    began: float
    """When, on the clock."""

    @property
    def bytes_heard(self) -> tuple[int, int]:
        """From its two sides."""

    @property
    def is_half_over(self) -> bool:
        """Whether one side has said all, and the other is there."""

    def cut(self, reason: str) -> None:
        """A bound is reached."""

    def give_up(self) -> None:
        """Nobody took its last words in time."""

    def too_slow(self) -> None:
        """The rest of what the caller has begun to say did not come in time."""


class Watch:
    """Looks at a connection when the next of its bounds may be reached: one timer, whatever is said meanwhile."""

    __slots__ = (
        "_bounds",
        "_clock",
        "_half_told",
        "_half_told_at",
        "_heard",
        "_link",
        "_looked",
        "_timer",
        "is_closing",
    )

    def __init__(self, link: IWatched, bounds: Bounds, clock: IReactorTime) -> None:
        self._link = link
        self._bounds = bounds
        self._clock = clock
        self._timer: IDelayedCall | None = None
        self._heard = 0
        """Bytes at the last look, and when that was."""
        self._looked = clock.seconds()
        self._half_told = 0
        """Of what the rest is waited for, and since when."""
        self._half_told_at = 0.0
        self.is_closing = False
        """Whether it ends by what nobody has said."""

    def look_later(self) -> None:
        """Have a look when the next bound may be reached; a timer that comes too soon is set anew then."""
        moments = self._moments()
        if not moments:
            return
        now = self._clock.seconds()
        deadline = max(now, min(moments))
        if self._timer is not None:
            if self._timer.getTime() <= deadline:
                return
            self._timer.cancel()
        self._timer = self._clock.callLater(deadline - now, self._look)

    def begin_anew(self) -> None:
        """Something has just happened: silence counts from now."""
        self._looked = self._clock.seconds()
        self.look_later()

    def wait_for_the_rest(self, half_told: int) -> None:
        """Of which thing the rest is to come, as a number; 0 where all that was begun is whole."""
        if half_told != self._half_told:
            self._half_told, self._half_told_at = half_told, self._clock.seconds()
            self.look_later()

    def close_soon(self) -> None:
        """It has its last words to say, and no more time than these take."""
        self.is_closing = True
        self.begin_anew()

    def stop(self) -> None:
        """It is over."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None

    def _moments(self) -> list[float]:
        """When each of the bounds is reached, if nothing is said until then."""
        bounds = self._bounds
        if self.is_closing:
            return [self._looked + _LAST_WORDS]
        moments = []
        if bounds.lifetime:
            moments.append(self._link.began + bounds.lifetime)
        if self._link.is_half_over:
            moments.append(self._looked + bounds.close)
        elif bounds.idle:
            moments.append(self._looked + bounds.idle)
        if self._half_told:
            moments.append(self._half_told_at + _REST)
        return moments

    def _look(self) -> None:
        """Whether a bound is reached."""
        self._timer = None
        link, bounds, now = self._link, self._bounds, self._clock.seconds()
        if self.is_closing:
            if now - self._looked >= _LAST_WORDS:
                link.give_up()
            else:
                self.look_later()
            return
        heard = sum(link.bytes_heard)
        if heard != self._heard:
            self._heard, self._looked = heard, now
        silent = now - self._looked
        if bounds.lifetime and now - link.began >= bounds.lifetime:
            link.cut("lifetime")
        elif self._half_told and now - self._half_told_at >= _REST:
            self._half_told = 0
            link.too_slow()
        elif link.is_half_over:
            if silent >= bounds.close:
                link.cut("close-timeout")
            else:
                self.look_later()
        elif bounds.idle and silent >= bounds.idle:
            link.cut("idle")
        else:
            self.look_later()
