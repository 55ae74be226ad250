"""One coroutine on the reactor, from its start to its end or to Ctrl-C: what a command that talks to others is."""

from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import click
from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.logger import ILogObserver, globalLogBeginner

from pki.errors import PkiError
from twisted_mesh.cli.status import UNUSABLE, status_of
from twisted_mesh.cli.stdout import say
from twisted_mesh.runtime import garbage
from twisted_mesh.runtime.clock import steady
from twisted_mesh.runtime.open_files import LEAST_OPEN_FILES, too_few

reactor: Any = steady(_reactor)


def run(
    program: str, work: Callable[[], Awaitable[int]], observers: Iterable[ILogObserver] = ()
) -> int:
    """Do ``work`` on the reactor; the exit status that it returns, or that its :class:`PkiError` means.

    Such an error is told on stderr under the name of ``program``; any other is raised. Once: a reactor
    does not run again. Raises :class:`click.Abort` where a signal was quicker.
    """
    if lack := too_few(LEAST_OPEN_FILES):
        say(program, lack)
        return UNUSABLE
    outcome: list[int | BaseException] = []
    tasks: list[Deferred[None]] = []
    ending: list[bool] = []

    async def to_its_end() -> None:
        result: int | BaseException
        try:
            result = await work()
        except BaseException as error:
            result = error
        if not ending:
            outcome.append(result)
            reactor.stop()

    def end() -> None:
        """End what goes on while there is a reactor to end it on. What is over is not bothered."""
        ending.append(True)
        for task in tasks:
            task.cancel()

    garbage.as_usual()
    globalLogBeginner.beginLoggingTo(list(observers), redirectStandardIO=False, discardBuffer=True)
    reactor.callWhenRunning(lambda: tasks.append(Deferred.fromCoroutine(to_its_end())))
    _ = reactor.addSystemEventTrigger("before", "shutdown", end)
    reactor.run()
    if not outcome:
        raise click.Abort
    result = outcome[0]
    if isinstance(result, PkiError):
        say(program, str(result))
        return status_of(result)
    if isinstance(result, BaseException):
        raise result
    return result
