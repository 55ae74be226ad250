"""Who may be connected: at most so many, and those who have proven nothing are the first to make room."""

import resource
from collections import Counter, OrderedDict
from collections.abc import Callable
from enum import Enum, auto
from typing import Self

from attrs import Factory, define, field, frozen
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from pki.errors import Malformed
from twisted_mesh.limits.rate_limit import Rate, TokenBuckets
from twisted_mesh.runtime.log import logger

#: Descriptors that are no connections: the record, the log, key files, listening sockets, the reactor's own.
_OTHER_DESCRIPTORS = 64
#: Of one listener, whatever the system would let it have: what 1 GiB holds.
_MOST = 10_000
#: Of a service: what 2 GiB hold, at some 100 kB each.
_MOST_OF_SERVER = 20_000
_FEWEST = 8
#: One over TLS takes some 100 kB as soon as it is there, so this many without proof take 25 MB, whatever the flood.
_MOST_UNPROVEN = 256
#: Connections that were hung up on keep their descriptor until the reactor's next turn: so many may.
_LEAVING = 64
#: One place in so many of those for the unproven is kept free of proven holders who have more than their share.
_FOR_NEWCOMERS = 4
#: Of the log.
_LINES = Rate(1, 1)


@frozen
class Capacity:
    """How many connections one listener holds."""

    most: int
    """At once; those whose handshake is under way are counted."""
    unproven: int
    """Of these, so many may belong to peers that have proven nothing, or not yet."""
    of_peer: int
    """Of one peer that has proven who it is, so many."""
    of_address: int
    """Of one address that has proven nothing, so many."""

    @classmethod
    def of(cls, most: int) -> Self:
        """Half for any one peer; half, 256 at most, for the unproven; three quarters of that for one address.

        Raises :class:`Malformed`.
        """
        if most < _FEWEST:
            raise Malformed(
                f"{most} connections at once are too few: at least {_FEWEST} are needed"
            )
        unproven = min(most // 2, _MOST_UNPROVEN)
        return cls(most, unproven, most // 2, unproven * 3 // 4)

    @classmethod
    def of_system(cls, listeners: int, at_most: int = _MOST) -> Self:
        """What the limit of file descriptors leaves for each of so many listeners, up to ``at_most``."""
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft == resource.RLIM_INFINITY:
            return cls.of(at_most)
        each = (soft - _OTHER_DESCRIPTORS) // listeners - _LEAVING
        return cls.of(max(_FEWEST, min(at_most, each)))

    @classmethod
    def of_server(cls, most: int | None) -> Self:
        """Of a service, whose callers may all have one ID, and all come back at once; None for all descriptors.

        Three quarters for any one peer; half for the unproven. Raises :class:`Malformed`.
        """
        if most is None:
            most = cls.of_system(1, _MOST_OF_SERVER).most
        unproven = cls.of(most).most // 2
        return cls(most, unproven, most * 3 // 4, unproven * 3 // 4)


class _State(Enum):
    TAKEN = auto()
    LEAVING = auto()
    """Hung up on, to make room."""
    GONE = auto()


@define(eq=False)
class Place:
    """A connection's place. Whoever was admitted to it gives it back by :meth:`leave`."""

    key: str
    """Whose it is: an address, or what was proven."""
    is_proven: bool
    _admission: "ConnectionLimit"
    holder: str = field(default=Factory(lambda self: self.key, takes_self=True), init=False)
    """Who answers for it when room is wanted: the same, unless :meth:`belong` says otherwise."""
    hang_up: Callable[[], object] = field(default=lambda: None, init=False)
    """Ends the connection at once."""
    state: _State = field(default=_State.TAKEN, init=False)

    @property
    def made_room(self) -> bool:
        """Whether it was taken away for somebody else."""
        return self.state is _State.LEAVING

    def speak(self) -> None:
        """The peer's first word: it does not count among the silent any more."""
        if self.state is _State.TAKEN:
            group = self._admission.group(self)
            if self in group.silent:
                del group.silent[self]
                group.idle[self] = None

    def prove(self, key: str) -> bool:
        """The peer has proven to be ``key``. False where that has as many connections as it may."""
        return self.state is _State.TAKEN and self._admission.prove(self, key)

    def belong(self, holder: str) -> None:
        """Count it with all others of ``holder`` when room is wanted: what let several names in is one."""
        if self.state is _State.TAKEN and self.is_proven and holder != self.holder:
            self._admission.belong(self, holder)

    def serve(self) -> None:
        """A request is being answered: this is no time to make room."""
        if self.state is _State.TAKEN:
            self._admission.group(self).remove(self)

    def rest(self) -> None:
        """It is answered: of all that may have to make room, this is the last now."""
        if self.state is _State.TAKEN:
            group = self._admission.group(self)
            group.remove(self)
            group.idle[self] = None

    def leave(self) -> None:
        """The connection is gone. May be said more than once."""
        was, self.state = self.state, _State.GONE
        self._admission.left(self, made_room=was is _State.LEAVING, counted=was is _State.TAKEN)


@define(eq=False)
class _Group:
    """The places of one address, or of one proven holder."""

    size: int = 0
    silent: "OrderedDict[Place, None]" = field(factory=OrderedDict)
    """Those that have not said a word yet, the first of them first."""
    idle: "OrderedDict[Place, None]" = field(factory=OrderedDict)
    """Those that have, and wait; the one that has done nothing for longest first."""

    @property
    def may_make_room(self) -> bool:
        return bool(self.silent or self.idle)

    def remove(self, place: Place) -> None:
        self.silent.pop(place, None)
        self.idle.pop(place, None)

    def pop(self) -> Place:
        """Who has to make room: of the silent or of the others, whichever a flood is made of."""
        crowd = self.silent if len(self.silent) >= len(self.idle) else self.idle
        place, _ = crowd.popitem(last=False)
        return place


@define(eq=False)
class ConnectionLimit:
    """Counts the connections of one listener.

    Where there is no room a newcomer gets that of an unproven connection: of its own address if that
    has its share, else of the address that has the most; there of the silent or of the others,
    whichever are more; and of these the one that has done nothing for the longest time. So a flood
    that proves nothing pushes itself out, and whoever proves in a moment who he is gets in.

    Where those with proof have taken all, the holder with the most gives one that idles, unless it has
    no more than its share. A few places are made so for newcomers who have yet to prove something, and
    a flood of those then turns over these few. Where nobody can make room the newcomer is refused.
    """

    capacity: Capacity
    clock: IReactorTime
    name: str
    """Of the listener, in the log."""
    log: Logger = field(factory=lambda: logger("connections"))
    refused: int = field(default=0, init=False)
    """How many were not let in, since the start."""
    made_room: int = field(default=0, init=False)
    """How many had to make room, since the start."""
    _proven: dict[str, _Group] = field(factory=dict, init=False)
    """By holder."""
    _unproven: dict[str, _Group] = field(factory=dict, init=False)
    """By address."""
    _of_peer: "Counter[str]" = field(factory=Counter, init=False)
    """Connections of each proven key."""
    _sizes: dict[bool, int] = field(factory=lambda: {True: 0, False: 0}, init=False)
    _leaving: int = field(default=0, init=False)
    _logged: tuple[int, int] = field(default=(0, 0), init=False)
    _lines: TokenBuckets = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._lines = TokenBuckets(_LINES, self.clock.seconds)

    def __len__(self) -> int:
        """Connections that are open, those that were hung up on a moment ago among them."""
        return self._sizes[True] + self._sizes[False] + self._leaving

    @property
    def unproven(self) -> int:
        """Connections whose peer has proven nothing, or not yet."""
        return self._sizes[False]

    def admit(self, key: str, *, is_proven: bool = False) -> Place | None:
        """A place for ``key``, whose ``hang_up`` is for the caller to set; None where there is none."""
        if not self._has_room(key, is_proven=is_proven) and not self._make_room(
            key, is_proven=is_proven
        ):
            self.refused += 1
            self._log_full(key)
            return None
        place = Place(key, is_proven, self)
        self._count(place)
        return place

    def _has_room(self, key: str, *, is_proven: bool) -> bool:
        capacity = self.capacity
        if is_proven:
            enough = self._of_peer[key] >= capacity.of_peer
        else:
            enough = (
                self._size(self._unproven, key) >= capacity.of_address
                or self._sizes[False] >= capacity.unproven
            )
        return not enough and self._sizes[True] + self._sizes[False] < capacity.most

    def _make_room(self, key: str, *, is_proven: bool) -> bool:
        """Whether somebody was hung up on for ``key``."""
        if self._leaving >= _LEAVING:
            return False
        if is_proven and self._of_peer[key] >= self.capacity.of_peer:
            return False
        if not is_proven and self._size(self._unproven, key) >= self.capacity.of_address:
            group = self._unproven[key]
        else:
            group = self._yielding(is_proven=is_proven)
        if not group.may_make_room:
            return False
        place = group.pop()
        self._discount(place)
        place.state = _State.LEAVING
        self._leaving += 1
        self.made_room += 1
        self._log_full(place.key)
        place.hang_up()
        return True

    def _yielding(self, *, is_proven: bool) -> _Group:
        """Whose connection makes room for a newcomer; an empty group where nobody's does."""
        unproven = _largest(self._unproven)
        newcomers = max(1, self.capacity.unproven // _FOR_NEWCOMERS)
        full = self._sizes[True] + self._sizes[False] >= self.capacity.most
        yields = not unproven.may_make_room if is_proven else self._sizes[False] < newcomers
        if full and yields:
            holder = _largest(self._proven)
            if holder.size > max(1, self.capacity.most // (len(self._proven) + 1)):
                return holder
        return unproven

    def belong(self, place: Place, holder: str) -> None:
        """See :meth:`Place.belong`."""
        was = self._proven[place.holder]
        idles = place in was.idle
        self._discount(place)
        place.holder = holder
        self._count(place)
        if not idles:
            self._proven[holder].remove(place)

    def prove(self, place: Place, key: str) -> bool:
        """Count it as a connection of ``key`` from now on; see :meth:`Place.prove`."""
        if self._of_peer[key] >= self.capacity.of_peer:
            self.refused += 1
            self._log_full(key)
            return False
        self._discount(place)
        place.key, place.holder, place.is_proven = key, key, True
        self._count(place)
        return True

    def left(self, place: Place, *, made_room: bool, counted: bool) -> None:
        """See :meth:`Place.leave`."""
        self._leaving -= made_room
        if counted:
            self._discount(place)

    def group(self, place: Place) -> _Group:
        """All places that are counted with that one."""
        return (self._proven if place.is_proven else self._unproven)[place.holder]

    def _count(self, place: Place) -> None:
        groups = self._proven if place.is_proven else self._unproven
        group = groups.setdefault(place.holder, _Group())
        group.size += 1
        self._of_peer[place.key] += place.is_proven
        (group.idle if place.is_proven else group.silent)[place] = None
        self._sizes[place.is_proven] += 1

    def _discount(self, place: Place) -> None:
        groups = self._proven if place.is_proven else self._unproven
        group = groups[place.holder]
        group.size -= 1
        group.remove(place)
        if not group.size:
            del groups[place.holder]
        self._of_peer[place.key] -= place.is_proven
        if not self._of_peer[place.key]:
            del self._of_peer[place.key]
        self._sizes[place.is_proven] -= 1

    @staticmethod
    def _size(groups: dict[str, _Group], key: str) -> int:
        group = groups.get(key)
        return group.size if group else 0

    def _log_full(self, key: str) -> None:
        """One line a second at most, with all that came since the last one."""
        if self._lines.take(self.name):
            return
        refused, made_room = self.refused - self._logged[0], self.made_room - self._logged[1]
        self._logged = self.refused, self.made_room
        self.log.warn(
            "{name} has no room: {refused} connections were refused and {made_room} idle ones made room; "
            "{open} of {most} are open, {unproven} of them without proof. The last was of {key}",
            event="connections-full",
            name=self.name,
            refused=refused,
            made_room=made_room,
            open=len(self),
            most=self.capacity.most,
            unproven=self.unproven,
            key=key,
        )


def _largest(groups: dict[str, _Group]) -> _Group:
    """Of those that may make room, the one with most; an empty one where there is none."""
    able = (group for group in groups.values() if group.may_make_room)
    return max(able, key=lambda group: group.size, default=_Group())
