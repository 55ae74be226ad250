"""Who waits, by the holder that answers for it, and which holder has most; no step costs more where many wait."""

from collections import defaultdict
from typing import Generic, TypeVar

from attrs import define, field

T = TypeVar("T")


@define(eq=False)
class HolderQueue(Generic[T]):
    """Members of holders, each holder's in the order in which they came."""

    largest: int = field(default=0, init=False)
    """How many the holder with most has."""
    _members: dict[str, dict[T, None]] = field(factory=lambda: defaultdict(dict), init=False)
    _by_size: dict[int, dict[str, None]] = field(factory=lambda: defaultdict(dict), init=False)

    def size_of(self, holder: str) -> int:
        """How many it has."""
        return len(self._members.get(holder, ()))

    def first_of_largest(self) -> T:
        """Who came first of the holder with most; of several such, of the one that has been so for longest."""
        return next(iter(self._members[next(iter(self._by_size[self.largest]))]))

    def add(self, holder: str, member: T) -> None:
        """One more, who is not there yet."""
        self._members[holder][member] = None
        size = self._resized(holder, -1)
        self.largest = max(self.largest, size)

    def remove(self, holder: str, member: T) -> None:
        """One who is there."""
        members = self._members[holder]
        del members[member]
        self._resized(holder, 1)
        if not members:
            del self._members[holder]
        if not self._by_size.get(self.largest):
            self.largest -= 1

    def _resized(self, holder: str, was: int) -> int:
        """How many it has now; before, it had ``was`` more."""
        size = len(self._members[holder])
        before = size + was
        if before:
            del self._by_size[before][holder]
            if not self._by_size[before]:
                del self._by_size[before]
        if size:
            self._by_size[size][holder] = None
        return size
