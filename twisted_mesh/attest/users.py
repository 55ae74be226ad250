"""The names of users, looked up off the reactor: a directory behind getpwuid(3) may take its time."""

import pwd
from collections import OrderedDict
from collections.abc import Awaitable, Callable

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.error import TimeoutError
from twisted.internet.interfaces import IReactorTime
from twisted.internet.threads import deferToThread

from twisted_mesh.runtime.log import logger
from twisted_mesh.runtime.tasks import spawn, within

_log = logger("attest")

#: Seconds for which a name is believed, or that there is none.
REMEMBERED_FOR = 60.0
#: How many users' names are remembered.
_MOST = 1024
#: Seconds that a caller waits for the name; then it is attested without.
PATIENCE = 5.0
#: Look-ups under way at once: each may hold a thread of the reactor's pool.
AT_ONCE = 4


def user_name(uid: int) -> str | None:
    """The name of a user, or None. Blocks."""
    try:
        return pwd.getpwuid(uid).pw_name
    except (KeyError, OverflowError):
        return None


@define(eq=False, repr=False)
class UserNames:
    """From uid to name: one look-up at a time for each user, remembered for a minute."""

    clock: IReactorTime
    aside: Callable[[Callable[[int], str | None], int], Awaitable[str | None]] = deferToThread
    """Runs a look-up, which blocks, off the reactor."""
    look_up: Callable[[int], str | None] = user_name
    _known: OrderedDict[int, tuple[float, str | None]] = field(factory=OrderedDict, init=False)
    _waiting: dict[int, list[Deferred[str | None]]] = field(factory=dict, init=False)

    async def of(self, uid: int) -> str | None:
        """None where the user has no name; also where it was not to be had in time: the log says so then."""
        known = self._known.get(uid)
        if known is not None and self.clock.seconds() < known[0]:
            return known[1]
        is_new = uid not in self._waiting
        if is_new and len(self._waiting) >= AT_ONCE:
            self._tell_late(uid)
            return None
        waiter: Deferred[str | None] = Deferred()
        waiters = self._waiting.setdefault(uid, [])
        waiters.append(waiter)
        if is_new:
            _ = spawn(self._find(uid), "looking up a user's name")
        try:
            return await within(self.clock, PATIENCE, waiter)
        except TimeoutError:
            self._tell_late(uid)
            return None
        finally:
            if waiter in waiters:
                waiters.remove(waiter)

    async def _find(self, uid: int) -> None:
        name = None
        try:
            name = await self.aside(self.look_up, uid)
            self._known[uid] = (self.clock.seconds() + REMEMBERED_FOR, name)
            self._known.move_to_end(uid)
            if len(self._known) > _MOST:
                self._known.popitem(last=False)
        finally:
            for waiter in tuple(self._waiting.pop(uid)):
                if not waiter.called:
                    waiter.callback(name)

    @staticmethod
    def _tell_late(uid: int) -> None:
        _log.warn(
            "The name of user {uid} could not be looked up in time: attested without unix:user",
            event="user-name-late",
            uid=uid,
        )
