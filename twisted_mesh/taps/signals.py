"""What a signal means to a service: none that people send by habit kills it, or does so halfway.

SIGTERM, SIGINT and SIGQUIT stop it gracefully, SIGHUP has it read its files again and reopen its log, SIGUSR1
reopens the log, SIGUSR2 does nothing. The others are the system's own: SIGTSTP pauses a process and SIGCONT has it
go on, SIGWINCH and SIGPIPE are ignored, and nobody handles SIGKILL.
"""

import os
import signal
from collections.abc import Callable
from types import FrameType
from typing import Any

from attrs import define
from twisted.logger import Logger

from twisted_mesh import observe
from twisted_mesh.interfaces import IReactor

STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)
#: Those that end a process which does not know them.
_HARMLESS = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


#: What came before there was a reactor to heed it.
_early: list[int] = []


def before_the_start() -> None:
    """While nothing has been taken yet: what stops ends the process, with status 0, and nothing else does."""
    for number in _HARMLESS:
        _install(number, _remember)
    for number in (signal.SIGTERM, signal.SIGQUIT):
        signal.signal(number, lambda number, frame: os._exit(0))
    # What has nothing to stop, Ctrl-C just ends.
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _remember(number: int, frame: FrameType | None) -> None:
    _early.append(number)


@define(eq=False)
class Signals:
    """Has the reactor's thread do what a signal asks for, once the reactor runs."""

    reactor: IReactor
    log: Logger
    reread: Callable[[], None]
    is_stopping: bool = False
    _at_once: Callable[[], object] | None = None

    def install_first(self) -> None:
        """From the start on, and before the reactor runs: a stop waits until it does.

        Ctrl-C does not wait: the one who presses it sits there, and what a start leaves half done the next one
        does again.
        """
        for number in (signal.SIGTERM, signal.SIGQUIT):
            signal.signal(number, self._stop)
        for number in _HARMLESS:
            _install(number, self._harmless)
        for early in dict.fromkeys(_early):
            self._harmless(early, None)
        _early.clear()

    def install(self) -> None:
        """Once the reactor runs, in place of its own: with those twistd ends by the signal, with a status of -15."""
        for number in STOPPING:
            signal.signal(number, self._stop)

    def hurry(self, at_once: Callable[[], object]) -> None:
        """Have a second one that stops do that, in place of saying that it is stopping already."""
        self._at_once = at_once

    def stopping(self) -> None:
        """It stops, by whatever cause: no signal begins that anew."""
        self.is_stopping = True

    def end(self, *, at_once: bool) -> None:
        """What a signal that stops does, or with ``at_once`` a second one: said by whoever supervises this process."""
        if not self.is_stopping:
            self.is_stopping = True
            self.reactor.callWhenRunning(self.reactor.stop)
        elif at_once and self._at_once is not None:
            self._at_once()

    def _stop(self, number: int, frame: FrameType | None) -> None:
        if self.is_stopping and number == signal.SIGINT:
            os._exit(130)  # a second Ctrl-C means it
        if self.is_stopping and self._at_once is not None:
            self.reactor.callFromThread(self._at_once)
        elif self.is_stopping:
            self.reactor.callFromThread(self._say_that_it_stops, number)
        else:
            self.is_stopping = True
            self.reactor.callFromThread(self.reactor.stop)

    def _harmless(self, number: int, frame: FrameType | None) -> None:
        self.reactor.callFromThread(self._heed, number)

    def _heed(self, number: int) -> None:
        if number != signal.SIGUSR2:
            # Also while it stops: whoever has moved the log away looks for its last lines in the new one.
            observe.reopen()
        if self.is_stopping:
            self._say_that_it_stops(number)
        elif number == signal.SIGUSR2:
            self.log.info("SIGUSR2 means nothing here", event="signal")
        elif number == signal.SIGHUP:
            self.reread()

    def _say_that_it_stops(self, number: int) -> None:
        self.log.info(
            "{name}: it is stopping already, and requests may finish; SIGKILL ends it at once",
            event="signal",
            name=signal.Signals(number).name,
        )


def _install(number: int, handler: Callable[[int, FrameType | None], Any]) -> None:
    """Unless a debugger or whoever started us has a handler of their own there."""
    current = signal.getsignal(number)
    is_ours = getattr(current, "__module__", "") == __name__
    if is_ours or current in (signal.SIG_DFL, signal.SIG_IGN, None):
        signal.signal(number, handler)
