"""A log that remembers its events, rendered as people see them."""

from typing import Any

from twisted.logger import Logger

from twisted_mesh.runtime.event_text import event_text


class RecordingLog(Logger):
    """Hand it to what logs; nothing reaches the global log."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        super().__init__(namespace="mesh.test", observer=self.events.append)

    def count(self, event: str) -> int:
        return sum(e.get("event") == event for e in self.events)

    def text(self, event: str) -> str:
        """All texts of that event."""
        return "\n".join(event_text(e) for e in self.events if e.get("event") == event)

    def all_text(self) -> str:
        return "\n".join(event_text(e) for e in self.events)
