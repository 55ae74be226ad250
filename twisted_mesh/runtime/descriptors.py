"""Whether this process has run out of file descriptors, which Twisted gets over and says to itself only.

Twisted keeps one descriptor in reserve: where there is no other it gives that up for a moment, accepts whoever
waits and hangs up at once, so that nobody hangs and no port spins. It says so in debugging events of its own.
"""

import errno
import os
from collections.abc import Callable

from attrs import define, field
from twisted.logger import ILogObserver, LogEvent, Logger
from zope.interface import implementer

from pki.codes import Code
from pki.errors import Problem

#: Seconds between two lines of the log.
_PAUSE = 1.0
_ACCEPTING = "twisted.internet."
_LACK = "EMFILE encountered"
_HUNG_UP = "EMFILE recovery: Closed socket"
_NOT_ACCEPTED = "Could not accept new connection"
_LACKING = Problem(
    Code.UNHEALTHY_DESCRIPTORS,
    "no file descriptor is left: whoever connects is hung up on",
    "raise the limit (ulimit -n, or LimitNOFILE=), or look who opens so many connections",
)


@implementer(ILogObserver)
@define(eq=False, repr=False)
class Descriptors:
    """Hears what Twisted says when it accepts, and says so once a second at most."""

    seconds: Callable[[], float]
    """A clock that does not go back."""
    log: Logger
    hung_up: int = field(default=0, init=False)
    """Connections that nobody had a descriptor for."""
    _logged_at: float | None = field(default=None, init=False)

    def __call__(self, event: LogEvent) -> None:
        """An event of the log."""
        if not str(event.get("log_namespace")).startswith(_ACCEPTING):
            return
        text = str(event.get("log_format"))
        if text.startswith(_HUNG_UP):
            self.hung_up += 1
        elif text.startswith((_LACK, _NOT_ACCEPTED)):
            self._say()

    @property
    def problem(self) -> Problem | None:
        """What is wrong where there is none now."""
        try:
            os.close(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                return _LACKING
        return None

    def _say(self) -> None:
        now = self.seconds()
        if self._logged_at is not None and now - self._logged_at < _PAUSE:
            return
        self._logged_at = now
        self.log.error(
            "No file descriptor is left: whoever connects is hung up on ({hung_up} so far). Raise the limit (ulimit "
            "-n, or LimitNOFILE=), or look who opens so many connections",
            event="no-descriptors",
            hung_up=self.hung_up,
        )
