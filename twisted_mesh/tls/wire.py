"""The TCP connection below TLS, as whoever counts what comes from it knows it."""

from contextlib import suppress
from typing import Any


class Wire:
    """The TCP connection below, for whoever counts what comes from it."""

    def __init__(self, above: Any, below: Any) -> None:
        self._above = above
        self._below = below

    @property
    def disconnecting(self) -> bool:
        """Whether nothing more is read."""
        return bool(self._above.is_over)

    def write(self, data: bytes) -> None:
        """Send it as it is, past TLS."""
        with suppress(OSError):
            self._below.socket.send(data)

    def pauseProducing(self) -> None:
        """Read nothing."""
        self._below.stopReading()

    def resumeProducing(self) -> None:
        """Read on."""
        if not self._above.is_over:
            self._below.startReading()
