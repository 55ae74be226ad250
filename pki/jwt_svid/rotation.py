"""Rotation of the keys that sign JWT-SVIDs: what is to be done with them now.

A key is published before it signs, so that whoever keeps a copy of the bundle has it by then; and it stays
published, once another signs, until no token of it can be good any more.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta
from enum import Enum, StrEnum, auto

from attrs import evolve, frozen

from pki.jwt_svid.jwks import JwtAuthority
from pki.keys import KeyAlgorithm

#: A key lives at least so many times as long as the longest token: three quarters of its life pass before there is a
#: successor.
LEAST_LIVES = 4
#: For how long a key is published before it signs, at least: twice as long as readers are told to keep a bundle.
PUBLISHED_FOR = timedelta(minutes=10)
#: What validators may allow for clocks that differ.
LEEWAY = timedelta(minutes=1)


class KeyState(StrEnum):
    """Where a key is in its life."""

    PREPARED = "prepared"
    """Published, and signs nothing yet."""
    ACTIVE = "active"
    RETIRED = "retired"
    """Published for the tokens that it has signed; its private half is gone."""


class Step(Enum):
    """What may be due."""

    WAIT = auto()
    PREPARE = auto()
    """Make the next key, and publish it."""
    ACTIVATE = auto()
    """The prepared one signs from now on."""
    DROP = auto()
    """The prepared one is of another algorithm than is wanted now, or was made by a clock that was ahead."""


@frozen
class KeyTerm:
    """One key as far as its time is concerned."""

    authority: JwtAuthority
    algorithm: KeyAlgorithm
    published_at: datetime
    active_at: datetime | None = None
    retired_at: datetime | None = None
    longest: timedelta = timedelta()
    """The longest life that a token of it may have been given."""
    is_hurried: bool = False
    """Whether an administrator wants it to sign as soon as it has been published for long enough."""

    @property
    def kid(self) -> str:
        """What tokens call it."""
        return self.authority.kid

    @property
    def state(self) -> KeyState:
        """By which of the moments have come."""
        if self.retired_at is not None:
            return KeyState.RETIRED
        return KeyState.PREPARED if self.active_at is None else KeyState.ACTIVE

    @property
    def forget_at(self) -> datetime | None:
        """When no token of it can be good any more; None for one that is not retired."""
        return None if self.retired_at is None else self.retired_at + self.longest + LEEWAY


@frozen
class Rules:
    """What the operator has said."""

    algorithm: KeyAlgorithm
    life: timedelta
    """For how long a key signs."""
    longest: timedelta
    """What a token lives at most."""

    @property
    def published_for(self) -> timedelta:
        """For how long a key is published before it signs, at least."""
        return min(PUBLISHED_FOR, self.life / 4)


@frozen
class Line:
    """The keys there are, in the order in which they were published."""

    keys: tuple[KeyTerm, ...] = ()
    sequence: int = 1
    """Of the bundle: it grows whenever another set of keys is published."""

    @property
    def active(self) -> KeyTerm | None:
        """The one that signs."""
        return self._first(KeyState.ACTIVE)

    @property
    def prepared(self) -> KeyTerm | None:
        """The one that signs next."""
        return self._first(KeyState.PREPARED)

    @property
    def retired(self) -> tuple[KeyTerm, ...]:
        """Those that have signed."""
        return tuple(key for key in self.keys if key.state is KeyState.RETIRED)

    @property
    def authorities(self) -> tuple[JwtAuthority, ...]:
        """What is published."""
        return tuple(key.authority for key in self.keys)

    def find(self, kid: str) -> KeyTerm | None:
        """The key of that name."""
        return next((key for key in self.keys if key.kid == kid), None)

    def with_key(self, key: KeyTerm, now: datetime) -> "Line":
        """With one key more, or with ``key`` in the place of the one of its name."""
        if self.find(key.kid) is None:
            return self._published((*self.keys, key), now)
        return self._published((key if k.kid == key.kid else k for k in self.keys), now)

    def without(self, kid: str, now: datetime) -> "Line":
        """Without the key of that name."""
        return self._published((key for key in self.keys if key.kid != kid), now)

    def activated(self, kid: str, rules: Rules, now: datetime) -> "Line":
        """The same with that key active, and the one that was active before retired."""
        return evolve(
            self,
            keys=tuple(
                evolve(key, active_at=now, longest=rules.longest, is_hurried=False)
                if key.kid == kid
                else (evolve(key, retired_at=now) if key.state is KeyState.ACTIVE else key)
                for key in self.keys
            ),
        )

    def allowing(self, longest: timedelta) -> "Line":
        """The same, where the active key may be asked for tokens of that life."""
        return evolve(
            self,
            keys=tuple(
                evolve(key, longest=max(key.longest, longest))
                if key.state is KeyState.ACTIVE
                else key
                for key in self.keys
            ),
        )

    def _first(self, state: KeyState) -> KeyTerm | None:
        return next((key for key in self.keys if key.state is state), None)

    def _published(self, keys: Iterable[KeyTerm], now: datetime) -> "Line":
        """Seconds since 1970 where that is more: it grows also over a state that was put back."""
        found = tuple(keys)
        if tuple(key.authority for key in found) == self.authorities:
            return evolve(self, keys=found)
        return Line(found, max(self.sequence + 1, int(now.timestamp())))


def prepare_at(active: KeyTerm, rules: Rules) -> datetime:
    """When its successor is to be made."""
    if active.active_at is None or active.algorithm is not rules.algorithm:
        return active.published_at
    return active.active_at + rules.life * 3 / 4


def activate_at(line: Line, prepared: KeyTerm, rules: Rules) -> datetime:
    """When ``prepared`` takes over."""
    active = line.active
    if active is None or active.active_at is None:
        return prepared.published_at
    is_wanted_now = (
        prepared.is_hurried
        or active.algorithm is not rules.algorithm
        or active.active_at > prepared.published_at  # by a clock that was ahead
    )
    due = prepared.published_at if is_wanted_now else active.active_at + rules.life
    return max(due, prepared.published_at + rules.published_for)


def next_step(line: Line, rules: Rules, now: datetime) -> Step:
    """What is to be done now. After it was done, ask again."""
    active, prepared = line.active, line.prepared
    if prepared is not None:
        is_ahead = prepared.published_at > now + rules.published_for
        if prepared.algorithm is not rules.algorithm or is_ahead:
            return Step.DROP
        is_due = active is None or now >= activate_at(line, prepared, rules)
        return Step.ACTIVATE if is_due else Step.WAIT
    if active is None or now >= prepare_at(active, rules):
        return Step.PREPARE
    if active.active_at is not None and active.active_at > now + rules.published_for:
        # The clock was ahead and is right again: nobody is to wait for that day.
        return Step.PREPARE
    return Step.WAIT


def can_be_forgotten(key: KeyTerm, now: datetime, seen_ended: timedelta) -> bool:
    """Whether a retired key may go out of the bundle.

    ``seen_ended`` is for how long, on a clock that does not jump, no token of it has been good: a wall clock that is
    ahead for a moment makes nobody's token worthless.
    """
    return (
        key.forget_at is not None
        and now >= key.forget_at
        and seen_ended >= min(key.longest, PUBLISHED_FOR)
    )
