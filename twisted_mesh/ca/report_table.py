"""What endpoints say of themselves at this moment, bounded in all, by each teller's share of it, and in time."""

from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

from attrs import define, field, frozen

T = TypeVar("T")

#: Characters that are remembered in all; of these one caller has a quarter at most.
MOST = 8 * 1024 * 1024
_SHARE = 4
#: Seconds that it counts after it was told last: an endpoint that is being restarted is still what it was.
LASTS = 900.0


@frozen
class _Told(Generic[T]):
    value: T
    until: float
    size: int


@define(eq=False, repr=False)
class ReportTable(Generic[T]):
    """The reports of one kind. Whoever may read trust may tell, and nothing proves it true."""

    seconds: Callable[[], float]
    """A clock that does not go back."""
    _told: "OrderedDict[tuple[str, str], _Told[T]]" = field(factory=OrderedDict, init=False)
    """By who told and by its instance, the one that ends first before the others."""
    _sizes: Counter[str] = field(factory=Counter, init=False)
    """By who told."""
    _all: int = field(default=0, init=False)

    def tell(self, who: str, instance: str, value: T | None, size: int) -> None:
        """Take in what an endpoint says, in place of what it said before: ``instance`` of whoever has proven ``who``.

        ``size`` is in characters; None says that there is nothing. What there is no room for is passed over.
        """
        self._forget()
        self._drop((who, instance))
        is_too_much = self._sizes.get(who, 0) + size > MOST // _SHARE or self._all + size > MOST
        if value is None or is_too_much:
            return
        self._told[who, instance] = _Told(value, self.seconds() + LASTS, size)
        self._sizes[who] += size
        self._all += size

    def all(self) -> list[tuple[str, T]]:
        """Who has told, and what, in order."""
        self._forget()
        return [(who, self._told[who, at].value) for who, at in sorted(self._told)]

    def _forget(self) -> None:
        now = self.seconds()
        while self._told:
            key, told = next(iter(self._told.items()))
            if told.until >= now:
                return
            self._drop(key)

    def _drop(self, key: tuple[str, str]) -> None:
        told = self._told.pop(key, None)
        if told is None:
            return
        who, _ = key
        self._all -= told.size
        self._sizes[who] -= told.size
        if not self._sizes[who]:
            del self._sizes[who]
