"""Turns for what only a few may do at once, of which any number may wait."""

from twisted.internet.defer import DeferredSemaphore


class Turns(DeferredSemaphore):
    """A semaphore that any number may wait for, also where each of them is done at once with its turn.

    Twisted's own calls the next one within the end of the one before: some hundreds who have nothing to wait for then
    meet the end of Python's recursion, and the turns of those are lost for good.
    """

    _ended = 0
    """Turns that are over and not given on yet."""
    _is_giving = False

    def release(self) -> None:
        """Give a turn on; within another one's end, after that."""
        self._ended += 1
        if self._is_giving:
            return
        self._is_giving = True
        try:
            while self._ended:
                self._ended -= 1
                super().release()
        finally:
            self._is_giving = False
