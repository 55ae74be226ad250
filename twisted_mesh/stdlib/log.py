"""The log of programs that have no Twisted: the standard library's, by the name ``twisted_mesh.stdlib``."""

import logging

from twisted.logger import ILogObserver, LogEvent, Logger, LogLevel, formatEvent
from zope.interface import provider

log = logging.getLogger("twisted_mesh.stdlib")
_LEVELS = {LogLevel.warn: logging.WARNING, LogLevel.error: logging.ERROR}


@provider(ILogObserver)
def _pass_on(event: LogEvent) -> None:
    log.log(_LEVELS.get(event["log_level"], logging.INFO), "%s", formatEvent(event))


#: For what is shared with programs on Twisted, and says something.
passed_on = Logger(namespace=log.name, observer=_pass_on)
