"""SIGHUP: what a service reads again, what has changed by that, and that a broken file changes nothing."""

from collections.abc import Awaitable, Callable, Iterable, Sequence

from attrs import frozen
from twisted.logger import Logger

from pki.errors import ANY_ERROR, PkiError, printable


@frozen
class Reread:
    """One thing that is read again."""

    what: str
    """As people know it: the option and the file."""
    again: Callable[[], Awaitable[str]]
    """Read it, and have it count; what has changed by that, or nothing. Raises :class:`PkiError`: then nothing has."""


def difference(before: Iterable[str], now: Iterable[str]) -> str:
    """Two sets of names compared, in words; nothing where they are the same."""
    old, new = set(before), set(now)
    told = [
        f"{word} {', '.join(sorted(names))}"
        for word, names in (("new:", new - old), ("gone:", old - new))
        if names
    ]
    return printable("; ".join(told), 1000)


async def reread_all(things: Sequence[Reread], log: Logger) -> None:
    """Read each again, whatever becomes of the others, and log what came of it."""
    changed = 0
    for thing in things:
        try:
            change = await thing.again()
        except PkiError as error:
            log.error(
                "SIGHUP: {what} is not taken up, and what was read before stays in force: {reason}",
                event="reread-failed",
                what=thing.what,
                reason=str(error),
            )
        except ANY_ERROR:
            log.failure("rereading {what} broke", event="reread-broke", what=thing.what)
        else:
            changed += bool(change)
            log.info(
                "SIGHUP: {what} was read again: {change}",
                event="reread",
                what=thing.what,
                change=change or "nothing has changed",
            )
    told = (
        "SIGHUP: {changed} of {things} things that are read again have changed"
        if things
        else "SIGHUP: no option of this service names anything that is read again"
    )
    log.info(
        told,
        event="reread-done",
        changed=changed,
        things=len(things),
    )
