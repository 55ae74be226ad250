"""Who wants to be told that something has changed."""

from collections.abc import Callable

from attrs import define, field


@define(eq=False, repr=False)
class Watchers:
    """Those of one thing, in the order in which they came."""

    _watchers: list[Callable[[], None]] = field(factory=list, init=False)

    def add(self, changed: Callable[[], None]) -> Callable[[], None]:
        """Have ``changed`` called at each change; what is returned ends that, and may be called again."""
        self._watchers.append(changed)

        def stop() -> None:
            if changed in self._watchers:
                self._watchers.remove(changed)

        return stop

    def tell(self) -> None:
        """It has changed. Whoever comes or goes meanwhile counts from the next time on."""
        for changed in tuple(self._watchers):
            changed()
